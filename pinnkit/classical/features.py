"""Features of the data that are narrower than a mesh, found before any mesh is built.

In    a NormalForm.
Out   per coordinate, breakpoints that resolve narrow features of sources, coefficients and data; and
      for a solution, the share of the data its mesh has not seen.
Next  `ladders` and `explicit` put elements and steps there; `refine` adds the share to the error.

Error estimators only see what falls on their points: a pulse between them is missed by every level
alike. So each field-free part of the problem is scanned along each coordinate on 2^17 points (2^13
where it has others), and around the critical points of the arguments of its functions on scales down
to rounding. Bisection then finds intervals on which it is a polynomial. Lone jumps and kinks are not
narrow: meshes see both of their sides.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import sympy as sp
from sympy.core.function import AppliedUndef

from pinnkit.classical.basis import lagrange_rows
from pinnkit.classical.expressions import compile_value
from pinnkit.classical.grid_approximation import GridApproximation
from pinnkit.ir.normal_form import NormalForm

__all__ = ["find_breaks", "unseen_share"]

Array = np.ndarray
Function = Callable[[Array], Array]

SAMPLES_ALONE, SAMPLES = 2**17, 2**13
NODES, WEIGHTS = np.polynomial.legendre.leggauss(16)
LEGENDRE = np.linalg.inv(np.polynomial.legendre.legvander(NODES, len(NODES) - 1))
RESOLVED = 1e-6  # deviation from a polynomial, of the largest value
NARROW = 1 / 32  # of the axis: first levels have elements and steps that resolve what is wider
STEEP = 8  # slopes of narrow features, in units of range / length of the axis
FIRST_CELLS = 4
DEPTH = 32  # bisections: 1e-10 of the axis
MOST_CELLS = 20_000
MOST_ARGUMENTS, MOST_ROOTS, MOST_LINES = 24, 8, 9
MOST_BREAKS = {"time": 3000, 1: 200, 2: 40}  # handed over, else adaptation has to do
# Where the other coordinates stand while one is scanned; the check takes its own.
FINDING, CHECKING = (0.0, 0.2113, 0.5379, 0.8041), (0.1271, 0.3919, 0.6833, 0.9577)


@dataclass(frozen=True, eq=False)
class _Line:
    """A part of the problem along one coordinate, and the cells on which it is a polynomial."""

    label: str
    coord: sp.Symbol
    value: Function
    edges: Array
    narrow: Array  # edges of the narrow cells


@lru_cache(maxsize=16)
def find_breaks(nf: NormalForm) -> dict[sp.Symbol, list[float]]:
    """Per coordinate, the edges of cells that resolve narrow features; empty where there are none."""
    found: dict[sp.Symbol, list[Array]] = {c: [] for c in nf.coords}
    for line in _lines(nf, FINDING):
        found[line.coord].append(line.narrow)
    out: dict[sp.Symbol, list[float]] = {}
    for coord, parts in found.items():
        lower, upper = nf.bounds[coord]
        places = np.unique(np.concatenate([*parts, np.empty(0)]))
        least = 1e-12 * (upper - lower)
        places = places[(places > lower + least) & (places < upper - least)]
        if len(places):
            places = places[np.concatenate([[True], np.diff(places) > least])]
        most = MOST_BREAKS["time" if coord == nf.time else min(len(nf.space), 2)]
        out[coord] = [float(p) for p in places] if len(places) <= most else []
    return out


def unseen_share(nf: NormalForm, solution: GridApproximation) -> tuple[float, str]:
    """(share, where): of the integral of |data| along a line, the part the solution's mesh misses.

    Gauss sums on the cells of the mesh against those on cells that resolve the data; largest over
    the parts of the problem that have narrow features.
    """
    worst, where = 0.0, ""
    for line in _lines(nf, CHECKING):
        if not len(line.narrow):
            continue
        basis = solution.fields[0].bases[nf.coords.index(line.coord)]
        # Stencils overlap: their cells are one node spacing wide and hold few points of their own.
        overlap = basis.half[0] * 2 > 1.5 * np.diff(basis.breaks)[0]
        count = 3 if overlap else len(basis.nodes)
        own = _cell_integrals(line.value, basis.breaks, count)
        lower, upper = line.edges[0], line.edges[-1]
        fine = np.unique(np.concatenate([line.edges, np.clip(basis.breaks, lower, upper)]))
        dense = _cell_integrals(line.value, fine, len(NODES))
        size = _cell_integrals(lambda s, g=line.value: np.abs(g(s)), fine, len(NODES)).sum()
        middle = (fine[1:] + fine[:-1]) / 2
        cells = np.clip(np.searchsorted(basis.breaks, middle, side="right") - 1, 0, len(own) - 1)
        gaps = np.abs(np.bincount(cells, dense, len(own)) - own)
        share = float(gaps.sum() / size) if size > 0 else 0.0
        if share > worst:
            middles = (basis.breaks[1:] + basis.breaks[:-1]) / 2
            place = middles[int(np.argmax(gaps))]
            worst = share
            where = f"{line.label} has a feature near {line.coord} = {place:.6g}"
    return worst, where


def _cell_integrals(value: Function, breaks: Array, count: int) -> Array:
    nodes, weights = np.polynomial.legendre.leggauss(count)
    centre, half = (breaks[1:] + breaks[:-1]) / 2, np.diff(breaks) / 2
    values = value((centre[:, None] + half[:, None] * nodes).ravel())
    return half * (values.reshape(len(half), count) @ weights)


# The parts of the problem, and the lines along which they are looked at.


@lru_cache(maxsize=32)
def _lines(nf: NormalForm, fractions: tuple[float, ...]) -> tuple[_Line, ...]:
    return tuple(line for label, part in _data(nf) for line in _scan(nf, label, part, fractions))


def _data(nf: NormalForm) -> list[tuple[str, sp.Expr]]:
    """Field-free parts of the equations and conditions that vary in space or time."""
    out: dict[sp.Expr, str] = {}
    for equation in nf.equations:
        for part in _free_parts(equation.residual):
            out.setdefault(part, equation.label)
    for condition in nf.conditions:
        if np.isfinite(condition.face.value):
            for part in _free_parts(condition.residual):
                on_face = part.subs(condition.face.coord, condition.face.value)
                if on_face.free_symbols:
                    out.setdefault(on_face, condition.label)
    return [(label, part) for part, label in out.items() if part.free_symbols <= set(nf.coords)]


def _free_parts(expr: sp.Expr) -> list[sp.Expr]:
    if not expr.has(AppliedUndef):
        return [expr] if expr.free_symbols else []
    if isinstance(expr, (sp.Derivative, AppliedUndef)):
        return []
    mixed = [a for a in expr.args if a.has(AppliedUndef)]
    free = [a for a in expr.args if not a.has(AppliedUndef)]
    if isinstance(expr, (sp.Add, sp.Mul)):
        free = [expr.func(*free)]  # type: ignore[arg-type]  # sympy's stubs
    own = [a for a in free if isinstance(a, sp.Expr) and a.free_symbols]
    return own + [p for a in mixed if isinstance(a, sp.Expr) for p in _free_parts(a)]


def _scan(
    nf: NormalForm, label: str, part: sp.Expr, fractions: tuple[float, ...]
) -> Iterator[_Line]:
    coords = [c for c in nf.coords if c in part.free_symbols]
    if part.is_polynomial(*coords):
        return
    function = compile_value(part, nf)
    arguments = [compile_value(a, nf) for a in _arguments(part)]
    middle = {c: sum(nf.bounds[c]) / 2 for c in nf.coords}

    def along(f: Callable[..., Array], coord: sp.Symbol, others: dict) -> Function:
        def value(s: Array) -> Array:
            columns = [s if c == coord else np.full(s.shape, others[c]) for c in nf.coords]
            return np.nan_to_num(f(columns, s.shape), nan=0.0, posinf=0.0, neginf=0.0)

        return value

    def critical(coord: sp.Symbol, others: dict) -> list[float]:
        return [
            p
            for a in arguments
            for p in _critical_points(along(a, coord, others), *nf.bounds[coord])
        ]

    # A pulse in several coordinates is invisible on lines beside it: go through its centre too.
    special = {c: critical(c, middle) for c in coords} if len(coords) > 1 else {}
    for coord in coords:
        rest = [c for c in coords if c != coord]
        regular = [
            {c: nf.bounds[c][0] + q * (nf.bounds[c][1] - nf.bounds[c][0]) for c in rest}
            for q in (fractions if rest else fractions[:1])
        ]
        crossing = itertools.product(*(special[c][:MOST_LINES] for c in rest)) if rest else ()
        centred = [
            dict(zip(rest, place, strict=True)) for place in itertools.islice(crossing, MOST_LINES)
        ]
        for position in [*regular, *centred]:
            others = {**middle, **position}
            value = along(function, coord, others)
            lower, upper = nf.bounds[coord]
            uniform = np.linspace(lower, upper, SAMPLES if rest else SAMPLES_ALONE)
            samples = [uniform, *(_around(p, lower, upper) for p in critical(coord, others))]
            edges, singular = _partition(value, lower, upper, np.unique(np.concatenate(samples)))
            yield _Line(label, coord, value, edges, _narrow(value, edges, singular))


def _arguments(part: sp.Expr) -> list[sp.Expr]:
    """What stands inside functions, powers and relations: their critical points mark features."""
    found: dict[sp.Expr, None] = {}
    for node in sp.preorder_traversal(part):
        inner: tuple[sp.Basic, ...] = ()
        if isinstance(node, (sp.Function, sp.Pow)) and not isinstance(node, sp.Piecewise):
            inner = node.args
        elif isinstance(node, sp.core.relational.Relational):
            inner = (node.lhs - node.rhs,)  # type: ignore[operator]
        for a in inner:
            if isinstance(a, sp.Expr) and a.free_symbols:
                found.setdefault(a)
    return list(found)[:MOST_ARGUMENTS]


def _critical_points(h: Function, lower: float, upper: float) -> list[float]:
    """Extrema and zeros of h, by zooming in on those of a grid."""
    grid = np.linspace(lower, upper, 4097)
    values = h(grid)
    if np.ptp(values) == 0:
        return []
    roots = np.flatnonzero(values[:-1] * values[1:] < 0)[:MOST_ROOTS]
    starts: list[tuple[int, Function]] = [
        (int(np.argmax(values)), lambda s: -h(s)),
        (int(np.argmin(values)), h),
        *((int(i), lambda s: np.abs(h(s))) for i in roots),
    ]
    points = []
    for i, goal in starts:
        centre, reach = float(grid[i]), float(grid[1] - grid[0])
        for _ in range(8):
            near = np.clip(np.linspace(centre - reach, centre + reach, 65), lower, upper)
            centre, reach = float(near[np.argmin(goal(near))]), reach / 16
        points.append(centre)
    return list(dict.fromkeys(points))


def _around(p: float, lower: float, upper: float) -> Array:
    """Samples at distances of every scale from p."""
    steps = (upper - lower) * np.exp2(-np.arange(3, 44, 0.25))
    s = np.concatenate([p - steps, [p], p + steps])
    return s[(s >= lower) & (s <= upper)]


# Bisection.


def _partition(g: Function, lower: float, upper: float, samples: Array) -> tuple[Array, Array]:
    """(edges, singular): cells on which g is a polynomial, and cells that never became one."""
    values = g(samples)
    goal = RESOLVED * max(float(np.abs(values).max()), 1e-300)
    edges = np.linspace(lower, upper, FIRST_CELLS + 1)
    left, right = edges[:-1], edges[1:]
    cell = np.clip(np.searchsorted(edges, samples, side="right") - 1, 0, FIRST_CELLS - 1)
    ends: list[Array] = [edges]
    for _ in range(DEPTH):
        centre, half = (left + right) / 2, (right - left) / 2
        inside = g((centre[:, None] + half[:, None] * NODES).ravel()).reshape(len(left), -1)
        bad = np.abs(inside @ LEGENDRE[-3:].T).max(axis=1) > goal
        # Cells that their own points already show unresolved need no look at the samples.
        looked = ~bad[cell]
        s, c, v = samples[looked], cell[looked], values[looked]
        weights = lagrange_rows(NODES, (s - centre[c]) / half[c])
        deviation = np.abs(np.einsum("nk,nk->n", weights, inside[c]) - v)
        bad[c[deviation > goal]] = True
        if not bad.any():
            return np.unique(np.concatenate(ends)), np.empty((0, 2))
        if 2 * bad.sum() > MOST_CELLS:
            break
        kept = bad[cell]
        samples, values, cell = samples[kept], values[kept], cell[kept]
        number = np.cumsum(bad) - 1
        middle = centre[bad]
        ends.append(middle)
        upper_half = samples >= middle[number[cell]]
        cell = 2 * number[cell] + upper_half
        left = np.column_stack([left[bad], middle]).ravel()
        right = np.column_stack([middle, right[bad]]).ravel()
    return np.unique(np.concatenate(ends)), np.column_stack([left, right])


def _narrow(value: Function, edges: Array, singular: Array) -> Array:
    """Edges of narrow cells, without those that only lead to a lone jump or kink."""
    length = edges[-1] - edges[0]
    widths = np.diff(edges)
    narrow = widths < NARROW * length
    places = np.unique(singular.ravel())
    if len(places):
        # Bisection towards a point leaves cells as wide as their distance from it.
        near = np.abs(((edges[1:] + edges[:-1]) / 2)[:, None] - places[None, :]).min(axis=1)
        narrow &= near > 1.6 * widths
    narrow &= _run_is_steep(value, edges, narrow)
    out = [edges[:-1][narrow], edges[1:][narrow]]
    # Two singular points close to each other are a narrow feature: both, and their surroundings.
    spots = (
        places[np.concatenate([[True], np.diff(places) > 1e-8 * length])] if len(places) else places
    )
    for a, b in itertools.pairwise(spots):
        gap = b - a
        if gap < NARROW * length:
            reach = gap * np.exp2(np.arange(np.ceil(np.log2(NARROW * length / gap)) + 1))
            out += [np.array([a, b, (a + b) / 2]), a - reach, b + reach]
    found = np.unique(np.concatenate(out))
    return found[(found >= edges[0]) & (found <= edges[-1])]


def _run_is_steep(value: Function, edges: Array, narrow: Array) -> Array:
    """Per cell, whether its run of narrow cells has a steep one: at a kink slopes are ordinary."""
    steep = np.zeros(len(narrow), dtype=bool)
    left, widths = edges[:-1], np.diff(edges)
    if not narrow.any():
        return steep
    fractions = np.linspace(0.0, 1.0, 17)
    inside = value((left[:, None] + widths[:, None] * fractions).ravel()).reshape(-1, 17)
    slopes = np.ptp(inside, axis=1) / widths
    ordinary = np.ptp(inside) / (edges[-1] - edges[0])
    run = np.cumsum(np.diff(narrow, prepend=False))
    chosen = np.unique(run[narrow & (slopes > STEEP * ordinary)])
    return np.isin(run, chosen)
