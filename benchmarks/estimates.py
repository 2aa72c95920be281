"""How good are the error estimates that need no reference solve (`verify=False`: DEFECT)?

    python benchmarks/estimates.py [--seconds 3 10 30] [--seeds 0]

The problems are gallery classes with parameters other than the defaults, and none of them was used
to tune the estimate. Wanted: true error <= estimate in at least 90 % of the answers, and a median
over-estimate (estimate / true error) of at most 5.
"""

from __future__ import annotations

import argparse
import math
import pathlib
import statistics
import sys
from collections.abc import Callable
from typing import Any

import _common as common
from honesty import without_exact

import pinnkit as pk
from pinnkit import problems as gallery  # pyright: ignore[reportAttributeAccessIssue]

PROBLEMS: dict[str, Callable[[], Any]] = {
    "Heat1D(alpha=0.37)": lambda: gallery.Heat1D(alpha=0.37),
    "Poisson1D(k=3)": lambda: gallery.Poisson1D(k=3),
    "Helmholtz2D(k=2, a=2, b=2)": lambda: gallery.Helmholtz2D(k=2.0, a=2, b=2),
    "EulerBernoulliBeam(load=7)": lambda: gallery.EulerBernoulliBeam(load=7.0),
    "VibratingBeam(c=0.3)": lambda: gallery.VibratingBeam(c=0.3),
    "Advection(c=0.4)": lambda: gallery.Advection(c=0.4),
    "Convection(beta=6)": lambda: gallery.Convection(beta=6.0),
    "Reaction(rho=3)": lambda: gallery.Reaction(rho=3.0),
    "Logistic(rate=2.3)": lambda: gallery.Logistic(rate=2.3),
    "FisherKPP(D=0.03, rho=3)": lambda: gallery.FisherKPP(D=0.03, rho=3.0),
    "Wave(k=3)": lambda: gallery.Wave(k=3),
    "KleinGordon(T=0.6)": lambda: gallery.KleinGordon(T=0.6),
    "SineGordon(omega=0.8)": lambda: gallery.SineGordon(omega=0.8),
    "Burgers(nu=0.02)": lambda: gallery.Burgers(nu=0.02),
    "AllenCahnSmooth(d=1e-3)": lambda: gallery.AllenCahnSmooth(d=1e-3),
    "KdV(delta=0.05)": lambda: gallery.KdV(delta=0.05),
    "LotkaVolterra(a=1.1)": lambda: gallery.LotkaVolterra(a=1.1),
    "VanDerPol(mu=0.5)": lambda: gallery.VanDerPol(mu=0.5),
}


def main() -> int:
    """Solve without verification, compare the estimate with the truth."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, nargs="+", default=[3.0, 10.0, 30.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", choices=list(PROBLEMS), default=list(PROBLEMS))
    parser.add_argument("--data", type=pathlib.Path, default=None, help="folder of reference files")
    args = parser.parse_args()
    rows, ratios, missing = [], [], 0
    with common.measured("Error estimates without a reference solve"):
        for name in args.only:
            problem = PROBLEMS[name]()
            truth = common.truth_of(problem, args.data)
            assert truth is not None, name
            for seconds in args.seconds:
                for seed in args.seeds:
                    sol = without_exact(problem).solve(
                        pk.CausalPINN(), time_limit=seconds, seed=seed, verify=False
                    )
                    true, said = common.error_of(sol, truth), sol.error_estimate
                    if said is None or not math.isfinite(said):
                        missing += 1
                        ratio = float("nan")
                    else:
                        ratio = float(said) / max(true, truth.error)
                        ratios.append(ratio)
                    rows.append([name, f"{seconds:g} s", true, said, sol.evidence.name, ratio])
                    print(rows[-1], flush=True)
        common.print_table(["problem", "budget", "true", "estimate", "evidence", "ratio"], rows)
        covered = sum(r >= 1 for r in ratios) / max(len(ratios), 1)
        median = statistics.median(ratios) if ratios else float("nan")
        common.print_table(
            ["answers", "without estimate", "true <= estimate", "median estimate / true"],
            [[len(rows), missing, f"{covered:.0%}", median]],
        )
    return int(not (covered >= 0.9 and median <= 5))


if __name__ == "__main__":
    sys.exit(main())
