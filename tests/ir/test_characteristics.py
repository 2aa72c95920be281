"""Transport form and label form: u_t + a . grad u = rest, and the same along dX/dt = a.

Exact flow used below: dX/dt = sin(X) has X = 2 atan2(e^t sin(x0/2), cos(x0/2)).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import sympy as sp

import pinnkit as pk
from pinnkit.ir.characteristics import Transport, find_transport, measure_convection
from pinnkit.ir.labels import label_refusal, to_labels
from pinnkit.ir.leaves import field_of, leaves, steps_of

ROUNDOFF = 1e-10

t, x, y = pk.coords("t x y")
u, v = pk.field("u", t, x), pk.field("v", t, x)
w = pk.field("w", t, x, y)
RING = pk.Interval(t, 0, 1) * pk.Interval(x, 0, 2 * sp.pi)
TORUS = RING * pk.Interval(y, 0, 2 * sp.pi)


def ring(*equations, data=None, domain=RING):
    """A problem around the ring, starting from sin(x)."""
    fields = [f for f in (u, v) if any(e.has(f) for e in equations)]
    data = data or {f: sp.sin(x) for f in fields}
    conditions = [c for f in fields for c in (pk.Initial(f, data[f]), pk.Periodic(f, x))]
    return pk.PDESystem(list(equations), domain, conditions).normal_form


def torus(equation):
    return pk.PDESystem(
        [equation], TORUS, [pk.Initial(w, sp.sin(x) * sp.cos(y)), pk.Periodic(w, x), pk.Periodic(w, y)]
    ).normal_form  # fmt: skip


def number(expr: Any, solution: Any, at: Any) -> float:
    """The expression with fields (and their derivatives) given by explicit functions, at a point."""
    rule = {}
    for leaf in leaves(expr):
        value = solution[field_of(leaf)]
        for c, k in steps_of(leaf):
            value = sp.diff(value, c, k)
        rule[leaf] = value
    return float(expr.xreplace(rule).subs(at))


POINTS = [{t: 0.3, x: 0.7, y: 1.1}, {t: 0.8, x: 2.9, y: 4.0}, {t: 0.05, x: 5.5, y: 0.2}]


@pytest.mark.parametrize(
    ("equation", "velocity", "rest"),
    [
        (u.diff(t) + 3 * u.diff(x), 3, 0),
        (2 * u.diff(t) + sp.sin(x) * u.diff(x) - u, sp.sin(x) / 2, u / 2),
        (u.diff(t) + u * u.diff(x) - u.diff(x, 2), u, u.diff(x, 2)),
        (u.diff(t) + pk.div(u**2 / 2), u, 0),
        (u.diff(t) + (u + sp.cos(x)) * u.diff(x) - u.diff(x) ** 2 - u.diff(x, 2) / 9,
         u + sp.cos(x), u.diff(x) ** 2 + u.diff(x, 2) / 9),
        (u.diff(t) + u * u.diff(x) + u.diff(x, 3), u, -u.diff(x, 3)),
    ],
)  # fmt: skip
def test_transport_form(equation, velocity, rest):
    nf = ring(equation)
    found = find_transport(nf)
    assert isinstance(found, Transport)
    assert sp.simplify(found.velocity[0] - velocity) == 0
    assert sp.simplify(found.rest[u] - rest) == 0


def test_a_system_with_one_velocity():
    nf = ring(u.diff(t) + sp.cos(t) * u.diff(x) - v, v.diff(t) + sp.cos(t) * v.diff(x) + u)
    found = find_transport(nf)
    assert isinstance(found, Transport)
    assert found.velocity == (sp.cos(t),)
    assert found.rest == {u: v, v: -u}


@pytest.mark.parametrize(
    ("nf", "reason"),
    [
        (lambda: ring(u.diff(t) - u.diff(x, 2)), r"nothing is transported.*CausalPINN"),
        (lambda: ring(u.diff(t) + u.diff(x), v.diff(t) - v.diff(x)),
         r"u\S* travels with velocity 1 and v\S* with -1.*CausalPINN"),
        (lambda: ring(u.diff(t) + u.diff(x) - u.diff(x, x, t)), r"mixed derivative.*CausalPINN"),
        (lambda: ring(u.diff(t) + v.diff(t) + u.diff(x) + v.diff(x), v.diff(t) - u + v.diff(x)),
         r"holds 2 time derivatives.*CausalPINN"),
        (lambda: pk.PDESystem([u.diff(t, 2) - u.diff(x, 2)], RING,
                              [pk.Initial(u, sp.sin(x)), pk.Initial(u.diff(t), 0),
                               pk.Periodic(u, x)]).normal_form,
         r"first order in time; u\S* has a time derivative of order 2"),
        (lambda: ring(u.diff(t) + x * u.diff(x)), r"not periodic in x as written"),
        (lambda: pk.PDESystem([u.diff(t) + u.diff(x) + u], RING,
                              [pk.Initial(u, sp.sin(x)),
                               pk.Dirichlet(u, -sp.sin(t), on=pk.boundary(x, "left"))]).normal_form,
         r"pass the side x = 0, and u\S* changes along their way.*CausalPINN"),
    ],
)  # fmt: skip
def test_refusals_name_the_reason_and_the_way_out(nf, reason):
    found = label_refusal(nf())
    assert found is not None
    import re

    assert re.search(reason, found), found


def test_physical_derivatives_are_the_published_formulas():
    """u_x = W_x0 / J, u_xx = W_x0x0 / J^2 - W_x0 J_x0 / J^3."""
    form = to_labels(ring(u.diff(t) + u * u.diff(x) - u.diff(x, 2)))
    s = form.nf.fields[0]
    j = 1 + s.diff(x)
    assert sp.simplify(form.eulerian(u, (0, 1)) - u.diff(x) / j) == 0
    second = u.diff(x, 2) / j**2 - u.diff(x) * s.diff(x, 2) / j**3
    assert sp.simplify(form.eulerian(u, (0, 2)) - second) == 0


@pytest.mark.parametrize("alpha", [(0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (2, 0)])
def test_derivatives_survive_the_map(alpha):
    """Identity: W = f(t, X) for any map and any f has the derivatives of f at X."""
    form = to_labels(ring(u.diff(t) + u * u.diff(x) - u.diff(x, 2)))
    s = form.nf.fields[0]
    f = sp.exp(-t) * sp.sin(x + t) + sp.cos(2 * x)
    shift = sp.Rational(1, 3) * t * sp.sin(x + t)
    position = form.position[0].xreplace({s: shift})
    derivative: Any = sp.diff(f, t, alpha[0], x, alpha[1])
    for at in POINTS:
        got = number(form.eulerian(u, alpha), {s: shift, u: f.xreplace({x: position})}, at)
        assert got == pytest.approx(float(derivative.xreplace({x: position}).subs(at)), rel=1e-9)


@pytest.mark.parametrize("alpha", [(0, 1, 0), (0, 0, 1), (0, 2, 0), (0, 1, 1), (1, 0, 0)])
def test_derivatives_survive_a_map_of_the_plane(alpha):
    """The same with the inverse matrix; a transposed inverse would fail here."""
    form = to_labels(torus(w.diff(t) + sp.sin(y) * w.diff(x) + sp.sin(x) * w.diff(y) - w))
    s, r = form.nf.fields[:2]
    f = sp.sin(x + 2 * y - t) + sp.cos(y)
    shifts = {s: t * sp.sin(x + y) / 3, r: t * sp.cos(x) / 4}
    moved = {c: p.xreplace(shifts) for c, p in zip((x, y), form.position)}
    derivative: Any = sp.diff(f, t, alpha[0], x, alpha[1], y, alpha[2]).xreplace(moved)
    for at in POINTS:
        got = number(form.eulerian(w, alpha), {**shifts, w: f.xreplace(moved)}, at)
        assert got == pytest.approx(float(derivative.subs(at)), rel=1e-9)


def test_the_exact_flow_has_no_residual():
    """u_t + sin(x) u_x - u_xx / 5 = g with u = sin(x + t): zero along X = 2 atan(e^t tan(x0 / 2))."""
    exact = sp.sin(x + t)
    source = exact.diff(t) + sp.sin(x) * exact.diff(x) - exact.diff(x, 2) / 5
    form = to_labels(ring(u.diff(t) + sp.sin(x) * u.diff(x) - u.diff(x, 2) / 5 - source))
    s = form.nf.fields[0]
    flow = 2 * sp.atan2(sp.exp(t) * sp.sin(x / 2), sp.cos(x / 2))
    drift = form.position[0].xreplace({s: 0})
    solution = {s: flow - drift, u: exact.xreplace({x: flow})}
    for equation in form.nf.equations:
        for at in POINTS[:2]:  # x0 < pi, where the flow is written in one branch
            assert abs(number(equation.residual, solution, at)) < ROUNDOFF


def test_the_minimiser_of_diffusion_in_labels_is_far_from_zero():
    """W = e^(-nu t) sin x0, X = x0 + sin x0 (1 - e^(-nu t)) / nu solves W_t = nu W_x0x0: not Burgers."""
    nu = sp.Rational(1, 10)
    form = to_labels(ring(u.diff(t) + u * u.diff(x) - nu * u.diff(x, 2)))
    s = form.nf.fields[0]
    solution = {s: sp.sin(x) * (1 - sp.exp(-nu * t)) / nu, u: sp.exp(-nu * t) * sp.sin(x)}
    characteristics, state = (e.residual for e in form.nf.equations)
    at = {t: 0.8, x: 2.9}
    assert abs(number(characteristics, solution, at)) < ROUNDOFF
    assert abs(number(state, solution, at)) > 0.1


def test_what_is_known_is_no_unknown():
    """Constant speed: nothing; linear transport: the displacement; viscous: displacement and state."""
    assert to_labels(ring(u.diff(t) + 70 * u.diff(x))).nf.fields == ()
    burgers = to_labels(ring(u.diff(t) + pk.div(u**2 / 2)))
    assert burgers.nf.fields == () and burgers.position[0] == x + t * sp.sin(x)
    turning = to_labels(ring(u.diff(t) + 50 * (1 + sp.sin(x) * sp.cos(t) / 2) * u.diff(x)))
    assert [str(f.func) for f in turning.nf.fields] == ["s_x"]
    assert sp.simplify(turning.position[0] - (x + 50 * t + turning.nf.fields[0])) == 0
    viscous = to_labels(ring(u.diff(t) + u * u.diff(x) - u.diff(x, 2)))
    assert len(viscous.nf.fields) == 2


def test_a_uniform_stream_changes_nothing():
    """Galilei: with u0 + 10 the map gains 10 t and the displacement's equation stays the same."""
    equation = u.diff(t) + u * u.diff(x) - u.diff(x, 2) / 10
    still = to_labels(ring(equation))
    moved = to_labels(ring(equation, data={u: sp.sin(x) + 10}))
    (s,), (r,) = still.speeds, moved.speeds
    gained: Any = (moved.position[0] - r) - (still.position[0] - s)
    assert float((gained / t).subs({t: 0.5})) == pytest.approx(10, rel=1e-9)


def test_sizes_of_convection():
    nf = ring(u.diff(t) + 2 * u.diff(x) - u.diff(x, 2) / 100)
    found = measure_convection(nf, find_transport(nf))  # type: ignore[arg-type]
    assert found.peclet == pytest.approx(2 * 2 * np.pi * 100)
    assert found.travelled == pytest.approx(1 / np.pi)
    assert found.compression == 0 and not found.dominates
    assert dataclasses.replace(found, travelled=1.0).dominates
    nf = ring(u.diff(t) + u * u.diff(x) - u.diff(x, 2) / 100)
    found = measure_convection(nf, find_transport(nf))  # type: ignore[arg-type]
    assert found.compression == pytest.approx(1, rel=1e-3)
