"""Error against time of training variants: what the defaults of CausalPINN were chosen from.

    python benchmarks/race.py                                   Burgers and Allen-Cahn, all variants
    python benchmarks/race.py --case kdv --variant default --variant uniform --seconds 60

The true error is measured by a callback that training does not see.
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
from pinnkit.train import Adam, GaussNewton, SelfScaledBroyden

CASES = {
    "burgers": problems.Burgers,
    "allen-cahn": problems.AllenCahn,
    "allen-cahn-smooth": problems.AllenCahnSmooth,
    "kdv": problems.KdV,
    "heat": problems.Heat1D,
    "wave": lambda: problems.Wave(k=2),
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


def run(case: str, variant: str, seconds: float, seed: int, data: pathlib.Path | None) -> list[str]:
    """Errors at four times of one run."""
    problem = CASES[case]()
    truth = common.truth_of(problem, data)
    assert truth is not None
    started, paused, marks, errors = time.perf_counter(), 0.0, [0.25, 0.5, 0.75], []
    solver = CausalPINN(**VARIANTS[variant])
    steps = 0

    def look(info: Any) -> bool:
        nonlocal paused, steps
        steps = info.step
        now = time.perf_counter()
        spent = now - started - paused
        if marks and spent > marks[0] * seconds:
            marks.pop(0)
            answer = solver.finish(problem.system, info.state)
            errors.append(f"{common.error_of(as_callable(problem, answer), truth):.1e}")
            paused += time.perf_counter() - now
        return spent > seconds

    sol = problem.solve(solver, time_limit=None, seed=seed, callback=look, verify=False)
    errors.append(f"{common.error_of(sol, truth):.1e}")
    return [case, variant, str(steps), *[""] * (4 - len(errors)), *errors]


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--case", action="append", choices=sorted(CASES))
    parser.add_argument("--variant", action="append", choices=sorted(VARIANTS))
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=pathlib.Path, default=None, help="folder of reference files")
    args = parser.parse_args()
    rows = []
    with common.measured("Training variants, error against time"):
        for case in args.case or ["burgers", "allen-cahn"]:
            for variant in args.variant or VARIANTS:
                rows.append(run(case, variant, args.seconds, args.seed, args.data))
                print(*rows[-1], flush=True)
        quarters = [f"{f * args.seconds:g} s" for f in (0.25, 0.5, 0.75, 1.0)]
        common.print_table(["case", "variant", "steps", *quarters], rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
