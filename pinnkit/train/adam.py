"""Adam on the gradient of one batch: the baseline, and a warm-up for hard starts.

In    a `ResidualModel` and the memory.
Out   theta advanced by one Adam step (Kingma & Ba 2015).
Next  mostly another optimiser: second order wins on every problem of the gallery.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from pinnkit.train.residual_model import AbstractOptimiser, Memory, ResidualModel, StepReport

__all__ = ["Adam", "moment_faults"]


@final
@dataclass(frozen=True, kw_only=True)
class Adam(AbstractOptimiser):
    """m <- b1 m + (1 - b1) g, v <- b2 v + (1 - b2) g^2, theta <- theta - lr m^ / (sqrt(v^) + eps).

    Args:
        lr: Step size at first.
        decay: Factor on `lr` every 1000 steps.
        betas, eps: As in the paper.

    References: kingma2015adam.
    """

    lr: float = 1e-3
    decay: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-12

    def __post_init__(self) -> None:
        faults = moment_faults(self.lr, self.decay, self.betas, self.eps)
        if faults:
            raise ValueError("Adam: " + "; ".join(faults))

    def init(self, theta: Tensor) -> Memory:
        zeros = torch.zeros_like(theta)
        return {"theta": theta.detach().clone(), "m": zeros, "v": zeros.clone(), "count": 0}

    def step(self, model: ResidualModel, memory: Memory) -> StepReport:
        theta, count = memory["theta"], memory["count"] + 1
        loss, gradient = model.gradient(theta)
        if not math.isfinite(loss):
            return StepReport(loss, loss, -math.inf, False)
        b1, b2 = self.betas
        m = b1 * memory["m"] + (1 - b1) * gradient
        v = b2 * memory["v"] + (1 - b2) * gradient.square()
        rate = self.lr * self.decay ** (count / 1000)
        update = rate * (m / (1 - b1**count)) / ((v / (1 - b2**count)).sqrt() + self.eps)
        memory.update(theta=theta - update, m=m, v=v, count=count)
        return StepReport(loss, loss, math.nan, True)


def moment_faults(lr: float, decay: float, betas: tuple[float, float], eps: float) -> list[str]:
    """What is wrong with the settings of Adam and its relatives, in words."""
    faults = []
    if not lr > 0:
        faults.append(f"lr={lr} must be positive")
    if not 0 < decay <= 1:
        faults.append(f"decay={decay} must lie in (0, 1]")
    if len(betas) != 2 or not all(0 <= b < 1 for b in betas):
        faults.append(f"betas={betas} must be two numbers in [0, 1)")
    if not eps > 0:
        faults.append(f"eps={eps} must be positive")
    return faults
