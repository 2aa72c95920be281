"""Where the elements should be: splitting those whose polynomials are not resolved.

In    a solution on elements and an accuracy.
Out   new breakpoints, per axis.
Next  `ladders` builds the next level on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from pinnkit.classical.axes import ElementAxis
from pinnkit.classical.basis import PiecewiseBasis

__all__ = ["first_breaks", "indicators", "split"]

Array = np.ndarray


def indicators(values: Array, basis: PiecewiseBasis, axis: int, floor: float = 0.0) -> Array:
    """Per element, what its polynomial leaves out, relative to the field's size (L2 over the axis).

    `values` has the unknowns of `basis` along `axis`; of the other axes (time, other space axes) the
    worst position counts. Fields smaller than `floor` count as that large. The decay of the last Legendre coefficients gives the remainder.
    """
    moved = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
    scale = max(float(np.sqrt((moved**2).mean(axis=0).max())), floor) or 1.0
    nodes = basis.nodes
    legendre = np.linalg.inv(np.polynomial.legendre.legvander(nodes, len(nodes) - 1))[-3:]
    gathered = moved[basis.index]  # (elements, nodes, others)
    tail = np.abs(np.einsum("cw,ewo->eco", legendre, gathered))
    third, second, last = tail[:, 0], tail[:, 1], tail[:, 2]
    tiny = 1e-300
    ratio = np.maximum(last / (second + tiny), np.sqrt(last / (third + tiny)))
    remainder = (last * np.minimum(ratio, 1.0)).max(axis=1)
    remainder[~np.isfinite(remainder)] = np.inf
    share = basis.half / basis.half.sum()
    return remainder * np.sqrt(share) / scale


def split(axis: ElementAxis, remainder: Array, target: float, order: int, most: int = 4) -> Array:
    """Breakpoints of the elements cut into as many parts as h^order needs to reach the target."""
    goal = target / np.sqrt(len(remainder))
    # A solution that overflows is not resolved at all.
    remainder = np.where(np.isfinite(remainder), remainder, goal * float(most) ** order)
    parts = np.ceil((remainder / goal) ** (1.0 / order) - 0.05)
    parts = np.clip(parts, 1, most).astype(int)
    pieces = [
        np.linspace(a, b, n + 1)[:-1]
        for a, b, n in zip(axis.breaks[:-1], axis.breaks[1:], parts, strict=True)
    ]
    return np.concatenate([*pieces, axis.breaks[-1:]])


def first_breaks(lower: float, upper: float, jumps: Sequence[float], least: int) -> Array:
    """At least `least` elements, with every jump on a breakpoint."""
    fixed = np.array([lower, *jumps, upper])
    parts = [
        max(1, int(np.ceil(least * (b - a) / (upper - lower) - 1e-9))) for a, b in pairwise(fixed)
    ]
    pieces = [
        np.linspace(a, b, n + 1)[:-1] for (a, b), n in zip(pairwise(fixed), parts, strict=True)
    ]
    return np.concatenate([*pieces, fixed[-1:]])
