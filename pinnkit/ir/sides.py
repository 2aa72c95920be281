"""Sides of the domain as particles meet them: repeated, walls, or open to the flow.

In    a normal form and the velocity of its `Transport`.
Out   the open sides with the values particles bring in; where the particles of a time span come from;
      or one sentence that says why they cannot be followed.
Next  `ir.labels` refuses or widens the box of labels; `lower.inflow` finds the times of entry.

At a wall the normal velocity vanishes, so that labels at the wall stay there. Through an open side
particles enter with the value prescribed there, and are followed back upstream to a label outside
the domain: the velocity, as written, goes on beyond the side.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy as sp

from pinnkit.declare.printing import show
from pinnkit.ir.leaves import freeze, leaves
from pinnkit.ir.normal_form import Condition, Face, NormalForm
from pinnkit.ir.sampling import evaluate, sample_box

__all__ = ["OpenSide", "open_sides", "sides_refusal", "upstream_box", "wall_sides"]

_SAMPLES = 256
_WALL = 1e-9  # normal speed at a wall, relative to the largest speed
_TRACED = (
    9  # points along each edge of the domain, and instants, from which particles are traced back
)
_STEPS = 32  # of the fourth-order method that traces them
_MARGIN = 0.05  # of the axis: room around the places they come from
_OTHERWISE = "Use CausalPINN()."


@dataclass(frozen=True)
class OpenSide:
    """A side that particles pass; `values[u]` is what they bring where they enter (else unused)."""

    face: Face
    values: Mapping[sp.Expr, sp.Expr]


def wall_sides(nf: NormalForm, velocity: tuple[sp.Expr, ...]) -> tuple[Face, ...]:
    """Sides of axes that are not periodic at which the normal velocity vanishes."""
    return tuple(f for f in _faces(nf) if _is_wall(nf, velocity, f))


def open_sides(nf: NormalForm, velocity: tuple[sp.Expr, ...]) -> tuple[OpenSide, ...]:
    """The other sides, with the values prescribed there."""
    walls = wall_sides(nf, velocity)
    return tuple(
        OpenSide(f, {u: _prescribed(nf, f, u) for u in nf.fields})
        for f in _faces(nf)
        if f not in walls
    )


def sides_refusal(
    nf: NormalForm,
    velocity: tuple[sp.Expr, ...],
    rest: Mapping[sp.Expr, sp.Expr],
    parts: int = 1,
) -> str | None:
    """Why particles cannot be followed to and from the sides; None if they can.

    Args:
        parts: Windows of the time span, each of which follows particles to its own start only.
    """
    for side in open_sides(nf, velocity):
        c, at = side.face.coord, f"{side.face.coord} = {side.face.value:g}"
        changed = [u for u in nf.fields if rest[u] != 0]
        if changed:
            return (
                f"particles pass the side {at}, and {show(changed[0])} changes along their way: what "
                f"they bring in or leave behind (a boundary layer) has no label. {_OTHERWISE}"
            )
        if leaves(*velocity):
            return (
                f"particles pass the side {at} with a velocity that depends on the solution, which is "
                f"not known upstream of it. {_OTHERWISE}"
            )
        if (reason := _entry_refusal(nf, velocity[nf.space.index(c)], side)) is not None:
            return reason
    if nf.time is None or not open_sides(nf, velocity):
        return None
    low, high = nf.bounds[nf.time]
    if upstream_box(nf, velocity, (low, low + (high - low) / parts)) is None:
        return (
            "particles that enter cannot be followed upstream, because the velocity as written has no "
            f"value there. {_OTHERWISE}"
        )
    return None


def upstream_box(
    nf: NormalForm, velocity: tuple[sp.Expr, ...], span: tuple[float, float] | None = None
) -> dict[sp.Symbol, tuple[float, float]] | None:
    """A box around all places at the start of `span` from which particles reach the domain in it.

    Found from particles on the edges of the domain, traced back; None where the velocity is not
    finite on their way. For velocities in coordinates alone.
    """
    assert nf.time is not None
    start, end = nf.bounds[nf.time] if span is None else span
    places = _edge_points(nf)
    low, high = places.min(1), places.max(1)
    for last in np.linspace(start, end, _TRACED)[1:]:
        traced = _trace_back(nf, velocity, places, start, float(last))
        if not np.isfinite(traced).all():
            return None
        low, high = np.minimum(low, traced.min(1)), np.maximum(high, traced.max(1))
    walls = wall_sides(nf, velocity)
    box: dict[sp.Symbol, tuple[float, float]] = {}
    for c, a, b in zip(nf.space, low, high, strict=True):
        left, right = nf.bounds[c]
        if c not in nf.periodic:
            margin, fixed = _MARGIN * (right - left), {f.side for f in walls if f.coord == c}
            left = left if "left" in fixed else min(left, float(a)) - margin
            right = right if "right" in fixed else max(right, float(b)) + margin
        box[c] = (left, right)
    return box


def _faces(nf: NormalForm) -> list[Face]:
    return [
        Face(c, side, nf.bounds[c][end])
        for c in nf.space
        if c not in nf.periodic
        for end, side in enumerate(("left", "right"))
    ]


def _is_wall(nf: NormalForm, velocity: tuple[sp.Expr, ...], face: Face) -> bool:
    points = _samples(nf)
    frozen = freeze(velocity)
    gen = np.random.default_rng(0)
    # Whatever the state is elsewhere, its values at the side may be prescribed (u = 0 for Burgers).
    points |= {s: gen.uniform(0.5, 1.5, _SAMPLES) for s in frozen.symbols.values()}
    largest = max(float(np.nanmax(np.abs(evaluate(a, points)))) for a in frozen.exprs)
    points[face.coord] = np.full(_SAMPLES, face.value)
    for leaf, symbol in frozen.symbols.items():
        given = [c for c in _dirichlet(nf, face, leaf) if c.face.where == sp.true]
        if given:
            points[symbol] = evaluate(given[0].value, points)
    normal = np.abs(evaluate(frozen.exprs[nf.space.index(face.coord)], points))
    return bool(np.all(normal <= _WALL * largest))


def _entry_refusal(nf: NormalForm, normal: sp.Expr, side: OpenSide) -> str | None:
    """Every place where particles enter must have a value."""
    points = _samples(nf)
    points[side.face.coord] = np.full(_SAMPLES, side.face.value)
    speed = evaluate(normal, points) * (1 if side.face.side == "left" else -1)
    if not np.isfinite(speed).all():
        return (
            f"the velocity is not finite at {side.face.coord} = {side.face.value:g}. {_OTHERWISE}"
        )
    entering = speed > _WALL * np.abs(speed).max()
    for u, value in side.values.items():
        if np.isnan(evaluate(value, points)[entering]).any():
            return (
                f"particles enter through {side.face.coord} = {side.face.value:g}, where no Dirichlet "
                f"value says what {show(u)} they bring. Add one, or use CausalPINN()."
            )
    return None


def _prescribed(nf: NormalForm, face: Face, u: sp.Expr) -> sp.Expr:
    """The Dirichlet value on a face as one expression, nan where there is none."""
    given: list[Any] = [(c.value, c.face.where) for c in _dirichlet(nf, face, u)]
    if len(given) == 1 and given[0][1] == sp.true:
        return given[0][0]
    return sp.Piecewise(*given, (sp.nan, True)) if given else sp.nan


def _dirichlet(nf: NormalForm, face: Face, u: sp.Expr) -> list[Condition]:
    return [
        c
        for c in nf.conditions
        if c.kind == "dirichlet"
        and c.target == u
        and c.value is not None
        and (c.face.coord, c.face.side) == (face.coord, face.side)
    ]


def _samples(nf: NormalForm) -> dict[Any, np.ndarray]:
    return dict(sample_box(nf.coords, nf.bounds, _SAMPLES))


def _edge_points(nf: NormalForm) -> np.ndarray:  # shape: (d, n)
    """A grid over the domain, its edges included."""
    axes = [np.linspace(*nf.bounds[c], _TRACED) for c in nf.space]
    inner = range(1, _TRACED - 1)
    grid = [
        [axis[i] for axis, i in zip(axes, index, strict=True)]
        for index in itertools.product(range(_TRACED), repeat=len(axes))
        if any(i not in inner for i in index)
    ]
    return np.array(grid).T


def _trace_back(
    nf: NormalForm, velocity: tuple[sp.Expr, ...], places: np.ndarray, start: float, end: float
) -> np.ndarray:  # shape: (d, n)
    """Where particles that are at `places` at `end` were at `start`."""
    assert nf.time is not None
    time = nf.time

    def drift(t: float, x: np.ndarray) -> np.ndarray:
        at = {time: np.full(x.shape[1], t), **dict(zip(nf.space, x, strict=True))}
        return np.array([evaluate(a, at) for a in velocity])

    h, x, t = (start - end) / _STEPS, places, end
    for _ in range(_STEPS):
        k1 = drift(t, x)
        k2 = drift(t + h / 2, x + h / 2 * k1)
        k3 = drift(t + h / 2, x + h / 2 * k2)
        k4 = drift(t + h, x + h * k3)
        x, t = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), t + h
    return x
