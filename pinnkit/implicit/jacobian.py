"""Jacobians of functions that act sample by sample: products, and the matrices themselves.

In    a function on (B, ...) tensors and where it is linearised.
Out   J v, J^T u, or one small matrix per sample.
Next  `newton` and `linear` solve with them.

Reverse mode only: J v is the derivative of u -> J^T u. Forward mode would not nest inside a user's own
forward mode, and not every operation has it. What an outer forward mode needs of our own rules is here,
too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

__all__ = ["Jacobian", "Map", "columns", "linearised", "primals"]

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
        return self.pusher()(v)

    def pusher(self) -> Map:
        """v -> J v for many v: the derivative of u -> J^T u, taken once."""
        return linearised(self.pull, torch.zeros_like(self.value))[1]

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


@contextlib.contextmanager
def primals(saved: Sequence[Tensor]) -> Iterator[list[Any]]:
    """Saved tensors without the tangents of this level, for a rule that outer levels differentiate.

    torch calls the `jvp` of an autograd function with forward mode switched off, at all levels: what
    such a rule computes is a constant to an outer forward mode, whose derivative would silently be
    zero. Here it is switched on again.
    """
    with forward_ad._set_fwd_grad_enabled(True):
        yield [forward_ad.unpack_dual(t).primal for t in saved]
