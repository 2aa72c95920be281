"""A system meets a graph: names are looked up, fixed nodes found, and what cannot be solved refused.

In    a `GraphForm`, a `Graph`.
Out   `GraphBinding`: for each field where it is fixed, for each total where it is taken.
Next  `lower.graph_residual`; solvers read nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pinnkit.declare.graph import Graph
from pinnkit.declare.graph_symbols import NodeField, orientation
from pinnkit.declare.printing import refusal
from pinnkit.ir.graph_form import GraphForm, features_of

__all__ = ["GraphBinding", "bind", "check_features", "floating_refusal", "unreached"]

_SHOWN = 6  # node numbers in a message


@dataclass(frozen=True, eq=False)
class GraphBinding:
    """Masks over nodes, (N,) each."""

    fixed: Mapping[NodeField, np.ndarray]  # where the field is fixed
    places: tuple[np.ndarray, ...]  # where each Fixed of the form applies
    totals: tuple[np.ndarray, ...]  # where each Total of the form is taken

    @property
    def unknowns(self) -> int:
        """Values to be found, unknown numbers not counted."""
        return int(sum((~mask).sum() for mask in self.fixed.values()))


def bind(form: GraphForm, graph: Graph) -> GraphBinding:
    """Look up every name; refuse what is missing, contradictory or singular."""
    check_features(form.exprs, graph)
    places = tuple(_place(graph, c.where, repr(c)) for c in form.fixed)
    totals = tuple(_place(graph, c.where, repr(c)) for c in form.totals)
    fixed = {f: np.zeros(graph.n_nodes, dtype=bool) for f in form.fields}
    for i, (condition, here) in enumerate(zip(form.fixed, places)):
        for other, there in zip(form.fixed[:i], places[:i]):
            both = np.flatnonzero(here & there)
            if other.field == condition.field and other.value != condition.value and len(both):
                raise refusal(
                    f"{other!r} and {condition!r}",
                    f"both hold at {_nodes(both)}",
                    "make the two regions disjoint",
                )
        fixed[condition.field] |= here
    if all(mask.all() for mask in fixed.values()):
        raise refusal(
            "system.on(graph)",
            "every value is fixed at every node: there is nothing to solve for"
            if graph.n_nodes
            else "the graph has no nodes",
            "fix values at some nodes only, with where=",
        )
    _check_pairs(form, fixed)
    _check_maxima(form, graph, fixed)
    if not form.totals:
        _check_anchored(form, graph, fixed)
    return GraphBinding(fixed, places, totals)


def check_features(exprs: Any, graph: Graph) -> None:
    """Refuse names and columns the graph does not have."""
    nodes, edges = features_of(exprs)
    for kind, symbols in (("node", nodes), ("edge", edges)):
        known = getattr(graph, kind)
        for symbol in symbols:
            if symbol == orientation:
                continue
            if symbol.name not in known:
                raise refusal(
                    "system.on(graph)",
                    f"the graph has no {kind} feature {symbol.name!r}; it has "
                    + (", ".join(known) or "none"),
                    f'write Graph(..., {kind}={{"{symbol.name}": values}})',
                )
            width = known[symbol.name].shape[1:]
            if symbol.column is None and width:
                raise refusal(
                    "system.on(graph)",
                    f"the {kind} feature {symbol.name!r} has {width[0]} columns",
                    f'say which: {kind}_feature("{symbol.name}", column=0)',
                )
            if symbol.column is not None and (not width or symbol.column >= width[0]):
                has = f"{width[0]} columns" if width else "one value each"
                raise refusal(
                    "system.on(graph)",
                    f"{symbol} asks for column {symbol.column}, and the {kind} feature has {has}",
                    "columns count from 0",
                )


def unreached(
    graph: Graph, anchored: np.ndarray, keep: np.ndarray | None = None, both_ways: bool = False
) -> np.ndarray:
    """The nodes to which no path of arcs leads from an anchored one.

    Args:
        graph: The graph.
        anchored: Boolean, (N,).
        keep: Boolean over `graph.arcs()`: the arcs that count.
        both_ways: Whether arcs may also be passed backwards.
    """
    from scipy.sparse import coo_array  # late: declarations are fast to import
    from scipy.sparse.csgraph import breadth_first_order

    senders, receivers, _ = graph.arcs()
    if keep is not None:
        senders, receivers = senders[keep], receivers[keep]
    if both_ways:
        senders, receivers = np.r_[senders, receivers], np.r_[receivers, senders]
    # One more node, from which all anchored ones are reached.
    root, roots = graph.n_nodes, np.flatnonzero(anchored)
    tails = np.concatenate([senders, np.full(len(roots), root)])
    heads = np.concatenate([receivers, roots])
    links = coo_array((np.ones(len(tails)), (tails, heads)), shape=(root + 1, root + 1))
    seen = breadth_first_order(links.tocsr(), root, return_predecessors=False)
    reached = np.zeros(root + 1, dtype=bool)
    reached[seen] = True
    return np.flatnonzero(~reached[:-1])


def floating_refusal(field: NodeField, nodes: np.ndarray, through: str = "") -> Exception:
    """Why the equations do not determine the field at these nodes."""
    verb = "is" if len(nodes) == 1 else "are"
    return refusal(
        "system.on(graph)",
        f"{field} enters the equations only through differences, and {_nodes(nodes)} {verb} "
        f"connected to no node where {field} is fixed{through}",
        f"fix {field} at one node of each such part with Fixed({field}, value, where=...), or leave "
        "the part out",
    )


def _check_anchored(form: GraphForm, graph: Graph, fixed: Mapping[NodeField, np.ndarray]) -> None:
    outgoing = any(r.outgoing and r.varies for r in form.program.reductions)
    for f in form.fields:
        if f in form.floating:
            lost = unreached(graph, fixed[f], both_ways=outgoing)
            if len(lost):
                raise floating_refusal(f, lost)


def _check_pairs(form: GraphForm, fixed: Mapping[NodeField, np.ndarray]) -> None:
    if form.paired:
        return
    count = np.sum(list(fixed.values()), axis=0)
    some = np.flatnonzero((count > 0) & (count < len(form.fields)))
    if len(some):
        held = next(f for f in form.fields if fixed[f][some[0]])
        names = ", ".join(f"{f}: equation" for f in form.fields)
        raise refusal(
            "system.on(graph)",
            f"at {_nodes(some)} {held} is fixed and another field is not, so it is not clear which "
            "equation still holds there",
            f"write GraphSystem({{{names}}}, conditions)",
        )


def _check_maxima(form: GraphForm, graph: Graph, fixed: Mapping[NodeField, np.ndarray]) -> None:
    needed = np.zeros(graph.n_nodes, dtype=bool)
    for i, f in enumerate(form.fields):
        if any(r.maximum for r in form.program.reductions if r.symbol in _symbols(form, i)):
            needed |= ~fixed[f]
    senders, receivers, _ = graph.arcs()
    outgoing = any(r.maximum and r.outgoing for r in form.program.reductions)
    has = np.zeros(graph.n_nodes, dtype=bool)
    has[senders if outgoing else receivers] = True
    lost = np.flatnonzero(needed & ~has)
    if len(lost):
        raise refusal(
            "system.on(graph)",
            f"neighbour_max has no value at {_nodes(lost)}, where there is no "
            f"{'outgoing' if outgoing else 'incoming'} edge",
            "fix the field there, or leave these nodes out",
        )


def _symbols(form: GraphForm, i: int) -> Any:
    return form.program.exprs[i].free_symbols


def _place(graph: Graph, where: str | None, wrote: str) -> np.ndarray:
    if where is None:
        return np.ones(graph.n_nodes, dtype=bool)
    if where not in graph.node:
        raise refusal(
            wrote,
            f"the graph has no node feature {where!r}; it has {', '.join(graph.node) or 'none'}",
            f'write Graph(..., node={{"{where}": mask}})',
        )
    mask = graph.node[where]
    if mask.dtype != np.bool_ or mask.ndim != 1:
        what = f"of shape {mask.shape}" if mask.ndim != 1 else str(mask.dtype)
        raise refusal(
            wrote,
            f"the node feature {where!r} is {what}, expected one boolean per node",
            f'write node={{"{where}": values > 0}}, for example',
        )
    return mask


def _nodes(nodes: np.ndarray) -> str:
    """node 3; nodes 3 and 4; nodes 0, 1, 2, 3, 4, 5 and 94 more."""
    shown = [str(n) for n in nodes[:_SHOWN]]
    if len(nodes) > _SHOWN:
        return f"nodes {', '.join(shown)} and {len(nodes) - _SHOWN} more"
    if len(shown) == 1:
        return f"node {shown[0]}"
    return f"nodes {', '.join(shown[:-1])} and {shown[-1]}"
