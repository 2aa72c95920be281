"""One space axis: where equations are collocated and how derivatives are taken there.

In    breakpoints or a number of nodes, and the order m of a field along the axis.
Out   collocation points, nodes of a field of order m, derivative matrices, edge and seam rows.
Next  `discretise` forms tensor products of them.

`ElementAxis` is orthogonal spline collocation (de Boor & Swartz 1973; COLSYS): a field of order m is
a polynomial of degree k + m - 1 per element, continuous; the equations hold at the k Gauss points
of each element, and m - 1 derivatives match at each breakpoint. Unknowns minus collocation points
are then exactly the conditions: per breakpoint m - 1, and m at the two ends together. Error
O(h^(k+m)) in general, O(h^2k) at breakpoints. Coefficients may jump at breakpoints.
`DifferenceAxis` is plain finite differences on equally spaced nodes, the independent second opinion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sps

from pinnkit.classical.basis import PiecewiseBasis, stencil_basis

__all__ = ["Axis", "DifferenceAxis", "ElementAxis"]

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class ElementAxis:
    """Elements between `breaks`, equations at `k` Gauss points in each."""

    breaks: Array
    k: int
    periodic: bool = False

    @property
    def elements(self) -> int:
        return len(self.breaks) - 1

    @cached_property
    def points(self) -> Array:
        """The collocation points."""
        gauss, _ = np.polynomial.legendre.leggauss(self.k)
        return (self._centre[:, None] + self._half[:, None] * gauss).ravel()

    @cached_property
    def weights(self) -> Array:
        """Quadrature weights of the collocation points."""
        _, weights = np.polynomial.legendre.leggauss(self.k)
        return (self._half[:, None] * weights).ravel()

    @property
    def cells(self) -> Array:
        """The element of every collocation point."""
        return np.repeat(np.arange(self.elements), self.k)

    def basis(self, m: int) -> PiecewiseBasis:
        """The space of a field of order m along this axis."""
        count = self.elements
        if m == 0:
            nodes, _ = np.polynomial.legendre.leggauss(self.k)
            index = np.arange(count * self.k).reshape(count, self.k)
            size = count * self.k
        else:
            width = self.k + m
            nodes = -np.cos(np.pi * np.arange(width) / (width - 1))
            index = np.arange(count)[:, None] * (width - 1) + np.arange(width)
            size = count * (width - 1) + 1
            if self.periodic:
                size -= 1
                index = index % size
        period = float(self.breaks[-1] - self.breaks[0]) if self.periodic else None
        return PiecewiseBasis(self.breaks, self._centre, self._half, nodes, index, size, period)

    def nodes(self, m: int) -> Array:
        """The coordinates of the unknowns."""
        basis = self.basis(m)
        out = np.empty(basis.size)
        # Backwards, so that the shared seam node of a periodic axis keeps its lower coordinate.
        local = basis.centre[:, None] + basis.half[:, None] * basis.nodes
        out[basis.index[::-1]] = local[::-1]
        if m:
            out[0] = self.breaks[0]
            if not self.periodic:
                out[-1] = self.breaks[-1]
        return out

    def size(self, m: int) -> int:
        return self.basis(m).size

    def at_points(self, m: int, order: int) -> sps.csr_matrix:
        """Derivative at the collocation points, (points, size)."""
        return self.basis(m).matrix(self.points, order, self.cells)

    def at_edge(self, m: int, side: str, order: int) -> sps.csr_matrix:
        """Derivative at one end, (1, size)."""
        left = side == "left"
        x = self.breaks[:1] if left else self.breaks[-1:]
        cell = np.array([0 if left else self.elements - 1])
        return self._one_sided(m, x, order, cell)

    def seams(self, m: int, order: int) -> tuple[sps.csr_matrix, sps.csr_matrix]:
        """One-sided derivatives (below, above) at the breakpoints inside (and at the periodic seam)."""
        above = np.arange(0 if self.periodic else 1, self.elements)
        below = (above - 1) % self.elements
        return (
            self._one_sided(m, self.breaks[below + 1], order, below),
            self._one_sided(m, self.breaks[above], order, above),
        )

    @property
    def seam_points(self) -> Array:
        return self.breaks[0 if self.periodic else 1 : -1]

    def seam_orders(self, m: int) -> range:
        """The derivatives that must be matched at a seam by equations of their own."""
        return range(1, m)

    def _one_sided(self, m: int, x: Array, order: int, cells: Array) -> sps.csr_matrix:
        basis = self.basis(m)
        # Without wrapping: the upper end of a periodic axis must stay in its own cell.
        free = PiecewiseBasis(
            basis.breaks, basis.centre, basis.half, basis.nodes, basis.index, basis.size, None
        )
        return free.matrix(x, order, cells)

    @cached_property
    def _centre(self) -> Array:
        return (self.breaks[1:] + self.breaks[:-1]) / 2

    @cached_property
    def _half(self) -> Array:
        return np.diff(self.breaks) / 2


@dataclass(frozen=True, eq=False)
class DifferenceAxis:
    """Finite differences of `width` nodes on `count` equal intervals; boundary rows replace end nodes."""

    lower: float
    upper: float
    count: int
    width: int = 9
    periodic: bool = False
    drop_left: int = 1  # nodes at each end where conditions stand instead of equations
    drop_right: int = 1

    @cached_property
    def _grid(self) -> Array:
        grid = np.linspace(self.lower, self.upper, self.count + 1)
        return grid[:-1] if self.periodic else grid

    @property
    def points(self) -> Array:
        if self.periodic:
            return self._grid
        return self._grid[self.drop_left : len(self._grid) - self.drop_right]

    @property
    def weights(self) -> Array:
        return np.full(len(self.points), (self.upper - self.lower) / self.count)

    def basis(self, m: int) -> PiecewiseBasis:
        if m == 0 and not self.periodic:
            return stencil_basis(self.points, self.width)
        return stencil_basis(
            self._grid, self.width, self.upper - self.lower if self.periodic else None
        )

    def nodes(self, m: int) -> Array:
        return self.points if m == 0 else self._grid

    def size(self, m: int) -> int:
        return len(self.nodes(m))

    def at_points(self, m: int, order: int) -> sps.csr_matrix:
        return self.basis(m).matrix(self.points, order)

    def at_edge(self, m: int, side: str, order: int) -> sps.csr_matrix:
        return self.basis(m).matrix(np.array([self.lower if side == "left" else self.upper]), order)

    def seams(self, m: int, order: int) -> tuple[sps.csr_matrix, sps.csr_matrix]:
        empty = sps.csr_matrix((0, self.size(m)))
        return empty, empty

    @property
    def seam_points(self) -> Array:
        return np.empty(0)

    def seam_orders(self, m: int) -> Sequence[int]:
        return ()


Axis = ElementAxis | DifferenceAxis
