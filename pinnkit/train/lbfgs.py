"""L-BFGS: a quasi-Newton method that remembers the last steps in place of a matrix.

In    a `ResidualModel` whose batch stays the same for many steps, and the memory.
Out   theta moved along -H g by a strong Wolfe line search; H is a product of the last `history` pairs.
Next  what SelfScaledBroyden is for small networks, this is for those whose P^2 numbers do not fit.

With s_i the steps, y_i the changes of the gradient and rho_i = 1 / y_i's_i, H g is two loops
(Nocedal 1980): from the newest pair to the oldest a_i = rho_i s_i'q, q <- q - a_i y_i; then
q <- (s'y / y'y) q with the newest pair; then back, q <- q + (a_i - rho_i y_i'q) s_i.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from pinnkit.train.line_search import strong_wolfe, wolfe_faults
from pinnkit.train.residual_model import AbstractOptimiser, Memory, ResidualModel, StepReport

__all__ = ["LBFGS", "two_loops"]


@final
@dataclass(frozen=True, kw_only=True)
class LBFGS(AbstractOptimiser):
    """Limited-memory BFGS on one batch.

    Args:
        history: Pairs of steps and changes of the gradient that are kept.
        tries: Evaluations of the line search.
        armijo, curvature: Wolfe constants c1 and c2.

    References: nocedal1980updating, liu1989lbfgs.
    """

    steps_per_batch: ClassVar[int | None] = 200  # y is a difference on the same points

    history: int = 100
    tries: int = 20
    armijo: float = 1e-4
    curvature: float = 0.9

    def __post_init__(self) -> None:
        faults = wolfe_faults(self.tries, self.armijo, self.curvature)
        if self.history < 1:
            faults.insert(0, f"history={self.history} must be at least 1")
        if faults:
            raise ValueError("LBFGS: " + "; ".join(faults))

    def init(self, theta: Tensor) -> Memory:
        none = theta.new_zeros(0, len(theta))
        return {"theta": theta.detach().clone(), "steps": none, "changes": none.clone()}

    def step(self, model: ResidualModel, memory: Memory) -> StepReport:
        theta = memory["theta"]
        loss, g = model.gradient(theta)
        if not math.isfinite(loss):
            return StepReport(loss, loss, -math.inf, False)
        direction = -two_loops(g, memory["steps"], memory["changes"])
        slope = float(g @ direction)
        if not slope < 0:  # rounding made H indefinite: start again from steepest descent
            memory.update(self.init(theta))
            direction = -g
            slope = float(g @ direction)
            if slope == 0:
                return StepReport(loss, loss, math.nan, False)
        first = 1.0 if len(memory["steps"]) else 1.0 / max(1.0, float(g.norm()))
        found = strong_wolfe(
            model, theta, direction, loss, slope, first,
            tries=self.tries, armijo=self.armijo, curvature=self.curvature,
        )  # fmt: skip
        if found is None:
            # A line search that fails along -Hg says that H is stale (other points, rounding).
            memory.update(self.init(theta))
            return StepReport(loss, loss, -math.inf, False)
        s, y = found.alpha * direction, found.gradient - g
        memory.update(theta=theta + s)
        if float(y @ s) > torch.finfo(s.dtype).eps * float(s.norm() * y.norm()):
            memory.update(
                steps=torch.cat([memory["steps"], s[None]])[-self.history :],
                changes=torch.cat([memory["changes"], y[None]])[-self.history :],
            )
        gain = (loss - found.loss) / max(-found.alpha * slope, 1e-300)
        return StepReport(loss, found.loss, gain, True)


def two_loops(
    g: Tensor,  # shape: (P,)
    steps: Tensor,  # shape: (k, P), oldest first
    changes: Tensor,  # shape: (k, P)
) -> Tensor:  # shape: (P,)
    """H g; g itself where nothing is remembered."""
    if not len(steps):
        return g
    products = (steps * changes).sum(1)
    pairs = list(zip(steps.unbind(), changes.unbind(), products.unbind(), strict=True))
    q, shares = g, []
    for s, y, ys in reversed(pairs):
        shares.append((s @ q) / ys)
        q = q - shares[-1] * y
    q = q * (products[-1] / changes[-1].square().sum())
    for (s, y, ys), share in zip(pairs, reversed(shares), strict=True):
        q = q + (share - (y @ q) / ys) * s
    return q
