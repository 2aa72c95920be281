"""Coefficients and parameters from placed terms: one least-squares solve, or damped Gauss-Newton.

In    `PlacedTerm`s with their weights, the prior, a start.
Out   `Fit`: the posterior (Laplace's for nonlinear problems), its objective, whether it converged.
Next  `solvers.spectral_mixture_gp`.

Problems in one coordinate, and small ones, assemble their rows. Large ones in two coordinates
factorise the rows of the averaged operator, projected to what the bases can see, and correct what the
average leaves out by LSQR with that factor.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pinnkit.gp.posterior import (
    Conditioned,
    StackedRows,
    border,
    condition,
    preconditioned_lsqr,
)
from pinnkit.solvers.spectral_mixture_compact import AnyTerm

__all__ = ["Fit", "Scales", "fit", "fit_coefficients", "log_evidence"]

DENSE = 12_000_000  # numbers in rows that are assembled without a thought
MOST_STEPS = 25
MOST_LSQR = 150
CONVERGED = 1e-11  # relative change of the unknowns
HALVINGS = 10
SETTLED = 1e-8  # of the objective: parameters within 1e-4 standard errors


@dataclass(frozen=True, eq=False)
class Scales:
    """Parameters are units * the last unknowns, which stay between lower and upper."""

    units: Tensor  # shape: (p,)
    lower: Tensor
    upper: Tensor


@dataclass(frozen=True, eq=False)
class Fit:
    """The unknowns x = (coefficients, scaled parameters) and their posterior."""

    unknowns: Tensor
    conditioned: Conditioned
    objective: float
    steps: int
    converged: bool
    exact_factor: bool  # False: the factor is that of the averaged operator


def fit(
    placed: Sequence[AnyTerm],
    prior: Tensor,  # shape: (r + p,)
    start: Tensor,  # shape: (r + p,)
    scales: Scales,
    *,
    linear: bool,
    deadline: float,
    settled: float = SETTLED,
) -> Fit:
    """Minimise sum |weighted residuals|^2 + |x / prior|^2 over coefficients and parameters.

    Args:
        start: The first iterate.
        scales: Of the parameters, the last p unknowns.
        linear: One solve for the coefficients is exact.
        deadline: `time.perf_counter()` after which no further step is begun.
        settled: Steps of the parameters end where another would lower the objective by this little.
    """
    count = len(scales.units)
    if count == 0:
        return fit_coefficients(placed, prior, start, [], linear=linear, deadline=deadline)
    size = len(start) - count

    def inner(eta: Tensor, z: Tensor) -> tuple[Fit, float]:
        numbers = list((eta * scales.units).unbind(0))
        found = fit_coefficients(placed, prior[:size], z, numbers, linear=linear, deadline=deadline)
        return found, found.objective + float((eta / prior[size:]).square().sum())

    eta = start[size:].clamp(scales.lower, scales.upper)
    best, now = inner(eta, start[:size])
    joint = _joint(placed, best, eta, prior, scales, linear=linear)
    converged, steps = False, 0
    # Equations are held to many digits, so coefficients and parameters cannot move one by one along
    # straight lines: for every trial of the parameters the coefficients are solved for anew.
    for steps in range(1, MOST_STEPS + 1):  # noqa: B007 - the count is reported
        change = joint.mean[size:] - eta
        towards = (eta + change).clamp(scales.lower, scales.upper) - eta
        converged = float((joint.factor[size:, size:] @ towards).square().sum()) <= settled
        if converged or time.perf_counter() > deadline:
            break
        length, moved = 1.0, None
        for _ in range(HALVINGS):
            trial = (eta + length * change).clamp(scales.lower, scales.upper)
            found, value = inner(trial, best.unknowns)
            if math.isfinite(value) and value < now:
                moved = trial
                break
            length *= 0.5
        if moved is None:
            converged = True
            break
        near = float((moved - eta).norm()) <= 1e-9 * (1 + float(moved.norm()))
        converged = near or now - value <= 1e-10 * abs(now)
        eta, best, now = moved, found, value
        joint = _joint(placed, best, eta, prior, scales, linear=linear)
        if converged:
            break
    return Fit(torch.cat([best.unknowns, eta]), joint, now, steps, converged, True)


def log_evidence(
    placed: Sequence[AnyTerm],
    prior: Tensor,  # shape: (r + p,)
    unknowns: Tensor,  # shape: (r + p,)
    scales: Scales,
    *,
    among: Sequence[AnyTerm],
) -> float:
    """log p(residuals = 0) of these terms alone, linearised at the unknowns, parameters where they are.

    Args:
        among: All terms of the problem: as rows are made for them, they are made here.
    """
    size = len(unknowns) - len(scales.units)
    x, numbers = unknowns[:size], list((unknowns[size:] * scales.units).unbind(0))
    grids = placed[0].layout.grids(x)
    right = [p.linearise(grids, numbers) for p in placed]
    rows, values, _ = _rows(placed, right, x, _assembled(among, size))
    return condition(rows, values, prior[:size]).log_evidence


def _joint(
    placed: Sequence[AnyTerm],
    inner: Fit,
    eta: Tensor,
    prior: Tensor,
    scales: Scales,
    *,
    linear: bool,
) -> Conditioned:
    """Everything linearised at once: the Gauss-Newton step and Laplace's factor."""
    numbers, size = list((eta * scales.units).unbind(0)), len(inner.unknowns)
    grids = placed[0].layout.grids(inner.unknowns)
    residual = torch.cat([p.linearise(grids, numbers) for p in placed])
    rows = torch.cat([p.dense(len(eta)) for p in placed])
    rows[:, size:] *= scales.units
    if linear and inner.exact_factor:
        return border(
            inner.conditioned,
            rows[:, :size],
            prior[:size],
            residual,
            rows[:, size:],
            eta,
            prior[size:],
        )
    return condition(rows, rows @ torch.cat([inner.unknowns, eta]) - residual, prior)


