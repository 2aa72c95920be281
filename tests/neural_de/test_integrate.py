"""The integration core: grids, Brownian paths, the loop against a naive one, blow-up, gradients."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import pinnkit as pk
from pinnkit.neural_de import (
    SDE,
    BrownianPath,
    Calculus,
    Direct,
    EulerMaruyama,
    IntegrationStatus,
    Milstein,
    Noise,
    Recompute,
    StochasticHeun,
    TimeGrid,
    check_diagonal,
    integrate,
)

EXACT, ROUNDOFF = 1e-12, 1e-8
F64 = torch.float64


def linear(noise=Noise.DIAGONAL, calculus=Calculus.ITO):
    return SDE(lambda t, z: -0.7 * z, lambda t, z: 0.4 * z, noise, calculus)


def network(seed=0, width=4):
    """Three small modules: the drift, and a diffusion that keeps components apart."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        f = torch.nn.Sequential(
            torch.nn.Linear(width, 8), torch.nn.Tanh(), torch.nn.Linear(8, width)
        ).double()
        g = torch.nn.Linear(1, width).double()
    equation = SDE(
        lambda t, z: f(z), lambda t, z: torch.tanh(g(t.reshape(-1, 1))) * z, Noise.DIAGONAL
    )
    return equation, [*f.parameters(), *g.parameters()]


class TestGrid:
    def test_float32_times_give_a_hundred_steps(self):
        """Adding 0.01 up in float32 would give a 101st step of 7e-7."""
        times = torch.tensor([0.0, 1.0], dtype=torch.float32)
        assert TimeGrid.of(times, 0.01).steps == 100
        halves = torch.arange(11, dtype=torch.float32) * 0.1
        assert TimeGrid.of(halves, 0.01).steps == 100

    def test_every_output_lies_on_the_grid(self):
        times = torch.tensor([0.0, 0.3, 0.31, 1.0], dtype=F64)
        grid = TimeGrid.of(times, 0.07)
        assert torch.equal(grid.points[list(grid.outputs)], times)
        assert float(grid.widths.max()) <= 0.07
        assert float(grid.widths.min()) > 0

    def test_refining_halves_every_step(self):
        grid = TimeGrid.of([0.0, 0.3, 1.0], 0.2)
        fine = grid.refine()
        assert torch.equal(fine.points[::2], grid.points)
        assert torch.equal(fine.points[list(fine.outputs)], grid.points[list(grid.outputs)])

    @pytest.mark.parametrize(
        ("times", "dt", "message"),
        [
            ([0.0, 0.0, 1.0], 0.1, "does not ascend after its entry 0"),
            ([0.0, 1.0, 0.5], 0.1, "does not ascend after its entry 1"),
            ([0.0, math.nan], 0.1, "nan or inf"),
            ([0.0], 0.1, "T at least 2"),
            ([0.0, 1.0], -0.1, "must be a positive number"),
        ],
    )
    def test_bad_times_are_named(self, times, dt, message):
        with pytest.raises(ValueError, match=message):
            TimeGrid.of(times, dt)


class TestBrownianPath:
    def test_coarse_increments_are_sums_of_fine_ones(self):
        path = BrownianPath.draw(TimeGrid.of([0.0, 0.3, 1.0], 0.2), 5, 2, seed=3)
        fine = path.refine().refine()
        summed = fine.increments.reshape(path.grid.steps, 4, 5, 2).sum(1)
        assert torch.allclose(summed, path.increments, rtol=0, atol=EXACT)
        assert fine.coarsen().coarsen() is path
        assert torch.allclose(fine.values()[::4], path.values(), rtol=0, atol=EXACT)

    def test_the_seed_is_the_path(self):
        grid = TimeGrid.of([0.0, 1.0], 0.25)
        first, again, other = (BrownianPath.draw(grid, 3, 2, seed=s) for s in (7, 7, 8))
        assert torch.equal(first.increments, again.increments)
        assert torch.equal(first.refine().increments, again.refine().increments)
        assert not torch.allclose(first.increments, other.increments)

    def test_drawing_leaves_the_global_generator_alone(self):
        before = torch.random.get_rng_state()
        BrownianPath.draw(TimeGrid.of([0.0, 1.0], 0.25), 3, 2, seed=7).refine()
        assert torch.equal(torch.random.get_rng_state(), before)

    def test_increments_have_the_right_law_on_every_level(self):
        """Variance h and no correlation between neighbours, within four standard errors."""
        path, n = BrownianPath.draw(TimeGrid.of([0.0, 0.5, 2.0]), 20_000, 1, seed=0), 20_000
        for level in range(3):
            scaled = path.increments[..., 0] / path.grid.widths.sqrt()[:, None]
            variance = scaled.square().mean(1)
            assert float((variance - 1).abs().max()) <= 4 * math.sqrt(2 / n), level
            neighbours = (scaled[1:] * scaled[:-1]).mean(1)
            assert float(neighbours.abs().max()) <= 4 / math.sqrt(n), level
            path = path.refine()


