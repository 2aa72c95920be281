"""Expressions as JSON trees, and back through a whitelist: files cannot run code.

In    sympy expressions of a declaration.
Out   nested lists and dicts of strings and numbers; `from_tree` accepts nothing else.
Next  `ir.system_tree` stores whole problems, `solution.files` writes them.

sympify and srepr are no options: both evaluate Python. The whitelist is of node classes, and
numbers are bounded, so that a hostile file can neither run code nor hang the reader.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import sympy as sp

from pinnkit.declare.expansion import AppliedExpansion, expanded
from pinnkit.declare.given import AppliedGiven, Given, make_given
from pinnkit.declare.graph_symbols import (
    AbstractNeighbours,
    EdgeFeature,
    Neighbour,
    NodeFeature,
    NodeField,
    edge_feature,
    neighbour_max,
    neighbour_sum,
    node_feature,
    node_field,
    orientation,
)
from pinnkit.declare.operators import Div, NormalDerivative
from pinnkit.declare.stochastic import (
    Control,
    Differential,
    Neural,
    Process,
    Wiener,
    control,
    d,
    neural,
    process,
    wiener,
)
from pinnkit.declare.symbols import AppliedField, Coordinate, Parameter, make_field
from pinnkit.ir.expansion_tree import expansion_from_tree, expansion_to_tree
from pinnkit.ir.leaves import steps_of

__all__ = ["from_tree", "to_tree"]

_DEEPEST = 200
_DIGITS = 2000
_LARGEST_POWER = 4096

_FUNCTIONS: dict[str, Any] = {
    f.__name__: f
    for f in (
        *(sp.exp, sp.log, sp.sin, sp.cos, sp.tan, sp.cot, sp.sec, sp.csc, sp.sinh, sp.cosh),
        *(sp.tanh, sp.coth, sp.sech, sp.csch, sp.asin, sp.acos, sp.atan, sp.acot, sp.asinh),
        *(sp.acosh, sp.atanh, sp.atan2, sp.Abs, sp.sign, sp.Heaviside, sp.Min, sp.Max, sp.floor),
        *(sp.ceiling, sp.Mod, sp.re, sp.im, sp.conjugate, sp.arg, sp.erf, sp.erfc, sp.erfi),
        *(sp.gamma, sp.loggamma, sp.besselj, sp.bessely, sp.besseli, sp.besselk, sp.airyai),
        *(sp.airybi, sp.LambertW, sp.sinc, sp.legendre, sp.hermite, sp.chebyshevt, sp.laguerre),
        *(sp.elliptic_k, sp.elliptic_e, sp.elliptic_f, sp.fresnels, sp.fresnelc, sp.Ei),
    )
}
_OPERATORS: dict[str, Any] = {
    "Add": sp.Add,
    "Mul": sp.Mul,
    "Pow": sp.Pow,
    "Eq": sp.Eq,
    "Ne": sp.Ne,
    "Lt": sp.Lt,
    "Le": sp.Le,
    "Gt": sp.Gt,
    "Ge": sp.Ge,
    "And": sp.And,
    "Or": sp.Or,
    "Not": sp.Not,
}
_CONSTANTS: dict[str, Any] = {
    "pi": sp.pi,
    "E": sp.E,
    "I": sp.I,
    "EulerGamma": sp.EulerGamma,
    "GoldenRatio": sp.GoldenRatio,
    "true": sp.true,
    "false": sp.false,
}
_OPERATOR_NAMES: dict[Any, str] = {
    sp.Add: "Add",
    sp.Mul: "Mul",
    sp.Pow: "Pow",
    sp.Equality: "Eq",
    sp.Unequality: "Ne",
    sp.StrictLessThan: "Lt",
    sp.LessThan: "Le",
    sp.StrictGreaterThan: "Gt",
    sp.GreaterThan: "Ge",
    sp.And: "And",
    sp.Or: "Or",
    sp.Not: "Not",
}


def to_tree(expr: Any) -> Any:
    """The expression as nested lists; ValueError for a node that is not on the whitelist.

    >>> to_tree(sp.Integer(2) * sp.pi)
    ['Mul', ['int', '2'], ['const', 'pi']]
    """
    if isinstance(expr, sp.MatrixBase):
        return ["matrix", expr.rows, expr.cols, *(to_tree(e) for e in expr)]
    expr = sp.sympify(expr)
    for name, constant in _CONSTANTS.items():
        if expr is constant:
            return ["const", name]
    if isinstance(expr, sp.Integer):
        return ["int", str(expr.p)]
    if isinstance(expr, sp.Rational):
        return ["rational", str(expr.p), str(expr.q)]
    if isinstance(expr, sp.Float):
        # repr of a double is exact; longer floats keep their digits.
        if expr._prec <= 53:
            return ["float", repr(float(expr))]
        return ["bigfloat", sp.sstr(expr, full_prec=True), int(expr._prec)]
    if isinstance(expr, Coordinate):
        return ["coord", expr.name, expr.is_time, expr.scale, expr.unit]
    if isinstance(expr, Parameter):
        bounds = None if expr.bounds is None else list(expr.bounds)
        return ["parameter", expr.name, expr.initial, bounds, expr.unit]
    if isinstance(expr, Process):
        return ["process", expr.name, to_tree(expr.time), expr.dim]
    if isinstance(expr, Wiener):
        return ["wiener", expr.name, to_tree(expr.time), expr.dim]
    if isinstance(expr, Control):
        return ["control", expr.name, to_tree(expr.time)]
    if isinstance(expr, Differential):
        return ["differential", to_tree(expr.of)]
    if isinstance(expr, Neural):
        if expr.net is not None:
            raise ValueError(f"{expr} cannot be saved: its network is an object of yours")
        shape = None if expr.shape is None else list(expr.shape)
        return ["neural", expr.name, shape, *(to_tree(entry) for entry in expr.inputs)]
    if isinstance(expr, Given):
        return ["given", expr.name, expr.unit]
    if isinstance(expr, AppliedGiven):
        return ["given_function", expr.name, expr.unit, *(to_tree(a) for a in expr.args)]
    if isinstance(expr, AppliedExpansion):
        base = expansion_to_tree(expr.base)
        return ["expansion", expr.stem, base, list(expr.orders), *(to_tree(a) for a in expr.args)]
    if isinstance(expr, NodeField):
        return ["node_field", expr.name, expr.initial, expr.unit]
    if isinstance(expr, NodeFeature):
        return ["node_feature", expr.name, expr.column]
    if isinstance(expr, EdgeFeature):
        return ["edge_feature", expr.name, expr.odd, expr.column]
    if isinstance(expr, Neighbour):
        return ["neighbour", to_tree(expr.of)]
    if isinstance(expr, AbstractNeighbours):
        return [expr.door, to_tree(expr.expr), expr.outgoing]
    if isinstance(expr, AppliedField):
        meta = [expr.is_complex_valued, expr.scale, expr.unit]
        return ["field", expr.name, *meta, *(to_tree(a) for a in expr.args)]
    if isinstance(expr, sp.Derivative):
        steps = [[to_tree(c), n] for c, n in steps_of(expr)]
        return ["diff", to_tree(expr.expr), *steps]
    if isinstance(expr, sp.Piecewise):
        pairs: Any = expr.args
        return ["piecewise", *([to_tree(e), to_tree(c)] for e, c in pairs)]
    if isinstance(expr, Div):
        return ["div", [to_tree(f) for f in expr.flux], [to_tree(c) for c in expr.coordinates]]
    if isinstance(expr, NormalDerivative):
        return ["dn", to_tree(expr.args[0])]
    name = _OPERATOR_NAMES.get(type(expr)) or (
        type(expr).__name__ if _FUNCTIONS.get(type(expr).__name__) is type(expr) else None
    )
    if name is None:
        raise ValueError(f"{expr} cannot be saved: {type(expr).__name__} is not on the whitelist")
    return [name, *(to_tree(a) for a in expr.args)]


def from_tree(tree: Any) -> Any:
    """The expression of a tree; ValueError for anything `to_tree` would not have written."""
    try:
        return _read(tree, _DEEPEST)
    except ValueError:
        raise
    except (TypeError, AttributeError, KeyError, IndexError, RecursionError) as error:
        raise ValueError(f"not an expression tree: {error}") from error


def _read(tree: Any, depth: int) -> Any:
    _expect(depth > 0, "the tree is too deep")
    _expect(isinstance(tree, list) and len(tree) > 0, f"expected a list, got {type(tree).__name__}")
    kind, rest = tree[0], tree[1:]
    _expect(isinstance(kind, str), "a node starts with its name")
    reader = _READERS.get(kind)
    if reader is not None:
        return reader(rest, depth - 1)
    node: Any = _OPERATORS.get(kind) or _FUNCTIONS.get(kind)
    _expect(node is not None, f"the node {kind!r} is not on the whitelist")
    args = [_read(a, depth - 1) for a in rest]
    _check_size(kind, args)
    if kind in ("And", "Or", "Not"):
        _expect(all(isinstance(a, sp.logic.boolalg.Boolean) for a in args), "expected relations")
    else:
        _expect(all(isinstance(a, sp.Expr) for a in args), "expected expressions")
    return node(*args)


def _check_size(kind: str, args: list[Any]) -> None:
    """Numbers that sympy would evaluate at once must stay small."""
    numbers = [a for a in args if getattr(a, "is_number", False)]
    if kind == "Pow" and len(args) == 2 and args[1].is_number:
        size = abs(complex(args[1]))
        _expect(math.isfinite(size) and size <= _LARGEST_POWER, "the exponent is too large")
        base = args[0]
        if base.is_Rational:
            digits = max(len(str(abs(base.p))), len(str(base.q)))
            _expect(digits * max(size, 1.0) <= 4 * _DIGITS, "the power is too large")
    elif kind in _FUNCTIONS and numbers:
        for a in numbers:
            size = abs(complex(a))
            _expect(math.isfinite(size) and size <= 1e6, f"the argument of {kind} is too large")
            if kind in ("gamma", "loggamma", "legendre", "hermite", "chebyshevt", "laguerre"):
                _expect(size <= 500, f"the argument of {kind} is too large")


def _read_int(rest: list[Any], depth: int) -> Any:
    (text,) = rest
    return sp.Integer(_integer(text))


def _read_rational(rest: list[Any], depth: int) -> Any:
    p, q = (_integer(r) for r in rest)
    _expect(q != 0, "division by zero")
    return sp.Rational(p, q)


def _read_float(rest: list[Any], depth: int) -> Any:
    (text,) = rest
    _expect(isinstance(text, str) and len(text) < 64, "expected a number")
    value = float(text)
    _expect(math.isfinite(value), "expected a finite number")
    return sp.Float(value)


def _read_bigfloat(rest: list[Any], depth: int) -> Any:
    text, precision = rest
    _expect(isinstance(text, str) and len(text) <= _DIGITS, "expected a number")
    _expect(isinstance(precision, int) and 53 < precision <= 4 * _DIGITS, "expected a precision")
    _expect(set(text) <= set("0123456789.eE+-"), "expected a number")
    return sp.Float(text, precision=precision)


def _read_constant(rest: list[Any], depth: int) -> Any:
    (name,) = rest
    _expect(isinstance(name, str) and name in _CONSTANTS, f"{name!r} is no constant")
    return _CONSTANTS[name]


def _read_coord(rest: list[Any], depth: int) -> Any:
    name, is_time, scale, unit = rest
    _expect(isinstance(is_time, bool), "expected true or false")
    return Coordinate(
        _name(name), is_time=is_time, scale=_maybe_float(scale), unit=_maybe_text(unit)
    )


def _read_parameter(rest: list[Any], depth: int) -> Any:
    name, initial, bounds, unit = rest
    pair = None
    if bounds is not None:
        low, high = bounds
        pair = (_float(low), _float(high))
    return Parameter(
        _name(name), initial=_maybe_float(initial), bounds=pair, unit=_maybe_text(unit)
    )


def _read_process(rest: list[Any], depth: int) -> Any:
    name, time, dim = rest
    _expect(isinstance(dim, int) and 0 < dim < 100_000, "expected a number of components")
    return process(_name(name), _read(time, depth), dim=dim)


def _read_wiener(rest: list[Any], depth: int) -> Any:
    name, time, dim = rest
    _expect(dim is None or (isinstance(dim, int) and 0 < dim < 100_000), "expected a number")
    return wiener(_name(name), _read(time, depth), dim=dim)


def _read_control(rest: list[Any], depth: int) -> Any:
    name, time = rest
    return control(_name(name), _read(time, depth))


def _read_differential(rest: list[Any], depth: int) -> Any:
    (of,) = rest
    return d(_read(of, depth))


def _read_neural(rest: list[Any], depth: int) -> Any:
    name, shape, *inputs = rest
    seen = [_read(entry, depth) for entry in inputs]
    _expect(all(isinstance(entry, sp.Expr) for entry in seen), "expected what a network sees")
    sizes = None
    if shape is not None:
        _expect(isinstance(shape, list) and 1 <= len(shape) <= 2, "expected a shape")
        _expect(all(isinstance(n, int) and 0 < n < 10_000 for n in shape), "expected a shape")
        sizes = tuple(shape)
    return neural(_name(name), seen, shape=sizes)


def _read_field(rest: list[Any], depth: int) -> Any:
    name, is_complex, scale, unit, *args = rest
    _expect(isinstance(is_complex, bool) and args != [], "expected a field with its coordinates")
    coords = [_read(a, depth) for a in args]
    _expect(all(isinstance(c, Coordinate) for c in coords), "a field depends on coordinates")
    return make_field(
        _name(name), coords, complex=is_complex, scale=_maybe_float(scale), unit=_maybe_text(unit)
    )


def _read_given(rest: list[Any], depth: int) -> Any:
    name, unit = rest
    return Given(_name(name), unit=_maybe_text(unit))


def _read_given_function(rest: list[Any], depth: int) -> Any:
    name, unit, *args = rest
    coords = [_read(a, depth) for a in args]
    _expect(coords != [] and all(isinstance(c, Coordinate) for c in coords), "expected coordinates")
    return make_given(_name(name), coords, unit=_maybe_text(unit))


def _read_expansion(rest: list[Any], depth: int) -> Any:
    stem, base, orders, *args = rest
    expansion = expansion_from_tree(base)
    operands = [_read(a, depth) for a in args]
    _expect(all(isinstance(a, sp.Expr) for a in operands), "expected expressions")
    _expect(len(orders) == len(operands) == len(expansion.axes), "one argument per axis")
    _expect(all(isinstance(n, int) and 0 <= n <= 32 for n in orders), "the order is too large")
    return expanded(_name(stem), expansion, *operands, orders=orders)


def _read_node_field(rest: list[Any], depth: int) -> Any:
    name, initial, unit = rest
    return node_field(_name(name), initial=_maybe_float(initial), unit=_maybe_text(unit))


def _read_node_feature(rest: list[Any], depth: int) -> Any:
    name, column = rest
    return node_feature(_name(name), column=column)


def _read_edge_feature(rest: list[Any], depth: int) -> Any:
    name, odd, column = rest
    if name == orientation.name:
        return orientation
    return edge_feature(_name(name), odd=odd, column=column)


def _read_neighbour(rest: list[Any], depth: int) -> Any:
    (inner,) = rest
    of = _read(inner, depth)
    _expect(isinstance(of, (NodeField, NodeFeature)), "expected a symbol of a node")
    return of.neighbour


def _read_neighbour_sum(rest: list[Any], depth: int) -> Any:
    inner, outgoing = rest
    return neighbour_sum(_read(inner, depth), outgoing=outgoing)


def _read_neighbour_max(rest: list[Any], depth: int) -> Any:
    inner, outgoing = rest
    return neighbour_max(_read(inner, depth), outgoing=outgoing)


def _read_diff(rest: list[Any], depth: int) -> Any:
    inner, *steps = rest
    expr = _read(inner, depth)
    _expect(isinstance(expr, sp.Expr) and steps != [], "expected a derivative")
    variables = []
    for coord, count in steps:
        c = _read(coord, depth)
        _expect(isinstance(c, Coordinate), "derivatives are by coordinates")
        _expect(isinstance(count, int) and 0 < count <= 32, "the order is too large")
        variables.append((c, count))
    return sp.Derivative(expr, *variables)


def _read_piecewise(rest: list[Any], depth: int) -> Any:
    pairs = []
    for expr, condition in rest:
        e, c = _read(expr, depth), _read(condition, depth)
        _expect(isinstance(e, sp.Expr), "expected an expression")
        _expect(isinstance(c, sp.logic.boolalg.Boolean), "expected a relation")
        pairs.append((e, c))
    return sp.Piecewise(*pairs)


def _read_div(rest: list[Any], depth: int) -> Any:
    flux, coords = rest
    parts = [_read(f, depth) for f in flux]
    axes = [_read(c, depth) for c in coords]
    _expect(all(isinstance(f, sp.Expr) for f in parts), "expected a flux")
    _expect(all(isinstance(c, Coordinate) for c in axes), "expected coordinates")
    _expect(len(parts) == len(axes) > 0, "one flux component per coordinate")
    return Div(parts, axes)


def _read_dn(rest: list[Any], depth: int) -> Any:
    (inner,) = rest
    expr = _read(inner, depth)
    _expect(isinstance(expr, sp.Expr), "expected an expression")
    return NormalDerivative(expr)


def _read_matrix(rest: list[Any], depth: int) -> Any:
    rows, cols, *entries = rest
    _expect(all(isinstance(n, int) and 0 < n < 1000 for n in (rows, cols)), "expected a shape")
    _expect(rows * cols == len(entries), "the matrix has another shape")
    parts = [_read(e, depth) for e in entries]
    _expect(all(isinstance(p, sp.Expr) for p in parts), "expected expressions")
    return sp.ImmutableDenseMatrix(rows, cols, parts)


_READERS: Mapping[str, Callable[[list[Any], int], Any]] = {
    "int": _read_int,
    "rational": _read_rational,
    "float": _read_float,
    "bigfloat": _read_bigfloat,
    "const": _read_constant,
    "coord": _read_coord,
    "parameter": _read_parameter,
    "neural": _read_neural,
    "process": _read_process,
    "wiener": _read_wiener,
    "control": _read_control,
    "differential": _read_differential,
    "field": _read_field,
    "given": _read_given,
    "given_function": _read_given_function,
    "expansion": _read_expansion,
    "diff": _read_diff,
    "piecewise": _read_piecewise,
    "div": _read_div,
    "dn": _read_dn,
    "matrix": _read_matrix,
    "node_field": _read_node_field,
    "node_feature": _read_node_feature,
    "edge_feature": _read_edge_feature,
    "neighbour": _read_neighbour,
    "neighbour_sum": _read_neighbour_sum,
    "neighbour_max": _read_neighbour_max,
}


def _expect(ok: bool, complaint: str) -> None:
    if not ok:
        raise ValueError(f"not an expression tree: {complaint}")


def _integer(text: Any) -> int:
    _expect(isinstance(text, str) and len(text) <= _DIGITS, "expected an integer")
    body = text[1:] if text.startswith("-") else text
    _expect(body.isascii() and body.isdigit(), "expected an integer")
    return int(text)


def _name(text: Any) -> str:
    ok = isinstance(text, str) and len(text) <= 200 and text.isidentifier()
    _expect(ok, f"{text!r} is not a name")
    return text


def _float(value: Any) -> float:
    ok = isinstance(value, (int, float)) and not isinstance(value, bool)
    _expect(ok and math.isfinite(value), "expected a finite number")
    return float(value)


def _maybe_float(value: Any) -> float | None:
    return None if value is None else _float(value)


def _maybe_text(value: Any) -> str | None:
    _expect(value is None or isinstance(value, str), "expected text")
    return value
