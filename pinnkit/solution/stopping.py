"""Stop when the answer is good enough: the classical error estimate, looked at during training.

In    the tolerance asked for; the approximation at some steps.
Out   an error estimate at step numbers that grow by half each time, once the answer is complete.
Next  `pinnkit.driver` stops training once it is below a third of the tolerance.

Training sees none of it: the estimate decides only when to stop.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pinnkit import classical
from pinnkit.ir.normal_form import NormalForm
from pinnkit.solution.answer import Approximation
from pinnkit.solution.verification import estimate_defect

__all__ = ["ErrorWatch"]

FIRST = 20  # the step after which the first look comes
GROWTH = 1.5  # of the step number from one look to the next
SHARE = 0.1  # of the time since it was complete that one look may cost; with GROWTH, 3 times this in all
LEAST = 2.0  # seconds any look may take
SAFETY = 3.0  # stop at tol / SAFETY


class ErrorWatch:
    """When to look next, and whether what was seen is enough.

    Looks come 20, 30, 45, ... steps after the solver first called its answer complete: never by the
    clock, so that a solve stops at the same step on every machine where a look fits into its time.
    What is next is part of every checkpoint, so a resumed run looks when an uninterrupted one would.
    """

    def __init__(self, nf: NormalForm, tol: float | None) -> None:
        self._nf, self._tol = nf, tol
        applies = tol is not None and classical.supports(nf) is None
        self._next: int | None = FIRST if applies else None  # steps since `_begun`
        self._begun: int | None = None
        self._since = 0.0  # seconds before the answer was complete

    @property
    def applies(self) -> bool:
        """Whether there is a tolerance, and an estimate for this kind of problem."""
        return self._next is not None

    def due(self, step: int, seconds: float, *, complete: bool) -> bool:
        """Whether to look after this step, at this time."""
        if self._next is None or not complete:
            return False
        if self._begun is None:
            # Complete after the first step: it was so from the start.
            self._begun, self._since = step - 1, 0.0 if step == 1 else seconds
        return step - self._begun >= self._next

    def look(self, approximation: Approximation, step: int, seconds: float, left: float) -> float:
        """The error estimate now (nan where it fails, or `left` seconds are over); plans the next look."""
        self._next = math.ceil(GROWTH * (step - (self._begun or 0)))
        limit = min(left, max(LEAST, SHARE * (seconds - self._since)))
        if limit <= 0:
            return math.nan
        error, _, _ = estimate_defect(self._nf, approximation, time_limit=limit)
        return error

    def reached(self, error: float) -> bool:
        """Whether the estimate is below a third of the tolerance."""
        return self._tol is not None and error <= self._tol / SAFETY

    def to_state(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"next_look": self._next, "begun": self._begun}

    def from_state(self, state: Mapping[str, Any]) -> None:
        """From the checkpoint; a run that had no tolerance left nothing to go on from."""
        if self._next is not None and state.get("next_look") is not None:
            self._next = int(state["next_look"])
            self._begun = state.get("begun")
