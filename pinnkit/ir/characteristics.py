"""Transport: an evolution problem as u_t + a(u, x, t) . grad u = rest, one velocity for all fields.

In    the normal form of an evolution problem.
Out   `Transport`: the velocity and the rest per field; or one sentence that says why there is none.
Next  `ir.labels` writes the problem along the characteristics dX/dt = a; `choose_solver` reads
      `measure_convection` to see whether that is worth it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy as sp

from pinnkit.declare.printing import show, show_number
from pinnkit.ir.leaves import derivative_count, field_of, freeze, leaves, steps_of
from pinnkit.ir.normal_form import Equation, NormalForm
from pinnkit.ir.sampling import evaluate, sample_box

__all__ = [
    "Convection",
    "Transport",
    "find_transport",
    "flow_windows",
    "initial_values",
    "measure_convection",
]

_SAMPLES = 512
_DOMINANT = 50.0  # Peclet number from which convection shapes the solution
_FAR = 0.5  # axis lengths: less is no hardship for a fixed frame
_BEFORE_CROSSING = 0.95  # of the crossing time: beyond it diffusion alone keeps the map invertible
_STRAIN = 2.0  # largest rate of strain or turn, integrated over a window: two radians
_INSTANTS = 32
_OTHERWISE = "Use CausalPINN()."


@dataclass(frozen=True, eq=False)
class Transport:
    """u_t + velocity . grad u = rest[u] for every field u.

    `velocity` has one entry per space coordinate, an expression in coordinates and plain fields;
    `rest` may hold any derivative in space, but no time derivative.
    """

    velocity: tuple[sp.Expr, ...]
    rest: Mapping[sp.Expr, sp.Expr]


def find_transport(nf: NormalForm) -> Transport | str:
    """The transport form, or in one sentence why there is none and what can solve the problem."""
    reason = _refusal(nf)
    if reason is not None:
        return reason
    velocity: tuple[sp.Expr, ...] = ()
    rest: dict[sp.Expr, sp.Expr] = {}
    for equation in nf.equations:
        found = _one_equation(nf, equation)
        if isinstance(found, str):
            return found
        u, own, remainder = found
        if u in rest:
            return f"two equations hold the time derivative of {show(u)}. {_OTHERWISE}"
        if rest and any(sp.simplify(a - b) != 0 for a, b in zip(own, velocity, strict=True)):
            first = next(iter(rest))
            return (
                f"{show(first)} travels with velocity {_written(velocity)} and {show(u)} with "
                f"{_written(own)}: there are no characteristics common to both. {_OTHERWISE}"
            )
        velocity, rest[u] = own, remainder
    if all(a == 0 for a in velocity):
        return f"nothing is transported: no term of the form a*{_gradient(nf)}. {_OTHERWISE}"
    return Transport(velocity, rest)


def initial_values(nf: NormalForm) -> dict[sp.Expr, sp.Expr]:
    """field -> its value at the initial time, for the fields that have a plain initial condition."""
    return {
        c.target: c.value
        for c in nf.conditions
        if c.kind == "initial"
        and c.face.coord == nf.time
        and c.target is not None
        and c.target in nf.fields
        and c.value is not None
        and c.face.where == sp.true
    }


@dataclass(frozen=True)
class Convection:
    """How much a problem is one of transport, at its initial data.

    `peclet`: max |a| L / D, with L the length of the axis and D the largest coefficient of a second
    derivative; infinite without diffusion, 0 where derivatives of third or higher order act.
    `travelled`: lengths of the axis passed in the time span. `compression`: the time span over the
    time at which characteristics of the initial velocity cross (0: never).
    """

    peclet: float
    travelled: float
    compression: float

    @property
    def dominates(self) -> bool:
        """Whether to follow characteristics: far, with little diffusion, and well before they cross."""
        return (
            self.peclet >= _DOMINANT
            and self.travelled >= _FAR
            and self.compression <= _BEFORE_CROSSING
        )

    def __str__(self) -> str:
        return (
            f"convection over {show_number(self.travelled)} domain lengths, "
            + ("without diffusion" if math.isinf(self.peclet) else
               f"Peclet number {show_number(self.peclet)}")
        )  # fmt: skip


def measure_convection(nf: NormalForm, transport: Transport) -> Convection:
    """The numbers that say whether characteristics are the natural frame."""
    assert nf.time is not None
    points: dict[Any, np.ndarray] = dict(sample_box(nf.coords, nf.bounds, _SAMPLES))
    data = initial_values(nf)
    frozen = freeze([*transport.rest.values(), *transport.velocity])
    for leaf, symbol in frozen.symbols.items():
        value = data.get(field_of(leaf), sp.S.Zero)
        for c, k in steps_of(leaf):
            value = sp.diff(value, c, k)
        points[symbol] = np.nan_to_num(evaluate(value, points))
    orders = {s: derivative_count(lf) for lf, s in frozen.symbols.items()}
    slopes = [sp.diff(r, s) for r in frozen.exprs for s, k in orders.items() if k == 2]
    diffusion = max((_largest(d, points) for d in slopes), default=0.0)
    low, high = nf.bounds[nf.time]
    peclet = travelled = squeezed = 0.0
    for a, c in zip(frozen.exprs[len(transport.rest) :], nf.space, strict=True):
        length = nf.bounds[c][1] - nf.bounds[c][0]
        speed = _largest(a, points)
        travelled = max(travelled, speed * (high - low) / length)
        if speed > 0:
            peclet = max(peclet, speed * length / diffusion if diffusion > 0 else math.inf)
        for leaf, symbol in frozen.symbols.items():
            if a.has(symbol):  # only speeds that depend on the state can make characteristics cross
                slope = sp.diff(a, symbol) * sp.diff(data.get(leaf, sp.S.Zero), c)
                squeezed = max(squeezed, float(np.nanmax(-evaluate(slope, points))))
    if max(orders.values(), default=0) > 2:
        peclet = 0.0  # waves disperse across characteristics
    return Convection(peclet, travelled, squeezed * (high - low))


def flow_windows(nf: NormalForm, transport: Transport) -> int:
    """Parts of the time span in each of which the flow is easy to learn.

    If coefficients vary along an axis they oscillate, in the moving frame, once per axis length: a
    network learns one oscillation in seconds and eight with difficulty. And where the velocity is
    known, the map is to turn and strain by no more than about two radians.
    """
    assert nf.time is not None
    frozen = freeze([*transport.velocity, *transport.rest.values()])
    if not any(e.free_symbols & set(nf.space) for e in frozen.exprs):
        return 1
    parts = math.ceil(measure_convection(nf, transport).travelled)
    if not leaves(*transport.velocity):
        parts = max(parts, math.ceil(_strain(nf, transport.velocity) / _STRAIN))
    return max(1, parts)


def _strain(nf: NormalForm, velocity: tuple[sp.Expr, ...]) -> float:
    """The integral over time of the largest norm of the velocity's gradient."""
    assert nf.time is not None
    low, high = nf.bounds[nf.time]
    slopes = [sp.diff(a, c) for a in velocity for c in nf.space]
    points: dict[Any, np.ndarray] = dict(sample_box(nf.coords, nf.bounds, _SAMPLES))
    total = 0.0
    for k in range(_INSTANTS):
        points[nf.time] = np.full(_SAMPLES, low + (high - low) * (k + 0.5) / _INSTANTS)
        matrices = np.stack([evaluate(e, points) for e in slopes], 1)
        finite = matrices[np.isfinite(matrices).all(1)]
        if len(finite):
            square = finite.reshape(-1, len(nf.space), len(nf.space))
            total += float(np.linalg.norm(square, ord=2, axis=(1, 2)).max())
    return total * (high - low) / _INSTANTS


