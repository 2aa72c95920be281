"""Scales of the prior and of an unknown noise: those that make noisy data most likely.

In    placed terms, and which component of the mixture each coefficient belongs to.
Out   `Evidence`: the fit under the most likely scales, the noise, whether the search settled.
Next  `solvers.spectral_mixture_round`.

The evidence p(data | scales) is stationary where the variance of every component is
s = |z|^2 / gamma, with gamma the number of its coefficients that the data determine (MacKay 1992).
Components that the data do not need shrink until they are gone: the mixture becomes sparse.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pinnkit.solvers.spectral_mixture_fit import Fit, Scales, fit
from pinnkit.solvers.spectral_mixture_rows import PlacedTerm

__all__ = ["Evidence", "fit_with_evidence", "hold_exactly"]

CONDITIONS = 0.01  # conditions are held to this part of it: their errors spread inwards undamped

MOST_ROUNDS = 40
SETTLED = 0.01  # change of the logarithm of the evidence
# Determined coefficients of a component: with fewer at the field's own size the data say nothing about
# it, and its scale stays; with fewer after shrinking it is not needed.
HEARD, GONE = 0.5, 0.1
FREE = 100.0  # scale of fields that an equation gives by the others
SMALLEST, GREATEST = 1e-10, 1e3  # scales, relative to the field's size
# Equations are held more exactly if their terms turn out smaller than was thought: to this multiple of
# the slack that the true size would have given them, and so many times as exactly at most.
LOOSER, MOST_TIGHTENED = 100.0, 1e6


@dataclass(frozen=True, eq=False)
class Evidence:
    """`log_evidence` counts the noise's normalisation too, so that noises can be compared."""

    fit: Fit
    prior: Tensor
    noise: float | None
    log_evidence: float
    settled: bool


def hold_exactly(placed: Sequence[PlacedTerm], prior: Tensor, exact: float) -> None:
    """Weights of what has no noise: one over the part `exact` of what the prior expects of the term."""
    for p in placed:
        if p.term.kind != "observation":
            size = p.prior_rms(prior) or 1.0
            p.weight = 1 / (size * exact * (CONDITIONS if p.term.kind == "condition" else 1.0))


def fit_with_evidence(
    placed: Sequence[PlacedTerm],
    groups: Tensor,  # shape: (coefficients,)
    prior: Tensor,
    start: Tensor,
    scales: Scales,
    *,
    free: Tensor,
    exact: float,
    linear: bool,
    deadline: float,
) -> Evidence:
    """The fit under the most likely scales.

    `free` marks coefficients (whole components) that have no prior to speak of, whatever the data.

    How exactly equations are held is relative to the prior, and the first estimate of a field's size,
    from a balance of terms, can be wrong by orders of magnitude: then all is done once more.
    """
    prior = prior.clone()
    prior[: len(groups)][free] = FREE
    fixed = torch.zeros(int(groups.max()) + 1, dtype=torch.bool, device=groups.device)
    fixed[groups[free]] = True

    def search(prior: Tensor, start: Tensor) -> Evidence:
        return _fixed_point(
            placed, groups, fixed, prior, start, scales, linear=linear, deadline=deadline
        )

    found = search(prior, start)
    before = [p.weight for p in placed]
    hold_exactly(placed, found.prior, LOOSER * exact)
    for p, weight in zip(placed, before, strict=True):
        p.weight = min(max(p.weight, weight), MOST_TIGHTENED * weight)
    if before == [p.weight for p in placed]:
        return found
    return search(found.prior, found.fit.unknowns)


def _fixed_point(
    placed: Sequence[PlacedTerm],
    groups: Tensor,
    fixed: Tensor,  # shape: (components,)
    prior: Tensor,
    start: Tensor,
    scales: Scales,
    *,
    linear: bool,
    deadline: float,
) -> Evidence:
    """MacKay's iteration over the components' scales and the noise of unmeasured precision."""
    observed = [p for p in placed if p.term.kind == "observation"]
    unknown = [p for p in observed if p.term.noise is None]
    count, many = len(groups), int(groups.max()) + 1
    scale = prior.new_ones(many).index_copy(0, groups, prior[:count])
    heard: Tensor | None = None
    before, settled = -math.inf, False
    found = fit(placed, prior, start, scales, linear=linear, deadline=deadline)
    for _ in range(MOST_ROUNDS):
        now = found.conditioned.log_evidence
        now += sum(len(p.points) * math.log(p.weight) for p in observed)
        settled = abs(now - before) <= SETTLED
        if settled or not math.isfinite(now) or time.perf_counter() > deadline:
            break
        before = now
        z, share = found.unknowns[:count], found.conditioned.determined(prior)[:count]
        energy = scale.new_zeros(many).index_add_(0, groups, z.square())
        gamma = scale.new_zeros(many).index_add_(0, groups, share)
        heard = (gamma > HEARD) & ~fixed if heard is None else heard
        new = (energy / gamma.clamp_min(1e-12)).sqrt().clamp(SMALLEST, GREATEST)
        new = torch.where((gamma < GONE) & (new < scale), SMALLEST, new)
        scale = torch.where(heard, new, scale)
        for p in unknown:
            p.weight = 1 / _most_likely_noise(p, found, scales, count)
        prior = prior.clone()
        prior[:count] = scale[groups]
        found = fit(placed, prior, found.unknowns, scales, linear=linear, deadline=deadline)
    noise = 1 / unknown[-1].weight if unknown else None
    return Evidence(found, prior, noise, before, settled)


def _most_likely_noise(p: PlacedTerm, found: Fit, scales: Scales, count: int) -> float:
    """sqrt(|misfit|^2 / (n - gamma)): what conditions and equations settle is not charged to the data."""
    numbers = list((found.unknowns[count:] * scales.units).unbind(0))
    grids = p.layout.grids(found.unknowns[:count])
    misfit = float(p.residual(grids, numbers).square().sum()) / p.weight**2
    free = max(len(p.points) - _share(p, found, count), 1.0)
    return math.sqrt(max(misfit / free, 1e-30))


def _share(p: PlacedTerm, found: Fit, count: int) -> float:
    """Degrees of freedom the observations take up: the trace of their hat matrix."""
    rows = p.dense(len(found.unknowns) - count)
    turned = torch.linalg.solve_triangular(found.conditioned.factor.T, rows.T, upper=False)
    return float(turned.square().sum())
