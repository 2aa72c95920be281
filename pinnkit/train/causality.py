"""Causal weights: the residual at a time waits until earlier times are solved.

In    squared scaled residuals at probe points, and their times.
Out   weights in (0, 1] at any times; 1 exactly at the start, never increasing in time.
Next  they multiply squared residuals of a batch (as square roots on rows), frozen for one step.

w(t) = exp(-eps * integral_0^t <r^2>(s) ds), time scaled to [0, 1] over the window and <r^2> the mean
over space. An integral, not a sum over slices: doubling the number of slices changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["CausalSchedule", "causal_weights", "slice_means"]


def slice_means(
    times: Tensor,  # shape: (n,), scaled to [0, 1]
    squared: Tensor,  # shape: (n, e)
    slices: int,
) -> Tensor:  # shape: (s, e)
    """Mean squared residual per time slice and equation; an empty slice takes its predecessor's mean.

    The points must be uniform (a held-out probe), not residual-adaptive: those would count the
    places where the residual is large twice.
    """
    index = (times * slices).long().clamp(0, slices - 1)
    total = times.new_zeros(slices, squared.shape[1]).index_add_(0, index, squared)
    count = times.new_zeros(slices).index_add_(0, index, torch.ones_like(times))
    mean = total / count.clamp(min=torch.finfo(times.dtype).tiny)[:, None]
    for k in torch.nonzero(count == 0)[:, 0].tolist():
        mean[k] = mean[k - 1] if k > 0 else 0.0
    return mean


def causal_weights(
    times: Tensor,  # shape: (n,), scaled to [0, 1]
    means: Tensor,  # shape: (s, e)
    eps: float,
) -> Tensor:  # shape: (n,)
    """exp(-eps * integral of `means` up to each time); over equations the smallest weight counts."""
    slices = means.shape[0]
    # Exclusive sum: an inclusive one would damp slice 1 by its own residual.
    before = torch.cat([means.new_zeros(1, means.shape[1]), means.cumsum(0)]) / slices
    position = (times * slices).clamp(0.0, float(slices))
    index = position.long().clamp(max=slices - 1)
    inside = (position - index)[:, None]
    integral = (1 - inside) * before[index] + inside * before[index + 1]
    return torch.exp(-eps * integral.amax(1)).detach()


@dataclass(frozen=True)
class CausalSchedule:
    """Strengths eps tried in order; the last stage is eps = 0, all weights 1.

    Args:
        strengths: Increasing eps (paper: [1e-2 .. 100] for residuals of its own scale; ours are
            scaled to O(1) and the exponent is an integral over [0, 1], so larger ones are needed).
        stop_weight: Go on to the next strength when the smallest weight exceeds this (paper: 0.99).

    References: wang2024causality.
    """

    strengths: Sequence[float] = (1.0, 1e1, 1e2, 1e3)
    stop_weight: float = 0.95

    def eps(self, stage: int) -> float:
        """The strength of a stage; 0 from the last one on."""
        return self.strengths[stage] if stage < len(self.strengths) else 0.0

    def is_last(self, stage: int) -> bool:
        """Whether all weights are 1."""
        return stage >= len(self.strengths)

    def advance(self, stage: int, means: Tensor) -> int:
        """The first stage from this one on whose weight at the end of the window is too small yet."""
        while not self.is_last(stage):
            end = causal_weights(means.new_ones(1), means, self.eps(stage))
            if float(end) <= self.stop_weight:
                break
            stage += 1
        return stage
