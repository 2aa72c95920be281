"""Kronecker and Toeplitz algebra of covariances on grids, in float64.

In    symmetric positive semidefinite matrices, one per coordinate; first columns of Toeplitz matrices.
Out   products, solves, log-determinants, samples, truncated eigenbases: nothing of the full size squared.
Next  `gp.features` takes the eigenbases; users build their own grid models with `KroneckerCovariance`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = [
    "KroneckerCovariance",
    "kron_apply",
    "toeplitz",
    "toeplitz_matvec",
    "truncated_eigenbasis",
]


def kron_apply(matrices: Sequence[Tensor], grid: Tensor) -> Tensor:
    """(A_1 (x) ... (x) A_d) vec(grid) as a grid, one coordinate after the other.

    Args:
        matrices: (n_k, m_k) each.
        grid: (m_1, ..., m_d, ...): further axes are carried along.
    """
    for k, matrix in enumerate(matrices):
        moved = torch.movedim(grid, k, 0)
        flat = matrix @ moved.reshape(moved.shape[0], -1)
        grid = torch.movedim(flat.reshape(matrix.shape[0], *moved.shape[1:]), 0, k)
    return grid


def toeplitz(
    column: Tensor,  # shape: (n,)
    *,
    odd: bool = False,
) -> Tensor:  # shape: (n, n)
    """The dense matrix of a first column; antisymmetric for odd derivatives."""
    n = len(column)
    lag = torch.arange(n, device=column.device)
    difference = lag[:, None] - lag[None, :]
    full = column[difference.abs()]
    return full * torch.sign(difference) if odd else full


def toeplitz_matvec(
    column: Tensor,  # shape: (n,)
    x: Tensor,  # shape: (n, ...)
    *,
    odd: bool = False,
) -> Tensor:
    """Toeplitz matrix times vectors by the circulant of twice the size: O(n log n)."""
    n = len(column)
    mirrored = column[1:].flip(0)
    circulant = torch.cat([column, column.new_zeros(1), -mirrored if odd else mirrored])
    if odd:
        circulant = torch.cat([column.new_zeros(1), circulant[1:]])
    spectrum = torch.fft.rfft(circulant)
    flat = x.reshape(n, -1)
    product = torch.fft.irfft(
        spectrum[:, None] * torch.fft.rfft(flat, n=2 * n, dim=0), n=2 * n, dim=0
    )
    return product[:n].reshape(x.shape)


def truncated_eigenbasis(
    covariance: Tensor,  # shape: (n, n)
    tolerance: float = 1e-12,
) -> tuple[Tensor, Tensor]:  # shapes: (n, r), (r,)
    """Eigenvectors and eigenvalues above `tolerance` times the largest, largest first."""
    values, vectors = torch.linalg.eigh(covariance)
    kept = values > tolerance * values[-1]
    return vectors[:, kept].flip(1), values[kept].flip(0)


@dataclass(frozen=True, eq=False)
class KroneckerCovariance:
    """C = K_1 (x) ... (x) K_d + noise * Id, by the eigendecompositions of the factors.

    Eigenvalues of the factors below rounding are set to zero: they are noise of the decomposition,
    and with `noise` = 0 nothing can be solved in their directions (`solve` says so).

    Args:
        vectors: Orthogonal (n_k, n_k) per coordinate.
        values: Eigenvalues (n_k,) per coordinate.
        noise: The variance on the diagonal.
    """

    vectors: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    noise: float = 0.0

    @classmethod
    def of(cls, factors: Sequence[Tensor], noise: float = 0.0) -> KroneckerCovariance:
        """From the factors themselves, symmetric and positive semidefinite."""
        if noise < 0:
            raise ValueError(f"noise={noise!r} is a variance, it cannot be negative")
        vectors, values = [], []
        for factor in factors:
            lam, v = torch.linalg.eigh(factor)
            floor = len(lam) * torch.finfo(lam.dtype).eps * lam[-1]
            values.append(torch.where(lam > floor, lam, torch.zeros_like(lam)))
            vectors.append(v)
        return cls(tuple(vectors), tuple(values), noise)

    @property
    def eigenvalues(self) -> Tensor:
        """Of the whole matrix, as a grid (n_1, ..., n_d)."""
        grid = self.values[0]
        for lam in self.values[1:]:
            grid = grid[..., None] * lam
        return grid + self.noise

    def matmul(self, grid: Tensor) -> Tensor:
        """C vec(grid)."""
        return self._function(grid, self.eigenvalues)

    def solve(self, grid: Tensor) -> Tensor:
        """C^-1 vec(grid)."""
        return self._function(grid, 1 / self._positive())

    def logdet(self) -> Tensor:
        """log det C, from logarithms of all n_1 ... n_d eigenvalues (none of them clamped)."""
        return self._positive().log().sum()

    def log_density(self, grid: Tensor) -> Tensor:
        """log N(vec(grid) | 0, C)."""
        quadratic = (grid * self.solve(grid)).sum()
        return -0.5 * (quadratic + self.logdet() + grid.numel() * math.log(2 * math.pi))

    def sample(self, gen: torch.Generator) -> Tensor:
        """One draw from N(0, C) as a grid."""
        lam = self.eigenvalues
        white = torch.randn(lam.shape, dtype=lam.dtype, generator=gen).to(lam.device)
        return kron_apply(self.vectors, lam.sqrt() * white)

    def _positive(self) -> Tensor:
        lam = self.eigenvalues
        if not bool((lam > 0).all()):
            raise ValueError(
                "the covariance is singular to rounding; give it noise, or use truncated eigenbases"
            )
        return lam

    def _function(self, grid: Tensor, diagonal: Tensor) -> Tensor:
        turned = kron_apply([v.T for v in self.vectors], grid)
        return kron_apply(self.vectors, diagonal * turned)
