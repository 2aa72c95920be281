"""What the tests of learned graph solvers share: random graphs with every awkward thing in them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pinnkit.graphs import Arcs, Operator

EXACT, ROUNDOFF, ITERATIVE = 1e-12, 1e-10, 1e-8


def some_arcs(
    seed: int = 0, sizes: tuple[int, ...] = (7,), per_node: int = 3, undirected: bool = False
) -> Arcs:
    """Graphs with parallel arcs, and a node without arcs at the end of each."""
    rng = np.random.default_rng(seed)
    senders, receivers, graphs, offset = [], [], [], 0
    for k, n in enumerate(sizes):
        count = per_node * n
        senders.append(offset + rng.integers(0, max(n - 1, 1), count))
        receivers.append(offset + rng.integers(0, max(n - 1, 1), count))
        senders[-1][0], receivers[-1][0] = senders[-1][-1], receivers[-1][-1]  # parallel
        graphs.append(np.full(n, k))
        offset += n
    s, r = np.concatenate(senders), np.concatenate(receivers)
    if undirected:
        s, r = np.concatenate([s, r]), np.concatenate([r, s])
    return Arcs(
        torch.from_numpy(s), torch.from_numpy(r), offset, torch.from_numpy(np.concatenate(graphs))
    )


def dense(arcs: Arcs, weights: Tensor) -> Tensor:  # shapes: (A, M) -> (M, N, N)
    """The operator written out: parallel arcs add up."""
    out = weights.new_zeros(weights.shape[1], arcs.n_nodes, arcs.n_nodes)
    for a in range(arcs.n_arcs):
        row, column = int(arcs.receivers[a]), int(arcs.senders[a])
        out = out.index_put(
            (torch.arange(len(out)), torch.tensor(row), torch.tensor(column)),
            weights[a],
            accumulate=True,
        )
    return out


def dense_solve(arcs: Arcs, operator: Operator, bias: Tensor) -> Tensor:
    """(1 - W)^-1 b by LU, head by head."""
    system = torch.eye(arcs.n_nodes, dtype=bias.dtype) - dense(arcs, operator.weights)
    return torch.linalg.solve(system, bias.T[..., None])[..., 0].T


def normal(seed: int, *shape: int) -> Tensor:
    gen = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=gen)
