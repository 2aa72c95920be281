"""Equations and conditions as torch residuals, scaled to size 1.

In    a `NormalForm` and the scales of its fields.
Out   one `ResidualTerm` per equation, condition, integral and observation set; `ResidualGroup`s of
      the terms that share points, so that all share one forward jet pass.
Next  solvers stack them into r(theta) and its rows J.

Each residual is divided by the size of its largest term (`lower.scales.term_size`), which makes
equations, initial and boundary conditions comparable numbers whatever the units.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sympy as sp
import torch
from torch import Tensor

from pinnkit.declare.operators import Div
from pinnkit.errors import UnsupportedProblemError
from pinnkit.ir.leaves import field_of, leaves
from pinnkit.ir.normal_form import Face, NormalForm
from pinnkit.lower.expressions import Compiled, compile_expressions
from pinnkit.lower.fields import FieldModel, Wanted
from pinnkit.lower.integrals import IntegralTerm, make_integral_term
from pinnkit.lower.jet_algebra import JetSpec
from pinnkit.lower.rows import residual_rows
from pinnkit.lower.scales import FieldScale, estimate_field_scales, term_size
from pinnkit.lower.tape import Tape, physical_numbers

__all__ = [
    "ResidualGroup",
    "ResidualTerm",
    "compile_residuals",
    "group_terms",
    "lowering_refusal",
]


@dataclass(frozen=True, eq=False)
class ResidualTerm:
    """One scaled residual column.

    kind: "interior" | "initial" | "boundary" | "observation". `face` is None in the interior.
    `residual` is the user's expression; `scale` the size it is divided by. `wanted` lists the
    derivatives it reads, `spec` the jet that holds them. For observations `values` are subtracted,
    and `points` are where they were taken.
    """

    label: str
    kind: str
    face: Face | None
    residual: sp.Expr
    scale: float
    nf: NormalForm
    points: Tensor | None = None
    values: Tensor | None = None

    @property
    def coords(self) -> tuple[sp.Symbol, ...]:
        """Columns of the points."""
        return self.nf.coords

    @functools.cached_property
    def leaves(self) -> tuple[sp.Expr, ...]:
        """Fields and derivatives in the residual."""
        return leaves(self.residual)

    @property
    def wanted(self) -> Wanted:
        """(field index, multi-index) per leaf."""
        fields = self.nf.fields
        return [(fields.index(field_of(v)), self.nf.multi_index(v)) for v in self.leaves]

    @property
    def spec(self) -> JetSpec:
        """The jet this term needs."""
        return JetSpec.closure([alpha for _, alpha in self.wanted], len(self.nf.coords))

    @functools.cached_property
    def group(self) -> ResidualGroup:
        """The group of this term alone."""
        return ResidualGroup((self,))

    def evaluate(
        self,
        model: FieldModel,
        points: Tensor,  # shape: (n, d)
        tape: Tape | None = None,
        parameters: Sequence[Tensor] = (),
    ) -> Tensor:  # shape: (n,)
        """The scaled residual; `parameters` in the order of `nf.parameters`."""
        return self.group.evaluate(model, points, tape, parameters)[:, 0]

    def rows(
        self,
        model: FieldModel,
        points: Tensor,
        params: Sequence[Tensor] | None = None,
        parameters: Sequence[Tensor] = (),
        out: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:  # shapes: (n,), (n, P)
        """Residual and Jacobian; see `ResidualGroup.rows`."""
        whole = None if out is None else out[:, None]
        r, j = self.group.rows(model, points, params, parameters, whole)
        return r[:, 0], j[:, 0]


@dataclass(frozen=True, eq=False)
class ResidualGroup:
    """Terms on the same points: one jet pass for all of them."""

    terms: tuple[ResidualTerm, ...]

    @property
    def kind(self) -> str:
        """The terms' common kind."""
        return self.terms[0].kind

    @property
    def face(self) -> Face | None:
        """The terms' common face."""
        return self.terms[0].face

    @property
    def label(self) -> str:
        """All labels in one line."""
        return ", ".join(t.label for t in self.terms)

    @functools.cached_property
    def leaves(self) -> tuple[sp.Expr, ...]:
        """Fields and derivatives in any of the terms."""
        return leaves(*(t.residual for t in self.terms))

    @functools.cached_property
    def wanted(self) -> tuple[tuple[int, tuple[int, ...]], ...]:
        """(field index, multi-index) per leaf."""
        nf = self.terms[0].nf
        return tuple((nf.fields.index(field_of(v)), nf.multi_index(v)) for v in self.leaves)

    @property
    def spec(self) -> JetSpec:
        """The jet the terms need together."""
        d = len(self.terms[0].nf.coords)
        return JetSpec.closure([alpha for _, alpha in self.wanted], d)

    @functools.cached_property
    def compiled(self) -> Compiled:
        """Scaled residuals as a function of coordinates, parameters and leaves."""
        nf = self.terms[0].nf
        return compile_expressions(
            [t.residual / sp.Float(t.scale, 17) for t in self.terms],
            [*nf.coords, *nf.parameters, *self.leaves],
        )

    def evaluate(
        self,
        model: FieldModel,
        points: Tensor,  # shape: (n, d)
        tape: Tape | None = None,
        parameters: Sequence[Tensor] = (),
    ) -> Tensor:  # shape: (n, e)
        """Scaled residuals, one column per term.

        Without a tape, differentiable in the model's parameters, in `parameters` and in `points`.
        With a tape, gradients with respect to parameters come from the tape (`jacobian_rows`).
        """
        numbers = physical_numbers(parameters, points.shape[0], tape)
        derivatives = model.derivatives(points, self.wanted, tape) if self.wanted else []
        columns = self.compiled([*points.unbind(1), *numbers, *derivatives])
        for k, term in enumerate(self.terms):
            if term.values is not None:
                columns[k] = columns[k] - term.values.to(points) / term.scale
        return torch.stack(columns, dim=1)

    def rows(
        self,
        model: FieldModel,
        points: Tensor,
        params: Sequence[Tensor] | None = None,
        parameters: Sequence[Tensor] = (),
        out: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:  # shapes: (n, e), (n, e, P)
        """Residuals and their rows.

        Args:
            params: Order of the columns of J; the model's parameters, then the physical ones that
                require grad, where None.
            parameters: Values of `nf.parameters`.
            out: A buffer for J.
        """

        def evaluate(tape: Tape) -> Tensor:
            return self.evaluate(model, points, tape, parameters)

        return residual_rows(evaluate, model, params, parameters, out)


def compile_residuals(
    nf: NormalForm,
    scales: Mapping[sp.Expr, FieldScale] | None = None,
    *,
    quadrature: int = 32,
) -> list[ResidualTerm | IntegralTerm]:
    """All terms of the problem: equations, conditions, observations, integrals, in this order.

    Args:
        nf: The problem.
        scales: Offset and scale per field; `estimate_field_scales(nf)` where None.
        quadrature: Nodes per axis of integral conditions.

    Raises:
        UnsupportedProblemError: with the reason, see `lowering_refusal`.
    """
    reason = lowering_refusal(nf)
    if reason is not None:
        raise UnsupportedProblemError(reason)
    scales = estimate_field_scales(nf) if scales is None else scales
    terms: list[ResidualTerm | IntegralTerm] = [
        ResidualTerm(e.label, "interior", None, e.residual, term_size(e.residual, nf, scales), nf)
        for e in nf.equations
    ]
    for c in nf.conditions:
        kind = "initial" if c.kind == "initial" else "boundary"
        size = term_size(c.residual, nf, scales, fixed={c.face.coord: c.face.value})
        terms.append(ResidualTerm(c.label, kind, c.face, c.residual, size, nf))
    for o in nf.observations:
        points = torch.as_tensor(o.points, dtype=torch.float64)
        values = torch.as_tensor(o.values, dtype=torch.float64)
        # Values are subtracted as a source, so an offset cancels here as in conditions.
        middle = sp.Float(float((values.max() + values.min()) / 2), 17)
        size = term_size(o.expr - middle, nf, scales)
        terms.append(ResidualTerm(o.label, "observation", None, o.expr, size, nf, points, values))
    terms += [make_integral_term(i, nf, scales, quadrature) for i in nf.integrals]
    return terms


def group_terms(
    terms: Sequence[ResidualTerm | IntegralTerm],
) -> list[ResidualGroup | IntegralTerm]:
    """Terms on the same points together: all equations; all conditions on one face; each set of data."""
    groups: list[ResidualGroup | IntegralTerm] = []
    for term in terms:
        mates = [
            k
            for k, g in enumerate(groups)
            if isinstance(term, ResidualTerm)
            and isinstance(g, ResidualGroup)
            and term.kind == g.kind != "observation"
            and term.face == g.face
        ]
        if mates:
            mate = groups[mates[0]]
            assert isinstance(mate, ResidualGroup) and isinstance(term, ResidualTerm)
            groups[mates[0]] = ResidualGroup((*mate.terms, term))
        else:
            groups.append(term if isinstance(term, IntegralTerm) else ResidualGroup((term,)))
    return groups


def lowering_refusal(nf: NormalForm) -> str | None:
    """Why a pointwise residual would be wrong or impossible here; None if it is fine."""
    if nf.region is not None:
        return (
            f"networks are trained on boxes so far; the domain is {nf.region}. "
            "Use a Box or products of Intervals."
        )
    for e in nf.equations:
        for flux in e.conservative.atoms(Div):
            if any(_jumps(part) for part in flux.flux):
                return (
                    f"{e.label} has a flux with a jump, {flux.flux[0]}: its pointwise residual would "
                    "lose the interface condition. Use MethodOfLines()."
                )
    return None


def _jumps(expr: sp.Expr) -> bool:
    return expr.has(sp.Piecewise, sp.Heaviside, sp.sign, sp.floor, sp.ceiling)
