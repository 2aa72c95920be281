"""A Gaussian process as the answer of a solver: mean, deviation, joint samples.

In    bases per field and coordinate, posterior coefficients and a root of their covariance.
Out   `GaussianProcessApproximation`: derivatives anywhere, `std`, `sample`, and its state for files.
Next  `solution` calls it, stores it, verifies it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from pinnkit.gp.features import AxisBasis, basis_from_state
from pinnkit.ir.normal_form import NormalForm

__all__ = ["GaussianProcessApproximation", "Layout", "contract"]

_PIECE = 4_000_000  # numbers per pass: keeps the memory of large grids bounded


class Layout:
    """Which products of one-dimensional functions each field is made of.

    The eigenvalues of a product kernel are the products of those of its factors, so the truncated
    eigenbasis of the product is not the product of the truncated ones: most pairs of two small
    functions are below rounding.

    Args:
        shapes: Per field, the number of functions per coordinate.
        kept: Per field, positions in the flattened grid of its coefficients, increasing.
    """

    def __init__(self, shapes: Sequence[Sequence[int]], kept: Sequence[Tensor]) -> None:
        self.shapes = [tuple(int(n) for n in s) for s in shapes]
        self.kept = list(kept)
        self.sizes = [len(k) for k in self.kept]
        self.size = sum(self.sizes)
        self.starts = [sum(self.sizes[:i]) for i in range(len(self.sizes))]

    @classmethod
    def full(cls, shapes: Sequence[Sequence[int]]) -> Layout:
        """All products."""
        return cls(shapes, [torch.arange(math.prod(s)) for s in shapes])

    def grids(self, flat: Tensor) -> list[Tensor]:
        """The fields' coefficient grids of one vector, zero where nothing is kept."""
        parts = flat[: self.size].split(self.sizes)
        return [
            flat.new_zeros(math.prod(s)).index_copy(0, k, p).reshape(s)
            for s, k, p in zip(self.shapes, self.kept, parts, strict=True)
        ]

    def flat(self, grids: Sequence[Tensor]) -> Tensor:
        """The vector of the kept coefficients."""
        return torch.cat([g.flatten()[k] for g, k in zip(grids, self.kept, strict=True)])

    def restricted(self, mask: Tensor) -> Layout:  # shape: (kept coefficients,)
        """Only those of the kept coefficients that the mask holds."""
        parts = mask.split(self.sizes)
        return Layout(self.shapes, [k[m] for k, m in zip(self.kept, parts, strict=True)])

    def columns(self, tables: Sequence[Tensor], field: int) -> list[Tensor]:
        """Per coordinate, the column of its table that each kept coefficient goes with."""
        places = torch.unravel_index(self.kept[field], self.shapes[field])
        return [t[:, p] for t, p in zip(tables, places, strict=True)]

    def rows(self, tables: Sequence[Tensor], field: int) -> Tensor:  # shape: (n, kept)
        """Rows at scattered points."""
        first, *others = self.columns(tables, field)
        for table in others:
            first = first * table
        return first

    def grid_rows(self, tables: Sequence[Tensor], field: int) -> Tensor:
        """Rows at the points of a tensor grid, the last coordinate running fastest."""
        first, *others = self.columns(tables, field)
        for table in others:
            first = (first[:, None, :] * table[None, :, :]).flatten(0, 1)
        return first


def contract(tables: Sequence[Tensor], coefficients: Tensor) -> Tensor:  # shape: (n,)
    """sum over all r_k of tables[k][i, r_k] ... coefficients[r_1, ..., r_d], point by point."""
    block = tables[0] @ coefficients.reshape(coefficients.shape[0], -1)
    block = block.reshape(-1, *coefficients.shape[1:])
    for table in tables[1:]:
        block = torch.einsum("nr,nr...->n...", table, block)
    return block


