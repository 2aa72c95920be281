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

from pinnkit.ir.family_tree import family_from_tree, family_to_tree
from pinnkit.solution import files
from pinnkit.solution.operator import FamilyOperator
from pinnkit.solution.operator_record import operator_knobs, operator_record, operator_tensors
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
        "model": spec,
        **operator_record(op),
    }
    write_archive(path, record, {"model": tensors, **operator_tensors(op)})


def load(path: str | PathLike[str], solvers: Mapping[str, Any]) -> FamilyOperator:
    """Read what `save` wrote, onto the CPU."""
    return files.read_saved(path, FORMAT, VERSION, lambda r, t: _operator(r, t, solvers))


def _operator(
    record: Mapping[str, Any], tensors: Mapping[str, Any], solvers: Mapping[str, Any]
) -> FamilyOperator:
    family = family_from_tree(record["problem"])
    knobs = operator_knobs(record, tensors, solvers)
    restore = getattr(knobs["solver"], "restore", None)
    if restore is None:
        raise ValueError(f"the solver {record['solver']['name']!r} is not known here")
    model = restore(family, record["model"], tensors["model"])
    return FamilyOperator(problem=family, model=model, **knobs)
