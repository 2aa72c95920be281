"""From observations to a first guess: the grid of times, states on it, sizes, noise.

In    a `NormalForm` with observations, its `OrdinaryForm`.
Out   `FirstGuess`, in tensors.
Next  `solvers.neural_ode` starts its segments there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import sympy as sp
import torch
from torch import Tensor

from pinnkit.ir.leaves import derivative_count, field_of
from pinnkit.ir.normal_form import NormalForm, ObservationSet
from pinnkit.ir.ordinary_form import OrdinaryForm
from pinnkit.lower.ordinary import compile_observed
from pinnkit.solvers.neural_ode_shooting import Observed

__all__ = ["FirstGuess", "first_guess"]

ROUGH = 0.05  # noise of observations too few to tell, relative to their size
COARSE = 40  # points rates are measured on: noise between close ones is no rate


@final
@dataclass(frozen=True, eq=False)
class FirstGuess:
    """Where training starts.

    Args:
        grid: The lower end of time and all observation times, (K + 1,).
        states: On the grid, (K + 1, d): observed ones interpolated, others constant.
        sizes, rates: Typical values of states and of their derivatives, (d,).
        start: Declared initial values, nan where there is none, (d,).
        observed: With the places on the grid.
        sigmas: First standard deviations.
        declared: Those the user gave, None where they are to be estimated.
    """

    grid: Tensor
    states: Tensor
    sizes: Tensor
    rates: Tensor
    start: Tensor
    observed: tuple[Observed, ...]
    sigmas: tuple[float, ...]
    declared: tuple[float | None, ...]


def first_guess(
    nf: NormalForm,
    form: OrdinaryForm,
    *,
    dtype: torch.dtype,
    device: torch.device,
) -> FirstGuess:
    """All of it."""
    times = [o.points[:, 0] for o in nf.observations]
    grid = np.unique(np.concatenate([[form.span[0]], *times]))
    declared = {state: float(value) for state, value in form.initial.items()}
    states = np.stack([_guess(s, nf, grid, declared) for s in form.states], axis=1)
    sizes = [_size(s, nf, states[:, i], grid) for i, s in enumerate(form.states)]
    coarse = np.unique(np.linspace(0, len(grid) - 1, COARSE).round().astype(int))
    span = grid[-1] - grid[0]
    moved = np.abs(np.diff(states[coarse], axis=0)).sum(0) / span
    rates = np.maximum(moved, np.array(sizes) / span)
    sigmas = [_noise(o) for o in nf.observations]
    place: dict[str, Any] = {"dtype": dtype, "device": device}
    observed = tuple(
        Observed(
            compile_observed(o.expr, form),
            torch.as_tensor(np.searchsorted(grid, o.points[:, 0]), device=device),
            torch.as_tensor(o.values, **place),
            s,
        )
        for o, s in zip(nf.observations, sigmas, strict=True)
    )
    start = [declared.get(s, math.nan) for s in form.states]
    return FirstGuess(
        grid=torch.as_tensor(grid, **place),
        states=torch.as_tensor(states, **place),
        sizes=torch.tensor(sizes, **place),
        rates=torch.as_tensor(rates, **place),
        start=torch.tensor(start, **place),
        observed=observed,
        sigmas=tuple(sigmas),
        declared=tuple(o.noise for o in nf.observations),
    )


def _observations_of(u: sp.Expr, nf: NormalForm) -> tuple[np.ndarray, np.ndarray]:
    """(times, values), by time, of everything that observes just this."""
    sets = [o for o in nf.observations if o.expr == u]
    if not sets:
        return np.empty(0), np.empty(0)
    t = np.concatenate([o.points[:, 0] for o in sets])
    v = np.concatenate([o.values for o in sets])
    order = np.argsort(t, kind="stable")
    return t[order], v[order]


def _guess(
    state: sp.Expr, nf: NormalForm, grid: np.ndarray, declared: dict[sp.Expr, float]
) -> np.ndarray:
    t, v = _observations_of(state, nf)
    if len(t):
        return np.interp(grid, t, v)
    t, v = _observations_of(field_of(state), nf)
    if len(np.unique(t)) > 3 and derivative_count(state):
        # Differences over a tenth of the points: derivatives of noise are no guess.
        knots = np.unique(np.linspace(0, len(grid) - 1, max(5, len(t) // 3)).round().astype(int))
        slope = np.interp(grid[knots], t, v)
        for _ in range(derivative_count(state)):
            slope = np.gradient(slope, grid[knots])
        return np.interp(grid, grid[knots], slope)
    return np.full(len(grid), declared.get(state, 0.0))


def _size(state: sp.Expr, nf: NormalForm, guess: np.ndarray, grid: np.ndarray) -> float:
    found = float(np.sqrt(np.mean(guess**2)))
    if found > 0:
        return found
    own = nf.scales.get(field_of(state))
    if own is None:
        return 1.0
    return float(own) / float(grid[-1] - grid[0]) ** derivative_count(state)


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
