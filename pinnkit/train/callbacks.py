"""Callbacks everybody wants: a progress line and the record of the losses.

In    the `StepInfo` of every step.
Out   one line rewritten on a terminal; a `History` that ends up as `sol.history`.
Next  `pinnkit.driver` calls them after each step.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

from torch import Tensor

from pinnkit.train.iteration import StepInfo

__all__ = ["History", "Progress"]


class Progress:
    """Rewrites one line: step, seconds, the losses.

    Args:
        every: Look only at every so many steps.
        interval: Seconds between two writings; reading a loss waits for the device.
        stream: Where to write (default: standard error).
        time_limit: Shown beside the seconds.
    """

    def __init__(
        self,
        every: int = 1,
        *,
        interval: float = 0.2,
        stream: TextIO | None = None,
        time_limit: float | None = None,
    ) -> None:
        _check_every(every)
        self.every, self.interval, self.time_limit = every, interval, time_limit
        self._stream = sys.stderr if stream is None else stream
        self._last, self._width = -math.inf, 0

    def __call__(self, info: StepInfo) -> None:
        now = time.monotonic()
        if info.step % self.every or now - self._last < self.interval:
            return
        self._last = now
        steps = f"{info.step}" if info.max_steps is None else f"{info.step}/{info.max_steps}"
        limit = "" if self.time_limit is None else f"/{self.time_limit:.0f}"
        losses = "  ".join(f"{name} {_number(value):.2e}" for name, value in info.losses.items())
        self.say(f"step {steps}  {info.seconds:.1f}{limit} s  {losses}")

    def say(self, text: str) -> None:
        """Put `text` in place of the line."""
        text = text[:160]
        self._stream.write("\r" + text.ljust(self._width))
        self._stream.flush()
        self._width = len(text)

    def close(self) -> None:
        """End the line, if one was written."""
        if self._width:
            self._stream.write("\n")
            self._stream.flush()
            self._width = 0


class History:
    """Losses by step, kept at most `limit` long by halving: every second record goes, `every` doubles.

    Which steps are kept depends on their numbers only, so a resumed run ends with the same steps.

    Args:
        every: Record every so many steps (step 1 always).
        limit: Most records kept.
    """

    def __init__(self, every: int = 1, *, limit: int = 4096) -> None:
        _check_every(every)
        self.every, self.limit = every, limit
        self.steps: list[int] = []
        self.seconds: list[float] = []
        self.estimates: list[tuple[int, float, float]] = []  # (step, seconds, error estimate)
        self._losses: list[Mapping[str, float | Tensor]] = []
        self._seconds_before = 0.0  # spent before a resume

    def __call__(self, info: StepInfo) -> None:
        if info.step % self.every and info.step != 1:
            return
        self.steps.append(info.step)
        self.seconds.append(self._seconds_before + info.seconds)
        self._losses.append(dict(info.losses))
        if len(self.steps) > self.limit:
            self._halve()

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, name: str) -> list[float]:
        return self.losses[name]

    def __repr__(self) -> str:
        return f"History({len(self)} records of {', '.join(self.losses) or 'nothing'})"

    @property
    def losses(self) -> dict[str, list[float]]:
        """One list per loss, as long as `steps`; nan where a step had no such loss."""
        # Only now are tensors read: doing it every step would wait for the device every step.
        self._losses = [{k: _number(v) for k, v in record.items()} for record in self._losses]
        names = dict.fromkeys(name for record in self._losses for name in record)
        return {n: [float(record.get(n, math.nan)) for record in self._losses] for n in names}

    def note_estimate(self, step: int, seconds: float, error: float) -> None:
        """Record an error estimate made during training."""
        self.estimates.append((step, self._seconds_before + seconds, error))

    def to_state(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "every": self.every,
            "limit": self.limit,
            "steps": list(self.steps),
            "seconds": list(self.seconds),
            "losses": self.losses,
            "estimates": [list(e) for e in self.estimates],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> History:
        """What `to_state` gave; seconds go on counting from its last record."""
        history = cls(int(state["every"]), limit=int(state["limit"]))
        history.steps = [int(s) for s in state["steps"]]
        history.seconds = [float(s) for s in state["seconds"]]
        history.estimates = [(int(s), float(t), float(e)) for s, t, e in state["estimates"]]
        losses = {str(name): [float(v) for v in values] for name, values in state["losses"].items()}
        history._losses = [{n: v[i] for n, v in losses.items()} for i in range(len(history.steps))]
        history._seconds_before = history.seconds[-1] if history.seconds else 0.0
        return history

    def _halve(self) -> None:
        self.every *= 2
        kept = [i for i, s in enumerate(self.steps) if s % self.every == 0 or s == 1]
        self.steps = [self.steps[i] for i in kept]
        self.seconds = [self.seconds[i] for i in kept]
        self._losses = [self._losses[i] for i in kept]


def _check_every(every: int) -> None:
    if every < 1:
        raise ValueError(f"every={every} must be at least 1")


def _number(value: float | Tensor) -> float:
    return float(value.detach().mean()) if isinstance(value, Tensor) else float(value)
