"""Checkpoints: where training stood, in a file or in a solution, and whether it fits the problem.

In    a solver's state, the random generator, the history.
Out   a file written atomically, and a `Snapshot` read back from a file or taken from a `Solution`.
Next  `pinnkit.driver` resumes from it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from pinnkit.ir.normal_form import NormalForm
from pinnkit.solution.estimate import solver_name
from pinnkit.solution.learned_operator import LearnedOperator
from pinnkit.solution.solution import Snapshot, Solution
from pinnkit.train.callbacks import History
from pinnkit.train.checkpoint import ArchiveError, plain_copy, read_archive, write_archive
from pinnkit.train.iteration import TrainingState

__all__ = [
    "Checkpointing",
    "Resumed",
    "fingerprint",
    "read_operator_resume",
    "read_resume",
    "read_series_resume",
    "take_snapshot",
]

FORMAT = "pinnkit checkpoint"
DEFAULT_EVERY = 100  # steps


@dataclass(frozen=True)
class Checkpointing:
    """Where and how often: at step numbers that `every` divides, and at the end."""

    path: Path
    every: int = DEFAULT_EVERY

    @classmethod
    def of(cls, argument: Any) -> Checkpointing | None:
        """From `checkpoint=`: None, a path, or (path, every)."""
        if argument is None:
            return None
        pair = argument if isinstance(argument, (tuple, list)) else (argument, DEFAULT_EVERY)
        if len(pair) != 2:
            raise TypeError(f"checkpoint={argument!r} must be a path or (path, every)")
        path, every = pair
        if not isinstance(path, (str, PathLike)):
            raise TypeError(f"checkpoint={argument!r} must be a path or (path, every)")
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ValueError(
                f"checkpoint=(path, {every!r}): every must be a positive number of steps"
            )
        if Path(path).is_dir():
            raise IsADirectoryError(f"checkpoint={str(path)!r} is a folder; name a file in it")
        if not Path(path).absolute().parent.is_dir():
            raise FileNotFoundError(f"the folder of checkpoint={str(path)!r} does not exist")
        return cls(Path(path), every)

    def write(self, snapshot: Snapshot, history: History, problem: str, solver: str) -> None:
        """Replace the file by one of `snapshot`."""
        record = {
            "format": FORMAT,
            "version": 1,
            "step": snapshot.step,
            "problem": problem,
            "solver": solver,
            "history": history.to_state(),
            "extra": snapshot.extra,
        }
        tensors = {"state": snapshot.state, "generator": snapshot.generator}
        write_archive(self.path, record, tensors)


@dataclass(frozen=True)
class Resumed:
    """What to go on from."""

    snapshot: Snapshot
    history: History

    def restore(self, state: TrainingState, generator: torch.Generator) -> History:
        """Put both where they stood; the history so far, to be continued."""
        state.load_state_dict(self.snapshot.state)
        generator.set_state(self.snapshot.generator)
        return self.history


def read_operator_resume(
    source: Any, problem: str, solver: str, *, device: torch.device
) -> Resumed:
    """As `read_resume`, for an operator.

    Args:
        source: A `LearnedOperator`, or the path of a checkpoint.
        problem: The repr of what is now being learned; another one is refused.
        solver: The solver's class name; another one is refused.
        device: Where tensors go.
    """
    if isinstance(source, LearnedOperator):
        if source.snapshot is None:
            raise ValueError("this operator does not hold the state of its training")
        theirs, method = repr(source.declaration), solver_name(source.solver)
        resumed = _copied(source.snapshot, source.history)
    else:
        record, tensors = read_archive(source, kind=FORMAT, device=device)
        theirs, method = str(record["problem"]), str(record["solver"])
        resumed = _resumed_from_record(record, tensors)
    if theirs != problem or method != solver:
        raise ValueError("resume= belongs to another problem or solver; use warm_start=")
    return resumed


def read_series_resume(
    source: Any, problem: str, solver: str, *, load: Any, device: torch.device
) -> Resumed:
    """As `read_resume`, for a model of series.

    Args:
        source: A `SeriesSolution`, a checkpoint or a saved solution.
        problem: The fingerprint of what is now being learned; another one is refused.
        solver: The solver's class name; another one is refused.
        load: Reads a saved solution.
        device: Where tensors go.
    """
    if isinstance(source, (str, PathLike)):
        try:
            record, tensors = read_archive(source, kind=FORMAT, device=device)
        except ArchiveError as fault:
            if "is no pinnkit checkpoint file" not in str(fault) or "damaged" in str(fault):
                raise
            return read_series_resume(load(source), problem, solver, load=load, device=device)
        _check_fits(record["problem"], problem, record["solver"], solver, Path(source).name)
        return _resumed_from_record(record, tensors)
    if not hasattr(source, "snapshot") or isinstance(source, Solution):
        raise TypeError(f"resume={source!r} must be a SeriesSolution or the path of a checkpoint")
    snapshot = source.snapshot
    if snapshot is None:
        raise ValueError("this solution does not hold the state of its training: nothing to resume")
    theirs = str(snapshot.extra.get("problem"))
    _check_fits(theirs, problem, solver_name(source.solver), solver, "the solution")
    return _copied(snapshot, source.history)


def take_snapshot(
    state: TrainingState, generator: torch.Generator, extra: dict[str, Any]
) -> Snapshot:
    """A copy of everything that changes during training."""
    return Snapshot(
        state.step, plain_copy(state.state_dict(), "state"), generator.get_state(), dict(extra)
    )


def read_resume(
    source: Any, nf: NormalForm, solver: str, *, load: Any, device: torch.device
) -> Resumed:
    """From `resume=`: a `Solution`, a checkpoint or a saved solution.

    Args:
        source: What the user passed.
        nf: The problem now being solved; another one is refused.
        solver: The solver's class name; another one is refused.
        load: Reads a saved solution (the driver's `load`, which knows the solvers).
        device: Where tensors go.
    """
    if isinstance(source, Solution):
        return _from_solution(source, nf, solver)
    if not isinstance(source, (str, PathLike)):
        raise TypeError(f"resume={source!r} must be a Solution or the path of a checkpoint")
    try:
        record, tensors = read_archive(source, kind=FORMAT, device=device)
    except ArchiveError as fault:
        if "is no pinnkit checkpoint file" not in str(fault) or "damaged" in str(fault):
            raise
        return _from_solution(load(source), nf, solver)
    name = Path(source).name
    _check_fits(record["problem"], fingerprint(nf), record["solver"], solver, name)
    return _resumed_from_record(record, tensors)


def fingerprint(nf: NormalForm) -> str:
    """A hash of what is being solved; equal problems have equal ones in every process."""
    parts = [
        *(f"{c} in {nf.bounds[c]}" for c in nf.coords),
        *map(str, nf.fields),
        *(str(e.residual) for e in nf.equations),
        *(f"{c.face} {c.residual}" for c in nf.conditions),
        *(f"{i.integrand} {i.over} {i.equals}" for i in nf.integrals),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _from_solution(solution: Solution, nf: NormalForm, solver: str) -> Resumed:
    if solution.snapshot is None:
        raise ValueError("this solution does not hold the state of its training: nothing to resume")
    theirs = solver_name(solution.solver)
    _check_fits(fingerprint(solution.normal_form), fingerprint(nf), theirs, solver, "the solution")
    return _copied(solution.snapshot, solution.history)


def _resumed_from_record(record: dict[str, Any], tensors: dict[str, Any]) -> Resumed:
    snapshot = Snapshot(
        int(record["step"]), tensors["state"], tensors["generator"].cpu(), dict(record["extra"])
    )
    return Resumed(snapshot, History.from_state(record["history"]))


def _copied(snapshot: Snapshot, history: History) -> Resumed:
    """Copied, so that resuming twice from one solution starts twice from the same place."""
    copied = Snapshot(
        snapshot.step,
        plain_copy(snapshot.state, "state"),
        snapshot.generator.clone(),
        dict(snapshot.extra),
    )
    return Resumed(copied, History.from_state(history.to_state()))


def _check_fits(problem: str, our_problem: str, solver: str, our_solver: str, name: str) -> None:
    if solver != our_solver:
        raise ValueError(f"{name} was written by {solver}; it cannot be resumed with {our_solver}")
    if problem != our_problem:
        raise ValueError(
            f"{name} belongs to another problem; to start from its answer use warm_start="
        )
