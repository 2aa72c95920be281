"""u_t = L u + N(u) on a torus: the constant-coefficient linear part and the rest.

In    a NormalForm, periodic in space, of first order in time.
Out   `Semilinear`: coefficients of L per derivative, compiled N; or None where it has no such form.
Next  `etdrk4` integrates it exactly in L.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy as sp

from pinnkit.classical.expressions import Leaf, compile_value, find_leaves
from pinnkit.ir.normal_form import NormalForm

__all__ = ["Semilinear", "split_semilinear"]

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Semilinear:
    """`linear[i]` lists (coefficient, leaf); `rest(coords, leaf values, shape)` gives N per field.

    `leaves` are the leaves N needs. Initial values per field as functions of the coordinates.
    """

    linear: tuple[tuple[tuple[float, Leaf], ...], ...]
    leaves: tuple[Leaf, ...]
    rest: Callable[[list[Array], list[Array]], list[Array]]
    initial: tuple[Callable[[list[Array], tuple[int, ...]], Array], ...]


def split_semilinear(nf: NormalForm) -> Semilinear | None:
    """Split the equations, or None: not periodic, not solvable for u_t by numbers, or not semilinear."""
    if (
        nf.time is None
        or not nf.space
        or set(nf.periodic) != set(nf.space)
        or nf.integrals
        or nf.jumps
    ):
        return None
    rates = [sp.Derivative(u, nf.time) for u in nf.fields]
    residuals = sp.Matrix([sp.expand(e.residual) for e in nf.equations])
    plain, symbols = _dummies(rates, residuals)
    mass = plain.jacobian(sp.Matrix(symbols))
    if mass.free_symbols or mass.shape[0] != mass.shape[1] or mass.det() == 0:
        return None
    right = -mass.inv() * plain.xreplace(dict.fromkeys(symbols, sp.Integer(0)))
    right = right.applyfunc(sp.expand)
    nodes: dict[sp.Basic, Leaf] = {}
    for entry in right:
        nodes |= find_leaves(entry, nf)
    if any(leaf.alpha[nf.coords.index(nf.time)] for leaf in nodes.values()):
        return None
    names = {node: sp.Dummy(f"leaf{i}", real=True) for i, node in enumerate(nodes)}
    leaf_of = {names[node]: leaf for node, leaf in nodes.items()}
    zero = dict.fromkeys(leaf_of, sp.Integer(0))
    linear, rest = [], []
    for entry in right.xreplace(names):
        terms = []
        remainder = entry
        for symbol, leaf in leaf_of.items():
            coefficient: Any = sp.diff(entry, symbol).xreplace(zero)
            if coefficient.is_number and coefficient.is_finite and coefficient != 0:
                terms.append((float(coefficient), leaf))
                remainder = sp.expand(remainder - coefficient * symbol)
        linear.append(tuple(terms))
        rest.append(remainder)
    used = [s for s in leaf_of if any(r.has(s) for r in rest)]
    # N must be of lower order than L, else nothing tames its stiffness.
    order_rest = max((sum(leaf_of[s].alpha) for s in used), default=0)
    order_linear = max((sum(leaf.alpha) for row in linear for _, leaf in row), default=0)
    if order_rest and order_rest >= order_linear:
        return None
    initial = _initial_values(nf)
    if initial is None:
        return None
    helpers = {"Heaviside": lambda z, at_zero=0.5: np.heaviside(z, at_zero)}
    function = sp.lambdify([*nf.coords, *used], rest, modules=[helpers, "scipy", "numpy"], cse=True)

    def evaluate(coords: list[Array], leaves: list[Array]) -> list[Array]:
        return function(*coords, *leaves)

    return Semilinear(tuple(linear), tuple(leaf_of[s] for s in used), evaluate, initial)


def _dummies(
    rates: Sequence[sp.Expr], residuals: sp.Matrix
) -> tuple[sp.Matrix, Sequence[sp.Symbol]]:
    symbols = [sp.Dummy(f"rate{i}", real=True) for i in range(len(rates))]
    return residuals.xreplace(dict(zip(rates, symbols, strict=True))), symbols


def _initial_values(
    nf: NormalForm,
) -> tuple[Callable[[list[Array], tuple[int, ...]], Array], ...] | None:
    values = {}
    for condition in nf.conditions:
        if condition.kind == "initial" and condition.value is not None and condition.order == 0:
            values[condition.target] = compile_value(condition.value, nf)
    if any(u not in values for u in nf.fields):
        return None
    return tuple(values[u] for u in nf.fields)
