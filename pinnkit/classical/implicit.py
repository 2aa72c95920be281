"""Implicit Runge-Kutta for F(t, y, y') = 0, algebraic rows included, with dense output.

In    a `System`, an initial state, a tolerance and a tableau.
Out   `TimeGrid`: step ends and the state at the nodes of a polynomial per step.
Next  `approximation` turns it into functions; `refine` compares levels.

Every step is a collocation polynomial; its stages solve F = 0 by simplified Newton, decoupled by
the eigenvectors of A^-1 (Hairer & Wanner II, IV.8). The step is chosen so that the *polynomial*,
not only its end, is within the tolerance: what is returned is the polynomial, and its tail is an
error measure that also sees algebraic unknowns. Its ends are more accurate than that.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sps

from pinnkit.classical.basis import PiecewiseBasis, lagrange_rows
from pinnkit.classical.discretise import Frame, System
from pinnkit.classical.linear_algebra import SingularMatrixError, factorise
from pinnkit.classical.tableaux import Tableau

__all__ = ["IntegrationError", "OutOfTime", "TimeGrid", "consistent_start", "integrate"]

Array = np.ndarray
log = logging.getLogger(__name__)

MAX_NEWTON = 10
LARGE = 400
SMALLEST_STEP = 1e-13  # of the time span
LARGEST = 1e150  # squares must not overflow
MOST_REJECTIONS = 14  # in a row, after the first accepted step


@dataclass(frozen=True, eq=False)
class TimeGrid:
    """States at the nodes of one polynomial per step; neighbouring steps share a node."""

    breaks: Array  # (steps + 1,)
    dense: Array  # nodes in [0, 1] of each step
    states: Array  # (steps * (len(dense) - 1) + 1, size)

    @property
    def basis(self) -> PiecewiseBasis:
        width = len(self.dense)
        steps = len(self.breaks) - 1
        return PiecewiseBasis(
            breaks=self.breaks,
            centre=(self.breaks[1:] + self.breaks[:-1]) / 2,
            half=np.diff(self.breaks) / 2,
            nodes=2 * self.dense - 1,
            index=np.arange(steps)[:, None] * (width - 1) + np.arange(width),
            size=steps * (width - 1) + 1,
        )


class OutOfTime(Exception):
    """The time limit came before the end of the integration."""


class IntegrationError(Exception):
    """Steps became too small: the solution ceases to exist, is not smooth, or the grid is too coarse.

    `partial` is the solution up to there, if any: it shows where the grid is too coarse.
    """

    def __init__(self, message: str, partial: TimeGrid | None = None) -> None:
        super().__init__(message)
        self.partial = partial


class _Norm:
    """Largest over the fields of the root mean square, in units of the largest seen so far."""

    def __init__(self, system: System, floors: Array) -> None:
        self.slices = [system.field_slice(i) for i in range(len(system.nf.fields))]
        weights = [system.nodal_weights(i) for i in range(len(system.nf.fields))]
        self.weights = [w / w.sum() for w in weights]
        self.scales = np.maximum(floors, 1e-300)

    def sizes(self, y: Array) -> Array:
        """Per field, the largest root mean square over the columns of y."""
        return np.array(
            [
                np.sqrt((w @ (y[s] ** 2)).max())
                for s, w in zip(self.slices, self.weights, strict=True)
            ]
        )

    def grow(self, y: Array) -> None:
        self.scales = np.maximum(self.scales, self.sizes(y))

    def __call__(self, y: Array) -> float:
        value = float((self.sizes(y.reshape(y.shape[0], -1)) / self.scales).max())
        return value if np.isfinite(value) else np.inf


class _Newton:
    """The decoupled linear systems of one step size and one Jacobian."""

    def __init__(self, tableau: Tableau, j: sps.csc_matrix, m: sps.csc_matrix, h: float) -> None:
        self.tableau = tableau
        self.solves = []
        for i in tableau.solved:
            value = tableau.eigenvalues[i] / h
            real = abs(value.imag) < 1e-9 * abs(value)
            matrix = m * value.real + j if real else m * value + j
            self.solves.append(factorise(sps.csc_matrix(matrix)))

    def correct(self, residual: Array) -> Array:
        """-(W (x) M / h + I (x) J)^-1 residual, (size, s)."""
        table = self.tableau
        hat = residual @ table.inverse_vectors.T
        out = np.zeros(residual.shape)
        for i, pair, solve in zip(table.solved, table.paired, self.solves, strict=True):
            if i == pair:
                out += np.outer(solve(np.real(hat[:, i])), np.real(table.vectors[:, i]))
            else:
                out += 2 * np.real(np.outer(solve(hat[:, i]), table.vectors[:, i]))
        return -out


def integrate(
    system: System,
    y: Array,
    span: tuple[float, float],
    tol: float,
    tableau: Tableau,
    *,
    deadline: float,
    floors: Array | None = None,
    max_step: float | None = None,
    first_step: float | None = None,
    most_steps: int | None = None,
    newton_tol: float | None = None,
    stops: Sequence[float] = (),
) -> TimeGrid:
    """Integrate from span[0] to span[1].

    `tol` is relative to the largest size each field has had; `floors` (per field) keeps fields that
    start from zero from being resolved to rounding. `deadline` is on `time.monotonic`. No step crosses
    any of `stops`: between them the data are resolved by single steps.
    """
    t, end = span
    length = end - t
    count = len(system.nf.fields)
    norm = _Norm(system, np.zeros(count) if floors is None else floors)
    norm.grow(y[:, None])
    if floors is None:
        norm.scales = _first_scales(system, y, span, tableau, norm)
    h = min(first_step or 1e-3 * length, length)
    longest = max_step or length / 4
    breaks, states = [t], [y]
    last: tuple[float, Array] | None = None  # step and values of the polynomial before
    jacobian = None
    newton: _Newton | None = None
    newton_h = 0.0
    degree = len(tableau.dense)
    rejected = 0
    ahead = [*(s for s in sorted(stops) if t < s < end - 1e-12 * length), end]
    while t < end - 1e-12 * length:
        if time.monotonic() > deadline:
            raise OutOfTime
        too_many = most_steps is not None and len(breaks) > most_steps + len(stops)
        if h < SMALLEST_STEP * length or rejected > MOST_REJECTIONS or too_many:
            partial = TimeGrid(np.array(breaks), tableau.dense, np.array(states))
            raise IntegrationError(
                f"no step is small enough near {system.nf.time} = {t:.6g}",
                partial if len(breaks) > 1 else None,
            )
        # The rest in equal parts, so that the last step is not a sliver.
        left = ahead[0] - t
        step = left if left <= h * 1.0001 else left / np.ceil(left / h) if left < 2 * h else h
        frame = system.frame(t + tableau.c * step)
        guess = _predict(tableau, y, step, last)
        if jacobian is None:
            at = system.frame(np.array([t + step * tableau.c[len(tableau.c) // 2]]))
            middle = guess[:, len(tableau.c) // 2]
            rate = (guess - y[:, None]) @ tableau.inverse[len(tableau.c) // 2] / step
            jacobian = system.jacobian(at, middle, rate)
            newton = None
        try:
            if newton is None or abs(step - newton_h) > 1e-10 * step:
                newton = _Newton(tableau, *jacobian, step)
                newton_h = step
            stages, contraction = _solve_stages(
                system, frame, y, guess, step, tableau, newton, norm, newton_tol or 1e-2 * tol
            )
        except SingularMatrixError:
            stages, contraction = None, np.inf
        if stages is None:
            h = step / 4
            last = None
            rejected += len(breaks) > 1
            jacobian = jacobian if system.steady_jacobian else None
            continue
        values = np.concatenate([y[:, None], stages[:, list(tableau.kept)]], axis=1)
        error = _tail(tableau, values, norm)
        factor = 0.85 * (tol / max(error, 1e-30)) ** (1.0 / degree)
        if not np.isfinite(error) or error > 2.0 * tol:
            rejected += len(breaks) > 1
            h = step * float(np.clip(factor, 0.1, 0.7)) if np.isfinite(error) else step / 10
            jacobian = jacobian if system.steady_jacobian else None
            continue
        t = ahead.pop(0) if step == left else t + step
        y = values[:, -1]
        rejected = 0
        norm.grow(values)
        breaks.append(t)
        states.extend(values[:, 1:].T)
        if np.abs(y).max() > LARGEST:
            raise IntegrationError(
                f"the solution grew beyond bounds near {system.nf.time} = {t:.6g}",
                TimeGrid(np.array(breaks), tableau.dense, np.array(states)),
            )
        last = (step, values)
        # Factorisations of large systems are worth more than a few longer steps.
        if factor > (2.0 if system.size > LARGE else 1.3) or factor < 0.9:
            h = step * float(np.clip(factor, 0.3, 4.0))
        else:
            h = step  # unchanged steps keep their factorisation
        h = min(h, longest)
        if not system.steady_jacobian and contraction > (0.1 if system.size > LARGE else 1e-3):
            jacobian = None
    return TimeGrid(np.array(breaks), tableau.dense, np.array(states))


def _first_scales(
    system: System, y: Array, span: tuple[float, float], tableau: Tableau, norm: _Norm
) -> Array:
    """Sizes of the fields, for those that start from zero taken from a short trial step."""
    scales = norm.scales
    step = 1e-3 * (span[1] - span[0])
    frame = system.frame(span[0] + tableau.c * step)
    guess = np.repeat(y[:, None], tableau.stages, axis=1)
    try:
        at = system.frame(np.array([span[0] + step]))
        newton = _Newton(tableau, *system.jacobian(at, y, np.zeros_like(y)), step)
        # One correction only: the size is wanted, not the solution.
        guess = guess + newton.correct(system.residual(frame, guess, np.zeros_like(guess)))
        sizes = np.nan_to_num(norm.sizes(guess), posinf=0.0)
        # "From zero" is from rounding errors: the start has been made to satisfy the conditions.
        scales = np.where(sizes > 1e6 * scales, sizes, scales)
    except SingularMatrixError:
        log.debug("no trial step: singular matrix")
    return np.maximum(scales, 1e-8 * scales.max() + 1e-300)


def _predict(tableau: Tableau, y: Array, step: float, last: tuple[float, Array] | None) -> Array:
    """Stages guessed from the polynomial of the step before."""
    if last is None or step > 2.5 * last[0]:
        return np.repeat(y[:, None], tableau.stages, axis=1)
    ahead = 1.0 + tableau.c * step / last[0]
    return last[1] @ lagrange_rows(tableau.dense, ahead).T


def _solve_stages(
    system: System,
    frame: Frame,
    y: Array,
    guess: Array,
    step: float,
    tableau: Tableau,
    newton: _Newton,
    norm: _Norm,
    goal: float,
) -> tuple[Array | None, float]:
    """(stages or None where Newton fails, worst contraction seen)."""
    stages = guess.copy()
    before = np.inf
    worst = 0.0
    goal = max(goal, 1e-13)
    for iteration in range(MAX_NEWTON):
        rate = (stages - y[:, None]) @ tableau.inverse.T / step
        change = newton.correct(system.residual(frame, stages, rate))
        size = norm(change)
        if not np.isfinite(size):
            return None, np.inf
        stages += change
        ratio = size / before if iteration else 0.0
        worst = max(worst, ratio)
        if system.steady_jacobian or size * (ratio / (1 - ratio) if 0 < ratio < 1 else 1.0) <= goal:
            return stages, worst
        if iteration and ratio > 0.9 and size > goal:
            return None, np.inf
        before = size
    return None, np.inf


def _tail(tableau: Tableau, values: Array, norm: _Norm) -> float:
    """Estimate of what the polynomial leaves out, from the decay of its Legendre coefficients."""
    coefficients = values @ tableau.legendre.T
    last, second = norm(coefficients[:, -1]), norm(coefficients[:, -2])
    third = norm(coefficients[:, -3]) if coefficients.shape[1] > 3 else second
    if last < 1e-15:
        return last
    # Over two degrees as well: the parity of the solution may empty every other coefficient.
    ratio = max(last / max(second, 1e-300), np.sqrt(last / max(third, 1e-300)))
    return last * min(1.0, ratio)


def consistent_start(system: System, y: Array, t: float, length: float) -> Array:
    """Make the state satisfy its algebraic rows: one implicit Euler step of vanishing length.

    Collocation rows keep the initial values at the Gauss points; conditions and seams are then
    exact, so the first polynomial does not start with a jump where data disagree at a corner.
    """
    delta = 1e-14 * length
    frame = system.frame(np.array([t + delta]))
    new = y.copy()
    for _ in range(8):
        rate = (new - y) / delta
        j, m = system.jacobian(frame, new, rate)
        try:
            solve = factorise(sps.csc_matrix(m / delta + j))
        except SingularMatrixError:
            # Conditions that bind another field than they name (first-order systems): the steps
            # themselves, of finite length, can deal with that.
            return y
        change = solve(system.residual(frame, new[:, None], rate[:, None])[:, 0])
        new = new - change
        if not np.isfinite(new).all():
            raise IntegrationError("the conditions at the start cannot be satisfied")
        if system.steady_jacobian or np.abs(change).max() <= 1e-12 * (1.0 + np.abs(new).max()):
            break
    return new
