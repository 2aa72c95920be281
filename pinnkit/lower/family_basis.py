"""A learned basis for a family: B(t, x) chi_k(x) tau_j(t, x), and a member written in it.

In    a `FamilyForm`, windows, a `DeepONet` whose trunk sees the form's features.
Out   `FamilyBasis`: leaves of all functions at points, for the constraint layer; `BasisApproximation`,
      the `Approximation` of one member: u = A + sum_kj w_kj B chi_k tau_j, with exact derivatives.
Next  `solvers.hard_constraint_model`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import sympy as sp
import torch
from torch import Tensor, nn

from pinnkit.ir.expression_tree import from_tree, to_tree
from pinnkit.ir.normal_form import NormalForm
from pinnkit.lower.expressions import compile_expressions
from pinnkit.lower.family_form import FamilyForm
from pinnkit.lower.fields import ExpressionJets, Wanted, closure_of
from pinnkit.lower.jet_algebra import JetSpec, jet_mul
from pinnkit.lower.jets import propagate
from pinnkit.nn import Windows, describe, rebuild

__all__ = ["BasisApproximation", "FamilyBasis", "offset_leaves", "pick_leaves"]

PIECE = 20_000  # points per pass: keeps the memory of large grids bounded


class FixedPart(NamedTuple):
    """What training does not change: the jets of the features and of B chi_k.

    By point (S, n, F) and (S, n, K, m); or, where the trunk sees places within windows, by pair of a point
    and a window (S, p, F + 1) and (S, p, m), with the pair's `point` and `expert`.
    """

    features: Tensor
    envelope: Tensor
    point: Tensor | None = None
    expert: Tensor | None = None


class FamilyBasis(nn.Module):
    """K N functions of every field, products of what is fixed and what is learned.

    Args:
        nf: Of the family.
        factors: B, by field.
        features: What the trunk sees.
        windows: Along the one axis of space.
        trunk: (n, features) -> (n, N m).
        scales: Size of every field.
        local: Whether the trunk sees, after the features, the place within each window: then windows have
            the same functions, moved.
        span: Of time, that they cover; None: all of it.
    """

    def __init__(
        self,
        nf: NormalForm,
        factors: Sequence[sp.Expr],
        features: Sequence[sp.Expr],
        windows: Windows,
        trunk: nn.Module,
        scales: Sequence[float],
        local: bool = False,
        span: float | None = None,
    ) -> None:
        super().__init__()
        assert nf.time is not None
        self.local = local
        self.start, end = nf.bounds[nf.time]
        self.span = end - self.start if span is None else span
        self.windows, self.scales = windows, tuple(float(s) for s in scales)
        scaled = [sp.Float(s) * f for s, f in zip(self.scales, factors, strict=True)]
        self.factors = ExpressionJets(scaled, nf.coords)
        self.features = ExpressionJets(features, nf.coords)
        self.plain = tuple(factors)
        self.trunk, self.fields = trunk, len(nf.fields)
        self.axis = nf.coords.index(nf.space[0])

    @classmethod
    def of(
        cls,
        form: FamilyForm,
        windows: Windows,
        trunk: nn.Module,
        scales: Sequence[float],
        local: bool = False,
    ) -> FamilyBasis:
        """With the factors and features of a form."""
        nf, span = form.nf, form.span
        return cls(nf, form.factors, form.features, windows, trunk, scales, local, span)

    def fixed(self, points: Tensor, spec: JetSpec) -> FixedPart:
        """What training does not change at points."""
        bells = self._bells(points, spec)
        factors = self.factors.jets(points, spec)
        envelope = jet_mul(bells[..., None], factors[:, :, None], spec)
        features = self.features.jets(points, spec)
        if not self.local:
            return FixedPart(features, envelope)
        at, expert, place = self.windows.inside(points[:, self.axis])
        local = torch.zeros_like(features[:, at, :1])
        local[0, :, 0] = place
        along = tuple(int(c == self.axis) for c in range(spec.dimension))
        if along in spec.position:
            local[spec.position[along]] = 1 / self.windows.reach
        return FixedPart(
            torch.cat([features[:, at], local], 2), envelope[:, at, expert], at, expert
        )

    def jets(self, fixed: FixedPart, spec: JetSpec) -> Tensor:
        """All functions: (S, n, K N, m), expert by expert."""
        trunk = propagate(self.trunk, fixed.features, spec).unflatten(-1, (-1, self.fields))
        if fixed.point is None:
            return jet_mul(fixed.envelope[:, :, :, None], trunk[:, :, None], spec).flatten(2, 3)
        count = int(fixed.point[-1]) + 1
        values = jet_mul(fixed.envelope[:, :, None], trunk, spec)
        every = values.new_zeros(count, self.windows.count, spec.size, *values.shape[2:])
        assert fixed.expert is not None
        every = every.index_put((fixed.point, fixed.expert), values.transpose(0, 1))
        return every.permute(2, 0, 1, 3, 4).flatten(2, 3)

    def leaves(self, fixed: FixedPart, spec: JetSpec, wanted: Wanted) -> Tensor:
        """The wanted derivatives of all functions: (n, L, K N)."""
        return pick_leaves(self.jets(fixed, spec), spec, wanted)

    def combined(self, points: Tensor, spec: JetSpec, coefficients: Tensor) -> Tensor:
        """The jet of sum_kj w_kj b_kj for w (n, K, N), a set for each point: (S, n, m)."""
        fixed = self.fixed(points, spec)
        trunk = propagate(self.trunk, fixed.features, spec).unflatten(-1, (-1, self.fields))
        if fixed.point is None:
            experts = torch.einsum("snjm,nkj->snkm", trunk, coefficients)
            return jet_mul(fixed.envelope, experts, spec).sum(2)
        own = torch.einsum("spjm,pj->spm", trunk, coefficients[fixed.point, fixed.expert])
        parts = jet_mul(fixed.envelope, own, spec)
        total = parts.new_zeros(spec.size, len(points), self.fields)
        return total.index_add(1, fixed.point, parts)

    def at_end(self, points: Tensor) -> Tensor:
        """The same places at the end of the span."""
        columns = [points[:, 0], points[:, 1]]
        columns[1 - self.axis] = torch.full_like(columns[0], self.start + self.span)
        return torch.stack(columns, 1)

    def standing(self, jets: Tensor, spec: JetSpec) -> Tensor:
        """Jets (S, ...) of what does not change in time: derivatives along it are 0."""
        moves = [alpha[1 - self.axis] > 0 for alpha in spec.indices]
        mask = torch.tensor(moves, device=jets.device).reshape(-1, *[1] * (jets.ndim - 1))
        return jets.masked_fill(mask, 0.0)

    def _bells(self, points: Tensor, spec: JetSpec) -> Tensor:  # shape: (S, n, K)
        orders = [a[self.axis] if sum(a) == a[self.axis] else -1 for a in spec.indices]
        parts = self.windows.taylor(points[:, self.axis], max(orders))
        zero = torch.zeros_like(parts[0])
        return torch.stack([parts[o] if o >= 0 else zero for o in orders])


class BasisApproximation:
    """One member: A + sum of basis functions, derivatives of any order the windows have (3).

    With s the stage of a point and t' its time in it: u(t, x) = A(t, x) + sum_kj w_skj b_kj(t', x)
    + sum_(r < s) sum_kj w_rkj b_kj(end, x).

    Args:
        offset: A, by field.
        basis: The functions.
        coefficients: w, (S, K, N): a set for each stage, that starts from where the last one ended.
        coords: Columns of points.
    """

    kind = "family basis"

    def __init__(
        self,
        offset: Sequence[sp.Expr],
        basis: FamilyBasis,
        coefficients: Tensor,
        coords: Sequence[sp.Symbol],
    ) -> None:
        self.offset = ExpressionJets(offset, coords)
        self.basis, self.coefficients = basis, coefficients.detach()

    def derivatives(
        self,
        points: Tensor,  # shape: (n, d)
        wanted: Wanted,
    ) -> list[Tensor]:  # shapes: (n,)
        """True derivatives at the points, in the points' dtype and on their device."""
        spec = closure_of(tuple(tuple(a) for _, a in wanted), points.shape[1])
        inside = points.to(self.coefficients)
        pieces = []
        for part in inside.split(PIECE):
            jets = self.offset.jets(part, spec) + self._moving(part, spec)
            pieces.append(pick_leaves(jets[:, :, None], spec, wanted)[..., 0])
        return [c.to(points) for c in torch.cat(pieces).unbind(1)]

    def _moving(self, points: Tensor, spec: JetSpec) -> Tensor:  # shape: (S, n, m)
        basis, w = self.basis, self.coefficients
        elapsed = points[:, 1 - basis.axis] - basis.start
        stage = (elapsed.detach() / basis.span).floor().long().clamp(0, len(w) - 1)
        columns = [points[:, 0], points[:, 1]]
        columns[1 - basis.axis] = basis.start + elapsed - stage * basis.span
        jets = basis.combined(torch.stack(columns, 1), spec, w[stage])
        if len(w) == 1:
            return jets
        reached = (w.cumsum(0) - w)[stage]
        return jets + basis.standing(basis.combined(basis.at_end(points), spec, reached), spec)

    def to_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """A JSON-able description and the tensors."""
        basis = self.basis
        spec = {
            "offset": [to_tree(e) for e in self.offset.exprs],
            "factors": [to_tree(e) for e in basis.plain],
            "features": [to_tree(e) for e in basis.features.exprs],
            "windows": dataclasses.asdict(basis.windows),
            "trunk": describe(basis.trunk),
            "scales": list(basis.scales),
            "local": basis.local,
            "span": basis.span,
            "dtype": str(self.coefficients.dtype).removeprefix("torch."),
        }
        tensors = {
            f"trunk.{k}": v.detach().cpu().clone() for k, v in basis.trunk.state_dict().items()
        }
        return spec, tensors | {"coefficients": self.coefficients.cpu().clone()}

    @classmethod
    def from_state(
        cls, spec: dict[str, Any], tensors: dict[str, Tensor], nf: NormalForm
    ) -> BasisApproximation:
        """The approximation that `to_state` described; ValueError if the parts do not fit."""
        own = {k.partition(".")[2]: v for k, v in tensors.items() if k.startswith("trunk.")}
        coefficients = tensors["coefficients"]
        trunk = rebuild(spec["trunk"], dtype=coefficients.dtype)
        try:
            trunk.load_state_dict(own)
        except RuntimeError as error:
            raise ValueError(f"the file's tensors do not fit its network: {error}") from error
        basis = FamilyBasis(
            nf,
            [from_tree(e) for e in spec["factors"]],
            [from_tree(e) for e in spec["features"]],
            Windows(**spec["windows"]),
            trunk,
            spec["scales"],
            spec["local"],
            spec["span"],
        )
        return cls([from_tree(e) for e in spec["offset"]], basis, coefficients, nf.coords)


