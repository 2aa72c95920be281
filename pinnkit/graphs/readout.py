"""From nodes to a whole graph: the sum, the mean or the largest of its node states.

In    node states (N, M), `Arcs` that say which graph each node is in.
Out   (G, M).
Next  the decoders of `graphs.network` and of its rivals in `graphs.baselines`.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from pinnkit.graphs.arcs import Arcs

__all__ = ["Readout"]

READOUTS = ("sum", "mean", "max")


@final
class Readout(nn.Module):
    """Gathers the nodes of each graph.

    Sums are divided by the mean number of nodes in the training set, which says as much and keeps what
    the decoder sees of size one: after sums over a hundred nodes one step of an optimiser moves the
    answer a hundred times as far.

    Args:
        kind: "sum", "mean" or "max".

    >>> arcs = Arcs(torch.tensor([0]), torch.tensor([1]), 3, torch.tensor([0, 0, 1]))
    >>> readout = Readout("sum")
    >>> readout(arcs, torch.ones(3, 1)).tolist(), readout.fit(arcs)(arcs, torch.ones(3, 1)).tolist()
    ([[2.0], [1.0]], [[1.3333333730697632], [0.6666666865348816]])
    """

    typical: Tensor

    def __init__(self, kind: str = "sum", *, device: torch.device | str = "cpu") -> None:
        super().__init__()
        if kind not in READOUTS:
            raise ValueError(f"readout={kind!r} must be one of {', '.join(READOUTS)}")
        self.kind = kind
        self.register_buffer("typical", torch.ones((), dtype=torch.float64, device=device))

    def fit(self, arcs: Arcs) -> Readout:
        """Take the mean number of nodes from these graphs; returns itself."""
        self.typical.fill_(max(1.0, arcs.n_nodes / arcs.n_graphs))
        return self

    def forward(self, arcs: Arcs, h: Tensor) -> Tensor:  # shapes: (N, M) -> (G, M)
        if self.kind == "max":
            where = arcs.node_graph[:, None].expand_as(h)
            start = h.new_zeros(arcs.n_graphs, h.shape[1])
            return start.scatter_reduce(0, where, h, "amax", include_self=False)
        total = arcs.over_graphs(h)
        if self.kind == "mean":
            return total / arcs.graph_sizes.clamp(min=1).to(h.dtype)[:, None]
        return total / self.typical.to(h.dtype)