def fit_coefficients(
    placed: Sequence[AnyTerm],
    prior: Tensor,  # shape: (r,)
    start: Tensor,  # shape: (r,)
    numbers: list[Tensor],
    *,
    linear: bool,
    deadline: float,
) -> Fit:
    """Damped Gauss-Newton for the coefficients, the parameters fixed."""
    x, layout = start, placed[0].layout

    def residuals(x: Tensor, keep: bool) -> list[Tensor]:
        z = layout.grids(x)
        if keep:
            return [p.linearise(z, numbers) for p in placed]
        return [p.residual(z, numbers) for p in placed]

    def objective(parts: Sequence[Tensor], x: Tensor) -> float:
        return float(sum(p.square().sum() for p in parts) + (x / prior).square().sum())

    dense = _assembled(placed, len(x))
    right = residuals(x, keep=True)
    now = objective(right, x)
    factor: Conditioned | None = None
    exact, converged, steps = True, False, 0
    for steps in range(1, MOST_STEPS + 1):  # noqa: B007 - the count is reported
        if dense or factor is None:
            rows, values, exact = _rows(placed, right, x, dense)
            factor = condition(rows, values, prior)
            del rows
            step = factor.mean - x
        if not exact:
            step = _corrected(placed, right, x, prior, factor)
        moved, best, parts = _line_search(x, step, now, residuals, objective)
        if parts is None:
            # No decrease along the step: the objective is at its rounding.
            converged = float(step.norm()) <= 1e-6 * float(x.norm())
            break
        change = float((moved - x).norm()) / max(float(moved.norm()), 1e-300)
        x, before, now = moved, now, best
        if (linear and exact) or change <= CONVERGED or now >= (1 - 1e-9) * before:
            converged = True
            break
        if time.perf_counter() > deadline:
            break
        right = residuals(x, keep=True)
    assert factor is not None
    if not linear and dense:
        # Laplace's approximation belongs to the last iterate, not to the one before it.
        right = residuals(x, keep=True)
        rows, values, exact = _rows(placed, right, x, dense)
        factor = condition(rows, values, prior)
    return Fit(x, factor, now, steps, converged, exact)


def _line_search(
    x: Tensor,
    step: Tensor,
    now: float,
    residuals: Callable[[Tensor, bool], list[Tensor]],
    objective: Callable[[Sequence[Tensor], Tensor], float],
) -> tuple[Tensor, float, list[Tensor] | None]:
    """The longest of the steps 1, 1/2, 1/4, ... that decreases the objective."""
    length = 1.0
    for _ in range(HALVINGS):
        moved = x + length * step
        parts = residuals(moved, False)
        value = objective(parts, moved)
        if math.isfinite(value) and value < now:
            return moved, value, parts
        length *= 0.5
    return x, now, None


def _assembled(placed: Sequence[AnyTerm], size: int) -> bool:
    one_axis = all(len(p.grid) == 1 for p in placed)
    rows = sum(len(p.points) for p in placed)
    constant = all(p.term.is_constant for p in placed)
    return one_axis or (rows * size <= DENSE and not constant)


def _rows(
    placed: Sequence[AnyTerm],
    right: Sequence[Tensor],
    x: Tensor,
    dense: bool,
) -> tuple[Tensor, Tensor, bool]:
    """Rows, the values they are to take (rows @ x - residual), and whether the rows are exact."""
    blocks, exact = StackedRows(), True
    for term, r in zip(placed, right, strict=True):
        if dense or not term.gridded or len(term.grid) == 1:
            rows = term.dense()
            blocks.append(torch.cat([rows, (rows @ x - r)[:, None]], dim=1))
            continue
        exact = exact and term.term.is_constant
        for rows, values in term.projected(term.apply(x) - r):
            blocks.append(torch.cat([rows, values[:, None]], dim=1))
    whole = blocks.together()
    return whole[:, :-1], whole[:, -1], exact


def _corrected(
    placed: Sequence[AnyTerm],
    right: Sequence[Tensor],
    x: Tensor,
    prior: Tensor,
    factor: Conditioned,
) -> Tensor:
    """The Gauss-Newton step of the operator itself, with the averaged operator's factor."""
    sizes = [len(r) for r in right]

    def apply(v: Tensor) -> Tensor:
        return torch.cat([*(p.apply(v) for p in placed), v / prior])

    def adjoint(w: Tensor) -> Tensor:
        *parts, last = w.split([*sizes, len(x)])
        total = last / prior
        for p, part in zip(placed, parts, strict=True):
            total = total + p.adjoint(part)
        return total

    target = -torch.cat([*right, x / prior])
    step, _ = preconditioned_lsqr(
        apply, adjoint, target, factor.factor, tolerance=1e-13, most=MOST_LSQR
    )
    return step
