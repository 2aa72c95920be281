"""Truncated multivariate Taylor arithmetic: which coefficients a jet holds, and products of jets.

In    the multi-indices a problem needs.
Out   `JetSpec`, and `jet_mul`, `input_jet` on tensors.
Next  `lower.activations` composes jets with functions, `lower.jets` carries them through networks.

A jet is a tensor (S, n, w): coefficient s of the function at point i is
D^alpha f / alpha!  with alpha = spec.indices[s]; coefficient 0 is the value.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

__all__ = ["JetSpec", "MultiIndex", "input_jet", "jet_mul"]

MultiIndex = tuple[int, ...]


@dataclass(frozen=True)
class JetSpec:
    """A downward-closed set of multi-indices, zero first, lower orders before higher ones.

    Closed downwards because the coefficient of a product or composition at alpha needs those of
    all beta <= alpha, and no others.

    >>> JetSpec.closure([(0, 2), (1, 0)], 2).indices
    ((0, 0), (1, 0), (0, 1), (0, 2))
    """

    indices: tuple[MultiIndex, ...]

    def __post_init__(self) -> None:
        present = set(self.indices)
        orders = [sum(a) for a in self.indices]
        if not self.indices or orders[0] != 0 or orders != sorted(orders):
            raise ValueError(f"a jet starts with the value and grows in order, got {self.indices}")
        if len(present) != len(self.indices):
            raise ValueError(f"a multi-index is repeated in {self.indices}")
        missing = [lower for a in self.indices for lower in _steps_down(a) if lower not in present]
        if missing:
            raise ValueError(f"not closed downwards: {missing[0]} is missing in {self.indices}")

    @classmethod
    def closure(cls, wanted: Iterable[MultiIndex], d: int) -> JetSpec:
        """The smallest jet in `d` coordinates that holds all wanted multi-indices."""
        found: set[MultiIndex] = {(0,) * d}
        for alpha in wanted:
            if len(alpha) != d or min(alpha, default=0) < 0:
                raise ValueError(f"{alpha} is not a multi-index over {d} coordinates")
            found.update(itertools.product(*(range(k + 1) for k in alpha)))
        return cls(tuple(sorted(found, key=lambda a: (sum(a), tuple(-k for k in a)))))

    @property
    def size(self) -> int:
        """Number of coefficients, S."""
        return len(self.indices)

    @property
    def dimension(self) -> int:
        """Number of coordinates."""
        return len(self.indices[0])

    @cached_property
    def position(self) -> dict[MultiIndex, int]:
        """Where each multi-index sits in a jet."""
        return {a: s for s, a in enumerate(self.indices)}

    @cached_property
    def factorials(self) -> tuple[int, ...]:
        """alpha! of every coefficient: derivative = alpha! * coefficient."""
        return tuple(math.prod(math.factorial(k) for k in a) for a in self.indices)

    @cached_property
    def products(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        """For each s the ordered pairs (b, c) with indices[b] + indices[c] == indices[s]."""
        pairs: list[list[tuple[int, int]]] = [[] for _ in self.indices]
        for b, c in itertools.product(range(self.size), repeat=2):
            total = tuple(i + j for i, j in zip(self.indices[b], self.indices[c], strict=True))
            if total in self.position:
                pairs[self.position[total]].append((b, c))
        return tuple(tuple(p) for p in pairs)

    @cached_property
    def shifts(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        """For each c the pairs (s, b) with indices[b] + indices[c] == indices[s]."""
        return tuple(
            tuple((s, b) for s, pairs in enumerate(self.products) for b, k in pairs if k == c)
            for c in range(self.size)
        )

    @cached_property
    def squares(self) -> tuple[tuple[tuple[int, int, int], ...], ...]:
        """For each s > 0 the (b, c, multiplicity) of a square's coefficient, without those with b = 0."""
        return tuple(
            tuple((b, c, 1 if b == c else 2) for b, c in pairs if 0 < b <= c)
            for pairs in self.products
        )

    @cached_property
    def chains(self) -> tuple[tuple[tuple[int, int, float], ...], ...]:
        """For each s > 0 the (b, c, weight) of the chain rule y' = d a', without the term b = s.

        alpha_i y_alpha = sum over beta <= alpha of beta_i a_beta d_(alpha - beta), along the axis i
        that has the fewest terms.
        """
        chains: list[tuple[tuple[int, int, float], ...]] = [()]
        for s, alpha in enumerate(self.indices[1:], start=1):
            options = [
                tuple(
                    (b, c, self.indices[b][i] / alpha[i])
                    for b, c in self.products[s]
                    if self.indices[b][i] > 0 and b != s
                )
                for i in range(self.dimension)
                if alpha[i] > 0
            ]
            chains.append(min(options, key=len))
        return tuple(chains)

    @cached_property
    def slopes_used(self) -> frozenset[int]:
        """The coefficients of d that `chains` read; those of highest order never are."""
        return frozenset(c for chain in self.chains for _, c, _ in chain)


def input_jet(
    points: Tensor,  # shape: (n, d)
    spec: JetSpec,
    centre: Tensor,  # shape: (d,)
    half: Tensor,  # shape: (d,)
) -> Tensor:  # shape: (S, n, d)
    """The jet of xi = (points - centre) / half in the *scaled* coordinates xi: value, and ones.

    Derivatives are taken in xi, not in x, so that units of 1e-6 or 1e6 raised to the sixth power
    never enter the network; the caller multiplies by half^-alpha at the very end.
    """
    scaled = (points - centre) / half
    units = [
        torch.zeros_like(scaled) if sum(a) != 1 else scaled.new_tensor(a).expand_as(scaled)
        for a in spec.indices[1:]
    ]
    return torch.stack([scaled, *units])


def jet_mul(a: Tensor, b: Tensor, spec: JetSpec) -> Tensor:  # shapes: (S, n, w)
    """Product of two jets."""
    return torch.stack(multiply(a.unbind(0), b.unbind(0), spec))


def multiply(
    a: tuple[Tensor, ...] | list[Tensor], b: tuple[Tensor, ...] | list[Tensor], spec: JetSpec
) -> list[Tensor]:
    """Product of two jets held as lists of coefficients."""
    out = []
    for pairs in spec.products:
        (i, j), *rest = pairs
        total = a[i] * b[j]
        for i, j in rest:
            total = torch.addcmul(total, a[i], b[j])
        out.append(total)
    return out


def _steps_down(alpha: MultiIndex) -> list[MultiIndex]:
    return [(*alpha[:i], k - 1, *alpha[i + 1 :]) for i, k in enumerate(alpha) if k > 0]
