"""What an optimiser sees of a problem: weighted residuals of one frozen batch as a function of theta.

In    nothing; these are the seams. Solvers implement `ResidualModel`, optimisers call it.
Out   `ResidualModel`, `StepReport`, `AbstractOptimiser`; `Sharded` and `Gathered` for models on ranks.
Next  `gauss_newton`, `newton_cg`, `self_scaled_broyden`, `lbfgs`, `soap`, `adam`.

The loss is always r.r (no factor 1/2); weights enter the rows as square roots and are frozen for
one outer step, in the predicted and in the actual reduction alike.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, final, runtime_checkable

from torch import Tensor

from pinnkit.train.ranks import ONE, Ranks

__all__ = [
    "AbstractOptimiser",
    "Gathered",
    "Memory",
    "ResidualModel",
    "Sharded",
    "StepReport",
    "ranks_of",
]

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


@runtime_checkable
class Sharded(Protocol):
    """A `ResidualModel` of which every rank holds some rows: those of its `residual` and `rows`.

    Weights contain the counts of all ranks together, and `gradient` is summed already.
    """

    @property
    def ranks(self) -> Ranks:
        """Those that hold the rows."""
        ...


def ranks_of(model: ResidualModel) -> Ranks:
    """The ranks that hold the model's rows; `ONE` for a model that knows of none."""
    return model.ranks if isinstance(model, Sharded) else ONE


@final
class Gathered:
    """A sharded model as one that has all rows, on every rank: for what couples the samples."""

    def __init__(self, model: ResidualModel) -> None:
        self.model, self._ranks = model, ranks_of(model)
        self.shapes = model.shapes

    def residual(self, theta: Tensor) -> Tensor:
        """r of all ranks."""
        return self._ranks.gather(self.model.residual(theta))

    def rows(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """r and J of all ranks."""
        r, rows = self.model.rows(theta)
        return self._ranks.gather(r), self._ranks.gather(rows)

    def gradient(self, theta: Tensor) -> tuple[float, Tensor]:
        """As the model's own, which is of all rows."""
        return self.model.gradient(theta)


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
