"""Levenberg-Marquardt for nonlinear least squares, one damping per sample.

In    a `System` r: (B, n) -> (B, m).
Out   states whose correction is the length of the undamped Gauss-Newton step.
Next  `layers.least_squares`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from pinnkit.implicit.dense import product_of_each
from pinnkit.implicit.iteration import AbstractMethod, State, System
from pinnkit.implicit.jacobian import Jacobian
from pinnkit.implicit.linear import DENSE_SIZE
from pinnkit.implicit.lsmr import LSMR
from pinnkit.implicit.record import norms

__all__ = ["LevenbergMarquardt"]

ROUNDING = 1e3  # units in the last place of the loss that count as noise
TRIANGULAR = 1e-8  # smallest over largest pivot from which on a triangle is solved with as it is


@final
@dataclass(frozen=True, kw_only=True)
class LevenbergMarquardt(AbstractMethod):
    """d = -V s / (s^2 + mu) U^T r with J = U diag(s) V^T, mu steered by the gain of each step.

    By singular values, not by J^T J, which holds only half of the digits. A sample has converged when
    its undamped step is within the tolerance: a small damped one may only mean a large mu. With `LSMR`,
    which forms no matrix, that is checked by a second solve, as exact as can be, once the damped one is
    small.

    Args:
        damping: First mu, relative to the largest s^2 (0: the first step is Gauss-Newton's).
        less, more: Factors on mu after a gain above 3/4 of the predicted one, and after a refused step.
        linear: `LSMR()`: by products J v and J^T u alone. None: singular values up to 128 unknowns per
            sample and where the Jacobian is given, then LSMR.

    References: levenberg1944, marquardt1963.
    """

    unrolls: ClassVar[bool] = False  # singular vectors of equal singular values have no derivative
    damping: float = 1e-3
    less: float = 5.0
    more: float = 4.0
    linear: LSMR | None = None

    def __post_init__(self) -> None:
        if self.linear is not None and not isinstance(self.linear, LSMR):
            raise TypeError(f"LevenbergMarquardt: linear={self.linear!r} must be LSMR() or None")
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
        z, (r, mu), size = state.z, state.memory, state.merit
        dense = system.jacobian is not None or z.shape[1] <= DENSE_SIZE
        if self.linear is None and dense:
            d, moved, correction = _by_singular_values(system.matrix(z), r, mu)
        else:
            linear = self.linear or LSMR()
            jacobian = Jacobian(system, z)
            d, moved, correction = _by_products(linear, jacobian, r, mu, tolerance, left > 0)
        trial = z - d
        trial_r = system(trial)
        # In units of |r|, so that squares neither overflow nor vanish.
        unit, own = r / _nonzero(size)[:, None], moved / _nonzero(size)[:, None]
        before, after = unit.square().sum(1), (norms(trial_r) / _nonzero(size)).square()
        predicted = before - (unit - own).square().sum(1)
        gain = (before - after) / torch.where(predicted > 0, predicted, 1)
        # So close that the loss shows rounding only: then the step's own length must fall instead.
        close = (predicted <= ROUNDING * torch.finfo(r.dtype).eps * before) & torch.isfinite(after)
        nearer = close & (correction <= state.correction)
        taken = torch.where(close, nearer, after < before)  # false where not finite
        z = torch.where(taken[:, None], trial, z)
        r = torch.where(taken[:, None], trial_r, r)
        grown = torch.clamp(mu * self.more, min=1e-8)
        mu = torch.where(taken, torch.where((gain > 0.75) | close, mu / self.less, mu), grown)
        # No damping helps any more: what is left is rounding, or J is wrong.
        stalled = ~taken & (mu > 1e12)
        return State.of(z, norms(r), correction, (r, mu), error=correction, stalled=stalled)


Step = tuple[Tensor, Tensor, Tensor]  # d, J d, the length of the undamped step


def _by_singular_values(matrix: Tensor, r: Tensor, mu: Tensor) -> Step:
    """All of J decomposed: by its triangle first, of which singular values are cheaper."""
    # Where a sample's Jacobian is not finite it stalls, and the decomposition spares the rest.
    finite = torch.isfinite(matrix).flatten(1).all(1)
    known = torch.where(finite[:, None, None], matrix, 0)
    rows, columns = matrix.shape[1:]
    small, right, plain = known, r, torch.zeros_like(finite)
    d = r.new_zeros(len(r), columns)
    if rows > columns:
        triangle = torch.linalg.qr(torch.cat([known, r[..., None]], 2), mode="r").R
        small, right = triangle[:, :columns, :columns], triangle[:, :columns, columns]
        pivots = small.diagonal(dim1=1, dim2=2).abs()
        plain = (mu == 0) & (pivots.amin(1) > TRIANGULAR * pivots.amax(1))
        safe = torch.where(plain[:, None, None], small, torch.eye(columns).to(small))
        found = torch.linalg.solve_triangular(safe, right[..., None], upper=True)[..., 0]
        d = torch.where(plain[:, None], found, d)
    length = torch.where(plain, norms(d), torch.inf)
    # A sample's way does not depend on the others: each is decomposed by itself, if it must be.
    hard = torch.nonzero(finite & ~plain)[:, 0]
    if len(hard):
        weights = torch.finfo(r.dtype).eps * max(rows, columns)
        damped, whole = _decomposed(small[hard], right[hard], mu[hard], weights)
        d, length = d.index_copy(0, hard, damped), length.index_copy(0, hard, norms(whole))
    return d, product_of_each(known, d), length


def _decomposed(matrix: Tensor, r: Tensor, mu: Tensor, rounding: float) -> tuple[Tensor, Tensor]:
    """The damped step and the undamped one; directions of singular values lost in rounding are left out."""
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    top = _nonzero(s[:, :1])
    projected = product_of_each(u.mT, r)
    whole = torch.where(s > rounding * top, projected / _nonzero(s), 0)
    ratio = s / top
    share = ratio * projected / torch.clamp(ratio.square() + mu[:, None], min=_tiny(s))
    damped = torch.where(mu[:, None] > 0, share / top, whole)
    return product_of_each(vh.mT, damped), whole


def _by_products(
    linear: LSMR, jacobian: Jacobian, r: Tensor, mu: Tensor, tolerance: Tensor, active: Tensor
) -> Step:
    """J never formed; the undamped step only where the damped one is within the tolerance."""
    push, pull = jacobian.pusher(), jacobian.pull
    d, _ = linear.solve(push, pull, r, mu, active)
    correction = norms(d)
    near = active & (correction <= tolerance)
    if bool(near.any()):
        eps = torch.finfo(r.dtype).eps
        whole, reached = linear.solve(push, pull, r, mu * 0, near, rtol=min(eps, linear.rtol))
        known = near & reached
        d = torch.where(known[:, None], whole, d)
        # Where it was not reached, the damped step proves nothing.
        correction = torch.where(known, norms(whole), torch.where(near, torch.inf, correction))
    return d, push(d), correction


def _nonzero(x: Tensor) -> Tensor:
    return torch.where(x == 0, 1, x)


def _tiny(like: Tensor) -> float:
    return torch.finfo(like.dtype).tiny
