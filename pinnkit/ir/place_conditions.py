"""Pass 5: conditions onto faces, real, with dn replaced by the signed derivative.

In    the user's conditions and the domain.
Out   `Placed`: conditions on faces, periodic pairs, integrals, observations, gauges asked for.
Next  `ir.checks_conditions` counts them, `ir.find_corners` compares them where faces meet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import singledispatch
from typing import Any

import numpy as np
import sympy as sp

from pinnkit.declare.boundaries import Boundary
from pinnkit.declare.conditions import (
    Dirichlet,
    Gauge,
    Initial,
    Integral,
    Neumann,
    Observations,
    Periodic,
    Robin,
)
from pinnkit.declare.operators import NormalDerivative
from pinnkit.declare.printing import refusal, show, show_number
from pinnkit.declare.symbols import AppliedField, fields_in
from pinnkit.ir.collect_symbols import Symbols
from pinnkit.ir.leaves import derivative_count, field_of, leaves, restrict, settle
from pinnkit.ir.normal_form import Condition, Face, IntegralCondition, ObservationSet
from pinnkit.ir.sampling import evaluate
from pinnkit.ir.split_complex import ComplexSplit

__all__ = ["Placed", "place_conditions"]


@dataclass
class Placed:
    """All conditions, sorted by what they become."""

    symbols: Symbols
    split: ComplexSplit
    conditions: list[Condition] = field(default_factory=list)
    periodic: dict[tuple[sp.Expr, sp.Symbol], str] = field(default_factory=dict)  # -> label
    integrals: list[IntegralCondition] = field(default_factory=list)
    observations: list[ObservationSet] = field(default_factory=list)


def place_conditions(conditions: Sequence[Any], symbols: Symbols, split: ComplexSplit) -> Placed:
    """Every condition on the faces it means; refused if it stands off the boundary."""
    placed = Placed(symbols, split)
    for condition in conditions:
        place(condition, placed)
    return placed


@singledispatch
def place(condition: Any, placed: Placed) -> None:
    """Put one condition; register a function for a condition class of your own."""
    raise NotImplementedError(f"no place is known for {type(condition).__name__}")


@place.register
def _(condition: Initial, placed: Placed) -> None:
    symbols = placed.symbols
    coord = condition.at if condition.at is not None else symbols.time
    if coord is None:
        raise refusal(
            repr(condition),
            "the problem has no time coordinate to start from",
            f"write Dirichlet(..., on=boundary(x)), or at={symbols.coords[0]} for data at its lower end",
        )
    if coord not in symbols.bounds:
        raise refusal(
            repr(condition),
            f"the domain has no {coord}",
            f"choose among {', '.join(map(str, symbols.coords))}",
        )
    _check_interval(coord, repr(condition), symbols)
    face = Face(coord, "left", symbols.bounds[coord][0])
    for expr, value in _pairs(condition):
        _put(placed, condition, "initial", expr, value, face)


@place.register
def _(condition: Dirichlet, placed: Placed) -> None:
    for expr, value in _pairs(condition):
        for face in _faces(condition, expr, placed.symbols):
            _put(placed, condition, "dirichlet", expr, value, face)


@place.register
def _(condition: Neumann, placed: Placed) -> None:
    for expr, value in _pairs(condition):
        for face in _faces(condition, expr, placed.symbols):
            _put(placed, condition, "neumann", NormalDerivative(expr), value, face)


@place.register
def _(condition: Robin, placed: Placed) -> None:
    for expr, value in _pairs(condition):
        for face in _faces(condition, expr, placed.symbols):
            _put(placed, condition, "robin", expr, value, face)


@place.register
def _(condition: Periodic, placed: Placed) -> None:
    symbols = placed.symbols
    for u in condition.fields:
        for axis in condition.axes:
            if axis not in u.args:
                raise refusal(
                    repr(condition), f"{show(u)} does not depend on {axis}", "name one of its axes"
                )
            if axis == symbols.time:
                raise refusal(
                    repr(condition),
                    f"{axis} is time, and periodic in time is not an initial value problem",
                    f"write Initial({show(u)}, ...)",
                )
            _check_interval(axis, repr(condition), symbols)
            for part in placed.split.parts.get(u, (u,)):
                if (part, axis) in placed.periodic:
                    raise refusal(
                        repr(condition),
                        f"{show(u)} is already periodic along {axis}",
                        "drop one of the two conditions",
                    )
                placed.periodic[part, axis] = repr(condition)


@place.register
def _(condition: Gauge, placed: Placed) -> None:
    u = condition.expr
    over = tuple(c for c in u.args if c != placed.symbols.time)
    volume = sp.Mul(*(b - a for a, b in (placed.symbols.ends[c] for c in over)))
    if placed.symbols.region is not None and set(over) & set(placed.symbols.region.coords):
        volume = sp.nan  # no solver handles regions yet; the measure is theirs to compute
    means = placed.split(condition.mean)
    parts = placed.split.parts.get(u, (u,))
    if len(parts) == 1 and means[1] != 0:
        raise _complex_for_real(repr(condition), u, condition.mean)
    for part, mean in zip(parts, means, strict=False):
        placed.integrals.append(
            IntegralCondition(part, over, sp.sympify(mean * volume), repr(condition), gauge=True)
        )


@place.register
def _(condition: Integral, placed: Placed) -> None:
    for c in condition.over:
        if c not in placed.symbols.coords:
            raise refusal(repr(condition), f"the domain has no {c}", "integrate over its axes")
    if condition.equals.free_symbols & set(condition.over):
        raise refusal(
            repr(condition),
            f"the value {show(condition.equals)} depends on the coordinate integrated over",
            "give a value in the remaining coordinates",
        )
    left, right = placed.split(condition.expr), placed.split(condition.equals)
    for expr, equals in zip(left, right, strict=True):
        if expr == 0 and equals == 0:
            continue
        if expr == 0:
            raise _complex_for_real(repr(condition), condition.expr, condition.equals)
        placed.integrals.append(
            IntegralCondition(settle(expr), tuple(condition.over), equals, repr(condition))
        )


@place.register
def _(condition: Observations, placed: Placed) -> None:
    coords = placed.symbols.coords
    points = _observation_points(condition, placed.symbols)
    for c, column in zip(coords, points.T, strict=True):
        low, high = placed.symbols.bounds[c]
        slack = 1e-9 * (high - low)
        outside = (column < low - slack) | (column > high + slack)
        if outside.any():
            raise refusal(
                repr(condition),
                f"{int(outside.sum())} point(s) lie outside {show_number(low)} <= {c} <= "
                f"{show_number(high)}, for example {c} = {show_number(column[outside][0])}",
                "widen the domain or leave these points out",
            )
    parts = placed.split(condition.expr)
    numbers = (np.real(condition.values), np.imag(condition.values))
    for expr, values, name in zip(parts, numbers, ("", " (imaginary part)"), strict=True):
        if expr == 0 and not np.any(values):
            continue
        if expr == 0:
            raise _complex_for_real(repr(condition), condition.expr, "complex values")
        placed.observations.append(
            ObservationSet(
                settle(expr),
                points,
                values.astype(float),
                condition.noise,
                repr(condition) + name,
                condition.run,
            )
        )


def _observation_points(condition: Observations, symbols: Symbols) -> np.ndarray:
    n = len(condition.values)
    if isinstance(condition.points, dict):
        used = {a for f in fields_in(condition.expr) for a in f.args}
        for c in condition.points:
            if c not in symbols.coords:
                raise refusal(
                    repr(condition),
                    f"points are given for {show(c)}, which is no coordinate of the domain",
                    f"give them for {', '.join(map(str, symbols.coords))}",
                )
        missing = [c for c in symbols.coords if c in used and c not in condition.points]
        if missing:
            raise refusal(
                repr(condition),
                f"no points are given for {missing[0]}",
                f"add {missing[0]}: array to the points",
            )
        # A coordinate the observed fields do not depend on may be left out: any value serves.
        columns = [
            condition.points.get(c, np.full(n, symbols.bounds[c][0])) for c in symbols.coords
        ]
        return np.stack([np.asarray(p, dtype=float) for p in columns], axis=1)
    points = np.asarray(condition.points, dtype=float)
    if points.shape != (n, len(symbols.coords)):
        raise refusal(
            repr(condition),
            f"points have the shape {points.shape}, expected {(n, len(symbols.coords))}",
            f"one column per coordinate, in the order {', '.join(map(str, symbols.coords))}",
        )
    return points


def _pairs(condition: Any) -> list[tuple[sp.Expr, sp.Expr]]:
    if isinstance(condition.expr, sp.MatrixBase):
        return list(zip(condition.expr.flat(), condition.value.flat(), strict=True))
    return [(condition.expr, condition.value)]


def _put(
    placed: Placed, condition: Any, kind: str, expr: sp.Expr, value: sp.Expr, face: Face
) -> None:
    """One real condition per non-zero part of expr - value on the face."""
    symbols = placed.symbols
    at = _exact_end(face, symbols)
    label = repr(condition) if face.region is not None else f"{condition!r} at {_where(face)}"
    left, right = placed.split(expr), placed.split(value)
    for i in (0, 1):
        if left[i] == 0 and right[i] == 0:
            continue
        if left[i] == 0:
            raise _complex_for_real(label, expr, value)
        lhs = settle(_replace_normal(settle(left[i], keep=lambda node: True), face))
        rhs = settle(_replace_normal(right[i], face))
        on_face = {face.coord: at} if face.region is None else {}
        lhs, rhs = restrict(lhs, on_face), restrict(rhs, on_face)
        _check_value(rhs, label, face)
        fields = fields_in(lhs - rhs)
        _check_dependence(fields, face, label)
        plain = isinstance(lhs, (AppliedField, sp.Derivative)) and not fields_in(rhs)
        its_kind = "robin" if kind == "dirichlet" and not plain else kind
        if kind == "initial":
            order = max((derivative_count(lf, face.coord) for lf in leaves(lhs)), default=0)
        else:
            order = 0
        has_target = plain and its_kind in ("initial", "dirichlet")
        placed.conditions.append(
            Condition(
                kind=its_kind,
                residual=lhs - rhs,
                face=face,
                fields=fields,
                label=label,
                target=lhs if has_target else None,
                value=rhs if has_target else None,
                order=order,
            )
        )


def _replace_normal(expr: Any, face: Face) -> Any:
    """dn is minus the derivative at a lower end, plus at an upper end; regions keep the node."""
    if face.region is not None:
        return expr
    sign = -1 if face.side == "left" else 1
    nodes = expr.atoms(NormalDerivative)
    return expr.xreplace({n: sign * sp.diff(settle(n.args[0]), face.coord) for n in nodes})


def _check_value(value: sp.Expr, label: str, face: Face) -> None:
    if value.has(sp.nan, sp.oo, -sp.oo, sp.zoo):
        raise refusal(label, "the value is not finite there", "write a finite value")


def _check_dependence(fields: Sequence[sp.Expr], face: Face, label: str) -> None:
    if face.region is not None:
        return
    for f in fields:
        if face.coord not in f.args:
            raise refusal(
                label,
                f"{show(f)} does not depend on {face.coord}",
                f"put the condition on one of {', '.join(map(str, f.args))}",
            )


def _faces(condition: Any, expr: sp.Expr, symbols: Symbols) -> list[Face]:
    return [f for part in condition.on for f in _faces_of(part, repr(condition), expr, symbols)]


def _faces_of(part: Boundary, wrote: str, expr: sp.Expr, symbols: Symbols) -> list[Face]:
    if part.region is not None:
        return _region_faces(part, wrote, symbols)
    coord = part.coord
    assert coord is not None
    if coord not in symbols.bounds:
        raise refusal(
            wrote,
            f"the domain has no {coord}",
            f"choose among {', '.join(map(str, symbols.coords))}",
        )
    if coord == symbols.time:
        raise refusal(
            wrote,
            f"{coord} is time, whose ends are no boundary",
            f"write Initial({show(expr)}, value) for data at {coord} = "
            f"{show(symbols.ends[coord][0])}",
        )
    _check_interval(coord, wrote, symbols)
    sides = [part.side] if part.side else ["left", "right"]
    if part.value is not None:
        sides = [_side_at(part, wrote, symbols)]
    low, high = symbols.bounds[coord]
    return [
        _with_where(Face(coord, s, low if s == "left" else high), part, wrote, symbols)
        for s in sides
    ]


def _side_at(part: Boundary, wrote: str, symbols: Symbols) -> str:
    coord, value = part.coord, part.value
    assert coord is not None and value is not None
    ends = symbols.ends[coord]
    has = f"{show(ends[0])} <= {coord} <= {show(ends[1])}"
    if not value.is_number:
        raise refusal(
            wrote,
            f"{coord} = {show(value)} is a moving place",
            "put conditions on fixed ends, and map a moving domain to a fixed one",
        )
    low, high = symbols.bounds[coord]
    v = float(value)
    slack = 1e-9 * (high - low)
    if abs(v - low) <= slack:
        return "left"
    if abs(v - high) <= slack:
        return "right"
    if low < v < high:
        raise refusal(
            wrote,
            f"it fixes {coord} = {show(value)}, inside the domain, which has {has}; values and "
            "jumps at interior points are not prescribed",
            f"put it on {coord} = {show(ends[0])} or {coord} = {show(ends[1])}; interfaces follow "
            "from div(k*grad(u)) with a k that jumps, measured values are Observations",
        )
    raise refusal(
        wrote,
        f"it fixes {coord} = {show(value)}, but the domain has {has}",
        f"put it on {coord} = {show(ends[0])} or {coord} = {show(ends[1])}, or widen the domain",
    )


def _region_faces(part: Boundary, wrote: str, symbols: Symbols) -> list[Face]:
    region = part.region
    assert region is not None
    missing = [c for c in region.coords if c not in symbols.coords]
    if missing:
        raise refusal(wrote, f"the domain has no {missing[0]}", "name a part of the domain")
    if symbols.region is None and region.region is None:
        space = [c for c in region.coords if c != symbols.time]
        off = [c for c in space if symbols.ends[c] != region.ends[c]]
        if off:
            c = off[0]
            raise refusal(
                wrote,
                f"its outline is not the boundary of the domain, which has "
                f"{show(symbols.ends[c][0])} <= {c} <= {show(symbols.ends[c][1])}",
                "name the domain's own box, or boundary(x)",
            )
        return [
            f for c in space for f in _faces_of(Boundary(c, where=part.where), wrote, c, symbols)
        ]
    where = part.where
    return [Face(region.coords[0], "region", float("nan"), where, region)]


def _with_where(face: Face, part: Boundary, wrote: str, symbols: Symbols) -> Face:
    if part.where == sp.true:
        return face
    unknown = part.where.free_symbols - set(symbols.coords)
    if unknown or part.where.atoms(AppliedField):
        culprit = show(sorted(unknown, key=str)[0]) if unknown else show(part.where)
        raise refusal(
            wrote, f"where= contains {culprit}, which is no coordinate", "use coordinates only"
        )
    where = part.where.subs(face.coord, _exact_end(face, symbols))
    others = [c for c in symbols.coords if c != face.coord]
    points = face_points(others, symbols.bounds)
    if where == sp.true:
        return face
    if where == sp.false or not evaluate(where, points).astype(bool).any():
        raise refusal(
            wrote,
            f"no point of {_where(face)} has {show(part.where)}, so the condition matches nothing",
            "correct where=",
        )
    return Face(face.coord, face.side, face.value, where)


def face_points(
    others: Sequence[sp.Symbol], bounds: Any, target: int = 4096
) -> dict[sp.Symbol, np.ndarray]:
    """A grid over the remaining coordinates, ends included; shape (n,) each."""
    if not others:
        return {}
    per_axis = max(3, round(target ** (1 / len(others))))
    per_axis = min(per_axis, 129)
    axes = [np.linspace(bounds[c][0], bounds[c][1], per_axis) for c in others]
    grid = np.meshgrid(*axes, indexing="ij")
    return {c: g.ravel() for c, g in zip(others, grid, strict=True)}


def _check_interval(coord: sp.Symbol, wrote: str, symbols: Symbols) -> None:
    region = symbols.region
    if region is not None and coord in region.coords:
        raise refusal(
            wrote,
            f"{coord} has no ends of its own: it belongs to {region!r}",
            f"write boundary({region!r}, where=...)",
        )


def _exact_end(face: Face, symbols: Symbols) -> sp.Expr:
    return symbols.ends[face.coord][0 if face.side == "left" else 1]


def _where(face: Face) -> str:
    if face.region is not None:
        return f"the outline of {face.region!r}"
    where = "" if face.where == sp.true else f" where {show(face.where)}"
    return f"{face.coord} = {show_number(face.value)}{where}"


def _complex_for_real(wrote: str, expr: Any, value: Any) -> Exception:
    return refusal(
        wrote,
        f"{show(expr)} is real, but {show(value)} is complex",
        'declare the field with field("u", ..., complex=True), or give a real value',
    )


__all__ += ["face_points", "field_of", "place"]
