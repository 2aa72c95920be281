"""solve_many: independent problems side by side, each in a process of its own.

In    problems, a solver for all or one for each, the common knobs of `solve`.
Out   what `solve` returns for each, in the order of the problems; a failure in its place.
Next  sweeps over parameters and seeds; one large problem on many processes is `train.ranks`.

A process that dies takes its own problem along and nothing else. Solutions come back as files do:
without the reference they were checked against.
"""

from __future__ import annotations

import collections
import dataclasses
import multiprocessing
import numbers
import os
import pickle
import signal
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from pinnkit.driver import load, solve
from pinnkit.solution import Solution
from pinnkit.solvers.base import AbstractSolver
from pinnkit.train.knobs import check_dtype, check_knobs

__all__ = ["ProblemsFailed", "solve_many"]

SPAWN = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads half alive
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class ProblemsFailed(ExceptionGroup[Exception]):
    """Some of several problems failed; `results` holds all outcomes, exceptions in their places."""

    results: list[Any]


@dataclasses.dataclass(frozen=True)
class _Task:
    """One problem as it travels; its solution comes back in the file `path`."""

    index: int
    problem: Any
    solver: AbstractSolver | None
    knobs: dict[str, Any]
    path: str


@dataclasses.dataclass(frozen=True)
class _Worker:
    process: BaseProcess
    pipe: connection.Connection


