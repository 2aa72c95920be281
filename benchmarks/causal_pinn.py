"""`CausalPINN` on the headline problems of its field, worst of the seeds, beside what is published.

    python benchmarks/causal_pinn.py --data DIR                    every row for this machine
    python benchmarks/causal_pinn.py --case burgers --seeds 0      one of them
    python benchmarks/causal_pinn.py --device cuda                 the rows that want a GPU, too
    python benchmarks/causal_pinn.py --out results.jsonl           every solve as a line of JSON
    python benchmarks/causal_pinn.py --curves error.png            and the error against time

A row passes if every seed's true error is within the bar and every `sol.ok` holds at tol = bar. The
true solution is exact, a file of DIR, or an own solve (`_common.truth_of`); its error stands in the
column "reference" and must be 20 times smaller than the bar. Settings are the defaults; a row may set
its number of time windows, and the rows for GPUs a larger network.

Lorenz is judged by its horizons: the claimed one never above the true one, at least 90 % of it, and 18.

With --curves the answer so far is copied at 25 times during every solve (at most a few milliseconds
each) and judged when the solve is over, so that its seconds are those of training.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import math
import pathlib
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import _common as common
import numpy as np
import torch

import pinnkit as pk
from pinnkit import problems  # pyright: ignore[reportAttributeAccessIssue]
from pinnkit.solution.evaluate import field_values

FINER = 20.0  # a reference must be better than the bar by this factor
LOOKS, FIRST_LOOK = 25, 0.01  # of a curve: their number, the first as a share of the time limit
CHUNK = 2**15  # points evaluated at once
HORIZON_TOL, SHARE, AT_LEAST = 1e-2, 0.9, 18.0  # the rule for chaotic systems


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A row.

    problem: builds it. published: the figure to beat, as in the literature. bar, seconds: error and
    time allowed. settings: of `CausalPINN`, beyond its defaults (the number of windows). gpu: only
    with an accelerator. extra: not in the table, runs only if named. horizons: judge by them.
    """

    problem: Callable[[], Any]
    published: str
    bar: float
    seconds: float
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    gpu: bool = False
    extra: bool = False
    horizons: bool = False


LARGE = {"width": 64, "depth": 4}

CASES = {
    "burgers": Case(
        problem=problems.Burgers,
        published="4e-5; 1.6e-8 self-scaled Broyden, second-hand",
        bar=1e-5,
        seconds=300,
    ),
    "allen-cahn": Case(
        problem=problems.AllenCahn,
        published="causal 1.39e-4, jaxpi 5.4e-5, PirateNet 2.2e-5 (its file's floor)",
        bar=2e-5,
        seconds=300,
    ),
    "allen-cahn-smooth": Case(
        problem=problems.AllenCahnSmooth, published="-", bar=5e-6, seconds=300
    ),
    "kdv": Case(
        problem=problems.KdV, published="PirateNet 4.3e-4, jaxpi2 1.5e-4", bar=5e-5, seconds=300
    ),
    "ks-regular": Case(
        problem=problems.KuramotoSivashinsky, published="3.49e-4", bar=1e-4, seconds=600
    ),
    "ks-chaotic": Case(
        problem=lambda: problems.KuramotoSivashinskyChaotic(T=0.5),
        published="2.46e-2",
        bar=5e-3,
        seconds=900,
    ),
    "lorenz": Case(
        problem=problems.Lorenz, published="about 1e-2", bar=1e-2, seconds=600, horizons=True
    ),
    "convection": Case(
        problem=problems.Convection, published="PINN 0.84, ProPINN 0.020", bar=1e-3, seconds=120
    ),
    "reaction": Case(problem=problems.Reaction, published="ProPINN 0.020", bar=1e-4, seconds=120),
    "wave-4": Case(
        problem=lambda: problems.Wave(c=2.0, overtone=4, share=0.5),
        published="jaxpi2 1.2e-5",
        bar=1e-4,
        seconds=120,
    ),
    "wave-3": Case(
        problem=lambda: problems.Wave(c=2.0, overtone=3, share=0.5),
        published="ProPINN 0.016",
        bar=1e-4,
        seconds=120,
    ),
    "poisson-5d": Case(
        problem=problems.Poisson5D,
        published="SPRING 2.6e-7 absolute, 7000 s GPU",
        bar=1e-5,
        seconds=300,
    ),
    "navier-stokes-short": Case(
        problem=lambda: problems.NavierStokesStreamfunction(T=0.1),
        published="-",
        bar=1e-2,
        seconds=900,
    ),
    "navier-stokes": Case(
        problem=problems.NavierStokesStreamfunction,
        published="u 3.9e-2, v 2.6e-2, w 3.5e-2 (another start)",
        bar=1e-2,
        seconds=900,
        gpu=True,
    ),
    "burgers-large": Case(
        problem=problems.Burgers, published="-", bar=1e-6, seconds=60, settings=LARGE, gpu=True
    ),
    "allen-cahn-large": Case(
        problem=problems.AllenCahn, published="-", bar=1e-6, seconds=60, settings=LARGE, gpu=True
    ),
    "kdv-large": Case(
        problem=problems.KdV, published="-", bar=1e-6, seconds=60, settings=LARGE, gpu=True
    ),
    "navier-stokes-velocity-short": Case(
        problem=lambda: problems.NavierStokesVorticity(T=0.1),
        published="-",
        bar=1e-2,
        seconds=900,
        extra=True,
    ),
    "navier-stokes-pressure-short": Case(
        problem=lambda: problems.NavierStokesPressure(T=0.1),
        published="-",
        bar=1e-2,
        seconds=900,
        extra=True,
    ),
    "gray-scott": Case(
        problem=problems.GrayScott2D,
        published="jaxpi 6.1e-3, PirateNet 3.6e-3",
        bar=3.6e-3,
        seconds=900,
        extra=True,
    ),
    "ginzburg-landau": Case(
        problem=problems.GinzburgLandau,
        published="jaxpi 3.2e-2, PirateNet 1.5e-2",
        bar=1.5e-2,
        seconds=900,
        extra=True,
    ),
}


