"""What a learned graph solver sees: columns of features, known values, targets; batch by batch.

In    a `GraphForm` and graphs.
Out   a `FeaturePlan` (which columns, in which order; JSON can hold it) and `GraphBatch`es of tensors.
Next  `solution.graph_operator` predicts from them, `solvers.convergent_graph_solver` trains on them.

The declaration says more than names. If multiplying an edge feature by a constant multiplies every
equation by one (conductances without sources), only its ratio to the graph's geometric mean is shown.
If the equations are the same for s p + t as for p, fixed values are mapped to [0, 1] graph by graph and
the answer is mapped back. What is learned then holds in any units, and for graphs of other sizes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, final

import numpy as np
import sympy as sp
import torch
from torch import Tensor

from pinnkit.declare.graph import Graph
from pinnkit.declare.graph_symbols import AbstractNeighbours
from pinnkit.declare.printing import refusal
from pinnkit.graphs.arcs import Arcs
from pinnkit.ir.graph_form import GraphForm, features_of
from pinnkit.lower.expressions import compile_expressions

__all__ = ["FeaturePlan", "GraphBatch", "make_batch", "make_plan", "with_targets"]

TARGET = "target_of_"  # prefix under which targets travel with a graph


@final
@dataclass(frozen=True)
class FeaturePlan:
    """Which columns the network sees.

    Args:
        node, edge: Names of features, in this order; every column of each.
        odd: Edge features that change sign with the direction.
        relative: Edge features of which only the ratio to the graph's geometric mean matters.
        fields: Names of the unknown fields (none for targets that are given).
        shifts, scales: Whether a constant added to the fields, or multiplied, changes nothing.
        target: The name of a given target, or None: the fields.
        of: Whether it is one of "node", "edge" or "graph".
        widths: Columns of the named features, as found in the training set.
        classes: Their number, where the target is a class.
    """

    node: tuple[str, ...]
    edge: tuple[str, ...]
    odd: tuple[str, ...]
    relative: tuple[str, ...]
    fields: tuple[str, ...]
    shifts: bool
    scales: bool
    target: str | None
    of: str
    widths: Mapping[str, int]
    classes: int

    @property
    def node_inputs(self) -> int:
        """Columns per node: flag and value of every field, then the features; at least one."""
        return max(1, 2 * len(self.fields) + sum(self.widths[f"node {n}"] for n in self.node))

    @property
    def edge_inputs(self) -> int:
        """Columns per edge, at least one."""
        return max(1, sum(self.widths[f"edge {n}"] for n in self.edge))

    @property
    def outputs(self) -> int:
        """Numbers the network gives per row."""
        if self.target is None:
            return len(self.fields)
        return self.classes or self.widths[f"{self.of} {self.target}"]

    @property
    def mapped(self) -> bool:
        """Whether targets are values of fields, mapped graph by graph."""
        return self.target is None

    def to_json(self) -> dict[str, Any]:
        """For files."""
        return asdict(self) | {"widths": dict(self.widths)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> FeaturePlan:
        """What `to_json` gave."""
        lists: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in record.items()
        }
        return cls(**lists)


@final
@dataclass(frozen=True)
class GraphBatch:
    """Graphs as tensors. Rows are nodes, edges or graphs, as the target has them.

    Args:
        arcs: All arcs.
        nodes, edges: Feature columns, (N, a) and (A, b).
        held: Nodes at which every field is fixed, (N,); None without fixed values.
        fixed: Where each field is fixed, (N, m).
        values: The fixed values in the user's units, (N, m), in double precision; 0 elsewhere.
        offset, scale: Of the map of fields, per node: value = offset + scale * mapped.
        row_graph: The graph of every row.
        targets: Mapped targets, (rows, outputs) or classes (rows,); None where unknown.
    """

    arcs: Arcs
    nodes: Tensor
    edges: Tensor
    held: Tensor | None
    fixed: Tensor
    values: Tensor
    offset: Tensor
    scale: Tensor
    row_graph: Tensor
    targets: Tensor | None


def make_plan(
    form: GraphForm | None,
    graphs: Sequence[Graph],
    *,
    features: Iterable[str] = (),
    target: str | None = None,
    of: str | None = None,
    classes: int = 0,
) -> FeaturePlan:
    """The columns: what the equations name, then `features`.

    Args:
        form: The checked declaration; None: there is only a target.
        graphs: The training set.
        features: Further node and edge features by name.
        target: The name of a given target; None: the fields of the declaration.
        of: Where the target is; None: looked up.
        classes: Their number, if the target is a class.
    """
    nodes: dict[str, None] = {}
    edges: dict[str, None] = {}
    odd: dict[str, None] = {}
    relative: list[str] = []
    if form is not None:
        named, along = features_of(form.residuals)
        nodes.update(dict.fromkeys(s.name for s in named))
        edges.update(dict.fromkeys(s.name for s in along if s.name != "orientation"))
        odd.update(dict.fromkeys(s.name for s in along if s.odd and s.name in edges))
        relative = [
            s.name
            for s in along
            if not s.odd
            and s.column is None
            and all((g.edge[s.name] > 0).all() for g in graphs)
            and _homogeneous(form.residuals, {s})
        ]
    for name in features:
        if all(name in g.node for g in graphs):
            nodes[name] = None
        elif all(name in g.edge for g in graphs):
            edges[name] = None
        else:
            raise refusal(
                f"ConvergentGraphSolver(features=(..., {name!r}))",
                f"not every graph has a node or edge feature {name!r}",
                "leave it out, or give it to all graphs",
            )
    if target is not None:
        of = of or _place_of(target, graphs)
        (nodes if of == "node" else edges).pop(target, None)
    widths = {f"node {n}": _width(graphs[0].node[n]) for n in nodes}
    widths |= {f"edge {n}": _width(graphs[0].edge[n]) for n in edges}
    if target is not None:
        widths[f"{of} {target}"] = _width(getattr(graphs[0], of or "node")[target], of == "graph")
    return FeaturePlan(
        node=tuple(nodes),
        edge=tuple(edges),
        odd=tuple(odd),
        relative=tuple(relative),
        fields=() if form is None else tuple(map(str, form.fields)),
        shifts=form is not None and bool(form.fixed) and set(form.fields) <= form.floating,
        scales=form is not None and bool(form.fixed) and _scales(form),
        target=target,
        of=of or "node",
        widths=widths,
        classes=classes,
    )


def with_targets(graph: Graph, values: Mapping[str, np.ndarray]) -> Graph:
    """The graph with known answers of the fields, by name."""
    return graph.replace(node={TARGET + name: value for name, value in values.items()})


def make_batch(
    plan: FeaturePlan,
    form: GraphForm | None,
    graphs: Sequence[Graph],
    *,
    device: torch.device | str,
    dtype: torch.dtype,
) -> GraphBatch:
    """Tensors of these graphs, one after the other."""
    whole, node_graph, edge_graph = Graph.batch(graphs)
    arcs = Arcs.of(graphs, device=device)
    count = len(graphs)

    def put(array: Any) -> Tensor:
        return torch.tensor(np.asarray(array, dtype=float), device=device).to(dtype)

    fixed, given = _fixed_values(plan, form, whole)
    offset, scale = _maps(plan, fixed, given, node_graph, count)
    mapped = np.where(fixed, (given - offset[node_graph]) / scale[node_graph, None], 0.0)
    columns = [fixed, mapped] if plan.fields else []
    columns += [_columns(whole.node[n]) for n in plan.node]
    nodes = np.concatenate(columns, 1) if columns else np.ones((whole.n_nodes, 1))
    row_graph = {"node": node_graph, "edge": edge_graph, "graph": np.arange(count)}[plan.of]
    targets = _targets(plan, whole, offset, scale, node_graph)
    if targets is None:
        known = None
    elif plan.classes:
        known = torch.tensor(targets[:, 0].astype(np.int64), device=device)
    else:
        known = put(targets)
    return GraphBatch(
        arcs=arcs,
        nodes=put(nodes),
        edges=put(_on_arcs(plan, whole, edge_graph, count)),
        held=torch.tensor(fixed.all(1), device=device) if fixed.any() else None,
        fixed=torch.tensor(fixed, device=device),
        values=torch.tensor(given, device=device),
        offset=put(offset[node_graph]),
        scale=put(scale[node_graph, None]),
        row_graph=torch.tensor(row_graph, device=device),
        targets=known,
    )


def _fixed_values(
    plan: FeaturePlan, form: GraphForm | None, graph: Graph
) -> tuple[np.ndarray, np.ndarray]:
    """(where each field is fixed, at which value), (N, m) each."""
    shape = (graph.n_nodes, len(plan.fields))
    fixed, given = np.zeros(shape, dtype=bool), np.zeros(shape)
    for condition in () if form is None else form.fixed:
        assert form is not None
        where = slice(None) if condition.where is None else graph.node[condition.where]
        symbols, _ = features_of([condition.value])
        inputs = [torch.tensor(_one_column(graph.node[s.name], s.column)) for s in symbols]
        column = form.fields.index(condition.field)
        if symbols:
            compiled = compile_expressions([condition.value], symbols)
            value = compiled([v.double() for v in inputs])[0].numpy()
        else:
            value = np.full(graph.n_nodes, float(condition.value))
        fixed[where, column] = True
        given[where, column] = value[where]
    return fixed, given


def _maps(
    plan: FeaturePlan, fixed: np.ndarray, given: np.ndarray, node_graph: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:  # shapes: (G, m), (G,)
    """Offset and scale of each graph's values."""
    fields = fixed.shape[1]
    offset, scale = np.zeros((count, fields)), np.ones(count)
    low, high = np.full((count, fields), np.inf), np.full((count, fields), -np.inf)
    for m in range(fields):
        here = fixed[:, m]
        np.minimum.at(low[:, m], node_graph[here], given[here, m])
        np.maximum.at(high[:, m], node_graph[here], given[here, m])
    low, high = np.where(np.isinf(low), 0.0, low), np.where(np.isinf(high), 0.0, high)
    if plan.shifts:
        offset = low
    if plan.scales:
        size = (high - low if plan.shifts else np.maximum(abs(low), abs(high))).max(1, initial=0.0)
        scale = np.where(size > 0, size, 1.0)
    return offset, scale


