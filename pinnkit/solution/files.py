"""Save and load solutions: JSON for what is said, tensors for what is trained, nothing executable.

In    a `Solution`, or a `.pinn` file.
Out   the file (written atomically), or the `Solution`.
Next  `sol.save(path)`, `pk.load(path)`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import torch

from pinnkit.classical import GridApproximation
from pinnkit.declare.problem_class import ProblemClass
from pinnkit.errors import Evidence, Status
from pinnkit.gp.gaussian_process import GaussianProcessApproximation
from pinnkit.ir.normal_form import NormalForm
from pinnkit.ir.system_tree import system_from_tree, system_to_tree
from pinnkit.lower.family_basis import BasisApproximation
from pinnkit.lower.lagrangian import LagrangianApproximation
from pinnkit.lower.network_approximation import NetworkApproximation, WindowedApproximation
from pinnkit.lower.periodic_approximation import PeriodicApproximation
from pinnkit.lower.relabelled import RelabelledApproximation
from pinnkit.solution.answer import Approximation
from pinnkit.solution.estimate import Estimate, SavedSolver, Stats, solver_name
from pinnkit.solution.solution import Snapshot, Solution
from pinnkit.solution.trajectory_approximation import TrajectoryApproximation
from pinnkit.solution.verification import Verification
from pinnkit.train.callbacks import History
from pinnkit.train.checkpoint import ArchiveError, read_archive, write_archive

T = TypeVar("T")

__all__ = [
    "FORMAT",
    "MALFORMED",
    "load",
    "read_saved",
    "save",
    "snapshot_from_record",
    "snapshot_record",
    "snapshot_tensors",
    "solver_from_record",
    "solver_record",
    "stats_from_record",
    "stats_record",
    "verification_from_record",
    "verification_record",
]

FORMAT, VERSION = "pinnkit solution", 1
KINDS: dict[str, type[Approximation]] = {
    "network": NetworkApproximation,
    "windows": WindowedApproximation,
    "grid": GridApproximation,
    "lagrangian": LagrangianApproximation,
    "relabelled": RelabelledApproximation,
    "gaussian_process": GaussianProcessApproximation,
    "trajectory": TrajectoryApproximation,
    "family basis": BasisApproximation,
    "periodic elements": PeriodicApproximation,
}
DTYPES = {"float32": torch.float32, "float64": torch.float64}
MALFORMED = (
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    IndexError,
    RuntimeError,
    OverflowError,
)


def save(sol: Solution, path: str | PathLike[str]) -> None:
    """Write `sol` to `path`."""
    spec, tensors = sol.approximation.to_state()
    if sol.approximation.kind not in KINDS:
        raise TypeError(f"an approximation of kind {sol.approximation.kind!r} cannot be saved")
    system = sol.problem.system if isinstance(sol.problem, ProblemClass) else sol.problem
    record = {
        "format": FORMAT,
        "version": VERSION,
        "problem": system_to_tree(system),
        "solver": solver_record(sol.solver),
        "approximation": {"kind": sol.approximation.kind, "spec": spec},
        "status": sol.status.name,
        "verification": verification_record(sol.verification),
        "parameters": [[str(p), e.value, e.stderr] for p, e in sol.parameters.items()],
        "history": sol.history.to_state(),
        "stats": stats_record(sol.stats),
        "dtype": str(sol.dtype).removeprefix("torch."),
        "snapshot": snapshot_record(sol.snapshot),
    }
    parts = {"approximation": tensors, **snapshot_tensors(sol.snapshot)}
    write_archive(path, record, parts)


def load(path: str | PathLike[str], solvers: Mapping[str, type]) -> Solution:
    """Read what `save` wrote, onto the CPU.

    Args:
        path: The file.
        solvers: Solver classes by name, to rebuild `sol.solver`.
    """
    return read_saved(path, FORMAT, VERSION, lambda r, t: _solution(r, t, solvers))


def read_saved(
    path: str | PathLike[str],
    kind: str,
    version: int,
    build: Callable[[Mapping[str, Any], Mapping[str, Any]], T],
) -> T:
    """What `build(record, tensors)` makes of a file of this kind and version.

    Raises:
        ArchiveError: if the file is of another kind or version, or does not hold what `build` needs.
    """
    record, tensors = read_archive(path, kind=kind)
    name = Path(path).name
    if record.get("version") != version:
        raise ArchiveError(
            f"{name} has version {record.get('version')!r}; this pinnkit reads version {version}"
        )
    try:
        return build(record, tensors)
    except MALFORMED as fault:
        raise ArchiveError(f"{name} is damaged or was tampered with: {fault}") from fault


def _solution(
    record: Mapping[str, Any], tensors: Mapping[str, Any], solvers: Mapping[str, type]
) -> Solution:
    system = system_from_tree(record["problem"])
    nf: NormalForm = system.normal_form
    kind = record["approximation"]["kind"]
    approximation = KINDS[kind].from_state(
        record["approximation"]["spec"], tensors["approximation"], nf
    )
    symbols = {str(p): p for p in nf.parameters}
    return Solution(
        problem=system,
        normal_form=nf,
        solver=solver_from_record(record["solver"], solvers),
        approximation=approximation,
        status=Status[record["status"]],
        verification=verification_from_record(record["verification"]),
        parameters={
            symbols[n]: Estimate(float(v), None if e is None else float(e))
            for n, v, e in record["parameters"]
        },
        history=History.from_state(record["history"]),
        stats=stats_from_record(record["stats"]),
        snapshot=snapshot_from_record(tensors, **(record["snapshot"] or {"step": None})),
        dtype=DTYPES[record["dtype"]],
    )


def snapshot_record(snapshot: Snapshot | None) -> dict[str, Any] | None:
    """The step at which training stood and what its solver keeps beside the tensors, as JSON."""
    return None if snapshot is None else {"step": snapshot.step, "extra": snapshot.extra}


def snapshot_tensors(snapshot: Snapshot | None) -> dict[str, Any]:
    """The tensors of a snapshot, named as in every file; none without one."""
    if snapshot is None:
        return {}
    return {"state": snapshot.state, "generator": snapshot.generator}


def snapshot_from_record(
    tensors: Mapping[str, Any], step: int | None, extra: Mapping[str, Any] | None = None
) -> Snapshot | None:
    """Where training stood; None where the file does not say (`step` is None)."""
    if step is None:
        return None
    return Snapshot(int(step), tensors["state"], tensors["generator"], dict(extra or {}))


def verification_record(v: Verification) -> dict[str, Any]:
    """A verdict as JSON, without its reference."""
    fields = {f.name: getattr(v, f.name) for f in dataclasses.fields(v) if f.name != "reference"}
    return fields | {
        "evidence": v.evidence.name,
        "status": v.status.name,
        "errors": dict(v.errors),
    }


def verification_from_record(record: Mapping[str, Any]) -> Verification:
    """The verdict of a record."""
    numbers: dict[str, Any] = {
        f.name: float(record[f.name]) for f in dataclasses.fields(Verification) if f.type == "float"
    }
    return Verification(
        **numbers,
        ok=bool(record["ok"]),
        evidence=Evidence[record["evidence"]],
        status=Status[record["status"]],
        errors={str(n): float(e) for n, e in record["errors"].items()},
        reason=str(record["reason"]),
    )


def stats_record(stats: Stats) -> dict[str, Any]:
    """What a solve cost, as JSON."""
    fields = {f.name: getattr(stats, f.name) for f in dataclasses.fields(stats)}
    plain = {str(k): v for k, v in stats.more.items() if _is_json(v)}
    return fields | {"stopped_by": stats.stopped_by.name, "more": plain}


def stats_from_record(record: Mapping[str, Any]) -> Stats:
    """The figures of a record."""
    return Stats(
        seconds=float(record["seconds"]),
        steps=int(record["steps"]),
        parameters=int(record["parameters"]),
        points=int(record["points"]),
        peak_memory=int(record["peak_memory"]),
        stopped_by=Status[record["stopped_by"]],
        verification_seconds=float(record["verification_seconds"]),
        more=dict(record["more"]),
    )


def solver_record(solver: Any) -> dict[str, Any]:
    """A solver's name and, where they are plain values, its knobs."""
    record: dict[str, Any] = {"name": solver_name(solver), "repr": repr(solver), "fields": None}
    if dataclasses.is_dataclass(solver) and not isinstance(solver, SavedSolver):
        fields = {f.name: getattr(solver, f.name) for f in dataclasses.fields(solver) if f.init}
        if all(_is_json(v) for v in fields.values()):
            record["fields"] = {n: _tagged(v) for n, v in fields.items()}
    return record


def solver_from_record(record: Mapping[str, Any], solvers: Mapping[str, type]) -> Any:
    """The solver itself where its knobs are plain values, else a stand-in that shows its repr."""
    name, text = str(record["name"]), str(record["repr"])
    if name in solvers and record["fields"] is not None:
        fields = {str(n): _untagged(v) for n, v in record["fields"].items()}
        return solvers[name](**fields)
    return SavedSolver(name, text)


def _is_json(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_json, value))
    if isinstance(value, Mapping):
        return all(isinstance(k, str) for k in value) and all(map(_is_json, value.values()))
    return value is None or isinstance(value, (bool, int, float, str))


def _tagged(value: Any) -> Any:
    """JSON has no tuples, but frozen solvers do."""
    if isinstance(value, tuple):
        return {"tuple": [_tagged(v) for v in value]}
    if isinstance(value, list):
        return [_tagged(v) for v in value]
    if isinstance(value, Mapping):
        return {"dict": {k: _tagged(v) for k, v in value.items()}}
    return value


def _untagged(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {"tuple"}:
            return tuple(_untagged(v) for v in value["tuple"])
        return {k: _untagged(v) for k, v in value["dict"].items()}
    return [_untagged(v) for v in value] if isinstance(value, list) else value
