"""LSMR: linear least squares for a batch of systems by products with J and J^T alone.

In    v -> J v, u -> J^T u, right-hand sides, a damping each.
Out   d that minimises |J d - r|^2 + damping |J|^2 |d|^2, of all minimisers the shortest.
Next  `LevenbergMarquardt(linear=LSMR())`, where J has too many entries to be written down.

Golub and Kahan's bidiagonalisation, so that the condition number is not squared as by J^T J; |J^T (r - J d)|
falls from step to step, which conjugate gradients on J^T J do not promise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from pinnkit.implicit.iteration import Rule
from pinnkit.implicit.jacobian import Map
from pinnkit.implicit.record import norms

__all__ = ["LSMR"]


@final
@dataclass(frozen=True, kw_only=True)
class LSMR:
    """Products only: O(m + n) numbers per sample, one product with J and one with J^T a step.

    Args:
        rtol: |J^T (r - J d)| <= rtol |J^T r| of the steps on the way.
        max_steps: Pairs of products at most.

    References: fong2011lsmr.
    """

    rtol: float = 1e-3
    max_steps: int = 1000

    def __post_init__(self) -> None:
        Rule(self.rtol, 0.0, self.max_steps)

    def solve(
        self,
        push: Map,
        pull: Map,
        rhs: Tensor,  # shape: (B, m)
        damping: Tensor,  # shape: (B,)
        active: Tensor,  # shape: (B,)
        *,
        rtol: float | None = None,
    ) -> tuple[Tensor, Tensor]:  # shapes: (B, n), (B,)
        """d, and whether the tolerance was reached; zero for samples that are not active.

        The damping is relative to |J v|^2 with v along J^T r, an estimate of |J|^2 from below.
        """
        rtol = self.rtol if rtol is None else rtol
        size = norms(rhs)
        u = _unit(rhs, size)
        v = pull(u)
        alpha = norms(v)
        v = _unit(v, alpha)
        d, hbar, h = torch.zeros_like(v), torch.zeros_like(v), v
        one, zero = torch.ones_like(alpha), torch.zeros_like(alpha)
        alphabar, zetabar = alpha, alpha
        rho, rhobar, cbar, sbar = one, one, one, zero
        damp = zero
        goal = rtol * zetabar
        running = active & (zetabar > 0)
        for k in range(self.max_steps):
            if not bool(running.any()):
                break
            u = push(v) - alpha[:, None] * u
            beta = norms(u)
            u = _unit(u, beta)
            if k == 0:  # J v = alpha u_1 + beta u_2
                damp = damping.sqrt() * torch.hypot(alpha, beta)
            v = pull(u) - beta[:, None] * v
            alpha = norms(v)
            v = _unit(v, alpha)
            # Rotations: the damping out, the lower diagonal out, the factor of its transpose.
            before, beforebar = rho, rhobar
            c, s, rho = _rotation(torch.hypot(alphabar, damp), beta)
            theta, alphabar = s * alpha, c * alpha
            thetabar = sbar * rho
            cbar, sbar, rhobar = _rotation(cbar * rho, theta)
            zeta, zetabar = cbar * zetabar, -sbar * zetabar
            hbar = h - (_over(thetabar, before) * _over(rho, beforebar))[:, None] * hbar
            step = _over(_over(zeta, rho), rhobar)[:, None] * hbar
            d = torch.where(running[:, None], d + step, d)
            h = v - _over(theta, rho)[:, None] * h
            running = running & (zetabar.abs() > goal)
        # Products that are not finite solve nothing.
        finite = torch.isfinite(zetabar) | ~active
        return torch.where(finite[:, None], size[:, None] * d, torch.nan), ~running & finite


def _rotation(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(c, s, length) with c a + s b = length, s a - c b = 0."""
    length = torch.hypot(a, b)
    return _over(a, length), _over(b, length), length


def _over(a: Tensor, b: Tensor) -> Tensor:
    """a / b; zero where b is: there the sample has ended."""
    return torch.where(b == 0, 0, a / torch.where(b == 0, 1, b))


def _unit(x: Tensor, length: Tensor) -> Tensor:
    return _over(x, length[:, None])
