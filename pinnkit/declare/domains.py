"""Boxes, products, unions, differences, intersections: what every domain can answer.

In    coordinates and their ends.
Out   domains with `.coords`, `.bounds` and, off the box, `.region`.
Next  `declare.regions` adds discs, balls, polygons; `ir.place_conditions` finds the faces.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import sympy as sp

from pinnkit.declare.printing import refusal, show
from pinnkit.declare.symbols import AppliedField, Coordinate, Parameter

__all__ = [
    "CSG",
    "AbstractDomain",
    "AbstractRegion",
    "Box",
    "Interval",
    "Product",
    "contains",
    "read_number",
]


class AbstractDomain(ABC):
    """A set of points in some coordinates. `*` makes products."""

    @property
    @abstractmethod
    def coords(self) -> tuple[sp.Symbol, ...]:
        """Its coordinates, in the user's order."""

    @property
    @abstractmethod
    def ends(self) -> Mapping[sp.Symbol, tuple[sp.Expr, sp.Expr]]:
        """Lower and upper end of every coordinate, exact; the bounding box of a region."""

    @property
    def bounds(self) -> dict[sp.Symbol, tuple[float, float]]:
        """Lower and upper end of every coordinate, as floats."""
        return {c: (float(a), float(b)) for c, (a, b) in self.ends.items()}

    @property
    def region(self) -> Any:
        """The part that is not a box, None for a box."""
        return None

    @property
    def factors(self) -> tuple[AbstractDomain, ...]:
        """The domains this one is a product of."""
        return (self,)

    @abstractmethod
    def inside(self, columns: Mapping[sp.Symbol, np.ndarray]) -> np.ndarray:
        """Which points lie inside, from one array (n,) per coordinate."""

    def __add__(self, other: AbstractDomain) -> CSG:
        return CSG("+", self, other)

    def __sub__(self, other: AbstractDomain) -> CSG:
        return CSG("-", self, other)

    def __and__(self, other: AbstractDomain) -> CSG:
        return CSG("&", self, other)

    def __mul__(self, other: AbstractDomain) -> Product:
        if not isinstance(other, AbstractDomain):
            return NotImplemented
        return Product((*self.factors, *other.factors))


@final
@dataclass(frozen=True)
class Interval(AbstractDomain):
    """lower <= coord <= upper.

    >>> from pinnkit.declare.symbols import coords
    >>> Interval(coords("x"), -1, sp.pi).bounds
    {x: (-1.0, 3.141592653589793)}
    """

    coord: sp.Symbol
    lower: sp.Expr
    upper: sp.Expr

    def __init__(self, coord: sp.Symbol, lower: Any, upper: Any) -> None:
        wrote = f"Interval({show(coord)}, {show(lower)}, {show(upper)})"
        check_coordinate(coord, wrote)
        low = read_number(lower, wrote, infinite_is="an infinite interval")
        high = read_number(upper, wrote, infinite_is="an infinite interval")
        if not float(low) < float(high):
            raise refusal(
                wrote,
                "the interval is empty" if low == high else "the lower end is above the upper end",
                f"write Interval({coord}, {show(high)}, {show(low)})"
                if float(high) < float(low)
                else "give two different ends, the lower one first",
            )
        object.__setattr__(self, "coord", coord)
        object.__setattr__(self, "lower", low)
        object.__setattr__(self, "upper", high)

    @property
    def coords(self) -> tuple[sp.Symbol, ...]:
        """The one coordinate."""
        return (self.coord,)

    @property
    def ends(self) -> dict[sp.Symbol, tuple[sp.Expr, sp.Expr]]:
        """Lower and upper end, exact."""
        return {self.coord: (self.lower, self.upper)}

    def inside(self, columns: Mapping[sp.Symbol, np.ndarray]) -> np.ndarray:
        """Between the ends."""
        return _between(self, columns)

    def __repr__(self) -> str:
        return f"Interval({self.coord}, {show(self.lower)}, {show(self.upper)})"


