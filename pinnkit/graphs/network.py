"""The convergent graph network: encode, solve a contracting fixed point on the graph, decode.

In    node and edge features, `Arcs`; nodes whose values are known.
Out   a value per node, edge or graph, and the `Record` of the fixed point with its certificate.
Next  `solvers.ConvergentGraphSolver` trains it from a declaration; as a module it trains as any other.

    (b, a) = encoder(features),   A = weights from a,   h = gamma A h + b,   y = decoder(h),

and of whole graphs y = decoder(sum of MLP(h_i)) where a node decoder is asked for;

one operator per head, each a contraction by gamma whatever the weights: the solution exists, is unique
and can be certified. What the encoder sees of a few hops the fixed point carries across the graph.
References: park2022cgs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn

from pinnkit.graphs.arcs import Arcs
from pinnkit.graphs.attention import AttentionEncoder, make_mlp
from pinnkit.graphs.linear_fixed_point import linear_fixed_point
from pinnkit.graphs.operator import (
    NORMALISATIONS,
    ContractionFactor,
    Operator,
    contracting_weights,
    eliminate_held,
)
from pinnkit.graphs.readout import Readout
from pinnkit.graphs.standardise import BatchNorm, Standardiser
from pinnkit.implicit.iteration import AbstractMethod
from pinnkit.implicit.record import Record
from pinnkit.nn.layers import make_linear

__all__ = ["ConvergentGraphNetwork", "Prior", "check_target", "decoder_inputs", "edges_on_arcs"]

TARGETS = ("node", "edge", "graph")
SOURCES = ("plain", "mean", "message")


class Prior(NamedTuple):
    """A further head whose operator is given: weights (A, 1), bias (N, 1), balance (N, 1)."""

    weights: Tensor
    bias: Tensor
    balance: Tensor | None = None


@final
class ConvergentGraphNetwork(nn.Module):
    """A graph network whose long range is the solution of a contracting equation.

    With the defaults the published network, parameter for parameter (but a sigmoid in place of a clip
    that kills gradients).

    Args:
        node_inputs, edge_inputs: Widths of the raw features.
        outputs: Numbers per node, edge or graph.
        target: "node", "edge" or "graph".
        heads: Fixed points solved beside each other (M).
        layers, width, hidden, activation, aggregation: Of the encoder, see `AttentionEncoder`.
        decoder: Hidden widths of the decoder.
        node_decoder: For whole graphs: hidden widths of an MLP that each node's states pass before they are
            gathered, so that nodes in one state can be told from nodes in another and be counted. (): the
            states themselves are gathered, of which a sum says no more than that of b, weighted.
        norm: Normalise between layers of the encoder and before the readout, over the batch; for
            training sets of many graphs.
        normalisation: Of the weights, see `contracting_weights`.
        leak: Learn a loss per head at each node, with "softmax" and "conductance".
        factor, learned, largest: Of the contraction, see `ContractionFactor`; factor=0 cuts the edges
            of the fixed point.
        source: What the encoder's b is: "plain", h = gamma A h + b; "mean", h = gamma A h +
            (1 - gamma row sums) b, so that h is a weighted mean of b and never larger; "message",
            plain plus a source on every arc, h_r = sum of w (gamma h_s + u) + b_r.
        readout: How graphs gather their nodes: "sum", "mean" or "max".
        skip: Add linear maps past the encoder (from edge features to logits) and the decoder.
        priors: Further heads whose operators are given with each call, see `Prior`.
        solver, rtol, max_steps: Of the fixed point, see `linear_fixed_point`.
        generator: Source of the initial weights.

    >>> gen = torch.Generator().manual_seed(0)
    >>> network = ConvergentGraphNetwork(5, 3, heads=16, generator=gen)
    >>> sum(p.numel() for p in network.parameters())
    8546
    """

    def __init__(
        self,
        node_inputs: int,
        edge_inputs: int,
        outputs: int = 1,
        *,
        target: str = "node",
        heads: int = 16,
        layers: int = 1,
        width: int = 64,
        hidden: Sequence[int] = (64,),
        activation: str = "leaky_relu",
        aggregation: str = "sum",
        decoder: Sequence[int] = (64, 32),
        node_decoder: Sequence[int] = (),
        norm: bool = False,
        normalisation: str = "degree",
        leak: bool = False,
        factor: float = 0.5,
        learned: str = "fixed",
        largest: float = 0.999,
        source: str = "plain",
        readout: str = "sum",
        skip: bool = False,
        priors: int = 0,
        solver: AbstractMethod | None = None,
        rtol: float | None = None,
        max_steps: int = 1000,
        generator: torch.Generator,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        check_target(target)
        for name, value, known in (
            ("normalisation", normalisation, NORMALISATIONS),
            ("source", source, SOURCES),
        ):
            if value not in known:
                raise ValueError(f"{name}={value!r} must be one of {', '.join(known)}")
        if heads < 1 or outputs < 1:
            raise ValueError(f"heads={heads} and outputs={outputs} must be at least 1")
        device = generator.device
        self.target, self.normalisation = target, normalisation
        self.source, self.heads = source, heads
        self.solver, self.rtol, self.max_steps = solver, rtol, max_steps
        kept: dict[str, Any] = {"dtype": dtype, "device": device}
        self.node_scale = Standardiser(node_inputs, **kept)
        self.edge_scale = Standardiser(edge_inputs, **kept)
        self.target_scale = Standardiser(outputs, logarithms=False, **kept)
        self.readout = Readout(readout, device=device)
        self.encoder = AttentionEncoder(
            node_inputs,
            edge_inputs,
            heads,
            2 * heads if source == "message" else heads,
            layers=layers,
            width=width,
            open_end=skip,
            hidden=hidden,
            activation=activation,
            aggregation=aggregation,
            norm=norm,
            generator=generator,
            dtype=dtype,
        )
        self.factor = ContractionFactor(heads, factor, learned=learned, largest=largest, **kept)
        self.leak = nn.Parameter(torch.full((heads,), -2.0, **kept)) if leak else None
        inputs = decoder_inputs(target, heads + priors, edge_inputs)
        self.node_decoder = None
        if node_decoder:
            if target != "graph":
                raise ValueError(
                    f"node_decoder= is for target='graph', not {target!r}: decoder= is what nodes pass"
                )
            sizes = (inputs, *node_decoder, inputs)
            self.node_decoder = make_mlp(sizes, activation, generator, dtype, last=True)
            if norm:
                self.node_decoder.append(BatchNorm(inputs, **kept))
        self.decoder = make_mlp(
            (inputs, *decoder, outputs), activation, generator, dtype, last=False
        )
        self.past_encoder = self.past_decoder = None
        if skip:
            self.past_encoder = make_linear(edge_inputs, heads, generator, dtype)
            self.past_decoder = make_linear(inputs, outputs, generator, dtype)

    def forward(
        self,
        arcs: Arcs,
        nodes: Tensor,  # shape: (N, a)
        edges: Tensor,  # shape: (E, b), or (A, b) where the direction matters
        held: Tensor | None = None,  # shape: (N,), bool
        prior: Prior | None = None,
    ) -> tuple[Tensor, Record]:  # shape: (N, E or G, outputs)
        """Values in the units of the target, and how the fixed point was found.

        At `held` nodes every head keeps the value that the encoder gives it.
        """
        h, edges, record = self.states(arcs, nodes, edges, held, prior)
        read = self._read(arcs, h, edges)
        y = self.decoder(read)
        if self.past_decoder is not None:
            y = y + self.past_decoder(read)
        return self.target_scale.back(y), record

    def states(
        self,
        arcs: Arcs,
        nodes: Tensor,
        edges: Tensor,
        held: Tensor | None = None,  # shape: (N,), bool
        prior: Prior | None = None,
    ) -> tuple[Tensor, Tensor, Record]:
        """(the fixed point (N, M), the edges' scaled features, the record)."""
        operator, bias, edges = self.equation(arcs, nodes, edges, held, prior)
        h, record = linear_fixed_point(
            arcs,
            operator.weights,
            bias,
            balance=operator.balance,
            solver=self.solver,
            rtol=self.rtol,
            max_steps=self.max_steps,
        )
        return h, edges, record

    def equation(
        self,
        arcs: Arcs,
        nodes: Tensor,
        edges: Tensor,
        held: Tensor | None = None,  # shape: (N,), bool
        prior: Prior | None = None,
    ) -> tuple[Operator, Tensor, Tensor]:
        """(gamma A, b, the edges' scaled features): what is solved."""
        nodes, edges = self.node_scale(nodes), self.edge_scale(edges)
        on_arcs = edges_on_arcs(arcs, edges)
        bias, found = self.encoder(arcs, nodes, on_arcs)
        logits = found[:, : self.heads]
        if self.past_encoder is not None:
            logits = logits + self.past_encoder(on_arcs)
        operator = contracting_weights(
            arcs, logits, normalisation=self.normalisation, leak=self.leak
        )
        factor = self.factor()
        weights = factor * operator.weights
        if self.source == "mean":
            share = 1 - arcs.sum(weights)
            if held is not None:
                share = torch.where(held[:, None], torch.ones_like(share), share)
            bias = share * bias
        elif self.source == "message":
            sent = arcs.sum(operator.weights * found[:, self.heads :])
            bias = bias + (sent if held is None else sent * ~held[:, None])
        operator = Operator(weights, operator.balance)
        if prior is not None:
            operator, bias = _joined(operator, bias, prior)
        if held is not None:
            operator, bias = eliminate_held(arcs, operator, bias, held)
        return operator, bias, edges

    def _read(self, arcs: Arcs, h: Tensor, edges: Tensor) -> Tensor:
        """What the decoder decodes."""
        if self.target == "node":
            return h
        if self.target == "edge":
            # Arcs in the direction the edges were given come first, one per edge.
            count = arcs.n_edges
            edges = edges[:count]
            return torch.cat([h[arcs.senders[:count]], h[arcs.receivers[:count]], edges], 1)
        return self.readout(arcs, h if self.node_decoder is None else self.node_decoder(h))


def edges_on_arcs(arcs: Arcs, edges: Tensor) -> Tensor:  # shapes: (E, b) or (A, b) -> (A, b)
    """Features of arcs, from those of edges where only these are given."""
    if len(edges) == arcs.n_arcs:
        return edges
    if len(edges) != arcs.n_edges:
        raise ValueError(
            f"there are {len(edges)} rows of edge features for {arcs.n_edges} edges, {arcs.n_arcs} arcs"
        )
    return edges[arcs.edge_index]


def decoder_inputs(target: str, heads: int, edge_inputs: int) -> int:
    """The width of what a decoder reads: both ends and the features of an edge."""
    return 2 * heads + edge_inputs if target == "edge" else heads


def check_target(target: str) -> None:
    if target not in TARGETS:
        raise ValueError(f"target={target!r} must be one of {', '.join(TARGETS)}")


def _joined(operator: Operator, bias: Tensor, prior: Prior) -> tuple[Operator, Tensor]:
    weights = torch.cat([operator.weights, prior.weights], 1)
    balance = None
    if operator.balance is not None and prior.balance is not None:
        balance = torch.cat([operator.balance, prior.balance], 1)
    return Operator(weights, balance), torch.cat([bias, prior.bias], 1)