def offset_leaves(
    form: FamilyForm,
    samples: Sequence[Mapping[Any, Any]],
    points: Tensor,  # shape: (n, d)
    wanted: Wanted,
) -> Tensor:  # shape: (B, n, L)
    """The wanted derivatives of A for every sample.

    Given numbers stay symbols and are compiled once for all; given functions are put in one by one.
    """
    nf = form.nf
    numbers = [g for g in nf.given if isinstance(g, sp.Symbol)]
    if len(numbers) == len(nf.given):
        exprs = _derivatives(form.offset({}), nf, wanted)
        compiled = compile_expressions(exprs, [*nf.coords, *numbers])
        columns = [
            torch.tensor([[float(s[g])] for s in samples], dtype=points.dtype, device=points.device)
            for g in numbers
        ]
        shape = (len(samples), len(points))
        values = compiled([c[None] for c in points.unbind(1)] + columns)
        return torch.stack([v.expand(shape) for v in values], -1)
    rows = []
    for s in samples:
        compiled = compile_expressions(_derivatives(form.offset(s), nf, wanted), nf.coords)
        rows.append(torch.stack(compiled(points.unbind(1)), -1))
    return torch.stack(rows)


def _derivatives(offset: Sequence[sp.Expr], nf: NormalForm, wanted: Wanted) -> list[sp.Expr]:
    out = []
    for field, alpha in wanted:
        expr = offset[field]
        for coord, order in zip(nf.coords, alpha, strict=True):
            expr = sp.diff(expr, coord, order) if order else expr
        out.append(expr)
    return out


def pick_leaves(jets: Tensor, spec: JetSpec, wanted: Wanted) -> Tensor:  # shape: (n, L, functions)
    """Derivatives from coefficients (S, n, functions, m)."""
    columns = []
    for field, alpha in wanted:
        s = spec.position[tuple(alpha)]
        columns.append(jets[s, ..., field] * spec.factorials[s])
    return torch.stack(columns, dim=1)