class Looks:
    """A callback that keeps copies of the answer at logarithmically spaced times."""

    def __init__(self, problem: Any, solver: pk.CausalPINN, seconds: float) -> None:
        self.problem, self.solver = problem, solver
        self.due = list(np.geomspace(FIRST_LOOK * seconds, seconds, LOOKS))
        self.kept: list[tuple[float, Any]] = []

    def __call__(self, info: Any) -> None:
        if self.due and info.seconds >= self.due[0]:
            answer = self.solver.finish(self.problem.system, info.state)
            self.kept.append((info.seconds, answer.approximation))
            self.due = [t for t in self.due if t > info.seconds]  # a long step may pass several

    def curve(self, truth: common.Truth) -> list[tuple[float, float]]:
        """(seconds, true error) of what was kept."""
        return [(t, common.error_of(_fields_of(self.problem, a), truth)) for t, a in self.kept]


def run(
    name: str, seed: int, seconds: float, truth: common.Truth, device: str, *, curve: bool = False
) -> dict[str, Any]:
    """One solve: its true error, what it says of itself, the time it took."""
    case = CASES[name]
    problem, solver = case.problem(), pk.CausalPINN(**case.settings)
    looks = Looks(problem, solver, seconds) if curve else None
    start = time.perf_counter()
    sol = problem.solve(
        solver, time_limit=seconds, tol=case.bar, seed=seed, device=device, callback=looks
    )
    spent = time.perf_counter() - start
    candidate = _with_velocity(sol) if "Streamfunction" in type(problem).__name__ else sol
    row = {
        "case": name,
        "seed": seed,
        "error": common.error_of(candidate, truth),
        "absolute": common.absolute_error_of(candidate, truth),
        "estimate": sol.error_estimate,
        "evidence": sol.evidence.name,
        "status": sol.status.name,
        "stopped_by": getattr(sol.stats.stopped_by, "name", None),
        "ok": sol.ok,
        "steps": sol.stats.steps,
        "training": sol.stats.seconds,
        "seconds": spent,
    }
    if case.horizons:
        row["claimed"] = _claimed_horizon(sol)
        row["true"] = true_horizon(candidate, truth)
    if looks is not None:
        row["curve"] = [*looks.curve(truth), (row["training"], row["error"])]
    return row


def _fields_of(problem: Any, approximation: Any) -> Callable[..., dict[str, Any]]:
    """An unfinished answer as a function of the coordinates; of a streamfunction, as `_with_velocity`."""
    nf = problem.system.normal_form
    names = [c.name for c in nf.coords]
    fields = [f.func.__name__ for f in nf.fields]

    def values(**at: Any) -> dict[str, Any]:
        grid = np.broadcast_arrays(*(at[n] for n in names))
        points = np.stack([g.ravel() for g in grid], axis=1)
        found = dict(field_values(nf, approximation, points))
        if "psi" in fields:
            slopes = [(fields.index("psi"), (0, 0, 1)), (fields.index("psi"), (0, 1, 0))]
            with torch.no_grad():
                pieces = [
                    torch.stack(approximation.derivatives(piece, slopes)).cpu()
                    for piece in torch.tensor(points).split(CHUNK)
                ]
            found["u"], minus_v = torch.cat(pieces, 1).numpy()
            found["v"] = -minus_v
        return {name: v.reshape(grid[0].shape) for name, v in found.items()}

    return values


