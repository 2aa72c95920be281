"""ConvergentGraphSolver: memory and speed against a dense layout, certificates, three learning tasks.

In    nothing: `python benchmarks/convergent_graph.py [--part PART] [--steps N] [--data FOLDER] [--out FILE]`.
      Parts with learning are in `_graph_tasks` and `_graph_classes`.
Out   one table per part:
      layout       memory and seconds of operator + solve + adjoint, and of a whole training step, on the
                   published pore batch (32 graphs of 50 to 200 pores, 16 heads), sparse and dense
      large        one training step on a network of 1e5 pores
      certificate  1000 random graphs and weights: contraction, error bounds, batch against one by one
      pores        pressures: trained on 50 to 199 pores, tested there, at 10 times the size, and on a
                   real rock, beside a cubic in the flow coordinate, gamma = 0, GIN, an implicit network
      values       graph value iteration: policy accuracy at training size and 4 times the size
      trials       six settings of each rival of `classes`, on graphs that are in no table
      classes      graph classification, 10 outer folds, epoch chosen on an inner 10 % hold-out
Next  docs/convergent_graph.md.

--data names a folder with porenets/F42A_*.dat and MUTAG/MUTAG.txt and so on; what is not there is left out.
--out appends each row as JSON as soon as it is known, and rows that are there are not measured again.
Seconds are one thread's own (CPU time), so that other work on the machine hardly counts.
"""

from __future__ import annotations

import argparse
import functools
import math
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from _common import measured, print_table
from _graph_classes import SETS, class_part, trial_part
from _graph_learning import Kept, dense_fixed_point, peak_of
from _graph_tasks import F32, pore_part, pores, value_part

from pinnkit.graphs import (
    Arcs,
    ConvergentGraphNetwork,
    contracting_weights,
    linear_fixed_point,
    pore_network,
)
from pinnkit.implicit import GMRES, Anderson, Picard

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


def layout(args: argparse.Namespace, kept: Kept) -> None:
    """Sparse against dense; the bars are shares of the dense layout's memory and time."""
    del args
    rows = []
    for name, make, bars in (
        ("operator + solve + adjoint", solve_and_adjoint, (1 / 50, math.inf)),
        ("a training step", training_step, (1 / 5, 1 / 3)),
    ):

        def measure(make: Callable[..., Any] = make) -> list[Any]:
            return [peak_of(make, "sparse", 16), peak_of(make, "dense", 16, calls=1)]

        (sparse, fast), (dense, slow) = kept.row("layout", {"name": name}, measure)
        met = sparse <= bars[0] * dense and fast <= bars[1] * slow
        mib = sparse / 2**20, dense / 2**20
        rows.append([name, *mib, dense / sparse, fast, slow, slow / fast, met])
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


def large(args: argparse.Namespace, kept: Kept) -> None:
    """One update on one graph of 1e5 nodes."""
    del args
    used, seconds = kept.row("large", {}, functools.partial(peak_of, large_step, 100_000))
    row = ["1e5 pores, 8 heads", used / 2**30, seconds, used < 24 * 2**30]
    print_table(["", "GiB", "seconds a step", "met (24 GiB)"], [row])


# --- certificate ------------------------------------------------------------------------------------

SOLVERS = (Picard(), Anderson(), GMRES(), None)
# Bounds are to hold at any tolerance, reached or not. Alone and in a batch rounding differs, by which the
# iterates of a method one insists on (Anderson's near 1) wander: they agree to 1e-10 only where each is solved
# beyond that. What `linear_fixed_point` chooses by itself agrees with its defaults.
LOOSE: dict[str, Any] = {"max_steps": 200}
TIGHT: dict[str, Any] = {"rtol": 1e-14, "max_steps": 4000}


def random_case(seed: int) -> tuple[Arcs, torch.Tensor, torch.Tensor, float]:
    """(arcs, weights, bias, the factor by which they contract)."""
    rng, gen = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    n = int(rng.integers(1, 60))
    count = int(rng.integers(1, 6)) * n
    half = torch.from_numpy(rng.integers(0, n, (2, count)))
    arcs = Arcs(torch.cat([half[0], half[1]]), torch.cat([half[1], half[0]]), n)
    factor = float(rng.choice([0.1, 0.5, 0.9, 0.99, 0.999]))
    spread = float(rng.uniform(0.1, 6))
    logits = spread * torch.randn(2 * count, 1, generator=gen, dtype=torch.float64)
    kind = ("degree", "softmax", "conductance")[seed % 3]
    weights = factor * contracting_weights(arcs, logits, normalisation=kind).weights
    return arcs, weights, torch.randn(n, 1, generator=gen, dtype=torch.float64), factor


