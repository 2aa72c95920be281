"""Expansions as JSON: axes and coefficients, bounded so that a hostile file cannot fill the memory.

In    an `Expansion`.
Out   plain data, and back; ValueError for anything else.
Next  `ir.expression_tree` stores drawn functions with it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pinnkit.declare.expansion import (
    Axis,
    ChebyshevAxis,
    DecayAxis,
    Expansion,
    FourierAxis,
    SplineAxis,
)

__all__ = ["expansion_from_tree", "expansion_to_tree"]

_LARGEST = 4096  # functions along an axis
_MOST = 2**24  # coefficients


def expansion_to_tree(expansion: Expansion) -> dict[str, Any]:
    """The numbers of an expansion; doubles survive JSON exactly."""
    axes = [_axis_to_tree(a) for a in expansion.axes]
    return {"axes": axes, "coefficients": expansion.coefficients.ravel().tolist()}


def expansion_from_tree(tree: Any) -> Expansion:
    """The expansion of a tree; ValueError if it is none."""
    try:
        axes = tuple(_axis_from_tree(a) for a in tree["axes"])
        sizes = [a.size for a in axes]
        if not 0 < len(axes) <= 8 or max(sizes) > _LARGEST or np.prod(sizes, dtype=float) > _MOST:
            raise ValueError("not a saved expansion: it is too large")
        values = np.array(tree["coefficients"], dtype=float)
        if not np.isfinite(values).all():
            raise ValueError("not a saved expansion: a coefficient is not finite")
        return Expansion(axes, values.reshape(sizes))
    except ValueError:
        raise
    except (TypeError, AttributeError, KeyError, IndexError, OverflowError) as error:
        raise ValueError(f"not a saved expansion: {error!r}") from error


def _axis_to_tree(axis: Axis) -> list[Any]:
    if isinstance(axis, FourierAxis):
        return ["fourier", axis.lower, axis.period, axis.size]
    if isinstance(axis, ChebyshevAxis):
        return ["chebyshev", axis.lower, axis.upper, axis.size]
    if isinstance(axis, DecayAxis):
        return ["decay", axis.lower, list(axis.rates)]
    return ["spline", list(axis.knots), axis.degree]


def _axis_from_tree(tree: Any) -> Axis:
    kind, *rest = tree
    if kind == "spline":
        knots, degree = rest
        known = tuple(float(k) for k in knots[: _LARGEST + 1])
        good = 0 <= int(degree) <= 5 and 2 * (int(degree) + 1) <= len(known) <= _LARGEST
        if not good or list(known) != sorted(known):
            raise ValueError("not a saved expansion: these are no knots")
        return SplineAxis(known, int(degree))
    if kind == "decay":
        lower, rates = float(rest[0]), tuple(float(r) for r in rest[1][: _LARGEST + 1])
        if (
            not 0 < len(rates) <= _LARGEST
            or min(rates) < 0
            or not np.isfinite([lower, *rates]).all()
        ):
            raise ValueError("not a saved expansion: these are no rates of decay")
        return DecayAxis(lower, rates)
    first, second, size = float(rest[0]), float(rest[1]), int(rest[2])
    if kind == "fourier" and second > 0 and 0 < size <= _LARGEST and size % 2:
        return FourierAxis(first, second, size)
    if kind == "chebyshev" and second > first and 0 < size <= _LARGEST:
        return ChebyshevAxis(first, second, size)
    raise ValueError(f"not a saved expansion: unknown axis {kind!r}")