def plot_curves(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    """Error against seconds, one colour per case, a line per seed, the bar at the end of its time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    colours: dict[str, str] = {}
    for row in rows:
        new = row["case"] not in colours
        colour = colours.setdefault(row["case"], f"C{len(colours) % 10}")
        # Beyond ten cases the colours begin again.
        style = "--" if list(colours).index(row["case"]) >= 10 else "-"
        seconds, errors = np.array(row["curve"]).T
        label = row["case"] if new else None
        axes.plot(seconds, errors, style, color=colour, lw=1.4, alpha=0.8, label=label)
        axes.plot(row["limit"], CASES[row["case"]].bar, "v", color=colour, ms=7)
    axes.set(xscale="log", yscale="log", xlabel="seconds", ylabel="relative L2 error")
    # Before the last window is open, later times are extrapolated, without any limit.
    axes.set_ylim(top=2.0)
    axes.set_title("CausalPINN: true error of the answer so far (triangles: bar and time limit)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="lower left", ncols=2)
    figure.savefig(path, dpi=120)


def _with_velocity(sol: Any) -> Callable[..., dict[str, Any]]:
    """u and v of a streamfunction, so that the published fields are compared; psi itself is not one."""
    names = {f.func.__name__: f for f in sol.problem.fields}
    psi = names["psi"]
    _, x, y = psi.args

    def fields(**at: Any) -> dict[str, Any]:
        return {
            "u": sol[psi.diff(y)](**at),
            "v": sol[-psi.diff(x)](**at),
            "w": sol[names["w"]](**at),
        }

    return fields


def _truth(problem: Any, data: pathlib.Path | None) -> common.Truth:
    """Better than the bar by far; for a streamfunction that of the velocity and the vorticity."""
    if isinstance(problem, problems.NavierStokesStreamfunction):
        problem = problems.NavierStokesVorticity(Re=problem.Re, T=problem.T)
    truth = common.truth_of(problem, data)
    assert truth is not None, f"no true solution for {problem}"
    return truth


def _claimed_horizon(sol: Any) -> float:
    try:
        return float(sol.horizon(HORIZON_TOL))
    except pk.UnsupportedProblemError:
        return math.nan  # no independent solve, so no claim


def true_horizon(candidate: Callable[..., Any], truth: common.Truth) -> float:
    """The last instant before the error at an instant exceeds the tolerance for the first time."""
    times, errors = common.error_in_time(candidate, truth)
    above = np.flatnonzero(~(errors <= HORIZON_TOL))
    return float(times[-1] if len(above) == 0 else times[max(above[0] - 1, 0)])


def passes(case: Case, runs: list[dict[str, Any]]) -> bool:
    """Every seed within the bar and ok; chaotic systems by their horizons."""
    if case.horizons:
        return all(
            SHARE * r["true"] <= r["claimed"] <= r["true"] and r["claimed"] >= AT_LEAST
            for r in runs
        )
    return all(r["error"] <= case.bar and r["ok"] for r in runs)


def _selected(args: argparse.Namespace) -> list[str]:
    if args.case:
        return args.case
    gpu = args.device != "cpu"
    return [name for name, case in CASES.items() if not case.extra and (gpu or not case.gpu)]


def main() -> int:
    """Print one line per solve and the table; 1 if a bar is missed or a reference is too coarse."""
    parser = common.make_parser(__doc__, CASES)
    parser.add_argument("--data", type=pathlib.Path, default=None, help="folder of reference files")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--curves", type=pathlib.Path, default=None, help="picture to write")
    parser.add_argument("--out", type=pathlib.Path, default=None, help="append JSON lines here")
    args = parser.parse_args()
    horizons: list[list[Any]] = []
    absolute: list[list[Any]] = []
    curves: list[dict[str, Any]] = []

    @functools.cache
    def truth(name: str) -> common.Truth:
        return _truth(CASES[name].problem(), args.data)

    def solve(name: str, seed: int, seconds: float) -> dict[str, Any]:
        drawn = args.curves is not None
        row = run(name, seed, seconds, truth(name), args.device, curve=drawn)
        return {**row, "reference": truth(name).error, "device": args.device}

    def tell(name: str, seed: int, row: dict[str, Any]) -> None:
        if args.stored is None:
            common.report(row, args.out)
        if args.curves is not None and "curve" in row:
            curves.append(row)
            plot_curves(args.curves, curves)

    def judge(name: str, seconds: float, runs: list[dict[str, Any]]) -> tuple[list[Any], bool]:
        case, worst = CASES[name], max(runs, key=lambda r: r["error"])
        known = worst["reference"]
        fine = known * FINER <= case.bar
        horizons.extend([name, r["seed"], r["claimed"], r["true"]] for r in runs if case.horizons)
        if name == "poisson-5d":
            absolute.extend([r["seed"], r["error"], r["absolute"]] for r in runs)
        cells = [
            name,
            case.published,
            case.bar,
            f"{seconds:g} s",
            worst["error"],
            worst["estimate"],
            worst["evidence"],
            f"{sum(r['ok'] for r in runs)}/{len(runs)}",
            known if fine else f"{known:.1e}, too coarse",
            max(r["seconds"] for r in runs),
        ]
        return cells, fine and passes(case, runs)

    headers = ["problem", "published", "bar", "time_limit", "worst error", "its estimate"]
    headers += ["evidence", "ok", "reference", "seconds"]
    limits = {name: CASES[name].seconds for name in _selected(args)}
    with common.measured(f"CausalPINN against published figures, {args.device}"):
        missed = common.run_rows(limits, args, headers=headers, solve=solve, tell=tell, judge=judge)
        if horizons:
            common.print_table(["problem", "seed", "claimed horizon", "true horizon"], horizons)
        if absolute:
            common.print_table(["Poisson 5-D, seed", "relative L2", "absolute L2"], absolute)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
