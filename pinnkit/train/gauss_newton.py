"""Gauss-Newton with gain-ratio damping and momentum, in parameter or sample space or on the rows.

In    a `ResidualModel` (one batch) and the memory.
Out   theta advanced by the minimiser of |J d + r|^2 + mu |d - beta p|^2, p the previous step.
Next  the step is judged by its gain ratio, which sets mu for the next one.

beta = 0 is Levenberg-Marquardt, beta > 0 is SPRING (arXiv 2401.10190). The two spaces give the same
step (the Woodbury identity): with N rows and P parameters,

    parameters:  d = (J^T J + mu I)^-1 (mu beta p - J^T r)                 cost N P^2 + P^3/3
    samples:     d = beta p + J^T (J J^T + mu I)^-1 (-r - beta J p)        cost N^2 P + N^3/3

On the rows the step comes from the singular values of J, at about 6 N P^2: J^T J loses those below
1e-8 of the largest, and residuals near rounding need them. mu is then taken times the loss, which
suits batches that stay the same.
A sketch of rank l replaces J J^T in the second line by its Nystroem approximation, cost N P l + N l^2,
and scales d - beta p so that it is the best along its line; the gain ratio is taken as ever.

Geodesic acceleration adds to the step what the curvature of r along it asks for,

    a = -1/2 (J^T J + mu I)^-1 J^T r''(d),   r''(d) = (2/h) ((r(theta + h d) - r) / h - J d),

one more residual and one more solve with the factor at hand. Networks are sloppy models: their losses
have narrow curved valleys, where straight steps must be short (`benchmarks/race.py`).

J may come in float32 (the model knows when that is precise enough): J^T J and its factors are then
formed in float32 too. Residuals, losses, gain ratios and theta always keep the precision of theta.

On several ranks J^T J, J^T r and the sums of squares are summed over them; sample space, sketches and
singular values couple the rows and take them all on every rank.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from pinnkit.train.least_squares import RowSystem
from pinnkit.train.nystrom import nystrom, nystrom_inverse
from pinnkit.train.ranks import ONE, Ranks
from pinnkit.train.residual_model import (
    AbstractOptimiser,
    Gathered,
    Memory,
    ResidualModel,
    StepReport,
    ranks_of,
)

__all__ = ["GaussNewton"]

GOOD, POOR, WORTHLESS = 0.75, 0.25, 1e-3  # gain ratios: damp less, damp more, reject
SINGULAR = 10.0  # damping factor after a failed Cholesky factorisation
PROBE = 0.1  # h above
BENT = 0.75  # 2 |a| / |d| above which the step is too long for its second order to mean anything


@final
@dataclass(frozen=True, kw_only=True)
class GaussNewton(AbstractOptimiser):
    """Damped Gauss-Newton on the rows of one batch.

    Args:
        momentum: beta above; measured on Allen-Cahn: 0.5 twice as good as 0, equal to 0.8.
        damping: First mu. Residuals are scaled to O(1), so it needs no units.
        floor: Smallest mu; rounding of J^T J makes less meaningless.
        less, more: Factors on mu after a gain above 0.75 and below 0.25.
        tries: Factorisations per step before the step is given up.
        acceleration: Geodesic acceleration; worth its residual wherever hidden layers are trained.
        space: "auto" takes the smaller matrix of "parameters" and "samples"; "rows" neither.
        sketch: Rank of the Nystroem approximation in sample space; None takes the matrix as it is.
            With as many as there are rows the step is the same; it pays below a quarter of them.
        seed: Of the sketches.

    References: dangel2024kronecker, guzman2025improving (SPRING for PINNs), more1978lm,
    transtrum2012improvements (geodesic acceleration, arXiv 1201.5885),
    frangella2023nystrom.
    """

    momentum: float = 0.5
    damping: float = 0.1
    floor: float = 1e-15
    less: float = 2.0
    more: float = 2.0
    tries: int = 6
    acceleration: bool = True
    space: str = "auto"
    sketch: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        faults = []
        if not 0 <= self.momentum < 1:
            faults.append(f"momentum={self.momentum} must lie in [0, 1)")
        if not 0 < self.floor <= self.damping:
            faults.append(f"need 0 < floor <= damping, got {self.floor}, {self.damping}")
        if self.less <= 1 or self.more <= 1:
            faults.append(f"less={self.less} and more={self.more} must exceed 1")
        if self.tries < 1:
            faults.append(f"tries={self.tries} must be at least 1")
        if self.space not in ("auto", "parameters", "samples", "rows"):
            faults.append(f"space={self.space!r} must be 'auto', 'parameters', 'samples' or 'rows'")
        if self.sketch is not None and self.sketch < 1:
            faults.append(f"sketch={self.sketch} must be at least 1, or None")
        if self.sketch is not None and self.space in ("parameters", "rows"):
            faults.append("sketch works in sample space; leave space at 'auto'")
        if self.seed < 0:
            faults.append(f"seed={self.seed} must not be negative")
        if faults:
            raise ValueError("GaussNewton: " + "; ".join(faults))

    def init(self, theta: Tensor) -> Memory:
        return {
            "theta": theta.detach().clone(),
            "previous": torch.zeros_like(theta),
            "mu": float(self.damping),
            "count": 0,
        }

    def step(self, model: ResidualModel, memory: Memory) -> StepReport:
        theta, previous, mu = memory["theta"], memory["previous"], memory["mu"]
        ranks = ranks_of(model)
        r, rows = model.rows(theta)
        if ranks.size > 1 and self._couples_rows(ranks, rows):
            model = Gathered(model)
            r, rows, ranks = ranks.gather(r), ranks.gather(rows), ONE
        loss = float(ranks.sum(r @ r))
        if not math.isfinite(loss):
            return StepReport(loss, loss, -math.inf, False)
        system = self._system(r, rows, memory, ranks)
        gain, new_loss = -math.inf, loss
        for _ in range(self.tries):
            direction = system.solve(mu, self.momentum * previous)
            if direction is None:
                mu *= SINGULAR
                continue
            change = (rows @ direction.to(rows)).to(r)
            predicted = loss - float(ranks.sum((r + change).square().sum()))
            if self.acceleration:
                bend = self._bend(model, system, theta, direction, r, change)
                if bend is None:
                    mu *= self.more
                    previous = 0.5 * previous
                    continue
                direction = direction + bend
            trial = model.residual(theta + direction)
            new_loss = float(ranks.sum(trial @ trial))
            gain = (
                (loss - new_loss) / predicted if math.isfinite(new_loss) and predicted > 0 else -1.0
            )
            if gain > GOOD:
                mu = max(mu / self.less, self.floor)
            elif gain < POOR:
                mu *= self.more
            if gain > WORTHLESS:
                memory.update(theta=theta + direction, previous=direction, mu=mu)
                return StepReport(loss, new_loss, gain, True)
            previous = 0.5 * previous  # momentum from another batch may be what made the step fail
        memory.update(previous=previous, mu=mu)
        return StepReport(loss, loss, gain, False)

    @staticmethod
    def _bend(
        model: ResidualModel,
        system: _System | _Sketched | RowSystem,
        theta: Tensor,
        direction: Tensor,
        r: Tensor,
        change: Tensor,
    ) -> Tensor | None:
        """The acceleration; None where it is not small beside the step, or not a number."""
        ahead = model.residual(theta + PROBE * direction)
        bend = system.respond((1 / PROBE) * ((ahead - r) / PROBE - change))
        # False for NaN: a probe that left the domain of the equations is no second order either.
        return bend if 2 * float(bend.norm()) <= BENT * float(direction.norm()) else None

    def _couples_rows(self, ranks: Ranks, rows: Tensor) -> bool:
        """Whether the step needs the rows of all ranks at one place, by the rule of one process."""
        n = int(ranks.sum(torch.tensor(rows.shape[0])))
        return (
            self.sketch is not None
            or self.space in ("samples", "rows")
            or (self.space == "auto" and n < rows.shape[1])
        )

    def _system(
        self, r: Tensor, rows: Tensor, memory: Memory, ranks: Ranks
    ) -> _System | _Sketched | RowSystem:
        if self.space == "rows":
            return RowSystem(r, rows.to(r))
        if self.sketch is None:
            # What is shared out does not couple rows: a rank's own may be fewer than parameters.
            return _System(r, rows, "parameters" if ranks.size > 1 else self.space, ranks)
        # A sketch of its own for every step: what one misses the next may see.
        memory["count"] += 1
        return _Sketched(r, rows.to(r), self.sketch, self.seed + memory["count"])


def _gram(a: Tensor) -> Tensor:  # shapes: (k, l) -> (k, k)
    """The lower triangle of A A^T, which is all that Cholesky reads: strips below the diagonal.

    torch has no symmetric rank-k product; eight strips do 9/16 of the work of the full one.
    """
    k = a.shape[0]
    out = a.new_zeros(k, k)
    width = max(128, -(-k // 8))
    for start in range(0, k, width):
        out[start:, start : start + width] = a[start:] @ a[start : start + width].T
    return out


class _System:
    """The smaller of J^T J and J J^T, formed once and factorised per damping."""

    def __init__(self, r: Tensor, rows: Tensor, space: str, ranks: Ranks = ONE) -> None:
        self.r, self.rows, self.ranks = r.to(rows), rows, ranks
        n, p = rows.shape
        self.in_samples = space == "samples" or (space == "auto" and n < p)
        self.gram = ranks.sum(_gram(rows if self.in_samples else rows.T))
        self.gradient = None if self.in_samples else ranks.sum(rows.T @ self.r)
        self.factor: Tensor | None = None

    def solve(self, mu: float, start: Tensor) -> Tensor | None:
        """argmin |J d + r|^2 + mu |d - start|^2; None where the damped matrix is not positive."""
        damped = self.gram.clone()
        damped.diagonal().add_(mu)
        factor, failed = torch.linalg.cholesky_ex(damped)
        if int(failed):
            return None
        self.factor = factor
        if self.in_samples:
            right = -self.r - self.rows @ start.to(self.r)
            found = self.rows.T @ torch.cholesky_solve(right[:, None], factor)[:, 0]
            return start + found.to(start)
        assert self.gradient is not None
        right = mu * start.to(self.r) - self.gradient
        return torch.cholesky_solve(right[:, None], factor)[:, 0].to(start)

    def respond(self, r: Tensor) -> Tensor:  # shapes: (N,) -> (P,)
        """argmin |J d + r|^2 + mu |d|^2 for the mu solved last."""
        assert self.factor is not None
        right = r.to(self.r)
        if self.in_samples:
            found = self.rows.T @ torch.cholesky_solve(right[:, None], self.factor)[:, 0]
        else:
            pulled = self.ranks.sum(self.rows.T @ right)
            found = torch.cholesky_solve(pulled[:, None], self.factor)[:, 0]
        return -found.to(r)


class _Sketched:
    """J J^T by its Nystroem approximation, formed once and inverted per damping."""

    def __init__(self, r: Tensor, rows: Tensor, rank: int, seed: int) -> None:
        self.r, self.rows, self.mu = r, rows, math.nan
        self.basis, self.values = nystrom(
            lambda v: rows @ (rows.T @ v), len(r), rank, seed=seed, like=r
        )

    def solve(self, mu: float, start: Tensor) -> Tensor:
        """About argmin |J d + r|^2 + mu |d - start|^2: the best multiple of the approximate d - start.

        That multiple is 1 at full rank; with less it keeps the part a sketch misses from overshooting.
        """
        right = -self.r - self.rows @ start
        step = self.rows.T @ nystrom_inverse(self.basis, self.values, mu, right)
        self.mu = mu
        return start + self._best_multiple(right, step)

    def respond(self, r: Tensor) -> Tensor:  # shapes: (N,) -> (P,)
        """About argmin |J d + r|^2 + mu |d|^2 for the mu solved last."""
        return self._best_multiple(
            -r, self.rows.T @ nystrom_inverse(self.basis, self.values, self.mu, -r)
        )

    def _best_multiple(self, right: Tensor, step: Tensor) -> Tensor:
        change = self.rows @ step
        size = float(change @ change + self.mu * (step @ step))
        return float(right @ change) / max(size, 1e-300) * step
