"""Irregular classification: stable neural SDEs against the unconstrained one, a neural CDE and a GRU.

In    `python benchmarks/stable_classification.py --data FOLDER --out FILE [--part PART]`; FOLDER holds
      NAME_TRAIN.ts and NAME_TEST.ts of the sets below; rows that FILE holds are not run again.
Out   JSON rows in FILE, and with `--stored FILE` the tables made of them:
      setting  the held-out loss of two candidates for each model, on sets that are in no table
      table    accuracy at 0, 50 and 70 % missing
      shift    trained at 30 % missing, tested at 30 and at 70 %
Next  docs/neural_sde.md.

The same for every model: the series joined and split 70/15/15 by seed (stratified; learned, held out, tested),
what is missing (per channel, by seed), normalisation and control path from what was observed, width,
depth, batches, steps, number of candidates, the weights that do best on the held-out part. The test part
is scored once. What networks see of the path (its mean and increment over each step), the depth and the
number of steps were chosen with `LangevinSDE` on GunPoint and SyntheticControl at 50 % missing, seed 7;
the intervals (`cluster_t`, with `within_t` beside it) before any row of the tables existed.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import math
import pathlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from _common import hardware, print_table
from _paired import Paired, cluster_bootstrap, cluster_t, within_t

import pinnkit as pk
from pinnkit.problems import IrregularClassification  # pyright: ignore[reportMissingImports]

SETS = ("BasicMotions", "JapaneseVowels", "Epilepsy", "ItalyPowerDemand")
RATES = (0.0, 0.5, 0.7)
SHIFT = (0.3, 0.7)
SEEDS = (6, 7, 8)
OTHER_SETS, OTHER_RATE, OTHER_SEED = ("SyntheticControl", "GunPoint"), 0.5, 7

NAIVE, DRIVEN, RECURRENT = "neural SDE", "neural CDE", "GRU"
BLIND = "neural SDE, z(0) only"  # as published: the path is not in its drift
PLAIN: dict[str, Callable[..., Any]] = {
    RECURRENT: pk.SeriesTarget,
    DRIVEN: pk.NeuralCDE,
    NAIVE: pk.UnconstrainedSDE,
    BLIND: functools.partial(pk.UnconstrainedSDE, controlled=False),
    "LSDE": pk.LangevinSDE,
    "LNSDE": pk.LinearNoiseSDE,
    "GSDE": pk.GeometricSDE,
}
STABLE = ("LSDE", "LNSDE", "GSDE", "LSDE, bounded", "LNSDE, bounded", "GSDE, bounded")
MODELS = (RECURRENT, DRIVEN, NAIVE, BLIND, *STABLE)

# Two candidates for each model, (learning rate, pace), judged by part `setting`; the first is the default.
BY_RATE = ((1e-2, 8.0), (3e-3, 8.0))
BY_PACE = ((1e-2, 8.0), (1e-2, 24.0))
CHOSEN: dict[str, tuple[float, float]] = dict.fromkeys(
    (NAIVE, BLIND, "LSDE", "LNSDE", "GSDE", "GSDE, bounded"), (1e-2, 24.0)
)

DIM = WIDTH = 32
DEPTH = 2
TRAINING_STEPS = 160
GRID = 16  # integration steps, unless the series are shorter
BATCH = 128  # at most, and at most half of the series learned from
HELD_OUT = 0.15 / 0.85

Row = dict[str, Any]


def equation(model: str, pace: float) -> Callable[..., Any]:
    """What makes the problem of `data` and `dim`."""
    if model == RECURRENT:
        return pk.SeriesTarget
    if model in PLAIN:
        return functools.partial(PLAIN[model], pace=pace)
    name, _, form = model.partition(", ")
    return functools.partial(PLAIN[name], pace=pace, form=form)


def train(
    name: str,
    model: str,
    missing: float,
    seed: int,
    folder: str,
    candidate: tuple[float, float] | None = None,
) -> tuple[Any, Row]:
    """The trained model, and what its training was like."""
    lr, pace = candidate or CHOSEN.get(model, BY_RATE[0])
    made = equation(model, pace)
    problem = IrregularClassification(made, folder, name, missing, dim=DIM, seed=seed)
    learned, _ = problem.parts()
    half = round((1 - HELD_OUT) * len(learned)) // 2
    solver = pk.NeuralSDE(
        width=WIDTH,
        depth=DEPTH,
        steps=min(GRID, int(learned.lengths.max()) - 1),
        batch=min(BATCH, 2 ** int(math.log2(half))),
        lr=lr,
        epochs=TRAINING_STEPS,
        patience=TRAINING_STEPS,
        held_out=HELD_OUT,
        reads="steps",
    )
    began = time.process_time()
    sol = problem.solve(
        solver, seed=seed, max_steps=TRAINING_STEPS, time_limit=None, dtype=torch.float32, progress=False
    )  # fmt: skip
    losses = np.array([float(loss) for loss in sol.history.losses["loss"]])
    smooth = np.convolve(losses, np.ones(10) / 10, "valid")
    return sol, {
        "set": name,
        "missing": missing,
        "seed": seed,
        "model": model,
        "lr": lr,
        "pace": pace,
        "training loss": float(smooth.min()) if len(smooth) else math.nan,
        "held-out loss": sol.stats.more["validation"],
        "steps": sol.stats.steps,
        "parameters": sol.stats.parameters,
        "status": sol.status.name,
        "seconds": time.process_time() - began,
    }


Work = Iterator[tuple[Row, Callable[[], Row]]]  # what names a row, and what makes it


def candidates(model: str) -> tuple[tuple[float, float], ...]:
    """Rates for the models without noise, paces for those with."""
    return BY_RATE if model in (RECURRENT, DRIVEN) else BY_PACE


def setting(args: argparse.Namespace) -> Work:
    """The candidates of each model, judged by the held-out loss; nothing is tested."""
    for name, model in itertools.product(OTHER_SETS, args.models):
        for lr, pace in candidates(model):
            key = {"part": "setting", "set": name, "model": model, "lr": lr, "pace": pace}
            yield key, functools.partial(_untested, name, model, (lr, pace), args.data)


def _untested(name: str, model: str, candidate: tuple[float, float], folder: str) -> Row:
    return train(name, model, OTHER_RATE, OTHER_SEED, folder, candidate)[1]


def table(args: argparse.Namespace) -> Work:
    """Every model at every rate; seeds outermost, so that an interrupted run is still balanced."""
    for seed, rate, name, model in itertools.product(args.seeds, RATES, SETS, args.models):
        key = {"part": "table", "set": name, "missing": rate, "seed": seed, "model": model}
        yield key, functools.partial(_tested, name, model, rate, seed, args.data)


def _tested(name: str, model: str, rate: float, seed: int, folder: str) -> Row:
    sol, row = train(name, model, rate, seed, folder)
    return row | {"accuracy": sol.score(sol.problem.parts()[1])}


def shift(args: argparse.Namespace) -> Work:
    """Trained with few gaps, tested with many in the same series."""
    for seed, name, model in itertools.product(args.seeds, SETS, args.models):
        key = {"part": "shift", "set": name, "seed": seed, "model": model}
        yield key, functools.partial(_shifted, name, model, seed, args.data)


def _shifted(name: str, model: str, seed: int, folder: str) -> Row:
    sol, row = train(name, model, SHIFT[0], seed, folder)
    near, far = (sol.score(sol.problem.parts(rate)[1]) for rate in SHIFT)
    return row | {"accuracy": near, "accuracy shifted": far}


PARTS = {"setting": setting, "table": table, "shift": shift}


def read(path: pathlib.Path | None) -> list[Row]:
    if path is None or not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def work(args: argparse.Namespace, part: str) -> None:
    """Run what is not in the file yet."""
    for key, run in PARTS[part](args):
        if any(all(row.get(k) == v for k, v in key.items()) for row in args.rows):
            continue
        row = key | run()
        args.rows.append(row)
        if args.out is not None:
            with args.out.open("a") as file:
                file.write(json.dumps(row) + "\n")
        shown = {
            k: v for k, v in row.items() if k in ("accuracy", "accuracy shifted", "held-out loss")
        }
        print(*key.values(), *(f"{k} {v:.3f}" for k, v in shown.items()), f"{row['seconds']:.1f} s")


# --- tables of stored rows ------------------------------------------------------------------------------


def cells(rows: Sequence[Row], part: str, value: Callable[[Row], float]) -> dict[Any, float]:
    """{(model, set, missing, seed): value in points}."""
    return {
        (r["model"], r["set"], r["missing"], r["seed"]): 100 * value(r)
        for r in rows
        if r["part"] == part
    }


Interval = Callable[[dict[str, list[float]]], Paired]
INTERVALS: dict[str, Interval] = {
    "other sets": cluster_t,
    "these sets, other splits": within_t,
    "other sets, by bootstrap": cluster_bootstrap,
}


def compare(
    found: dict[Any, float], model: str, against: str, interval: Interval = cluster_t
) -> Paired | None:
    """Differences over the cells that both models have, clustered by data set.

    The rates of a set share split and seed, so their mean is one cell.
    """
    splits: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (owner, name, rate, seed), value in found.items():
        if owner == model and (against, name, rate, seed) in found:
            splits[name][seed].append(value - found[against, name, rate, seed])
    pairs = {n: [float(np.mean(v)) for v in seeds.values()] for n, seeds in splits.items()}
    return interval(pairs) if pairs else None


def mean_of(found: dict[Any, float], model: str, **where: Any) -> str:
    names = {"name": 1, "missing": 2}
    kept = [
        v
        for k, v in found.items()
        if k[0] == model and all(k[names[n]] == w for n, w in where.items())
    ]
    return f"{np.mean(kept):.1f} ({len(kept)})" if kept else "-"


def show(rows: Sequence[Row]) -> None:
    """Accuracies, paired differences, drops under shift."""
    models = [m for m in MODELS if any(r["model"] == m for r in rows)]
    show_setting([r for r in rows if r["part"] == "setting"])
    accuracy = cells(rows, "table", lambda r: r["accuracy"])
    print("\nAccuracy in %, mean over sets and seeds (cells), and lowest training loss\n")
    loss = cells(rows, "table", lambda r: r["training loss"] / 100)
    print_table(
        [
            "model",
            *(f"{100 * r:.0f} % missing" for r in RATES),
            *SETS,
            "training loss",
            "parameters",
        ],
        [
            [
                m,
                *(mean_of(accuracy, m, missing=r) for r in RATES),
                *(mean_of(accuracy, m, name=n) for n in SETS),
                _mean([v for k, v in loss.items() if k[0] == m]),
                _range([r["parameters"] for r in rows if r["model"] == m and r["part"] == "table"]),
            ]
            for m in models
        ],
    )
    for of, interval in INTERVALS.items():
        print(f"Paired differences in points, 95 % interval for {of}\n")
        print_table(
            ["model", f"minus {BLIND}", "better", f"minus {NAIVE}", "better", f"minus {DRIVEN}",
             "not worse by 1.5", f"minus {RECURRENT}"],
            [
                [m, *_verdict(accuracy, m, BLIND, 0.0, interval), *_verdict(accuracy, m, NAIVE, 0.0, interval),
                 *_verdict(accuracy, m, DRIVEN, -1.5, interval), compare(accuracy, m, RECURRENT, interval) or "-"]
                for m in models if m in STABLE
            ],
        )  # fmt: skip
    near = cells(rows, "shift", lambda r: r["accuracy"])
    far = cells(rows, "shift", lambda r: r["accuracy shifted"])
    drop = {k: near[k] - far[k] for k in near}
    less = {k: -v for k, v in drop.items()}
    print("Trained at 30 % missing: accuracy there, at 70 %, and how much less it drops\n")
    print_table(
        ["model", "at 30 %", "at 70 %", "drop",
         *itertools.chain(*((f"less than {NAIVE}, {of}", "robuster") for of in INTERVALS))],
        [
            [m, mean_of(near, m), mean_of(far, m), mean_of(drop, m),
             *itertools.chain(*(("-", "-") if m == NAIVE else _verdict(less, m, NAIVE, 0.0, interval)
                                for interval in INTERVALS.values()))]
            for m in models
        ],
    )  # fmt: skip


def show_setting(rows: Sequence[Row]) -> None:
    """Sums of the held-out losses over the other sets; the lowest is what CHOSEN holds."""
    if not rows:
        return
    found = {(r["model"], r["lr"], r["pace"], r["set"]): r["held-out loss"] for r in rows}
    # A set that was not run leaves nan.
    sums = {
        (m, *c): sum(found.get((m, *c, n), math.nan) for n in OTHER_SETS)
        for m in MODELS
        for c in candidates(m)
    }
    print(f"\nHeld-out losses on {' and '.join(OTHER_SETS)}, summed: learning rate, pace: loss\n")
    print_table(
        ["model", "first", "second"],
        [
            [m, *(f"{lr:g}, {pace:g}: {sums[m, lr, pace]:.3f}" for lr, pace in candidates(m))]
            for m in MODELS
            if any(r["model"] == m for r in rows)
        ],
    )


def _verdict(
    found: dict[Any, float], model: str, against: str, bar: float, interval: Interval
) -> tuple[str, str]:
    paired = compare(found, model, against, interval)
    return ("-", "-") if paired is None else (str(paired), "yes" if paired.low > bar else "no")


def _mean(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f}" if values else "-"


def _range(values: Sequence[int]) -> str:
    return f"{min(values)} to {max(values)}" if values else "-"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", default="data/series", help="folder of the `.ts` files")
    parser.add_argument("--part", action="append", choices=[*PARTS], help="default: all")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument(
        "--out", type=pathlib.Path, help="rows are appended here, and read from here"
    )
    parser.add_argument(
        "--stored", type=pathlib.Path, help="print the tables of this file, run nothing"
    )
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.stored is not None:
        show(read(args.stored))
        return
    print(hardware())
    args.rows = read(args.out)
    for part in args.part or [*PARTS]:
        work(args, part)
    show(args.rows)


main()
