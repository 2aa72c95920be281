"""LagrangianPINN: exact where the map is known, trained elsewhere, SHOCK where characteristics cross.

u_t + beta u_x = 0: sin(x - beta t). Inviscid Burgers from sin(x) breaks at t = 1 in x = pi.
u_t + u u_x = -u from sin(x): W = e^-t sin x0, X = x0 + (1 - e^-t) sin x0, which never crosses.
With -u / 2 it crosses: 2 (1 - e^(-t/2)) = 1 at t = 2 ln 2 = 1.386.
"""

from __future__ import annotations

import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sympy as sp
import torch

import pinnkit as pk
from pinnkit.ir.labels import to_labels
from pinnkit.problems import Convection  # pyright: ignore[reportMissingImports]
from pinnkit.solvers.base import Env
from pinnkit.solvers.label_windows import _soft_fields

EXACT = 1e-10

t, x = pk.coords("t x")
u = pk.field("u", t, x)
SMALL = pk.LagrangianPINN(engine=pk.CausalPINN(width=10, depth=2))
LEARNED = pk.LagrangianPINN(engine=pk.CausalPINN(width=10, depth=2, target=1e-4))


def ring(equation, data=None, end: sp.Expr | float = 1):
    return pk.PDESystem(
        [equation],
        pk.Interval(t, 0, end) * pk.Interval(x, 0, 2 * sp.pi),
        [pk.Initial(u, sp.sin(x) if data is None else data), pk.Periodic(u, x)],
    )


def damped(rate, end):
    """Burgers with friction: characteristics bend, and cross where friction is too weak."""
    return ring(u.diff(t) + pk.div(u**2 / 2) + rate * u, end=end)


def scattered(n: int = 400, end: float = 1.0) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {"t": end * rng.random(n), "x": 2 * math.pi * rng.random(n)}


def test_constant_speed_is_exact():
    """No network can be better: the map is x0 + beta t."""
    sol = Convection(beta=70).solve(pk.LagrangianPINN())
    at = scattered()
    assert np.abs(sol(**at) - np.sin(at["x"] - 70 * at["t"])).max() < EXACT
    assert np.abs(sol[u.diff(t)](**at) + 70 * np.cos(at["x"] - 70 * at["t"])).max() < 70 * EXACT
    assert sol.ok and sol.stats.steps == 0 and sol.stats.parameters == 0


def test_speed_that_varies_in_time_alone_is_exact():
    sol = ring(u.diff(t) + 40 * sp.cos(7 * t) * u.diff(x)).solve(pk.LagrangianPINN(), verify=False)
    at = scattered()
    assert np.abs(sol(**at) - np.sin(at["x"] - 40 / 7 * np.sin(7 * at["t"]))).max() < EXACT


def test_characteristics_are_learned():
    """Measured 5e-6 after 60 steps of a small network."""
    sol = damped(1, 1).solve(SMALL, max_steps=60, verify=False, time_limit=60)
    at = scattered()
    label = at["x"].copy()
    for _ in range(200):  # fixed point of x0 = x - (1 - e^-t) sin x0
        label = at["x"] - (1 - np.exp(-at["t"])) * np.sin(label)
    exact = np.exp(-at["t"]) * np.sin(label)
    assert np.linalg.norm(sol(**at) - exact) < 1e-3 * np.linalg.norm(exact)


def test_initial_data_are_exact_whatever_the_training():
    sol = damped(1, 1).solve(SMALL, max_steps=1, verify=False)
    places = np.linspace(0, 6, 50)
    np.testing.assert_allclose(sol(t=0.0, x=places), np.sin(places), atol=1e-12)


def test_a_shock_is_reported_with_time_and_place():
    sol = ring(u.diff(t) + pk.div(u**2 / 2), end=1.5).solve(pk.LagrangianPINN(), verify=False)
    assert sol.status is pk.Status.SHOCK and not sol.ok
    assert sol.stats.more["shock_time"] == pytest.approx(1.0, rel=1e-2)
    assert sol.stats.more["shock_place"] == pytest.approx([math.pi], rel=1e-2)
    assert "MethodOfLines() gives the entropy solution" in sol.stats.more["after_shock"]
    label = 1.0
    assert sol(t=0.95, x=label + 0.95 * math.sin(label)) == pytest.approx(
        math.sin(label), abs=EXACT
    )
    assert np.isnan(sol(t=1.2, x=1.0))


