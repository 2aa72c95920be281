"""Levenberg-Marquardt for small nonlinear least squares, one damping per sample.

In    a `System` r: (B, n) -> (B, m).
Out   states whose correction is the length of the undamped Gauss-Newton step.
Next  `layers.least_squares`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from pinnkit.implicit.iteration import AbstractMethod, State, System
from pinnkit.implicit.jacobian import Jacobian
from pinnkit.implicit.record import norms

__all__ = ["LevenbergMarquardt"]

ROUNDING = 1e3  # units in the last place of the loss that count as noise


@final
@dataclass(frozen=True, kw_only=True)
class LevenbergMarquardt(AbstractMethod):
    """d = -V s / (s^2 + mu) U^T r with J = U diag(s) V^T, mu steered by the gain of each step.

    By singular values, not by J^T J, which holds only half of the digits. A sample has converged when
    its undamped step is within the tolerance: a small damped one may only mean a large mu.

    Args:
        damping: First mu, relative to the largest s^2 (0: the first step is Gauss-Newton's).
        less, more: Factors on mu after a gain above 3/4 of the predicted one, and after a refused step.

    References: levenberg1944, marquardt1963.
    """

    unrolls: ClassVar[bool] = False  # singular vectors of equal singular values have no derivative
    damping: float = 1e-3
    less: float = 5.0
    more: float = 4.0

    def __post_init__(self) -> None:
        faults = []
        if not self.damping >= 0:
            faults.append(f"damping={self.damping} must not be negative")
        for name in ("less", "more"):
            if not getattr(self, name) > 1:
                faults.append(f"{name}={getattr(self, name)} must exceed 1")
        if faults:
            raise ValueError("LevenbergMarquardt: " + "; ".join(faults))

    def init(self, system: System, z: Tensor) -> State:
        r = system(z)
        mu = torch.full_like(norms(r), self.damping)
        unknown = torch.full_like(mu, torch.inf)
        return State.of(z, norms(r), unknown, (r, mu))

    def step(self, system: System, state: State, tolerance: Tensor, left: Tensor) -> State:
        z, (r, mu) = state.z, state.memory
        u, s, vh = torch.linalg.svd(_clean(Jacobian(system, z).matrix()), full_matrices=False)
        top = s[:, :1]
        projected = (u.transpose(1, 2) @ r[..., None])[..., 0]
        weights = torch.finfo(s.dtype).eps * max(r.shape[1], z.shape[1])
        whole = torch.where(s > weights * top, projected / torch.where(s > 0, s, 1), 0)
        correction = norms(whole)
        damped = s * projected / torch.clamp(s.square() + mu[:, None] * top.square(), min=_tiny(s))
        damped = torch.where(mu[:, None] > 0, damped, whole)
        trial = z - (vh.transpose(1, 2) @ damped[..., None])[..., 0]
        trial_r = system(trial)
        before, after = r.square().sum(1), trial_r.square().sum(1)
        predicted = before - (r - (u @ (s * damped)[..., None])[..., 0]).square().sum(1)
        gain = (before - after) / torch.where(predicted > 0, predicted, 1)
        # So close that the loss shows rounding only: then the step's own length must fall instead.
        close = (predicted <= ROUNDING * torch.finfo(s.dtype).eps * before) & torch.isfinite(after)
        nearer = close & (correction <= state.correction)
        taken = torch.where(close, nearer, after < before)  # false where not finite
        z = torch.where(taken[:, None], trial, z)
        r = torch.where(taken[:, None], trial_r, r)
        grown = torch.clamp(mu * self.more, min=1e-8)
        mu = torch.where(taken, torch.where((gain > 0.75) | close, mu / self.less, mu), grown)
        # No damping helps any more: what is left is rounding, or J is wrong.
        stalled = ~taken & (mu > 1e12)
        return State.of(z, norms(r), correction, (r, mu), error=correction, stalled=stalled)


def _clean(matrix: Tensor) -> Tensor:
    """Zero where a sample's Jacobian is not finite: it stalls, and the decomposition spares the rest."""
    finite = torch.isfinite(matrix).flatten(1).all(1)[:, None, None]
    return torch.where(finite, matrix, 0)


def _tiny(like: Tensor) -> float:
    return torch.finfo(like.dtype).tiny
