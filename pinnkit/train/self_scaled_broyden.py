"""Self-scaled Broyden: a quasi-Newton method that keeps a dense inverse Hessian.

In    a `ResidualModel` whose batch stays the same for many steps, and the memory.
Out   theta moved along -H g by a Wolfe line search, H updated (formulas: Al-Baali; SSBroyden2).
Next  polishing on fixed points after Gauss-Newton, or alone for small networks.

With s the step, y the change of the gradient, b = s'Bs / y's, h = y'Hy / y's, a = b h - 1:
theta_- = (rho_- - 1)/a and theta_+ = 1/rho_- bound the Broyden parameter, theta = clip((1-b)/b),
and H+ = (1/tau) [H - H y y'H / y'Hy + phi (y'Hy) v v'] + rho s s', v = rho s - H y / y'Hy.
Memory is P^2 numbers: for up to about 5,000 parameters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from pinnkit.train.line_search import strong_wolfe, wolfe_faults
from pinnkit.train.residual_model import AbstractOptimiser, Memory, ResidualModel, StepReport

__all__ = ["SelfScaledBroyden", "broyden_update"]


@final
@dataclass(frozen=True, kw_only=True)
class SelfScaledBroyden(AbstractOptimiser):
    """SSBroyden2 with a strong Wolfe line search on one batch.

    Args:
        tries: Evaluations of the line search.
        armijo, curvature: Wolfe constants c1 and c2.

    References: albaali1998ssbroyden, urban2025selfscaled, kiyani2025optimizer.
    """

    steps_per_batch: ClassVar[int | None] = 200  # H is built from differences on the same points

    tries: int = 20
    armijo: float = 1e-4
    curvature: float = 0.9

    def __post_init__(self) -> None:
        faults = wolfe_faults(self.tries, self.armijo, self.curvature)
        if faults:
            raise ValueError("SelfScaledBroyden: " + "; ".join(faults))

    def init(self, theta: Tensor) -> Memory:
        return {
            "theta": theta.detach().clone(),
            "inverse": torch.eye(len(theta), dtype=theta.dtype, device=theta.device),
            "first": True,
        }

    def step(self, model: ResidualModel, memory: Memory) -> StepReport:
        theta, inverse = memory["theta"], memory["inverse"]
        loss, g = model.gradient(theta)
        if not math.isfinite(loss):
            return StepReport(loss, loss, -math.inf, False)
        direction = -(inverse @ g)
        slope = float(g @ direction)
        if not slope < 0:  # rounding made H indefinite: start again from steepest descent
            memory.update(self.init(theta))
            inverse, direction = memory["inverse"], -g
            slope = float(g @ direction)
            if slope == 0:
                return StepReport(loss, loss, math.nan, False)
        first = 1.0 / max(1.0, float(g.norm())) if memory["first"] else 1.0
        found = strong_wolfe(
            model, theta, direction, loss, slope, first,
            tries=self.tries, armijo=self.armijo, curvature=self.curvature,
        )  # fmt: skip
        if found is None:
            # A line search that fails along -Hg says that H is stale (other points, rounding).
            memory.update(self.init(theta))
            return StepReport(loss, loss, -math.inf, False)
        alpha, new_loss, new_g = found
        updated = broyden_update(
            inverse, alpha * direction, new_g - g, -alpha * g, first=memory["first"]
        )
        memory.update(theta=theta + alpha * direction, inverse=updated, first=False)
        return StepReport(loss, new_loss, (loss - new_loss) / max(-alpha * slope, 1e-300), True)


def broyden_update(
    inverse: Tensor,  # shape: (P, P), H
    s: Tensor,  # shape: (P,)
    y: Tensor,  # shape: (P,)
    bs: Tensor,  # shape: (P,), B s = -alpha g
    *,
    first: bool = False,
) -> Tensor:  # shape: (P, P)
    """SSBroyden2 update of the inverse Hessian; H unchanged where the curvature y.s is not positive."""
    n = len(s)
    ys = float(y @ s)
    if not ys > torch.finfo(s.dtype).eps * float(s.norm() * y.norm()):
        return inverse
    rho = 1.0 / ys
    hy = inverse @ y
    yhy = float(y @ hy)
    h, b = yhy * rho, float(s @ bs) * rho
    a = b * h - 1.0  # >= 0 by Cauchy-Schwarz
    if a < 1e-12:
        theta = 0.0  # BFGS: the bounds below are 0/0
        rho_minus = 1.0
    else:
        c = math.sqrt(a / (1.0 + a))
        rho_minus = min(1.0, h * (1.0 - c))
        theta = max((rho_minus - 1.0) / a, min(1.0 / rho_minus, (1.0 - b) / b))
    sigma = 1.0 + a * theta
    rho_hat, q = min(1.0, 1.0 / b), abs(sigma) ** (1.0 / (1.0 - n)) if n > 1 else 1.0
    if first:
        tau = h / sigma
    elif theta <= 0:
        tau = min(rho_hat * q, sigma)
    else:
        tau = rho_hat * min(q, 1.0 / theta)
    if not (math.isfinite(tau) and tau > 0 and sigma > 0):
        return inverse
    v = rho * s - hy / yhy
    phi = (1.0 - theta) / sigma
    updated = inverse - torch.outer(hy, hy / yhy) + (phi * yhy) * torch.outer(v, v)
    updated = updated / tau + rho * torch.outer(s, s)
    return 0.5 * (updated + updated.T)
