"""Checks of type: no growth without bound for short waves, no eigenvalue problem.

In    equations, placed conditions.
Out   nothing, or a refusal naming the term that makes it ill-posed.
Next  `ir.checks_conditions`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import sympy as sp

from pinnkit.declare.printing import refusal, show
from pinnkit.ir.classify import is_affine
from pinnkit.ir.collect_symbols import Symbols
from pinnkit.ir.leaves import derivative_count, field_of, freeze, leaves
from pinnkit.ir.linearise import Linearised, determinant, initial_state, scaled_roots
from pinnkit.ir.normal_form import Equation, Predicates
from pinnkit.ir.place_conditions import Placed
from pinnkit.ir.sampling import sample_box

__all__ = ["check_eigenvalue", "check_wellposed"]

_POINTS = 7
# Real part of a growing wave relative to its frequency. With constant coefficients everything above
# rounding counts. Frozen variable coefficients tell the truth about the principal part only: in
# i u_t + (k(x) u_x)_x = 0 the term k'(x) u_x alone would seem to grow.
_GROWTH = 1e-6
_PRINCIPAL_GROWTH = 1e-2


def check_eigenvalue(equations: Sequence[Equation], placed: Placed, symbols: Symbols) -> None:
    """Refuse homogeneous linear steady problems with an unknown number in the equation."""
    residuals = [e.residual for e in equations]
    numbers = [p for p in symbols.parameters if any(r.has(p) for r in residuals)]
    if not numbers or placed.observations:
        return
    if symbols.time is not None and any(
        derivative_count(lf, symbols.time) for lf in leaves(*residuals)
    ):
        return
    everything = residuals + [c.residual for c in placed.conditions]
    everything += [i.integrand - i.equals for i in placed.integrals if not i.gauge]
    linear = [r for r in everything if is_affine(r)]
    # A normalisation such as Integral(u**2, ...) = 1 belongs to the eigenvalue problem too.
    for r in residuals + [c.residual for c in placed.conditions]:
        if r not in linear or not _is_homogeneous(r):
            return
    raise refusal(
        f"{equations[0].label}, {show(residuals[0])} with the unknown number {numbers[0]}",
        f"this is an eigenvalue problem: it is linear and homogeneous, so zero solves it for every "
        f"{numbers[0]}",
        f"give {numbers[0]} a value and add a source or an inhomogeneous condition; eigenvalue "
        "problems are not supported",
    )


def _is_homogeneous(residual: sp.Expr) -> bool:
    frozen = freeze([residual])
    zero = frozen.exprs[0].xreplace(dict.fromkeys(frozen.symbols.values(), sp.S.Zero))
    return sp.expand(zero) == 0


def check_wellposed(
    equations: Sequence[Equation], placed: Placed, predicates: Predicates, symbols: Symbols
) -> None:
    """Refuse evolution equations whose short waves grow without bound (Petrovskii's condition).

    Sampled at the initial state where the coefficients depend on the fields, because a nonlinear
    equation can be well posed at the states it lives in and ill-posed elsewhere.
    """
    time = symbols.time
    if time is None or not predicates.evolution or not symbols.space:
        return
    linearised = Linearised(equations, placed.split.fields, symbols)
    if not linearised.square:
        return
    points = sample_box(symbols.coords, symbols.bounds, _POINTS)
    points[time] = np.full(_POINTS, symbols.bounds[time][0])
    state, unknown = initial_state(linearised.state_leaves, points, placed, symbols)
    if unknown:
        if any(predicates.time_order.get(field_of(lf), 0) for lf in unknown):
            return  # the state to linearise at is not given
        for lf in unknown:
            state[lf] = np.ones(_POINTS)
    if not linearised.depends_on_coords and not state:
        points = {c: v[:1] for c, v in points.items()}
    elif linearised.depends_on_coords:
        # Coefficients may change type later in time: look there too, at the same states.
        late = sample_box([time], symbols.bounds, _POINTS, seed=3)[time]
        points = {c: np.concatenate([v, v]) for c, v in points.items()}
        points[time][_POINTS:] = late
        state = {lf: np.concatenate([v, v]) for lf, v in state.items()}
    numbers = linearised.coefficients(points, state)
    for column in numbers.T:
        if not np.isfinite(column).all():
            continue
        direction = _growing_direction(linearised, column, symbols)
        if direction is not None:
            _refuse_growth(equations, direction, predicates, symbols)


def _growing_direction(
    linearised: Linearised, numbers: np.ndarray, symbols: Symbols
) -> sp.Symbol | None:
    """A space coordinate along which waves grow the faster the shorter they are."""
    time = symbols.time
    assert time is not None
    variable = linearised.depends_on_coords or linearised.state_leaves
    share = _PRINCIPAL_GROWTH if variable else _GROWTH
    for along in symbols.space:
        rates = []
        for size in (1e3, 1e5):
            frequencies: dict[sp.Symbol, complex] = {}
            for c in symbols.space:
                low, high = symbols.bounds[c]
                unit = 2 * np.pi / (high - low)
                frequencies[c] = 1j * unit * (size if c == along else 0.37)
            roots = scaled_roots(determinant(linearised.polynomials(numbers, time, frequencies)))
            growing = [r for r in roots if r.real > share * abs(r)]
            rates.append(max((r.real for r in growing), default=0.0))
        # Bounded growth (a reaction term) is fine; growth with the wave number is not.
        duration = symbols.bounds[time][1] - symbols.bounds[time][0]
        if rates[1] > 2.0 * rates[0] and rates[1] * duration > 50.0:
            return along
    return None


def _refuse_growth(
    equations: Sequence[Equation],
    along: sp.Symbol,
    predicates: Predicates,
    symbols: Symbols,
) -> None:
    time = symbols.time
    candidates = [
        (derivative_count(lf, along), e, lf)
        for e in equations
        for lf in leaves(e.residual)
        if derivative_count(lf, along)
    ]
    _, equation, leaf = max(candidates, key=lambda c: c[0])
    second = max(predicates.time_order.values()) >= 2
    why = (
        f"an elliptic equation with initial conditions: give conditions on both ends of {time} by "
        "calling it a space coordinate"
        if second
        else "a heat equation run backwards: change the sign, or reverse time"
    )
    raise refusal(
        f"{equation.label}, {show(equation.residual)} = 0",
        f"it is ill-posed: waves along {along} grow without bound the shorter they are, because of "
        f"the sign of the term with {show(leaf)}",
        f"this behaves like {why}",
    )
