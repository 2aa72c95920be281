"""A strong Wolfe line search: the one that both quasi-Newton methods use.

In    a `ResidualModel`, a direction of descent and the loss and slope where it starts.
Out   a step length that obeys both Wolfe conditions, with the loss and gradient there.
Next  `self_scaled_broyden` and `lbfgs` update their curvature with that gradient.

A bracket [low, high] always holds a strong Wolfe point: low obeys the Armijo condition and still
falls steeply, high does not obey it or rises. Where the slope changes sign in between, the next
trial is the zero of its secant, which on a quadratic is the exact minimiser; otherwise the middle.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from pinnkit.train.residual_model import ResidualModel

__all__ = ["Found", "strong_wolfe", "wolfe_faults"]

INSIDE = 0.1  # a secant's zero keeps this share of the bracket from both of its ends
NEARLY, FAR = 1.01, 10.0  # as long as the loss falls, the next trial is so many times longer


class Found(NamedTuple):
    """Where a line search ended: step length, loss and gradient there."""

    alpha: float
    loss: float
    gradient: Tensor


class _End(NamedTuple):
    """One end of the bracket."""

    alpha: float
    slope: float


def strong_wolfe(
    model: ResidualModel,
    theta: Tensor,  # shape: (P,)
    direction: Tensor,  # shape: (P,)
    loss: float,
    slope: float,
    first: float,
    *,
    tries: int,
    armijo: float,
    curvature: float,
) -> Found | None:
    """loss(alpha) <= loss + c1 alpha slope and |slope(alpha)| <= c2 |slope|, c1 and c2 being `armijo`
    and `curvature`; after `tries` trials the best point that obeys the first, or None.
    """
    before, low, high = _End(0.0, slope), _End(0.0, slope), None
    alpha, width, best = first, math.inf, None
    for _ in range(tries):
        value, gradient = model.gradient(theta + alpha * direction)
        here = _End(alpha, float(gradient @ direction))
        finite = math.isfinite(value) and math.isfinite(here.slope)
        if not finite or value > loss + armijo * alpha * slope:
            high = here
        else:
            found = Found(alpha, value, gradient)
            if abs(here.slope) <= -curvature * slope:
                return found
            if best is None or value < best.loss:
                best = found
            if here.slope < 0:
                before, low = low, here
            else:
                high = here
        if high is None:
            alpha = _beyond(before, low)
        else:
            # The secant may creep along from one end: after a poor cut the bracket is halved.
            poor, width = high.alpha - low.alpha > 0.5 * width, high.alpha - low.alpha
            alpha = 0.5 * (low.alpha + high.alpha) if poor else _between(low, high)
    return best


def wolfe_faults(tries: int, armijo: float, curvature: float) -> list[str]:
    """What is wrong with the settings of a line search, in words."""
    faults = []
    if tries < 1:
        faults.append(f"tries={tries} must be at least 1")
    if not 0 < armijo < curvature < 1:
        faults.append(f"need 0 < armijo < curvature < 1, got {armijo}, {curvature}")
    return faults


def _beyond(before: _End, low: _End) -> float:
    """Past `low`, where the slope is still negative: the zero of the secant, within limits."""
    farthest = FAR * low.alpha
    if low.slope <= before.slope:
        return farthest
    zero = low.alpha - low.slope * (low.alpha - before.alpha) / (low.slope - before.slope)
    return min(max(zero, NEARLY * low.alpha), farthest)


def _between(low: _End, high: _End) -> float:
    """Inside the bracket: the zero of the secant where the slope changes sign, else the middle."""
    width = high.alpha - low.alpha
    if not 0 < high.slope < math.inf:
        return low.alpha + 0.5 * width
    share = -low.slope / (high.slope - low.slope)
    return low.alpha + width * min(max(share, INSIDE), 1.0 - INSIDE)
