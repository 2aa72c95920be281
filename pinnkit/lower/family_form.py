"""The form of every member of a family: u = A + B v, exact at the start and at Dirichlet walls.

In    a `PDEFamily` in time and one space dimension, a few of its draws.
Out   `FamilyForm`: A for given inputs, B, which conditions hold by construction, features for a network.
Next  `lower.family_basis` multiplies learned functions by B; `solvers.hard_constraint_moe` finds v.

With tau = (t - t0) / T and the sides x = a, b, at a distance d:

    A = u0(x) + sum over walls of (g(t) - u0(wall)) shape(t, d),    B = clock(t, x) prod over walls of f(t, d).

Where data fit together shape and f are linear in d and clock = tau. Where a wall or an outflow contradicts
the start, a layer leaves it, of width sqrt(4 D t). No smooth function follows it, so there
E = erfc(d / sqrt(4 D t)) is the shape, f = 1 - E, and E is added to the clock: A and B then have the layer's
own scale at every time, and the condition at the wall holds, too, from the first moment on. D is the
largest diffusivity at the corner, once and a half: tails may be shorter than E's, not longer.

On a periodic axis there are no walls, and A = u0(x) would keep waves that die within a moment, for the
learned functions to take away again. Where the start is given by its waves, each dies away in A as it
would by diffusion alone: A = sum_k c_k exp(-D k^2 t) e^(i k x), D the smallest diffusivity of the draws.

Neumann and Robin conditions are not built in; they stay in the residual.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy as sp

from pinnkit.declare.expansion import (
    AppliedExpansion,
    DecayAxis,
    Expansion,
    FourierAxis,
    expanded,
)
from pinnkit.declare.family import PDEFamily
from pinnkit.ir.leaves import field_of, freeze, settle, steps_of
from pinnkit.ir.normal_form import Condition, NormalForm

__all__ = ["FamilyForm", "family_refusal", "make_family_form", "plain_start"]

JUMP = 1e-8  # of the data: smaller mismatches at a corner are rounding
WIDER = 1.5  # the layer's diffusivity over that of the equation
START = 1e-12  # of the time span: layers start this early, and are finite at the start
WAVES = "waves"  # beside the sides: what diffuses on a periodic axis
HARMONICS = 3  # of a periodic axis among the features

Sample = Mapping[Any, Any]


@dataclass(frozen=True)
class FamilyForm:
    """A, B, and what they make exact.

    Args:
        nf: Of the family.
        diffusivity: Of the layers, by side ("left", "right"); sides without one are absent. "waves": of
            those of a periodic start.
        factors: B, by field.
        features: Functions of the coordinates that a network sees, of size 1.
        held: Conditions that hold by construction.
        span: Of time, that B and the features cover.
    """

    nf: NormalForm
    diffusivity: Mapping[str, float]
    factors: tuple[sp.Expr, ...]
    features: tuple[sp.Expr, ...]
    held: tuple[Condition, ...]
    span: float

    @property
    def layered(self) -> bool:
        """Whether layers leave the corners."""
        return bool(_layers(self.diffusivity))

    def offset(self, sample: Sample) -> tuple[sp.Expr, ...]:
        """A by field, with what the sample gives in the place of the inputs; others stay symbols."""
        return tuple(_offset(self.nf, u, self.diffusivity, sample) for u in self.nf.fields)


def family_refusal(family: PDEFamily) -> str | None:
    """Why the form does not cover the family; None if it does."""
    nf = family.normal_form
    if nf.time is None or len(nf.space) != 1 or nf.region is not None:
        return "it handles evolution in one space dimension so far"
    if nf.parameters or nf.observations or nf.integrals:
        return "it does not handle unknown numbers, observations or integral conditions"
    x = nf.space[0]
    for u in nf.fields:
        if set(nf.field_coords(u)) != set(nf.coords):
            return f"{u} does not depend on all coordinates"
        if nf.predicates.time_order.get(u, 0) != 1:
            return f"{u} is not of first order in time"
        if plain_start(nf, u) is None:
            return f"the start of {u} is not given by a plain Initial({u}, value)"
    if len(nf.equations) != len(nf.fields):
        return f"there are {len(nf.equations)} equations for {len(nf.fields)} fields"
    if any(len(steps_of(d)) > 1 for d in nf.derivatives()):
        return "an equation has a derivative in both time and space"
    for c in nf.conditions:
        if c.face.where != sp.true or c.face.coord not in (nf.time, x):
            return f"{c.label} holds on a part of a side only"
    for side in ("left", "right"):
        at = [c for c in nf.conditions if c.face.coord == x and c.face.side == side]
        if len(at) > len(nf.fields):
            return f"there are {len(at)} conditions on the {side} for {len(nf.fields)} fields"
    return None


def make_family_form(
    family: PDEFamily, draws: Sequence[Sample], *, stages: int = 1, local: bool = False
) -> FamilyForm:
    """The form; corners are looked at with the draws.

    Args:
        family: One without a `family_refusal`.
        draws: Samples as `family.sample` gives.
        stages: Equal parts of time that are marched through; B and the features cover the first.
        local: Whether the network sees places within windows; then no feature depends on space.
    """
    nf = family.normal_form
    assert nf.time is not None
    low, high = nf.bounds[nf.time]
    span = (high - low) / stages
    read = [family.read_sample(s) for s in draws]
    diffusivity: dict[str, float] = {}
    if nf.periodic:
        found = [d for s in read if (d := _diffusivity(nf, "left", s)) is not None]
        if len(found) == len(read):
            diffusivity[WAVES] = min(found)
    for side in () if nf.periodic else ("left", "right"):
        if any(_contradicts(nf, side, s) for s in read):
            found = [d for s in read if (d := _diffusivity(nf, side, s)) is not None]
            if found:
                diffusivity[side] = WIDER * max(found)
    held = [c for c in nf.conditions if c.kind == "initial"]
    for u in nf.fields:
        held += _walls(nf, u).values()
    return FamilyForm(
        nf=nf,
        diffusivity=diffusivity,
        factors=tuple(_factor(nf, u, diffusivity, span) for u in nf.fields),
        features=_features(nf, diffusivity, span, local),
        held=tuple(held),
        span=span,
    )


def _features(
    nf: NormalForm, diffusivity: Mapping[str, float], span: float, local: bool
) -> tuple[sp.Expr, ...]:
    x = nf.space[0]
    low, high = nf.bounds[x]
    tau, share = _tau(nf, span), (x - sp.Float(low)) / sp.Float(high - low)
    time = sp.sqrt(tau + sp.Float(START)) if _layers(diffusivity) else tau
    features = [2 * time - 1]
    if local:
        return tuple(features)
    if x in nf.periodic:
        for k in range(1, HARMONICS + 1):
            features += [sp.cos(2 * sp.pi * k * share), sp.sin(2 * sp.pi * k * share)]
    else:
        features.append(2 * share - 1)
    for side, d in _layers(diffusivity):
        features += [2 * _layer(nf, side, d) - 1, 2 * _layer(nf, side, 4 * d) - 1]
    return tuple(features)


def _offset(
    nf: NormalForm, u: sp.Expr, diffusivity: Mapping[str, float], sample: Sample
) -> sp.Expr:
    x = nf.space[0]
    initial = plain_start(nf, u)
    assert initial is not None and initial.value is not None
    start = _put(initial.value, sample)
    if WAVES in diffusivity:
        return _decaying(nf, start, diffusivity[WAVES])
    walls = _walls(nf, u)
    total = start
    for side, c in walls.items():
        assert c.value is not None
        gap = _put(c.value, sample) - start.subs(x, sp.Float(c.face.value))
        ramp = 1 - _distance(nf, side) / _length(nf)
        if side not in diffusivity:
            shape = ramp
        else:
            shape = _layer(nf, side, diffusivity[side]) * (ramp if len(walls) == 2 else 1)
        total += gap * shape
    return total


def _decaying(nf: NormalForm, start: sp.Expr, diffusivity: float) -> sp.Expr:
    """A start given by its waves, each dying away as it would by diffusion alone; others stay as they are."""
    x, t = nf.space[0], nf.time
    assert t is not None
    if not isinstance(start, AppliedExpansion) or start.args != (x,):
        return start
    (axis,) = start.expansion.axes
    if not isinstance(axis, FourierAxis):
        return start
    wave = 2 * math.pi / axis.period
    rates = [diffusivity * (wave * k) ** 2 for k in range(axis.size // 2 + 1)]
    coefficients = np.zeros((axis.size, len(rates)))
    number = np.arange(axis.size)
    coefficients[number, (number + 1) // 2] = start.expansion.coefficients
    decay = DecayAxis(nf.bounds[t][0], tuple(rates))
    return expanded(start.stem, Expansion((axis, decay), coefficients), x, t)


def _factor(nf: NormalForm, u: sp.Expr, diffusivity: Mapping[str, float], span: float) -> sp.Expr:
    clock = _tau(nf, span)
    for side, d in _layers(diffusivity):
        clock += _layer(nf, side, d)
    out = clock
    for side in _walls(nf, u):
        layered = side in diffusivity
        out *= 1 - _layer(nf, side, diffusivity[side]) if layered else (
            2 * _distance(nf, side) / _length(nf)
        )  # fmt: skip
    return out


def _layers(diffusivity: Mapping[str, float]) -> list[tuple[str, float]]:
    return [(side, d) for side, d in diffusivity.items() if side != WAVES]


def _layer(nf: NormalForm, side: str, diffusivity: float) -> sp.Expr:
    """E = erfc(d / sqrt(4 D t)), t a little above zero."""
    assert nf.time is not None
    low, high = nf.bounds[nf.time]
    elapsed = nf.time - sp.Float(low) + sp.Float(START * (high - low))
    return sp.erfc(_distance(nf, side) / sp.sqrt(4 * sp.Float(diffusivity) * elapsed))


def _tau(nf: NormalForm, span: float) -> sp.Expr:
    assert nf.time is not None
    return (nf.time - sp.Float(nf.bounds[nf.time][0])) / sp.Float(span)


def _distance(nf: NormalForm, side: str) -> sp.Expr:
    x = nf.space[0]
    low, high = nf.bounds[x]
    return x - sp.Float(low) if side == "left" else sp.Float(high) - x


def _length(nf: NormalForm) -> sp.Expr:
    low, high = nf.bounds[nf.space[0]]
    return sp.Float(high - low)


def plain_start(nf: NormalForm, u: sp.Expr) -> Condition | None:
    """The condition that gives all of a field's start, if there is one."""
    for c in nf.conditions:
        if (
            c.kind == "initial"
            and c.target == u
            and c.value is not None
            and c.face.where == sp.true
        ):
            return c
    return None


