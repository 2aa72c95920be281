"""Blocks of equations: compiled residuals with sparse matrices behind their leaves.

In    a `Residual`, the coordinates of its rows, and per leaf the part of the state it is taken from.
Out   values and Jacobian entries of the block at states Y and rates Y'.
Next  `discretise` stacks the blocks into one system.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sps

from pinnkit.classical.expressions import Residual

__all__ = ["Background", "RowBlock", "Source", "Term"]

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Source:
    """A leaf as `operator` times the part of the state (or of its rate) that starts at `start`."""

    rate: bool
    start: int
    operator: sps.csr_matrix
    rows: Array = field(init=False)
    columns: Array = field(init=False)
    counts: Array = field(init=False)
    stop: int = field(init=False)

    def __post_init__(self) -> None:
        counts = np.diff(self.operator.indptr)
        height, width = self.operator.shape  # type: ignore[misc]  # scipy's stubs allow None
        object.__setattr__(self, "counts", counts)
        object.__setattr__(self, "rows", np.repeat(np.arange(height), counts))
        object.__setattr__(self, "stop", self.start + width)
        object.__setattr__(self, "columns", self.operator.indices + self.start)

    def apply(self, y: Array, rate: Array) -> Array:
        block = (rate if self.rate else y)[self.start : self.stop]
        return self.operator @ block


@dataclass(frozen=True, eq=False)
class Term:
    """sign * residual(coords, leaves) on the rows of a block.

    `coords` holds one column (rows, 1) per coordinate, None for time. `sources` is in the order of
    `residual.leaves`.
    """

    residual: Residual
    coords: tuple[Array | None, ...]
    sources: tuple[Source, ...]
    size: int
    sign: float = 1.0
    known: bool = True  # False where the background cancels against that of another term

    def coordinates(self, t: Array) -> list[Array]:
        return [t[None, :] if c is None else c for c in self.coords]

    def points(self, t: Array) -> Array:
        """All (row, time) pairs as points (rows * times, d)."""
        shape = (self.size, len(t))
        return np.stack([np.broadcast_to(c, shape).ravel() for c in self.coordinates(t)], axis=1)

    def leaves(self, y: Array, rate: Array, background: Sequence[Array] | None) -> list[Array]:
        values = [source.apply(y, rate) for source in self.sources]
        if background is None:
            return values
        return [value + known for value, known in zip(values, background, strict=True)]


class Background:
    """Known functions to which the unknown fields are added; none by default."""

    def leaves(self, term: Term, t: Array) -> list[Array] | None:
        """The known part of every leaf of the term, (rows, times) each; None for zero."""
        return None

    def nodal(self, index: int, alpha: tuple[int, ...], points: Array) -> Array | None:
        """The known part of one field's derivative at points (n, d); None for zero."""
        return None


@dataclass(frozen=True, eq=False)
class RowBlock:
    """Rows `start`..: the sum of the terms; with `quadrature` the rows collapse into one integral."""

    start: int
    terms: tuple[Term, ...]
    quadrature: Array | None = None
    constant: float = 0.0
    multiplier: int | None = None

    @property
    def size(self) -> int:
        return 1 if self.quadrature is not None else self.terms[0].size

    def values(
        self, coords: list[list[Array]], known: list[list[Array] | None], y: Array, rate: Array
    ) -> Array:
        times = y.shape[1]
        total = np.zeros((self.terms[0].size, times))
        for term, where, background in zip(self.terms, coords, known, strict=True):
            leaves = term.leaves(y, rate, background)
            total += term.sign * term.residual.value(where, leaves, total.shape)
        if self.quadrature is not None:
            total = (self.quadrature @ total)[None, :] - self.constant
        if self.multiplier is not None:
            total = total + y[self.multiplier]
        return total

    def entries(
        self, coords: list[list[Array]], known: list[list[Array] | None], y: Array, rate: Array
    ) -> list[tuple[bool, Array, Array, Array]]:
        """Jacobian entries (of the rate?, rows, columns, values) at one time."""
        out = []
        for term, where, background in zip(self.terms, coords, known, strict=True):
            leaves = term.leaves(y, rate, background)
            partials = term.residual.partials(where, leaves, (term.size, 1))
            for source, partial in zip(term.sources, partials, strict=True):
                factor = term.sign * partial[:, 0]
                if self.quadrature is not None:
                    factor = factor * self.quadrature
                data = np.repeat(factor, source.counts) * source.operator.data
                rows = source.rows if self.quadrature is None else np.zeros_like(source.rows)
                out.append((source.rate, rows + self.start, source.columns, data))
        if self.multiplier is not None:
            rows = np.arange(self.start, self.start + self.size)
            out.append((False, rows, np.full_like(rows, self.multiplier), np.ones(self.size)))
        return out
