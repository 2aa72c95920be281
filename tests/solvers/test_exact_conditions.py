"""Conditions fulfilled by construction: where they hold, and where they must not be used."""

import math
from typing import Any

import pytest
import sympy as sp
import torch

import pinnkit as pk
from pinnkit import problems  # pyright: ignore[reportAttributeAccessIssue]
from pinnkit.solvers.base import Env
from pinnkit.solvers.exact_conditions import exact_conditions

F64 = torch.float64


def _env(seed=0):
    return Env(torch.device("cpu"), F64, torch.Generator().manual_seed(seed), seed)


def _window(system, **settings):
    """The first window with random last layers: the network is not silent any more."""
    state = pk.CausalPINN(width=8, depth=2, **settings).init(system, _env())
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in state.window.collocation.params:
            p.add_(torch.randn(p.shape, generator=generator, dtype=F64))
    return state, state.window.collocation


def _residuals(nf, model, condition, n=7):
    """The condition's residual at points of its face, for whatever the network is."""
    from pinnkit.lower.residuals import compile_residuals

    term = next(
        t for t in compile_residuals(nf) if t.label == condition.label and t.face is not None
    )
    points = torch.rand(n, len(nf.coords), dtype=F64, generator=torch.Generator().manual_seed(2))
    for i, c in enumerate(nf.coords):
        low, high = nf.bounds[c]
        points[:, i] = low + (high - low) * points[:, i]
    points[:, nf.coords.index(condition.face.coord)] = condition.face.value
    with torch.no_grad():
        return term.evaluate(model, points)


@pytest.mark.parametrize(
    "problem",
    [
        problems.Burgers(),
        problems.Wave(),
        problems.KdV(),
        problems.Reaction(),
        problems.Poisson1D(),
        problems.Poisson2D(),
        problems.VibratingBeam(),
        problems.GinzburgLandau(),
    ],
    ids=lambda p: type(p).__name__,
)
def test_every_held_condition_holds_whatever_the_network_is(problem):
    nf = problem.system.normal_form
    _, collocation = _window(problem.system)
    exact = exact_conditions(nf, nf.bounds, None, F64)
    assert exact is not None and exact.held
    for condition in exact.held:
        residual = _residuals(nf, collocation.model, condition)
        assert float(residual.abs().max()) < 1e-12, condition.label
    kept = {t.label for g in collocation.groups for t in getattr(g, "terms", ())}
    assert not kept & {c.label for c in exact.held}


def test_sides_with_values_that_move_in_time():
    t, x = pk.coords("t x")
    u = pk.field("u", t, x)
    moving = pk.PDESystem(
        [u.diff(t) - u.diff(x, 2) - sp.cos(t) - sp.cos(x)],
        domain=pk.Interval(t, 0, 1) * pk.Interval(x, 1, 3),
        conditions=[
            pk.Initial(u, sp.cos(x)),
            pk.Dirichlet(u, sp.cos(1) + sp.sin(t), on=pk.boundary(x, "left")),
            pk.Dirichlet(u, sp.cos(3) + sp.sin(t), on=pk.boundary(x, "right")),
        ],
    )
    nf = moving.normal_form
    assert nf.corners == ()
    _, collocation = _window(moving)
    assert [g.kind for g in collocation.groups] == ["interior"]
    for condition in nf.conditions:
        assert float(_residuals(nf, collocation.model, condition).abs().max()) < 1e-12


@pytest.mark.parametrize(
    "problem, why",
    [
        (problems.AllenCahn(), "a kink at the seam would stay for all time"),
        (problems.LotkaVolterra(), "no space: initial value problems have windows of their own"),
    ],
    ids=["kink", "ode"],
)
def test_exact_forms_are_not_used_where_data_do_not_allow_it(problem, why):
    nf = problem.system.normal_form
    assert exact_conditions(nf, nf.bounds, None, F64) is None, why


def _heat(start, left: Any = 0, right: Any = 0, order=1, speed: Any = 0):
    """u_t = u_xx or u_tt = u_xx on (0, 1) x (0, 1) with values on both sides."""
    t, x = pk.coords("t x")
    u = pk.field("u", t, x)
    return pk.PDESystem(
        [u.diff(t, order) - u.diff(x, 2)],
        domain=pk.Interval(t, 0, 1) * pk.Interval(x, 0, 1),
        conditions=[
            pk.Initial(u, start(x)),
            *([pk.Initial(u.diff(t), speed)] if order == 2 else []),
            pk.Dirichlet(u, left, on=pk.boundary(x, "left")),
            pk.Dirichlet(u, right, on=pk.boundary(x, "right")),
        ],
    )


@pytest.mark.parametrize(
    "start",
    [
        lambda x: sp.Rational(1, 2) - sp.Abs(x - sp.Rational(1, 2)),
        lambda x: sp.Piecewise((x, x < sp.Rational(1, 3)), ((1 - x) / 2, True)),
        lambda x: sp.Min(x, 1 - x),
        lambda x: sp.sqrt(x) * (1 - x),
        lambda x: x * (1 - x) * ((x - sp.Rational(1, 2)) ** 2) ** sp.Rational(2, 3),
    ],
    ids=["abs", "piecewise", "min", "root at a side", "root inside"],
)
def test_kinks_inside_the_domain_stay_soft(start):
    """They are gone for t > 0; an exact form would keep them, whatever the network adds."""
    _, collocation = _window(_heat(start))
    assert [g.kind for g in collocation.groups].count("initial") == 1


def test_kinks_of_values_on_a_side_stay_soft():
    t = pk.coords("t")
    system = _heat(lambda x: 0 * x, left=sp.Max(0, t - sp.Rational(1, 2)))
    _, collocation = _window(system)
    assert "boundary" in [g.kind for g in collocation.groups]


