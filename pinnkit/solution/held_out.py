"""How good a learned operator is: a quantile of its errors on draws that training never saw.

In    errors of the draws, where the truth came from, the tolerance.
Out   `HeldOut`, the operator's `Status`, and the lines that `print(op)` shows.
Next  `solution.graph_operator` for graphs, `solution.operator` for families.

One solution is ok when its own error is below the tolerance; an operator is ok when a stated share of its
answers is. So a single good draw says nothing, and too few of them do not either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from pinnkit.errors import Evidence, Status
from pinnkit.solution.estimate import Stats, solver_name

__all__ = [
    "FEWEST_JUDGED",
    "HeldOut",
    "describe",
    "held_out_from_record",
    "held_out_record",
    "operator_status",
    "quantile_of",
]

FEWEST_JUDGED = 10  # draws below which a quantile says little


@final
@dataclass(frozen=True)
class HeldOut:
    """Errors on draws that training never saw.

    Args:
        errors: Relative L2 error of each draw, the largest over the fields; for classes 0 or 1; inf
            where the answer could not be judged.
        quantile: Which quantile is judged.
        error: That quantile, the next larger of the errors seen; nan where none was seen.
        tol: What it is judged at.
        evidence: Where the truth came from.
        reason: What decided, in words.
    """

    errors: np.ndarray
    quantile: float
    error: float
    tol: float
    evidence: Evidence
    reason: str = ""

    @property
    def mean(self) -> float:
        """The mean error, which published tables give; nan where nothing was seen."""
        return float(self.errors.mean()) if len(self.errors) else float("nan")


def quantile_of(errors: np.ndarray, quantile: float) -> float:
    """The next larger of the errors seen; nan if there are none."""
    return float(np.quantile(errors, quantile, method="higher")) if len(errors) else float("nan")


def operator_status(
    stopped_by: Status, held: HeldOut, *, verified: bool, given: bool = False
) -> Status:
    """The verdict wins over the reason why training stopped, as for one solution.

    Args:
        stopped_by: Why training stopped.
        held: The errors.
        verified: Whether anyone was asked to judge.
        given: The truth is data and nothing else.
    """
    if stopped_by in (Status.DIVERGED, Status.INTERRUPTED):
        return stopped_by
    if given:
        return Status.NO_GROUND_TRUTH
    judged = held.evidence not in (Evidence.RESIDUAL, Evidence.NONE)
    if judged and len(held.errors) >= FEWEST_JUDGED:
        return Status.OK if held.error <= held.tol else Status.INACCURATE
    if verified or stopped_by is Status.OK:
        return Status.UNVERIFIED
    return stopped_by


def describe(op: Any, what: str, draws: str) -> str:
    """The lines of `print(op)` for an operator.

    Args:
        op: With `status`, `evidence`, `held_out`, `solver`, `stats`, `dtype`, `device`.
        what: From what to what it leads.
        draws: What was held out, in the plural.
    """
    held, stats = op.held_out, op.stats
    lines = [
        f"Operator: {what}",
        f"  status    {op.status.name}: {op.status.message}",
        f"  evidence  {op.evidence.name}: {op.evidence.value}",
    ]
    if op.error_estimate is not None:
        e = held.errors
        lines.append(
            f"  error     {held.error:.2e} relative L2 at the {100 * held.quantile:g} % quantile of"
            f" {len(e)} held-out {draws} (median {np.median(e):.1e}, largest {e.max():.1e}), judged"
            f" at {held.tol:g}"
        )
    if held.reason:
        lines.append(f"  because   {held.reason}")
    lines += [_solver_line(op.solver, stats), _size_line(op, stats)]
    return "\n".join(lines)


def held_out_record(held: HeldOut) -> dict[str, Any]:
    """As JSON, without the errors, which are a tensor beside it."""
    return {
        "quantile": held.quantile,
        "error": held.error,
        "tol": held.tol,
        "evidence": held.evidence.name,
        "reason": held.reason,
    }


def held_out_from_record(record: Mapping[str, Any], errors: np.ndarray) -> HeldOut:
    """The errors of a record."""
    return HeldOut(
        errors=errors,
        quantile=float(record["quantile"]),
        error=float(record["error"]),
        tol=float(record["tol"]),
        evidence=Evidence[record["evidence"]],
        reason=str(record["reason"]),
    )


def _solver_line(solver: Any, stats: Stats) -> str:
    return (
        f"  solver    {solver_name(solver)}: {stats.steps} steps in {stats.seconds:.1f} s,"
        f" stopped by {stats.stopped_by.name}"
    )


def _size_line(op: Any, stats: Stats) -> str:
    dtype = str(op.dtype).removeprefix("torch.")
    return f"  size      {stats.parameters} parameters, {dtype} on {op.device}"
