"""Does `ok` mean what it says? Solves with too little, some and enough time, and wrong candidates.

    python benchmarks/honesty.py [--time-limit 20] [--only Heat1D] [--skip-candidates]

Every answer is compared with a true solution pinnkit never sees. Counted:
  false ok      ok with a true error above the tolerance: must be 0;
  too timid     not ok with a true error below a third of it: at most 10 %.
At least 150 solves: two solvers x 27 problems x budgets of 5, 30 and 100 %; then perturbed and
plainly wrong candidates through `pk.verify`.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import _common as common
import numpy as np
import sympy as sp

import pinnkit as pk
from pinnkit import problems as gallery  # pyright: ignore[reportAttributeAccessIssue]

TOL = 1e-3
BUDGETS = (0.05, 0.3, 1.0)
SOLVERS: tuple[Callable[[], Any], ...] = (pk.CausalPINN, pk.MethodOfLines)

# Every gallery problem with a known truth; milder parameters where the default is out of reach of
# any budget here, so that all three outcomes occur.
PROBLEMS: dict[str, Callable[[], Any]] = {
    "Heat1D": gallery.Heat1D,
    "Heat1D(alpha=1)": lambda: gallery.Heat1D(alpha=1.0),
    "Heat2D": gallery.Heat2D,
    "Poisson1D": gallery.Poisson1D,
    "Poisson1D(k=8)": lambda: gallery.Poisson1D(k=8),
    "Poisson2D": gallery.Poisson2D,
    "Poisson5D": gallery.Poisson5D,
    "Helmholtz2D": gallery.Helmholtz2D,
    "PeriodicPoisson": gallery.PeriodicPoisson,
    "LayeredConduction": gallery.LayeredConduction,
    "EulerBernoulliBeam": gallery.EulerBernoulliBeam,
    "VibratingBeam": gallery.VibratingBeam,
    "Advection": gallery.Advection,
    "Convection(beta=10)": lambda: gallery.Convection(beta=10.0),
    "Convection": gallery.Convection,
    "Reaction": gallery.Reaction,
    "Logistic": gallery.Logistic,
    "FisherKPP": gallery.FisherKPP,
    "Wave": gallery.Wave,
    "Wave(k=4)": lambda: gallery.Wave(k=4),
    "KleinGordon": gallery.KleinGordon,
    "SineGordon": gallery.SineGordon,
    "Burgers": gallery.Burgers,
    "AllenCahnSmooth": gallery.AllenCahnSmooth,
    "KdV": gallery.KdV,
    "KuramotoSivashinsky": gallery.KuramotoSivashinsky,
    "NonlinearSchroedinger": gallery.NonlinearSchroedinger,
    "LotkaVolterra": gallery.LotkaVolterra,
    "VanDerPol": gallery.VanDerPol,
}


class Tally:
    """The confusion counts, and the lines of the cases that count against us."""

    def __init__(self) -> None:
        self.total = self.good = self.false_ok = self.timid = self.refused = 0
        self.offenders: list[list[Any]] = []

    def add(self, name: str, ok: bool, true: float, said: object) -> None:
        """One judged answer."""
        self.total += 1
        self.good += true < TOL / 3
        if ok and true > TOL:
            self.false_ok += 1
            self.offenders.append([name, "FALSE OK", true, said])
        elif not ok and true < TOL / 3:
            self.timid += 1
            self.offenders.append([name, "too timid", true, said])

    def share(self) -> float:
        """Of the answers that are good, how many are not called so."""
        return self.timid / max(self.good, 1)


def without_exact(problem: Any) -> Any:
    """The same problem as a plain system, its exact solution withheld: the evidence must be found."""
    system = getattr(problem, "system", problem)
    return pk.PDESystem(list(system.equations), system.domain, list(system.conditions))


def solves(
    tally: Tally, chosen: dict[str, Any], base: float, data: pathlib.Path | None, exact: bool
) -> None:
    """All solvers on all problems with all budgets."""
    for name, make in chosen.items():
        problem = make()
        truth = common.truth_of(problem, data)
        assert truth is not None, name
        judged = problem if exact else without_exact(problem)
        for solver in (s() for s in SOLVERS):
            reason = solver.supports(getattr(judged, "system", judged))
            if reason is not None:
                tally.refused += 1
                print(f"{name}: {type(solver).__name__} refuses: {reason}", flush=True)
                continue
            for budget in BUDGETS:
                start = time.perf_counter()
                try:
                    sol = judged.solve(solver, time_limit=budget * base, tol=None, seed=0)
                except (pk.UnsupportedProblemError, pk.SolveError) as fault:
                    tally.refused += 1  # no answer at all, so none that could be wrong
                    print(f"{name}: {type(solver).__name__}, {budget:.0%}: {fault}", flush=True)
                    continue
                true = common.error_of(sol, truth)
                label = f"{name}, {type(solver).__name__}, {budget:.0%}"
                said = f"{sol.status.name} {sol.evidence.name} {sol.error_estimate}"
                tally.add(label, sol.ok, true, said)
                seconds = time.perf_counter() - start
                print(f"{label}: true {true:.2e}, says {said}, {seconds:.1f} s", flush=True)


def candidates(problem: Any) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Answers near the exact one and far from it, as callables of the coordinates.

    Only problems with `exact()` are asked; what is true of the candidate is measured, not assumed.
    """
    ((field, expr),) = problem.exact().items()
    names = [c.name for c in field.args]
    bounds = {c.name: ends for c, ends in problem.system.domain.bounds.items()}
    f = sp.lambdify([sp.Symbol(n) for n in names], expr.xreplace(_plain(expr)), "numpy")

    def exact(**at: Any) -> Any:
        return f(*(np.asarray(at[n], dtype=float) for n in names))

    def bump(**at: Any) -> Any:
        # Vanishes with its slope at every end: conditions cannot give it away.
        out: Any = 1.0
        for n in names:
            low, high = bounds[n]
            s = (np.asarray(at[n], dtype=float) - low) / (high - low)
            out = out * (16 * s**2 * (1 - s) ** 2)
        return out

    yield "exact", exact
    yield "zero", lambda **at: 0.0 * exact(**at)
    yield "constant", lambda **at: 0.0 * exact(**at) + 1.0
    for size in (1e-5, 1e-4, 2e-3, 1e-2, 1e-1):
        yield f"times {1 + size:g}", lambda size=size, **at: (1 + size) * exact(**at)
        yield f"plus {size:g} bump", lambda size=size, **at: exact(**at) + size * bump(**at)
    for size in (2e-3, 5e-2):
        first = names[0]
        yield (
            f"shifted in {first} by {size:g}",
            lambda size=size, first=first, **at: exact(
                **{**at, first: np.asarray(at[first]) - size}
            ),
        )


