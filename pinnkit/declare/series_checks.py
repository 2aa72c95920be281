"""What a series must be: the checks behind `IrregularSeries`, each message naming the series.

In    whatever the user gave as times, values, labels, targets.
Out   closed float64 arrays, or a `DeclarationError`.
Next  `declare.series`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pinnkit.declare.printing import refusal, show_number

__all__ = [
    "check_channels",
    "closed",
    "read_channels",
    "read_labels",
    "read_targets",
    "read_times",
    "read_values",
]


def closed(array: np.ndarray) -> np.ndarray:
    """The array, closed to writing."""
    array.setflags(write=False)
    return array


def read_values(values: Any) -> tuple[np.ndarray, ...]:
    """One float64 array (L_i, C) per series; NaN where missing."""
    if not hasattr(values, "__len__") or not len(values):
        raise refusal("IrregularSeries(values=...)", "there is no series", "give a list of arrays")
    rows = []
    for i, value in enumerate(values):
        wrote = f"IrregularSeries(...), series {i}"
        try:
            row = np.array(value, dtype=np.float64)
        except (TypeError, ValueError) as fault:
            raise refusal(wrote, f"its values are no numbers ({fault})", "give an array") from fault
        row = row[:, None] if row.ndim == 1 else row
        if row.ndim != 2 or not row.shape[1]:
            raise refusal(
                wrote,
                f"its values have the shape {np.shape(value)}, expected (L, C)",
                "one row per time",
            )
        if rows and row.shape[1] != rows[0].shape[1]:
            raise refusal(
                wrote,
                f"it has {row.shape[1]} channels, and series 0 has {rows[0].shape[1]}",
                "give all series the same channels, nan where one is missing",
            )
        if np.isinf(row).any():
            k = int(np.argwhere(np.isinf(row))[0][0])
            raise refusal(wrote, f"value {k} is infinite", "write nan where nothing was observed")
        rows.append(closed(row))
    return tuple(rows)


def read_times(times: Any, rows: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """One ascending array (L_i,) per series."""
    shared = isinstance(times, np.ndarray) and times.ndim == 1 and times.dtype != object
    if not shared and isinstance(times, (list, tuple)):
        shared = bool(times) and all(np.ndim(t) == 0 for t in times)
    given = [times] * len(rows) if shared else list(times)
    if len(given) != len(rows):
        raise refusal(
            "IrregularSeries(times, values)",
            f"there are times of {len(given)} series and values of {len(rows)}",
            "give one array of times per series, or one for all",
        )
    clocks = []
    for i, (time, row) in enumerate(zip(given, rows)):
        wrote = f"IrregularSeries(...), series {i}"
        clock = np.array(time, dtype=np.float64)
        if clock.ndim != 1 or len(clock) != len(row):
            raise refusal(
                wrote,
                f"it has times of shape {clock.shape} and {len(row)} rows of values",
                "give one time per row",
            )
        if len(clock) < 2:
            raise refusal(
                wrote,
                f"it has {len(clock)} time{'' if len(clock) == 1 else 's'}, and a path needs two",
                "leave it out",
            )
        if not np.isfinite(clock).all():
            raise refusal(wrote, "a time is nan or infinite", "drop that row")
        gaps = np.diff(clock)
        if (gaps <= 0).any():
            k = int(np.argmax(gaps <= 0))
            what = "repeats" if gaps[k] == 0 else "goes back"
            raise refusal(
                wrote,
                f"its time {what} after entry {k}, from {show_number(clock[k])} to "
                f"{show_number(clock[k + 1])}",
                "merge rows of equal time" if gaps[k] == 0 else "sort its rows by time",
            )
        clocks.append(closed(clock))
    return tuple(clocks)


def read_channels(channels: Sequence[str] | None, count: int) -> tuple[str, ...]:
    """The channels' names, numbered ones if none are given."""
    names = tuple(f"channel {i}" for i in range(count)) if channels is None else tuple(channels)
    if len(names) != count or len(set(names)) < count:
        raise refusal(
            f"IrregularSeries(channels={channels!r})",
            f"the values have {count} channels",
            "give each one name",
        )
    return names


def check_channels(rows: tuple[np.ndarray, ...], channels: tuple[str, ...]) -> None:
    """Refuse series and channels in which nothing was observed."""
    seen = np.zeros(len(channels), dtype=bool)
    for i, row in enumerate(rows):
        observed = ~np.isnan(row)
        if not observed.any():
            raise refusal(
                f"IrregularSeries(...), series {i}", "nothing in it was observed", "leave it out"
            )
        seen |= observed.any(0)
    if not seen.all():
        raise refusal(
            "IrregularSeries(values=...)",
            f"the channel {channels[int(np.argmin(seen))]!r} is empty in every series",
            "leave it out",
        )


def read_labels(labels: Any, count: int) -> tuple[np.ndarray | None, tuple[Any, ...]]:
    """The labels, and the classes there are."""
    if labels is None:
        return None, ()
    read = np.array(labels)
    if read.shape != (count,):
        raise refusal(
            "IrregularSeries(labels=...)",
            f"there are labels of shape {read.shape} for {count} series",
            "give one label per series",
        )
    if read.dtype.kind not in "biuSU" and not (
        read.dtype.kind == "f" and np.isfinite(read).all() and (read == np.round(read)).all()
    ):
        raise refusal(
            "IrregularSeries(labels=...)",
            f"labels are {read.dtype}, expected whole numbers or strings",
            "give real numbers to predict as targets",
        )
    return closed(read), tuple(np.unique(read).tolist())


def read_targets(
    targets: Any, clocks: tuple[np.ndarray, ...]
) -> np.ndarray | tuple[np.ndarray, ...] | None:
    """Numbers to predict: one array (N, K), or one (L_i, K) per series."""
    if targets is None:
        return None
    wrote = "IrregularSeries(targets=...)"
    if len(targets) != len(clocks):
        raise refusal(
            wrote, f"there are {len(targets)} for {len(clocks)} series", "give one per series"
        )
    parts = [np.array(target, dtype=np.float64) for target in targets]
    if not all(np.isfinite(p).all() for p in parts):
        raise refusal(wrote, "a target is nan or infinite", "leave that series out")
    if all(p.ndim < 2 for p in parts) and len({p.shape for p in parts}) == 1:
        stacked = np.stack(parts)
        return closed(stacked[:, None] if stacked.ndim == 1 else stacked)
    for i, (part, clock) in enumerate(zip(parts, clocks)):
        if part.ndim != 2 or len(part) != len(clock) or part.shape[1] != parts[0].shape[-1]:
            raise refusal(
                f"{wrote}, series {i}",
                f"it has the shape {part.shape} for {len(clock)} times",
                "give one row per series, or one row per time of every series",
            )
    return tuple(closed(p) for p in parts)
