"""Derivatives of expressions at nodes: by the node's own values and by its neighbours'.

In    expressions with sums over neighbours.
Out   `NodeProgram`: the expressions with each sum replaced by a symbol, and all derivatives.
Next  `lower.graph_residual` turns it into a residual and the entries of its sparse Jacobian.

With f(u, S_1, ..., S_m) at a node and S_k = sum over arcs of a_k(u, u.neighbour),

    df/du           = f_u + sum_k f_{S_k} sum over arcs of da_k/du        (on the diagonal)
    df/du.neighbour = f_{S_k} da_k/du.neighbour                           (one entry per arc)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy as sp

from pinnkit.declare.graph_symbols import (
    AbstractNeighbours,
    Neighbour,
    NeighbourMax,
    NeighbourSum,
    NodeField,
)
from pinnkit.declare.symbols import Parameter

__all__ = ["NodeProgram", "Reduction", "differentiate", "is_affine", "shift"]


@dataclass(frozen=True)
class Reduction:
    """One sum (or maximum) over arcs, and the derivatives of its summand; zero ones are left out."""

    symbol: sp.Symbol  # what stands for its value
    expr: sp.Expr
    maximum: bool
    outgoing: bool
    own: Mapping[NodeField, sp.Expr]
    neighbour: Mapping[NodeField, sp.Expr]
    by_parameter: Mapping[Parameter, sp.Expr]

    @property
    def varies(self) -> bool:
        """Whether it depends on anything unknown."""
        return bool(self.own or self.neighbour or self.by_parameter)


@dataclass(frozen=True)
class NodeProgram:
    """`exprs` in fields, features and the symbols of `reductions`; derivatives as {(expr, by): value}."""

    exprs: tuple[sp.Expr, ...]
    reductions: tuple[Reduction, ...]
    by_field: Mapping[tuple[int, NodeField], sp.Expr]
    by_reduction: Mapping[tuple[int, int], sp.Expr]
    by_parameter: Mapping[tuple[int, Parameter], sp.Expr]


def differentiate(
    exprs: Sequence[sp.Expr], fields: Sequence[NodeField], parameters: Sequence[Parameter]
) -> NodeProgram:
    """The program of `exprs`; equal sums become one reduction."""
    found: dict[Any, None] = {}
    for expr in exprs:
        found.update(dict.fromkeys(sorted(expr.atoms(AbstractNeighbours), key=str)))
    symbols = {node: sp.Dummy(f"sum{i}", real=True) for i, node in enumerate(found)}
    reductions = tuple(_reduction(node, s, fields, parameters) for node, s in symbols.items())
    flat: Any = tuple(expr.xreplace(symbols) for expr in exprs)
    by_field, by_reduction, by_parameter = {}, {}, {}
    for i, expr in enumerate(flat):
        by_field.update({(i, f): d for f in fields if (d := _diff(expr, f)) != 0})
        by_parameter.update({(i, p): d for p in parameters if (d := _diff(expr, p)) != 0})
        for k, reduction in enumerate(reductions):
            if reduction.varies and (d := _diff(expr, reduction.symbol)) != 0:
                by_reduction[i, k] = d
    return NodeProgram(flat, reductions, by_field, by_reduction, by_parameter)


def is_affine(
    program: NodeProgram, fields: Sequence[NodeField], parameters: Sequence[Parameter]
) -> bool:
    """Whether no derivative depends on anything unknown."""
    moving = {r.symbol for r in program.reductions if r.varies}
    unknown = {*fields, *(f.neighbour for f in fields), *parameters, *moving}
    derivatives = [
        *program.by_field.values(),
        *program.by_reduction.values(),
        *program.by_parameter.values(),
    ]
    for r in program.reductions:
        if r.maximum and r.varies:
            return False
        derivatives += [*r.own.values(), *r.neighbour.values(), *r.by_parameter.values()]
    return not any(d.free_symbols & unknown for d in derivatives)


def shift(expr: sp.Expr, field: NodeField) -> sp.Expr:
    """The derivative when a constant is added to the field at all nodes; 0 if it is seen to vanish."""
    sums = sorted(expr.atoms(AbstractNeighbours), key=str)
    symbols: dict[Any, Any] = {node: sp.Dummy(f"sum{i}", real=True) for i, node in enumerate(sums)}
    flat: Any = expr.xreplace(symbols)
    total = sp.diff(flat, field)
    for node, symbol in symbols.items():
        inner = sp.expand(sp.diff(node.expr, field) + sp.diff(node.expr, field.neighbour))
        if inner == 0:
            continue
        if isinstance(node, NeighbourMax):
            # Of whichever arc is largest; known only where it is the same for all.
            moved: Any = inner if inner.is_number else sp.Dummy("unknown")
        else:
            moved = NeighbourSum(inner, node.args[1])
        total += sp.diff(flat, symbol) * moved
    back = {s: node.func(sp.expand(node.expr), node.args[1]) for node, s in symbols.items()}
    return sp.expand(total.xreplace(back))


def _reduction(
    node: Any, symbol: Any, fields: Sequence[NodeField], parameters: Sequence[Parameter]
) -> Reduction:
    expr = node.expr
    return Reduction(
        symbol=symbol,
        expr=expr,
        maximum=isinstance(node, NeighbourMax),
        outgoing=node.outgoing,
        own=_nonzero(expr, {f: f for f in fields}),
        neighbour=_nonzero(expr, {f: f.neighbour for f in fields}),
        by_parameter=_nonzero(expr, {p: p for p in parameters}),
    )


def _nonzero(expr: sp.Expr, by: Mapping[Any, NodeField | Neighbour | Parameter]) -> dict[Any, Any]:
    return {key: d for key, symbol in by.items() if (d := _diff(expr, symbol)) != 0}


def _diff(expr: sp.Expr, symbol: sp.Symbol) -> Any:
    """The derivative where it exists; at jumps, where it is infinite, one-sided."""
    derivative = sp.diff(expr, symbol)
    return derivative.replace(sp.DiracDelta, lambda *_: sp.Integer(0))
