"""Scales of the prior and of an unknown noise: those that make noisy data most likely.

In    placed or compact terms, and which component of the mixture each coefficient belongs to.
Out   `Evidence`: unknowns and covariance under the most likely scales, the noise, whether it settled.
Next  `solvers.spectral_mixture_round`.

The evidence p(data | scales) is stationary where the variance of every component is
s = |z|^2 / gamma, with gamma the number of its coefficients that the data determine (MacKay 1992).
Components that the data do not need shrink until they are gone: the mixture becomes sparse.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pinnkit.solvers.spectral_mixture_compact import AnyTerm, CompactTerm
from pinnkit.solvers.spectral_mixture_fit import (
    Fit,
    Scales,
    fit,
    fit_coefficients,
    log_evidence,
)
from pinnkit.solvers.spectral_mixture_parameters import most_likely

__all__ = ["Evidence", "fit_with_evidence", "hold_exactly"]

CONDITIONS = 0.01  # conditions are held to this part of it: their errors spread inwards undamped

MOST_ROUNDS = 40
SETTLED = 0.01  # change of the logarithm of the evidence
# What another step of the parameters may still gain: while scales move, and in the end.
MEANWHILE, FINALLY = 1e-4, 1e-8
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
    """The most likely scales and what follows from them.

    `root` root^T is the covariance of the unknowns. `log_evidence` is log p(data | equations and
    conditions): how many rows these are given is no merit. It counts the noise's normalisation, so that
    noises can be compared.
    """

    unknowns: Tensor  # shape: (r + p,)
    root: Tensor  # shape: (r + p, k)
    steps: int
    converged: bool
    exact_factor: bool
    noise: float | None
    log_evidence: float
    settled: bool


def hold_exactly(placed: Sequence[AnyTerm], prior: Tensor, exact: float) -> None:
    """Weights of what has no noise: one over the part `exact` of what the prior expects of the term."""
    for p in placed:
        if p.term.kind != "observation":
            size = p.prior_rms(prior) or 1.0
            p.weight = 1 / (size * exact * (CONDITIONS if p.term.kind == "condition" else 1.0))


def fit_with_evidence(
    placed: Sequence[AnyTerm],
    groups: Tensor,  # shape: (coefficients,)
    breadths: Tensor,  # shape: (components,)
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

    A broad component can stand in for a narrow one at the same place, at the price of many coefficients,
    and the search does not find back from there. So it begins with the narrowest, and broader ones come
    in where they make the data more likely, or where the data say nothing about them. Where the problem
    is not linear in all unknowns, beginning with all of them is tried as well.

    How exactly equations are held is relative to the prior, and the first estimate of a field's size,
    from a balance of terms, can be wrong by orders of magnitude: then all is done once more.
    """
    fixed = torch.zeros(len(breadths), dtype=torch.bool, device=groups.device)
    fixed[groups[free]] = True
    whole = _Problem(placed, groups, prior[len(groups) :], scales, linear, deadline)
    everything = torch.where(fixed, FREE, prior.new_ones(len(breadths)))
    levels = breadths.unique().tolist()
    heard = torch.zeros_like(fixed)
    for breadth in levels:
        # Alone: components at one place share what they have to say.
        alone = torch.where(fixed | (breadths == breadth), everything, SMALLEST)
        there = whole.without(alone <= SMALLEST)
        found = there.fit(alone, there.part(start), MEANWHILE)
        heard |= (there.determined(found, alone) > HEARD) & ~fixed & (breadths == breadth)
    curved = not linear or len(scales.units) > 0
    if curved:
        # Narrow components alone may lead parameters astray.
        start = whole.fit(everything, start, MEANWHILE).unknowns
    best: _Found | None = None
    for breadth in levels:
        trial, entering = torch.where(heard, SMALLEST, everything), everything
        if best is not None:
            # As large as the largest so far: larger ones would take over at once.
            trial, entering = best.scale, best.scale[heard].max()
        trial = torch.where(heard & (breadths == breadth), entering, trial)
        found = _settle(whole, trial, start, heard)
        best = found if best is None or found.log_evidence > best.log_evidence else best
        best.weigh(placed)
        if not bool(heard.any()):
            break
    if curved and len(levels) > 1:
        found = _settle(whole, everything, start, heard)
        best = found if best is None or found.log_evidence > best.log_evidence else best
        best.weigh(placed)
    assert best is not None
    whole.linearise(best.unknowns)
    hold_exactly(placed, whole.prior(best.scale), LOOSER * exact)
    for p, weight in zip(placed, best.weights, strict=True):
        p.weight = min(max(p.weight, weight), MOST_TIGHTENED * weight)
    if best.weights != [p.weight for p in placed]:
        best = _settle(whole, best.scale, best.unknowns, heard)
    if len(scales.units):
        best = _at_most_likely(whole, best)
    noises = [1 / p.weight for p in placed if _is_unmeasured(p)]
    return Evidence(
        unknowns=best.unknowns,
        root=best.root,
        steps=best.fit.steps,
        converged=best.fit.converged,
        exact_factor=best.fit.exact_factor,
        noise=noises[-1] if noises else None,
        log_evidence=best.log_evidence,
        settled=best.settled,
    )


