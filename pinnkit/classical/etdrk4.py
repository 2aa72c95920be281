"""Exponential time differencing on Fourier modes: periodic semilinear equations.

In    a NormalForm that `split_semilinear` can split.
Out   `SpectralLadder`: modes and steps grow level by level.
Next  `refine` climbs it; it shares neither the space nor the time discretisation with `ElementLadder`.

Cox & Matthews 2002 with the contour integrals of Kassam & Trefethen 2005 for the coefficients.
Systems are diagonalised wave number by wave number, after `constraints` has eliminated what has no rate.
The nonlinear part is dealiased by the 2/3 rule.
"""

from __future__ import annotations

import logging
import time
from typing import Any, final

import numpy as np

from pinnkit.classical.constraints import PencilError, Reduced, initial_modes, pencil, reduce_pencil
from pinnkit.classical.grid_approximation import GridApproximation
from pinnkit.classical.implicit import IntegrationError, OutOfTime
from pinnkit.classical.nonlinear import ModeMap, Nonlinear
from pinnkit.classical.semilinear import Semilinear
from pinnkit.classical.torus import Torus, from_modes
from pinnkit.ir.normal_form import NormalForm

__all__ = ["SpectralLadder"]

Array = np.ndarray
log = logging.getLogger(__name__)

CONTOUR_POINTS = 32
WORST_EIGENVECTORS = 1e8  # condition number beyond which L is taken as not diagonalisable
MOST_STORED = 1200  # time levels kept for dense output
MOST_NUMBERS = 2**23  # modes kept of all levels together: 128 MiB, in values a multiple
MOST_RETRIES = 7
SHORT_OF_MODES = 1e-7
CONTRADICTION = 1e-6  # of N: what may break the conditions of compatibility
STEP_UNIT = 32  # steps come in multiples of it, so that stored instants can be thinned by halves