@pytest.mark.slow
def test_a_shock_of_a_trained_map_is_reported():
    sol = damped(sp.Rational(1, 2), 2).solve(
        pk.LagrangianPINN(engine=pk.CausalPINN(width=10, depth=2, target=1e-4)),
        verify=False,
        time_limit=60,
    )
    assert sol.status is pk.Status.SHOCK
    assert sol.stats.more["shock_time"] == pytest.approx(2 * math.log(2), rel=1e-2)


def test_before_breaking_it_solves():
    sol = ring(u.diff(t) + pk.div(u**2 / 2), end=0.95).solve(pk.LagrangianPINN(), verify=False)
    assert sol.stats.more["least_jacobian"] == pytest.approx(0.05, rel=1e-2)
    assert sol.stats.stopped_by is pk.Status.OK


def test_windows_hand_over_the_map():
    engine = pk.CausalPINN(width=10, depth=1, windows=2, target=1e-3)
    sol = damped(1, 1).solve(pk.LagrangianPINN(engine=engine), verify=False, max_steps=300)
    assert sol.stats.more["windows"] == 2
    near = [sol(t=0.5, x=1.0), sol(t=0.5 + 1e-9, x=1.0)]
    assert near[0] == pytest.approx(near[1], abs=1e-6)


def stirred(nu: sp.Expr | float = 0, end: float = 1.0):
    """Speed sin(x), known beforehand: tan(X / 2) = e^t tan(x0 / 2)."""
    return ring(u.diff(t) + sp.sin(x) * u.diff(x) - nu * u.diff(x, 2), end=end)


@pytest.mark.slow
def test_labels_are_new_in_every_window_of_a_known_flow():
    """What is carried is read through both maps."""
    engine = pk.CausalPINN(width=10, depth=2, windows=2, target=1e-4)
    sol = stirred().solve(pk.LagrangianPINN(engine=engine), verify=False, time_limit=60)
    assert sol.stats.more["windows"] == 2
    assert sol.stats.more["relabelled"] == 1
    assert 1 < sol.stats.more["deformation"] < math.e
    at = scattered()
    label = 2 * np.arctan(np.exp(-at["t"]) * np.tan(at["x"] / 2))
    exact = np.sin(label)
    assert np.linalg.norm(sol(**at) - exact) < 1e-3 * np.linalg.norm(exact)


def test_a_map_that_deforms_too_much_gets_new_labels(monkeypatch: pytest.MonkeyPatch):
    """Lengths shrink to 1 - (1 - e^-t) around pi: by half at t = ln 2 = 0.69, where 1.9 is passed."""
    monkeypatch.setattr("pinnkit.solvers.lagrangian_pinn.MOST_DEFORMED", 1.9)
    engine = pk.CausalPINN(width=10, depth=2, target=1e-4)
    sol = damped(1, 1).solve(
        pk.LagrangianPINN(engine=engine), verify=False, max_steps=400, time_limit=60
    )
    assert sol.stats.more["relabelled"] == 1
    assert 1.5 < sol.stats.more["deformation"] <= 1.9
    at = scattered()
    label = at["x"].copy()
    for _ in range(200):
        label = at["x"] - (1 - np.exp(-at["t"])) * np.sin(label)
    exact = np.exp(-at["t"]) * np.sin(label)
    assert np.linalg.norm(sol(**at) - exact) < 1e-3 * np.linalg.norm(exact)


def test_a_state_is_trained_after_the_flow_that_carries_it():
    """The displacement of the first stage is what the second one leaves alone."""
    stages, displacements = [], []

    def look(info):
        window = info.state.window
        stages.append(window.stage)
        flow = window.model.network.parts[-1].parts[0]
        displacements.append(torch.cat([p.detach().flatten() for p in flow.parameters()]).clone())
        return stages.count("state") > 20

    engine = pk.CausalPINN(width=8, depth=1, target=1e-2)
    solver = pk.LagrangianPINN(engine=engine)
    stirred(sp.Rational(1, 10)).solve(solver, verify=False, max_steps=400, callback=look)
    first = stages.index("state")
    assert first > 0 and set(stages[:first]) == {"flow"} and set(stages[first:]) == {"state"}
    assert torch.equal(displacements[first], displacements[-1])
    assert not torch.equal(displacements[0], displacements[first])


