"""Irregular series: every series has its own times, every channel its own gaps.

In    numpy arrays or lists, pandas tables, `.ts` files.
Out   an immutable `IrregularSeries`: checked, in float64, missing values as NaN.
Next  `SDESystem(data=...)`; `neural_de.control_path` makes differentiable paths of it.

Everything random takes a seed, and what is fitted (`normalisation`) is fitted to the series it is asked
of: fit it to the training part and apply it to the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, final

import numpy as np

from pinnkit.declare.printing import refusal
from pinnkit.declare.series_checks import (
    check_channels,
    closed,
    read_channels,
    read_labels,
    read_targets,
    read_times,
    read_values,
)
from pinnkit.declare.series_files import read_frame, read_ts

__all__ = ["IrregularSeries", "Normalisation", "Padded"]


@final
@dataclass(frozen=True, eq=False)
class Padded:
    """All series in one array; a series of length L repeats its last time after L, with NaN values."""

    times: np.ndarray  # shape: (N, L)
    values: np.ndarray  # shape: (N, L, C)
    lengths: np.ndarray  # shape: (N,)


@final
@dataclass(frozen=True, eq=False)
class Normalisation:
    """(value - mean) / std per channel, (t - start) / duration for times.

    A channel that is constant keeps its size (std 1).
    """

    mean: np.ndarray  # shape: (C,)
    std: np.ndarray  # shape: (C,)
    start: float
    duration: float

    def apply(self, series: IrregularSeries) -> IrregularSeries:
        """The series in normalised values and times."""
        self._check(series)
        return series.with_values(
            [(v - self.mean) / self.std for v in series.values],
            [(t - self.start) / self.duration for t in series.times],
        )

    def undo(self, values: np.ndarray) -> np.ndarray:  # shape: (..., C)
        """Values in the original units."""
        return values * self.std + self.mean

    def _check(self, series: IrregularSeries) -> None:
        if series.n_channels != len(self.mean):
            raise refusal(
                "normalisation.apply(series)",
                f"it was fitted to {len(self.mean)} channels, and the series have {series.n_channels}",
                "use series with the same channels",
            )


@final
class IrregularSeries:
    """N series; series i has times (L_i,) and values (L_i, C), NaN where nothing was observed.

    Args:
        times: One ascending array per series, or one array for all.
        values: One array (L_i, C) or (L_i,) per series, or one array (N, L, C).
        labels: The class of each series (numbers or strings), if known.
        targets: What is to be predicted, numbers: one row per series, (N,) or (N, K), or per series one
            row per time, (L_i, K).
        channels: The channels' names.

    >>> data = IrregularSeries([[0.0, 0.4, 1.0], [0.1, 0.2]], [[1.0, 2.0, 3.0], [4.0, float("nan")]])
    >>> data
    IrregularSeries(2 series, 2 to 3 times, 1 channel, 20 % missing)
    """

    __slots__ = ("_labels", "channels", "classes", "targets", "times", "values")

    times: tuple[np.ndarray, ...]
    values: tuple[np.ndarray, ...]
    channels: tuple[str, ...]
    classes: tuple[Any, ...]  # the labels there are, sorted; empty without labels
    targets: np.ndarray | tuple[np.ndarray, ...] | None
    _labels: np.ndarray | None

    def __init__(
        self,
        times: Any,
        values: Any,
        labels: Any = None,
        targets: Any = None,
        *,
        channels: Sequence[str] | None = None,
    ) -> None:
        rows = read_values(values)
        clocks = read_times(times, rows)
        put = super().__setattr__
        put("values", rows)
        put("times", clocks)
        put("channels", read_channels(channels, rows[0].shape[1]))
        check_channels(rows, self.channels)
        read, classes = read_labels(labels, len(rows))
        put("_labels", read)
        put("classes", classes)
        put("targets", read_targets(targets, clocks))

    @classmethod
    def from_ts(cls, path: str | PathLike[str]) -> IrregularSeries:
        """Read a file of the UEA/UCR archive's `.ts` format; without time stamps, times are 0, 1, 2, ..."""
        return cls(**read_ts(path))

    @classmethod
    def from_frame(
        cls, frame: Any, *, series: str, time: str, values: Sequence[str], label: str | None = None
    ) -> IrregularSeries:
        """Read a pandas table with one row per observation time.

        Args:
            frame: The table; rows in any order.
            series: The column that says which series a row belongs to.
            time: The column of times.
            values: The columns of the channels.
            label: The column of labels, constant within a series.
        """
        return cls(**read_frame(frame, series, time, list(values), label))

    @property
    def n_channels(self) -> int:
        """C."""
        return len(self.channels)

    @property
    def labels(self) -> np.ndarray | None:
        """The label of each series as given, shape (N,)."""
        return self._labels

    @property
    def label_index(self) -> np.ndarray | None:
        """The labels as places in `classes`, shape (N,)."""
        return (
            None if self._labels is None else np.searchsorted(np.array(self.classes), self._labels)
        )

    @property
    def lengths(self) -> np.ndarray:
        """Numbers of times, shape (N,)."""
        return np.array([len(t) for t in self.times])

    @property
    def missing(self) -> float:
        """The share of values that are missing."""
        gone = sum(int(np.isnan(v).sum()) for v in self.values)
        return gone / sum(v.size for v in self.values)

    def __len__(self) -> int:
        return len(self.times)

    def __getitem__(self, index: Any) -> IrregularSeries:
        """Some of the series, still an `IrregularSeries`: an integer, a slice, an array of either kind."""
        places = np.atleast_1d(np.arange(len(self))[index])
        if not len(places):
            raise refusal("series[index]", "nothing is selected", "select at least one series")
        per_time = isinstance(self.targets, tuple)
        made = object.__new__(IrregularSeries)
        put = object.__setattr__
        put(made, "times", tuple(self.times[i] for i in places))
        put(made, "values", tuple(self.values[i] for i in places))
        put(made, "channels", self.channels)
        put(made, "classes", self.classes)  # of the whole: a part may lack one
        put(made, "_labels", None if self._labels is None else self._labels[places])
        targets: Any = self.targets
        if targets is not None:
            targets = tuple(targets[i] for i in places) if per_time else targets[places]
        put(made, "targets", targets)
        return made

    def __iter__(self) -> Iterator[IrregularSeries]:
        return (self[i] for i in range(len(self)))

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("series are immutable; make new ones")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("series are immutable; make new ones")

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        n, low, high = self.lengths, int(self.lengths.min()), int(self.lengths.max())
        parts = [f"{len(n)} series", f"{low} times" if low == high else f"{low} to {high} times"]
        parts.append(f"{self.n_channels} channel{'s' if self.n_channels > 1 else ''}")
        if self.missing:
            parts.append(f"{100 * self.missing:.0f} % missing")
        if self.classes:
            parts.append(f"{len(self.classes)} classes")
        return f"IrregularSeries({', '.join(parts)})"

    def with_values(
        self, values: Sequence[np.ndarray], times: Sequence[np.ndarray] | None = None
    ) -> IrregularSeries:
        """The same series (labels, targets, names) with other values, and other times if given."""
        made = self[:]
        clocks = made.times if times is None else times
        object.__setattr__(made, "values", tuple(closed(np.asarray(v, float)) for v in values))
        object.__setattr__(made, "times", tuple(closed(np.asarray(t, float)) for t in clocks))
        return made

    def padded(self) -> Padded:
        """All series in one array."""
        n, longest = len(self), int(self.lengths.max())
        times = np.empty((n, longest))
        values = np.full((n, longest, self.n_channels), np.nan)
        for i, (t, v) in enumerate(zip(self.times, self.values)):
            times[i, : len(t)], times[i, len(t) :] = t, t[-1]
            values[i, : len(t)] = v
        return Padded(times, values, self.lengths)

    def normalisation(self) -> Normalisation:
        """Mean and standard deviation of each channel over what was observed; the span of the times."""
        together = np.concatenate(self.values)
        seen = (~np.isnan(together)).sum(0)
        sums = np.nansum(together, axis=0)
        mean = np.divide(sums, seen, out=np.zeros(self.n_channels), where=seen > 0)
        squares = np.nansum((together - mean) ** 2, axis=0)
        std = np.sqrt(np.divide(squares, seen, out=np.zeros(self.n_channels), where=seen > 0))
        # Rounding in a constant channel is no spread.
        std = np.where(std > 1e-12 * np.abs(mean), std, 1.0)
        start = min(float(t[0]) for t in self.times)
        return Normalisation(mean, std, start, max(float(t[-1]) for t in self.times) - start)

    def drop(self, rate: float, seed: int, *, per: str = "channel") -> IrregularSeries:
        """Fewer observations, chosen at random: a share `rate` of them is taken away.

        Args:
            rate: Between 0 and 1.
            seed: Names the choice; that of series i does not depend on the other series.
            per: "channel": values, each by itself (every series keeps one). "time": whole times (every
                series keeps two).
        """
        wrote = f"drop({rate!r}, seed={seed!r}, per={per!r})"
        if not 0 <= rate < 1:
            raise refusal(wrote, "the rate is no share", "write a number from 0 to below 1")
        if per not in ("channel", "time"):
            raise refusal(wrote, f"{per!r} is unknown", 'write per="channel" or per="time"')
        if per == "time" and isinstance(self.targets, tuple):
            raise refusal(wrote, "targets at the dropped times would be lost", 'use per="channel"')
        times, values = [], []
        for i, (t, v) in enumerate(zip(self.times, self.values)):
            rng = np.random.default_rng((seed, i))
            if per == "time":
                kept = np.sort(rng.permutation(len(t))[: max(2, round((1 - rate) * len(t)))])
                t, v = t[kept], v[kept]
            else:
                seen = np.flatnonzero(~np.isnan(v))
                gone = rng.permutation(seen)[: min(round(rate * len(seen)), len(seen) - 1)]
                v = v.copy()
                v.ravel()[gone] = np.nan
            times.append(t)
            values.append(v)
        return self.with_values(values, times)

    def split(
        self,
        fractions: Sequence[float] = (0.7, 0.15, 0.15),
        *,
        seed: int,
        groups: Any = None,
    ) -> tuple[IrregularSeries, ...]:
        """Disjoint parts, stratified by label where there are labels.

        Args:
            fractions: The parts' shares; they add up to 1.
            seed: Names the split.
            groups: One name per series (a patient, a recording): a group is never torn apart, so that
                nothing about it leaks from one part into another. Groups are then drawn as wholes,
                without stratification.
        """
        shares = np.asarray(fractions, float)
        if shares.ndim != 1 or (shares <= 0).any() or abs(shares.sum() - 1) > 1e-9:
            raise refusal(
                f"split({fractions!r})", "shares are positive and add up to 1", "write (0.7, 0.3)"
            )
        rng = np.random.default_rng(seed)
        if groups is not None:
            names = np.asarray(groups)
            if names.shape != (len(self),):
                raise refusal(
                    "split(groups=...)", f"there are {names.size} names for {len(self)} series",
                    "give one name per series",
                )  # fmt: skip
            unit, owner = np.unique(names, return_inverse=True)
            strata = [np.arange(len(unit))]
        else:
            owner = np.arange(len(self))
            index = self.label_index
            strata = (
                [owner] if index is None else [np.flatnonzero(index == k) for k in np.unique(index)]
            )
        part = np.empty(int(owner.max()) + 1, dtype=int)
        ends = np.cumsum(shares)[:-1]
        for stratum in strata:
            shuffled = rng.permutation(stratum)
            # The rounding is drawn, or small classes would never reach the small parts.
            offset = rng.random()
            place = (np.arange(len(shuffled)) + offset) / len(shuffled)
            part[shuffled] = np.searchsorted(ends, place, side="right")
        of_series = part[owner]
        empty = [k for k in range(len(shares)) if not (of_series == k).any()]
        if empty:
            raise refusal(
                f"split({fractions!r})", f"part {empty[0]} would be empty",
                "give more series, or a larger share",
            )  # fmt: skip
        return tuple(self[np.flatnonzero(of_series == k)] for k in range(len(shares)))
