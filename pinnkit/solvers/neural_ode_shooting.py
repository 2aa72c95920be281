"""Shooting: observations of trajectories as residuals of numbers, weights and starting states.

In    an `OrdinaryModule`, the observation times of every run, what was observed there.
Out   `Shooting`, a `ResidualModel`: weighted residuals and their exact Jacobian.
Next  `solvers.neural_ode` merges the segments and re-estimates the weights; `train.GaussNewton` steps.

The time axis is cut into segments with starting states s_k of their own. On a segment y' = F(t, y) is
integrated from observation to observation by r steps of RK4, y_{j+1} = Phi_j(y_j). Residuals are

    data         (h(y_j) - observed) / sigma          at every observation,
    continuity   (end of segment k - s_{k+1}) / seam   between segments,
    prior        sqrt(precision) theta                 for the weights of each network.

With A_j = dPhi_j/dy and B_j = dPhi_j/dtheta, all found at once by reverse mode over a batch of intervals,
the sensitivities along a segment are the products Z_{j+1} = A_j Z_j, W_{j+1} = A_j W_j + B_j: no
derivative is taken through a long integration. One segment per run is single shooting, where there is no
seam. Runs share F and have starts of their own; their segments are integrated side by side.

References: bock1983 (multiple shooting for parameters), turan2022multiple (for neural equations).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from pinnkit.lower.expressions import Compiled
from pinnkit.lower.ordinary import OrdinaryModule

__all__ = ["Observed", "Shooting"]

Rate = Callable[[Tensor, Tensor], Tensor]


@final
@dataclass(frozen=True, eq=False)
class Observed:
    """Values (n,) of an expression at places (n,) of the grid; `sigma` their standard deviation."""

    function: Compiled
    places: Tensor
    values: Tensor
    sigma: float


@final
class Shooting:
    """The residuals of trajectories cut into segments.

    theta is [numbers and weights in the order of `module.named_parameters()` | starts of the runs |
    starting states of the other segments], states over their sizes; known initial values are no part of it.

    Args:
        module: F; its parameters are not changed.
        grid: Of each run the start and every observation time, ascending; one run after the other, (K,).
        counts: How many of them each run has; their sum is K.
        observed: What was observed.
        sizes: Of the states, (d,).
        start: Initial values of every run (d,), nan where unknown.
        length: Intervals per segment; the most a run has, and more, is single shooting.
        substeps: RK4 steps per interval.
        precisions: Per parameter of the module, (P,): of its prior, 0 for none.
        seam: Continuity's standard deviation in sizes.
    """

    def __init__(
        self,
        module: OrdinaryModule,
        grid: Tensor,
        observed: Sequence[Observed],
        sizes: Tensor,
        start: Tensor,
        *,
        counts: Sequence[int],
        length: int,
        substeps: int,
        precisions: Tensor,
        seam: float,
    ) -> None:
        self.module, self.grid, self.observed = module, grid, list(observed)
        self._own = copy.deepcopy(module).requires_grad_(False)
        self.sizes, self.start = sizes, start
        self.length = min(length, max(1, *(n - 1 for n in counts)))
        self.substeps, self.precisions, self.seam = substeps, precisions, seam
        self._names = [name for name, _ in module.named_parameters()]
        self._shapes = [p.shape for p in module.parameters()]
        self.weights = sum(p.numel() for p in module.parameters())  # P
        self.free = torch.isnan(start)  # of the first segment's states
        self._cut(counts)
        self._last: tuple[Tensor, Tensor] | None = None

    def _cut(self, counts: Sequence[int]) -> None:
        """Lay the runs' segments one after the other, and say where in them every grid time lies."""
        left, width, first, begin, owner, steps = [], [], [], [], [], []
        for run, at in zip(self.grid.split(list(counts)), self._offsets(counts), strict=True):
            segments = max(1, -(-(len(run) - 1) // self.length))
            # The last segment is filled up with intervals of length 0.
            padded = run[-1:].expand(segments * self.length + 1).clone()
            padded[: len(run)] = run
            left.append(padded[:-1].reshape(segments, self.length))
            width.append(padded.diff().reshape(segments, self.length))
            k = torch.arange(len(run), device=run.device)
            segment = (k // self.length).clamp_max(segments - 1)
            owner.append(segment + sum(map(len, first)))
            steps.append(k - segment * self.length)
            first.append(torch.arange(segments, device=run.device) == 0)
            begin.append(at + self.length * torch.arange(segments, device=run.device))
        self._left, self._width = torch.cat(left), torch.cat(width)  # (segments, length)
        self._first, self._begin = torch.cat(first), torch.cat(begin)  # (segments,)
        self._owner, self._step = torch.cat(owner), torch.cat(steps)  # (K,)
        self.runs, self.segments = len(counts), len(self._first)
        self._later = (~self._first).nonzero()[:, 0]  # segments with a seam before them
        d, free = len(self.sizes), int(self.free.sum())
        # Where in theta each segment's start stands, -1 for what is known.
        self._columns = torch.full((self.segments, d), -1, device=self.grid.device)
        starts = torch.arange(self.runs * free, device=self.grid.device).reshape(self.runs, free)
        rows = self._first.nonzero()
        self._columns[rows, self.free.nonzero()[:, 0]] = self.weights + starts
        others = torch.arange(len(self._later) * d, device=self.grid.device).reshape(-1, d)
        self._columns[self._later] = self.weights + self.runs * free + others

    @staticmethod
    def _offsets(counts: Sequence[int]) -> list[int]:
        return [sum(counts[:r]) for r in range(len(counts))]

    @property
    def whole(self) -> bool:
        """Whether every run is one segment."""
        return self.segments == self.runs

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of theta, as one vector."""
        unknown = int((self._columns >= 0).sum())
        return [(self.weights + unknown,)]

    def theta(
        self,
        weights: Tensor,  # shape: (P,)
        states: Tensor,  # shape: (K, d)
    ) -> Tensor:
        """The vector that starts every segment from these states on the grid."""
        nodes = states[self._begin] / self.sizes
        starts = nodes[self._first][:, self.free].reshape(-1)
        return torch.cat([weights, starts, nodes[self._later].reshape(-1)])

    def split(self, theta: Tensor) -> tuple[Tensor, Tensor]:  # shapes: (P,), (segments, d)
        """Weights, and the starting states in the user's units."""
        known = torch.where(self.free, torch.zeros_like(self.start), self.start)
        nodes = known.expand(self.segments, -1).clone()
        unknown = self._columns >= 0
        nodes[unknown] = (theta[self._columns.clamp_min(0)] * self.sizes)[unknown]
        return theta[: self.weights], nodes

    def starts(self, theta: Tensor) -> Tensor:  # shape: (runs, d)
        """Where the runs begin, in the user's units."""
        return self.split(theta)[1][self._first]

    def states(self, theta: Tensor) -> Tensor:  # shape: (K, d)
        """The trajectories on the grid, each segment's from its own start."""
        return self._on_grid(self._walk(theta))

    def residual(self, theta: Tensor) -> Tensor:  # shape: (N,)
        """All residuals; nan and inf where the integration exploded."""
        weights, nodes = self.split(theta)
        with torch.no_grad():
            walk = self._walk(theta)
            on_grid = self._on_grid(walk)
            parts = [
                (self._observe(o, weights, on_grid[o.places]) - o.values) / o.sigma
                for o in self.observed
            ]
            parts.append(self._gaps(walk, nodes))
            parts.append((self.precisions.sqrt() * weights)[self.precisions > 0])
        return torch.cat(parts)

    def rows(self, theta: Tensor) -> tuple[Tensor, Tensor]:  # shapes: (N,), (N, size of theta)
        """Residuals and their Jacobian."""
        weights, nodes = self.split(theta)
        walk = self._walk(theta)
        by_weights, by_start = self._sensitivities(weights, walk)
        size = self.shapes[0][0]
        on_grid = self._on_grid(walk)
        r_parts, j_parts = [], []
        for o in self.observed:
            values, (dw, dy) = self._observe_slopes(o, weights, on_grid[o.places])
            r_parts.append((values - o.values) / o.sigma)
            at = self._owner[o.places], self._step[o.places]
            rows = theta.new_zeros(len(values), size)
            rows[:, : self.weights] = dw + torch.einsum("nd,ndp->np", dy, by_weights[at])
            self._put_start(rows, at[0], torch.einsum("nd,nde->ne", dy, by_start[at]))
            j_parts.append(rows / o.sigma)
        r_parts.append(self._gaps(walk, nodes))
        j_parts.append(self._seam_rows(by_weights, by_start, size))
        used = self.precisions > 0
        r_parts.append((self.precisions.sqrt() * weights)[used])
        prior = theta.new_zeros(self.weights, size)
        prior[:, : self.weights] = torch.diag(self.precisions.sqrt())
        j_parts.append(prior[used])
        return torch.cat(r_parts), torch.cat(j_parts)

    def gradient(self, theta: Tensor) -> tuple[float, Tensor]:
        """r.r and 2 J^T r."""
        r, rows = self.rows(theta)
        return float(r @ r), 2 * (rows.T @ r)

    def _on_grid(self, walk: Tensor) -> Tensor:  # shapes: (segments, length + 1, d) -> (K, d)
        return walk[self._owner, self._step]

    def _gaps(self, walk: Tensor, nodes: Tensor) -> Tensor:
        """Continuity's residuals: the end of a segment minus the start of the next of its run."""
        return (
            (walk[self._later - 1, -1] - nodes[self._later]) / (self.seam * self.sizes)
        ).reshape(-1)

    def _walk(self, theta: Tensor) -> Tensor:
        """Without gradient: (segments, length + 1, d). A step that is taken was tried just before."""
        if self._last is None or not torch.equal(theta, self._last[0]):
            with torch.no_grad():
                self._last = (theta.clone(), self._simulate(*self.split(theta)))
        return self._last[1]

    def _simulate(self, weights: Tensor, nodes: Tensor) -> Tensor:
        """Without gradient: (segments, length + 1, d)."""
        # Weights are put into a module once: functional_call per stage would take most of the time.
        nn.utils.vector_to_parameters(weights, self._own.parameters())
        y, walk = nodes, [nodes]
        for j in range(self.length):
            y = self._flow(self._own, self._left[:, j], self._width[:, j], y)
            walk.append(y)
        return torch.stack(walk, dim=1)

    def _flow(self, rate: Rate, t: Tensor, width: Tensor, y: Tensor) -> Tensor:
        """Phi for a batch: r steps of RK4 over `width` from t."""
        h = (width / self.substeps)[:, None]
        for k in range(self.substeps):
            s = t + k * h[:, 0]
            k1 = rate(s, y)
            k2 = rate(s + 0.5 * h[:, 0], y + 0.5 * h * k1)
            k3 = rate(s + 0.5 * h[:, 0], y + 0.5 * h * k2)
            k4 = rate(s + h[:, 0], y + h * k3)
            y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return y

    def _named(self, weights: Tensor) -> dict[str, Tensor]:
        parts = weights.split([s.numel() for s in self._shapes])
        return {n: p.reshape(s) for n, p, s in zip(self._names, parts, self._shapes, strict=True)}

    def _sensitivities(self, weights: Tensor, walk: Tensor) -> tuple[Tensor, Tensor]:
        """dy/dweights (segments, length + 1, d, P) and dy/dstart (segments, length + 1, d, d)."""
        n, length, d = self.segments, self.length, len(self.sizes)

        def one(w: Tensor, t: Tensor, width: Tensor, y: Tensor) -> Tensor:
            named = self._named(w)

            def rate(s: Tensor, z: Tensor) -> Tensor:
                return functional_call(self.module, named, (s, z))

            return self._flow(rate, t[None], width[None], y[None])[0]

        slopes: Any = vmap(jacrev(one, argnums=(0, 3)), in_dims=(None, 0, 0, 0))
        flat = walk[:, :-1].reshape(-1, d)
        b, a = slopes(weights, self._left.reshape(-1), self._width.reshape(-1), flat)
        b, a = b.reshape(n, length, d, -1), a.reshape(n, length, d, d)
        by_weights = [torch.zeros_like(b[:, 0])]
        by_start = [torch.eye(d, dtype=a.dtype, device=a.device).expand(n, d, d)]
        for j in range(length):
            by_weights.append(a[:, j] @ by_weights[-1] + b[:, j])
            by_start.append(a[:, j] @ by_start[-1])
        return torch.stack(by_weights, 1), torch.stack(by_start, 1)

    def _put_start(self, rows: Tensor, segment: Tensor, slopes: Tensor) -> None:
        """Write d/d(start of the row's segment), (n, d), into the rows."""
        scaled = slopes * self.sizes
        for k in range(len(self.sizes)):
            column = self._columns[segment, k]
            unknown = (column >= 0).nonzero()[:, 0]
            rows[unknown, column[unknown]] = scaled[unknown, k]

    def _seam_rows(self, by_weights: Tensor, by_start: Tensor, size: int) -> Tensor:
        later, d = self._later, len(self.sizes)
        rows = by_weights.new_zeros(len(later) * d, size)
        rows[:, : self.weights] = by_weights[later - 1, -1].reshape(-1, self.weights)
        self._put_start(
            rows, (later - 1).repeat_interleave(d), by_start[later - 1, -1].reshape(-1, d)
        )
        own = torch.arange(len(rows), device=rows.device)
        rows[own, self._columns[later].reshape(-1)] -= self.sizes.repeat(len(later))
        return rows / (self.seam * self.sizes).repeat(len(later))[:, None]

    def _observe(self, o: Observed, weights: Tensor, y: Tensor) -> Tensor:  # shape: (n,)
        return self._observe_one(o, weights, self.grid[o.places], y)

    def _observe_one(self, o: Observed, weights: Tensor, t: Tensor, y: Tensor) -> Tensor:
        named = self._named(weights)
        numbers = self.module.values_of(named)
        return o.function([t, *y.unbind(1), *(v.expand(len(y)) for v in numbers)])[0]

    def _observe_slopes(
        self, o: Observed, weights: Tensor, y: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        def one(w: Tensor, t: Tensor, state: Tensor) -> Tensor:
            return self._observe_one(o, w, t[None], state[None])[0]

        slopes: Any = vmap(jacrev(one, argnums=(0, 2)), in_dims=(None, 0, 0))
        return self._observe(o, weights, y), slopes(weights, self.grid[o.places], y)