class TestLoop:
    def test_equals_the_naive_loop(self, gen):
        """Euler-Maruyama as anyone would write it, with a dense diffusion matrix."""
        matrix = torch.randn(3, 2, dtype=F64, generator=gen)
        equation = SDE(
            lambda t, z: torch.sin(z) * t, lambda t, z: z[:, :, None] * matrix + t, Noise.GENERAL
        )
        path = BrownianPath.draw(TimeGrid.of([0.0, 0.4, 1.0], 0.2), 4, 2, seed=0)
        z0 = torch.randn(4, 3, dtype=F64, generator=gen)
        found = integrate(equation, z0, [0.0, 0.4, 1.0], brownian=path)
        z, states = z0, [z0]
        for k in range(5):
            t, h = path.grid.points[k], path.grid.widths[k]
            g = z[:, :, None] * matrix + t
            z = z + torch.sin(z) * t * h + torch.einsum("bhm,bm->bh", g, path.increments[k])
            states.append(z)
        expected = torch.stack([states[0], states[2], states[5]])
        assert torch.allclose(found.states, expected, rtol=0, atol=EXACT)
        assert found.status is IntegrationStatus.COMPLETE
        assert (found.steps, found.evaluations) == (5, 10)

    def test_scalar_noise_as_vector_and_as_matrix(self, gen):
        """g of shape (B, H) and (B, H, 1) mean the same."""
        z0 = torch.rand(4, 3, dtype=F64, generator=gen)
        ends = []
        for method in (EulerMaruyama(), Milstein(), Milstein(derivative_free=True)):
            vector = SDE(lambda t, z: -z, lambda t, z: z * z.sum(1, True), Noise.SCALAR)
            matrix = SDE(vector.drift, lambda t, z: (z * z.sum(1, True))[..., None], Noise.SCALAR)
            for equation in (vector, matrix):
                ends.append(integrate(equation, z0, [0.0, 0.5], dt=0.05, method=method).end)
        for a, b in zip(ends[::2], ends[1::2], strict=True):
            assert torch.allclose(a, b, rtol=0, atol=EXACT)

    def test_every_sample_may_have_its_own_clock(self, gen):
        """Two clocks in one batch give what two runs give; a gap of length 0 stands still."""
        z0 = torch.rand(2, 3, dtype=F64, generator=gen)
        times = torch.tensor([[0.0, 0.5], [0.4, 1.0], [1.0, 1.0]], dtype=F64)
        equation = SDE(lambda t, z: -z * t, lambda t, z: 0.3 * z + 0 * t, Noise.DIAGONAL)
        path = BrownianPath.draw(TimeGrid.of(times, 0.1), 2, 3, seed=0)
        for method in (EulerMaruyama(), Milstein(), Milstein(derivative_free=True)):
            both = integrate(equation, z0, times, method=method, brownian=path)
            for b in (0, 1):
                z = z0[b : b + 1]
                for k in range(path.grid.steps):
                    t0, t1 = path.grid.points[k, b], path.grid.points[k + 1, b]
                    z = method.step(
                        equation, t0, t1, float(t1 - t0), z, path.increments[k, b : b + 1]
                    )
                assert torch.allclose(both.end[b], z[0], rtol=0, atol=EXACT)
            assert torch.equal(both.states[2, 1], both.states[1, 1])
            assert both.reached.tolist() == [1.0, 1.0]

    def test_the_same_path_whatever_the_gradient(self, gen):
        """Same seed, same states: with and without gradient, direct and recomputed."""
        equation, _ = network()
        z0 = torch.rand(3, 4, dtype=F64, generator=gen)
        runs = [
            integrate(equation, z0, [0.0, 1.0], dt=0.1, backward=b) for b in (Direct(), Recompute())
        ]
        with torch.no_grad():
            runs.append(integrate(equation, z0, [0.0, 1.0], dt=0.1, backward=Recompute(every=3)))
        assert all(torch.equal(r.states, runs[0].states) for r in runs)

    def test_never_waits_for_the_device(self):
        """The number of values read back by Python does not depend on the number of steps."""

        class Reads(TorchDispatchMode):
            def __init__(self):
                super().__init__()
                self.count = 0

            def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                self.count += func is torch.ops.aten._local_scalar_dense.default
                return func(*args, **(kwargs or {}))

        counts = []
        for dt in (0.1, 0.01):
            path = BrownianPath.draw(TimeGrid.of([0.0, 1.0], dt), 2, 2, seed=0)
            with Reads() as reads:
                integrate(linear(), torch.ones(2, 2, dtype=F64), [0.0, 1.0], brownian=path)
            counts.append(reads.count)
        assert counts[0] == counts[1]

    def test_float32_follows_float64(self, gen):
        """The state's dtype is kept; along one path the difference is rounding."""
        z0 = torch.rand(3, 2, dtype=F64, generator=gen)
        path = BrownianPath.draw(TimeGrid.of([0.0, 1.0], 0.1), 3, 2, seed=0)
        single = BrownianPath(path.grid, path.increments.float(), path.seed)
        wide = integrate(linear(), z0, [0.0, 1.0], brownian=path).end
        narrow = integrate(linear(), z0.float(), [0.0, 1.0], brownian=single).end
        assert narrow.dtype is torch.float32
        assert torch.allclose(narrow.double(), wide, rtol=0, atol=1e-5)


