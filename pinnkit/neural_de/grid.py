"""Time grids in float64: every output time is a grid point, and steps are never a rounding short.

In    output times and a largest step.
Out   a `TimeGrid`: the points, and which of them are outputs.
Next  `neural_de.brownian` puts noise on it, `neural_de.integrate` walks along it.

Accumulating dt = 0.01 in float32 ends with a 101st step of 7e-7 on [0, 1]; here the number of steps
of a gap is an integer, found up to float32 rounding, and the points are t_i + k (t_{i+1} - t_i) / n.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

__all__ = ["ROUNDING", "TimeGrid"]

ROUNDING = (
    1e-5  # a gap this much above a whole number of steps is that number: times may be float32
)


@final
@dataclass(frozen=True, eq=False)
class TimeGrid:
    """Points t_0 <= ... <= t_K.

    Args:
        points: float64 on the CPU, shape (K + 1,), or (K + 1, B) where every sample has its own clock.
        outputs: Indices of the points at which states are wanted, ascending, 0 among them.
    """

    points: Tensor
    outputs: tuple[int, ...]

    @staticmethod
    def of(times: Any, dt: float | None = None) -> TimeGrid:
        """Gaps between the times, each cut into the fewest equal steps not longer than dt.

        Args:
            times: Ascending, shape (T,), or (T, B) for one clock per sample, whose times may repeat
                (a sample stands still during a gap of length 0).
            dt: The largest step; None takes each gap in one.
        """
        outputs = torch.as_tensor(times).detach().to("cpu", torch.float64)
        _check(outputs, dt)
        gaps = outputs.diff(dim=0)
        widest = gaps.reshape(len(gaps), -1).amax(dim=1).tolist()
        counts = [1 if dt is None else max(1, math.ceil(w / dt * (1 - ROUNDING))) for w in widest]
        parts = [outputs[:1]]
        for i, n in enumerate(counts):
            share = torch.arange(1, n, dtype=torch.float64).reshape(-1, *[1] * gaps[i].ndim) / n
            parts += [outputs[i] + share * gaps[i], outputs[i + 1 : i + 2]]
        places = [0]
        for n in counts:
            places.append(places[-1] + n)
        return TimeGrid(torch.cat(parts), tuple(places))

    @property
    def steps(self) -> int:
        """K."""
        return len(self.points) - 1

    @property
    def widths(self) -> Tensor:  # shape: (K,) or (K, B)
        """The lengths of the steps."""
        return self.points.diff(dim=0)

    def refine(self) -> TimeGrid:
        """Every step halved."""
        middles = 0.5 * (self.points[1:] + self.points[:-1])
        points = torch.empty(2 * self.steps + 1, *self.points.shape[1:], dtype=torch.float64)
        points[::2], points[1::2] = self.points, middles
        return TimeGrid(points, tuple(2 * i for i in self.outputs))


def _check(outputs: Tensor, dt: float | None) -> None:
    shape = tuple(outputs.shape)
    if outputs.ndim not in (1, 2) or len(outputs) < 2:
        raise ValueError(f"times has the shape {shape}, expected (T,) or (T, B) with T at least 2")
    if not bool(torch.isfinite(outputs).all()):
        raise ValueError("times holds nan or inf; give finite times")
    gaps = outputs.diff(dim=0)
    if bool((gaps < 0).any()) or (outputs.ndim == 1 and bool((gaps == 0).any())):
        k = int((gaps.reshape(len(gaps), -1).amin(1) <= 0).nonzero()[0])
        raise ValueError(f"times does not ascend after its entry {k}; sort it and drop repetitions")
    if dt is not None and not (isinstance(dt, (int, float)) and 0 < dt < math.inf):
        raise ValueError(f"dt={dt!r} must be a positive number or None")
