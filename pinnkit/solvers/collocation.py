"""Collocation: batches of a problem's residuals as the `ResidualModel` an optimiser steps on.

In    the residual groups of a (window of a) problem and the field model.
Out   `Batch`: weighted residuals and rows of frozen points; `Probe`: held-out points never trained on.
Next  `train` optimisers; the causal weights are computed from the probe.

The loss is the sum over groups of a mean square: 1 for every equation, `condition_weight` for every
condition, integral and seam, all residuals scaled to O(1).

On several ranks all draw the same points with the same weights, and each evaluates its share of them:
what is drawn, read from the probe and checkpointed does not depend on how many ranks there are.
"""

from __future__ import annotations

import copy
import functools
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy as sp
import torch
from torch import Tensor, nn

from pinnkit.ir.normal_form import Face, NormalForm
from pinnkit.lower.fields import FieldModel
from pinnkit.lower.integrals import IntegralTerm
from pinnkit.lower.residuals import ResidualGroup
from pinnkit.lower.rows import jacobian_rows
from pinnkit.lower.sampling import adaptive_choice, face_points, interior_points
from pinnkit.lower.tape import Tape
from pinnkit.train.parameters import load_parameters
from pinnkit.train.ranks import ONE, Ranks

__all__ = [
    "Batch",
    "Collocation",
    "Group",
    "Part",
    "ProbeReading",
    "Seam",
]

logger = logging.getLogger(__name__)

CANDIDATES = 4  # candidates per chosen point of the residual-adaptive sampler


@dataclass(frozen=True, eq=False)
class Seam:
    """Initial data of a later window: the fields equal what the window before handed over.

    One column per field and time derivative below its order: (model - given) / size.
    """

    face: Face
    wanted: tuple[
        tuple[int, tuple[int, ...]], ...
    ]  # (field index, multi-index): what is handed over
    sizes: tuple[float, ...]
    given: Callable[[Tensor], list[Tensor]]  # points -> one (n,) per entry of `wanted`
    kind: str = "initial"

    def evaluate(self, model: FieldModel, points: Tensor, tape: Tape | None = None) -> Tensor:
        """Scaled differences: (n, e)."""
        columns = zip(
            model.derivatives(points, self.wanted, tape),
            self.given(points),
            self.sizes,
            strict=True,
        )
        return torch.stack([(u - g) / size for u, g, size in columns], dim=1)


Group = ResidualGroup | IntegralTerm | Seam


def columns_of(group: Group) -> int:
    """Residual columns of a group."""
    if isinstance(group, ResidualGroup):
        return len(group.terms)
    return len(group.wanted) if isinstance(group, Seam) else 1


@dataclass(frozen=True)
class Part:
    """One group of residuals on its points; `weights` (n, e) multiply squared residuals."""

    index: int
    points: Tensor  # shape: (n, d)
    weights: Tensor  # shape: (n, e)

    def share(self, ranks: Ranks) -> Part:
        """The points of this rank; their weights stay those of the mean over all."""
        if ranks.size == 1:
            return self
        mine = ranks.share(len(self.points))
        return Part(self.index, self.points[mine], self.weights[mine])


@dataclass(frozen=True)
class ProbeReading:
    """Residuals at held-out points.

    `held_out` is the loss there with squared mean sizes, (mean |r|)^2, in place of mean squares: where
    the data have a kink no network fits, a mean square sees nothing but the kink, and training would
    be called stalled while the rest still improves (Allen-Cahn: tenfold).
    """

    held_out: float
    squared: Tensor  # shape: (n, e), interior groups side by side
    times: Tensor | None  # shape: (n,), scaled to [0, 1]


