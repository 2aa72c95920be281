"""Solver heuristics as penalties: the estimates, which steps are drawn, where gradients flow.

The spiral x' = -x^3/10 + 2 y^3, y' = -2 x^3 - y^3/10 is the equation, unless one with a known answer is.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import sympy as sp
import torch

import pinnkit as pk
from pinnkit.neural_de import (
    SDE,
    DormandPrince,
    EulerMaruyama,
    LocalError,
    Noise,
    StochasticHeun,
    integrate,
    integrate_ode,
)
from pinnkit.neural_de.local_error import dormand_prince_step, euler_heun_error

F64: Any = {"dtype": torch.float64}
RTOL, ATOL = 1e-6, 1e-8


def spiral(t: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    a, b = (z**3).unbind(1)
    return torch.stack([-0.1 * a + 2 * b, -2 * a - 0.1 * b], 1)


def walk_of_spiral(**knobs: Any) -> Any:
    z0 = torch.tensor([[2.0, 0.0], [1.0, 1.0]], **F64)
    return integrate_ode(spiral, z0, [0.0, 1.0], rtol=RTOL, atol=ATOL, keep=True, **knobs)


def test_the_repeated_step_is_the_solvers_step():
    """Its end is the next step's beginning to rounding, its scaled error is one the solver accepted."""
    run = walk_of_spiral()
    assert run.steps == len(run.walk)
    for k in range(len(run.walk) - 1):
        t, h, z = run.walk.step(k)
        after, error, _ = dormand_prince_step(spiral, t, z, h)
        torch.testing.assert_close(after, run.walk.states[k + 1], rtol=0, atol=1e-14)
        scaled = error / (ATOL + RTOL * torch.maximum(z.abs(), after.abs()))
        assert float(scaled.square().mean().sqrt()) <= 1


def test_an_error_is_measured_by_the_tolerance():
    """Ten times the tolerances, a tenth of the penalty."""
    run, values = walk_of_spiral(), []
    for scale in (1.0, 10.0):
        by = LocalError(sampling="global", rtol=scale * RTOL, atol=scale * ATOL)
        values.append(float(by(run, spiral, torch.Generator())))
    assert values[0] == pytest.approx(10 * values[1], rel=1e-9)


def test_steps_are_those_the_solver_takes():
    """Sum of r^(1/5): a tenth less than the steps taken, as the controller aims; 10^(1/5) from tolerance to tolerance."""
    start = torch.tensor([[1.6, 0.0]], **F64)
    run: Any = integrate_ode(spiral, start, [0.0, 3.0], rtol=1e-6, atol=1e-6, keep=True)
    finer: Any = integrate_ode(spiral, start, [0.0, 3.0], rtol=1e-7, atol=1e-7, keep=True)

    def steps(walk: Any, tolerance: float) -> float:
        by = LocalError(kind="steps", sampling="global", rtol=tolerance, atol=tolerance)
        return float(by(walk, spiral, torch.Generator()))

    assert 0.75 * run.steps < steps(run, 1e-6) < run.steps
    assert steps(run, 1e-6) == pytest.approx(10**0.2 * steps(run, 1e-5), rel=1e-9)
    # What is measured does not hang on the steps of the run it is measured on.
    assert steps(finer, 1e-6) == pytest.approx(steps(run, 1e-6), rel=0.05)
    assert finer.steps > 1.3 * run.steps


