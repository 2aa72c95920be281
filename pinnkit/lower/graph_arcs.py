"""From nodes to arcs and back: gathering values along edges, summing at nodes.

In    a `Graph`, its features as tensors, a `Reduction` of `ir.graph_derivatives`.
Out   `Arcs` (index tensors), `Features`, `ArcSums` (a sum over arcs with its derivatives).
Next  `lower.graph_residual` puts them together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy as sp
import torch
from torch import Tensor

from pinnkit.declare.graph import Graph
from pinnkit.declare.graph_symbols import EdgeFeature, Neighbour, NodeFeature, orientation
from pinnkit.ir.graph_derivatives import Reduction
from pinnkit.ir.graph_form import features_of
from pinnkit.lower.expressions import compile_expressions

__all__ = ["ArcSums", "Arcs", "Features", "at_arcs", "sorted_symbols"]


@dataclass(frozen=True)
class Arcs:
    """Directed passages: sender, receiver, the edge's row, and +1 or -1 along or against the edge."""

    senders: Tensor  # shapes: (A,)
    receivers: Tensor
    edges: Tensor
    signs: Tensor
    n_nodes: int

    @classmethod
    def of(cls, graph: Graph, device: torch.device | str, *, as_given: bool = False) -> Arcs:
        """All arcs of the graph, or each edge once, as it was given."""
        senders, receivers, edges = (torch.tensor(part).to(device) for part in graph.arcs())
        signs = torch.ones(len(edges), dtype=torch.int64, device=device)
        signs[graph.n_edges :] = -1
        keep = slice(graph.n_edges) if as_given else slice(None)
        return cls(senders[keep], receivers[keep], edges[keep], signs[keep], graph.n_nodes)

    def ends(self, outgoing: bool) -> tuple[Tensor, Tensor]:
        """(the node whose equation it is, the neighbour) of every arc."""
        if outgoing:
            return self.senders, self.receivers
        return self.receivers, self.senders


@dataclass(frozen=True)
class Features:
    """The graph's features as tensors of one floating dtype; booleans as 0 and 1."""

    node: Mapping[str, Tensor]
    edge: Mapping[str, Tensor]

    @classmethod
    def of(cls, graph: Graph, device: torch.device | str, dtype: torch.dtype) -> Features:
        def read(given: Mapping[str, Any]) -> dict[str, Tensor]:
            return {name: torch.tensor(v).to(device, dtype) for name, v in given.items()}

        return cls(read(graph.node), read(graph.edge))

    def at_nodes(self, exprs: Iterable[Any]) -> dict[NodeFeature, Tensor]:
        """The node features the expressions use."""
        return {s: _column(self.node[s.name], s.column) for s in features_of(exprs)[0]}

    def at_edge(self, symbol: EdgeFeature) -> Tensor:
        """One edge feature, (E,)."""
        return _column(self.edge[symbol.name], symbol.column)


def _column(values: Tensor, column: int | None) -> Tensor:
    return values if column is None else values[:, column]


def at_arcs(
    symbols: Sequence[Any],
    arcs: Arcs,
    leaves: Mapping[Any, Tensor],
    features: Features,
    outgoing: bool,
) -> list[Tensor]:  # shapes: (A,)
    """The symbols' values on every arc."""
    here, there = arcs.ends(outgoing)
    values = []
    for s in symbols:
        if isinstance(s, Neighbour):
            values.append(leaves[s.of][there])
        elif s == orientation:
            values.append(arcs.signs.to(next(iter(leaves.values())).dtype))
        elif isinstance(s, EdgeFeature):
            along = features.at_edge(s)[arcs.edges]
            values.append(along * arcs.signs.to(along.dtype) if s.odd else along)
        else:
            value = leaves[s]
            values.append(value[here] if value.ndim else value.expand(len(here)))
    return values


def sorted_symbols(exprs: Iterable[Any]) -> tuple[Any, ...]:
    """Every symbol of the expressions, in a fixed order."""
    found: set[Any] = {s for e in exprs for s in e.free_symbols}
    return tuple(sorted(found, key=lambda s: (str(s), type(s).__name__)))


