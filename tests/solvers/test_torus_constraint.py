"""Families on periodic boxes: the march, its constraint, exact solutions, files, resuming, refusals.

Cells    vorticity a cos(2 pi x) cos(2 pi y) exp(-8 pi^2 nu t): transport by its own streamfunction vanishes.
Wave     u_t + c . grad u = kappa lap u from a sin(2 pi (x + y)); exact, moving and dying away.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pytest
import sympy as sp
import torch

import pinnkit as pk
from pinnkit.errors import UnsupportedProblemError
from pinnkit.lower.periodic_approximation import PeriodicApproximation
from pinnkit.solvers import torus_state
from pinnkit.solvers.torus_constraint import TorusDiscretisation
from pinnkit.solvers.torus_state import MarchLoss

EXACT, ROUNDOFF = 1e-12, 1e-9
NU = 0.02

t, x, y, z = pk.coords("t x y z")
a = pk.given("a")
SMALL: Any = {
    "nodes": 8, "stages": 2, "elements": 1, "corrections": 6,
    "width": 4, "depth": 1, "draws": 2, "steps": 3, "renew": 2,
}  # fmt: skip


@functools.cache
def cells() -> pk.PDEFamily:
    psi, w = pk.field("psi w", t, x, y)
    shape = sp.cos(2 * sp.pi * x) * sp.cos(2 * sp.pi * y)
    decay = sp.exp(-8 * sp.pi**2 * NU * t)
    system = pk.PDESystem(
        [
            w.diff(t) + psi.diff(y) * w.diff(x) - psi.diff(x) * w.diff(y) - NU * pk.laplacian(w),
            pk.laplacian(psi) + w,
        ],
        pk.Interval(t, 0, 0.5) * pk.Box((x, y), (0, 0), (1, 1)),
        [
            pk.Initial(w, a * shape),
            *(pk.Periodic(f, axis) for f in (psi, w) for axis in (x, y)),
            pk.Gauge(psi, mean=0),
        ],
        exact={w: a * shape * decay, psi: a * shape * decay / (8 * sp.pi**2)},
    )
    return pk.PDEFamily(system, {a: pk.Uniform(0.5, 1.0)})


@functools.cache
def wave(source: bool = False, axes: int = 2) -> pk.PDEFamily:
    """With a given source, no exact solution is declared."""
    space = (x, y, z)[:axes]
    u = pk.field("u", t, *space)
    f = pk.given("f", *space)
    phase = 2 * sp.pi * (space[0] + space[1])
    rate = (2 * sp.pi) ** 2 * 2 / 50
    system = pk.PDESystem(
        [u.diff(t) + u.diff(x) - pk.laplacian(u) / 50 - (f + t if source else 0)],
        pk.Interval(t, 0, 1) * pk.Box(space, (0,) * axes, (1,) * axes),
        [pk.Initial(u, a * sp.sin(phase)), *(pk.Periodic(u, c) for c in space)],
        exact=None if source else a * sp.exp(-rate * t) * sp.sin(phase - 2 * sp.pi * t),
    )
    laws: dict[Any, Any] = {a: pk.Uniform(0.5, 1.0)}
    if source:
        laws[f] = pk.GaussianField(length=0.3, periodic=True)
    return pk.PDEFamily(system, laws)


def learn(family: pk.PDEFamily, **knobs: Any) -> Any:
    solver = pk.HardConstraintMoE(**{**SMALL, **knobs})
    return family.solve(solver, seed=0, verify=False, time_limit=None)


def discretised(family: pk.PDEFamily, **knobs: Any) -> TorusDiscretisation:
    return TorusDiscretisation(
        family, pk.HardConstraintMoE(**{**SMALL, **knobs}), dtype=torch.float64
    )


def answered(op: Any, value: float = 0.8) -> tuple[dict[str, Any], float]:
    """What a member's stats say, and its relative error at random points, all fields, against `exact`."""
    nf, points = op.family.normal_form, torch.from_numpy(places(200, len(op.family.coords)))
    (answer,) = op.model.solve([{a: value}])
    spec, tensors = answer.approximation.to_state()
    again = PeriodicApproximation.from_state(spec, tensors, nf)
    wanted = [(i, (0,) * points.shape[1]) for i in range(len(nf.fields))]
    off = []
    for field, found in zip(nf.fields, again.derivatives(points, wanted), strict=True):
        exact = sp.lambdify(nf.coords, nf.exact[field].subs(a, value), "numpy")(*points.numpy().T)
        off.append(np.linalg.norm(found.numpy() - exact) / np.linalg.norm(exact))
    return dict(answer.stats), max(off)


