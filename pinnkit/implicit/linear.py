"""Solvers of linear systems, one per sample: direct, or by products alone (see `krylov`).

In    a linear map of the samples, or a `Jacobian`, and right-hand sides.
Out   solutions, differentiable in all that enters.
Next  `newton` takes steps with them, `equation` its adjoints, `systems.linear_solve` is the door.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.linalg import LinAlgError  # pyright: ignore[reportAttributeAccessIssue]

from pinnkit.implicit.equation import Function
from pinnkit.implicit.jacobian import Jacobian, columns
from pinnkit.implicit.record import flattened

__all__ = ["DENSE_SIZE", "AbstractLinearSolver", "Direct", "solve_dense"]

DENSE_SIZE = 128  # unknowns per sample up to which the matrix is formed unless told otherwise


class AbstractLinearSolver(ABC):
    """Solves A x = b for every sample. Frozen."""

    @abstractmethod
    def inverse(self, jacobian: Jacobian) -> Callable[[Tensor], Tensor]:
        """b -> J^-1 b for many b, on plain tensors of shape (B, n); not finite where J is singular."""

    @abstractmethod
    def solve(self, matvec: Function, rhs: Tensor, *args: Tensor) -> Tensor:
        """x with matvec(x, *args) = rhs, differentiable in rhs and args."""


@final
@dataclass(frozen=True, kw_only=True)
class Direct(AbstractLinearSolver):
    """LU factors with partial pivoting of each sample's n x n matrix: B n^2 numbers, B n^3 operations.

    Sparse matrices are factorised on the host by scipy (SuperLU).
    """

    def inverse(self, jacobian: Jacobian) -> Callable[[Tensor], Tensor]:
        factors, pivots, info = torch.linalg.lu_factor_ex(jacobian.matrix())
        singular = (info != 0)[:, None]

        def apply(rhs: Tensor) -> Tensor:
            x = torch.linalg.lu_solve(factors, pivots, rhs[..., None])[..., 0]
            return torch.where(singular, torch.nan, x)

        return apply

    def solve(self, matvec: Function, rhs: Tensor, *args: Tensor) -> Tensor:
        matrix = columns(lambda x: matvec(x, *args), rhs)
        return solve_dense(matrix, flattened(rhs)).reshape(rhs.shape)


def solve_dense(matrix: Tensor, rhs: Tensor) -> Tensor:  # shapes: ([B,] n, n), (B, n) -> (B, n)
    """`torch.linalg.solve` with a message that says what a singular matrix means here."""
    try:
        if matrix.ndim == 2:
            return torch.linalg.solve(matrix, rhs.T).T
        return torch.linalg.solve(matrix, rhs[..., None])[..., 0]
    except LinAlgError as error:
        raise LinAlgError(
            f"the matrix of a sample is singular ({error}): the solution is not unique or does not"
            " exist, and has no derivative. Fix the gauge, or add what makes it unique."
        ) from error
