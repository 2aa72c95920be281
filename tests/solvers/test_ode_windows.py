"""Initial value problems in windows: accuracy near rounding, lengths, refusals, resumption.

Problems: y' = -y (exp(-t)); y'' = -y (cos t); y' = -1000 (y - cos t), y(0) = 0 (a layer of width
1e-3); y' = 1 up to t = 1/3, then -1 (a kink); y' = y^2, y(0) = 1 (1 / (1 - t), no solution beyond 1);
Lorenz up to t = 1.
"""

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
import pytest
import sympy as sp
import torch
from scipy.integrate import solve_ivp

import pinnkit as pk
from pinnkit import problems  # pyright: ignore[reportAttributeAccessIssue]
from pinnkit.errors import Status
from pinnkit.solvers import causal_state, ode_windows
from pinnkit.solvers.base import Env
from pinnkit.solvers.causal_pinn import CausalPINN
from pinnkit.solvers.ode_windows import WindowLength, initial_values
from pinnkit.train.gauss_newton import GaussNewton

EXACT = 1e-10  # measured: 1e-14 to 4e-12

t, x = pk.coords("t x")
y, z, v = pk.field("y", t), pk.field("z", t), pk.field("v", x)


def system(equations, length, *conditions):
    return pk.PDESystem(equations, domain=pk.Interval(t, 0, length), conditions=list(conditions))


def decay(length=1.0):
    return system([y.diff(t) + y], length, pk.Initial(y, 1))


def stiff():
    return system([y.diff(t) + 1000 * (y - sp.cos(t))], 10, pk.Initial(y, 0))


def environment(**settings):
    generator = torch.Generator().manual_seed(0)
    env = Env(torch.device("cpu"), torch.float64, generator, 0)
    return dataclasses.replace(env, **settings)


def run(problem, solver: Any = None, steps=400, env=None) -> Any:
    solver = solver or CausalPINN()
    state = solver.init(problem, env or environment())
    for _ in range(steps):
        if state.ended is not None:
            break
        solver.step(problem, state)
    return state


def values(state, times, index=0, order=0):
    points = torch.as_tensor(times, dtype=torch.float64)[:, None]
    return state.approximation().derivatives(points, [(index, (order,))])[0].detach().numpy()


def test_first_order_is_solved_to_near_rounding():
    state = run(decay(3.0))
    times = np.linspace(0, 3, 101)
    assert state.ended is Status.OK
    assert np.abs(values(state, times) - np.exp(-times)).max() < EXACT


def test_second_order_keeps_its_velocity_across_windows():
    state = run(system([y.diff(t, 2) + y], 15, pk.Initial(y, 1), pk.Initial(y.diff(t), 0)))
    times = np.linspace(0, 15, 201)
    assert state.ended is Status.OK and state.closed
    assert np.abs(values(state, times) - np.cos(times)).max() < EXACT
    assert np.abs(values(state, times, order=1) + np.sin(times)).max() < EXACT


def test_algebraic_fields_need_no_initial_value():
    state = run(system([y.diff(t) - z, z + y], 2, pk.Initial(y, 1)))
    times = np.linspace(0, 2, 51)
    assert np.abs(values(state, times) - np.exp(-times)).max() < EXACT
    assert np.abs(values(state, times, index=1) + np.exp(-times)).max() < EXACT


def test_windows_become_short_in_a_layer_and_long_behind_it():
    state = run(stiff())
    lengths = [w.end - w.start for w in [*state.closed, state.window]]
    assert state.ended is Status.OK
    assert lengths[0] < 1e-2 and max(lengths) > 0.1
    times = np.concatenate([np.linspace(0, 1e-2, 201), np.linspace(0, 10, 201)])
    exact = (1e6 * np.cos(times) + 1e3 * np.sin(times) - 1e6 * np.exp(-1e3 * times)) / (1e6 + 1)
    assert np.abs(values(state, times) - exact).max() < EXACT


def test_a_kink_costs_one_tiny_window(monkeypatch):
    monkeypatch.setattr(ode_windows, "SHORTEST", 2.0**-12)
    rate = sp.Piecewise((1, t < sp.Rational(1, 3)), (-1, True))
    state = run(system([y.diff(t) - rate], 1, pk.Initial(y, 0)), steps=600)
    times = np.linspace(0, 1, 301)
    assert state.ended is Status.OK
    assert np.abs(values(state, times) - np.where(times < 1 / 3, times, 2 / 3 - times)).max() < 1e-4


def test_a_singularity_ends_the_solve(monkeypatch):
    monkeypatch.setattr(ode_windows, "SHORTEST", 2.0**-8)
    state = run(system([y.diff(t) - y**2], 2, pk.Initial(y, 1)), steps=1000)
    assert state.ended is Status.STALLED
    assert 0.4 < state.window.start < 0.53
    times = np.linspace(0, 0.9, 51)
    assert np.abs(values(state, times) * (1 - times) - 1).max() < 1e-9


