"""The one loop: every iterative solver is stepped here and nowhere else.

In    anything with `step` and `terminate` (a solver), what it solves, and its state.
Out   one frozen `StepInfo` per step, and at the end the reason why it stopped.
Next  `train.session` runs it to its end; users with their own loop iterate it themselves.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from pinnkit.errors import Status
from pinnkit.train.ranks import ONE, Ranks

__all__ = ["Callback", "Iteration", "StepInfo", "Steppable", "TrainingState", "iterate"]


class TrainingState(Protocol):
    """All that changes while a solver runs; `step` counts finished steps."""

    step: int

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers, strings, lists and dicts: everything needed to go on."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave, exactly."""
        ...


class Steppable(Protocol):
    """What the loop needs of a solver."""

    def step(self, problem: Any, state: Any) -> Mapping[str, float | Tensor]:
        """Advance `state` in place by one step; return detached losses."""
        ...

    def terminate(self, problem: Any, state: Any) -> Status | None:
        """None to go on, else why to stop."""
        ...


@dataclass(frozen=True)
class StepInfo:
    """What a callback sees after a step. `losses` may still lie on the device: `float(...)` waits for it."""

    step: int
    max_steps: int | None
    losses: Mapping[str, float | Tensor]
    seconds: float  # since the loop began, callbacks included
    state: Any


Callback = Callable[[StepInfo], bool | None]  # True stops


class Iteration(Iterator[StepInfo]):
    """The running loop. `stopped_by` is None while it runs, then the reason it ended.

    On several ranks all of them end it at the same step: by the clock of rank 0, and by `stop` only
    where all call it.
    """

    def __init__(
        self,
        solver: Steppable,
        problem: Any,
        state: TrainingState,
        *,
        max_steps: int | None = None,
        time_limit: float | None = None,
        started: float | None = None,
        ranks: Ranks = ONE,
    ) -> None:
        self._ranks = ranks
        self._solver, self._problem, self.state = solver, problem, state
        self._max_steps, self._time_limit = max_steps, time_limit
        self._started = time.perf_counter() if started is None else started
        self.stopped_by: Status | None = None

    @property
    def seconds(self) -> float:
        """Time since the loop began."""
        return time.perf_counter() - self._started

    @property
    def left(self) -> float:
        """Seconds until the time limit; infinite without one, never negative."""
        limit = math.inf if self._time_limit is None else self._time_limit
        return max(0.0, limit - self.seconds)

    def stop(self, reason: Status) -> None:
        """End the loop before the next step; the first reason given stays."""
        if self.stopped_by is None:
            self.stopped_by = reason

    def __iter__(self) -> Iteration:
        return self

    def __next__(self) -> StepInfo:
        self._look_for_an_end()
        if self.stopped_by is not None:
            raise StopIteration
        losses = self._solver.step(self._problem, self.state)
        if not _finite(losses):
            # Shown to the callbacks once, so that the history ends with the culprit; then the loop ends.
            self.stop(Status.DIVERGED)
        return StepInfo(self.state.step, self._max_steps, losses, self.seconds, self.state)

    def _look_for_an_end(self) -> None:
        if self.stopped_by is not None:
            return
        # The solver speaks first: converged on the very last step is converged, not "out of steps".
        reason = self._solver.terminate(self._problem, self.state)
        if reason is None and self._max_steps is not None and self.state.step >= self._max_steps:
            reason = Status.MAX_STEPS
        if reason is None and self._time_limit is not None and self.seconds >= self._time_limit:
            reason = Status.TIME_LIMIT
        self.stopped_by = _agreed(reason, self._ranks)


def iterate(
    solver: Steppable,
    problem: Any,
    state: TrainingState,
    *,
    max_steps: int | None = None,
    time_limit: float | None = None,
    started: float | None = None,
    ranks: Ranks = ONE,
) -> Iteration:
    """Step `solver` on `problem` until it, `max_steps` or `time_limit` says stop.

    Args:
        solver: Something that steps and terminates.
        problem: Handed through to the solver.
        state: The solver's state, advanced in place.
        max_steps: Total steps counted by `state.step`, so a resumed run ends where an
            uninterrupted one would; None for no limit.
        time_limit: Seconds since `started`; the step under way is finished.
        started: `time.perf_counter()` from which seconds count (default: now).
        ranks: The processes that step together.
    """
    return Iteration(
        solver,
        problem,
        state,
        max_steps=max_steps,
        time_limit=time_limit,
        started=started,
        ranks=ranks,
    )


def _agreed(reason: Status | None, ranks: Ranks) -> Status | None:
    """Rank 0's reason."""
    known = list(Status)
    number = int(ranks.same(-1 if reason is None else known.index(reason)))
    return None if number < 0 else known[number]


def _finite(losses: Mapping[str, float | Tensor]) -> bool:
    """False if some loss is known not to be finite.

    Tensors on a device are not looked at (that would wait for the device every step);
    solvers check those in `terminate`, at intervals of their own.
    """
    for value in losses.values():
        if isinstance(value, Tensor):
            if value.device.type == "cpu" and not bool(torch.isfinite(value.detach()).all()):
                return False
        elif not math.isfinite(value):
            return False
    return True
