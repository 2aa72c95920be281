"""Solvers of linear systems, one per sample: direct, or by products alone (see `krylov`).

In    a linear map of the samples, or a `Jacobian`, and right-hand sides.
Out   solutions, differentiable in all that enters.
Next  `newton` takes steps with them, `equation` its adjoints, `systems.linear_solve` is the door.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from pinnkit.implicit.dense import solve_dense
from pinnkit.implicit.equation import Function
from pinnkit.implicit.jacobian import Jacobian, Map, columns
from pinnkit.implicit.record import flattened

__all__ = ["DENSE_SIZE", "AbstractLinearSolver", "Direct", "Inverse", "check_linear"]

DENSE_SIZE = 128  # unknowns per sample up to which the matrix is formed unless told otherwise


Inverse = Callable[[Tensor], tuple[Tensor, Tensor]]  # shapes: (B, n) -> (B, n), (B,)


class AbstractLinearSolver(ABC):
    """Solves A x = b for every sample. Frozen."""

    @property
    def precondition(self) -> Function | None:
        """(v, z, *params) -> what the user said resembles A^-1 v; None: nothing said."""
        return None

    @abstractmethod
    def inverse(self, jacobian: Jacobian, on_rows: Callable[[Map], Map]) -> Inverse:
        """b -> (J^-1 b, whether it was reached) for many b, on plain tensors of shape (B, n).

        Not finite where J is singular or not finite itself: nothing was solved there, and zero would
        pass for a small step.

        `on_rows` makes what maps samples as the user sees them a map of such rows.
        """

    @abstractmethod
    def solve(
        self, matvec: Function, rhs: Tensor, *args: Tensor, precondition: Function | None = None
    ) -> Tensor:
        """x with matvec(x, *args) = rhs, differentiable in rhs and args."""


@final
@dataclass(frozen=True, kw_only=True)
class Direct(AbstractLinearSolver):
    """LU factors with partial pivoting of each sample's n x n matrix: B n^2 numbers, B n^3 operations.

    Sparse matrices are factorised on the host by scipy (SuperLU).
    """

    def inverse(self, jacobian: Jacobian, on_rows: Callable[[Map], Map]) -> Inverse:
        matrix = jacobian.matrix()
        factors, pivots, info = torch.linalg.lu_factor_ex(matrix)
        usable = (info == 0) & torch.isfinite(matrix).flatten(1).all(1)

        def apply(rhs: Tensor) -> tuple[Tensor, Tensor]:
            x = torch.linalg.lu_solve(factors, pivots, rhs[..., None])[..., 0]
            return torch.where(usable[:, None], x, torch.nan), usable

        return apply

    def solve(
        self, matvec: Function, rhs: Tensor, *args: Tensor, precondition: Function | None = None
    ) -> Tensor:
        matrix = columns(lambda x: matvec(x, *args), rhs)
        return solve_dense(matrix, flattened(rhs)).reshape(rhs.shape)


def check_linear(linear: Any, *, owner: str) -> None:
    """None, or a solver of linear systems."""
    if linear is not None and not isinstance(linear, AbstractLinearSolver):
        raise TypeError(
            f"{owner}: linear={linear!r} must be Direct(), GMRES(), CG() or SparseDirect(...)."
        )
