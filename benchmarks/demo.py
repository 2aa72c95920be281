"""The demonstration behind `make demo`: solve Burgers' equation, show it, check it.

    python benchmarks/demo.py --out out --picture docs/burgers.png

Exit status 0 if the answer agrees with an independent solve to 1e-3, else 1.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import time

import matplotlib as mpl

import pinnkit as pk
from pinnkit.problems import Burgers  # pyright: ignore[reportMissingImports]


def main() -> int:
    """Solve, save, draw, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("out"))
    parser.add_argument("--picture", type=pathlib.Path, default=None, help="default: in --out")
    parser.add_argument("--time-limit", type=float, default=150.0, help="training seconds at most")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    mpl.use("Agg")  # into files only, also where there is no display
    args.out.mkdir(parents=True, exist_ok=True)
    picture = args.picture or args.out / "burgers.png"

    problem = Burgers()
    print(problem, "-", (type(problem).__doc__ or "").splitlines()[0], flush=True)
    start = time.perf_counter()
    sol = problem.solve(
        pk.CausalPINN(), time_limit=args.time_limit, tol=1e-3, seed=args.seed, progress=True
    )
    print(sol)
    sol.save(args.out / "burgers.pinn")
    sol.plot().savefig(picture, dpi=110, bbox_inches="tight")
    print(f"{time.perf_counter() - start:.0f} s; picture in {picture}")
    return 0 if sol.ok else 1


if __name__ == "__main__":
    sys.exit(main())
