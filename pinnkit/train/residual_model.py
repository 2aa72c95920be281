"""What an optimiser sees of a problem: weighted residuals of one frozen batch as a function of theta.

In    nothing; these are the seams. Solvers implement `ResidualModel`, optimisers call it.
Out   `ResidualModel`, `StepReport`, `AbstractOptimiser`.
Next  `gauss_newton`, `newton_cg`, `self_scaled_broyden`, `lbfgs`, `soap`, `adam`.

The loss is always r.r (no factor 1/2); weights enter the rows as square roots and are frozen for
one outer step, in the predicted and in the actual reduction alike.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from torch import Tensor

__all__ = ["AbstractOptimiser", "Memory", "ResidualModel", "StepReport"]

Memory = dict[str, Any]  # tensors and plain numbers only: it goes into checkpoints as it is


class ResidualModel(Protocol):
    """Residuals of a frozen batch with frozen weights."""

    @property
    def shapes(self) -> Sequence[tuple[int, ...]]:
        """Shapes of the parameters that theta holds one after the other; their sizes add up to P."""
        ...

    def residual(self, theta: Tensor) -> Tensor:  # shapes: (P,) -> (N,)
        """Weighted residuals r(theta), without a graph."""
        ...

    def rows(self, theta: Tensor) -> tuple[Tensor, Tensor]:  # shapes: (N,), (N, P)
        """r and its Jacobian J."""
        ...

    def gradient(self, theta: Tensor) -> tuple[float, Tensor]:  # shapes: (), (P,)
        """r.r and its gradient 2 J^T r."""
        ...


@dataclass(frozen=True)
class StepReport:
    """One step: the loss before and after on the same batch, and actual over predicted reduction."""

    loss: float
    new_loss: float
    gain: float
    accepted: bool


class AbstractOptimiser(ABC):
    """Hyperparameters of a method; all that evolves is the `Memory`, which holds `theta`."""

    # Steps one batch should serve; None leaves it to whoever draws the batches.
    steps_per_batch: ClassVar[int | None] = None

    @abstractmethod
    def init(self, theta: Tensor) -> Memory:
        """The memory before the first step; `theta` (P,) is copied."""

    @abstractmethod
    def step(self, model: ResidualModel, memory: Memory) -> StepReport:
        """Advance `memory["theta"]` by one step on this batch. A rejected step leaves it alone."""
