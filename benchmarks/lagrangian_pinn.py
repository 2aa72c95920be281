"""`LagrangianPINN` on problems of transport, worst of the seeds, beside what is published.

    python benchmarks/lagrangian_pinn.py                           every row for this machine
    python benchmarks/lagrangian_pinn.py --case rotation --seeds 0 one of them
    python benchmarks/lagrangian_pinn.py --device cuda             the same on a GPU
    python benchmarks/lagrangian_pinn.py --out results.jsonl       every solve as a line of JSON

Errors are relative L2 over the norm of u minus its mean, over the whole time span, at T / 2 and at T:
after a whole turn a solver that does nothing is exact, and a mean flow would hide anything. A row
passes if the worst of the three is within the bar for every seed. References (`_transport`) must be 20
times better than the bar; the column "reference" holds their own error. Settings are the defaults.

Four rows are measured in their own way: the time of a shock, relative to the true one; the entropy
solution after it (`MethodOfLines`, relative L1); the layer at an outflow, which may be refused with a
reason; and reading back 100,000 values, against straight characteristics solved to rounding.
`sol.ok` is printed, and is judged at 1e-3 as by default.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import _common as common
import _transport as transport
import numpy as np

import pinnkit as pk
from pinnkit import problems  # pyright: ignore[reportAttributeAccessIssue]

FINER = 20.0  # a reference must be better than the bar by this factor
READINGS, READING_TIME = 100_000, 2.0  # values read back, seconds they may take
NOTED = ("place off by", "reading", "reading trained", "reason")  # printed below the table
LABEL_SPACE = {0.1: "label space 14 %", 0.05: "label space 10 %", 0.01: "label space 4.4 %"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A row.

    problem: builds it. published: the figure to beat. bar, seconds: error and time allowed; a bar of
    inf is none. measure: how it is judged. extra: not in the table, runs only if named.
    """

    problem: Callable[[], Any]
    published: str = "-"
    bar: float
    seconds: float
    measure: Callable[[Case, Solving], dict[str, Any]]
    extra: bool = False


@dataclasses.dataclass(frozen=True)
class Solving:
    """How a row is solved in this run."""

    seed: int
    seconds: float
    device: str

    def __call__(self, problem: Any, solver: Any) -> tuple[Any, dict[str, Any]]:
        """The solution, and what every row says of it."""
        start = time.perf_counter()
        sol = problem.solve(solver, time_limit=self.seconds, seed=self.seed, device=self.device)
        return sol, {
            "estimate": sol.error_estimate,
            "evidence": sol.evidence.name,
            "status": sol.status.name,
            "ok": sol.ok,
            "steps": sol.stats.steps,
            "training": sol.stats.seconds,
            "seconds": time.perf_counter() - start,
            "more": {k: v for k, v in sol.stats.more.items() if isinstance(v, int | float | list)},
        }


def field(case: Case, solving: Solving) -> dict[str, Any]:
    """The errors of u over the span, at half time and at the end."""
    problem = case.problem()
    refused = pk.LagrangianPINN().supports(_system(problem))
    if refused is not None:
        return _refusal(refused)
    sol, row = solving(problem, pk.LagrangianPINN())
    found = transport.truth(problem)
    errors = transport.errors_of(sol, found)
    return row | errors | {"error": max(errors.values()), "reference": found.error}


def outflow(case: Case, solving: Solving) -> dict[str, Any]:
    """As `field`; a refusal that says why is an answer, too."""
    row = field(case, solving)
    return row | {"error": 0.0, "reference": 0.0} if row["status"] == "refused" else row


def shock_time(case: Case, solving: Solving) -> dict[str, Any]:
    """The end of the smooth solution: its time relative to the true one; the place beside it."""
    problem = case.problem()
    sol, row = solving(problem, pk.LagrangianPINN())
    when, where = transport.break_up(problem)
    more = sol.stats.more
    error = math.inf
    if sol.status is pk.Status.SHOCK:
        error = abs(more["shock_time"] / when - 1)
        row["place off by"] = abs(more["shock_place"][0] - where)
    return row | {"error": error, "reference": transport.ROUNDING}


def entropy(case: Case, solving: Solving) -> dict[str, Any]:
    """After the shock: the declaration in flux form, by `MethodOfLines`."""
    problem = case.problem()
    sol, row = solving(problem, pk.MethodOfLines())
    found = transport.truth(problem)
    return row | {"error": transport.l1_error_of(sol, found), "reference": found.error}


def read_back(case: Case, solving: Solving) -> dict[str, Any]:
    """Many values of a map known in closed form, against its characteristics; and how long they took.

    The map of a trained network is read, too: that takes longer, and is what a user waits for.
    """
    problem = case.problem()
    sol, row = solving(problem, pk.LagrangianPINN())
    rng = np.random.default_rng(solving.seed)
    at = {"t": rng.uniform(0, problem.T, READINGS), "x": rng.uniform(0, transport.RING, READINGS)}
    row["reading"], values = _timed(sol, at)
    true = np.sin(transport.straight_labels(at["t"], at["x"]))
    trained, _ = solving(problems.VariableConvection(), pk.LagrangianPINN())
    row["reading trained"], _ = _timed(trained, at | {"t": at["t"] / problem.T})
    error = float(np.abs(values - true).max())
    if max(row["reading"], row["reading trained"]) > READING_TIME:
        error = math.inf  # too late
    return row | {"error": error, "reference": transport.ROUNDING}


