"""What a solver hands over: the fields as functions, and the record `Answer` around them.

In    nothing: these are the seams. `lower` and `classical` satisfy `Approximation` structurally.
Out   `Approximation` (a protocol) and `Answer`.
Next  `solution.solution.Solution` wraps them for the user.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, runtime_checkable

import sympy as sp
from torch import Tensor

from pinnkit.ir.normal_form import NormalForm

__all__ = ["Answer", "Approximation", "Learned", "Uncertain"]


class Approximation(Protocol):
    """All real fields of a problem as functions of its coordinates."""

    @property
    def kind(self) -> str:
        """The class by name, for files: "network" and "windows" of `lower`, "grid" of `classical`."""
        ...

    def derivatives(
        self,
        points: Tensor,  # shape: (n, d)
        wanted: Sequence[tuple[int, tuple[int, ...]]],
    ) -> list[Tensor]:  # shapes: (n,)
        """True derivatives at `points` (columns in `nf.coords` order, inside the domain).

        `wanted` holds (index into `nf.fields`, multi-index over `nf.coords`); zeros mean the field
        itself. Differentiable with respect to `points` when they require grad.
        """
        ...

    def to_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """A JSON-able description and the tensors: all that a file needs."""
        ...

    @classmethod
    def from_state(cls, spec: dict[str, Any], tensors: dict[str, Tensor], nf: NormalForm) -> Self:
        """The approximation that `to_state` described."""
        ...


@runtime_checkable
class Uncertain(Protocol):
    """An approximation that also knows how uncertain it is (a Gaussian process, an ensemble)."""

    def std(self, points: Tensor, index: int) -> Tensor:
        """Standard deviation of field `index` at `points`: (n,)."""
        ...

    def sample(self, points: Tensor, index: int, n: int, seed: int) -> Tensor:
        """`n` joint draws of field `index` at `points`: (n, len(points))."""
        ...

    def combined_std(
        self,
        points: Tensor,
        wanted: Sequence[tuple[int, tuple[int, ...]]],
        slopes: Sequence[Tensor],
    ) -> Tensor:
        """Standard deviation of sum_j slopes_j * derivative_j at `points`: (n,)."""
        ...

    def sample_derivatives(
        self, points: Tensor, wanted: Sequence[tuple[int, tuple[int, ...]]], n: int, seed: int
    ) -> list[Tensor]:
        """The wanted derivatives of the same `n` draws of all fields: (n, len(points)) each."""
        ...


@runtime_checkable
class Learned(Protocol):
    """An approximation that also knows the values of the problem's neural terms."""

    def terms(self, points: Tensor, neurals: Sequence[sp.Symbol]) -> list[Tensor]:
        """Each term at `points`: (n,)."""
        ...


@dataclass(frozen=True)
class Answer:
    """What `solver.finish` returns: the fields, the determined parameters, and figures for `stats`.

    `parameters` maps a symbol to (value, standard error or None). `stats` may hold "parameters"
    (trainable numbers), "points" (distinct points trained on) and anything else worth reporting.
    """

    approximation: Approximation
    parameters: Mapping[sp.Symbol, tuple[float, float | None]] = field(default_factory=dict)
    stats: Mapping[str, object] = field(default_factory=dict)
