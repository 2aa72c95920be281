"""Control paths: irregular observations as functions of time, batched, for any device.

In    padded times and values (NaN = missing), as `IrregularSeries.padded()` gives them.
Out   a `ControlPath`: X(t) and dX/dt for a common time or for one clock per sample.
Next  drifts and readouts read X(t); neural controlled equations are driven by dX.

| path | X on [t_i, t_{i+1}] | knows at time t |
|---|---|---|
| `HermitePath` | cubic, slopes d_{i-1} and d_i of backward differences | up to the next observation |
| `LinearPath` | straight | up to the next observation |
| `HeldPath` | x_i | nothing of the future |
| `RectilinearPath` | in a parameter s: first time moves, then values | nothing of the future |

Missing values are filled before: towards the next observed one for the first two, which makes them
look ahead as far as the gap is long, and by the last observed one (`causal`) for the others, where a
channel not seen yet is 0, the mean of normalised training data. Before its first and after its last
observation a path is constant.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol, final

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "ControlPath",
    "HeldPath",
    "HermitePath",
    "LinearPath",
    "RectilinearPath",
    "fill",
    "fill_forward",
    "make_path",
]


class ControlPath(Protocol):
    """A batch of B functions of time with C components."""

    @property
    def channels(self) -> int:
        """C."""
        ...

    @property
    def ends(self) -> tuple[Tensor, Tensor]:  # shapes: (B,), (B,)
        """First and last time (parameter) of every sample."""
        ...

    def evaluate(self, t: Tensor) -> Tensor:  # shapes: () or (B, 1) -> (B, C)
        """X(t)."""
        ...

    def derivative(self, t: Tensor) -> Tensor:  # shapes: () or (B, 1) -> (B, C)
        """dX/dt, from the right at kinks."""
        ...

    def table(self, points: Tensor) -> tuple[Tensor, Tensor]:  # (B, K) -> (B, K, C) twice
        """X and dX/dt at K times of every sample at once: what a loop over a grid looks up."""
        ...

    def means(self, points: Tensor) -> Tensor:  # (B, K) -> (B, K - 1, C)
        """The mean of X between each of K ascending times and the next, exactly; X itself if they are equal."""
        ...

    def take(self, index: Tensor) -> ControlPath:  # shape: (n,)
        """The paths of some samples, in the order of `index`, which may repeat."""
        ...


def fill_forward(values: np.ndarray, start: float = 0.0) -> np.ndarray:  # shape: (N, L, C)
    """Missing values become the last observed one, `start` where there is none yet."""
    place = np.arange(values.shape[1])[:, None]
    index = np.where(np.isnan(values), -1, place)
    last = np.maximum.accumulate(index, axis=1)
    filled = np.take_along_axis(values, last.clip(0), axis=1)
    return np.where(last >= 0, filled, start)


def fill(times: np.ndarray, values: np.ndarray) -> np.ndarray:  # shapes: (N, L), (N, L, C)
    """Missing values on the line between the observed neighbours.

    Before the first observation its value, after the last one its value, 0 in a channel without any.
    """
    length = values.shape[1]
    gone = np.isnan(values)
    place = np.arange(length)[:, None]
    before = np.maximum.accumulate(np.where(gone, -1, place), axis=1)
    after = np.minimum.accumulate(np.where(gone, length, place)[:, ::-1], axis=1)[:, ::-1]
    never = before[:, -1:] < 0
    left = np.where(before < 0, after, before).clip(0, length - 1)
    right = np.where(after >= length, before, after).clip(0, length - 1)
    clock = np.broadcast_to(times[:, :, None], values.shape)
    t0, t1 = (np.take_along_axis(clock, i, axis=1) for i in (left, right))
    x0, x1 = (np.take_along_axis(values, i, axis=1) for i in (left, right))
    share = np.divide(clock - t0, t1 - t0, out=np.zeros(values.shape), where=t1 > t0)
    return np.where(never, 0.0, x0 + share * (x1 - x0))


@final
@dataclass(frozen=True, eq=False)
class _Knots:
    """Ascending times (B, L), repeated at the end of shorter series, and the search in them."""

    times: Tensor

    def locate(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # three of shape (B, K)
        """The interval, the time since its left end within its length, and whether t is inside."""
        length = self.times.shape[1]
        index = (self.last_before(points)).clamp(0, length - 2)
        left, right = self.times.gather(1, index), self.times.gather(1, index + 1)
        inside = (points >= self.times[:, :1]) & (points < self.times[:, -1:])
        return index, (points - left).clamp_min(0).minimum(right - left), inside

    def last_before(self, points: Tensor) -> Tensor:  # shape: (B, K)
        """The last knot not after t, -1 before the first."""
        return torch.searchsorted(self.times, points.contiguous(), right=True) - 1

    def points(self, t: Tensor) -> Tensor:  # shapes: () or (B, 1) -> (B, 1)
        """One time per sample."""
        return t.reshape(-1, 1).expand(len(self.times), 1).to(self.times.dtype)

    def take(self, index: Tensor) -> _Knots:
        return _Knots(self.times[index])

    @property
    def ends(self) -> tuple[Tensor, Tensor]:
        return self.times[:, 0], self.times[:, -1]


class AbstractKnotPath(ABC):
    """A path between knots; subclasses say what it is there."""

    _knots: _Knots

    @property
    @abstractmethod
    def channels(self) -> int:
        """C."""

    @property
    def ends(self) -> tuple[Tensor, Tensor]:
        """First and last time (parameter) of every sample, shapes (B,)."""
        return self._knots.ends

    def evaluate(self, t: Tensor) -> Tensor:  # shapes: () or (B, 1) -> (B, C)
        """X(t)."""
        return self.table(self._knots.points(t))[0][:, 0]

    def derivative(self, t: Tensor) -> Tensor:  # shapes: () or (B, 1) -> (B, C)
        """dX/dt, from the right at kinks."""
        return self.table(self._knots.points(t))[1][:, 0]

    def means(self, points: Tensor) -> Tensor:  # (B, K) -> (B, K - 1, C)
        """Means of X over the intervals between ascending times; see `ControlPath`."""
        index, tau, _ = self._knots.locate(points)
        x = self.table(points)[0]
        widths = self._knots.times.diff(dim=1)
        whole = self._area(widths, torch.arange(widths.shape[1], device=x.device).expand_as(widths))
        before = torch.cat([torch.zeros_like(whole[:, :1]), whole.cumsum(1)], dim=1)
        area = _rows(before, index) + self._area(tau, index)
        # Outside its knots a path is constant, so there the clipped part is a rectangle.
        first, last = (e[:, None] for e in self.ends)
        area = area + x * (points - points.clamp(first, last)).to(x.dtype)[..., None]
        h = points.diff(dim=1).to(x.dtype)[..., None]
        mean = area.diff(dim=1) / torch.where(h > 0, h, torch.ones_like(h))
        return torch.where(h > 0, mean, x[:, :-1])

    @abstractmethod
    def _area(self, tau: Tensor, index: Tensor) -> Tensor:  # (B, K) twice -> (B, K, C)
        """The integral of X from the left end of an interval over a time tau inside it."""

    @abstractmethod
    def table(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """X and dX/dt at many times; see `ControlPath`."""

    @abstractmethod
    def take(self, index: Tensor) -> ControlPath:
        """The paths of some samples."""


@final
class HermitePath(AbstractKnotPath):
    """Piecewise cubic with the slopes of backward differences: once differentiable.

    On [t_i, t_i + h] with tau = t - t_i, b = d_{i-1} (d_0 for i = 0) and d_i = (x_{i+1} - x_i) / h:
    X = x_i + b tau + 2 (d_i - b) tau^2 / h - (d_i - b) tau^3 / h^2, so that X ends in x_{i+1} with
    the slope d_i.
    """

    def __init__(self, times: Tensor, values: Tensor) -> None:  # shapes: (B, L), (B, L, C)
        h = times.diff(dim=1)[..., None].to(values.dtype)
        # Gaps of length 0 pad short series; they are never inside.
        safe = torch.where(h > 0, h, torch.ones_like(h))
        slope = torch.where(h > 0, values.diff(dim=1) / safe, torch.zeros_like(h))
        back = torch.cat([slope[:, :1], slope[:, :-1]], dim=1)
        bend = slope - back
        coefficients = torch.stack(
            [values[:, :-1], back, 2 * bend / safe, -bend / safe**2], dim=2
        )  # shape: (B, L - 1, 4, C)
        self._set(_Knots(times.contiguous()), coefficients)

    def _set(self, knots: _Knots, coefficients: Tensor) -> None:
        self._knots, self._coefficients = knots, coefficients

    @property
    def channels(self) -> int:
        return self._coefficients.shape[-1]

    def table(self, points: Tensor) -> tuple[Tensor, Tensor]:
        index, tau, inside = self._knots.locate(points)
        x, b, c, e = _rows(self._coefficients, index).unbind(2)
        tau = tau.to(x.dtype)[..., None]
        slope = (b + tau * (2 * c + 3 * tau * e)) * inside[..., None]
        return x + tau * (b + tau * (c + tau * e)), slope

    def _area(self, tau: Tensor, index: Tensor) -> Tensor:
        x, b, c, e = _rows(self._coefficients, index).unbind(2)
        tau = tau.to(x.dtype)[..., None]
        return tau * (x + tau * (b / 2 + tau * (c / 3 + tau * e / 4)))

    def take(self, index: Tensor) -> HermitePath:
        made = HermitePath.__new__(HermitePath)
        made._set(self._knots.take(index), self._coefficients[index])
        return made


@final
class LinearPath(AbstractKnotPath):
    """Straight lines between observations."""

    def __init__(self, times: Tensor, values: Tensor) -> None:  # shapes: (B, L), (B, L, C)
        self._knots, self._values = _Knots(times.contiguous()), values
        h = times.diff(dim=1)[..., None].to(values.dtype)
        safe = torch.where(h > 0, h, torch.ones_like(h))
        self._slopes = torch.where(h > 0, values.diff(dim=1) / safe, torch.zeros_like(h))

    @property
    def channels(self) -> int:
        return self._values.shape[-1]

    def table(self, points: Tensor) -> tuple[Tensor, Tensor]:
        index, tau, inside = self._knots.locate(points)
        slope = _rows(self._slopes, index)
        x = _rows(self._values, index) + tau.to(slope.dtype)[..., None] * slope
        return x, slope * inside[..., None]

    def _area(self, tau: Tensor, index: Tensor) -> Tensor:
        x, tau = _rows(self._values, index), tau.to(self._values.dtype)[..., None]
        return tau * (x + tau * _rows(self._slopes, index) / 2)

    def take(self, index: Tensor) -> LinearPath:
        return LinearPath(self._knots.times[index], self._values[index])


@final
class HeldPath(AbstractKnotPath):
    """The last observation, held until the next: what is known at time t and no more."""

    def __init__(self, times: Tensor, values: Tensor) -> None:  # shapes: (B, L), (B, L, C)
        self._knots, self._values = _Knots(times.contiguous()), values

    @property
    def channels(self) -> int:
        return self._values.shape[-1]

    def table(self, points: Tensor) -> tuple[Tensor, Tensor]:
        x = _rows(self._values, self._knots.last_before(points).clamp_min(0))
        return x, torch.zeros_like(x)

    def _area(self, tau: Tensor, index: Tensor) -> Tensor:
        return tau.to(self._values.dtype)[..., None] * _rows(self._values, index)

    def take(self, index: Tensor) -> HeldPath:
        return HeldPath(self._knots.times[index], self._values[index])


@final
class RectilinearPath(AbstractKnotPath):
    """(t_1, x_1), (t_2, x_1), (t_2, x_2), (t_3, x_2), ... joined by lines: causal, and still driving.

    A path in a parameter s = 0, 1, 2, ...; time is its first channel. On even s it waits, on odd s it
    jumps. What a controlled equation dz = f(z) dX has seen at s = 2 i are the first i + 1 observations.
    """

    def __init__(self, times: Tensor, values: Tensor) -> None:  # shapes: (B, L), (B, L, C)
        b, length = times.shape
        knots = torch.cat([times[..., None], values], dim=-1).repeat_interleave(2, dim=1)
        moved = torch.cat([knots[:, 1:, :1], knots[:, :-1, 1:]], dim=-1)
        # A series that has ended repeats its last knot: the path stands still.
        s = torch.arange(2 * length - 1, dtype=times.dtype, device=times.device).expand(b, -1)
        self._set(LinearPath(s.contiguous(), moved))

    def _set(self, path: LinearPath) -> None:
        self._path, self._knots = path, path._knots

    @property
    def channels(self) -> int:
        return self._path.channels

    def table(self, points: Tensor) -> tuple[Tensor, Tensor]:
        return self._path.table(points)

    def _area(self, tau: Tensor, index: Tensor) -> Tensor:
        return self._path._area(tau, index)

    def take(self, index: Tensor) -> RectilinearPath:
        made = RectilinearPath.__new__(RectilinearPath)
        made._set(self._path.take(index))
        return made


def _rows(values: Tensor, index: Tensor) -> Tensor:  # shapes: (B, L, ...), (B, K) -> (B, K, ...)
    """values[b, index[b, k]]."""
    rows = torch.arange(len(index), device=index.device)[:, None]
    return values[rows, index]


_KINDS: dict[str, Any] = {
    "hermite": HermitePath,
    "linear": LinearPath,
    "held": HeldPath,
    "rectilinear": RectilinearPath,
}


def make_path(
    times: np.ndarray,  # shape: (N, L)
    values: np.ndarray,  # shape: (N, L, C)
    kind: str = "hermite",
    *,
    causal: bool | None = None,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> ControlPath:
    """Fill what is missing and build the path.

    Args:
        times, values: As from `IrregularSeries.padded()`, normalised.
        kind: "hermite", "linear", "held", "rectilinear".
        causal: Fill by the last observed value instead of on a line to the next one. None: as the kind
            needs. "hermite" and "linear" look ahead within an interval whatever the fill, and refuse
            True.
        dtype, device: Of knots and values. The same as the states', so that a step that ends in a knot
            finds it, whatever the rounding.

    Raises:
        ValueError: for a causal path that is none.
    """
    if kind not in _KINDS:
        raise ValueError(f"kind={kind!r} is not known; choose one of {', '.join(_KINDS)}")
    online = kind in ("held", "rectilinear")
    if causal and not online:
        raise ValueError(
            f"kind={kind!r} contains the next observation before its time, so it cannot be causal; "
            'choose "held" or "rectilinear"'
        )
    if causal is False and online:
        raise ValueError(f"kind={kind!r} is causal; causal=False would fill it from the future")
    filled = fill_forward(values) if online else fill(times, values)
    place: dict[str, Any] = {"dtype": dtype, "device": device}
    return _KINDS[kind](torch.as_tensor(times, **place), torch.as_tensor(filled, **place))