def _timed(sol: Any, at: dict[str, np.ndarray]) -> tuple[float, np.ndarray]:
    start = time.perf_counter()
    values = sol(**at)
    return time.perf_counter() - start, values


def _system(problem: Any) -> Any:
    return getattr(problem, "system", problem)


def _refusal(reason: str) -> dict[str, Any]:
    return {
        "error": math.inf,
        "reference": 0.0,
        "estimate": None,
        "evidence": "-",
        "status": "refused",
        "ok": False,
        "seconds": 0.0,
        "reason": reason,
    }


def _burgers(nu: float, mean: float) -> Case:
    return Case(
        problem=lambda: problems.PeriodicBurgers(nu=nu, mean=mean),
        published=LABEL_SPACE[nu],
        bar=1e-4,
        seconds=180,
        measure=field,
    )


def _pulse(peclet: float, seconds: float = 120) -> Case:
    return Case(
        problem=lambda: problems.AdvectedPulse(nu=2 * math.pi / peclet),
        bar=1e-4,
        seconds=seconds,
        measure=field,
    )


CASES = {
    "constant-70": Case(
        problem=lambda: problems.Convection(beta=70.0),
        published="ProPINN 0.020 at 50",
        bar=1e-10,
        seconds=10,
        measure=field,
    ),
    "variable-50": Case(
        problem=problems.VariableConvection, bar=1e-4, seconds=180, measure=field
    ),
    "variable-50-diffusive": Case(
        problem=lambda: problems.VariableConvection(nu=1e-3), bar=1e-4, seconds=180, measure=field
    ),
    "deforming": Case(
        problem=transport.deforming_flow,
        published="label space: wrong by construction",
        bar=1e-4,
        seconds=120,
        measure=field,
    ),
    **{f"burgers-{nu:g}-{mean:g}": _burgers(nu, mean) for nu in LABEL_SPACE for mean in (0.0, 10.0)},
    "pulse-100": _pulse(1e2),
    "pulse-10000": _pulse(1e4),
    "outflow": Case(problem=problems.PulseOutflow, bar=1e-3, seconds=120, measure=outflow),
    "inviscid": Case(problem=problems.InviscidBurgers, bar=1e-4, seconds=120, measure=field),
    "shock": Case(
        problem=lambda: problems.InviscidBurgers(T=1.5), bar=1e-2, seconds=120, measure=shock_time
    ),
    "entropy": Case(
        problem=lambda: problems.InviscidBurgers(T=1.5), bar=1e-2, seconds=120, measure=entropy
    ),
    "rotation": Case(problem=problems.RotatingGaussian, bar=1e-3, seconds=300, measure=field),
    "swirl-1.5": Case(problem=problems.SwirlingDeformation, bar=1e-3, seconds=300, measure=field),
    "swirl-5": Case(
        problem=lambda: problems.SwirlingDeformation(period=5.0),
        bar=1e-2,
        seconds=600,
        measure=field,
    ),
    "read-back": Case(
        problem=problems.InviscidBurgers, bar=1e-8, seconds=60, measure=read_back
    ),
    "reaction": Case(
        problem=problems.ReactionAdvection, bar=1e-4, seconds=120, measure=field, extra=True
    ),
    "slotted-cylinder": Case(
        problem=problems.SlottedCylinder, bar=math.inf, seconds=300, measure=field, extra=True
    ),
}  # fmt: skip


def main() -> int:
    """Print one line per solve and the table; 1 if a bar is missed or a reference is too coarse."""
    parser = common.make_parser(__doc__, CASES)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=pathlib.Path, default=None, help="append JSON lines here")
    args = parser.parse_args()
    notes: list[list[Any]] = []

    def solve(name: str, seed: int, seconds: float) -> dict[str, Any]:
        case = CASES[name]
        row = case.measure(case, Solving(seed, seconds, args.device))
        return {"case": name, "seed": seed, **row, "device": args.device}

    def tell(name: str, seed: int, row: dict[str, Any]) -> None:
        if args.stored is None:
            common.report(row, args.out)

    def judge(name: str, seconds: float, runs: list[dict[str, Any]]) -> tuple[list[Any], bool]:
        case, worst = CASES[name], max(runs, key=lambda r: r["error"])
        notes.extend([name, what, worst[what]] for what in NOTED if what in worst)
        cells = [
            name,
            case.published,
            case.bar,
            f"{seconds:g} s",
            worst["error"],
            *(worst.get(part, "-") for part in ("span", "half", "end")),
            "-" if worst["estimate"] is None else worst["estimate"],
            worst["evidence"],
            worst["status"],
            f"{sum(r['ok'] for r in runs)}/{len(runs)}",
            worst["reference"],
            max(r["seconds"] for r in runs),
        ]
        within = (r["error"] <= case.bar and r["reference"] * FINER <= case.bar for r in runs)
        return cells, all(within)

    headers = ["problem", "published", "bar", "time_limit", "worst error", "span", "T / 2", "T"]
    headers += ["its estimate", "evidence", "status", "ok", "reference", "seconds"]
    names = args.case or [name for name, case in CASES.items() if not case.extra]
    limits = {name: CASES[name].seconds for name in names}
    with common.measured(f"LagrangianPINN against its bars, {args.device}"):
        missed = common.run_rows(limits, args, headers=headers, solve=solve, tell=tell, judge=judge)
        if notes:
            common.print_table(["problem", "what", "worst seed's"], notes)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
