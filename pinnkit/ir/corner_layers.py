"""Corner layers: the closed-form evolution of kinks and jumps that smooth data cannot have.

In    the normal form of an evolution problem in one space dimension.
Out   {field: layer(t, x)}: what the solution is near the corner, so that the rest is smooth.
Next  solvers write u = layer + network; `None` there costs nothing where data are compatible.

With u_t = D u_xx + f(u) near the corner, D constant, a slope jump J of the initial data at a periodic
seam evolves like the heat kernel's first integral, a jump J between initial and boundary value like
its complementary error function, both times exp(lambda t) with lambda = f'(u) at the corner:

    J/2 (s erf(s / w) + w / sqrt(pi) exp(-s^2 / w^2)),     J erfc(s / w),     w = sqrt(4 D t).

A smooth network would have to bend within w -> 0 there; its error in the initial data (Allen-Cahn
with x^2 cos(pi x): 3e-4 everywhere the reaction is unstable) is then amplified in time.
References: carslaw1959conduction, sections 2.4 and 2.9.
"""

from __future__ import annotations

from typing import Any

import sympy as sp

from pinnkit.ir.leaves import derivative_count, freeze
from pinnkit.ir.normal_form import Equation, NormalForm

__all__ = ["corner_layers"]

_VALUE = 1e-8  # relative; as in `find_corners`
_SLOPE = 1e-6
_START = 1e-12  # of the time span: the layer starts this early, so that it is finite at the start


def corner_layers(nf: NormalForm) -> dict[sp.Expr, sp.Expr]:
    """One closed form per field whose data do not fit together; fields without a layer are absent.

    Semilinear diffusion in one space dimension only: u_t = D u_xx + f(t, x, all fields) without
    transport at the corner. Other corners stay with the network.
    """
    if nf.time is None or len(nf.space) != 1 or not nf.corners or nf.parameters:
        return {}
    found: dict[sp.Expr, sp.Expr] = {}
    for u in nf.fields:
        if set(nf.field_coords(u)) != set(nf.coords):
            continue
        initial = _initial_value(nf, u)
        if initial is None:
            continue
        parts = [_seam(nf, u, initial)] if nf.space[0] in nf.periodic else _sides(nf, u, initial)
        layer = sum((p for p in parts if p is not None), sp.Integer(0))
        if layer != 0:
            found[u] = layer
    return found


def _initial_value(nf: NormalForm, u: sp.Expr) -> sp.Expr | None:
    for c in nf.conditions:
        if c.kind == "initial" and c.target == u and c.face.where == sp.true:
            return c.value
    return None


def _seam(nf: NormalForm, u: sp.Expr, initial: sp.Expr) -> sp.Expr | None:
    """A slope jump of periodically continued initial data; periodic in space itself."""
    x = nf.space[0]
    low, high = nf.bounds[x]
    value, gap = _number(initial, x, low), _gap(initial, x, low, high)
    slope = sp.diff(initial, x)
    jump = _gap(slope, x, high, low)
    if None in (value, gap, jump):
        return None
    assert value is not None and gap is not None and jump is not None
    size = max(abs(value), _size(initial, x, low, high))
    if abs(gap) > _VALUE * size or abs(jump) <= _SLOPE * _size(slope, x, low, high):
        return None
    rates = _rates(nf, u, x, low)
    if rates is None:
        return None
    diffusion, growth = rates
    period = sp.Float(high) - sp.Float(low)
    # |s| has the slope jump 2 at the seam, is smooth elsewhere, and repeats.
    s = period / sp.pi * sp.sin(sp.pi * (x - sp.Float(high)) / period)
    t, w = _clock(nf, diffusion)
    shape = s * sp.erf(s / w) + w / sp.sqrt(sp.pi) * sp.exp(-(s**2) / w**2)
    return sp.Float(jump / 2) * sp.exp(sp.Float(growth) * t) * shape


def _sides(nf: NormalForm, u: sp.Expr, initial: sp.Expr) -> list[sp.Expr]:
    """Jumps between the initial value and a Dirichlet value at the start."""
    assert nf.time is not None
    x, start = nf.space[0], nf.bounds[nf.time][0]
    layers = []
    for c in nf.conditions:
        if c.kind != "dirichlet" or c.target != u or c.face.coord != x or c.value is None:
            continue
        if c.face.where != sp.true:  # a wall that comes or goes in time sends out other layers
            continue
        wall = _number(c.value, nf.time, start)
        inside = _number(initial, x, c.face.value)
        if wall is None or inside is None:
            continue
        size = max(abs(wall), _size(initial, x, *nf.bounds[x]))
        rates = _rates(nf, u, x, c.face.value) if abs(wall - inside) > _VALUE * size else None
        if rates is None:
            continue
        t, w = _clock(nf, rates[0])
        distance = (x - sp.Float(c.face.value)) * (1 if c.face.side == "left" else -1)
        layers.append(
            sp.Float(wall - inside) * sp.exp(sp.Float(rates[1]) * t) * sp.erfc(distance / w)
        )
    return layers