def places(n: int, d: int = 3) -> np.ndarray:
    return np.random.default_rng(0).uniform(size=(n, d)) * np.array([0.5, *[1] * (d - 1)])


# --- the answer as a function -------------------------------------------------------------------


def test_derivatives_of_polynomials_times_waves_are_exact():
    """(1 + t - t^3) sin(2 pi (x - 2 y)) with three nodes an element; scattered, on a grid, by autograd."""
    nf = wave().normal_form
    parts = discretised(wave()).element
    instants = torch.cat([torch.zeros(1), parts.instants, parts.instants + 0.5])
    at = torch.arange(8, dtype=torch.float64) / 8
    shape = torch.sin(2 * math.pi * (at[:, None] - 2 * at))
    course = 1 + instants - instants**3
    symbols = torch.stack(list(parts.symbols))
    found = PeriodicApproximation(nf, course[:, None, None] * shape, symbols, 3)
    u = (1 + t - t**3) * sp.sin(2 * sp.pi * (x - 2 * y))
    wanted = {
        (0, 0, 0): u,
        (1, 0, 1): u.diff(t, y),
        (0, 2, 0): u.diff(x, 2),
        (2, 1, 0): u.diff(t, 2, x),
    }
    grid = np.stack(np.meshgrid([0.1, 0.5, 0.9], *[np.linspace(0, 1.7, 7)] * 2), -1).reshape(-1, 3)
    for points in (places(40), grid):
        columns = torch.from_numpy(points)
        values = found.derivatives(columns, [(0, o) for o in wanted])
        for (orders, expr), value in zip(wanted.items(), values, strict=True):
            exact = sp.lambdify((t, x, y), expr, "numpy")(*points.T)
            assert np.abs(value.numpy() - exact).max() < 1e-10 * (2 * math.pi) ** sum(orders)
    columns = torch.from_numpy(places(5)).requires_grad_()
    (value,) = found.derivatives(columns, [(0, (0, 0, 0))])
    (slope,) = torch.autograd.grad(value.sum(), columns)
    found_too = found.derivatives(columns.detach(), [(0, (1, 0, 0)), (0, (0, 0, 1))])
    assert torch.allclose(slope[:, [0, 2]], torch.stack(found_too, 1), atol=1e-8)


def test_where_the_march_explodes_the_constraint_begins_at_rest():
    """u_t + u (u_x + u_y) / 2 = lap u / 20: two steps of training, four long elements a stage."""
    u = pk.field("u", t, x, y)
    system = pk.PDESystem(
        [u.diff(t) + u * (u.diff(x) + u.diff(y)) / 2 - pk.laplacian(u) / 20],
        pk.Interval(t, 0, 1) * pk.Box((x, y), (0, 0), (1, 1)),
        [
            pk.Initial(u, a * sp.sin(2 * sp.pi * x) * sp.cos(2 * sp.pi * y)),
            *(pk.Periodic(u, c) for c in (x, y)),
        ],
    )
    family = pk.PDEFamily(system, {a: pk.Uniform(0.5, 1.0)})
    op = learn(family, elements=4, nodes=16, corrections=12)
    assert op({a: 0.5}).stats.more["misfit"] < 0.01  # else 15
    assert op({a: 1e3}).stats.more["misfit"] > 1  # and no ValueError


# --- exact solutions ------------------------------------------------------------------------------


