"""What the file of every operator says, whatever it was learned for.

In    a `LearnedOperator`, or the record and the tensors of its file.
Out   the record and the tensors, or the keywords of `LearnedOperator`.
Next  `solution.operator_files` for families, `solution.graph_operator_files` for graphs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from pinnkit.errors import Status
from pinnkit.solution import files
from pinnkit.solution.held_out import held_out_from_record, held_out_record
from pinnkit.solution.learned_operator import LearnedOperator
from pinnkit.train.callbacks import History

__all__ = ["operator_knobs", "operator_record", "operator_tensors"]


def operator_record(op: LearnedOperator) -> dict[str, Any]:
    """All but the problem and what was learned of it, as JSON."""
    return {
        "solver": files.solver_record(op.solver),
        "status": op.status.name,
        "held_out": held_out_record(op.held_out),
        "history": op.history.to_state(),
        "stats": files.stats_record(op.stats),
        "dtype": str(op.dtype).removeprefix("torch."),
        "step": None if op.snapshot is None else op.snapshot.step,
    }


def operator_tensors(op: LearnedOperator) -> dict[str, Any]:
    """The tensors beside `operator_record`."""
    errors = torch.from_numpy(np.array(op.held_out.errors))
    return {"errors": errors, **files.snapshot_tensors(op.snapshot)}


def operator_knobs(
    record: Mapping[str, Any], tensors: Mapping[str, Any], solvers: Mapping[str, type]
) -> dict[str, Any]:
    """Keywords of `LearnedOperator`, all but the problem, from what the two above gave."""
    return {
        "solver": files.solver_from_record(record["solver"], solvers),
        "held_out": held_out_from_record(record["held_out"], tensors["errors"].numpy()),
        "status": Status[record["status"]],
        "history": History.from_state(record["history"]),
        "stats": files.stats_from_record(record["stats"]),
        "snapshot": files.snapshot_from_record(tensors, record["step"]),
        "dtype": files.DTYPES[record["dtype"]],
    }