@pytest.mark.parametrize("sampling", ["unbiased", "biased", "global"])
def test_steps_of_a_field_without_error(sampling):
    """z' = c: no error, so no steps are needed, and the gradient is 0, not nan."""
    c = torch.tensor(1.0, **F64).requires_grad_()

    def f(t: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return c.expand_as(z) + 0 * z

    run = integrate_ode(f, torch.zeros(2, 1, **F64), [0.0, 1.0], keep=True)
    value = LocalError(kind="steps", sampling=sampling, rtol=1.0, atol=1.0)(
        run, f, torch.Generator().manual_seed(0)
    )
    (slope,) = torch.autograd.grad(value, c)
    assert float(value.detach()) < 0.1 and math.isfinite(float(slope))


def test_stiffness_of_a_linear_equation_is_its_rate():
    """|k7 - k6| / |g7 - g6| = lambda for z' = -lambda z; 0, and no nan, where nothing changes."""
    z, h = torch.ones(3, 2, **F64), torch.tensor(0.01, **F64)
    _, _, slope = dormand_prince_step(lambda t, z: -5 * z, 0 * h, z, h)
    assert float(slope) == pytest.approx(5, rel=1e-9)
    rate: Any = torch.zeros((), **F64).requires_grad_()
    _, error, slope = dormand_prince_step(lambda t, z: rate + 0 * z, 0 * h, z, h)
    (slope + error.sum()).backward()
    assert float(slope.detach()) == 0 and math.isfinite(float(rate.grad))


def test_lambas_estimate():
    """0 for constant coefficients; of order h^2 for additive noise, of order h for linear noise."""
    z, t = torch.tensor([[1.0, 2.0]], **F64), torch.zeros((), **F64)
    still = SDE(lambda t, z: torch.ones_like(z), lambda t, z: torch.ones_like(z), Noise.DIAGONAL)
    dw = torch.tensor([[0.1, -0.2]], **F64)
    assert torch.equal(euler_heun_error(still, t, z, 0.1, dw)[1], torch.zeros_like(z))
    for g, noise, order in (
        (lambda t, z: torch.ones_like(z), Noise.ADDITIVE, 2),
        (lambda t, z: z, Noise.DIAGONAL, 1),
        (lambda t, z: torch.diag_embed(z), Noise.GENERAL, 1),
    ):
        sde, sizes = SDE(lambda t, z: -z, g, noise), []
        for h in (0.02, 0.01):
            error = euler_heun_error(sde, t, z, h, math.sqrt(h) * torch.ones(1, 2, **F64))[1]
            sizes.append(float(error.norm()))
        assert math.log2(sizes[0] / sizes[1]) == pytest.approx(order, abs=0.1)
    flat = SDE(lambda t, z: -z, lambda t, z: z, Noise.DIAGONAL)
    full = SDE(lambda t, z: -z, lambda t, z: torch.diag_embed(z), Noise.GENERAL)
    pair = [euler_heun_error(s, t, z, 0.1, dw)[1] for s in (flat, full)]
    torch.testing.assert_close(*pair)


def test_which_step_is_drawn(monkeypatch):
    """Unbiased: in proportion to its length. Biased: each alike. Chi squared, 2000 draws."""
    run, drawn = walk_of_spiral(), []
    one = LocalError._one

    def note(self, walk, k, *rest):
        drawn.append(k)
        return one(self, walk, k, *rest)

    monkeypatch.setattr(LocalError, "_one", note)
    gen = torch.Generator().manual_seed(0)
    count, n = len(run.walk), 400
    lengths = run.walk.lengths / run.walk.lengths.sum()
    for sampling, share in (
        ("unbiased", lengths),
        ("biased", torch.full((count,), 1 / count, **F64)),
    ):
        drawn.clear()
        by = LocalError(sampling=sampling)
        with torch.no_grad():
            for _ in range(n):
                by(run, spiral, gen)
        seen = torch.bincount(torch.tensor(drawn), minlength=count).double()
        chi = float(((seen - n * share) ** 2 / (n * share)).sum())
        assert chi < count + 4 * math.sqrt(2 * count)


def test_where_gradients_flow():
    """Local: to the parameters through one step, to the start not at all. Global: to both."""
    size = torch.tensor(1.0, **F64).requires_grad_()
    z0 = torch.tensor([[1.5, 0.0]], **F64).requires_grad_()

    def f(t: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return size * spiral(t, z)

    run = integrate_ode(f, z0, [0.0, 1.0], rtol=1e-3, atol=1e-3, keep=True)
    local = LocalError()(run, f, torch.Generator().manual_seed(0))
    by_size, by_start = torch.autograd.grad(local, (size, z0), retain_graph=True, allow_unused=True)
    assert by_start is None and float(by_size) != 0
    whole = LocalError(sampling="global")(run, f, torch.Generator())
    by_size, by_start = torch.autograd.grad(whole, (size, z0))
    assert float(by_size) != 0 and bool((by_start != 0).all())


def test_gradient_of_a_step_is_its_difference_quotient():
    z, t, h = torch.tensor([[1.5, 0.2]], **F64), torch.zeros((), **F64), torch.tensor(0.1, **F64)

    def penalty(size: torch.Tensor) -> torch.Tensor:
        return dormand_prince_step(lambda s, y: size * spiral(s, y), t, z, h)[1].norm()

    size = torch.tensor(1.0, **F64).requires_grad_()
    (slope,) = torch.autograd.grad(penalty(size), size)
    with torch.no_grad():
        quotient = (penalty(size + 1e-6) - penalty(size - 1e-6)) / 2e-6
    assert float(slope) == pytest.approx(float(quotient), rel=1e-6)


def test_fixed_steps_keep_their_walk():
    """Every grid point, whatever the outputs; the states are those of the run."""
    sde = SDE(spiral, lambda t, z: 0.1 * z, Noise.DIAGONAL)
    z0 = torch.ones(3, 2, **F64)
    run: Any = integrate(sde, z0, [0.0, 0.5, 1.0], dt=0.1, method=EulerMaruyama(), keep=True)
    plain = integrate(sde, z0, [0.0, 0.5, 1.0], dt=0.1, method=EulerMaruyama())
    assert torch.equal(run.states, plain.states)
    assert len(run.walk) == 10 and torch.equal(run.walk.states[5], run.states[1])
    value = LocalError()(run, sde, torch.Generator().manual_seed(0))
    assert 0 < float(value.detach()) < math.inf
    with pytest.raises(ValueError, match="keep=True"):
        LocalError()(plain, sde, torch.Generator())
    for kind in ("stiffness", "steps"):
        with pytest.raises(pk.UnsupportedProblemError, match=f'kind="{kind}".*adaptive steps'):
            LocalError(kind=kind)(run, sde, torch.Generator())


def test_fewer_evaluations_at_the_same_answer():
    """z' = f(t, z), only z(1) is wanted: a field with a fast detour learns to go straight."""
    gen = torch.Generator().manual_seed(0)
    raw = torch.tensor([8.0, 12.0], **F64).requires_grad_()
    optimiser = torch.optim.Adam([raw], lr=0.3)
    z0 = torch.zeros(1, 1, **F64)

    def f(t: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        # The detour integrates to zero over [0, 1].
        return (1 + raw[0] * torch.sin(2 * math.pi * 3 * t)).expand_as(z)

    def calls() -> int:
        with torch.no_grad():
            return integrate_ode(f, z0, [0.0, 1.0], rtol=1e-6, atol=1e-6).evaluations

    before = calls()
    by = LocalError(weight=1.0, rtol=1e-4, atol=1e-4)
    for _ in range(25):
        run = integrate_ode(f, z0, [0.0, 1.0], rtol=1e-4, atol=1e-4, keep=True)
        loss = (run.end - 1).square().mean() + by(run, f, gen)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        end = integrate_ode(f, z0, [0.0, 1.0], rtol=1e-6, atol=1e-6).end
    assert calls() <= 0.8 * before
    assert float((end - 1).abs()) < 1e-3


def test_exploded_samples_send_no_nan_back():
    """Fixed steps of torchdiffeq: z' = p z^2 from 30 explodes, from 1/2 it does not; dp is the latter's."""
    p = torch.tensor(1.0, **F64).requires_grad_()
    z0, times = torch.tensor([[0.5], [30.0]], **F64), [0.0, 0.25, 0.5]
    run = integrate_ode(lambda t, z: p * z**2, z0, times, method="rk4", dt=0.05)
    assert run.reached.tolist() == [0.5, 0.0]
    (both,) = torch.autograd.grad(run.states.sum(), p)
    alone = integrate_ode(lambda t, z: p * z**2, z0[:1], times, method="rk4", dt=0.05)
    (one,) = torch.autograd.grad(alone.states.sum(), p)
    assert float(both) == pytest.approx(float(one), rel=1e-12)


def series(n: int = 24) -> pk.IrregularSeries:
    values = np.random.default_rng(0).normal(size=(n, 1, 3)).repeat(2, axis=1)
    spans = np.random.default_rng(1).uniform(1, 2, n)
    return pk.IrregularSeries([[0.0, s] for s in spans], values, labels=values[:, 0, 0] > 0)


def system(noisy: bool = False) -> pk.SDESystem:
    t = pk.coords("t")
    z, W = pk.process("z", t, dim=4), pk.wiener("W", t)
    right = pk.neural("f", inputs=(t, z)) * pk.d(t) + (0.1 * z * pk.d(W) if noisy else 0)
    return pk.SDESystem([sp.Eq(pk.d(z), right)], data=series())


def test_adaptive_steps_are_the_fixed_ones_answer():
    """Every sample on its own clock: states at the ends agree with many steps of Heun's method."""
    sols = [
        system().solve(pk.NeuralSDE(method=method, steps=60, width=6, batch=24), max_steps=1)
        for method in (DormandPrince(rtol=1e-6, atol=1e-8), StochasticHeun())
    ]
    fine, heun = (s.probabilities(series()) for s in sols)
    np.testing.assert_allclose(fine, heun, atol=1e-4)


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("sampling", ["unbiased", "biased", "global"])
def test_the_solver_trains_with_it(sampling, noisy):
    """The penalty reaches the loss; the adjoint where nothing needs every step."""
    method = None if noisy else DormandPrince(adjoint=sampling != "global")
    solver = pk.NeuralSDE(method=method, steps=6, width=6, batch=24)
    plain = system(noisy).solve(solver, max_steps=1).history["loss"][0]
    by = LocalError(weight=10.0, sampling=sampling)
    sol = system(noisy).solve(
        pk.NeuralSDE(method=method, steps=6, width=6, batch=24, regularise=by), max_steps=1
    )
    assert sol.history["loss"][0] > plain


def test_an_annealed_weight():
    """Exponential between both; the last weights are the answer, as what is minimised changes."""
    by = LocalError(weight=100.0, final=1.0)
    assert [by.at(share).weight for share in (-1.0, 0.0, 0.5, 1.0, 2.0)] == pytest.approx(
        [100.0, 100.0, 10.0, 1.0, 1.0]
    )
    assert LocalError(weight=3.0).at(0.5).weight == 3.0
    knobs: Any = {"method": DormandPrince(), "width": 4, "batch": 24, "epochs": 3}
    first, last = (
        system().solve(pk.NeuralSDE(regularise=some, **knobs)).history["loss"]
        for some in (LocalError(weight=100.0), by)
    )
    assert last[0] == first[0] and last[-1] < first[-1]
    rising = pk.NeuralSDE(regularise=LocalError(weight=1.0, final=1e4), held_out=0.0, **knobs)
    sol = system().solve(rising)
    assert sol.history["loss"][-1] > sol.history["loss"][0]
    end = sol.snapshot.state["model"]
    assert all(torch.equal(value, end[name]) for name, value in sol.module.state_dict().items())
    with pytest.raises(ValueError, match=r"final=0\.0 .* must be positive"):
        LocalError(weight=1.0, final=0.0)


def test_refusals():
    with pytest.raises(ValueError, match=r"weight=-1 .*sampling='some'"):
        LocalError(weight=-1, sampling="some")
    noisy, by = system(noisy=True), LocalError
    assert "d(W)" in (pk.NeuralSDE(method=DormandPrince()).supports(noisy) or "")
    for kind in ("stiffness", "steps"):
        fixed = pk.NeuralSDE(regularise=by(kind=kind))
        assert "DormandPrince" in (fixed.supports(noisy) or "")
    every = pk.NeuralSDE(method=DormandPrince(adjoint=True), regularise=by(sampling="global"))
    assert "adjoint" in (every.supports(system()) or "")
    with pytest.raises(ValueError, match="dopri5"):
        integrate_ode(spiral, torch.ones(1, 2, **F64), [0, 1], method="rk4", dt=0.1, keep=True)
