"""Pictures of a solution: fields, slices, residual, error, history.

In    a `Solution`, and a reference where one is known.
Out   a matplotlib Figure (made without pyplot, so no global state) or an animation.
Next  `sol.plot()`, the command line's solution.png.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pinnkit.errors import MissingDependencyError
from pinnkit.solution.candidates import make_candidate
from pinnkit.solution.evaluate import field_name, field_values, user_fields

if TYPE_CHECKING:
    from matplotlib.animation import FuncAnimation
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pinnkit.solution.solution import Solution

__all__ = ["animate", "plot"]

NODES = {1: 801, 2: (121, 241)}
Panel = Callable[["Axes"], None]


def plot(sol: Solution, *, reference: Any = None) -> Figure:
    """The fields with what is known about their error.

    One coordinate: curves. Time and one space coordinate: heat map and slices. Otherwise a heat
    map over two coordinates, the others at their middle (time at its end).
    """
    figure = _new_figure()
    view = _View(sol, reference)
    rows = [view.panels(field_name(f)) for f in user_fields(sol.normal_form)]
    rows.append([view.residual, *([view.history] if len(sol.history) else [])])
    columns = max(map(len, rows))
    figure.set_size_inches(4.4 * columns, 3.2 * len(rows))
    for i, row in enumerate(rows):
        for j, panel in enumerate(row):
            panel(figure.add_subplot(len(rows), columns, i * columns + j + 1))
    known = "" if sol.error_estimate is None else f", E = {sol.error_estimate:.1e}"
    figure.suptitle(f"{sol.status.name} ({sol.evidence.name}{known})")
    return figure


def animate(sol: Solution, *, frames: int = 60, seconds: float = 5.0) -> FuncAnimation:
    """The first field over time: a moving curve, or a moving heat map for two space coordinates."""
    figure = _new_figure()
    from matplotlib.animation import FuncAnimation

    nf = sol.normal_form
    if nf.time is None or not nf.space:
        raise ValueError("an animation needs a time and at least one space coordinate")
    if frames < 2 or not seconds > 0:
        raise ValueError(
            f"frames={frames}, seconds={seconds}: give at least 2 frames and some time"
        )
    field = user_fields(nf)[0]
    axis = figure.add_subplot()
    times = np.linspace(*nf.bounds[nf.time], frames)
    shown = nf.space[:2]
    fixed = {str(c): 0.5 * sum(nf.bounds[c]) for c in nf.space[2:]}
    nodes = [np.linspace(*nf.bounds[c], 201 if len(shown) == 1 else 81) for c in shown]
    grids = dict(zip(map(str, shown), np.meshgrid(*nodes, indexing="ij"), strict=True))
    needed = {str(c) for c in field.args}

    def values(t: float) -> np.ndarray:
        given = {k: v for k, v in {**grids, **fixed, str(nf.time): t}.items() if k in needed}
        return np.broadcast_to(np.real(sol[field](**given)), next(iter(grids.values())).shape)

    everything = [values(t) for t in times]
    low, high = (float(f(everything)) for f in (np.min, np.max))
    if len(shown) == 1:
        (line,) = axis.plot(nodes[0], everything[0])
        axis.set(xlabel=str(shown[0]), ylabel=field_name(field))
        axis.set_ylim(low - 0.05 * (high - low) - 1e-12, high + 0.05 * (high - low) + 1e-12)

        def draw(i: int) -> list[Any]:
            line.set_ydata(everything[i])
            axis.set_title(f"{nf.time} = {times[i]:.3g}")
            return [line]
    else:
        mesh = axis.pcolormesh(*nodes, everything[0].T, vmin=low, vmax=high, shading="gouraud")
        axis.set(xlabel=str(shown[0]), ylabel=str(shown[1]))
        figure.colorbar(mesh, ax=axis)

        def draw(i: int) -> list[Any]:
            mesh.set_array(everything[i].T)
            axis.set_title(f"{nf.time} = {times[i]:.3g}")
            return [mesh]

    return FuncAnimation(figure, draw, frames=frames, interval=1000 * seconds / frames)


class _View:
    """The values on the plotted grid, computed once, and the panels drawn from them."""

    def __init__(self, sol: Solution, reference: Any) -> None:
        nf = sol.normal_form
        self.sol, self.nf = sol, nf
        self.axes = list(nf.coords[:1])
        if len(nf.coords) > 1:
            self.axes = [nf.time, nf.space[0]] if len(nf.space) == 1 else list(nf.space[:2])
        if nf.time is not None and len(nf.space) == 1:
            self.axes = [nf.time, nf.space[0]]
        counts = NODES[1] if len(self.axes) == 1 else NODES[2]
        counts = [counts] if isinstance(counts, int) else list(counts)
        self.nodes = [np.linspace(*nf.bounds[c], n) for c, n in zip(self.axes, counts, strict=True)]
        self.shape = tuple(map(len, self.nodes))
        grids = dict(zip(self.axes, np.meshgrid(*self.nodes, indexing="ij"), strict=True))
        columns = []
        for c in nf.coords:
            lower, upper = nf.bounds[c]
            rest = upper if c == nf.time else 0.5 * (lower + upper)
            columns.append(grids[c].ravel() if c in grids else np.full(math.prod(self.shape), rest))
        self.points = np.stack(columns, axis=1)
        self.values = self._own_values()
        self.reference = self._reference_values(reference)

    def panels(self, name: str) -> list[Panel]:
        """One row: the field, its slices, its error."""
        values = self.values[name]
        reference = self.reference.get(name)
        if len(self.axes) == 1:
            row: list[Panel] = [lambda ax: self._curves(ax, name, values, reference)]
        else:
            shown = np.abs(values) if np.iscomplexobj(values) else values
            label = f"|{name}|" if np.iscomplexobj(values) else name
            row = [lambda ax: self._map(ax, label, shown)]
            row.append(lambda ax: self._slices(ax, label, shown, reference))
        if reference is not None:
            gap = np.abs(values - reference)
            row.append(lambda ax: self._magnitude(ax, f"|error of {name}|", gap))
        return row

    def residual(self, ax: Axes) -> None:
        """The largest residual of the equations, in their own units."""
        columns = self.sol.residual(self.points)
        worst = np.abs(columns).max(axis=1).reshape(self.shape)
        self._magnitude(ax, "|residual|", worst)

    def history(self, ax: Axes) -> None:
        """Losses by step, and the error estimates made on the way."""
        history = self.sol.history
        for name, losses in history.losses.items():
            positive = np.where(np.asarray(losses) > 0, losses, np.nan)
            if np.isfinite(positive).any():
                ax.semilogy(history.steps, positive, label=name, linewidth=1)
        if history.estimates:
            steps, _, errors = zip(*history.estimates, strict=True)
            ax.semilogy(steps, errors, "k.", label="error estimate")
        ax.set(title="history", xlabel="step")
        if ax.get_legend_handles_labels()[0]:
            ax.legend(fontsize="x-small")

    def _own_values(self) -> dict[str, np.ndarray]:
        from pinnkit.solution.solution import as_candidate

        found = as_candidate(self.sol).values(self.points)
        return {n: v.reshape(self.shape) for n, v in found.items()}

    def _reference_values(self, reference: Any) -> dict[str, np.ndarray]:
        from pinnkit.solution.solution import as_candidate

        nf, own = self.nf, self.sol.verification.reference
        found: Mapping[str, np.ndarray] = {}
        if reference is not None:
            given = make_candidate(nf, as_candidate(reference, nf), partial=True)
            if given.quadrature is None:  # data on a grid are not known elsewhere
                found = given.values(self.points)
        elif own is not None:
            found = field_values(nf, own, self.points)
        elif nf.exact:
            found = make_candidate(nf, nf.exact, partial=True).values(self.points)
        return {n: np.asarray(v).reshape(self.shape) for n, v in found.items()}

    def _curves(self, ax: Axes, name: str, values: np.ndarray, reference: Any) -> None:
        (x,) = self.nodes
        if np.iscomplexobj(values):
            ax.plot(x, np.real(values), label=f"Re {name}")
            ax.plot(x, np.imag(values), label=f"Im {name}")
        else:
            ax.plot(x, values, label=name)
        if reference is not None:
            ax.plot(x, np.real(reference), "k:", linewidth=1, label="reference")
            if np.iscomplexobj(reference):
                ax.plot(x, np.imag(reference), "k:", linewidth=1)
        ax.set(xlabel=str(self.axes[0]), ylabel=name)
        ax.legend(fontsize="x-small")

    def _map(self, ax: Axes, label: str, values: np.ndarray, **keywords: Any) -> None:
        mesh = ax.pcolormesh(*self.nodes, values.T, shading="nearest", rasterized=True, **keywords)
        ax.figure.colorbar(mesh, ax=ax)
        ax.set(title=label, xlabel=str(self.axes[0]), ylabel=str(self.axes[1]))

    def _slices(self, ax: Axes, label: str, values: np.ndarray, reference: Any) -> None:
        along, across = self.axes
        for part in (0.0, 0.33, 0.67, 1.0):
            i = round(part * (self.shape[0] - 1))
            text = f"{along} = {self.nodes[0][i]:.3g}"
            (line,) = ax.plot(self.nodes[1], values[i], label=text, linewidth=1.2)
            if reference is not None:
                shown = np.abs(reference[i]) if np.iscomplexobj(reference) else reference[i]
                ax.plot(self.nodes[1], shown, ":", color=line.get_color(), linewidth=2)
        dotted = " (dotted: reference)" if reference is not None else ""
        ax.set(title=f"slices of {label}{dotted}", xlabel=str(across))
        ax.legend(fontsize="x-small")

    def _magnitude(self, ax: Axes, label: str, values: np.ndarray) -> None:
        floor = max(float(np.nanmax(values)) * 1e-8, 1e-300)
        if len(self.axes) == 1:
            ax.semilogy(self.nodes[0], np.maximum(values, floor), linewidth=1)
            ax.set(title=label, xlabel=str(self.axes[0]))
        else:
            self._map(ax, f"log10 {label}", np.log10(np.maximum(values, floor)), cmap="magma")


def _new_figure() -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as fault:
        raise MissingDependencyError("plots need the package matplotlib") from fault
    return Figure(figsize=(9, 4), layout="constrained")
