"""Readers of series: the UEA/UCR archive's `.ts` format, and pandas tables.

In    a path, or a table.
Out   keyword arguments of `IrregularSeries`.
Next  `declare.series`, which checks them.
"""

from __future__ import annotations

import pathlib
from os import PathLike
from typing import Any

import numpy as np

from pinnkit.declare.printing import refusal

__all__ = ["read_frame", "read_ts"]


def read_ts(path: str | PathLike[str]) -> dict[str, Any]:
    """A `.ts` file: `@` headers, then one series per line, channels separated by colons.

    With `@timeStamps true` a channel is a list of pairs (time,value), and channels may have different
    times: the series' times are then their union. Missing values are written as ?.
    """
    header, lines = _split_ts(path)
    labelled = header.get("classlabel", "false").lower().startswith("true")
    targeted = header.get("targetlabel", "false").lower().startswith("true")
    stamped = header.get("timestamps", "false").lower() == "true"
    times, values, ends = [], [], []
    for number, line in lines:
        wrote = f"{pathlib.Path(path).name}, line {number}"
        channels = line.split(":")
        if labelled or targeted:
            ends.append(channels.pop().strip())
        try:
            clock, rows = _stamped(channels) if stamped else _plain(channels)
        except ValueError as fault:
            raise refusal(wrote, f"it cannot be read ({fault})", "see the `.ts` format") from fault
        times.append(clock)
        values.append(rows)
    if not times:
        raise refusal(f"{path}", "it holds no series after @data", "give a `.ts` file")
    read: dict[str, Any] = {"times": times, "values": values}
    if labelled:
        read["labels"] = np.array(ends)
    elif targeted:
        read["targets"] = np.array([float(e) for e in ends])
    return read


def _split_ts(path: str | PathLike[str]) -> tuple[dict[str, str], list[tuple[int, str]]]:
    header: dict[str, str] = {}
    lines: list[tuple[int, str]] = []
    started = False
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, raw in enumerate(file, start=1):
            line = raw.strip()
            if not line or line.startswith("#"):
                continue
            if started:
                lines.append((number, line))
            elif line.lower() == "@data":
                started = True
            elif line.startswith("@"):
                name, _, rest = line[1:].partition(" ")
                header[name.lower()] = rest.strip()
    return header, lines


def _number(text: str) -> float:
    return float("nan") if text.strip() in ("?", "NaN", "nan", "") else float(text)


def _plain(channels: list[str]) -> tuple[np.ndarray, np.ndarray]:
    columns = [[_number(x) for x in channel.split(",")] for channel in channels]
    longest = max(map(len, columns))
    rows = np.full((longest, len(columns)), np.nan)
    for k, column in enumerate(columns):
        rows[: len(column), k] = column
    return np.arange(longest, dtype=float), rows


def _stamped(channels: list[str]) -> tuple[np.ndarray, np.ndarray]:
    columns: list[dict[float, float]] = []
    for channel in channels:
        pairs = [p.split(",") for p in channel.strip().strip("()").split("),(")] if channel else []
        columns.append({float(t): _number(v) for t, v in pairs})
    clock = np.array(sorted({t for column in columns for t in column}))
    rows = np.array([[column.get(t, np.nan) for column in columns] for t in clock.tolist()])
    return clock, rows


def read_frame(
    frame: Any, series: str, time: str, values: list[str], label: str | None
) -> dict[str, Any]:
    """A pandas table with one row per time of a series."""
    needed = [series, time, *values, *([label] if label else [])]
    absent = [name for name in needed if name not in frame.columns]
    if absent:
        raise refusal(
            "IrregularSeries.from_frame(frame, ...)",
            f"the table has no column {absent[0]!r}",
            f"choose among {', '.join(map(repr, frame.columns))}",
        )
    times, rows, labels = [], [], []
    for name, part in frame.sort_values(time, kind="stable").groupby(series, sort=True):
        times.append(part[time].to_numpy(dtype=float))
        rows.append(part[values].to_numpy(dtype=float))
        if label:
            found = part[label].unique()
            if len(found) != 1:
                raise refusal(
                    f"IrregularSeries.from_frame(label={label!r})",
                    f"series {name} has {len(found)} labels",
                    "give each series one",
                )
            labels.append(found[0])
    read: dict[str, Any] = {"times": times, "values": rows, "channels": values}
    if label:
        read["labels"] = np.array(labels)
    return read
