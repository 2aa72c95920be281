"""Noise and weight decay from the evidence: how much the observations determine.

In    residuals and Jacobian of a shooting problem at its minimum.
Out   `Evidence`: standard deviations of the observations, precisions of the networks' priors, and how
      uncertain every unknown is.
Next  `solvers.neural_ode` goes on with them.

With H = J^T J, rows scaled by the present weights, the networks' weights theta_g (P_g of them, precision
a_g) and the n_o observations of one kind (standard deviation s_o), MacKay's fixed point is

    gamma_g = P_g - a_g trace(H^-1)_gg,             a_g   <- gamma_g / |theta_g|^2
    gamma_o = trace(J_o H^-1 J_o^T),                s_o^2 <- s_o^2 |r_o|^2 / (n_o - gamma_o).

At that fixed point the evidence of the form of the terms itself, by which forms are compared, is

    log E = - |r|^2 / 2 - sum_o n_o log(s_o sqrt(2 pi)) + sum_g P_g log(a_g) / 2 - log(det H) / 2
            - sum_g [log log(MOST / LEAST) - log(4 pi / gamma_g) / 2],

Laplace's approximation of the integral over weights, times, for every precision in use, the width of its
posterior (log a_g is known to sqrt(2 / gamma_g)) over the width of a prior that is flat in log a_g. Unknown
numbers and starts have flat priors, the same in all forms; so do the s_o.

References: mackay1992practical; mackay1999comparison (widths of precisions).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from pinnkit.solvers.neural_ode_shooting import Observed, Shooting

__all__ = ["Evidence", "weigh"]

LEAST, MOST = 1e-3, 1e6  # precisions; 1 is that of first weights
WIDTH = math.log(math.log(MOST / LEAST))
LARGEST_STEP = 30.0  # factor a precision may change by in one estimate
LEAST_NOISE = (
    1e-4  # relative to the observed values' size: below it rounding and steps are what is left
)


@final
@dataclass(frozen=True, eq=False)
class Evidence:
    """What the observations say about their own noise and about the unknowns.

    Args:
        sigmas: Standard deviation of each set of observations.
        precisions: Of each network's prior, (groups,).
        determined: Weights of each group the observations determine, gamma_g.
        effective: Their number, of all parameters.
        deviations: Posterior standard deviation of every number and weight, (P,).
        covariance: Of all unknowns, theta's order.
        log: log E, without the prior of the form. Means something without seams only.
    """

    sigmas: list[float]
    precisions: Tensor
    determined: Tensor
    effective: float
    deviations: Tensor
    covariance: Tensor
    log: float


def weigh(
    shooting: Shooting,
    theta: Tensor,
    group: Tensor,  # shape: (P,)
    declared: Sequence[float | None],
    precisions: Tensor,  # shape: (groups,)
    kinds: Sequence[int],
) -> Evidence:
    """One fixed-point step.

    Args:
        shooting: The residuals; its weights are those now in force.
        theta: The minimum.
        group: Precision of each parameter, -1 for none.
        declared: Standard deviations the user gave, which stay.
        precisions: Now in force.
        kinds: Which sets of observations have the same noise, one number per set.
    """
    r, rows = shooting.rows(theta)
    hessian = rows.T @ rows
    # Directions that nothing determines: a precision far below all others, instead of a singular matrix.
    hessian.diagonal().add_(1e-10 * hessian.diagonal().amax().clamp_min(1e-300))
    covariance = torch.linalg.inv(hessian)
    weights, _ = shooting.split(theta)
    new, effective = precisions.clone(), float((group < 0).sum())
    log = _laplace(shooting, r, hessian)
    determined = torch.zeros_like(precisions)
    for g in range(len(precisions)):
        own = (group == g).nonzero()[:, 0]
        trace = float(covariance.diagonal()[own].sum())
        gamma = max(len(own) - float(precisions[g]) * trace, 1e-3)
        size = float(weights[own].square().sum())
        found = gamma / max(size, 1e-12)
        low, high = float(precisions[g]) / LARGEST_STEP, float(precisions[g]) * LARGEST_STEP
        new[g] = min(max(found, low, LEAST), high, MOST)
        determined[g] = gamma
        effective += gamma
        if size > 0:  # what was struck out is no part of the form
            log -= max(WIDTH - 0.5 * math.log(4 * math.pi / gamma), 0.0)
    sigmas = _noise(shooting.observed, r, rows, covariance, declared, kinds)
    deviations = covariance.diagonal()[: shooting.weights].clamp_min(0).sqrt()
    return Evidence(sigmas, new, determined, effective, deviations, covariance, log)


def _noise(
    observed: Sequence[Observed],
    r: Tensor,
    rows: Tensor,
    covariance: Tensor,
    declared: Sequence[float | None],
    kinds: Sequence[int],
) -> list[float]:
    """The standard deviation of every set, of all sets of a kind together."""
    totals: dict[int, list[float]] = {}
    begin = 0
    for o, kind in zip(observed, kinds, strict=True):
        part, off = rows[begin : begin + len(o.values)], r[begin : begin + len(o.values)]
        begin += len(o.values)
        taken = float(((part @ covariance) * part).sum())
        own = [float(off.square().sum()), len(o.values), taken, float(o.values.square().sum())]
        totals[kind] = [a + b for a, b in zip(totals.get(kind, [0.0] * 4), own, strict=True)]
    sigmas = []
    for o, kind, given in zip(observed, kinds, declared, strict=True):
        squares, count, taken, size = totals[kind]
        freedom = max(count - taken, 0.1 * count)
        least = LEAST_NOISE * math.sqrt(size / count) + 1e-300
        found = max(o.sigma * math.sqrt(squares / freedom), least)
        sigmas.append(found if given is None else given)
    return sigmas


def _laplace(shooting: Shooting, r: Tensor, hessian: Tensor) -> float:
    """log of the integral of likelihood times prior over all unknowns, about the minimum."""
    alpha = shooting.precisions[shooting.precisions > 0]
    noise = sum(
        len(o.values) * math.log(o.sigma * math.sqrt(2 * math.pi)) for o in shooting.observed
    )
    occam = 0.5 * float(alpha.log().sum() - torch.linalg.slogdet(hessian)[1])
    return occam - 0.5 * float(r @ r) - noise
