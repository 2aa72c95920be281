"""Along the characteristics: a transport problem written in labels (where a particle started).

In    a normal form and its `Transport`; for a later part of the time span, when it begins and ends.
Out   `LabelForm`: a normal form whose unknowns are the displacement s and the state W over (t, x0), the
      map X = x0 + A(t) + s, and every physical derivative by the map's inverse Jacobian.
Next  `lower.lagrangian` evaluates it, `solvers.lagrangian_pinn` trains it.

With F = dX/dx0 and J = det F, grad u = F^-T grad_0 W; in one dimension u_x = W_x0 / J and
u_xx = W_x0x0 / J^2 - W_x0 J_x0 / J^3. Diffusion in labels, W_x0x0, is another equation: for Burgers
it is wrong by 4 to 14 per cent at t = 1. What has a closed form is no unknown: A(t) is the part of
the velocity that depends on time alone, W = u0(x0) where nothing acts on the state, and
X = x0 + A + a(u0(x0)) (t - t0) where the velocity depends on such states alone.

Labels may be given out anew at any instant: they are then the positions at that instant, and what is
carried is known there: u = u0(x0 + b(x0)), b the way back to where a particle began; or, where
particles have entered through a side, a function of its own (`given`).

The same symbols stand for positions and labels: inside a `LabelForm`, x is the label x0.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import sympy as sp

from pinnkit.declare.printing import show
from pinnkit.declare.symbols import make_field
from pinnkit.ir.characteristics import (
    Transport,
    find_transport,
    flow_windows,
    initial_values,
)
from pinnkit.ir.classify import is_affine
from pinnkit.ir.leaves import derivative_count, field_of, freeze, leaves, steps_of
from pinnkit.ir.normal_form import Condition, Equation, Face, NormalForm, Predicates
from pinnkit.ir.sampling import evaluate, sample_box
from pinnkit.ir.sides import OpenSide, open_sides, sides_refusal, upstream_box, wall_sides

__all__ = ["LabelForm", "label_refusal", "to_labels"]

_SAMPLES = 512
_PERIODIC = 1e-9  # relative difference of a coefficient one period on
_OTHERWISE = "Use CausalPINN()."


@dataclass(frozen=True, eq=False)
class LabelForm:
    """A problem along its characteristics.

    `nf` holds the unknowns over (t, labels), none where everything has a closed form; `source` is
    the problem as declared. `position[j]` is X_j and `state[u]` is W, in the leaves of `nf` and of
    `known`. `speeds[s]` is the size of ds/dt at the start, `rates[u]` of dW/dt, for scaling.
    `span` is the part of the time span the labels are for; they are positions at its start.
    `origin` holds the fields b (one per axis), `given[u]` the field of what is carried; both are
    functions of the label alone, empty where the initial data say it all.
    `passive`: the velocity is a function of coordinates alone. `relabels`: labels may be given out
    anew, because no unknown waits for what is carried. `walls[s]` are the sides where s vanishes.
    """

    source: NormalForm
    nf: NormalForm
    position: tuple[sp.Expr, ...]
    state: Mapping[sp.Expr, sp.Expr]
    speeds: Mapping[sp.Expr, float]
    span: tuple[float, float]
    passive: bool
    relabels: bool
    rates: Mapping[sp.Expr, float] = field(default_factory=dict)
    origin: tuple[sp.Expr, ...] = ()
    given: Mapping[sp.Expr, sp.Expr] = field(default_factory=dict)
    entries: tuple[OpenSide, ...] = ()
    walls: Mapping[sp.Expr, tuple[Face, ...]] = field(default_factory=dict)

    @property
    def known(self) -> tuple[sp.Expr, ...]:
        """Fields of the label alone that are no unknowns."""
        return (*self.origin, *self.given.values())

    @property
    def trained(self) -> tuple[sp.Expr, ...]:
        """States among the unknowns."""
        return tuple(u for u in self.nf.fields if u not in self.speeds)

    @functools.cached_property
    def gradient(self) -> sp.Matrix:
        """F = dX/dx0."""
        return sp.Matrix([[sp.diff(p, c) for c in self.nf.space] for p in self.position])

    @functools.cached_property
    def jacobian(self) -> Any:
        """J = det F: positive as long as characteristics have not crossed."""
        return self.gradient.det()

    @functools.cached_property
    def inverse(self) -> sp.Matrix:
        """F^-1."""
        return self.gradient.adjugate() / self.jacobian

    @functools.cached_property
    def drift(self) -> tuple[sp.Expr, ...]:
        """dX/dt at a fixed label."""
        return tuple(sp.diff(p, self.nf.time) for p in self.position)

    def along(self, expr: sp.Expr, coord: sp.Symbol) -> sp.Expr:
        """The derivative at fixed position (or fixed time) of a function of labels and time."""
        if coord == self.nf.time:
            moved = [
                v * self.along(expr, c) for v, c in zip(self.drift, self.nf.space, strict=True)
            ]
            return sp.diff(expr, coord) - sp.Add(*moved)
        j = self.nf.space.index(coord)
        return sp.Add(*(self.inverse[k, j] * sp.diff(expr, c) for k, c in enumerate(self.nf.space)))

    def eulerian(self, u: sp.Expr, alpha: tuple[int, ...]) -> sp.Expr:
        """The physical derivative of u, in labels and time."""
        expr = self.state[u]
        # Space first: the time derivative at fixed position is the longest expression.
        for c in (*self.nf.space, self.nf.time):
            assert c is not None
            for _ in range(alpha[self.nf.coords.index(c)]):
                expr = self.along(expr, c)
        return expr

    def transplant(self, expr: sp.Expr) -> sp.Expr:
        """An expression in positions and physical derivatives, in labels instead."""
        frozen = freeze([expr])
        moved = frozen.exprs[0].xreplace(dict(zip(self.nf.space, self.position, strict=True)))
        rule: dict[Any, Any] = {}
        for leaf, symbol in frozen.symbols.items():
            value = self.state[field_of(leaf)]
            for c, k in steps_of(leaf):
                for _ in range(k):
                    value = self.along(value, c)
            rule[symbol] = value
        return moved.xreplace(rule)


def label_refusal(nf: NormalForm) -> str | None:
    """Why a problem cannot be written in labels, in one sentence; None if it can."""
    transport = find_transport(nf)
    if isinstance(transport, str):
        return transport
    missing = [u for u in nf.fields if u not in initial_values(nf)]
    if missing:
        return f"{show(missing[0])} has no plain initial value to carry along. {_OTHERWISE}"
    if nf.jumps:
        return f"a coefficient jumps where {show(nf.jumps[0])} = 0. {_OTHERWISE}"
    for c in nf.periodic:
        for expr in (*transport.velocity, *transport.rest.values()):
            if not _is_periodic(expr, c, nf):
                return (
                    f"the coefficients are not periodic in {c} as written, and characteristics run "
                    f"past the end of the axis. Write them as periodic functions of {c}, or use "
                    "CausalPINN()."
                )
    for c in nf.conditions:
        if c.kind != "initial" and c.face.where != sp.true and _changes(transport, c.fields):
            return f"{c.label} holds on a part of a side only, which has no labels. {_OTHERWISE}"
    parts = flow_windows(nf, transport)
    return sides_refusal(nf, transport.velocity, transport.rest, parts)


def to_labels(nf: NormalForm, span: tuple[float, float] | None = None) -> LabelForm:
    """The problem in labels; ValueError with `label_refusal` where there is no such form.

    Args:
        span: A part of the time span; labels are positions at its start. None: all of it.
    """
    reason = label_refusal(nf)
    if reason is not None:
        raise ValueError(reason)
    transport = find_transport(nf)
    assert isinstance(transport, Transport) and nf.time is not None
    span = nf.bounds[nf.time] if span is None else span
    data = initial_values(nf)
    carried = {u for u in nf.fields if transport.rest[u] == 0}  # constant along characteristics
    read = [transport.rest[u] for u in nf.fields if u not in carried]
    relabels = not carried & {field_of(lf) for lf in leaves(*transport.velocity, *read)}
    entries = open_sides(nf, transport.velocity)
    walls = wall_sides(nf, transport.velocity)
    origin: tuple[sp.Expr, ...] = ()
    given: dict[sp.Expr, sp.Expr] = {}
    if entries:
        given = {u: _unused(f"given_{getattr(u, 'func', u)}", nf, nf.space) for u in carried}
    elif span[0] > nf.bounds[nf.time][0]:
        assert relabels
        origin = tuple(_unused(f"b_{c.name}", nf, nf.space) for c in nf.space)
    began = {c: c + b for c, b in zip(nf.space, origin, strict=bool(origin))}
    state: dict[sp.Expr, Any] = {
        u: given.get(u, data[u].xreplace(began)) if u in carried else u for u in nf.fields
    }
    position: list[sp.Expr] = []
    speeds: dict[sp.Expr, float] = {}
    still: dict[sp.Expr, tuple[Face, ...]] = {}
    velocities: dict[sp.Expr, sp.Expr] = {}  # what is left for ds/dt
    for a, c in zip(transport.velocity, nf.space, strict=True):
        base, left = _known_drift(a, carried, data, nf, span[0])
        if left == 0:
            position.append(c + base)
            continue
        s = _unused(f"s_{c.name}", nf, nf.coords)
        still[s] = tuple(f for f in walls if f.coord == c)
        if still[s]:
            base, left = sp.S.Zero, a  # a drift in closed form would go through the wall
        mean, size = _statistics(left, data, nf, span[0])
        if not still[s]:
            left -= mean
            base += mean * (nf.time - sp.Float(span[0], 17))
        position.append(c + base + s)
        velocities[s], speeds[s] = left, size
    form = LabelForm(
        source=nf,
        nf=nf,
        position=tuple(position),
        state=state,
        speeds=speeds,
        span=span,
        passive=not leaves(*transport.velocity),
        relabels=relabels,
        origin=origin,
        given=given,
        entries=entries,
        walls=still,
    )
    equations = [
        Equation(r, r, f"characteristics, {show(s)}", nf.coords)
        for s, v in velocities.items()
        for r in [sp.diff(s, nf.time) - form.transplant(v)]
    ]
    equations += [
        Equation(r, r, f"{show(u)} along the characteristics", nf.coords)
        for u in nf.fields
        if u not in carried
        for r in [sp.diff(u, nf.time) - form.transplant(transport.rest[u])]
    ]
    unknown = (*velocities, *(u for u in nf.fields if u not in carried))
    values = {u: data.get(u, sp.S.Zero) for u in unknown}
    box = upstream_box(nf, transport.velocity, span) if entries else {}
    sides = [
        dataclasses.replace(c, residual=form.transplant(c.residual), target=None, value=None)
        for c in nf.conditions
        if c.kind != "initial" and _changes(transport, c.fields)
    ]
    return dataclasses.replace(
        form,
        nf=_normal_form(nf, unknown, equations, values, sides, box or {}),
        rates={u: _rate(transport.rest[u], data, nf) for u in nf.fields if u not in carried},
    )


def _changes(transport: Transport, fields: tuple[sp.Expr, ...]) -> bool:
    """Whether a condition on these fields says something that the initial data do not."""
    return any(transport.rest[u] != 0 for u in fields)


def _rate(rest: sp.Expr, data: Mapping[sp.Expr, sp.Expr], nf: NormalForm) -> float:
    """Root mean square of dW/dt at the start; 0 where it cannot be told."""
    points: dict[Any, np.ndarray] = dict(sample_box(nf.coords, nf.bounds, _SAMPLES))
    frozen = freeze([rest])
    for leaf, symbol in frozen.symbols.items():
        value = data.get(field_of(leaf), sp.S.Zero)
        for c, k in steps_of(leaf):
            value = sp.diff(value, c, k)
        points[symbol] = evaluate(value, points)
    rates = evaluate(frozen.exprs[0], points)
    return float(np.sqrt(np.nanmean(rates**2))) if np.isfinite(rates).any() else 0.0


def _known_drift(
    a: sp.Expr,
    carried: set[sp.Expr],
    data: Mapping[sp.Expr, sp.Expr],
    nf: NormalForm,
    since: float,
) -> tuple[sp.Expr, sp.Expr]:
    """(closed-form displacement, what is left of the velocity) of one velocity component."""
    assert nf.time is not None
    start = sp.Float(since, 17)
    known, left = sp.S.Zero, []
    for term in sp.Add.make_args(sp.expand(a)):
        rate: Any = term
        if term.free_symbols - {nf.time} or leaves(term):
            # A state that nothing acts on is a known number on each characteristic.
            frozen = freeze([term])
            fixed = not frozen.exprs[0].free_symbols & set(nf.space)
            if not fixed or not set(leaves(term)) <= carried:
                left.append(term)
                continue
            rate = frozen.exprs[0].xreplace({s: data[lf] for lf, s in frozen.symbols.items()})
        integral = _integral(rate, nf.time, start)
        if integral is None:
            left.append(term)
        else:
            known += integral
    return known, sp.Add(*left)


def _integral(rate: sp.Expr, time: sp.Symbol, start: sp.Expr) -> sp.Expr | None:
    if not rate.has(time):
        return rate * (time - start)
    found = sp.integrate(rate, time)
    if found.has(sp.Integral, sp.Piecewise):
        return None
    return found - found.subs(time, start)


def _statistics(
    a: sp.Expr, data: Mapping[sp.Expr, sp.Expr], nf: NormalForm, since: float
) -> tuple[sp.Expr, float]:
    """Mean of a velocity at the start (0 where it is rounding), and the size of what is left."""
    assert nf.time is not None
    spread = sample_box(nf.coords, nf.bounds, _SAMPLES)
    if len(nf.space) == 1:
        # Equispaced: the mean of a periodic function is then exact to rounding.
        low, high = nf.bounds[nf.space[0]]
        spread[nf.space[0]] = low + (high - low) * (np.arange(_SAMPLES) + 0.5) / _SAMPLES
    frozen = freeze([a])

    def values(points: dict[Any, np.ndarray]) -> np.ndarray:
        states = {s: evaluate(data[lf], points) for lf, s in frozen.symbols.items()}
        return np.nan_to_num(evaluate(frozen.exprs[0], {**points, **states}))

    at_start = values({**spread, nf.time: np.full(_SAMPLES, since)})
    later = values(spread)
    mean, size = float(at_start.mean()), float(np.abs(later).max())
    if abs(mean) < 1e-6 * size:
        mean = 0.0
    rest = float(np.sqrt(np.mean((later - mean) ** 2)))
    return sp.Float(mean, 17) if mean else sp.S.Zero, max(rest, 1e-3 * size)


def _unused(name: str, nf: NormalForm, coords: tuple[sp.Symbol, ...]) -> sp.Expr:
    """A field of a name nobody has taken."""
    taken = {str(getattr(u, "func", u)) for u in nf.fields} | {s.name for s in nf.coords}
    while name in taken:
        name += "_"
    return make_field(name, coords)


def _normal_form(
    source: NormalForm,
    unknown: tuple[sp.Expr, ...],
    equations: list[Equation],
    values: Mapping[sp.Expr, sp.Expr],
    sides: list[Condition],
    box: Mapping[sp.Symbol, tuple[float, float]],
) -> NormalForm:
    """The label problem, made directly: as a declaration it has been checked already."""
    assert source.time is not None
    face = Face(source.time, "left", source.bounds[source.time][0])
    conditions = (
        *(Condition("initial", u - v, face, (u,), f"start of {show(u)}", u, v)
          for u, v in values.items()),
        *sides,
    )  # fmt: skip
    everything = leaves(*(e.residual for e in equations))
    orders = {
        (u, c): max((derivative_count(lf, c) for lf in everything if field_of(lf) == u), default=0)
        for u in unknown
        for c in source.space
    }
    predicates = Predicates(
        linear=all(is_affine(e.residual) for e in equations),
        evolution=bool(unknown),
        semilinear=False,
        constant_coefficients=False,
        flux_form=False,
        time_order=dict.fromkeys(unknown, 1),
        space_order=orders,
    )
    return NormalForm(
        coords=source.coords,
        time=source.time,
        space=source.space,
        bounds={**source.bounds, **box},
        fields=unknown,
        parameters=(),
        equations=tuple(equations),
        conditions=conditions,
        periodic=source.periodic,
        predicates=predicates,
        corners=source.corners,
        scales={k: v for k, v in source.scales.items() if k in unknown or k in source.coords},
    )


def _is_periodic(expr: sp.Expr, c: sp.Symbol, nf: NormalForm) -> bool:
    """Does the expression repeat along c, its fields and derivatives held?"""
    frozen = freeze([expr])
    if not frozen.exprs[0].has(c):
        return True
    low, high = nf.bounds[c]
    points: dict[Any, np.ndarray] = dict(sample_box(nf.coords, nf.bounds, 64))
    gen = np.random.default_rng(0)
    points |= {s: gen.uniform(0.5, 1.5, 64) for s in frozen.symbols.values()}
    here = evaluate(frozen.exprs[0], points)
    there = evaluate(frozen.exprs[0], {**points, c: points[c] + (high - low)})
    return bool(np.all(np.abs(here - there) <= _PERIODIC * max(1e-300, float(np.abs(here).max()))))
