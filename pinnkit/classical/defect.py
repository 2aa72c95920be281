"""How wrong a given answer is: the equation of its error, solved on a coarse grid.

In    a NormalForm and an approximate solution u with derivatives at any point.
Out   `Defect`: per field the relative L2 norm of e, where u + e solves the problem.
Next  `verification` reports it as DEFECT evidence.

The error equation is F(u + e) = 0 with the conditions' own residuals as data for e (the full
equation: linearising would save nothing and loses large errors). u and its derivatives enter
exactly, as known coefficients and sources, so that the discretisation error is relative to e and a
coarse grid is enough. Nothing here calls `solve_reference`: training may use it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import sympy as sp
import torch
from torch import Tensor

from pinnkit.classical.choice import supports
from pinnkit.classical.conservation_law import split_conservation_law
from pinnkit.classical.features import unseen_share
from pinnkit.classical.grid_approximation import GridApproximation
from pinnkit.classical.implicit import IntegrationError, OutOfTime
from pinnkit.classical.ladders import ElementLadder
from pinnkit.classical.norms import difference_norms, rms_norms
from pinnkit.classical.row_blocks import Background, Term
from pinnkit.ir.normal_form import NormalForm

__all__ = ["Defect", "solve_defect"]

Array = np.ndarray
log = logging.getLogger(__name__)

SAFETY = 1.5  # e itself is known to STABLE only, and its norm is taken on a grid
MOST_UNSEEN = 0.01  # share of sources and data that may fall between the points of the mesh
STABLE = 0.2  # levels whose e differ by less than this part of e agree
LEAST_ERROR = 1e-7  # relative errors far below this are not resolved
MOST_LEVELS = 8


class Differentiable(Protocol):
    """What is needed of the approximate solution."""

    def derivatives(
        self, points: Tensor, wanted: Sequence[tuple[int, tuple[int, ...]]]
    ) -> list[Tensor]: ...


@dataclass(frozen=True)
class Defect:
    """Estimated relative L2 errors; infinite where no level finished (see `reason`).

    `correction` is e on the finest level: u + correction is a better solution than u.
    """

    errors: Mapping[sp.Expr, float]
    error: float
    correction: GridApproximation | None
    reason: str


@np.errstate(all="ignore")  # what is not finite is looked for, not warned of
def solve_defect(nf: NormalForm, approximation: Differentiable, *, time_limit: float) -> Defect:
    """Solve for the error until two levels agree on it within 20 %.

    The estimates carry a safety factor of 1.5 (more where only one level finished).
    """
    deadline = time.monotonic() + time_limit
    reason = supports(nf)
    if reason is None and split_conservation_law(nf) is not None:
        # Collocation would take the carried-out form, which does not know the speed of a shock.
        reason = (
            "the error of a conservation law may jump, and its equation is not solved with jumps"
        )
    if reason is not None:
        return _nothing(nf, reason)
    known = _Known(approximation)
    points = _midpoints(nf)
    values = known.values(nf, points)
    sizes = np.array([_rms(v) for v in values])
    if not np.isfinite(sizes).all():
        return _nothing(nf, "the approximate solution is not finite")
    ladder = ElementLadder(
        nf,
        accuracy=0.1,
        shrink=4.0,
        background=known,
        floors=LEAST_ERROR * np.maximum(sizes, 1e-3 * sizes.max() + 1e-300),
    )

    def answer(estimates: Array, e: GridApproximation, why: str) -> Defect:
        unseen, where = unseen_share(nf, e)
        if unseen > MOST_UNSEEN:  # the residual has features this mesh has not seen
            return _nothing(nf, f"{where} that the mesh does not resolve")
        zero = (0,) * len(nf.coords)
        truth = [_rms(v + g.at(points, zero)) for v, g in zip(values, e.fields, strict=True)]
        # A field that vanishes in truth has no relative error; it is measured by the largest field.
        relative = estimates / np.maximum(truth, 1e-10 * max(truth) + 1e-300)
        errors = {u: float(r) for u, r in zip(nf.fields, relative, strict=True)}
        return Defect(errors, float(relative.max()), e, why)

    previous: GridApproximation | None = None
    norms = gap = None
    why = "the levels did not agree"
    for _ in range(MOST_LEVELS):
        try:
            current, info = ladder.climb(deadline)
        except OutOfTime:
            why = "the time limit came first"
            break
        except IntegrationError as error:
            why = f"the error equation could not be solved: {error}"
            break
        norms = rms_norms(current)
        log.debug("defect level %s: %s", info, norms)
        if previous is not None:
            gap = difference_norms(previous, current)
            if (gap <= STABLE * norms + LEAST_ERROR * sizes).all():
                return answer(SAFETY * norms, current, "two levels agree")
        previous = current
    if norms is None:
        return _nothing(nf, why)
    doubtful = SAFETY * (norms + (gap if gap is not None else 2 * norms))
    assert previous is not None
    return answer(doubtful, previous, why)


class _Known(Background):
    """The approximate solution as a background."""

    def __init__(self, approximation: Differentiable) -> None:
        self.approximation = approximation

    def leaves(self, term: Term, t: Array) -> list[Array] | None:
        wanted = [(leaf.field, leaf.alpha) for leaf in term.residual.leaves]
        if not wanted:
            return None
        values = self._evaluate(term.points(t), wanted)
        return [value.reshape(term.size, len(t)) for value in values]

    def nodal(self, index: int, alpha: tuple[int, ...], points: Array) -> Array:
        return self._evaluate(points, [(index, alpha)])[0]

    def values(self, nf: NormalForm, points: Array) -> list[Array]:
        """Every field at points."""
        zero = (0,) * len(nf.coords)
        return self._evaluate(points, [(i, zero) for i in range(len(nf.fields))])

    def _evaluate(self, points: Array, wanted: list[tuple[int, tuple[int, ...]]]) -> list[Array]:
        with torch.no_grad():
            tensor = torch.from_numpy(np.ascontiguousarray(points))
            return [v.detach().numpy() for v in self.approximation.derivatives(tensor, wanted)]


def _midpoints(nf: NormalForm) -> Array:
    """Points for the fields' sizes (midpoint rule: nothing there needs to be accurate)."""
    per_axis = {1: 2000, 2: 80}.get(len(nf.coords), 22)
    axes = []
    for coord in nf.coords:
        lower, upper = nf.bounds[coord]
        axes.append(lower + (upper - lower) * (np.arange(per_axis) + 0.5) / per_axis)
    return np.stack([g.ravel() for g in np.meshgrid(*axes, indexing="ij")], axis=1)


def _rms(values: Array) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _nothing(nf: NormalForm, reason: str) -> Defect:
    return Defect(dict.fromkeys(nf.fields, np.inf), np.inf, None, reason)
