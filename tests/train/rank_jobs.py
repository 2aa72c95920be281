"""What the processes of `test_ranks` do; importable, because they start from nothing."""

from __future__ import annotations

import functools
import multiprocessing
import os
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sympy as sp
import torch

import pinnkit as pk
from pinnkit.solvers.base import Env
from pinnkit.train import (
    LBFGS,
    SOAP,
    AbstractOptimiser,
    Adam,
    GaussNewton,
    NysNewtonCG,
    SelfScaledBroyden,
    rank_watch,
)
from pinnkit.train.ranks import RankError, Ranks, join_ranks

Job = Callable[[Ranks], Any]
# Forked from a process that has imported everything and computed nothing: spawning takes seconds.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["pinnkit.driver", "tests.train.rank_jobs"])


def run_ranks(size: int, job: Job, folder: Path, seconds: float = 240.0) -> list[Any]:
    """What `job(ranks)` returned on every rank, or the exception it ended with; its exit code if killed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    files = [folder / f"{job.__name__}-{size}-{rank}.pt" for rank in range(size)]
    processes = [
        FORKS.Process(target=_work, args=(rank, size, port, job, files[rank]))
        for rank in range(size)
    ]
    for p in processes:
        p.start()
    for p in processes:
        p.join(seconds)
        if p.is_alive():
            p.kill()
            p.join()
    return [
        torch.load(f, weights_only=False) if f.exists() else p.exitcode
        for f, p in zip(files, processes, strict=True)
    ]


def _work(rank: int, size: int, port: int, job: Job, file: Path) -> None:
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(rank),
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), FOLDER=str(file.parent),
    )  # fmt: skip
    rank_watch.BEAT = 0.3
    try:
        with join_ranks() as ranks:
            found = job(ranks)
    except (RankError, ValueError, NotImplementedError) as fault:
        found = fault
    torch.save(found, file)


# --- models without a problem -------------------------------------------------------------------


class Curve:
    """r_i = w_i (tanh(a_i . theta) - b_i): n rows shared out, the weights those of all of them."""

    def __init__(self, ranks: Ranks, n: int, p: int = 7) -> None:
        gen = torch.Generator().manual_seed(0)
        a = torch.randn(n, p, generator=gen, dtype=torch.float64)
        b = torch.tanh(a @ torch.randn(p, generator=gen, dtype=torch.float64))
        mine = ranks.share(n)
        self.ranks, self.a, self.b, self.weight = ranks, a[mine], b[mine], n**-0.5
        self.shapes: list[tuple[int, ...]] = [(p,)]

    def residual(self, theta: torch.Tensor) -> torch.Tensor:
        return self.weight * (torch.tanh(self.a @ theta) - self.b)

    def rows(self, theta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        slope = 1 - torch.tanh(self.a @ theta).square()
        return self.residual(theta), self.weight * slope[:, None] * self.a

    def gradient(self, theta: torch.Tensor) -> tuple[float, torch.Tensor]:
        r, rows = self.rows(theta)
        both = self.ranks.sum(torch.cat([2 * rows.T @ r, (r @ r)[None]]))
        return float(both[-1]), both[:-1]


METHODS: dict[str, AbstractOptimiser] = {
    "parameters": GaussNewton(space="parameters"),
    "samples": GaussNewton(space="samples"),
    "rows": GaussNewton(space="rows"),
    "auto": GaussNewton(),
    "sketched": GaussNewton(sketch=3),
    "NNCG": NysNewtonCG(rank=3, refresh=2),
    "NNCG, Hessian": NysNewtonCG(rank=3, refresh=2, curvature="hessian"),
    "LBFGS": LBFGS(),
    "SelfScaledBroyden": SelfScaledBroyden(),
    "SOAP": SOAP(lr=1e-2),
    "Adam": Adam(lr=1e-2),
}
ROWS = (3, 40)  # fewer than four ranks, more than parameters


def methods(ranks: Ranks) -> dict[tuple[str, int], torch.Tensor]:
    """theta after five steps of every method."""
    found = {}
    for name, method in METHODS.items():
        for n in ROWS:
            memory = method.init(torch.zeros(7, dtype=torch.float64))
            for _ in range(5):
                method.step(Curve(ranks, n), memory)
            found[name, n] = memory["theta"]
    return found


def exchanges(ranks: Ranks) -> dict[str, Any]:
    """Every method of `Ranks` itself."""
    mine = torch.arange(10.0)[ranks.share(10)]
    few = torch.arange(3)[ranks.share(3), None]  # nothing for some of four ranks
    try:
        ranks.check_equal(torch.tensor([1.0, float(ranks.rank == 1)]), "these numbers")
        odd = ""
    except RankError as fault:
        odd = str(fault)
    ranks.check_equal(torch.tensor([1.0, torch.nan]), "equal numbers")
    return {
        "whole": ranks.gather(mine),
        "few": ranks.gather(few),
        "sum": ranks.sum(mine.sum()),
        "same": ranks.same(ranks.rank + 0.1),
        "odd": odd,
    }


# --- CausalPINN -----------------------------------------------------------------------------------


@functools.cache
def burgers() -> pk.PDESystem:
    """u_t + u u_x = 0.1 u_xx, with a Robin side that no ansatz fulfils by itself."""
    t, x = pk.coords("t x")
    u = pk.field("u", t, x)
    return pk.PDESystem(
        [u.diff(t) + u * u.diff(x) - 0.1 * u.diff(x, 2)],
        pk.Interval(t, 0, 1) * pk.Interval(x, -1, 1),
        [
            pk.Initial(u, -sp.sin(sp.pi * x)),
            pk.Dirichlet(u, 0, on=pk.boundary(x, "left")),
            pk.Robin(u + 0.1 * pk.dn(u), -0.1 * sp.pi * sp.exp(-t), on=pk.boundary(x, "right")),
        ],
    )


def decay() -> pk.PDESystem:
    """y' = -2 y: a window of some Chebyshev points, solved by singular values."""
    t = pk.coords("t")
    y = pk.field("y", t)
    return pk.PDESystem([y.diff(t) + 2 * y], pk.Interval(t, 0, 1), [pk.Initial(y, 1)])


