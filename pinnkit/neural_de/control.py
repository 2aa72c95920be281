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

    def locate(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # shapes: (B,), (B, 1), (B, 1)
        """The interval, the time since its left end within its length, and whether t is inside."""
        b, length = self.times.shape
        wanted = t.reshape(-1, 1).expand(b, 1).to(self.times.dtype).contiguous()
        index = torch.searchsorted(self.times, wanted, right=True) - 1
        index = index.clamp(0, length - 2)
        left, right = self.times.gather(1, index), self.times.gather(1, index + 1)
        inside = (wanted >= self.times[:, :1]) & (wanted < self.times[:, -1:])
        return index[:, 0], (wanted - left).clamp_min(0).minimum(right - left), inside

    @property
    def ends(self) -> tuple[Tensor, Tensor]:
        return self.times[:, 0], self.times[:, -1]


@final
class HermitePath:
    """Piecewise cubic with the slopes of backward differences: once differentiable.

    On [t_i, t_i + h] with tau = t - t_i, b = d_{i-1} (d_0 for i = 0) and d_i = (x_{i+1} - x_i) / h:
    X = x_i + b tau + 2 (d_i - b) tau^2 / h - (d_i - b) tau^3 / h^2, so that X ends in x_{i+1} with
    the slope d_i.
    """

    def __init__(self, times: Tensor, values: Tensor) -> None:  # shapes: (B, L), (B, L, C)
        self._knots = _Knots(times)
        h = times.diff(dim=1)[..., None].to(values.dtype)
        # Gaps of length 0 pad short series; they are never inside.
        safe = torch.where(h > 0, h, torch.ones_like(h))
        slope = torch.where(h > 0, values.diff(dim=1) / safe, torch.zeros_like(h))
        back = torch.cat([slope[:, :1], slope[:, :-1]], dim=1)
        bend = slope - back
        self._coefficients = torch.stack(
            [values[:, :-1], back, 2 * bend / safe, -bend / safe**2], dim=2
        )  # shape: (B, L - 1, 4, C)

    @property
    def channels(self) -> int:
        return self._coefficients.shape[-1]

    @property
    def ends(self) -> tuple[Tensor, Tensor]:
        return self._knots.ends

    def evaluate(self, t: Tensor) -> Tensor:
        index, tau, _ = self._knots.locate(t)
        x, b, c, e = self._at(index)
        tau = tau.to(x.dtype)
        return x + tau * (b + tau * (c + tau * e))

    def derivative(self, t: Tensor) -> Tensor:
        index, tau, inside = self._knots.locate(t)
        _, b, c, e = self._at(index)
        tau = tau.to(b.dtype)
        return (b + tau * (2 * c + 3 * tau * e)) * inside

    def _at(self, index: Tensor) -> tuple[Tensor, ...]:
        rows = torch.arange(len(index), device=index.device)
        return self._coefficients[rows, index].unbind(1)


@final
class LinearPath:
    """Straight lines between observations."""

    def __init__(self, times: Tensor, values: Tensor) -> None:  # shapes: (B, L), (B, L, C)
        self._knots, self._values = _Knots(times.contiguous()), values
        h = times.diff(dim=1)[..., None].to(values.dtype)
        safe = torch.where(h > 0, h, torch.ones_like(h))
        self._slopes = torch.where(h > 0, values.diff(dim=1) / safe, torch.zeros_like(h))

    @property
    def channels(self) -> int:
        return self._values.shape[-1]

    @property
    def ends(self) -> tuple[Tensor, Tensor]:
        return self._knots.ends

    def evaluate(self, t: Tensor) -> Tensor:
        index, tau, _ = self._knots.locate(t)
        rows = torch.arange(len(index), device=index.device)
        return self._values[rows, index] + tau.to(self._slopes.dtype) * self._slopes[rows, index]

    def derivative(self, t: Tensor) -> Tensor:
        index, _, inside = self._knots.locate(t)
        rows = torch.arange(len(index), device=index.device)
        return self._slopes[rows, index] * inside


@final
class HeldPath:
    """The last observation, held until the next: what is known at time t and no more."""

    def __init__(self, times: Tensor, values: Tensor) -> None:  # shapes: (B, L), (B, L, C)
        self._knots, self._values = _Knots(times), values

    @property
    def channels(self) -> int:
        return self._values.shape[-1]

    @property
    def ends(self) -> tuple[Tensor, Tensor]:
        return self._knots.ends

    def evaluate(self, t: Tensor) -> Tensor:
        times = self._knots.times
        wanted = t.reshape(-1, 1).expand(len(times), 1).to(times.dtype).contiguous()
        index = torch.searchsorted(times, wanted, right=True)[:, 0] - 1
        rows = torch.arange(len(index), device=index.device)
        return self._values[rows, index.clamp_min(0)]

    def derivative(self, t: Tensor) -> Tensor:
        return torch.zeros_like(self._values[:, 0])


@final
class RectilinearPath:
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
        self._path = LinearPath(s.contiguous(), moved)

    @property
    def channels(self) -> int:
        return self._path.channels

    @property
    def ends(self) -> tuple[Tensor, Tensor]:
        return self._path.ends

    def evaluate(self, t: Tensor) -> Tensor:
        return self._path.evaluate(t)

    def derivative(self, t: Tensor) -> Tensor:
        return self._path.derivative(t)


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
