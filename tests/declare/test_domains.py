"""Domains know their coordinates, bounds and members."""

from __future__ import annotations

import numpy as np
import pytest
import sympy as sp

import pinnkit.declare as pk
from pinnkit.declare.domains import contains
from pinnkit.errors import DeclarationError

t, x, y, z = pk.coords("t x y z")


def test_product_keeps_order_and_bounds() -> None:
    domain = pk.Interval(t, 0, 1) * pk.Box((x, y), (0, -1), (sp.pi, 2))
    assert domain.coords == (t, x, y) and domain.region is None
    assert domain.bounds[x] == (0.0, float(sp.pi)) and domain.ends[x][1] == sp.pi


def test_box_takes_one_number_for_all() -> None:
    assert pk.Box((x, y), 0, 1).bounds == {x: (0.0, 1.0), y: (0.0, 1.0)}


@pytest.mark.parametrize(
    ("domain", "area"),
    [
        (pk.Disk((x, y), (0.5, 0.5), 0.5), np.pi / 4),
        (pk.Polygon((x, y), [(0, 0), (1, 0), (0, 1)]), 0.5),
        (pk.Box((x, y), 0, 1) - pk.Disk((x, y), (0.5, 0.5), 0.25), 1 - np.pi / 16),
        (pk.Box((x, y), 0, 1) & pk.Disk((x, y), (0, 0), 1), np.pi / 4),
        (pk.Box((x, y), 0, 1) - pk.Box((x, y), 0.5, 1), 0.75),
        (pk.Disk((x, y), (0.25, 0.5), 0.2) + pk.Disk((x, y), (0.75, 0.5), 0.2), 2 * np.pi * 0.04),
    ],
)
def test_membership_measures_the_area(domain: pk.AbstractDomain, area: float) -> None:
    """The share of the unit square inside is the area; 40,000 points give it to 1e-2."""
    side = (np.arange(200) + 0.5) / 200
    points = np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2)
    assert abs(contains(domain, points).mean() - area) < 1e-2


def test_region_survives_a_product_with_time() -> None:
    disk = pk.Disk((x, y), (0, 0), 2)
    domain = pk.Interval(t, 0, 1) * disk
    assert domain.region is disk and domain.bounds[x] == (-2.0, 2.0)


def test_ball_in_three_dimensions() -> None:
    ball = pk.Ball((x, y, z), (0, 0, 0), 1)
    assert list(contains(ball, np.array([[0, 0, 0], [1, 1, 1]]))) == [True, False]


def test_empty_intersection_is_refused() -> None:
    with pytest.raises(DeclarationError, match="the region is empty"):
        _ = pk.Disk((x, y), (0, 0), 1) & pk.Disk((x, y), (5, 0), 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pk.Disk((x, y), (0, 0), 0), "radius is not positive"),
        (lambda: pk.Polygon((x, y), [(0, 0), (1, 1)]), "polygon is empty"),
        (lambda: pk.Box((x, x), 0, 1), "used twice"),
        (lambda: pk.Box((x, y), (0, 0, 0), 1), "3 ends are given for 2"),
        (lambda: pk.Geometry((x, y), object()), "no deepxde geometry"),
        (lambda: pk.Disk((x, y), (0, 0), 1) + pk.Disk((x, z), (0, 0), 1), "different coordinates"),
    ],
)
def test_bad_regions_are_refused(make: object, message: str) -> None:
    with pytest.raises(DeclarationError, match=message):
        make()  # type: ignore[operator]
