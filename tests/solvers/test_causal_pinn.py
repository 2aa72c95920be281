"""CausalPINN: batches, windows, resumption, refusals, scale invariance.

Problems: y' = -y (exact exp(-t)); u_t = u_xx on [0, 1], u0 = sin(pi x) (exact exp(-pi^2 t) sin(pi x)).
"""

import dataclasses
import itertools
import math
from typing import Any

import pytest
import sympy as sp
import torch

import pinnkit as pk
from pinnkit.errors import Status
from pinnkit.solvers import causal_state
from pinnkit.solvers.base import Env
from pinnkit.solvers.causal_pinn import CausalPINN
from pinnkit.solvers.collocation import Batch
from pinnkit.train.causality import causal_weights
from pinnkit.train.gauss_newton import GaussNewton
from pinnkit.train.parameters import flat_parameters, load_parameters
from pinnkit.train.self_scaled_broyden import SelfScaledBroyden

ROUNDOFF = 1e-12
SINGLE = 1e-5  # of rows in float32: a hundred roundings

t, x = pk.coords("t x")
y, u = pk.field("y", t), pk.field("u", t, x)


def decay(rate=1.0, length=1.0):
    return pk.PDESystem(
        [y.diff(t) + rate * y], domain=pk.Interval(t, 0, length), conditions=[pk.Initial(y, 1)]
    )


def heat(stretch=1, size=1, slow=1):
    """The heat equation in other units: x by `stretch`, u by `size`, t by `slow`."""
    return pk.PDESystem(
        [u.diff(t) - sp.Rational(1, 10) * sp.Rational(stretch) ** 2 / slow * u.diff(x, 2)],
        domain=pk.Interval(t, 0, slow) * pk.Interval(x, 0, stretch),
        conditions=[
            pk.Initial(u, size * sp.sin(sp.pi * x / stretch)),
            pk.Dirichlet(u, 0, on=pk.boundary(x)),
        ],
    )


def travelling_wave():
    return pk.PDESystem(
        [u.diff(t) + u.diff(x)],
        domain=pk.Interval(t, 0, 1) * pk.Interval(x, 0, 1),
        conditions=[pk.Initial(u, sp.sin(2 * sp.pi * x)), pk.Periodic(u, x)],
    )


