"""Parameters of a module as the one vector theta that optimisers step.

In    a sequence of parameters.
Out   their values as a vector, a vector written back, the gradient of a loss as a vector.
Next  models of `ResidualModel` that train networks: `solvers.collocation`, `graph_training`, ...
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["flat_gradient", "flat_parameters", "load_parameters"]


def flat_parameters(params: Sequence[nn.Parameter]) -> Tensor:  # shape: (P,)
    """All values, one after the other, without a graph."""
    return torch.cat([p.detach().reshape(-1) for p in params])


def load_parameters(params: Sequence[nn.Parameter], theta: Tensor) -> None:
    """Write the vector back into the parameters."""
    with torch.no_grad():
        start = 0
        for p in params:
            p.copy_(theta[start : start + p.numel()].view_as(p))
            start += p.numel()


def flat_gradient(loss: Tensor, params: Sequence[nn.Parameter]) -> Tensor:  # shape: (P,)
    """The gradient of a number; zero for parameters it does not depend on."""
    grads = torch.autograd.grad(loss, params, allow_unused=True)
    return torch.cat(
        [
            (torch.zeros_like(p) if g is None else g).reshape(-1)
            for p, g in zip(params, grads, strict=True)
        ]
    )
