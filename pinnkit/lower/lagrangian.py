"""Fields known along characteristics, read at positions: the inverse of the map from labels.

In    a `LabelForm` and the trained fields over (t, labels).
Out   `LagrangianApproximation`: physical derivatives at (t, x), differentiable, savable; and where
      characteristics cross.
Next  `solution` calls, stores and verifies it.

X(t, x0) = x is solved for every point by Newton's method inside a bracket that always holds the
root: on a periodic axis X(x0 + L) = X(x0) + L, so that k periods are enough where the first guess is
off by r <= k L; on any other axis the ends of the labels are a bracket. In several dimensions Newton
steps are halved until they gain, and particles that are lost even so are followed back in time.
There is no grid and no interpolation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import sympy as sp
import torch
from torch import Tensor

from pinnkit.ir.labels import LabelForm, to_labels
from pinnkit.ir.leaves import field_of, leaves
from pinnkit.ir.normal_form import NormalForm
from pinnkit.lower.expressions import compile_expressions
from pinnkit.lower.fields import Wanted
from pinnkit.lower.network_approximation import NetworkApproximation, WindowedApproximation

__all__ = ["Crossing", "Inner", "Known", "LabelFunction", "LagrangianApproximation", "read_inner"]

Inner = NetworkApproximation | WindowedApproximation

MOST_STEPS = 200  # of Newton or bisection: 60 halvings reach rounding, whatever the map
ROUNDING = 8  # units in the last place at which a position counts as reached
DESCENTS = 50  # of Newton in more than one dimension
BACKTRACKS = 6  # halvings of a Newton step in more than one dimension
FOLLOWED = 8  # instants at which a lost particle is looked for on its way back
_PIECE = 50_000


class Known(Protocol):
    """The fields of the label that a `LabelForm` has beside its unknowns (`form.known`)."""

    def derivatives(self, points: Tensor, wanted: Wanted) -> list[Tensor]:
        """As an approximation's, at (t, labels); field indices are those of `form.known`."""
        ...


class LabelFunction:
    """Expressions in (t, labels), the label form's unknowns and known fields as a function of points."""

    def __init__(
        self,
        form: LabelForm,
        inner: Inner | None,
        exprs: Sequence[sp.Expr],
        known: Known | None = None,
    ) -> None:
        nf = form.nf
        found = leaves(*exprs)
        trained = [lf for lf in found if field_of(lf) in nf.fields]
        others = [lf for lf in found if field_of(lf) in form.known]
        self.parts = [
            (source, [(fields.index(field_of(lf)), nf.multi_index(lf)) for lf in part])
            for source, fields, part in (
                (inner, nf.fields, trained),
                (known, form.known, others),
            )
        ]
        self.compiled = compile_expressions(list(exprs), [*nf.coords, *trained, *others])

    def __call__(self, points: Tensor) -> list[Tensor]:  # shapes: (n, d) -> (n,) each
        derivatives: list[Tensor] = []
        for source, wanted in self.parts:
            if wanted:
                assert source is not None
                derivatives += source.derivatives(points, wanted)
        return self.compiled([*points.unbind(1), *derivatives])


