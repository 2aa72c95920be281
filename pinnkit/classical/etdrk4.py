"""Exponential time differencing on Fourier modes: periodic semilinear equations.

In    a NormalForm that `split_semilinear` can split.
Out   `SpectralLadder`: modes and steps grow level by level.
Next  `refine` climbs it; it shares neither the space nor the time discretisation with `ElementLadder`.

Cox & Matthews 2002 with the contour integrals of Kassam & Trefethen 2005 for the coefficients.
Systems are diagonalised wave number by wave number. The nonlinear part is dealiased by the 2/3 rule.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np

from pinnkit.classical.approximation import FieldGrid, GridApproximation
from pinnkit.classical.basis import stencil_basis
from pinnkit.classical.implicit import IntegrationError, OutOfTime
from pinnkit.classical.semilinear import Semilinear
from pinnkit.ir.normal_form import NormalForm

__all__ = ["SpectralLadder", "diagonalise"]

Array = np.ndarray
log = logging.getLogger(__name__)

CONTOUR_POINTS = 32
WORST_EIGENVECTORS = 1e8  # condition number beyond which L is taken as not diagonalisable
MOST_STORED = 1200  # time levels kept for dense output
MOST_RETRIES = 6
SHORT_OF_MODES = 1e-7


class SpectralLadder:
    """Each level has more modes and more steps than the one before."""

    def __init__(self, nf: NormalForm, problem: Semilinear) -> None:
        self.nf = nf
        self.problem = problem
        self.modes = 64 if len(nf.space) == 1 else 24
        self.steps = 200
        self.growth = 3.0

    def climb(self, deadline: float) -> tuple[GridApproximation, dict[str, Any]]:
        for attempt in range(MOST_RETRIES + 1):
            torus = _Torus(self.nf, self.modes)
            try:
                times, history = _march(self.nf, self.problem, torus, self.steps, deadline)
                break
            except IntegrationError:
                # Too long steps make the nonlinear part unstable; that is no property of the problem.
                if attempt == MOST_RETRIES:
                    raise
                self._refine()
        info = {"modes": self.modes, "unknowns": history[0].size, "steps": self.steps}
        log.debug("level %s", info)
        approximation = _approximation(self.nf, torus, times, history)
        self._refine(_spectral_tail(torus, history))
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
        self.growth = self.steps * self.modes ** len(self.nf.space) / before


def _spectral_tail(torus: _Torus, history: list[Array]) -> float:
    """Largest amplitude near the cut relative to the largest of all, over the stored levels."""
    size = np.max([np.abs(modes) for modes in history[:: max(1, len(history) // 50)]], axis=(0, 1))
    edge = size[torus.mask & ~torus.inner]
    return float(edge.max(initial=0.0) / max(float(size.max()), 1e-300))


class _Torus:
    """Equally spaced nodes, wave numbers and the 2/3 mask."""

    def __init__(self, nf: NormalForm, modes: int) -> None:
        self.modes = modes
        d = len(nf.space)
        self.axes = tuple(range(1, d + 1))
        self.shape = (modes,) * d
        self.lengths = [nf.bounds[c][1] - nf.bounds[c][0] for c in nf.space]
        self.nodes = [
            nf.bounds[c][0] + length * np.arange(modes) / modes
            for c, length in zip(nf.space, self.lengths, strict=True)
        ]
        self.numbers = []
        self.mask = np.ones(1, dtype=bool)  # kept by the 2/3 rule
        self.inner = np.ones(1, dtype=bool)  # those well inside the cut
        for axis, length in enumerate(self.lengths):
            last = axis == d - 1
            integers = (
                np.fft.rfftfreq(modes, 1 / modes) if last else np.fft.fftfreq(modes, 1 / modes)
            )
            shape = [1] * d
            shape[axis] = -1
            self.numbers.append((2j * np.pi / length * integers).reshape(shape))
            self.mask = self.mask & (np.abs(integers) < modes / 3).reshape(shape)
            self.inner = self.inner & (np.abs(integers) < 0.8 * modes / 3).reshape(shape)
        self.meshes = np.meshgrid(*self.nodes, indexing="ij")

    def symbol(self, alpha: list[int]) -> Array:
        """(i k)^alpha; the Nyquist mode carries no odd derivative."""
        out = np.ones((1,) * len(alpha), dtype=complex)
        for number, count in zip(self.numbers, alpha, strict=True):
            factor = number**count
            if count % 2:
                factor = np.where(np.abs(number) >= np.abs(number).max() * (1 - 1e-12), 0, factor)
            out = out * factor
        return out

    def forward(self, values: Array) -> Array:
        return np.fft.rfftn(values, axes=self.axes)

    def backward(self, modes: Array) -> Array:
        return np.fft.irfftn(modes, s=self.shape, axes=self.axes)


def _space_alpha(nf: NormalForm, alpha: tuple[int, ...]) -> list[int]:
    return [alpha[nf.coords.index(c)] for c in nf.space]


def diagonalise(
    nf: NormalForm, problem: Semilinear, torus: _Torus
) -> tuple[Array, Array, Array] | None:
    """(eigenvalues (m, k..), V, V^-1 (m, m, k..)) of L per wave number; None if not diagonalisable."""
    m = len(nf.fields)
    shape = torus.mask.shape
    matrix = np.zeros((m, m, *shape), dtype=complex)
    for i, row in enumerate(problem.linear):
        for coefficient, leaf in row:
            matrix[i, leaf.field] += coefficient * torus.symbol(_space_alpha(nf, leaf.alpha))
    off_diagonal = [matrix[i, j] for i in range(m) for j in range(m) if i != j]
    if not any(np.any(entry) for entry in off_diagonal):
        identity = np.zeros_like(matrix)
        identity[np.arange(m), np.arange(m)] = 1.0
        return np.stack([matrix[i, i] for i in range(m)]), identity, identity
    last = np.moveaxis(matrix, (0, 1), (-2, -1))
    values, vectors = np.linalg.eig(last)
    if np.linalg.cond(vectors).max() > WORST_EIGENVECTORS:
        return None
    inverse = np.linalg.inv(vectors)
    return (
        np.moveaxis(values, -1, 0),
        np.moveaxis(vectors, (-2, -1), (0, 1)),
        np.moveaxis(inverse, (-2, -1), (0, 1)),
    )


def _coefficients(eigenvalues: Array, h: float) -> tuple[Array, ...]:
    """exp(hL), exp(hL/2) and the four weights of ETDRK4, by means over circles around h L."""
    z = h * eigenvalues
    whole, half = np.exp(z), np.exp(z / 2)
    roots = np.exp(2j * np.pi * (np.arange(CONTOUR_POINTS) + 0.5) / CONTOUR_POINTS)
    q = np.zeros_like(z)
    f1, f2, f3 = np.zeros_like(z), np.zeros_like(z), np.zeros_like(z)
    for root in roots:
        r = z + root
        e = np.exp(r)
        q += (np.exp(r / 2) - 1) / r
        f1 += (-4 - r + e * (4 - 3 * r + r**2)) / r**3
        f2 += (2 + r + e * (r - 2)) / r**3
        f3 += (-4 - 3 * r - r**2 + e * (4 - r)) / r**3
    scale = h / CONTOUR_POINTS
    return whole, half, scale * q, scale * f1, scale * f2, scale * f3


def _march(
    nf: NormalForm, problem: Semilinear, torus: _Torus, steps: int, deadline: float
) -> tuple[Array, list[Array]]:
    """Times and Fourier modes (fields, k..) of the stored levels."""
    assert nf.time is not None
    start, end = nf.bounds[nf.time]
    h = (end - start) / steps
    decomposed = diagonalise(nf, problem, torus)
    if decomposed is None:
        raise IntegrationError("the linear part cannot be diagonalised")
    eigenvalues, vectors, inverse = decomposed
    whole, half, q, f1, f2, f3 = _coefficients(eigenvalues, h)
    symbols = [(leaf.field, torus.symbol(_space_alpha(nf, leaf.alpha))) for leaf in problem.leaves]
    mixed = len(nf.fields) > 1

    def apply(matrix: Array, modes: Array) -> Array:
        return np.einsum("ij...,j...->i...", matrix, modes) if mixed else modes

    def coordinates(t: float) -> list[Array]:
        by_name = dict(zip(nf.space, torus.meshes, strict=True))
        return [np.full((1,) * len(nf.space), t) if c == nf.time else by_name[c] for c in nf.coords]

    def rest(modes: Array, t: float) -> Array:
        """N in eigen-coordinates."""
        fields = apply(vectors, modes)
        values: list[Array] = []
        if symbols:
            values = list(torus.backward(np.stack([s * fields[i] for i, s in symbols])))
        out = np.empty((len(nf.fields), *torus.shape))
        for i, value in enumerate(problem.rest(coordinates(t), values)):
            out[i] = value
        return apply(inverse, torus.forward(out) * torus.mask)

    columns = coordinates(start)
    first = np.stack([value(columns, torus.shape) for value in problem.initial])
    modes = apply(inverse, torus.forward(first))
    stride = max(1, -(-steps // MOST_STORED))
    while steps % stride:
        stride += 1
    history = [apply(vectors, modes).copy()]
    with np.errstate(all="ignore"):
        for step in range(steps):
            t = start + step * h
            n0 = rest(modes, t)
            a = half * modes + q * n0
            na = rest(a, t + h / 2)
            b = half * modes + q * na
            nb = rest(b, t + h / 2)
            c = half * a + q * (2 * nb - n0)
            nc = rest(c, t + h)
            modes = whole * modes + f1 * n0 + 2 * f2 * (na + nb) + f3 * nc
            if (step + 1) % stride == 0:
                if not np.isfinite(modes).all():
                    raise IntegrationError(
                        f"the solution grew beyond bounds near {nf.time} = {t:.6g}"
                    )
                if time.monotonic() > deadline:
                    raise OutOfTime
                history.append(apply(vectors, modes).copy())
    return np.linspace(start, end, steps // stride + 1), history


def _approximation(
    nf: NormalForm, torus: _Torus, times: Array, history: list[Array]
) -> GridApproximation:
    """Padded Fourier series on a finer grid, so that local interpolation is as good as the series."""
    d = len(nf.space)
    factor = 4 if d == 1 and torus.modes <= 512 else 2
    fine = factor * torus.modes
    half = torus.modes // 2
    padded = np.zeros(
        (len(history), len(nf.fields), *((fine,) * (d - 1)), fine // 2 + 1), dtype=complex
    )
    stacked = np.stack(history)
    # Corner by corner of the spectrum; the Nyquist modes hold nothing after dealiasing.
    corners: list[tuple[slice, ...]] = [()]
    for _ in range(d - 1):
        corners = [(*c, s) for c in corners for s in (slice(0, half), slice(-half + 1, None))]
    for corner in corners:
        where = (slice(None), slice(None), *corner, slice(0, half))
        padded[where] = stacked[where]
    values = np.fft.irfftn(padded, s=(fine,) * d, axes=tuple(range(2, d + 2))) * factor**d
    assert nf.time is not None
    bases = {nf.time: stencil_basis(times, 10)}
    for coord, length in zip(nf.space, torus.lengths, strict=True):
        nodes = nf.bounds[coord][0] + length * np.arange(fine) / fine
        bases[coord] = stencil_basis(nodes, 16, length)
    order = [nf.time, *nf.space]
    fields = []
    for i in range(len(nf.fields)):
        array = np.transpose(values[:, i], [order.index(c) for c in nf.coords])
        fields.append(FieldGrid(tuple(bases[c] for c in nf.coords), np.ascontiguousarray(array)))
    return GridApproximation(fields)
