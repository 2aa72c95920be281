"""Grid solutions as functions: values and derivatives anywhere in the domain.

In    per field, values on a tensor product of piecewise polynomials (time first, then space).
Out   `GridApproximation`: the `Approximation` protocol of solutions, and tables on grids.
Next  `refine` compares levels with it; `Solution` calls it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from pinnkit.classical.basis import PiecewiseBasis
from pinnkit.classical.discretise import System
from pinnkit.classical.implicit import TimeGrid
from pinnkit.ir.normal_form import NormalForm

__all__ = ["FieldGrid", "GridApproximation", "from_time_grid"]

Array = np.ndarray
CHUNK = 4_000_000  # numbers gathered at once
MOST_PER_POINT = 4  # numbers on a grid that cost less than one point gathered by itself


@dataclass(frozen=True, eq=False)
class FieldGrid:
    """One field: a basis per coordinate (in the order of nf.coords) and the tensor of values."""

    bases: tuple[PiecewiseBasis, ...]
    values: Array

    def at(self, points: Array, alpha: Sequence[int]) -> Array:
        """A derivative at points (n, d); parts of a tensor product are read axis by axis."""
        columns = [np.unique(column, return_inverse=True) for column in points.T]
        table_size = np.prod([len(x) for x, _ in columns], dtype=float)
        if len(columns) > 1 and table_size <= MOST_PER_POINT * len(points):
            table = self.on_grid([x for x, _ in columns], alpha)
            return table[tuple(number.ravel() for _, number in columns)]
        width = int(np.prod([b.index.shape[1] for b in self.bases], dtype=int))
        step = max(1, CHUNK // max(width, 1))
        parts = [self._at(points[i : i + step], alpha) for i in range(0, len(points), step)]
        return np.concatenate(parts) if parts else np.empty(0)

    def _at(self, points: Array, alpha: Sequence[int]) -> Array:
        n = len(points)
        rows = [
            b.rows(points[:, k], a) for k, (b, a) in enumerate(zip(self.bases, alpha, strict=True))
        ]
        d = len(rows)
        indices = [
            index.reshape((n,) + (1,) * k + (-1,) + (1,) * (d - 1 - k))
            for k, (index, _) in enumerate(rows)
        ]
        block = self.values[tuple(indices)]
        for _, weights in reversed(rows):
            block = np.einsum("n...w,nw->n...", block, weights)
        return block

    def on_grid(self, meshes: Sequence[Array], alpha: Sequence[int] | None = None) -> Array:
        """A derivative on a tensor product of one array per coordinate."""
        alpha = alpha or (0,) * len(self.bases)
        out = self.values
        for k, (basis, mesh) in enumerate(zip(self.bases, meshes, strict=True)):
            matrix = basis.matrix(mesh, alpha[k])
            moved = np.moveaxis(out, k, 0)
            flat = matrix @ moved.reshape(moved.shape[0], -1)
            out = np.moveaxis(flat.reshape((len(mesh), *moved.shape[1:])), 0, k)
        return out


class GridApproximation:
    """All fields on their grids, with derivatives of any order the polynomials carry.

    Derivatives come from the interpolating polynomials: each order of differentiation costs
    accuracy, more in time than in space.
    """

    kind = "grid"

    def __init__(self, fields: Sequence[FieldGrid]) -> None:
        self.fields = tuple(fields)

    def derivatives(
        self, points: Tensor, wanted: Sequence[tuple[int, tuple[int, ...]]]
    ) -> list[Tensor]:
        return [_Derivative.apply(points, self, index, tuple(alpha)) for index, alpha in wanted]  # type: ignore[misc]

    def to_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        spec: dict[str, Any] = {"kind": self.kind, "fields": []}
        tensors: dict[str, Tensor] = {}
        for i, grid in enumerate(self.fields):
            tensors[f"values{i}"] = _tensor(grid.values)
            axes = []
            for k, basis in enumerate(grid.bases):
                axes.append({"size": basis.size, "period": basis.period})
                for name in ("breaks", "centre", "half", "nodes", "index"):
                    tensors[f"{name}{i}_{k}"] = _tensor(getattr(basis, name))
            spec["fields"].append(axes)
        return spec, tensors

    @classmethod
    def from_state(cls, spec: dict[str, Any], tensors: dict[str, Tensor], nf: NormalForm) -> Self:
        fields = []
        for i, axes in enumerate(spec["fields"]):
            bases = []
            for k, axis in enumerate(axes):
                names = ("breaks", "centre", "half", "nodes", "index")
                arrays = {name: tensors[f"{name}{i}_{k}"].numpy() for name in names}
                period = None if axis["period"] is None else float(axis["period"])
                bases.append(PiecewiseBasis(**arrays, size=int(axis["size"]), period=period))
            fields.append(FieldGrid(tuple(bases), tensors[f"values{i}"].numpy()))
        if len(fields) != len(nf.fields):
            raise ValueError(f"the file holds {len(fields)} fields, the problem {len(nf.fields)}")
        return cls(fields)


class _Derivative(torch.autograd.Function):
    """One derivative at points; its gradient is the next derivatives, to any order."""

    @staticmethod
    def forward(
        ctx: Any, points: Tensor, grids: GridApproximation, index: int, alpha: tuple[int, ...]
    ) -> Tensor:
        ctx.save_for_backward(points)
        ctx.task = (grids, index, alpha)
        x = points.detach().to("cpu", torch.float64).numpy()
        value = grids.fields[index].at(x, alpha)
        return torch.from_numpy(np.ascontiguousarray(value)).to(points.device, points.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (points,) = ctx.saved_tensors
        grids, index, alpha = ctx.task
        columns = []
        for k in range(points.shape[1]):
            raised = (*alpha[:k], alpha[k] + 1, *alpha[k + 1 :])
            columns.append(gradients[0] * _Derivative.apply(points, grids, index, raised))  # type: ignore[operator]
        return torch.stack(columns, dim=1), None, None, None


def from_time_grid(system: System, grid: TimeGrid | Array) -> GridApproximation:
    """The fields of a system from its integrated states, or from one steady state."""
    nf = system.nf
    fields = []
    for i in range(len(nf.fields)):
        part = system.field_slice(i)
        by_coord = dict(zip(nf.space, system.bases[i], strict=True))
        if isinstance(grid, TimeGrid):
            assert nf.time is not None
            values = grid.states[:, part].reshape((-1,) + system.shapes[i])
            by_coord = {nf.time: grid.basis, **by_coord}
            order = [nf.time, *nf.space]
        else:
            values = grid[part].reshape(system.shapes[i])
            order = list(nf.space)
        values = np.transpose(values, [order.index(c) for c in nf.coords])
        fields.append(
            FieldGrid(tuple(by_coord[c] for c in nf.coords), np.ascontiguousarray(values))
        )
    return GridApproximation(fields)


def _tensor(array: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
