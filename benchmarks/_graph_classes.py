"""Graph classification of benchmarks/convergent_graph.py: nested folds, paired differences.

In    the command line, files in the format of pytorch_DGCNN, a `Kept` file of rows.
Out   `class_part`: each outer fold is scored once, with the weights of the epoch that was best on an inner
      tenth of the other nine (most right, then lowest loss); `trial_part`: six settings of each rival on
      graphs that are in no table.

All rivals have the same updates, batches, inner folds, number of trials and about as many parameters.
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
from pinnkit.graphs import count_parameters, read_tu_file, stratified_folds
from pinnkit.problems import GraphClassification  # pyright: ignore[reportMissingImports]

__all__ = ["SETS", "class_part", "trial_part"]

SETS = ("MUTAG", "PTC", "PROTEINS", "NCI1")
BATCH = 32
MARGIN = 2.0  # points by which ours may be worse than GIN


# (learning rate, layers, batch normalisation), chosen by `trial_part` among as many for each rival, for sets
# of up to and beyond so many graphs.
Setting = tuple[float, int, bool]
FEW = 500
CHOSEN: dict[str, tuple[Setting, Setting]] = {
    "ours": ((3e-3, 2, False), (3e-3, 3, True)),
    "GIN": ((3e-3, 3, False), (3e-3, 3, True)),
    "edge-free": ((1e-2, 1, False), (3e-3, 1, False)),
}
TRIALS: dict[str, list[Setting]] = {
    "ours": [(lr, 2, True) for lr in (1e-3, 3e-3, 1e-2)]
    + [(3e-3, 3, True), (3e-3, 2, False), (3e-3, 3, False)],
    "GIN": [(lr, 3, True) for lr in (1e-3, 3e-3, 1e-2)]
    + [(3e-3, 2, True), (3e-3, 4, True), (3e-3, 3, False)],
    "edge-free": [(lr, k, False) for lr in (3e-3, 1e-2) for k in (1, 2, 3)],
}
SMALL, SCORED, DRAWS = 190, 500, 4  # graphs learned from and scored on, sets of labels


def class_rival(
    name: str, updates: int, setting: Setting, *, as_layers: int = 2
) -> pk.ConvergentGraphSolver:
    """One of what is compared, with about as many parameters as ours of so many layers."""
    lr, layers, norm = setting
    shared = functools.partial(
        pk.ConvergentGraphSolver,
        steps=updates,
        batch=BATCH,
        features=("tag",),
        optimiser=pk.Adam(lr=lr, decay=1.0),
        held_out=0,
    )
    ours = functools.partial(
        shared, width=32, hidden=(32,), heads=16, activation="silu", factor=0.5, rtol=1e-3
    )
    if name == "ours":
        return ours(layers=layers, norm=norm)
    size = functools.partial(parameters_of, ours(layers=as_layers))
    more = {"norm": norm} if name == "GIN" else {}
    return shared(network=rival(name, size, layers=layers, **more))


def parameters_of(solver: pk.ConvergentGraphSolver, plan: Any) -> int:
    """Of its network on a set with these features."""
    arguments = solver.arguments(plan, directed=False, anchored=False)
    return count_parameters(solver.build(plan, arguments, generator=torch.Generator(), dtype=F32))


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
    best: dict[str, Any] = {"found": (math.inf, math.inf)}

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
        wrong = float((logits.argmax(1) != batch.targets).double().mean())
        found = wrong, float(nn.functional.cross_entropy(logits, batch.targets))
        if found < best["found"]:
            copy = {k: v.clone() for k, v in state.module.state_dict().items()}
            best.update(found=found, weights=copy, epoch=info.step // per_epoch)

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
    rows, means, halves = [], [], []
    for name in args.sets:
        path = args.data / name / f"{name}.txt"
        if path.exists():
            row, gaps = class_row(args, kept, name, chosen(read_tu_file(path), args.most))
            rows.append(row)
            means.append([gap.mean() for gap in gaps])
            halves.append([_half(gap, args.repeats) for gap in gaps])
    names = list(CHOSEN)
    pairs = [f"ours - {other}" for other in names[1:]]
    print_table(["", "graphs", *names, *pairs, "within 2 of GIN", "folds", "seconds"], rows)
    if rows:
        half = np.sqrt(np.square(halves).sum(0)) / len(rows)
        print(
            "Mean over sets:",
            *(f"{p} {m:+.1f} +- {h:.1f};" for p, m, h in zip(pairs, np.mean(means, 0), half)),
        )


def chosen(graphs: list[pk.Graph], most: int) -> list[pk.Graph]:
    """All graphs, or `most` of them drawn evenly from the classes."""
    if len(graphs) <= most:
        return graphs
    labels = [int(g.graph["label"]) for g in graphs]
    parts = stratified_folds(labels, len(graphs) // most, seed=0)
    return [graphs[i] for i in parts[0][:most]]


def trial_part(args: argparse.Namespace, kept: Kept) -> None:
    """Settings on the graphs of NCI1 that the table leaves out: many of them, and few with simulated classes."""
    path = None if args.data is None else args.data / "NCI1" / "NCI1.txt"
    if path is None or not path.exists():
        print("trials: --data with NCI1 is needed\n")
        return
    every = read_tu_file(path)
    used = {id(g) for g in chosen(every, args.most)}
    graphs = [g for g in every if id(g) not in used]
    rows = []
    for name, settings in TRIALS.items():
        for setting in settings:
            found = []
            for draw in range(DRAWS + 1):
                key = {"rival": name, "setting": list(setting), "draw": draw, "of": len(graphs)}
                run = functools.partial(trial, name, setting, graphs, draw)
                found.append(kept.row("trials", key, run))
            a = [100 * row["accuracy"] for row in found]
            seconds = sum(row["seconds"] for row in found)
            few = f"{np.mean(a[1:]):.1f} +- {np.std(a[1:], ddof=1) / math.sqrt(DRAWS):.1f}"
            rows.append([name, *setting, f"{a[0]:.1f}", few, seconds])
    print_table(["", "learning rate", "layers", "norm", "many", "few", "seconds"], rows)


def trial(name: str, setting: Setting, graphs: list[pk.Graph], draw: int) -> dict[str, float]:
    """Draw 0: all graphs, their own classes, a fifth scored; later ones: simulated classes of a few."""
    if draw == 0:
        epochs, test = 15, stratified_folds([int(g.graph["label"]) for g in graphs], 5, seed=0)[0]
    else:
        rng = np.random.default_rng(100 + draw)
        some = rng.permutation(len(graphs))[: SMALL + SCORED]
        graphs = simulated([graphs[i] for i in some], rng)
        epochs, test = 40, np.arange(SMALL, SMALL + SCORED)
    per_epoch = math.ceil(0.9 * (len(graphs) - len(test)) / BATCH)
    solver = class_rival(name, epochs * per_epoch, setting)
    return fold_accuracy(solver, graphs, test, draw, per_epoch)


def simulated(graphs: list[pk.Graph], rng: np.random.Generator) -> list[pk.Graph]:
    """Classes that follow from weights of tags and of pairs of neighbours; 5 % of those to learn from are wrong."""
    kinds = graphs[0].node["tag"].shape[1]
    alone, pairs = rng.normal(size=kinds), rng.normal(size=(kinds, kinds))
    tags = [g.node["tag"].argmax(1) for g in graphs]
    a = np.array([alone[t].sum() / math.sqrt(len(t)) for t in tags])
    b = np.array(
        [(pairs + pairs.T)[t[g.edges[0]], t[g.edges[1]]].sum() for g, t in zip(graphs, tags)]
    ) / np.sqrt([len(t) for t in tags])
    score = a / a.std() + b / b.std()
    wrong = (rng.random(len(graphs)) < 0.05) & (np.arange(len(graphs)) < SMALL)
    labels = (score > np.median(score)) ^ wrong
    return [
        pk.Graph(g.edges, dict(g.node), dict(g.edge), nodes=g.n_nodes, graph={"label": int(y)})
        for g, y in zip(graphs, labels)
    ]


def class_row(
    args: argparse.Namespace, kept: Kept, name: str, graphs: list[pk.Graph]
) -> tuple[list[Any], list[np.ndarray]]:
    """One set: mean and spread of every rival, paired differences; these once more, fold by fold."""
    labels = [int(g.graph["label"]) for g in graphs]
    per_epoch = math.ceil(0.81 * len(graphs) / BATCH)
    many = len(graphs) > FEW
    as_layers = CHOSEN["ours"][many][1]
    scores: dict[str, list[dict[str, float]]] = {}
    for repeat in range(args.repeats):
        for fold, test in enumerate(stratified_folds(labels, 10, seed=repeat)):
            for other, settings in CHOSEN.items():
                setting = settings[many]
                solver = class_rival(other, args.epochs * per_epoch, setting, as_layers=as_layers)
                key = {"set": name, "graphs": len(graphs), "rival": other, "epochs": args.epochs}
                key["setting"] = list(setting)
                run = functools.partial(fold_accuracy, solver, graphs, test, repeat, per_epoch)
                row = kept.row("classes", {**key, "repeat": repeat, "fold": fold}, run)
                scores.setdefault(other, []).append(row)
    found = {k: 100 * np.array([row["accuracy"] for row in v]) for k, v in scores.items()}
    gaps = {k: found["ours"] - v for k, v in found.items() if k != "ours"}
    seconds = sum(row["seconds"] for v in scores.values() for row in v)
    row = [
        name,
        len(graphs),
        *(f"{v.mean():.1f} +- {v.std():.1f}" for v in found.values()),
        *(f"{v.mean():+.1f} +- {_half(v, args.repeats):.1f}" for v in gaps.values()),
        gaps["GIN"].mean() >= -MARGIN,
        len(found["ours"]),
        seconds,
    ]
    return row, list(gaps.values())


def _half(gaps: np.ndarray, repeats: int) -> float:
    """Half the 95 % interval of a mean of paired differences.

    Folds share training graphs, so that their differences are correlated: the variance of the mean is
    (1 / n + 1 / 9) times that of a difference (Nadeau and Bengio), 1 / 9 the ratio of test to training.
    """
    from scipy.stats import t

    n = 10 * repeats
    return float(t.ppf(0.975, n - 1) * gaps.std(ddof=1) * math.sqrt(1 / n + 1 / 9))
