"""Newton's method for problems without time.

In    a `System` and a first guess.
Out   the state where F(y) = 0.
Next  `ladders` uses it level by level, each level starting from the one before.
"""

from __future__ import annotations

import time

import numpy as np

from pinnkit.classical.discretise import System
from pinnkit.classical.implicit import IntegrationError, OutOfTime
from pinnkit.classical.linear_algebra import SingularMatrixError, factorise

__all__ = ["newton"]

Array = np.ndarray
MAX_ITERATIONS = 60


def newton(system: System, y: Array, *, deadline: float) -> Array:
    """Damped Newton: the step is halved until the simplified correction shrinks (Deuflhard's natural
    monotonicity test, which is unaffected by the scaling of the equations)."""
    frame = system.frame(np.zeros(1))

    def residual(state: Array) -> Array:
        return system.residual(frame, state[:, None], np.zeros((system.size, 1)))[:, 0]

    for _ in range(MAX_ITERATIONS):
        if time.monotonic() > deadline:
            raise OutOfTime
        j, _ = system.jacobian(frame, y, np.zeros(system.size))
        try:
            solve = factorise(j)
        except SingularMatrixError as error:
            raise IntegrationError(
                "the linearised equations are singular: the solution is not unique "
                "(a missing condition or gauge) or not isolated"
            ) from error
        change = solve(residual(y))
        size = _size(change)
        if not np.isfinite(size):
            raise IntegrationError("the equations are not finite at the current guess")
        scale = 1.0 + np.abs(y).max()
        if size > 1e12 * scale and system.affine:
            raise IntegrationError("the linear equations are singular to working precision")
        damping = 1.0
        while True:
            trial = y - damping * change
            if system.steady_jacobian:
                return _refined(solve, residual, trial)
            following = _size(solve(residual(trial)))
            if np.isfinite(following) and following <= (1 - damping / 4) * size + 1e-13 * scale:
                break
            damping /= 2
            if damping < 1e-6:
                raise IntegrationError("Newton's method found no solution from its first guess")
        y = trial
        if damping == 1.0 and following <= 1e-12 * scale:
            return y
    raise IntegrationError("Newton's method did not converge")


def _refined(solve, residual, y: Array) -> Array:  # noqa: ANN001
    """One round of iterative refinement: high-order matrices are badly conditioned."""
    return y - solve(residual(y))


def _size(change: Array) -> float:
    return float(np.sqrt(np.mean(change**2)))
