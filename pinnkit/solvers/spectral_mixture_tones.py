"""Where a solution's frequencies come from: sources, conditions, dispersion, observations, residuals.

In    the terms of a problem; later residuals on grids.
Out   tones (frequency, amplitude) per coordinate, and whether sampling resolved them.
Next  `solvers.spectral_mixture_gp` puts a component of the mixture on each.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pinnkit.gp.frequencies import (
    COVERED,
    axis_amplitudes,
    find_tones,
    is_resolved,
    scattered_tones,
)
from pinnkit.ir.linearise import determinant, scaled_roots
from pinnkit.ir.normal_form import NormalForm
from pinnkit.solvers.spectral_mixture_rows import Term

__all__ = ["Tones", "find_problem_tones", "make_symbol", "merge_tones"]

log = logging.getLogger(__name__)

# Numbers of samples per axis: primes, so that no wave of a round number of periods is invisible.
SIZES = {
    1: (1021, 2039, 4093, 8191, 16381, 32749, 65521),
    2: (251, 509, 1021, 2039),
    3: (61, 127, 181),
}
DAMPED = 30.0  # waves that decay by more than exp(-30) over the interval are layers, not waves


@dataclass
class Tones:
    """(frequency, amplitude) per coordinate, largest first, and what could not be resolved."""

    axes: list[list[tuple[float, float]]]
    unresolved: list[str] = field(default_factory=list)


def find_problem_tones(
    nf: NormalForm, terms: Sequence[Term], parameters: Sequence[Tensor], threshold: float
) -> Tones:
    """All that can be known of the frequencies before anything is solved.

    Args:
        threshold: Relative to the largest amplitude of the same term.
    """
    found = Tones([[] for _ in nf.coords])
    for term in terms:
        if term.kind == "observation":
            _observed(nf, term, found)
            continue
        free = [k for k, c in enumerate(nf.coords) if term.face is None or c != term.face.coord]
        if not free:
            continue
        symbol = make_symbol(nf, term, parameters) if term.kind == "equation" else None
        resolved = False
        profiles: list[tuple[np.ndarray, np.ndarray]] = []
        plain: list[tuple[np.ndarray, np.ndarray]] = []
        for size in SIZES[len(free)]:
            samples, lengths = _sample(nf, term, parameters, free, size)
            if not np.isfinite(samples).all():
                break
            before, profiles = profiles, axis_amplitudes(samples, lengths, symbol)
            plain = axis_amplitudes(samples, lengths)
            resolved = all(is_resolved(a) for _, a in plain) and _agree(before, profiles, lengths)
            if resolved:
                break
        if not resolved:
            found.unresolved.append(term.label)
        for k, (omega, amplitudes), (_, own) in zip(free, profiles, plain, strict=False):
            low, high = nf.bounds[nf.coords[k]]
            level = threshold * float(amplitudes.max(initial=0.0))
            found.axes[k] += find_tones(omega, amplitudes, high - low, threshold=level, plain=own)
    _disperse(nf, terms, parameters, found)
    return found


def merge_tones(
    tones: Sequence[tuple[float, float]], length: float, most: int, apart: float
) -> list[float]:
    """Frequencies of the strongest tones, none closer than `apart` bins to another or to zero."""
    bin_width = 2 * np.pi / length
    kept: list[float] = []
    for omega, _ in sorted(tones, key=lambda t: -t[1]):
        if omega > apart * bin_width and all(abs(omega - o) > apart * bin_width for o in kept):
            kept.append(omega)
        if len(kept) == most:
            break
    return sorted(kept)


def make_symbol(nf: NormalForm, term: Term, parameters: Sequence[Tensor]) -> Any:
    """|P(i w)| of the linearised equation at fields of zero, coefficients averaged over the domain."""
    points = _inside(nf, 65)
    _, slopes = term.source(points, parameters)
    count = len(term.wanted)
    sizes = [float(s.mean()) for s in slopes[:count]]
    fields = sorted({f for f, _ in term.wanted})

    def symbol(frequencies: Sequence[np.ndarray]) -> np.ndarray:
        largest: Any = 0.0
        for f in fields:
            total: Any = 0.0
            for (own, alpha), size in zip(term.wanted, sizes, strict=True):
                if own == f:
                    wave: Any = size
                    for w, k in zip(frequencies, alpha, strict=True):
                        wave = wave * (1j * w) ** k
                    total = total + wave
            largest = np.maximum(largest, np.abs(total))
        return np.broadcast_to(largest, np.broadcast_shapes(*(w.shape for w in frequencies)))

    return symbol


def _agree(
    before: list[tuple[np.ndarray, np.ndarray]],
    now: list[tuple[np.ndarray, np.ndarray]],
    lengths: Sequence[float],
) -> bool:
    """Two samplings see the same strongest wave: neither is an alias."""
    if not before:
        return False
    for (w0, a0), (w1, a1), length in zip(before, now, lengths, strict=True):
        top0, top1 = a0.max(), a1.max()
        if max(top0, top1) == 0:
            continue
        moved = abs(w0[int(np.argmax(a0))] - w1[int(np.argmax(a1))])
        if moved > 2 * np.pi / length or abs(top0 - top1) > 0.1 * max(top0, top1):
            return False
    return True


def _sample(
    nf: NormalForm, term: Term, parameters: Sequence[Tensor], free: Sequence[int], size: int
) -> tuple[np.ndarray, list[float]]:
    axes, lengths = [], []
    for k, c in enumerate(nf.coords):
        low, high = nf.bounds[c]
        if k in free:
            axes.append(torch.linspace(low, high, size, dtype=torch.float64))
            lengths.append(high - low)
        else:
            assert term.face is not None
            axes.append(torch.tensor([term.face.value], dtype=torch.float64))
    mesh = torch.meshgrid(*axes, indexing="ij")
    points = torch.stack([m.flatten() for m in mesh], dim=1)
    values, _ = term.source(points, [p.cpu() for p in parameters])
    return values.reshape([size] * len(free)).numpy(), lengths


def _inside(nf: NormalForm, n: int) -> Tensor:
    """Points spread over the domain, ends excluded."""
    golden = [0.0, 0.6180339887498949, 0.7548776662466927]
    i = torch.arange(n, dtype=torch.float64)
    columns = []
    for k, c in enumerate(nf.coords):
        low, high = nf.bounds[c]
        share = (i + 0.5) / n if k == 0 else torch.remainder(0.5 + golden[k] * (i + 1), 1.0)
        columns.append(low + (high - low) * share)
    return torch.stack(columns, dim=1)


def _observed(nf: NormalForm, term: Term, found: Tones) -> None:
    assert term.points is not None and term.values is not None
    for k, c in enumerate(nf.coords):
        low, high = nf.bounds[c]
        tones = scattered_tones(term.points[:, k].numpy(), term.values.numpy(), high - low)
        found.axes[k] += [(w, 1.0) for w in tones]


def _disperse(
    nf: NormalForm, terms: Sequence[Term], parameters: Sequence[Tensor], found: Tones
) -> None:
    """Frequencies along one coordinate that the equations tie to those along the other."""
    equations = [t for t in terms if t.kind == "equation"]
    if len(equations) != len(nf.fields):
        return
    points = _inside(nf, 5)
    slopes = [t.source(points, parameters)[1] for t in equations]
    most = 8 if len(nf.coords) < 3 else 3
    known = [[(0.0, 1.0), *axis[:most]] for axis in found.axes]
    for k, c in enumerate(nf.coords):
        low, high = nf.bounds[c]
        others = [i for i in range(len(nf.coords)) if i != k]
        for given in itertools.product(*(known[i] for i in others)):
            wave = {i: w for i, (w, _) in zip(others, given, strict=True)}
            amplitude = min((a for _, a in given), default=1.0)
            waves: list[float] = []
            for j in range(len(points)):
                matrix = _polynomials(nf, equations, slopes, j, k, wave)
                roots = scaled_roots(determinant(matrix))
                waves += [abs(r.imag) for r in roots if abs(r.real) * (high - low) <= DAMPED]
            # Coefficients that vary spread one wave over a band.
            waves = sorted(v for v in waves if np.isfinite(v) and v > 0)
            if waves:
                step = COVERED * 2 * np.pi / (high - low)
                count = min(1 + int((waves[-1] - waves[0]) / step), 200)
                spread = [*waves, *np.linspace(waves[0], waves[-1], count + 1)]
                found.axes[k] += [(float(v), amplitude) for v in spread]


def _polynomials(
    nf: NormalForm,
    equations: Sequence[Term],
    slopes: Sequence[Sequence[Tensor]],
    point: int,
    axis: int,
    others: Mapping[int, float],
) -> list[list[np.ndarray]]:
    """The symbol's matrix as polynomials (ascending) in d/d coordinate `axis`."""
    m = len(nf.fields)
    matrix = [[np.zeros(1, dtype=complex) for _ in range(m)] for _ in range(m)]
    for i, (term, own) in enumerate(zip(equations, slopes, strict=True)):
        for (f, alpha), slope in zip(term.wanted, own, strict=False):
            factor = complex(slope[point])
            for k, order in enumerate(alpha):
                if k != axis:
                    factor *= (1j * others[k]) ** order
            if not np.isfinite(factor) or factor == 0:
                continue
            entry = matrix[i][f]
            order = alpha[axis]
            if len(entry) <= order:
                entry = np.concatenate([entry, np.zeros(order + 1 - len(entry), complex)])
            entry[order] += factor
            matrix[i][f] = entry
    return matrix