class LagrangianApproximation:
    """The fields of a transport problem, known along its characteristics.

    Args:
        form: The problem in labels.
        inner: Displacement and state over (t, labels); None where all have closed forms.
        until: Time from which characteristics cross: there is no smooth solution any more, and the
            fields are nan.
        known: The label form's known fields; None where it has none.
    """

    kind = "lagrangian"

    def __init__(
        self,
        form: LabelForm,
        inner: Inner | None,
        until: float = math.inf,
        known: Known | None = None,
    ) -> None:
        self.form, self.inner, self.until, self.known = form, inner, float(until), known
        nf = form.nf
        assert nf.time is not None
        self._time = nf.coords.index(nf.time)
        self._space = [nf.coords.index(c) for c in nf.space]
        self._periodic = torch.tensor([c in nf.periodic for c in nf.space])
        self._shift = LabelFunction(
            form, inner, [p - c for p, c in zip(form.position, nf.space, strict=True)]
        )
        slopes: list[Any] = [*form.gradient, *form.drift]
        self._slopes = LabelFunction(form, inner, slopes)
        self._jacobian = LabelFunction(form, inner, [form.jacobian])
        shift = form.position[0] - nf.space[0]
        self._step = LabelFunction(
            form, inner, [shift, form.jacobian]
        )  # Newton's, in one dimension
        self._compiled: dict[Any, LabelFunction] = {}

    # -- values ------------------------------------------------------------------------------------

    def derivatives(
        self,
        points: Tensor,  # shape: (n, d)
        wanted: Wanted,
    ) -> list[Tensor]:  # shapes: (n,)
        """True derivatives at positions, by the chain rule at the labels that are there."""
        key = tuple((index, tuple(alpha)) for index, alpha in wanted)
        if key not in self._compiled:
            fields = self.form.source.fields
            exprs = [self.form.eulerian(fields[index], alpha) for index, alpha in key]
            self._compiled[key] = LabelFunction(self.form, self.inner, exprs, self.known)
        inside = points.double()
        late = inside.detach()[:, self._time] > self.until
        pieces = [self._compiled[key](self._at_labels(p)) for p in inside.split(_PIECE)]
        joined = [torch.cat(column) for column in zip(*pieces, strict=True)]
        if bool(late.any()):
            joined = [torch.where(late, torch.full_like(c, math.nan), c) for c in joined]
        return [c.to(points) for c in joined]

    def labels(self, points: Tensor) -> Tensor:  # shapes: (n, d) -> (n, d - 1)
        """The labels of positions, inside the box; differentiable in `points`."""
        return _Invert.apply(points, self)  # type: ignore[no-any-return]

    def positions(self, points: Tensor) -> Tensor:  # shapes: (n, d) -> (n, d - 1)
        """X at (t, labels)."""
        return points[:, self._space] + torch.stack(self._shift(points), 1)

    def jacobian(self, points: Tensor) -> Tensor:  # shapes: (n, d) -> (n,)
        """J = det dX/dx0 at (t, labels)."""
        return self._jacobian(points)[0]

    def _at_labels(self, points: Tensor) -> Tensor:
        labels = self.labels(points)
        columns = list(points.unbind(1))
        for j, column in enumerate(self._space):
            columns[column] = labels[:, j]
        return torch.stack(columns, 1)

    # -- the inverse map ---------------------------------------------------------------------------

    def invert(self, points: Tensor) -> Tensor:  # shapes: (n, d) -> (n, d - 1)
        """Labels without a graph."""
        return self.wrapped(self.lifted(points))

    def lifted(self, points: Tensor) -> Tensor:  # shapes: (n, d) -> (n, d - 1)
        """Labels without a graph, whole periods not taken off: continuous in the points."""
        with torch.no_grad():
            return self._bracketed(points) if len(self._space) == 1 else self._newton(points)

    def slopes(self, points: Tensor) -> tuple[Tensor, Tensor]:  # shapes: (n, k, k), (n, k)
        """F and dX/dt at (t, labels)."""
        k = len(self._space)
        values = torch.stack(self._slopes(points), 1)
        return values[:, : k * k].unflatten(1, (k, k)), values[:, k * k :]

    def _offset(self, points: Tensor, labels: Tensor) -> Tensor:  # shape: (n, k)
        """X - x for labels that may lie outside the box (periods are added back)."""
        wrapped = self.wrapped(labels)
        here = points.clone()
        here[:, self._space] = wrapped
        return labels + torch.stack(self._shift(here), 1) - points[:, self._space]

    def _offset_and_slope(self, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """X - x and J for labels along one axis that may lie outside the box, in one pass."""
        column = self._space[0]
        here = points.clone()
        here[:, column] = self.wrapped(labels[:, None])[:, 0]
        shift, slope = self._step(here)
        return labels + shift - points[:, column], slope

    def _bracketed(self, points: Tensor) -> Tensor:  # shape: (n, 1)
        """Newton's steps where they stay between two labels known to enclose the root, else halving."""
        low, high = self.form.nf.bounds[self.form.nf.space[0]]
        length = high - low
        x = points[:, self._space[0]]
        y = self._inside(x[:, None] - self._offset(points, x[:, None]))[:, 0]
        r, slope = self._offset_and_slope(points, y)
        if bool(self._periodic[0]):
            periods = torch.ceil(r.abs() / length) * length
            left, right = torch.where(r > 0, y - periods, y), torch.where(r > 0, y, y + periods)
        else:
            left = torch.where(r > 0, torch.full_like(y, low), y)
            right = torch.where(r > 0, y, torch.full_like(y, high))
        size = torch.finfo(x.dtype).eps * (length + x.abs() + y.abs())
        active = torch.arange(len(x), device=x.device)
        for _ in range(MOST_STEPS):
            active = active[(r[active].abs() > ROUNDING * size[active])]
            active = active[right[active] - left[active] > size[active]]
            if not len(active):
                break
            here, before, a, b = points[active], r[active], left[active], right[active]
            step = y[active] - before / slope[active]
            step = torch.where((step > a) & (step < b), step, 0.5 * (a + b))
            new, steep = self._offset_and_slope(here, step)
            a, b = torch.where(new > 0, a, step), torch.where(new > 0, step, b)
            # Halve where Newton's step gained little: it may creep along a flat part of the map.
            slow = torch.nonzero(new.abs() > 0.5 * before.abs()).squeeze(1)
            if len(slow):
                step[slow] = 0.5 * (a[slow] + b[slow])
                new[slow], steep[slow] = self._offset_and_slope(here[slow], step[slow])
                above = new[slow] > 0
                a[slow] = torch.where(above, a[slow], step[slow])
                b[slow] = torch.where(above, step[slow], b[slow])
            left[active], right[active], y[active], r[active] = a, b, step, new
            slope[active] = steep
        return y[:, None]

    def _newton(self, points: Tensor) -> Tensor:  # shape: (n, k)
        """Newton's method with step halving, from the position less its own shift."""
        x = points[:, self._space]
        y, gap = self._descend(points, self._inside(x - self._offset(points, x)))
        reached = 1e-9 * (1 + x.abs().amax())
        lost = torch.nonzero(~(gap <= reached)).squeeze(1)
        if len(lost):
            here, y[lost] = points[lost], x[lost]
            since = self.form.span[0]
            for k in range(1, FOLLOWED + 1):
                at = here.clone()
                at[:, self._time] = since + (here[:, self._time] - since) * k / FOLLOWED
                y[lost], gap[lost] = self._descend(at, y[lost])
            y[lost[~(gap[lost] <= reached)]] = math.nan  # no value rather than a wrong one
        return y

    def _descend(self, points: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:  # shapes: (n, k), (n,)
        """Labels improved as far as Newton's method goes, and |X - x| there."""
        y, x = y.clone(), points[:, self._space]
        r = self._offset(points, y)
        size = torch.finfo(x.dtype).eps * (1 + x.abs().amax() + y.abs().amax())
        active = torch.arange(len(x), device=x.device)
        for _ in range(DESCENTS):
            active = active[r[active].norm(dim=1) > ROUNDING * size]
            if not len(active):
                break
            here = points[active]
            at = here.clone()
            at[:, self._space] = self.wrapped(y[active])
            step, failed = torch.linalg.solve_ex(self.slopes(at)[0], r[active])
            before, share = r[active].norm(dim=1), x.new_ones(len(active), 1)
            for _ in range(BACKTRACKS):
                trial = self._inside(y[active] - share * step)
                new = self._offset(here, trial)
                worse = ~(new.norm(dim=1) < before)
                if not bool(worse.any()):
                    break
                share = torch.where(worse[:, None], 0.5 * share, share)
            better = (new.norm(dim=1) < before) & (failed == 0)
            active, trial, new = active[better], trial[better], new[better]
            y[active], r[active] = trial, new
        return y, r.norm(dim=1)

    def wrapped(self, labels: Tensor) -> Tensor:
        """Labels inside the box along the axes on which it repeats."""
        low, length = self._box(labels)
        inside = low + torch.remainder(labels - low, length)
        return torch.where(self._periodic.to(labels.device), inside, labels)

    def _inside(self, labels: Tensor) -> Tensor:
        """Labels no farther out than the sides, where the box does not repeat: nothing is known there."""
        low, length = self._box(labels)
        kept = torch.minimum(torch.maximum(labels, low), low + length)
        return torch.where(self._periodic.to(labels.device), labels, kept)

    def _box(self, like: Tensor) -> tuple[Tensor, Tensor]:  # shapes: (k,), (k,)
        bounds = [self.form.nf.bounds[c] for c in self.form.nf.space]
        low = like.new_tensor([b[0] for b in bounds])
        return low, like.new_tensor([b[1] for b in bounds]) - low

    # -- crossing ----------------------------------------------------------------------------------

    def crossing(self, start: float, end: float, *, grid: int = 200) -> Crossing | None:
        """The first time in [start, end] at which J reaches zero; None if it stays positive.

        Found on a grid of times and labels, then by halving in time and by finer labels around the
        one where J is smallest. In one space dimension; elsewhere on the grid alone.
        """
        with torch.no_grad():
            times = torch.linspace(start, end, grid, dtype=torch.float64)
            labels = self._label_grid(2 * grid if len(self._space) == 1 else 60)
            smallest = [self._smallest(float(t), labels)[0] for t in times]
            below = [k for k, j in enumerate(smallest) if not j > 0]
            if not below:
                return None
            last = below[0]
            early, late = float(times[max(0, last - 1)]), float(times[last])
            for _ in range(40 if last else 0):
                middle = 0.5 * (early + late)
                if self._smallest(middle, labels, fine=True)[0] > 0:
                    early = middle
                else:
                    late = middle
            _, label = self._smallest(late, labels, fine=True)
            place = self.wrapped(self.positions(self._points(late, label[None])))[0]
            return Crossing(late, tuple(map(float, place)))

    def least_jacobian(self, start: float, end: float) -> float:
        """The smallest J on a grid of times in [start, end] and labels."""
        with torch.no_grad():
            count, grid = (60, 240) if len(self._space) == 1 else (16, 40)
            labels = self._label_grid(grid)
            times = torch.linspace(start, end, count, dtype=torch.float64)
            return min(self._smallest(float(t), labels)[0] for t in times)

    def deformation(self, time: float, *, grid: int = 40) -> float:
        """The largest factor by which a length is stretched or shrunk, on a grid of labels."""
        with torch.no_grad():
            labels = self._label_grid(8 * grid if len(self._space) == 1 else grid)
            slopes = self.slopes(self._points(time, labels))[0]
            sizes = torch.linalg.svdvals(slopes)
            return float(torch.maximum(sizes[:, 0], 1 / sizes[:, -1]).max())

    def _smallest(self, time: float, labels: Tensor, *, fine: bool = False) -> tuple[float, Tensor]:
        values = self.jacobian(self._points(time, labels))
        best = int(torch.where(torch.isnan(values), -math.inf, values).argmin())
        value, label = float(values[best]), labels[best]
        if fine and len(self._space) == 1:
            width = float(labels[1, 0] - labels[0, 0])
            for _ in range(4):
                around = label + width * torch.linspace(-1, 1, 33, dtype=torch.float64)[:, None]
                values = self.jacobian(self._points(time, self.wrapped(around)))
                best = int(values.argmin())
                value, label, width = float(values[best]), around[best], width / 16
        return value, label

    def _points(self, time: float, labels: Tensor) -> Tensor:
        points = labels.new_full((len(labels), len(self.form.nf.coords)), time)
        points[:, self._space] = labels
        return points

    def _label_grid(self, n: int) -> Tensor:
        axes = [
            low + (high - low) * (torch.arange(n, dtype=torch.float64) + 0.5) / n
            for low, high in (self.form.nf.bounds[c] for c in self.form.nf.space)
        ]
        return torch.cartesian_prod(*axes).reshape(-1, len(axes))

    # -- files -------------------------------------------------------------------------------------

    def to_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """A JSON-able description and the tensors."""
        until = None if math.isinf(self.until) else self.until
        if self.inner is None:
            return {"inner": None, "until": until}, {}
        spec, tensors = self.inner.to_state()
        return {"inner": {"kind": self.inner.kind, "spec": spec}, "until": until}, tensors

    @classmethod
    def from_state(
        cls, spec: dict[str, Any], tensors: dict[str, Tensor], nf: NormalForm
    ) -> LagrangianApproximation:
        """The approximation that `to_state` described; ValueError if the parts do not fit."""
        form = to_labels(nf)
        return cls(form, *read_inner(spec, tensors, form))


def read_inner(
    spec: dict[str, Any], tensors: dict[str, Tensor], form: LabelForm
) -> tuple[Inner | None, float]:
    """(fields over the labels, until) of a description; ValueError if the parts do not fit."""
    until = math.inf if spec["until"] is None else float(spec["until"])
    if spec["inner"] is None:
        if form.nf.fields:
            raise ValueError("the file holds no fields along the characteristics")
        return None, until
    kinds: dict[str, Any] = {c.kind: c for c in (NetworkApproximation, WindowedApproximation)}
    inner = kinds[spec["inner"]["kind"]].from_state(spec["inner"]["spec"], tensors, form.nf)
    return inner, until


class Crossing(tuple[float, tuple[float, ...]]):
    """(time, place) at which characteristics first cross."""

    __slots__ = ()

    def __new__(cls, time: float, place: tuple[float, ...]) -> Crossing:
        return super().__new__(cls, (time, place))

    @property
    def time(self) -> float:
        """When."""
        return self[0]

    @property
    def place(self) -> tuple[float, ...]:
        """Where, in space coordinates."""
        return self[1]


class _Invert(torch.autograd.Function):
    """x0(t, x) with the implicit function's derivative dx0 = F^-1 (dx - X_t dt), any number of times."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, owner: LagrangianApproximation) -> Tensor:
        labels = owner.invert(points.detach())
        ctx.save_for_backward(points, labels)
        ctx.owner = owner
        return labels

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        points, labels = ctx.saved_tensors
        owner: LagrangianApproximation = ctx.owner
        columns = list(points.unbind(1))
        for j, column in enumerate(owner._space):
            columns[column] = labels[:, j]
        slope, drift = owner.slopes(torch.stack(columns, 1))
        h = torch.linalg.solve(slope.transpose(1, 2), grads[0])
        out = list(torch.zeros_like(points).unbind(1))
        for j, column in enumerate(owner._space):
            out[column] = h[:, j]
        out[owner._time] = -(h * drift).sum(1)
        return torch.stack(out, 1), None
