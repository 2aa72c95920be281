"""Learn an operator on graphs, and judge it on graphs that training never saw.

In    a declaration, a `ConvergentGraphSolver`, data, the common knobs.
Out   a `GraphOperator`.
Next  `pinnkit.driver.solve` calls this for graphs with `data=`.

`ok` means: the stated quantile of the relative L2 errors on held-out graphs, against the exact solver, is
below the tolerance. With given targets there is no ground truth beyond the data, and `ok` is None.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from pinnkit.errors import Evidence, Status
from pinnkit.graphs.baselines import count_parameters
from pinnkit.solution.estimate import Stats
from pinnkit.solution.graph_operator import GraphOperator, predict_batch
from pinnkit.solution.held_out import FEWEST_JUDGED, HeldOut, operator_status, quantile_of
from pinnkit.solution.resume import Checkpointing, read_operator_resume, take_snapshot
from pinnkit.solution.summary import peak_memory
from pinnkit.solution.verification import DEFAULT_TOL
from pinnkit.solvers.base import Env
from pinnkit.solvers.convergent_graph_solver import ConvergentGraphSolver
from pinnkit.solvers.graph_training import GraphTask, LearningState
from pinnkit.train.callbacks import History, Progress
from pinnkit.train.iteration import Callback, Iteration, iterate
from pinnkit.train.session import run

__all__ = ["learn"]

TOGETHER = 64  # graphs predicted at once


def learn(
    problem: Any,
    solver: ConvergentGraphSolver,
    env: Env,
    *,
    data: Any,
    callback: Callback | None = None,
    show: Progress | None = None,
    checkpoint: Checkpointing | None = None,
    resume: Any = None,
    verify: bool = True,
) -> GraphOperator:
    """The trained operator with its verdict.

    Args:
        problem: A `GraphSystem`, a `GraphTarget`, or a problem class of one.
        solver: The method.
        env: Device, precision, seed, limits.
        data: A list of graphs, or a function seed -> list of graphs that draws new ones.
        callback, show, checkpoint, resume, verify: As in `pinnkit.solve`.
    """
    started = time.perf_counter()
    task = GraphTask.make(problem.system, solver, data)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(env.seed % 2**63)
        state = solver.init(task, env)
        history = History()
        if resume is not None:
            name = type(solver).__name__
            resumed = read_operator_resume(resume, _name(problem), name, device=env.device)
            history = resumed.restore(state, env.generator)
        loop = iterate(
            solver,
            task,
            state,
            max_steps=env.max_steps,
            time_limit=env.time_limit,
            started=started,
        )
        _run(loop, history, callback, show, checkpoint, _name(problem), env)
    seconds = time.perf_counter() - started
    stopped_by = loop.stopped_by or Status.INTERRUPTED
    held = _judge(state, env.tol or DEFAULT_TOL, verify)
    return GraphOperator(
        problem=problem,
        form=task.form,
        solver=solver,
        module=state.module.eval(),
        plan=state.plan,
        arguments=None if solver.network is not None else state.arguments,
        held_out=held,
        status=operator_status(stopped_by, held, given=task.target is not None, verified=verify),
        history=history,
        stats=Stats(
            seconds=seconds,
            steps=state.step,
            parameters=count_parameters(state.module),
            points=len(state.training),
            peak_memory=peak_memory(env.device),
            stopped_by=stopped_by,
            verification_seconds=time.perf_counter() - started - seconds,
        ),
        snapshot=take_snapshot(state, env.generator, {}),
        device=env.device,
        dtype=env.dtype,
    )


def _run(
    loop: Iteration,
    history: History,
    callback: Callback | None,
    show: Progress | None,
    checkpoint: Checkpointing | None,
    name: str,
    env: Env,
) -> None:
    def save() -> None:
        if checkpoint is not None:
            snapshot = take_snapshot(loop.state, env.generator, {})
            checkpoint.write(snapshot, history, name, ConvergentGraphSolver.__name__)

    every = 1 if checkpoint is None else checkpoint.every
    run(loop, history, show=show, callback=callback, save=save, every=every)


def _judge(state: LearningState, tol: float, verify: bool) -> HeldOut:
    """Errors on the held-out graphs and the quantile of them."""
    solver, target = state.solver, state.task.target
    errors = held_out_errors(state) if verify else np.zeros(0)
    evidence = Evidence.NONE if target is not None else Evidence.REFERENCE
    if len(errors) == 0:
        reason = "no graph was held out" if verify else "nobody was asked to judge it"
        return HeldOut(errors, solver.quantile, np.nan, tol, Evidence.NONE, reason)
    error = quantile_of(errors, solver.quantile)
    if target is not None:
        reason = f"{target} is given by data, and these are all that is known of it"
    elif len(errors) < FEWEST_JUDGED:
        reason = (
            f"{len(errors)} held-out graphs are too few for a quantile; {FEWEST_JUDGED} are needed"
        )
    else:
        reason = "the exact solver gives other values" if not error <= tol else ""
    return HeldOut(errors, solver.quantile, error, tol, evidence, reason)


def held_out_errors(state: LearningState) -> np.ndarray:
    """Per graph the relative L2 error, the largest over the columns; for classes the share of wrong rows."""
    found: list[float] = []
    for start in range(0, len(state.judged), TOGETHER):
        batch = state.batch_of(state.judged[start : start + TOGETHER])
        y, _ = predict_batch(state.module, state.plan, batch)
        assert batch.targets is not None
        if state.plan.classes:
            wrong = (y.argmax(1) != batch.targets).double()[:, None]
            off, size = wrong, torch.ones_like(wrong)
        else:
            target = batch.targets.double()
            if state.plan.mapped:
                y = (y - batch.offset.double()) / batch.scale.double()
            off, size = (y - target).square(), target.square()
        count = batch.arcs.n_graphs
        sums = [
            torch.zeros(count, v.shape[1], dtype=torch.float64, device=v.device).index_add(
                0, batch.row_graph, v
            )
            for v in (off, size)
        ]
        part = sums[0] / torch.where(sums[1] > 0, sums[1], torch.ones_like(sums[1]))
        part = part if state.plan.classes else part.sqrt()
        found += part.amax(1).tolist()
    return np.array(found)


def _name(problem: Any) -> str:
    return repr(problem.system)
