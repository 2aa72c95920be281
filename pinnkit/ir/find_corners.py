"""Pass 8: corners where conditions contradict each other.

In    placed conditions.
Out   `Corner` records; jumps are warned about, slope mismatches logged.
Next  solvers make conditions soft there, references start with graded steps.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import sympy as sp

from pinnkit.declare.printing import show, show_number
from pinnkit.declare.symbols import Parameter
from pinnkit.errors import DeclarationWarning
from pinnkit.ir.collect_symbols import Symbols
from pinnkit.ir.leaves import derivative_count, freeze, leaves
from pinnkit.ir.linearise import initial_expressions, initial_state
from pinnkit.ir.normal_form import Condition, Equation, Predicates
from pinnkit.ir.place_conditions import Placed, face_points
from pinnkit.ir.sampling import evaluate

__all__ = ["Corner", "find_corners", "report_corners"]

logger = logging.getLogger(__name__)

_VALUE = 1e-8  # relative to the larger value: below it is rounding in the user's data
_SLOPE = 1e-6  # relative to the largest slope in the domain


class Corner(NamedTuple):
    """`size` is the jump of the `order`-th derivative at the place `label` names."""

    label: str
    order: int
    size: float


def find_corners(
    equations: Sequence[Equation], placed: Placed, predicates: Predicates, symbols: Symbols
) -> list[Corner]:
    """All incompatible corners of a box; regions are left to the solvers that support them."""
    if symbols.given:
        return []  # whether data meet is known when they are drawn: a family looks at a member
    corners: list[Corner] = []
    if symbols.time is not None:
        corners += _periodic_seams(placed, predicates, symbols)
        for condition in placed.conditions:
            if condition.face.coord != symbols.time and condition.face.region is None:
                corner = _at_start(condition, equations, placed, predicates, symbols)
                corners += [corner] if corner else []
    corners += _between_faces(placed, symbols)
    return corners


def report_corners(corners: Sequence[tuple[str, int, float]]) -> None:
    """Warn about jumps, log the rest. Called by the constructor of a problem, for its caller's line."""
    for label, order, size in corners:
        if order == 0:
            warnings.warn(
                f"{label}, a jump of {show_number(size)}: the solution is not continuous "
                "there, and errors near it are large in the maximum norm",
                DeclarationWarning,
                stacklevel=3,
            )
        else:
            logger.info(
                "%s: derivative %d jumps by %s; exact initial or periodic forms are not used there",
                label,
                order,
                show_number(size),
            )


def _guesses(expr: sp.Expr) -> dict[sp.Symbol, float]:
    return {p: p.guess for p in expr.free_symbols if isinstance(p, Parameter)}


def _numbers(expr: sp.Expr, points: Mapping[sp.Symbol, np.ndarray]) -> np.ndarray:
    return np.real(evaluate(expr, {**points, **_guesses(expr)})).astype(float)


def _periodic_seams(placed: Placed, predicates: Predicates, symbols: Symbols) -> list[Corner]:
    """Initial data whose periodic extension jumps, in value or in some derivative."""
    known = initial_expressions(placed, symbols)
    found: list[Corner] = []
    for (u, axis), _ in placed.periodic.items():
        low, high = symbols.ends[axis]
        highest = max(2, predicates.space_order.get((u, axis), 0) + 1)
        for data in known.get(u, {}).values():
            others = [c for c in symbols.space if c != axis and data.has(c)]
            points = face_points(others, symbols.bounds, target=27)
            inside = face_points([axis, *others], symbols.bounds, target=125)
            slope = data
            for order in range(highest + 1):
                left, right = (_numbers(slope.subs(axis, end), points) for end in (low, high))
                gap = float(np.nanmax(np.abs(left - right), initial=0.0))
                size = float(np.nanmax(np.abs(_numbers(slope, inside)), initial=0.0)) or 1.0
                if gap > (_SLOPE if order else _VALUE) * size:
                    what = (
                        f"Initial({show(u)}, {show(data)}) does not repeat along {axis}: at "
                        f"{axis} = {show(low)} and {axis} = {show(high)}"
                    )
                    found.append(Corner(what, order, gap))
                    break
                slope = sp.diff(slope, axis)
    return found


def _at_start(
    condition: Condition,
    equations: Sequence[Equation],
    placed: Placed,
    predicates: Predicates,
    symbols: Symbols,
) -> Corner | None:
    """Initial data against a condition on a side, at the start."""
    time = symbols.time
    assert time is not None
    face = condition.face
    others = [c for c in symbols.space if c != face.coord]
    points = face_points(others, symbols.bounds, target=81)
    n = max((len(v) for v in points.values()), default=1)
    points[face.coord] = np.full(n, face.value)
    points[time] = np.full(n, symbols.bounds[time][0])
    holds = (
        np.ones(n, dtype=bool)
        if face.where == sp.true
        else evaluate(face.where, points).astype(bool)
    )
    if not holds.any():
        return None
    own = leaves(condition.residual)
    state, unknown = initial_state(own, points, placed, symbols)
    if unknown:
        return None
    place = f"{time} = {show(symbols.ends[time][0])}, {face.coord} = {show_number(face.value)}"
    gap, size = _mismatch(condition.residual, points, state, holds)
    size = max(size, _data_size(condition.fields, placed, symbols))
    order = max((derivative_count(lf) for lf in own), default=0)
    if gap > (_SLOPE if order else _VALUE) * size:
        data = initial_expressions(placed, symbols)
        initial = "; ".join(
            f"Initial({show(u)}, {show(data[u][0])})"
            for u in condition.fields
            if 0 in data.get(u, {})
        )
        label = f"{initial} contradicts {condition.label} at the corner {place}"
        return Corner(label, order, gap)
    if condition.kind == "dirichlet" and all(k == 1 for k in predicates.time_order.values()):
        return _first_compatibility(condition, equations, points, holds, placed, symbols, place)
    return None


