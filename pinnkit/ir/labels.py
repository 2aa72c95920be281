"""Along the characteristics: a transport problem written in labels (where a particle started).

In    a normal form and its `Transport`.
Out   `LabelForm`: a normal form whose unknowns are the displacement s and the state W over (t, x0), the
      map X = x0 + A(t) + s, and every physical derivative by the map's inverse Jacobian.
Next  `lower.lagrangian` evaluates it, `solvers.lagrangian_pinn` trains it.

With F = dX/dx0 and J = det F, grad u = F^-T grad_0 W; in one dimension u_x = W_x0 / J and
u_xx = W_x0x0 / J^2 - W_x0 J_x0 / J^3. Diffusion in labels, W_x0x0, is another equation: for Burgers
it is wrong by 4 to 14 per cent at t = 1. What has a closed form is no unknown: A(t) is the part of
the velocity that depends on time alone, W = u0(x0) where nothing acts on the state, and
X = x0 + A + a(u0(x0)) (t - t0) where the velocity depends on such states alone.

The same symbols stand for positions and labels: inside a `LabelForm`, x is the label x0.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy as sp

from pinnkit.declare.printing import show
from pinnkit.declare.symbols import make_field
from pinnkit.ir.characteristics import Transport, find_transport, initial_values
from pinnkit.ir.classify import is_affine
from pinnkit.ir.leaves import derivative_count, field_of, freeze, leaves, steps_of
from pinnkit.ir.normal_form import Condition, Equation, Face, NormalForm, Predicates
from pinnkit.ir.sampling import evaluate, sample_box

__all__ = ["LabelForm", "label_refusal", "to_labels"]

_SAMPLES = 512
_PERIODIC = 1e-9  # relative difference of a coefficient one period on
_OTHERWISE = "Use CausalPINN()."


@dataclass(frozen=True, eq=False)
class LabelForm:
    """A problem along its characteristics.

    `nf` holds the unknowns over (t, labels), none where everything has a closed form; `source` is
    the problem as declared. `position[j]` is X_j and `state[u]` is W, in the leaves of `nf`.
    `speeds[s]` is the size of ds/dt at the start, for scaling.
    """

    source: NormalForm
    nf: NormalForm
    position: tuple[sp.Expr, ...]
    state: Mapping[sp.Expr, sp.Expr]
    speeds: Mapping[sp.Expr, float]

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
    outside = [c for c in nf.space if c not in nf.periodic]
    if outside:
        return (
            f"characteristics enter and leave through the sides of {outside[0]}; so far they are "
            f"followed on periodic axes only. Use CausalPINN(), or declare Periodic(u, {outside[0]}) "
            "if nothing reaches the sides."
        )
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
    return None


def to_labels(nf: NormalForm) -> LabelForm:
    """The problem in labels; ValueError with `label_refusal` where there is no such form."""
    reason = label_refusal(nf)
    if reason is not None:
        raise ValueError(reason)
    transport = find_transport(nf)
    assert isinstance(transport, Transport) and nf.time is not None
    data = initial_values(nf)
    carried = {u for u in nf.fields if transport.rest[u] == 0}  # constant along characteristics
    state = {u: data[u] if u in carried else u for u in nf.fields}
    position: list[sp.Expr] = []
    speeds: dict[sp.Expr, float] = {}
    velocities: dict[sp.Expr, sp.Expr] = {}  # what is left for ds/dt
    for a, c in zip(transport.velocity, nf.space, strict=True):
        base, left = _known_drift(a, carried, data, nf)
        if left == 0:
            position.append(c + base)
            continue
        s = _displacement(c, nf)
        mean, size = _statistics(left, data, nf)
        left -= mean
        position.append(c + base + mean * (nf.time - nf.bounds[nf.time][0]) + s)
        velocities[s], speeds[s] = left, size
    form = LabelForm(nf, nf, tuple(position), state, speeds)
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
    return dataclasses.replace(form, nf=_normal_form(nf, unknown, equations, values))


def _known_drift(
    a: sp.Expr, carried: set[sp.Expr], data: Mapping[sp.Expr, sp.Expr], nf: NormalForm
) -> tuple[sp.Expr, sp.Expr]:
    """(closed-form displacement, what is left of the velocity) of one velocity component."""
    assert nf.time is not None
    start = sp.Float(nf.bounds[nf.time][0], 17)
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
    a: sp.Expr, data: Mapping[sp.Expr, sp.Expr], nf: NormalForm
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

    at_start = values({**spread, nf.time: np.full(_SAMPLES, nf.bounds[nf.time][0])})
    later = values(spread)
    mean, size = float(at_start.mean()), float(np.abs(later).max())
    if abs(mean) < 1e-6 * size:
        mean = 0.0
    rest = float(np.sqrt(np.mean((later - mean) ** 2)))
    return sp.Float(mean, 17) if mean else sp.S.Zero, max(rest, 1e-3 * size)


def _displacement(c: sp.Symbol, nf: NormalForm) -> sp.Expr:
    """A field for the displacement along c, of a name nobody has taken."""
    taken = {str(getattr(u, "func", u)) for u in nf.fields} | {s.name for s in nf.coords}
    name = f"s_{c.name}"
    while name in taken:
        name += "_"
    return make_field(name, nf.coords)


def _normal_form(
    source: NormalForm,
    unknown: tuple[sp.Expr, ...],
    equations: list[Equation],
    values: Mapping[sp.Expr, sp.Expr],
) -> NormalForm:
    """The label problem, made directly: as a declaration it has been checked already."""
    assert source.time is not None
    face = Face(source.time, "left", source.bounds[source.time][0])
    conditions = tuple(
        Condition("initial", u - v, face, (u,), f"start of {show(u)}", u, v)
        for u, v in values.items()
    )
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
        bounds=source.bounds,
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