def _walls(nf: NormalForm, u: sp.Expr) -> dict[str, Condition]:
    """The plain Dirichlet conditions of a field, by side."""
    x = nf.space[0]
    return {
        c.face.side: c
        for c in nf.conditions
        if c.kind == "dirichlet" and c.target == u and c.face.coord == x and c.value is not None
    }


def _put(expr: sp.Expr, sample: Sample) -> sp.Expr:
    return settle(sp.sympify(expr).xreplace({k: sp.sympify(v) for k, v in sample.items()}))


def _contradicts(nf: NormalForm, side: str, sample: Sample) -> bool:
    """Whether the start violates a condition on this side."""
    x, t = nf.space[0], nf.time
    assert t is not None
    starts = {u: _put(_start_value(nf, u), sample) for u in nf.fields}
    for c in nf.conditions:
        if c.face.coord != x or c.face.side != side:
            continue
        place: Any = {x: sp.Float(c.face.value), t: sp.Float(nf.bounds[t][0])}
        frozen = freeze([_put(c.residual, sample)])
        values: Any = {
            symbol: _derivative(starts[field_of(leaf)], leaf).subs(place)
            for leaf, symbol in frozen.symbols.items()
        }
        gap = _number(frozen.exprs[0].subs(values), place)
        size = max(
            [abs(v) for v in (_number(e, place) for e in values.values()) if v is not None] + [0.0]
        )
        if gap is not None and abs(gap) > JUMP * max(size, abs(gap)):
            return True
    return False