def _clock(nf: NormalForm, diffusion: float) -> tuple[sp.Expr, sp.Expr]:
    """(time since the start, width of the layer), both positive on the whole domain."""
    assert nf.time is not None
    low, high = nf.bounds[nf.time]
    elapsed = nf.time - sp.Float(low)
    return elapsed, sp.sqrt(4 * sp.Float(diffusion) * (elapsed + sp.Float(_START * (high - low))))


def _rates(nf: NormalForm, u: sp.Expr, x: sp.Symbol, place: float) -> tuple[float, float] | None:
    """(D, min(lambda, 0)) of u_t = D u_xx + f at the corner; None where the form is another one."""
    assert nf.time is not None
    for equation in nf.equations:
        own = _coefficients(equation)
        rate = [lf for lf in own if derivative_count(lf, nf.time)]
        if [lf for lf in rate if lf != sp.Derivative(u, nf.time)] or not rate:
            continue
        second, first = sp.Derivative(u, (x, 2)), sp.Derivative(u, x)
        at = _corner_state(nf, x, place)
        numbers: dict[sp.Expr, float] = {}
        for leaf, coefficient in own.items():
            number = _settled(coefficient, at, constant=leaf in (rate[0], second))
            if number is None:
                return None
            numbers[leaf] = number
        order = max(derivative_count(lf, x) for lf in own)
        foreign = [lf for lf in own if derivative_count(lf, x) and lf not in (first, second)]
        speed = numbers[rate[0]]
        if order != 2 or foreign or second not in own or speed == 0:
            return None
        diffusion = -numbers[second] / speed
        if diffusion <= 0 or abs(numbers.get(first, 0.0)) > _VALUE * abs(speed):
            return None
        return diffusion, min(-numbers.get(u, 0.0) / speed, 0.0)
    return None


def _coefficients(equation: Equation) -> dict[sp.Expr, sp.Expr]:
    """d residual / d leaf, in terms of the leaves."""
    frozen = freeze([equation.residual])
    return {
        leaf: frozen.thaw(sp.diff(frozen.exprs[0], symbol))
        for leaf, symbol in frozen.symbols.items()
        if frozen.exprs[0].has(symbol)
    }


def _corner_state(nf: NormalForm, x: sp.Symbol, place: float) -> dict[sp.Expr, Any]:
    """Fields and coordinates at the corner; slopes are ambiguous there and stay unknown."""
    assert nf.time is not None
    state: dict[sp.Expr, Any] = {}
    for v in nf.fields:
        value = _initial_value(nf, v)
        number = None if value is None else _number(value, x, place)
        if number is not None:
            state[v] = sp.Float(number)
    return {**state, nf.time: sp.Float(nf.bounds[nf.time][0]), x: sp.Float(place)}


def _settled(coefficient: sp.Expr, at: dict[sp.Expr, Any], *, constant: bool) -> float | None:
    """The coefficient's number at the corner; None if unknown, or not constant where it must be."""
    if coefficient.is_number:
        return float(coefficient)  # type: ignore[arg-type]
    if constant:
        return None
    frozen = freeze([coefficient])
    known: dict[Any, Any] = {frozen.symbols[k]: v for k, v in at.items() if k in frozen.symbols}
    known |= {k: v for k, v in at.items() if k.is_Symbol}  # type: ignore[misc]
    value = frozen.exprs[0].xreplace(known)
    return float(value) if value.is_number and value.is_finite else None  # type: ignore[arg-type]


def _number(expr: sp.Expr, symbol: sp.Symbol, at: float) -> float | None:
    value = sp.sympify(expr).subs(symbol, sp.Float(at)).evalf()
    return float(value) if value.is_real and value.is_finite else None


def _gap(expr: sp.Expr, x: sp.Symbol, here: float, there: float) -> float | None:
    """expr(there) - expr(here)."""
    a, b = _number(expr, x, here), _number(expr, x, there)
    return None if a is None or b is None else b - a


def _size(expr: sp.Expr, x: sp.Symbol, low: float, high: float) -> float:
    """The largest of a few values."""
    places = [low + (high - low) * (k + 0.5) / 32 for k in range(32)]
    return max((abs(v) for p in places if (v := _number(expr, x, p)) is not None), default=0.0)
