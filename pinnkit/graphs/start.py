"""Where iterations start: fixed values spread over the graph.

In    edges, nodes with known values.
Out   values at all nodes, each the mean of its neighbours.
Next  Newton's method for nonlinear equations.

Starting everywhere from one number puts the whole difference of two fixed values on the edges beside
them; with exponentials (diodes, reactions) that overflows. Spread out, it is shared by all edges.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse
import scipy.sparse.linalg

__all__ = ["spread"]


def spread(
    edges: np.ndarray,  # shape: (2, E)
    known: np.ndarray,  # shape: (N,), boolean
    values: np.ndarray,  # shape: (N,)
) -> np.ndarray:  # shape: (N,)
    """The harmonic interpolation of the known values, to about a thousandth of their range."""
    mean = float(values[known].mean()) if known.any() else 0.0
    result = np.where(known, values, mean)
    if known.all() or not known.any() or np.ptp(values[known]) == 0:
        return result
    n, (a, b) = len(values), edges
    links = scipy.sparse.coo_array((np.ones(len(a)), (a, b)), shape=(n, n)).tocsr()
    links = links + links.T
    degree = np.asarray(links.sum(axis=1)).ravel()
    # A little pull to the mean keeps parts without a known node where they are.
    free = np.flatnonzero(~known)
    pull = 1e-6 * np.maximum(degree, 1.0)
    matrix = (scipy.sparse.diags_array(degree + pull) - links)[free]
    right = (links[free] @ np.where(known, values, 0.0)) + pull[free] * mean
    matrix = scipy.sparse.csr_array(matrix[:, free])
    helper = scipy.sparse.diags_array(1 / matrix.diagonal())
    x, _ = scipy.sparse.linalg.cg(matrix, right, rtol=1e-4, maxiter=500, M=helper, x0=result[free])
    result[free] = np.clip(x, values[known].min(), values[known].max())
    return result
