"""Save and load solutions on graphs: JSON for what is said, tensors for the numbers, nothing executable.

In    a `GraphSolution`, or a `.pinn` file.
Out   the file (written atomically), or the solution.
Next  `sol.save(path)`, `pk.load(path)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

import torch

from pinnkit.declare.graph import Graph
from pinnkit.declare.graph_system import GraphProblem
from pinnkit.errors import Status
from pinnkit.ir.graph_tree import graph_system_from_tree, graph_system_to_tree
from pinnkit.lower.graph_program import NodeValues
from pinnkit.solution import files
from pinnkit.solution.graph_solution import GraphSolution
from pinnkit.train.callbacks import History
from pinnkit.train.checkpoint import write_archive

__all__ = ["FORMAT", "graph_from_tensors", "graph_to_tensors", "load", "save"]

FORMAT, VERSION = "pinnkit graph solution", 1
_KINDS = ("node", "edge", "graph")


def save(sol: GraphSolution, path: str | PathLike[str]) -> None:
    """Write `sol` to `path`."""
    problem: GraphProblem = sol.problem.system
    record = {
        "format": FORMAT,
        "version": VERSION,
        "problem": graph_system_to_tree(problem.declaration),
        "graph": {"directed": problem.graph.directed, "nodes": problem.graph.n_nodes},
        "solver": files.solver_record(sol.solver),
        "status": sol.status.name,
        "verification": files.verification_record(sol.verification),
        "history": sol.history.to_state(),
        "stats": files.stats_record(sol.stats),
        "step": None if sol.snapshot is None else sol.snapshot.step,
    }
    bounds = None
    if sol._bounds is not None:
        bounds = {name: torch.from_numpy(b) for name, b in sol._bounds.items()}
    parts: dict[str, Any] = {
        "graph": graph_to_tensors(problem.graph),
        "fields": {str(f): v for f, v in sol.values.fields.items()},
        "parameters": {str(p): v for p, v in sol.values.parameters.items()},
        "bounds": bounds,
    }
    write_archive(path, record, parts | files.snapshot_tensors(sol.snapshot))


def load(path: str | PathLike[str], solvers: Mapping[str, type]) -> GraphSolution:
    """Read what `save` wrote, onto the CPU."""
    return files.read_saved(path, FORMAT, VERSION, lambda r, t: _solution(r, t, solvers))


def graph_to_tensors(graph: Graph) -> dict[str, Any]:
    """Its arrays, for files."""
    parts: dict[str, Any] = {"edges": torch.tensor(graph.edges)}
    for kind in _KINDS:
        parts[kind] = {n: torch.tensor(v) for n, v in getattr(graph, kind).items()}
    return parts


def graph_from_tensors(record: Mapping[str, Any], tensors: Mapping[str, Any]) -> Graph:
    """The graph of `graph_to_tensors`, checked anew; `record` has its directed and nodes."""
    node, edge, whole = ({n: v.numpy() for n, v in tensors[kind].items()} for kind in _KINDS)
    edges, directed = tensors["edges"].numpy(), bool(record["directed"])
    return Graph(edges, node, edge, directed, int(record["nodes"]), graph=whole)


def _solution(
    record: Mapping[str, Any], tensors: Mapping[str, Any], solvers: Mapping[str, type]
) -> GraphSolution:
    system = graph_system_from_tree(record["problem"])
    problem = system.on(graph_from_tensors(record["graph"], tensors["graph"]))
    form, n = problem.normal_form, problem.graph.n_nodes
    fields = {f: tensors["fields"][str(f)].double() for f in form.fields}
    if any(v.shape != (n,) for v in fields.values()):
        raise ValueError("a field has not one value per node")
    parameters = {p: tensors["parameters"][str(p)].double() for p in form.parameters}
    bounds = tensors["bounds"]
    return GraphSolution(
        problem=problem,
        solver=files.solver_from_record(record["solver"], solvers),
        values=NodeValues(fields, parameters),
        status=Status[record["status"]],
        verification=files.verification_from_record(record["verification"]),
        history=History.from_state(record["history"]),
        stats=files.stats_from_record(record["stats"]),
        bounds=None if bounds is None else {n: b.numpy() for n, b in bounds.items()},
        snapshot=files.snapshot_from_record(tensors, record["step"]),
    )
