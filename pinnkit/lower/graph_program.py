"""Expressions at nodes as torch functions, with their derivatives by values at nodes and along arcs.

In    a `NodeProgram` of `ir.graph_derivatives`; values of fields, unknown numbers, features.
Out   `CompiledProgram`: values (N,), and `Slopes`; `CompiledValue` for fixed values.
Next  `lower.graph_residual` numbers unknowns and rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sympy as sp
import torch
from torch import Tensor

from pinnkit.declare.graph_symbols import NodeField
from pinnkit.declare.symbols import Parameter
from pinnkit.ir.graph_derivatives import NodeProgram
from pinnkit.lower.expressions import compile_expressions
from pinnkit.lower.graph_arcs import Arcs, ArcSums, Features, at_arcs, sorted_symbols

__all__ = ["CompiledProgram", "CompiledValue", "NodeValues", "Slopes", "evaluate"]


@dataclass(frozen=True)
class NodeValues:
    """All fields at all nodes (N,), fixed ones included, and the unknown numbers ()."""

    fields: Mapping[NodeField, Tensor]
    parameters: Mapping[Parameter, Tensor]


@dataclass(frozen=True)
class Slopes:
    """Derivatives of expression i: by own values (N,), neighbours' (A,), unknown numbers (N,)."""

    own: dict[tuple[int, NodeField], Tensor]
    arcs: dict[tuple[int, int, NodeField], Tensor]
    parameters: dict[tuple[int, Parameter], Tensor]


class CompiledProgram:
    """A `NodeProgram` as torch functions."""

    def __init__(self, program: NodeProgram) -> None:
        self.program = program
        exprs = [*program.exprs, *program.by_field.values()]
        exprs += [*program.by_reduction.values(), *program.by_parameter.values()]
        self._symbols = sorted_symbols(exprs)
        self._sums = [ArcSums(r) for r in program.reductions]
        self._used = [*exprs, *(r.expr for r in program.reductions)]
        leaves = self._symbols or (sp.Dummy(),)
        self._values = compile_expressions(program.exprs, leaves)
        self._all = compile_expressions(exprs, leaves)

    def has_own(self, i: int, f: NodeField) -> bool:
        """Whether expression i depends on the node's own value of f."""
        p = self.program
        by_sums = any((i, k) in p.by_reduction and f in r.own for k, r in enumerate(p.reductions))
        return (i, f) in p.by_field or by_sums

    def has_parameter(self, i: int, q: Parameter) -> bool:
        """Whether expression i depends on the unknown number q."""
        p = self.program
        return (i, q) in p.by_parameter or any(
            (i, k) in p.by_reduction and q in r.by_parameter for k, r in enumerate(p.reductions)
        )

    def values(self, arcs: Arcs, values: NodeValues, features: Features) -> list[Tensor]:
        """The expressions at every node."""
        leaves = _leaves(self._used, values, features)
        for sums in self._sums:
            leaves[sums.reduction.symbol] = sums.value(arcs, leaves, features)
        return self._values(_at_nodes(self._symbols, leaves, arcs.n_nodes))

    def slopes(
        self, arcs: Arcs, values: NodeValues, features: Features, *, absolute: bool = False
    ) -> Slopes:
        """All derivatives; `absolute`: sums of the absolute values of their terms."""
        p, leaves, along = self.program, _leaves(self._used, values, features), []
        for sums in self._sums:
            leaves[sums.reduction.symbol], slopes = sums.slopes(arcs, leaves, features, absolute)
            along.append(slopes)
        found = self._all(_at_nodes(self._symbols, leaves, arcs.n_nodes))[len(p.exprs) :]
        sized = iter([v.abs() for v in found] if absolute else found)
        own = {key: next(sized) for key in p.by_field}
        by_sum = {key: next(sized) for key in p.by_reduction}
        parameters = {key: next(sized) for key in p.by_parameter}
        neighbours = {}
        for (i, k), factor in by_sum.items():
            here, _ = arcs.ends(p.reductions[k].outgoing)
            for f, total in along[k].own.items():
                own[i, f] = own[i, f] + factor * total if (i, f) in own else factor * total
            for f, each in along[k].neighbour.items():
                neighbours[i, k, f] = factor[here] * each
            for q, total in along[k].by_parameter.items():
                known = parameters.get((i, q))
                parameters[i, q] = factor * total if known is None else known + factor * total
        return Slopes(own, neighbours, parameters)


class CompiledValue:
    """A fixed value: an expression in node features and unknown numbers, and its derivatives."""

    def __init__(self, expr: sp.Expr, parameters: tuple[Parameter, ...]) -> None:
        self._expr = expr
        slopes = {p: sp.diff(expr, p) for p in parameters}
        self.by_parameter = {p: slope for p, slope in slopes.items() if slope != 0}

    def value(self, leaves: Mapping[Any, Tensor]) -> Tensor:  # shape: (N,)
        """At every node; `leaves` holds at least one tensor (N,)."""
        return _call(self._expr, leaves)

    def slope(self, p: Parameter, leaves: Mapping[Any, Tensor]) -> Tensor:  # shape: (N,)
        """Its derivative by an unknown number."""
        return _call(self.by_parameter[p], leaves)


def evaluate(
    expr: sp.Expr, arcs: Arcs, values: NodeValues, features: Features
) -> Tensor:  # shape: (A,)
    """An expression along arcs."""
    leaves, symbols = _leaves([expr], values, features), sorted_symbols([expr])
    inputs = at_arcs(symbols, arcs, leaves, features, outgoing=False)
    compiled = compile_expressions([expr], symbols or (sp.Dummy(),))
    return compiled(inputs or [torch.zeros_like(arcs.signs, dtype=_like(leaves).dtype)])[0]


def _call(expr: sp.Expr, leaves: Mapping[Any, Tensor]) -> Tensor:
    symbols = sorted_symbols([expr])
    inputs = [leaves[s] for s in symbols]
    return compile_expressions([expr], symbols or (sp.Dummy(),))(inputs or [_like(leaves)])[0]


def _leaves(exprs: list[Any], values: NodeValues, features: Features) -> dict[Any, Tensor]:
    return {**values.fields, **values.parameters, **features.at_nodes(exprs)}


def _at_nodes(symbols: tuple[Any, ...], leaves: Mapping[Any, Tensor], n: int) -> list[Tensor]:
    """The symbols' values at every node; without symbols one tensor for the shape."""
    return [leaves[s].expand(n) for s in symbols] or [_like(leaves).detach()]


def _like(leaves: Mapping[Any, Tensor]) -> Tensor:
    return next(v for v in leaves.values() if v.ndim)
