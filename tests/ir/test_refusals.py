"""Every declaration that cannot be right is refused, in the user's own symbols."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sympy as sp

import pinnkit.declare as pk
from pinnkit.errors import DeclarationError, DeclarationWarning

t, x, y = pk.coords("t x y")
u, v = pk.field("u v", t, x)
w = pk.field("w", x, y)
g = pk.field("g", x)
TX = pk.Interval(t, 0, 1) * pk.Interval(x, 0, 1)
XY = pk.Box((x, y), 0, 1)
IC = pk.Initial(u, sp.sin(sp.pi * x))
BC = pk.Dirichlet(u, 0, on=pk.boundary(x))
HEAT = u.diff(t) - u.diff(x, 2)
K = sp.Piecewise((1, x < 0.5), (10, True))
S = sp.Symbol("s")


def heat(equation: Any = HEAT, *conditions: Any, domain: Any = TX) -> pk.PDESystem:
    return pk.PDESystem([equation], domain, conditions or [IC, BC])


def steady(equation: Any, *conditions: Any, domain: Any = XY) -> pk.PDESystem:
    return pk.PDESystem([equation], domain, list(conditions))


def _square(n: int) -> list[pk.Dirichlet]:
    return [pk.Dirichlet(w, 0, on=pk.boundary(c)) for c in (x, y)][:n]


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    # the contract's list
    "delay": (lambda: heat(HEAT + u.func(t - 1, x)), r"equation 1.*u\(t - 1, x\) is a delay"),
    "trace": (lambda: heat(HEAT + u.func(t, 0)), r"u\(t, 0\) is a trace"),
    "trace by subs": (lambda: heat(HEAT + u.subs(x, 0)), r"u\(t, 0\) is a trace"),
    "trace of a derivative": (
        lambda: heat(HEAT + u.diff(x).subs(x, 0)),
        r"is a trace: a derivative at one fixed point",
    ),
    "shifted": (
        lambda: heat(HEAT + u.func(t, x - y / 2)),
        r"u\(t, x - y/2\) is the field at a shifted",
    ),
    "integral": (
        lambda: heat(HEAT - sp.Integral(u, (x, 0, 1))),
        r"Integral\(u, \(x, 0, 1\)\) is an integral.*field of its own",
    ),
    "eigenvalue": (
        lambda: steady(
            g.diff(x, 2) + pk.parameter("lam") * g,
            pk.Dirichlet(g, 0, on=pk.boundary(x)),
            domain=pk.Interval(x, 0, 1),
        ),
        r"unknown number lam.*eigenvalue problem",
    ),
    "normalised eigenvalue": (
        lambda: steady(
            g.diff(x, 2) + pk.parameter("lam") * g,
            pk.Dirichlet(g, 0, on=pk.boundary(x)),
            pk.Integral(g**2, over=x, equals=1),
            domain=pk.Interval(x, 0, 1),
        ),
        r"unknown number lam.*eigenvalue problem",
    ),
    "moving end": (lambda: pk.Interval(x, 0, 1 + t), r"Interval\(x, 0, t \+ 1\).*end moves with t"),
    "free end": (lambda: pk.Interval(x, 0, pk.field("s", t)), r"the end moves with s"),
    "unknown end": (
        lambda: pk.Interval(x, 0, pk.parameter("L")),
        r"depends on the unknown number L",
    ),
    "infinite interval": (lambda: pk.Interval(x, 0, sp.oo), r"infinite interval.*[Cc]ut it off"),
    "infinite float": (lambda: pk.Interval(x, float("-inf"), 0), r"infinite interval"),
    "stochastic term": (lambda: heat(HEAT - _noise()), r"stochastic term"),
    "interior jump": (
        lambda: heat(HEAT, IC, BC, pk.Dirichlet(u, 1, on=sp.Eq(x, 0.5))),
        r"x = 0.5, inside the domain.*0 <= x <= 1",
    ),
    "jumping coefficient": (
        lambda: heat(u.diff(t) - (K * u.diff(x)).diff(x)),
        r"u.diff\(x, 2\).*jumps.*div\(k\*grad\(u\)\)",
    ),
    "jumping coefficient, Heaviside": (
        lambda: heat(u.diff(t) - ((1 + sp.Heaviside(x - 0.5)) * u.diff(x)).diff(x)),
        r"div\(k\*grad\(u\)\)",
    ),
    "derivative of a jump, unevaluated": (
        lambda: heat(u.diff(t) - sp.Derivative(K * u.diff(x), x)),
        r"coefficient that jumps.*div\(k\*grad\(u\)\)",
    ),
    "shock": (
        lambda: heat(u.diff(t) + u * u.diff(x), IC, pk.Periodic(u, x)),
        r"u\*u.diff\(x\).*shocks.*div\(u\*\*2/2\)",
    ),
    "shock of a system": (
        lambda: pk.PDESystem(
            [u.diff(t) + v * u.diff(x) + u * v.diff(x), v.diff(t) + v * v.diff(x) + u.diff(x)],
            TX,
            [IC, pk.Initial(v, 0), pk.Periodic((u, v), x)],
        ),
        r"shocks.*flux form",
    ),
    # places
    "off the boundary": (
        lambda: heat(HEAT, IC, BC, pk.Dirichlet(u, 0, on=sp.Eq(x, -1))),
        r"(?s)fixes x = -1.*0 <= x <= 1",
    ),
    "boundary of another coordinate": (
        lambda: heat(HEAT, IC, pk.Dirichlet(u, 0, on=pk.boundary(y))),
        r"boundary\(y\).*domain has no y",
    ),
    "boundary of time": (
        lambda: heat(HEAT, IC, BC, pk.Dirichlet(u, 0, on=pk.boundary(t, "right"))),
        r"t is time.*Initial\(u, value\)",
    ),
    "a side that is none": (lambda: pk.boundary(x, "top"), r"'top' is not a side.*left.*right"),
    "on a bare symbol": (
        lambda: pk.Dirichlet(u, 0, on=x),
        r"on=x names no boundary.*boundary\(x\)",
    ),
    "on a Python comparison": (lambda: pk.Dirichlet(u, 0, on=(x == 0)), r"sp.Eq\(x, -1\)"),
    "on missing": (lambda: pk.Dirichlet(u, 0), r"Dirichlet\(u, 0.*on= is missing"),
    "matches no point": (
        lambda: steady(
            pk.laplacian(w),
            *_square(2),
            pk.Neumann(w, 0, on=pk.boundary(x, "left", where=y > 3)),
        ),
        r"x = 0 has y > 3.*matches nothing",
    ),
    "initial without time": (
        lambda: steady(pk.laplacian(w), *_square(2), pk.Initial(w, 0)),
        r"Initial\(w, 0\).*no time",
    ),
    "a box that is not the domain": (
        lambda: steady(pk.laplacian(w), pk.Dirichlet(w, 0, on=pk.boundary(pk.Box((x, y), 0, 2)))),
        r"not the boundary of the domain.*0 <= x <= 1",
    ),
    "on an axis of a disc": (
        lambda: steady(
            pk.laplacian(w),
            pk.Dirichlet(w, 0, on=pk.boundary(x)),
            domain=pk.Disk((x, y), (0, 0), 1),
        ),
        r"x has no ends.*boundary\(Disk",
    ),
    # counts
    "no initial condition": (lambda: heat(HEAT, BC), r"u at t = 0.*too few.*Initial\(u"),
    "no initial velocity": (
        lambda: heat(u.diff(t, 2) - u.diff(x, 2), IC, BC),
        r"u.diff\(t\) is not given.*too few.*Initial\(u.diff\(t\)",
    ),
    "initial velocity of heat": (
        lambda: heat(HEAT, IC, BC, pk.Initial(u.diff(t), 0)),
        r"Initial\(u.diff\(t\), 0\).*too many",
    ),
    "two initial conditions": (lambda: heat(HEAT, IC, BC, pk.Initial(u, 0)), r"prescribe u twice"),
    "initial pressure": (
        lambda: pk.PDESystem(
            [u.diff(t) - u.diff(x, 2) - v, v.diff(x, 2) - u],
            TX,
            [IC, BC, pk.Dirichlet(v, 0, on=pk.boundary(x)), pk.Initial(v, 0)],
        ),
        r"Initial\(v, 0\).*no derivative of v along t.*too many",
    ),
    "one side bare": (
        lambda: heat(HEAT, IC, pk.Dirichlet(u, 0, on=pk.boundary(x, "left"))),
        r"u at x = 1: too few.*0 at x = 1.*boundary\(x, \"right\"\)",
    ),
    "no boundary condition": (lambda: heat(HEAT, IC), r"u at x = 0: too few"),
    "Dirichlet and Neumann": (
        lambda: heat(HEAT, IC, BC, pk.Neumann(u, 0, on=pk.boundary(x, "left"))),
        r"u at x = 0: too many.*Neumann\(u, 0",
    ),
    "Cauchy data on one side": (
        lambda: heat(
            HEAT,
            IC,
            pk.Dirichlet(u, 0, on=pk.boundary(x, "left")),
            pk.Neumann(u, 0, on=pk.boundary(x, "left")),
        ),
        r"u at x = 0: too many",
    ),
    "half a side bare": (
        lambda: steady(
            pk.laplacian(w),
            _square(1)[0],
            pk.Dirichlet(w, 0, on=pk.boundary(y, "left")),
            pk.Dirichlet(w, 0, on=pk.boundary(y, "right", where=x > 0.5)),
        ),
        r"w at y = 1: too few conditions \(near x = ",
    ),
    "beam with two conditions": (
        lambda: heat(u.diff(t, 2) + u.diff(x, 4), IC, pk.Initial(u.diff(t), 0), BC),
        r"u.diff\(x, 4\).*2 at x = 0 and 2 at x = 1; given 1 at x = 0",
    ),
    "KdV with two conditions": (
        lambda: heat(u.diff(t) + 6 * u * u.diff(x) + u.diff(x, 3), IC, BC),
        r"at x = 1: too few.*1 at x = 0 and 2 at x = 1",
    ),
    "advection at both ends": (
        lambda: heat(u.diff(t) + u.diff(x), IC, BC),
        r"u at x = 1: too many.*characteristics leave",
    ),
    "advection at the outflow": (
        lambda: heat(u.diff(t) - u.diff(x), IC, pk.Dirichlet(u, 0, on=pk.boundary(x, "left"))),
        r"u at x = 0: too many.*characteristics leave",
    ),
    "advection without inflow": (lambda: heat(u.diff(t) + u.diff(x), IC), r"at x = 0: too few"),
    "condition without derivative": (
        lambda: heat(u.diff(t) + u, IC, BC),
        r"no derivative of u along x.*too many",
    ),
    "boundary value problem of one end": (
        lambda: steady(
            g.diff(x, 2) - 1,
            pk.Dirichlet(g, 0, on=pk.boundary(x, "left")),
            domain=pk.Interval(x, 0, 1),
        ),
        r"g.*too few",
    ),
    "periodic and Dirichlet": (
        lambda: heat(HEAT, IC, BC, pk.Periodic(u, x)),
        r"Periodic\(u, x\) together with Dirichlet\(u, 0",
    ),
    "periodic for one field of two": (
        lambda: pk.PDESystem(
            [HEAT + v, v.diff(t) - v.diff(x, 2)],
            TX,
            [IC, pk.Initial(v, 0), pk.Periodic(u, x)],
        ),
        r"v is not periodic along x.*Periodic\(\(u, v\), x\)",
    ),
    "periodic in time": (lambda: heat(HEAT, BC, pk.Periodic(u, t)), r"t is time"),
    "gauge of a fixed field": (
        lambda: steady(pk.laplacian(w), *_square(2), pk.Gauge(w)),
        r"Gauge\(w, mean=0\).*already fixed",
    ),
    # type
    "backward heat": (
        lambda: heat(u.diff(t) + u.diff(x, 2)),
        r"u.diff\(t\) \+ u.diff\(x, 2\) = 0: it is ill-posed.*u.diff\(x, 2\)",
    ),
    "elliptic with initial data": (
        lambda: heat(u.diff(t, 2) + u.diff(x, 2), IC, pk.Initial(u.diff(t), 0), BC),
        r"ill-posed.*elliptic",
    ),
    "diffusion of changing sign": (
        lambda: heat(u.diff(t) - pk.div((x - sp.Rational(1, 2)) * u.diff(x))),
        r"ill-posed.*along x",
    ),
    "fourth order backwards": (
        lambda: heat(u.diff(t) - u.diff(x, 4), IC, pk.Periodic(u, x)),
        r"ill-posed.*u.diff\(x, 4\)",
    ),
    "nonlinear backward diffusion": (
        lambda: heat(u.diff(t) - pk.div((u - 2) * u.diff(x)), pk.Initial(u, 1), pk.Periodic(u, x)),
        r"ill-posed",
    ),
    "periodic Poisson with a net source": (
        lambda: steady(pk.laplacian(w) - sp.sin(2 * sp.pi * x) - 1, pk.Periodic(w, x, y)),
        r"no solution exists.*their sum is -1",
    ),
    "Neumann problem out of balance": (
        lambda: steady(
            g.diff(x, 2) - 1,
            pk.Neumann(g, 0, on=pk.boundary(x)),
            domain=pk.Interval(x, 0, 1),
        ),
        r"no solution exists",
    ),
    # names
    "wrong arguments": (
        lambda: heat(HEAT + pk.field("u", x, t)),
        r"u is used with wrong arguments",
    ),
    "unknown symbol": (lambda: heat(u.diff(t) - S * u.diff(x, 2)), r"symbol s is unknown"),
    "unknown coordinate": (lambda: heat(HEAT - sp.sin(y)), r"coordinate y is not in the domain"),
    "unknown function": (lambda: heat(HEAT - sp.Function("f")(x)), r"function f\(x\) is unknown"),
    "field over a missing coordinate": (
        lambda: heat(HEAT + pk.field("q", t, y)),
        r"q depends on y, but the domain has no y",
    ),
    "unused coordinate": (
        lambda: heat(HEAT, domain=TX * pk.Interval(y, 0, 1)),
        r"no field depends on y",
    ),
    "name used twice": (
        lambda: heat(HEAT - pk.parameter("u") * u),
        r"name u.*used twice, for a field and for an unknown number",
    ),
    "coordinate twice": (
        lambda: pk.Interval(x, 0, 1) * pk.Interval(x, 1, 2),
        r"coordinate x is used twice",
    ),
    "field named as its coordinate": (lambda: pk.field("x", t, x), r"name x is used twice"),
    "field over plain symbols": (lambda: pk.field("u", S), r"s is not a coordinate.*coords"),
    "parameter declared twice": (
        lambda: heat(u.diff(t) - pk.parameter("k") * u.diff(x, 2) + pk.parameter("k", initial=2)),
        r"unknown number k is declared twice",
    ),
    "no equation": (lambda: pk.PDESystem([], TX, [IC]), r"no equation"),
    "equation without field": (lambda: pk.PDESystem([x - 1], TX, []), r"contains no field"),
    "equation is a comparison": (lambda: heat(u.diff(t) == u), r"truth value.*sp.Eq"),
    "field without equation": (
        lambda: heat(HEAT, IC, BC, pk.Initial(v, 0)),
        r"field v: no equation and no Observations",
    ),
    "two fields, one equation": (
        lambda: heat(HEAT - v),
        r"1 equation\(s\) for 2 fields, u, v",
    ),
    "two equations, one field": (
        lambda: pk.PDESystem([HEAT, u.diff(t) - u.diff(x)], TX, [IC, BC]),
        r"2 equations for 1 field\(s\), u.*over-determined",
    ),
    # values
    "empty interval": (lambda: pk.Interval(x, 1, 0), r"Interval\(x, 1, 0\).*lower end is above"),
    "interval of one point": (lambda: pk.Interval(x, 1, 1), r"Interval\(x, 1, 1\).*empty"),
    "complex end": (lambda: pk.Interval(x, 0, sp.I), r"I is not a real number"),
    "dn in an equation": (lambda: heat(HEAT + pk.dn(u)), r"dn\(u\) is.*Robin\(dn\(u\).*Neumann"),
    "dn at the start": (lambda: pk.Initial(pk.dn(u), 1), r"Initial\(dn\(u\), 1\).*u.diff\(t\)"),
    "initial value with the unknown": (
        lambda: pk.Initial(u, u + 1),
        r"Initial\(u, u \+ 1\).*contains the unknown u",
    ),
    "boundary value with the unknown": (
        lambda: pk.Dirichlet(u, 1 - u, on=pk.boundary(x)),
        r"1 - u contains the unknown u.*Robin",
    ),
    "nan in an equation": (lambda: heat(HEAT + sp.nan), r"not finite"),
    "inf as initial value": (lambda: pk.Initial(u, sp.oo), r"oo is not finite"),
    "a string": (lambda: pk.Initial(u, "sin(x)"), r"'sin\(x\)' is not an expression"),
    "a function": (lambda: pk.Initial(u, np.sin), r"is not an expression"),
    "complex for real": (lambda: heat(HEAT, pk.Initial(u, sp.I * x), BC), r"u is real, but I\*x"),
    "complex equation of a real field": (
        lambda: heat(sp.I * u.diff(t) + u.diff(x, 2)),
        r"complex, but all its fields are real",
    ),
    "Dirichlet on an expression": (
        lambda: pk.Dirichlet(u.diff(x), 0, on=pk.boundary(x)),
        r"u.diff\(x\) is not a field.*Robin",
    ),
    "point source": (lambda: heat(HEAT - sp.DiracDelta(x - 0.5)), r"DiracDelta.*point source"),
    "observation outside": (
        lambda: heat(HEAT, IC, BC, pk.Observations(u, {t: [0.5], x: [3.0]}, [1.0])),
        r"lie outside 0 <= x <= 1, for example x = 3",
    ),
    "observation without a coordinate": (
        lambda: heat(HEAT, IC, BC, pk.Observations(u, {x: [0.5]}, [1.0])),
        r"no points are given for t",
    ),
    "observations of different length": (
        lambda: pk.Observations(u, {t: [0.1, 0.2], x: [0.5, 0.6]}, [1.0]),
        r"shape \(2,\), expected \(1,\)",
    ),
    "a wrong exact solution": (
        lambda: pk.PDESystem([HEAT], TX, [IC, BC], exact=sp.exp(-t) * sp.sin(sp.pi * x)),
        r"does not satisfy equation 1",
    ),
    "an exact solution that is nowhere real": (
        lambda: pk.PDESystem([HEAT], TX, [IC, BC], exact=sp.sqrt(t - 3)),
        r"u has no real, finite value at t = ",
    ),
    "an exact solution that does not repeat": (
        lambda: pk.PDESystem(
            [u.diff(t) + u.diff(x)], TX, [pk.Initial(u, x), pk.Periodic(u, x)], exact=x - t
        ),
        r"u does not repeat along x: it differs at x = 0 and x = 1 by 1",
    ),
    "an exact solution with another integral": (
        lambda: pk.PDESystem(
            [g.diff(x, 2) + sp.pi**2 * sp.cos(sp.pi * x)],
            pk.Interval(x, 0, 1),
            [pk.Neumann(g, 0, on=pk.boundary(x)), pk.Integral(g, over=x, equals=2)],
            exact=sp.cos(sp.pi * x) + 7,
        ),
        r"does not satisfy Integral.*off by 5",
    ),
    "an exact solution in a list": (
        lambda: pk.PDESystem([HEAT], TX, [IC, BC], exact=[1]),
        r"a column is given for u",
    ),
    "no conditions but None": (
        lambda: pk.PDESystem([HEAT], TX, None),  # pyright: ignore[reportArgumentType]
        r"None.*that is not a condition",
    ),
    "a scale that is no number": (
        lambda: pk.field("u", x, scale="big"),  # pyright: ignore[reportArgumentType]
        r"scale='big': it is not a number",
    ),
    "a coordinate named like a knob": (lambda: pk.coords("extrapolate"), r"means something else"),
    "a guess that is no number": (
        lambda: pk.parameter("nu", initial="a"),  # pyright: ignore[reportArgumentType]
        r"initial='a': it is not a number",
    ),
    "half a pair of bounds": (
        lambda: pk.parameter("nu", bounds=(None, 1)),  # pyright: ignore[reportArgumentType]
        r"a bound is missing",
    ),
    "bounds that are one number": (
        lambda: pk.parameter("nu", bounds=3),  # pyright: ignore[reportArgumentType]
        r"bounds are a pair",
    ),
    "values that are no dictionary": (
        lambda: heat().remake(parameters=3),  # pyright: ignore[reportArgumentType]
        r"parameters=3\): that is not a dictionary",
    ),
    "a parameter that hides the problem's own": (
        lambda: pk.problem(type("P", (pk.ProblemClass,), {"__annotations__": {"fields": int}})),
        r"parameter fields hides",
    ),
}


def _noise() -> sp.Expr:
    from sympy.stats import Normal

    return Normal("xi", 0, 1)


@pytest.mark.parametrize("name", BAD)
def test_bad_declaration_is_refused_naming_the_culprit(name: str) -> None:
    """A message has what you wrote, what is wrong, and what to write instead."""
    declare, message = BAD[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeclarationWarning)
        with pytest.raises(DeclarationError, match=f"(?s){message}") as caught:
            declare()
    text = str(caught.value)
    assert text.endswith(".") and ": " in text and ". " in text
    assert "leaf" not in text and "Dummy" not in text and "Derivative(" not in text


def test_refusal_is_a_value_error() -> None:
    """Callers may catch ValueError without knowing us."""
    with pytest.raises(ValueError, match="lower end is above"):
        pk.Interval(x, 1, 0)


GOOD: dict[str, Callable[[], pk.PDESystem]] = {
    "Kuramoto-Sivashinsky: the fourth order wins over the second": lambda: heat(
        u.diff(t) + u * u.diff(x) + u.diff(x, 2) + u.diff(x, 4), IC, pk.Periodic(u, x)
    ),
    "KdV on an interval: one condition left, two right": lambda: heat(
        u.diff(t) + 6 * u * u.diff(x) + u.diff(x, 3),
        IC,
        BC,
        pk.Neumann(u, 0, on=pk.boundary(x, "right")),
    ),
    "advection with its inflow": lambda: heat(
        u.diff(t) + u.diff(x), IC, pk.Dirichlet(u, 0, on=pk.boundary(x, "left"))
    ),
    "degenerate diffusion, nowhere negative": lambda: heat(u.diff(t) - pk.div(x * u.diff(x))),
    "waves as a first-order system, one field given at both ends": lambda: pk.PDESystem(
        [u.diff(t) - v.diff(x), v.diff(t) - u.diff(x)], TX, [IC, pk.Initial(v, 0), BC]
    ),
    "inviscid Burgers in flux form": lambda: heat(u.diff(t) + pk.div(u**2 / 2), IC, BC),
    "non-divergence coefficient that bends but does not jump": lambda: heat(
        u.diff(t) - (1 + sp.Abs(x - 0.5)) * u.diff(x, 2)
    ),
    "jumping source": lambda: heat(HEAT - K),
    "viscous Burgers outside flux form": lambda: heat(HEAT + u * u.diff(x)),
    "advection by another field": lambda: pk.PDESystem(
        [u.diff(t) + v * u.diff(x), v.diff(t) + v.diff(x)],
        TX,
        [IC, pk.Initial(v, 1), pk.Periodic((u, v), x)],
    ),
    "Neumann problem in balance": lambda: steady(
        g.diff(x, 2) - 2,
        pk.Neumann(g, 1, on=pk.boundary(x)),
        domain=pk.Interval(x, 0, 1),
    ),
    "two halves of a side": lambda: steady(
        pk.laplacian(w),
        _square(1)[0],
        pk.Dirichlet(w, 0, on=pk.boundary(y, "left")),
        pk.Dirichlet(w, 0, on=pk.boundary(y, "right", where=x > 0.5)),
        pk.Neumann(w, 0, on=pk.boundary(y, "right", where=x <= 0.5)),
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_legitimate_neighbours_of_refusals_are_accepted(name: str) -> None:
    """A check that refuses too much is as wrong as one that refuses too little."""
    GOOD[name]()


def test_incompatible_corner_is_warned_about_with_its_size() -> None:
    """The size of the jump stands in the warning, in the user's symbols."""
    with pytest.warns(DeclarationWarning, match=r"(?s)Initial\(u, cos.*t = 0, x = 0, a jump of 1:"):
        problem = heat(HEAT, pk.Initial(u, sp.cos(sp.pi * x / 2)), BC)
    assert [(c[1], round(c[2], 12)) for c in problem.normal_form.corners if c[1] == 0] == [(0, 1.0)]


def test_slope_jump_of_periodic_data_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    """x^2 cos(pi x) on [-1, 1] repeats in value, its slope jumps by 4 (Allen-Cahn's start)."""
    domain = pk.Interval(t, 0, 1) * pk.Interval(x, -1, 1)
    with warnings.catch_warnings(), caplog.at_level("INFO", logger="pinnkit"):
        warnings.simplefilter("error")
        problem = heat(
            HEAT, pk.Initial(u, x**2 * sp.cos(sp.pi * x)), pk.Periodic(u, x), domain=domain
        )
    ((_, order, size),) = problem.normal_form.corners
    assert (order, round(size, 9)) == (1, 4.0)
    assert "derivative 1 jumps by 4" in caplog.text


def test_declaring_is_fast() -> None:
    """A problem is declared in a fraction of a second, so that remaking one in a loop is fine."""
    heat()
    start = time.process_time()
    heat()
    assert time.process_time() - start < 1.0  # measured 0.1 s
