"""Numbers for checks: quasi-random points in a box and expressions evaluated at them.

In    expressions without unknown functions, bounds.
Out   numpy arrays; always the same points.
Next  the checks that would otherwise need symbolic simplification.

Expressions are evaluated node by node: a check looks at each of them once, at a few points, where
compiling with lambdify takes a hundred times longer than the evaluation.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import sympy as sp

from pinnkit.declare.expansion import AppliedExpansion
from pinnkit.declare.given import is_given_leaf

__all__ = ["evaluate", "sample_box"]


def sample_box(
    coords: Iterable[sp.Symbol],
    bounds: Mapping[sp.Symbol, tuple[float, float]],
    n: int,
    seed: int = 0,
) -> dict[sp.Symbol, np.ndarray]:
    """n points in the box, one array per coordinate; never exactly on its sides."""
    gen = np.random.default_rng(seed)
    # Stratified per axis: small n still reaches near both ends.
    return {
        c: bounds[c][0]
        + (bounds[c][1] - bounds[c][0]) * (gen.permutation(n) + gen.uniform(0.25, 0.75, n)) / n
        for c in coords
    }


def evaluate(expr: Any, values: Mapping[Any, Any]) -> np.ndarray:
    """The expression at the values; shape (n,), not finite where it has no value.

    `values` maps symbols (or leaves) to numbers or arrays (n,). A given number or function of a family
    has no value until it is drawn.
    """
    expr = sp.sympify(expr)
    n = max((np.size(v) for v in values.values()), default=1)
    known: dict[Any, Any] = {s: np.asarray(v) for s, v in values.items()}
    with np.errstate(all="ignore"):
        try:
            result = _walk(expr, known)
        except _UnknownNode:
            result = _slowly(expr, values, n)
    return np.broadcast_to(result, (n,)).copy()


class _UnknownNode(Exception):
    """A function numpy does not have."""


def _walk(node: Any, known: dict[Any, Any]) -> Any:
    """The value of a node; `known` doubles as the memo."""
    found = known.get(node)
    if found is None:
        found = known[node] = _compute(node, known)
    return found


def _compute(node: Any, known: dict[Any, Any]) -> Any:
    if isinstance(node, (sp.Number, sp.NumberSymbol)):
        return float(node)
    if node is sp.I:
        return 1j
    if node in (sp.true, sp.false):
        return np.bool_(node == sp.true)
    if isinstance(node, sp.Piecewise):
        return _piecewise(node, known)
    if isinstance(node, AppliedExpansion):
        return node.expansion(*(_walk(a, known) for a in node.args))
    if is_given_leaf(node):
        return np.nan
    make = _NODES.get(type(node))
    if make is None:
        raise _UnknownNode(type(node).__name__)
    return make(*(_walk(a, known) for a in node.args))


def _piecewise(node: Any, known: dict[Any, Any]) -> Any:
    value: Any = np.nan
    for expr, condition in reversed(node.args):
        value = np.where(_walk(condition, known), _walk(expr, known), value)
    return value


def _power(base: Any, exponent: Any) -> Any:
    if np.iscomplexobj(base) or np.iscomplexobj(exponent):
        return np.power(np.asarray(base, dtype=complex), exponent)
    return np.power(np.asarray(base, dtype=float), exponent)


def _per_number(function: Callable[..., float]) -> Callable[..., Any]:
    return np.vectorize(function, otypes=[float])


def _fold(function: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    return lambda *parts: functools.reduce(function, parts)


_NODES: Mapping[Any, Callable[..., Any]] = {
    sp.Add: _fold(np.add),
    sp.Mul: _fold(np.multiply),
    sp.Pow: _power,
    sp.exp: np.exp,
    sp.log: np.log,
    sp.sin: np.sin,
    sp.cos: np.cos,
    sp.tan: np.tan,
    sp.cot: lambda x: 1 / np.tan(x),
    sp.sinh: np.sinh,
    sp.cosh: np.cosh,
    sp.tanh: np.tanh,
    sp.coth: lambda x: 1 / np.tanh(x),
    sp.sech: lambda x: 1 / np.cosh(x),
    sp.csch: lambda x: 1 / np.sinh(x),
    sp.sec: lambda x: 1 / np.cos(x),
    sp.csc: lambda x: 1 / np.sin(x),
    sp.asin: np.arcsin,
    sp.acos: np.arccos,
    sp.atan: np.arctan,
    sp.atan2: np.arctan2,
    sp.asinh: np.arcsinh,
    sp.acosh: np.arccosh,
    sp.atanh: np.arctanh,
    sp.Abs: np.abs,
    sp.sign: np.sign,
    sp.Heaviside: lambda x, h=0.5: np.heaviside(x, h),
    sp.Min: _fold(np.minimum),
    sp.Max: _fold(np.maximum),
    sp.floor: np.floor,
    sp.ceiling: np.ceil,
    sp.Mod: np.mod,
    sp.re: np.real,
    sp.im: np.imag,
    sp.conjugate: np.conj,
    sp.arg: np.angle,
    sp.erf: _per_number(math.erf),
    sp.erfc: _per_number(math.erfc),
    sp.Equality: np.equal,
    sp.Unequality: np.not_equal,
    sp.StrictLessThan: np.less,
    sp.LessThan: np.less_equal,
    sp.StrictGreaterThan: np.greater,
    sp.GreaterThan: np.greater_equal,
    sp.And: _fold(np.logical_and),
    sp.Or: _fold(np.logical_or),
    sp.Not: np.logical_not,
}


def _slowly(expr: Any, values: Mapping[Any, Any], n: int) -> np.ndarray:
    """sympy's own numbers, point by point: any function it knows, and slowly."""
    symbols = [s for s in values if expr.has(s)]
    columns = [np.broadcast_to(np.asarray(values[s]), (n,)) for s in symbols]
    out = np.full(n, np.nan)
    for i in range(n):
        point = {s: sp.Float(float(c[i])) for s, c in zip(symbols, columns, strict=True)}
        number = expr.xreplace(point).evalf()
        out[i] = float(number) if number.is_real else np.nan
    return out
