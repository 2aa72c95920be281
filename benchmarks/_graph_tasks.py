"""Two tasks of benchmarks/convergent_graph.py: pressures in pores, values of decision processes.

In    the command line, a `Kept` file of rows.
Out   `pore_part`, `value_part`: each trains every rival for the same number of updates on the same
      graphs, scores all on the same test graphs, and prints a table.

Rivals see the published features and have about as many parameters; fixed pressures are imposed for
all of them.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from _common import print_table
from _graph_learning import CubicInHeight, Kept, interval, pore_scores
from torch import nn

import pinnkit as pk
from pinnkit.graphs import (
    GIN,
    EdgeFree,
    ImplicitGNN,
    count_parameters,
    matched,
    pore_network,
    read_statoil,
)
from pinnkit.graphs.value_iteration import policy_accuracy, sample_graphs
from pinnkit.problems import (  # pyright: ignore[reportMissingImports]
    GraphValueIteration,
    PoreNetwork,
)

__all__ = ["draw_pores", "pore_part", "pores", "rival", "tell", "value_part"]

F32 = torch.float32
FLOW = PoreNetwork(n=10, drop=1.0).equations()
(p,) = FLOW.fields
CUBIC = "cubic in the flow coordinate"
SHOWN = ("position", "diameter", "length")  # the published features beside conductance and flags
# Bars in percent: error and flow at training size, then at ten times the size.
PORE_BARS = (2.0, 3.0, 3.0, 8.0)
BETTER = 2.0  # times, than the cubic, the encoder alone and GIN
MODELS = {"GIN": GIN, "implicit": ImplicitGNN, "edge-free": EdgeFree}


def rival(
    model: str, parameters: int | Callable[[Any], int], **kept: Any
) -> Callable[..., nn.Module]:
    """A builder for `ConvergentGraphSolver(network=)` of about that many parameters, given the plan."""
    return functools.partial(_make, model, parameters, kept)


def _make(
    model: str,
    parameters: int | Callable[[Any], int],
    kept: dict[str, Any],
    plan: Any,
    **rest: Any,
) -> nn.Module:
    def make(width: int) -> nn.Module:
        inputs = plan.node_inputs, plan.edge_inputs, plan.outputs
        return MODELS[model](*inputs, width=width, target=plan.of, **kept, **rest)

    return matched(make, parameters if isinstance(parameters, int) else parameters(plan))


def tell(info: Any) -> None:
    """A line now and then."""
    if info.step % 100 == 0:
        print(f"  update {info.step}: loss {float(info.losses['loss']):.2e}", flush=True)


def trained(
    system: Any, solver: pk.ConvergentGraphSolver, draw: Callable[[int], Any], seed: int
) -> tuple[Any, dict[str, Any]]:
    """(the operator, its parameters and the seconds of one thread)."""
    start = time.process_time()
    op = system.solve(
        solver, data=draw, seed=seed, time_limit=None, dtype=F32, verify=False, callback=tell
    )
    cost = {"parameters": count_parameters(op.module), "seconds": time.process_time() - start}
    return op, cost


# --- pores --------------------------------------------------------------------------------------------


def pores(count: int, low: int, high: int, seed: int) -> list[pk.Graph]:
    """Networks of low to high pores."""
    rng = np.random.default_rng(seed)
    return [pore_network(int(rng.integers(low, high + 1)), rng) for _ in range(count)]


def draw_pores(seed: int) -> list[pk.Graph]:
    """The published batch."""
    return pores(32, 50, 199, seed)


def pore_rivals(steps: int) -> dict[str, pk.ConvergentGraphSolver]:
    size = 5291  # parameters of ours
    shown = functools.partial(pk.ConvergentGraphSolver, steps=steps, features=SHOWN)
    return {
        "ours": pk.ConvergentGraphSolver(steps=steps),
        "ours, published features": shown(),
        "gamma = 0": shown(factor=0.0),
        "GIN": shown(network=rival("GIN", size)),
        "GIN, batch-normalised": shown(network=rival("GIN", size, norm=True)),
        "implicit network": shown(network=rival("implicit", size)),
    }


def pore_part(args: argparse.Namespace, kept: Kept) -> None:
    """Trained on 50 to 199 pores; scored there, at ten times the size, and on a rock."""
    folder = args.data / "porenets" if args.data else None

    def scores(predict: Callable[[pk.Graph], np.ndarray]) -> dict[str, Any]:
        found = {}
        for key, (graphs, exact) in pore_tests(folder).items():
            off, flow = pore_scores(graphs, [predict(g) for g in graphs], exact)
            found[key] = {"error": (100 * off).tolist(), "flow": (100 * flow).tolist()}
        return found

    def cubic() -> dict[str, Any]:
        fitted = draw_pores(0)
        model = CubicInHeight(fitted, exact_pressures(fitted))
        return {**scores(model.predict), "parameters": 4, "seconds": 0.0}

    def learned(solver: pk.ConvergentGraphSolver, seed: int) -> dict[str, Any]:
        op, cost = trained(FLOW, solver, draw_pores, seed)
        graphs = [g for part, _ in pore_tests(folder).values() for g in part]
        sure = all(op.predict(g).certified for g in graphs)
        return {**scores(lambda g: op.predict(g)[p]), **cost, "certified": sure}

    rows = {CUBIC: kept.row("pores", {"name": "cubic"}, cubic)}
    for seed in args.seeds:
        for name, solver in pore_rivals(args.steps).items():
            if args.only and name not in args.only:
                continue
            key = {"name": name, "steps": args.steps, "seed": seed}
            title = name if len(args.seeds) == 1 else f"{name}, seed {seed}"
            rows[title] = kept.row("pores", key, functools.partial(learned, solver, seed))
    what = [(k, kind) for k, v in rows[CUBIC].items() if isinstance(v, dict) for kind in v]
    heads = [f"{key}: {kind} %" for key, kind in what]
    print_table(
        ["", *heads, "parameters", "seconds"],
        [
            [name, *(interval(np.array(r[a][b])) for a, b in what), r["parameters"], r["seconds"]]
            for name, r in rows.items()
        ],
    )
    for name, row in rows.items():
        if name.startswith("ours"):
            print(f"{name}: {pore_verdict(row, rows)}, certified: {row['certified']}")


def pore_verdict(ours: dict[str, Any], rows: dict[str, Any]) -> str:
    """Whether the four bars are met, and by which factor at least the rivals are beaten."""
    what = [(key, kind) for key in ("50-199 pores", "10x") for kind in ("error", "flow")]

    def means(row: dict[str, Any]) -> np.ndarray:
        return np.array([np.mean(row[a][b]) for a, b in what])

    rivals = [row for name, row in rows.items() if not name.startswith("ours")]
    met = bool((means(ours) <= np.array(PORE_BARS)).all())
    worst = min(float((means(row) / means(ours)).min()) for row in rivals)
    return f"bars met: {met}; at least {worst:.2g} times better (bar {BETTER:g})"


@functools.cache
def pore_tests(
    folder: pathlib.Path | None,
) -> dict[str, tuple[list[pk.Graph], list[np.ndarray]]]:
    """(networks, exact pressures) by name; the rock where its files are."""
    tests = {"50-199 pores": pores(100, 50, 199, 10**6), "10x": pores(20, 500, 1990, 10**6 + 1)}
    if folder is not None and (folder / "F42A_node1.dat").exists():
        rock = read_statoil(folder, "F42A")
        wide = {
            "node": {"diameter": 2 * rock.node["radius"]},
            "edge": {"diameter": 2 * rock.edge["radius"]},
        }
        tests["F42A"] = [rock.replace(**wide)]
    return {name: (graphs, exact_pressures(graphs)) for name, graphs in tests.items()}


def exact_pressures(graphs: list[pk.Graph]) -> list[np.ndarray]:
    """By the sparse direct solver."""
    return [FLOW.on(g).solve(pk.SparseFixedPoint(), verify=False)[p] for g in graphs]


# --- values -------------------------------------------------------------------------------------------


def value_rivals(steps: int) -> dict[str, pk.ConvergentGraphSolver]:
    common: dict[str, Any] = {"steps": steps, "layers": 3, "width": 32, "heads": 16, "target": "V"}
    size = 50_741  # parameters of ours
    return {
        "ours": pk.ConvergentGraphSolver(**common),
        "gamma = 0": pk.ConvergentGraphSolver(**common, factor=0.0),
        "GIN": pk.ConvergentGraphSolver(steps=steps, target="V", network=rival("GIN", size)),
        "GIN, batch-normalised": pk.ConvergentGraphSolver(
            steps=steps, target="V", network=rival("GIN", size, norm=True)
        ),
    }


def sweeps(graph: pk.Graph, count: int) -> np.ndarray:
    """Value iteration from zero: `count` hops of exact planning."""
    values = np.zeros(graph.n_nodes)
    for _ in range(count):
        new = np.full(graph.n_nodes, -np.inf)
        np.maximum.at(new, graph.edges[1], graph.edge["r"] + 0.9 * values[graph.edges[0]])
        values = new
    return values


def value_part(args: argparse.Namespace, kept: Kept) -> None:
    """Greedy policies of learned values, at training size and at four times the size."""
    problem = GraphValueIteration()
    tests = {
        "20-49 states": sample_graphs(100, seed=10**6),
        "80-199 states": sample_graphs(40, states=(80, 199), seed=10**6 + 1),
    }

    def scores(predict: Callable[[list[pk.Graph]], list[np.ndarray]]) -> dict[str, Any]:
        row = {}
        for key, graphs in tests.items():
            found = predict(graphs)
            truth = np.concatenate([g.node["V"] for g in graphs])
            off = np.abs(np.concatenate(found) - truth).mean() / np.abs(truth).mean()
            right = policy_accuracy(graphs, found).tolist()
            row[key] = {"right": right, "error": 100 * float(off)}
        return row

    def planned(count: int) -> dict[str, Any]:
        found = scores(lambda graphs: [sweeps(g, count) for g in graphs])
        return {**found, "parameters": 0, "seconds": 0.0}

    def learned(solver: pk.ConvergentGraphSolver, seed: int) -> dict[str, Any]:
        op, cost = trained(problem, solver, lambda seed: problem.graphs(64, seed), seed)
        return {**scores(lambda graphs: [f["V"] for f in op.predict(graphs)]), **cost}

    rows = {
        name: kept.row("values", {"name": name}, functools.partial(planned, count))
        for name, count in (("reward only", 0), ("two hops", 2))
    }
    for seed in args.seeds:
        for name, solver in value_rivals(args.steps).items():
            if args.only and name not in args.only:
                continue
            key = {"name": name, "steps": args.steps, "seed": seed}
            title = name if len(args.seeds) == 1 else f"{name}, seed {seed}"
            rows[title] = kept.row("values", key, functools.partial(learned, solver, seed))
    heads = [f"{key}: {what}" for key in tests for what in ("policy accuracy", "value error %")]
    table = []
    for name, row in rows.items():
        cells = [c for key in tests for c in (interval(np.array(row[key]["right"])), row[key]["error"])]  # fmt: skip
        table.append([name, *cells, row["parameters"], row["seconds"]])
    print_table(["", *heads, "parameters", "seconds"], table)
