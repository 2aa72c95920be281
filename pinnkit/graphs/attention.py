"""The encoder: attention message passing from raw features to logits on arcs and biases on nodes.

In    node features (N, a), arc features (A, b), `Arcs`.
Out   (node outputs (N, M), arc outputs (A, M')).
Next  `graphs.network` makes an operator of the latter and solves for the former.

One layer, i the sender and j the receiver of arc e:

    z_e = [x_e; h_i; h_j],  x'_e = MLP_e(z_e),  s_e = MLP_a(z_e),
    t_e = softmax of s over the arcs into j,  g_j = sum or mean of t_e x'_e,  h'_j = MLP_n([g_j; h_j]).

The activation also follows the last linear layer of each MLP. With `norm`, what a layer makes is normalised
over the batch.
References: park2022cgs.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from pinnkit.graphs.arcs import Arcs
from pinnkit.graphs.standardise import BatchNorm
from pinnkit.nn.layers import make_linear

__all__ = ["ACTIVATIONS", "AGGREGATIONS", "AttentionEncoder", "AttentionLayer", "make_mlp"]

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "leaky_relu": nn.LeakyReLU,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
}
AGGREGATIONS = ("sum", "mean", "max")


def make_mlp(
    sizes: Sequence[int],
    activation: str,
    generator: torch.Generator,
    dtype: torch.dtype,
    *,
    last: bool,
) -> nn.Sequential:
    """Linear layers with activations between them, and after the last one if `last`."""
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation={activation!r} must be one of {', '.join(ACTIVATIONS)}")
    parts: list[nn.Module] = []
    for k, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        parts.append(make_linear(inputs, outputs, generator, dtype))
        if last or k < len(sizes) - 2:
            parts.append(ACTIVATIONS[activation]())
    return nn.Sequential(*parts)


@final
class AttentionLayer(nn.Module):
    """One round of messages.

    Args:
        node_inputs, arc_inputs: Widths of the features it takes.
        node_outputs, arc_outputs: Widths of those it makes.
        hidden: Widths within its three MLPs.
        aggregation: "sum" or "mean" of the messages, or "max" of them column by column.
        last: Whether the activation follows the outputs, too.
        norm: Normalise both outputs over the batch.
    """

    def __init__(
        self,
        node_inputs: int,
        arc_inputs: int,
        node_outputs: int,
        arc_outputs: int,
        *,
        hidden: Sequence[int] = (64,),
        activation: str = "leaky_relu",
        aggregation: str = "sum",
        last: bool = True,
        norm: bool = False,
        generator: torch.Generator,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        if aggregation not in AGGREGATIONS:
            raise ValueError(
                f"aggregation={aggregation!r} must be one of {', '.join(AGGREGATIONS)}"
            )
        self.aggregation = aggregation
        joint = arc_inputs + 2 * node_inputs

        def mlp(inputs: int, outputs: int, last: bool) -> nn.Sequential:
            sizes = (inputs, *hidden, outputs)
            return make_mlp(sizes, activation, generator, dtype, last=last)

        self.arc = mlp(joint, arc_outputs, last)
        self.score = mlp(joint, 1, True)
        self.node = mlp(arc_outputs + node_inputs, node_outputs, last)
        kept: dict[str, Any] = {"dtype": dtype, "device": generator.device}
        self.arc_norm = BatchNorm(arc_outputs, **kept) if norm else nn.Identity()
        self.node_norm = BatchNorm(node_outputs, **kept) if norm else nn.Identity()

    def forward(self, arcs: Arcs, nodes: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
        joint = torch.cat([edges, nodes[arcs.senders], nodes[arcs.receivers]], 1)
        edges = self.arc_norm(self.arc(joint))
        if self.aggregation == "max":
            gathered = arcs.largest(edges)
        else:
            messages = arcs.softmax(self.score(joint)) * edges
            gathered = arcs.sum(messages) if self.aggregation == "sum" else arcs.mean(messages)
        return self.node_norm(self.node(torch.cat([gathered, nodes], 1))), edges


@final
class AttentionEncoder(nn.Module):
    """Layers one after the other.

    Args:
        node_inputs, arc_inputs: Raw features.
        node_outputs, arc_outputs: What the last layer makes.
        layers: Their number.
        width: Node and arc features between layers.
        open_end: Whether the last layer's outputs are linear (as published: False).
        norm: Normalise what is between the layers over the batch.
        Others as in `AttentionLayer`.
    """

    def __init__(
        self,
        node_inputs: int,
        arc_inputs: int,
        node_outputs: int,
        arc_outputs: int,
        *,
        layers: int = 1,
        width: int = 64,
        open_end: bool = False,
        norm: bool = False,
        generator: torch.Generator,
        **options: Any,
    ) -> None:
        super().__init__()
        if layers < 1 or width < 1:
            raise ValueError(f"layers={layers} and width={width} must be at least 1")
        between = [(width, width)] * (layers - 1)
        sizes = [(node_inputs, arc_inputs), *between, (node_outputs, arc_outputs)]
        self.layers = nn.ModuleList(
            AttentionLayer(
                *before,
                *after,
                last=not (open_end and k == layers - 1),
                norm=norm and k < layers - 1,
                generator=generator,
                **options,
            )
            for k, (before, after) in enumerate(itertools.pairwise(sizes))
        )

    def forward(self, arcs: Arcs, nodes: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
        for layer in self.layers:
            nodes, edges = layer(arcs, nodes, edges)
        return nodes, edges
