"""Unknown parameters: those under which noisy data are most likely, given that the equations hold.

In    log p(data | equations, parameters) as a function of the parameters, and where to begin.
Out   `MostLikely`: the parameters, their covariance, how the coefficients move with them.
Next  `solvers.spectral_mixture_evidence`.

Coefficients and parameters found together as the most probable pair are not that: equations held to
seven digits and the prior of three hundred coefficients say something about the parameters, too, by how
small the solutions are that belong to them, and that is no information. log p(data, equations |
parameters) - log p(equations | parameters) is free of it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["MostLikely", "most_likely"]

STEP = 0.2  # of a standard error: for differences
MOST_STEPS = 12
FARTHEST = 3.0  # standard errors per step
HALVINGS = 6
SETTLED = 1e-4  # of the logarithm of the likelihood: a hundredth of a standard error
LEAST_CURVATURE = 1e-3  # of what was expected: below it the data say nothing

Likelihood = Callable[[Tensor], tuple[float, Tensor]]  # parameters -> (its logarithm, coefficients)


@dataclass(frozen=True, eq=False)
class MostLikely:
    """`covariance` is the inverse of the likelihood's curvature, `slopes` d coefficients / d parameters."""

    parameters: Tensor  # shape: (p,)
    covariance: Tensor  # shape: (p, p)
    slopes: Tensor  # shape: (r, p)
    converged: bool


def most_likely(
    likelihood: Likelihood,
    start: Tensor,  # shape: (p,)
    errors: Tensor,  # shape: (p,)
    lower: Tensor,
    upper: Tensor,
    *,
    deadline: float,
) -> MostLikely | None:
    """Newton's method with differences; None where the likelihood has no maximum to speak of.

    Args:
        likelihood: Smooth and cheap; the coefficients are those that go with the parameters.
        start: Close to the maximum, by a few standard errors.
        errors: The order of magnitude of the standard errors.
        lower, upper: Bounds of the parameters.
        deadline: `time.perf_counter()` after which no further step is begun.
    """
    eta, errors = start, errors.clone()
    now, _ = likelihood(eta)
    converged = False
    for _ in range(MOST_STEPS):
        gradient, curvature, slopes = _differences(likelihood, eta, now, STEP * errors)
        scaled = curvature * errors[:, None] * errors
        if not torch.isfinite(scaled).all():
            return None
        if float(torch.linalg.eigvalsh(scaled)[0]) < LEAST_CURVATURE:
            return None
        covariance = torch.linalg.inv(scaled) * errors[:, None] * errors
        errors = covariance.diagonal().sqrt()
        change = covariance @ gradient
        change = change * min(1.0, FARTHEST / float((change / errors).abs().max().clamp_min(1e-12)))
        found = MostLikely(eta, covariance, slopes, True)
        inside = (eta + change).clamp(lower, upper) - eta
        if converged or float(gradient @ inside) <= SETTLED:
            return found
        if time.perf_counter() > deadline:
            break
        moved = None
        for _ in range(HALVINGS):
            trial = (eta + inside).clamp(lower, upper)
            value, _ = likelihood(trial)
            if math.isfinite(value) and value > now:
                moved = trial
                break
            inside = 0.5 * inside
        if moved is None:
            return found
        converged = value - now <= SETTLED
        eta, now = moved, value
    return MostLikely(eta, covariance, slopes, converged)


def _differences(
    likelihood: Likelihood, eta: Tensor, now: float, steps: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient, minus the second derivatives, and the slopes of the coefficients."""
    count = len(eta)
    gradient, curvature = torch.zeros_like(eta), eta.new_zeros(count, count)
    slopes, ahead = [], []
    for i in range(count):
        aside = torch.zeros_like(eta)
        aside[i] = steps[i]
        (above, z_above), (below, z_below) = likelihood(eta + aside), likelihood(eta - aside)
        gradient[i] = (above - below) / (2 * steps[i])
        curvature[i, i] = (2 * now - above - below) / steps[i] ** 2
        slopes.append((z_above - z_below) / (2 * steps[i]))
        ahead.append((aside, above))
    for i in range(count):
        for j in range(i):
            (to_i, at_i), (to_j, at_j) = ahead[i], ahead[j]
            both, _ = likelihood(eta + to_i + to_j)
            curvature[i, j] = curvature[j, i] = -(both - at_i - at_j + now) / (steps[i] * steps[j])
    return gradient, curvature, torch.stack(slopes, dim=1)