def _on_arcs(plan: FeaturePlan, graph: Graph, edge_graph: np.ndarray, count: int) -> np.ndarray:
    columns = []
    sign = np.ones(graph.n_edges if graph.directed else 2 * graph.n_edges)
    sign[graph.n_edges :] = -1
    _, _, index = graph.arcs()
    for name in plan.edge:
        value = _columns(graph.edge[name]).astype(float)
        if name in plan.relative:
            logs = np.log(value[:, 0])
            edges = np.maximum(np.bincount(edge_graph, minlength=count), 1)
            mean = np.bincount(edge_graph, logs, minlength=count) / edges
            value = np.exp(logs - mean[edge_graph])[:, None]
        along = value[index]
        columns.append(sign[:, None] * along if name in plan.odd else along)
    return np.concatenate(columns, 1) if columns else np.ones((len(index), 1))


def _targets(
    plan: FeaturePlan,
    graph: Graph,
    offset: np.ndarray,
    scale: np.ndarray,
    node_graph: np.ndarray,
) -> np.ndarray | None:
    if plan.target is not None:
        known = getattr(graph, plan.of)
        if plan.target not in known:
            return None
        return _columns(known[plan.target]).astype(float)
    names = [TARGET + f for f in plan.fields]
    if any(n not in graph.node for n in names):
        return None
    value = np.stack([graph.node[n] for n in names], 1).astype(float)
    return (value - offset[node_graph]) / scale[node_graph, None]


