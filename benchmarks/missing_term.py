"""Ordinary equations with a term nobody wrote down: how far they predict, and what is read off.

In    nothing: `python benchmarks/missing_term.py [--seeds 0 1 ...] [--out FILE] [--stored FILE]`.
Out   a Markdown table, one row per noise seed, and a line of JSON per run in FILE. Bars: relative error of
      every field to twice the training horizon at most 3 %; the sparse reading of both terms is
      prey*predator alone.
Next  docs/neural_ode.md.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import time
from typing import Any

import numpy as np
import sympy as sp
import torch
from _common import measured, print_table, report

import pinnkit as pk
from pinnkit.problems import MissingInteraction  # pyright: ignore[reportMissingImports]
from pinnkit.problems.lotka_volterra import (  # pyright: ignore[reportMissingImports]
    predator,
    prey,
)

LIBRARY = [1, prey, predator, prey * predator, prey**2, predator**2]
BAR = 0.03


def formula_error(problem: Any, formulas: dict[Any, sp.Expr], seed: int) -> float:
    """To twice the horizon, of the equations with what was read in the place of the networks, fitted again.

    Each factor becomes an unknown number, so this is what a user does who trusts the reading.
    """
    written = {}
    for term, formula in formulas.items():
        parts = [part.as_coeff_Mul() for part in sp.Add.make_args(formula)]
        written[term] = sp.Add(
            *(
                pk.parameter(f"{term}_{k}", initial=float(factor)) * expr
                for k, (factor, expr) in enumerate(parts)
            )
        )
    system = problem.system.remake(
        equations=[e.xreplace(written) for e in problem.system.equations]
    )
    sol = system.solve(pk.NeuralODE(), seed=seed, verify=False, time_limit=None)
    times = np.linspace(0, 2 * problem.T, 801)
    truth, found = problem.truth(times), sol(t=times, extrapolate=True)
    off = np.stack([found["prey"], found["predator"]], axis=1) - truth
    return float(np.sqrt((off**2).mean(0) / (truth**2).mean(0)).max())


def name_of(points: int, expansion: int | None) -> str:
    return f"{points} points" + ("" if expansion is None else f", degree {expansion}")


def run(seed: int, points: int, expansion: int | None) -> dict[str, Any]:
    """One noise seed, which is the training's, too."""
    problem = MissingInteraction(seed=seed, points=points)
    began = time.process_time()
    solver = pk.NeuralODE(expansion=expansion)
    sol = problem.solve(solver, seed=seed, time_limit=None)
    seconds = time.process_time() - began
    times = np.linspace(0, 2 * problem.T, 801)
    truth = problem.truth(times)
    found = sol(t=times, extrapolate=True)
    off = np.stack([found["prey"], found["predator"]], axis=1) - truth
    inside = times <= problem.T

    def error(chosen: np.ndarray) -> list[float]:
        squares = (off[chosen] ** 2).mean(0) / (truth[chosen] ** 2).mean(0)
        return np.sqrt(squares).tolist()

    formulas = {term: sol.read(term, LIBRARY) for term in (problem.eaten, problem.gained)}
    meeting = prey * predator
    return {
        "case": name_of(points, expansion),
        "seed": seed,
        "inside": error(inside),
        "double": error(times >= 0),
        "read": [str(formula) for formula in formulas.values()],
        "alone": all(f.coeff(meeting) * meeting == f for f in formulas.values()),
        "formula": formula_error(problem, formulas, seed),
        "steps": sol.stats.steps,
        "restarts": sol.stats.more["restarts"],
        "seconds": seconds,
    }


def show(runs: list[dict[str, Any]]) -> None:
    """The table, and how many runs keep each bar."""
    rows = [
        [
            r["seed"],
            f"{100 * max(r['inside']):.2f} %",
            f"{100 * max(r['double']):.2f} %",
            *r["read"],
            f"{100 * r['formula']:.2f} %",
            r["steps"],
            r["restarts"],
            f"{r['seconds']:.0f}",
        ]
        for r in runs
    ]
    headers = [
        "seed", "learned, to T", "to 2 T", "eaten", "gained", "formula, to 2 T",
        "steps", "restarts", "CPU s",
    ]  # fmt: skip
    print_table(headers, rows)
    read = sum(r["alone"] for r in runs)
    print(f"{read} of {len(runs)} read as prey*predator alone")
    for what, errors in (
        ("learned", [max(r["double"]) for r in runs]),
        ("formula", [r["formula"] for r in runs]),
    ):
        kept = sum(e <= BAR for e in errors)
        print(
            f"{what}: {kept} of {len(runs)} at most 3 % to 2 T, median "
            f"{100 * float(np.median(errors)):.2f} %, worst {100 * max(errors):.2f} %"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--points", type=int, default=MissingInteraction().points)
    parser.add_argument("--degree", type=int, default=2, help="of the polynomial; -1 for none")
    parser.add_argument("--out", type=pathlib.Path, default=None)
    parser.add_argument("--stored", type=pathlib.Path, default=None)
    args = parser.parse_args()
    torch.set_num_threads(1)
    expansion = None if args.degree < 0 else args.degree
    if args.stored is not None:
        lines = args.stored.read_text().splitlines()
        stored = {(r["case"], r["seed"]): r for r in map(json.loads, filter(None, lines))}
        show(
            [
                r
                for (case, _), r in sorted(stored.items())
                if case == name_of(args.points, expansion)
            ]
        )
    else:
        with measured("The missing interaction of Lotka-Volterra"):
            found = []
            for s in args.seeds:
                found.append(run(s, args.points, expansion))
                report(found[-1], args.out)
            show(found)
