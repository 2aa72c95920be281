"""Error against time: variants of training, and a race of the optimisers.

    python benchmarks/race.py                                   Burgers and Allen-Cahn, all variants
    python benchmarks/race.py --case kdv --variant default --variant "uniform points" --seconds 60
    python benchmarks/race.py --optimisers                      four problems, all optimisers
    python benchmarks/race.py --case wave --optimiser SOAP --optimiser L-BFGS --seconds 60 --seed 0 --seed 1

The true error is measured by a callback that training does not see, and whose time does not count.

All optimisers run on the same network, residuals, causal weights and stopping rules for the same
seconds. What is counted in steps or readings is set to what a step costs: Gauss-Newton takes fresh
small batches and reads the probe every 10 steps, quasi-Newton methods keep 3000 points for 200 steps
and read it every 20, first-order methods every 50. There is one window, as the rule that halves a
window counts readings too.
"""

from __future__ import annotations

import argparse
import pathlib
import time
from typing import Any

import _common as common
import numpy as np
import torch

import pinnkit as pk
from pinnkit import problems  # pyright: ignore[reportAttributeAccessIssue]
from pinnkit.solvers import CausalPINN
from pinnkit.train import LBFGS, SOAP, Adam, GaussNewton, NysNewtonCG, SelfScaledBroyden

CASES = {
    "burgers": problems.Burgers,
    "allen-cahn": problems.AllenCahn,
    "allen-cahn-smooth": problems.AllenCahnSmooth,
    "kdv": problems.KdV,
    "heat": problems.Heat1D,
    "wave": lambda: problems.Wave(k=2),
    "poisson-2d": problems.Poisson2D,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "uniform points": {"adaptive": False},
    "no momentum": {"optimiser": GaussNewton(momentum=0.0)},
    "three rows per parameter": {"points": 6000},
    "never more points": {"points": 800, "most_points": 800},
    "conditions x 1000": {"condition_weight": 1000.0},
    "no causality": {"schedule": pk.CausalSchedule(strengths=())},
    "self-scaled Broyden": {"optimiser": SelfScaledBroyden(), "points": 3000},
    "Adam": {"optimiser": Adam(), "points": 2000},
}
SECOND_ORDER: dict[str, Any] = {"windows": 1}
QUASI_NEWTON: dict[str, Any] = {"windows": 1, "points": 3000, "probe_every": 20}
FIRST_ORDER: dict[str, Any] = {"windows": 1, "points": 2000, "probe_every": 50}
OPTIMISERS: dict[str, dict[str, Any]] = {
    "Gauss-Newton": {"optimiser": GaussNewton(), **SECOND_ORDER},
    "Gauss-Newton, sketched": {"optimiser": GaussNewton(sketch=200), **SECOND_ORDER},
    "Newton-CG": {"optimiser": NysNewtonCG(), **SECOND_ORDER},
    "Newton-CG, Hessian": {
        "optimiser": NysNewtonCG(curvature="hessian"), **SECOND_ORDER, "points": 2000,
    },
    "self-scaled Broyden": {"optimiser": SelfScaledBroyden(), **QUASI_NEWTON},
    "L-BFGS": {"optimiser": LBFGS(), **QUASI_NEWTON},
    "SOAP": {"optimiser": SOAP(), **FIRST_ORDER},
    "Adam": {"optimiser": Adam(), **FIRST_ORDER},
}  # fmt: skip
SHARES = (0.125, 0.25, 0.5, 0.75, 1.0)  # of the seconds, at which the error is measured


def as_callable(problem: Any, answer: Any) -> Any:
    """The field of an unfinished answer as a function of the coordinates by name."""
    names = [str(c) for c in problem.coords]

    def field(**at: Any) -> np.ndarray:
        grid = np.broadcast_arrays(*(at[n] for n in names))
        points = torch.tensor(np.stack([g.ravel() for g in grid], 1), dtype=torch.float64)
        with torch.no_grad():
            values = answer.approximation.derivatives(points, [(0, (0,) * len(names))])[0]
        return values.numpy().reshape(grid[0].shape)

    return field


def run(
    case: str,
    settings: dict[str, Any],
    truth: common.Truth,
    seconds: float,
    seed: int,
) -> list[str]:
    """Steps, seconds used, and the errors at `SHARES` of the seconds, of one run."""
    problem, solver = CASES[case](), CausalPINN(**settings)
    started, paused, marks, errors = time.perf_counter(), 0.0, list(SHARES[:-1]), []
    steps, spent = 0, 0.0

    def look(info: Any) -> bool:
        nonlocal paused, steps, spent
        now = time.perf_counter()
        steps, spent = info.step, now - started - paused
        if marks and spent > marks[0] * seconds:
            answer = solver.finish(problem.system, info.state)
            error = f"{common.error_of(as_callable(problem, answer), truth):.1e}"
            while marks and spent > marks[0] * seconds:  # one long step may pass several
                marks.pop(0)
                errors.append(error)
            paused += time.perf_counter() - now
        return spent > seconds

    sol = problem.solve(solver, time_limit=None, seed=seed, callback=look, verify=False)
    last = f"{common.error_of(sol, truth):.1e}"
    # Training that has stalled ends early; its answer is what it would be at all later times.
    return [str(steps), f"{spent:.0f}", *errors, *[last] * (len(SHARES) - len(errors))]


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--case", action="append", choices=sorted(CASES))
    parser.add_argument("--variant", action="append", choices=sorted(VARIANTS))
    parser.add_argument("--optimisers", action="store_true", help="race all of them")
    parser.add_argument("--optimiser", action="append", choices=sorted(OPTIMISERS))
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", action="append", type=int, help="may be repeated (default 0)")
    parser.add_argument("--data", type=pathlib.Path, default=None, help="folder of reference files")
    args = parser.parse_args()
    if (args.optimisers or args.optimiser) and args.variant:
        parser.error("--variant and --optimiser are two different races")
    racing = args.optimisers or args.optimiser
    runners = {
        name: (OPTIMISERS if racing else VARIANTS)[name]
        for name in (args.optimiser or OPTIMISERS if racing else args.variant or VARIANTS)
    }
    cases = args.case or (
        ["burgers", "allen-cahn-smooth", "wave", "poisson-2d"]
        if racing
        else ["burgers", "allen-cahn"]
    )
    title = "Optimisers" if racing else "Training variants"
    rows = []
    with common.measured(f"{title}, error against time"):
        for case in cases:
            truth = common.truth_of(CASES[case](), args.data)
            assert truth is not None
            for name, settings in runners.items():
                for seed in args.seed or [0]:
                    found = run(case, settings, truth, args.seconds, seed)
                    rows.append([case, name, str(seed), *found])
                    print(*rows[-1], flush=True)
        times = [f"{share * args.seconds:g} s" for share in SHARES]
        kind = "optimiser" if racing else "variant"
        common.print_table(["case", kind, "seed", "steps", "ended at", *times], rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
