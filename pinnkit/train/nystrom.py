"""Nystroem approximation: a positive semi-definite matrix from a few products with it.

In    the product with a symmetric A (n, n), and a rank.
Out   U (n, l) with orthonormal columns and w (l,) >= 0, descending: A ~ U diag(w) U^T, equal at l = n.
Next  `gauss_newton` inverts it in place of its matrix, `newton_cg` preconditions with it.

With a random orthonormal O (n, l), Y = A O and C = O^T Y it is Y C^-1 Y^T, which agrees with A on the
range of O and is never larger. A shift of the size of rounding, taken off again at the end, keeps
C^-1 harmless (Tropp et al. 2017, algorithm 3); where A is indefinite the shift lifts C above zero.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["nystrom", "nystrom_inverse"]


def nystrom(
    product: Callable[[Tensor], Tensor],  # shapes: (n, l) -> (n, l)
    n: int,
    rank: int,
    *,
    seed: int,
    like: Tensor,
) -> tuple[Tensor, Tensor]:  # shapes: (n, l), (l,)
    """U and w with l = min(rank, n); the same `seed` draws the same O on every device."""
    generator = torch.Generator().manual_seed(seed)
    # Drawn on the CPU in float64 whatever the device, then moved.
    draws = torch.randn(n, min(rank, n), generator=generator, dtype=torch.float64)
    test = torch.linalg.qr(draws.to(like)).Q
    y = product(test)
    core = test.T @ y
    values, vectors = torch.linalg.eigh(0.5 * (core + core.T))
    precision = torch.finfo(like.dtype)
    least = (precision.eps * y.norm()).clamp(min=precision.tiny)
    shift = least - values[0].clamp(max=0.0)
    root = (values + shift).clamp(min=least).sqrt()
    u, s, _ = torch.linalg.svd((y + shift * test) @ (vectors / root), full_matrices=False)
    return u, (s.square() - shift).clamp(min=0.0)


def nystrom_inverse(u: Tensor, w: Tensor, mu: float, x: Tensor) -> Tensor:  # shape: (n,)
    """(A + mu I)^-1 x, with the eigenvalues that U does not hold taken as the smallest it holds.

    They lie between 0 and about that. Taken as 0, as is often done, they make the part of x outside
    of U too long by up to w_l / mu, and w_l / mu is the condition number that is left.
    """
    if not len(w):
        return x / mu
    inside = u.T @ x
    return u @ (inside / (w + mu)) + (x - u @ inside) / (w[-1] + mu)
