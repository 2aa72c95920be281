"""Unknown numbers as trained ones: unbounded numbers behind bounded parameters.

In    a `Parameter` with its first guess and bounds.
Out   the number an optimiser moves, and the parameter's value for it.
Next  `lower.stochastic` and `lower.ordinary` hold them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pinnkit.declare.symbols import Parameter

__all__ = ["raw_number", "value_of_raw"]


def raw_number(parameter: Parameter) -> float:
    """The trained number behind a parameter's first guess."""
    if parameter.bounds is None:
        return parameter.guess
    low, high = parameter.bounds
    share = min(max((parameter.guess - low) / (high - low), 1e-6), 1 - 1e-6)
    return math.log(share / (1 - share))


def value_of_raw(parameter: Parameter, raw: Tensor) -> Tensor:
    """low + (high - low) sigmoid(raw) within bounds, raw without."""
    if parameter.bounds is None:
        return raw
    low, high = parameter.bounds
    return low + (high - low) * torch.sigmoid(raw)
