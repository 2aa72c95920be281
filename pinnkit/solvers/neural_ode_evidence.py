"""Noise and weight decay from the evidence: how much the observations determine.

In    residuals and Jacobian of a shooting problem at its minimum.
Out   `Evidence`: standard deviations of the observations, precisions of the networks' priors, and how
      uncertain every unknown is.
Next  `solvers.neural_ode` goes on with them.

With H = J^T J, rows scaled by the present weights, the networks' weights theta_g (P_g of them, precision
a_g) and the n_o observations of one kind (standard deviation s_o), MacKay's fixed point is

    gamma_g = P_g - a_g trace(H^-1)_gg,             a_g   <- gamma_g / |theta_g|^2
    gamma_o = trace(J_o H^-1 J_o^T),                s_o^2 <- s_o^2 |r_o|^2 / (n_o - gamma_o).

References: mackay1992practical.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from pinnkit.solvers.neural_ode_shooting import Shooting

__all__ = ["Evidence", "weigh"]

LEAST, MOST = 1e-3, 1e6  # precisions; 1 is that of first weights
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
    """

    sigmas: list[float]
    precisions: Tensor
    determined: Tensor
    effective: float
    deviations: Tensor
    covariance: Tensor


def weigh(
    shooting: Shooting,
    theta: Tensor,
    group: Tensor,  # shape: (P,)
    declared: Sequence[float | None],
    precisions: Tensor,  # shape: (groups,)
) -> Evidence:
    """One fixed-point step.

    Args:
        shooting: The residuals; its weights are those now in force.
        theta: The minimum.
        group: Precision of each parameter, -1 for none.
        declared: Standard deviations the user gave, which stay.
        precisions: Now in force.
    """
    r, rows = shooting.rows(theta)
    hessian = rows.T @ rows
    # Directions that nothing determines: a precision far below all others, instead of a singular matrix.
    hessian.diagonal().add_(1e-10 * hessian.diagonal().amax().clamp_min(1e-300))
    covariance = torch.linalg.inv(hessian)
    weights, _ = shooting.split(theta)
    new, effective = precisions.clone(), float((group < 0).sum())
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
    sigmas, begin = [], 0
    for o, given in zip(shooting.observed, declared, strict=True):
        end = begin + len(o.values)
        if given is not None:
            sigmas.append(given)
        else:
            part = rows[begin:end]
            taken = float(((part @ covariance) * part).sum())
            freedom = max(len(o.values) - taken, 0.1 * len(o.values))
            least = LEAST_NOISE * float(o.values.square().mean().sqrt()) + 1e-300
            squares = float(r[begin:end].square().sum())
            sigmas.append(max(o.sigma * math.sqrt(squares / freedom), least))
        begin = end
    deviations = covariance.diagonal()[: shooting.weights].clamp_min(0).sqrt()
    return Evidence(sigmas, new, determined, effective, deviations, covariance)
