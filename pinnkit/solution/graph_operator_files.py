"""Save and load learned operators: JSON for what is said, tensors for what is trained.

In    a `GraphOperator`, or a `.pinn` file.
Out   the file (written atomically), or the operator.
Next  `op.save(path)`, `pk.load(path)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

import torch

from pinnkit.declare.graph_target import GraphTarget
from pinnkit.graphs.network import ConvergentGraphNetwork
from pinnkit.ir.graph_tree import graph_system_from_tree, graph_system_to_tree
from pinnkit.solution import files
from pinnkit.solution.graph_features import FeaturePlan
from pinnkit.solution.graph_operator import GraphOperator
from pinnkit.solution.operator_record import operator_knobs, operator_record, operator_tensors
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
        "network": dict(op.arguments),
        "plan": op.plan.to_json(),
        **operator_record(op),
    }
    write_archive(path, record, {"module": dict(op.module.state_dict()), **operator_tensors(op)})


def load(path: str | PathLike[str], solvers: Mapping[str, type]) -> GraphOperator:
    """Read what `save` wrote, onto the CPU."""
    return files.read_saved(path, FORMAT, VERSION, lambda r, t: _operator(r, t, solvers))


def _operator(
    record: Mapping[str, Any], tensors: Mapping[str, Any], solvers: Mapping[str, type]
) -> GraphOperator:
    problem = _problem(record["problem"])
    form = None if isinstance(problem, GraphTarget) else problem.normal_form
    knobs = operator_knobs(record, tensors, solvers)
    dtype = knobs["dtype"]
    module = ConvergentGraphNetwork(
        **record["network"],
        solver=getattr(knobs["solver"], "method", None),
        rtol=1e-6 if dtype == torch.float64 else 1e-5,
        generator=torch.Generator(),
        dtype=dtype,
    )
    module.load_state_dict(tensors["module"])
    return GraphOperator(
        problem=problem,
        form=form,
        module=module.eval(),
        plan=FeaturePlan.from_json(record["plan"]),
        arguments=record["network"],
        **knobs,
    )


def _problem_record(system: Any) -> dict[str, Any]:
    if isinstance(system, GraphTarget):
        return {"target": system.name, "of": system.of, "classes": system.classes}
    return {"system": graph_system_to_tree(system)}


def _problem(record: Mapping[str, Any]) -> Any:
    if "target" in record:
        return GraphTarget(record["target"], of=record["of"], classes=record["classes"])
    return graph_system_from_tree(record["system"])
