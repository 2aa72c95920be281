"""`linear_solve`: A x = b for every sample, A dense, sparse or only known by its products.

In    A, right-hand sides (B, n), perhaps a solver.
Out   (x, Record), differentiable in A and b any number of times.
Next  a door of its own; the nonlinear layers use the same solvers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pinnkit.implicit.checks import (
    as_function,
    check_captures,
    check_finite,
    check_start,
    uncompiled,
)
from pinnkit.implicit.dense import solve_dense
from pinnkit.implicit.equation import Function
from pinnkit.implicit.iteration import Rule, default_rtol
from pinnkit.implicit.krylov import AbstractKrylov
from pinnkit.implicit.linear import AbstractLinearSolver, Direct
from pinnkit.implicit.newton import linear_for
from pinnkit.implicit.preconditioners import Jacobi
from pinnkit.implicit.record import ConvergenceError, Record, norms
from pinnkit.implicit.sparse import SparsePattern, sparse_solve

__all__ = ["linear_solve"]


@uncompiled
def linear_solve(
    A: Tensor | Callable[..., Tensor],
    b: Tensor,  # shape: (B, n), for a callable (B, ...)
    *params: Tensor,
    solver: AbstractLinearSolver | None = None,
    x0: Tensor | None = None,
    rtol: float | None = None,
    atol: float = 0.0,
    max_steps: int | None = None,
    throw: bool = False,
) -> tuple[Tensor, Record]:
    """x with A x = b, sample by sample.

    Args:
        A: (n, n) for all samples, (B, n, n), a sparse (n, n) tensor (COO or CSR), or a function
            A(x, *params) that is linear in x and acts sample by sample.
        b: One right-hand side per sample.
        params: Tensors a function A depends on; gradients flow to them, to A and to b.
        solver: `Direct()`, `GMRES()`, or `CG()` where A is symmetric positive definite. None: direct,
            but GMRES for functions of more than 128 unknowns.
        x0: Start of Krylov methods; zero by default. No gradient flows to it.
        rtol, atol: |A x - b| <= atol + rtol |b|; rtol=None means eps^(2/3). A direct solution is
            judged by its backward error, relative to |A| |x| + |b|.
        max_steps: Products with A at most; None: the solver's.
        throw: Raise `ConvergenceError` instead of reporting failures in the record.

    >>> A = torch.tensor([[2.0, 1.0], [0.0, 4.0]], dtype=torch.float64)
    >>> x, record = linear_solve(A, torch.tensor([[4.0, 4.0]], dtype=torch.float64))
    >>> x.tolist(), record.converged.tolist()
    ([[1.5, 1.0]], [True])
    """
    check_start(b, name="b")
    matvec, args, pattern = _as_operator(A, b, params)
    solver = solver or (
        linear_for(b.shape[1:].numel()) if pattern is None and callable(A) else Direct()
    )
    if not isinstance(solver, AbstractLinearSolver):
        raise TypeError(f"solver={solver!r} is no linear solver; use Direct(), GMRES() or CG().")
    start = torch.zeros_like(b) if x0 is None else _like(x0, b)
    check_finite(b, name="b")
    if pattern is not None or not callable(A):
        check_finite(args[0], name="A")
    else:
        nothing = check_captures(matvec, torch.zeros_like(b), args, name="A", same_shape=True)
        if bool(nothing.any()):
            raise ValueError("A(0) is not zero: A must be linear. Solve A(x) = b by root().")
    rtol = default_rtol(b.dtype) if rtol is None else rtol
    if isinstance(solver, AbstractKrylov):
        rule = Rule(rtol, atol, solver.max_steps if max_steps is None else max_steps, throw)
        helper = None
        if isinstance(solver.preconditioner, Jacobi) and isinstance(A, Tensor):
            helper = _divided(pattern)
        return solver.attached(matvec, start, rule, b, *args, strict=False, precondition=helper)
    Rule(rtol, atol, max_steps or 1)  # the same checks for every solver
    if isinstance(A, Tensor) and pattern is None:
        x = solve_dense(A, b)
    elif pattern is not None and isinstance(solver, Direct):
        x = sparse_solve(pattern, args[0], b)
    else:
        x = solver.solve(matvec, b, *args)
    return _judged(A, x, matvec, args, b, rtol, atol, throw)  # type: ignore[arg-type]


def _divided(pattern: SparsePattern | None) -> Function:
    """Jacobi's preconditioner of a matrix: its own entries are at hand."""

    def apply(r: Tensor, matrix: Tensor) -> Tensor:
        d = matrix.diagonal(0, -2, -1) if pattern is None else pattern.diagonal(matrix)
        return r / torch.where(d == 0, torch.ones_like(d), d)

    return apply