def test_an_exact_flow_comes_out_with_the_order_of_its_elements():
    """Untrained, all fields; of order 4 or more in the element's length, three nodes each."""
    errors = []
    for stages in (1, 2, 4):
        stats, off = answered(learn(cells(), stages=stages, steps=1))
        assert stats["converged"] and stats["misfit"] < 0.05
        errors.append(off)
    assert errors[-1] < 1e-4
    assert np.all(np.array(errors[:-1]) / errors[1:] > 12)


def test_a_moving_wave_is_found_by_every_kind_of_constraint():
    """Experts in time, in space, one global constraint; in three dimensions, too."""
    knobs: Any = {"stages": 4, "times": 4, "nodes": 4, "corrections": 8, "steps": 1}
    for family, more in (
        (wave(), {}),
        (wave(), {"experts": 2, "nodes": 8}),
        (wave(), {"stages": 1, "elements": 4, "corrections": 40}),
        (wave(axes=3), {}),
    ):
        stats, off = answered(learn(family, **{**knobs, **more}))
        assert stats["converged"] and off < 5e-3


def test_learned_judged_and_better_than_the_march_alone():
    """Held-out draws against the exact solution; one of them is too few for a verdict."""
    knobs: Any = {**SMALL, "stages": 4, "times": 4, "corrections": 8, "judged": 1}
    op = wave().solve(pk.HardConstraintMoE(**knobs), seed=0, tol=1e-2)
    assert op.status is pk.Status.UNVERIFIED and op.evidence is pk.Evidence.EXACT
    assert len(op.errors) == 1 and op.errors.max() < 1e-2
    soft = learn(wave(), **{**knobs, "stages": 1, "elements": 4, "constraint": False})
    sol, (stats, off) = op({a: 0.7}), answered(soft, 0.7)
    assert sol.stats.more["converged"] and "converged" not in stats
    assert stats["misfit"] > 10 * sol.stats.more["misfit"] and off > 10 * op.errors.max()
    start = 0.7 * np.sin(2 * np.pi * (0.3 + places(9)[:, 1]))
    assert np.abs(sol(t=0.0, x=0.3, y=places(9)[:, 1]) - start).max() < EXACT


# --- what every solver of families keeps -----------------------------------------------------------


def test_the_loss_has_the_gradient_it_says(monkeypatch: pytest.MonkeyPatch):
    """Central differences along a random direction, with what is given among the channels."""
    parts = discretised(wave(source=True))
    network = parts.network(torch.Generator().manual_seed(0))
    samples = [parts.family.read_sample(s) for s in parts.family.sample(2, 1)]
    states = parts.element.starts(samples)
    known = parts.inputs(parts.element, samples)(1)
    loss = MarchLoss(parts, network, states, known)
    theta = torch.cat([p.detach().flatten() for p in network.parameters()])
    way = torch.randn(theta.shape, dtype=theta.dtype, generator=torch.Generator().manual_seed(1))
    _, cut = loss.gradient(theta)
    assert float(cut.norm()) == pytest.approx(1.0)
    monkeypatch.setattr(torus_state, "CLIP", math.inf)
    value, gradient = loss.gradient(theta)
    assert torch.allclose(gradient / gradient.norm(), cut)
    h = 1e-5
    slope = (loss.gradient(theta + h * way)[0] - loss.gradient(theta - h * way)[0]) / (2 * h)
    assert float(gradient @ way) == pytest.approx(slope, rel=1e-5)
    assert float(loss.residual(theta).square().sum()) == pytest.approx(value)


def test_what_changes_in_time_is_read_stage_by_stage():
    """u_t + u_x = u_xx / 50 + f + t: the mean is that of f times t, plus t^2 / 2."""
    family = wave(source=True)
    op = learn(family, corrections=12)
    parts = op.model.parts
    assert not parts.element.autonomous and not parts.conserved
    assert discretised(wave()).conserved
    sample = {a: 0.8, family.given[1]: sp.cos(2 * sp.pi * y) + 0.5}
    at = np.arange(8) / 8
    mesh = np.stack(np.meshgrid([1.0], at, at), -1).reshape(-1, 3)
    assert op.values([sample], mesh)["u"].mean() == pytest.approx(0.5 + 0.5, rel=1e-3)