def environment(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Env(torch.device("cpu"), torch.float64, generator, seed)


def advance(solver, problem, state, steps) -> Any:
    for _ in range(steps):
        if solver.terminate(problem, state) is None:
            solver.step(problem, state)
    return state


def value(solver, problem, state, points):
    approximation = solver.finish(problem, state).approximation
    m = len(problem.normal_form.fields)
    zero = (0,) * points.shape[1]
    return torch.stack(approximation.derivatives(points, [(k, zero) for k in range(m)]), 1)


def test_an_ode_is_solved_to_high_accuracy():
    problem, solver = decay(), CausalPINN()
    state = advance(solver, problem, solver.init(problem, environment()), 120)
    points = torch.linspace(0, 1, 11, dtype=torch.float64)[:, None]
    error = value(solver, problem, state, points)[:, 0] - torch.exp(-points[:, 0])
    assert float(error.detach().abs().max()) < 1e-5


def test_rows_equal_the_jacobian_of_the_weighted_residual():
    problem, solver = heat(), CausalPINN(width=6, depth=2, points=20)
    state = advance(solver, problem, solver.init(problem, environment()), 3)
    batch, theta = state.batch, state.memory["theta"]
    r, rows = batch.rows(theta)
    assert torch.allclose(r, batch.residual(theta), rtol=0, atol=ROUNDOFF)
    rows, step = rows.clone(), 1e-6
    for k in range(0, len(theta), 7):
        shift = torch.zeros_like(theta)
        shift[k] = step
        central = (batch.residual(theta + shift) - batch.residual(theta - shift)) / (2 * step)
        assert torch.allclose(rows[:, k], central, rtol=1e-5, atol=1e-7)


def test_gradient_is_twice_the_rows_times_the_residual():
    problem, solver = heat(), CausalPINN(width=6, depth=2, points=20)
    state = advance(solver, problem, solver.init(problem, environment()), 2)
    r, rows = state.batch.rows(state.memory["theta"])
    loss, gradient = state.batch.gradient(state.memory["theta"])
    assert loss == pytest.approx(float(r @ r), rel=1e-12)
    assert torch.allclose(gradient, 2 * rows.T @ r, rtol=1e-9, atol=1e-11)


def test_rows_of_negligible_weight_are_dropped():
    problem, solver = heat(), CausalPINN(width=6, depth=2, points=20)
    state = advance(solver, problem, solver.init(problem, environment()), 1)
    parts = [p for p in state.batch.parts if len(p.points) == 20]
    weights = parts[0].weights.clone()
    weights[5:] = 0.0
    thin = Batch(
        state.window.collocation, [type(parts[0])(parts[0].index, parts[0].points, weights)]
    )
    assert thin.size == 5


def coarse_and_fine(batch, theta):
    """(r, J) of the batch with rows in float32, and as it is."""
    coarse = Batch(batch.owner, batch.parts, coarse=True)
    r, rows = coarse.rows(theta)
    return (r, rows.clone()), batch.rows(theta)


@pytest.mark.parametrize("exact", [True, False])
def test_coarse_rows_are_the_rows_rounded_and_residuals_are_not(exact):
    problem, solver = heat(), CausalPINN(width=6, depth=2, points=20, exact=exact)
    state = advance(solver, problem, solver.init(problem, environment()), 3)
    (r, rows), (fine_r, fine) = coarse_and_fine(state.batch, state.memory["theta"])
    assert rows.dtype == torch.float32 and r.dtype == torch.float64
    assert torch.allclose(r, fine_r, rtol=0, atol=ROUNDOFF)
    assert float((rows.double() - fine).norm() / fine.norm()) < SINGLE


@pytest.mark.parametrize("windows", [1, 2])
def test_coarse_rows_of_later_windows(windows):
    """Projected initial data and soft seams know float32 too."""
    for problem, exact in ((travelling_wave(), True), (heat(), False)):
        solver = CausalPINN(width=6, depth=1, points=20, windows=windows, exact=exact)
        state = solver.init(problem, environment())
        advance(solver, problem, state, 2)
        if windows == 2:
            state.best_theta = state.memory["theta"]
            state.close()
            advance(solver, problem, state, 2)
        assert len(state.closed) == windows - 1
        (_, rows), (_, fine) = coarse_and_fine(state.batch, state.memory["theta"])
        assert float((rows.double() - fine).norm() / fine.norm()) < SINGLE


def test_mixed_precision_begins_in_single_and_ends_in_double():
    """float32 as long as the damping exceeds the rounding of the Gram matrix; the end is the same."""
    ends = []
    for precision in ("double", "mixed"):
        problem, solver = heat(), CausalPINN(width=8, depth=2, precision=precision)
        state, coarse = solver.init(problem, environment()), []
        for _ in range(60):
            batch = advance(solver, problem, state, 1).batch
            coarse.append(batch.coarse)
        ends.append(state.held_out)
        if precision == "double":
            assert not any(coarse)
        else:
            assert coarse[0] and not coarse[-1]
            assert coarse == sorted(coarse, reverse=True)  # damping falls on this problem
    assert state.memory["theta"].dtype == torch.float64
    assert ends[0] < 1e-9 and ends[1] < 1e-9  # measured 6e-11 and 2e-11


def test_mixed_precision_resumed_equals_uninterrupted():
    problem, solver = heat(), CausalPINN(width=8, depth=2, precision="mixed")
    whole = advance(solver, problem, solver.init(problem, environment()), 14)
    env = environment()
    first = advance(solver, problem, solver.init(problem, env), 5)
    saved, generator = first.state_dict(), env.generator.get_state()
    env = environment()
    second = solver.init(problem, env)
    env.generator.set_state(generator)
    second.load_state_dict(saved)
    advance(solver, problem, second, 9)
    assert torch.equal(second.memory["theta"], whole.memory["theta"])


def test_conditions_by_residuals_where_exactness_is_switched_off():
    kinds = []
    for exact in (True, False):
        solver = CausalPINN(width=6, depth=1, exact=exact)
        groups = solver.init(heat(), environment()).window.collocation.groups
        kinds.append(sorted(g.kind for g in groups))
    assert kinds == [["interior"], ["boundary", "boundary", "initial", "interior"]]


def test_a_gradient_is_computed_once_where_a_line_search_ends(monkeypatch):
    """Quasi-Newton methods ask again where the search of the step before ended."""
    problem = heat()
    solver = CausalPINN(width=6, depth=1, points=20, optimiser=SelfScaledBroyden())
    state = advance(solver, problem, solver.init(problem, environment()), 3)
    batch = Batch(state.batch.owner, state.batch.parts)
    asked: list[int] = []
    plain = batch.owner.columns
    monkeypatch.setattr(
        batch.owner, "columns", lambda i, points: asked.append(i) or plain(i, points)
    )
    theta = state.memory["theta"]
    loss, gradient = batch.gradient(theta)
    first = len(asked)
    kept = gradient.clone()
    gradient.zero_()  # what was given out belongs to the one who asked
    again, regained = batch.gradient(theta.clone())
    assert len(asked) == first and again == loss
    assert torch.equal(regained, kept)
    other, _ = batch.gradient(theta + 1e-3)
    assert len(asked) == 2 * first and other != loss
    fresh = Batch(state.batch.owner, state.batch.parts).gradient(theta)
    assert fresh[0] == loss and torch.equal(fresh[1], regained)


def test_same_seed_same_parameters_and_another_seed_others():
    problem, solver = heat(), CausalPINN(width=8, depth=2)
    ends = [
        advance(solver, problem, solver.init(problem, environment(seed)), 15).memory["theta"]
        for seed in (0, 0, 1)
    ]
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


@pytest.mark.parametrize("cut", [1, 7, 23])
@pytest.mark.parametrize("windows", [1, 3])
def test_resumed_equals_uninterrupted(cut, windows):
    problem = decay(length=3.0)
    solver = CausalPINN(width=8, depth=1, windows=windows, target=1e-4)
    whole = advance(solver, problem, solver.init(problem, environment()), 40)
    env = environment()
    first = advance(solver, problem, solver.init(problem, env), cut)
    saved, generator = first.state_dict(), env.generator.get_state()
    env = environment()
    second = solver.init(problem, env)
    env.generator.set_state(generator)
    second.load_state_dict(saved)
    advance(solver, problem, second, 40 - cut)
    assert second.step == whole.step
    assert len(second.closed) == len(whole.closed)
    assert torch.equal(second.memory["theta"], whole.memory["theta"])


def test_every_window_gets_its_share_of_the_time(monkeypatch):
    """A target out of reach must not keep the first window polishing until the time is gone."""
    ticks = itertools.count()
    monkeypatch.setattr(causal_state.time, "perf_counter", lambda: float(next(ticks)))
    problem = decay(length=4.0)
    solver = CausalPINN(width=10, depth=1, windows=4, target=1e-30, patience=10**6)
    env = dataclasses.replace(environment(), time_limit=50.0)  # two looks at the clock a reading
    state = advance(solver, problem, solver.init(problem, env), 400)
    assert len(state.closed) == 3 and state.window.end == 1.0
    assert all(w.end - w.start == pytest.approx(0.25) for w in state.closed)


def test_windows_meet_at_the_seam():
    problem, solver = decay(length=4.0), CausalPINN(width=10, depth=1, windows=2, target=1e-5)
    state = advance(solver, problem, solver.init(problem, environment()), 400)
    assert state.ended is Status.OK and len(state.closed) == 1
    near = torch.tensor([[2.0], [2.0 + 1e-9], [4.0]], dtype=torch.float64)
    values = value(solver, problem, state, near)[:, 0].detach()
    assert abs(float(values[0] - values[1])) < 1e-5
    assert float(values[2]) == pytest.approx(math.exp(-4), abs=1e-4)


def test_a_window_too_long_is_halved():
    problem = pk.PDESystem(
        [y.diff(t) - 40 * sp.cos(40 * t)],
        domain=pk.Interval(t, 0, 20),
        conditions=[pk.Initial(y, 0)],
    )
    solver = CausalPINN(width=4, depth=1)
    state = advance(solver, problem, solver.init(problem, environment()), 260)
    assert state.share < 1.0


@pytest.mark.slow
@pytest.mark.parametrize(
    "units", [(10**6, 1, 1), (1, 10**6, 1), (1, 1, 10**6), (sp.Rational(1, 10**6),) * 3]
)
def test_units_change_no_error(units):
    """Rule 1: rescaling x, u, t changes no relative error by more than 2x."""
    errors = []
    for stretch, size, slow in ((1, 1, 1), units):
        problem, solver = heat(stretch, size, slow), CausalPINN(width=10, depth=2)
        state = advance(solver, problem, solver.init(problem, environment()), 60)
        unit = torch.rand(400, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        scale = torch.tensor([float(slow), float(stretch)], dtype=torch.float64)
        exact = (
            float(size)
            * torch.exp(-0.1 * math.pi**2 * unit[:, 0])
            * torch.sin(math.pi * unit[:, 1])
        )
        got = value(solver, problem, state, unit * scale)[:, 0].detach()
        errors.append(float((got - exact).norm() / exact.norm()))
    assert 0.5 < errors[1] / errors[0] < 2.0


def test_linear_problem_has_one_minimiser_whatever_the_causal_weights():
    """As many unknowns as rows, linear in theta: Gauss-Newton ends at one point for every eps."""
    gen = torch.Generator().manual_seed(0)
    a = torch.randn(12, 12, generator=gen, dtype=torch.float64)
    b = torch.randn(12, generator=gen, dtype=torch.float64)
    times = torch.linspace(0, 1, 12, dtype=torch.float64)

    class Weighted:
        def __init__(self, eps: float) -> None:
            means = torch.ones(6, 1, dtype=torch.float64)
            self.root = causal_weights(times, means, eps).sqrt()
            self.shapes = [(12,)]

        def residual(self, theta):
            return self.root * (a @ theta - b)

        def rows(self, theta):
            return self.residual(theta), self.root[:, None] * a

        def gradient(self, theta):
            r, rows = self.rows(theta)
            return float(r @ r), 2 * rows.T @ r

    ends = []
    for eps in (0.0, 3.0):
        method = GaussNewton(momentum=0.0, damping=1e-6)
        memory = method.init(torch.zeros(12, dtype=torch.float64))
        for _ in range(30):
            method.step(Weighted(eps), memory)
        ends.append(memory["theta"])
    assert torch.allclose(ends[0], torch.linalg.solve(a, b), rtol=1e-7, atol=1e-8)
    assert torch.allclose(ends[0], ends[1], rtol=1e-7, atol=1e-8)


def test_flat_parameters_round_trip():
    problem, solver = decay(), CausalPINN(width=5, depth=1)
    params = solver.init(problem, environment()).window.collocation.params
    theta = torch.arange(sum(p.numel() for p in params), dtype=torch.float64)
    load_parameters(params, theta)
    assert torch.equal(flat_parameters(params), theta)


def test_unknown_parameters_and_observations_are_refused_by_name():
    k = pk.parameter("k", initial=1.0)
    times = {t: [0.0, 0.5]}
    problem = pk.PDESystem(
        [y.diff(t) + k * y],
        domain=pk.Interval(t, 0, 1),
        conditions=[pk.Initial(y, 1), pk.Observations(y, times, [1.0, 0.6])],
    )
    assert "(k)" in (CausalPINN().supports(problem) or "")
    assert "Observations" in (CausalPINN().supports(problem.remake(parameters={k: 1.0})) or "")


def test_a_conservation_law_that_may_shock_is_refused():
    problem = pk.PDESystem(
        [u.diff(t) + pk.div(u**2 / 2)],
        domain=pk.Interval(t, 0, 1) * pk.Interval(x, -1, 1),
        conditions=[pk.Initial(u, -sp.sin(sp.pi * x)), pk.Periodic(u, x)],
    )
    assert "shocks" in (CausalPINN().supports(problem) or "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0}, "width=0 must be at least 1"),
        ({"condition_weight": 0.0}, "condition_weight=0.0 must be positive"),
        ({"face_density": -1.0}, "face_density=-1.0 must be positive"),
        ({"target": 0.0}, "target=0.0 must be positive"),
        ({"network": object(), "width": 3}, "either network or width"),
        ({"precision": "half"}, "precision='half' must be 'double' or 'mixed'"),
        (
            {"precision": "mixed", "optimiser": SelfScaledBroyden()},
            "concerns the rows of GaussNewton",
        ),
        ({"width": 0, "slices": 0}, "(?s)width=0.*slices=0"),
    ],
)
def test_bad_settings_are_refused_together(arguments, message):
    with pytest.raises(ValueError, match=message):
        CausalPINN(**arguments)


def test_warm_start_begins_where_another_solution_ended():
    problem, solver = heat(), CausalPINN(width=8, depth=2)
    first = problem.solve(solver, max_steps=40, verify=False, seed=0)
    cold = problem.solve(solver, max_steps=1, verify=False, seed=1)
    warm = problem.remake().solve(solver, max_steps=1, verify=False, seed=1, warm_start=first)
    exact = sp.exp(-(sp.pi**2) * t / 10) * sp.sin(sp.pi * x)
    assert warm.error(exact) < 0.1 * cold.error(exact)


def test_warm_start_of_another_shape_is_refused():
    problem = heat()
    first = problem.solve(CausalPINN(width=8, depth=2), max_steps=1, verify=False)
    with pytest.raises(ValueError, match=r"warm_start holds a network of \d+ parameters"):
        problem.solve(CausalPINN(width=9, depth=2), max_steps=1, verify=False, warm_start=first)
    with pytest.raises(ValueError, match="holds no network"):
        problem.solve(CausalPINN(), max_steps=1, verify=False, warm_start=object())
    with pytest.raises(ValueError, match="no use for warm_start"):
        problem.solve(pk.MethodOfLines(), verify=False, warm_start=first)


def test_an_answer_is_complete_in_its_last_window_and_last_stage():
    """Only then is its error worth an estimate."""
    solver = pk.CausalPINN(width=8, depth=2, windows=2)
    system = pk.problems.KdV(T=0.02).system
    env = Env(torch.device("cpu"), torch.float64, torch.Generator().manual_seed(0), 0)
    state = solver.init(system, env)
    found = []
    for _ in range(2):
        found.append(solver.complete(system, state))
        state.stage = len(solver.schedule.strengths)
        found.append(solver.complete(system, state))
        state.best_theta = flat_parameters(state.window.collocation.params)
        state.close()
    assert found == [False, False, False, True]
