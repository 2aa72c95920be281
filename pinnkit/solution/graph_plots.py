"""Pictures of solutions on graphs.

In    a `GraphSolution`, a field, positions of the nodes.
Out   a matplotlib figure.
Next  `sol.plot()`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pinnkit.solution.graph_solution import GraphSolution

__all__ = ["plot"]

MOST_EDGES = 5000  # drawn; more would only be black


def plot(sol: GraphSolution, field: Any, position: Any) -> Figure:
    """Nodes coloured by the field; edges where there are not too many."""
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

    chosen = sol.normal_form.fields[0] if field is None else field
    values, place = sol[chosen], _positions(sol, position)
    figure = Figure(figsize=(6.5, 5.5), layout="constrained")
    axes: Any = figure.add_subplot(projection="3d" if place.shape[1] == 3 else None)
    ends = list(place[sol.graph.edges.T])  # of shape (2, d) each
    if len(ends) <= MOST_EDGES:
        style = {"colors": "0.7", "linewidths": 0.6, "zorder": 1}
        if place.shape[1] == 3:
            from mpl_toolkits.mplot3d.art3d import Line3DCollection

            axes.add_collection(Line3DCollection(ends, **style))
        else:
            axes.add_collection(LineCollection(ends, **style))
    size = float(np.clip(4000 / max(len(values), 1), 2, 60))
    dots = axes.scatter(*place.T, c=values, s=size, zorder=2)
    figure.colorbar(dots, ax=axes, label=_label(chosen), shrink=0.8)
    axes.set_title(f"{sol.status.name}, {sol.evidence.name}", fontsize=10)
    axes.set_xticks([])
    axes.set_yticks([])
    return figure


def _positions(sol: GraphSolution, position: Any) -> np.ndarray:
    graph = sol.graph
    if position is None:
        position = "position" if "position" in graph.node else _layers(sol)
    place = graph.node[position] if isinstance(position, str) else np.asarray(position, float)
    if place.shape not in ((graph.n_nodes, 2), (graph.n_nodes, 3)):
        raise ValueError(
            f"position has the shape {place.shape}, expected ({graph.n_nodes}, 2) or "
            f"({graph.n_nodes}, 3)"
        )
    return place


def _layers(sol: GraphSolution) -> np.ndarray:
    """Columns by distance from the fixed nodes, the nodes of a column one above the other."""
    graph = sol.graph
    held = np.any(list(sol.problem.system.binding.fixed.values()), axis=0)
    depth = np.full(graph.n_nodes, -1)
    front = np.flatnonzero(held) if held.any() else np.array([0])[: graph.n_nodes]
    depth[front] = 0
    for level in range(1, graph.n_nodes + 1):
        near = np.isin(graph.edges, front)
        reached = np.unique(graph.edges[:, near.any(axis=0)])
        front = reached[depth[reached] < 0]
        if not len(front):
            break
        depth[front] = level
    depth[depth < 0] = depth.max(initial=0) + 1
    place = np.zeros((graph.n_nodes, 2))
    for level in np.unique(depth):
        column = np.flatnonzero(depth == level)
        place[column, 0] = level
        place[column, 1] = np.arange(len(column)) - (len(column) - 1) / 2
    return place


def _label(field: Any) -> str:
    unit = getattr(field, "unit", None)
    return str(field) if unit is None else f"{field} [{unit}]"
