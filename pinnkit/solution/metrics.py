"""How far apart two sets of fields are: quadrature-weighted, over space and time.

In    two functions points (n, d) -> {name: values}, and the `NormalForm` that gives the domain.
Out   a `Comparison`: per field the relative L2 error, at the final time, the largest, the fluctuation's.
Next  `solution.verification` turns it into a verdict.

The rules, per field u with reference r and weighted norm |.|:

    error        |u - r| / |r|
    final time   the same over space at the last instant
    maximum      max |u - r| / max |r|; nan where initial and boundary data jump at a corner
    fluctuation  |u - r - mean| / |r - mean(r)|, only where the mean dominates r

A field that is zero in the reference (|r| below 1e-13 of the field's scale) has no relative error:
its absolute rms is divided by the scale instead, which is the `scale=` of its declaration, else
the largest rms among the problem's fields, else 1. Fields fixed by a gauge only are compared
modulo what the gauge fixes: their mean over the gauge's coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import sympy as sp

from pinnkit.ir.normal_form import NormalForm
from pinnkit.lower.sampling import scrambled_sobol
from pinnkit.solution.evaluate import field_name, user_fields

__all__ = [
    "Comparison",
    "Quadrature",
    "Values",
    "compare",
    "error_at_instants",
    "error_in_time",
    "make_quadrature",
    "sobol_points",
]

Values = Callable[[np.ndarray], Mapping[str, np.ndarray]]  # (n, d) -> {field name: (n,)}

TIME_SPACE_NODES = {1: 2048, 2: (64, 640), 3: (24, 48), 4: (12, 16), 5: (9, 9), 6: (6, 6)}
STEADY_NODES = {1: 2048, 2: 208, 3: 40, 4: 16, 5: 9, 6: 6}
PANEL = 16  # nodes per Gauss panel: panels keep the spacing even, so inner layers are not missed
VANISHING = 1e-13
OFFSET_DOMINATES = 0.1  # rms(r - mean) / rms(r) below which the fluctuation is reported too


@dataclass(frozen=True, eq=False)
class Quadrature:
    """A tensor rule. Weights are normalised: they sum to 1 over the domain."""

    axes: tuple[np.ndarray, ...]  # nodes per coordinate; empty for a scattered rule
    axis_weights: tuple[np.ndarray, ...]
    points: np.ndarray  # (n, d)
    weights: np.ndarray  # (n,)
    given: bool = False  # a user's grid: nothing is known beyond its last node

    @property
    def shape(self) -> tuple[int, ...]:
        """Nodes per axis, or (n,) for a scattered rule."""
        return tuple(map(len, self.axes)) or (len(self.points),)

    @classmethod
    def tensor(
        cls, axes: list[np.ndarray], weights: list[np.ndarray], *, given: bool = False
    ) -> Quadrature:
        """The product rule of one-dimensional ones."""
        weights = [w / w.sum() for w in weights]
        points = np.stack([g.ravel() for g in np.meshgrid(*axes, indexing="ij")], axis=1)
        product = np.ones(())
        for w in weights:
            product = np.multiply.outer(product, w)
        return cls(tuple(axes), tuple(weights), points, product.ravel(), given)

    def slice_at(self, axis: int, value: float) -> Quadrature:
        """The rule over the other axes, at `value` of this one."""
        axes = [a if i != axis else np.array([value]) for i, a in enumerate(self.axes)]
        weights = [w if i != axis else np.ones(1) for i, w in enumerate(self.axis_weights)]
        return Quadrature.tensor(axes, weights)


@dataclass(frozen=True)
class Comparison:
    """Errors by field name; `nan` where a number has no meaning."""

    errors: dict[str, float]
    final_time: dict[str, float] = field(default_factory=dict)
    maximum: dict[str, float] = field(default_factory=dict)
    fluctuation: dict[str, float] = field(default_factory=dict)  # only fields their mean dominates
    finite: bool = True

    @property
    def error(self) -> float:
        """The largest of the fields' errors."""
        return _worst(self.errors)

    @property
    def final_time_error(self) -> float:
        """The largest at the final time; nan for steady problems."""
        return _worst(self.final_time)

    @property
    def max_error(self) -> float:
        """The largest in the maximum norm; nan near jumping corners."""
        return _worst(self.maximum)

    @property
    def fluctuation_error(self) -> float:
        """The largest of the fluctuations'; nan where no mean dominates."""
        return _worst(self.fluctuation)