def _like(x0: Tensor, b: Tensor) -> Tensor:
    if not isinstance(x0, Tensor) or x0.shape != b.shape or x0.dtype != b.dtype:
        got = f"{x0.dtype} {tuple(x0.shape)}" if isinstance(x0, Tensor) else type(x0).__name__
        raise ValueError(f"x0 is {got}; it must be like b, {b.dtype} {tuple(b.shape)}.")
    return x0.detach()


def _judged(
    A: Any,
    x: Tensor,
    matvec: Callable[..., Tensor],
    args: tuple[Tensor, ...],
    b: Tensor,
    rtol: float,
    atol: float,
    throw: bool,
) -> tuple[Tensor, Record]:
    """The record of a direct solution."""
    with torch.no_grad():
        x_, b_ = x.detach(), b.detach()
        product = matvec(x_, *(a.detach() for a in args))
        residual = norms(product - b_)
        size = norms(product) + norms(b_)
        if isinstance(A, Tensor) and args:
            # Frobenius norm; of a stack of matrices one each.
            entries = args[0].detach()
            each = entries.flatten(1) if entries.ndim == 3 else entries.reshape(1, -1)
            size = size + norms(each) * norms(x_)
        converged = residual <= atol + rtol * size  # false where x is not finite
        ones = torch.ones_like(residual, dtype=torch.int64)
        unknown = torch.full_like(residual, torch.nan)
        record = Record(residual, ones, converged, unknown, torch.zeros_like(converged))
        if throw and not bool(converged.all()):
            raise ConvergenceError(x_, record)
    return x, record


def _as_operator(
    A: Tensor | Callable[..., Tensor], b: Tensor, params: tuple[Tensor, ...]
) -> tuple[Callable[..., Tensor], tuple[Tensor, ...], SparsePattern | None]:
    """(A x as a function of x and tensors, those tensors, the pattern of a sparse A)."""
    if not isinstance(A, Tensor):
        function, params = as_function(A, params, name="A")
        return function, params, None
    if params:
        raise TypeError("params belong to a function A(x, *params); here A is a tensor.")
    n = b.shape[-1]
    sparse = A.layout in (torch.sparse_coo, torch.sparse_csr)
    if not sparse and A.layout != torch.strided:
        raise TypeError(f"A has layout {A.layout}; use a dense, COO or CSR tensor.")
    shapes = ((n, n),) if sparse else ((n, n), (len(b), n, n))
    if b.ndim != 2 or tuple(A.shape) not in shapes:
        raise ValueError(
            f"A has shape {tuple(A.shape)} and b {tuple(b.shape)}; b must be (B, n), one row per sample"
            " (b[None] for a single system), and A (n, n)"
            + (", shared by all." if sparse else " or (B, n, n).")
        )
    if A.dtype != b.dtype:
        raise ValueError(f"A is {A.dtype} and b is {b.dtype}; convert one of them.")
    if not sparse:
        return lambda x, A: (A @ x[..., None])[..., 0], (A,), None
    pattern, values = SparsePattern.of(A)
    return pattern.product, (values,), pattern
