"""Equations, conditions and data as rows over Kronecker bases: linearised anywhere, dense or applied.

In    a `NormalForm`, bases per field and coordinate, points on tensor grids or scattered.
Out   `Term`: an expression and its derivatives by every leaf; `PlacedTerm`: its residual and rows.
Next  `solvers.spectral_mixture_gp` conditions coefficients on them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sympy as sp
import torch
from torch import Tensor

from pinnkit.gp.gaussian_process import Layout, contract
from pinnkit.gp.kronecker import kron_apply
from pinnkit.ir.leaves import field_of, freeze
from pinnkit.ir.normal_form import Face, NormalForm
from pinnkit.lower.expressions import Compiled, compile_expressions

__all__ = ["PlacedTerm", "Term", "make_terms"]

PROJECTION = 1e-15  # singular values of stacked tables below it (relative) are rounding
BLOCK = 40_000_000  # numbers in rows that are made at once


@dataclass(frozen=True, eq=False)
class Term:
    """One residual and how it depends on every field, derivative and parameter in it.

    kind: "equation" | "condition" | "observation"; observations carry their points, values and the
    standard deviation of their noise (None: unknown).
    """

    nf: NormalForm
    label: str
    kind: str
    residual: sp.Expr
    face: Face | None = None
    points: Tensor | None = None
    values: Tensor | None = None
    noise: float | None = None

    @functools.cached_property
    def _frozen(self) -> Any:
        return freeze([self.residual])

    @functools.cached_property
    def wanted(self) -> list[tuple[int, tuple[int, ...]]]:
        """(field, multi-index) per leaf."""
        fields = self.nf.fields
        return [
            (fields.index(field_of(leaf)), self.nf.multi_index(leaf))
            for leaf in self._frozen.symbols
        ]

    @functools.cached_property
    def slopes(self) -> list[sp.Expr]:
        """d residual / d leaf, then d residual / d parameter; leaves as symbols."""
        (expr,) = self._frozen.exprs
        return [sp.diff(expr, s) for s in (*self._frozen.symbols.values(), *self.nf.parameters)]

    @functools.cached_property
    def compiled(self) -> Compiled:
        """The residual and its slopes as functions of coordinates, parameters, leaves."""
        leaves = [*self.nf.coords, *self.nf.parameters, *self._frozen.symbols.values()]
        return compile_expressions([*self._frozen.exprs, *self.slopes], leaves)

    @property
    def is_constant(self) -> bool:
        """The slopes by leaves are numbers."""
        count = len(self.wanted)
        return not any(s.free_symbols for s in self.slopes[:count])

    @functools.cached_property
    def affine_parts(self) -> dict[tuple[int, ...], list[sp.Expr]] | None:
        """{powers of the parameters: [what has no leaf in it, slope by each leaf]}; their sum is the residual.

        None where the residual is not linear in the leaves or no polynomial in the parameters.
        """
        (expr,), leaves = self._frozen.exprs, list(self._frozen.symbols.values())
        slopes = self.slopes[: len(leaves)]
        if any(s.has(*leaves) for s in slopes):
            return None
        pieces = [expr.xreplace(dict.fromkeys(leaves, sp.S.Zero)), *slopes]
        parameters = self.nf.parameters
        nothing: list[sp.Expr] = [sp.S.Zero] * len(pieces)
        parts = {(0,) * len(parameters): list(nothing)}
        for i, piece in enumerate(pieces):
            terms = [((), piece)]
            if parameters:
                polynomial = piece.as_poly(*parameters)
                if polynomial is None:
                    return None
                terms = polynomial.terms()
            for powers, coefficient in terms:
                parts.setdefault(powers, list(nothing))[i] = coefficient
        return parts

    def linearise(
        self, points: Tensor, parameters: Sequence[Tensor], values: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """(residual (n,), slopes (n,) each) at the leaves' values."""
        numbers = [p.expand(len(points)) for p in parameters]
        residual, *slopes = self.compiled([*points.unbind(1), *numbers, *values])
        if self.values is not None:
            residual = residual - self.values.to(points)
        return residual, slopes

    def source(self, points: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The residual and slopes of fields that are zero."""
        zero = torch.zeros(len(points), dtype=points.dtype, device=points.device)
        return self.linearise(points, parameters, [zero] * len(self.wanted))


def make_terms(nf: NormalForm) -> list[Term]:
    """Everything the fields have to obey, in the problem's order."""
    terms = [Term(nf, e.label, "equation", e.residual) for e in nf.equations]
    terms += [Term(nf, c.label, "condition", c.residual, c.face) for c in nf.conditions]
    for o in nf.observations:
        points = torch.as_tensor(o.points, dtype=torch.float64)
        values = torch.as_tensor(o.values, dtype=torch.float64)
        terms.append(
            Term(nf, o.label, "observation", o.expr, points=points, values=values, noise=o.noise)
        )
    return terms


class PlacedTerm:
    """A term on its points; everything it returns is multiplied by `weight` (one over its noise).

    Args:
        term: What holds there.
        bases: Per field, one basis per coordinate.
        layout: The products of them that are used.
        axes: A tensor grid, one array per coordinate (a face has a single value on its axis).
        points: Scattered points instead of a grid.
    """

    def __init__(
        self,
        term: Term,
        bases: Sequence[Sequence[Any]],
        layout: Layout,
        axes: Sequence[Tensor] | None = None,
        points: Tensor | None = None,
    ) -> None:
        self.term, self.layout, self.weight = term, layout, 1.0
        self.gridded = axes is not None
        if axes is not None:
            mesh = torch.meshgrid(*axes, indexing="ij")
            self.points = torch.stack([m.flatten() for m in mesh], dim=1)
            columns = list(axes)
        else:
            assert points is not None
            self.points, columns = points, list(points.unbind(1))
        self.grid = tuple(len(c) for c in columns) if self.gridded else (len(self.points),)
        seen: dict[Any, Tensor] = {}
        self.tables: list[list[Tensor]] = []
        for field, alpha in term.wanted:
            row = []
            for k, (basis, order) in enumerate(zip(bases[field], alpha, strict=True)):
                key = (id(basis), k, order)
                if key not in seen:
                    seen[key] = basis(columns[k], order)
                row.append(seen[key])
            self.tables.append(row)
        self.slopes: list[Tensor] = []

    def linearise(self, coefficients: Sequence[Tensor], parameters: Sequence[Tensor]) -> Tensor:
        """The weighted residual; the slopes are kept for `dense`, `apply` and `adjoint`."""
        values = [
            self._values(t, coefficients[f])
            for t, (f, _) in zip(self.tables, self.term.wanted, strict=True)
        ]
        residual, slopes = self.term.linearise(self.points, parameters, values)
        self.slopes = [self.weight * s for s in slopes]
        return self.weight * residual

    def residual(self, coefficients: Sequence[Tensor], parameters: Sequence[Tensor]) -> Tensor:
        """The weighted residual alone; the slopes stay."""
        kept = self.slopes
        out = self.linearise(coefficients, parameters)
        self.slopes = kept
        return out

    def prior_rms(self, prior: Tensor) -> float:
        """How large the term is for a field drawn from the prior (leaves taken as independent).

        Args:
            prior: Standard deviations of all coefficients.
        """
        total = 0.0
        for tables, (field, _), slope in zip(
            self.tables, self.term.wanted, self.slopes, strict=False
        ):
            squares = [t.square().mean(0, keepdim=True) for t in tables]
            start = self.layout.starts[field]
            own = prior[start : start + self.layout.sizes[field]]
            mean = self.layout.rows(squares, field)[0] @ own.square()
            total += float(mean) * float((slope / self.weight).square().mean())
        return math.sqrt(total)

    def dense(self, parameters: int = 0) -> Tensor:  # shape: (n, sum of sizes + parameters)
        """The rows d residual / d (coefficients, parameters)."""
        own = [s[:, None] for s in self.slopes[len(self.tables) :]]
        return torch.cat([self.rows_with(self.slopes), *own[:parameters]], dim=1)

    def rows_with(self, slopes: Sequence[Tensor]) -> Tensor:  # shape: (n, sum of sizes)
        """sum over leaves of slope * leaf's row."""
        sizes = self.layout.sizes
        blocks: list[Tensor | None] = [None] * len(sizes)
        for tables, (field, _), slope in zip(self.tables, self.term.wanted, slopes, strict=False):
            part = self._rows(tables, field) * slope[:, None]
            known = blocks[field]
            blocks[field] = part if known is None else known.add_(part)
        n = len(self.points)
        filled = [
            self.points.new_zeros(n, size) if b is None else b
            for b, size in zip(blocks, sizes, strict=True)
        ]
        return torch.cat(filled, dim=1)

    def apply(self, flat: Tensor) -> Tensor:
        """The rows times a vector, without the rows."""
        parts = self.layout.grids(flat)
        total = self.points.new_zeros(len(self.points))
        for tables, (field, _), slope in zip(
            self.tables, self.term.wanted, self.slopes, strict=False
        ):
            total = total + slope * self._values(tables, parts[field])
        return total

    def adjoint(self, vector: Tensor) -> Tensor:
        """The transposed rows times a vector."""
        out = [vector.new_zeros(size) for size in self.layout.sizes]
        for tables, (field, _), slope in zip(
            self.tables, self.term.wanted, self.slopes, strict=False
        ):
            weighted = slope * vector
            if self.gridded:
                back = kron_apply([t.T for t in tables], weighted.reshape(self.grid))
                back = back.flatten()[self.layout.kept[field]]
            else:
                back = self._rows(tables, field).T @ weighted
            out[field] = out[field] + back
        return torch.cat(out)

    def projected(
        self, values: Tensor, slopes: Sequence[Tensor] | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Fewer rows with the same least-squares solution, the slopes replaced by their means.

        The columns of all tables along a coordinate span a space of little more than the basis'
        size; with slopes constant over the grid, what lies outside it cannot be fitted anyhow.
        Rows come in blocks, along the first coordinate: in three all of them would not fit.
        """
        turns = []
        for k, n in enumerate(self.grid):
            stacked = torch.cat([t[k] / t[k].norm().clamp_min(1e-300) for t in self.tables], dim=1)
            if n <= 8:
                turns.append(torch.eye(n, dtype=stacked.dtype, device=stacked.device))
                continue
            left, size, _ = torch.linalg.svd(stacked, full_matrices=False)
            turns.append(left[:, size > PROJECTION * size[0]])
        slopes = self.slopes if slopes is None else slopes
        turned = kron_apply([q.T for q in turns], values.reshape(self.grid))
        layer = math.prod(t.shape[1] for t in turns[1:])
        thick = max(1, BLOCK // (layer * self.layout.size))
        for low in range(0, turns[0].shape[1], thick):
            own = [turns[0][:, low : low + thick], *turns[1:]]
            part = turned[low : low + thick].flatten()
            rows = values.new_zeros(len(part), self.layout.size)
            for tables, (field, _), slope in zip(
                self.tables, self.term.wanted, slopes, strict=False
            ):
                small = [q.T @ t for q, t in zip(own, tables, strict=True)]
                start = self.layout.starts[field]
                block = self.layout.grid_rows(small, field)
                rows[:, start : start + self.layout.sizes[field]] += slope.mean() * block
            yield rows, part

    def _values(self, tables: list[Tensor], coefficients: Tensor) -> Tensor:
        if self.gridded:
            return kron_apply(tables, coefficients).flatten()
        return contract(tables, coefficients)

    def _rows(self, tables: list[Tensor], field: int) -> Tensor:
        layout = self.layout
        return layout.grid_rows(tables, field) if self.gridded else layout.rows(tables, field)