def _largest(expr: sp.Expr, points: Mapping[Any, np.ndarray]) -> float:
    values = np.abs(evaluate(expr, points))
    return float(np.nanmax(values)) if np.isfinite(values).any() else 0.0


def _refusal(nf: NormalForm) -> str | None:
    if nf.time is None or not nf.predicates.evolution:
        return f"the problem is steady: no characteristics run through time. {_OTHERWISE}"
    if not nf.space:
        return f"an ordinary differential equation has no space to travel through. {_OTHERWISE}"
    for u in nf.fields:
        order = nf.predicates.time_order.get(u, 0)
        if order != 1:
            what = "no time derivative" if order == 0 else f"a time derivative of order {order}"
            return f"characteristics need first order in time; {show(u)} has {what}. {_OTHERWISE}"
        if set(nf.field_coords(u)) != set(nf.coords):
            return f"{show(u)} does not depend on all coordinates. {_OTHERWISE}"
    for leaf in nf.derivatives():
        if 0 < derivative_count(leaf, nf.time) < derivative_count(leaf):
            return f"the mixed derivative {show(leaf)} has no transport form. {_OTHERWISE}"
    return None


def _one_equation(
    nf: NormalForm, equation: Equation
) -> tuple[sp.Expr, tuple[sp.Expr, ...], sp.Expr] | str:
    """(field, velocity, rest) of one equation."""
    assert nf.time is not None
    rates = [lf for lf in leaves(equation.residual) if derivative_count(lf, nf.time)]
    if len(rates) != 1:
        return (
            f"{equation.label} holds {len(rates)} time derivatives, a transport form holds one. "
            f"Solve the equations for them, or use CausalPINN()."
        )
    u = field_of(rates[0])
    frozen = freeze([equation.residual])
    rate = frozen.symbols[rates[0]]
    factor = sp.diff(frozen.exprs[0], rate)
    if factor.has(rate) or any(
        derivative_count(lf) and factor.has(s) for lf, s in frozen.symbols.items()
    ):
        return f"{equation.label} is not linear in {show(rates[0])}. {_OTHERWISE}"
    other = sp.expand(-(frozen.exprs[0].subs(rate, 0)) / factor)
    gradient = {c: frozen.symbols.get(sp.diff(u, c)) for c in nf.space}
    derivatives = {s for lf, s in frozen.symbols.items() if derivative_count(lf)}
    velocity: dict[sp.Symbol, sp.Expr] = dict.fromkeys(nf.space, sp.S.Zero)
    rest: list[sp.Expr] = []
    for term in sp.Add.make_args(other):
        for c, slope in gradient.items():
            if slope is not None and not (term / slope).free_symbols & derivatives:
                velocity[c] -= term / slope
                break
        else:
            rest.append(term)
    thawed = tuple(frozen.thaw(sp.sympify(velocity[c])) for c in nf.space)
    return u, thawed, frozen.thaw(sp.Add(*rest))


def _written(velocity: tuple[sp.Expr, ...]) -> str:
    return show(velocity[0]) if len(velocity) == 1 else f"({', '.join(map(show, velocity))})"


def _gradient(nf: NormalForm) -> str:
    return show(sp.diff(nf.fields[0], nf.space[0]))