SIZES: dict[str, Any] = {"width": 6, "depth": 2, "probe_every": 5}  # 67 parameters
SOLVERS: dict[str, pk.CausalPINN] = {
    "parameters": pk.CausalPINN(**SIZES, points=150, windows=2, exact=False),
    "samples": pk.CausalPINN(**SIZES, points=24, exact=False),
}


def train(ranks: Ranks, problem: Any, solver: Any, steps: int, **knobs: Any) -> dict[str, Any]:
    """Losses, parameters and the random generator after `steps`."""
    sol = pk.solve(
        problem, solver,
        max_steps=steps, time_limit=None, verify=False, progress=False, ranks=ranks, **knobs,
    )  # fmt: skip
    assert sol.snapshot is not None
    return {
        "loss": torch.tensor(sol.history["loss"], dtype=torch.float64),
        "held_out": torch.tensor(sol.history["held_out"], dtype=torch.float64),
        "theta": sol.snapshot.state["memory"]["theta"],
        "generator": sol.snapshot.generator,
        "points": torch.tensor(sol.stats.points),
    }


def training(ranks: Ranks) -> dict[str, Any]:
    """Twenty steps with more rows than parameters."""
    return train(ranks, burgers(), SOLVERS["parameters"], 20)


def other_trainings(ranks: Ranks) -> dict[str, Any]:
    """Twenty steps where rows are gathered."""
    return {
        "samples": train(ranks, burgers(), SOLVERS["samples"], 20),
        "ode": train(ranks, decay(), pk.CausalPINN(), 20),
    }


def first_step(ranks: Ranks) -> dict[str, torch.Tensor]:
    """Causal means, gradient, J^T J and J^T r of the first batch, and how many rows this rank has."""
    env = Env(torch.device("cpu"), torch.float64, torch.Generator().manual_seed(0), 0, ranks=ranks)
    state = SOLVERS["parameters"].init(burgers(), env)
    state.read_probe()
    state.draw()
    assert state.batch is not None and state.means is not None
    theta = state.memory["theta"]
    loss, gradient = state.batch.gradient(theta)
    r, rows = state.batch.rows(theta)
    return {
        "means": state.means,
        "loss": torch.tensor(loss),
        "gradient": gradient,
        "jtj": ranks.sum(rows.T @ rows),
        "jtr": ranks.sum(rows.T @ r),
        "rows": torch.tensor(len(r)),
    }


# --- HardConstraintMoE ----------------------------------------------------------------------------


@functools.cache
def family() -> pk.PDEFamily:
    """u_t = u_xx / 10 - u^3 from u0 sin(pi x), with a Robin side that no ansatz fulfils by itself."""
    t, x = pk.coords("t x")
    u, u0 = pk.field("u", t, x), pk.given("u0")
    system = pk.PDESystem(
        [u.diff(t) - u.diff(x, 2) / 10 + u**3],
        pk.Interval(t, 0, 1) * pk.Interval(x, 0, 1),
        [
            pk.Initial(u, u0 * sp.sin(sp.pi * x)),
            pk.Dirichlet(u, 0, on=pk.boundary(x, "left")),
            pk.Robin(u + 0.1 * pk.dn(u), -0.1 * sp.pi * u0, on=pk.boundary(x, "right")),
        ],
    )
    return pk.PDEFamily(system, {u0: pk.Uniform(0.5, 1.0)})


