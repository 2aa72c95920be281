"""Experts: one set of coefficients for each window of a coordinate, with the same basis for all.

In    windows along an axis; a `HardConstraint`; basis, offset, inputs at points.
Out   coefficients (B, K, N), records, the jump at every interface.
Next  `solvers.hard_constraint_moe`; or your own training loop.

Two ways to use K windows:

- `ExpertMixture`: disjoint boxes, each expert solves on the points of its own box, all at once as a batch
  of B K problems (as published). Nothing makes neighbours agree: the answer jumps at the interfaces, by as
  much as `interface_jumps` says.
- `Windows.taylor`: a smooth partition of unity chi_k. With the functions chi_k b_j one `HardConstraint` in
  K N coefficients finds all experts together, and the answer is as smooth as the windows: C^3.

References: chalapathi2024scaling (arXiv:2402.13412); moseley2023fbpinns (windows).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from torch import Tensor, nn

from pinnkit.implicit import Record
from pinnkit.nn.hard_constraint import HardConstraint

__all__ = ["ExpertMixture", "Experts", "Windows", "interface_jumps"]

_STEP = (
    35.0,
    -84.0,
    70.0,
    -20.0,
)  # z^4 (35 - 84 z + 70 z^2 - 20 z^3): from 0 to 1, C^3 at both ends


@final
@dataclass(frozen=True)
class Windows:
    """`count` equal parts of [lower, upper], and bells that add up to 1.

    Args:
        lower, upper: The axis.
        count: K.
        overlap: Share of a part over which two neighbours blend; 0: chi_k is 1 in its part, 0 elsewhere.
        periodic: Whether the last is a neighbour of the first.
    """

    lower: float
    upper: float
    count: int
    overlap: float = 1.0
    periodic: bool = False

    def __post_init__(self) -> None:
        faults = []
        if not self.lower < self.upper:
            faults.append(f"[{self.lower}, {self.upper}] is empty")
        if self.count < 1:
            faults.append(f"count={self.count} must be at least 1")
        if not 0 <= self.overlap <= 1:
            faults.append(f"overlap={self.overlap} must lie in [0, 1]")
        if faults:
            raise ValueError("Windows: " + "; ".join(faults))

    @property
    def size(self) -> float:
        """Width of a part."""
        return (self.upper - self.lower) / self.count

    def place(self, x: Tensor) -> Tensor:  # shape: (n,), integers
        """The part every point lies in."""
        return ((x.detach() - self.lower) / self.size).floor().long().clamp(0, self.count - 1)

    @property
    def reach(self) -> float:
        """How far from its middle a bell is not 0."""
        return (1 + self.overlap) * self.size / 2

    def inside(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # shapes: (p,), (p,), (p,)
        """Every pair of a point and a window it lies in: point, window, place in [-1, 1]."""
        y = self._from_middles(x) / self.reach
        points, windows = torch.nonzero(y.detach().abs() <= 1, as_tuple=True)
        return points, windows, y[points, windows]

    def taylor(self, x: Tensor, order: int) -> Tensor:  # shape: (order + 1, n, K)
        """chi_k^(r)(x) / r! for r = 0 ... order; over k the values add up to 1, the rest to 0."""
        if self.overlap == 0:
            own = nn.functional.one_hot(self.place(x), self.count).to(x)
            return torch.stack([own, *[torch.zeros_like(own)] * order])
        y = self._from_middles(x)
        half = self.overlap * self.size / 2
        rise = _smooth_step((y + self.size / 2 + half) / (2 * half), 2 * half, order)
        fall = _smooth_step((y - self.size / 2 + half) / (2 * half), 2 * half, order)
        if self.count == 1 or not self.periodic:  # the ends are not blended with anything
            one = torch.zeros_like(rise[:, :, :1])
            one[0] = 1.0
            rise = torch.cat([one, rise[:, :, 1:]], 2)
            fall = torch.cat([fall[:, :, :-1], torch.zeros_like(one)], 2)
        return rise - fall

    def _from_middles(self, x: Tensor) -> Tensor:  # shape: (n, K)
        inner = torch.arange(self.count, dtype=x.dtype, device=x.device)
        y = x[:, None] - (self.lower + (inner + 0.5) * self.size)
        if self.periodic:
            length = self.upper - self.lower
            y = y - length * torch.floor(y.detach() / length + 0.5)
        return y


class Experts(NamedTuple):
    """What the experts found: coefficients (B, K, N), misfits (B, K), record with entries (B, K)."""

    coefficients: Tensor
    misfit: Tensor
    record: Record


class ExpertMixture(nn.Module):
    """Every expert solves its own constrained least squares on its own points.

    Args:
        constraint: What each solves; its norm acts on one box alone.
        place: The expert of every point, (n,), each with equally many points.
    """

    def __init__(self, constraint: HardConstraint, place: Tensor) -> None:
        super().__init__()
        self.constraint = constraint
        count = int(place.max()) + 1
        numbers = torch.bincount(place, minlength=count)
        if not bool((numbers == numbers[0]).all()):
            raise ValueError(
                f"the experts have {numbers.tolist()} points; give each equally many, so that they are"
                " solved side by side"
            )
        self.register_buffer("order", torch.argsort(place, stable=True).reshape(count, -1))

    order: Tensor

    def forward(
        self,
        basis: Tensor,  # shape: (n, L, N), or (B, n, L, N)
        offset: Tensor,  # shape: (B, n, L)
        inputs: Tensor,  # shape: (B, n, G)
        *,
        start: Tensor | None = None,  # shape: (B, K, N)
    ) -> Experts:
        """As `HardConstraint`, by expert."""
        batch, (count, _) = len(offset), self.order.shape

        def split(values: Tensor) -> Tensor:  # shapes: (B, n, ...) -> (B K, n / K, ...)
            return values[:, self.order].flatten(0, 1)

        whole = basis.expand(batch, *basis.shape) if basis.ndim == 3 else basis
        found = self.constraint(
            split(whole),
            split(offset),
            split(inputs),
            start=None if start is None else start.flatten(0, 1),
        )

        def joined(values: Tensor) -> Tensor:
            return values.unflatten(0, (batch, count))

        record = Record(*(joined(entry) for entry in found.record))
        return Experts(joined(found.coefficients), joined(found.misfit), record)

    def values(
        self,
        experts: Tensor,  # shape: (B, K, N)
        basis: Tensor,  # shape: (n, N)
        offset: Tensor,  # shape: (B, n)
    ) -> Tensor:  # shape: (B, n)
        """The field at the same points, each answered by its own expert."""
        out = torch.einsum("kpj,bkj->bkp", basis[self.order], experts)
        back = torch.argsort(self.order.flatten())
        return offset + out.flatten(1)[:, back]


def interface_jumps(
    experts: Tensor,  # shape: (B, K, N)
    basis: Tensor,  # shape: (K - 1, p, N), at points of the interfaces
    spread: Tensor,  # shape: (B,)
) -> Tensor:  # shape: (B, K - 1)
    """The largest difference of two neighbours at their interface, relative to the field's range."""
    difference = experts[:, 1:] - experts[:, :-1]
    jump = torch.einsum("kpj,bkj->bkp", basis, difference).abs().amax(2)
    return jump / spread[:, None]


def _smooth_step(z: Tensor, width: float, order: int) -> Tensor:  # shape: (order + 1, *z.shape)
    """S^(r)(z) / r! / width^r with S from 0 (z <= 0) to 1 (z >= 1)."""
    inside = z.clamp(0, 1)
    coefficients = [0.0, 0.0, 0.0, 0.0, *_STEP]
    parts = []
    for r in range(order + 1):
        # Taylor coefficient r of sum_p c_p z^p: sum_p binomial(p, r) c_p z^(p - r).
        value = torch.zeros_like(z)
        for p in reversed(range(r, len(coefficients))):
            value = value * inside + _binomial(p, r) * coefficients[p]
        if r:
            value = torch.where((z > 0) & (z < 1), value, 0) / width**r
        parts.append(value)
    return torch.stack(parts)


def _binomial(p: int, r: int) -> float:
    out = 1.0
    for i in range(r):
        out = out * (p - i) / (i + 1)
    return out