def test_lorenz_keeps_ten_digits_over_a_time_unit():
    problem = problems.Lorenz(T=1.0)
    state = run(problem.declare())

    def rates(_, w):
        return [10 * (w[1] - w[0]), w[0] * (28 - w[2]) - w[1], w[0] * w[1] - 8 / 3 * w[2]]

    times = np.linspace(0, 1, 41)
    reference = solve_ivp(rates, (0, 1), [1, 1, 1], "DOP853", times, rtol=1e-13, atol=1e-13)
    assert state.ended is Status.OK
    for i in range(3):
        assert np.abs(values(state, times, index=i) - reference.y[i]).max() < 1e-9


@pytest.mark.slow
def test_lorenz_is_followed_to_twenty():
    """Measured: 2.5e-8 of the rms at worst; errors grow 6e7-fold."""
    sol = problems.Lorenz().solve(CausalPINN(), time_limit=300, seed=0)
    assert sol.ok and sol.horizon(1e-3) == 20.0


def test_seams_hand_over_exactly():
    state = run(decay(30.0))
    assert state.closed
    for window in state.closed:
        at = 30.0 * window.end
        before, after = values(state, [at, at * (1 + 1e-15)])
        assert before == pytest.approx(after, rel=1e-13)


@pytest.mark.parametrize("cut", [3, 40, 77])
def test_resumed_equals_uninterrupted(cut):
    problem, solver = stiff(), CausalPINN()
    whole = run(problem, solver, 120)
    env = environment()
    first = run(problem, solver, cut, env)
    saved, generator = first.state_dict(), env.generator.get_state()
    env = environment()
    second: Any = solver.init(problem, env)
    env.generator.set_state(generator)
    second.load_state_dict(saved)
    for _ in range(120 - cut):
        if second.ended is None:
            solver.step(problem, second)
    assert (second.step, len(second.closed)) == (whole.step, len(whole.closed))
    assert torch.equal(second.memory["theta"], whole.memory["theta"])


def test_a_saved_answer_is_the_same(tmp_path):
    sol = decay(30.0).solve(CausalPINN(), max_steps=60, verify=False)
    sol.save(tmp_path / "decay.pinn")
    times = np.linspace(0, 30, 61)
    assert np.array_equal(pk.load(tmp_path / "decay.pinn")(t=times), sol(t=times))


def test_an_early_window_may_take_more_than_its_share_of_the_time(monkeypatch):
    """A layer is a small part of the time span and no small part of the work."""
    ticks = itertools.count()
    monkeypatch.setattr(causal_state.time, "perf_counter", lambda: float(next(ticks)))
    state = run(stiff(), env=environment(time_limit=1000.0), steps=300)
    assert state.closed[0].end - state.closed[0].start < 1e-2
    assert np.abs(values(state, [0.01]) - math.cos(0.01)).max() < 0.1


@pytest.mark.parametrize(
    "problem",
    [
        system([y.diff(t) + y], 1, pk.Initial(y + y.diff(t), 1)),
        pk.PDESystem(
            [v.diff(x, 2) + v],
            domain=pk.Interval(x, 0, 1),
            conditions=[pk.Dirichlet(v, 1, on=pk.boundary(x))],
        ),
    ],
    ids=["a combination is given", "boundary values"],
)
def test_other_problems_go_the_general_way(problem):
    assert initial_values(problem.normal_form) is None
    state: Any = CausalPINN().init(problem, environment())
    assert not state.from_values and state.length is None


def test_a_network_of_ones_own_is_trained_as_it_is():
    def network(inputs, outputs, *, generator, dtype):
        return pk.nn.MLP(inputs, outputs, 7, 1, generator=generator, dtype=dtype)

    state: Any = CausalPINN(network=network).init(decay(), environment())
    assert not state.from_values
    assert state.window.collocation.size == 7 + 7 + 7 + 1


@pytest.mark.parametrize(
    "settings", [{"width": 9}, {"depth": 2}, {"optimiser": GaussNewton(damping=0.2)}]
)
def test_settings_of_ones_own_are_trained_as_they_are(settings):
    solver = CausalPINN(**settings)
    state: Any = solver.init(decay(), environment())
    assert not state.from_values
    assert state.optimiser is solver.optimiser


def test_a_stuck_window_is_halved_and_an_easy_one_followed_by_a_longer_one():
    length = WindowLength(1e-24, torch.float64)
    verdicts = [length.judge(1e-3, steps, 1.0) for steps in range(12)]
    assert verdicts[:6] == ["train"] * 6 and "halve" in verdicts
    assert length.judge(1e-25, 4, 0.5) == "close"
    assert length.following(0.5, 4) == 0.5  # not so soon after a failure
    for _ in range(10):
        share = length.following(0.1, 4)
    assert share == pytest.approx(0.3)


def test_rounding_is_accepted_where_half_a_window_is_no_better():
    length = WindowLength(1e-24, torch.float64)

    def end(loss, share):
        return next(v for s in range(40) if (v := length.judge(loss, s, share)) != "train")

    assert end(1e-21, 1.0) == "halve"
    assert end(0.9e-21, 0.5) == "close"
    length.following(0.5, 10)
    assert length.judge(5e-21, 3, 0.5) == "close"


def test_float32_stops_at_its_own_rounding():
    state = run(decay(), env=environment(dtype=torch.float32))
    assert state.ended is Status.OK
    assert abs(float(values(state, [1.0])[0]) - math.exp(-1)) < 1e-5
