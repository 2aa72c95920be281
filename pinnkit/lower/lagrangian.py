"""Fields known along characteristics, read at positions: the inverse of the map from labels.

In    a `LabelForm` and the trained fields over (t, labels).
Out   `LagrangianApproximation`: physical derivatives at (t, x), differentiable, savable; and where
      characteristics cross.
Next  `solution` calls, stores and verifies it.

X(t, x0) = x is solved for every point by Newton's method inside a bracket that always holds the
root: on a periodic axis X(x0 + L) = X(x0) + L, so that k periods are enough where the first guess is
off by r <= k L. There is no grid and no interpolation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import sympy as sp
import torch
from torch import Tensor

from pinnkit.ir.labels import LabelForm, to_labels
from pinnkit.ir.leaves import field_of, leaves
from pinnkit.ir.normal_form import NormalForm
from pinnkit.lower.approximation import NetworkApproximation, WindowedApproximation
from pinnkit.lower.expressions import compile_expressions
from pinnkit.lower.fields import Wanted

__all__ = ["Inner", "LabelFunction", "LagrangianApproximation"]

Inner = NetworkApproximation | WindowedApproximation

MOST_STEPS = 200  # of Newton or bisection: 60 halvings reach rounding, whatever the map
ROUNDING = 8  # units in the last place at which a position counts as reached
BACKTRACKS = 6  # halvings of a Newton step in more than one dimension
_PIECE = 50_000


class LabelFunction:
    """Expressions in (t, labels) and the label form's unknowns as one function of points."""

    def __init__(self, form: LabelForm, inner: Inner | None, exprs: Sequence[sp.Expr]) -> None:
        nf = form.nf
        self.found = leaves(*exprs)
        self.inner = inner
        self.wanted = [(nf.fields.index(field_of(lf)), nf.multi_index(lf)) for lf in self.found]
        self.compiled = compile_expressions(list(exprs), [*nf.coords, *self.found])

    def __call__(self, points: Tensor) -> list[Tensor]:  # shapes: (n, d) -> (n,) each
        derivatives: list[Tensor] = []
        if self.wanted:
            assert self.inner is not None
            derivatives = self.inner.derivatives(points, self.wanted)
        return self.compiled([*points.unbind(1), *derivatives])


