"""Residuals as numpy functions with their partial derivatives.

In    sympy expressions in coordinates, fields and derivatives of fields.
Out   `Residual`: its value and its partial derivative with respect to every leaf, on arrays.
Next  `discretise` puts sparse matrices behind the leaves.

On purpose this shares no code with `lower`: a mistake there must not repeat itself here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy as sp
from sympy.core.function import AppliedUndef

from pinnkit.ir.normal_form import NormalForm

__all__ = ["Leaf", "Residual", "compile_residual", "compile_value"]

Array = np.ndarray


@dataclass(frozen=True, order=True)
class Leaf:
    """A field (index in `nf.fields`) or one of its derivatives (counts per coordinate of `nf.coords`)."""

    field: int
    alpha: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Residual:
    """r(coords, leaves) and dr/dleaf, broadcast over arrays of any one shape.

    `affine` is True when no partial contains a leaf; `steady_partials` when none contains time either.
    """

    expr: sp.Expr
    leaves: tuple[Leaf, ...]
    affine: bool
    steady_partials: bool
    _value: Callable[..., object]
    _partials: Callable[..., Sequence[object]]

    def value(
        self, coords: Sequence[Array], leaves: Sequence[Array], shape: tuple[int, ...]
    ) -> Array:
        """The residual as an array of the given shape."""
        with np.errstate(all="ignore"):
            return _fill(self._value(*coords, *leaves), shape)

    def partials(
        self, coords: Sequence[Array], leaves: Sequence[Array], shape: tuple[int, ...]
    ) -> list[Array]:
        """The derivatives of the residual with respect to each leaf, in the order of `leaves`."""
        with np.errstate(all="ignore"):
            return [_fill(value, shape) for value in self._partials(*coords, *leaves)]


def compile_residual(expr: sp.Expr, nf: NormalForm) -> Residual:
    """Compile one residual of the problem."""
    leaf_of = find_leaves(expr, nf)
    leaves = sorted(set(leaf_of.values()))
    dummies = {leaf: sp.Dummy(f"leaf{i}", real=True) for i, leaf in enumerate(leaves)}
    # Derivatives first (xreplace is simultaneous, so the u inside Derivative(u, x) stays whole).
    plain = expr.xreplace({node: dummies[leaf] for node, leaf in leaf_of.items()})
    plain = _without_deltas(plain)
    symbols = [dummies[leaf] for leaf in leaves]
    partials = [_without_deltas(sp.diff(plain, symbol)) for symbol in symbols]
    free = set().union(*(p.free_symbols for p in partials)) if partials else set()
    arguments = [*nf.coords, *symbols]
    return Residual(
        expr=expr,
        leaves=tuple(leaves),
        affine=not free & set(symbols),
        steady_partials=nf.time not in free,
        _value=_lambdify(arguments, plain),
        _partials=_lambdify(arguments, partials),
    )


def compile_value(
    expr: sp.Expr, nf: NormalForm
) -> Callable[[Sequence[Array], tuple[int, ...]], Array]:
    """Compile an expression of the coordinates alone."""
    function = _lambdify(list(nf.coords), _without_deltas(sp.sympify(expr)))

    def value(coords: Sequence[Array], shape: tuple[int, ...]) -> Array:
        with np.errstate(all="ignore"):
            return _fill(function(*coords), shape)

    return value


def find_leaves(expr: sp.Expr, nf: NormalForm) -> dict[sp.Basic, Leaf]:
    """Every field and derivative of a field in the expression, with its index."""
    index: dict[sp.Basic, int] = {u: i for i, u in enumerate(nf.fields)}
    found: dict[sp.Basic, Leaf] = {}
    for node in expr.atoms(sp.Derivative):
        if node.expr in index:
            found[node] = Leaf(index[node.expr], nf.multi_index(node))
    # Without the derivatives, else the u inside Derivative(u, x) would count as a leaf.
    bare = expr.xreplace({node: sp.Dummy() for node in found})
    for node in bare.atoms(AppliedUndef):
        if node in index:
            found[node] = Leaf(index[node], (0,) * len(nf.coords))
    return found


def _without_deltas(expr: sp.Basic) -> sp.Expr:
    """Point sources from differentiating a jump: the jump sits on an element boundary, where a
    flux condition stands for it, so inside the elements it is zero."""
    return expr.replace(  # type: ignore[return-value]
        lambda e: isinstance(e, sp.DiracDelta), lambda e: sp.Integer(0)
    )


def _lambdify(arguments: list[sp.Basic], expr: object) -> Callable[..., Any]:
    helpers = {"Heaviside": lambda z, at_zero=0.5: np.heaviside(z, at_zero)}
    return sp.lambdify(arguments, expr, modules=[helpers, "scipy", "numpy"], cse=True)


def _fill(value: object, shape: tuple[int, ...]) -> Array:
    out = np.empty(shape)
    out[...] = np.asarray(value, dtype=float)
    return out
