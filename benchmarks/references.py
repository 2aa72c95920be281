"""`MethodOfLines` against known solutions: true error, estimate / true, seconds.

    python benchmarks/references.py --data DIRECTORY [--tol 1e-7] [--time-limit 45] [--alternate]

DIRECTORY holds burgers.npz, allen_cahn.npz, allen_cahn_smooth.npz, kdv.npz, ks_regular.npz (keys t, x,
u and selferr, the file's own error); the environment variable PINNKIT_DATA names it as well. Without
it only the problems with exact solutions run.
"""

from __future__ import annotations

import argparse
import os
import pathlib
from typing import Any

import numpy as np
import sympy as sp

import pinnkit as pk
from pinnkit import problems
from pinnkit.classical import Reference, solve_reference
from pinnkit.ir.normal_form import NormalForm

FILES = {
    "burgers": "Burgers",
    "allen_cahn": "AllenCahn",
    "allen_cahn_smooth": "AllenCahnSmooth",
    "kdv": "KdV",
    "ks_regular": "KuramotoSivashinsky",
}
EXACT = ("NonlinearSchroedinger", "Wave", "LayeredConduction", "Heat1D", "Poisson2D")


def main() -> None:
    """Run everything and print one Markdown table."""
    parser = argparse.ArgumentParser(description="MethodOfLines against known solutions")
    parser.add_argument("--data", default=os.environ.get("PINNKIT_DATA"))
    parser.add_argument("--tol", type=float, default=1e-7)
    parser.add_argument("--time-limit", type=float, default=45.0)
    parser.add_argument("--alternate", action="store_true", help="the second discretisation")
    options = parser.parse_args()
    variant = "alternate" if options.alternate else "primary"
    print("| problem | true error | file's own | estimate | estimate / true | seconds |")
    print("|---|---|---|---|---|---|")
    for name in EXACT:
        problem = getattr(problems, name)()
        nf = problem.system.normal_form
        reference = solve_reference(
            nf, tol=options.tol, time_limit=options.time_limit, variant=variant
        )
        report(name, reference, against_exact(problem, nf, reference), 0.0)
    if options.data is None:
        print("\nNo data directory: set PINNKIT_DATA or --data for the other rows.")
        return
    for file, name in FILES.items():
        data = np.load(pathlib.Path(options.data) / f"{file}.npz")
        nf = getattr(problems, name)().system.normal_form
        reference = solve_reference(
            nf, tol=options.tol, time_limit=options.time_limit, variant=variant
        )
        report(name, reference, against_file(data, reference), float(data["selferr"]))


def against_file(data: Any, reference: Reference) -> float:
    """Relative L2 on the file's grid."""
    if reference.approximation is None:
        return float("nan")
    found = reference.approximation.fields[0].on_grid([data["t"], data["x"]])
    return float(np.linalg.norm(found - data["u"]) / np.linalg.norm(data["u"]))


def against_exact(problem: pk.ProblemClass, nf: NormalForm, reference: Reference) -> float:
    """Relative L2 at midpoints, the largest over the user's fields (complex ones whole)."""
    if reference.approximation is None:
        return float("nan")
    meshes = []
    for coord in nf.coords:
        lower, upper = nf.bounds[coord]
        meshes.append(lower + (upper - lower) * (np.arange(64) + 0.5) / 64)
    grids = np.meshgrid(*meshes, indexing="ij")
    worst = 0.0
    for field, expr in (problem.exact() or {}).items():
        truth = np.asarray(sp.lambdify(nf.coords, expr, "numpy")(*grids))
        parts = nf.complex_fields.get(field, (field,))
        values = [
            reference.approximation.fields[nf.fields.index(part)].on_grid(meshes) for part in parts
        ]
        found = values[0] + 1j * values[1] if len(values) == 2 else values[0]
        worst = max(worst, float(np.linalg.norm(found - truth) / np.linalg.norm(truth)))
    return worst


def report(name: str, reference: Reference, error: float, own: float) -> None:
    """One row; no ratio where the truth itself is not known well enough."""
    ratio = f"{reference.error / error:.2f}" if error > max(10 * own, 1e-12) else "-"
    print(
        f"| {name} | {error:.1e} | {own:.1e} | {reference.error:.1e} | {ratio} "
        f"| {reference.seconds:.2f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
