"""Newton's method and Broyden's, for roots and for fixed points.

In    a `System` of as many equations as unknowns.
Out   states whose correction is the length of the (quasi-)Newton step, in units of z.
Next  `iteration.iterate` runs them; `layers.root` takes Newton's by default.

The length of the full Newton step estimates the distance from the root, whatever units F has and
however it is scaled; |F| would not.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from pinnkit.implicit.iteration import AbstractMethod, State, System, is_count
from pinnkit.implicit.jacobian import Jacobian
from pinnkit.implicit.krylov import GMRES
from pinnkit.implicit.linear import DENSE_SIZE, AbstractLinearSolver, Direct, check_linear
from pinnkit.implicit.record import norms

__all__ = ["Broyden", "Newton", "linear_for"]

FLAT = 1e-3  # Broyden updates with a smaller denominator are left out


def linear_for(unknowns: int) -> AbstractLinearSolver:
    """What solves with a matrix of that size unless told otherwise."""
    return Direct() if unknowns <= DENSE_SIZE else GMRES()


@final
@dataclass(frozen=True, kw_only=True)
class Newton(AbstractMethod):
    """z <- z - t J^-1 F with t = 1, 1/2, 1/4, ... until |F| falls. Quadratic near a simple root.

    Args:
        linear: Solves with J: `Direct()`; `SparseDirect(pattern)`; `GMRES()` or `CG()` (Newton-Krylov: J is
            never formed). None: direct up to 128 unknowns per sample, then GMRES.
        halvings: Of t at most; then the sample has stalled.
    """

    linear: AbstractLinearSolver | None = None
    halvings: int = 12

    def __post_init__(self) -> None:
        check_linear(self.linear, owner="Newton")
        if not is_count(self.halvings) or self.halvings < 0:
            raise ValueError(
                f"Newton: halvings={self.halvings} must be a whole number, not negative"
            )

    def init(self, system: System, z: Tensor) -> State:
        r = system(z)
        size = norms(r)
        # Nothing is known of the distance before the first step, unless z is a root already.
        unknown = torch.where(size > 0, torch.inf, 0)
        return State.of(z, size, unknown, r, error=size * 0)

    def step(self, system: System, state: State, tolerance: Tensor, left: Tensor) -> State:
        z, r, size = state.z, state.memory, state.merit
        linear = self.linear or linear_for(z.shape[1])
        active = left > 0
        inverse = linear.inverse(Jacobian(system, z), system.on_rows)
        step, reached = inverse(torch.where(active[:, None], r, 0))
        d, correction = -step, norms(step)
        # A step that was not solved for may be short for that reason alone.
        correction = torch.where(reached, correction, torch.maximum(correction, 10 * tolerance))
        t = torch.ones_like(size)
        for halving in range(self.halvings + 1):
            trial = z + t[:, None] * d
            trial_r = system(trial)
            better = norms(trial_r) < size
            # Within the tolerance |F| may be rounding already: then the better of the two is kept.
            waiting = active & ~better & (correction > tolerance) & torch.isfinite(correction)
            if not bool(waiting.any()) or halving == self.halvings:
                break
            t = torch.where(waiting, 0.5 * t, t)
        z = torch.where(better[:, None], trial, z)
        r = torch.where(better[:, None], trial_r, r)
        return State.of(z, norms(r), correction, r, error=correction, stalled=waiting)


@final
@dataclass(frozen=True, kw_only=True)
class Broyden(AbstractMethod):
    """Newton's method with the first Jacobian, corrected by rank one from every step (the "good" one).

    One evaluation a step, convergence faster than any linear one, from a start close enough: there is
    no line search. The first Jacobian is that at z0 for roots, minus the identity for maps.

    Args:
        memory: Steps remembered, then it starts anew.
        linear: Solves with the Jacobian at z0; None as in `Newton`.

    References: broyden1965, kelley1995 (the form that keeps steps only).
    """

    memory: int = 30
    linear: AbstractLinearSolver | None = None

    def __post_init__(self) -> None:
        check_linear(self.linear, owner="Broyden")
        if not is_count(self.memory) or self.memory < 1:
            raise ValueError(f"Broyden: memory={self.memory} must be a whole number, at least 1")

    def init(self, system: System, z: Tensor) -> State:
        if system.is_map:
            r, inverse = system(z), torch.neg
        else:
            jacobian = Jacobian(system, z)
            linear = self.linear or linear_for(z.shape[1])
            r, solve = jacobian.value, linear.inverse(jacobian, system.on_rows)
            inverse = lambda r: solve(r)[0]  # noqa: E731
        s = -inverse(r)
        size = norms(r)
        return State.of(
            z, size, size if system.is_map else norms(s), (inverse, [s]), error=norms(s)
        )

    def step(self, system: System, state: State, tolerance: Tensor, left: Tensor) -> State:
        inverse, steps = state.memory
        z = state.z + steps[-1]
        r = system(z)
        d = -inverse(r)
        if len(steps) > self.memory:
            steps = []
        first = norms(d)
        for before, after in itertools.pairwise(steps):
            d = d + after * _along(before, d)
        if steps:
            rest = 1 - _along(steps[-1], d)
            d = d / torch.where(rest.abs() > FLAT, rest, 1)
        # Near a singular update the step alone may look small by accident.
        length = norms(d)
        size = norms(r)
        correction = (
            size if system.is_map else torch.maximum(length, torch.minimum(first, 10 * length))
        )
        return State.of(z, size, correction, (inverse, [*steps, d]), error=length)


def _along(s: Tensor, d: Tensor) -> Tensor:  # shape: (B, 1)
    """<s, d> / <s, s>, whatever their units."""
    scale = s.abs().amax(1, keepdim=True) if s.shape[1] else s.sum(1, keepdim=True)
    scale = torch.where((scale > 0) & torch.isfinite(scale), scale, 1)
    s = s / scale
    square = s.square().sum(1, keepdim=True)
    return (s * (d / scale)).sum(1, keepdim=True) / torch.where(square > 0, square, 1)
