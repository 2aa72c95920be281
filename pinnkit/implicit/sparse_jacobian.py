"""Sparse Jacobians of known pattern: a few products give all entries, SuperLU solves with them.

In    which unknowns each equation depends on.
Out   a linear solver for Newton's systems and adjoints of equations on grids and networks.
Next  `Newton(linear=SparseDirect(pattern))`, whose adjoint takes it, too, or `Exact(linear=...)`.

Columns that share no row are found by one product with the sum of their unit vectors (Curtis, Powell
and Reid 1974): five points of a grid need about nine products, whatever its size.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, final

import numpy as np
import scipy.sparse
import torch
from torch import Tensor
from torch.linalg import LinAlgError  # pyright: ignore[reportAttributeAccessIssue]

from pinnkit.implicit.checks import numbers
from pinnkit.implicit.equation import Function
from pinnkit.implicit.jacobian import Jacobian, Map
from pinnkit.implicit.linear import AbstractLinearSolver, Inverse
from pinnkit.implicit.record import flattened
from pinnkit.implicit.sparse import SparsePattern, sparse_solve

__all__ = ["SparseDirect"]


@final
class SparseDirect(AbstractLinearSolver):
    """LU factors of a sparse Jacobian for each sample, on the host.

    Args:
        pattern: (n, n), with an entry (COO, CSR) or a number other than zero (dense) at (i, j) where
            equation i of a sample may depend on its unknown j, both in the order of `flatten`. Too many
            entries do no harm, too few are found out and refused. Transposes are added, for the adjoint.

    For few samples with many unknowns: each is factorised by itself.
    References: curtis1974sparse.

    >>> SparseDirect(torch.eye(5) + torch.ones(4).diag(1)).products
    3
    """

    def __init__(self, pattern: Tensor) -> None:
        if not isinstance(pattern, Tensor) or pattern.ndim != 2 or len(set(pattern.shape)) != 1:
            shape = tuple(pattern.shape) if isinstance(pattern, Tensor) else type(pattern).__name__
            raise ValueError(f"SparseDirect: pattern must be a tensor (n, n), not {shape}.")
        self.size = len(pattern)
        if pattern.layout == torch.strided:
            rows, cols = pattern.nonzero().T.cpu().numpy()
        else:
            entries, _ = SparsePattern.of(pattern.detach())
            rows, cols = entries.rows.cpu().numpy(), entries.cols.cpu().numpy()
        shape = (self.size, self.size)
        half: Any = scipy.sparse.csr_matrix((np.ones(len(rows)), (rows, cols)), shape=shape)
        whole: Any = scipy.sparse.csr_matrix(half + half.T + scipy.sparse.eye(self.size))
        rows, cols = whole.nonzero()
        self._rows, self._cols = torch.from_numpy(rows).long(), torch.from_numpy(cols).long()
        self._colours = torch.from_numpy(_colours(whole.indptr, whole.indices))

    @property
    def products(self) -> int:
        """That find all entries."""
        return int(self._colours.max()) + 1 if self.size else 0

    def __repr__(self) -> str:
        return f"SparseDirect(n={self.size}, products={self.products})"

    def inverse(self, jacobian: Jacobian, on_rows: Callable[[Map], Map]) -> Inverse:
        entries, rows, cols = self._entries(jacobian.pull, jacobian.value)
        each = [SparsePattern(cols, rows, self.size) for _ in entries]  # they are of J^T

        def apply(rhs: Tensor) -> tuple[Tensor, Tensor]:
            found = [_or_nan(*one) for one in zip(each, entries, rhs.unsqueeze(1), strict=True)]
            x = torch.cat(found) if found else torch.zeros_like(rhs)
            return x, torch.isfinite(x).all(1)

        return apply

    def solve(
        self, matvec: Function, rhs: Tensor, *args: Tensor, precondition: Function | None = None
    ) -> Tensor:
        def product(v: Tensor) -> Tensor:
            return flattened(matvec(v.reshape(rhs.shape), *args))

        flat = flattened(rhs)
        entries, rows, cols = self._entries(product, flat)
        each = [SparsePattern(rows, cols, self.size) for _ in range(len(flat))]
        found = [sparse_solve(p, entries[k], flat[k : k + 1]) for k, p in enumerate(each)]
        return (torch.cat(found) if found else flat).reshape(rhs.shape)

    def _entries(self, linear: Map, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values (B, nnz) of a linear map of rows, and where they are."""
        b, n = like.shape
        if n != self.size:
            raise ValueError(
                f"SparseDirect: the pattern has {self.size} rows, the samples {n} unknowns."
            )
        rows, cols, colours = (t.to(like.device) for t in (self._rows, self._cols, self._colours))
        if b == 0 or n == 0:
            return like.new_zeros(b, len(rows)), rows, cols
        groups = torch.arange(self.products, device=like.device)[:, None] == colours
        images = torch.vmap(linear)(groups.to(like.dtype)[:, None].expand(-1, b, n))
        values = images[colours[cols], :, rows].T
        self._check(linear, values, rows, cols, like)
        return values, rows, cols

    def _check(self, linear: Map, values: Tensor, rows: Tensor, cols: Tensor, like: Tensor) -> None:
        """One product more, with a vector that no pattern removes: every entry was found."""
        count = torch.arange(1, self.size + 1, dtype=like.dtype, device=like.device)
        probe = torch.cos(count).expand(like.shape)
        terms = values * torch.cos(count)[cols]
        zero = torch.zeros_like(like)
        off = numbers(linear(probe) - zero.index_add(1, rows, terms)).abs()
        size = numbers(zero.index_add(1, rows, terms.abs())).amax()
        if bool((off > torch.finfo(like.dtype).eps ** 0.5 * size).any()):
            raise ValueError(
                "SparseDirect: an equation depends on an unknown that the pattern does not name. Add it,"
                " or use GMRES(preconditioner=Factors(...))."
            )


def _or_nan(pattern: SparsePattern, values: Tensor, rhs: Tensor) -> Tensor:
    """A^-1 b; nan for a sample whose matrix is singular or not finite, others go on."""
    try:
        if bool(torch.isfinite(values).all()):
            return sparse_solve(pattern, values, rhs)
    except LinAlgError:
        pass
    return torch.full_like(rhs, torch.nan)


def _colours(starts: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Numbers of groups of columns that share no row, of a symmetric pattern, by first fit."""
    colours = np.full(len(starts) - 1, -1, dtype=np.int64)
    neighbours = [indices[a:b] for a, b in itertools.pairwise(starts)]
    for j, rows in enumerate(neighbours):
        taken = set(np.concatenate([colours[neighbours[i]] for i in rows]).tolist())
        colours[j] = next(c for c in range(len(taken) + 1) if c not in taken)
    return colours
