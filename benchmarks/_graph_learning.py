"""What benchmarks/convergent_graph.py needs of its own: a dense rival, peak memory, scores, kept rows.

In    graphs, operators.
Out   `dense_fixed_point` (the published layout), `peak_of` (bytes of one call in a fresh process),
      `pore_scores`, `CubicInHeight`, `interval`, `Kept` (rows that a rerun need not measure again).
"""

from __future__ import annotations

import json
import multiprocessing
import pathlib
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

import pinnkit as pk
from pinnkit.graphs import Arcs

__all__ = ["CubicInHeight", "Kept", "dense_fixed_point", "interval", "peak_of", "pore_scores"]


class Kept:
    """Rows of a file, each appended as soon as it is known; what is there already is not measured again.

    Args:
        path: Of the file, a JSON object a line; None: nothing is kept.
    """

    def __init__(self, path: pathlib.Path | None) -> None:
        self.path = path
        self.known: dict[str, Any] = {}
        if path is not None and path.exists():
            for line in path.read_text().splitlines():
                entry = json.loads(line)
                self.known[_name(entry["part"], entry["key"])] = entry["row"]

    def row(self, part: str, key: dict[str, Any], measure: Callable[[], Any]) -> Any:
        """What is known under this key, or else what `measure()` gives."""
        name = _name(part, key)
        if name not in self.known:
            self.known[name] = row = measure()
            print(f"{name}: {str(row)[:300]}", flush=True)
            if self.path is not None:
                with self.path.open("a") as file:
                    file.write(json.dumps({"part": part, "key": key, "row": row}) + "\n")
        return self.known[name]


def _name(part: str, key: dict[str, Any]) -> str:
    return f"{part} {json.dumps(key, sort_keys=True)}"


class _Dense(torch.autograd.Function):
    """H = A H + b with A dense (M, N, N), by sweeps; the adjoint by sweeps with its transpose."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, sweeps: int, tol: float) -> Tensor:
        h = _sweep(a, b, sweeps, tol)
        ctx.save_for_backward(a, h)
        ctx.rule = sweeps, tol
        return h

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        a, h = ctx.saved_tensors
        u = _sweep(a.mT, grads[0], *ctx.rule)
        return u @ h.mT, u, None, None


def _sweep(a: Tensor, b: Tensor, sweeps: int, tol: float) -> Tensor:
    h = b
    for _ in range(sweeps):
        new = a @ h + b
        change, h = (new - h).norm(), new
        if change < tol:
            break
    return h


def dense_fixed_point(
    arcs: Arcs, weights: Tensor, bias: Tensor, *, sweeps: int = 50, tol: float = 1e-6
) -> Tensor:
    """The published layout: one matrix over the whole batch for each head, parallel edges added."""
    n = arcs.n_nodes
    a = weights.new_zeros(weights.shape[1], n, n)
    heads = torch.arange(weights.shape[1])[:, None]
    a = a.index_put((heads, arcs.receivers[None], arcs.senders[None]), weights.T, accumulate=True)
    out: Any = _Dense.apply(a, bias.T[..., None], sweeps, tol)
    return out[..., 0].T


def peak_of(
    function: Callable[..., Callable[[], Any]], *args: Any, calls: int = 3
) -> tuple[float, float]:
    """(bytes above what was there before, CPU seconds) of function(*args)(), in a fresh process.

    `function` prepares; what it returns is measured. Seconds are the median of some calls after it, of
    one thread's own time, which other work on the machine changes least.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (function, args, calls))


def _measure(
    function: Callable[..., Callable[[], Any]], args: tuple[Any, ...], calls: int
) -> tuple[float, float]:
    torch.set_num_threads(1)
    run = function(*args)
    before = _resident("VmRSS")
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    run()
    used = _resident("VmHWM") - before
    seconds = []
    for _ in range(calls):
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
    return used, float(np.median(seconds))


def _resident(name: str) -> float:
    status = pathlib.Path("/proc/self/status").read_text()
    found = re.search(rf"{name}:\s+(\d+) kB", status)
    assert found is not None
    return 1024.0 * int(found.group(1))


class CubicInHeight:
    """p = a cubic in the coordinate along which the fluid flows, fitted to all training pores."""

    def __init__(self, graphs: Sequence[pk.Graph], values: Sequence[np.ndarray]) -> None:
        y = np.concatenate([height(g)[free(g)] for g in graphs])
        p = np.concatenate([v[free(g)] for g, v in zip(graphs, values, strict=True)])
        self.coefficients = np.polyfit(y, p, 3)

    def predict(self, graph: pk.Graph) -> np.ndarray:
        """Pressures over the drop, the boundaries as they are."""
        found = np.polyval(self.coefficients, height(graph))
        found[graph.node["inlet"]], found[graph.node["outlet"]] = 1.0, 0.0
        return found


def height(graph: pk.Graph) -> np.ndarray:
    """From 0 at the inlet to 1 at the outlet, the axis being the one along which these lie apart."""
    x = graph.node["position"]
    ends = [x[graph.node[name]].mean(0) for name in ("inlet", "outlet")]
    axis = int(np.argmax(np.abs(ends[1] - ends[0])))
    return (x[:, axis] - ends[0][axis]) / (ends[1][axis] - ends[0][axis])


def free(graph: pk.Graph) -> np.ndarray:
    """The pores that are to be found."""
    return ~(graph.node["inlet"] | graph.node["outlet"])


def flow(graph: pk.Graph, p: np.ndarray) -> float:
    """What enters at the inlet."""
    i, j = graph.edges
    inside = graph.node["inlet"].astype(float)
    return float((graph.edge["k"] * (p[i] - p[j]) * (inside[i] - inside[j])).sum())


def pore_scores(
    graphs: Sequence[pk.Graph], found: Sequence[np.ndarray], exact: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Per graph (mean |error| / drop over free pores, relative error of the total flow)."""
    off = [np.abs(f - e)[free(g)].mean() for g, f, e in zip(graphs, found, exact, strict=True)]
    flows = [abs(flow(g, f) / flow(g, e) - 1) for g, f, e in zip(graphs, found, exact, strict=True)]
    return np.array(off), np.array(flows)


def interval(values: np.ndarray) -> str:
    """Mean and 95 % interval of the mean."""
    half = 1.96 * values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.nan
    return f"{values.mean():.3f} +- {half:.3f}"
