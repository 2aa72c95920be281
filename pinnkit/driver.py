"""solve, choose_solver, load, verify: one implementation behind `problem.solve` and `pk.solve`.

In    a problem, a solver, the common knobs.
Out   a `Solution` whose status follows the rules of `_final_status` and nothing else.
Next  `pinnkit.cli`, and the user.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from os import PathLike
from typing import Any

import torch

from pinnkit.choosing import choose_solver, is_on_graph, system_of
from pinnkit.declare.graph_system import GraphProblem
from pinnkit.errors import SolveError, Status, UnsupportedProblemError
from pinnkit.ir.normal_form import NormalForm
from pinnkit.solution import files, graph_files, graph_operator_files, operator_files, series_files
from pinnkit.solution.answer import Answer
from pinnkit.solution.candidates import make_candidate
from pinnkit.solution.estimate import Estimate, Stats
from pinnkit.solution.graph_layer import GraphLayer
from pinnkit.solution.resume import Checkpointing, Resumed, fingerprint, read_resume, take_snapshot
from pinnkit.solution.solution import Solution, as_candidate, candidate_of
from pinnkit.solution.status import final_status
from pinnkit.solution.stopping import ErrorWatch
from pinnkit.solution.summary import peak_memory
from pinnkit.solution.verification import Verification, judge
from pinnkit.solvers import (
    CausalPINN,
    ConvergentGraphSolver,
    HardConstraintMoE,
    LagrangianPINN,
    MethodOfLines,
    NeuralODE,
    NeuralSDE,
    SparseFixedPoint,
    SpectralMixtureGP,
)
from pinnkit.solvers.base import AbstractSolver, Env
from pinnkit.solvers.family_learning import learn_family
from pinnkit.solvers.graph_learning import learn
from pinnkit.solvers.graph_solving import residual_of_values, solve_on_graph, verify_on_graph
from pinnkit.solvers.series_learning import is_stochastic, learn_series
from pinnkit.train.callbacks import History, Progress
from pinnkit.train.checkpoint import archive_kind
from pinnkit.train.iteration import Callback, Iteration, StepInfo, iterate
from pinnkit.train.knobs import check_dtype, check_knobs, read_place
from pinnkit.train.ranks import ONE, Ranks
from pinnkit.train.session import run

__all__ = [
    "choose_solver",
    "differentiable_graph",
    "final_status",
    "graph_residual",
    "load",
    "solve",
    "verify",
]

logger = logging.getLogger(__name__)

SOLVERS: tuple[type[AbstractSolver], ...] = (
    CausalPINN,
    LagrangianPINN,
    MethodOfLines,
    SpectralMixtureGP,
    NeuralODE,
    NeuralSDE,
    SparseFixedPoint,
    ConvergentGraphSolver,
    HardConstraintMoE,
)  # known to `load` and the CLI
VERIFICATION_SHARE = 0.25  # of time_limit, after it
VERIFICATION_SECONDS = 75.0  # where there is no time_limit


def solve(
    problem: Any,
    solver: AbstractSolver | None = None,
    *,
    max_steps: int | None = None,
    time_limit: float | None = 300,
    tol: float | None = None,
    seed: int | torch.Generator = 0,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float64,
    callback: Callback | None = None,
    progress: bool | None = None,
    checkpoint: Any = None,
    resume: Any = None,
    warm_start: Any = None,
    verify: bool = True,
    throw: bool = False,
    data: Any = None,
    ranks: Ranks = ONE,
) -> Any:
    """Solve `problem` and say how wrong the answer is.

    Returns a `Solution`; on a graph a `GraphSolution`; with `data=`, and for a family, an operator.

    Args:
        problem: A `PDESystem`, a `GraphSystem` (on a graph, or with `data=`), or an instance of a
            problem class.
        solver: The method with its knobs; None chooses one (`choose_solver`).
        max_steps: Steps in all, those before a `resume` included.
        time_limit: Seconds for training; checking takes at most a quarter of it afterwards.
        tol: Relative error wanted. None trains to stall or limit and judges at 1e-3; a number
            stops once the estimated error is below a third of it, and judges at it.
        seed: An integer, or a CPU generator (which is advanced).
        device: Where tensors live.
        dtype: Their precision.
        callback: Called with a `StepInfo` after each step; True stops.
        progress: Show a progress line; None shows it on terminals only.
        checkpoint: A path, or (path, every) with every in steps.
        resume: A checkpoint's path or a `Solution` to go on from, exactly.
        warm_start: A `Solution` (or its file) of a similar problem to start near; the solver decides how.
        verify: Judge the answer independently; False leaves a network the estimate of the error
            equation (DEFECT), and `MethodOfLines` its own in `sol.stats.more["own_error"]` (UNVERIFIED).
        throw: Raise `SolveError` unless the status is OK.
        data: Graphs to learn from, for `ConvergentGraphSolver`: a list, or a function of a seed.
        ranks: The processes that solve it together, as `pinnkit.train.ranks.join_ranks` gives them. All
            get the answer; rank 0 alone judges it, shows progress and writes the checkpoint.
    """
    check_knobs(max_steps, time_limit, tol)
    check_dtype(dtype)
    if callback is not None and not callable(callback):
        raise TypeError(f"callback={callback!r} is not callable; it is called with a StepInfo")
    if isinstance(warm_start, (str, PathLike)):
        warm_start = load(warm_start)
    on_graph = data is not None or is_on_graph(problem)
    if solver is None and problem is not None:
        solver, reason = choose_solver(problem)
        logger.info("solver: %s", reason)
    stochastic = is_stochastic(problem)  # its solver is checked by learn_series
    system: Any = problem if on_graph else system_of(problem, series=True)
    _check_solver(solver, None if stochastic else system)
    assert solver is not None  # _check_solver has refused anything else
    _check_ranks(solver, ranks)
    saving = Checkpointing.of(checkpoint)
    place, generator = read_place(ranks.place(device), seed)
    started = time.perf_counter()
    env = Env(
        device=place,
        dtype=dtype,
        generator=generator,
        seed=generator.initial_seed(),
        tol=tol,
        time_limit=time_limit,
        warm_start=warm_start,
        max_steps=max_steps,
        ranks=ranks,
    )
    progress = progress if ranks.first else False
    if on_graph:
        show = _progress(progress, time_limit)
        knobs = {"callback": callback, "show": show, "checkpoint": saving}
        return _solve_on_graphs(
            problem, solver, env, data, throw, resume=resume, verify=verify, **knobs
        )
    if isinstance(solver, HardConstraintMoE):
        show = _progress(progress, time_limit)
        knobs = {"callback": callback, "show": show, "checkpoint": saving}
        return learn_family(
            problem, solver, env, resume=resume, verify=verify, throw=throw, **knobs
        )
    if stochastic:
        show = _progress(progress, time_limit)
        unused = {"warm_start": warm_start}
        return learn_series(
            problem, solver, env, callback, show, throw, unused,
            saving=saving, resume=resume, load=load,
        )  # fmt: skip
    nf: NormalForm = system.normal_form
    resumed = None
    if resume is not None:
        resumed = read_resume(resume, nf, type(solver).__name__, load=load, device=place)
    # The global generator is put back afterwards; inside it is seeded for users' own modules.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(env.seed % 2**63)
        state = solver.init(system, env)
        history, watch = History(), ErrorWatch(nf, tol)
        if resumed is not None:
            history = _restore(resumed, state, generator, watch)
        loop = iterate(
            solver, system, state,
            max_steps=max_steps, time_limit=time_limit, started=started, ranks=ranks,
        )  # fmt: skip
        show = _progress(progress, time_limit)
        pressed = _train(
            loop, solver, system, generator, history, watch, saving, callback, show, ranks
        )
        answer = solver.finish(system, state)
    snapshot = take_snapshot(state, generator, watch.to_state())
    seconds = time.perf_counter() - started
    stopped_by = loop.stopped_by or Status.INTERRUPTED
    if show is not None:
        show.say(f"step {state.step}: {stopped_by.name} after {seconds:.1f} s; checking the error")
    parameters = {p: Estimate(*pair) for p, pair in answer.parameters.items()}
    if pressed:
        verdict = Verification(math.nan, reason="it was interrupted before the error was checked")
    elif not ranks.first:
        verdict = Verification(math.nan, reason="rank 0 checks the error")
    else:
        verdict, stopped_by = _judge(
            nf, answer, place, dtype, parameters, stopped_by, tol, time_limit, verify
        )
    solution = Solution(
        problem=problem,
        normal_form=nf,
        solver=solver,
        approximation=answer.approximation,
        status=final_status(stopped_by, verdict, verify, learned=bool(nf.neurals)),
        verification=verdict,
        parameters=parameters,
        history=history,
        stats=Stats(
            seconds=seconds,
            steps=state.step,
            parameters=_count(answer, "parameters"),
            points=_count(answer, "points"),
            peak_memory=peak_memory(place),
            stopped_by=stopped_by,
            verification_seconds=verdict.seconds,
            more={k: v for k, v in answer.stats.items() if k not in ("parameters", "points")},
        ),
        snapshot=snapshot,
        device=place,
        dtype=dtype,
    )
    if show is not None:
        show.say(f"step {state.step}: {solution!r}")
        show.close()
    logger.info("%r", solution)
    if throw and solution.ok is False and ranks.first:
        raise SolveError(solution.status, solution)
    return solution


def load(path: str | PathLike[str]) -> Any:
    """Read a solution saved by `sol.save(path)`. Nothing in the file is executed."""
    parts = (graph_files, graph_operator_files, operator_files, series_files)
    readers: dict[str | None, Any] = {part.FORMAT: part.load for part in parts}
    read = readers.get(archive_kind(path), files.load)
    return read(path, {s.__name__: s for s in SOLVERS})


def verify(
    problem: Any, candidate: Any, *, tol: float | None = None, time_limit: float = 75.0
) -> Verification:
    """Judge anyone's answer to `problem` independently.

    Args:
        problem: A `PDESystem`, a `GraphSystem` on a graph, or an instance of a problem class.
        candidate: sympy expression, {field: expression or callable}, callable(**coords),
            nn.Module (points (n, d) to real fields (n, m)), Solution, or xarray object; on a graph
            {field: values (N,)} or values of the only field.
        tol: Relative error to judge at (None: 1e-3).
        time_limit: Seconds for the independent solve.
    """
    check_knobs(None, time_limit, tol)
    if is_on_graph(problem):
        return verify_on_graph(_graph_problem(problem, "pk.verify"), candidate, tol=tol)
    nf: NormalForm = system_of(problem).normal_form
    parameters = {}
    if isinstance(candidate, Solution):
        parameters = {p: e.value for p, e in candidate.parameters.items()}
    return judge(
        nf,
        make_candidate(nf, as_candidate(candidate, nf)),
        tol=tol,
        time_limit=time_limit,
        parameters=parameters,
    )


def graph_residual(problem: Any, candidate: Any) -> dict[str, Any]:
    """Left minus right side of every field's equation at every node (see `GraphProblem.residual`)."""
    return residual_of_values(_graph_problem(problem, "residual"), candidate)


