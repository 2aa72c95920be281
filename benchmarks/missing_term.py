"""Ordinary equations with a term nobody wrote down: how far they predict, and what is read off.

In    nothing: `python benchmarks/missing_term.py [--law NAME] [--seeds 0 1 ...] [--degree D] [--out FILE]
      [--stored FILE]`. What --out holds already is not run again.
Out   a Markdown table, one row per noise seed, and a line of JSON per run in FILE. Bars, of Lotka-Volterra:
      relative error of every field to twice the training horizon at most 3 %; the sparse reading of both
      terms is prey*predator alone. Of the other laws (`_laws.py`) errors alone: does the form that the
      evidence chooses do harm?
Next  docs/neural_ode.md.
"""

from __future__ import annotations

import argparse
import pathlib
import time
from typing import Any

import numpy as np
import sympy as sp
import torch
from _common import measured, print_table, report, stored_runs
from _laws import LAWS

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


def name_of(law: str, points: int, expansion: int | None) -> str:
    """What a stored row is of."""
    size = f", {points} points" if law == "lotka_volterra" else ""
    forms = "networks alone" if expansion is None else f"to degree {expansion}"
    return f"{law}{size}, {forms}"


def errors_of(sol: Any, T: float, truth: Any, names: Any) -> dict[str, list[float]]:
    """Relative, by field, inside the horizon and to twice that."""
    times = np.linspace(0, 2 * T, 801)
    true, found = truth(times), sol(t=times, extrapolate=True)
    found = found if isinstance(found, dict) else {names[0]: found}
    off = np.stack([found[n] for n in names], axis=1) - true

    def error(chosen: np.ndarray) -> list[float]:
        return np.sqrt((off[chosen] ** 2).mean(0) / (true[chosen] ** 2).mean(0)).tolist()

    return {"inside": error(times <= T), "double": error(times >= 0)}


def run(law: str, seed: int, points: int, expansion: int | None) -> dict[str, Any]:
    """One noise seed, which is the training's, too."""
    solver = pk.NeuralODE(expansion=expansion)
    began = time.process_time()
    if law == "lotka_volterra":
        problem = MissingInteraction(seed=seed, points=points)
        sol = problem.solve(solver, seed=seed, time_limit=None)
        errors = errors_of(sol, problem.T, problem.truth, ("prey", "predator"))
    else:
        problem = LAWS[law](seed)
        sol = problem.system.solve(solver, seed=seed, time_limit=None)
        errors = errors_of(sol, problem.T, problem.truth, problem.names)
    row = {
        "case": name_of(law, points, expansion),
        "seed": seed,
        **errors,
        "form": sol.stats.more["form"],
        "evidence": sol.stats.more["evidence"],
        "sigmas": sol.stats.more["sigmas"],
        "steps": sol.stats.steps,
        "restarts": sol.stats.more["restarts"],
        "seconds": time.process_time() - began,
    }
    return row | (readings(problem, sol, seed) if law == "lotka_volterra" else {})


def readings(problem: Any, sol: Any, seed: int) -> dict[str, Any]:
    """What is read of both terms, and what the equations with that in their place predict."""
    formulas = {term: sol.read(term, LIBRARY) for term in (problem.eaten, problem.gained)}
    meeting = prey * predator
    return {
        "read": [str(formula) for formula in formulas.values()],
        "alone": all(f.coeff(meeting) * meeting == f for f in formulas.values()),
        "formula": formula_error(problem, formulas, seed),
    }


def show(runs: list[dict[str, Any]]) -> None:
    """The table, and how many runs keep each bar."""
    rows = [
        [
            r["seed"],
            r["form"],
            f"{100 * max(r['inside']):.2f} %",
            f"{100 * max(r['double']):.2f} %",
            *r.get("read", ["", ""]),
            f"{100 * r['formula']:.2f} %" if "formula" in r else "",
            ", ".join(f"{form} {value:.1f}" for form, value in r["evidence"].items()),
            r["steps"],
            f"{r['seconds']:.0f}",
        ]
        for r in runs
    ]
    headers = [
        "seed", "form", "learned, to T", "to 2 T", "first read", "second read", "formula, to 2 T",
        "log evidence", "steps", "CPU s",
    ]  # fmt: skip
    print_table(headers, rows)
    if all("alone" in r for r in runs):
        read = sum(r["alone"] for r in runs)
        print(f"{read} of {len(runs)} read as prey*predator alone")
    lists = {"learned": [max(r["double"]) for r in runs]}
    lists["formula"] = [r["formula"] for r in runs if "formula" in r]
    for what, errors in lists.items():
        if errors:
            print(
                f"{what}: {sum(e <= BAR for e in errors)} of {len(errors)} at most 3 % to 2 T, median "
                f"{100 * float(np.median(errors)):.2f} %, worst {100 * max(errors):.2f} %"
            )


def rows_of(path: pathlib.Path | None, case: str) -> dict[int, dict[str, Any]]:
    """Stored rows of a case by seed."""
    rows = stored_runs(path) if path is not None and path.exists() else {}
    return {seed: row for (name, seed), row in rows.items() if name == case}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--law", choices=("lotka_volterra", *LAWS), default="lotka_volterra")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--points", type=int, default=MissingInteraction().points)
    parser.add_argument(
        "--degree",
        type=int,
        default=pk.NeuralODE().expansion,
        help="the highest; -1 for networks alone",
    )
    parser.add_argument("--out", type=pathlib.Path, default=None)
    parser.add_argument("--stored", type=pathlib.Path, default=None)
    args = parser.parse_args()
    torch.set_num_threads(1)
    expansion = None if args.degree < 0 else args.degree
    case = name_of(args.law, args.points, expansion)
    if args.stored is not None:
        show([r for _, r in sorted(rows_of(args.stored, case).items())])
    else:
        with measured(f"A missing term: {case}"):
            found = rows_of(args.out, case)
            for s in args.seeds:
                if s not in found:
                    found[s] = run(args.law, s, args.points, expansion)
                    report(found[s], args.out)
            show([found[s] for s in args.seeds])