def _at_most_likely(whole: _Problem, best: _Found) -> _Found:
    """The parameters moved from the most probable pair to where the data alone would have them."""
    there, scales = whole.without(best.scale <= SMALLEST), whole.scales
    unknowns, count = there.part(best.unknowns), len(there.groups)
    z, eta = unknowns[:count], unknowns[count:]

    def likelihood(eta: Tensor) -> tuple[float, Tensor]:
        found = there.fit_coefficients(best.scale, z, eta)
        return there.log_evidence(found, best.scale, eta), found.unknowns

    found = most_likely(
        likelihood,
        eta,
        best.root[len(best.unknowns) - len(eta) :].norm(dim=1),
        scales.lower,
        scales.upper,
        deadline=whole.deadline,
    )
    if found is None:
        return best
    inner = there.fit_coefficients(best.scale, z, found.parameters)
    root, corner = inner.conditioned.covariance_root(), torch.linalg.cholesky(found.covariance)
    beside = torch.cat([root, found.slopes @ corner], dim=1)
    below = torch.cat([root.new_zeros(len(eta), root.shape[1]), corner], dim=1)
    return replace(
        best,
        fit=replace(inner, converged=inner.converged and found.converged),
        unknowns=there.among_all(torch.cat([inner.unknowns, found.parameters])),
        root=there.among_all(torch.cat([beside, below])),
    )


@dataclass(frozen=True, eq=False)
class _Found:
    """Where the search ended, among all unknowns."""

    fit: Fit
    scale: Tensor  # shape: (components,)
    unknowns: Tensor  # shape: (r + p,)
    root: Tensor  # shape: (r + p, k)
    weights: list[float]
    log_evidence: float
    settled: bool

    def weigh(self, placed: Sequence[AnyTerm]) -> None:
        """The terms as they were weighed there."""
        for p, weight in zip(placed, self.weights, strict=True):
            p.weight = weight


def _settle(whole: _Problem, scale: Tensor, start: Tensor, heard: Tensor) -> _Found:
    """MacKay's iteration over the scales of the `heard` components and the noise of unmeasured precision.

    Components that are gone leave the problem, where all its terms can do without them.
    """
    there = whole.without(scale <= SMALLEST)
    found = there.fit(scale, there.part(start), MEANWHILE)
    settled, before = False, -math.inf
    for _ in range(MOST_ROUNDS):
        now = found.conditioned.log_evidence + there.normalisation()
        settled = abs(now - before) <= SETTLED
        if settled or not math.isfinite(now) or time.perf_counter() > whole.deadline:
            break
        before, z = now, found.unknowns[: len(there.groups)]
        gamma = there.determined(found, scale)
        energy = torch.zeros_like(scale).index_add_(0, there.groups, z.square())
        new = (energy / gamma.clamp_min(1e-12)).sqrt().clamp(SMALLEST, GREATEST)
        new = torch.where((gamma < GONE) & (new < scale), SMALLEST, new)
        scale = torch.where(heard & (scale > SMALLEST), new, scale)
        for p in there.placed:
            if _is_unmeasured(p):
                p.weight = 1 / _most_likely_noise(p, found, whole.scales, len(z))
        unknowns = there.among_all(found.unknowns)
        there = there.without(scale <= SMALLEST)
        found = there.fit(scale, there.part(unknowns), MEANWHILE)
    if len(whole.scales.units):
        found = there.fit(scale, found.unknowns, FINALLY)
    return _Found(
        fit=found,
        scale=scale,
        unknowns=there.among_all(found.unknowns),
        root=there.among_all(found.conditioned.covariance_root()),
        weights=[p.weight for p in whole.placed],
        log_evidence=there.log_evidence(found, scale),
        settled=settled,
    )


