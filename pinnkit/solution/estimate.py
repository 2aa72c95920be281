"""Small records of a solution: an estimated number, and what the solve cost.

In    figures from a solver and the driver.
Out   `Estimate`, `Stats`.
Next  `sol.parameters[nu]`, `sol.stats`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pinnkit.errors import Status

__all__ = ["Estimate", "SavedSolver", "Stats", "solver_name"]

QUANTILE = 1.959963984540054  # of the standard normal at 97.5 %


@dataclass(frozen=True)
class Estimate:
    """A number determined by a solve, with its standard error where the method gives one.

    >>> Estimate(2.0, 0.1).interval95
    (1.8040036015459946, 2.1959963984540054)
    """

    value: float
    stderr: float | None = None

    @property
    def interval95(self) -> tuple[float, float]:
        """value -+ 1.96 stderr (a normal approximation); nan where the standard error is unknown."""
        if self.stderr is None:
            return (math.nan, math.nan)
        half = QUANTILE * self.stderr
        return (self.value - half, self.value + half)

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        return (
            f"{self.value:.6g}" if self.stderr is None else f"{self.value:.6g} +- {self.stderr:.1g}"
        )


@dataclass(frozen=True)
class Stats:
    """What a solve cost. `stopped_by` is why training stopped (OK: converged, judged afterwards).

    `peak_memory` is in bytes: of the accelerator's allocator where one was used, else the largest
    resident size of the whole process so far. `more` holds what the solver itself reports.
    """

    seconds: float
    steps: int
    parameters: int
    points: int
    peak_memory: int
    stopped_by: Status
    verification_seconds: float = 0.0
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SavedSolver:
    """Stands for the solver of a loaded solution that could not be rebuilt (it held functions)."""

    name: str
    text: str

    def __repr__(self) -> str:
        return self.text


def solver_name(solver: object) -> str:
    """The class name of a solver, also of one only known from a file."""
    return solver.name if isinstance(solver, SavedSolver) else type(solver).__name__
