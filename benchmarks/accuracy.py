"""How wrong answers are after a given time, default settings, worst of the seeds.

    python benchmarks/accuracy.py                        all rows
    python benchmarks/accuracy.py --case heat --seeds 0  one of them

Ordinary problems go through `.solve()` with no solver named; Allen-Cahn and Burgers through
`CausalPINN()`. A row passes if the true error of every seed is within the bar and every `sol.ok`.
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import _common as common

import pinnkit as pk
from pinnkit import problems  # pyright: ignore[reportAttributeAccessIssue]


@dataclasses.dataclass(frozen=True)
class Case:
    """A row: the problem, the solver (None: choose), the seconds and the error allowed."""

    problem: Callable[[], Any]
    solver: Callable[[], Any] | None
    seconds: float
    bar: float


CASES = {
    "heat": Case(problems.Heat1D, None, 90, 1e-4),
    "poisson1d": Case(problems.Poisson1D, None, 90, 1e-4),
    "poisson2d": Case(problems.Poisson2D, None, 90, 1e-4),
    "logistic": Case(problems.Logistic, None, 90, 1e-4),
    "wave": Case(lambda: problems.Wave(k=2), None, 90, 1e-4),
    "beam": Case(problems.EulerBernoulliBeam, None, 90, 1e-4),
    "lotka-volterra": Case(problems.LotkaVolterra, None, 90, 1e-4),
    "allen-cahn": Case(problems.AllenCahn, pk.CausalPINN, 180, 1.4e-4),
    "burgers": Case(problems.Burgers, pk.CausalPINN, 180, 1e-3),
}


def run(case: Case, seed: int, seconds: float, data: pathlib.Path | None) -> dict[str, Any]:
    """One solve: its true error, what it says of itself, and the time it took."""
    problem = case.problem()
    solver = None if case.solver is None else case.solver()
    start = time.perf_counter()
    sol = problem.solve(solver, time_limit=seconds, seed=seed)
    spent = time.perf_counter() - start
    truth = common.truth_of(problem, data)
    assert truth is not None, f"no true solution for {problem}"
    return {
        "solver": type(sol.solver).__name__,
        "error": common.error_of(sol, truth),
        "estimate": sol.error_estimate,
        "evidence": sol.evidence.name,
        "ok": sol.ok,
        "steps": sol.stats.steps,
        "seconds": spent,
    }


def main() -> int:
    """Print one line per solve and one table; 1 if a bar is missed."""
    parser = common.make_parser(__doc__, CASES, default="all")
    parser.add_argument("--data", type=pathlib.Path, default=None, help="folder of reference files")
    args = parser.parse_args()

    def solve(name: str, seed: int, seconds: float) -> dict[str, Any]:
        return run(CASES[name], seed, seconds, args.data)

    def tell(name: str, seed: int, row: dict[str, Any]) -> None:
        print(name, f"seed {seed}:", row, flush=True)

    def judge(name: str, seconds: float, runs: list[dict[str, Any]]) -> tuple[list[Any], bool]:
        case, worst = CASES[name], max(runs, key=lambda r: r["error"])
        cells = [
            name,
            worst["solver"],
            f"{seconds:g} s",
            case.bar,
            worst["error"],
            worst["estimate"],
            worst["evidence"],
            f"{sum(r['ok'] for r in runs)}/{len(runs)}",
            max(r["seconds"] for r in runs),
        ]
        return cells, worst["error"] <= case.bar and all(r["ok"] for r in runs)

    headers = ["case", "solver", "time_limit", "bar", "worst error", "its estimate"]
    headers += ["evidence", "ok", "seconds"]
    limits = {name: CASES[name].seconds for name in args.case or CASES}
    with common.measured("Accuracy with default settings"):
        missed = common.run_rows(limits, args, headers=headers, solve=solve, tell=tell, judge=judge)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
