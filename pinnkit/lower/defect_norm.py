"""The defect norm: how large an error a residual makes, by the linearised equation on a coarse grid.

In    slopes dF/dl of the residual at the nodes of a grid in time and space.
Out   `DefectNorm`: a linear map from residuals to weighted errors, v = L^-1 r.
Next  `nn.HardConstraint` minimises |L^-1 F(u)| in place of |F(u)|.

If F(u*) = 0 and u = u* + e, then F(u) = L e + O(e^2) with L = F'(u). So v = L^-1 F(u) *is* the error to
first order, and |v| is a norm of the residual whose constants do not depend on layers, scales or the basis,
whereas |F(u)| weighs a mistake of width h by h^-2. L is taken at a given state and frozen, without the terms
of order zero of evolution equations (they could make it singular, and change the constants only); it is
solved by implicit Euler in time and differences in space:

    sum_f (c_ef / dt + sum_k a_ef,k D^k) v_f^n = r_e^n + sum_f c_ef v_f^(n-1) / dt,      v^0 = 0,

with conditions in the rows of the sides. A coarse grid is enough: u is no unknown of it, and where F(u) = 0
in the span of the basis, that is the minimum in every norm.

For a monotone equation there is a bound with a known constant. Let theta(u)_t = D u_xx, theta' >= c > 0,
errors with the boundary values of a wall or an outflow, and r(t) = theta(u) - theta(u(0)) - D d_xx int_0^t u
the residual integrated in time. Multiplying by e and integrating, int r e = int (theta(u) - theta(u*)) e
+ D/2 |d_x int_0^T e|^2 + ... >= c |e|^2: the error is at most |r| / c. For the defect norm there is no such
proof; its constants are measured (`nn.norm_constants`, docs/hard_constraints.md): linearised at A they are
0.8 and 1.1 for diffusion-sorption, 0.8 and 1.4 for reaction and diffusion, 0.5 and 3.4 for Burgers' equation.
References: pinnkit's `DEFECT` evidence; grossmann2007numerical (implicit Euler).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["DefectNorm", "SpaceTimeGrid", "difference_matrix"]

BLOCK = 16  # nodes eliminated at once
DENSE = 64  # nodes up to which one inverse is as fast


class SpaceTimeGrid:
    """Nodes t_1 ... t_nt, graded towards the start, by nodes in space; time-major.

    Args:
        start, end: Of time; no node at the start.
        lower, upper: Of space. Nodes are Chebyshev's with both ends, on a periodic axis equidistant.
        times, nodes: How many.
        grading: t_i = start + (end - start) (i / times)^grading.
    """

    def __init__(
        self,
        start: float,
        end: float,
        lower: float,
        upper: float,
        *,
        times: int,
        nodes: int,
        grading: float = 1.0,
        periodic: bool = False,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        self.periodic, self.length = periodic, upper - lower
        self._differences: dict[int, tuple[Tensor, int]] = {}
        share = torch.linspace(0, 1, times + 1, dtype=torch.float64) ** grading
        t = start + (end - start) * share
        if periodic:
            x = lower + self.length * torch.arange(nodes, dtype=torch.float64) / nodes
            weight = torch.full_like(x, self.length / nodes)
        else:
            angle = torch.linspace(0, torch.pi, nodes, dtype=torch.float64)
            x = lower + self.length * (1 - torch.cos(angle)) / 2
            x[0], x[-1] = lower, upper
            gap = torch.diff(x)
            weight = torch.zeros_like(x)
            weight[1:] += gap / 2
            weight[:-1] += gap / 2
        volume = (end - start) * self.length
        place = {"dtype": dtype, "device": device}
        self.times, self.steps, self.nodes = (
            t[1:].to(**place),
            torch.diff(t).to(**place),
            x.to(**place),
        )
        self.weights = (torch.diff(t)[:, None] * weight / volume).to(**place)  # add up to 1

    def points(self, time_first: bool) -> Tensor:  # shape: (n, 2)
        """All nodes, time-major; columns (t, x), or (x, t)."""
        t, x = torch.meshgrid(self.times, self.nodes, indexing="ij")
        return torch.stack([t, x] if time_first else [x, t], -1).reshape(-1, 2)

    def difference(self, order: int) -> Tensor:
        """The matrix of d^order / dx^order at the nodes."""
        return self._known(order)[0]

    def reach(self, order: int) -> int:
        """How many nodes away the farthest neighbour is in a row of that matrix."""
        return self._known(order)[1]

    def _known(self, order: int) -> tuple[Tensor, int]:
        if order not in self._differences:
            nodes = self.nodes.detach().cpu().double().numpy()
            period = self.length if self.periodic else None
            matrix = difference_matrix(nodes, order, period)
            rows, columns = np.nonzero(matrix)
            reach = int(np.abs(rows - columns).max())
            self._differences[order] = torch.from_numpy(matrix).to(self.nodes), reach
        return self._differences[order]


class DefectNorm:
    """(B, n, e, k) -> (B, n e, k): v = L^-1 r at the nodes, times square roots of weights.

    On an axis that is not periodic, differences reach to a few neighbours. There the nodes are taken in
    blocks, of which each only meets its two neighbours, and are eliminated block by block,

        S_i = A_ii - G_i A_(i-1,i),    G_i = A_(i,i-1) S_(i-1)^-1,    H_i = S_i^-1 A_(i,i+1),

    so that time and memory grow linearly with the nodes. Trigonometric differences are dense: one block.

    Args:
        grid: The nodes.
        orders: (field, derivatives in time, derivatives in space) of every leaf.
        slopes: dF/dl at the nodes, (B, n, e, L); B = 1 for all samples alike.
        replaced: Rows of conditions, (n, e).
        scales: Size of every field; v is divided by it.
        block: Nodes in a block at least; None: all of them up to `DENSE`, else `BLOCK`.
    """

    def __init__(
        self,
        grid: SpaceTimeGrid,
        orders: Sequence[tuple[int, int, int]],
        slopes: Tensor,
        replaced: Tensor,
        scales: Tensor,  # shape: (m,)
        *,
        block: int | None = None,
    ) -> None:
        self.grid = grid
        nt, nx = len(grid.times), len(grid.nodes)
        batch, _, e, _ = slopes.shape
        self.block = _block_size(grid, [o for _, in_time, o in orders if not in_time], block)
        self.blocks = -(-nx // self.block)
        wide = self.blocks * self.block
        self.padding = wide - nx
        slopes = torch.nan_to_num(slopes.detach(), posinf=0.0, neginf=0.0)
        slopes = _padded(slopes.reshape(batch, nt, nx, e, -1), self.padding)
        # Rows beyond the last node say v = 0, as those of conditions that hold by construction do.
        replaced = torch.nn.functional.pad(
            replaced.reshape(nt, nx, e), (0, 0, 0, self.padding), value=True
        )
        own = _blocked(torch.eye(wide).to(slopes), self.block)
        evolves = torch.zeros(e, dtype=torch.bool, device=slopes.device)
        history = slopes.new_zeros(batch, nt, wide, e, e)
        patterns: list[Tensor] = []
        for k, (field, in_time, _) in enumerate(orders):
            if in_time == 1:
                slopes[..., k] = torch.where(
                    replaced, 0, slopes[..., k] / grid.steps[:, None, None]
                )
                evolves |= (slopes[..., k] != 0).flatten(0, 2).any(0)
                history[..., field] += slopes[..., k]
        for k, (_, in_time, order) in enumerate(orders):
            if order == 0 and not in_time:
                slopes[..., k] = torch.where(replaced | ~evolves, slopes[..., k], 0)
            known = own if in_time else _blocked(grid.difference(order), self.block)
            patterns.append(known)
        # A condition that holds by construction has no slopes, and its row says v = 0.
        empty = replaced & (slopes == 0).all(-1)
        columns = []
        for field in range(e):
            ks = [k for k, (f, _, _) in enumerate(orders) if f == field]
            still = torch.zeros(e).to(slopes)
            still[field] = 1.0
            factors = torch.cat([slopes[..., ks], (empty * still)[..., None]], -1)
            shapes = torch.stack([*(patterns[k] for k in ks), own])
            columns.append(torch.einsum("btxek,kxj->btxej", factors, shapes))
        matrix = torch.stack(columns, -1).flatten(4, 5)
        matrix = matrix.unflatten(2, (self.blocks, self.block)).flatten(3, 4)
        self._eliminate(matrix)
        self.history = history
        self.weights = (grid.weights[:, :, None] / scales.square()).sqrt().reshape(nt, nx * e)

    def __call__(self, columns: Tensor) -> Tensor:  # shapes: (B, n, e, k) -> (B, n e, k)
        nt, nx = len(self.grid.times), len(self.grid.nodes)
        e = columns.shape[2]
        rows = _padded(columns.reshape(len(columns), nt, nx, e, -1), self.padding)
        v = torch.zeros_like(rows[:, 0])
        out = []
        for n in range(nt):
            right = rows[:, n]
            if n:
                right = right + (self.history[:, n, ..., None] * v[:, :, None]).sum(3)
            v = self._solve(n, right.flatten(1, 2)).unflatten(1, v.shape[1:3])
            out.append(v[:, :nx].flatten(1, 2))
        return (torch.stack(out, 1) * self.weights[..., None]).flatten(1, 2)

    def _eliminate(self, matrix: Tensor) -> None:  # shape: (B, nt, blocks, size, 3 size or size)
        size = matrix.shape[3]
        middle = size if self.blocks > 1 else 0
        rows = matrix.unbind(2)
        above = [r[..., middle + size :] for r in rows]
        self.inverses, self.lower, self.upper = [], [], []
        for i, own in enumerate(rows):
            square = own[..., middle : middle + size]
            if i:
                self.lower.append(own[..., :size] @ self.inverses[-1])
                square = square - self.lower[-1] @ above[i - 1]
            self.inverses.append(torch.linalg.inv(square))
            if i < self.blocks - 1:
                self.upper.append(self.inverses[-1] @ above[i])

    def _solve(self, n: int, right: Tensor) -> Tensor:  # shape: (B, nx e, k)
        """L v = right at one time."""
        parts = list(right.chunk(self.blocks, dim=1))
        for i, lower in enumerate(self.lower):
            parts[i + 1] = parts[i + 1] - lower[:, n] @ parts[i]
        parts = [inverse[:, n] @ part for inverse, part in zip(self.inverses, parts, strict=True)]
        for i in reversed(range(self.blocks - 1)):
            parts[i] = parts[i] - self.upper[i][:, n] @ parts[i + 1]
        return torch.cat(parts, 1)


def _block_size(grid: SpaceTimeGrid, orders: Sequence[int], least: int | None) -> int:
    """Nodes in a block, so that no row reaches beyond the blocks beside its own."""
    nodes = len(grid.nodes)
    if least is None:
        least = nodes if nodes <= DENSE else BLOCK
    size = max([least, *(grid.reach(o) for o in orders)])
    return nodes if 2 * size > nodes else size


def _blocked(matrix: Tensor, size: int) -> Tensor:  # shapes: (n, n) -> (blocks size, 3 size)
    """Every row's entries in the block before, its own, the one after, 0 beyond the ends; whole for one block."""
    n = len(matrix)
    blocks = -(-n // size)
    if blocks == 1:
        return matrix
    fill = blocks * size - n
    wide = torch.nn.functional.pad(matrix, (size, size + fill, 0, fill))
    places = range(0, blocks * size, size)
    return torch.cat([wide[at : at + size, at : at + 3 * size] for at in places])


def _padded(values: Tensor, padding: int) -> Tensor:  # shape: (B, nt, nx + padding, e, k)
    """Zeros at nodes that fill the last block."""
    return torch.nn.functional.pad(values, (0, 0, 0, 0, 0, padding)) if padding else values


def difference_matrix(
    nodes: np.ndarray,  # shape: (n,)
    order: int,
    period: float | None = None,
) -> np.ndarray:  # shape: (n, n)
    """Derivative at the nodes: trigonometric if periodic, else the smallest centred stencil.

    Stencils have order + 1 nodes, one more if that is even; near the ends they are one-sided.
    """
    n = len(nodes)
    if order == 0:
        return np.eye(n)
    if period is not None:
        k = np.fft.fftfreq(n, 1.0 / n)
        if n % 2 == 0 and order % 2:
            k[n // 2] = 0.0
        factor = (2j * np.pi / period * k) ** order
        return np.fft.ifft(factor[:, None] * np.fft.fft(np.eye(n), axis=0), axis=0).real
    count = order + 1 + order % 2
    if n < count:
        raise ValueError(f"{n} nodes are too few for a derivative of order {order}")
    matrix = np.zeros((n, n))
    for i in range(n):
        first = min(max(i - count // 2, 0), n - count)
        near = slice(first, first + count)
        gap = nodes[near] - nodes[i]
        size = np.abs(gap).max()
        powers = (gap / size) ** np.arange(count)[:, None]
        wanted = np.zeros(count)
        wanted[order] = float(np.prod(np.arange(1, order + 1))) / size**order
        matrix[i, near] = np.linalg.solve(powers, wanted)
    return matrix
