"""Dense systems by LU factors that the adjoint uses again, differentiable in every mode.

In    one matrix for all samples or one each, right-hand sides.
Out   A^-1 b.
Out   products A v whose bits do not depend on how many samples there are.
Next  `linear.Direct`, `systems.linear_solve`, `levenberg_marquardt`.

`torch.linalg.solve` differentiated twice in forward mode gives wrong second derivatives without a word
(torch 2.13: -1.54 instead of -0.51 for b / (1 + a^2)); the rule here does not.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.linalg import LinAlgError  # pyright: ignore[reportAttributeAccessIssue]

from pinnkit.implicit.jacobian import primals

__all__ = ["product_of_each", "solve_dense"]


def product_of_each(
    matrix: Tensor, vectors: Tensor
) -> Tensor:  # shapes: (B, m, n), (B, n) -> (B, m)
    """A v for every sample, the same bits for a sample alone as among others."""
    if (
        len(vectors) == 1
    ):  # on CPUs a batch of one is multiplied by other means, from two on by the same
        return product_of_each(matrix.expand(2, -1, -1), vectors.expand(2, -1))[:1]
    return (matrix @ vectors[..., None])[..., 0]


def solve_dense(matrix: Tensor, rhs: Tensor) -> Tensor:  # shapes: ([B,] n, n), (B, n) -> (B, n)
    """A^-1 b, with a message that says what a singular matrix means here."""
    try:
        factors, pivots = torch.linalg.lu_factor(matrix.detach())
    except RuntimeError as error:
        if "is zero" not in str(error):
            raise
        raise LinAlgError(
            f"the matrix of a sample is singular ({error}): the solution is not unique or does not"
            " exist, and has no derivative. Fix the gauge, or add what makes it unique."
        ) from error
    if matrix.ndim == 2:
        return _Dense.apply(False, factors, pivots, matrix, rhs.T).T  # type: ignore[union-attr]
    return _Dense.apply(False, factors, pivots, matrix, rhs[..., None])[..., 0]  # type: ignore[index]


class _Dense(torch.autograd.Function):
    """X = A^-1 B (or A^-T B) with dB = A^-T G and dA = -dB X^T; again of this kind.

    Shapes (..., n, n) and (..., n, k), the leading ones equal.
    """

    @staticmethod
    def forward(
        transposed: bool, factors: Tensor, pivots: Tensor, matrix: Tensor, rhs: Tensor
    ) -> Tensor:
        return torch.linalg.lu_solve(factors, pivots, rhs, adjoint=transposed)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.transposed, factors, pivots, matrix, _ = inputs
        ctx.save_for_backward(factors, pivots, matrix, output)
        ctx.save_for_forward(factors, pivots, matrix, output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None, None, Tensor, Tensor]:
        factors, pivots, matrix, x = ctx.saved_tensors
        w: Any = _Dense.apply(not ctx.transposed, factors, pivots, matrix, grads[0])
        return None, None, None, -(x @ w.mT if ctx.transposed else w @ x.mT), w

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Any:
        with primals(ctx.saved_tensors) as (factors, pivots, matrix, x):
            moved = torch.zeros_like(x) if tangents[4] is None else tangents[4]
            if tangents[3] is not None:
                moved = moved - (tangents[3].mT if ctx.transposed else tangents[3]) @ x
            return _Dense.apply(ctx.transposed, factors, pivots, matrix, moved)

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[int | None, ...],
        transposed: bool,
        factors: Tensor,
        pivots: Tensor,
        matrix: Tensor,
        rhs: Tensor,
    ) -> tuple[Tensor, int]:
        size, dims = info.batch_size, in_dims[1:]
        if dims[:3] == (None, None, None):  # more columns
            columns = rhs.movedim(dims[3] or 0, -1)
            x: Any = _Dense.apply(transposed, factors, pivots, matrix, columns.flatten(-2))
            return x.reshape(columns.shape), columns.ndim - 1
        each = [
            t.expand(size, *t.shape) if d is None else t.movedim(d, 0)
            for t, d in zip((factors, pivots, matrix, rhs), dims, strict=True)
        ]
        return _Dense.apply(transposed, *each), 0  # type: ignore[return-value]