# Three draws: shares of 1 and 2 on two ranks, and one rank of four without any. Two rounds of draws.
LEARNER = pk.HardConstraintMoE(
    functions=5, experts=2, width=6, depth=1, times=8, nodes=10, draws=3, renew=10
)


def family_step(ranks: Ranks) -> dict[str, torch.Tensor]:
    """Loss and gradient at the start, and the coefficients of all draws."""
    env = Env(torch.device("cpu"), torch.float64, torch.Generator().manual_seed(0), 0, ranks=ranks)
    state: Any = LEARNER.init(family(), env)
    loss, gradient = state.loss.gradient(state.memory["theta"])
    w = ranks.gather(state.loss.w[: state.loss.own])
    own = torch.tensor(state.loss.own)
    return {"loss": torch.tensor(loss), "gradient": gradient, "w": w, "own": own}


def learn(ranks: Ranks, steps: int, **knobs: Any) -> dict[str, torch.Tensor]:
    """Losses, and what a checkpoint would hold, after `steps`."""
    op = pk.solve(
        family(), LEARNER,
        max_steps=steps, time_limit=None, verify=False, progress=False, ranks=ranks, **knobs,
    )  # fmt: skip
    state = op.snapshot.state
    return {
        "loss": torch.tensor(op.history["defect"], dtype=torch.float64),
        "theta": state["memory"]["theta"],
        "w": state["w"],
        "at": state["at"],
    }


def family_training(ranks: Ranks) -> dict[str, torch.Tensor]:
    """Twenty steps, the last ten on other draws; the checkpoint of the thirteenth is kept."""
    if ranks.size == 1:
        return learn(ranks, 20)
    file = Path(os.environ["FOLDER"]) / f"family-{ranks.size}"

    def keep(info: Any) -> None:
        if info.step == 14 and ranks.first:
            shutil.copy(file, file.with_suffix(".13"))

    return learn(ranks, 20, checkpoint=(file, 13), callback=keep)


def box_training(ranks: Ranks) -> dict[str, torch.Tensor]:
    """Losses and weights of a march on a periodic box, three states a step, the last two on other draws."""
    t, x, y = pk.coords("t x y")
    u, a = pk.field("u", t, x, y), pk.given("a")
    system = pk.PDESystem(
        [u.diff(t) + u * u.diff(x) - pk.laplacian(u) / 20],
        pk.Interval(t, 0, 1) * pk.Box((x, y), (0, 0), (1, 1)),
        [
            pk.Initial(u, a * sp.sin(2 * sp.pi * (x + y))),
            *(pk.Periodic(u, axis) for axis in (x, y)),
        ],
    )
    solver = pk.HardConstraintMoE(
        nodes=8, times=2, stages=2, elements=1, width=4, depth=1, draws=3, renew=4, steps=6
    )
    op = pk.solve(
        pk.PDEFamily(system, {a: pk.Uniform(0.5, 1.0)}), solver,
        time_limit=None, verify=False, progress=False, ranks=ranks,
    )  # fmt: skip
    state = op.snapshot.state
    loss = torch.tensor(op.history["defect"], dtype=torch.float64)
    return {"loss": loss, "theta": state["memory"]["theta"], "pool": state["pool"]}


def everything(ranks: Ranks) -> dict[str, Any]:
    """What follows from a start of the processes."""
    jobs = (exchanges, methods, first_step, training, family_step, family_training, box_training)
    return {job.__name__: job(ranks) for job in jobs}


def killed(ranks: Ranks) -> None:
    """Rank 1 dies in step 12; there is a checkpoint every five steps."""
    file = Path(os.environ["FOLDER"]) / "checkpoint"
    look = _dies_at(12, ranks)
    train(ranks, burgers(), SOLVERS["parameters"], 20, checkpoint=(file, 5), callback=look)


def killed_family(ranks: Ranks) -> None:
    """The same for a family."""
    file = Path(os.environ["FOLDER"]) / "checkpoint"
    learn(ranks, 20, checkpoint=(file, 5), callback=_dies_at(12, ranks))


def _dies_at(step: int, ranks: Ranks) -> Callable[[Any], None]:
    def look(info: Any) -> None:
        if info.step == step and ranks.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    return look


def at_odds(ranks: Ranks) -> None:
    """The ranks were given different seeds."""
    train(ranks, decay(), pk.CausalPINN(width=4, depth=1), 20, seed=ranks.rank)


def failing(ranks: Ranks) -> None:
    """Rank 1 raises while rank 0 waits for it."""
    if ranks.rank == 1:
        raise ValueError("no room left")
    ranks.sum(torch.zeros(1))
