"""Whether data are smooth: what an ansatz may contain, and how large they are.

In    an expression without unknown functions, the box it is used on.
Out   yes or no; the largest value.
Next  ansatzes that fulfil conditions by construction keep every kink of the data, so they ask first.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import numpy as np
import sympy as sp

from pinnkit.ir.sampling import evaluate, sample_box

__all__ = ["is_smooth", "largest_value"]

_POINTS = 129  # per expression, besides the corners of the box
_NEAR_ZERO = (
    0.02  # of the largest value: a root's argument that small may vanish between the points
)

# Functions whose values or derivatives jump somewhere.
_KINKED = (
    sp.Abs, sp.sign, sp.Heaviside, sp.DiracDelta, sp.Piecewise, sp.Max, sp.Min,
    sp.floor, sp.ceiling, sp.frac, sp.Mod, sp.arg,
)  # fmt: skip


def is_smooth(expr: sp.Expr, bounds: Mapping[sp.Symbol, tuple[float, float]], order: int) -> bool:
    """Whether the expression has `order` finite derivatives along every axis of the box.

    Errs on the side of no: |x| counts as kinked wherever it is used, sin(x) / x where x = 0 is a
    corner of the box.
    """
    expr = sp.sympify(expr)
    if expr.has(*_KINKED):
        return False
    used = [c for c in bounds if expr.has(c)]
    points = _points(used, bounds)
    for power in expr.atoms(sp.Pow):
        if not power.exp.is_integer and not power.base.is_number:
            base = np.abs(evaluate(power.base, points))
            if not np.min(base) > _NEAR_ZERO * np.max(base):
                return False
    for c in used:
        slope = expr
        for _ in range(order + 1):
            if not np.isfinite(evaluate(slope, points)).all():
                return False
            slope = sp.diff(slope, c)
    return True


def largest_value(expr: sp.Expr, bounds: Mapping[sp.Symbol, tuple[float, float]]) -> float:
    """The largest absolute value on the box, about; infinite where there is none somewhere."""
    expr = sp.sympify(expr)
    values = np.abs(evaluate(expr, _points([c for c in bounds if expr.has(c)], bounds)))
    return float(np.max(values)) if np.isfinite(values).all() else math.inf


def _points(
    used: list[sp.Symbol], bounds: Mapping[sp.Symbol, tuple[float, float]]
) -> dict[sp.Symbol, np.ndarray]:
    """Points inside the box and all its corners; (n,) per coordinate."""
    inside = sample_box(used, bounds, _POINTS)
    corners = np.array(list(itertools.product(*(bounds[c] for c in used))), dtype=float)
    return {c: np.concatenate([inside[c], corners[:, i]]) for i, c in enumerate(used)}