def differentiable_graph(problem: Any, solver: Any = None) -> GraphLayer:
    """The exact solution as a torch function of the features (see `GraphProblem.differentiable`)."""
    solver = solver or SparseFixedPoint()
    if not isinstance(solver, SparseFixedPoint):
        raise TypeError(f"differentiable() takes SparseFixedPoint(...), not {solver!r}")
    return solver.layer(_graph_problem(problem, "differentiable"))


def _graph_problem(problem: Any, door: str) -> GraphProblem:
    system = problem.system
    if not isinstance(system, GraphProblem):
        raise ValueError(f"{door}: the system is not on a graph; write system.on(graph)")
    return system


def _solve_on_graphs(
    problem: Any, solver: AbstractSolver, env: Env, data: Any, throw: bool, **knobs: Any
) -> Any:
    if isinstance(solver, ConvergentGraphSolver):
        if data is None:
            raise ValueError(
                "ConvergentGraphSolver learns from graphs: write "
                "system.solve(ConvergentGraphSolver(), data=[graphs]); system.on(graph).solve() is "
                "exact on one"
            )
        # What is learned is for every graph, not the one at hand.
        on_one = isinstance(problem, GraphProblem)
        found: Any = learn(
            problem.declaration if on_one else problem, solver, env, data=data, **knobs
        )
    elif data is not None or not isinstance(solver, SparseFixedPoint):
        raise ValueError(
            f"data= is for learning, and {type(solver).__name__} does not learn; leave it out, or "
            "pass ConvergentGraphSolver()"
        )
    else:
        found = solve_on_graph(problem, solver, env, **knobs)
    logger.info("%r", found)
    if throw and not found.ok:
        raise SolveError(found.status, found)
    return found


