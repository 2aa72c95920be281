"""Equations on graphs for a paper: node i, its neighbours j.

In    a `GraphForm`.
Out   LaTeX: one aligned block.
Next  the user, through `system.latex()`.
"""

from __future__ import annotations

from typing import Any

import sympy as sp
from sympy.printing.latex import LatexPrinter

from pinnkit.declare.graph_symbols import EdgeFeature, NodeFeature, NodeField
from pinnkit.ir.graph_form import GraphForm

__all__ = ["latex_of_graph"]


class _Printer(LatexPrinter):
    """Fields and features get the index of their node, edge features that of their edge."""

    def _print_NodeField(self, expr: Any) -> str:
        return f"{_name(self, expr)}_{{i}}"

    def _print_NodeFeature(self, expr: Any) -> str:
        column = "" if expr.column is None else f",{expr.column}"
        return f"{_name(self, expr)}_{{i{column}}}"

    def _print_Neighbour(self, expr: Any) -> str:
        column = getattr(expr.of, "column", None)
        return f"{_name(self, expr.of)}_{{j{'' if column is None else f',{column}'}}}"

    def _print_EdgeFeature(self, expr: Any) -> str:
        column = "" if expr.column is None else f",{expr.column}"
        return f"{_name(self, expr)}_{{ij{column}}}"

    def _print_NeighbourSum(self, expr: Any) -> str:
        arrow = r"i \to j" if expr.outgoing else r"j \to i"
        return rf"\sum_{{{arrow}}} {self.parenthesize(expr.expr, 40)}"

    def _print_NeighbourMax(self, expr: Any) -> str:
        arrow = r"i \to j" if expr.outgoing else r"j \to i"
        return rf"\max_{{{arrow}}} \left({self._print(expr.expr)}\right)"


def latex_of_graph(form: GraphForm) -> str:
    """The equations, the fixed values, the totals."""
    write = _Printer().doprint
    rows = [rf"& {write(e)} = 0" for e in form.residuals]
    for c in form.fixed:
        rows.append(rf"& {write(c.field)} = {write(c.value)}{_where(c.where)}")
    for c in form.totals:
        rows.append(rf"& \sum_i {write(c.expr)} = {write(c.equals)}{_where(c.where)}")
    return "\\begin{aligned}\n" + " \\\\\n".join(rows) + "\n\\end{aligned}"


def _where(where: str | None) -> str:
    if where is None:
        return ""
    escaped = where.replace("_", r"\_")
    return rf" \quad \text{{({escaped})}}"


def _name(printer: LatexPrinter, symbol: NodeField | NodeFeature | EdgeFeature) -> str:
    return printer._print_Symbol(sp.Symbol(symbol.name))
