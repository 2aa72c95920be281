"""The nonlinear rest on Fourier modes, and maps between vectors of modes.

In    a `Semilinear`, a `Torus`, and how amplitudes and N make the fields.
Out   `Nonlinear`: amplitudes, time -> modes of N per row; `ModeMap`: a small matrix per mode.
Next  `etdrk4` calls it in every stage.
"""

from __future__ import annotations

from typing import final

import numpy as np

from pinnkit.classical.constraints import PencilError, active_rows
from pinnkit.classical.semilinear import Semilinear
from pinnkit.classical.torus import Torus

__all__ = ["ModeMap", "Nonlinear"]

Array = np.ndarray
VANISHING = 1e-14  # of the largest entry: rounding errors of the decompositions


@final
class ModeMap:
    """A matrix (K, a, b) per mode, applied to modes (b, *shape); zero entries cost nothing."""

    def __init__(self, matrices: Array, torus: Torus) -> None:
        self.rows, self.columns = matrices.shape[1:]
        self.shape = torus.shape
        least = VANISHING * np.abs(matrices).max(initial=0.0)
        self.entries: list[list[tuple[int, Array | float]]] = []
        for i in range(self.rows):
            entries = [(j, matrices[:, i, j]) for j in range(self.columns)]
            self.entries.append(
                [(j, self._simple(e)) for j, e in entries if np.abs(e).max(initial=0.0) > least]
            )

    @property
    def empty(self) -> bool:
        """Whether it maps everything to zero."""
        return not any(self.entries)

    def row(self, i: int) -> list[tuple[int, Array | float]]:
        """(column, factors) of the entries of row i that are not zero."""
        return self.entries[i]

    def __call__(self, modes: Array) -> Array:
        out = np.zeros((self.rows, *self.shape), dtype=complex)
        for target, entries in zip(out, self.entries, strict=True):
            for j, factor in entries:
                target += factor * modes[j]
        return out

    def _simple(self, entry: Array) -> Array | float:
        real = entry if np.imag(entry).any() else np.real(entry)
        if np.isrealobj(real) and (real == real[0]).all():
            return float(real[0])
        return np.ascontiguousarray(real).reshape(self.shape)


@final
class Nonlinear:
    """N of every row of the pencil, dealiased: rows of `rest`, then gauges (constants at mode zero).

    Fields that depend on N themselves (a pressure with a quadratic source) come second: their rows
    of N must need none of them.
    """

    def __init__(self, problem: Semilinear, torus: Torus) -> None:
        self.problem = problem
        self.torus = torus
        self.active = active_rows(problem)
        self.constant = np.zeros((len(self.active), *torus.shape), dtype=complex)
        for i, gauge in enumerate(problem.gauges):
            place = (len(problem.rest) + i, *([0] * torus.d))
            self.constant[place] = -gauge.mean * torus.modes**torus.d

    def prepare(self, lift: ModeMap, algebraic: ModeMap) -> None:
        """Compile N for fields lift s + algebraic N."""
        problem = self.problem
        rows = problem.active_rows()
        needed = {problem.leaves[j].field for j in problem.leaves_in(rows)}
        last = len(problem.rest)
        early = {j for i in needed for j, _ in algebraic.row(i) if j < last}
        late = [i for i in rows if i not in early]
        self.phases = []
        for phase in (sorted(early), late):
            leaves = [problem.leaves[j] for j in problem.leaves_in(phase)] if phase else []
            if phase and phase is not late:
                circular = any(j in early for leaf in leaves for j, _ in algebraic.row(leaf.field))
                if circular:
                    raise PencilError("an algebraic equation is nonlinear in its own field")
            if not phase:
                continue
            symbols = [self.torus.symbol(leaf.alpha) for leaf in leaves]
            parts = [
                (
                    [(j, symbol * factor) for j, factor in lift.row(leaf.field)],
                    [(j, symbol * factor) for j, factor in algebraic.row(leaf.field)],
                )
                for leaf, symbol in zip(leaves, symbols, strict=True)
            ]
            self.phases.append((phase, parts, problem.compile_rest(phase)))

    def __call__(self, s: Array, t: float) -> Array:
        torus = self.torus
        rows = self.constant.copy()
        coords = torus.coordinates(t)
        for phase, parts, function in self.phases:
            values: list[Array] = []
            if parts:
                modes = np.zeros((len(parts), *torus.shape), dtype=complex)
                for target, (free, dependent) in zip(modes, parts, strict=True):
                    for j, factor in free:
                        target += factor * s[j]
                    for j, factor in dependent:
                        target += factor * rows[j]
                values = list(torus.backward(modes))
            out = np.empty((len(phase), *torus.nodes_shape))
            for i, value in enumerate(function(coords, values)):
                out[i] = value
            rows[phase] = torus.forward(out)
        return rows