class Collocation:
    """Points for every residual group of a problem on one box (a time window).

    Args:
        nf: The problem; `bounds` is the box of this window.
        groups: Its residual groups: interior equations, one per face, integrals, seams.
        model: The ansatz all groups are evaluated on.
        condition_weight: Weight of every condition beside the equations.
        face_density: Points per length on faces, relative to the interior.
        ranks: The processes that share the points.
    """

    def __init__(
        self,
        nf: NormalForm,
        groups: Sequence[Group],
        model: FieldModel,
        *,
        bounds: Mapping[sp.Symbol, tuple[float, float]],
        condition_weight: float,
        face_density: float,
        ranks: Ranks = ONE,
    ) -> None:
        self.ranks = ranks
        self.nf, self.groups, self.model, self.bounds = nf, tuple(groups), model, dict(bounds)
        self.condition_weight, self.face_density = condition_weight, face_density
        self.params = [p for p in model.parameters() if p.requires_grad]
        self.size = sum(p.numel() for p in self.params)
        self.last_drawn = 0
        self._rows: Tensor | None = None
        self._probe: list[Part] = []
        self._compiled: dict[int, Callable[[Tensor], Tensor]] = {}

    @property
    def equations(self) -> int:
        """Number of interior equations."""
        return sum(columns_of(g) for g in self.groups if g.kind == "interior")

    def draw(
        self,
        n: int,
        generator: torch.Generator,
        *,
        adaptive: bool,
        time_weight: Any = None,
        coarse: bool = False,
    ) -> Batch:
        """Fresh points: `n` inside, `face_density * n^((d-1)/d)` on every face.

        With `adaptive` half of them follow the residual: p ~ |r| / mean + 1 (causally weighted, so
        that times that still wait attract nobody). The points are not importance-weighted: the loss
        itself moves to where the residual is.
        `time_weight(times)` gives the causal weight of interior points; `coarse` is for the `Batch`.
        """
        parts = []
        for index, group in enumerate(self.groups):
            if group.kind == "interior":
                points = self._interior(index, n, generator, adaptive, time_weight)
                part = self._part(index, points)
                if time_weight is not None:
                    weights = part.weights * time_weight(self.scaled_times(points))[:, None]
                    part = Part(index, points, weights)
            else:
                # Faces have one dimension less: as many points per length as inside, times a factor.
                d = len(self.nf.coords)
                count = min(math.ceil(self.face_density * n ** ((d - 1) / d)), max(8, n // 3))
                part = self._part(index, self._on_group(group, count, generator))
            parts.append(part)
        self.last_drawn = sum(len(p.points) for p in parts)
        return Batch(self, parts, coarse=coarse)

    def _part(self, index: int, points: Tensor) -> Part:
        """Points of a group with the weights of its mean square."""
        group = self.groups[index]
        total = 1.0 if group.kind == "interior" else self.condition_weight
        shape = (len(points), columns_of(group))
        return Part(index, points, points.new_full(shape, total / len(points)))

    def scaled_times(self, points: Tensor) -> Tensor:
        """Times of points, scaled to [0, 1] over the window."""
        assert self.nf.time is not None
        low, high = self.bounds[self.nf.time]
        return (points[:, self.nf.coords.index(self.nf.time)] - low) / (high - low)

    def make_probe(self, n: int, generator: torch.Generator) -> None:
        """Draw the held-out points, once: another number of them, so that none is trained on."""
        self._probe = list(self.draw(n, generator, adaptive=False).parts)

    def probe_state(self) -> list[Tensor]:
        """The held-out points, for checkpoints."""
        return [p.points for p in self._probe]

    def load_probe(self, points: Sequence[Tensor]) -> None:
        """Put back what `probe_state` gave."""
        like = self.params[0]
        self._probe = [self._part(index, p.to(like)) for index, p in enumerate(points)]

    def read_probe(self) -> ProbeReading:
        """Squared residuals at the held-out points for the model as it is."""
        total, inside, times = 0.0, [], None
        for part in self._probe:
            r = self.ranks.gather(self.evaluate(part.share(self.ranks)))
            total += float((r.abs().mean(0).square() * part.weights.sum(0)).sum())
            if self.groups[part.index].kind == "interior":
                inside.append(r.square())
                if self.nf.time is not None:
                    times = self.scaled_times(part.points)
        return ProbeReading(total, torch.cat(inside, 1), times)

    def evaluate(self, part: Part) -> Tensor:  # shape: (n, e)
        """Residuals of a part, without a graph."""
        if not len(part.points):
            return torch.empty_like(part.weights)
        with torch.no_grad():
            return self.columns(part.index, part.points)

    def compile(self) -> None:
        """Evaluate equations through torch.compile from now on; not their rows, which need the tape."""
        # Inside the domain only: on faces there is little to gain for the time compiling takes.
        inside = {
            index: _straight(group, self.model)
            for index, group in enumerate(self.groups)
            if group.kind == "interior" and isinstance(group, ResidualGroup)
        }
        try:
            self._compiled = {k: torch.compile(f, dynamic=True) for k, f in inside.items()}
        except (RuntimeError, ImportError) as fault:  # a platform or a Python without the compiler
            logger.warning("torch.compile is not available, going on without it: %s", fault)

    def columns(self, index: int, points: Tensor) -> Tensor:  # shape: (n, e)
        """Residuals of a group, compiled where that was asked for and works."""
        if index in self._compiled:
            try:
                return self._compiled[index](points)
            except _compiler_faults() as fault:
                # A fault of the residual met while tracing comes as one, too: below it is met again.
                logger.warning("torch.compile failed, going on without it: %s", fault)
                self._compiled.clear()
        return self.groups[index].evaluate(self.model, points)

    def buffer(self, n: int, dtype: torch.dtype) -> Tensor:
        """Room for n rows, kept between steps: fresh pages cost more than the products."""
        if self._rows is None or self._rows.shape[0] < n or self._rows.dtype != dtype:
            self._rows = torch.empty(n, self.size, dtype=dtype, device=self.params[0].device)
        return self._rows[:n]

    @functools.cached_property
    def coarse_model(self) -> FieldModel:
        """The same ansatz in float32; its parameters are set before every use."""
        return copy.deepcopy(self.model).float()

    def _interior(
        self,
        index: int,
        n: int,
        generator: torch.Generator,
        adaptive: bool,
        time_weight: Any,
    ) -> Tensor:
        points = self._place(
            interior_points(
                self.nf, CANDIDATES * n if adaptive else n, generator, bounds=self.bounds
            )
        )
        if not adaptive:
            return points
        with torch.no_grad():
            mine = points if self.ranks.size == 1 else points[self.ranks.share(len(points))]
            size = self.ranks.gather(self.columns(index, mine).norm(dim=1))
            if time_weight is not None:
                size = size * time_weight(self.scaled_times(points)).sqrt()
        if not bool(torch.isfinite(size).all()):
            return points[
                :n
            ]  # the optimiser sees the same residual, rejects, and the loop reports it
        chosen, _ = adaptive_choice(size.cpu(), n, generator)
        return points[chosen.to(points.device)]

    def _on_group(self, group: Group, n: int, generator: torch.Generator) -> Tensor:
        if group.face is None:  # an integral: one residual per point of the free coordinates
            assert isinstance(group, IntegralTerm)
            count = n if group.free else 1
            return self._place(interior_points(self.nf, count, generator, bounds=self.bounds))
        free = [c for c in self.nf.coords if c != group.face.coord]
        n = n if free else 1
        if len(free) == 1 and group.face.where == sp.true:
            return self._place(self._equispaced(group.face, free[0], n))
        return self._place(face_points(self.nf, group.face, n, generator, bounds=self.bounds))

    def _equispaced(self, face: Face, along: sp.Symbol, n: int) -> Tensor:  # shape: (n, d)
        """Midpoints of n equal cells, the same in every batch.

        Fresh points on faces are noise that the interior has to pay for: where the data have a kink
        no network fits, each batch that hits it throws the solution back (Allen-Cahn with
        x^2 cos(pi x): the loss jumps twentyfold, the error stays five times larger).
        """
        low, high = self.bounds[along]
        points = torch.empty(n, len(self.nf.coords), dtype=torch.float64)
        points[:, self.nf.coords.index(face.coord)] = self.bounds[face.coord][
            0 if face.side == "left" else 1
        ]
        cells = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        points[:, self.nf.coords.index(along)] = low + (high - low) * cells
        return points

    def _place(self, points: Tensor) -> Tensor:
        # Drawn on the CPU in float64 by one generator whatever the device, then moved.
        return points.to(self.params[0])


class Batch:
    """Frozen points with frozen weights: the `ResidualModel` of one or several steps.

    On several ranks `residual` and `rows` are those of this rank's points, `gradient` is of all, and so
    are `size` and what a checkpoint holds.

    Args:
        owner, parts: Whose residuals, and where.
        coarse: Give the rows in float32. Residuals and gradients keep the parameters' precision.
    """

    def __init__(self, owner: Collocation, parts: Sequence[Part], *, coarse: bool = False) -> None:
        self.owner, self.parts, self.coarse = owner, tuple(parts), coarse
        self.ranks = owner.ranks
        # Rows of negligible weight cost as much as any other and change nothing.
        kept = [_drop_negligible(p) for p in self.parts]
        self.size = sum(p.weights.numel() for p in kept)
        self._kept = [p for p in (k.share(self.ranks) for k in kept) if len(p.points)]
        self._count = sum(p.weights.numel() for p in self._kept)
        self.shapes = [tuple(p.shape) for p in owner.params]
        self.row_size = 0.0  # sum of the squared entries of J, where it was asked for coarsely
        self._last: tuple[Tensor, float, Tensor] | None = None

    def residual(self, theta: Tensor) -> Tensor:
        load_parameters(self.owner.params, theta)
        found = [(self.owner.evaluate(p) * p.weights.sqrt()).reshape(-1) for p in self._kept]
        return torch.cat([theta.new_zeros(0), *found])

    def rows(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        if self.coarse:
            model = self.owner.coarse_model
            params = [p for p in model.parameters() if p.requires_grad]
            load_parameters(params, theta)
            rows = self._rows_of(model, params)[1]
            self.row_size = float(self.ranks.sum(rows.square().sum()))
            return self.residual(theta), rows
        load_parameters(self.owner.params, theta)
        return self._rows_of(self.owner.model, self.owner.params)

    def _rows_of(
        self, model: FieldModel, params: Sequence[nn.Parameter]
    ) -> tuple[Tensor, Tensor]:  # shapes: (N,), (N, P)
        """Residuals and rows in the precision of the model."""
        dtype = params[0].dtype
        out = self.owner.buffer(self._count, dtype)
        residuals, start = [out.new_zeros(0)], 0
        for part in self._kept:
            group, root = self.owner.groups[part.index], part.weights.sqrt().to(dtype)
            n, e = part.weights.shape
            target = out[start : start + n * e].view(n, e, -1)
            tape = Tape()
            with torch.enable_grad():
                # Weighted before it is differentiated: scaling J afterwards would move all of it again.
                r = group.evaluate(model, part.points.to(dtype), tape) * root
                jacobian_rows(r, tape, params, target)
            residuals.append(r.detach().reshape(-1))
            start += n * e
        return torch.cat(residuals), out

    def gradient(self, theta: Tensor) -> tuple[float, Tensor]:
        if self._last is not None and torch.equal(self._last[0], theta):
            return self._last[1], self._last[2].clone()
        load_parameters(self.owner.params, theta)
        loss = theta.new_zeros(())
        for part in self._kept:
            r = self.owner.columns(part.index, part.points)
            loss = loss + (r.square() * part.weights).sum()
        # Loss and gradient in one vector: one sum over the ranks.
        both = torch.cat([*self._gradients(loss), loss.detach()[None]])
        both = self.ranks.sum(both)
        found = float(both[-1]), both[:-1]
        # A line search ends where the next step of a quasi-Newton method begins.
        self._last = theta.clone(), *found
        return found[0], found[1].clone()

    def _gradients(self, loss: Tensor) -> list[Tensor]:
        """Of the loss with respect to each parameter, flat; a rank's few points may not touch all."""
        params = self.owner.params
        if not loss.requires_grad:
            return [torch.zeros_like(p).reshape(-1) for p in params]
        found = torch.autograd.grad(loss, params, allow_unused=True)
        return [
            (torch.zeros_like(p) if g is None else g).reshape(-1)
            for p, g in zip(params, found, strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        """Points and weights: everything to go on with the same batch after a resume."""
        return {
            "index": [p.index for p in self.parts],
            "points": [p.points for p in self.parts],
            "weights": [p.weights for p in self.parts],
            "coarse": self.coarse,
        }

    @classmethod
    def from_state(cls, owner: Collocation, state: Mapping[str, Any]) -> Batch:
        """The batch that `state_dict` described."""
        like = owner.params[0]
        triples = zip(state["index"], state["points"], state["weights"], strict=True)
        parts = [Part(i, p.to(like), w.to(like)) for i, p, w in triples]
        return cls(owner, parts, coarse=state["coarse"])


def _straight(group: ResidualGroup, model: FieldModel) -> Callable[[Tensor], Tensor]:
    """`group.evaluate` with nothing left to look up, as the compiler would trace that too."""
    spec, residuals = group.spec, group.compiled
    places = [(spec.position[a], k, spec.factorials[spec.position[a]]) for k, a in group.wanted]
    with torch.no_grad():  # fills what is remembered per spec
        model.jets(model.centre[None], spec)

    def columns(points: Tensor) -> Tensor:
        jets = model.jets(points, spec)
        derivatives = [factor * jets[s, :, field] for s, field, factor in places]
        return torch.stack(residuals([*points.unbind(1), *derivatives]), dim=1)

    return columns


def _compiler_faults() -> tuple[type[Exception], ...]:
    """What `torch.compile` raises of itself, its backend and the C++ compiler included."""
    # Late: a second's import, over once anything has been compiled.
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.exc import CppCompileError, InvalidCxxCompiler

    return TorchDynamoException, CppCompileError, InvalidCxxCompiler


def _drop_negligible(part: Part) -> Part:
    keep = part.weights.amax(1) > 1e-12 * part.weights.max()
    return part if bool(keep.all()) else Part(part.index, part.points[keep], part.weights[keep])
