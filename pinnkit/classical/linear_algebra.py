"""Factorisations of the Newton matrices, dense or sparse by size and filling.

In    a sparse matrix, real or complex.
Out   a function that solves with it.
Next  `implicit` and `steady` call it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import scipy.linalg
import scipy.sparse as sps
import scipy.sparse.linalg

__all__ = ["SingularMatrixError", "factorise"]

Array = np.ndarray

DENSE_SIZE = 120  # below this LAPACK beats SuperLU whatever the filling
DENSE_FILLING = 0.15


class SingularMatrixError(ArithmeticError):
    """The matrix cannot be inverted; callers shorten the step or refuse the problem."""


def factorise(matrix: sps.csc_matrix) -> Callable[[Array], Array]:
    """LU factors with partial pivoting; the solver takes (n,) or (n, k)."""
    n = len(matrix.indptr) - 1
    if n <= DENSE_SIZE or (n <= 2500 and matrix.nnz > DENSE_FILLING * n * n):
        return _dense(matrix.toarray())
    try:
        factors = scipy.sparse.linalg.splu(matrix)
    except RuntimeError as error:  # SuperLU's way to say "exactly singular"
        raise SingularMatrixError(str(error)) from error
    return factors.solve


def _dense(matrix: Array) -> Callable[[Array], Array]:
    if not np.isfinite(matrix).all():
        raise SingularMatrixError("not finite")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", scipy.linalg.LinAlgWarning)
        factors = scipy.linalg.lu_factor(matrix, check_finite=False)
    if (np.abs(np.diag(factors[0])) == 0).any():
        raise SingularMatrixError("exactly singular")
    return lambda right: scipy.linalg.lu_solve(factors, right, check_finite=False)
