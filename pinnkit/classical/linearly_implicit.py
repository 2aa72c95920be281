"""Differences on a torus and extrapolated linearly implicit Euler steps: the periodic second opinion.

In    a NormalForm that `split_semilinear` can split.
Out   `PeriodicDifferenceLadder`: nodes and steps grow level by level.
Next  `refine` climbs it, where a solution of `SpectralLadder` is to be checked.

One step of M u' = L u + N solves (M / h - L) u+ = M u / h + N(t, u), constraints and all: nothing is
eliminated, so that this shares no step of `pencil.reduce_pencil`. Steps of H / 1, .., H / 6 are
extrapolated to order 6 (Hairer & Wanner II, IV.9). Derivatives are centred differences of order 12;
on a torus they are diagonal in Fourier modes, and the systems as small as the number of fields.
"""

from __future__ import annotations

import logging
import time
from typing import Any, final

import numpy as np

from pinnkit.classical.constraints import initial_modes, pencil
from pinnkit.classical.grid_approximation import GridApproximation
from pinnkit.classical.implicit import IntegrationError, OutOfTime
from pinnkit.classical.nonlinear import ModeMap, Nonlinear
from pinnkit.classical.semilinear import Semilinear
from pinnkit.classical.torus import Torus, from_modes
from pinnkit.ir.normal_form import NormalForm

__all__ = ["PeriodicDifferenceLadder"]

Array = np.ndarray
log = logging.getLogger(__name__)

STENCIL = 13  # nodes of the centred differences
ORDER = 6
MOST_RETRIES = 6
# Of the time span: steps that find fields without a rate at the start, and that only make the
# initial data satisfy the constraints, which hold for differences a little differently.
VANISHING_STEP, PROJECTING_STEP = 1e-7, 1e-12
STEP_UNIT = 16
GROWN = 1e6  # times the initial size: an instability, not a solution


@final
class PeriodicDifferenceLadder:
    """Nodes and steps, half as many again on each level."""

    def __init__(self, nf: NormalForm, problem: Semilinear) -> None:
        self.nf = nf
        self.problem = problem
        self.modes = 48 if len(nf.space) == 1 else 32
        self.steps = 32
        self.growth = 1.5 ** (1 + len(nf.space))

    def climb(self, deadline: float) -> tuple[GridApproximation, dict[str, Any]]:
        for attempt in range(MOST_RETRIES + 1):
            torus = Torus(self.nf, self.modes, STENCIL)
            try:
                times, history = _march(self.problem, torus, self.steps, deadline)
                break
            except IntegrationError:
                # The nonlinear part is explicit: its limit of stability is found by trying.
                if attempt == MOST_RETRIES:
                    raise
                self.steps *= 2
        approximation, quality = from_modes(torus, times, history)
        info = {"nodes": self.modes, "unknowns": history[0].size, "steps": self.steps, **quality}
        log.debug("level %s", info)
        self.modes = self.modes * 3 // 2
        self.steps = -(-self.steps * 3 // (2 * STEP_UNIT)) * STEP_UNIT
        return approximation, info


class _Euler:
    """Linearly implicit Euler steps of one size."""

    def __init__(
        self, torus: Torus, mass: Array, linear: Array, nonlinear: Nonlinear, h: float
    ) -> None:
        # Rows with a rate are multiplied by h, else vanishing steps would be badly conditioned.
        scale = np.where((np.abs(mass) > 0).any(axis=(0, 2)), h, 1.0)[:, None]
        # By least squares: gauges add rows to modes that have as many already.
        inverse = np.linalg.pinv(scale * (mass / h - linear)) * scale.T
        self.h = h
        self.nonlinear = nonlinear
        self.keep = ModeMap(inverse @ mass / h, torus)
        self.force = ModeMap(inverse, torus)

    def __call__(self, fields: Array, t: float) -> Array:
        return self.keep(fields) + self.force(self.nonlinear(fields, t))


def _march(problem: Semilinear, torus: Torus, steps: int, deadline: float) -> tuple[Array, Array]:
    """Times and Fourier modes (fields, k..) of every step."""
    nf = torus.nf
    assert nf.time is not None
    start, end = nf.bounds[nf.time]
    step = (end - start) / steps
    mass, linear = pencil(problem, torus)
    nonlinear = _nonlinear(problem, torus)
    eulers = [_Euler(torus, mass, linear, nonlinear, step / j) for j in range(1, ORDER + 1)]
    fields = _consistent(problem, torus, mass, linear, nonlinear)
    largest = GROWN * np.abs(fields).max()
    history = [fields]
    with np.errstate(all="ignore"):
        for k in range(steps):
            t = start + k * step
            table: list[Array] = []
            for j, euler in enumerate(eulers, start=1):
                value = fields
                for i in range(j):
                    value = euler(value, t + i * euler.h)
                # Aitken and Neville, in place: table[i] has one order more with each pass.
                previous, table_now = table, [value]
                for i, below in enumerate(previous, start=1):
                    table_now.append(table_now[-1] + (table_now[-1] - below) * (j - i) / i)
                table = table_now
            fields = table[-1]
            if not np.isfinite(fields).all() or np.abs(fields).max() > largest:
                raise IntegrationError(f"the solution grew beyond bounds near {nf.time} = {t:.6g}")
            if time.monotonic() > deadline:
                raise OutOfTime
            history.append(fields)
    return np.linspace(start, end, steps + 1), np.stack(history)


def _nonlinear(problem: Semilinear, torus: Torus) -> Nonlinear:
    """N as a function of all fields."""
    nonlinear = Nonlinear(problem, torus)
    m, e = len(problem.initial), len(nonlinear.active)
    one = np.broadcast_to(np.eye(m, dtype=complex), (int(np.prod(torus.shape)), m, m))
    nonlinear.prepare(ModeMap(one, torus), ModeMap(np.zeros((len(one), m, e)), torus))
    return nonlinear


def _consistent(
    problem: Semilinear, torus: Torus, mass: Array, linear: Array, nonlinear: Nonlinear
) -> Array:
    """All fields at the start: those without initial values from vanishing steps."""
    initial = initial_modes(problem, torus)
    moving = [i for i, value in enumerate(problem.initial) if value is not None]
    if len(moving) == len(initial):
        return initial
    nf = torus.nf
    assert nf.time is not None
    lower, upper = nf.bounds[nf.time]
    project, euler = (
        _Euler(torus, mass, linear, nonlinear, part * (upper - lower))
        for part in (PROJECTING_STEP, VANISHING_STEP)
    )
    initial[moving] = project.keep(initial)[moving]
    fields = initial
    # One field may follow from another that follows from the initial values.
    for _ in range(len(initial)):
        fields = euler.keep(initial) + euler.force(nonlinear(fields, lower))
        fields[moving] = initial[moving]
    return fields
