"""Checks of the conditions: enough at the start, enough on every side, none too many.

In    equations, placed conditions, predicates.
Out   the periodic axes, or a refusal naming the side and the field.
Next  `ir.fix_gauge`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy as sp

from pinnkit.declare.printing import refusal, show
from pinnkit.ir.boundary_count import Needed, count_needed
from pinnkit.ir.collect_symbols import Symbols
from pinnkit.ir.leaves import derivative_count, field_of, freeze
from pinnkit.ir.normal_form import Condition, Equation, Predicates
from pinnkit.ir.place_conditions import Placed, face_points
from pinnkit.ir.sampling import evaluate

__all__ = ["check_conditions"]


def check_conditions(
    equations: Sequence[Equation], placed: Placed, predicates: Predicates, symbols: Symbols
) -> tuple[sp.Symbol, ...]:
    """Count everything; return the periodic axes."""
    periodic = _check_periodic(placed, predicates, symbols)
    _check_twice(placed, symbols)
    if symbols.time is not None:
        _check_initial(equations, placed, predicates, symbols)
    for c in symbols.space:
        in_region = symbols.region is not None and c in symbols.region.coords
        if c not in periodic and not in_region:
            _check_sides(c, equations, placed, predicates, symbols)
    return periodic


def _check_periodic(
    placed: Placed, predicates: Predicates, symbols: Symbols
) -> tuple[sp.Symbol, ...]:
    axes = []
    for c in symbols.space:
        labels = {u: label for (u, axis), label in placed.periodic.items() if axis == c}
        if not labels:
            continue
        others = [d for d in placed.conditions if d.face.coord == c]
        first = next(iter(labels.values()))
        if others:
            raise refusal(
                f"{first} together with {others[0].label}",
                f"a periodic axis has no ends, so nothing else can hold at the ends of {c}",
                "drop one of the two conditions",
            )
        for u in placed.split.fields:
            if c in u.args and u not in labels and predicates.space_order.get((u, c), 0):
                raise refusal(
                    first,
                    f"{show(u)} is not periodic along {c}, and fields cannot differ in that",
                    f"write Periodic(({', '.join(map(show, [*labels, u]))}), {c})",
                )
        axes.append(c)
    return tuple(axes)


def _check_twice(placed: Placed, symbols: Symbols) -> None:
    """The same field or derivative prescribed twice at the same points."""
    for i, a in enumerate(placed.conditions):
        for b in placed.conditions[:i]:
            same_face = (a.face.coord, a.face.side, a.face.region) == (
                b.face.coord,
                b.face.side,
                b.face.region,
            )
            if not same_face or a.kind != b.kind:
                continue
            frozen = freeze([a.residual, b.residual])
            own = [s for s in frozen.symbols.values() if a.target is not None]
            twice = a.target is not None and a.target == b.target
            if not twice and (own or a.target is not None or b.target is not None):
                continue
            zero = dict.fromkeys(frozen.symbols.values(), sp.S.Zero)
            left, right = (e - e.xreplace(zero) for e in frozen.exprs)
            if not twice and sp.expand(left - right) != 0:
                continue
            if a.face.region is None and not _overlap(a, b, symbols):
                continue
            raise refusal(
                f"{b.label} and {a.label}",
                f"the two conditions prescribe {show(a.target if twice else a.fields[0])} twice "
                "at the same points",
                "drop one of them, or separate them with where=",
            )


def _overlap(a: Condition, b: Condition, symbols: Symbols) -> bool:
    if a.face.where == sp.true or b.face.where == sp.true:
        return True
    points = _inner_points(a.face.coord, symbols)
    return bool((_active(a, points) & _active(b, points)).any())


def _active(condition: Condition, points: dict[sp.Symbol, np.ndarray]) -> np.ndarray:
    n = max((len(v) for v in points.values()), default=1)
    if condition.face.where == sp.true:
        return np.ones(n, dtype=bool)
    return np.broadcast_to(evaluate(condition.face.where, points).astype(bool), (n,))


def _inner_points(coord: sp.Symbol, symbols: Symbols) -> dict[sp.Symbol, np.ndarray]:
    """Grid points of a face off its edges, so that < and <= are the same."""
    others = [c for c in symbols.coords if c != coord]
    # An irrational margin: where= relations tend to break at round numbers.
    inner = {
        c: (a + 0.00314159 * (b - a), b - 0.00271828 * (b - a))
        for c, (a, b) in symbols.bounds.items()
    }
    return face_points(others, inner)


def _check_initial(
    equations: Sequence[Equation], placed: Placed, predicates: Predicates, symbols: Symbols
) -> None:
    time = symbols.time
    assert time is not None
    start = show(symbols.ends[time][0])
    given: dict[sp.Expr, set[int]] = {}
    general: set[sp.Expr] = set()
    count = 0
    for c in placed.conditions:
        if c.face.coord != time:
            continue
        count += 1
        if c.target is None or derivative_count(c.target) > c.order:
            general |= set(c.fields)
            continue
        u = field_of(c.target)
        order = predicates.time_order[u]
        if c.order >= order:
            raise refusal(
                c.label,
                f"the equations have {_highest(u, order, time)}, so "
                f"{show(c.target)} cannot be prescribed at the start: too many conditions",
                "drop it"
                if order
                else f"drop it; {show(u)} follows from the others at every {time}",
            )
        given.setdefault(u, set()).add(c.order)
    needed = sum(predicates.time_order.values())
    if count > needed:
        raise refusal(
            f"{count} initial conditions",
            f"the equations need {needed}: too many conditions at {time} = {start}",
            "drop those that follow from the others",
        )
    if placed.observations or not _all_evolve(equations, predicates, symbols):
        return  # data may replace initial values; hidden constraints make some redundant
    for u, order in predicates.time_order.items():
        missing = sorted(set(range(order)) - given.get(u, set()))
        if missing and u not in general:
            target = u if missing[0] == 0 else sp.Derivative(u, (time, missing[0]))
            raise refusal(
                f"the field {show(_user_field(u, placed))} at {time} = {start}",
                f"its equation has {_highest(u, order, time)} and needs {order} initial "
                f"condition(s), but {show(target)} is not given there: too few conditions",
                f"add Initial({show(_user_field(target, placed))}, ...)",
            )


def _highest(u: sp.Expr, order: int, coord: sp.Symbol) -> str:
    if not order:
        return f"no derivative of {show(u)} along {coord}"
    return f"{show(sp.Derivative(u, (coord, order)))} as the highest derivative"


def _user_field(expr: sp.Expr, placed: Placed) -> Any:
    """psi for psi_re: messages speak in the declared fields."""
    names = {part: psi for psi, pair in placed.split.parts.items() for part in pair}
    return expr.xreplace(names)


def _all_evolve(equations: Sequence[Equation], predicates: Predicates, symbols: Symbols) -> bool:
    """Do the equations determine the highest time derivative of every field that has one?"""
    moving = [u for u, k in predicates.time_order.items() if k]
    if not moving:
        return True
    frozen = freeze([e.residual for e in equations])
    gen = np.random.default_rng(4)
    rows = []
    for expr in frozen.exprs:
        row = []
        for u in moving:
            top = [
                s
                for lf, s in frozen.symbols.items()
                if field_of(lf) == u
                and derivative_count(lf, symbols.time) == predicates.time_order[u]
            ]
            slope = sp.Add(*(sp.diff(expr, s) * (i + 1) for i, s in enumerate(top)))
            values = {s: gen.uniform(0.4, 0.9, 3) for s in sorted(slope.free_symbols, key=str)}
            row.append(float(np.nan_to_num(np.real(evaluate(slope, values)), nan=1.0)[0]))
        rows.append(row)
    return bool(np.linalg.matrix_rank(np.array(rows), tol=1e-9) == len(moving))


@dataclass(frozen=True)
class _Side:
    """How many conditions hold on one side: fewest and most over its points."""

    low: int
    high: int
    conditions: tuple[Condition, ...]
    bare: str  # where the fewest hold, for messages; empty if everywhere the same


def _check_sides(
    coord: sp.Symbol,
    equations: Sequence[Equation],
    placed: Placed,
    predicates: Predicates,
    symbols: Symbols,
) -> None:
    """Compare what holds at the two ends of a coordinate with what the equations need."""
    sides = {s: _side(coord, s, placed, symbols) for s in ("left", "right")}
    orders = {u: k for (u, c), k in predicates.space_order.items() if c == coord}
    _check_needed_at_all(coord, orders, sides)
    needed = count_needed(coord, equations, placed, symbols)
    if needed is None:
        return
    # An unknown number or field may use up one more condition; data and integrals may replace one.
    spare = len(symbols.parameters) + max(0, len(placed.split.fields) - len(equations))
    integrals = sum(not i.gauge for i in placed.integrals)
    lacking = 10**6 if placed.observations else integrals
    message = _Message(coord, orders, needed, sides, placed, symbols)
    for side, (low, high) in (("left", needed.left), ("right", needed.right)):
        if sides[side].high > high + spare:
            raise message.too_many(side)
        if sides[side].low < low - lacking:
            raise message.too_few(side)
    total_low = sides["left"].low + sides["right"].low
    total_high = sides["left"].high + sides["right"].high
    if total_high > needed.total[1] + spare:
        raise message.too_many(None)
    if total_low < needed.total[0] - lacking:
        raise message.too_few(None)


def _side(coord: sp.Symbol, side: str, placed: Placed, symbols: Symbols) -> _Side:
    own = tuple(c for c in placed.conditions if (c.face.coord, c.face.side) == (coord, side))
    if all(c.face.where == sp.true for c in own):
        return _Side(len(own), len(own), own, "")
    points = _inner_points(coord, symbols)
    counts = np.sum([_active(c, points) for c in own], axis=0)
    at = int(np.argmin(counts))
    bare = ", ".join(f"{c} = {v[at]:.3g}" for c, v in points.items() if c != symbols.time)
    return _Side(int(counts.min()), int(counts.max()), own, bare)


def _check_needed_at_all(
    coord: sp.Symbol, orders: dict[sp.Expr, int], sides: dict[str, _Side]
) -> None:
    for side in sides.values():
        for c in side.conditions:
            if not any(orders.get(u, 0) for u in c.fields):
                names = ", ".join(map(show, c.fields))
                raise refusal(
                    c.label,
                    f"the equations contain no derivative of {names} along {coord}, so nothing "
                    f"can be prescribed at its ends: too many conditions",
                    "drop it",
                )


@dataclass(frozen=True)
class _Message:
    """The sentences of a wrong count."""

    coord: sp.Symbol
    orders: dict[sp.Expr, int]
    needed: Needed
    sides: dict[str, _Side]
    placed: Placed
    symbols: Symbols

    def too_few(self, side: str | None) -> Exception:
        names, example = self._names()
        where = f"along {self.coord}" if side is None else f"at {self._at(side)}"
        bare = self.sides[side].bare if side else ""
        near = f" (near {bare})" if bare else ""
        which = f', "{side}"' if side else ""
        return refusal(
            f"{names} {where}",
            f"too few conditions{near}: {self._wants()}; given {self._given(fewest=True)}",
            f"add one, for example Dirichlet({example}, ..., on=boundary({self.coord}{which})), or "
            f"Periodic({example}, {self.coord})",
        )

    def too_many(self, side: str | None) -> Exception:
        names, _ = self._names()
        where = f"along {self.coord}" if side is None else f"at {self._at(side)}"
        own = [c for s, v in self.sides.items() if side in (None, s) for c in v.conditions]
        flow = (
            "; the characteristics leave the domain there, which fixes the values from inside"
            if side and self.needed.total == (1, 1) and getattr(self.needed, side) == (0, 0)
            else ""
        )
        labels = "; ".join(dict.fromkeys(c.label for c in own))
        return refusal(
            f"{names} {where}",
            f"too many conditions: {self._wants()}; given {self._given(fewest=False)}{flow}",
            f"drop one of: {labels}",
        )

    def _names(self) -> tuple[str, str]:
        users: dict[sp.Expr, None] = {}
        for u, k in self.orders.items():
            if k:
                users[_user_field(u, self.placed)] = None
        names = ", ".join(map(show, users))
        return f"the field{'s' if len(users) > 1 else ''} {names}", show(next(iter(users)))

    def _wants(self) -> str:
        top = ", ".join(
            show(sp.Derivative(u, (self.coord, k))) for u, k in self.orders.items() if k
        )
        need = self.needed
        sides = f"{_range(need.left)} at {self._at('left')} and {_range(need.right)} at {self._at('right')}"
        if need.left[0] != need.left[1] or need.right[0] != need.right[1]:
            sides = f"{_range(need.total)} in all"
        return f"with {top} the equations need {sides}"

    def _given(self, fewest: bool) -> str:
        parts = []
        for side in ("left", "right"):
            s = self.sides[side]
            parts.append(f"{s.low if fewest else s.high} at {self._at(side)}")
        return " and ".join(parts)

    def _at(self, side: str) -> str:
        return f"{self.coord} = {show(self.symbols.ends[self.coord][0 if side == 'left' else 1])}"


def _range(pair: tuple[int, int]) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]} to {pair[1]}"
