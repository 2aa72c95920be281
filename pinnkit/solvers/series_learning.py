"""Learning from series: the loop around `NeuralSDE`, and what it ends with.

In    an `SDESystem`, a solver, the common knobs of `solve`.
Out   a `SeriesSolution`.
Next  `pinnkit.driver.solve` calls it.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import torch

from pinnkit.declare.series_target import SeriesTarget
from pinnkit.errors import SolveError, Status, UnsupportedProblemError
from pinnkit.ir.stochastic_form import StochasticForm
from pinnkit.ir.stochastic_tree import series_fingerprint
from pinnkit.solution.estimate import Stats
from pinnkit.solution.resume import Checkpointing, read_series_resume, take_snapshot
from pinnkit.solution.series_solution import SeriesSolution
from pinnkit.solution.solution import Snapshot
from pinnkit.solution.summary import peak_memory
from pinnkit.solvers.base import AbstractSolver, Env
from pinnkit.solvers.neural_sde import NeuralSDE
from pinnkit.train.callbacks import History, Progress
from pinnkit.train.iteration import Callback, iterate
from pinnkit.train.session import run

__all__ = ["choose_for_series", "is_stochastic", "learn_series"]

logger = logging.getLogger(__name__)


def is_stochastic(problem: Any) -> bool:
    """Whether `learn_series` is what solves it."""
    return isinstance(getattr(problem, "normal_form", None), (StochasticForm, SeriesTarget))


def choose_for_series() -> tuple[AbstractSolver, str]:
    """(solver, why)."""
    return NeuralSDE(), "NeuralSDE(): stochastic equations, to be learned from series."


def learn_series(
    problem: Any,
    solver: Any,
    env: Env,
    callback: Callback | None = None,
    show: Progress | None = None,
    throw: bool = False,
    unused: dict[str, Any] | None = None,
    *,
    saving: Checkpointing | None = None,
    resume: Any = None,
    load: Any = None,
) -> SeriesSolution:
    """The trained model.

    Args:
        problem: An `SDESystem` or a problem class of one.
        solver: The method.
        env: Device, precision, seed, limits.
        callback, show, throw: As in `pinnkit.solve`.
        unused: Knobs of `solve` that mean nothing here, refused unless None.
        saving: Where and how often checkpoints are written.
        resume: A `SeriesSolution`, a checkpoint or a saved solution to go on from, exactly.
        load: Reads a saved solution.
    """
    system = problem.system
    for name, value in (unused or {}).items():
        if value is not None:
            raise UnsupportedProblemError(
                f"{name}= is not supported for an SDESystem; leave it out"
            )
    if not isinstance(solver, NeuralSDE):
        raise UnsupportedProblemError(
            f"{type(solver).__name__} does not solve an SDESystem. Use NeuralSDE()."
        )
    why = solver.supports(system)
    if why is not None:
        raise UnsupportedProblemError(why)
    name, problem_hash = type(solver).__name__, series_fingerprint(system)
    resumed = None
    if resume is not None:
        resumed = read_series_resume(resume, problem_hash, name, load=load, device=env.device)
    started = time.perf_counter()
    # The global generator is put back afterwards; inside it is seeded for users' own modules.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(env.seed % 2**63)
        state, history = solver.init(system, env), History()
        if resumed is not None:
            history = resumed.restore(state, env.generator)

        def snapshot() -> Snapshot:
            return take_snapshot(state, env.generator, {"problem": problem_hash})

        def save() -> None:
            if saving is not None:
                saving.write(snapshot(), history, problem_hash, name)

        loop = iterate(
            solver,
            system,
            state,
            max_steps=env.max_steps,
            time_limit=env.time_limit,
            started=started,
        )
        every = 1 if saving is None else saving.every
        run(loop, history, show=show, callback=callback, save=save, every=every)
        module = solver.finish(system, state)
    stopped_by = loop.stopped_by or Status.INTERRUPTED
    kept = (Status.DIVERGED, Status.INTERRUPTED)
    solution = SeriesSolution(
        problem=problem,
        solver=solver,
        module=module,
        status=stopped_by if stopped_by in kept else Status.NO_GROUND_TRUTH,
        history=history,
        stats=Stats(
            seconds=time.perf_counter() - started,
            steps=state.step,
            parameters=sum(p.numel() for p in module.parameters()),
            points=len(state.training),
            peak_memory=peak_memory(env.device),
            stopped_by=stopped_by,
            more={"epochs": state.epoch, "validation": state.lowest},
        ),
        seed=env.seed,
        samples=solver.samples,
        device=env.device,
        dtype=env.dtype,
        snapshot=snapshot(),
    )
    if show is not None:
        show.say(f"step {state.step}: {solution!r}")
        show.close()
    logger.info("%r", solution)
    if throw and solution.ok is False:
        raise SolveError(solution.status, solution)  # type: ignore[arg-type]
    return solution
