"""Regions that are not boxes: discs, balls, polygons, deepxde geometries.

In    coordinates and the shape's numbers.
Out   domains with `.region` set; `domains.CSG` combines them.
Next  solvers without support for a region refuse it by name, never by its bounding box.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import sympy as sp

from pinnkit.declare.domains import (
    AbstractRegion,
    check_coordinate,
    check_distinct,
    read_number,
)
from pinnkit.declare.printing import refusal, show

__all__ = ["Ball", "Disk", "Geometry", "Polygon"]


class _Round(AbstractRegion):
    """Shared by Disk and Ball: all points within `radius` of `centre`."""

    _coords: tuple[sp.Symbol, ...]
    centre: tuple[sp.Expr, ...]
    radius: sp.Expr

    def _fill(self, coords: Sequence[sp.Symbol], centre: Sequence[Any], radius: Any) -> None:
        name = type(self).__name__
        wrote = f"{name}(({', '.join(map(show, coords))}), {centre}, {show(radius)})"
        for c in coords:
            check_coordinate(c, wrote)
        check_distinct(coords, wrote)
        if len(tuple(centre)) != len(coords):
            raise refusal(wrote, "the centre has another dimension", "one number per coordinate")
        r = read_number(radius, wrote)
        if float(r) <= 0:
            raise refusal(wrote, "the radius is not positive", "write a positive radius")
        object.__setattr__(self, "_coords", tuple(coords))
        object.__setattr__(self, "centre", tuple(read_number(c, wrote) for c in centre))
        object.__setattr__(self, "radius", r)

    @property
    def coords(self) -> tuple[sp.Symbol, ...]:
        """The coordinates, in the order given."""
        return self._coords

    @property
    def ends(self) -> dict[sp.Symbol, tuple[sp.Expr, sp.Expr]]:
        """The bounding box."""
        return {
            c: (m - self.radius, m + self.radius)
            for c, m in zip(self._coords, self.centre, strict=True)
        }

    def inside(self, columns: Mapping[sp.Symbol, np.ndarray]) -> np.ndarray:
        """Within the radius of the centre."""
        centre = [float(m) for m in self.centre]
        squares = [(columns[c] - m) ** 2 for c, m in zip(self._coords, centre, strict=True)]
        return np.sum(squares, axis=0) <= float(self.radius) ** 2

    def __repr__(self) -> str:
        centre = ", ".join(map(show, self.centre))
        names = ", ".join(map(str, self._coords))
        return f"{type(self).__name__}(({names}), ({centre}), {show(self.radius)})"


@final
@dataclass(frozen=True, init=False, repr=False)
class Disk(_Round):
    """A disc in two coordinates: Disk((x, y), (0, 0), 1)."""

    _coords: tuple[sp.Symbol, ...]
    centre: tuple[sp.Expr, ...]
    radius: sp.Expr

    def __init__(self, coords: Sequence[sp.Symbol], centre: Sequence[Any], radius: Any) -> None:
        if len(tuple(coords)) != 2:
            raise refusal("Disk(...)", "a disc has two coordinates", "use Ball in three")
        self._fill(tuple(coords), centre, radius)


@final
@dataclass(frozen=True, init=False, repr=False)
class Ball(_Round):
    """A ball in three or more coordinates: Ball((x, y, z), (0, 0, 0), 1)."""

    _coords: tuple[sp.Symbol, ...]
    centre: tuple[sp.Expr, ...]
    radius: sp.Expr

    def __init__(self, coords: Sequence[sp.Symbol], centre: Sequence[Any], radius: Any) -> None:
        if len(tuple(coords)) < 2:
            raise refusal("Ball(...)", "a ball has at least two coordinates", "use Interval in one")
        self._fill(tuple(coords), centre, radius)


@final
@dataclass(frozen=True, init=False, repr=False)
class Polygon(AbstractRegion):
    """A polygon by its corners in order: Polygon((x, y), [(0, 0), (1, 0), (0, 1)])."""

    _coords: tuple[sp.Symbol, ...]
    vertices: tuple[tuple[sp.Expr, sp.Expr], ...]

    def __init__(self, coords: Sequence[sp.Symbol], vertices: Sequence[Sequence[Any]]) -> None:
        wrote = f"Polygon(({', '.join(map(show, coords))}), ...)"
        if len(tuple(coords)) != 2:
            raise refusal(wrote, "a polygon has two coordinates", "name two coordinates")
        for c in coords:
            check_coordinate(c, wrote)
        check_distinct(coords, wrote)
        corners = tuple((read_number(a, wrote), read_number(b, wrote)) for a, b in vertices)
        area = 0.0
        for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
            area += 0.5 * (float(x0) * float(y1) - float(x1) * float(y0))
        if len(corners) < 3 or area == 0:
            raise refusal(wrote, "the polygon is empty", "give at least three corners in order")
        object.__setattr__(self, "_coords", tuple(coords))
        object.__setattr__(self, "vertices", corners)

    @property
    def coords(self) -> tuple[sp.Symbol, ...]:
        """The two coordinates."""
        return self._coords

    @property
    def ends(self) -> dict[sp.Symbol, tuple[sp.Expr, sp.Expr]]:
        """The bounding box."""
        columns = zip(*self.vertices, strict=True)
        return {
            c: (min(v, key=float), max(v, key=float))
            for c, v in zip(self._coords, columns, strict=True)
        }

    def inside(self, columns: Mapping[sp.Symbol, np.ndarray]) -> np.ndarray:
        """Within the outline."""
        return _in_polygon(self, *(columns[c] for c in self._coords))

    def __repr__(self) -> str:
        corners = ", ".join(f"({show(a)}, {show(b)})" for a, b in self.vertices)
        return f"Polygon(({', '.join(map(str, self._coords))}), [{corners}])"


@final
@dataclass(frozen=True, eq=False)
class Geometry(AbstractRegion):
    """Any deepxde geometry in the given coordinates: Geometry((x, y), dde.geometry.Ellipse(...))."""

    coordinates: tuple[sp.Symbol, ...]
    geometry: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "coordinates", tuple(self.coordinates))
        wrote = f"Geometry({self.coordinates}, ...)"
        for c in self.coordinates:
            check_coordinate(c, wrote)
        check_distinct(self.coordinates, wrote)
        box = getattr(self.geometry, "bbox", None)
        if box is None or len(box[0]) != len(self.coordinates):
            raise refusal(
                wrote,
                "that is no deepxde geometry of as many coordinates",
                "pass an object of deepxde.geometry with one axis per coordinate",
            )

    @property
    def coords(self) -> tuple[sp.Symbol, ...]:
        """The coordinates, in the order of the geometry's axes."""
        return self.coordinates

    @property
    def ends(self) -> dict[sp.Symbol, tuple[sp.Expr, sp.Expr]]:
        """The bounding box."""
        low, high = self.geometry.bbox
        return {
            c: (sp.Float(float(a)), sp.Float(float(b)))
            for c, a, b in zip(self.coordinates, low, high, strict=True)
        }

    def inside(self, columns: Mapping[sp.Symbol, np.ndarray]) -> np.ndarray:
        """Whatever the geometry says."""
        points = np.stack([columns[c] for c in self.coordinates], axis=1)
        return np.asarray(self.geometry.inside(points), dtype=bool)


def _in_polygon(polygon: Polygon, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Even-odd rule: a ray to the right crosses the outline an odd number of times."""
    inside = np.zeros(np.shape(x), dtype=bool)
    corners = [(float(a), float(b)) for a, b in polygon.vertices]
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        crosses = (y0 > y) != (y1 > y)
        with np.errstate(divide="ignore", invalid="ignore"):
            at = (x1 - x0) * (y - y0) / (y1 - y0) + x0
        inside ^= crosses & (x < at)
    return inside