def _first_compatibility(
    condition: Condition,
    equations: Sequence[Equation],
    points: Mapping[sp.Symbol, np.ndarray],
    holds: np.ndarray,
    placed: Placed,
    symbols: Symbols,
    place: str,
) -> Corner | None:
    """Does the equation hold at the corner, with u_t from the boundary value?"""
    time, u = symbols.time, condition.target
    assert time is not None and u is not None and condition.value is not None
    for equation in equations:
        own = leaves(equation.residual)
        rate = sp.Derivative(u, time)
        if rate not in own:
            continue
        state, unknown = initial_state([lf for lf in own if lf != rate], points, placed, symbols)
        if unknown:
            continue
        n = len(holds)
        state[rate] = np.broadcast_to(_numbers(sp.diff(condition.value, time), points), (n,))
        gap, size = _mismatch(equation.residual, points, state, holds)
        size = max(size, _data_size(condition.fields, placed, symbols))
        if gap > _SLOPE * size:
            order = max(derivative_count(lf, condition.face.coord) for lf in own)
            label = f"{equation.label} does not hold at the corner {place} with {condition.label}"
            return Corner(label, max(order, 1), gap)
    return None


def _data_size(fields: Sequence[sp.Expr], placed: Placed, symbols: Symbols) -> float:
    """The largest initial value: at a corner itself all terms may vanish but for rounding."""
    known = initial_expressions(placed, symbols)
    inside = face_points(symbols.space, symbols.bounds, target=125)
    sizes = [
        float(np.nanmax(np.abs(_numbers(known[u][0], inside)), initial=0.0))
        for u in fields
        if 0 in known.get(u, {})
    ]
    return max(sizes, default=0.0)


def _mismatch(
    residual: sp.Expr,
    points: Mapping[sp.Symbol, np.ndarray],
    state: Mapping[sp.Expr, np.ndarray],
    holds: np.ndarray,
) -> tuple[float, float]:
    """(largest residual, size of its terms) over the points where the condition holds."""
    frozen = freeze([residual])
    expr = frozen.exprs[0]
    values: dict[sp.Symbol, np.ndarray] = dict(points)
    values |= {frozen.symbols[lf]: v for lf, v in state.items()}

    def largest(e: sp.Expr) -> float:
        numbers = np.broadcast_to(_numbers(e, values), holds.shape)[holds]
        return float(np.nanmax(np.abs(numbers), initial=0.0))

    size = max((largest(t) for t in sp.Add.make_args(expr)), default=0.0)
    return largest(expr), size or 1.0


def _between_faces(placed: Placed, symbols: Symbols) -> list[Corner]:
    """Dirichlet values of one field on two sides that meet in an edge."""
    found: list[Corner] = []
    own = [c for c in placed.conditions if c.kind == "dirichlet" and c.face.region is None]
    for i, a in enumerate(own):
        for b in own[:i]:
            if a.target != b.target or a.face.coord == b.face.coord:
                continue
            fixed = (a.face.coord, b.face.coord)
            others = [c for c in symbols.coords if c not in fixed]
            points = face_points(others, symbols.bounds, target=27)
            n = max((len(v) for v in points.values()), default=1)
            points[a.face.coord] = np.full(n, a.face.value)
            points[b.face.coord] = np.full(n, b.face.value)
            assert a.value is not None and b.value is not None
            va, vb = _numbers(a.value, points), _numbers(b.value, points)
            both = np.logical_and.reduce(
                [np.broadcast_to(evaluate(c.face.where, points).astype(bool), (n,)) for c in (a, b)]
            )
            if not both.any():
                continue
            gap = float(np.nanmax(np.where(both, np.abs(va - vb), 0.0)))
            # At the corner itself both may vanish but for rounding.
            inside = face_points(symbols.coords, symbols.bounds, target=125)
            size = max(
                float(np.nanmax(np.abs(_numbers(v, inside)), initial=0.0))
                for v in (a.value, b.value)
            )
            size = max(size, float(np.nanmax(np.abs([va, vb])))) or 1.0
            if gap > _VALUE * size:
                place = ", ".join(f"{c.face.coord} = {show_number(c.face.value)}" for c in (b, a))
                label = f"{b.label} contradicts {a.label} at the corner {place}"
                found.append(Corner(label, 0, gap))
    return found