def _plain(expr: sp.Expr) -> dict[Any, Any]:
    return {c: sp.Symbol(str(c)) for c in expr.free_symbols}


def judged_candidates(tally: Tally, exact: bool) -> None:
    """`pk.verify` on every candidate, with the exact solution withheld unless `exact`."""
    names = ("Heat1D", "Poisson1D", "Helmholtz2D", "Wave", "Advection", "Convection(beta=10)")
    for name in (*names, "Reaction", "Logistic", "LayeredConduction", "FisherKPP"):
        problem = PROBLEMS[name]()
        truth = common.truth_of(problem)
        assert truth is not None, name
        judged = problem.system if exact else without_exact(problem)
        for label, candidate in candidates(problem):
            _judge(tally, f"{name}, {label}", judged, candidate, truth)
    # The classics: zero residual almost everywhere, and wrong.
    burgers = gallery.Burgers()
    truth = common.truth_of(burgers)
    assert truth is not None
    _judge(
        tally,
        "Burgers, zero away from t = 0",
        burgers.system,
        lambda t, x: np.where(np.asarray(t) > 0, 0.0, -np.sin(np.pi * np.asarray(x))),
        truth,
    )
    layers = gallery.LayeredConduction()
    truth = common.truth_of(layers)
    assert truth is not None
    judged = layers.system if exact else without_exact(layers)
    _judge(tally, "LayeredConduction, u = x", judged, lambda x: 1.0 * np.asarray(x), truth)


def _judge(
    tally: Tally, name: str, problem: Any, candidate: Callable[..., Any], truth: common.Truth
) -> None:
    verdict = pk.verify(problem, candidate)
    true = common.error_of(candidate, truth)
    tally.add(f"verify: {name}", bool(verdict.ok), true, verdict.error)
    print(f"verify: {name}: true {true:.2e}, says {verdict.error} ok={verdict.ok}", flush=True)


def main() -> int:
    """Run, count, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--time-limit", type=float, default=20.0, help="seconds of the full budget")
    parser.add_argument("--only", nargs="+", choices=list(PROBLEMS), default=list(PROBLEMS))
    parser.add_argument("--skip-candidates", action="store_true")
    parser.add_argument("--skip-solves", action="store_true")
    parser.add_argument("--exact", action="store_true", help="declare exact solutions, if known")
    parser.add_argument("--data", type=pathlib.Path, default=None, help="folder of reference files")
    args = parser.parse_args()
    solved, verified = Tally(), Tally()
    with common.measured(f"Honesty, tolerance {TOL:g}"):
        if not args.skip_solves:
            chosen = {k: PROBLEMS[k] for k in args.only}
            solves(solved, chosen, args.time_limit, args.data, args.exact)
        if not args.skip_candidates:
            judged_candidates(verified, args.exact)
        common.print_table(
            ["answers", "judged", "good", "false ok", "too timid", "share of good", "refused"],
            [
                [what, t.total, t.good, t.false_ok, t.timid, f"{t.share():.0%}", t.refused]
                for what, t in (("solves", solved), ("candidates", verified))
            ],
        )
        if solved.offenders or verified.offenders:
            common.print_table(
                ["answer", "fault", "true error", "says"], solved.offenders + verified.offenders
            )
    fair = all(t.false_ok == 0 and t.share() <= 0.1 for t in (solved, verified))
    return int(not fair)


if __name__ == "__main__":
    sys.exit(main())
