"""Preconditioners: something like A^-1 that is cheap to apply, so that few products with A are needed.

In    the diagonal of A, a matrix that resembles A, or any function of the user's.
Out   v -> M v, linear, sample by sample.
Next  `CG(preconditioner=...)` and `GMRES(preconditioner=...)`, which transpose it for adjoints.

They change the work, never the solution, so that no gradient passes through them and they may capture
what they like.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import scipy.sparse.linalg
import torch
from torch import Tensor

from pinnkit.implicit.dense import solve_dense
from pinnkit.implicit.jacobian import Map
from pinnkit.implicit.record import flattened
from pinnkit.implicit.sparse import SparsePattern, sparse_solve

__all__ = ["Factors", "Jacobi", "Preconditioner", "check_preconditioner", "checked", "diagonal"]

AT_ONCE = 2**22  # numbers in the products that look for a diagonal, at a time


@final
@dataclass(frozen=True)
class Jacobi:
    """M = diag(A)^-1, for entries of very different sizes.

    Read off a dense or sparse A; of a function, a Jacobian or a Hessian it takes one product for each
    unknown, several at once, for each system.
    """


@final
class Factors:
    """M = P^-1 by the factors of a matrix P that resembles A: its linear part, its mean, a coarser law.

    Args:
        matrix: P, shape (n, n), dense, COO or CSR; the same for all samples, whose n entries are in the
            order of `flatten`. Factorised once, a sparse one on the host.
        drop: Of a sparse P, leave out fill below this fraction of its column: incomplete factors (ILU),
            which are smaller. 0: exact ones.

    >>> entries = torch.tensor([1.0, 100.0], dtype=torch.float64)
    >>> P = torch.sparse_coo_tensor([[0, 1], [0, 1]], entries, check_invariants=True)
    >>> Factors(P)(torch.ones(1, 2, dtype=torch.float64)).tolist()
    [[1.0, 0.01]]
    """

    def __init__(self, matrix: Tensor, *, drop: float = 0.0) -> None:
        if not isinstance(matrix, Tensor) or matrix.ndim != 2 or len(set(matrix.shape)) != 1:
            shape = tuple(matrix.shape) if isinstance(matrix, Tensor) else type(matrix).__name__
            raise ValueError(f"Factors: matrix must be a tensor of shape (n, n), not {shape}.")
        if not 0 <= drop < 1 or (drop and matrix.layout == torch.strided):
            raise ValueError(
                f"Factors: drop={drop} must lie in [0, 1), and be 0 for a dense matrix."
            )
        matrix = matrix.detach()
        self.size, self.drop = len(matrix), drop
        self._apply: Map
        if matrix.layout == torch.strided:
            self._apply = functools.partial(solve_dense, matrix)
        else:
            incomplete: Any = functools.partial(scipy.sparse.linalg.spilu, drop_tol=drop)
            pattern, values = SparsePattern.of(matrix, incomplete if drop else None)
            self._apply = functools.partial(sparse_solve, pattern, values)

    def __repr__(self) -> str:
        return f"Factors(n={self.size}, drop={self.drop})"

    def __call__(self, v: Tensor) -> Tensor:  # shape: (B, ...)
        """P^-1 v."""
        rows = flattened(v)
        if rows.shape[1] != self.size:
            raise ValueError(
                f"Factors of a matrix with {self.size} rows cannot precondition samples of shape"
                f" {tuple(v.shape[1:])}."
            )
        return self._apply(rows).reshape(v.shape)


Preconditioner = Jacobi | Callable[[Tensor], Tensor]


def check_preconditioner(helper: Any, *, owner: str) -> None:
    """Refuse what cannot be one."""
    if isinstance(helper, Tensor):
        raise TypeError(
            f"{owner}: preconditioner is a tensor, which may resemble A or A^-1. Write Factors(P) for a"
            " matrix P that resembles A, lambda v: v @ M.T for an approximate inverse M."
        )
    if helper is not None and not callable(helper) and not isinstance(helper, Jacobi):
        raise TypeError(
            f"{owner}: preconditioner={helper!r} must be Jacobi(), Factors(P) or a function."
        )


def checked(helper: Map) -> Map:
    """The user's function; what it returns must be like what it got."""

    def apply(v: Tensor) -> Tensor:
        y: Any = helper(v)
        if not isinstance(y, Tensor) or y.shape != v.shape or y.dtype != v.dtype:
            got = f"{y.dtype} {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
            raise ValueError(
                f"the preconditioner turned {v.dtype} {tuple(v.shape)} into {got}; it must return the"
                " same, for any number of samples."
            )
        return y

    return apply


def diagonal(matvec: Map, like: Tensor) -> Tensor:  # shape: (B, n)
    """The diagonals of a linear map of rows, one product for each unknown."""
    b, n = like.shape
    at_once = max(1, AT_ONCE // max(1, b * n))
    found = []
    for first in range(0, n, at_once):
        k = torch.arange(first, min(first + at_once, n), device=like.device)
        basis = torch.nn.functional.one_hot(k, n).to(like)[:, None].expand(-1, b, n)
        found.append(torch.vmap(matvec)(basis)[torch.arange(len(k)), :, k])
    return torch.cat(found).T if found else torch.zeros_like(like)
