"""What can go wrong, and what a solve can end with: four exceptions, `Status`, `Evidence`.

Everything above imports this; it imports nothing of ours and neither sympy nor torch.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pinnkit.solution import Solution

__all__ = [
    "DeclarationError",
    "DeclarationWarning",
    "Evidence",
    "MissingDependencyError",
    "SolveError",
    "Status",
    "UnsupportedProblemError",
]


class DeclarationError(ValueError):
    """The problem as written cannot be right; the message says what to write instead."""


class DeclarationWarning(UserWarning):
    """The problem is valid, but the result may be wrong near some place (a jump at a corner)."""


class UnsupportedProblemError(NotImplementedError):
    """The problem is valid, but not for this solver; the message names one that can."""


class MissingDependencyError(ImportError):
    """An optional package is needed and absent; the message names it."""


class Status(enum.Enum):
    """How a solve ended. Only `OK` is ok; the value is the message shown to the user."""

    OK = "checked: the error is below the tolerance"
    INACCURATE = "checked: the error is above the tolerance; give it more time or another solver"
    UNVERIFIED = "finished, but nothing independent says how wrong the answer is"
    MAX_STEPS = "stopped at max_steps; the error was not checked"
    TIME_LIMIT = "stopped at time_limit; the error was not checked"
    STALLED = "training stalled; the error was not checked"
    DIVERGED = "training diverged: the loss is not finite or grew without bound"
    INTERRUPTED = "interrupted by the user; this is the best answer so far"
    SHOCK = "a shock forms inside the time span; a smooth answer ends there"
    NOT_IDENTIFIABLE = "the data do not determine the unknown parameters"
    NO_GROUND_TRUTH = "a model of data alone: there is no error to check"

    @property
    def ok(self) -> bool:
        """True for `OK` only."""
        return self is Status.OK

    @property
    def message(self) -> str:
        """What happened, in one sentence."""
        return self.value


class Evidence(enum.Enum):
    """Where the error estimate of a solution comes from, strongest first."""

    EXACT = "difference from the declared exact solution"
    CERTIFIED = "a proved bound"
    REFERENCE = "difference from an independent classical discretisation, refined until its own error is known"
    DEFECT = "the linearised error equation, solved classically on a coarse grid"
    RESIDUAL = "the residual on held-out points (not an error)"
    NONE = "nothing"


class SolveError(RuntimeError):
    """Raised by `solve(..., throw=True)`; `.status` says why, `.solution` is the partial answer."""

    def __init__(self, status: Status, solution: Solution) -> None:
        super().__init__(f"{status.name}: {status.message}")
        self.status = status
        self.solution = solution
