"""Irregular classification: stable neural SDEs against the unconstrained one, a neural CDE and a GRU.

In    `python benchmarks/stable_classification.py --data FOLDER --out FILE [--part PART]`; FOLDER holds
      NAME_TRAIN.ts and NAME_TEST.ts of the sets below; rows that FILE holds are not run again.
Out   JSON rows in FILE, and with `--stored FILE` the tables made of them:
      setting  the held-out loss of each model at three learning rates, on a set that is in no table
      table    accuracy at 0, 50 and 70 % missing
      shift    trained at 30 % missing, tested at 30 and at 70 %
Next  docs/neural_sde.md.

The same for every model: the series joined and split 70/15/15 by seed (stratified; learned, held out, tested),
what is missing (per channel, by seed), normalisation and control path from what was observed, width,
learning rate, batches, steps, early stopping on the held-out part. The test part is scored once.
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
from _paired import Paired, cluster_bootstrap

import pinnkit as pk
from pinnkit.problems import IrregularClassification  # pyright: ignore[reportMissingImports]

SETS = ("BasicMotions", "JapaneseVowels", "Epilepsy", "ItalyPowerDemand")
RATES = (0.0, 0.5, 0.7)
SHIFT = (0.3, 0.7)
SEEDS = (0, 1, 2)
OTHER_SET = "GunPoint"
LEARNING_RATES = (3e-3, 1e-2, 3e-2)

NAIVE, DRIVEN, RECURRENT = "neural SDE", "neural CDE", "GRU"
BOUNDED = {"form": "bounded"}
MODELS: dict[str, Callable[..., Any]] = {
    RECURRENT: pk.SeriesTarget,
    DRIVEN: pk.NeuralCDE,
    NAIVE: pk.UnconstrainedSDE,
    "LSDE": pk.LangevinSDE,
    "LNSDE": pk.LinearNoiseSDE,
    "GSDE": pk.GeometricSDE,
    "LSDE, bounded": functools.partial(pk.LangevinSDE, **BOUNDED),
    "LNSDE, bounded": functools.partial(pk.LinearNoiseSDE, **BOUNDED),
    "GSDE, bounded": functools.partial(pk.GeometricSDE, **BOUNDED),
}
STABLE = tuple(MODELS)[3:]

# One setting for all models, not tuned on what is tested; the part `setting` looks at its learning rate.
DIM = WIDTH = 32
LEARNING_RATE = 1e-2
TRAINING_STEPS = 150
PATIENT_STEPS = 40  # without improvement on the held-out part
GRID = 20  # integration steps, unless the series are shorter
BATCH = 256
HELD_OUT = 0.15 / 0.85

Row = dict[str, Any]


def train(
    name: str, model: str, missing: float, seed: int, lr: float, folder: str
) -> tuple[Any, Row]:
    """The trained model, and what its training was like."""
    problem = IrregularClassification(MODELS[model], folder, name, missing, dim=DIM, seed=seed)
    learned, _ = problem.parts()
    steps = min(GRID, int(learned.lengths.max()) - 1)
    an_epoch = math.ceil(round((1 - HELD_OUT) * len(learned)) / BATCH)
    solver = pk.NeuralSDE(
        width=WIDTH,
        steps=steps,
        batch=BATCH,
        lr=lr,
        epochs=TRAINING_STEPS,
        patience=math.ceil(PATIENT_STEPS / an_epoch),
        held_out=HELD_OUT,
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
        "training loss": float(smooth.min()) if len(smooth) else math.nan,
        "held-out loss": sol.stats.more["validation"],
        "steps": sol.stats.steps,
        "parameters": sol.stats.parameters,
        "status": sol.status.name,
        "seconds": time.process_time() - began,
    }


Work = Iterator[tuple[Row, Callable[[], Row]]]  # what names a row, and what makes it


def setting(args: argparse.Namespace) -> Work:
    """Three learning rates for each model, judged by the held-out loss; nothing is tested."""
    for lr in LEARNING_RATES:
        for model in args.models:
            key = {"part": "setting", "set": OTHER_SET, "model": model, "lr": lr}
            yield key, functools.partial(_untested, model, lr, args.data)


def _untested(model: str, lr: float, folder: str) -> Row:
    return train(OTHER_SET, model, SHIFT[0], 0, lr, folder)[1]


def table(args: argparse.Namespace) -> Work:
    """Every model at every rate; seeds outermost, so that an interrupted run is still balanced."""
    for seed, rate, name, model in itertools.product(args.seeds, RATES, SETS, args.models):
        key = {"part": "table", "set": name, "missing": rate, "seed": seed, "model": model}
        yield key, functools.partial(_tested, name, model, rate, seed, args.data)


def _tested(name: str, model: str, rate: float, seed: int, folder: str) -> Row:
    sol, row = train(name, model, rate, seed, LEARNING_RATE, folder)
    return row | {"accuracy": sol.score(sol.problem.parts()[1])}


def shift(args: argparse.Namespace) -> Work:
    """Trained with few gaps, tested with many in the same series."""
    for seed, name, model in itertools.product(args.seeds, SETS, args.models):
        key = {"part": "shift", "set": name, "seed": seed, "model": model}
        yield key, functools.partial(_shifted, name, model, seed, args.data)


def _shifted(name: str, model: str, seed: int, folder: str) -> Row:
    sol, row = train(name, model, SHIFT[0], seed, LEARNING_RATE, folder)
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


def compare(found: dict[Any, float], model: str, against: str) -> Paired | None:
    """Differences over the cells that both models have, clustered by data set."""
    pairs: dict[str, list[float]] = defaultdict(list)
    for (owner, *cell), value in found.items():
        if owner == model and (against, *cell) in found:
            pairs[cell[0]].append(value - found[against, *cell])
    return cluster_bootstrap(pairs) if pairs else None


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
    held = {(r["model"], r["lr"]): r["held-out loss"] for r in rows if r["part"] == "setting"}
    if held:
        print(f"\nHeld-out loss on {OTHER_SET} by learning rate\n")
        print_table(
            ["model", *(f"{lr:g}" for lr in LEARNING_RATES)],
            [[m, *(held.get((m, lr), "-") for lr in LEARNING_RATES)] for m in models],
        )
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
    print("Paired differences in points, 95 % interval by bootstrap over sets\n")
    print_table(
        ["model", f"minus {NAIVE}", "better", f"minus {DRIVEN}", "not worse by 1.5", f"minus {RECURRENT}"],
        [
            [m, *_verdict(accuracy, m, NAIVE, 0.0), *_verdict(accuracy, m, DRIVEN, -1.5),
             compare(accuracy, m, RECURRENT) or "-"]
            for m in models if m in STABLE
        ],
    )  # fmt: skip
    near = cells(rows, "shift", lambda r: r["accuracy"])
    far = cells(rows, "shift", lambda r: r["accuracy shifted"])
    drop = {k: near[k] - far[k] for k in near}
    print("Trained at 30 % missing: accuracy there, at 70 %, and how much less it drops\n")
    print_table(
        ["model", "at 30 %", "at 70 %", "drop", f"drop of the {NAIVE} minus drop", "robuster"],
        [
            [m, mean_of(near, m), mean_of(far, m), mean_of(drop, m),
             *(_verdict({k: -v for k, v in drop.items()}, m, NAIVE, 0.0) if m != NAIVE else ("-", "-"))]
            for m in models
        ],
    )  # fmt: skip


def _verdict(found: dict[Any, float], model: str, against: str, bar: float) -> tuple[str, str]:
    paired = compare(found, model, against)
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
    parser.add_argument("--models", nargs="+", choices=[*MODELS], default=[*MODELS])
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
