"""DeepXDE at its best settings and pinnkit, one after the other, same machine, same true solution.

    python benchmarks/peers.py                                     Burgers, Allen-Cahn, convection, wave
    python benchmarks/peers.py --case pulse --case convection-50   the rows of transport
    python benchmarks/peers.py --case burgers --float32 --seeds 0  its example as published
    python benchmarks/peers.py --case wave --nncg 500              Newton-CG after L-BFGS
    python benchmarks/peers.py --pina ENVIRONMENT/bin/python       PINA, too
    python benchmarks/peers.py --steps 200 --polish 100 --time-limit 10      a smoke run

DeepXDE: PyTorch, float64, Adam 1e-3 and then L-BFGS until it stops by itself or at `--peer-limit`.
Points, network and steps are those of the library's own example where there is one (Burgers,
Allen-Cahn, wave); initial, boundary and periodic conditions are hard except where the example has
soft ones (`--conditions` chooses for all). It runs in a process of its own, because importing it may
change process-wide settings. Its time is that of training alone.

pinnkit: defaults, and the time limit it is judged at: a twentieth of DeepXDE's time, or as long. Its time
counts from the call of `solve`. The true error is
measured by a callback that training does not see, at instants growing by a quarter, outside the time
counted. Training ends early where nothing more is asked for. What is asked for:

    Burgers, Allen-Cahn, convection, wave     time to reach DeepXDE's final error: 20 times shorter
    convection-50, pulse                      error after the time DeepXDE took: 100 times lower

The first four run `CausalPINN` and are judged by relative L2 over space and time; the last two run
`LagrangianPINN` and are judged over the norm of u minus its mean.

PINA: with `--pina ENVIRONMENT/bin/python`, an interpreter that has it, the first four problems at the
same settings as DeepXDE, judged in the same way (`_pina.py`).
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _common as common
import _transport as transport
import numpy as np
import torch

SOONER, LOWER = 20.0, 100.0  # what is asked for, in time and in error
FIRST_LOOK, GROWTH = (
    0.25,
    1.25,
)  # seconds of training before the first look; between looks, a factor
AT_A_TIME = 200  # L-BFGS steps between looks at the clock
FOREVER = 1e6  # seconds


@dataclasses.dataclass(frozen=True, kw_only=True)
class Peer:
    """A case as DeepXDE gets it. Its columns are (x, t); `lib` is numpy or torch.

    start: initial values. residual: of (dde, xt, u). second: the equation is second order in time, and
    u_t = 0 at the start. periodic: around the axis, else 0 on both sides. hard: conditions are built
    into the network. points: inside, on the sides, at the start. layers: of the network. steps: Adam's.
    """

    bounds: tuple[float, float]
    start: Callable[[Any, Any], Any]
    residual: Callable[[Any, Any, Any], Any]
    periodic: bool
    hard: bool
    points: tuple[int, int, int]
    layers: tuple[int, ...]
    steps: int = 15000
    second: bool = False


def _burgers(dde: Any, xt: Any, u: Any) -> Any:
    u_x, u_t = (dde.grad.jacobian(u, xt, i=0, j=j) for j in (0, 1))
    return u_t + u * u_x - 0.01 / math.pi * dde.grad.hessian(u, xt, i=0, j=0)


def _allen_cahn(dde: Any, xt: Any, u: Any) -> Any:
    u_t = dde.grad.jacobian(u, xt, i=0, j=1)
    return u_t - 1e-4 * dde.grad.hessian(u, xt, i=0, j=0) - 5 * (u - u**3)


def _convection(dde: Any, xt: Any, u: Any) -> Any:
    u_x, u_t = (dde.grad.jacobian(u, xt, i=0, j=j) for j in (0, 1))
    return u_t + 50 * u_x


def _wave(dde: Any, xt: Any, u: Any) -> Any:
    return dde.grad.hessian(u, xt, i=1, j=1) - 4 * dde.grad.hessian(u, xt, i=0, j=0)


def _pulse(dde: Any, xt: Any, u: Any) -> Any:
    u_x, u_t = (dde.grad.jacobian(u, xt, i=0, j=j) for j in (0, 1))
    diffusion = 2 * math.pi / 1e4 * dde.grad.hessian(u, xt, i=0, j=0)
    return u_t + (1 + 0.5 * torch.sin(xt[:, :1])) * u_x - diffusion


RING = Peer(
    bounds=(0, 2 * math.pi),
    start=lambda lib, x: lib.sin(x),
    residual=_convection,
    periodic=True,
    hard=True,
    points=(8000, 400, 800),
    layers=(50, 50, 50, 50),
)
PEERS = {
    "burgers": Peer(
        bounds=(-1, 1),
        start=lambda lib, x: -lib.sin(math.pi * x),
        residual=_burgers,
        periodic=False,
        hard=False,
        points=(2540, 80, 160),
        layers=(20, 20, 20),
    ),
    "allen-cahn": Peer(
        bounds=(-1, 1),
        start=lambda lib, x: x**2 * lib.cos(math.pi * x),
        residual=_allen_cahn,
        periodic=True,
        hard=True,
        points=(8000, 400, 800),
        layers=(20, 20, 20),
        steps=40000,
    ),
    "convection": RING,
    "wave": Peer(
        bounds=(0, 1),
        start=lambda lib, x: lib.sin(math.pi * x) + 0.5 * lib.sin(4 * math.pi * x),
        residual=_wave,
        periodic=False,
        hard=True,
        points=(3600, 360, 360),
        layers=(100, 100, 100),
        steps=10000,
        second=True,
    ),
    "convection-50": RING,
    "pulse": dataclasses.replace(
        RING,
        start=lambda lib, x: lib.exp(-(((x - math.pi) / 0.3) ** 2)),
        residual=_pulse,
    ),
}
TRANSPORT = ("convection-50", "pulse")


# -- DeepXDE, in the child process -----------------------------------------------------------------


def deepxde_run(args: argparse.Namespace) -> None:
    """Train, and save the values on the judging grid that the parent wrote down."""
    # Without these two DeepXDE would ask for a backend, or refuse under an MPI launcher.
    os.environ["DDE_BACKEND"] = "pytorch"
    os.environ.pop("OMPI_COMM_WORLD_SIZE", None)
    import deepxde

    dde: Any = deepxde  # untyped, and most of it is put together at run time
    peer = PEERS[args.case[0]]
    hard = peer.hard if args.conditions is None else args.conditions == "hard"
    dde.config.set_default_float("float32" if args.float32 else "float64")
    dde.config.set_random_seed(args.seeds[0])
    with np.load(args.child) as f:
        x, t, end = f["x"], f["t"], float(f["end"])
    line, span = dde.geometry.Interval(*peer.bounds), dde.geometry.TimeDomain(0, end)
    domain = dde.geometry.GeometryXTime(line, span)
    inside, sides, start = peer.points
    # Hard conditions need no points of their own.
    data = dde.data.TimePDE(
        domain,
        lambda xt, u: peer.residual(dde, xt, u),
        [] if hard else _soft_conditions(dde, peer, domain),
        num_domain=inside,
        num_boundary=0 if hard else sides,
        num_initial=0 if hard else start,
    )
    net = dde.nn.FNN([3 if hard and peer.periodic else 2, *peer.layers, 1], "tanh", "Glorot normal")
    if hard:
        _build_in(net, peer)
    model = dde.Model(data, net)
    clock = time.perf_counter()

    def left() -> list[Any]:
        minutes = (args.peer_limit - (time.perf_counter() - clock)) / 60
        return [dde.callbacks.Timer(max(minutes, 0.0))] if math.isfinite(minutes) else []

    model.compile("adam", lr=1e-3)
    model.train(iterations=args.steps or peer.steps, display_every=5000, callbacks=left())
    adam = time.perf_counter() - clock
    if args.polish:
        dde.optimizers.config.set_LBFGS_options(maxiter=args.polish)
        # The optimiser keeps its memory between calls; short ones let the clock be looked at.
        per_call = {"iter_per_step": min(AT_A_TIME, args.polish), "fun_per_step": 2 * AT_A_TIME}
        dde.optimizers.config.LBFGS_options.update(per_call)
        model.compile("L-BFGS")
        model.train(display_every=5000, callbacks=left())
    if args.nncg:
        model.compile("NNCG")
        model.train(iterations=args.nncg, display_every=100, callbacks=left())
    seconds = time.perf_counter() - clock
    xs, ts = np.meshgrid(x, t)
    xt = np.stack([xs.ravel(), ts.ravel()], axis=1).astype(dde.config.real(np))
    u = np.asarray(model.predict(xt), dtype=float).reshape(xs.shape)
    np.savez(args.child, u=u, seconds=seconds, adam=adam)


def _soft_conditions(dde: Any, peer: Peer, domain: Any) -> list[Any]:
    conditions = [dde.icbc.IC(domain, lambda xt: peer.start(np, xt[:, :1]), lambda _, on: on)]
    if peer.second:
        conditions.append(
            dde.icbc.OperatorBC(
                domain,
                lambda xt, u, _: dde.grad.jacobian(u, xt, i=0, j=1),
                lambda xt, _: bool(np.isclose(xt[1], 0)),
            )
        )
    if peer.periodic:
        conditions += [
            dde.icbc.PeriodicBC(domain, 0, lambda _, on: on, derivative_order=order)
            for order in (0, 1)
        ]
    else:
        conditions.append(dde.icbc.DirichletBC(domain, lambda xt: 0, lambda _, on: on))
    return conditions


def _build_in(net: Any, peer: Peer) -> None:
    """u = u0 + t^k N, times the distances to both sides if u = 0 there; a ring by its angle."""
    low, high = peer.bounds

    def around(xt: Any) -> Any:
        angle = 2 * math.pi * (xt[:, :1] - low) / (high - low)
        return torch.cat([torch.cos(angle), torch.sin(angle), xt[:, 1:]], 1)

    def conditioned(xt: Any, n: Any) -> Any:
        x, t = xt[:, :1], xt[:, 1:]
        factor = t**2 if peer.second else t
        if not peer.periodic:
            factor = factor * (x - low) * (high - x)
        return peer.start(torch, x) + factor * n

    if peer.periodic:
        net.apply_feature_transform(around)
    net.apply_output_transform(conditioned)


# -- pinnkit, and the comparison -------------------------------------------------------------------


@functools.cache
def our_case(name: str) -> tuple[Any, Any, common.Truth, Callable[[Any, common.Truth], float]]:
    """Problem, solver, true solution, and the norm of the case."""
    import pinnkit as pk
    from pinnkit import problems  # pyright: ignore[reportAttributeAccessIssue]

    made = {
        "burgers": problems.Burgers,
        "allen-cahn": problems.AllenCahn,
        "convection": problems.Convection,
        "wave": lambda: problems.Wave(c=2.0, overtone=4, share=0.5),
        "convection-50": problems.Convection,
        "pulse": lambda: problems.AdvectedPulse(nu=2 * math.pi / 1e4),
    }
    problem = made[name]()
    if name in TRANSPORT:
        found = transport.truth(problem)
        return problem, pk.LagrangianPINN(), found, _fluctuation_error
    found = common.truth_of(problem)
    assert found is not None
    return problem, pk.CausalPINN(), found, common.error_of


def _fluctuation_error(candidate: Any, found: common.Truth) -> float:
    return transport.errors_of(candidate, found)["span"]


def run_peer(name: str, seed: int, args: argparse.Namespace) -> dict[str, float]:
    """Start the child, wait, judge."""
    problem, _, found, error_of = our_case(name)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "values.npz"
        np.savez(target, x=found.axes["x"], t=found.axes["t"], end=problem.T)
        command = [sys.executable, __file__, "--child", str(target), "--case", name]
        command += ["--seeds", str(seed), "--polish", str(args.polish), "--nncg", str(args.nncg)]
        command += ["--peer-limit", str(args.peer_limit)]
        command += ["--float32"] if args.float32 else []
        command += ["--steps", str(args.steps)] if args.steps else []
        command += ["--conditions", args.conditions] if args.conditions else []
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        with np.load(target) as f:
            u, seconds, adam = f["u"], float(f["seconds"]), float(f["adam"])
    return {"error": error_of(lambda **_: u, found), "seconds": seconds, "adam": adam}


def run_pina(name: str, seed: int, args: argparse.Namespace) -> dict[str, float]:
    """The same with PINA, in the environment it was installed in."""
    problem, _, found, error_of = our_case(name)
    peer = PEERS[name]
    hard = peer.hard if args.conditions is None else args.conditions == "hard"
    settings = dataclasses.asdict(dataclasses.replace(peer, hard=hard))
    del settings["start"], settings["residual"]
    settings |= {
        "steps": args.steps or peer.steps,
        "polish": args.polish,
        "seed": seed,
        "case": name,
    }
    limit = args.peer_limit if math.isfinite(args.peer_limit) else FOREVER
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "values.npz"
        axes = {"x": found.axes["x"], "t": found.axes["t"]}
        np.savez(target, **axes, end=problem.T, limit=limit, **settings)
        command = [args.pina, str(Path(__file__).with_name("_pina.py")), str(target)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        with np.load(target) as f:
            u, seconds = f["u"], float(f["seconds"])
    return {"error": error_of(lambda **_: u, found), "seconds": seconds}


class Looks:
    """The callback: the true error at growing instants of training, whose own time is not counted."""

    def __init__(self, case: tuple[Any, ...], enough: Callable[[float, float], bool]) -> None:
        self.problem, self.solver, self.found, self.error_of = case
        self.enough = enough
        self.started, self.paused, self.due = time.perf_counter(), 0.0, FIRST_LOOK
        self.curve: list[tuple[float, float]] = []  # seconds of training, true error

    @property
    def spent(self) -> float:
        """Seconds since the call of `solve`, without the looks."""
        return time.perf_counter() - self.started - self.paused

    def __call__(self, info: Any) -> bool:
        spent = self.spent
        if spent < self.due:
            return False
        from race import as_callable

        began = time.perf_counter()
        # One long step may pass several instants: the next look is due after this one.
        self.due = GROWTH * spent
        answer = self.solver.finish(self.problem.system, info.state)
        error = self.error_of(as_callable(self.problem, answer), self.found)
        self.curve.append((spent, error))
        self.paused += time.perf_counter() - began
        return self.enough(spent, error)


def run_ours(name: str, seed: int, limit: float, peer: dict[str, float]) -> dict[str, Any]:
    """Time to the peer's error and error at the peer's time, from one run."""
    case = our_case(name)
    problem, solver, found, error_of = case
    equal_time = name in TRANSPORT

    def enough(spent: float, error: float) -> bool:
        return spent >= peer["seconds"] if equal_time else error <= peer["error"]

    looks = Looks(case, enough)
    # Windows share the time limit among them: it must be known what the answer is to take.
    limit = min(limit, peer["seconds"] if equal_time else peer["seconds"] / SOONER)
    sol = problem.solve(solver, time_limit=limit, seed=seed, callback=looks, verify=False)
    looks.curve.append((looks.spent, error_of(sol, found)))
    reached = [s for s, e in looks.curve if e <= peer["error"]]
    in_time = [e for s, e in looks.curve if s <= peer["seconds"]]
    return {
        "error": looks.curve[-1][1],
        "seconds": looks.curve[-1][0],
        "reached": min(reached, default=math.inf),
        "in_time": in_time[-1] if in_time else math.inf,
        "status": sol.status.name,
        "curve": looks.curve,
    }


def main() -> int:
    """Both, seed by seed; 1 unless every pair differs by the factor asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--case", action="append", choices=sorted(PEERS), help="default: all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--time-limit", type=float, default=math.inf, help="of pinnkit at most, seconds"
    )
    parser.add_argument("--steps", type=int, default=None, help="Adam steps, else each example's")
    parser.add_argument("--polish", type=int, default=15000, help="L-BFGS steps at most; 0: none")
    parser.add_argument("--nncg", type=int, default=0, help="Nystroem Newton-CG steps at the end")
    parser.add_argument("--peer-limit", type=float, default=math.inf, help="DeepXDE's seconds")
    parser.add_argument("--conditions", choices=("hard", "soft"), default=None)
    parser.add_argument("--float32", action="store_true", help="DeepXDE in its default precision")
    parser.add_argument("--pina", default=None, help="a Python that has PINA, run beside DeepXDE")
    parser.add_argument("--only-pina", action="store_true", help="without DeepXDE")
    parser.add_argument("--out", type=Path, default=None, help="append JSON lines here")
    parser.add_argument("--child", type=Path, default=None, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child is not None:
        deepxde_run(args)
        return 0
    if args.only_pina and args.pina is None:
        parser.error("--only-pina needs --pina")
    rows, met = [], True
    peers = {} if args.only_pina else {"DeepXDE": run_peer}
    with common.measured("pinnkit and its peers"):
        for name, seed in [(n, s) for n in args.case or PEERS for s in args.seeds]:
            further = {"PINA": run_pina} if args.pina and name not in TRANSPORT else {}
            for library, run in (peers | further).items():
                peer = run(name, seed, args)
                ours = run_ours(name, seed, args.time_limit, peer)
                row = {"case": name, "seed": seed, "library": library, "peer": peer}
                common.report({**row, "pinnkit": ours}, args.out)
                sooner, lower = peer["seconds"] / ours["reached"], peer["error"] / ours["in_time"]
                kept = lower >= LOWER if name in TRANSPORT else sooner >= SOONER
                met = met and kept
                found = [peer["error"], peer["seconds"], ours["reached"], sooner]
                found += [ours["in_time"], lower, "yes" if kept else "NO"]
                rows.append([name, seed, library, *found])
        headers = ["problem", "seed", "peer", "its error", "seconds", "pinnkit reaches it in"]
        headers += ["times sooner", "pinnkit's error by then", "times lower", "passed"]
        common.print_table(headers, rows)
    return int(not met)


if __name__ == "__main__":
    sys.exit(main())
