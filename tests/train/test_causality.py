"""Laws of the causal weights."""

import pytest
import torch

from pinnkit.train.causality import CausalSchedule, causal_weights, slice_means

EXACT = 1e-12


def draw(n, e=1, seed=0):
    gen = torch.Generator().manual_seed(seed)
    return torch.rand(n, generator=gen, dtype=torch.float64), torch.rand(
        n, e, generator=gen, dtype=torch.float64
    )


@pytest.mark.parametrize("eps", [1.0, 1e3, 1e6])
def test_weight_at_the_start_is_exactly_one(eps):
    """An inclusive sum would damp the first slice by its own residual."""
    means = draw(10, 2)[1]
    assert causal_weights(torch.zeros(1, dtype=torch.float64), means, eps)[0] == 1.0


def test_weights_never_increase_in_time():
    times = torch.linspace(0, 1, 1001, dtype=torch.float64)
    weights = causal_weights(times, draw(17, 3)[1], 4.0)
    assert (weights.diff() <= 0).all()
    assert weights.min() >= 0 and weights.max() == 1


def test_doubling_the_slices_changes_nothing():
    """The exponent is an integral: slices of equal mean can be cut in two."""
    times, means = draw(200)[0], draw(8, seed=1)[1]
    coarse = causal_weights(times, means, 3.0)
    fine = causal_weights(times, means.repeat_interleave(2, dim=0), 3.0)
    assert torch.allclose(coarse, fine, rtol=0, atol=EXACT)


def test_smallest_weight_over_equations_counts():
    times, means = draw(50)[0], draw(8, 3, seed=1)[1]
    single = [causal_weights(times, means[:, [j]], 2.0) for j in range(3)]
    assert (causal_weights(times, means, 2.0) <= torch.stack(single).amin(0) + EXACT).all()


def test_late_residual_leaves_early_times_alone():
    means = torch.zeros(10, 1, dtype=torch.float64)
    means[8:] = 100.0
    times = torch.tensor([0.0, 0.5, 0.79, 0.95], dtype=torch.float64)
    weights = causal_weights(times, means, 10.0)
    assert torch.equal(weights[:3], torch.ones(3, dtype=torch.float64))
    assert weights[3] < 1e-6


def test_weights_carry_no_gradient():
    means = draw(5)[1].requires_grad_()
    assert not causal_weights(draw(4)[0], means, 1.0).requires_grad


def test_slice_means_do_not_depend_on_the_order_of_points():
    times, squared = draw(300, 2)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(
        slice_means(times, squared, 7), slice_means(times[order], squared[order], 7), rtol=EXACT
    )


def test_empty_slice_takes_its_predecessor():
    times = torch.tensor([0.05, 0.95], dtype=torch.float64)
    means = slice_means(times, torch.tensor([[2.0], [8.0]], dtype=torch.float64), 10)
    assert means[:, 0].tolist() == [2.0] * 9 + [8.0]


def test_schedule_advances_on_small_residuals_and_ends_with_all_weights_one():
    schedule = CausalSchedule(strengths=(1.0, 10.0))
    small = torch.full((4, 1), 1e-3, dtype=torch.float64)
    large = torch.full((4, 1), 1.0, dtype=torch.float64)
    assert schedule.advance(0, large) == 0
    assert schedule.advance(0, small) == 2  # as far as the weights allow, not one by one
    assert schedule.advance(0, 30 * small) == 1
    assert schedule.advance(1, small) == 2
    assert schedule.is_last(2) and schedule.eps(2) == 0.0
    times = torch.linspace(0, 1, 5, dtype=torch.float64)
    assert torch.equal(causal_weights(times, large, schedule.eps(2)), torch.ones_like(times))
