"""Leaves: the fields and their derivatives an expression is made of.

In    expressions of a declaration.
Out   the leaves, and expressions with the leaves replaced by plain real symbols and back.
Next  every pass that asks "how does it depend on u_x" works on frozen expressions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import sympy as sp

from pinnkit.declare.given import is_given_leaf
from pinnkit.declare.operators import Div
from pinnkit.declare.symbols import AppliedField

__all__ = [
    "Frozen",
    "derivative_count",
    "field_of",
    "freeze",
    "leaves",
    "restrict",
    "settle",
    "steps_of",
]


def leaves(*exprs: sp.Basic) -> tuple[sp.Expr, ...]:
    """Fields and derivatives of fields, each once; the u inside u.diff(x) does not count.

    Looks into `Div` and `NormalDerivative`. Given functions are coefficients, not leaves.
    """
    found: dict[sp.Expr, None] = {}

    def visit(node: sp.Basic) -> None:
        if is_given_leaf(node):
            return
        if isinstance(node, (sp.Derivative, AppliedField)):
            found[node] = None  # type: ignore[index]
        else:
            for a in node.args:
                visit(a)

    for e in exprs:
        visit(e)
    return tuple(sorted(found, key=sp.default_sort_key))


def field_of(leaf: sp.Expr) -> sp.Expr:
    """The field a leaf is a derivative of."""
    return leaf.expr if isinstance(leaf, sp.Derivative) else leaf  # type: ignore[return-value]


def steps_of(leaf: Any) -> tuple[tuple[sp.Symbol, int], ...]:
    """(coordinate, count) of a derivative; empty for a plain field."""
    if not isinstance(leaf, sp.Derivative):
        return ()
    return tuple((c, int(n)) for c, n in leaf.variable_count)  # type: ignore[misc]


def derivative_count(leaf: sp.Expr, coord: sp.Symbol | None = None) -> int:
    """How often the leaf is differentiated, along one coordinate or in all."""
    return sum(n for c, n in steps_of(leaf) if coord is None or c == coord)


@dataclass(frozen=True)
class Frozen:
    """Expressions whose leaves are plain symbols; `symbols` maps leaf -> symbol."""

    exprs: tuple[sp.Expr, ...]
    symbols: Mapping[sp.Expr, sp.Symbol]

    def thaw(self, expr: Any) -> Any:
        """Put the leaves back."""
        return expr.xreplace({s: leaf for leaf, s in self.symbols.items()})


def freeze(exprs: Iterable[sp.Expr], extra: Iterable[sp.Expr] = ()) -> Frozen:
    """Replace every leaf by a real symbol of its own."""
    given = tuple(exprs)
    symbols = {
        leaf: sp.Dummy(f"leaf{i}", real=True) for i, leaf in enumerate(leaves(*given, *extra))
    }
    frozen: Any = tuple(sp.sympify(e).xreplace(symbols) for e in given)
    return Frozen(frozen, symbols)


def restrict(expr: sp.Expr, values: Mapping[Any, Any]) -> sp.Expr:
    """Put numbers for coordinates, but not inside the leaves: u(t, x) stays itself, as does a given a(x)."""
    frozen = freeze([expr])
    whole = frozen.exprs[0]
    inputs: dict[Any, Any] = {}
    for node in sp.preorder_traversal(whole):
        if is_given_leaf(node) and not isinstance(node, sp.Symbol):
            inputs.setdefault(node, sp.Dummy(f"given{len(inputs)}", real=True))
    # Derivatives are met before the functions inside them, and xreplace replaces them first.
    restricted = whole.xreplace(inputs).subs(dict(values))
    return frozen.thaw(restricted.xreplace({s: node for node, s in inputs.items()}))


def settle(expr: Any, keep: Callable[[sp.Basic], bool] | None = None) -> Any:
    """Carry out every derivative that is not one of a plain field; products stay products.

    Nodes for which `keep` is true (a `Div` that is to survive) are settled inside only.
    """

    def visit(node: Any) -> Any:
        if isinstance(node, AppliedField) or not node.args:
            return node
        if isinstance(node, sp.Derivative):
            if isinstance(node.expr, AppliedField):
                return sp.diff(node.expr, *node.variable_count)  # sorts the variables
            inner = visit(node.expr)
            return visit_result(sp.diff(inner, *node.variable_count))
        args = [visit(a) for a in node.args]
        if isinstance(node, Div) and not (keep and keep(node)):
            return visit_result(Div(*args).doit())
        unchanged = all(a is b for a, b in zip(args, node.args, strict=True))
        return node if unchanged else node.func(*args)

    def visit_result(node: Any) -> Any:
        # diff of a product leaves nothing unevaluated except below functions such as Piecewise.
        return node

    return visit(expr)