@pytest.mark.slow
def test_particles_that_enter_bring_the_value_of_the_side():
    """u_t + (1 + x / 2) u_x = 0: (2 + X) = (2 + x0) e^(t / 2), so u = f((2 + x) e^(-t / 2) - 2)."""

    def f(z):
        return sp.sin(3 * z)

    problem = pk.PDESystem(
        [u.diff(t) + (1 + x / 2) * u.diff(x)],
        pk.Interval(t, 0, 1) * pk.Interval(x, 0, 1),
        [
            pk.Initial(u, f(x)),
            pk.Dirichlet(u, f(2 * sp.exp(-t / 2) - 2), on=pk.boundary(x, "left")),
        ],
    )
    sol = problem.solve(LEARNED, verify=False, max_steps=400, time_limit=60)
    rng = np.random.default_rng(0)
    times, places = rng.random(300), rng.random(300)
    exact = np.sin(3 * ((2 + places) * np.exp(-times / 2) - 2))
    assert np.abs(sol(t=times, x=places) - exact).max() < 1e-3
    slopes = 3 * np.exp(-times / 2) * np.cos(3 * ((2 + places) * np.exp(-times / 2) - 2))
    assert np.abs(sol[u.diff(x)](t=times, x=places) - slopes).max() < 1e-2


def test_walls_hold_whatever_the_training():
    """Speed sin(pi x) on [0, 1]: nobody leaves, and the ends stay where they are."""
    problem = pk.PDESystem(
        [u.diff(t) + sp.sin(sp.pi * x) * u.diff(x)],
        pk.Interval(t, 0, 1) * pk.Interval(x, 0, 1),
        [pk.Initial(u, sp.cos(3 * x))],
    )
    sol = problem.solve(LEARNED, verify=False, max_steps=400, time_limit=60)
    ends = sol(t=np.linspace(0, 1, 5)[:, None], x=np.array([0.0, 1.0]))
    np.testing.assert_allclose(ends, np.broadcast_to(np.cos([0.0, 3.0]), (5, 2)), atol=1e-10)
    places = np.linspace(0, 1, 101)
    label = 2 / math.pi * np.arctan(np.exp(-0.7 * math.pi) * np.tan(math.pi * places / 2))
    assert np.abs(sol(t=0.7, x=places) - np.cos(3 * label)).max() < 2e-3


@pytest.mark.slow
def test_saved_and_loaded_it_is_the_same(tmp_path: Path):
    for number, (problem, solver) in enumerate(
        ((Convection(), pk.LagrangianPINN()), (damped(1, 1), SMALL), (stirred(end=4.0), SMALL))
    ):
        sol = problem.solve(solver, max_steps=2, verify=False)
        sol.save(tmp_path / f"{number}.pinn")
        back = pk.load(tmp_path / f"{number}.pinn")
        at = scattered(20)
        np.testing.assert_array_equal(back(**at), sol(**at))
        np.testing.assert_array_equal(back[u.diff(x)](**at), sol[u.diff(x)](**at))


def whole_and_checkpoint(problem, solver, steps: int, at: int, folder: Path):
    """An uninterrupted solve, and the checkpoint that a kill right after step `at` leaves behind."""
    path, kept = folder / "c", folder / "kept"

    def keep(info):
        if info.step == at + 1:  # the next multiple of `at` and the end would replace it
            shutil.copy(path, kept)

    sol = problem.solve(solver, max_steps=steps, verify=False, checkpoint=(path, at), callback=keep)
    return sol, kept


def test_resumed_equals_uninterrupted(tmp_path: Path):
    def numbers(sol):
        return torch.cat([v.flatten() for v in sol.approximation.to_state()[1].values()])

    whole, path = whole_and_checkpoint(damped(1, 1), SMALL, 8, 4, tmp_path)
    resumed = damped(1, 1).solve(SMALL, max_steps=8, verify=False, resume=path)
    assert torch.equal(numbers(resumed), numbers(whole))