def test_a_struck_string_keeps_its_first_velocity():
    """u = 0 at the sides, u_t = 1 at the start: a lift of -t there would undo the velocity."""
    struck = _heat(lambda x: 0 * x, order=2, speed=1)
    _, collocation = _window(struck)
    nf = struck.normal_form
    exact = exact_conditions(nf, nf.bounds, None, F64)
    held = () if exact is None else exact.held
    for condition in nf.conditions:
        soft = condition.label not in {c.label for c in held}
        if condition.kind == "initial":
            assert soft or float(_residuals(nf, collocation.model, condition).abs().max()) < 1e-12
        else:
            assert soft


def test_a_string_whose_sides_move_as_its_start_says():
    t, x = pk.coords("t x")
    system = _heat(lambda x: 0 * x, t, t + t**3, order=2, speed=1 + 0 * x)
    nf = system.normal_form
    _, collocation = _window(system)
    assert [g.kind for g in collocation.groups] == ["interior"]
    for condition in nf.conditions:
        assert float(_residuals(nf, collocation.model, condition).abs().max()) < 1e-12


def test_zero_on_a_diagonal_is_not_zero():
    """x - y vanishes on the diagonal of a square, and is no zero on its sides."""
    x, y = pk.coords("x y")
    u = pk.field("u", x, y)
    value = x - y
    square = pk.PDESystem(
        [u.diff(x, 2) + u.diff(y, 2)],
        domain=pk.Interval(x, 0, 1) * pk.Interval(y, 0, 1),
        conditions=[
            pk.Dirichlet(u, value.subs(c, side), on=pk.boundary(c, name))
            for c in (x, y)
            for side, name in ((0, "left"), (1, "right"))
        ],
    )
    nf = square.normal_form
    assert exact_conditions(nf, nf.bounds, None, F64) is None


@pytest.mark.parametrize("size", [1e-20, 1e20])
def test_small_and_large_data_are_told_from_rounding(size):
    """Zero is meant relative to the data: values of 1e-20 beside 1e-20 are values."""
    system = _heat(lambda x: size * (1 + x), size, 2 * size)
    nf = system.normal_form
    _, collocation = _window(system)
    assert [g.kind for g in collocation.groups] == ["interior"]
    for condition in nf.conditions:
        assert float(_residuals(nf, collocation.model, condition).abs().max()) < 1e-12


def test_one_side_alone_stays_soft():
    t, x = pk.coords("t x")
    u = pk.field("u", t, x)
    mixed = pk.PDESystem(
        [u.diff(t) - u.diff(x, 2)],
        domain=pk.Interval(t, 0, 1) * pk.Interval(x, 0, 1),
        conditions=[
            pk.Initial(u, sp.sin(sp.pi * x / 2)),
            pk.Dirichlet(u, 0, on=pk.boundary(x, "left")),
            pk.Neumann(u, 0, on=pk.boundary(x, "right")),
        ],
    )
    _, collocation = _window(mixed)
    assert sorted(g.kind for g in collocation.groups) == ["boundary", "boundary", "interior"]


def test_sides_of_a_square_are_exact_only_for_zeros():
    """Interpolating values from all sides of a box would give solutions away: sums of functions of
    one coordinate each are their own interpolants."""
    nf = problems.Poisson5D().system.normal_form
    assert exact_conditions(nf, nf.bounds, None, F64) is None
    nf = problems.Poisson2D().system.normal_form
    found = exact_conditions(nf, nf.bounds, None, F64)
    assert found is not None and len(found.held) == 4


@pytest.mark.parametrize("order", [1, 2])
def test_later_windows_start_exactly_where_the_one_before_ended(order):
    t, x = pk.coords("t x")
    u = pk.field("u", t, x)
    starts = [pk.Initial(u, sp.sin(x))] + [pk.Initial(u.diff(t), sp.cos(x))] * (order - 1)
    ring = pk.PDESystem(
        [u.diff(t, order) - u.diff(x, 2)],
        domain=pk.Interval(t, 0, 1) * pk.Interval(x, 0, 2 * sp.pi),
        conditions=[*starts, pk.Periodic(u, x)],
    )
    state, first = _window(ring, windows=2)
    state.best_theta = torch.cat([p.detach().reshape(-1) for p in first.params])
    state.close()
    second = state.window.collocation
    assert [g.kind for g in second.groups] == ["interior"]
    with torch.no_grad():
        for p in second.params:
            p.add_(0.1)
    points = torch.stack([torch.full((9,), 0.5, dtype=F64), torch.linspace(0, 6, 9, dtype=F64)], 1)
    for k in range(order):
        wanted = [(0, (k, 0)), (0, (k, 2))]
        before = first.model.derivatives(points, wanted)
        after = second.model.derivatives(points, wanted)
        for a, b in zip(before, after, strict=True):
            scale = max(1.0, float(a.detach().abs().max()))
            assert float((a - b).detach().abs().max()) < 1e-6 * scale


def test_a_windowed_solution_with_exact_starts_survives_a_file(tmp_path):
    sol = problems.KdV(T=0.02).solve(
        pk.CausalPINN(windows=2, width=8, depth=2), max_steps=30, verify=False
    )
    sol.save(tmp_path / "kdv.pinn")
    back = pk.load(tmp_path / "kdv.pinn")
    at: Any = {"t": [0.0, 0.005, 0.013, 0.02], "x": [-0.3, 0.1, 0.9, 1.0]}
    assert math.isclose(float(sol(**at)[0]), math.cos(-0.3 * math.pi), abs_tol=1e-12)
    assert (back(**at) == sol(**at)).all()
