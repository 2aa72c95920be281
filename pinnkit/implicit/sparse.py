"""Sparse matrices as a pattern and an ordinary tensor of entries: products and direct solves.

In    a COO or CSR tensor.
Out   A x by gathering and adding; A^-1 b by SuperLU on the host, differentiable in entries and b.
Next  `systems.linear_solve`.

torch differentiates sparse tensors in some layouts only, and has no sparse direct solver everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import scipy.sparse
import scipy.sparse.linalg
import torch
from torch import Tensor
from torch.linalg import LinAlgError  # pyright: ignore[reportAttributeAccessIssue]

from pinnkit.implicit.jacobian import primals

__all__ = ["SparsePattern", "sparse_solve"]


class SparsePattern:
    """Where a sparse matrix has entries; the entries themselves are an ordinary tensor (nnz,).

    `factorise` makes of a scipy matrix what solves with it, `.solve(b, trans="N" or "T")`; by default
    SuperLU's factors.
    """

    def __init__(
        self, rows: Tensor, cols: Tensor, n: int, factorise: Callable[[Any], Any] | None = None
    ) -> None:
        self.rows, self.cols, self.n = rows, cols, n
        self._factorise = factorise or scipy.sparse.linalg.splu
        self._known: tuple[Tensor, Any] | None = None

    @classmethod
    def of(
        cls, A: Tensor, factorise: Callable[[Any], Any] | None = None
    ) -> tuple[SparsePattern, Tensor]:
        """The pattern and the entries of a COO or CSR tensor."""
        if A.layout == torch.sparse_coo:
            A = A.coalesce()
            rows, cols = A.indices()
        else:
            counts = A.crow_indices().diff()
            rows = torch.arange(len(counts), device=A.device).repeat_interleave(counts)
            cols = A.col_indices()
        return cls(rows, cols, A.shape[0], factorise), A.values()

    def product(self, x: Tensor, values: Tensor) -> Tensor:
        """A x."""
        return torch.zeros_like(x).index_add(1, self.rows, values * x[:, self.cols])

    def diagonal(self, values: Tensor) -> Tensor:  # shape: (n,)
        """A's, zero where it has no entry."""
        on = torch.where(self.rows == self.cols, values, 0)
        return values.new_zeros(self.n).index_add(0, self.rows, on)

    def solve(self, values: Tensor, b: Tensor, transposed: bool) -> Tensor:
        """A^-1 b or A^-T b by SuperLU; the factors of the last entries are kept for the adjoint."""
        if self._known is None or not torch.equal(self._known[0], values):
            index = (self.rows.cpu().numpy(), self.cols.cpu().numpy())
            entries = values.detach().cpu().double().numpy()
            matrix = scipy.sparse.csc_matrix((entries, index), shape=(self.n, self.n))
            try:
                factors = self._factorise(matrix)
            except RuntimeError as error:  # SuperLU's way to say "exactly singular"
                raise LinAlgError(
                    f"the sparse matrix is singular ({error}): the solution is not unique or does not"
                    " exist. Fix the gauge, or add what makes it unique."
                ) from error
            self._known = values.detach().clone(), factors
        right = b.detach().cpu().double().numpy().T
        x = self._known[1].solve(right, trans="T" if transposed else "N")
        return torch.from_numpy(x.T.copy()).to(b)


def sparse_solve(pattern: SparsePattern, values: Tensor, b: Tensor) -> Tensor:  # shape: (B, n)
    """A^-1 b for the sparse A with these entries."""
    return _SparseLU.apply(pattern, False, values, b)  # type: ignore[return-value]


class _SparseLU(torch.autograd.Function):
    """x = A^-1 b (or A^-T b) with db = A^-T g and dA = -db x^T on the pattern; again of this kind."""

    @staticmethod
    def forward(pattern: SparsePattern, transposed: bool, values: Tensor, b: Tensor) -> Tensor:
        return pattern.solve(values, b, transposed)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.pattern, ctx.transposed, values, _ = inputs
        ctx.save_for_backward(values, output)
        ctx.save_for_forward(values, output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None, Tensor, Tensor]:
        values, x = ctx.saved_tensors
        w: Any = _SparseLU.apply(ctx.pattern, not ctx.transposed, values, grads[0])
        rows, cols = _oriented(ctx)
        return None, None, -(w[:, rows] * x[:, cols]).sum(0), w

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Any:
        rows, cols = _oriented(ctx)
        with primals(ctx.saved_tensors) as (values, x):
            moved = torch.zeros_like(x) if tangents[3] is None else tangents[3]
            if tangents[2] is not None:
                moved = moved - torch.zeros_like(x).index_add(1, rows, tangents[2] * x[:, cols])
            return _SparseLU.apply(ctx.pattern, ctx.transposed, values, moved)

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[int | None, ...],
        pattern: SparsePattern,
        transposed: bool,
        values: Tensor,
        b: Tensor,
    ) -> tuple[Tensor, int]:
        size = info.batch_size
        rows = b.expand(size, *b.shape) if in_dims[3] is None else b.movedim(in_dims[3], 0)
        if in_dims[2] is None:
            x: Any = _SparseLU.apply(pattern, transposed, values, rows.flatten(0, 1))
            return x.unflatten(0, (size, -1)), 0
        # Matrices that differ are factorised one by one.
        each = zip(values.movedim(in_dims[2], 0), rows, strict=True)
        solved: list[Any] = [_SparseLU.apply(pattern, transposed, v, r) for v, r in each]
        return torch.stack(solved), 0


def _oriented(ctx: Any) -> tuple[Tensor, Tensor]:
    """(rows, columns) of the matrix that was inverted."""
    pattern = ctx.pattern
    return (pattern.cols, pattern.rows) if ctx.transposed else (pattern.rows, pattern.cols)