class TestCalculi:
    def test_conversion_is_the_dense_formula(self, gen):
        """1/2 sum_k (D g_k) g_k from the full Jacobian, for general noise."""
        a = torch.randn(3, 2, 3, dtype=F64, generator=gen)
        equation = SDE(
            lambda t, z: -z, lambda t, z: torch.sin(z @ a.reshape(3, 6)).reshape(-1, 3, 2)
        )
        z = torch.randn(4, 3, dtype=F64, generator=gen)
        t = torch.zeros((), dtype=F64)
        found = equation.to_stratonovich().drift(t, z)
        for b in range(4):
            g = equation.diffusion(t, z[b : b + 1])[0]
            jacobian = torch.func.jacrev(lambda y: equation.diffusion(t, y[None])[0])(z[b])
            expected = -z[b] - 0.5 * torch.einsum("ikj,jk->i", jacobian, g)
            assert torch.allclose(found[b], expected, rtol=0, atol=EXACT)

    @pytest.mark.parametrize("noise", [Noise.DIAGONAL, Noise.SCALAR, Noise.GENERAL])
    def test_there_and_back(self, noise, gen):
        z, t = torch.randn(4, 3, dtype=F64, generator=gen), torch.zeros((), dtype=F64)
        equation = SDE(lambda t, z: -z, lambda t, z: torch.sin(z), noise)
        back = equation.to_stratonovich().to_ito()
        assert torch.allclose(back.drift(t, z), equation.drift(t, z), rtol=0, atol=EXACT)
        assert back.calculus is Calculus.ITO

    def test_both_calculi_agree_in_the_limit(self):
        """Euler-Maruyama on the Ito form, Heun on the Stratonovich form, one path, small steps."""
        z0 = torch.ones(50, 1, dtype=F64)
        path = BrownianPath.draw(TimeGrid.of([0.0, 1.0], 1 / 512), 50, 1, seed=0)
        equation = linear(calculus=Calculus.STRATONOVICH)
        heun = integrate(equation, z0, [0.0, 1.0], method=StochasticHeun(), brownian=path).end
        euler = integrate(equation.to_ito(), z0, [0.0, 1.0], brownian=path).end
        exact = torch.exp(-0.7 + 0.4 * path.increments.sum(0))
        assert float((heun - exact).abs().max()) <= 1e-3
        assert float((euler - exact).abs().max()) <= 4e-2


