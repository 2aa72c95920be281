"""Several runs of one system as `Observations`.

In    `IrregularSeries`, or a list of tables; what their columns observe.
Out   a list of `Observations`, numbered by run.
Next  `PDESystem(conditions=[...])`; `NeuralODE` learns from all of them together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import sympy as sp

from pinnkit.declare.conditions import Observations, read_expr
from pinnkit.declare.printing import refusal, show
from pinnkit.declare.series import IrregularSeries
from pinnkit.declare.symbols import fields_in

__all__ = ["observe_runs"]

WROTE = "observe_runs(...)"


def observe_runs(
    data: IrregularSeries | Sequence[Any],
    exprs: Sequence[Any] | Mapping[str, Any],
    *,
    noise: float | Mapping[str, float | None] | None = None,
) -> list[Observations]:
    """What was measured in several runs of one system: series i is run i, with times of its own.

    All runs obey the same equations, terms and unknown numbers, and begin at the lower end of time, each
    from a start of its own: measure times of each from there. The noise of an expression is the same in all
    runs unless it is declared. Missing values (NaN) are left out.

    Args:
        data: The series; or a list of tables (pandas, or mappings of names to arrays), each with a column
            named as the time coordinate. A column that a table does not have was not observed there.
        exprs: What the channels or columns observe: {name: expression}, or a list: the channels in their
            order, of tables the columns named as the expressions are written.
        noise: Absolute standard deviation, of all or by name; None where it is estimated.

    Raises:
        DeclarationError: where names do not fit, or a run holds nothing that is observed.

    >>> from pinnkit.declare import coords, field
    >>> t = coords("t")
    >>> x = field("x", t)
    >>> observe_runs([{"t": [0, 1], "x": [1, 2]}, {"t": [0, 2, 3], "x": [5, 4, 2]}], [x])
    [Observations(x, 2 points), Observations(x, 3 points, run 1)]
    """
    if isinstance(exprs, (str, sp.Basic)):
        raise refusal(WROTE, f"{show(exprs)} is one expression", "give a list, [x]")
    if isinstance(data, Mapping) or hasattr(data, "columns"):
        raise refusal(WROTE, "this is one table", "give a list of them")
    listed = not isinstance(exprs, Mapping)
    if isinstance(data, IrregularSeries):
        if listed and len(exprs) != data.n_channels:
            raise refusal(
                WROTE, f"there are {len(exprs)} expressions for {data.n_channels} channels",
                "give one for each, or {channel: expression}",
            )  # fmt: skip
        wanted = dict(zip(data.channels, exprs, strict=True)) if listed else dict(exprs)
    else:
        wanted = {show(e): e for e in exprs} if listed else dict(exprs)
    wanted = {name: read_expr(e, WROTE) for name, e in wanted.items()}
    time = _time_of(wanted)
    if isinstance(data, IrregularSeries):
        tables: list[Any] = [
            {time.name: t, **dict(zip(data.channels, v.T, strict=True))}
            for t, v in zip(data.times, data.values, strict=True)
        ]
    else:
        tables = list(data)
    if isinstance(noise, Mapping) and (alien := [name for name in noise if name not in wanted]):
        what = f"noise names {alien[0]!r}, which is not observed"
        raise refusal(WROTE, what, f"there is {', '.join(wanted)}")
    known = {str(name) for table in tables for name in table}
    if not tables or (unknown := [name for name in wanted if name not in known]):
        what = f"no run has a column {unknown[0]!r}" if tables else "there is no run"
        raise refusal(WROTE, what, f"there is {', '.join(sorted(known)) or 'nothing'}")
    return [o for run, table in enumerate(tables) for o in _one(run, table, wanted, time, noise)]


def _one(run: int, table: Any, wanted: dict[str, Any], time: Any, noise: Any) -> list[Observations]:
    wrote = f"{WROTE}, run {run}"
    columns = {
        str(name): _numbers(table[name], str(name), wrote)
        for name in table
        if str(name) in (time.name, *wanted)
    }
    if time.name not in columns:
        raise refusal(wrote, f"it has no column {time.name!r}", "give every run its times")
    times, found = columns[time.name], []
    for name, expr in wanted.items():
        values = columns.get(name)
        if values is None:
            continue
        if values.shape != times.shape:
            raise refusal(
                wrote, f"{name} has {values.size} values at {times.size} times", "give one for each"
            )
        seen = ~np.isnan(values)
        own = noise.get(name) if isinstance(noise, Mapping) else noise
        if seen.any():
            found.append(Observations(expr, {time: times[seen]}, values[seen], own, run))
    if not found:
        raise refusal(wrote, "nothing in it was observed", "leave it out")
    return found


def _numbers(column: Any, name: str, wrote: str) -> np.ndarray:
    try:
        return np.asarray(column, dtype=float)
    except (TypeError, ValueError) as fault:
        raise refusal(
            wrote, f"{name} is not numbers ({fault})", "write a missing one as nan"
        ) from fault


def _time_of(wanted: dict[str, Any]) -> Any:
    coords = {c for e in wanted.values() for f in fields_in(e) for c in f.args}
    if len(coords) != 1:
        names = ", ".join(sorted(map(str, coords))) or "none"
        raise refusal(
            WROTE, f"runs are observed along one time, here {names}", "give fields of time"
        )
    return coords.pop()
