"""Graphs: who is joined to whom, and the numbers that sit on nodes and edges.

In    pairs of node numbers, features by name.
Out   an immutable `Graph`: `edges` (2, E), `node`, `edge` and `graph` features, `arcs()`.
Next  `GraphSystem.on(graph)` binds the symbols of a declaration to the features by their names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, final

import numpy as np

from pinnkit.declare.printing import refusal

__all__ = ["Graph"]

_KEPT = {"b": np.bool_, "i": np.int64, "u": np.int64, "f": np.float64}  # by numpy's kinds


@final
class Graph:
    """Nodes 0 ... N-1, edges between them, and features of both.

    Parallel edges are kept, each with its own features. A self loop makes a node its own neighbour:
    one arc of a directed graph, two of an undirected one.

    Args:
        edges: Pairs of node numbers, shape (2, E): row 0 sends, row 1 receives.
        node: Features of nodes by name, arrays of shape (N,) or (N, k).
        edge: Features of edges by name, arrays of shape (E,) or (E, k).
        directed: False: every edge is passed in both directions, with the same features.
        nodes: The number of nodes; without it that of the node features, else the largest number
            in `edges` plus one.
        graph: Features of the whole graph by name, numbers or arrays of shape (k,).

    >>> g = Graph([[0, 1], [1, 2]], node={"inlet": [True, False, False]}, edge={"k": [1.0, 2.0]})
    >>> g
    Graph(3 nodes, 2 edges; node: inlet; edge: k)
    >>> [part.tolist() for part in g.arcs()]
    [[0, 1, 1, 2], [1, 2, 0, 1], [0, 1, 0, 1]]
    """

    __slots__ = ("directed", "edge", "edges", "graph", "n_edges", "n_nodes", "node")

    edges: np.ndarray  # shape: (2, E), int64
    node: Mapping[str, np.ndarray]
    edge: Mapping[str, np.ndarray]
    graph: Mapping[str, np.ndarray]
    directed: bool
    n_nodes: int
    n_edges: int

    def __init__(
        self,
        edges: Any,
        node: Mapping[str, Any] | None = None,
        edge: Mapping[str, Any] | None = None,
        directed: bool = False,
        nodes: int | None = None,
        *,
        graph: Mapping[str, Any] | None = None,
    ) -> None:
        pairs = _read_edges(edges)
        if not isinstance(directed, (bool, np.bool_)):
            raise refusal(f"Graph(directed={directed!r})", "it is True or False", "write one")
        on_nodes = _read_features(node, "node")
        on_edges = _read_features(edge, "edge")
        count = _count_nodes(pairs, on_nodes, nodes)
        _check_lengths(on_nodes, "node", count, "nodes")
        _check_lengths(on_edges, "edge", pairs.shape[1], "edges")
        put = super().__setattr__
        put("edges", _closed(pairs))
        put("node", MappingProxyType(on_nodes))
        put("edge", MappingProxyType(on_edges))
        put("graph", MappingProxyType(_read_features(graph, "graph")))
        put("directed", bool(directed))
        put("n_nodes", count)
        put("n_edges", int(pairs.shape[1]))

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(
            f"a Graph cannot be changed; write graph.replace(...) for one with another {name}"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        features = dict(self.node), dict(self.edge), dict(self.graph)
        return _rebuild, (np.array(self.edges), *features, self.directed, self.n_nodes)

    def __repr__(self) -> str:
        parts = [f"{self.n_nodes} nodes, {self.n_edges} {'arcs' if self.directed else 'edges'}"]
        for kind in ("node", "edge", "graph"):
            if names := ", ".join(getattr(self, kind)):
                parts.append(f"{kind}: {names}")
        return f"Graph({'; '.join(parts)})"

    def arcs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(senders, receivers, edge_index), each (A,): the directions messages take.

        A directed edge is one arc. An undirected edge is two: first all edges as given, then all
        reversed. `edge_index` is the row of the edge features an arc reads.
        """
        senders, receivers = self.edges
        index = np.arange(self.n_edges)
        if self.directed:
            return senders, receivers, index
        return (
            np.concatenate([senders, receivers]),
            np.concatenate([receivers, senders]),
            np.concatenate([index, index]),
        )

    def components(self) -> np.ndarray:  # shape: (N,)
        """The number of the connected component of every node, directions disregarded.

        >>> Graph([[0, 3], [1, 4]], nodes=5).components().tolist()
        [0, 0, 1, 2, 2]
        """
        from scipy.sparse import coo_array  # late: declarations are fast to import
        from scipy.sparse.csgraph import connected_components

        ones = np.ones(self.n_edges)
        links = coo_array((ones, tuple(self.edges)), shape=(self.n_nodes, self.n_nodes))
        return connected_components(links, directed=False)[1].astype(np.int64)

    def permute(self, order: Any) -> Graph:
        """The same graph with renumbered nodes: new node i is old node order[i]. Edges keep their order."""
        old = np.asarray(order)
        if old.shape != (self.n_nodes,) or not np.array_equal(
            np.sort(old), np.arange(self.n_nodes)
        ):
            raise refusal(
                "graph.permute(order)",
                f"order is no permutation of 0 ... {self.n_nodes - 1}",
                "name every node once",
            )
        new = np.empty(self.n_nodes, dtype=np.int64)
        new[old] = np.arange(self.n_nodes)
        return Graph(
            new[self.edges],
            {name: value[old] for name, value in self.node.items()},
            self.edge,
            self.directed,
            self.n_nodes,
            graph=self.graph,
        )

    def replace(
        self,
        *,
        node: Mapping[str, Any] | None = None,
        edge: Mapping[str, Any] | None = None,
        graph: Mapping[str, Any] | None = None,
    ) -> Graph:
        """The same nodes and edges; the features named here added or exchanged, the others kept."""
        return Graph(
            self.edges,
            {**self.node, **(node or {})},
            {**self.edge, **(edge or {})},
            self.directed,
            self.n_nodes,
            graph={**self.graph, **(graph or {})},
        )

    @staticmethod
    def batch(graphs: Iterable[Graph]) -> tuple[Graph, np.ndarray, np.ndarray]:
        """(one graph of all, graph number of every node (N,), graph number of every edge (E,)).

        Nodes are renumbered graph after graph; no edge joins two of them. Features that all graphs
        have are kept; those of whole graphs get a first axis that counts the graphs.
        """
        parts = list(graphs)
        for part in parts:
            if not isinstance(part, Graph):
                raise refusal(f"Graph.batch([..., {part!r}, ...])", "not a Graph", "give Graphs")
        if not parts:
            raise refusal("Graph.batch([])", "there is no graph in it", "give at least one")
        if len({part.directed for part in parts}) > 1:
            raise refusal(
                "Graph.batch(graphs)",
                "some are directed and some are not",
                "give an undirected edge as two directed ones, or batch them apart",
            )
        sizes = np.array([part.n_nodes for part in parts])
        offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        edges = [part.edges + offset for part, offset in zip(parts, offsets)]
        counts = np.array([part.n_edges for part in parts])
        whole = Graph(
            np.concatenate(edges, axis=1),
            _joined(parts, "node", np.concatenate),
            _joined(parts, "edge", np.concatenate),
            parts[0].directed,
            int(sizes.sum()),
            graph=_joined(parts, "graph", np.stack),
        )
        numbers = np.arange(len(parts))
        return whole, np.repeat(numbers, sizes), np.repeat(numbers, counts)


