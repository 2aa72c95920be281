"""Frequencies of sampled functions: where a spectral mixture is to have its components.

In    samples on uniform grids, or scattered noisy ones.
Out   amplitudes over frequencies, the tones that make them up, whether the grid resolved them.
Next  `solvers.spectral_mixture_tones` asks for those of sources, conditions and residuals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

__all__ = ["COVERED", "axis_amplitudes", "find_tones", "is_resolved", "scattered_tones"]

Symbol = Callable[[Sequence[np.ndarray]], np.ndarray]

# Kaiser's window with this parameter has side lobes below 1e-8 and a main lobe of +-5.5 bins, which
# is about what one component of the mixture covers.
KAISER = 17.0
COVERED = 6.0  # bins (2 pi / L) around a tone that need no component of their own
LOBES = 3e-8  # of the largest amplitude: below it the window's own side lobes are seen
TAIL = 1e-7  # of the largest amplitude: what may be left in the upper half of a resolved spectrum
MOVES = 3  # times that all frequencies are moved after each new one


def axis_amplitudes(
    samples: np.ndarray,  # shape: (n_1, ..., n_d)
    lengths: Sequence[float],
    symbol: Symbol | None = None,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Per axis (frequencies, amplitudes): the largest over the frequencies of the other axes.

    Args:
        samples: On uniform grids with both ends.
        lengths: Of the intervals.
        symbol: |P| as a function of the frequencies (one array per axis, broadcast): amplitudes are
            divided by it, so that a source tells what it does to the solution.
    """
    windowed = np.asarray(samples, dtype=float)
    grids = []
    for k, (n, length) in enumerate(zip(windowed.shape, lengths, strict=True)):
        shape = [1] * windowed.ndim
        shape[k] = n
        window = np.kaiser(n, KAISER)
        windowed = windowed * (window / window.sum()).reshape(shape)
        padded = 4 * n if windowed.ndim == 1 else n
        step = length / (n - 1)
        grids.append((padded, 2 * np.pi * np.fft.fftfreq(padded, step)))
    spectrum = np.abs(np.fft.fftn(windowed, s=[p for p, _ in grids], axes=range(windowed.ndim)))
    if symbol is not None:
        mesh = np.meshgrid(*(w for _, w in grids), indexing="ij", sparse=True)
        # Below the first bin the symbol says nothing: a window cannot tell such waves from a mean.
        floor = np.abs(symbol([np.full(1, 2 * np.pi / length) for length in lengths])).ravel()[0]
        # Side lobes of a fast wave, divided by the symbol at slow ones, would look like slow waves.
        spectrum[spectrum <= LOBES * spectrum.max(initial=0.0)] = 0.0
        spectrum = spectrum / np.maximum(np.abs(symbol(mesh)), floor)
    out = []
    for k, (padded, omega) in enumerate(grids):
        others = tuple(i for i in range(windowed.ndim) if i != k)
        profile = spectrum.max(axis=others) if others else spectrum
        half = padded // 2
        both = np.maximum(profile[1:half], profile[:-half:-1][: half - 1])
        out.append((omega[:half], np.concatenate([profile[:1], both])))
    return out


def is_resolved(amplitudes: np.ndarray) -> bool:
    """Nothing to speak of in the upper half of the spectrum: the samples are not aliased."""
    top = float(amplitudes.max(initial=0.0))
    return top == 0 or float(amplitudes[len(amplitudes) // 2 :].max()) <= TAIL * top


def find_tones(
    omega: np.ndarray,
    amplitudes: np.ndarray,
    length: float,
    *,
    threshold: float,
    most: int = 64,
    plain: np.ndarray | None = None,
) -> list[tuple[float, float]]:
    """(frequency, amplitude) of peaks, largest first, none within `COVERED` bins of another.

    Args:
        omega, amplitudes: As from `axis_amplitudes`.
        length: Of the interval; a bin is 2 pi / length.
        threshold: Amplitudes below it are no tones.
        most: How many.
        plain: The amplitudes before the division by a symbol, which moves peaks to slower waves.
    """
    left = np.array(amplitudes, dtype=float)
    reach = COVERED * 2 * np.pi / length
    tones: list[tuple[float, float]] = []
    while len(tones) < most:
        j = int(np.argmax(left))
        if not left[j] > threshold:
            break
        place = omega[j]
        near = slice(max(j - 1, 0), j + 2)
        for shape in (amplitudes if plain is None else plain, amplitudes):
            i = near.start + int(np.argmax(shape[near]))
            if not 0 < i < len(omega) - 1:
                continue
            a, b, c = np.log(np.maximum(shape[i - 1 : i + 2], 1e-300))
            bend = a - 2 * b + c
            # A peak of a Kaiser window is a parabola in the logarithm; a slope's end is no peak.
            if bend < 0 and b >= max(a, c):
                place = omega[i] + 0.5 * (a - c) / bend * (omega[1] - omega[0])
                break
        tones.append((float(place), float(left[j])))
        left[np.abs(omega - place) <= reach] = 0.0
    return tones


def scattered_tones(
    points: np.ndarray,  # shape: (n,)
    values: np.ndarray,  # shape: (n,)
    length: float,
    *,
    most: int = 8,
    significance: float = 4.0,
) -> list[float]:
    """Frequencies of noisy values at scattered points, by matching pursuit.

    Each round takes the largest peak of the periodogram of what is left, and fits all tones so far
    anew with slowly varying amplitudes; it stops where the peak is within the noise. A tone that lies
    beside its place in the periodogram shows as an amplitude that turns, and is moved there.
    """
    n = len(values)
    step = np.pi / (2 * length)
    omega = step * np.arange(1, max(8, 3 * n))
    middle = points.mean()
    angle = np.outer(omega, points - middle)
    cosine, sine = np.cos(angle), np.sin(angle)
    t = (points - middle) / length
    peaks = np.empty(0)
    tones, left = peaks, values - _slow_fit(peaks, t, values, length)[0]
    for _ in range(min(most, n // 8)):
        power = (cosine @ left) ** 2 + (sine @ left) ** 2
        j = int(np.argmax(power))
        # Under white noise the power is exponential with this mean; its maximum over the m
        # frequencies is about log m times as large.
        mean = np.median(power) / np.log(2)
        if power[j] <= significance * mean * np.log(len(omega)):
            break
        peaks, tones = np.append(peaks, omega[j]), np.append(tones, omega[j])
        for _ in range(MOVES):
            fitted, moved = _slow_fit(tones, t, values, length)
            left = values - fitted
            tones = np.clip(moved, peaks - step, peaks + step)
    return [float(w) for w in tones]


def _slow_fit(
    tones: np.ndarray, t: np.ndarray, values: np.ndarray, length: float
) -> tuple[np.ndarray, np.ndarray]:
    """(values of the fit, frequencies it points to) with amplitudes a + c t, b + d t of cos, sin.

    To first order cos and sin at w + shift are those at w with c = shift L b, d = -shift L a.
    """
    columns = [np.ones_like(t), t]
    for w in tones:
        cosine, sine = np.cos(w * length * t), np.sin(w * length * t)
        columns += [cosine, sine, t * cosine, t * sine]
    matrix = np.stack(columns, axis=1)
    found = np.linalg.lstsq(matrix, values, rcond=1e-10)[0]
    a, b, c, d = found[2:].reshape(-1, 4).T
    size = np.maximum(a**2 + b**2, 1e-300)
    return matrix @ found, tones + (b * c - a * d) / (size * length)
