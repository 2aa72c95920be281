"""Jacobians of functions that act sample by sample: products, and the matrices themselves.

In    a function on (B, ...) tensors and where it is linearised.
Out   J v, J^T u, or one small matrix per sample.
Next  `newton` and `linear` solve with them.

Reverse mode only: J v is the derivative of u -> J^T u. Forward mode would not nest inside a user's own
forward mode, and not every operation has it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["Jacobian", "columns", "linearised"]

Map = Callable[[Tensor], Tensor]


class Jacobian:
    """J of `function` at z, the function evaluated once."""

    def __init__(self, function: Map, z: Tensor) -> None:
        self.value, self._pull = linearised(function, z)

    def pull(self, u: Tensor) -> Tensor:
        """J^T u."""
        return self._pull(u)

    def push(self, v: Tensor) -> Tensor:
        """J v."""
        return linearised(self.pull, torch.zeros_like(self.value))[1](v)

    def matrix(self) -> Tensor:  # shape: (B, m, n)
        """All entries, a row at a time."""
        return columns(self.pull, self.value).transpose(1, 2)


def linearised(function: Map, z: Tensor) -> tuple[Tensor, Map]:
    """The value at z, and u -> J^T u."""
    value, pull, *_ = torch.func.vjp(function, z)
    return value, lambda u: pull(u)[0]


def columns(linear: Map, like: Tensor) -> Tensor:  # shape: (B, m, n)
    """The matrix of every sample of a linear map of tensors shaped as `like`, shape (B, ...)."""
    n = like.shape[1:].numel()
    eye = torch.eye(n, dtype=like.dtype, device=like.device)
    basis = eye.reshape(n, 1, *like.shape[1:]).expand(n, *like.shape)
    images = torch.vmap(linear)(basis)
    return images.flatten(2).permute(1, 2, 0) if images.ndim > 2 else images.T[:, None]