def solve_many(
    problems: Sequence[Any],
    solver: AbstractSolver | Sequence[AbstractSolver | None] | None = None,
    *,
    workers: int | None = None,
    seed: int | Sequence[int] = 0,
    callback: Callable[[int, Any], None] | None = None,
    keep_failures: bool = False,
    max_steps: int | None = None,
    time_limit: float | None = 300,
    tol: float | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float64,
    verify: bool = True,
) -> list[Any]:
    """Solve every problem as `solve` would, `workers` of them at a time; results in their order.

    Processes are started anew (spawn), so a script that calls this needs
    `if __name__ == "__main__":`, and problem classes must be importable. Each process gets its share
    of the threads torch has here. `max_steps` to `verify` are those of `solve`, for each problem by itself.

    Args:
        problems: Of any kind `solve` takes.
        solver: One for all, or one for each; None chooses.
        workers: Processes at a time; None: as many as there are problems and processors.
        seed: One for all, or one for each: `solve_many([p] * 3, seed=range(3))`.
        callback: Called here with (index, solution or exception) as each problem ends.
        keep_failures: Put exceptions among the results in place of raising `ProblemsFailed`.

    Raises:
        ProblemsFailed: after all have ended, if some failed; its `results` hold the others.
    """
    problems = list(problems)
    check_knobs(max_steps, time_limit, tol)
    check_dtype(dtype)
    solvers = _one_each("solver", solver, len(problems), AbstractSolver)
    seeds = _one_each("seed", seed, len(problems), numbers.Integral)
    if workers is not None and (isinstance(workers, bool) or workers < 1):
        raise ValueError(f"workers={workers!r} must be a positive number of processes, or None")
    if not problems:
        return []
    count = min(len(problems), workers or os.cpu_count() or 1)
    knobs = {
        "max_steps": max_steps,
        "time_limit": time_limit,
        "tol": tol,
        "device": device,
        "dtype": dtype,
        "verify": verify,
    }
    results: list[Any] = [None] * len(problems)

    def end(task: _Task, outcome: Any) -> None:
        results[task.index] = outcome
        if callback is not None:
            callback(task.index, outcome)

    with tempfile.TemporaryDirectory(prefix="pinnkit-") as folder:
        tasks = [
            _Task(k, p, s, {**knobs, "seed": n}, str(Path(folder) / f"{k}.pinn"))
            for k, (p, s, n) in enumerate(zip(problems, solvers, seeds, strict=True))
        ]
        _share_out(tasks, count, max(1, torch.get_num_threads() // count), end)
    failures = [r for r in results if isinstance(r, Exception)]
    if failures and not keep_failures:
        found = ProblemsFailed(f"{len(failures)} of {len(problems)} problems failed", failures)
        found.results = results
        raise found
    return results


def _one_each(name: str, given: Any, count: int, kind: type) -> list[Any]:
    if given is None or isinstance(given, kind):
        return [given] * count
    values = list(given)
    if len(values) != count:
        raise ValueError(f"{name}: {len(values)} given for {count} problems; give one, or one each")
    return values


def _share_out(
    tasks: Sequence[_Task], count: int, threads: int, end: Callable[[_Task, Any], None]
) -> None:
    """Hand out tasks one at a time to `count` processes; a process that died is replaced."""
    waiting = collections.deque(tasks)
    idle: list[_Worker] = []
    busy: dict[Any, tuple[_Worker, _Task]] = {}
    try:
        while waiting or busy:
            while waiting and len(busy) < count:
                task = waiting.popleft()
                try:
                    data = pickle.dumps(task)
                except (pickle.PicklingError, AttributeError, TypeError) as fault:
                    fault.add_note(f"problem {task.index} cannot be sent to another process")
                    end(task, fault)
                    continue
                worker = idle.pop() if idle else _start(threads)
                busy[worker.pipe] = worker, task
                try:
                    worker.pipe.send_bytes(data)
                except OSError:
                    continue  # it died before it listened: what is waited for next tells how
            # Waiting for nobody would last for ever.
            ready: list[Any] = connection.wait(list(busy)) if busy else []
            for pipe in ready:
                worker, task = busy.pop(pipe)
                try:
                    outcome = _received(pipe.recv(), task)
                    idle.append(worker)
                except (EOFError, OSError):
                    outcome = _death(worker.process)
                end(task, outcome)
    finally:
        for worker in [*idle, *(w for w, _ in busy.values())]:
            worker.pipe.close()
            worker.process.terminate()
            worker.process.join()


def _start(threads: int) -> _Worker:
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=_serve, args=(theirs,), daemon=True, name="pinnkit solve_many")
    with _environment(dict.fromkeys(THREADS, str(threads))):
        process.start()
    theirs.close()  # so that its death ends the pipe
    return _Worker(process, ours)


@contextmanager
def _environment(wanted: dict[str, str]) -> Iterator[None]:
    """What a process that starts here inherits: libraries read their thread counts when loaded."""
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(pipe: connection.Connection) -> None:
    """A process's life: solve what comes until nothing more does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started us
    while True:
        try:
            data = pipe.recv_bytes()
        except EOFError:
            return
        pipe.send(_outcome(data))


def _outcome(data: bytes) -> Any:
    """(solver, None) once the solution is in its file, or (None, exception)."""
    try:
        task: _Task = pickle.loads(data)
        found = solve(task.problem, task.solver, progress=False, **task.knobs)
        found.save(task.path)
        return found.solver, None
    except Exception as fault:
        return None, _portable(fault)


def _portable(fault: Exception) -> Exception:
    """The exception with its traceback as a note, or its words where it cannot travel itself."""
    told = "".join(traceback.format_exception(fault))
    try:
        pickle.loads(pickle.dumps(fault))
    except Exception:
        fault = RuntimeError(f"{type(fault).__name__}: {fault}")
    fault.add_note(told)
    return fault


def _received(message: tuple[Any, Exception | None], task: _Task) -> Any:
    solver, fault = message
    if fault is not None:
        return fault
    found = load(task.path)
    if isinstance(found, Solution):
        # A file holds the declaration and the knobs as plain values; here are the originals.
        found.problem, found.solver = task.problem, solver
    Path(task.path).unlink()
    return found


def _death(process: BaseProcess) -> Exception:
    process.join()
    code = process.exitcode
    how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
    return ChildProcessError(
        f"the process that solved it ended with {how}; a script that calls solve_many needs "
        'if __name__ == "__main__":'
    )
