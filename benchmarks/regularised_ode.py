"""Regularisation by the solver's own error estimate: evaluations, accuracy, training time, paired by seed.

In    nothing for the spiral; the folder of `.ts` files for the classification set:
      `python benchmarks/regularised_ode.py --data FOLDER [--seeds ...] [--out FILE] [--stored FILE]`.
Out   a Markdown table, and a line of JSON per run in FILE. Bars: evaluations of the right-hand side in a
      prediction at most 0.75 times those of the plain model, accuracy at most 1 % lower, training time at
      most 1.3 times, for unbiased and biased sampling.
Next  docs/neural_ode.md.

Both are neural ordinary equations in a latent space, integrated by Dormand and Prince's method in
training and in prediction: z(0) is an affine map of what is known at the start, dz/dt = f(t, z), an affine
readout. The spiral's targets are 30 points of its orbit; of ItalyPowerDemand the whole series (24
values) is the start, as an image is in the published experiments. Every variant sees the same series,
split, first weights and order of batches; only the penalty differs. Seconds are of one thread's processor
time.
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
import time
from typing import Any

import numpy as np
import sympy as sp
import torch
from _common import measured, print_table, report
from scipy.integrate import solve_ivp

import pinnkit as pk
from pinnkit.neural_de import DormandPrince, LocalError
from pinnkit.solution.series_model import SeriesBatch

SAMPLINGS = ("none", "unbiased", "biased", "global")
T_QUANTILE = {
    2: 4.303,
    4: 2.776,
    7: 2.365,
    9: 2.262,
}  # two-sided 95 per cent, by degrees of freedom
t = pk.coords("t")


def spiral_series(n: int, seed: int) -> pk.IrregularSeries:
    """Starts on a ring; the targets are the orbit."""
    rng = np.random.default_rng(seed)
    angle, radius = rng.uniform(0, 2 * np.pi, n), rng.uniform(1, 1.6, n)
    starts = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    times = np.linspace(0, 1, 30)

    def rates(_: float, z: np.ndarray) -> np.ndarray:
        a, b = z.reshape(2, -1) ** 3
        return np.concatenate([-0.1 * a + 2 * b, -2 * a - 0.1 * b])

    run = solve_ivp(rates, (0, 1), starts.T.ravel(), t_eval=times, rtol=1e-8, atol=1e-10)
    orbit = run.y.reshape(2, n, -1).transpose(1, 2, 0)
    # Only the start is seen: the first row is repeated.
    return pk.IrregularSeries(times, np.repeat(starts[:, None], 30, 1), targets=list(orbit))


def power_series(data: pathlib.Path) -> tuple[pk.IrregularSeries, pk.IrregularSeries]:
    """Training and test set; a series becomes 24 channels that stand still."""
    parts = []
    for part in ("TRAIN", "TEST"):
        raw = pk.IrregularSeries.from_ts(data / f"ItalyPowerDemand_{part}.ts")
        flat = np.stack([v[:, 0] for v in raw.values])
        still = np.repeat(flat[:, None], 2, axis=1)
        parts.append(pk.IrregularSeries([0.0, 1.0], still, labels=raw.labels))
    # The archive trains on 67 series and tests on 1029: too few to tell 1 % of accuracy apart.
    both = np.concatenate([np.stack(p.values) for p in parts])
    labels = np.concatenate([p.labels for p in parts])  # type: ignore[misc]
    train, test = pk.IrregularSeries([0.0, 1.0], both, labels=labels).split((0.5, 0.5), seed=0)
    return train, test


# Chosen on other seeds than the table's: ItalyPowerDemand's on 100; the spiral's on 11 and 12, of 0.002 and 0.005.
CASES: dict[str, dict[str, Any]] = {
    "ItalyPowerDemand": {
        "dim": 24, "width": 32, "epochs": 12, "batch": 64, "lr": 5e-3, "tol": 1e-6, "time": True,
        "kind": "error", "weight": 10.0,
    },
    "spiral": {
        "dim": 8, "width": 32, "epochs": 250, "batch": 128, "lr": 1e-2, "tol": 1e-6, "time": False,
        "kind": "steps", "weight": 0.002,
    },
}  # fmt: skip


def run(
    case: str, sampling: str, seed: int, data: pathlib.Path | None, changes: dict[str, Any]
) -> dict[str, Any]:
    """Train once; count a prediction's evaluations on the test set."""
    knobs = CASES[case] | changes
    if case == "spiral":
        train, test = spiral_series(128, 1000 + seed), spiral_series(128, 2000 + seed)
    else:
        assert data is not None
        train, test = power_series(data)
    z = pk.process("z", t, dim=knobs["dim"])
    f = pk.neural("f", inputs=(t, z) if knobs["time"] else (z,))
    system = pk.SDESystem([sp.Eq(pk.d(z), f * pk.d(t))], data=train)
    by = (
        None
        if sampling == "none"
        else LocalError(
            weight=knobs["weight"],
            final=knobs.get("final"),
            kind=knobs["kind"],
            sampling=sampling,
            rtol=knobs["tol"],
            atol=knobs["tol"],
        )
    )
    solver = pk.NeuralSDE(
        method=DormandPrince(rtol=knobs["tol"], atol=knobs["tol"]),
        width=knobs["width"],
        depth=2,
        epochs=knobs["epochs"],
        patience=knobs["epochs"],
        batch=knobs["batch"],
        lr=knobs["lr"],
        samples=1,
        regularise=by,
    )
    began = time.process_time()
    sol = system.solve(solver, seed=seed, time_limit=None)
    seconds = time.process_time() - began
    module = sol.module
    with torch.no_grad():
        batch = SeriesBatch.of(
            test, module.normalisation, module.task, module.kind, sol.dtype, sol.device
        )
        module.integrate(batch, 0)
        began = time.process_time()
        for _ in range(5):
            walked = module.integrate(batch, 0)
        predicting = (time.process_time() - began) / 5
    return {
        "case": case,
        "sampling": sampling,
        "seed": seed,
        "kind": knobs["kind"] if by else "none",
        "weight": knobs["weight"] if by else 0.0,
        "final": knobs.get("final") if by else None,
        "epochs": knobs["epochs"],
        "evaluations": walked.evaluations,
        "score": sol.score(test),
        "seconds": seconds,
        "predicting": predicting,
        "steps": sol.stats.steps,
    }