@final
class SpectralLadder:
    """Each level has more modes and more steps than the one before."""

    def __init__(self, nf: NormalForm, problem: Semilinear) -> None:
        self.nf = nf
        self.problem = problem
        self.modes = 64 if len(nf.space) == 1 else 24
        self.steps = 192 if len(nf.space) == 1 else 96
        self.growth = 3.0

    def climb(self, deadline: float) -> tuple[GridApproximation, dict[str, Any]]:
        for attempt in range(MOST_RETRIES + 1):
            torus = Torus(self.nf, self.modes)
            try:
                times, history = _march(self.problem, torus, self.steps, deadline)
                break
            except IntegrationError:
                # Too long steps make the nonlinear part unstable; that is no property of the problem.
                if attempt == MOST_RETRIES:
                    raise
                self._refine()
        approximation, quality = from_modes(torus, times, history)
        info = {"modes": self.modes, "unknowns": history[0].size, "steps": self.steps, **quality}
        log.debug("level %s", info)
        self._refine(quality["tail"])
        return approximation, info

    def _refine(self, tail: float = 0.0) -> None:
        """More of what is short: modes while the spectrum has a tail, steps otherwise; always both."""
        before = self.steps * self.modes ** len(self.nf.space)
        if tail > SHORT_OF_MODES:
            self.modes, self.steps = self.modes * 2, self.steps * 5 // 4
        else:
            # 64, 96, 128, 192, ...: lengths with small factors.
            self.modes = self.modes * 4 // 3 if self.modes % 3 == 0 else self.modes * 3 // 2
            self.steps *= 2
        self.steps = -(-self.steps // STEP_UNIT) * STEP_UNIT
        self.growth = self.steps * self.modes ** len(self.nf.space) / before


def _diagonalise(reduced: Reduced) -> tuple[Array, Array, Array]:
    """(eigenvalues (K, r), V, V^-1 (K, r, r)) of the generators."""
    generator = reduced.generator
    r = generator.shape[1]
    values = np.diagonal(generator, axis1=1, axis2=2)
    if not (generator - values[:, :, None] * np.eye(r)).any():
        identity = np.broadcast_to(np.eye(r, dtype=complex), generator.shape)
        return values, identity, identity
    values, vectors = np.linalg.eig(generator)
    if np.linalg.cond(vectors).max() > WORST_EIGENVECTORS:
        raise IntegrationError("the linear part cannot be diagonalised")
    return values, vectors, np.linalg.inv(vectors)


def _coefficients(eigenvalues: Array, h: float) -> tuple[Array, ...]:
    """exp(hL), exp(hL/2) and the four weights of ETDRK4, by means over circles around h L."""
    z = h * eigenvalues
    whole, half = np.exp(z), np.exp(z / 2)
    roots = np.exp(2j * np.pi * (np.arange(CONTOUR_POINTS) + 0.5) / CONTOUR_POINTS)
    q = np.zeros(z.shape, dtype=complex)
    f1, f2, f3 = np.zeros_like(q), np.zeros_like(q), np.zeros_like(q)
    for root in roots:
        r = z + root
        e = np.exp(r)
        q += (np.exp(r / 2) - 1) / r
        f1 += (-4 - r + e * (4 - 3 * r + r**2)) / r**3
        f2 += (2 + r + e * (r - 2)) / r**3
        f3 += (-4 - 3 * r - r**2 + e * (4 - r)) / r**3
    weights = [h / CONTOUR_POINTS * part for part in (q, f1, f2, f3)]
    if np.isrealobj(z):
        weights = [np.ascontiguousarray(part.real) for part in weights]
    return whole, half, *weights


class _Scheme:
    """The reduced problem on one torus, in eigen-coordinates s: s' = values s + N(t, s)."""

    def __init__(self, problem: Semilinear, torus: Torus) -> None:
        self.torus = torus
        try:
            mass, linear = pencil(problem, torus)
            self.nonlinear = Nonlinear(problem, torus)
            reduced = reduce_pencil(mass, linear, self.nonlinear.active)
        except PencilError as error:
            raise IntegrationError(str(error)) from error
        values, vectors, inverse = _diagonalise(reduced)
        if not np.imag(values).any():
            values = np.real(values)
        self.values = np.moveaxis(values, -1, 0).reshape(-1, *torus.shape)
        self.lift = ModeMap(reduced.lift @ vectors, torus)
        self.start = ModeMap(inverse @ reduced.start, torus)
        self.algebraic = ModeMap(reduced.algebraic, torus)
        self.force = ModeMap(inverse @ reduced.force, torus)
        self.checks = ModeMap(reduced.checks[:, :, self.nonlinear.active], torus)
        self.active = self.nonlinear.active
        self.nonlinear.prepare(self.lift, self.algebraic)

    def rates(self, s: Array, t: float) -> tuple[Array, Array]:
        """N in eigen-coordinates, and N of every row."""
        rows = self.nonlinear(s, t)
        return self.force(rows), rows

    def fields(self, s: Array, rows: Array) -> Array:
        """Modes of every field."""
        return self.lift(s) + self.algebraic(rows)


def _march(problem: Semilinear, torus: Torus, steps: int, deadline: float) -> tuple[Array, Array]:
    """Times and Fourier modes (fields, k..) of the stored levels."""
    nf = torus.nf
    assert nf.time is not None
    start, end = nf.bounds[nf.time]
    h = (end - start) / steps
    scheme = _Scheme(problem, torus)
    whole, half, q, f1, f2, f3 = _coefficients(scheme.values, h)
    f2 = 2 * f2
    stride = _stride(steps, len(nf.fields) * int(np.prod(torus.shape)))
    history = np.empty((steps // stride + 1, len(nf.fields), *torus.shape), dtype=complex)
    modes = scheme.start(initial_modes(problem, torus))
    with np.errstate(all="ignore"):
        for step in range(steps + 1):
            t = start + step * h
            n0, rows = scheme.rates(modes, t)
            if step % stride == 0:
                history[step // stride] = scheme.fields(modes, rows)
                _check(scheme, history[step // stride], rows, t)
                if time.monotonic() > deadline:
                    raise OutOfTime
            if step == steps:
                break
            base = half * modes
            a = base + q * n0
            na, _ = scheme.rates(a, t + h / 2)
            nb, _ = scheme.rates(base + q * na, t + h / 2)
            nc, _ = scheme.rates(half * a + q * (2 * nb - n0), t + h)
            modes = whole * modes + f1 * n0 + f2 * (na + nb) + f3 * nc
    return np.linspace(start, end, steps // stride + 1), history


def _stride(steps: int, size: int) -> int:
    """Steps between stored levels."""
    most = min(MOST_STORED, max(STEP_UNIT, MOST_NUMBERS // size))
    stride = max(1, -(-steps // most))
    while steps % stride:
        stride += 1
    return stride


def _check(scheme: _Scheme, fields: Array, rows: Array, t: float) -> None:
    if not np.isfinite(fields).all():
        raise IntegrationError(
            f"the solution grew beyond bounds near {scheme.torus.nf.time} = {t:.6g}"
        )
    if scheme.checks.empty:
        return
    active = rows[scheme.active]
    if np.abs(scheme.checks(active)).max() > CONTRADICTION * np.abs(active).max():
        raise IntegrationError(
            f"the equations contradict each other at {scheme.torus.nf.time} = {t:.6g}: their "
            "constraints leave no solution"
        )
