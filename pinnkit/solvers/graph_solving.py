"""Solve on one graph: the loop, the verdict, the solution.

In    a `GraphProblem`, `SparseFixedPoint`, the common knobs.
Out   a `GraphSolution`.
Next  `pinnkit.driver.solve` calls this for problems on a graph.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import time
from os import PathLike
from typing import Any

import numpy as np
import torch

from pinnkit.errors import Status
from pinnkit.lower.graph_residual import GraphEquations
from pinnkit.solution.estimate import Stats, solver_name
from pinnkit.solution.graph_layer import make_newton
from pinnkit.solution.graph_solution import GraphSolution, read_values
from pinnkit.solution.graph_verification import GraphVerdict, judge_on_graph
from pinnkit.solution.resume import Checkpointing, take_snapshot
from pinnkit.solution.solution import Snapshot
from pinnkit.solution.status import final_status
from pinnkit.solution.summary import peak_memory
from pinnkit.solution.verification import Verification
from pinnkit.solvers.base import Env
from pinnkit.solvers.sparse_fixed_point import SparseFixedPoint, SparseFixedPointState
from pinnkit.train.callbacks import History, Progress
from pinnkit.train.checkpoint import plain_copy, read_archive
from pinnkit.train.iteration import Callback, iterate
from pinnkit.train.session import run

__all__ = ["residual_of_values", "solve_on_graph", "verify_on_graph"]

CHECKPOINT = "pinnkit checkpoint"


def solve_on_graph(
    problem: Any,
    solver: SparseFixedPoint,
    env: Env,
    *,
    callback: Callback | None = None,
    show: Progress | None = None,
    checkpoint: Checkpointing | None = None,
    resume: Any = None,
    verify: bool = True,
) -> GraphSolution:
    """Step the solver to its end, judge the answer.

    Args:
        problem: A `GraphProblem` or a problem class that declares one.
        solver: The method.
        env: Device, precision, seed, limits.
        callback, show, checkpoint, resume: As in `pinnkit.solve`.
        verify: False leaves the answer UNVERIFIED.
    """
    started = time.perf_counter()
    state, history = solver.init(problem, env), History()
    name = _fingerprint(problem.system)
    if resume is not None:
        history = _resume(resume, state, name, solver, env)
    loop = iterate(
        solver,
        problem,
        state,
        max_steps=env.max_steps,
        time_limit=env.time_limit,
        started=started,
    )

    def save() -> None:
        if checkpoint is not None:
            snapshot = take_snapshot(state, env.generator, {})
            checkpoint.write(snapshot, history, name, type(solver).__name__)

    every = 1 if checkpoint is None else checkpoint.every
    run(loop, history, show=show, callback=callback, save=save, every=every)
    seconds = time.perf_counter() - started
    stopped_by = loop.stopped_by or Status.INTERRUPTED
    found = _judge(state, solver, env, verify)
    verdict = found.verification
    if stopped_by is Status.STALLED and state.newton.failed:
        why = "; ".join(filter(None, [state.newton.failed, verdict.reason]))
        verdict = dataclasses.replace(verdict, reason=why)
    return GraphSolution(
        problem=problem,
        solver=solver,
        values=state.values,
        status=final_status(stopped_by, verdict, verify),
        verification=verdict,
        history=history,
        stats=Stats(
            seconds=seconds,
            steps=state.step,
            parameters=0,
            points=problem.system.graph.n_nodes,
            peak_memory=peak_memory(env.device),
            stopped_by=stopped_by,
            verification_seconds=verdict.seconds,
            more=_figures(state, found),
        ),
        bounds=_bounds(state.equations, found.bound),
        snapshot=take_snapshot(state, env.generator, {}),
        device=env.device,
        dtype=torch.float64,
    )


def verify_on_graph(problem: Any, candidate: Any, *, tol: float | None = None) -> Verification:
    """Judge anyone's values at the nodes.

    Args:
        problem: A `GraphProblem` or a problem class that declares one.
        candidate: {field: values (N,)}, values for a single field, or a `GraphSolution`.
        tol: What the error is judged at.
    """
    equations = _equations(problem)
    values = _values(equations, candidate)
    for f, given in values.fields.items():
        known = equations.unpack(equations.start()).fields[f]
        held = torch.tensor(equations.binding.fixed[f])
        size = max(float(known[held].abs().max()), 1e-300) if bool(held.any()) else 1.0
        off = float((given - known)[held].abs().max()) if bool(held.any()) else 0.0
        if off > 1e-12 * size and not equations.form.parameters:
            reason = f"fixed values of {f} are missed by up to {off:.2g}"
            return Verification(math.inf, status=Status.INACCURATE, reason=reason)
    newton = make_newton(equations, start=equations.pack(values).numpy().copy())
    return judge_on_graph(equations, newton, tol=tol).verification


def residual_of_values(problem: Any, candidate: Any) -> dict[str, np.ndarray]:
    """Left minus right side of every field's equation at every node, by name."""
    equations = _equations(problem)
    with torch.no_grad():
        parts = equations.everywhere(_values(equations, candidate))
    return {str(f): part.numpy() for f, part in zip(equations.form.fields, parts)}