class TestRefusals:
    @pytest.mark.parametrize(
        ("equation", "method", "message"),
        [
            (linear(Noise.GENERAL), Milstein(), "Levy areas of general noise"),
            (linear(), StochasticHeun(), r"sense of Ito\. Pass sde\.to_stratonovich\(\)"),
            (
                linear(calculus=Calculus.STRATONOVICH),
                EulerMaruyama(),
                r"sense of Stratonovich\. Pass sde\.to_ito\(\)",
            ),
        ],
    )
    def test_wrong_methods(self, equation, method, message):
        with pytest.raises(pk.UnsupportedProblemError, match=message):
            integrate(equation, torch.ones(1, 2, dtype=F64), [0.0, 1.0], dt=0.1, method=method)

    def test_noise_that_is_not_diagonal(self):
        """A network that mixes components is no diagonal noise, though its values are vectors."""
        mixed = SDE(lambda t, z: -z, lambda t, z: z.flip(1), Noise.DIAGONAL)
        z0 = torch.rand(3, 5, dtype=F64)
        with pytest.raises(pk.DeclarationError, match="depends on other components"):
            integrate(mixed, z0, [0.0, 1.0], dt=0.1, method=Milstein())
        assert integrate(mixed, z0, [0.0, 1.0], dt=0.1).status.ok
        check_diagonal(linear(), torch.zeros((), dtype=F64), z0)

    def test_every_single_mixed_pair_is_found(self):
        z = torch.rand(2, 5, dtype=F64)
        for i, j in itertools.permutations(range(5), 2):
            bump = torch.zeros(5, 5, dtype=F64)
            bump[i, j] = 0.1
            mixed = SDE(lambda t, z: -z, lambda t, z, m=bump: z + z @ m.T, Noise.DIAGONAL)
            with pytest.raises(pk.DeclarationError, match=f"component {i} "):
                check_diagonal(mixed, torch.zeros((), dtype=F64), z)

    def test_shapes(self):
        z0 = torch.ones(3, 2, dtype=F64)
        flat = SDE(lambda t, z: -z, lambda t, z: torch.ones(2, dtype=F64), Noise.ADDITIVE)
        with pytest.raises(pk.DeclarationError, match=r"\(2,\) for z of shape \(3, 2\)"):
            integrate(flat, z0, [0.0, 1.0])
        matrix = SDE(lambda t, z: -z, lambda t, z: torch.ones(3, 2, 2, dtype=F64), Noise.DIAGONAL)
        with pytest.raises(pk.DeclarationError, match="is a matrix, and diagonal noise"):
            integrate(matrix, z0, [0.0, 1.0])
        path = BrownianPath.draw(TimeGrid.of([0.0, 1.0]), 3, 1, seed=0)
        with pytest.raises(ValueError, match=r"\(1, 3, 2\) are needed"):
            integrate(linear(), z0, [0.0, 1.0], brownian=path)

    def test_start_that_is_not_finite(self):
        z0 = torch.tensor([[1.0], [math.nan]], dtype=F64)
        with pytest.raises(ValueError, match="nan or inf in row 1"):
            integrate(linear(), z0, [0.0, 1.0])


