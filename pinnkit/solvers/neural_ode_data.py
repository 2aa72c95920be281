"""From observations to a first guess: the grid of times, states on it, sizes, noise.

In    a `NormalForm` with observations, its `OrdinaryForm`.
Out   `FirstGuess`, in tensors.
Next  `solvers.neural_ode` starts its segments there.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import sympy as sp
import torch
from torch import Tensor

from pinnkit.errors import UnsupportedProblemError
from pinnkit.ir.leaves import derivative_count, field_of
from pinnkit.ir.normal_form import NormalForm, ObservationSet
from pinnkit.ir.ordinary_form import OrdinaryForm
from pinnkit.lower.ordinary import compile_observed
from pinnkit.solvers.neural_ode_shooting import Observed

__all__ = ["FirstGuess", "first_guess", "runs_of"]

ROUGH = 0.05  # noise of observations too few to tell, relative to their size
COARSE = 40  # points rates are measured on: noise between close ones is no rate


@final
@dataclass(frozen=True, eq=False)
class FirstGuess:
    """Where training starts.

    Args:
        grid: Of every run the lower end of time and its observation times; one run after the other, (K,).
        counts: How many of them each run has.
        states: On the grid, (K, d): observed ones interpolated, others constant.
        sizes, rates: Typical values of states and of their derivatives, (d,).
        start: Declared initial values, nan where there is none, (d,).
        observed: With the places on the grid.
        sigmas: First standard deviations.
        declared: Those the user gave, None where they are to be estimated.
        kinds: Which sets have the same noise: those of one expression in several runs.
    """

    grid: Tensor
    counts: tuple[int, ...]
    states: Tensor
    sizes: Tensor
    rates: Tensor
    start: Tensor
    observed: tuple[Observed, ...]
    sigmas: tuple[float, ...]
    declared: tuple[float | None, ...]
    kinds: tuple[int, ...]

    @property
    def widest(self) -> float:
        """The longest interval between grid times of a run."""
        return max(float(run.diff().amax()) for run in self.grid.split(self.counts) if len(run) > 1)

    @property
    def span(self) -> float:
        """The longest run."""
        return max(float(run[-1] - run[0]) for run in self.grid.split(self.counts))


def first_guess(
    nf: NormalForm,
    form: OrdinaryForm,
    *,
    dtype: torch.dtype,
    device: torch.device,
) -> FirstGuess:
    """All of it."""
    declared = {state: float(value) for state, value in form.initial.items()}
    begin, runs = form.span[0], runs_of(nf)
    grids, guesses, moved = [], [], np.zeros(len(form.states))
    for run in runs:
        grid = np.unique(np.concatenate([[begin], *(o.points[:, 0] for o in run)]))
        states = np.stack([_guess(s, run, grid, declared) for s in form.states], axis=1)
        coarse = np.unique(np.linspace(0, len(grid) - 1, COARSE).round().astype(int))
        moved += np.abs(np.diff(states[coarse], axis=0)).sum(0)
        grids.append(grid)
        guesses.append(states)
    states, spans = np.concatenate(guesses), [grid[-1] - begin for grid in grids]
    sizes = [_size(s, nf, states[:, i], max(spans)) for i, s in enumerate(form.states)]
    rates = np.maximum(moved / sum(spans), np.array(sizes) / max(spans))
    kinds = _kinds(nf)
    sigmas = _pooled([_noise(o) for o in nf.observations], nf, kinds)
    offsets = np.cumsum([0, *map(len, grids)])
    place: dict[str, Any] = {"dtype": dtype, "device": device}
    observed = tuple(
        Observed(
            compile_observed(o.expr, form),
            torch.as_tensor(
                offsets[o.run] + np.searchsorted(grids[o.run], o.points[:, 0]), device=device
            ),
            torch.as_tensor(o.values, **place),
            s,
        )
        for o, s in zip(nf.observations, sigmas, strict=True)
    )
    start = [declared.get(s, math.nan) for s in form.states]
    return FirstGuess(
        grid=torch.as_tensor(np.concatenate(grids), **place),
        counts=tuple(map(len, grids)),
        states=torch.as_tensor(states, **place),
        sizes=torch.tensor(sizes, **place),
        rates=torch.as_tensor(rates, **place),
        start=torch.tensor(start, **place),
        observed=observed,
        sigmas=tuple(sigmas),
        declared=tuple(o.noise for o in nf.observations),
        kinds=kinds,
    )


def runs_of(nf: NormalForm) -> list[list[ObservationSet]]:
    """The observations of every run; UnsupportedProblemError where a number is left out."""
    count = 1 + max((o.run for o in nf.observations), default=-1)
    runs: list[list[ObservationSet]] = [[] for _ in range(count)]
    for o in nf.observations:
        runs[o.run].append(o)
    if [] in runs:
        raise UnsupportedProblemError(
            f"NeuralODE counts runs from 0 on, and none of {len(runs)} is Observations(..., "
            f"run={runs.index([])}). Number them 0, 1, 2, ... ."
        )
    return runs


def _kinds(nf: NormalForm) -> tuple[int, ...]:
    """Sets of one expression in several runs are of one kind; two of one run were measured apart."""
    seen: list[tuple[sp.Expr, int] | None] = []
    met: Counter[tuple[sp.Expr, int]] = Counter()
    kinds = []
    for o in nf.observations:
        key = (o.expr, met[o.expr, o.run])
        met[o.expr, o.run] += 1
        if o.noise is not None:  # declared, so not to be estimated with any other
            seen.append(None)
            kinds.append(len(seen) - 1)
        elif key not in seen:
            seen.append(key)
            kinds.append(len(seen) - 1)
        else:
            kinds.append(seen.index(key))
    return tuple(kinds)


def _pooled(sigmas: list[float], nf: NormalForm, kinds: tuple[int, ...]) -> list[float]:
    """The root mean square over the observations of each kind."""
    squares, counts = np.zeros(len(kinds)), np.zeros(len(kinds))
    for sigma, o, kind in zip(sigmas, nf.observations, kinds, strict=True):
        squares[kind] += len(o.values) * sigma**2
        counts[kind] += len(o.values)
    return [float(np.sqrt(squares[kind] / counts[kind])) for kind in kinds]


def _observations_of(u: sp.Expr, run: list[ObservationSet]) -> tuple[np.ndarray, np.ndarray]:
    """(times, values), by time, of everything in a run that observes just this."""
    sets = [o for o in run if o.expr == u]
    if not sets:
        return np.empty(0), np.empty(0)
    t = np.concatenate([o.points[:, 0] for o in sets])
    v = np.concatenate([o.values for o in sets])
    order = np.argsort(t, kind="stable")
    return t[order], v[order]


def _guess(
    state: sp.Expr, run: list[ObservationSet], grid: np.ndarray, declared: dict[sp.Expr, float]
) -> np.ndarray:
    t, v = _observations_of(state, run)
    if len(t):
        return np.interp(grid, t, v)
    t, v = _observations_of(field_of(state), run)
    if len(np.unique(t)) > 3 and derivative_count(state):
        # Differences over a tenth of the points: derivatives of noise are no guess.
        knots = np.unique(np.linspace(0, len(grid) - 1, max(5, len(t) // 3)).round().astype(int))
        slope = np.interp(grid[knots], t, v)
        for _ in range(derivative_count(state)):
            slope = np.gradient(slope, grid[knots])
        return np.interp(grid, grid[knots], slope)
    return np.full(len(grid), declared.get(state, 0.0))


def _size(state: sp.Expr, nf: NormalForm, guess: np.ndarray, span: float) -> float:
    found = float(np.sqrt(np.mean(guess**2)))
    if found > 0:
        return found
    own = nf.scales.get(field_of(state))
    if own is None:
        return 1.0
    return float(own) / span ** derivative_count(state)


def _noise(o: ObservationSet) -> float:
    """The declared standard deviation, else that of second differences, which smooth signals have not."""
    if o.noise is not None:
        return float(o.noise)
    size = float(np.sqrt(np.mean(o.values**2))) or 1.0
    order = np.argsort(o.points[:, 0], kind="stable")
    second = np.diff(o.values[order], 2)
    if len(second) < 5:
        return ROUGH * size
    return float(min(max(np.sqrt(np.mean(second**2) / 6), 1e-3 * size), size))
