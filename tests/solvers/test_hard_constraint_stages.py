"""Families marched through stages of time, and experts that share their functions on a periodic axis.

Moving   u_t + u_x = u_xx / 50, periodic on [0, 1], u(0, x) = a sin(2 pi x); exact and moving to the right.
Steep    u_t + u u_x = u_xx / 50, periodic, from random waves.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sympy as sp
import torch

import pinnkit as pk
from pinnkit.declare.expansion import DecayAxis, Expansion
from pinnkit.errors import UnsupportedProblemError
from pinnkit.ir.expansion_tree import expansion_from_tree, expansion_to_tree
from pinnkit.lower.family_form import make_family_form
from pinnkit.nn import Windows
from pinnkit.solvers.hard_constraint_model import Discretisation
from pinnkit.solvers.hard_constraint_state import FamilyLoss

EXACT = 1e-12
t, x = pk.coords("t x")
u = pk.field("u", t, x)
a, u0 = pk.given("a"), pk.given("u0", x)
k = sp.Symbol("k", real=True)
BOX = pk.Interval(t, 0, 1) * pk.Interval(x, 0, 1)
SMALL: Any = {
    "functions": 10,
    "experts": 4,
    "stages": 3,
    "times": 6,
    "nodes": 21,
    "draws": 2,
    "width": 10,
    "depth": 1,
}


def moving() -> pk.PDEFamily:
    wave = a * sp.exp(-4 * sp.pi**2 * t / 50) * sp.sin(2 * sp.pi * (x - t))
    system = pk.PDESystem(
        [u.diff(t) + u.diff(x) - u.diff(x, 2) / 50],
        BOX,
        [pk.Initial(u, a * sp.sin(2 * sp.pi * x)), pk.Periodic(u, x)],
        exact=wave,
    )
    return pk.PDEFamily(system, {a: pk.Uniform(0.5, 1.0)})


def steep() -> pk.PDEFamily:
    system = pk.PDESystem(
        [u.diff(t) + u * u.diff(x) - u.diff(x, 2) / 50],
        BOX,
        [pk.Initial(u, u0), pk.Periodic(u, x)],
    )
    law = pk.GaussianField(spectrum=9 / (k**2 + 9) ** 2, periodic=True, zero_mean=True, modes=6)
    return pk.PDEFamily(system, {u0: law})


def learn(family: pk.PDEFamily, steps: int = 1, **knobs) -> Any:
    solver = pk.HardConstraintMoE(**{**SMALL, **knobs}, steps=steps)
    return family.solve(solver, seed=0, verify=False, time_limit=None)


def test_a_start_of_waves_dies_away_by_diffusion():
    """A is u0 at the start and fulfils A_t = nu A_xx; other starts stay as they are."""
    family = steep()
    sample = family.read_sample(family.sample(1, 3)[0])
    (offset,) = make_family_form(family, [sample]).offset(sample)
    at = {x: 0.3, t: 0.0}
    assert float(offset.subs(at)) == pytest.approx(float(sample[u0].subs(x, 0.3)), abs=EXACT)
    heat = offset.diff(t) - offset.diff(x, 2) / 50
    later = {x: 0.3, t: 0.7}
    assert float(heat.subs(later)) == pytest.approx(0, abs=EXACT)
    formula = make_family_form(moving(), [{a: 1.0}]).offset({a: 1.0})
    assert formula == (1.0 * sp.sin(2 * sp.pi * x),)


def test_decaying_modes_are_differentiated_and_survive_files():
    decay = Expansion((DecayAxis(1.0, (0.0, 2.0)),), np.array([3.0, 5.0]))
    at = np.array([1.0, 1.5])
    assert np.allclose(decay(at), 3 + 5 * np.exp(-2 * (at - 1)), atol=EXACT)
    assert np.allclose(decay.derivative(0)(at), -10 * np.exp(-2 * (at - 1)), atol=EXACT)
    assert expansion_from_tree(expansion_to_tree(decay)) == decay
    with pytest.raises(ValueError, match="rates of decay"):
        expansion_from_tree({"axes": [["decay", 0.0, [-1.0]]], "coefficients": [1.0]})


def test_windows_know_which_points_lie_in_them():
    """Bells are zero at all other pairs, and places run from -1 to 1 across a window."""
    windows = Windows(0.0, 1.0, 4, overlap=0.5, periodic=True)
    at = torch.linspace(0, 0.99, 34, dtype=torch.float64)
    point, window, place = windows.inside(at)
    outside = windows.taylor(at, 0)[0].clone()
    outside[point, window] = 0.0
    assert float(outside.abs().max()) == 0.0
    middle = (window + 0.5) / 4
    gap = at[point] - middle
    gap = gap - torch.floor(gap + 0.5)
    assert torch.allclose(place, gap / 0.1875, atol=EXACT)


def test_stages_follow_each_other_without_a_jump():
    """The start holds to rounding, and so does every handover, with its slope in space."""
    family = steep()
    op = learn(family)
    sample = family.sample(1, 3)[0]
    sol = op(sample)
    at = np.linspace(0.01, 0.99, 23)
    start = family.values([sample], np.stack([0 * at, at], 1))[u0][0]
    assert np.abs(sol(t=0.0, x=at) - start).max() <= EXACT
    for handover in (1 / 3, 2 / 3):
        for shown in (u, u.diff(x)):
            before = sol[shown](t=handover - 1e-12, x=at)
            assert np.abs(sol[shown](t=handover + 1e-12, x=at) - before).max() < 1e-8


def test_a_moving_wave_is_found_without_training_and_better_in_stages():
    family = moving()
    sample = {a: 0.8}
    true = family.on(sample)
    knobs: Any = {"width": 16, "functions": 14, "times": 8}
    errors = {s: learn(family, stages=s, **knobs)(sample).error(true.exact) for s in (1, 4)}
    assert errors[4] < 1e-2
    assert errors[4] < errors[1] / 3


@pytest.mark.parametrize("stages", [1, 3])
def test_the_gradient_of_the_loss_is_exact_in_stages(stages):
    """Central differences along a random direction; what each stage starts from is held fixed."""
    solver = pk.HardConstraintMoE(**{**SMALL, "stages": stages}, rtol=1e-9)
    parts = Discretisation(steep(), solver, dtype=torch.float64)
    network = parts.network(torch.Generator().manual_seed(0))
    members = parts.members([parts.family.read_sample(s) for s in parts.family.sample(2, 1)])
    loss = FamilyLoss(parts, network, members)
    theta = loss.theta()
    way = torch.randn(theta.shape, dtype=theta.dtype, generator=torch.Generator().manual_seed(1))
    _, gradient = loss.gradient(theta)
    h = 1e-5
    slope = (loss.gradient(theta + h * way)[0] - loss.gradient(theta - h * way)[0]) / (2 * h)
    assert float(gradient @ way) == pytest.approx(slope, rel=1e-4)


def test_resume_and_files_keep_the_stages(tmp_path):
    """One step and two more are three, bit by bit; a solution read from a file is the same."""
    family = steep()
    knobs: Any = {**SMALL, "functions": 5, "stages": 2, "steps": 3, "renew": 2}
    solver = pk.HardConstraintMoE(**knobs)
    whole = family.solve(solver, seed=0, verify=False)
    half = family.solve(solver, seed=0, max_steps=1, verify=False, checkpoint=tmp_path / "c")
    again = family.solve(solver, seed=0, verify=False, resume=tmp_path / "c")
    assert (half.stats.steps, again.stats.steps) == (1, 3)
    weights = (op.model.network.parameters() for op in (whole, again))
    assert all(torch.equal(p, q) for p, q in zip(*weights, strict=True))
    sol = whole(family.sample(1, 5)[0])
    sol.save(tmp_path / "sol.pinn")
    times = np.random.default_rng(0).uniform(size=(2, 20))
    there = {"t": times[0], "x": times[1]}
    assert np.allclose(pk.load(tmp_path / "sol.pinn")(**there), sol(**there), rtol=0, atol=EXACT)


def test_a_basis_goes_on_beyond_the_end():
    """Learned to t = 1, solved to t = 1.25: the same functions of t and x, and still the solution."""

    def heat(end: float) -> pk.PDEFamily:
        system = pk.PDESystem(
            [u.diff(t) - u.diff(x, 2) / 10],
            pk.Interval(t, 0, end) * pk.Interval(x, 0, 1),
            [pk.Initial(u, a * sp.sin(sp.pi * x)), pk.Dirichlet(u, 0, on=pk.boundary(x))],
        )
        return pk.PDEFamily(system, {a: pk.Uniform(0.5, 1.0)})

    op = learn(heat(1.0), stages=1, experts=2)
    longer = op.model.on(heat(1.25))
    (answer,) = longer.solve([{a: 0.7}])
    late = torch.tensor([[1.2, 0.4]], dtype=torch.float64)
    found = float(answer.approximation.derivatives(late, [(0, (0, 0))])[0])
    exact = 0.7 * np.exp(-(np.pi**2) * 1.2 / 10) * np.sin(0.4 * np.pi)
    assert found == pytest.approx(exact, rel=1e-2)
    with pytest.raises(ValueError, match="more stages"):
        learn(heat(1.0), stages=2).model.on(heat(1.25))
    cold = pk.PDESystem(
        [u.diff(t) - u.diff(x, 2) / 10],
        BOX,
        [pk.Initial(u, a), pk.Dirichlet(u, 0, on=pk.boundary(x))],
    )
    with pytest.raises(ValueError, match="layers at different sides"):
        op.model.on(pk.PDEFamily.without_warnings(cold, {a: pk.Uniform(0.5, 1.0)}))


def test_what_stages_do_not_do_is_refused():
    with pytest.raises(ValueError, match="stages=2 needs constraint=True"):
        pk.HardConstraintMoE(stages=2, constraint=False)
    system = pk.PDESystem(
        [u.diff(t) - u.diff(x, 2) / 10],
        BOX,
        [
            pk.Initial(u, a),
            pk.Dirichlet(u, 1, on=pk.boundary(x, "left")),
            pk.Neumann(u, 0, on=pk.boundary(x, "right")),
        ],
    )
    layered = pk.PDEFamily.without_warnings(system, {a: pk.Uniform(0, 0.2)})
    with pytest.raises(UnsupportedProblemError, match=r"use stages=1"):
        learn(layered, stages=2)