class TestBlowUp:
    def test_is_a_status_and_the_sample_stands_still(self):
        """dz = z^3 dt explodes at t = 1 / (2 z0^2): one sample does, its neighbour does not."""
        equation = SDE(lambda t, z: z**3, lambda t, z: 0.01 * z, Noise.DIAGONAL)
        z0 = torch.tensor([[0.1], [2.0]], dtype=F64)
        found = integrate(equation, z0, [0.0, 0.5, 1.0], dt=0.01)
        assert found.status is IntegrationStatus.BLOWN_UP
        assert found.complete.tolist() == [True, False]
        assert 0.1 < float(found.reached[1]) < 0.3
        assert bool(torch.isfinite(found.states).all())
        assert torch.equal(found.states[1, 1], found.states[2, 1])

    def test_sends_no_gradient_back(self):
        rate = torch.tensor(1.0, dtype=F64, requires_grad=True)
        equation = SDE(lambda t, z: rate * z**3, lambda t, z: 0.01 * z, Noise.DIAGONAL)
        z0 = torch.tensor([[0.1], [2.0]], dtype=F64, requires_grad=True)
        found = integrate(equation, z0, [0.0, 1.0], dt=0.01)
        found.end.sum().backward()
        alone = integrate(equation, z0[:1].detach(), [0.0, 1.0], dt=0.01)
        assert rate.grad is not None and bool(torch.isfinite(rate.grad))
        assert z0.grad is not None and float(z0.grad[1]) == 0.0
        assert bool(torch.isfinite(alone.end).all())

    def test_nan_of_the_drift(self):
        """A logarithm of a negative number: frozen at the last number."""
        equation = SDE(
            lambda t, z: torch.log(z) - 5, lambda t, z: torch.zeros_like(z), Noise.ADDITIVE
        )
        found = integrate(equation, torch.ones(1, 1, dtype=F64), [0.0, 1.0], dt=0.1)
        assert found.status is IntegrationStatus.BLOWN_UP
        assert bool(torch.isfinite(found.states).all())

    def test_units_do_not_matter(self):
        """z in other units: no status changes."""
        for unit in (1e-6, 1e6):
            end = integrate(linear(), torch.full((2, 2), unit, dtype=F64), [0.0, 1.0], dt=0.1)
            base = integrate(linear(), torch.ones(2, 2, dtype=F64), [0.0, 1.0], dt=0.1)
            assert end.status.ok
            assert torch.allclose(end.end / unit, base.end, rtol=ROUNDOFF, atol=0)


class TestGradients:
    METHODS = (
        (EulerMaruyama(), Calculus.ITO),
        (Milstein(), Calculus.ITO),
        (Milstein(derivative_free=True), Calculus.ITO),
        (StochasticHeun(), Calculus.STRATONOVICH),
    )

    @pytest.mark.parametrize(("method", "calculus"), METHODS)
    def test_recomputed_is_direct(self, method, calculus, gen):
        """The same gradient for the start and for every parameter, whatever is kept."""
        equation, parameters = network()
        if calculus is Calculus.STRATONOVICH:
            equation = equation.to_stratonovich()
        z0 = torch.rand(3, 4, dtype=F64, generator=gen, requires_grad=True)
        gradients = []
        for backward in (Direct(), Recompute(), Recompute(every=1), Recompute(every=100)):
            found = integrate(
                equation, z0, [0.0, 0.3, 1.0], dt=0.1, method=method, backward=backward
            )
            gradients.append(torch.autograd.grad(found.states.square().sum(), [z0, *parameters]))
        for other in gradients[1:]:
            for a, b in zip(gradients[0], other, strict=True):
                assert torch.allclose(a, b, rtol=EXACT, atol=EXACT)

    @pytest.mark.parametrize(("method", "calculus"), METHODS)
    def test_against_finite_differences(self, method, calculus, gen):
        equation, parameters = network()
        if calculus is Calculus.STRATONOVICH:
            equation = equation.to_stratonovich()
        z0 = torch.rand(2, 4, dtype=F64, generator=gen)
        weight = parameters[0]

        def loss():
            return integrate(equation, z0, [0.0, 0.5], dt=0.1, method=method).end.square().sum()

        (gradient,) = torch.autograd.grad(loss(), [weight])
        with torch.no_grad():
            weight[0, 1] += 1e-6
            up = float(loss())
            weight[0, 1] -= 2e-6
            down = float(loss())
        assert float(gradient[0, 1]) == pytest.approx((up - down) / 2e-6, rel=1e-5, abs=1e-7)

    def test_every_must_be_a_count(self):
        with pytest.raises(ValueError, match="positive integer or None"):
            Recompute(every=0)