@dataclass(frozen=True)
class ArcSlopes:
    """Derivatives of a sum over arcs: by own values (N,), per arc by the neighbour's (A,)."""

    own: dict[Any, Tensor]
    neighbour: dict[Any, Tensor]
    by_parameter: dict[Any, Tensor]


class ArcSums:
    """A `Reduction` compiled: its value at every node, and its derivatives."""

    def __init__(self, reduction: Reduction) -> None:
        self.reduction = reduction
        parts = [reduction.own, reduction.neighbour, reduction.by_parameter]
        exprs = [reduction.expr, *(e for part in parts for e in part.values())]
        self._symbols = sorted_symbols(exprs)
        leaves = self._symbols or (sp.Dummy(),)
        self._value = compile_expressions(exprs[:1], leaves)
        self._all = compile_expressions(exprs, leaves)

    def value(self, arcs: Arcs, leaves: Mapping[Any, Tensor], features: Features) -> Tensor:
        """The sum or maximum at every node, (N,)."""
        (along,) = self._value(self._inputs(arcs, leaves, features))
        return self._reduce(arcs, along)

    def slopes(
        self, arcs: Arcs, leaves: Mapping[Any, Tensor], features: Features, absolute: bool
    ) -> tuple[Tensor, ArcSlopes]:
        """(the value, its derivatives); of a maximum those of the arc that is largest."""
        along, *rest = self._all(self._inputs(arcs, leaves, features))
        if self.reduction.maximum:
            chosen = _largest(along, arcs.ends(self.reduction.outgoing)[0], arcs.n_nodes)
            on = torch.zeros_like(along)
            on[chosen[chosen >= 0]] = 1
            rest = [on * each for each in rest]
        if absolute:
            rest = [each.abs() for each in rest]
        found = iter(rest)
        r = self.reduction
        own = {f: self._sum(arcs, next(found)) for f in r.own}
        neighbour = {f: next(found) for f in r.neighbour}
        by_parameter = {p: self._sum(arcs, next(found)) for p in r.by_parameter}
        return self._reduce(arcs, along), ArcSlopes(own, neighbour, by_parameter)

    def _inputs(self, arcs: Arcs, leaves: Mapping[Any, Tensor], features: Features) -> list[Tensor]:
        if not self._symbols:  # a number: one tensor for the shape
            like = next(iter(leaves.values()))
            return [torch.zeros(len(arcs.edges), dtype=like.dtype, device=like.device)]
        return at_arcs(self._symbols, arcs, leaves, features, self.reduction.outgoing)

    def _sum(self, arcs: Arcs, along: Tensor) -> Tensor:
        here, _ = arcs.ends(self.reduction.outgoing)
        zero = torch.zeros(arcs.n_nodes, dtype=along.dtype, device=along.device)
        return zero.index_add(0, here, along)

    def _reduce(self, arcs: Arcs, along: Tensor) -> Tensor:
        if not self.reduction.maximum:
            return self._sum(arcs, along)
        chosen = _largest(along, arcs.ends(self.reduction.outgoing)[0], arcs.n_nodes)
        has = chosen >= 0
        if not len(along):
            return torch.full((arcs.n_nodes,), -torch.inf, dtype=along.dtype, device=along.device)
        return torch.where(has, along[chosen.clamp(min=0)], -torch.inf)


def _largest(along: Tensor, here: Tensor, n: int) -> Tensor:  # shape: (n,)
    """The first arc with the largest value at every node, -1 where there is none."""
    values = along.detach()
    top = torch.full((n,), -torch.inf, dtype=values.dtype, device=values.device)
    top = top.scatter_reduce(0, here, values, "amax")
    places = torch.arange(len(values), device=values.device)
    none = torch.full((n,), len(values), device=values.device)
    tops = values == top[here]
    first = none.scatter_reduce(0, here[tops], places[tops], "amin")
    return torch.where(first == len(values), -1, first)