def _columns(array: np.ndarray) -> np.ndarray:
    return array[:, None] if array.ndim == 1 else array


def _one_column(array: np.ndarray, column: int | None) -> np.ndarray:
    return np.array(array if column is None else array[:, column], dtype=float)


def _width(array: np.ndarray, whole: bool = False) -> int:
    if whole:
        return array.size
    return 1 if array.ndim == 1 else array.shape[1]


def _place_of(target: str, graphs: Sequence[Graph]) -> str:
    for of in ("node", "edge", "graph"):
        if all(target in getattr(g, of) for g in graphs):
            return of
    raise refusal(
        f"ConvergentGraphSolver(target={target!r})",
        f"not every graph has a node, edge or graph feature {target!r}",
        "give it to all graphs of data",
    )


def _scales(form: GraphForm) -> bool:
    """Whether multiplying all fields by a positive constant leaves the equations true."""
    moving: set[Any] = set(form.fields) | {f.neighbour for f in form.fields}
    return _homogeneous(form.residuals, moving)


def _homogeneous(residuals: Sequence[sp.Expr], symbols: set[Any]) -> bool:
    """Whether each residual is multiplied by a power of c > 0 if all the symbols are."""
    c = sp.Dummy("c", positive=True)
    moved = {s: c * s for s in symbols}

    def ratio(new: Any, old: Any) -> sp.Expr | None:
        found = sp.simplify(new / old)
        return found if found.free_symbols <= {c} else None

    for residual in residuals:
        scaled = dict(moved)
        for node in residual.atoms(AbstractNeighbours):
            factor = ratio(node.expr.xreplace(moved), node.expr)
            if factor is None:
                return False
            scaled[node] = factor * node
        if residual == 0 or ratio(residual.xreplace(scaled), residual) is None:
            return False
    return True
