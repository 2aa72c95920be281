"""The passes: what a declaration becomes."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import sympy as sp

import pinnkit.declare as pk
from pinnkit.declare.operators import Div

t, x, y = pk.coords("t x y")
u, v = pk.field("u v", t, x)
w = pk.field("w", x, y)
TX = pk.Interval(t, 0, 1) * pk.Interval(x, -1, 1)


def test_burgers_keeps_products_of_leaves() -> None:
    """u*u_x stays a product; conditions stand on their faces with the value prescribed."""
    nf = pk.PDESystem(
        [sp.Eq(u.diff(t) + u * u.diff(x), 0.01 / sp.pi * u.diff(x, 2))],
        TX,
        [pk.Initial(u, -sp.sin(sp.pi * x)), pk.Dirichlet(u, t * x, on=pk.boundary(x))],
    ).normal_form
    assert nf.equations[0].residual == u.diff(t) + u * u.diff(x) - 0.01 / sp.pi * u.diff(x, 2)
    assert [(c.kind, c.face.side, c.value) for c in nf.conditions] == [
        ("initial", "left", -sp.sin(sp.pi * x)),
        ("dirichlet", "left", -t),
        ("dirichlet", "right", t),
    ]
    assert all(c.target - c.value == c.residual for c in nf.conditions)  # type: ignore[operator]
    p = nf.predicates
    assert (p.linear, p.evolution, p.semilinear, p.constant_coefficients) == (
        False,
        True,
        True,
        True,
    )
    assert p.time_order == {u: 1} and p.space_order == {(u, x): 2}
    assert nf.multi_index(u.diff(x, 2)) == (0, 2)


def test_dn_points_outward() -> None:
    nf = pk.PDESystem(
        [u.diff(t) - u.diff(x, 2)],
        TX,
        [pk.Initial(u, 0), pk.Robin(pk.dn(u) + 2 * u, 3, on=pk.boundary(x))],
    ).normal_form
    left, right = (c.residual for c in nf.conditions[1:])
    assert (left, right) == (2 * u - u.diff(x) - 3, 2 * u + u.diff(x) - 3)


def test_unevaluated_derivatives_are_carried_out() -> None:
    nf = pk.PDESystem(
        [u.diff(t) - sp.Derivative(u**2, x, x) - sp.Derivative(u, x, t)],
        TX,
        [pk.Initial(u, 1 + x**2), pk.Periodic(u, x)],
    ).normal_form
    leaves = {u.diff(t), u.diff(x, 2), u.diff(x), u.diff(t, x)}
    assert nf.derivatives() == leaves


def test_complex_field_splits_into_two_real_equations() -> None:
    """i psi_t + psi_xx/2 + |psi|^2 psi = 0 with psi = a + i b."""
    psi = pk.field("psi", t, x, complex=True)
    problem = pk.PDESystem(
        [sp.I * psi.diff(t) + psi.diff(x, 2) / 2 + sp.Abs(psi) ** 2 * psi],
        TX,
        [pk.Initial(psi, sp.exp(sp.I * sp.pi * x)), pk.Periodic(psi, x)],
    )
    nf = problem.normal_form
    a, b = nf.complex_fields[psi]
    re, im = (sp.expand(e.residual) for e in nf.equations)
    assert re == sp.expand(-b.diff(t) + a.diff(x, 2) / 2 + (a**2 + b**2) * a)
    assert im == sp.expand(a.diff(t) + b.diff(x, 2) / 2 + (a**2 + b**2) * b)
    assert [c.value for c in nf.conditions] == [sp.cos(sp.pi * x), sp.sin(sp.pi * x)]
    assert problem.fields == (psi,) and nf.fields == (a, b) and nf.periodic == (x,)


def test_conjugate_re_im_and_flux_of_complex_fields_split() -> None:
    psi = pk.field("psi", t, x, complex=True)
    nf = pk.PDESystem(
        [sp.I * psi.diff(t) + pk.div((1 + x**2) * pk.grad(psi)) + sp.conjugate(psi) * sp.re(psi)],
        TX,
        [pk.Initial(psi, 1), pk.Dirichlet(psi, 1 + sp.I * t, on=pk.boundary(x))],
    ).normal_form
    a, b = nf.fields
    assert all(e.conservative.has(Div) and not e.residual.has(Div) for e in nf.equations)
    expected = -b.diff(t) + ((1 + x**2) * a.diff(x)).diff(x) + a**2
    assert sp.expand(nf.equations[0].residual - expected) == 0
    assert {c.value for c in nf.conditions[2:]} == {sp.Integer(1), t}


def test_flux_survives_and_its_jump_is_found() -> None:
    k = sp.Piecewise((1, x < 0.25), (10, True))
    nf = pk.PDESystem(
        [u.diff(t) - pk.div(k * pk.grad(u)) + sp.Abs(x)],
        TX,
        [pk.Initial(u, 0), pk.Dirichlet(u, 0, on=pk.boundary(x))],
    ).normal_form
    assert nf.jumps == (x - 0.25,) and nf.predicates.flux_form
    assert nf.equations[0].conservative.has(Div)
    assert not nf.predicates.constant_coefficients


def test_switch_that_does_not_jump_is_no_jump() -> None:
    k = sp.Piecewise((1 + x, x < 0), (1, True))  # continuous at 0
    outside = sp.Heaviside(x - 3)  # outside the domain
    nf = pk.PDESystem(
        [u.diff(t) - (2 + k) * u.diff(x, 2) - outside],
        TX,
        [pk.Initial(u, 0), pk.Dirichlet(u, 0, on=pk.boundary(x))],
    ).normal_form
    assert nf.jumps == ()


@pytest.mark.parametrize(
    ("equations", "conditions", "gauged"),
    [
        ([pk.laplacian(w) + sp.sin(2 * sp.pi * x)], [pk.Periodic(w, x, y)], ["w"]),
        (
            [pk.laplacian(w) + sp.cos(sp.pi * x)],
            [pk.Neumann(w, 0, on=pk.boundary(x)), pk.Periodic(w, y)],
            ["w"],
        ),
        ([pk.laplacian(w) - w], [pk.Periodic(w, x, y)], []),
        (
            [pk.laplacian(w) + 1],
            [pk.Dirichlet(w, 0, on=pk.boundary(x)), pk.Periodic(w, y)],
            [],
        ),
    ],
)
def test_gauge_is_added_exactly_where_nothing_fixes_the_level(
    equations: list[sp.Expr],
    conditions: list[pk.AbstractCondition],
    gauged: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, logger="pinnkit"):
        nf = pk.PDESystem(equations, pk.Box((x, y), 0, 1), conditions).normal_form
    assert [i.integrand.func.__name__ for i in nf.integrals if i.gauge] == gauged
    assert ("nothing fixes the level of w" in caplog.text) == bool(gauged)


def test_pressure_gets_a_gauge_at_every_time() -> None:
    q, p = pk.vector("q", t, x, y), pk.field("p", t, x, y)
    nf = pk.PDESystem(
        [q.diff(t) + pk.grad(q) * q - pk.laplacian(q) + pk.grad(p), pk.div(q)],
        pk.Interval(t, 0, 1) * pk.Box((x, y), 0, 1),
        [pk.Initial(q, 0), pk.Dirichlet(q, 0, on=[pk.boundary(x), pk.boundary(y)])],
    ).normal_form
    assert [(i.integrand, i.over) for i in nf.integrals] == [(p, (x, y))]
    assert nf.predicates.time_order[p] == 0


def test_common_level_of_two_fields_is_one_gauge() -> None:
    """u - v only: both levels shift together, one mean fixes both."""
    a, b = pk.field("a b", x)
    nf = pk.PDESystem(
        [a.diff(x, 2) - (a - b), b.diff(x, 2) + (a - b)],
        pk.Interval(x, 0, 1),
        [pk.Neumann(f, 0, on=pk.boundary(x)) for f in (a, b)],
    ).normal_form
    assert len(nf.integrals) == 1


def test_given_gauge_keeps_its_mean() -> None:
    nf = pk.PDESystem(
        [pk.laplacian(w) + sp.sin(2 * sp.pi * x)],
        pk.Box((x, y), 0, 2),
        [pk.Periodic(w, x, y), pk.Gauge(w, mean=3)],
    ).normal_form
    assert [(i.equals, i.gauge) for i in nf.integrals] == [(12, True)]


def test_observations_come_in_coordinate_order() -> None:
    k = pk.parameter("k", initial=1)
    rows = np.array([[0.1, 0.2], [0.3, 0.4]])
    conditions = [pk.Initial(u, 0), pk.Dirichlet(u, 0, on=pk.boundary(x))]
    equation = u.diff(t) - k * u.diff(x, 2)
    by_name = pk.Observations(u, {x: rows[:, 1], t: rows[:, 0]}, [1, 2], noise=0.1)
    by_rows = pk.Observations(u, rows, [1, 2])
    nf = pk.PDESystem([equation], TX, [*conditions, by_name, by_rows]).normal_form
    assert all(np.array_equal(o.points, rows) for o in nf.observations)
    assert nf.parameters == (k,) and nf.observations[0].noise == 0.1


def test_field_over_a_subset_of_the_coordinates() -> None:
    k = pk.field("k", x)
    nf = pk.PDESystem(
        [u.diff(t) - pk.div(k * pk.grad(u))],
        TX,
        [
            pk.Initial(u, 0),
            pk.Dirichlet(u, 0, on=pk.boundary(x)),
            pk.Observations(k, {x: [0.0, 0.5]}, [1.0, 2.0]),
        ],
    ).normal_form
    assert nf.field_coords(k) == (x,) and k in nf.fields


def test_sixth_order_in_space() -> None:
    nf = pk.PDESystem(
        [u.diff(t) - u.diff(x, 6)], TX, [pk.Initial(u, 0), pk.Periodic(u, x)]
    ).normal_form
    assert nf.predicates.space_order[u, x] == 6


def test_where_splits_a_side() -> None:
    nf = pk.PDESystem(
        [pk.laplacian(w)],
        pk.Box((x, y), 0, 1),
        [
            pk.Dirichlet(w, 0, on=pk.boundary(x)),
            pk.Dirichlet(w, 0, on=pk.boundary(y, "left")),
            pk.Dirichlet(w, 0, on=pk.boundary(y, "right", where=x < 0.5)),
            pk.Neumann(w, 0, on=pk.boundary(sp.Eq(y, 1), where=x >= 0.5)),
        ],
    ).normal_form
    assert [c.face.where for c in nf.conditions[3:]] == [x < 0.5, x >= 0.5]


def test_time_by_another_name() -> None:
    z, r = pk.coords("z r", time="z")
    f = pk.field("f", z, r)
    nf = pk.PDESystem(
        [f.diff(z) - f.diff(r, 2)],
        pk.Interval(z, 0, 1) * pk.Interval(r, 0, 1),
        [pk.Initial(f, 0), pk.Dirichlet(f, 0, on=pk.boundary(r))],
    ).normal_form
    assert nf.time == z and nf.space == (r,)


def test_initial_data_on_another_axis() -> None:
    g = pk.field("g", x)
    problem = pk.PDESystem(
        [g.diff(x, 2) + g],
        pk.Interval(x, 0, 1),
        [pk.Initial(g, 0, at=x), pk.Initial(g.diff(x), 1, at=x)],
        exact=sp.sin(x),
    )
    nf = problem.normal_form
    assert [(c.kind, c.order) for c in nf.conditions] == [("initial", 0), ("initial", 1)]
    assert nf.time is None and not nf.predicates.evolution


def test_region_is_carried_not_boxed() -> None:
    disk = pk.Disk((x, y), (0, 0), 1)
    nf = pk.PDESystem(
        [pk.laplacian(w) + 1], disk, [pk.Neumann(w, w, on=pk.boundary(disk))]
    ).normal_form
    (condition,) = nf.conditions
    assert nf.region is disk and condition.face.region is disk
    assert condition.residual == pk.dn(w) - w