@final
@dataclass(frozen=True)
class Box(AbstractDomain):
    """A rectangle or box: Box((x, y), (0, 0), (1, 2)); one number serves all coordinates."""

    intervals: tuple[Interval, ...]

    def __init__(self, coords: Sequence[sp.Symbol], lower: Any, upper: Any) -> None:
        names: Any = tuple(coords) if isinstance(coords, (tuple, list, sp.Tuple)) else (coords,)
        wrote = f"Box(({', '.join(map(str, names))}), {lower}, {upper})"
        lows, highs = _spread(lower, len(names), wrote), _spread(upper, len(names), wrote)
        for c in names:
            check_coordinate(c, wrote)
        check_distinct(names, wrote)
        parts = tuple(Interval(c, a, b) for c, a, b in zip(names, lows, highs, strict=True))
        object.__setattr__(self, "intervals", parts)

    @property
    def coords(self) -> tuple[sp.Symbol, ...]:
        """The coordinates, in the order given."""
        return tuple(i.coord for i in self.intervals)

    @property
    def ends(self) -> dict[sp.Symbol, tuple[sp.Expr, sp.Expr]]:
        """Lower and upper ends, exact."""
        return {i.coord: (i.lower, i.upper) for i in self.intervals}

    def inside(self, columns: Mapping[sp.Symbol, np.ndarray]) -> np.ndarray:
        """Between the ends."""
        return _between(self, columns)

    def __repr__(self) -> str:
        names = ", ".join(map(str, self.coords))
        lows = ", ".join(show(i.lower) for i in self.intervals)
        highs = ", ".join(show(i.upper) for i in self.intervals)
        return f"Box(({names}), ({lows}), ({highs}))"


@final
@dataclass(frozen=True)
class Product(AbstractDomain):
    """The product of domains in different coordinates; written with `*`."""

    parts: tuple[AbstractDomain, ...]

    def __post_init__(self) -> None:
        names = [c for p in self.parts for c in p.coords]
        check_distinct(names, " * ".join(map(repr, self.parts)))
        regions = [p for p in self.parts if p.region is not None]
        if len(regions) > 1:
            raise refusal(
                " * ".join(map(repr, self.parts)),
                "a product holds at most one region that is not a box",
                "combine regions of the same coordinates with + - &",
            )

    @property
    def factors(self) -> tuple[AbstractDomain, ...]:
        """The domains multiplied."""
        return self.parts

    @property
    def coords(self) -> tuple[sp.Symbol, ...]:
        """All coordinates, in the order of the factors."""
        return tuple(c for p in self.parts for c in p.coords)

    @property
    def ends(self) -> dict[sp.Symbol, tuple[sp.Expr, sp.Expr]]:
        """Lower and upper ends, exact."""
        return {c: e for p in self.parts for c, e in p.ends.items()}

    @property
    def region(self) -> Any:
        """The one factor that is not a box, or None."""
        return next((p.region for p in self.parts if p.region is not None), None)

    def inside(self, columns: Mapping[sp.Symbol, np.ndarray]) -> np.ndarray:
        """Inside every factor."""
        return np.logical_and.reduce([p.inside(columns) for p in self.parts])

    def __repr__(self) -> str:
        return " * ".join(map(repr, self.parts))


class AbstractRegion(AbstractDomain):
    """A domain that is not a box."""

    @property
    def region(self) -> AbstractRegion:
        """Itself."""
        return self


