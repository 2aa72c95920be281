"""The damped least-squares step from the rows themselves, by their singular values.

In    residuals r and rows J of one batch.
Out   argmin |J d + r|^2 + mu |d - start|^2 for any mu, after one decomposition.
Next  `gauss_newton` takes it as `space="rows"`.

J^T J holds the squares of J's singular values, so that those below 1e-8 of the largest drown in its
rounding. Here they survive to 1e-16, which is what residuals near rounding need.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["RowSystem"]


class RowSystem:
    """J = U diag(s) V^T, decomposed once: cost about 6 N P^2, where Cholesky pays N P^2 per step.

    The damping is mu times the loss where that is below 1 (Yamashita and Fukushima): steps become
    undamped as fast as the residual falls, and convergence stays quadratic. Below the rounding of
    the largest singular value nothing is meant.
    """

    def __init__(self, r: Tensor, rows: Tensor) -> None:  # shapes: (N,), (N, P)
        self.r, self.rows, self.damping = r, rows, 0.0
        self.factors: tuple[Tensor, Tensor, Tensor] | None = None
        if not bool(torch.isfinite(rows).all()):
            return
        u, s, v = torch.linalg.svd(rows, full_matrices=False)
        self.factors = (u, s, v)
        self.loss = float(r @ r)
        self.least = (torch.finfo(r.dtype).eps * float(s[0])) ** 2

    def solve(self, mu: float, start: Tensor) -> Tensor | None:  # shape: (P,)
        """The step; None where J is not finite."""
        if self.factors is None:
            return None
        tiny = torch.finfo(self.r.dtype).tiny
        self.damping = max(mu * min(1.0, self.loss), self.least, tiny)
        return start + self.respond(self.r + self.rows @ start)

    def respond(self, r: Tensor) -> Tensor:  # shapes: (N,) -> (P,)
        """argmin |J d + r|^2 + mu |d|^2 for the mu solved last."""
        assert self.factors is not None
        u, s, v = self.factors
        return -(v.T @ (s / (s.square() + self.damping) * (u.T @ r)))
