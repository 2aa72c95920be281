"""The waist for graphs: one frozen record of equations on nodes, checked and differentiated.

In    a `GraphSystem`.
Out   `GraphForm`: residuals, their derivatives by own values, neighbours' values and parameters.
Next  `ir.graph_binding` looks up its names in a graph, `lower.graph_residual` compiles it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import sympy as sp
from sympy.core.function import AppliedUndef

from pinnkit.declare.graph_conditions import Fixed, Total
from pinnkit.declare.graph_symbols import (
    AbstractNeighbours,
    EdgeFeature,
    Neighbour,
    NodeFeature,
    NodeField,
)
from pinnkit.declare.graph_system import GraphSystem
from pinnkit.declare.printing import refusal, show
from pinnkit.declare.symbols import Parameter
from pinnkit.ir.graph_derivatives import NodeProgram, differentiate, is_affine, shift

__all__ = ["GraphForm", "check_node_expression", "features_of", "normalise_graph"]


@dataclass(frozen=True)
class GraphForm:
    """Equations `residuals[i]` = 0 at every node where `fields[i]` is not fixed, and totals.

    `program` holds residuals and summands of totals (in this order) with their derivatives.
    `floating` are the fields that enter only through differences: a constant added to one changes
    nothing, so it has to be fixed somewhere.
    """

    fields: tuple[NodeField, ...]
    parameters: tuple[Parameter, ...]
    residuals: tuple[sp.Expr, ...]
    fixed: tuple[Fixed, ...]
    totals: tuple[Total, ...]
    paired: bool  # whether the user said which equation belongs to which field
    linear: bool
    floating: frozenset[NodeField]
    program: NodeProgram

    @property
    def exprs(self) -> tuple[sp.Expr, ...]:
        """Every expression in equations and conditions."""
        parts = [*self.residuals, *(t.expr for t in self.totals), *(f.value for f in self.fixed)]
        return tuple(parts)


def normalise_graph(system: GraphSystem) -> GraphForm:
    """The checked record of a system."""
    residuals = []
    for number, equation in enumerate(system.equations, 1):
        left: Any = equation
        if isinstance(equation, sp.Equality):
            left = cast(Any, equation.lhs) - cast(Any, equation.rhs)
        check_node_expression(left, f"equation {number}, {show(equation)}")
        residuals.append(left)
    fixed = tuple(c for c in system.conditions if isinstance(c, Fixed))
    totals = tuple(c for c in system.conditions if isinstance(c, Total))
    for c in fixed:
        check_node_expression(c.value, repr(c), fields=False)
    for c in totals:
        check_node_expression(c.expr, repr(c))
    _check_names([*residuals, *(t.expr for t in totals), *(f.value for f in fixed)])
    fields = _fields(system, residuals)
    for c in system.conditions:
        for f in _fields_in(c.exprs):
            if f not in fields:
                raise refusal(
                    repr(c),
                    f"{f} is in no equation",
                    f"the fields are {', '.join(map(str, fields))}",
                )
    parameters = _parameters(residuals, fixed, totals)
    program = differentiate([*residuals, *(t.expr for t in totals)], fields, parameters)
    floating = [f for f in fields if all(shift(e, f) == 0 for e in residuals)]
    return GraphForm(
        fields=fields,
        parameters=parameters,
        residuals=tuple(residuals),
        fixed=fixed,
        totals=totals,
        paired=system.paired is not None or len(fields) == 1,
        linear=is_affine(program, fields, parameters),
        floating=frozenset(floating),
        program=program,
    )


def check_node_expression(expr: sp.Expr, wrote: str, *, fields: bool = True) -> None:
    """Refuse what has no value at a node."""
    for kind in (sp.Derivative, sp.Integral, AppliedUndef):
        if found := sorted(map(show, expr.atoms(kind))):
            raise refusal(
                wrote,
                f"{found[0]} has no meaning at a node",
                "write node_field, node_feature, neighbour_sum; differential equations are PDESystems",
            )
    outside = _outside(expr)
    for symbol in sorted(outside, key=str):
        if isinstance(symbol, (Neighbour, EdgeFeature)):
            what = "a neighbour's value" if isinstance(symbol, Neighbour) else "an edge's"
            raise refusal(
                wrote,
                f"{show(symbol)} is {what}, and a node has several",
                f"write it inside neighbour_sum(...), as in neighbour_sum({show(symbol)})",
            )
        if not isinstance(symbol, (NodeField, NodeFeature, Parameter)):
            raise refusal(
                wrote,
                f"{show(symbol)} is no symbol of a graph",
                f'make it with node_field("{symbol}"), node_feature("{symbol}") or '
                f'parameter("{symbol}")',
            )
        if not fields and isinstance(symbol, NodeField):
            raise refusal(wrote, f"{show(symbol)} is unknown", "write what is known")


def features_of(exprs: Any) -> tuple[tuple[NodeFeature, ...], tuple[EdgeFeature, ...]]:
    """(node features, edge features) in the expressions, those of neighbours included."""
    nodes: dict[NodeFeature, None] = {}
    edges: dict[EdgeFeature, None] = {}
    for expr in exprs:
        for s in sorted(expr.free_symbols, key=str):
            base = s.of if isinstance(s, Neighbour) else s
            if isinstance(base, NodeFeature):
                nodes[base] = None
            elif isinstance(base, EdgeFeature):
                edges[base] = None
    return tuple(nodes), tuple(edges)


def _outside(expr: sp.Expr) -> set[sp.Basic]:
    """The symbols that do not stand inside a sum over neighbours."""
    sums = expr.atoms(AbstractNeighbours)
    return expr.xreplace(dict.fromkeys(sums, sp.Integer(1))).free_symbols


def _fields_in(exprs: Any) -> list[NodeField]:
    found: dict[NodeField, None] = {}
    for expr in exprs:
        for s in sorted(expr.free_symbols, key=str):
            base = s.of if isinstance(s, Neighbour) else s
            if isinstance(base, NodeField):
                found[base] = None
    return list(found)


def _fields(system: GraphSystem, residuals: list[sp.Expr]) -> tuple[NodeField, ...]:
    found = _fields_in(residuals)
    names = ", ".join(map(str, found)) or "no field"
    if not found:
        raise refusal(
            f"equation 1, {show(system.equations[0])}",
            "no field is in it: there is nothing to solve for",
            'make the unknown with node_field("p")',
        )
    if len(found) != len(residuals):
        raise refusal(
            "GraphSystem(equations)",
            f"{_count(len(residuals), 'equation')} for {_count(len(found), 'field')}, {names}",
            "give one equation per field; an unknown number is a parameter",
        )
    if system.paired is None:
        return tuple(found)
    if set(system.paired) != set(found):
        given = ", ".join(map(str, system.paired))
        raise refusal(
            "GraphSystem(equations)",
            f"equations are given for {given}, and the fields in them are {names}",
            "write {field: equation} for each field",
        )
    return system.paired


def _parameters(
    residuals: list[sp.Expr], fixed: tuple[Fixed, ...], totals: tuple[Total, ...]
) -> tuple[Parameter, ...]:
    exprs = [*residuals, *(f.value for f in fixed), *(t.expr for t in totals)]
    found = sorted({p for e in exprs for p in e.free_symbols if isinstance(p, Parameter)}, key=str)
    if len(found) != len(totals):
        names = f" ({', '.join(map(str, found))})" if found else ""
        raise refusal(
            "GraphSystem(equations, conditions)",
            f"{_count(len(found), 'unknown number')}{names} and {_count(len(totals), 'Total')}",
            "each unknown number needs one Total(expression, number) to determine it",
        )
    return tuple(found)


def _check_names(exprs: list[sp.Expr]) -> None:
    """One name, one meaning: fields, node features and edge features of equal name are confusing."""
    seen: dict[tuple[str, Any], Any] = {}
    for expr in exprs:
        for s in sorted(expr.free_symbols, key=str):
            base: Any = s.of if isinstance(s, Neighbour) else s
            key = (base.name, getattr(base, "column", None))
            other = seen.setdefault(key, base)
            if other != base:
                raise refusal(
                    "GraphSystem(equations)",
                    f"{base} means {_kind(other)} here and {_kind(base)} there",
                    "give one of them another name",
                )


def _kind(symbol: Any) -> str:
    if isinstance(symbol, NodeField):
        start = "" if symbol.initial is None else f" with initial={symbol.initial:g}"
        return f"a field{start}"
    if isinstance(symbol, EdgeFeature):
        return "an odd edge feature" if symbol.odd else "an edge feature"
    return "a node feature" if isinstance(symbol, NodeFeature) else "an unknown number"


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"
