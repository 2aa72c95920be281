"""Error against time: variants of training, a race of the optimisers, a race of the ingredients.

    python benchmarks/race.py                                   Burgers and Allen-Cahn, all variants
    python benchmarks/race.py --case kdv --variant default --variant "uniform points" --seconds 60
    python benchmarks/race.py --optimisers                      four problems, all optimisers
    python benchmarks/race.py --ingredients --seconds 20 --threads 1 --processor-time
    python benchmarks/race.py --case wave --optimiser SOAP --optimiser L-BFGS --seconds 60 --seed 0 --seed 1

The true error is measured by a callback that training does not see, and whose time does not count.

All optimisers run on the same network, residuals, causal weights and stopping rules for the same
seconds. What is counted in steps or readings is set to what a step costs: Gauss-Newton takes fresh
small batches and reads the probe every 10 steps, quasi-Newton methods keep 3000 points for 200 steps
and read it every 20, first-order methods every 50. There is one window, as the rule that halves a
window counts readings too.

Ingredients are changed one at a time against the defaults, networks at about 2,000 trainable numbers,
and the seconds are the solve's own time limit, by which windows share their time.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import pathlib
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import _common as common
import numpy as np
import torch

import pinnkit as pk
from pinnkit import problems  # pyright: ignore[reportAttributeAccessIssue]
from pinnkit.lower.sampling import interior_points
from pinnkit.nn import MLP, Chain, ModifiedMLP, PirateNet, RandomFourierFeatures
from pinnkit.solvers import CausalPINN
from pinnkit.solvers.collocation import Batch, Collocation, Part
from pinnkit.train import LBFGS, SOAP, Adam, GaussNewton, NysNewtonCG, SelfScaledBroyden
from pinnkit.train.parameters import flat_parameters

CASES = {
    "burgers": problems.Burgers,
    "allen-cahn": problems.AllenCahn,
    "allen-cahn-smooth": problems.AllenCahnSmooth,
    "kdv": problems.KdV,
    "heat": problems.Heat1D,
    "wave": lambda: problems.Wave(k=2),
    "poisson-2d": problems.Poisson2D,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "uniform points": {"adaptive": False},
    "no momentum": {"optimiser": GaussNewton(momentum=0.0)},
    "three rows per parameter": {"points": 6000},
    "never more points": {"points": 800, "most_points": 800},
    "conditions x 1000": {"condition_weight": 1000.0},
    "no causality": {"schedule": pk.CausalSchedule(strengths=())},
    "self-scaled Broyden": {"optimiser": SelfScaledBroyden(), "points": 3000},
    "Adam": {"optimiser": Adam(), "points": 2000},
}
SECOND_ORDER: dict[str, Any] = {"windows": 1}
QUASI_NEWTON: dict[str, Any] = {"windows": 1, "points": 3000, "probe_every": 20}
FIRST_ORDER: dict[str, Any] = {"windows": 1, "points": 2000, "probe_every": 50}
OPTIMISERS: dict[str, dict[str, Any]] = {
    "Gauss-Newton": {"optimiser": GaussNewton(), **SECOND_ORDER},
    "Gauss-Newton, sketched": {"optimiser": GaussNewton(sketch=200), **SECOND_ORDER},
    "Newton-CG": {"optimiser": NysNewtonCG(), **SECOND_ORDER},
    "Newton-CG, Hessian": {
        "optimiser": NysNewtonCG(curvature="hessian"), **SECOND_ORDER, "points": 2000,
    },
    "self-scaled Broyden": {"optimiser": SelfScaledBroyden(), **QUASI_NEWTON},
    "L-BFGS": {"optimiser": LBFGS(), **QUASI_NEWTON},
    "SOAP": {"optimiser": SOAP(), **FIRST_ORDER},
    "Adam": {"optimiser": Adam(), **FIRST_ORDER},
}  # fmt: skip
SHARES = (0.125, 0.25, 0.5, 0.75, 1.0)  # of the seconds, at which the error is measured


def fourier_network(inputs: int, outputs: int, *, generator: Any, dtype: Any) -> Chain:
    """Random Fourier features and a network that has as many trainable numbers as the default."""
    features = RandomFourierFeatures(inputs, 16, generator=generator, dtype=dtype)
    mlp = MLP(features.outputs, outputs, 21, 4, generator=generator, dtype=dtype)
    return Chain(features, mlp)


RETAIN = "R3"  # not a setting of the solver: see `retained_points`
BALANCED = {"gradient norms": False, "NTK": True}  # nor are these: see `balanced_conditions`
BALANCE_EVERY, BALANCE_MEMORY = 10, 0.9  # batches between looks; share of the weight that stays
MOST = 1e6  # weight of conditions: the gradient of what holds exactly vanishes
INGREDIENTS: dict[str, Callable[[int, int], dict[str, Any]]] = {  # of the default width and depth
    "default": lambda w, d: {},
    "no acceleration": lambda w, d: {"optimiser": GaussNewton(acceleration=False)},
    "no momentum": lambda w, d: {"optimiser": GaussNewton(momentum=0.0)},
    "conditions by residuals": lambda w, d: {"exact": False},
    "gradient norms": lambda w, d: {"exact": False},
    "NTK": lambda w, d: {"exact": False},
    "no causality": lambda w, d: {"schedule": pk.CausalSchedule(strengths=())},
    "uniform points": lambda w, d: {"adaptive": False},
    RETAIN: lambda w, d: {},
    "Glorot start": lambda w, d: {"network": functools.partial(MLP, width=w, depth=d)},
    "factorised weights": lambda w, d: {
        "network": functools.partial(MLP, width=w, depth=d, factorised=True, gain=2.0, spread=1.0)
    },
    "modified MLP": lambda w, d: {"network": functools.partial(ModifiedMLP, width=24, depth=4)},
    "PirateNet": lambda w, d: {"network": functools.partial(PirateNet, width=15, depth=2)},
    "random Fourier features": lambda w, d: {"network": fourier_network},
    "1 harmonic": lambda w, d: {"harmonics": 1},
    "1 window": lambda w, d: {"windows": 1},
    "5 windows": lambda w, d: {"windows": 5},
    "10 windows": lambda w, d: {"windows": 10},
    "patience 2": lambda w, d: {"patience": 2},
    "patience 15": lambda w, d: {"patience": 15},
}
DEFAULT_SIZES = {"kdv": (40, 2)}  # where windows are short; else 25 x 4
NOT_ANOTHER = {  # what is the default there, or has no meaning
    "burgers": ("1 harmonic", "1 window"),
    "allen-cahn": ("1 window", "conditions by residuals"),
    "allen-cahn-smooth": ("1 window",),
    "kdv": ("10 windows",),
}


@contextlib.contextmanager
def retained_points() -> Iterator[None]:
    """R3: points whose residual exceeds the mean stay for the next batch, the others are drawn anew.

    Not in the library. References: daw2023mitigating.
    """
    kept: weakref.WeakKeyDictionary[Any, torch.Tensor] = weakref.WeakKeyDictionary()  # by window

    def interior(
        self: Any, index: int, n: int, generator: Any, adaptive: bool, time_weight: Any
    ) -> torch.Tensor:
        old = kept.get(self) if adaptive else None  # the held-out points are uniform
        count = n if old is None else n - len(old)
        fresh = self._place(interior_points(self.nf, count, generator, bounds=self.bounds))
        if not adaptive:
            return fresh
        points = fresh if old is None else torch.cat([old, fresh])
        with torch.no_grad():
            size = self.columns(index, points).norm(dim=1)
        if time_weight is not None:
            size = size * time_weight(self.scaled_times(points)).sqrt()
        kept[self] = points[size > size.mean()][: n - 1]
        return points

    with mock.patch.object(Collocation, "_interior", interior):
        yield


@contextlib.contextmanager
def balanced_conditions(ntk: bool) -> Iterator[None]:
    """Conditions weighted by the share they have in the gradient, or in the trace of the tangent kernel.

    lambda_k = |grad L_equations| / |grad L_k|, or the mean diagonal of J J^T over the equations' rows
    divided by that over the rows of k, as a running mean; one for every group of conditions. Not in
    the library. References: wang2023experts.
    """
    chosen: weakref.WeakKeyDictionary[Any, dict[int, float]] = weakref.WeakKeyDictionary()
    looks: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
    part_of, draw_of = Collocation._part, Collocation.draw

    def part(self: Any, index: int, points: torch.Tensor) -> Part:
        made = part_of(self, index, points)
        factor = chosen.get(self, {}).get(index, self.condition_weight) / self.condition_weight
        inside = self.groups[index].kind == "interior"
        return made if inside else Part(index, points, made.weights * factor)

    def strength(self: Any, parts: list[Part]) -> float:
        theta = flat_parameters(self.params)
        bare = [Part(p.index, p.points, torch.ones_like(p.weights) / len(p.points)) for p in parts]
        r, rows = Batch(self, bare).rows(theta)
        count = sum(p.weights.shape[1] for p in bare)
        return float(rows.square().sum() / count if ntk else (rows.T @ r).norm())

    def draw(self: Any, *args: Any, **settings: Any) -> Batch:
        batch = draw_of(self, *args, **settings)
        looks[self] = looks.get(self, -1) + 1  # the first batch is the probe
        conditions = [p for p in batch.parts if self.groups[p.index].kind != "interior"]
        if conditions and looks[self] % BALANCE_EVERY == 1:
            inside = [p for p in batch.parts if self.groups[p.index].kind == "interior"]
            equations = strength(self, inside)
            known: dict[int, float] = chosen.get(self, {})
            chosen[self] = known
            for p in conditions:
                new = equations / max(strength(self, [p]), 1e-30)
                old = known.get(p.index, float(self.condition_weight))
                known[p.index] = BALANCE_MEMORY * old + (1 - BALANCE_MEMORY) * min(new, MOST)
        return batch

    with (
        mock.patch.object(Collocation, "_part", part),
        mock.patch.object(Collocation, "draw", draw),
    ):
        yield


def patched(name: str) -> contextlib.AbstractContextManager[None]:
    """What an ingredient changes in the library, if it is no setting."""
    if name == RETAIN:
        return retained_points()
    return balanced_conditions(BALANCED[name]) if name in BALANCED else contextlib.nullcontext()


def as_callable(problem: Any, answer: Any) -> Any:
    """The field of an unfinished answer as a function of the coordinates by name."""
    names = [str(c) for c in problem.coords]

    def field(**at: Any) -> np.ndarray:
        grid = np.broadcast_arrays(*(at[n] for n in names))
        points = torch.tensor(np.stack([g.ravel() for g in grid], 1), dtype=torch.float64)
        with torch.no_grad():
            values = answer.approximation.derivatives(points, [(0, (0,) * len(names))])[0]
        return values.numpy().reshape(grid[0].shape)

    return field


def run(
    case: str,
    settings: dict[str, Any],
    truth: common.Truth,
    seconds: float,
    seed: int,
    limit: float | None = None,
) -> list[str]:
    """Steps, seconds used, and the errors at `SHARES` of the seconds, of one run.

    `limit` is the time limit the solver plans its windows with; the run ends by its own count.
    """
    problem, solver = CASES[case](), CausalPINN(**settings)
    started, paused, marks, errors = time.perf_counter(), 0.0, list(SHARES[:-1]), []
    steps, spent = 0, 0.0

    def look(info: Any) -> bool:
        nonlocal paused, steps, spent
        now = time.perf_counter()
        steps, spent = info.step, now - started - paused
        if marks and spent > marks[0] * seconds:
            answer = solver.finish(problem.system, info.state)
            error = f"{common.error_of(as_callable(problem, answer), truth):.1e}"
            while marks and spent > marks[0] * seconds:  # one long step may pass several
                marks.pop(0)
                errors.append(error)
            paused += time.perf_counter() - now
        return spent > seconds

    sol = problem.solve(solver, time_limit=limit, seed=seed, callback=look, verify=False)
    last = f"{common.error_of(sol, truth):.1e}"
    # Training that has stalled ends early; its answer is what it would be at all later times.
    return [str(steps), f"{spent:.0f}", *errors, *[last] * (len(SHARES) - len(errors))]


TITLES = {
    "variant": "Training variants",
    "optimiser": "Optimisers",
    "ingredient": "Ingredients",
}
USUAL_CASES = {
    "variant": ["burgers", "allen-cahn"],
    "optimiser": ["burgers", "allen-cahn-smooth", "wave", "poisson-2d"],
    "ingredient": ["burgers", "allen-cahn-smooth", "kdv"],
}


def settings_of(kind: str, name: str, case: str) -> dict[str, Any]:
    """Arguments of `CausalPINN` for one runner."""
    if kind == "ingredient":
        return INGREDIENTS[name](*DEFAULT_SIZES.get(case, (25, 4)))
    return (OPTIMISERS if kind == "optimiser" else VARIANTS)[name]


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--case", action="append", choices=sorted(CASES))
    parser.add_argument("--variant", action="append", choices=sorted(VARIANTS))
    parser.add_argument("--optimisers", action="store_true", help="race all of them")
    parser.add_argument("--optimiser", action="append", choices=sorted(OPTIMISERS))
    parser.add_argument("--ingredients", action="store_true", help="race all of them")
    parser.add_argument("--ingredient", action="append", choices=sorted(INGREDIENTS))
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", action="append", type=int, help="may be repeated (default 0)")
    parser.add_argument("--data", type=pathlib.Path, default=None, help="folder of reference files")
    parser.add_argument("--threads", type=int, default=None, help="of torch")
    parser.add_argument(
        "--processor-time", action="store_true", help="seconds of this process, for busy machines"
    )
    args = parser.parse_args()
    chosen = {
        "variant": args.variant,
        "optimiser": args.optimiser or (list(OPTIMISERS) if args.optimisers else None),
        "ingredient": args.ingredient or (list(INGREDIENTS) if args.ingredients else None),
    }
    races = [kind for kind, names in chosen.items() if names]
    if len(races) > 1:
        parser.error(f"{' and '.join(races)}: one race at a time")
    kind = races[0] if races else "variant"
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    if args.processor_time:
        # For all who ask the time, solvers that share it among their windows too.
        time.perf_counter = time.process_time
    rows = []
    with common.measured(f"{TITLES[kind]}, error against time"):
        for case in args.case or USUAL_CASES[kind]:
            truth = common.truth_of(CASES[case](), args.data)
            assert truth is not None
            for name in chosen[kind] or VARIANTS:
                if kind == "ingredient" and name in NOT_ANOTHER.get(case, ()):
                    continue
                settings = settings_of(kind, name, case)
                limit = args.seconds if kind == "ingredient" else None
                for seed in args.seed or [0]:
                    with patched(name):
                        found = run(case, settings, truth, args.seconds, seed, limit)
                    rows.append([case, name, str(seed), *found])
                    print(*rows[-1], flush=True)
        times = [f"{share * args.seconds:g} s" for share in SHARES]
        common.print_table(["case", kind, "seed", "steps", "ended at", *times], rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
