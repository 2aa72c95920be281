"""How many conditions an axis needs, and on which side.

In    the linearised equations at sampled states.
Out   `Needed`: ranges for the left side, the right side and both together.
Next  `ir.checks_conditions` compares.

Method: after a Laplace transform in time (d/dt -> s, s large and positive) and a Fourier transform
in the other space coordinates, the equations are ordinary ones along the axis. Solutions that decay
inward from the left end, exp(lambda x) with Re lambda < 0, need a condition there; those with
Re lambda > 0 at the right end. This counts heat (1 + 1), beams (2 + 2), KdV (1 + 2), advection
(1 + 0 or 0 + 1) and systems alike (Kreiss' count; for systems with a pressure too).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import sympy as sp

from pinnkit.ir.collect_symbols import Symbols
from pinnkit.ir.leaves import derivative_count
from pinnkit.ir.linearise import Linearised, determinant, initial_state, scaled_roots
from pinnkit.ir.normal_form import Equation
from pinnkit.ir.place_conditions import Placed, face_points

__all__ = ["Needed", "count_needed"]

_CERTAIN = 1e-5  # |Re lambda| relative to |lambda|: below, the side is not decided


@dataclass(frozen=True)
class Needed:
    """Fewest and most conditions that can be right: on the left, on the right, in all."""

    left: tuple[int, int]
    right: tuple[int, int]
    total: tuple[int, int]


def count_needed(
    coord: sp.Symbol, equations: Sequence[Equation], placed: Placed, symbols: Symbols
) -> Needed | None:
    """The count along one axis; None where it cannot be told."""
    linearised = Linearised(equations, placed.split.fields, symbols)
    if not linearised.square:
        return None
    ends: dict[str, list[tuple[int, int, int]]] = {"left": [], "right": []}
    for side in ends:
        for numbers in _coefficient_samples(linearised, coord, side, placed, symbols):
            counts = _count_roots(linearised, numbers, coord, symbols)
            if counts is None:
                return None
            ends[side] += counts
    if not ends["left"] or not ends["right"]:
        return None
    totals = [c[2] for side in ends.values() for c in side]
    total = (min(totals), max(totals))
    lefts = [c[0] for c in ends["left"]]
    rights = [c[1] for c in ends["right"]]
    # Undecided roots belong to neither count: they widen the range.
    left = (min(lefts), max(t - r for (_, r, t) in ends["left"]))
    right = (min(rights), max(t - lo for (lo, _, t) in ends["right"]))
    if len(symbols.coords) == 1:
        left = right = (0, total[1])  # a boundary value problem of one coordinate: only the sum
    low = max(0, min(total[0], left[0] + right[0]))
    if (left[0], right[0]) != (left[1], right[1]) and len(symbols.coords) > 1:
        total = (min(low, total[0]) if left[0] + right[0] < total[0] else total[0], total[1])
        if _speeds_depend_on_state(linearised):
            total = (left[0] + right[0], left[1] + right[1])
    return Needed(left, right, total)


def _speeds_depend_on_state(linearised: Linearised) -> bool:
    return bool(linearised.state_leaves) or linearised.depends_on_coords


def _coefficient_samples(
    linearised: Linearised, coord: sp.Symbol, side: str, placed: Placed, symbols: Symbols
) -> list[np.ndarray]:
    others = [c for c in symbols.coords if c != coord]
    inner = {c: (a + 0.07 * (b - a), b - 0.05 * (b - a)) for c, (a, b) in symbols.bounds.items()}
    points = face_points(others, inner, target=9)
    n = max((len(v) for v in points.values()), default=1)
    low, high = symbols.bounds[coord]
    points[coord] = np.full(n, low if side == "left" else high)
    if not linearised.depends_on_coords and not linearised.state_leaves:
        points = {c: v[:1] for c, v in points.items()}
        n = 1
    elif linearised.depends_on_coords:
        # Slightly inside too: where a coefficient vanishes on the side itself, both counts will do.
        near = low + 0.02 * (high - low) if side == "left" else high - 0.02 * (high - low)
        points = {c: np.concatenate([v, v]) for c, v in points.items()}
        points[coord][n:] = near
        n *= 2
    gen = np.random.default_rng(5)
    samples = []
    states: list[dict[sp.Expr, np.ndarray]] = []
    if linearised.state_leaves:
        for sign in (1.0, -1.0):
            states.append({lf: sign * gen.uniform(0.5, 1.5, n) for lf in linearised.state_leaves})
        start = dict(points)
        if symbols.time is not None:
            start[symbols.time] = np.full(n, symbols.bounds[symbols.time][0])
            state, unknown = initial_state(linearised.state_leaves, start, placed, symbols)
            if not unknown:
                states.append(state)
    else:
        states.append({})
    for state in states:
        columns = linearised.coefficients(points, state).T
        samples += [c for c in columns if np.isfinite(c).all()]
    return samples


def _count_roots(
    linearised: Linearised, numbers: np.ndarray, coord: sp.Symbol, symbols: Symbols
) -> list[tuple[int, int, int]] | None:
    """(left, right, all) at two frequencies; roots on the fence are in neither left nor right."""
    time = symbols.time
    evolves = time is not None and any(
        derivative_count(lf, time) for lf in linearised._frozen.symbols
    )
    low = float(np.abs(numbers).max(initial=1.0))
    counts = []
    smallest: list[float] = []
    for size in (1.0, 1e3):
        frequencies: dict[sp.Symbol, complex] = {}
        for i, c in enumerate(x for x in symbols.coords if x not in (coord, time)):
            a, b = symbols.bounds[c]
            short = 0.37 if evolves else 3e3 * size
            frequencies[c] = 1j * 2 * np.pi / (b - a) * short * (1 + 0.31 * i)
        if time is not None:
            a, b = symbols.bounds[time]
            frequencies[time] = complex(1e4 * size * max(1.0, low) / (b - a) if evolves else 0.0)
        polynomial = determinant(linearised.polynomials(numbers, coord, frequencies))
        if not len(polynomial):
            return None  # singular at this state, for instance where a coefficient vanishes
        roots = scaled_roots(polynomial)
        real = np.real(roots)
        clear = np.abs(real) > _CERTAIN * np.abs(roots)
        left = int((clear & (real < 0)).sum())
        right = int((clear & (real > 0)).sum())
        counts.append((left, right, len(roots)))
        smallest.append(float(np.abs(roots).min(initial=np.inf)))
    if smallest[1] < 0.9 * smallest[0]:
        # A root that vanishes for short times belongs to no side (u_tx = ..., a Goursat problem).
        n = counts[0][2]
        return [(0, 0, n)]
    return counts
