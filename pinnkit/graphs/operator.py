"""Operators that contract by construction: from logits on arcs to weights with row sums below one.

In    logits per arc and head, a contraction factor per head.
Out   weights, what balances them, and the right-hand side that goes with known nodes.
Next  `linear_fixed_point` solves with them; `graphs.network` learns the logits.

    degree       w = sigmoid(a) / (arcs into the node)          any graph, parallel arcs counted each
    softmax      w = exp(a) / (exp(leak) + sum of exp(a))        rows add up to one without a leak
    conductance  the same with the two directions of an edge given one number: a network of resistors,
                 symmetric up to the sum of conductances at each node, so that CG applies

Times the factor gamma < 1 each has row sums of at most gamma: h = gamma A h + b has one solution, and a
residual r bounds the error by r / (1 - gamma).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from pinnkit.graphs.arcs import Arcs

__all__ = [
    "NORMALISATIONS",
    "ContractionFactor",
    "Operator",
    "contracting_weights",
    "eliminate_held",
    "paired_arcs",
]

NORMALISATIONS = ("degree", "softmax", "conductance")
# Logits of conductances are not shifted row by row: beyond PLAIN they are bent, to stay below STEEPEST.
PLAIN, STEEPEST = 20.0, 30.0


@final
@dataclass(frozen=True)
class Operator:
    """Weights (A, M) of an operator; `balance` (N, M) where it is symmetric up to a diagonal."""

    weights: Tensor
    balance: Tensor | None = None


def contracting_weights(
    arcs: Arcs,
    logits: Tensor,  # shape: (A, M)
    *,
    normalisation: str = "softmax",
    leak: Tensor | None = None,  # shape: (M,) or (N, M)
) -> Operator:
    """Non-negative weights whose sum on the arcs into any node is at most 1.

    Args:
        arcs: The arcs.
        logits: Any real numbers; none is dead: every one has a gradient.
        normalisation: "degree", "softmax" or "conductance".
        leak: Logit of a loss at each node, for "softmax" and "conductance".

    >>> arcs = Arcs(torch.tensor([0, 0]), torch.tensor([1, 1]), 2)  # parallel arcs
    >>> contracting_weights(arcs, torch.zeros(2, 1)).weights.flatten().tolist()
    [0.5, 0.5]
    """
    if normalisation not in NORMALISATIONS:
        raise ValueError(
            f"normalisation={normalisation!r} must be one of {', '.join(NORMALISATIONS)}"
        )
    if normalisation == "degree":
        if leak is not None:
            raise ValueError('normalisation="degree" has row sums below 1 already: drop leak')
        count = arcs.indegree.to(logits.dtype)[arcs.receivers, None]
        return Operator(torch.sigmoid(logits) / count)
    if normalisation == "softmax":
        return Operator(arcs.softmax(logits, leak))
    both = (logits + logits[paired_arcs(arcs)]) / 2
    conductance = torch.exp(_bent(both))
    total = arcs.sum(conductance)
    if leak is not None:
        total = total + torch.exp(_bent(leak))
    # A node without arcs has no sum; any positive number balances it.
    total = torch.where(total > 0, total, torch.ones_like(total))
    return Operator(conductance / total[arcs.receivers], total)


def _bent(logits: Tensor) -> Tensor:
    beyond = (logits.abs() - PLAIN).clamp(min=0)
    room = STEEPEST - PLAIN
    return logits - logits.sign() * (beyond - room * torch.tanh(beyond / room))


def paired_arcs(arcs: Arcs) -> Tensor:  # shape: (A,)
    """The number of the opposite arc of each arc of an undirected graph."""
    known = arcs.__dict__.get("_pairs")
    if known is not None:
        return known
    half = arcs.n_arcs // 2
    turn = torch.arange(arcs.n_arcs, device=arcs.senders.device).roll(half)
    paired = arcs.n_arcs % 2 == 0 and bool((arcs.senders[turn] == arcs.receivers).all())
    if not paired:
        raise ValueError(
            "the arcs are not those of an undirected graph (each edge forwards, then each backwards, in"
            ' the same order). Use normalisation="softmax" or "degree", or Graph(directed=False).'
        )
    arcs.__dict__["_pairs"] = turn
    return turn


def eliminate_held(
    arcs: Arcs,
    operator: Operator,
    bias: Tensor,  # shape: (N, M)
    held: Tensor,  # shape: (N,), bool
) -> tuple[Operator, Tensor]:
    """The operator among free nodes, and the bias to which held nodes, where h = b, have given theirs.

    Symmetry survives this, which cutting the arcs into held nodes alone would spoil.
    """
    free = ~held
    between = (free[arcs.senders] & free[arcs.receivers]).to(bias.dtype)[:, None]
    inwards = (held[arcs.senders] & free[arcs.receivers]).to(bias.dtype)[:, None]
    given = arcs.sum(operator.weights * inwards * bias[arcs.senders])
    return Operator(operator.weights * between, operator.balance), bias + given


@final
class ContractionFactor(nn.Module):
    """gamma, one per head: a constant, or largest * sigmoid(theta) with theta learned.

    Args:
        heads: Their number M.
        start: Value at the start, in (0, 1).
        learned: "fixed" (no parameter), "shared" (one) or "heads" (one each).
        largest: What learned factors stay below.

    >>> ContractionFactor(2, 0.5)().tolist()
    [0.5, 0.5]
    """

    def __init__(
        self,
        heads: int,
        start: float = 0.5,
        *,
        learned: str = "fixed",
        largest: float = 0.999,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        faults = []
        if learned not in ("fixed", "shared", "heads"):
            faults.append(f'learned={learned!r} must be "fixed", "shared" or "heads"')
        if not 0 < largest < 1:
            faults.append(f"largest={largest} must lie in (0, 1)")
        if not 0 <= start < 1 or (learned != "fixed" and not 0 < start < largest):
            faults.append(f"start={start} must lie in [0, 1), below largest where it is learned")
        if faults:
            raise ValueError("ContractionFactor: " + "; ".join(faults))
        self.heads, self.learned, self.largest = heads, learned, largest
        if learned == "fixed":
            value = torch.full((heads,), start, dtype=dtype, device=device)
            self.register_buffer("value", value)
        else:
            theta = math.log(start / (largest - start))
            count = heads if learned == "heads" else 1
            self.theta = nn.Parameter(torch.full((count,), theta, dtype=dtype, device=device))

    def forward(self) -> Tensor:  # shape: (M,)
        if self.learned == "fixed":
            assert isinstance(self.value, Tensor)
            return self.value
        return (self.largest * torch.sigmoid(self.theta)).expand(self.heads)
