"""Families learned through the constraint layer: exact conditions, the norm, the operator, files.

Heat     u_t = u_xx / 10, u(0, x) = u0 sin(pi x), u = 0 at both ends; exact u0 exp(-pi^2 t / 10) sin(pi x).
Layers   R u_t = D u_xx, u = 1 at x = 0 against the start u0, outflow u + u_x = 0 at x = 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sympy as sp
import torch

import pinnkit as pk
from pinnkit.errors import UnsupportedProblemError
from pinnkit.lower.defect_norm import DefectNorm, SpaceTimeGrid, difference_matrix
from pinnkit.lower.family_form import make_family_form
from pinnkit.nn import norm_constants
from pinnkit.solvers.hard_constraint_model import Discretisation
from pinnkit.solvers.hard_constraint_state import FamilyLoss

EXACT, ROUNDOFF = 1e-12, 1e-8

t, x = pk.coords("t x")
u = pk.field("u", t, x)
u0, f = pk.given("u0"), pk.given("f", x)
BOX = pk.Interval(t, 0, 1) * pk.Interval(x, 0, 1)
SMALL: Any = {
    "functions": 6,
    "experts": 2,
    "times": 10,
    "nodes": 16,
    "draws": 3,
    "width": 8,
    "depth": 1,
}


def heat() -> pk.PDEFamily:
    system = pk.PDESystem(
        [u.diff(t) - u.diff(x, 2) / 10],
        BOX,
        [pk.Initial(u, u0 * sp.sin(sp.pi * x)), pk.Dirichlet(u, 0, on=pk.boundary(x))],
        exact=u0 * sp.exp(-(sp.pi**2) * t / 10) * sp.sin(sp.pi * x),
    )
    return pk.PDEFamily(system, {u0: pk.Uniform(0.5, 1.0)})


def layers() -> pk.PDEFamily:
    system = pk.PDESystem(
        [3 * u.diff(t) - u.diff(x, 2) / 10],
        BOX,
        [
            pk.Initial(u, u0),
            pk.Dirichlet(u, 1, on=pk.boundary(x, "left")),
            pk.Robin(u + pk.dn(u), on=pk.boundary(x, "right")),
        ],
    )
    # The jump at the inlet is meant, and needs no warning.
    return pk.PDEFamily.without_warnings(system, {u0: pk.Uniform(0, 0.2)})


def source() -> pk.PDEFamily:
    system = pk.PDESystem(
        [u.diff(t) - u.diff(x, 2) / 10 - f],
        BOX,
        [pk.Initial(u, 0), pk.Dirichlet(u, 0, on=pk.boundary(x))],
    )
    return pk.PDEFamily(system, {f: pk.GaussianField(length=0.4)})


def discretised(family: pk.PDEFamily, **knobs) -> Discretisation:
    solver = pk.HardConstraintMoE(**{**SMALL, **knobs})
    return Discretisation(family, solver, dtype=torch.float64)


def learn(family: pk.PDEFamily, steps: int = 2, **knobs):
    solver = pk.HardConstraintMoE(**{**SMALL, **knobs}, steps=steps)
    return family.solve(solver, seed=0, verify=False, time_limit=None)


# --- the form -----------------------------------------------------------------------------------


def test_start_and_walls_hold_by_construction():
    """To rounding at every point of the start and of the wall, whatever the weights."""
    for family in (heat(), layers(), source()):
        op = learn(family, steps=1)
        sample = family.sample(1, 3)[0]
        sol = op(sample)
        at = np.linspace(0.01, 0.99, 23)
        start = sp.lambdify(x, family.on(sample).normal_form.conditions[0].value, "numpy")(at)
        assert np.abs(sol(t=0.0, x=at) - start).max() <= EXACT
        wall = 1.0 if family.given == (u0,) and "u0*sin" not in repr(family) else 0.0
        later = np.linspace(0.1, 1, 11)
        assert np.abs(sol(t=later, x=0.0) - wall).max() <= EXACT


def test_layers_are_found_where_data_contradict():
    assert make_family_form(heat(), heat().sample(3)).diffusivity == {}
    found = make_family_form(layers(), layers().sample(3)).diffusivity
    # D / R = 1/30, half as much again
    assert found == pytest.approx({"left": 0.05, "right": 0.05})


def test_residual_slopes_are_those_of_autograd():
    parts = discretised(layers())
    members = parts.members(parts.family.sample(2, 1))
    leaves = members.offset + 0.1
    slopes = parts.residual.slopes(members.inputs, leaves)
    by_autograd = torch.func.jacrev(lambda v: parts.residual(members.inputs, v).sum((0, 1)))(leaves)
    assert torch.allclose(slopes, by_autograd.permute(1, 2, 0, 3), atol=ROUNDOFF)


# --- the norm -----------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_differences_are_exact_for_polynomials_and_waves(order):
    nodes = (1 - np.cos(np.linspace(0, np.pi, 12))) / 2
    found = difference_matrix(nodes, order) @ nodes**order
    assert np.abs(found - sp.factorial(order)).max() < 1e-6
    n = 16
    grid = np.arange(n) / n
    wave = difference_matrix(grid, order, 1.0) @ np.sin(2 * np.pi * grid)
    exact = [np.cos, lambda z: -np.sin(z), lambda z: -np.cos(z), np.sin][order - 1](
        2 * np.pi * grid
    )
    assert np.allclose(wave, (2 * np.pi) ** order * exact, atol=1e-8 * (2 * np.pi) ** order)


def test_the_defect_norm_inverts_the_discrete_equation():
    """L v = r by a dense matrix written here, heat with v = 0 at both ends."""
    grid = SpaceTimeGrid(0, 1, 0, 1, times=4, nodes=7, grading=2.0)
    orders = [(0, 0, 2), (0, 1, 0)]
    slopes = torch.zeros(1, 28, 1, 2, dtype=torch.float64)
    slopes[..., 0], slopes[..., 1] = -0.1, 1.0
    ends = torch.zeros(4, 7, 1, dtype=torch.bool)
    ends[:, [0, -1]] = True
    slopes[:, ends.reshape(28, 1)[:, 0]] = 0
    scales = torch.tensor([2.0], dtype=torch.float64)
    norm = DefectNorm(grid, orders, slopes, ends.reshape(28, 1), scales)
    r = torch.randn(1, 28, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    v = (norm(r).reshape(4, 7) * 2 / grid.weights.sqrt()).numpy()
    d2, before = difference_matrix(grid.nodes.numpy(), 2), np.zeros(7)
    for n, dt in enumerate(grid.steps.tolist()):
        matrix = np.eye(7) / dt - 0.1 * d2
        right = r[0, 7 * n : 7 * n + 7, 0, 0].numpy() + before / dt
        for k in (0, 6):
            matrix[k], right[k] = np.eye(7)[k], r[0, 7 * n + k, 0, 0]
        before = np.linalg.solve(matrix, right)
        assert np.allclose(v[n], before, atol=ROUNDOFF)


@pytest.mark.parametrize(("nodes", "block"), [(11, 4), (23, 5)])
def test_blocks_of_nodes_give_what_one_dense_inverse_gives(nodes, block):
    """Two coupled fields, first to fourth derivatives, a condition with a slope on the right."""
    grid = SpaceTimeGrid(0, 1, 0, 1, times=3, nodes=nodes, grading=1.5)
    orders = [(0, 0, 4), (0, 0, 1), (0, 1, 0), (1, 0, 2), (1, 1, 0), (1, 0, 0)]
    gen = torch.Generator().manual_seed(0)
    slopes = torch.zeros(2, 3, nodes, 2, 6, dtype=torch.float64)
    usual = torch.tensor([[1e-6, 1.0, 1.0, 0, 0, 0.3], [0, 0.2, 0, -0.1, 1.0, 0.4]])
    slopes[:, :, 1:-1] = usual.double() * (1 + torch.rand(2, 3, nodes - 2, 2, 6, generator=gen))
    slopes[:, :, -1, 0, 1] = 1.0
    ends = torch.zeros(3, nodes, 2, dtype=torch.bool)
    ends[:, [0, -1]] = True
    known = (grid, orders, slopes.reshape(2, -1, 2, 6), ends.reshape(-1, 2), torch.ones(2).double())
    r = torch.randn(2, 3 * nodes, 2, 4, dtype=torch.float64, generator=gen)
    dense, blocks = DefectNorm(*known, block=nodes), DefectNorm(*known, block=block)
    assert (dense.blocks, blocks.blocks) == (1, -(-nodes // block))
    found = dense(r)
    assert float((blocks(r) - found).abs().max()) <= EXACT * float(found.abs().max())


def test_the_defect_norm_is_about_the_error_where_the_plain_one_is_not():
    """Constants of |P J v| against |B v| within the span: C / c is 3 and more than 100."""
    spans = {}
    for kind in ("defect", "pointwise"):
        parts = discretised(layers(), norm=kind, experts=1, times=24, nodes=32)
        network = parts.network(torch.Generator().manual_seed(0))
        members = parts.members(parts.family.sample(1, 1))
        basis = parts.basis(network)
        with torch.no_grad():
            leaves = basis.leaves(basis.fixed(parts.points, parts.spec), parts.spec, parts.wanted)
            layer = parts.layer(parts.norm(members, members.offset))
            w = torch.zeros(1, leaves.shape[2], dtype=torch.float64)
            j = layer.jacobian(w, leaves, members.offset, members.inputs)[0]
        at = parts.wanted.index((0, (0, 0)))
        values = leaves[:, at] * parts.grid.weights.sqrt().reshape(-1, 1)
        spans[kind] = norm_constants(j, values)
    assert spans["defect"][1] / spans["defect"][0] < 10
    assert (
        spans["pointwise"][1] / spans["pointwise"][0] > 10 * spans["defect"][1] / spans["defect"][0]
    )


# --- learning -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "knobs", [{}, {"constraint": False}, {"norm": "pointwise", "overlap": 0.0}]
)
def test_the_gradient_of_the_loss_is_exact(knobs):
    """Central differences along a random direction, with the coefficients found anew each time."""
    parts = discretised(source(), **knobs)
    network = parts.network(torch.Generator().manual_seed(0))
    if network.branch is not None:
        with torch.no_grad():
            for p in network.branch.parameters():
                p.add_(
                    0.1
                    * torch.randn(
                        p.shape, dtype=p.dtype, generator=torch.Generator().manual_seed(2)
                    )
                )
    loss = FamilyLoss(parts, network, parts.members(parts.family.sample(2, 1)))
    theta = loss.theta()
    way = torch.randn(theta.shape, dtype=theta.dtype, generator=torch.Generator().manual_seed(1))
    _, gradient = loss.gradient(theta)
    h = 1e-5
    slope = (loss.gradient(theta + h * way)[0] - loss.gradient(theta - h * way)[0]) / (2 * h)
    assert float(gradient @ way) == pytest.approx(slope, rel=1e-4)
    rows = loss.residual(theta)
    assert float(rows.square().sum()) / 2 == pytest.approx(loss.gradient(theta)[0])


def test_heat_is_learned_and_judged():
    """Twelve held-out draws against the exact solution."""
    op = heat().solve(pk.HardConstraintMoE(**SMALL, steps=12), seed=0, tol=5e-3)
    assert op.ok and op.evidence is pk.Evidence.EXACT and len(op.errors) == 12
    sol = op({u0: 0.8})
    assert sol.stats.more["converged"] and sol.stats.more["interface_jump"] < 1e-6
    assert sol.verify().ok
    assert float(sol[u.diff(t) - u.diff(x, 2) / 10](t=0.5, x=0.4)) == pytest.approx(0, abs=2e-2)


def test_experts_agree_at_their_interfaces_only_where_they_overlap():
    smooth = learn(layers(), overlap=1.0)
    boxes = learn(layers(), overlap=0.0, norm="pointwise")
    sample = layers().sample(1, 7)[0]
    assert smooth(sample).stats.more["interface_jump"] < 1e-6
    assert boxes(sample).stats.more["interface_jump"] > 1e-4


def test_a_member_does_not_depend_on_its_batch_mates():
    op = learn(source())
    samples = source().sample(3, 9)
    points = np.random.default_rng(0).uniform(size=(20, 2))
    together = op.values(samples, points)["u"]
    alone = np.concatenate([op.values([s], points)["u"] for s in samples])
    assert np.allclose(together, alone, rtol=0, atol=1e-9)


def test_same_seed_same_operator_and_resume_goes_on_exactly(tmp_path):
    whole = learn(heat(), steps=4, renew=2)
    solver = pk.HardConstraintMoE(**SMALL, steps=4, renew=2)
    half = heat().solve(solver, seed=0, max_steps=2, verify=False, checkpoint=tmp_path / "c")
    again = heat().solve(solver, seed=0, verify=False, resume=tmp_path / "c")
    assert half.stats.steps == 2 and again.stats.steps == 4
    other = pk.HardConstraintMoE(**{**SMALL, "draws": 1}, steps=4, renew=2)
    with pytest.raises(ValueError, match="resume= was learned with other knobs"):
        heat().solve(other, seed=0, verify=False, resume=tmp_path / "c")
    for a, b in zip(
        whole.model.network.parameters(), again.model.network.parameters(), strict=True
    ):
        assert torch.equal(a, b)


def test_an_operator_and_its_solutions_survive_files(tmp_path):
    op = learn(source())
    sample = source().sample(1, 5)[0]
    points = np.random.default_rng(0).uniform(size=(20, 2))
    op.save(tmp_path / "op.pinn")
    other = pk.load(tmp_path / "op.pinn")
    assert np.array_equal(other.values([sample], points)["u"], op.values([sample], points)["u"])
    sol = op(sample)
    sol.save(tmp_path / "sol.pinn")
    there = {"t": points[:, 0], "x": points[:, 1]}
    assert np.allclose(pk.load(tmp_path / "sol.pinn")(**there), sol(**there), rtol=0, atol=EXACT)


def test_refusals_say_what_to_do():
    solver = pk.HardConstraintMoE()
    assert "Use CausalPINN()" in str(solver.supports(heat().on({u0: 1.0})))
    y = pk.coords("y")
    p, a = pk.field("p", x, y), pk.given("a")
    steady = pk.PDEFamily(
        pk.PDESystem(
            [pk.laplacian(p) + a],
            pk.Interval(x, 0, 1) * pk.Interval(y, 0, 1),
            [pk.Dirichlet(p, 0, on=pk.boundary(c)) for c in (x, y)],
        ),
        {a: pk.Uniform(1, 2)},
    )
    with pytest.raises(UnsupportedProblemError, match="one space dimension"):
        steady.solve(solver)
    assert pk.choose_solver(heat())[0] == solver
    with pytest.raises(ValueError, match=r"(?s)functions=0.*norm='l1'"):
        pk.HardConstraintMoE(functions=0, norm="l1")
    with pytest.raises(ValueError, match=r"experts=2\.5 must be a whole number"):
        pk.HardConstraintMoE(experts=2.5)  # type: ignore[arg-type]
