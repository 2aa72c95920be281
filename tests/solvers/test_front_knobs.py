"""Knobs that a family's declaration settles: for fronts, and for the width of the trunk.

Steep    u_t + u u_x = u_xx / 400, periodic on [0, 1], from random waves.
Calm     u_t = u_xx / 10 + u from the same waves: nothing is carried along.
"""

from __future__ import annotations

from typing import Any

import pytest
import sympy as sp
import torch

import pinnkit as pk
from pinnkit.solvers import front_knobs, hard_constraint_model
from pinnkit.solvers.family_knobs import BasisKnobs
from pinnkit.solvers.front_knobs import settle_fronts
from pinnkit.solvers.hard_constraint_model import Discretisation

t, x = pk.coords("t x")
u, u0 = pk.field("u", t, x), pk.given("u0", x)
k = sp.Symbol("k", real=True)
SMALL: Any = {"functions": 5, "width": 8, "depth": 1}
LADDER: Any = ({}, {"stages": 3, "experts": 4, "times": 6, "nodes": 25})


def waves(*, carried: bool) -> pk.PDEFamily:
    moved = u * u.diff(x) - u.diff(x, 2) / 400 if carried else -u.diff(x, 2) / 10 - u
    system = pk.PDESystem(
        [u.diff(t) + moved],
        pk.Interval(t, 0, 1) * pk.Interval(x, 0, 1),
        [pk.Initial(u, u0), pk.Periodic(u, x)],
    )
    law = pk.GaussianField(spectrum=9 / (k**2 + 9) ** 2, periodic=True, zero_mean=True, modes=4)
    return pk.PDEFamily(system, {u0: law})


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(front_knobs, "LADDER", LADDER)
    monkeypatch.setattr(front_knobs, "DRAWS", 2)


def settled(family: pk.PDEFamily, **knobs) -> tuple[Any, str]:
    solver = pk.HardConstraintMoE(**{**SMALL, **knobs})
    found, why = settle_fronts(solver, family, dtype=torch.float64)
    assert found == solver or why
    return found, why


def test_fronts_are_given_stages_by_misfit_alone(short, monkeypatch, tmp_path):
    """The rung of the least misfit; what was chosen, and why, stands in the record and in files."""
    solver = pk.HardConstraintMoE(**SMALL, steps=1)
    op = waves(carried=True).solve(solver, seed=0, verify=False)
    assert (op.solver.stages, op.solver.nodes, op.solver.steps) == (3, 25, 1)
    why = op.stats.more["knobs"]
    assert "Peclet number" in why and why.endswith("chosen: stages=3, experts=4, times=6, nodes=25")
    op.save(tmp_path / "op.pinn")
    monkeypatch.setattr(front_knobs, "LADDER", ())  # nothing is chosen anew
    again = pk.load(tmp_path / "op.pinn")
    assert again.solver == op.solver and again.stats.more == op.stats.more


def test_the_first_rung_with_a_small_misfit_is_enough(short, monkeypatch):
    monkeypatch.setattr(front_knobs, "ENOUGH", 1.0)
    usual, why = settled(waves(carried=True))
    assert usual == pk.HardConstraintMoE(**SMALL) and why.endswith("chosen: the usual knobs")


def test_knobs_that_were_given_or_have_no_fronts_stay(short):
    calm, steep = waves(carried=False), waves(carried=True)
    for family, knobs in ((calm, {}), (steep, {"nodes": 16}), (steep, {"constraint": False})):
        found, why = settled(family, **knobs)
        assert found == pk.HardConstraintMoE(**{**SMALL, **knobs}) and why == ""


def test_a_trunk_is_as_wide_as_it_has_functions():
    """A narrower one has no more independent functions than units in its last layer, and one."""
    assert BasisKnobs.of(pk.HardConstraintMoE()).width == 24
    assert BasisKnobs.of(pk.HardConstraintMoE(functions=40)).width == 40
    assert BasisKnobs.of(pk.HardConstraintMoE(functions=400)).width == 64
    assert BasisKnobs.of(pk.HardConstraintMoE(functions=40, width=12)).width == 12


def test_members_that_need_many_steps_go_on_alone(monkeypatch):
    """To where they end with all others, and with as many steps in their record."""
    family = waves(carried=True)
    solver = pk.HardConstraintMoE(**SMALL, experts=2, times=6, nodes=16)
    parts = Discretisation(family, solver, dtype=torch.float64)
    members = parts.members([family.read_sample(s) for s in family.sample(3, 1)])
    with torch.no_grad():
        leaves, _ = parts.leaves(parts.basis(parts.network(torch.Generator().manual_seed(0))))
        together = parts.solved(leaves, members)
        monkeypatch.setattr(hard_constraint_model, "SHORT", 2)
        parted = parts.solved(leaves, members)
    assert bool(together.record.converged.all()) and bool(parted.record.converged.all())
    assert int(parted.record.iterations.max()) > 2
    assert torch.equal(parted.record.iterations, together.record.iterations)
    assert torch.allclose(parted.coefficients, together.coefficients, rtol=1e-9, atol=1e-9)
