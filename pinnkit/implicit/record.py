"""What a layer says about its answer, sample by sample.

In    the norms and counts of an iteration.
Out   `Record`, tensors only, so that it passes through `torch.vmap`; `ConvergenceError`.
Next  every function of `pinnkit.implicit` returns (value, Record).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pinnkit.errors import SolveError, Status

__all__ = ["ConvergenceError", "Record", "flattened", "norms"]

SHOWN = 5  # samples named in a message


class Record(NamedTuple):
    """How each sample ended; every entry has shape (B,) and carries no gradient.

    Args:
        residual: Euclidean norm of f(z) - z, of F(z), of the gradient J^T r, of A x - b.
        iterations: Steps of the method; products with the matrix for Krylov methods.
        converged: Whether the tolerance was reached. The gradients hold where it was.
        error: Distance from the solution, rounding included: a proved bound in the norm of the
            contraction where `certified`, else an estimate in the Euclidean norm; nan where nothing
            is known, inf where the map was seen to expand.
        certified: Whether `error` is proved.
    """

    residual: Tensor
    iterations: Tensor
    converged: Tensor
    error: Tensor
    certified: Tensor


class ConvergenceError(SolveError):
    """Raised with `throw=True`; `.value` and `.record` hold what was reached."""

    def __init__(self, value: Tensor, record: Record) -> None:
        where = (~record.converged).nonzero().flatten().tolist()
        named = ", ".join(map(str, where[:SHOWN])) + (", ..." if len(where) > SHOWN else "")
        worst = float(record.residual[~record.converged].max())
        most = int(record.iterations.max())
        RuntimeError.__init__(
            self,
            f"{len(where)} of {len(record.converged)} samples did not converge in {most} iterations"
            f" (sample {named}); the largest residual is {worst:.3g}. Raise max_steps, loosen rtol,"
            " start closer, or take another solver; with throw=False the best iterates are returned.",
        )
        self.status = Status.MAX_STEPS
        self.value, self.record = value, record
        self.solution: Any = (value, record)


def flattened(z: Tensor) -> Tensor:  # shapes: (B, ...) -> (B, n)
    """One row per sample, also where there is no sample."""
    return z.reshape(len(z), z.shape[1:].numel())


def norms(z: Tensor) -> Tensor:  # shapes: (B, ...) -> (B,)
    """Euclidean norms of the samples; squares neither overflow nor vanish."""
    flat = flattened(z)
    if flat.dtype in (torch.float32, torch.float16, torch.bfloat16):
        return torch.linalg.vector_norm(flat, dim=1, dtype=torch.float64).to(flat.dtype)
    if flat.shape[1] == 0:
        return flat.new_zeros(len(flat))
    scale = flat.detach().abs().amax(1, keepdim=True)
    scale = torch.where((scale > 0) & torch.isfinite(scale), scale, torch.ones_like(scale))
    return scale[:, 0] * torch.linalg.vector_norm(flat / scale, dim=1)