def _equations(problem: Any) -> GraphEquations:
    system = problem.system
    return GraphEquations(system.normal_form, system.graph, system.binding)


def _values(equations: GraphEquations, candidate: Any) -> Any:
    fields = read_values(equations.form, equations.graph, candidate)
    named = {}
    if isinstance(candidate, GraphSolution):
        named = {str(p): v for p, v in candidate.values.parameters.items()}
    elif isinstance(candidate, dict):
        named = {str(k): v for k, v in candidate.items()}
    usual = equations.unpack(equations.start())
    numbers = {}
    for p in equations.form.parameters:
        if str(p) not in named:
            raise ValueError(f"no value is given for the unknown number {p}")
        numbers[p] = torch.as_tensor(named[str(p)], dtype=torch.float64)
    return type(usual)({f: torch.from_numpy(v) for f, v in fields.items()}, numbers)


def _judge(
    state: SparseFixedPointState, solver: SparseFixedPoint, env: Env, verify: bool
) -> GraphVerdict:
    if not verify:
        reason = "nobody was asked to judge it"
        return GraphVerdict(Verification(math.nan, reason=reason), None, math.nan, math.nan)
    return judge_on_graph(state.equations, state.newton, tol=env.tol, direct=solver.direct)


def _figures(state: SparseFixedPointState, found: GraphVerdict) -> dict[str, Any]:
    newton = state.newton
    return {
        "linear": "nothing was solved" if newton.inverse is None else newton.inverse.kind,
        "iterations": 0 if newton.inverse is None else newton.inverse.iterations,
        "unknowns": state.equations.n,
        "nonzeros": len(state.equations.rows),
        "relative_residual": found.relative_residual,
        "backward_error": found.backward_error,
    }


def _bounds(equations: GraphEquations, bound: np.ndarray | None) -> dict[str, np.ndarray] | None:
    if bound is None:
        return None
    result = {}
    for f, span in equations.spans().items():
        everywhere = np.zeros(equations.graph.n_nodes)
        everywhere[~equations.binding.fixed[f]] = bound[span]
        result[str(f)] = everywhere
    return result


def _fingerprint(problem: Any) -> str:
    """A hash of what is being solved; equal problems have equal ones in every process."""
    graph = problem.graph
    digest = hashlib.sha256(repr(problem).encode())
    digest.update(np.ascontiguousarray(graph.edges).tobytes())
    for part in (graph.node, graph.edge):
        for name, array in part.items():
            digest.update(name.encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _resume(source: Any, state: SparseFixedPointState, name: str, solver: Any, env: Env) -> History:
    if isinstance(source, GraphSolution):
        if source.snapshot is None:
            raise ValueError("this solution does not hold the state of its solve")
        theirs, method = _fingerprint(source.problem.system), solver_name(source.solver)
        snapshot, history = source.snapshot, History.from_state(source.history.to_state())
    elif isinstance(source, (str, PathLike)):
        record, tensors = read_archive(source, kind=CHECKPOINT, device=env.device)
        theirs, method = str(record["problem"]), str(record["solver"])
        snapshot = Snapshot(int(record["step"]), tensors["state"], tensors["generator"].cpu())
        history = History.from_state(record["history"])
    else:
        raise TypeError(f"resume={source!r} must be a GraphSolution or the path of a checkpoint")
    if method != type(solver).__name__:
        raise ValueError(f"resume= was written by {method}, not by {type(solver).__name__}")
    if theirs != name:
        raise ValueError("resume= belongs to another problem; use warm_start= to start near it")
    state.load_state_dict(plain_copy(snapshot.state, "state"))
    return history