def test_a_member_does_not_depend_on_its_batch_mates():
    op = learn(wave(source=True))
    samples = wave(source=True).sample(3, 9)
    together = op.values(samples, places(20))["u"]
    alone = np.concatenate([op.values([s], places(20))["u"] for s in samples])
    assert np.allclose(together, alone, rtol=0, atol=ROUNDOFF)


def test_resume_files_and_warm_start_keep_the_weights(tmp_path):
    """One step and two more are three, bit by bit; what is read from a file is the same function."""
    solver = pk.HardConstraintMoE(**SMALL)
    whole = wave().solve(solver, seed=0, verify=False)
    half = wave().solve(solver, seed=0, max_steps=1, verify=False, checkpoint=tmp_path / "c")
    again = wave().solve(solver, seed=0, verify=False, resume=tmp_path / "c")
    assert (half.stats.steps, again.stats.steps, len(whole.history["defect"])) == (1, 3, 3)
    for p, q in zip(
        whole.model.network.parameters(), again.model.network.parameters(), strict=True
    ):
        assert torch.equal(p, q)
    other = pk.HardConstraintMoE(**{**SMALL, "nodes": 10})
    with pytest.raises(ValueError, match="resume= was learned with other knobs"):
        wave().solve(other, seed=0, verify=False, resume=tmp_path / "c")
    whole.save(tmp_path / "op.pinn")
    other = pk.load(tmp_path / "op.pinn")
    points, sample = places(20), {a: 0.6}
    for name, values in whole.values([sample], points).items():
        assert np.array_equal(other.values([sample], points)[name], values)
    sol = whole(sample)
    sol.save(tmp_path / "sol.pinn")
    there = {"t": points[:, 0], "x": points[:, 1], "y": points[:, 2]}
    assert np.allclose(pk.load(tmp_path / "sol.pinn")(**there), sol(**there), rtol=0, atol=EXACT)
    warm = wave().solve(solver, seed=1, verify=False, warm_start=whole, max_steps=0)
    weights = (op.model.network.parameters() for op in (whole, warm))
    assert all(torch.equal(p, q) for p, q in zip(*weights, strict=True))


@pytest.mark.parametrize(
    ("knobs", "why"),
    [
        ({"functions": 5}, r"functions=5\) means nothing on a periodic box"),
        ({"norm": "defect"}, r"norm='defect'\) means nothing"),
        ({"nodes": 9}, "nodes=9 must be even"),
        ({"experts": 2, "overlap": 0.0}, "experts=2 need overlap > 0"),
    ],
)
def test_knobs_that_mean_nothing_here_are_refused(knobs: dict[str, Any], why: str):
    with pytest.raises(UnsupportedProblemError, match=why):
        cells().solve(pk.HardConstraintMoE(**knobs))


def test_other_families_say_what_is_taken():
    assert pk.choose_solver(cells())[0] == pk.HardConstraintMoE()
    u = pk.field("u", t, x, y)
    walls = pk.PDESystem(
        [u.diff(t) - pk.laplacian(u)],
        pk.Interval(t, 0, 1) * pk.Box((x, y), (0, 0), (1, 1)),
        [pk.Initial(u, a * sp.sin(sp.pi * x) * sp.sin(sp.pi * y))]
        + [pk.Dirichlet(u, 0, on=pk.boundary(c)) for c in (x, y)],
    )
    with pytest.raises(UnsupportedProblemError, match="periodic along every axis"):
        pk.PDEFamily(walls, {a: pk.Uniform(0.5, 1.0)}).solve(pk.HardConstraintMoE())
    line = pk.field("u", t, x)
    heat = pk.PDESystem(
        [line.diff(t) - line.diff(x, 2)],
        pk.Interval(t, 0, 1) * pk.Interval(x, 0, 1),
        [pk.Initial(line, a * sp.sin(2 * sp.pi * x)), pk.Periodic(line, x)],
    )
    with pytest.raises(
        UnsupportedProblemError, match=r"corrections=3\) means nothing in one space"
    ):
        pk.PDEFamily(heat, {a: pk.Uniform(0.5, 1.0)}).solve(pk.HardConstraintMoE(corrections=3))
