"""Equations with closed forms, shared by the tests of the implicit layers."""

from __future__ import annotations

import torch

EXACT = 1e-13
ITERATIVE = 1e-9


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0, grad: bool = False) -> torch.Tensor:
    x = torch.randn(*shape, dtype=torch.float64, generator=generator(seed))
    return x.requires_grad_(grad)


def contraction(n: int, factor: float, seed: int = 0) -> torch.Tensor:
    """A matrix with 2-norm `factor`, not symmetric."""
    a = normal(n, n, seed=seed)
    return factor * a / torch.linalg.matrix_norm(a, 2)


def affine_map(z, a, b):
    """z -> A z + b; the fixed point is (I - A)^-1 b."""
    return z @ a.T + b


def tanh_map(z, w, b):
    """z -> tanh(W z) + b, W shared by the samples."""
    return torch.tanh(z @ w.T) + b


def cubic(z, a):
    """z^3 + z - a = 0: one real root, by Cardano's formula."""
    return z**3 + z - a


def cardano(a):
    c = torch.sqrt(a.square() / 4 + 1 / 27)
    s, t = a / 2 + c, a / 2 - c
    return s.sign() * s.abs() ** (1 / 3) + t.sign() * t.abs() ** (1 / 3)
