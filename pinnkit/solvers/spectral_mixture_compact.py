"""Terms that are linear in the fields, made small once: a search solves with what is left of them.

In    placed terms, linear in fields and derivatives, polynomial in unknown parameters.
Out   `CompactTerm`: the same least-squares problem in no more rows than unknowns.
Next  `solvers.spectral_mixture_evidence` and `spectral_mixture_fit` take them as they take the terms.

Looking for prior scales and parameters solves one least-squares problem a hundred times over. With
the residual sum_m p^m (A_m z + c_m), where p^m are monomials of the parameters, the triangle of
[A_0 c_0 A_1 c_1 ...] serves for all p: sum_m p^m T_m has the same lengths and products.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Self

import sympy as sp
import torch
from torch import Tensor

from pinnkit.gp.posterior import StackedRows
from pinnkit.lower.expressions import compile_expressions
from pinnkit.solvers.spectral_mixture_rows import PlacedTerm, Term

__all__ = ["AnyTerm", "CompactTerm", "compact"]

MOST_NUMBERS = 200_000_000  # in the rows of a term whose coefficients vary, all powers together

Parts = dict[tuple[int, ...], list[sp.Expr]]


class CompactTerm:
    """What `PlacedTerm` is to a solve, in fewer rows; weights are those of the term itself.

    Args:
        whole: The term.
        powers: The monomials of the parameters.
        triangle: (rows, monomials, coefficients + 1), offsets last.
    """

    gridded = False

    def __init__(
        self, whole: PlacedTerm, powers: Sequence[tuple[int, ...]], triangle: Tensor
    ) -> None:
        self.whole, self.term = whole, whole.term
        self.powers, self.triangle = list(powers), triangle
        self.layout = whole.layout
        self.grid = (len(triangle),)
        self.points = whole.points
        self._numbers: list[Tensor] = []
        self._rows = triangle[:, 0]
        self._slopes: list[Tensor] = []

    @property
    def weight(self) -> float:
        """One over the noise, the whole term's."""
        return self.whole.weight

    @weight.setter
    def weight(self, weight: float) -> None:
        self.whole.weight = weight

    def linearise(self, coefficients: Sequence[Tensor], parameters: Sequence[Tensor]) -> Tensor:
        """The weighted residual; rows and slopes are kept for `dense`."""
        z = self._with_one(coefficients)
        self._numbers, self._rows = list(parameters), self._at(parameters)
        self._slopes = [
            self._at(parameters, derivative=i) @ z * self.weight for i in range(len(parameters))
        ]
        return self.weight * (self._rows @ z)

    def residual(self, coefficients: Sequence[Tensor], parameters: Sequence[Tensor]) -> Tensor:
        """The weighted residual alone."""
        return self.weight * (self._at(parameters) @ self._with_one(coefficients))

    def dense(self, parameters: int = 0) -> Tensor:  # shape: (n, coefficients + parameters)
        """The rows d residual / d (coefficients, parameters)."""
        own = [s[:, None] for s in self._slopes[:parameters]]
        return torch.cat([self.weight * self._rows[:, :-1], *own], dim=1)

    def apply(self, flat: Tensor) -> Tensor:
        """The rows times a vector."""
        return self.weight * (self._rows[:, :-1] @ flat)

    def adjoint(self, vector: Tensor) -> Tensor:
        """The transposed rows times a vector."""
        return self.weight * (self._rows[:, :-1].T @ vector)

    def projected(self, values: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """They are few already."""
        yield self.dense(), values

    def prior_rms(self, prior: Tensor) -> float:
        """See `PlacedTerm.prior_rms`, at the parameters of the last `linearise`."""
        self.whole.linearise(self.layout.grids(prior.new_zeros(self.layout.size)), self._numbers)
        return self.whole.prior_rms(prior)

    def restricted(self, kept: Tensor) -> Self:
        """Without the coefficients that are not `kept` (a mask): those are zero."""
        columns = torch.cat([kept, kept.new_ones(1)])
        short = type(self)(self.whole, self.powers, _triangle(self.triangle[:, :, columns]))
        short.layout = self.layout.restricted(kept)
        short._numbers = self._numbers
        return short

    def _with_one(self, coefficients: Sequence[Tensor]) -> Tensor:
        flat = self.layout.flat(coefficients)
        return torch.cat([flat, flat.new_ones(1)])

    def _at(self, parameters: Sequence[Tensor], derivative: int | None = None) -> Tensor:
        """The rows at these parameters, or their derivative by one of them."""
        total: Tensor | None = None
        for m, powers in enumerate(self.powers):
            factor = 1.0
            for i, (p, power) in enumerate(zip(parameters, powers, strict=True)):
                if i == derivative:
                    factor = factor * power * float(p) ** max(power - 1, 0)
                else:
                    factor = factor * float(p) ** power
            if factor == 0:
                continue
            part = self.triangle[:, m]
            total = factor * part if total is None else total + factor * part
        return torch.zeros_like(self.triangle[:, 0]) if total is None else total


AnyTerm = PlacedTerm | CompactTerm


def compact(placed: Sequence[PlacedTerm]) -> list[CompactTerm] | None:
    """All terms made small; None where one is not linear in the fields or too large to be."""
    parts = [p.term.affine_parts for p in placed]
    for p, own in zip(placed, parts, strict=True):
        if own is None:
            return None
        numbers = len(p.points) * len(own) * (p.layout.size + 1)
        if numbers > MOST_NUMBERS and not (p.gridded and _is_constant(own)):
            return None
    return [_compact(p, own) for p, own in zip(placed, parts, strict=True) if own is not None]


def _compact(whole: PlacedTerm, parts: Parts) -> CompactTerm:
    offsets, slopes = _evaluated(whole.term, parts, whole.points)
    rows = StackedRows()
    if whole.gridded and len(whole.grid) > 1 and _is_constant(parts):
        blocks = [whole.projected(c, s) for c, s in zip(offsets, slopes, strict=True)]
        for block in zip(*blocks, strict=True):
            rows.append(torch.cat([torch.cat([a, c[:, None]], dim=1) for a, c in block], dim=1))
    else:
        pairs = zip(offsets, slopes, strict=True)
        rows.append(
            torch.cat([torch.cat([whole.rows_with(s), c[:, None]], dim=1) for c, s in pairs], dim=1)
        )
    triangle = rows.triangle().reshape(-1, len(parts), whole.layout.size + 1)
    return CompactTerm(whole, list(parts), triangle)


def _evaluated(term: Term, parts: Parts, points: Tensor) -> tuple[list[Tensor], list[list[Tensor]]]:
    """Per monomial the offset and the slopes at the points."""
    width = 1 + len(term.wanted)
    flat = [expr for part in parts.values() for expr in part]
    found = compile_expressions(flat, term.nf.coords)(points.unbind(1))
    offsets = list(found[::width])
    if term.values is not None:
        plain = list(parts).index((0,) * len(term.nf.parameters))
        offsets[plain] = offsets[plain] - term.values.to(points)
    return offsets, [list(found[i + 1 : i + width]) for i in range(0, len(found), width)]


def _is_constant(parts: Parts) -> bool:
    return not any(slope.free_symbols for part in parts.values() for slope in part[1:])


def _triangle(rows: Tensor) -> Tensor:
    """No more rows than columns: (n, m, r) -> (at most m r, m, r)."""
    flat = rows.flatten(1)
    if len(flat) > flat.shape[1]:
        flat = torch.linalg.qr(flat, mode="r").R
    return flat.reshape(-1, *rows.shape[1:])
