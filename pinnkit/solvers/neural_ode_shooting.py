"""Shooting: observations of a trajectory as residuals of numbers, weights and starting states.

In    an `OrdinaryModule`, the observation times, what was observed there.
Out   `Shooting`, a `ResidualModel`: weighted residuals and their exact Jacobian.
Next  `solvers.neural_ode` merges the segments and re-estimates the weights; `train.GaussNewton` steps.

The time axis is cut into segments with starting states s_k of their own. On a segment y' = F(t, y) is
integrated from observation to observation by r steps of RK4, y_{j+1} = Phi_j(y_j). Residuals are

    data         (h(y_j) - observed) / sigma          at every observation,
    continuity   (end of segment k - s_{k+1}) / seam   between segments,
    prior        sqrt(precision) theta                 for the weights of each network.

With A_j = dPhi_j/dy and B_j = dPhi_j/dtheta, all found at once by reverse mode over a batch of intervals,
the sensitivities along a segment are the products Z_{j+1} = A_j Z_j, W_{j+1} = A_j W_j + B_j: no
derivative is taken through a long integration. One segment is single shooting, where there is no seam.

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
    """The residuals of one cut into segments.

    theta is [numbers and weights in the order of `module.named_parameters()` | starting states over
    their sizes, segment by segment]; known initial values are no part of it.

    Args:
        module: F; its parameters are not changed.
        grid: Ascending times (K + 1,): the start, and every observation time.
        observed: What was observed.
        sizes: Of the states, (d,).
        start: Initial values (d,), nan where unknown.
        length: Intervals per segment; K and more is single shooting.
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
        length: int,
        substeps: int,
        precisions: Tensor,
        seam: float,
    ) -> None:
        self.module, self.grid, self.observed = module, grid, list(observed)
        self._own = copy.deepcopy(module).requires_grad_(False)
        self.sizes, self.start = sizes, start
        self.intervals = len(grid) - 1
        self.length = min(length, self.intervals)
        self.segments = -(-self.intervals // self.length)
        self.substeps, self.precisions, self.seam = substeps, precisions, seam
        self._names = [name for name, _ in module.named_parameters()]
        self._shapes = [p.shape for p in module.parameters()]
        self.weights = sum(p.numel() for p in module.parameters())  # P
        self.free = torch.isnan(start)  # of the first segment's states
        # Intervals (segments, length), the last segment filled up with intervals of length 0.
        padded = grid[-1:].expand(self.segments * self.length + 1).clone()
        padded[: len(grid)] = grid
        self._left = padded[:-1].reshape(self.segments, self.length)
        self._width = padded.diff().reshape(self.segments, self.length)

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of theta, as one vector."""
        return [(self.weights + int(self.free.sum()) + (self.segments - 1) * len(self.sizes),)]

    def theta(
        self,
        weights: Tensor,  # shape: (P,)
        states: Tensor,  # shape: (K + 1, d)
    ) -> Tensor:
        """The vector that starts every segment from these states on the grid."""
        nodes = (states[: self.intervals : self.length] / self.sizes).reshape(-1)
        return torch.cat([weights, nodes[: len(self.sizes)][self.free], nodes[len(self.sizes) :]])

    def split(self, theta: Tensor) -> tuple[Tensor, Tensor]:  # shapes: (P,), (segments, d)
        """Weights, and the starting states in the user's units."""
        weights, rest = theta[: self.weights], theta[self.weights :]
        free = int(self.free.sum())
        first = torch.where(self.free, torch.zeros_like(self.start), self.start)
        first = first.clone()
        first[self.free] = rest[:free] * self.sizes[self.free]
        others = rest[free:].reshape(-1, len(self.sizes)) * self.sizes
        return weights, torch.cat([first[None], others])

    def states(self, theta: Tensor) -> Tensor:  # shape: (K + 1, d)
        """The trajectory on the grid, each segment's from its own start."""
        weights, nodes = self.split(theta)
        return self._on_grid(self._simulate(weights, nodes))

    def residual(self, theta: Tensor) -> Tensor:  # shape: (N,)
        """All residuals; nan and inf where the integration exploded."""
        weights, nodes = self.split(theta)
        with torch.no_grad():
            walk = self._simulate(weights, nodes)
            on_grid = self._on_grid(walk)
            parts = [
                (self._observe(o, weights, on_grid[o.places]) - o.values) / o.sigma
                for o in self.observed
            ]
            if self.segments > 1:
                gap = (walk[:-1, -1] - nodes[1:]) / (self.seam * self.sizes)
                parts.append(gap.reshape(-1))
            parts.append((self.precisions.sqrt() * weights)[self.precisions > 0])
        return torch.cat(parts)

    def rows(self, theta: Tensor) -> tuple[Tensor, Tensor]:  # shapes: (N,), (N, size of theta)
        """Residuals and their Jacobian."""
        weights, nodes = self.split(theta)
        with torch.no_grad():
            walk = self._simulate(weights, nodes)
        by_weights, by_start = self._sensitivities(weights, walk)
        size = self.shapes[0][0]
        on_grid = self._on_grid(walk)
        segment, step = self._owner()
        r_parts, j_parts = [], []
        for o in self.observed:
            values, (dw, dy) = self._observe_slopes(o, weights, on_grid[o.places])
            r_parts.append((values - o.values) / o.sigma)
            at = segment[o.places], step[o.places]
            rows = theta.new_zeros(len(values), size)
            rows[:, : self.weights] = dw + torch.einsum("nd,ndp->np", dy, by_weights[at])
            self._put_start(rows, segment[o.places], torch.einsum("nd,nde->ne", dy, by_start[at]))
            j_parts.append(rows / o.sigma)
        if self.segments > 1:
            scale = self.seam * self.sizes
            r_parts.append(((walk[:-1, -1] - nodes[1:]) / scale).reshape(-1))
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

    def _owner(self) -> tuple[Tensor, Tensor]:  # shapes: (K + 1,)
        """Segment, and steps into it, of every grid time; the last time ends the last segment."""
        k = torch.arange(self.intervals + 1, device=self.grid.device)
        segment = (k // self.length).clamp_max(self.segments - 1)
        return segment, k - segment * self.length

    def _on_grid(self, walk: Tensor) -> Tensor:  # shapes: (segments, length + 1, d) -> (K + 1, d)
        segment, step = self._owner()
        return walk[segment, step]

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
        d, free = len(self.sizes), int(self.free.sum())
        scaled = slopes * self.sizes
        first = segment == 0
        block = rows[:, self.weights : self.weights + free]
        block[first] = scaled[first][:, self.free]
        for k in range(d):
            column = self.weights + free + (segment - 1) * d + k
            later = (~first).nonzero()[:, 0]
            rows[later, column[later]] = scaled[later, k]

    def _seam_rows(self, by_weights: Tensor, by_start: Tensor, size: int) -> Tensor:
        n, d = self.segments - 1, len(self.sizes)
        rows = by_weights.new_zeros(n, d, size)
        rows[:, :, : self.weights] = by_weights[:-1, -1]
        flat = rows.reshape(n * d, size)
        segment = torch.arange(n, device=flat.device).repeat_interleave(d)
        self._put_start(flat, segment, by_start[:-1, -1].reshape(n * d, d))
        free = int(self.free.sum())
        places = self.weights + free + torch.arange(n * d, device=flat.device)
        own = torch.arange(n * d, device=flat.device)
        flat[own, places] -= self.sizes.repeat(n)
        return flat / (self.seam * self.sizes).repeat(n)[:, None]

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