def interval(values: list[float]) -> str:
    """Mean with a 95 % t interval."""
    n, mean = len(values), float(np.mean(values))
    if n - 1 not in T_QUANTILE:
        return f"{mean:.3f}"
    half = T_QUANTILE[n - 1] * float(np.std(values, ddof=1)) / math.sqrt(n)
    return f"{mean:.3f} ± {half:.3f}"


def key_of(row: dict[str, Any]) -> tuple[str, str, str, int]:
    """What a run is, whatever its weight: case, kind, sampling, seed."""
    return row["case"], row["kind"], row["sampling"], row["seed"]


def _order(kind_and_sampling: tuple[str, str]) -> tuple[str, int]:
    kind, sampling = kind_and_sampling
    return ("" if kind == "none" else kind), SAMPLINGS.index(sampling)


def show(runs: list[dict[str, Any]]) -> None:
    """Ratios to the plain model of the same seed."""
    by = {key_of(r): r for r in runs}
    rows = []
    for case in CASES:
        for kind, sampling in sorted({k[1:3] for k in by if k[0] == case}, key=_order):
            own = [r for k, r in sorted(by.items()) if k[:3] == (case, kind, sampling)]
            plain = [by.get((case, "none", "none", r["seed"])) for r in own]
            pairs = [(a, b) for a, b in zip(own, plain) if b is not None]
            if not pairs:
                continue
            ratios = {
                key: [a[key] / b[key] for a, b in pairs]
                for key in ("evaluations", "score", "seconds", "predicting")
            }
            rows.append(
                [
                    case,
                    kind,
                    sampling,
                    len(pairs),
                    f"{np.mean([a['evaluations'] for a, _ in pairs]):.0f}",
                    f"{np.mean([a['score'] for a, _ in pairs]):.4f}",
                    *(interval(ratios[k]) for k in ratios),
                ]
            )
    headers = [
        "case", "kind", "sampling", "seeds", "evaluations", "score",
        "evaluations / plain", "score / plain", "training time / plain", "prediction time / plain",
    ]  # fmt: skip
    print_table(headers, rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--case", action="append", choices=sorted(CASES))
    parser.add_argument("--sampling", action="append", choices=SAMPLINGS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    for name, of in (("kind", str), ("weight", float), ("final", float), ("epochs", int)):
        parser.add_argument(f"--{name}", type=of, default=None, help="instead of the case's own")
    parser.add_argument("--data", type=pathlib.Path, default=None)
    parser.add_argument("--out", type=pathlib.Path, default=None)
    parser.add_argument("--stored", type=pathlib.Path, default=None)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.stored is not None:
        show([json.loads(line) for line in args.stored.read_text().splitlines() if line])
    else:
        with measured("Regularised neural ordinary equations"):
            lines = args.out.read_text().splitlines() if args.out and args.out.exists() else []
            found = [json.loads(line) for line in lines if line]
            done = {key_of(r) for r in found}
            given = {k: getattr(args, k) for k in ("kind", "weight", "final", "epochs")}
            changes = {k: v for k, v in given.items() if v is not None}
            for s in args.seeds:
                for name in args.case or [c for c in CASES if c == "spiral" or args.data]:
                    penalty = args.kind or CASES[name]["kind"]
                    for sampled in args.sampling or SAMPLINGS:
                        if (name, "none" if sampled == "none" else penalty, sampled, s) in done:
                            continue
                        found.append(run(name, sampled, s, args.data, changes))
                        report(found[-1], args.out)
            show(found)
