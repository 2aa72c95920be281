"""Coefficients given data: one orthogonal factorisation, never normal equations.

In    rows A, right sides b (both divided by their noise), coefficients that are N(0, scale^2) a priori.
Out   the mean, a triangular factor of the precision, the log marginal likelihood.
Next  `gp.gaussian_process` turns them into functions, `solvers.spectral_mixture_gp` iterates them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Conditioned", "StackedRows", "border", "condition", "preconditioned_lsqr"]

MOST_NUMBERS = 100_000_000  # in rows that are kept as they are


@dataclass(frozen=True, eq=False)
class Conditioned:
    """N(mean, factor^-1 factor^-T) of the coefficients.

    `objective` is |A mean - b|^2 + |mean / prior|^2, `effective` the number of coefficients that the
    data determine (MacKay's gamma), `log_evidence` log N(b | 0, Id + A diag(prior^2) A^T).
    """

    mean: Tensor  # shape: (r,)
    factor: Tensor  # shape: (r, r), upper triangular
    objective: float
    log_evidence: float

    def covariance_root(self) -> Tensor:
        """G with covariance G G^T."""
        identity = torch.eye(len(self.factor), dtype=self.factor.dtype, device=self.factor.device)
        return torch.linalg.solve_triangular(self.factor, identity, upper=True)

    def determined(self, prior: Tensor) -> Tensor:  # shape: (r,)
        """Per coefficient 1 - posterior variance / prior variance: what the data say about it."""
        return 1 - self.covariance_root().square().sum(1) / prior.square()

    def effective(self, prior: Tensor) -> float:
        """How many coefficients the data determine (MacKay's gamma)."""
        return float(self.determined(prior).sum())


def condition(
    rows: Tensor,  # shape: (n, r)
    values: Tensor,  # shape: (n,)
    prior: Tensor,  # shape: (r,)
) -> Conditioned:
    """Least squares by QR of the rows and of Id / prior below them, refined once.

    Householder's factorisation is backward stable column by column, so features of very different
    size (derivatives of fast and slow waves) do not spoil each other.
    """
    size = rows.shape[1]
    stacked = torch.cat([rows, torch.diag(1 / prior)])
    right = torch.cat([values, values.new_zeros(size)])
    # Q is never formed: the right side rides along as one more column.
    triangle = torch.linalg.qr(torch.cat([stacked, right[:, None]], dim=1), mode="r").R
    factor = triangle[:size, :size].contiguous()
    mean = torch.linalg.solve_triangular(factor, triangle[:size, size:], upper=True)[:, 0]
    rest = right - stacked @ mean
    objective = float(rest.square().sum())
    # One step of refinement by the corrected seminormal equations, kept if it helps.
    half = torch.linalg.solve_triangular(factor.T, (stacked.T @ rest)[:, None], upper=False)
    better = mean + torch.linalg.solve_triangular(factor, half, upper=True)[:, 0]
    improved = float((right - stacked @ better).square().sum())
    if improved < objective:
        mean, objective = better, improved
    logdet = 2 * float(factor.diagonal().abs().log().sum() + prior.log().sum())
    evidence = -0.5 * (objective + logdet + len(values) * math.log(2 * math.pi))
    return Conditioned(mean, factor, objective, evidence)


def border(
    inner: Conditioned,
    rows: Tensor,  # shape: (n, r)
    prior: Tensor,  # shape: (r,)
    residual: Tensor,  # shape: (n,)
    columns: Tensor,  # shape: (n, p)
    others: Tensor,  # shape: (p,)
    prior_of_others: Tensor,  # shape: (p,)
) -> Conditioned:
    """p more unknowns beside those of `inner`, without factorising anew.

    Args:
        inner: `condition` of the rows, with the others where they are.
        rows, prior: As they were given there.
        residual: rows @ inner.mean - values.
        columns: Derivatives of the residual by the others.
        others: Where these are.
        prior_of_others: Their deviations (around zero).
    """
    factor = inner.factor

    def project(right: Tensor) -> Tensor:
        """Least squares with [rows; Id / prior] by the corrected seminormal equations."""

        def once(top: Tensor, below: Tensor) -> Tensor:
            turned = rows.T @ top + below / prior[:, None]
            half = torch.linalg.solve_triangular(factor.T, turned, upper=False)
            return torch.linalg.solve_triangular(factor, half, upper=True)

        first = once(right, right.new_zeros(len(prior), right.shape[1]))
        return first + once(right - rows @ first, -first / prior[:, None])

    fitted = project(columns)
    rest = torch.cat([columns - rows @ fitted, -fitted / prior[:, None]])
    below = torch.diag(1 / prior_of_others)
    target = -torch.cat([residual, inner.mean / prior, others / prior_of_others])
    joined = torch.cat([torch.cat([rest, below]), target[:, None]], dim=1)
    count = len(others)
    triangle = torch.linalg.qr(joined, mode="r").R
    corner = triangle[:count, :count]
    change = torch.linalg.solve_triangular(corner, triangle[:count, count:], upper=True)
    mean = torch.cat([inner.mean - (fitted @ change)[:, 0], others + change[:, 0]])
    lower = torch.cat([rows.new_zeros(count, len(prior)), corner], dim=1)
    whole = torch.cat([torch.cat([factor, factor @ fitted], dim=1), lower])
    gained = float(corner.diagonal().abs().log().sum() + prior_of_others.log().sum())
    objective = inner.objective + float((others / prior_of_others).square().sum())
    evidence = inner.log_evidence - gained - 0.5 * (objective - inner.objective)
    return Conditioned(mean, whole, objective, evidence)


class StackedRows:
    """Rows that arrive in blocks; where they become too many, the triangle that is as good as they are."""

    def __init__(self) -> None:
        self._blocks: list[Tensor] = []

    def append(self, rows: Tensor) -> None:
        """More rows."""
        self._blocks.append(rows)
        if sum(b.numel() for b in self._blocks) > MOST_NUMBERS and len(self._blocks) > 1:
            self._blocks = [torch.linalg.qr(torch.cat(self._blocks), mode="r").R]

    def together(self) -> Tensor:
        """All rows, or a triangle with the same lengths and products."""
        return torch.cat(self._blocks)

    def triangle(self) -> Tensor:
        """No more rows than columns."""
        whole = self.together()
        if len(whole) <= whole.shape[1]:
            return whole
        return torch.linalg.qr(whole, mode="r").R


def preconditioned_lsqr(
    apply: Callable[[Tensor], Tensor],
    adjoint: Callable[[Tensor], Tensor],
    right: Tensor,  # shape: (n,)
    factor: Tensor,  # shape: (r, r), upper triangular
    *,
    tolerance: float,
    most: int,
) -> tuple[Tensor, int]:  # shape: (r,)
    """min |A x - b| by Paige and Saunders' LSQR in the variables y = R x; (x, iterations).

    Args:
        apply, adjoint: v -> A v and w -> A^T w.
        factor: R of a nearby A: the closer, the fewer iterations.
        tolerance: On |(A R^-1)^T residual| relative to its first value.
        most: Iterations.
    """

    def forward(y: Tensor) -> Tensor:
        return apply(torch.linalg.solve_triangular(factor, y[:, None], upper=True)[:, 0])

    def backward(w: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(factor.T, adjoint(w)[:, None], upper=False)[:, 0]

    beta = right.norm()
    y = right.new_zeros(factor.shape[0])
    if float(beta) == 0:
        return y, 0
    u = right / beta
    v = backward(u)
    alpha = v.norm()
    if float(alpha) == 0:
        return y, 0
    v = v / alpha
    w, phi, rho = v.clone(), beta, alpha
    first = float(alpha * beta)
    count = 0
    for count in range(1, most + 1):  # noqa: B007 - the count is returned
        u = forward(v) - alpha * u
        beta = u.norm()
        u = u / beta if float(beta) > 0 else u
        v = backward(u) - beta * v
        alpha = v.norm()
        v = v / alpha if float(alpha) > 0 else v
        turn = torch.hypot(rho, beta)
        cosine, sine = rho / turn, beta / turn
        theta, rho = sine * alpha, -cosine * alpha
        step, phi = cosine * phi, sine * phi
        y = y + (step / turn) * w
        w = v - (theta / turn) * w
        if float(phi * alpha * cosine.abs()) <= tolerance * first:
            break
    return torch.linalg.solve_triangular(factor, y[:, None], upper=True)[:, 0], count
