"""Fields known along characteristics whose labels were given out anew now and then.

In    one `LagrangianApproximation` per part of the time span.
Out   `RelabelledApproximation`: the fields over all of it; `Origin`: the way back to the first labels.
Next  `solvers.lagrangian_pinn` adds parts; `solution` calls, stores and verifies the whole.

A part's labels are the positions at its start. What is carried is known there by composition: the
way back from those positions to where the particles began, as a projection with a measured error;
so that initial data are never smoothed, whatever they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pinnkit.ir.labels import LabelForm, to_labels
from pinnkit.ir.normal_form import NormalForm
from pinnkit.lower.fields import Wanted, closure_of
from pinnkit.lower.inflow import Carried
from pinnkit.lower.lagrangian import Inner, Known, LagrangianApproximation, read_inner
from pinnkit.lower.projection import ProjectedField

__all__ = ["Origin", "RelabelledApproximation", "make_part"]

ORIGIN_TOL = 1e-10  # relative L2 error of the way back
MOST_MODES = {1: 1025, 2: 129}


class Origin:
    """b with x0 + b(x0) the first label of the particle at x0; zero at the initial time."""

    def __init__(self, field: ProjectedField) -> None:
        self.field = field

    @classmethod
    def fit(cls, part: LagrangianApproximation, end: float) -> Origin:
        """The way back from an instant of a part: through its map, and on from its start."""
        nf = part.form.source
        columns = [nf.coords.index(c) for c in nf.space]
        plain = [(j, (0,) * len(nf.coords)) for j in range(len(columns))]

        def back(places: Tensor) -> Tensor:  # shapes: (q, k) -> (q, k)
            points = places.new_full((len(places), len(nf.coords)), end)
            points[:, columns] = places
            labels = part.lifted(points)
            way = labels - places
            if part.known is not None:
                points[:, columns] = part.wrapped(labels)
                way = way + torch.stack(part.known.derivatives(points, plain), 1).detach()
            return way

        return cls(
            ProjectedField.fit(
                back,
                columns,
                [nf.bounds[c][0] for c in nf.space],
                [nf.bounds[c][1] for c in nf.space],
                [c in nf.periodic for c in nf.space],
                tol=ORIGIN_TOL,
                max_modes=MOST_MODES.get(len(columns), 33),
            )
        )

    def derivatives(
        self,
        points: Tensor,  # shape: (n, d)
        wanted: Wanted,
    ) -> list[Tensor]:  # shapes: (n,)
        """True derivatives of the components of b."""
        spec = closure_of(tuple(tuple(alpha) for _, alpha in wanted), points.shape[1])
        jets = self.field.to(points).jets(points, spec)
        at = [(spec.position[tuple(alpha)], index) for index, alpha in wanted]
        return [jets[s, :, index] * spec.factorials[s] for s, index in at]


def make_part(
    form: LabelForm,
    inner: Inner | None,
    before: LagrangianApproximation | RelabelledApproximation | None,
    until: float = math.inf,
    origin: Origin | None = None,
) -> LagrangianApproximation:
    """One part, with what is known at its start.

    Args:
        before: The parts before it together; None at the beginning.
        origin: The way back from its start, where it was fitted already.
    """
    known: Known | None = None
    if form.given:
        known = Carried(form, inner, before)
    elif form.origin:
        assert origin is not None
        known = origin
    return LagrangianApproximation(form, inner, until, known)


class RelabelledApproximation:
    """The parts of a time span, each along the characteristics of its own labels.

    An instant at which labels change belongs to the earlier part.
    """

    kind = "relabelled"

    def __init__(self, parts: Sequence[LagrangianApproximation]) -> None:
        self.parts = list(parts)
        nf = parts[0].form.source
        assert nf.time is not None
        self._time = nf.coords.index(nf.time)

    def derivatives(
        self,
        points: Tensor,  # shape: (n, d)
        wanted: Wanted,
    ) -> list[Tensor]:  # shapes: (n,)
        """True derivatives at positions, each by its own part."""
        starts = torch.tensor([p.form.span[0] for p in self.parts[1:]], dtype=torch.float64)
        times = points.detach()[:, self._time].double().contiguous()
        owner = torch.bucketize(times, starts.to(points.device))
        columns = [points.new_zeros(len(points)) for _ in wanted]
        for k, part in enumerate(self.parts):
            where = torch.nonzero(owner == k).squeeze(1)
            if len(where):
                values = part.derivatives(points[where], wanted)
                columns = [c.index_put((where,), v) for c, v in zip(columns, values, strict=True)]
        return columns

    def to_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """A JSON-able description and the tensors."""
        specs, tensors = [], {}
        for k, part in enumerate(self.parts):
            spec, own = part.to_state()
            spec["span"] = list(part.form.span)
            if isinstance(part.known, Origin):
                field = part.known.field
                spec["origin"] = {**field.config, "error": None}
                own = {**own, "origin": field.coefficients.detach().cpu().clone()}
            specs.append(spec)
            tensors.update({f"{k}:{name}": v for name, v in own.items()})
        return {"parts": specs}, tensors

    @classmethod
    def from_state(
        cls, spec: dict[str, Any], tensors: dict[str, Tensor], nf: NormalForm
    ) -> RelabelledApproximation:
        """The approximation that `to_state` described; ValueError if the parts do not fit."""
        parts: list[LagrangianApproximation] = []
        for k, one in enumerate(spec["parts"]):
            own = {n.partition(":")[2]: v for n, v in tensors.items() if n.startswith(f"{k}:")}
            start, end = one["span"]
            form = to_labels(nf, (float(start), float(end)))
            origin = None
            if "origin" in one:
                config = {**one["origin"], "error": math.nan}
                origin = Origin(ProjectedField(**config, coefficients=own.pop("origin")))
            inner, until = read_inner(one, own, form)
            before = cls(parts) if parts else None
            parts.append(make_part(form, inner, before, until, origin))
        return cls(parts)
