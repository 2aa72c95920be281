"""Graph classification of benchmarks/convergent_graph.py: nested folds, paired differences.

In    the command line, files in the format of pytorch_DGCNN, a `Kept` file of rows.
Out   `class_part`: each outer fold is scored once, with the weights of the epoch that was best on an inner
      tenth of the other nine.

All rivals have the same updates, batches, learning rate, inner folds and about as many parameters.
"""

from __future__ import annotations

import argparse
import functools
import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from _common import print_table
from _graph_learning import Kept
from _graph_tasks import F32, rival
from torch import nn

import pinnkit as pk
from pinnkit.graphs import read_tu_file, stratified_folds
from pinnkit.problems import GraphClassification  # pyright: ignore[reportMissingImports]

__all__ = ["SETS", "class_part"]

SETS = ("MUTAG", "PTC", "PROTEINS", "NCI1")
BATCH = 32
MARGIN = 2.0  # points by which ours may be worse than GIN
SIZE = 13_500  # parameters of ours on a set of seven tags


def class_rivals(updates: int) -> dict[str, pk.ConvergentGraphSolver]:
    """What is compared."""
    shared = functools.partial(
        pk.ConvergentGraphSolver,
        steps=updates,
        batch=BATCH,
        features=("tag",),
        optimiser=pk.Adam(lr=3e-3, decay=1.0),
        held_out=0,
    )
    return {
        "ours": shared(layers=2, width=32, hidden=(32,), heads=16, activation="silu"),
        "GIN": shared(network=rival("GIN", SIZE, norm=True)),
        "edge-free": shared(network=rival("edge-free", SIZE)),
    }


def fold_accuracy(
    solver: pk.ConvergentGraphSolver,
    graphs: Sequence[pk.Graph],
    test: np.ndarray,
    seed: int,
    per_epoch: int,
) -> dict[str, float]:
    """Trained without the test fold; the epoch chosen on a tenth of the rest; scored once."""
    rest = np.setdiff1d(np.arange(len(graphs)), test).tolist()
    labels = [int(graphs[i].graph["label"]) for i in rest]
    inner = stratified_folds(labels, 10, seed=seed)[0]
    others = np.setdiff1d(np.arange(len(rest)), inner)
    chosen_on, training = ([graphs[rest[i]] for i in part.tolist()] for part in (inner, others))
    best: dict[str, Any] = {"loss": math.inf}

    def choose(info: Any) -> None:
        if info.step % per_epoch:
            return
        state = info.state
        if "batch" not in best:
            best["batch"] = state.batch_of(chosen_on)
        batch = best["batch"]
        state.module.eval()
        with torch.no_grad():
            logits = state.module(batch.arcs, batch.nodes, batch.edges)[0]
        loss = float(nn.functional.cross_entropy(logits, batch.targets))
        if loss < best["loss"]:
            copy = {k: v.clone() for k, v in state.module.state_dict().items()}
            best.update(loss=loss, weights=copy, epoch=info.step // per_epoch)

    start = time.process_time()
    op = GraphClassification().solve(
        solver, data=training, seed=seed, time_limit=None, dtype=F32, callback=choose, verify=False
    )
    op.module.load_state_dict(best["weights"])
    found = op.predict([graphs[i] for i in test])
    right = [int(f["label"]) == int(graphs[i].graph["label"]) for f, i in zip(found, test)]
    seconds = time.process_time() - start
    return {"accuracy": float(np.mean(right)), "epoch": best["epoch"], "seconds": seconds}


def class_part(args: argparse.Namespace, kept: Kept) -> None:
    """Ten outer folds a repeat; the interval is over folds, of the differences on the same ones."""
    if args.data is None:
        print("classes: --data is needed\n")
        return
    rows = []
    for name in args.sets:
        path = args.data / name / f"{name}.txt"
        if path.exists():
            rows.append(class_row(args, kept, name, chosen(read_tu_file(path), args.most)))
    names = list(class_rivals(1))
    pairs = [f"ours - {other}" for other in names[1:]]
    print_table(["", "graphs", *names, *pairs, "within 2 of GIN", "folds", "seconds"], rows)


def chosen(graphs: list[pk.Graph], most: int) -> list[pk.Graph]:
    """All graphs, or `most` of them drawn evenly from the classes."""
    if len(graphs) <= most:
        return graphs
    labels = [int(g.graph["label"]) for g in graphs]
    parts = stratified_folds(labels, len(graphs) // most, seed=0)
    return [graphs[i] for i in parts[0][:most]]


def class_row(args: argparse.Namespace, kept: Kept, name: str, graphs: list[pk.Graph]) -> list[Any]:
    """One set: mean and spread of every rival, paired differences."""
    labels = [int(g.graph["label"]) for g in graphs]
    per_epoch = math.ceil(0.81 * len(graphs) / BATCH)
    scores: dict[str, list[dict[str, float]]] = {}
    for repeat in range(args.repeats):
        for fold, test in enumerate(stratified_folds(labels, 10, seed=repeat)):
            for other, solver in class_rivals(args.epochs * per_epoch).items():
                key = {"set": name, "graphs": len(graphs), "rival": other, "epochs": args.epochs}
                run = functools.partial(fold_accuracy, solver, graphs, test, repeat, per_epoch)
                row = kept.row("classes", {**key, "repeat": repeat, "fold": fold}, run)
                scores.setdefault(other, []).append(row)
    found = {k: 100 * np.array([row["accuracy"] for row in v]) for k, v in scores.items()}
    gaps = {k: found["ours"] - v for k, v in found.items() if k != "ours"}
    seconds = sum(row["seconds"] for v in scores.values() for row in v)
    return [
        name,
        len(graphs),
        *(f"{v.mean():.1f} +- {v.std():.1f}" for v in found.values()),
        *(f"{v.mean():+.1f} +- {_half(v, len(v) // 10):.1f}" for v in gaps.values()),
        gaps["GIN"].mean() >= -MARGIN,
        len(found["ours"]),
        seconds,
    ]


def _half(gaps: np.ndarray, repeats: int) -> float:
    """Half the 95 % interval of a mean of paired differences.

    Folds share training graphs, so that their differences are correlated: the variance of the mean is
    (1 / n + 1 / 9) times that of a difference (Nadeau and Bengio), 1 / 9 the ratio of test to training.
    """
    from scipy.stats import t

    n = 10 * repeats
    return float(t.ppf(0.975, n - 1) * gaps.std(ddof=1) * math.sqrt(1 / n + 1 / 9))