def _rebuild(edges: Any, node: Any, edge: Any, graph: Any, directed: bool, nodes: int) -> Graph:
    return Graph(edges, node, edge, directed, nodes, graph=graph)


def _closed(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array


def _joined(parts: list[Graph], kind: str, join: Any) -> dict[str, np.ndarray]:
    first: Mapping[str, np.ndarray] = getattr(parts[0], kind)
    kept = [name for name in first if all(name in getattr(part, kind) for part in parts)]
    joined = {}
    for name in kept:
        arrays = [getattr(part, kind)[name] for part in parts]
        shapes = {a.shape if kind == "graph" else a.shape[1:] for a in arrays}
        if len(shapes) > 1:
            raise refusal(
                "Graph.batch(graphs)",
                f"the {kind} feature {name!r} has different widths: {sorted(shapes)}",
                "give it the same number of columns in all graphs",
            )
        joined[name] = join(arrays)
    return joined


def _read_edges(edges: Any) -> np.ndarray:
    wrote = "Graph(edges)"
    try:
        given = np.asarray(edges)
    except (ValueError, TypeError, RuntimeError) as fault:
        raise refusal(wrote, "the two rows differ in length", "give an array (2, E)") from fault
    if given.ndim != 2 or given.shape[0] != 2:
        turned = given.ndim == 2 and given.shape[1] == 2
        raise refusal(
            wrote,
            f"it has the shape {given.shape}, expected (2, E)",
            "write its transpose, edges.T" if turned else "row 0 sends, row 1 receives",
        )
    if given.dtype.kind not in "iu" and given.size:
        raise refusal(
            wrote, f"node numbers are {given.dtype}, expected integers", "convert with astype(int)"
        )
    pairs = given.astype(np.int64)
    if pairs.size and pairs.min() < 0:
        row, column = np.argwhere(pairs < 0)[0]
        raise refusal(
            wrote,
            f"edge {column} joins node {pairs[row, column]}, and numbers start at 0",
            "count the nodes from 0",
        )
    return pairs


def _read_features(given: Mapping[str, Any] | None, kind: str) -> dict[str, np.ndarray]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise refusal(
            f"Graph({kind}={type(given).__name__})",
            "features have names",
            f'write {kind}={{"name": values}}',
        )
    return {_read_name(name, kind): _read_values(v, name, kind) for name, v in given.items()}


def _read_name(name: Any, kind: str) -> str:
    if not isinstance(name, str) or not name.isidentifier():
        raise refusal(
            f"Graph({kind}={{{name!r}: ...}})",
            "that is not a name",
            "use letters, digits and underscores",
        )
    return name


def _read_values(value: Any, name: str, kind: str) -> np.ndarray:
    wrote = f"Graph({kind}={{{name!r}: ...}})"
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as fault:  # ragged, or a tensor with a gradient
        raise refusal(wrote, f"this is no array of numbers ({fault})", "give an array") from fault
    if array.dtype.kind not in _KEPT:
        raise refusal(
            wrote, f"values are {array.dtype}, expected numbers or booleans", "encode them"
        )
    array = array.astype(_KEPT[array.dtype.kind])  # a copy
    if array.ndim > 2 - (kind == "graph") or (array.ndim == 0 and kind != "graph"):
        count, of = ("N", "node") if kind == "node" else ("E", "edge")
        expected = "() or (k,)" if kind == "graph" else f"({count},) or ({count}, k)"
        raise refusal(
            wrote,
            f"it has the shape {array.shape}, expected {expected}",
            "give one row per " + of if kind != "graph" else "give one number or vector",
        )
    if not np.isfinite(array).all():
        row = np.argwhere(~np.isfinite(array))
        at = f" in row {row[0][0]}" if array.ndim else ""
        raise refusal(wrote, f"it holds nan or inf{at}", "give finite numbers only")
    return _closed(array)


def _count_nodes(pairs: np.ndarray, features: Mapping[str, np.ndarray], nodes: Any) -> int:
    needed = int(pairs.max()) + 1 if pairs.size else 0
    if nodes is not None:
        if isinstance(nodes, bool) or not isinstance(nodes, (int, np.integer)) or nodes < 0:
            raise refusal(f"Graph(nodes={nodes!r})", "it is a number of nodes", "write an integer")
        count = int(nodes)
    else:
        count = len(next(iter(features.values()))) if features else needed
    if needed > count:
        column = int(np.argmax(pairs.max(axis=0)))
        raise refusal(
            "Graph(edges)",
            f"edge {column} joins node {needed - 1}, but there are {count} nodes"
            + ("" if count == 0 else f", 0 ... {count - 1}"),
            "correct the number, or give more nodes",
        )
    return count


def _check_lengths(features: Mapping[str, np.ndarray], kind: str, count: int, what: str) -> None:
    for name, array in features.items():
        if len(array) != count:
            raise refusal(
                f"Graph({kind}={{{name!r}: ...}})",
                f"it has {len(array)} rows, and there are {count} {what}",
                f"give one row per {kind}",
            )
