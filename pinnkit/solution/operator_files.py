"""Save and load operators of families: JSON for what is said, tensors for what is trained.

In    a `FamilyOperator`, or a `.pinn` file.
Out   the file (written atomically), or the operator.
Next  `op.save(path)`, `pk.load(path)`.

The solver that learned the model knows how to rebuild it: its class has a method
`restore(family, spec, tensors) -> FamilyModel` for what the model's `to_state` returned.
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

import numpy as np
import torch

from pinnkit.errors import Status
from pinnkit.ir.family_tree import family_from_tree, family_to_tree
from pinnkit.solution import files
from pinnkit.solution.held_out import held_out_from_record, held_out_record
from pinnkit.solution.operator import FamilyOperator
from pinnkit.solution.solution import Snapshot
from pinnkit.train.callbacks import History
from pinnkit.train.checkpoint import write_archive

__all__ = ["FORMAT", "load", "save"]

FORMAT, VERSION = "pinnkit family operator", 1


def save(op: FamilyOperator, path: str | PathLike[str]) -> None:
    """Write `op` to `path`."""
    spec, tensors = op.model.to_state()
    record = {
        "format": FORMAT,
        "version": VERSION,
        "problem": family_to_tree(op.family),
        "solver": files.solver_record(op.solver),
        "model": spec,
        "status": op.status.name,
        "held_out": held_out_record(op.held_out),
        "history": op.history.to_state(),
        "stats": files.stats_record(op.stats),
        "dtype": str(op.dtype).removeprefix("torch."),
        "step": None if op.snapshot is None else op.snapshot.step,
    }
    parts: dict[str, Any] = {
        "model": tensors,
        "errors": torch.from_numpy(np.array(op.held_out.errors)),
    }
    if op.snapshot is not None:
        parts |= {"state": op.snapshot.state, "generator": op.snapshot.generator}
    write_archive(path, record, parts)


def load(path: str | PathLike[str], solvers: Mapping[str, Any]) -> FamilyOperator:
    """Read what `save` wrote, onto the CPU."""
    return files.read_saved(path, FORMAT, VERSION, lambda r, t: _operator(r, t, solvers))


def _operator(
    record: Mapping[str, Any], tensors: Mapping[str, Any], solvers: Mapping[str, Any]
) -> FamilyOperator:
    family = family_from_tree(record["problem"])
    solver = files.solver_from_record(record["solver"], dict(solvers))
    restore = getattr(solver, "restore", None)
    if restore is None:
        raise ValueError(f"the solver {record['solver']['name']!r} is not known here")
    snapshot = None
    if record["step"] is not None:
        snapshot = Snapshot(int(record["step"]), tensors["state"], tensors["generator"])
    return FamilyOperator(
        problem=family,
        solver=solver,
        model=restore(family, record["model"], tensors["model"]),
        held_out=held_out_from_record(record["held_out"], tensors["errors"].numpy()),
        status=Status[record["status"]],
        history=History.from_state(record["history"]),
        stats=files.stats_from_record(record["stats"]),
        snapshot=snapshot,
        dtype=files.DTYPES[record["dtype"]],
    )
