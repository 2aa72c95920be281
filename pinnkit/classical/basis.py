"""Piecewise polynomials on one axis: evaluation and differentiation at any point.

In    cells, reference nodes and the index of each cell's nodes in the array of values.
Out   sparse rows that turn values at nodes into a derivative at given points.
Next  axes build differentiation matrices from it; `approximation` evaluates solutions with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sps

__all__ = ["PiecewiseBasis", "differentiation_matrix", "lagrange_rows", "stencil_basis"]

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class PiecewiseBasis:
    """A polynomial per cell through the nodes of that cell.

    Cell e holds breaks[e] <= x < breaks[e + 1]; its local coordinate is (x - centre[e]) / half[e];
    its polynomial takes the values number index[e] at the local coordinates `nodes`.
    Nodes may lie outside their cell (centred stencils). A periodic axis wraps x first.
    """

    breaks: Array  # (cells + 1,)
    centre: Array  # (cells,)
    half: Array  # (cells,)
    nodes: Array  # (w,)
    index: Array  # (cells, w)
    size: int
    period: float | None = None

    def locate(self, x: Array) -> Array:
        """The cell of every point; points outside belong to the nearest cell."""
        cells = np.searchsorted(self.breaks, x, side="right") - 1
        return np.clip(cells, 0, len(self.centre) - 1)

    def wrap(self, x: Array) -> Array:
        """Points moved into the first period, unchanged on axes that are not periodic."""
        if self.period is None:
            return x
        start = self.breaks[0]
        inside = (x >= start) & (x <= self.breaks[-1])
        return np.where(inside, x, start + np.mod(x - start, self.period))

    def rows(self, x: Array, order: int = 0, cells: Array | None = None) -> tuple[Array, Array]:
        """(index, weights), each (n, w): derivative `order` at x is sum(weights * values[index])."""
        x = self.wrap(np.asarray(x, dtype=float))
        if cells is None:
            cells = self.locate(x)
        half = self.half[cells]
        weights = lagrange_rows(self.nodes, (x - self.centre[cells]) / half)
        if order:
            power = np.linalg.matrix_power(differentiation_matrix(self.nodes), order)
            weights = (weights @ power) / half[:, None] ** order
        return self.index[cells], weights

    def matrix(self, x: Array, order: int = 0, cells: Array | None = None) -> sps.csr_matrix:
        """The same as a sparse matrix (n, size)."""
        index, weights = self.rows(x, order, cells)
        n, width = index.shape
        pointer = np.arange(n + 1) * width
        out = sps.csr_matrix((weights.ravel(), index.ravel(), pointer), shape=(n, self.size))
        out.sum_duplicates()
        return out


def stencil_basis(nodes: Array, width: int, period: float | None = None) -> PiecewiseBasis:
    """Centred stencils on equally spaced nodes, shifted inwards near the ends.

    On a periodic axis the node at the upper end is left out of `nodes` and stencils wrap.
    """
    n = len(nodes)
    step = nodes[1] - nodes[0]
    width = min(width, n)
    cells = n if period is not None else n - 1
    start = np.arange(cells) - (width - 1) // 2
    if period is None:
        start = np.clip(start, 0, n - width)
    index = start[:, None] + np.arange(width)
    half = step * (width - 1) / 2
    centre = nodes[0] + step * start + half
    breaks = nodes[0] + step * np.arange(cells + 1)
    return PiecewiseBasis(
        breaks=breaks,
        centre=centre,
        half=np.full(cells, half),
        nodes=np.linspace(-1.0, 1.0, width),
        index=index % n,
        size=n,
        period=period,
    )


def lagrange_rows(nodes: Array, x: Array) -> Array:
    """Lagrange polynomials of the nodes at the points, (n, w); barycentric, exact at the nodes."""
    weights = barycentric_weights(nodes)
    gap = x[:, None] - nodes[None, :]
    hit = gap == 0.0
    terms = weights / np.where(hit, 1.0, gap)
    rows = terms / terms.sum(axis=1, keepdims=True)
    on_node = hit.any(axis=1)
    rows[on_node] = hit[on_node]
    return rows


def barycentric_weights(nodes: Array) -> Array:
    """1 / prod_k (x_j - x_k), scaled by the capacity of the interval against overflow."""
    gap = nodes[:, None] - nodes[None, :]
    np.fill_diagonal(gap, 1.0)
    spread = np.ptp(nodes) / 4 if len(nodes) > 1 else 1.0
    return 1.0 / np.prod(gap / spread, axis=1)


def differentiation_matrix(nodes: Array) -> Array:
    """The derivative at the nodes of the polynomial through the nodes."""
    if len(nodes) == 1:
        return np.zeros((1, 1))
    weights = barycentric_weights(nodes)
    gap = nodes[:, None] - nodes[None, :]
    np.fill_diagonal(gap, 1.0)
    matrix = weights[None, :] / weights[:, None] / gap
    np.fill_diagonal(matrix, 0.0)
    # The derivative of a constant is zero: the diagonal by the negative sum keeps that to rounding.
    np.fill_diagonal(matrix, -matrix.sum(axis=1))
    return matrix
