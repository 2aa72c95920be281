"""How wrong a solved sparse system is: a proved bound for M-matrices, an estimate for others.

In    the matrix A, bounds of the residual's entries (rounding included), an inverse.
Out   a bound of the error of every unknown, or an estimate of the largest.
Next  `SparseFixedPoint` makes its verdict of it.

If A has no positive entries off the diagonal and A w > 0 for some w > 0, then A is an M-matrix: it
is invertible and A^-1 >= 0. From |A e| <= d follows |e| <= A^-1 d, and from A w >= theta d that
A^-1 d <= w / theta. Any w will do that is found; w near A^-1 d gives a sharp bound. The products are
checked with their own rounding.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse.linalg

from pinnkit.graphs.sparse_solve import Inverse

__all__ = ["bound_error", "estimate_error", "rounding_factor"]

UNIT = np.finfo(float).eps / 2


def rounding_factor(matrix: Any, extra: int = 16) -> float:
    """(m + extra) u / (1 - ...), with m the largest number of entries in a row.

    `extra` is for the operations that make one entry; a longer formula than 16 operations is not
    known to be covered.
    """
    count = int(np.diff(matrix.indptr).max(initial=0)) + extra
    return count * UNIT / (1 - count * UNIT)


def bound_error(
    matrix: Any,  # csr
    deviation: np.ndarray,  # shape: (n,), bounds of the residual's absolute values
    inverse: Inverse,
    entry_error: float,
) -> np.ndarray | None:  # shape: (n,)
    """A proved bound of every unknown's error; None if the matrix is not seen to be an M-matrix.

    Args:
        matrix: A, or -A.
        deviation: |residual| plus what rounding may have changed in it.
        inverse: Of the matrix; need not be exact.
        entry_error: Relative error of the matrix's entries.
    """
    diagonal = matrix.diagonal()
    if not len(diagonal) or not ((diagonal > 0).all() or (diagonal < 0).all()):
        return None
    A = matrix if diagonal[0] > 0 else -matrix
    off = A.copy()
    off.setdiag(0)
    if off.nnz and off.data.max(initial=0.0) > 0:
        return None
    # Rows without any deviation would ask for a w with A w = 0 there, which no iteration finds.
    relative = deviation / np.abs(diagonal)
    least = max(1e-3 * float(relative.max()), np.finfo(float).tiny)
    d = np.maximum(relative, least) * np.abs(diagonal)
    w = inverse.solve(d) * (1.0 if diagonal[0] > 0 else -1.0)
    for _ in range(2):
        if not (np.isfinite(w).all() and (w > 0).all()):
            return None
        product = A @ w
        slack = (rounding_factor(A, 2) + entry_error) * (abs(A) @ w)
        theta = float(((product - slack) / d).min())
        if theta > 0.5:
            return w / theta * (1 + 8 * UNIT)
        # One step of refinement, for an inverse that is only an iteration.
        w = w + inverse.solve(d - product) * (1.0 if diagonal[0] > 0 else -1.0)
    return w / theta * (1 + 8 * UNIT) if theta > 0 else None


def estimate_error(
    deviation: np.ndarray,  # shape: (n,)
    inverse: Inverse,
    chosen: slice,
) -> float:
    """About max over the chosen unknowns of (|A^-1| d), by Hager's and Higham's estimator.

    It is a lower bound in theory and within a factor of three in practice, as in LAPACK's xGERFS.
    """
    n = len(deviation)
    weight = np.zeros(n)
    weight[chosen] = 1.0
    if not weight.any():
        return 0.0
    # |M A^-1 diag(d)|_inf is the 1-norm of its transpose diag(d) A^-T M.
    make: Any = scipy.sparse.linalg.LinearOperator  # whose stubs know its subclass only
    operator = make(
        (n, n),
        matvec=lambda v: deviation * inverse.solve(weight * np.ravel(v), "T"),
        rmatvec=lambda v: weight * inverse.solve(deviation * np.ravel(v)),
        dtype=float,
    )
    # The estimator's own start is drawn from numpy's global generator for t > 1.
    found: Any = scipy.sparse.linalg.onenormest(operator, t=1)
    return float(found)
