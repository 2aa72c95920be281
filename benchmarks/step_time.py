"""Time of a Gauss-Newton step against the number of points and of parameters, beside theory.

    python benchmarks/step_time.py                     table
    python benchmarks/step_time.py --out step.png      and a picture
    python benchmarks/step_time.py --most 2000         a smoke run: fewer points and parameters

`CausalPINN` on Burgers' equation, one window, points drawn uniformly and as many in every step. N counts
points, those of the conditions included, P parameters. One of the two is held, the other goes over two
decades. A step assembles the rows (N P), forms and factorises the smaller of J^T J and J J^T, and
solves: min(N P^2, N^2 P) + min(N, P)^3 / 3. Exponents are slopes of log time against log number,
fitted to the measured and to the predicted times; the row passes if the measured one is at most 0.1 above.
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import sys
import time
from typing import Any

import _common as common
import numpy as np

import pinnkit as pk
from pinnkit import problems  # pyright: ignore[reportAttributeAccessIssue]

POINTS = (200, 450, 1000, 2000, 4500, 10000, 20000)  # at WIDTH
WIDTHS = (6, 9, 14, 21, 31, 46, 68)  # at HELD points: some 100 to 10,000 parameters
WIDTH, DEPTH, HELD = 20, 3, 1000
WARM, STEPS = 2, 5  # steps not counted, steps counted
MARGIN = 0.1  # on exponents


def step_time(points: int, width: int) -> tuple[int, int, float]:
    """(N, P, median seconds of a step)."""
    never = 10**6
    solver = pk.CausalPINN(
        width=width, depth=DEPTH, points=points, most_points=points, adaptive=False,
        windows=1, probe_every=never,
    )  # fmt: skip
    instants: list[float] = []
    sizes: list[float] = []

    def look(info: Any) -> None:
        instants.append(time.perf_counter())
        sizes.append(float(info.losses["points"]))

    sol = problems.Burgers().solve(
        solver, max_steps=WARM + STEPS, time_limit=None, seed=0, callback=look, verify=False
    )
    took = np.diff(instants)[WARM - 1 :]
    return int(sizes[-1]), sol.stats.parameters, statistics.median(took.tolist())


def theory(n: float, p: float) -> float:
    """Multiplications of one step, rows left out."""
    return min(n * p**2, n**2 * p) + min(n, p) ** 3 / 3


def slope(numbers: list[float], values: list[float]) -> float:
    """Exponent of a power law, least squares in logarithms."""
    return float(np.polyfit(np.log(numbers), np.log(values), 1)[0])


def draw(results: dict[str, list[tuple[int, int, float]]], path: pathlib.Path) -> None:
    """Both series, with the theory through their last points."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    for axis, (name, measured) in zip(figure.subplots(1, 2), results.items()):
        along = [r[0] if name == "points" else r[1] for r in measured]
        seconds = [r[2] for r in measured]
        predicted = [theory(n, p) for n, p, _ in measured]
        scale = seconds[-1] / predicted[-1]
        axis.loglog(along, seconds, "o-", label="measured")
        axis.loglog(along, [scale * c for c in predicted], "k--", label="min(N P^2, N^2 P)")
        axis.set(xlabel=name, ylabel="seconds per step")
        axis.legend()
    figure.savefig(path, dpi=120)


def main() -> int:
    """Print the tables; 1 if an exponent is above theory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--most", type=int, default=10**6, help="leave out larger N and P")
    parser.add_argument("--out", type=pathlib.Path, default=None, help="write a picture here")
    args = parser.parse_args()
    series = {
        "points": [(n, WIDTH) for n in POINTS if n <= args.most],
        "parameters": [(HELD, w) for w in WIDTHS if (DEPTH - 1) * w**2 <= args.most],
    }
    results: dict[str, list[tuple[int, int, float]]] = {}
    kept = True
    with common.measured("Time of a Gauss-Newton step"):
        for name, settings in series.items():
            results[name] = [step_time(n, w) for n, w in settings]
            common.print_table(
                ["N", "P", "ms", "theory, 1e9 multiplications"],
                [[n, p, 1e3 * s, theory(n, p) / 1e9] for n, p, s in results[name]],
            )
        rows = []
        for name, found in results.items():
            along = [float(r[0] if name == "points" else r[1]) for r in found]
            measured = slope(along, [r[2] for r in found])
            predicted = slope(along, [theory(n, p) for n, p, _ in found])
            held = measured <= predicted + MARGIN
            kept = kept and held
            span = f"{along[0]:g} to {along[-1]:g}"
            rows.append([name, span, measured, predicted, "yes" if held else "NO"])
        common.print_table(["number of", "range", "exponent", "theory", "passed"], rows)
    if args.out is not None:
        draw(results, args.out)
    return int(not kept)


if __name__ == "__main__":
    sys.exit(main())