def joined(parts: list[Arcs]) -> Arcs:
    """Graphs one after the other, their arcs, too."""
    starts = np.cumsum([0, *(a.n_nodes for a in parts)]).tolist()
    shifted = list(zip(parts, starts, strict=False))
    return Arcs(
        torch.cat([a.senders + start for a, start in shifted]),
        torch.cat([a.receivers + start for a, start in shifted]),
        starts[-1],
        torch.arange(len(parts)).repeat_interleave(torch.tensor([a.n_nodes for a in parts])),
    )


def check_batch(seeds: range, solver: Any) -> list[list[float]]:
    """Per graph [contracts, bound holds, bound / error, converged, batch against alone: TIGHT, by default]."""
    cases = [random_case(seed) for seed in seeds]
    batch = joined([case[0] for case in cases])
    weights, bias = torch.cat([c[1] for c in cases]), torch.cat([c[2] for c in cases])
    together, _ = linear_fixed_point(batch, weights, bias, solver=solver, **TIGHT)
    by_default, _ = linear_fixed_point(batch, weights, bias)
    rows = []
    for k, (arcs, w, b, factor) in enumerate(cases):
        h, record = linear_fixed_point(arcs, w, b, solver=solver, **LOOSE)
        dense = torch.zeros(arcs.n_nodes, arcs.n_nodes, dtype=torch.float64)
        dense.index_put_((arcs.receivers, arcs.senders), w[:, 0], accumulate=True)
        truth = torch.linalg.solve(torch.eye(arcs.n_nodes, dtype=torch.float64) - dense, b)
        error, stated = float((h - truth).abs().max()), float(record.error)
        alone, _ = linear_fixed_point(arcs, w, b, solver=solver, **TIGHT)
        mine = batch.node_graph == k
        apart = [
            _apart(together[mine], alone),
            _apart(by_default[mine], linear_fixed_point(arcs, w, b)[0]),
        ]
        contracts = bool(dense.abs().sum(1).max() <= factor * (1 + 1e-12))
        holds = bool(record.certified) and error <= stated
        rows.append([contracts, holds, stated / max(error, 1e-300), bool(record.converged), *apart])
    return rows


def _apart(x: torch.Tensor, y: torch.Tensor) -> float:
    return float((x - y).abs().max() / y.abs().max())


def certificate(args: argparse.Namespace, kept: Kept) -> None:
    """Stated against true errors; each graph alone against a batch of 25 graphs of other factors."""
    each, rows = 25, []
    for k, start in enumerate(range(0, args.graphs, each)):
        seeds = range(start, min(start + each, args.graphs))
        check = functools.partial(check_batch, seeds, SOLVERS[k % len(SOLVERS)])
        rows += kept.row("certificate", {"seeds": [start, len(seeds)]}, check)
    a = np.array(rows)
    contract, bound, converged = a[:, [0, 1, 3]].sum(0).astype(int).tolist()
    tightness, apart, by_default = float(np.median(a[:, 2])), *a[:, 4:].max(0).tolist()
    met = contract == bound == args.graphs and max(apart, by_default) <= 1e-10
    heads = ["graphs", "contraction <= factor", "error <= bound", "converged", "median bound/error"]
    print_table([*heads, "batch apart", "by default", "met"],
                [[args.graphs, contract, bound, converged, tightness, apart, by_default, met]])  # fmt: skip


# --- all ----------------------------------------------------------------------------------------------

PARTS: dict[str, Callable[[argparse.Namespace, Kept], None]] = {
    "layout": layout,
    "large": large,
    "certificate": certificate,
    "pores": pore_part,
    "values": value_part,
    "trials": trial_part,
    "classes": class_part,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--part", action="append", choices=sorted(PARTS), help="default: all")
    parser.add_argument("--steps", type=int, default=1000, help="updates of pores and values")
    parser.add_argument("--epochs", type=int, default=40, help="of classes")
    parser.add_argument("--repeats", type=int, default=3, help="of the ten folds")
    parser.add_argument(
        "--sets", nargs="+", default=["MUTAG", "PTC", "PROTEINS"], choices=list(SETS)
    )
    parser.add_argument("--most", type=int, default=2000, help="graphs of a set of classes")
    parser.add_argument("--graphs", type=int, default=1000, help="of certificate")
    parser.add_argument("--only", nargs="+", default=None, help="rivals of pores and values")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of pores and values")
    parser.add_argument("--data", type=pathlib.Path, default=None)
    parser.add_argument("--out", type=pathlib.Path, default=None)
    args = parser.parse_args()
    torch.set_num_threads(1)
    kept = Kept(args.out)
    for part in args.part or PARTS:
        with measured(part):
            PARTS[part](args, kept)


if __name__ == "__main__":
    main()
