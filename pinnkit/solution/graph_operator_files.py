"""Save and load learned operators: JSON for what is said, tensors for what is trained.

In    a `GraphOperator`, or a `.pinn` file.
Out   the file (written atomically), or the operator.
Next  `op.save(path)`, `pk.load(path)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

import numpy as np
import torch

from pinnkit.declare.graph_target import GraphTarget
from pinnkit.errors import Status
from pinnkit.graphs.network import ConvergentGraphNetwork
from pinnkit.ir.graph_tree import graph_system_from_tree, graph_system_to_tree
from pinnkit.solution import files
from pinnkit.solution.graph_features import FeaturePlan
from pinnkit.solution.graph_operator import GraphOperator
from pinnkit.solution.held_out import held_out_from_record, held_out_record
from pinnkit.solution.solution import Snapshot
from pinnkit.train.callbacks import History
from pinnkit.train.checkpoint import write_archive

__all__ = ["FORMAT", "load", "save"]

FORMAT, VERSION = "pinnkit graph operator", 2


def save(op: GraphOperator, path: str | PathLike[str]) -> None:
    """Write `op` to `path`."""
    if op.arguments is None:
        raise TypeError(
            "an operator whose network you built yourself (network=...) cannot be written to a file; "
            "save op.module.state_dict()"
        )
    record = {
        "format": FORMAT,
        "version": VERSION,
        "problem": _problem_record(op.problem.system),
        "solver": files.solver_record(op.solver),
        "network": dict(op.arguments),
        "plan": op.plan.to_json(),
        "status": op.status.name,
        "held_out": held_out_record(op.held_out),
        "history": op.history.to_state(),
        "stats": files.stats_record(op.stats),
        "dtype": str(op.dtype).removeprefix("torch."),
        "step": None if op.snapshot is None else op.snapshot.step,
    }
    tensors: dict[str, Any] = {
        "module": dict(op.module.state_dict()),
        "errors": torch.from_numpy(np.array(op.held_out.errors)),
    }
    if op.snapshot is not None:
        tensors |= {"state": op.snapshot.state, "generator": op.snapshot.generator}
    write_archive(path, record, tensors)


def load(path: str | PathLike[str], solvers: Mapping[str, type]) -> GraphOperator:
    """Read what `save` wrote, onto the CPU."""
    return files.read_saved(path, FORMAT, VERSION, lambda r, t: _operator(r, t, solvers))


def _operator(
    record: Mapping[str, Any], tensors: Mapping[str, Any], solvers: Mapping[str, type]
) -> GraphOperator:
    problem = _problem(record["problem"])
    form = None if isinstance(problem, GraphTarget) else problem.normal_form
    dtype = files.DTYPES[record["dtype"]]
    solver = files.solver_from_record(record["solver"], solvers)
    method = getattr(solver, "method", None)
    module = ConvergentGraphNetwork(
        **record["network"],
        solver=method,
        rtol=1e-6 if dtype == torch.float64 else 1e-5,
        generator=torch.Generator(),
        dtype=dtype,
    )
    module.load_state_dict(tensors["module"])
    snapshot = None
    if record["step"] is not None:
        snapshot = Snapshot(int(record["step"]), tensors["state"], tensors["generator"])
    return GraphOperator(
        problem=problem,
        form=form,
        solver=solver,
        module=module.eval(),
        plan=FeaturePlan.from_json(record["plan"]),
        arguments=record["network"],
        held_out=held_out_from_record(record["held_out"], tensors["errors"].numpy()),
        status=Status[record["status"]],
        history=History.from_state(record["history"]),
        stats=files.stats_from_record(record["stats"]),
        snapshot=snapshot,
        dtype=dtype,
    )


def _problem_record(system: Any) -> dict[str, Any]:
    if isinstance(system, GraphTarget):
        return {"target": system.name, "of": system.of, "classes": system.classes}
    return {"system": graph_system_to_tree(system)}


def _problem(record: Mapping[str, Any]) -> Any:
    if "target" in record:
        return GraphTarget(record["target"], of=record["of"], classes=record["classes"])
    return graph_system_from_tree(record["system"])
