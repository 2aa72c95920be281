"""Conditions on graphs: values that are fixed at some nodes, and totals over nodes.

In    a field or expression, its value, and `where`: a boolean node feature by name.
Out   frozen records that say what the user wrote.
Next  `ir.graph_form` checks them, `ir.graph_binding` looks the features up in a graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import sympy as sp

from pinnkit.declare.conditions import AbstractCondition, read_expr
from pinnkit.declare.graph_symbols import EdgeFeature, Neighbour, NodeFeature, NodeField
from pinnkit.declare.printing import refusal, show

__all__ = ["Fixed", "Total"]


@final
@dataclass(frozen=True)
class Fixed(AbstractCondition):
    """field = value at the nodes where the boolean node feature `where` is true (None: at all).

    There the field's equation does not hold: whatever it leaves over is what the fixed value costs
    (the flow that enters at an inlet).

    Args:
        field: A field of nodes.
        value: A number, or an expression in node features and parameters.
        where: The name of a boolean node feature; None for every node.
    """

    field: Any
    value: Any
    where: str | None = None

    def __post_init__(self) -> None:
        wrote = f"Fixed({show(self.field)}, {show(self.value)}, where={self.where!r})"
        if not isinstance(self.field, NodeField):
            raise refusal(
                wrote,
                f"{show(self.field)} is not a field of nodes",
                'write Fixed(p, value, where="inlet") for p = node_field("p")',
            )
        value = _read_scalar(self.value, wrote)
        if value.has(NodeField, Neighbour, EdgeFeature):
            raise refusal(
                wrote,
                f"the value {show(value)} is not known beforehand",
                "write a number, or an expression in node features and parameters",
            )
        object.__setattr__(self, "value", value)
        object.__setattr__(self, "where", _read_where(self.where, wrote))

    @property
    def exprs(self) -> tuple[sp.Expr, ...]:
        """Field and value."""
        return (self.field, self.value)

    def subs(self, values: Mapping[sp.Basic, Any]) -> Fixed:
        """With numbers for symbols."""
        return Fixed(self.field, self.value.subs(values), self.where)

    def __repr__(self) -> str:
        where = "" if self.where is None else f", where={self.where!r}"
        return f"Fixed({show(self.field)}, {show(self.value)}{where})"


@final
@dataclass(frozen=True)
class Total(AbstractCondition):
    """The sum of `expr` over nodes equals a number: it determines one unknown parameter.

    `Total(neighbour_sum(k * (p - p.neighbour)), Q, where="inlet")` prescribes what flows in where
    `Fixed(p, P, where="inlet")` holds an unknown pressure P.

    Args:
        expr: An expression of a node, sums over neighbours included.
        equals: A number.
        where: The name of a boolean node feature; None for every node.
    """

    expr: Any
    equals: Any = 0
    where: str | None = None

    def __post_init__(self) -> None:
        wrote = f"Total({show(self.expr)}, {show(self.equals)}, where={self.where!r})"
        expr, equals = _read_scalar(self.expr, wrote), _read_scalar(self.equals, wrote)
        if not expr.has(NodeField):
            raise refusal(wrote, f"{show(expr)} contains no field", "sum an unknown quantity")
        if not equals.is_number:
            raise refusal(wrote, f"{show(equals)} is no number", "write a number")
        object.__setattr__(self, "expr", expr)
        object.__setattr__(self, "equals", equals)
        object.__setattr__(self, "where", _read_where(self.where, wrote))

    @property
    def exprs(self) -> tuple[sp.Expr, ...]:
        """Summand and value."""
        return (self.expr, self.equals)

    def subs(self, values: Mapping[sp.Basic, Any]) -> Total:
        """With numbers for symbols."""
        return Total(self.expr.subs(values), self.equals.subs(values), self.where)

    def __repr__(self) -> str:
        where = "" if self.where is None else f", where={self.where!r}"
        return f"Total({show(self.expr)}, {show(self.equals)}{where})"


def _read_scalar(value: Any, wrote: str) -> Any:
    expr = read_expr(value, wrote)
    if isinstance(expr, sp.MatrixBase):
        raise refusal(wrote, "this is a vector", "write one condition for each component")
    return expr


def _read_where(where: Any, wrote: str) -> str | None:
    if isinstance(where, NodeFeature) and where.column is None:
        return where.name
    if where is not None and not (isinstance(where, str) and where.isidentifier()):
        raise refusal(
            wrote,
            f"where={where!r} is not the name of a node feature",
            'write where="inlet", a boolean feature of the graph\'s nodes',
        )
    return where
