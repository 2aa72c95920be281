"""What particles carry where they may have entered through a side.

In    a label form with open sides, its trained displacement, the fields before its span.
Out   `Carried`: the form's `given` fields over (t, labels), with all their derivatives.
Next  `lower.lagrangian` reads them at the labels of positions.

A particle carries the value of the side at the last instant at which it came in through one, else
what it had when the labels were given out. The instant t_e(x0) solves X_n(t_e, x0) = side, and with
it every function of the instant and the label has the derivatives of the label alone

    D_k f = df/dx0_k - f_t (dX_n/dx0_k) / (dX_n/dt)      at t = t_e.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import sympy as sp
import torch
from torch import Tensor

from pinnkit.ir.characteristics import initial_values
from pinnkit.ir.labels import LabelForm
from pinnkit.lower.expressions import compile_expressions
from pinnkit.lower.fields import Wanted
from pinnkit.lower.lagrangian import Inner, Known, LabelFunction

__all__ = ["Carried"]

LOOKS = 33  # instants at which a path is looked at; the flow turns by two radians at most
OUTSIDE = 1e-10  # of the axis: nearer to a side is on it
MOST_STEPS = 60  # of Newton or bisection for an instant of entry
POLISH = 2  # Newton steps with a graph: derivatives of t_e up to third order are exact


class Carried:
    """The `given` fields of a label form.

    Args:
        form: The label form; its `entries` are the open sides.
        inner: The trained displacement; None where the map has a closed form.
        before: Fields of the problem up to the start of the form's span; None: its initial data.
    """

    def __init__(self, form: LabelForm, inner: Inner | None, before: Known | None) -> None:
        self.form, self.inner, self.before = form, inner, before
        nf = form.nf
        assert nf.time is not None
        self._time = nf.coords.index(nf.time)
        self._space = [nf.coords.index(c) for c in nf.space]
        self._names = tuple(form.given)
        beyond: list[Any] = []
        for side in form.entries:
            f = side.face
            x = form.position[nf.space.index(f.coord)]
            beyond.append(f.value - x if f.side == "left" else x - f.value)
        self._beyond = LabelFunction(form, inner, [*beyond, *(sp.diff(b, nf.time) for b in beyond)])
        self._compiled: dict[Any, LabelFunction] = {}

    def derivatives(
        self,
        points: Tensor,  # shape: (n, d)
        wanted: Wanted,
    ) -> list[Tensor]:  # shapes: (n,)
        """Derivatives along the label of what is carried; at fixed labels nothing depends on time."""
        with torch.no_grad():
            times, sides = self.entries(points.detach())
        columns = [points.new_full((len(points),), math.nan) for _ in wanted]
        for side in range(-1, len(self.form.entries)):
            where = torch.nonzero((sides == side) & torch.isfinite(times)).squeeze(1)
            if len(where):
                part = points[where]
                values = (
                    self._kept(part, wanted)
                    if side < 0
                    else self._brought(part, times[where], side, wanted)
                )
                columns = [c.index_put((where,), v) for c, v in zip(columns, values, strict=True)]
        return columns

    # -- instants of entry -------------------------------------------------------------------------

    def entries(self, points: Tensor) -> tuple[Tensor, Tensor]:  # shapes: (n,), (n,)
        """Instant of the last entry before each point's time, and the side; (start, -1): never out.

        nan where the particle is outside at the point's own time.
        """
        n, since = len(points), self.form.span[0]
        shares = torch.linspace(0, 1, LOOKS, dtype=points.dtype, device=points.device)
        looks = since + (points[:, self._time, None] - since) * shares
        beyond = self._out(points.repeat_interleave(LOOKS, 0), looks.flatten())[0].view(n, LOOKS)
        out = beyond[:, :-1] > 0
        index = torch.where(out, torch.arange(LOOKS - 1, device=points.device), -1).amax(1)
        times, sides = points.new_full((n,), since), index.new_full((n,), -1)
        entered = torch.nonzero(index >= 0).squeeze(1)
        if len(entered):
            rows = (entered, index[entered])
            a, b = looks[rows], looks[rows[0], rows[1] + 1]
            times[entered], sides[entered] = self._root(points[entered], a, b)
        return times.where(beyond[:, -1] <= 0, math.nan), sides

    def _out(self, points: Tensor, times: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """How far outside at other times, how fast that changes, and beyond which side: (n,) each."""
        at = points.clone()
        at[:, self._time] = times
        values = torch.stack(self._beyond(at), 1)
        count = len(self.form.entries)
        lengths = [self._length(side.face.coord) for side in self.form.entries]
        # A little inside still counts as outside no longer: a place on the side is in the domain.
        distance = values[:, :count] - OUTSIDE * values.new_tensor(lengths)
        side = distance.argmax(1)
        pick = side[:, None]
        rate = values[:, count:].gather(1, pick)[:, 0]
        return distance.gather(1, pick)[:, 0], rate, side

    def _root(self, points: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """The instant between a (outside) and b (inside), by Newton's steps that stay between them."""
        t = 0.5 * (a + b)
        side = torch.zeros_like(t, dtype=torch.long)
        small = 1e-15 * (self.form.span[1] - self.form.span[0] + b.abs())
        for _ in range(MOST_STEPS):
            value, rate, side = self._out(points, t)
            a, b = torch.where(value > 0, t, a), torch.where(value > 0, b, t)
            step = t - value / rate
            new = torch.where((step > a) & (step < b), step, 0.5 * (a + b))
            done = bool(((new - t).abs() <= small).all())
            t = new
            if done:
                break
        return t, side

    # -- values ------------------------------------------------------------------------------------

    def _kept(self, points: Tensor, wanted: Wanted) -> list[Tensor]:
        """Of particles that were in the domain all the time: what they had at the start."""
        source = self.form.source
        columns = list(points.unbind(1))
        columns[self._time] = torch.full_like(columns[self._time], self.form.span[0])
        for c, k in zip(self.form.nf.space, self._space, strict=True):
            if c not in self.form.nf.periodic:
                columns[k] = columns[k].clamp(*source.bounds[c])
        if self.before is not None:
            asked = [(source.fields.index(self._names[i]), alpha) for i, alpha in wanted]
            return self.before.derivatives(torch.stack(columns, 1), asked)
        key = (None, tuple((i, tuple(alpha)) for i, alpha in wanted))
        if key not in self._compiled:
            data = initial_values(source)
            exprs = [
                functools.reduce(sp.diff, _steps(source.coords, alpha), data[self._names[i]])
                for i, alpha in wanted
            ]
            self._compiled[key] = compile_expressions(exprs, source.coords)  # type: ignore[assignment]
        return self._compiled[key](columns)  # type: ignore[arg-type]

    def _brought(self, points: Tensor, times: Tensor, side: int, wanted: Wanted) -> list[Tensor]:
        """Of particles that came in through a side: its value, at the instant and place of entry."""
        key = (side, tuple((i, tuple(alpha)) for i, alpha in wanted))
        if key not in self._compiled:
            exprs = [self._along_side(side, self._names[i], alpha) for i, alpha in wanted]
            self._compiled[key] = LabelFunction(self.form, self.inner, exprs)
        columns = list(points.unbind(1))
        columns[self._time] = times
        if points.requires_grad:
            count = len(self.form.entries)
            for _ in range(POLISH):
                values = self._beyond(torch.stack(columns, 1))
                columns[self._time] = columns[self._time] - values[side] / values[count + side]
        return self._compiled[key](torch.stack(columns, 1))

    def _along_side(self, side: int, u: sp.Expr, alpha: tuple[int, ...]) -> sp.Expr:
        form, entry = self.form, self.form.entries[side]
        nf = form.nf
        place = dict(zip(nf.space, form.position, strict=True))
        normal: Any = place[entry.face.coord]
        value: Any = _defined(entry.values[u]).xreplace(place)
        for c in _steps(nf.coords, alpha):
            lag = sp.diff(normal, c) / sp.diff(normal, nf.time)
            value = sp.diff(value, c) - sp.diff(value, nf.time) * lag
        return value

    def _length(self, coord: sp.Symbol) -> float:
        low, high = self.form.source.bounds[coord]
        return high - low


def _steps(coords: tuple[sp.Symbol, ...], alpha: tuple[int, ...]) -> list[sp.Symbol]:
    return [c for c, k in zip(coords, alpha, strict=True) for _ in range(k)]


def _defined(value: sp.Expr) -> sp.Expr:
    """A value given on parts of a side, its last part going on: entries are where it has a value."""
    if not isinstance(value, sp.Piecewise):
        return value
    parts: list[Any] = [p for p in value.args if p.args[0] is not sp.nan]  # type: ignore[union-attr]
    last = parts[-1].args[0]
    return last if len(parts) == 1 else sp.Piecewise(*parts[:-1], (last, True))
