"""`sol[expr]`: any expression of a solution's fields as a function, with deviation and samples.

In    a `Solution` and an expression in its fields, their derivatives and the coordinates.
Out   `Evaluation`: values, and where the method has a distribution its deviation and joint draws.
Next  users; `solution.plots`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import sympy as sp

from pinnkit.solution.evaluate import FieldExpressions

if TYPE_CHECKING:
    from pinnkit.solution.solution import Solution

__all__ = ["Evaluation"]


class Evaluation:
    """`sol[expr]`: call it with the coordinates the expression depends on, as `sol` itself."""

    def __init__(self, solution: Solution, expr: sp.Expr) -> None:
        self.expr = expr
        self._solution = solution
        values = {p: e.value for p, e in solution.parameters.items()}
        self._compiled = FieldExpressions(solution.normal_form, (expr,), values)

    def __call__(self, /, *, extrapolate: bool = False, **coords: Any) -> Any:
        """Values at the coordinates, broadcast; outside the domain ValueError unless `extrapolate`."""
        return self._solution._evaluate(self._compiled, coords, extrapolate)[0]

    def std(self, *, extrapolate: bool = False, **coords: Any) -> Any:
        """Standard deviation, where the method knows one; linearised at the mean if not linear."""
        uncertain = self._solution._distribution("std")
        placed = self._solution._place(coords, extrapolate, self._compiled.coords)
        return placed.back(self._compiled.std(uncertain, placed.points))

    def sample(self, n: int = 1, *, seed: int = 0, **coords: Any) -> Any:
        """`n` joint draws, first axis n; a seed means the same draws of the fields as `sol.sample`."""
        uncertain = self._solution._distribution("sample")
        placed = self._solution._place(coords, False, self._compiled.coords)
        draws = self._compiled.sample(uncertain, placed.points, n, seed)
        return np.stack([placed.back(draw) for draw in draws])

    def __repr__(self) -> str:
        return f"Evaluation({self.expr})"