def test_resumed_amid_stages_and_labels_equals_uninterrupted(tmp_path: Path):
    """Step 24 lies in the second window, whose labels are new; both windows have two stages."""

    def numbers(sol):
        return torch.cat([v.flatten() for v in sol.approximation.to_state()[1].values()])

    engine = pk.CausalPINN(width=6, depth=1, windows=2, target=0.3, probe_every=2)
    solver, problem = pk.LagrangianPINN(engine=engine), stirred(sp.Rational(1, 10))
    whole, path = whole_and_checkpoint(problem, solver, 30, 24, tmp_path)
    resumed = problem.solve(solver, max_steps=30, verify=False, resume=path)
    assert torch.equal(numbers(resumed), numbers(whole))


def test_integral_conditions_are_refused():
    problem = pk.PDESystem(
        [u.diff(t) + u.diff(x)],
        pk.Interval(t, 0, 1) * pk.Interval(x, 0, 2 * sp.pi),
        [pk.Initial(u, sp.sin(x)), pk.Periodic(u, x), pk.Integral(u, over=x, equals=0)],
    )
    with pytest.raises(pk.UnsupportedProblemError, match="does not use integral conditions"):
        problem.solve(pk.LagrangianPINN())


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        (ring(u.diff(t) - u.diff(x, 2)), "nothing is transported"),
        (ring(u.diff(t) + pk.parameter("c", initial=1.0) * u.diff(x)), "unknown parameters"),
    ],
)
def test_refusals(problem, reason):
    assert re.search(reason, pk.LagrangianPINN().supports(problem) or "")
    with pytest.raises(pk.UnsupportedProblemError, match=reason):
        problem.solve(pk.LagrangianPINN())


def test_chosen_where_convection_dominates():
    solver, reason = pk.choose_solver(Convection())
    assert isinstance(solver, pk.LagrangianPINN)
    assert re.search(r"convection over 7\.9\d* domain lengths, without diffusion", reason)
    slow = ring(u.diff(t) + u.diff(x) - u.diff(x, 2))
    assert isinstance(pk.choose_solver(slow)[0], pk.CausalPINN)
    # Characteristics of u u_x cross at t = 1: with a little diffusion a fixed frame is the safer one.
    steep = ring(u.diff(t) + u * u.diff(x) - u.diff(x, 2) / 1000, end=2)
    assert isinstance(pk.choose_solver(steep)[0], pk.CausalPINN)
    law = ring(u.diff(t) + pk.div(u**2 / 2))
    assert isinstance(pk.choose_solver(law)[0], pk.LagrangianPINN)


def test_the_engine_must_be_the_causal_one():
    with pytest.raises(TypeError, match="must be a CausalPINN"):
        pk.LagrangianPINN(engine=3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "rest, soft",
    [(-sp.Rational(1, 10) * u.diff(x, 2), True), (u**2, False)],
    ids=["diffusion", "reaction"],
)
def test_kinks_stay_exact_only_where_they_stay_with_their_particle(rest: Any, soft: bool):
    kinked = ring(u.diff(t) + (2 + sp.sin(x)) * u.diff(x) + rest, sp.Abs(x - sp.pi) / 2)
    form = to_labels(kinked.normal_form)
    assert bool(_soft_fields(form)) == soft


def test_cut_short_while_the_map_still_folds_it_has_values():
    """A window that has not been learned is read at rest: wrong, but with a label everywhere."""
    env = Env(torch.device("cpu"), torch.float64, torch.Generator().manual_seed(0), 0)
    state: Any = LEARNED.init(stirred(), env)
    generator = torch.Generator().manual_seed(1)
    theta = state.memory["theta"]
    state.memory["theta"] = 10 * torch.randn(theta.shape, generator=generator, dtype=theta.dtype)
    at = scattered(50)
    points = torch.tensor(np.stack([at["t"], at["x"]], 1))
    found = state.approximation()
    assert found.least_jacobian(0, 1) > 0
    values = found.derivatives(points, [(0, (0, 0))])[0]
    assert np.abs(values.numpy() - np.sin(at["x"])).max() < EXACT
