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

from pinnkit.gp.posterior import Conditioned, condition, preconditioned_lsqr
from pinnkit.solvers.spectral_mixture_rows import PlacedTerm

__all__ = ["Fit", "Scales", "fit"]

DENSE = 12_000_000  # numbers in rows that are assembled without a thought
MOST_NUMBERS = 100_000_000  # in rows that are kept as they are
MOST_STEPS = 25
MOST_LSQR = 150
CONVERGED = 1e-11  # relative change of the unknowns
HALVINGS = 10


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
    placed: Sequence[PlacedTerm],
    prior: Tensor,  # shape: (r + p,)
    start: Tensor,  # shape: (r + p,)
    scales: Scales,
    *,
    linear: bool,
    deadline: float,
) -> Fit:
    """Minimise sum |weighted residuals|^2 + |x / prior|^2 over coefficients and parameters.

    Args:
        start: The first iterate.
        scales: Of the parameters, the last p unknowns.
        linear: One solve for the coefficients is exact.
        deadline: `time.perf_counter()` after which no further step is begun.
    """
    count = len(scales.units)
    if count == 0:
        return _fit_coefficients(placed, prior, start, [], linear=linear, deadline=deadline)
    size = len(start) - count

    def inner(eta: Tensor, z: Tensor) -> tuple[Fit, float]:
        numbers = list((eta * scales.units).unbind(0))
        found = _fit_coefficients(
            placed, prior[:size], z, numbers, linear=linear, deadline=deadline
        )
        return found, found.objective + float((eta / prior[size:]).square().sum())

    eta = start[size:].clamp(scales.lower, scales.upper)
    best, now = inner(eta, start[:size])
    converged, steps = False, 0
    joint: Conditioned | None = None
    # Equations are held to many digits, so coefficients and parameters cannot move one by one along
    # straight lines: for every trial of the parameters the coefficients are solved for anew.
    for steps in range(1, MOST_STEPS + 1):  # noqa: B007 - the count is reported
        joint = _joint(placed, best.unknowns, eta, prior, scales)
        change = joint.mean[size:] - eta
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
        settled = float((moved - eta).norm()) <= 1e-9 * (1 + float(moved.norm()))
        settled = settled or now - value <= 1e-10 * abs(now)
        eta, best, now = moved, found, value
        if settled or time.perf_counter() > deadline:
            converged = settled
            break
    joint = _joint(placed, best.unknowns, eta, prior, scales)
    return Fit(torch.cat([best.unknowns, eta]), joint, now, steps, converged, True)


def _joint(
    placed: Sequence[PlacedTerm], z: Tensor, eta: Tensor, prior: Tensor, scales: Scales
) -> Conditioned:
    """Everything linearised at once: the Gauss-Newton step and Laplace's factor."""
    numbers = list((eta * scales.units).unbind(0))
    grids, x = placed[0].layout.grids(z), torch.cat([z, eta])
    blocks, values = [], []
    for term in placed:
        residual = term.linearise(grids, numbers)
        rows = term.dense(len(eta))
        rows[:, -len(eta) :] *= scales.units
        blocks.append(rows)
        values.append(rows @ x - residual)
    return condition(torch.cat(blocks), torch.cat(values), prior)


def _fit_coefficients(
    placed: Sequence[PlacedTerm],
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


def _assembled(placed: Sequence[PlacedTerm], size: int) -> bool:
    one_axis = all(len(p.grid) == 1 for p in placed)
    rows = sum(len(p.points) for p in placed)
    constant = all(p.term.is_constant for p in placed)
    return one_axis or (rows * size <= DENSE and not constant)


def _rows(
    placed: Sequence[PlacedTerm],
    right: Sequence[Tensor],
    x: Tensor,
    dense: bool,
) -> tuple[Tensor, Tensor, bool]:
    """Rows, the values they are to take (rows @ x - residual), and whether the rows are exact."""
    blocks, exact = _Rows(), True
    for term, r in zip(placed, right, strict=True):
        if dense or not term.gridded or len(term.grid) == 1:
            rows = term.dense()
            blocks.append(rows, rows @ x - r)
            continue
        exact = exact and term.term.is_constant
        for rows, values in term.projected(term.apply(x) - r):
            blocks.append(rows, values)
    return *blocks.together(), exact


class _Rows:
    """Rows and their values; where they become too many, the triangle that is as good as they are."""

    def __init__(self) -> None:
        self._blocks: list[Tensor] = []

    def append(self, rows: Tensor, values: Tensor) -> None:
        self._blocks.append(torch.cat([rows, values[:, None]], dim=1))
        numbers = sum(b.numel() for b in self._blocks)
        if numbers > MOST_NUMBERS and len(self._blocks) > 1:
            self._blocks = [torch.linalg.qr(torch.cat(self._blocks), mode="r").R]

    def together(self) -> tuple[Tensor, Tensor]:
        whole = torch.cat(self._blocks)
        return whole[:, :-1], whole[:, -1]


def _corrected(
    placed: Sequence[PlacedTerm],
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
