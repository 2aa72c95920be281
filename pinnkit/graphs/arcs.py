"""Arcs as tensors: who sends to whom, which graph a node is in, and the layouts products need.

In    senders and receivers, or a `Graph` or several.
Out   `Arcs`: sums over the arcs into a node, a softmax over them, blocks of graphs of similar size.
Next  `graphs.linear_fixed_point` multiplies by them, `graphs.attention` passes messages along them.

An operator is A[receiver, sender]. Parallel arcs add up; nothing here has a row and a column per node.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import torch
from torch import Tensor

from pinnkit.declare.graph import Graph

__all__ = ["Arcs", "Block"]

LARGEST_INDEX = 2**31 - 1
WASTE = 2  # padded nodes of a block at most, relative to its nodes


@final
class Arcs:
    """The arcs of one graph, or of several one after the other.

    Args:
        senders, receivers: Node numbers, shape (A,).
        n_nodes: Their number N.
        node_graph: The graph of every node, shape (N,), not decreasing; None: one graph.
        edge_index: The row of the edge features that each arc reads; None: its own number.

    >>> arcs = Arcs(torch.tensor([0, 1, 1]), torch.tensor([1, 0, 0]), 2)
    >>> arcs.sum(torch.tensor([[1.0], [2.0], [3.0]])).tolist()
    [[5.0], [1.0]]
    """

    def __init__(
        self,
        senders: Tensor,
        receivers: Tensor,
        n_nodes: int,
        node_graph: Tensor | None = None,
        *,
        edge_index: Tensor | None = None,
    ) -> None:
        _check_ends(senders, receivers, n_nodes)
        self.senders, self.receivers, self.n_nodes = senders, receivers, n_nodes
        if node_graph is None:
            node_graph = torch.zeros(n_nodes, dtype=torch.int64, device=senders.device)
        _check_graphs(node_graph, senders, receivers, n_nodes)
        self.node_graph = node_graph
        if edge_index is None:
            edge_index = torch.arange(len(senders), device=senders.device)
        self.edge_index = edge_index

    @classmethod
    def of(cls, graphs: Graph | Iterable[Graph], *, device: torch.device | str = "cpu") -> Arcs:
        """The arcs of a `Graph`, or of several as one batch."""
        whole, node_graph, _ = Graph.batch([graphs] if isinstance(graphs, Graph) else graphs)
        senders, receivers, index = (_tensor(part, device) for part in whole.arcs())
        return cls(senders, receivers, whole.n_nodes, _tensor(node_graph, device), edge_index=index)

    @property
    def n_arcs(self) -> int:
        """Their number A."""
        return len(self.senders)

    @cached_property
    def n_edges(self) -> int:
        """Edges, of which an undirected one is two arcs."""
        return int(self.edge_index.max()) + 1 if len(self.edge_index) else 0

    @cached_property
    def n_graphs(self) -> int:
        """The number of graphs G; at least one."""
        return int(self.node_graph[-1]) + 1 if self.n_nodes else 1

    @cached_property
    def graph_sizes(self) -> Tensor:  # shape: (G,)
        """Nodes per graph."""
        return torch.bincount(self.node_graph, minlength=self.n_graphs)

    @cached_property
    def indegree(self) -> Tensor:  # shape: (N,)
        """Arcs into each node, parallel ones counted each."""
        return torch.bincount(self.receivers, minlength=self.n_nodes)

    @cached_property
    def reversed(self) -> Arcs:
        """The same arcs in the opposite direction: the transposed operator."""
        turned = Arcs(
            self.receivers,
            self.senders,
            self.n_nodes,
            self.node_graph,
            edge_index=self.edge_index,
        )
        turned.__dict__["reversed"] = self
        return turned

    def sum(self, messages: Tensor) -> Tensor:  # shapes: (A, ...) -> (N, ...)
        """At every node the sum of the messages on the arcs into it."""
        total = messages.new_zeros(self.n_nodes, *messages.shape[1:])
        return total.index_add(0, self.receivers, messages)

    def mean(self, messages: Tensor) -> Tensor:  # shapes: (A, ...) -> (N, ...)
        """The mean instead; 0 where no arc arrives."""
        count = self.indegree.clamp(min=1).to(messages.dtype)
        return self.sum(messages) / count.reshape(-1, *([1] * (messages.ndim - 1)))

    def largest(self, messages: Tensor) -> Tensor:  # shapes: (A, M) -> (N, M)
        """The largest instead, column by column; 0 where no arc arrives."""
        where = self.receivers[:, None].expand_as(messages)
        start = messages.new_zeros(self.n_nodes, messages.shape[1])
        return start.scatter_reduce(0, where, messages, "amax", include_self=False)

    def softmax(
        self,
        logits: Tensor,  # shape: (A, M)
        leak: Tensor | None = None,  # shape: (M,) or (N, M)
    ) -> Tensor:  # shape: (A, M)
        """exp(a) over the sum of exp(a) on all arcs into the same node, plus exp(leak) where given."""
        with torch.no_grad():  # a shift changes nothing but the range of the exponentials
            shift = self.largest(logits.detach())
            if leak is not None:
                shift = torch.maximum(shift, leak.detach().expand_as(shift))
        exps = torch.exp(logits - shift[self.receivers])
        total = self.sum(exps)
        if leak is not None:
            total = total + torch.exp(leak - shift)
        return exps / total[self.receivers]

    def over_graphs(self, values: Tensor) -> Tensor:  # shapes: (N, ...) -> (G, ...)
        """Sums of node values over each graph."""
        total = values.new_zeros(self.n_graphs, *values.shape[1:])
        return total.index_add(0, self.node_graph, values)

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """All graphs with nodes, in groups of similar size: padding at most doubles a group."""
        sizes = self.graph_sizes.tolist()
        by_size = sorted((g for g in range(len(sizes)) if sizes[g]), key=lambda g: -sizes[g])
        groups: list[list[int]] = []
        nodes = 0
        for g in by_size:
            grown = nodes + sizes[g]
            if not groups or (len(groups[-1]) + 1) * sizes[groups[-1][0]] > WASTE * grown:
                groups.append([])
                grown = sizes[g]
            groups[-1].append(g)
            nodes = grown
        return tuple(self._block(sorted(group)) for group in groups)

    def _block(self, graphs: list[int]) -> Block:
        device = self.senders.device
        size = int(self.graph_sizes[graphs].max())
        chosen = torch.tensor(graphs, device=device)
        rank = torch.full((self.n_graphs,), -1, device=device)
        rank[chosen] = torch.arange(len(graphs), device=device)
        starts = self.graph_sizes.cumsum(0) - self.graph_sizes
        node_rank = rank[self.node_graph]
        local = torch.arange(self.n_nodes, device=device) - starts[self.node_graph]
        places = node_rank * size + local  # meaningless outside the block
        nodes = (node_rank >= 0).nonzero()[:, 0]
        mine = (node_rank[self.receivers] >= 0).nonzero()[:, 0]
        order = mine[torch.argsort(places[self.receivers[mine]], stable=True)]
        rows = len(graphs) * size
        counts = torch.bincount(places[self.receivers[order]], minlength=rows)
        return Block(
            graphs=chosen,
            size=size,
            nodes=nodes,
            places=places[nodes],
            order=order,
            counts=counts,
            columns=places[self.senders[order]],
        )


@final
@dataclass(frozen=True)
class Block:
    """Some of the graphs, each padded with lonely nodes to `size`, so that samples are rows.

    Args:
        graphs: Their numbers, shape (g,).
        size: Nodes of the largest.
        nodes: Numbers of their nodes, shape (n,).
        places: Where these are in the padded vector, shape (n,).
        order: Their arcs sorted by the receiver's place, shape (a,).
        counts: Arcs into each place, shape (g * size,).
        columns: The sender's place of the sorted arcs, shape (a,).
    """

    graphs: Tensor
    size: int
    nodes: Tensor
    places: Tensor
    order: Tensor
    counts: Tensor
    columns: Tensor

    def padded(self, values: Tensor) -> Tensor:  # shapes: (N, M) -> (M g, size)
        """Node values as one row per head and graph."""
        heads, rows = values.shape[1], len(self.graphs) * self.size
        flat = values.new_zeros(heads, rows)
        flat[:, self.places] = values[self.nodes].T
        return flat.reshape(heads * len(self.graphs), self.size)

    def unpadded(self, z: Tensor, out: Tensor) -> None:  # shapes: (M g, size), (N, M)
        """Write such rows back to their nodes."""
        heads = out.shape[1]
        out[self.nodes] = z.reshape(heads, -1)[:, self.places].T

    def entries(self, weights: Tensor) -> Tensor:  # shapes: (A, M) -> (M, a)
        """The weights in the order of the matrix."""
        return weights[self.order].T.contiguous()

    def pattern(self, heads: int) -> tuple[Tensor, Tensor]:
        """(row pointers, columns) of the block-diagonal matrix of all heads."""
        arcs, rows = len(self.order), len(self.counts)
        small = heads * max(arcs, rows) <= LARGEST_INDEX
        # 32-bit indices where they suffice: half the memory, and what fast products take as they are.
        kind = torch.int32 if small else torch.int64
        head = torch.arange(heads, device=self.counts.device)[:, None]
        ends = self.counts.cumsum(0) + head * arcs
        pointers = torch.cat([ends.new_zeros(1), ends.flatten()]).to(kind)
        return pointers, (self.columns + head * rows).flatten().to(kind)


def _tensor(array: Any, device: torch.device | str) -> Tensor:
    return torch.tensor(array, dtype=torch.int64, device=device)


def _check_ends(senders: Tensor, receivers: Tensor, n_nodes: int) -> None:
    for name, ends in (("senders", senders), ("receivers", receivers)):
        if not isinstance(ends, Tensor) or ends.ndim != 1 or ends.dtype != torch.int64:
            raise ValueError(f"{name} must be a tensor of node numbers, int64 of shape (A,)")
        if len(ends) and not 0 <= int(ends.min()) <= int(ends.max()) < n_nodes:
            raise ValueError(
                f"{name} hold numbers from {int(ends.min())} to {int(ends.max())}, but nodes are"
                f" numbered 0 to {n_nodes - 1}"
            )
    if len(senders) != len(receivers):
        raise ValueError(f"there are {len(senders)} senders and {len(receivers)} receivers")


def _check_graphs(node_graph: Tensor, senders: Tensor, receivers: Tensor, n_nodes: int) -> None:
    if node_graph.shape != (n_nodes,) or bool((node_graph.diff() < 0).any()):
        raise ValueError(
            f"node_graph must name the graph of each of the {n_nodes} nodes, graph after graph"
        )
    if bool((node_graph[senders] != node_graph[receivers]).any()):
        raise ValueError("an arc joins nodes of different graphs: node_graph does not fit the arcs")