@final
@dataclass(frozen=True)
class CSG(AbstractRegion):
    """Union (+), difference (-) or intersection (&) of two domains in the same coordinates."""

    operation: str
    left: AbstractDomain
    right: AbstractDomain

    def __post_init__(self) -> None:
        if set(self.left.coords) != set(self.right.coords):
            raise refusal(
                f"{self.left!r} {self.operation} {self.right!r}",
                "the two domains have different coordinates",
                "combine domains of the same coordinates; * makes products",
            )
        gen = np.random.default_rng(0)
        low, high = (np.array(b) for b in zip(*self.bounds.values(), strict=True))
        points = low + (high - low) * gen.random((4096, len(low)))
        if not contains(self, points).any():
            raise refusal(repr(self), "the region is empty", "check centre, size and operation")

    def inside(self, columns: Mapping[sp.Symbol, np.ndarray]) -> np.ndarray:
        """The operation on the two memberships."""
        a, b = self.left.inside(columns), self.right.inside(columns)
        if self.operation == "+":
            return a | b
        return a & b if self.operation == "&" else a & ~b

    @property
    def coords(self) -> tuple[sp.Symbol, ...]:
        """The coordinates, in the order of the left domain."""
        return self.left.coords

    @property
    def ends(self) -> dict[sp.Symbol, tuple[sp.Expr, sp.Expr]]:
        """The bounding box."""
        if self.operation == "-":
            return dict(self.left.ends)
        a, b = self.left.ends, self.right.ends
        inner = self.operation == "&"
        pick_low, pick_high = (max, min) if inner else (min, max)
        return {
            c: (pick_low(a[c][0], b[c][0], key=float), pick_high(a[c][1], b[c][1], key=float))
            for c in a
        }

    def __repr__(self) -> str:
        return f"({self.left!r} {self.operation} {self.right!r})"


def contains(domain: AbstractDomain, points: np.ndarray) -> np.ndarray:
    """Which points (n, d), columns in the order of `domain.coords`, lie inside; shape (n,)."""
    return domain.inside(dict(zip(domain.coords, np.asarray(points, dtype=float).T, strict=True)))


def check_coordinate(coord: Any, wrote: str) -> None:
    """Only symbols made by `coords` span a domain."""
    if not isinstance(coord, Coordinate):
        raise refusal(wrote, f"{show(coord)} is not a coordinate", 'make it with coords("x")')


def check_distinct(names: Sequence[sp.Symbol], wrote: str) -> None:
    """No coordinate, and no name of one, is used twice."""
    seen: dict[str, sp.Symbol] = {}
    for c in names:
        if c.name in seen:
            raise refusal(wrote, f"the coordinate {c} is used twice", "give it one interval")
        seen[c.name] = c


def read_number(value: Any, wrote: str, infinite_is: str = "an infinite value") -> sp.Expr:
    """A finite real number as sympy; moving or infinite ends are refused."""
    try:
        number = sp.sympify(value)
    except (sp.SympifyError, TypeError, AttributeError):
        number = None
    if number is None or not isinstance(number, sp.Expr) or isinstance(value, str):
        raise refusal(wrote, f"{value!r} is not a number", "write a number")
    if number.has(sp.oo, -sp.oo, sp.zoo):
        raise refusal(
            wrote,
            f"{infinite_is} cannot be covered by points",
            "cut it off where the solution has decayed, or map it to a finite one",
        )
    if number.has(sp.nan):
        raise refusal(wrote, "an end is not a number (nan)", "write a finite number")
    culprits = number.atoms(AppliedField) or number.free_symbols
    if culprits:
        culprit = sorted(culprits, key=str)[0]
        what = (
            f"the end depends on the unknown number {culprit}"
            if isinstance(culprit, Parameter)
            else f"the end moves with {show(culprit)}"
        )
        raise refusal(
            wrote,
            what,
            "write a fixed number, and map the moving domain to a fixed one by a change of "
            "coordinates in the equations",
        )
    if not number.is_number or number.is_real is False:
        raise refusal(wrote, f"{show(number)} is not a real number", "write a real number")
    if not abs(float(number)) < float("inf"):
        raise refusal(wrote, f"{show(number)} is not finite", "write a finite number")
    return number


def _between(domain: AbstractDomain, columns: Mapping[sp.Symbol, np.ndarray]) -> np.ndarray:
    bounds = domain.bounds.items()
    return np.logical_and.reduce([(columns[c] >= a) & (columns[c] <= b) for c, (a, b) in bounds])


def _spread(value: Any, n: int, wrote: str) -> tuple[Any, ...]:
    parts = tuple(value) if isinstance(value, (tuple, list, sp.Tuple)) else (value,) * n
    if len(parts) != n:
        raise refusal(
            wrote, f"{len(parts)} ends are given for {n} coordinates", "give one end per coordinate"
        )
    return parts
