"""Parts of the boundary: boundary(x), boundary(x, "left"), boundary(region), sp.Eq(x, -1).

In    what the user wrote behind on=.
Out   a tuple of `Boundary` records.
Next  `ir.place_conditions` finds the faces they mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import sympy as sp
from sympy.logic.boolalg import Boolean, BooleanAtom

from pinnkit.declare.domains import AbstractDomain
from pinnkit.declare.printing import refusal, show
from pinnkit.declare.symbols import Coordinate

__all__ = ["Boundary", "boundary", "read_boundary"]


@final
@dataclass(frozen=True)
class Boundary:
    """One part: of a coordinate (`side` left, right or both, or at `value`), or of a region."""

    coord: sp.Symbol | None
    side: str | None = None
    value: Any = None  # sympy number, where on= is an equation
    region: AbstractDomain | None = None
    where: Any = sp.true

    def subs(self, values: Mapping[sp.Basic, Any]) -> Boundary:
        """With numbers for symbols."""
        value = None if self.value is None else self.value.subs(dict(values))
        return Boundary(self.coord, self.side, value, self.region, self.where.subs(dict(values)))

    def __repr__(self) -> str:
        where = "" if self.where == sp.true else f", where={show(self.where)}"
        if self.value is not None:
            plain = f"Eq({self.coord}, {show(self.value)})"
            return plain if not where else f"boundary({plain}{where})"
        if self.region is not None:
            return f"boundary({self.region!r}{where})"
        side = "" if self.side is None else f', "{self.side}"'
        return f"boundary({self.coord}{side}{where})"


def boundary(of: Any, side: str | None = None, *, where: Any = None) -> Boundary:
    """A part of the boundary.

    Args:
        of: A coordinate (both its ends), an equation such as sp.Eq(x, -1), or a region.
        side: "left" or "right": the lower or upper end of the coordinate only.
        where: A sympy relation in the other coordinates; the condition holds where it is true.

    >>> from pinnkit.declare.symbols import coords
    >>> x, y = coords("x y")
    >>> boundary(x, "left", where=y > 0)
    boundary(x, "left", where=y > 0)
    """
    wrote = f"boundary({show(of)}{'' if side is None else f', {side!r}'})"
    relation = sp.true if where is None else where
    if not isinstance(relation, Boolean):
        raise refusal(
            wrote, f"where={where!r} is not a sympy relation", "write for example where=y > 0"
        )
    if relation == sp.false:
        raise refusal(wrote, "where= is always false, so no point matches", "correct the relation")
    if side not in (None, "left", "right"):
        raise refusal(
            wrote,
            f"{side!r} is not a side",
            'write "left" for the lower end or "right" for the upper end of the coordinate',
        )
    if isinstance(of, AbstractDomain):
        if side is not None:
            raise refusal(wrote, "a region has no sides", f"write boundary({of!r}, where=...)")
        return Boundary(None, region=of, where=relation)
    if isinstance(of, sp.Equality):
        coord, value = _read_equality(of, wrote)
        return Boundary(coord, value=value, where=relation)
    if not isinstance(of, Coordinate):
        raise refusal(
            wrote,
            f"{show(of)} is neither a coordinate nor a region",
            'write boundary(x), boundary(x, "left"), boundary(region) or sp.Eq(x, -1)',
        )
    return Boundary(of, side=side, where=relation)


def read_boundary(on: Any, wrote: str) -> tuple[Boundary, ...]:
    """The parts meant by on=, several in a list or tuple."""
    if isinstance(on, (list, tuple)) and on:
        return tuple(b for part in on for b in read_boundary(part, wrote))
    if isinstance(on, Boundary):
        return (on,)
    if isinstance(on, sp.Equality):
        return (boundary(on),)
    if isinstance(on, AbstractDomain):
        return (boundary(on),)
    if isinstance(on, Coordinate):
        raise refusal(wrote, f"on={on} names no boundary", f"write on=boundary({on})")
    if isinstance(on, (bool, BooleanAtom)):
        raise refusal(
            wrote,
            "on= is a truth value, as `x == -1` gives in Python",
            "write on=sp.Eq(x, -1)",
        )
    raise refusal(
        wrote,
        "on= is missing" if on is None else f"on={show(on)} names no boundary",
        'write on=boundary(x), boundary(x, "left"), boundary(region) or sp.Eq(x, -1)',
    )


def _read_equality(relation: sp.Equality, wrote: str) -> tuple[sp.Symbol, sp.Expr]:
    left, right = relation.lhs, relation.rhs
    if not isinstance(left, Coordinate):
        left, right = right, left
    if not isinstance(left, Coordinate) or right.has(left):
        raise refusal(wrote, f"{show(relation)} does not fix a coordinate", "write sp.Eq(x, -1)")
    return left, right  # type: ignore[return-value]
