"""A solution on a periodic box, by its values at the nodes of `PeriodicElements`, as a function.

In    nodal values at the start and at all instants, every field's modes over those of the one given.
Out   `PeriodicApproximation`: fields and derivatives of any order at any points.
Next  `solvers.torus_constraint` makes them; `Solution` calls them.

In space the field is its trigonometric interpolant, in the element s of length h the polynomial through the
element's begin and its Radau nodes. With tau in [0, 1] the time in the element,

    u(t, x) = Re sum_k e^(i k x) sum_p c_spk tau^p,

and every derivative multiplies: by (i k)^a in space, by p! / (p - a)! tau^(p - a) / h^a in time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pinnkit.ir.normal_form import NormalForm
from pinnkit.lower.fields import Wanted
from pinnkit.lower.periodic_elements import radau

__all__ = ["PeriodicApproximation"]

AT_ONCE = 4_000_000  # complex numbers per pass: keeps the memory bounded
MOST_PER_POINT = 4  # numbers on a grid that cost less than one point by itself


class PeriodicApproximation:
    """Trigonometric polynomials in space, polynomials of degree `times` on equal elements of time.

    Args:
        nf: Whose box, span of time and coordinates it has.
        values: Of the field that evolves, (1 + elements x times, *grid), the start first; n nodes an axis.
        symbols: By field, its modes over those of the one that evolves, (m, n, ..., n/2 + 1).
        times: Radau nodes of an element.
    """

    kind = "periodic elements"

    def __init__(self, nf: NormalForm, values: Tensor, symbols: Tensor, times: int) -> None:
        assert nf.time is not None
        self.values, self.symbols, self.times = values.detach(), symbols.detach(), times
        self.dimension, self.nodes = values.ndim - 1, values.shape[-1]
        self.elements = (len(values) - 1) // times
        self._time = nf.coords.index(nf.time)
        self._space = [nf.coords.index(x) for x in nf.space]
        self.start, end = nf.bounds[nf.time]
        self.step = (end - self.start) / self.elements
        self._lower = [nf.bounds[x][0] for x in nf.space]
        half = self.nodes // 2
        both = torch.cat([torch.arange(half), torch.arange(-half, 0)])
        numbers = [both] * (self.dimension - 1) + [torch.arange(half + 1)]
        self._waves = [
            2 * math.pi / (nf.bounds[x][1] - nf.bounds[x][0]) * m.to(self.values)
            for x, m in zip(nf.space, numbers, strict=True)
        ]
        self._coefficients = self._expanded()

    def derivatives(
        self,
        points: Tensor,  # shape: (n, d)
        wanted: Wanted,
    ) -> list[Tensor]:  # shapes: (n,)
        """True derivatives at the points, in the points' dtype and on their device."""
        inside = points.to(self.values)
        grid = None if points.requires_grad else _tensor_product(inside)
        found = []
        for field, orders in wanted:
            part = self._coefficients * self.symbols[field]
            if grid is not None:
                axes, places = grid
                found.append(self._on_grid(part, axes, orders)[places])
            else:
                found.append(self._scattered(part, inside, orders))
        return [f.to(points) for f in found]

    def _scattered(self, part: Tensor, points: Tensor, orders: Sequence[int]) -> Tensor:
        """Sums over all modes, point by point."""
        size = AT_ONCE // ((self.times + 1) * self.nodes ** (self.dimension - 1))
        pieces, at = [], []
        element, _ = self._place(points[:, self._time])
        for e in element.unique().tolist():
            chosen = torch.nonzero(element == e)[:, 0]
            for some in chosen.split(max(1, size)):
                here = points[some]
                _, share = self._place(here[:, self._time])
                found = part[e]  # (p, *modes)
                for axis in reversed(range(self.dimension)):
                    wave = self._along(axis, here[:, self._space[axis]], orders)
                    last = axis == self.dimension - 1
                    found = found @ wave.T if last else (found * wave.T).sum(-2)
                pieces.append((found.real * self._powers(share, orders[self._time]).T).sum(0))
                at.append(some)
        if not pieces:
            return points.new_zeros(0)
        return torch.cat(pieces)[torch.argsort(torch.cat(at))]

    def _on_grid(self, part: Tensor, axes: Sequence[Tensor], orders: Sequence[int]) -> Tensor:
        """On a tensor product, axis by axis; dimensions in the order of the columns."""
        element, share = self._place(axes[self._time])
        powers = self._powers(share, orders[self._time])
        found = torch.einsum("tp,tp...->t...", powers.to(part), part[element])
        for axis in reversed(range(self.dimension)):
            wave = self._along(axis, axes[self._space[axis]], orders)
            found = (found.movedim(1 + axis, -1) @ wave.T).movedim(-1, 1 + axis)
        order = [self._time, *self._space]
        return found.real.permute([order.index(c) for c in range(len(order))])

    def _place(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """The element of every instant, and the share of it that has passed."""
        share = (times - self.start) / self.step
        element = share.detach().floor().long().clamp(0, self.elements - 1)
        return element, share - element

    def _powers(self, share: Tensor, order: int) -> Tensor:  # shape: (n, times + 1)
        """d^a/dt^a of tau^p."""
        columns = []
        for p in range(self.times + 1):
            factor = math.perm(p, order) / self.step**order
            columns.append(factor * share ** max(p - order, 0))
        return torch.stack(columns, 1)

    def _along(self, axis: int, x: Tensor, orders: Sequence[int]) -> Tensor:  # shape: (n, modes)
        """d^a/dx^a of e^(i k x)."""
        wave = self._waves[axis]
        phase = (x[:, None] - self._lower[axis]) * wave
        found = torch.polar(torch.ones_like(phase), phase)
        for _ in range(orders[self._space[axis]]):
            found = found * (1j * wave)
        return found

    def _expanded(self) -> Tensor:  # shape: (elements, times + 1, *modes)
        """c: coefficients of powers of the time in every element."""
        axes = tuple(range(1, self.dimension + 1))
        modes = torch.fft.rfftn(self.values, dim=axes) / self.nodes**self.dimension
        modes[..., 1:] *= 2.0  # those left out are the conjugates
        for axis in axes:
            modes.select(axis, self.nodes // 2).zero_()
        inner = modes[1:].unflatten(0, (self.elements, self.times))
        begins = torch.cat([modes[:1], inner[:-1, -1]])[:, None]
        nodes, _, _ = radau(self.times)
        known = np.concatenate([[0.0], nodes])
        matrix = torch.from_numpy(np.linalg.inv(known[:, None] ** np.arange(self.times + 1)))
        return torch.einsum("pq,sq...->sp...", matrix.to(modes), torch.cat([begins, inner], 1))

    def to_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """A JSON-able description and the tensors."""
        parts = {"values": self.values, "symbols": torch.view_as_real(self.symbols)}
        return {"times": self.times}, {k: v.cpu().clone() for k, v in parts.items()}

    @classmethod
    def from_state(
        cls, spec: dict[str, Any], tensors: dict[str, Tensor], nf: NormalForm
    ) -> PeriodicApproximation:
        """The approximation that `to_state` described; ValueError if the parts do not fit."""
        values, times = tensors["values"], int(spec["times"])
        symbols = torch.view_as_complex(tensors["symbols"].contiguous())
        modes = (*values.shape[1:-1], values.shape[-1] // 2 + 1)
        whole = times > 0 and len(values) > 1 and (len(values) - 1) % times == 0
        if values.ndim != len(nf.coords) or symbols.shape != (len(nf.fields), *modes) or not whole:
            raise ValueError("the file's tensors do not fit its problem")
        return cls(nf, values, symbols, times)


def _tensor_product(points: Tensor) -> tuple[list[Tensor], tuple[Tensor, ...]] | None:
    """The axes of a grid that holds the points, and their places on it; None where it would be much larger."""
    columns = [torch.unique(c, return_inverse=True) for c in points.unbind(1)]
    if math.prod(len(axis) for axis, _ in columns) > MOST_PER_POINT * len(points):
        return None
    return [axis for axis, _ in columns], tuple(at for _, at in columns)