class _Problem:
    """Terms, and which component each of their coefficients belongs to; some may have left."""

    def __init__(
        self,
        placed: Sequence[AnyTerm],
        groups: Tensor,  # shape: (r,)
        prior_of_parameters: Tensor,  # shape: (p,)
        scales: Scales,
        linear: bool,
        deadline: float,
        places: Tensor | None = None,
        size: int | None = None,
    ) -> None:
        self.placed, self.groups, self.prior_of_parameters = placed, groups, prior_of_parameters
        self.scales, self.linear, self.deadline = scales, linear, deadline
        self.size = size or len(groups) + len(prior_of_parameters)
        self.places = torch.arange(self.size, device=groups.device) if places is None else places

    def without(self, gone: Tensor) -> _Problem:  # shape: (components,)
        """The problem in which their coefficients are zero."""
        left = ~gone[self.groups]
        compact = [p for p in self.placed if isinstance(p, CompactTerm)]
        if bool(left.all()) or len(compact) < len(self.placed):
            return self
        parameters = left.new_ones(len(self.prior_of_parameters))
        return _Problem(
            [p.restricted(left) for p in compact],
            self.groups[left],
            self.prior_of_parameters,
            self.scales,
            self.linear,
            self.deadline,
            self.places[torch.cat([left, parameters])],
            self.size,
        )

    def part(self, whole: Tensor) -> Tensor:
        """Of values for all unknowns, those for the ones that are left."""
        return whole[self.places]

    def among_all(self, part: Tensor) -> Tensor:
        """Values for the unknowns that are left among those for all, which are zero."""
        return part.new_zeros(self.size, *part.shape[1:]).index_copy(0, self.places, part)

    def prior(self, scale: Tensor) -> Tensor:
        """Deviations of the unknowns, given those of the components."""
        return torch.cat([scale[self.groups], self.prior_of_parameters])

    def linearise(self, unknowns: Tensor) -> None:
        """Slopes and rows of all terms at these unknowns."""
        count = len(self.groups)
        numbers = list((unknowns[count:] * self.scales.units).unbind(0))
        for p in self.placed:
            p.linearise(p.layout.grids(unknowns[:count]), numbers)

    def fit(self, scale: Tensor, start: Tensor, settled: float) -> Fit:
        """The most likely unknowns."""
        return fit(
            self.placed,
            self.prior(scale),
            start,
            self.scales,
            linear=self.linear,
            deadline=self.deadline,
            settled=settled,
        )

    def fit_coefficients(self, scale: Tensor, start: Tensor, eta: Tensor) -> Fit:
        """The most likely coefficients for given parameters."""
        return fit_coefficients(
            self.placed,
            scale[self.groups],
            start,
            list((eta * self.scales.units).unbind(0)),
            linear=self.linear,
            deadline=self.deadline,
        )

    def determined(self, found: Fit, scale: Tensor) -> Tensor:  # shape: (components,)
        """How many of each component's coefficients the data determine."""
        share = found.conditioned.determined(self.prior(scale))[: len(self.groups)]
        return torch.zeros_like(scale).index_add_(0, self.groups, share)

    def normalisation(self) -> float:
        """What weighing the observations by their noise adds to the logarithm of the evidence."""
        observed = [p for p in self.placed if p.term.kind == "observation"]
        return sum(len(p.points) * math.log(p.weight) for p in observed)

    def log_evidence(self, found: Fit, scale: Tensor, eta: Tensor | None = None) -> float:
        """log p(observations | equations and conditions), the parameters where they are."""
        others = [p for p in self.placed if p.term.kind != "observation"]
        unknowns = found.unknowns if eta is None else torch.cat([found.unknowns, eta])
        alone = log_evidence(others, self.prior(scale), unknowns, self.scales, among=self.placed)
        return found.conditioned.log_evidence + self.normalisation() - alone


def _is_unmeasured(p: AnyTerm) -> bool:
    return p.term.kind == "observation" and p.term.noise is None


def _most_likely_noise(p: AnyTerm, found: Fit, scales: Scales, count: int) -> float:
    """sqrt(|misfit|^2 / (n - gamma)): what conditions and equations settle is not charged to the data."""
    numbers = list((found.unknowns[count:] * scales.units).unbind(0))
    grids = p.layout.grids(found.unknowns[:count])
    misfit = float(p.residual(grids, numbers).square().sum()) / p.weight**2
    free = max(len(p.points) - _share(p, found, scales, count), 1.0)
    return math.sqrt(max(misfit / free, 1e-30))


def _share(p: AnyTerm, found: Fit, scales: Scales, count: int) -> float:
    """Degrees of freedom the observations take up: the trace of their hat matrix."""
    rows = p.dense(len(scales.units))
    rows[:, count:] *= scales.units
    turned = torch.linalg.solve_triangular(found.conditioned.factor.T, rows.T, upper=False)
    return float(turned.square().sum())