class GaussianProcessApproximation:
    """All real fields as Gaussian processes with independent bases per coordinate.

    Args:
        bases: Per field, one basis per coordinate of the problem.
        coefficients: Per field, the posterior mean as a grid (r_1, ..., r_d).
        root: (kept coefficients, k): their covariance is root root^T. None where it was not wanted.
        layout: Which coefficients are not zero for certain; all where absent.
    """

    kind = "gaussian_process"

    def __init__(
        self,
        bases: Sequence[Sequence[Any]],
        coefficients: Sequence[Tensor],
        root: Tensor | None = None,
        layout: Layout | None = None,
    ) -> None:
        self.bases = tuple(tuple(b) for b in bases)
        self.coefficients, self.root = tuple(coefficients), root
        self.layout = layout or Layout.full([c.shape for c in self.coefficients])

    def derivatives(
        self,
        points: Tensor,  # shape: (n, d)
        wanted: Sequence[tuple[int, tuple[int, ...]]],
    ) -> list[Tensor]:  # shapes: (n,)
        """True derivatives at the points, in the points' dtype and on their device."""
        home = self.coefficients[0]
        inside = points.to(home)
        width = max(c.numel() // c.shape[0] + sum(c.shape) for c in self.coefficients)
        pieces = inside.split(max(1, _PIECE // width))
        out = []
        for index, alpha in wanted:
            parts = [
                contract(self._tables(p, index, tuple(alpha)), self.coefficients[index])
                for p in pieces
            ]
            out.append((parts[0] if len(parts) == 1 else torch.cat(parts)).to(points))
        return out

    def std(self, points: Tensor, index: int) -> Tensor:  # shape: (n,)
        """Posterior standard deviation of field `index`."""
        return self.derivative_std(points, index, (0,) * points.shape[1])

    def derivative_std(
        self, points: Tensor, index: int, alpha: tuple[int, ...]
    ) -> Tensor:  # shape: (n,)
        """Posterior standard deviation of a derivative of field `index`."""
        return self.combined_std(points, [(index, alpha)], [points.new_ones(len(points))])

    def combined_std(
        self,
        points: Tensor,  # shape: (n, d)
        wanted: Sequence[tuple[int, tuple[int, ...]]],
        slopes: Sequence[Tensor],  # shapes: (n,)
    ) -> Tensor:  # shape: (n,)
        """Posterior standard deviation of sum_j slopes_j * derivative_j, correlations included."""
        whole = self._covariance_root()
        inside = points.detach().to(whole)
        size = max(1, _PIECE // whole.shape[0])
        parts = []
        for i, piece in enumerate(inside.split(size)):
            total = whole.new_zeros(len(piece), whole.shape[1])
            for (index, alpha), slope in zip(wanted, slopes, strict=True):
                own = slope.detach().to(whole)[i * size : i * size + len(piece)]
                rows = self.layout.rows(self._tables(piece, index, tuple(alpha)), index)
                total += own[:, None] * (rows @ self._root_of(index))
            parts.append(total.norm(dim=1))
        return torch.cat(parts).to(points) if parts else points.new_zeros(0)

    def sample(self, points: Tensor, index: int, n: int, seed: int) -> Tensor:
        """`n` joint draws of field `index`: (n, len(points)); a seed means the same draw anywhere."""
        (draws,) = self.sample_derivatives(points, [(index, (0,) * points.shape[1])], n, seed)
        return draws

    def sample_derivatives(
        self,
        points: Tensor,  # shape: (k, d)
        wanted: Sequence[tuple[int, tuple[int, ...]]],
        n: int,
        seed: int,
    ) -> list[Tensor]:  # shapes: (n, k)
        """Derivatives of the same `n` draws of all fields; a seed means the same draws anywhere."""
        whole = self._covariance_root()
        gen = torch.Generator().manual_seed(seed)
        white = torch.randn(n, whole.shape[1], dtype=torch.float64, generator=gen).to(whole)
        pieces = points.detach().to(whole).split(max(1, _PIECE // whole.shape[0]))
        out = []
        for index, alpha in wanted:
            mean = self.coefficients[index].flatten()[self.layout.kept[index]]
            draws = mean + white @ self._root_of(index).T
            parts = [
                self.layout.rows(self._tables(p, index, tuple(alpha)), index) @ draws.T
                for p in pieces
            ]
            out.append(torch.cat(parts).T.to(points) if parts else points.new_zeros(n, 0))
        return out

    def to_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """A JSON-able description and the tensors."""
        tensors: dict[str, Tensor] = {}
        fields = []
        for i, (bases, z) in enumerate(zip(self.bases, self.coefficients, strict=True)):
            axes = []
            for k, basis in enumerate(bases):
                spec, own = basis.to_state()
                axes.append(spec)
                tensors |= {f"{i}.{k}.{name}": v.detach().cpu() for name, v in own.items()}
            tensors[f"{i}.coefficients"] = z.detach().cpu()
            tensors[f"{i}.kept"] = self.layout.kept[i].cpu()
            fields.append(axes)
        if self.root is not None:
            tensors["root"] = self.root.detach().cpu()
        return {"fields": fields}, tensors

    @classmethod
    def from_state(cls, spec: dict[str, Any], tensors: dict[str, Tensor], nf: NormalForm) -> Self:
        """The approximation that `to_state` described; ValueError if the parts do not fit."""
        if len(spec["fields"]) != len(nf.fields):
            raise ValueError(
                f"the file holds {len(spec['fields'])} fields, the problem {len(nf.fields)}"
            )
        bases, coefficients = [], []
        for i, axes in enumerate(spec["fields"]):
            if len(axes) != len(nf.coords):
                raise ValueError(
                    f"the file holds {len(axes)} coordinates, the problem {len(nf.coords)}"
                )
            row: list[AxisBasis] = []
            for k, axis in enumerate(axes):
                prefix = f"{i}.{k}."
                own = {n[len(prefix) :]: v for n, v in tensors.items() if n.startswith(prefix)}
                row.append(basis_from_state(axis, own))
            z = tensors[f"{i}.coefficients"]
            if tuple(z.shape) != tuple(b.size for b in row):
                raise ValueError("the file's coefficients do not fit its bases")
            bases.append(row)
            coefficients.append(z)
        kept = [tensors[f"{i}.kept"] for i in range(len(coefficients))]
        layout = Layout([z.shape for z in coefficients], kept)
        return cls(bases, coefficients, tensors.get("root"), layout)

    def _tables(self, points: Tensor, index: int, alpha: tuple[int, ...]) -> list[Tensor]:
        return [
            basis(points[:, k], order)
            for k, (basis, order) in enumerate(zip(self.bases[index], alpha, strict=True))
        ]

    def _root_of(self, index: int) -> Tensor:
        """The rows of the covariance's root that belong to one field."""
        start = self.layout.starts[index]
        return self._covariance_root()[start : start + self.layout.sizes[index]]

    def _covariance_root(self) -> Tensor:
        if self.root is None:
            raise ValueError("the covariance of this process was not kept")
        return self.root