def make_quadrature(nf: NormalForm) -> Quadrature:
    """Composite Gauss-Legendre in every coordinate; Sobol beyond six coordinates."""
    d = len(nf.coords)
    if d > 6:
        unit = sobol_points(d, 2**16, seed=0)
        lower, upper = np.array([nf.bounds[c] for c in nf.coords], dtype=float).T
        return Quadrature((), (), lower + unit * (upper - lower), np.full(len(unit), 2.0**-16))
    axes, weights = [], []
    for c in nf.coords:
        nodes, w = _gauss(*nf.bounds[c], _node_count(d, nf.time is not None, c == nf.time))
        axes.append(nodes)
        weights.append(w)
    return Quadrature.tensor(axes, weights)


def compare(
    nf: NormalForm,
    candidate: Values,
    reference: Values,
    *,
    quadrature: Quadrature | None = None,
) -> Comparison:
    """Errors of `candidate` against `reference`; infinite where the candidate is not finite."""
    rule = make_quadrature(nf) if quadrature is None else quadrature
    u, r = candidate(rule.points), reference(rule.points)
    scales = _scales(nf, {n: _norm(v, rule.weights) for n, v in r.items()})
    final = _final_rule(nf, rule)
    u_end, r_end = (candidate(final.points), reference(final.points)) if final else ({}, {})
    jumps = any(order == 0 for _, order, _ in nf.corners)
    errors: dict[str, float] = {}
    final_time: dict[str, float] = {}
    maximum: dict[str, float] = {}
    fluctuation: dict[str, float] = {}
    finite = True
    for f in user_fields(nf):
        name = field_name(f)
        if name not in r:
            continue
        if not (np.isfinite(u[name]).all() and np.isfinite(u_end.get(name, 0.0)).all()):
            finite = False
            errors[name] = final_time[name] = maximum[name] = math.inf
            continue
        scale = scales[name]
        a, b = (_modulo_gauge(nf, f, v, rule) for v in (u[name], r[name]))
        errors[name] = _relative(_norm(a - b, rule.weights), _norm(b, rule.weights), scale)
        maximum[name] = (
            math.nan if jumps else _relative(np.abs(a - b).max(), np.abs(b).max(), scale)
        )
        if (size := _fluctuation(a, b, rule.weights, scale)) is not None:
            fluctuation[name] = size
        if final is not None:
            a, b = (_modulo_gauge(nf, f, v[name], final) for v in (u_end, r_end))
            final_time[name] = _relative(
                _norm(a - b, final.weights), _norm(b, final.weights), scale
            )
    return Comparison(errors, final_time, maximum, fluctuation, finite)


def error_in_time(
    nf: NormalForm, candidate: Values, reference: Values, times: np.ndarray
) -> np.ndarray:
    """Largest over the fields of |u - r|(t) / rms of |r| over all times: one number per time."""
    if nf.time is None:
        raise ValueError("a steady problem has no error in time")
    axis, rule = nf.coords.index(nf.time), make_quadrature(nf)
    sizes = {n: _norm(v, rule.weights) for n, v in reference(rule.points).items()}
    scales = _scales(nf, sizes)
    result = np.zeros(len(times))
    for i, t in enumerate(times):
        here = rule.slice_at(axis, float(t))
        u, r = candidate(here.points), reference(here.points)
        for f in user_fields(nf):
            n = field_name(f)
            a, b = (_modulo_gauge(nf, f, v[n], here) for v in (u, r))
            gap = _relative(_norm(a - b, here.weights), sizes[n], scales[n])
            result[i] = max(result[i], gap if np.isfinite(gap) else math.inf)
    return result


