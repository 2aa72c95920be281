"""Integral conditions as residuals: quadrature over some axes, at points of the others.

In    an `IntegralCondition` (a gauge is one).
Out   an `IntegralTerm`, evaluated and differentiated like any residual term.
Next  solvers stack it with the others.

Quadrature: the trapezoidal rule on periodic axes (exact for as many harmonics as nodes), Gauss and
Legendre elsewhere.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import sympy as sp
import torch
from torch import Tensor

from pinnkit.ir.leaves import field_of, leaves
from pinnkit.ir.normal_form import Face, IntegralCondition, NormalForm
from pinnkit.lower.expressions import Compiled, compile_expressions
from pinnkit.lower.fields import FieldModel
from pinnkit.lower.rows import residual_rows
from pinnkit.lower.scales import FieldScale, term_size
from pinnkit.lower.tape import Tape, physical_numbers

__all__ = ["IntegralTerm", "make_integral_term", "quadrature_rule"]


@dataclass(frozen=True, eq=False)
class IntegralTerm:
    """(integral of the integrand - equals) / scale, one residual per point of the other coordinates.

    `points` given to it are (n, d) as everywhere; their columns along `over` are ignored. When
    `over` are all coordinates, one point is enough. kind is "integral".
    """

    label: str
    condition: IntegralCondition
    scale: float
    nf: NormalForm
    nodes: Tensor  # shape: (q, len(over))
    weights: Tensor  # shape: (q,)
    kind: str = "integral"
    face: Face | None = None

    @property
    def coords(self) -> tuple[sp.Symbol, ...]:
        """Columns of the points."""
        return self.nf.coords

    @property
    def free(self) -> tuple[sp.Symbol, ...]:
        """The coordinates that are not integrated over."""
        return tuple(c for c in self.nf.coords if c not in self.condition.over)

    @functools.cached_property
    def leaves(self) -> tuple[sp.Expr, ...]:
        """Fields and derivatives in the integrand."""
        return leaves(self.condition.integrand)

    @functools.cached_property
    def wanted(self) -> tuple[tuple[int, tuple[int, ...]], ...]:
        """(field index, multi-index) per leaf."""
        return tuple(
            (self.nf.fields.index(field_of(v)), self.nf.multi_index(v)) for v in self.leaves
        )

    @functools.cached_property
    def _integrand(self) -> Compiled:
        nf = self.nf
        return compile_expressions(
            [self.condition.integrand], [*nf.coords, *nf.parameters, *self.leaves]
        )

    @functools.cached_property
    def _equals(self) -> Compiled:
        return compile_expressions([self.condition.equals], [*self.nf.coords, *self.nf.parameters])

    def evaluate(
        self,
        model: FieldModel,
        points: Tensor,  # shape: (n, d)
        tape: Tape | None = None,
        parameters: Sequence[Tensor] = (),
    ) -> Tensor:  # shape: (n, 1)
        """The scaled residual; arguments as in `ResidualGroup.evaluate`."""
        n, q = points.shape[0], self.weights.shape[0]
        axes = [self.nf.coords.index(c) for c in self.condition.over]
        spread = points.repeat(q, 1)  # node by node: q consecutive blocks of n points
        nodes = self.nodes.to(points).repeat_interleave(n, dim=0)
        spread = spread.index_copy(1, torch.tensor(axes, device=points.device), nodes)
        numbers = physical_numbers(parameters, q * n, tape)
        derivatives = model.derivatives(spread, self.wanted, tape)
        values = self._integrand([*spread.unbind(1), *numbers, *derivatives])[0]
        integral = self.weights.to(points) @ values.view(q, n)
        # The right side is taken at the first block: it has no node in it.
        first = [v[:n] if v.dim() else v for v in numbers]
        equals = self._equals([*points.unbind(1), *first])[0]
        return ((integral - equals) / self.scale)[:, None]

    def rows(
        self,
        model: FieldModel,
        points: Tensor,
        params: Sequence[Tensor] | None = None,
        parameters: Sequence[Tensor] = (),
        out: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:  # shapes: (n, 1), (n, 1, P)
        """Residual and rows; arguments as in `ResidualGroup.rows`."""

        def evaluate(tape: Tape) -> Tensor:
            return self.evaluate(model, points, tape, parameters)

        return residual_rows(evaluate, model, params, parameters, out)


def make_integral_term(
    condition: IntegralCondition,
    nf: NormalForm,
    scales: Mapping[sp.Expr, FieldScale],
    nodes: int,
) -> IntegralTerm:
    """The condition with its quadrature; its scale is that of the integrand times the volume."""
    rules = [
        quadrature_rule(*nf.bounds[c], nodes, periodic=c in nf.periodic) for c in condition.over
    ]
    grid = torch.cartesian_prod(*(x for x, _ in rules)).reshape(-1, len(rules))
    weights = torch.cartesian_prod(*(w for _, w in rules)).reshape(-1, len(rules)).prod(dim=1)
    volume = math.prod(nf.bounds[c][1] - nf.bounds[c][0] for c in condition.over)
    per_volume = condition.integrand - condition.equals / sp.Float(volume, 17)
    size = volume * term_size(per_volume, nf, scales)
    return IntegralTerm(condition.label, condition, size, nf, grid, weights)


def quadrature_rule(
    low: float, high: float, n: int, *, periodic: bool
) -> tuple[Tensor, Tensor]:  # shapes: (n,), (n,)
    """Nodes and weights on [low, high]."""
    if periodic:
        nodes = low + (high - low) * torch.arange(n, dtype=torch.float64) / n
        return nodes, torch.full((n,), (high - low) / n, dtype=torch.float64)
    x, w = np.polynomial.legendre.leggauss(n)
    half = (high - low) / 2
    return torch.from_numpy((low + high) / 2 + half * x), torch.from_numpy(half * w)
