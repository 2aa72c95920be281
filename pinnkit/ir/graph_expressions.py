"""What may be asked of a solution on a graph: expressions of nodes, and of edges.

In    anything a user writes in `sol[...]` or `sol.edges(...)`.
Out   the expression, checked against the system and the graph.
Next  `lower.graph_residual` evaluates it.
"""

from __future__ import annotations

from typing import Any

import sympy as sp

from pinnkit.declare.graph import Graph
from pinnkit.declare.graph_symbols import AbstractNeighbours, Neighbour, NodeField
from pinnkit.declare.printing import refusal, show
from pinnkit.declare.symbols import Parameter
from pinnkit.ir.graph_binding import check_features
from pinnkit.ir.graph_form import GraphForm, check_node_expression

__all__ = ["edge_expression", "node_expression"]


def node_expression(expr: Any, form: GraphForm, graph: Graph) -> sp.Expr:
    """An expression of a node, sums over neighbours included."""
    found = _read(expr, "sol[...]")
    check_node_expression(found, f"sol[{show(found)}]")
    _check_unknowns(found, form, f"sol[{show(found)}]")
    check_features([found], graph)
    return found


def edge_expression(expr: Any, form: GraphForm, graph: Graph) -> sp.Expr:
    """An expression of an edge: of both its ends and its features."""
    found = _read(expr, "sol.edges(...)")
    wrote = f"sol.edges({show(found)})"
    if found.has(AbstractNeighbours):
        raise refusal(wrote, "a sum over neighbours belongs to a node", "write sol[...] for it")
    _check_unknowns(found, form, wrote)
    check_features([found], graph)
    return found


def _read(expr: Any, wrote: str) -> Any:
    if isinstance(expr, (str, list, tuple, dict, set, sp.MatrixBase)):
        raise TypeError(f"{wrote} takes one expression, not {expr!r}")
    try:
        found = sp.sympify(expr)
    except (sp.SympifyError, TypeError, AttributeError):
        found = None
    if not isinstance(found, sp.Expr):
        raise TypeError(f"{wrote} takes a field or an expression, not {expr!r}")
    return found


def _check_unknowns(expr: sp.Expr, form: GraphForm, wrote: str) -> None:
    for s in sorted(expr.free_symbols, key=str):
        base = s.of if isinstance(s, Neighbour) else s
        if isinstance(base, NodeField) and base not in form.fields:
            names = ", ".join(map(str, form.fields))
            raise refusal(wrote, f"{base} is not among the fields", f"there are {names}")
        if isinstance(base, Parameter) and base not in form.parameters:
            names = ", ".join(map(str, form.parameters)) or "none"
            raise refusal(wrote, f"{base} is no unknown number here", f"there are {names}")
