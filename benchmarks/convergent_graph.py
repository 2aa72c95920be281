"""ConvergentGraphSolver: memory and speed against a dense layout, certificates, three learning tasks.

In    nothing: `python benchmarks/convergent_graph.py [--part PART] [--steps N] [--data FOLDER] [--out FILE]`.
Out   one table per part:
      layout       memory and seconds of operator + solve + adjoint, and of a whole training step, on the
                   published pore batch (32 graphs of 50 to 200 pores, 16 heads), sparse and dense
      large        one training step on a network of 1e5 pores
      certificate  1000 random graphs and weights: contraction, error bounds, batch against one by one
      pores        pressures: trained on 50 to 199 pores, tested there, at 10 times the size, and on a
                   real rock, beside a cubic in the flow coordinate, gamma = 0 and GIN
      values       graph value iteration: policy accuracy at training size and 4 times the size
      classes      graph classification, 10 outer folds, epoch chosen on an inner 10 % hold-out
Next  docs/convergent_graph.md.

--data names a folder with porenets/F42A_*.dat and MUTAG/MUTAG.txt and so on; what is not there is left out.
--out appends each row as JSON as soon as it is known.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from _common import measured, print_table
from _graph_learning import CubicInHeight, dense_fixed_point, interval, peak_of, pore_scores
from torch import nn

import pinnkit as pk
from pinnkit.graphs import (
    GIN,
    Arcs,
    ConvergentGraphNetwork,
    ImplicitGNN,
    contracting_weights,
    count_parameters,
    linear_fixed_point,
    matched,
    pore_network,
    read_statoil,
    read_tu_file,
    stratified_folds,
)
from pinnkit.graphs.value_iteration import policy_accuracy, sample_graphs
from pinnkit.implicit import GMRES, Anderson, Picard
from pinnkit.problems import (  # pyright: ignore[reportMissingImports]
    GraphClassification,
    GraphValueIteration,
    PoreNetwork,
)

F32 = torch.float32
(p,) = PoreNetwork(n=10).fields
SHOWN = ("position", "diameter", "length")  # the published features beside conductance and flags


def pores(count: int, low: int, high: int, seed: int) -> list[pk.Graph]:
    rng = np.random.default_rng(seed)
    return [pore_network(int(rng.integers(low, high + 1)), rng) for _ in range(count)]


# --- layout -----------------------------------------------------------------------------------------


def pore_batch(heads: int) -> tuple[Arcs, torch.Tensor, torch.Tensor]:
    arcs = Arcs.of(pores(32, 50, 199, 0))
    gen = torch.Generator().manual_seed(0)
    logits = torch.randn(arcs.n_arcs, heads, generator=gen)
    return arcs, logits.requires_grad_(), torch.randn(arcs.n_nodes, heads, generator=gen)


def solve_and_adjoint(layout: str, heads: int) -> Callable[[], Any]:
    arcs, logits, bias = pore_batch(heads)

    def run() -> None:
        weights = 0.5 * contracting_weights(arcs, logits, normalisation="degree").weights
        if layout == "dense":
            h = dense_fixed_point(arcs, weights, bias)
        else:
            h, _ = linear_fixed_point(arcs, weights, bias, rtol=1e-6)
        torch.autograd.grad(h.square().sum(), logits)

    return run


def training_step(layout: str, heads: int) -> Callable[[], Any]:
    arcs, _, _ = pore_batch(1)
    gen = torch.Generator().manual_seed(0)
    network = ConvergentGraphNetwork(5, 3, heads=heads, rtol=1e-6, generator=gen, dtype=F32)
    nodes = torch.randn(arcs.n_nodes, 5, generator=gen)
    edges = torch.randn(arcs.n_arcs, 3, generator=gen)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)

    def run() -> None:
        if layout == "dense":
            operator, bias, _ = network.equation(arcs, nodes, edges)
            y = network.decoder(dense_fixed_point(arcs, operator.weights, bias))
        else:
            y = network(arcs, nodes, edges)[0]
        optimiser.zero_grad()
        y.square().mean().backward()
        optimiser.step()

    return run


def layout(args: argparse.Namespace) -> None:
    rows = []
    for name, make, bars in (
        ("operator + solve + adjoint", solve_and_adjoint, (1 / 50, math.inf)),
        ("a training step", training_step, (1 / 5, 1 / 3)),
    ):
        sparse, fast = peak_of(make, "sparse", 16)
        dense, slow = peak_of(make, "dense", 16)
        met = sparse <= bars[0] * dense and fast <= bars[1] * slow
        row = [name, sparse / 2**20, dense / 2**20, dense / sparse, fast, slow, slow / fast, met]
        rows.append(row)
        keep(args, "layout", row)
    print_table(
        ["", "sparse MiB", "dense MiB", "ratio", "sparse s", "dense s", "faster by", "met"], rows
    )


# --- one large graph ----------------------------------------------------------------------------------


def large_step(n: int) -> Callable[[], Any]:
    graph = pore_network(n, 0)
    arcs = Arcs.of(graph)
    gen = torch.Generator().manual_seed(0)
    network = ConvergentGraphNetwork(
        2, 1, heads=8, normalisation="conductance", source="mean", factor=0.999, skip=True,
        rtol=1e-5, generator=gen, dtype=F32,
    )  # fmt: skip
    held = torch.tensor(graph.node["inlet"] | graph.node["outlet"])
    inlet = torch.tensor(graph.node["inlet"]).float()
    nodes = torch.stack([held.float(), inlet], 1)
    edges = torch.tensor(graph.edge["k"][:, None] / graph.edge["k"].mean()).float()
    network.edge_scale.fit(edges)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)

    def run() -> None:
        y, record = network(arcs, nodes, edges, held)
        assert bool(record.converged.all())
        optimiser.zero_grad()
        (y[:, 0] - inlet)[~held].square().mean().backward()
        optimiser.step()

    return run


def large(args: argparse.Namespace) -> None:
    used, seconds = peak_of(large_step, 100_000)
    row = ["1e5 pores, 8 heads", used / 2**30, seconds, used < 24 * 2**30]
    keep(args, "large", row)
    print_table(["", "GiB", "seconds a step", "met (24 GiB)"], [row])


# --- certificate ----------------------------------------------------------------------------------------


def certificate(args: argparse.Namespace) -> None:
    rng = np.random.default_rng(0)
    contraction, bound, converged, apart, tightest = 0, 0, 0, 0.0, []
    for seed in range(args.graphs):
        n = int(rng.integers(1, 60))
        count = int(rng.integers(1, 6)) * n
        half = torch.from_numpy(rng.integers(0, n, (2, count)))
        arcs = Arcs(torch.cat([half[0], half[1]]), torch.cat([half[1], half[0]]), n)
        gen = torch.Generator().manual_seed(seed)
        kind = ("degree", "softmax", "conductance")[seed % 3]
        factor = float(rng.choice([0.1, 0.5, 0.9, 0.99, 0.999]))
        logits = float(rng.uniform(0.1, 6)) * torch.randn(
            2 * count, 1, generator=gen, dtype=torch.float64
        )
        found = contracting_weights(arcs, logits, normalisation=kind)
        weights, bias = (
            factor * found.weights,
            torch.randn(n, 1, generator=gen, dtype=torch.float64),
        )
        solver = (Picard(), Anderson(), GMRES(), None)[seed % 4]
        h, record = linear_fixed_point(arcs, weights, bias, solver=solver, max_steps=200)
        dense = torch.zeros(n, n, dtype=torch.float64)
        dense.index_put_((arcs.receivers, arcs.senders), weights[:, 0], accumulate=True)
        truth = torch.linalg.solve(torch.eye(n, dtype=torch.float64) - dense, bias)
        error, stated = float((h - truth).abs().max()), float(record.error)
        contraction += bool(dense.abs().sum(1).max() <= factor * (1 + 1e-12))
        bound += bool(record.certified) and error <= stated
        tightest.append(stated / max(error, 1e-300))
        two = Arcs(
            torch.cat([arcs.senders, arcs.senders + n]),
            torch.cat([arcs.receivers, arcs.receivers + n]),
            2 * n,
            torch.arange(2).repeat_interleave(n),
        )
        both = linear_fixed_point(
            two,
            torch.cat([weights, weights]),
            torch.cat([bias, 2 * bias]),
            solver=solver,
            max_steps=200,
        )[0]
        converged += bool(record.converged)
        if record.converged:
            apart = max(apart, float((both[:n] - h).abs().max() / h.abs().max()))
    met = contraction == bound == args.graphs and apart <= 1e-10
    row = [args.graphs, contraction, bound, float(np.median(tightest)), converged, apart, met]
    keep(args, "certificate", row)
    print_table(
        [
            "graphs",
            "contraction <= factor",
            "error <= bound",
            "median bound/error",
            "batch apart",
            "met",
        ],
        [row],
    )


# --- pores --------------------------------------------------------------------------------------------


def draw_pores(seed: int) -> list[pk.Graph]:
    return pores(32, 50, 199, seed)


def make_gin(parameters: int, plan: Any, *, target: str = "node", **kept: Any) -> nn.Module:
    def make(width: int) -> nn.Module:
        return GIN(
            plan.node_inputs, plan.edge_inputs, plan.outputs, width=width, target=target, **kept
        )

    return matched(make, parameters)


def make_implicit(parameters: int, plan: Any, **kept: Any) -> nn.Module:
    def make(width: int) -> nn.Module:
        return ImplicitGNN(plan.node_inputs, plan.edge_inputs, plan.outputs, width=width, **kept)

    return matched(make, parameters)


def pore_rivals(steps: int) -> dict[str, pk.ConvergentGraphSolver]:
    ours = pk.ConvergentGraphSolver(steps=steps)
    size = 5291  # parameters of ours
    return {
        "ours": ours,
        "ours, published features": pk.ConvergentGraphSolver(steps=steps, features=SHOWN),
        "gamma = 0": pk.ConvergentGraphSolver(steps=steps, features=SHOWN, factor=0.0),
        "GIN": pk.ConvergentGraphSolver(
            steps=steps, features=SHOWN, network=functools.partial(make_gin, size)
        ),
        "implicit network": pk.ConvergentGraphSolver(
            steps=steps, features=SHOWN, network=functools.partial(make_implicit, size)
        ),
    }


def pore_part(args: argparse.Namespace) -> None:
    system = PoreNetwork(n=10, drop=1.0).equations()
    sets = {"train size": pores(100, 50, 199, 10**6), "10x": pores(20, 500, 1990, 10**6 + 1)}
    folder = args.data / "porenets" if args.data else None
    if folder is not None and (folder / "F42A_node1.dat").exists():
        rock = read_statoil(folder, "F42A")
        if "diameter" not in rock.edge:
            rock = rock.replace(
                node={"diameter": 2 * rock.node["radius"]},
                edge={"diameter": 2 * rock.edge["radius"]},
            )
        sets["F42A"] = [rock]
    start = time.perf_counter()
    exact = {
        name: [system.on(g).solve(pk.SparseFixedPoint(), verify=False)[p] for g in graphs]
        for name, graphs in sets.items()
    }
    direct = time.perf_counter() - start
    fitted = draw_pores(0)
    values = [system.on(g).solve(pk.SparseFixedPoint(), verify=False)[p] for g in fitted]
    cubic = CubicInHeight(fitted, values)
    rows = []

    def score(name: str, predict: Callable[[pk.Graph], np.ndarray], more: Sequence[Any]) -> None:
        row: list[Any] = [name]
        for key, graphs in sets.items():
            off, flow = pore_scores(graphs, [predict(g) for g in graphs], exact[key])
            row += [100 * off.mean(), 100 * flow.mean()]
        rows.append([*row, *more])
        keep(args, "pores", [list(sets), *rows[-1]])

    score("cubic in the flow coordinate", cubic.predict, [4, 0.0])
    for name, solver in pore_rivals(args.steps).items():
        if args.only and name not in args.only:
            continue
        op = system.solve(
            solver,
            data=draw_pores,
            seed=args.seed,
            time_limit=None,
            dtype=F32,
            verify=False,
            callback=tell,
        )
        more = [count_parameters(op.module), op.stats.seconds]
        score(name, lambda g, op=op: op.predict(g)[p], more)
        if name == "ours":
            found = [op.predict(g) for g in sets["10x"]]
            print(f"certified on all of 10x: {all(f.certified for f in found)}", flush=True)
    heads = [f"{key}: {what} %" for key in sets for what in ("error", "flow")]
    print_table(["", *heads, "parameters", "seconds"], rows)
    count = sum(map(len, sets.values()))
    print(f"exact solves of the {count} test networks, compilation included: {direct:.2f} s\n")


# --- values -------------------------------------------------------------------------------------------


def value_rivals(steps: int) -> dict[str, pk.ConvergentGraphSolver]:
    common: dict[str, Any] = {"steps": steps, "layers": 3, "width": 32, "heads": 16, "target": "V"}
    size = 50_741  # parameters of ours
    gin = functools.partial(make_gin, size)
    return {
        "ours": pk.ConvergentGraphSolver(**common),
        "gamma = 0": pk.ConvergentGraphSolver(**common, factor=0.0),
        "GIN": pk.ConvergentGraphSolver(steps=steps, target="V", network=gin),
    }


def sweeps(graph: pk.Graph, count: int) -> np.ndarray:
    values = np.zeros(graph.n_nodes)
    for _ in range(count):
        new = np.full(graph.n_nodes, -np.inf)
        np.maximum.at(new, graph.edges[1], graph.edge["r"] + 0.9 * values[graph.edges[0]])
        values = new
    return values


def value_part(args: argparse.Namespace) -> None:
    problem = GraphValueIteration()
    sets = {
        "20-49 states": sample_graphs(100, seed=10**6),
        "80-199 states": sample_graphs(40, states=(80, 199), seed=10**6 + 1),
    }
    rows = []

    def score(
        name: str, predict: Callable[[list[pk.Graph]], list[np.ndarray]], more: Sequence[Any]
    ) -> None:
        row: list[Any] = [name]
        for graphs in sets.values():
            found = predict(graphs)
            truth = np.concatenate([g.node["V"] for g in graphs])
            off = np.abs(np.concatenate(found) - truth).mean() / np.abs(truth).mean()
            row += [interval(policy_accuracy(graphs, found)), 100 * float(off)]
        rows.append([*row, *more])
        keep(args, "values", rows[-1])

    for name, count in (("reward only", 0), ("two hops", 2)):
        score(name, lambda graphs, count=count: [sweeps(g, count) for g in graphs], [0, 0.0])
    for name, solver in value_rivals(args.steps).items():
        if args.only and name not in args.only:
            continue
        op = problem.solve(
            solver,
            data=lambda seed: problem.graphs(64, seed),
            seed=args.seed,
            time_limit=None,
            dtype=F32,
            verify=False,
            callback=tell,
        )
        more = [count_parameters(op.module), op.stats.seconds]
        score(name, lambda graphs, op=op: [f["V"] for f in op.predict(graphs)], more)
    heads = [f"{key}: {what}" for key in sets for what in ("policy accuracy", "value error %")]
    print_table(["", *heads, "parameters", "seconds"], rows)


# --- classes ------------------------------------------------------------------------------------------

SETS = {"MUTAG": 2, "PTC": 2, "PROTEINS": 2, "NCI1": 2}


def class_rivals(epochs: int, per_epoch: int) -> dict[str, pk.ConvergentGraphSolver]:
    common: dict[str, Any] = {
        "steps": epochs * per_epoch,
        "layers": 3,
        "width": 32,
        "heads": 16,
        "activation": "silu",
        "aggregation": "mean",
        "normalisation": "softmax",
        "features": ("tag",),
        "optimiser": pk.Adam(lr=3e-3, decay=1.0),
        "held_out": 0,
    }
    gin = functools.partial(make_gin, 47_000, target="graph", norm=True)
    rest = {k: common[k] for k in ("steps", "features", "optimiser", "held_out")}
    return {
        "ours": pk.ConvergentGraphSolver(**common),
        "gamma = 0": pk.ConvergentGraphSolver(**common, factor=0.0),
        "GIN": pk.ConvergentGraphSolver(**rest, network=gin),
    }


def fold_accuracy(
    solver: Any, graphs: list[pk.Graph], test: np.ndarray, seed: int, per_epoch: int
) -> float:
    """Trained without the test fold; the epoch chosen on a tenth of the rest; scored once."""
    rest = np.setdiff1d(np.arange(len(graphs)), test)
    labels = [int(graphs[i].graph["label"]) for i in rest]
    inner = stratified_folds(labels, 10, seed=seed)[0]
    kept = [graphs[rest[i]] for i in inner]
    training = [graphs[rest[i]] for i in np.setdiff1d(np.arange(len(rest)), inner)]
    best: dict[str, Any] = {"loss": math.inf}

    def choose(info: Any) -> None:
        if info.step % per_epoch:
            return
        state = info.state
        batch = state.batch_of(kept)
        state.module.eval()
        with torch.no_grad():
            logits = state.module(batch.arcs, batch.nodes, batch.edges)[0]
        loss = float(nn.functional.cross_entropy(logits, batch.targets))
        if loss < best["loss"]:
            copy = {k: v.clone() for k, v in state.module.state_dict().items()}
            best.update(loss=loss, weights=copy)

    problem = GraphClassification()
    op = problem.solve(
        solver, data=training, seed=seed, time_limit=None, dtype=F32, callback=choose, verify=False
    )
    op.module.load_state_dict(best["weights"])
    found = op.predict([graphs[i] for i in test])
    right = [int(f["label"]) == int(graphs[i].graph["label"]) for f, i in zip(found, test)]
    return float(np.mean(right))


def class_part(args: argparse.Namespace) -> None:
    if args.data is None:
        print("classes: --data is needed\n")
        return
    rows = []
    for name in args.sets:
        path = args.data / name / f"{name}.txt"
        if not path.exists():
            continue
        graphs = read_tu_file(path)
        labels = [int(g.graph["label"]) for g in graphs]
        per_epoch = math.ceil(0.81 * len(graphs) / 32)
        rivals = class_rivals(args.epochs, per_epoch)
        scores: dict[str, list[float]] = {rival: [] for rival in rivals}
        start = time.perf_counter()
        for repeat in range(args.repeats):
            for test in stratified_folds(labels, 10, seed=repeat):
                for rival, solver in rivals.items():
                    scores[rival].append(fold_accuracy(solver, graphs, test, repeat, per_epoch))
        paired = np.array(scores["ours"]) - np.array(scores["GIN"])
        row = [
            name,
            *(f"{100 * np.mean(s):.1f} +- {100 * np.std(s):.1f}" for s in scores.values()),
            f"{100 * paired.mean():+.1f} +- {196 * paired.std(ddof=1) / len(paired) ** 0.5:.1f}",
            args.repeats,
            time.perf_counter() - start,
        ]
        rows.append(row)
        keep(args, "classes", row)
    print_table(["", *class_rivals(1, 1), "ours - GIN, paired", "repeats", "seconds"], rows)


# --- all ----------------------------------------------------------------------------------------------

PARTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "layout": layout,
    "large": large,
    "certificate": certificate,
    "pores": pore_part,
    "values": value_part,
    "classes": class_part,
}


def tell(info: Any) -> None:
    if info.step % 100 == 0:
        print(
            f"  step {info.step}: loss {float(info.losses['loss']):.2e}, {info.seconds:.0f} s",
            flush=True,
        )


def keep(args: argparse.Namespace, part: str, row: Sequence[Any]) -> None:
    print(f"{part}: {json.dumps(list(row), default=str)}", flush=True)
    if args.out is not None:
        with args.out.open("a") as file:
            file.write(json.dumps([part, *row], default=str) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--part", action="append", choices=sorted(PARTS), help="default: all")
    parser.add_argument("--steps", type=int, default=1000, help="updates of pores and values")
    parser.add_argument("--epochs", type=int, default=60, help="of classes")
    parser.add_argument("--repeats", type=int, default=3, help="of the ten folds")
    parser.add_argument(
        "--sets", nargs="+", default=["MUTAG", "PTC", "PROTEINS"], choices=list(SETS)
    )
    parser.add_argument("--graphs", type=int, default=1000, help="of certificate")
    parser.add_argument("--only", nargs="+", default=None, help="rivals of pores and values")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=pathlib.Path, default=None)
    parser.add_argument("--out", type=pathlib.Path, default=None)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for part in args.part or PARTS:
        with measured(part):
            PARTS[part](args)


if __name__ == "__main__":
    main()