def error_at_instants(error: float, times: np.ndarray) -> np.ndarray:
    """What a space-time error E may be at each instant, if it does not shrink in time: E / sqrt(1 - s).

    s is the share of the time span, and e(s)^2 (1 - s) <= integral of e^2 from s to 1 <= E^2. At the
    end, where this says nothing, it is what fills the last interval.
    """
    left = (times[-1] - times) / (times[-1] - times[0])
    return error / np.sqrt(np.maximum(left, 1.0 / (len(times) - 1)))


def sobol_points(d: int, n: int, *, seed: int) -> np.ndarray:  # shape: (n, d)
    """Scrambled Sobol points in the unit cube."""
    return scrambled_sobol(n, d, seed=seed).numpy()


def _node_count(d: int, evolution: bool, is_time: bool) -> int:
    if not evolution or d == 1:
        return STEADY_NODES[d]
    in_time, in_space = TIME_SPACE_NODES[d]
    return in_time if is_time else in_space


def _gauss(lower: float, upper: float, n: int) -> tuple[np.ndarray, np.ndarray]:
    per_panel = min(n, PANEL)
    panels = max(1, n // per_panel)
    nodes, weights = np.polynomial.legendre.leggauss(per_panel)
    edges = np.linspace(lower, upper, panels + 1)
    half = 0.5 * np.diff(edges)[:, None]
    middle = 0.5 * (edges[1:] + edges[:-1])[:, None]
    return (middle + half * nodes).ravel(), (half * weights).ravel()


def _final_rule(nf: NormalForm, rule: Quadrature) -> Quadrature | None:
    if nf.time is None or not rule.axes:
        return None
    axis = nf.coords.index(nf.time)
    # A candidate known on a grid only is judged at the grid's own last instant.
    last = float(rule.axes[axis].max()) if rule.given else nf.bounds[nf.time][1]
    return rule.slice_at(axis, last)


def _modulo_gauge(nf: NormalForm, f: sp.Expr, values: np.ndarray, rule: Quadrature) -> np.ndarray:
    """`values` minus their mean over the coordinates a gauge on `f` speaks of."""
    for gauge in nf.integrals:
        if gauge.gauge and gauge.integrand == f:
            if not rule.axes:
                return values - np.sum(rule.weights * values)
            along = tuple(i for i, c in enumerate(nf.coords) if c in gauge.over)
            weights = rule.weights.reshape(rule.shape)
            block = values.reshape(rule.shape)
            mean = (weights * block).sum(along, keepdims=True) / weights.sum(along, keepdims=True)
            return (block - mean).ravel()
    return values


def _scales(nf: NormalForm, sizes: Mapping[str, float]) -> dict[str, float]:
    common = max((s for s in sizes.values() if np.isfinite(s)), default=0.0) or 1.0
    return {field_name(f): float(nf.scales.get(f, 0.0)) or common for f in user_fields(nf)}


def _fluctuation(a: np.ndarray, b: np.ndarray, weights: np.ndarray, scale: float) -> float | None:
    centred = b - np.sum(weights * b)
    size, whole = _norm(centred, weights), _norm(b, weights)
    if whole <= VANISHING * scale or size > OFFSET_DOMINATES * whole or size <= 1e-14 * whole:
        return None
    gap = a - b
    return _norm(gap - np.sum(weights * gap), weights) / size


def _relative(gap: float, size: float, scale: float) -> float:
    return float(gap / (size if size > VANISHING * scale else scale))


def _norm(values: np.ndarray, weights: np.ndarray) -> float:
    return float(np.sqrt(np.sum(weights * np.abs(values) ** 2)))


def _worst(errors: Mapping[str, float]) -> float:
    known = [e for e in errors.values() if not math.isnan(e)]
    return max(known) if known and len(known) == len(errors) else math.nan