class LagrangianApproximation:
    """The fields of a transport problem, known along its characteristics.

    Args:
        form: The problem in labels.
        inner: Displacement and state over (t, labels); None where all have closed forms.
        until: Time from which characteristics cross: there is no smooth solution any more, and the
            fields are nan.
    """

    kind = "lagrangian"

    def __init__(self, form: LabelForm, inner: Inner | None, until: float = math.inf) -> None:
        self.form, self.inner, self.until = form, inner, float(until)
        nf = form.nf
        assert nf.time is not None
        self._time = nf.coords.index(nf.time)
        self._space = [nf.coords.index(c) for c in nf.space]
        self._shift = LabelFunction(
            form, inner, [p - c for p, c in zip(form.position, nf.space, strict=True)]
        )
        slopes: list[Any] = [*form.gradient, *form.drift]
        self._slopes = LabelFunction(form, inner, slopes)
        self._jacobian = LabelFunction(form, inner, [form.jacobian])
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
            self._compiled[key] = LabelFunction(self.form, self.inner, exprs)
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
        with torch.no_grad():
            found = self._bracketed(points) if len(self._space) == 1 else self._newton(points)
            return self._wrapped(found)

    def slopes(self, points: Tensor) -> tuple[Tensor, Tensor]:  # shapes: (n, k, k), (n, k)
        """F and dX/dt at (t, labels)."""
        k = len(self._space)
        values = torch.stack(self._slopes(points), 1)
        return values[:, : k * k].unflatten(1, (k, k)), values[:, k * k :]

    def _offset(self, points: Tensor, labels: Tensor) -> Tensor:  # shape: (n, k)
        """X - x for labels that may lie outside the box (periods are added back)."""
        wrapped = self._wrapped(labels)
        here = points.clone()
        here[:, self._space] = wrapped
        return labels + torch.stack(self._shift(here), 1) - points[:, self._space]

    def _bracketed(self, points: Tensor) -> Tensor:  # shape: (n, 1)
        """Newton's steps where they stay between two labels known to enclose the root, else halving."""
        low, high = self.form.nf.bounds[self.form.nf.space[0]]
        length = high - low
        x = points[:, self._space[0]]
        y = 2 * x - (self._offset(points, x[:, None])[:, 0] + x)  # x - shift at x
        r = self._offset(points, y[:, None])[:, 0]
        periods = torch.ceil(r.abs() / length) * length
        left, right = torch.where(r > 0, y - periods, y), torch.where(r > 0, y, y + periods)
        size = torch.finfo(x.dtype).eps * (length + x.abs() + y.abs())
        active = torch.arange(len(x), device=x.device)
        for _ in range(MOST_STEPS):
            active = active[(r[active].abs() > ROUNDING * size[active])]
            active = active[right[active] - left[active] > size[active]]
            if not len(active):
                break
            here, now = points[active], y[active]
            at = here.clone()
            at[:, self._space[0]] = self._wrapped(now[:, None])[:, 0]
            slope = self.jacobian(at)
            a, b = left[active], right[active]
            step = now - r[active] / slope
            step = torch.where((step > a) & (step < b), step, 0.5 * (a + b))
            new = self._offset(here, step[:, None])[:, 0]
            # Halve where Newton's step gained little: it may creep along a flat part of the map.
            slow = new.abs() > 0.5 * r[active].abs()
            a, b = torch.where(new > 0, a, step), torch.where(new > 0, step, b)
            if bool(slow.any()):
                middle = torch.where(slow, 0.5 * (a + b), step)
                new = torch.where(slow, self._offset(here, middle[:, None])[:, 0], new)
                step = middle
                a, b = torch.where(new > 0, a, step), torch.where(new > 0, step, b)
            left[active], right[active], y[active], r[active] = a, b, step, new
        return y[:, None]

    def _newton(self, points: Tensor) -> Tensor:  # shape: (n, k)
        """Newton's method with step halving, from the position less its own shift."""
        x = points[:, self._space]
        y = x - (self._offset(points, x))
        r = self._offset(points, y)
        size = torch.finfo(x.dtype).eps * (1 + x.abs().amax() + y.abs().amax())
        active = torch.arange(len(x), device=x.device)
        for _ in range(MOST_STEPS):
            active = active[r[active].norm(dim=1) > ROUNDING * size]
            if not len(active):
                return y
            here = points[active]
            at = here.clone()
            at[:, self._space] = self._wrapped(y[active])
            step = torch.linalg.solve(self.slopes(at)[0], r[active])
            before, share = r[active].norm(dim=1), x.new_ones(len(active), 1)
            for _ in range(BACKTRACKS):
                new = self._offset(here, y[active] - share * step)
                worse = new.norm(dim=1) >= before
                if not bool(worse.any()):
                    break
                share = torch.where(worse[:, None], 0.5 * share, share)
            y[active] = y[active] - share * step
            r[active] = self._offset(here, y[active])
        lost = r.norm(dim=1) > 1e-9 * (1 + x.abs().amax())
        y[lost] = math.nan  # no label found: no value rather than a wrong one
        return y

    def _wrapped(self, labels: Tensor) -> Tensor:
        """Labels inside the box, which repeats along every axis."""
        bounds = [self.form.nf.bounds[c] for c in self.form.nf.space]
        low = labels.new_tensor([b[0] for b in bounds])
        length = labels.new_tensor([b[1] for b in bounds]) - low
        return low + torch.remainder(labels - low, length)

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
            place = self._wrapped(self.positions(self._points(late, label[None])))[0]
            return Crossing(late, tuple(map(float, place)))

    def least_jacobian(self, start: float, end: float, *, grid: int = 60) -> float:
        """The smallest J on a grid of times in [start, end] and labels."""
        with torch.no_grad():
            labels = self._label_grid(4 * grid if len(self._space) == 1 else grid)
            times = torch.linspace(start, end, grid, dtype=torch.float64)
            return min(self._smallest(float(t), labels)[0] for t in times)

    def _smallest(self, time: float, labels: Tensor, *, fine: bool = False) -> tuple[float, Tensor]:
        values = self.jacobian(self._points(time, labels))
        best = int(torch.where(torch.isnan(values), -math.inf, values).argmin())
        value, label = float(values[best]), labels[best]
        if fine and len(self._space) == 1:
            width = float(labels[1, 0] - labels[0, 0])
            for _ in range(4):
                around = label + width * torch.linspace(-1, 1, 33, dtype=torch.float64)[:, None]
                values = self.jacobian(self._points(time, self._wrapped(around)))
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
        until = math.inf if spec["until"] is None else float(spec["until"])
        if spec["inner"] is None:
            if form.nf.fields:
                raise ValueError("the file holds no fields along the characteristics")
            return cls(form, None, until)
        kinds: dict[str, Any] = {c.kind: c for c in (NetworkApproximation, WindowedApproximation)}
        inner = kinds[spec["inner"]["kind"]].from_state(spec["inner"]["spec"], tensors, form.nf)
        return cls(form, inner, until)


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
