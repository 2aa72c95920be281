"""The exact solver on graphs: pore networks up to 1e5 pores, gradients, nonlinear systems.

    python benchmarks/graph_exact.py [--sizes 1000 10000 100000] [--data FOLDER]

Prints the tables of docs/graphs.md. Networks are made beforehand and not counted (Delaunay takes longer
than the solve). `--data` is a folder with `porenets/F42A_node1.dat` and its companions.
"""

from __future__ import annotations

import argparse
import pathlib
import resource
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from _common import hardware, measured, print_table

import pinnkit as pk
from pinnkit.graphs import pore_network, read_statoil
from pinnkit.graphs.sparse_solve import factorise
from pinnkit.graphs.value_iteration import sample_graphs
from pinnkit.problems import (  # pyright: ignore[reportMissingImports]
    GraphValueIteration,
    PowerFlow,
    ResistorNetwork,
)

DROP = 101325.0
p, k = pk.node_field("p"), pk.edge_feature("k")
INFLOW = pk.neighbour_sum(k * (p - p.neighbour))
SYSTEM = pk.GraphSystem(
    pk.neighbour_sum(k * (p.neighbour - p)),
    [pk.Fixed(p, DROP, where="inlet"), pk.Fixed(p, 0, where="outlet")],
)


def linear_row(name: str, graph: pk.Graph) -> list[Any]:
    """Solve, check the residual by plain scipy-free arithmetic, and the maximum principle."""
    started = time.perf_counter()
    sol = SYSTEM.on(graph).solve()
    seconds = time.perf_counter() - started
    pressure, fixed = sol[p], graph.node["inlet"] | graph.node["outlet"]
    a, b = graph.edges
    flow = graph.edge["k"] * (pressure[a] - pressure[b])
    rest = np.bincount(b, flow, graph.n_nodes) - np.bincount(a, flow, graph.n_nodes)
    drive = graph.edge["k"] * DROP
    ends = graph.node["inlet"]
    right = np.bincount(b, drive * ends[a], graph.n_nodes)
    right += np.bincount(a, drive * ends[b], graph.n_nodes)
    relative = np.linalg.norm(rest[~fixed]) / np.linalg.norm(right[~fixed])
    inside = bool((pressure >= 0).all() and (pressure <= DROP).all())
    return [
        name,
        graph.n_nodes,
        graph.n_edges,
        str(sol.stats.more["linear"]).split(",")[0],
        sol.stats.more["iterations"],
        f"{relative:.1e}",
        f"{sol.error_estimate:.1e} {sol.evidence.name}",
        "yes" if inside else "no",
        f"{seconds:.2f}",
        f"{sol.stats.verification_seconds:.2f}",
    ]


def gradient_row(name: str, graph: pk.Graph) -> list[Any]:
    """d (total flow) / d k_ij against (p_i - p_j)^2 / drop."""
    layer = SYSTEM.on(graph).differentiable()
    values = torch.tensor(graph.edge["k"], requires_grad=True)
    inlet = torch.tensor(graph.node["inlet"])
    started = time.perf_counter()
    found = layer(edge={"k": values})
    (gradient,) = torch.autograd.grad(found[INFLOW][inlet].sum(), values)
    seconds = time.perf_counter() - started
    a, b = graph.edges
    pressure = found[p].detach().numpy()
    expected = (pressure[a] - pressure[b]) ** 2 / DROP
    off = np.abs(gradient.numpy() - expected).max() / expected.max()
    return [
        name,
        graph.n_nodes,
        f"{off:.1e}",
        f"{seconds:.2f}",
        difference(graph, layer, values, gradient),
    ]


def difference(graph: pk.Graph, layer: Any, values: torch.Tensor, gradient: torch.Tensor) -> str:
    """Largest relative difference from central finite differences, every edge of a small graph."""
    if graph.n_nodes > 200:
        return "-"
    inlet, worst = torch.tensor(graph.node["inlet"]), 0.0
    largest = float(gradient.abs().max())
    with torch.no_grad():
        for e in range(graph.n_edges):
            h = 1e-4 * float(values[e])
            step = torch.zeros_like(values)
            step[e] = h
            ends = [layer(edge={"k": values + s * step})[INFLOW][inlet].sum() for s in (1, -1)]
            slope = float(ends[0] - ends[1]) / (2 * h)
            worst = max(worst, abs(slope - float(gradient[e])) / largest)
    return f"{worst:.1e}"


def nonlinear_row(name: str, problem: Any) -> list[Any]:
    """Newton's steps, and what is known of the error."""
    started = time.perf_counter()
    sol = problem.solve()
    seconds = time.perf_counter() - started
    known = "-" if sol.error_estimate is None else f"{sol.error_estimate:.1e}"
    return [
        name,
        sol.graph.n_nodes,
        sol.graph.n_edges,
        sol.stats.steps,
        sol.status.name,
        f"{known} {sol.evidence.name}",
        f"{seconds:.2f}",
    ]


def choice_row(graph: pk.Graph) -> list[Any]:
    """Factors against iterations on one network."""
    from pinnkit.lower.graph_residual import GraphEquations
    from pinnkit.solution.graph_layer import make_newton

    problem = SYSTEM.on(graph)
    newton = make_newton(GraphEquations(problem.normal_form, graph, problem.binding))
    matrix, right = newton.jacobian(newton.z), newton.F
    row: list[Any] = [graph.n_nodes]
    for direct in (True, False):
        started = time.perf_counter()
        inverse = factorise(matrix, direct=direct)
        inverse.solve(right)
        row.append(f"{time.perf_counter() - started:.2f}")
    return row


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--data", type=pathlib.Path, help="folder with porenets/F42A_*.dat")
    options = parser.parse_args(arguments)
    print(hardware())
    networks = {n: pore_network(n, seed=0) for n in options.sizes}
    if options.data is not None:
        networks[-1] = read_statoil(options.data / "porenets", "F42A")
    names = {n: "F42A sand pack" if n < 0 else "random network" for n in networks}
    with measured("pore networks, float64"):
        head = ["network", "pores", "throats", "method", "iterations", "relative residual"]
        head += ["error bound", "maximum principle", "seconds in all", "of them checking"]
        print_table(head, [linear_row(names[n], g) for n, g in networks.items()])
    with measured("factors or iterations, one solve"):
        small = [pore_network(n, seed=0) for n in (1000, 5000, 20_000)]
        print_table(["pores", "factors, s", "conjugate gradients, s"], map(choice_row, small))
    with measured("gradient of the total flow in every conductance"):
        rows = [gradient_row("random network", pore_network(200, seed=1))]
        rows += [gradient_row(names[n], g) for n, g in networks.items()]
        head = ["network", "pores", "off (p_i - p_j)^2 / drop", "seconds, both ways"]
        print_table([*head, "off finite differences"], rows)
    with measured("nonlinear systems"):
        best = GraphValueIteration().system.on(sample_graphs(1, states=(2000, 2000), seed=0)[0])
        rows = [
            nonlinear_row("power flow, IEEE 14 buses", PowerFlow()),
            nonlinear_row("power flow, 4 times the load", PowerFlow(load=4.0)),
            nonlinear_row("resistors and diodes", ResistorNetwork()),
            nonlinear_row("resistors and diodes", ResistorNetwork(size=30)),
            nonlinear_row("resistors and diodes", ResistorNetwork(size=100, diodes=0.1)),
            nonlinear_row("value iteration", best),
        ]
        head = ["problem", "nodes", "edges", "steps", "status", "error", "seconds in all"]
        print_table(head, rows)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\nLargest resident size of the process: {peak:.2f} GiB")


if __name__ == "__main__":
    main()
