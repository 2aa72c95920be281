"""Learn a family's operator, and judge it on draws that training never saw.

In    a `PDEFamily`, a solver of families, the common knobs.
Out   a `FamilyOperator`.
Next  `pinnkit.driver.solve` calls this for families.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

import numpy as np

from pinnkit.declare.family import PDEFamily
from pinnkit.errors import Evidence, SolveError, Status
from pinnkit.solution.estimate import Stats
from pinnkit.solution.held_out import HeldOut, operator_status
from pinnkit.solution.operator import FamilyOperator, held_out_draws, judge_draws
from pinnkit.solution.resume import Checkpointing, read_operator_resume, take_snapshot
from pinnkit.solution.summary import peak_memory
from pinnkit.solution.verification import DEFAULT_TOL
from pinnkit.solvers.base import Env
from pinnkit.solvers.hard_constraint_moe import HardConstraintMoE
from pinnkit.train.callbacks import History, Progress
from pinnkit.train.iteration import Callback, iterate
from pinnkit.train.session import run

__all__ = ["learn_family"]

SHARE = 0.25  # of time_limit, for judging


def learn_family(
    problem: Any,
    solver: HardConstraintMoE,
    env: Env,
    *,
    callback: Callback | None = None,
    show: Progress | None = None,
    checkpoint: Checkpointing | None = None,
    resume: Any = None,
    verify: bool = True,
    throw: bool = False,
) -> Any:
    """The `FamilyOperator` with its verdict.

    Args:
        problem: A `PDEFamily`, or a problem class of one.
        solver: The method.
        env: Device, precision, seed, limits.
        callback, show, checkpoint, resume, verify, throw: As in `pinnkit.solve`.
    """
    started = time.perf_counter()
    family = problem if isinstance(problem, PDEFamily) else problem.system
    solver, chosen = solver.settled(family, env)
    state = solver.init(family, env)
    history = History()
    if resume is not None:
        name = type(solver).__name__
        resumed = read_operator_resume(resume, repr(family), name, device=env.device)
        history = resumed.restore(state, env.generator)
    loop = iterate(
        solver, family, state,
        max_steps=env.max_steps, time_limit=env.time_limit, started=started, ranks=env.ranks,
    )  # fmt: skip

    def save() -> None:
        if checkpoint is not None:
            snapshot = take_snapshot(state, env.generator, {})
            checkpoint.write(snapshot, history, repr(family), type(solver).__name__)

    every = 1 if checkpoint is None else checkpoint.every
    run(loop, history, show=show, callback=callback, save=save, every=every, ranks=env.ranks)
    stopped_by = loop.stopped_by or Status.INTERRUPTED
    model = solver.finish(family, state)
    seconds = time.perf_counter() - started
    tol = DEFAULT_TOL if env.tol is None else env.tol
    held = HeldOut(
        np.zeros(0), solver.quantile, math.nan, tol, Evidence.NONE, "nobody was asked to judge it"
    )
    if not env.ranks.first:
        held = replace(held, reason="rank 0 judges it")
    elif verify and stopped_by is not Status.INTERRUPTED:
        held = judge_draws(
            family,
            model,
            held_out_draws(family, solver.judged, env.seed),
            quantile=solver.quantile,
            tol=tol,
            time_limit=None if env.time_limit is None else SHARE * env.time_limit,
            device=env.device,
            dtype=env.dtype,
        )
    op: Any = FamilyOperator(
        problem=problem,
        solver=solver,
        model=model,
        held_out=held,
        status=operator_status(stopped_by, held, verified=verify),
        history=history,
        stats=Stats(
            seconds=seconds,
            steps=state.step,
            parameters=state.parameters,
            points=len(state.parts.points),
            peak_memory=peak_memory(env.device),
            stopped_by=stopped_by,
            verification_seconds=time.perf_counter() - started - seconds,
            more={"knobs": chosen} if chosen else {},
        ),
        snapshot=take_snapshot(state, env.generator, {}),
        device=env.device,
        dtype=env.dtype,
    )
    if show is not None:
        show.say(f"step {state.step}: {op!r}")
        show.close()
    if throw and not op.ok and env.ranks.first:
        raise SolveError(op.status, op)
    return op