def _train(
    loop: Iteration,
    solver: AbstractSolver,
    system: Any,
    generator: torch.Generator,
    history: History,
    watch: ErrorWatch,
    saving: Checkpointing | None,
    callback: Callback | None,
    show: Progress | None,
    ranks: Ranks,
) -> bool:
    """Run the loop to its end, with looks at the error; True if Ctrl-C ended it."""

    def save() -> None:
        if saving is not None:
            snapshot = take_snapshot(loop.state, generator, watch.to_state())
            saving.write(snapshot, history, fingerprint(system.normal_form), type(solver).__name__)

    def look(info: StepInfo) -> None:
        if loop.stopped_by is not None or not watch.applies:
            return
        complete = solver.complete(system, loop.state)
        if ranks.same(watch.due(info.step, loop.seconds, complete=complete)):
            found = solver.finish(system, loop.state)
            error = math.nan
            if ranks.first:
                error = watch.look(found.approximation, info.step, loop.seconds, loop.left)
            error = ranks.same(error)
            history.note_estimate(info.step, loop.seconds, error)
            if watch.reached(error):
                loop.stop(Status.OK)

    return run(
        loop,
        history,
        show=show,
        callback=callback,
        look=look,
        save=save,
        every=1 if saving is None else saving.every,
        ranks=ranks,
    )