def _derivative(expr: sp.Expr, leaf: sp.Expr) -> sp.Expr:
    """The same derivative of an expression as the leaf is of its field."""
    steps = steps_of(leaf)  # sympy's diff without any would differentiate by the only symbol
    return sp.diff(expr, *steps) if steps else expr


def _start_value(nf: NormalForm, u: sp.Expr) -> sp.Expr:
    initial = plain_start(nf, u)
    assert initial is not None and initial.value is not None
    return initial.value


def _diffusivity(nf: NormalForm, side: str, sample: Sample) -> float | None:
    """The largest -(dF/du_xx) / (dF/du_t) at the corner over states between start and wall."""
    x, t = nf.space[0], nf.time
    assert t is not None
    low, high = nf.bounds[x]
    place = {x: sp.Float(low if side == "left" else high), t: sp.Float(nf.bounds[t][0])}
    found: list[float] = []
    for u in nf.fields:
        start = _number(_put(_start_value(nf, u), sample), place)
        wall = _walls(nf, u).get(side)
        ends = [
            start,
            None if wall is None else _number(_put(wall.value or sp.S.Zero, sample), place),
        ]
        known = [e for e in ends if e is not None]
        for state in [*known, sum(known) / max(len(known), 1)]:
            for equation in nf.equations:
                frozen = freeze([_put(equation.residual, sample)])
                rate = frozen.symbols.get(sp.Derivative(u, t))
                second = frozen.symbols.get(sp.Derivative(u, (x, 2)))
                if rate is None or second is None:
                    continue
                values: Any = {
                    s: sp.Float(state) if leaf == u else sp.S.Zero
                    for leaf, s in frozen.symbols.items()
                }
                numbers = [
                    _number(sp.diff(frozen.exprs[0], s).subs(values), place) for s in (rate, second)
                ]
                if None not in numbers and numbers[0]:
                    found.append(-numbers[1] / numbers[0])  # type: ignore[operator]
    positive = [d for d in found if math.isfinite(d) and d > 0]
    return max(positive) if positive else None


def _number(expr: Any, place: Mapping[Any, Any]) -> float | None:
    value = sp.sympify(expr).subs(place).evalf()
    return float(value) if value.is_real and value.is_finite else None
