"""The inputs of a family as numbers at points: what a network reads and a residual needs.

In    samples of a family and points in its coordinates.
Out   {given number, function, or derivative of one: (n_samples, n_points)}.
Next  solvers that learn a whole family.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import sympy as sp

from pinnkit.declare.given import Given, is_given_leaf
from pinnkit.declare.printing import show
from pinnkit.ir.leaves import settle
from pinnkit.ir.normal_form import NormalForm
from pinnkit.ir.sampling import evaluate

if TYPE_CHECKING:
    from pinnkit.declare.family import PDEFamily

__all__ = ["given_leaves", "values_of"]


def given_leaves(nf: NormalForm) -> tuple[sp.Expr, ...]:
    """Every given number, given function and derivative of one, in equations, conditions, integrals."""
    found: dict[Any, None] = {}

    def visit(node: sp.Basic) -> None:
        if is_given_leaf(node):
            found[node] = None
        else:
            for a in node.args:
                visit(a)

    for e in nf.equations:
        visit(e.residual)
    for c in nf.conditions:
        visit(c.residual)
    for i in nf.integrals:
        visit(i.integrand)
        visit(i.equals)
    return tuple(sorted(found, key=sp.default_sort_key))


def values_of(
    family: PDEFamily,
    samples: Sequence[Mapping[Any, Any]],
    points: Any,  # shape: (n, d)
    leaves: Sequence[sp.Expr],
) -> dict[Any, np.ndarray]:  # shapes: (n_samples, n)
    """See `PDEFamily.values`; `samples` have been read."""
    places = np.asarray(points, dtype=float)
    d = len(family.coords)
    if places.ndim != 2 or places.shape[1] != d:
        names = ", ".join(map(str, family.coords))
        raise ValueError(f"points have the shape {places.shape}, expected (n, {d}) for {names}")
    return {leaf: _of_leaf(leaf, family.coords, samples, places) for leaf in leaves}


def _of_leaf(
    leaf: Any,
    coords: tuple[sp.Symbol, ...],
    samples: Sequence[Mapping[Any, Any]],
    points: np.ndarray,
) -> np.ndarray:
    if not is_given_leaf(leaf) or isinstance(leaf, sp.Subs):
        raise ValueError(f"{show(leaf)} is no input of the family, nor a derivative of one")
    if isinstance(leaf, Given):
        column = np.array([[float(s[leaf])] for s in samples]).reshape(len(samples), 1)
        return np.broadcast_to(column, (len(samples), len(points)))
    function = leaf.args[0] if isinstance(leaf, sp.Derivative) else leaf
    columns = points[:, [coords.index(c) for c in function.args]]
    # On a grid a function of x alone meets every x many times; it is evaluated once.
    alike = np.arange(len(points))
    if columns.shape[1] < points.shape[1]:
        columns, alike = np.unique(columns, axis=0, return_inverse=True)
    places = dict(zip(function.args, columns.T, strict=True))
    out = np.empty((len(samples), len(points)))
    for row, s in zip(out, samples, strict=True):
        row[:] = evaluate(settle(leaf.xreplace({function: s[function]})), places)[alike.ravel()]
    return out
