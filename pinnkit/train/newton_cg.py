"""Newton's method without a matrix: conjugate gradients with a Nystroem preconditioner (NNCG).

In    a `ResidualModel` (one batch) and the memory.
Out   theta moved along d with (H + mu I) d ~ -J^T r, H a curvature of half the loss, by backtracking.
Next  the gain ratio sets mu for the next step, as in `gauss_newton`.

H is J^T J (Gauss-Newton, never negative) or the true Hessian J^T J + sum_i r_i H_i, whose products
are central differences of the gradient: about as dear as differentiating twice, exact to eight
digits, and possible with every model. Every `refresh` steps a sketch of H is taken, U diag(w) U^T, and

    P^-1 x = U (w + mu)^-1 U^T x + (x - U U^T x) / (w_l + mu)

preconditions the iteration, which starts at the last step's d and ends at a relative residual.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from torch import Tensor

from pinnkit.train.gauss_newton import GOOD, POOR
from pinnkit.train.nystrom import nystrom, nystrom_inverse
from pinnkit.train.residual_model import (
    AbstractOptimiser,
    Memory,
    ResidualModel,
    StepReport,
    ranks_of,
)

__all__ = ["NysNewtonCG", "hessian_product"]

Product = Callable[[Tensor], Tensor]  # shapes: (P,) -> (P,) or (P, k) -> (P, k)


@final
@dataclass(frozen=True, kw_only=True)
class NysNewtonCG(AbstractOptimiser):
    """Nystroem-preconditioned Newton-CG on one batch.

    Args:
        curvature: "gauss-newton" (holds J, N x P numbers) or "hessian" (two gradients a product).
        rank: Columns of the sketch.
        refresh: Steps between sketches; one taken on other points preconditions nearly as well.
        tolerance: Of the linear system, relative to |J^T r|; the published 1e-16 is absolute and
            never reached, so that every step pays for all products.
        most_products: Products with H per step at most, those of the sketch not counted.
        damping: First mu, for residuals of O(1).
        floor: Smallest mu.
        less, more: Factors on mu after a gain above 0.75 and below 0.25 or a shortened step; with
            1 and 1 mu stays, as published.
        armijo, shorter, tries: Backtracking by the factor `shorter` until the loss falls by `armijo`
            times what the slope promises.
        seed: Of the sketches.

    References: rathore2024challenges (NNCG), frangella2023nystrom.
    """

    curvature: str = "gauss-newton"
    rank: int = 60
    refresh: int = 20
    tolerance: float = 0.1
    most_products: int = 200
    damping: float = 0.1
    floor: float = 1e-15
    less: float = 2.0
    more: float = 2.0
    armijo: float = 0.1
    shorter: float = 0.5
    tries: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        faults = []
        if self.curvature not in ("gauss-newton", "hessian"):
            faults.append(f"curvature={self.curvature!r} must be 'gauss-newton' or 'hessian'")
        for name in ("rank", "refresh", "most_products", "tries"):
            if getattr(self, name) < 1:
                faults.append(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("tolerance", "shorter"):
            if not 0 < getattr(self, name) < 1:
                faults.append(f"{name}={getattr(self, name)} must lie in (0, 1)")
        if not 0 < self.armijo < 0.5:  # at 1/2 a Newton step on a quadratic would be refused
            faults.append(f"armijo={self.armijo} must lie in (0, 1/2)")
        if not 0 < self.floor <= self.damping:
            faults.append(f"need 0 < floor <= damping, got {self.floor}, {self.damping}")
        if self.less < 1 or self.more < 1:
            faults.append(f"less={self.less} and more={self.more} must be at least 1")
        if self.seed < 0:
            faults.append(f"seed={self.seed} must not be negative")
        if faults:
            raise ValueError("NysNewtonCG: " + "; ".join(faults))

    def init(self, theta: Tensor) -> Memory:
        return {
            "theta": theta.detach().clone(),
            "previous": torch.zeros_like(theta),
            "basis": theta.new_zeros(len(theta), 0),
            "values": theta.new_zeros(0),
            "mu": float(self.damping),
            "count": 0,
        }

    def step(self, model: ResidualModel, memory: Memory) -> StepReport:
        theta, mu, count = memory["theta"], memory["mu"], memory["count"]
        loss, half, product = self._expand(model, theta)
        if not math.isfinite(loss):
            return StepReport(loss, loss, -math.inf, False)
        if count % self.refresh == 0:
            basis, values = nystrom(
                product, len(theta), self.rank, seed=self.seed + count, like=theta
            )
            memory.update(basis=basis, values=values)
        solved = self._solve(product, half, memory, memory["previous"])
        if not float(half @ solved.d) < 0:  # what was left of the previous step points uphill
            solved = self._solve(product, half, memory, torch.zeros_like(theta))
        slope, bend = 2.0 * float(half @ solved.d), float(solved.d @ solved.hd)
        alpha, new_loss = self._backtrack(model, theta, solved.d, loss, slope)
        if alpha == 0.0:
            memory.update(previous=torch.zeros_like(theta), mu=self.more * mu, count=count + 1)
            return StepReport(loss, loss, -math.inf, False)
        predicted = -alpha * slope - alpha**2 * bend
        gain = (loss - new_loss) / predicted if predicted > 0 else -1.0
        if alpha < 1.0 or gain < POOR:
            mu *= self.more
        elif gain > GOOD:
            mu = max(mu / self.less, self.floor)
        moved = alpha * solved.d
        memory.update(theta=theta + moved, previous=moved, mu=mu, count=count + 1)
        return StepReport(loss, new_loss, gain, True)

    def _expand(self, model: ResidualModel, theta: Tensor) -> tuple[float, Tensor, Product]:
        """The loss, half its gradient, and products with half its Hessian."""
        if self.curvature == "hessian":
            loss, gradient = model.gradient(theta)
            return loss, 0.5 * gradient, hessian_product(model, theta)
        ranks = ranks_of(model)
        r, rows = model.rows(theta)
        half = ranks.sum(rows.T @ r)
        return float(ranks.sum(r @ r)), half, lambda v: ranks.sum(rows.T @ (rows @ v))

    def _solve(self, product: Product, half: Tensor, memory: Memory, start: Tensor) -> _Solved:
        mu, basis, values = memory["mu"], memory["basis"], memory["values"]
        return _conjugate_gradients(
            lambda v: product(v) + mu * v,
            -half,
            lambda v: nystrom_inverse(basis, values, mu, v),
            start,
            mu,
            self.tolerance * float(half.norm()),
            self.most_products,
        )

    def _backtrack(
        self, model: ResidualModel, theta: Tensor, d: Tensor, loss: float, slope: float
    ) -> tuple[float, float]:
        """(step length, loss there); a length of 0 if none obeys the Armijo condition."""
        alpha = 1.0
        for _ in range(self.tries):
            r = model.residual(theta + alpha * d)
            new_loss = float(ranks_of(model).sum(r @ r))
            if new_loss <= loss + self.armijo * alpha * slope:  # False for NaN
                return alpha, new_loss
            alpha *= self.shorter
        return 0.0, loss


class _Solved(NamedTuple):
    """d and H d."""

    d: Tensor
    hd: Tensor


def _conjugate_gradients(
    product: Product,
    right: Tensor,
    precondition: Product,
    d: Tensor,
    mu: float,
    tolerance: float,
    most: int,
) -> _Solved:
    """(H + mu I) d = right from `d` on; ends early at a direction of negative curvature."""
    left = right - product(d) if bool(d.any()) else right
    z = precondition(left)
    p, lz = z, left @ z
    for _ in range(most):
        if float(left.norm()) <= tolerance:
            break
        ap = product(p)
        curved = float(p @ ap)
        if not curved > 0:
            if not bool(d.any()):  # downhill, as the preconditioner is positive
                d, left = p, right - ap
            break
        alpha = lz / curved
        d, left = d + alpha * p, left - alpha * ap
        z = precondition(left)
        lz, before = left @ z, lz
        p = z + (lz / before) * p
    return _Solved(d, right - left - mu * d)


def hessian_product(model: ResidualModel, theta: Tensor) -> Product:
    """v -> (1/2) Hessian(r.r) v by central differences of the gradient.

    The shift eps^(1/3) (1 + |theta|) balances truncation against rounding: eight digits or more.
    """
    shift = torch.finfo(theta.dtype).eps ** (1 / 3) * (1.0 + float(theta.norm()))

    def one(v: Tensor) -> Tensor:  # shape: (P,)
        size = float(v.norm())
        if size == 0:
            return torch.zeros_like(v)
        h = shift / size
        return (model.gradient(theta + h * v)[1] - model.gradient(theta - h * v)[1]) / (4.0 * h)

    def product(v: Tensor) -> Tensor:
        return one(v) if v.ndim == 1 else torch.stack([one(column) for column in v.T], 1)

    return product
