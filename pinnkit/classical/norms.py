"""Space-time relative L2 differences between grid solutions.

In    two `GridApproximation`s of one problem (or one alone).
Out   relative L2 errors per field, by quadrature on the finer one's cells.
Next  `refine` and `defect` estimate errors with it.
"""

from __future__ import annotations

import numpy as np

from pinnkit.classical.basis import PiecewiseBasis
from pinnkit.classical.grid_approximation import FieldGrid, GridApproximation

__all__ = ["difference_norms", "quadrature", "relative_differences", "rms_norms"]

Array = np.ndarray

MOST_CELLS = 300  # along one axis; more are thinned out evenly
MOST_BROKEN_CELLS = 5000  # the same where a solution may jump: one cell can hold all of the error
MOST_POINTS = 2e7  # at once; beyond, cells have one point each


def quadrature(basis: PiecewiseBasis, most_per_cell: int = 6) -> tuple[Array, Array]:
    """Gauss points and weights on the cells of a basis (an even selection where there are many)."""
    cells = len(basis.centre)
    most = MOST_BROKEN_CELLS if len(basis.nodes) == 2 else MOST_CELLS
    stride = max(1, -(-cells // most))
    # Centred stencils overlap: their cells are one node spacing wide and need one point each.
    per_cell = (
        1 if basis.half[0] * 2 > 1.5 * np.diff(basis.breaks)[0] else len(basis.nodes) // 2 + 1
    )
    gauss, weights = np.polynomial.legendre.leggauss(min(per_cell, most_per_cell))
    centre = (basis.breaks[1:] + basis.breaks[:-1])[::stride] / 2
    half = np.diff(basis.breaks)[::stride] / 2
    points = centre[:, None] + half[:, None] * gauss
    scale = np.diff(basis.breaks).sum() / (2 * half.sum())
    return points.ravel(), (scale * half[:, None] * weights).ravel()


def relative_differences(a: GridApproximation, b: GridApproximation) -> Array:
    """Per field, |a - b| / |b| in L2 of space-time."""
    out = []
    for grid_a, grid_b in zip(a.fields, b.fields, strict=True):
        meshes, weights = _meshes(grid_b)
        fine = grid_b.on_grid(meshes)
        gap = grid_a.on_grid(meshes) - fine
        size = _integral(fine**2, weights)
        out.append(np.sqrt(_integral(gap**2, weights) / size) if size > 0 else np.inf)
    return np.array(out)


def difference_norms(a: GridApproximation, b: GridApproximation) -> Array:
    """Per field, the root mean square of a - b over space-time."""
    out = []
    for grid_a, grid_b in zip(a.fields, b.fields, strict=True):
        meshes, weights = _meshes(grid_b)
        gap = grid_a.on_grid(meshes) - grid_b.on_grid(meshes)
        out.append(np.sqrt(_integral(gap**2, weights) / _volume(weights)))
    return np.array(out)


def rms_norms(a: GridApproximation) -> Array:
    """Per field, the root mean square over space-time."""
    out = []
    for grid in a.fields:
        meshes, weights = _meshes(grid)
        out.append(np.sqrt(_integral(grid.on_grid(meshes) ** 2, weights) / _volume(weights)))
    return np.array(out)


def _volume(weights: list[Array]) -> float:
    return float(np.prod([w.sum() for w in weights]))


def _meshes(grid: FieldGrid) -> tuple[list[Array], list[Array]]:
    pairs = [quadrature(basis) for basis in grid.bases]
    if np.prod([len(p) for p, _ in pairs], dtype=float) > MOST_POINTS:
        pairs = [quadrature(basis, 1) for basis in grid.bases]
    return [p for p, _ in pairs], [w for _, w in pairs]


def _integral(values: Array, weights: list[Array]) -> float:
    for weight in weights:
        values = np.tensordot(weight, values, axes=(0, 0))
    return float(values)