def _judge(
    nf: NormalForm,
    answer: Answer,
    device: torch.device,
    dtype: torch.dtype,
    parameters: dict[Any, Estimate],
    stopped_by: Status,
    tol: float | None,
    time_limit: float | None,
    independent: bool,
) -> tuple[Verification, Status]:
    """The verdict, and the reason why the solve stopped (an answer that is not finite diverged)."""
    if nf.neurals:
        names = ", ".join(map(str, nf.neurals))
        reason = f"{names} is learned from the observations, and nothing independent knows it"
        return Verification(math.nan, reason=reason), stopped_by
    seconds = VERIFICATION_SECONDS if time_limit is None else VERIFICATION_SHARE * time_limit
    try:
        verdict = judge(
            nf,
            candidate_of(nf, answer.approximation, device, dtype),
            tol=tol,
            time_limit=seconds,
            independent=independent,
            parameters={p: e.value for p, e in parameters.items()},
        )
    except KeyboardInterrupt:
        # Training is done: the answer is worth more than the verdict.
        reason = "it was interrupted while the error was being checked"
        return Verification(math.nan, reason=reason), Status.INTERRUPTED
    if math.isinf(verdict.error) and stopped_by is not Status.SHOCK:  # no values after a shock
        return verdict, Status.DIVERGED
    return verdict, stopped_by


def _restore(
    resumed: Resumed, state: Any, generator: torch.Generator, watch: ErrorWatch
) -> History:
    watch.from_state(resumed.snapshot.extra)
    return resumed.restore(state, generator)


def _check_solver(solver: Any, system: Any) -> None:
    if isinstance(solver, type) and issubclass(solver, AbstractSolver):
        raise TypeError(
            f"solver={solver.__name__} is a class; pass an instance: {solver.__name__}()"
        )
    if not isinstance(solver, AbstractSolver):
        raise TypeError(f"solver={solver!r} is no solver; pass for example CausalPINN()")
    if system is not None and (why := solver.supports(system)) is not None:
        raise UnsupportedProblemError(why)


def _check_ranks(solver: AbstractSolver, ranks: Ranks) -> None:
    if ranks.size > 1 and not solver.shards:
        raise UnsupportedProblemError(
            f"{type(solver).__name__} works in one process, and there are {ranks.size}: start it without "
            "torchrun, or use CausalPINN(); solve_many() solves several problems side by side"
        )


def _progress(progress: bool | None, time_limit: float | None) -> Progress | None:
    wanted = sys.stderr.isatty() if progress is None else progress
    return Progress(time_limit=time_limit) if wanted else None


def _count(answer: Answer, name: str) -> int:
    value = answer.stats.get(name, 0)
    return int(value) if isinstance(value, (int, float)) else 0
