"""The constraint layer: least residuals, exact gradients, exact equalities, experts side by side.

Problem of most tests: u' + a u^2 = 0 on [0, 1], u = 1 + sum_j w_j t^j, exact solution 1 / (1 + a t).
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from pinnkit.implicit import least_squares
from pinnkit.nn import ExpertMixture, HardConstraint, Windows, interface_jumps, norm_constants

EXACT, ROUNDOFF, ITERATIVE = 1e-12, 1e-8, 1e-5


class Riccati:
    """F = u' + a u^2 on leaves (u, u'), inputs (a,)."""

    def __call__(self, inputs: Tensor, leaves: Tensor) -> Tensor:
        return (leaves[..., 1] + inputs[..., 0] * leaves[..., 0] ** 2)[..., None]

    def slopes(self, inputs: Tensor, leaves: Tensor) -> Tensor:
        by_u = 2 * inputs[..., 0] * leaves[..., 0]
        return torch.stack([by_u, torch.ones_like(by_u)], -1)[:, :, None]


def setting(number: int = 8, points: int = 24, rates: tuple[float, ...] = (0.5, 1.0, 2.0)):
    """(basis (n, 2, N), offset (B, n, 2), inputs (B, n, 1))."""
    t = torch.linspace(0, 1, points, dtype=torch.float64)
    basis = torch.stack(
        [torch.stack([t**k, k * t ** (k - 1)], 1) for k in range(1, number + 1)], -1
    )
    offset = torch.stack([torch.ones_like(t), torch.zeros_like(t)], 1).expand(len(rates), -1, -1)
    inputs = torch.tensor(rates, dtype=torch.float64)[:, None, None].expand(-1, points, 1)
    return basis, offset.clone(), inputs.clone()


def test_what_is_in_the_span_nearly_is_found():
    """1 / (1 + a t) by polynomials of degree 8: converged, small misfit, small error, per sample."""
    basis, offset, inputs = setting()
    found = HardConstraint(Riccati())(basis, offset, inputs)
    values = offset[..., 0] + torch.einsum("nj,bj->bn", basis[:, 0], found.coefficients)
    t = torch.linspace(0, 1, 24, dtype=torch.float64)
    exact = 1 / (1 + inputs[:, :1, 0] * t)
    assert bool(found.record.converged.all()) and bool((found.record.iterations < 10).all())
    assert (values - exact).abs().amax(1).tolist() == pytest.approx([0, 0, 0], abs=3e-4)
    assert found.misfit[0] < found.misfit[2] < 1e-2  # slower decay, smoother solution


def test_batch_mates_change_nothing():
    basis, offset, inputs = setting()
    layer = HardConstraint(Riccati())
    together = layer(basis, offset, inputs).coefficients
    alone = [layer(basis, offset[i : i + 1], inputs[i : i + 1]).coefficients for i in range(3)]
    assert torch.allclose(together, torch.cat(alone), rtol=0, atol=1e-13)
    # One whose functions are dependent, and is solved by singular values, neither.
    hard = basis.clone()
    hard[..., 1] = hard[..., 0]
    every = torch.stack([basis, hard, basis])
    assert torch.equal(layer(every, offset, inputs).coefficients[::2], together[::2])
    own = basis.expand(3, *basis.shape)  # the same functions, one copy per sample
    assert torch.allclose(layer(own, offset, inputs).coefficients, together, atol=1e-10)


def test_gradients_are_exact_where_the_residual_is_not_zero():
    """Two polynomials cannot solve it: without the second derivatives the gradient would be wrong."""
    basis, offset, inputs = setting(number=2, points=6, rates=(1.0, 3.0))
    layer = HardConstraint(Riccati(), rtol=1e-13)
    assert bool((layer(basis, offset, inputs).misfit > 1e-2).all())

    def coefficients(basis: Tensor, offset: Tensor, inputs: Tensor) -> Tensor:
        return layer(basis, offset, inputs).coefficients

    known = [p.clone().requires_grad_() for p in (basis, offset, inputs)]
    assert torch.autograd.gradcheck(coefficients, known, atol=1e-6, fast_mode=True)


def test_the_gauss_newton_gradient_would_be_wrong():
    """What the test above guards against, in numbers: J^T J in place of the Hessian is off by > 1 %."""
    basis, offset, inputs = setting(number=2, points=6, rates=(3.0,))
    layer = HardConstraint(Riccati(), rtol=1e-13)
    known = inputs.clone().requires_grad_()
    w = layer(basis, offset, known).coefficients
    (exact,) = torch.autograd.grad(w[0, 0], known)
    j = layer.jacobian(w.detach(), basis, offset, inputs)
    gradient = torch.func.jacrev(
        lambda c: (
            layer.jacobian(w.detach(), basis, offset, c).transpose(1, 2)
            @ layer.rows(w.detach(), basis, offset, c)[..., None]
        )[0, :, 0]
    )(inputs)
    approximate = -torch.linalg.solve((j.transpose(1, 2) @ j)[0], gradient.flatten(1))[0]
    assert (approximate - exact.flatten()).norm() > 0.01 * exact.norm()


def test_equalities_hold_to_rounding_and_have_gradients():
    """int_0^1 u dt = d and u(1) = e, two linear invariants."""
    basis, offset, inputs = setting(number=6, points=12)
    powers = torch.arange(1, 7, dtype=torch.float64)
    c = torch.stack([1 / (powers + 1), torch.ones(6, dtype=torch.float64)]).expand(3, 2, 6)
    d = torch.tensor([[-0.2, -0.3], [-0.3, -0.5], [-0.4, -0.6]], dtype=torch.float64)
    layer = HardConstraint(Riccati(), rtol=1e-12)
    found = layer(basis, offset, inputs, equalities=(c, d))
    assert (torch.einsum("bqj,bj->bq", c, found.coefficients) - d).abs().max() <= EXACT
    assert bool(found.record.converged.all())
    free = layer(basis, offset, inputs)
    assert bool((found.misfit >= free.misfit - EXACT).all())  # fewer unknowns, no smaller residual

    def coefficients(c: Tensor, d: Tensor) -> Tensor:
        return layer(basis, offset, inputs, equalities=(c, d)).coefficients

    assert torch.autograd.gradcheck(
        coefficients,
        [c.clone().requires_grad_(), d.clone().requires_grad_()],
        atol=1e-5,
        fast_mode=True,
    )


def test_the_norm_is_applied_to_every_column():
    """Weighted rows give the weighted least squares of a plain solver."""
    basis, offset, inputs = setting(number=3)
    weight = torch.linspace(1, 5, 24, dtype=torch.float64)
    layer = HardConstraint(Riccati(), lambda c: (c * weight[:, None, None]).flatten(1, 2))
    w = layer(basis, offset, inputs).coefficients[1]
    gradient = (
        layer.jacobian(w[None], basis, offset[1:2], inputs[1:2])[0].T
        @ (layer.rows(w[None], basis, offset[1:2], inputs[1:2])[0])
    )
    assert gradient.abs().max() < ROUNDOFF
    numeric = torch.func.jacrev(lambda w: layer.rows(w[None], basis, offset[:1], inputs[:1])[0])(w)
    assert torch.allclose(layer.jacobian(w[None], basis, offset[:1], inputs[:1])[0], numeric)


def test_a_ridge_is_a_row_per_coefficient():
    basis, offset, inputs = setting(number=4)
    plain = HardConstraint(Riccati())(basis, offset, inputs)
    held = HardConstraint(Riccati(), ridge=0.3)(basis, offset, inputs)
    assert bool((held.coefficients.norm(dim=1) < plain.coefficients.norm(dim=1)).all())
    assert bool((held.misfit > plain.misfit).all())  # what the ridge costs
    with pytest.raises(ValueError, match="ridge=-1"):
        HardConstraint(Riccati(), ridge=-1)


def test_a_jacobian_in_closed_form_changes_nothing_but_the_time():
    """`least_squares(jacobian=)` against rows by autograd, alone and under vmap."""
    y = torch.tensor([[1.0, 2.0, 4.0], [1.0, 0.5, 0.3]], dtype=torch.float64)
    t = torch.arange(3, dtype=torch.float64)
    z0 = torch.tensor([[1.0, 0.1]] * 2, dtype=torch.float64)

    def r(z: Tensor, y: Tensor) -> Tensor:
        return z[:, :1] * torch.exp(z[:, 1:] * t) - y

    def jacobian(z: Tensor, y: Tensor) -> Tensor:
        grown = torch.exp(z[:, 1:] * t)
        return torch.stack([grown, z[:, :1] * t * grown], -1)

    plain, _ = least_squares(r, z0, y)
    given, record = least_squares(r, z0, y, jacobian=jacobian)
    assert bool(record.converged.all()) and torch.allclose(plain, given, atol=ROUNDOFF)
    scales = torch.tensor([1.0, 2.0], dtype=torch.float64)
    both = torch.vmap(lambda s: least_squares(r, z0, s * y, jacobian=jacobian)[0])(scales)
    assert torch.allclose(both[1, :, 0], 2 * given[:, 0], atol=ROUNDOFF)


def test_failures_are_in_the_record():
    basis, offset, inputs = setting()
    found = HardConstraint(Riccati(), max_steps=1, rtol=1e-14)(basis, offset, inputs)
    assert not bool(found.record.converged.any())


def test_shapes_that_do_not_fit_are_named():
    basis, offset, inputs = setting()
    layer = HardConstraint(Riccati())
    with pytest.raises(ValueError, match=r"expected \(n, L, N\)"):
        layer(basis[:-1], offset, inputs)
    with pytest.raises(ValueError, match="leave nothing"):
        layer(basis, offset, inputs, equalities=(torch.zeros(3, 8, 8), torch.zeros(3, 8)))


def test_norm_constants_bound_every_vector():
    """Extreme values of |J v| / |B v|, found by eigenvalues; random vectors lie between."""
    gen = torch.Generator().manual_seed(0)
    j = torch.randn(30, 4, dtype=torch.float64, generator=gen)
    b = torch.randn(20, 4, dtype=torch.float64, generator=gen)
    low, high = norm_constants(j, b)
    v = torch.randn(4, 500, dtype=torch.float64, generator=gen)
    ratio = (j @ v).norm(dim=0) / (b @ v).norm(dim=0)
    assert low * (1 - EXACT) <= ratio.min() and ratio.max() <= high * (1 + EXACT)
    values = np.linalg.eigvals(np.linalg.solve((b.T @ b).numpy(), (j.T @ j).numpy())).real
    assert (low, high) == pytest.approx((values.min() ** 0.5, values.max() ** 0.5))
    with pytest.raises(ValueError, match="dependent"):
        norm_constants(j, b[:, [0, 0, 1, 2]])


# --- experts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_windows_add_up_to_one_with_all_derivatives(count, periodic):
    windows = Windows(-1.0, 2.0, count, overlap=0.7, periodic=periodic)
    x = torch.linspace(-1, 2, 301, dtype=torch.float64)
    parts = windows.taylor(x, 3)
    assert (parts[0].sum(1) - 1).abs().max() <= EXACT
    assert parts[1:].sum(2).abs().max() <= 1e-9 * (1 + float(parts.abs().max()))
    assert float(parts[0].min()) >= -EXACT and float(parts[0].max()) <= 1 + EXACT


def test_windows_have_the_derivatives_they_say():
    windows = Windows(0.0, 1.0, 3, overlap=0.9)
    x = torch.linspace(0.01, 0.99, 41, dtype=torch.float64)
    parts = windows.taylor(x, 3)
    at = x.clone().requires_grad_()
    lower = windows.taylor(at, 1)
    for r in (0, 1):
        (slope,) = torch.autograd.grad(lower[r, :, 0].sum(), at, retain_graph=True)
        assert torch.allclose((r + 1) * parts[r + 1, :, 0], slope, atol=ROUNDOFF)


def test_boxes_are_windows_without_overlap():
    windows = Windows(0.0, 1.0, 4, overlap=0)
    x = torch.tensor([0.0, 0.2, 0.26, 0.6, 1.0], dtype=torch.float64)
    assert (
        windows.taylor(x, 2)[0].argmax(1).tolist() == windows.place(x).tolist() == [0, 0, 1, 2, 3]
    )
    assert float(windows.taylor(x, 2)[1:].abs().max()) == 0
    with pytest.raises(ValueError, match="overlap=2"):
        Windows(0, 1, 4, overlap=2)


def test_experts_are_the_single_problems_side_by_side():
    basis, offset, inputs = setting(number=3)
    place = Windows(0.0, 1.0, 4).place(torch.linspace(0, 1, 24, dtype=torch.float64))
    layer = HardConstraint(Riccati())
    found = ExpertMixture(layer, place)(basis, offset, inputs)
    assert found.coefficients.shape == (3, 4, 3) and found.record.converged.shape == (3, 4)
    for k in range(4):
        own = place == k
        alone = layer(basis[own], offset[:, own], inputs[:, own])
        assert torch.allclose(found.coefficients[:, k], alone.coefficients, atol=ROUNDOFF)
    mixture = ExpertMixture(layer, place)
    values = mixture.values(found.coefficients, basis[:, 0], offset[..., 0])
    own = place == 2
    expected = offset[:, own, 0] + found.coefficients[:, 2] @ basis[own, 0].T
    assert torch.allclose(values[:, own], expected, atol=EXACT)


def test_disjoint_experts_jump_and_the_jump_is_measured():
    """u' + a u^2 = 0 alone leaves u free by a constant of integration in every box but the first."""
    basis, offset, inputs = setting(number=3)
    place = Windows(0.0, 1.0, 4).place(torch.linspace(0, 1, 24, dtype=torch.float64))
    found = ExpertMixture(HardConstraint(Riccati()), place)(basis, offset, inputs)
    edges = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    there = edges[:, None, None] ** torch.arange(1, 4, dtype=torch.float64)
    jumps = interface_jumps(found.coefficients, there, torch.ones(3, dtype=torch.float64))
    assert jumps.shape == (3, 3) and float(jumps.max()) > 1e-4
    first = ((found.coefficients[:, 1] - found.coefficients[:, 0]) @ there[0, 0]).abs()
    assert torch.allclose(jumps[:, 0], first)


def test_unequal_boxes_are_refused():
    with pytest.raises(ValueError, match="equally many"):
        ExpertMixture(HardConstraint(Riccati()), torch.tensor([0, 0, 1]))
