"""Stop when the answer is good enough: the classical error estimate, looked at during training.

In    the tolerance asked for; the approximation at some steps.
Out   an error estimate at growing intervals.
Next  `pinnkit.driver` stops training once it is below a third of the tolerance.

Training sees none of it: the estimate decides only when to stop.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from pinnkit import classical
from pinnkit.ir.normal_form import NormalForm
from pinnkit.solution.approximation import Approximation
from pinnkit.solution.verification import estimate_defect

__all__ = ["ErrorWatch"]

FIRST = 10  # steps; also the unit the next look is rounded up to, so that timing noise rarely shows
GROWTH = 1.5  # of the step number from one look to the next, at least
SHARE = 0.15  # of the time so far that looking may cost
SAFETY = 3.0  # stop at tol / SAFETY


class ErrorWatch:
    """When to look next, and whether what was seen is enough.

    The next look comes at 1.5 times the step, or later where the last one cost more than 15 % of
    the time so far. That step is part of every checkpoint, so a resumed run looks when an
    uninterrupted one would have.
    """

    def __init__(self, nf: NormalForm, tol: float | None) -> None:
        self._nf, self._tol = nf, tol
        applies = tol is not None and classical.supports(nf) is None
        self._next = FIRST if applies else None

    def due(self, step: int) -> bool:
        """Whether to look after this step."""
        return self._next is not None and step >= self._next

    def look(self, approximation: Approximation, step: int, seconds: float) -> float:
        """The error estimate now (nan where it fails); plans the next look."""
        started = time.perf_counter()
        error, _, _ = estimate_defect(self._nf, approximation, time_limit=max(2.0, SHARE * seconds))
        cost = time.perf_counter() - started
        affordable = cost / SHARE * step / max(seconds, 1e-9)
        following = max(GROWTH * step, step + affordable)
        self._next = FIRST * math.ceil(following / FIRST)
        return error

    def reached(self, error: float) -> bool:
        """Whether the estimate is below a third of the tolerance."""
        return self._tol is not None and error <= self._tol / SAFETY

    def to_state(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"next_look": self._next}

    def from_state(self, state: Mapping[str, Any]) -> None:
        """From the checkpoint; a run that had no tolerance left nothing to go on from."""
        if self._next is not None and state.get("next_look") is not None:
            self._next = int(state["next_look"])
