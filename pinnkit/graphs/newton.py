"""Newton's method for sparse systems, one step at a time.

In    functions for the residual and the Jacobian, a start.
Out   `Newton`: `z` and what is known of it; `step()` improves it.
Next  `SparseFixedPoint` steps it in the loop, `solution.graph_layer` inside a torch function.

Steps are damped by the natural monotonicity test (Deuflhard): a step lam d is taken if the simplified
correction J^-1 F(z + lam d) is shorter than d by a factor 1 - lam/4. It uses the factors that are there
already, and does not depend on the units of equations. Where no damping helps, or the Jacobian is
singular, pseudo-time steps (J + s D / tau) d = -F are taken instead, whose tau grows as the residual
falls; with tau large they are Newton's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse
from torch.linalg import LinAlgError  # pyright: ignore[reportAttributeAccessIssue]

from pinnkit.graphs.sparse_solve import Inverse, factorise

__all__ = ["Newton", "norm"]

LEAST_DAMPING = 1e-4
FIRST_TAU = 1.0
TINY = 1e-14  # of the values: no step is expected to be shorter
CONTRACTED = 1e-12  # a full step followed by a correction this short has converged
NEARLY = 1e-8  # below this, steps that stop shrinking are rounding


def norm(v: np.ndarray) -> float:
    """The 2-norm, without overflow of the squares."""
    largest = float(np.abs(v).max(initial=0.0))
    if largest == 0 or not np.isfinite(largest):
        return largest
    return largest * float(np.sqrt(np.sum((v / largest) ** 2)))


@dataclass
class Newton:
    """`converged` after rounding is reached, `failed` (a reason) when nothing more can be done.

    Args:
        residual: (n,) to (n,).
        jacobian: (n,) to a csr matrix.
        z: Where to start.
        linear: One step solves it; more of them refine.
        groups: Slices of z with values of one kind, for the length of steps.
        direct: As in `factorise`.
    """

    residual: Callable[[np.ndarray], np.ndarray]
    jacobian: Callable[[np.ndarray], Any]
    z: np.ndarray
    linear: bool
    groups: list[slice]
    direct: bool | None = None
    converged: bool = False
    failed: str = ""
    steps: int = 0
    damping: float = 1.0
    tau: float | None = None  # a number while pseudo-time steps are taken
    length: float = np.inf  # of the last Newton step, relative
    ratio: float = np.nan  # of the simplified correction to the step before: Newton's contraction
    inverse: Inverse | None = None
    matrix: Any = None
    F: np.ndarray = field(init=False)
    _size: float = field(init=False, default=np.inf)

    def __post_init__(self) -> None:
        self.F = self.residual(self.z)
        if not np.isfinite(self.F).all():
            row = int(np.flatnonzero(~np.isfinite(self.F))[0])
            self.failed = f"the equations are not finite at the start (row {row})"

    def step(self) -> None:
        """One step; sets `converged` or `failed` when it was the last."""
        self.steps += 1
        if self.linear:
            self._linear_step()
        elif self.tau is None:
            self._newton_step()
        else:
            self._pseudo_step()

    def _linear_step(self) -> None:
        if self.inverse is None:
            self.matrix = self.jacobian(self.z)
            try:
                self.inverse = factorise(self.matrix, direct=self.direct)
            except LinAlgError as fault:
                self.failed = str(fault)
                return
        moved = self.z - self.inverse.solve(self.F)
        F = self.residual(moved)
        if not np.isfinite(F).all():
            self.failed = "the matrix is singular to working precision"
            return
        size = norm(F)
        if size < self._size:
            self.length = self._length(moved - self.z)
            self.z, self.F = moved, F
        # Refinement ends when the residual no longer falls; iterations are accurate at once.
        self.converged = size > 0.1 * self._size or size == 0 or self.inverse.iterations > 0
        self._size = min(size, self._size)

    def _newton_step(self) -> None:
        try:
            self.matrix = self.jacobian(self.z)
            self.inverse = factorise(self.matrix, direct=self.direct)
            d = -self.inverse.solve(self.F)
        except LinAlgError:
            self._give_way()
            return
        length = self._length(d)
        if not np.isfinite(length):
            self._give_way()
            return
        before, self.length = self.length, length
        lam = min(1.0, 4 * self.damping)
        while lam >= LEAST_DAMPING:
            moved = self.z + lam * d
            F = self.residual(moved)
            if np.isfinite(F).all():
                correction = -self.inverse.solve(F)
                ratio = self._length(correction) / length if length else 0.0
                tiny = length <= TINY * 10
                if ratio <= 1 - lam / 4 or tiny:
                    self._accept(moved, F, correction, lam, ratio)
                    return
                if length <= NEARLY and before <= NEARLY:
                    # Rounding has the last word.
                    self.converged = True
                    return
                # The lam at which the quadratic model of the test would hold.
                bend = abs(ratio - (1 - lam))
                lam = min(0.5 * lam, lam * lam / (2 * bend) if bend > 0 else 0.5 * lam)
            else:
                lam *= 0.25
        self._give_way()

    def _accept(
        self, moved: np.ndarray, F: np.ndarray, correction: np.ndarray, lam: float, ratio: float
    ) -> None:
        self.z, self.F, self.damping = moved, F, lam
        self.ratio = ratio
        if lam < 1:
            return
        size = self._length(correction)
        if size <= CONTRACTED:
            further = self.residual(moved + correction)
            if np.isfinite(further).all() and norm(further) <= norm(F):
                self.z, self.F = moved + correction, further
            self.converged = True
            self.length = size

    def _give_way(self) -> None:
        """From Newton's steps to pseudo-time steps."""
        self.tau, self.damping = FIRST_TAU, 1.0
        self._size = self._scaled(self.F)

    def _pseudo_step(self) -> None:
        assert self.tau is not None
        matrix = self.jacobian(self.z)
        diagonal = matrix.diagonal()
        usual = np.median(np.abs(diagonal[diagonal != 0])) if diagonal.any() else 1.0
        # Of the diagonal's own sign, so that it is made larger and never cancelled.
        majority = 1.0 if (diagonal >= 0).sum() >= (diagonal < 0).sum() else -1.0
        sign = np.where(diagonal == 0, majority, np.sign(diagonal))
        weight = sign * np.maximum(np.abs(diagonal), 1e-3 * usual)
        for _ in range(30):
            shifted = (matrix + scipy.sparse.diags(weight / self.tau)).tocsr()
            try:
                d = -factorise(shifted, direct=self.direct).solve(self.F)
            except LinAlgError:
                d = np.full_like(self.z, np.nan)
            F = self.residual(self.z + d) if np.isfinite(d).all() else np.full_like(d, np.nan)
            size = self._scaled(F) if np.isfinite(F).all() else np.inf
            if size <= 2 * self._size:
                break
            self.tau *= 0.25
        else:
            self.failed = "neither Newton's method nor pseudo-time steps make progress"
            return
        self.z, self.F, self.matrix = self.z + d, F, matrix
        self.length = self._length(d)
        self.tau *= min(max(self._size / size if size else 10.0, 0.5), 10.0) * 1.5
        self._size = size
        if self.tau > 1e3:
            self.tau, self.damping = None, 1.0
            self.length = np.inf

    def _length(self, d: np.ndarray) -> float:
        """The step relative to the values, the largest over the groups."""
        found = [0.0]
        for group in self.groups:
            if d[group].size:
                # Relative to the values, and absolute where all are tiny.
                size = norm(self.z[group]) / np.sqrt(d[group].size)
                found.append(norm(d[group]) / np.sqrt(d[group].size) / max(size, 1e-3))
        return max(found)

    def _scaled(self, F: np.ndarray) -> float:
        """The residual relative to the rows' sizes at the present Jacobian."""
        if self.matrix is None:
            self.matrix = self.jacobian(self.z)
        rows = np.asarray(abs(self.matrix).sum(axis=1)).ravel()
        rows[~(rows > 0)] = 1.0
        return norm(F / rows)
