"""The recurrent model of series: what a `SeriesModel` is for equations, for a network without one.

In    a `SeriesTarget`, training series.
Out   a `RecurrentModel`: a batch to predictions, differentiable; no noise.
Next  `solvers.neural_sde` trains it in the same loop.
"""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn

from pinnkit.declare.series import Normalisation
from pinnkit.neural_de.baselines import GatedRecurrentNetwork
from pinnkit.solution.series_model import SeriesBatch, Task, loss_of

__all__ = ["RecurrentModel"]


@final
class RecurrentModel(nn.Module):
    """Series -> h after the last time (or every time) -> prediction.

    Args:
        network: From times and observations to states.
        readout: From the state to predictions.
        task: What is predicted.
        normalisation: Of the data, fitted to the training part.
    """

    kind = "held"  # of a batch's control path, which is not looked at

    def __init__(
        self,
        network: GatedRecurrentNetwork,
        readout: nn.Module,
        task: Task,
        normalisation: Normalisation,
    ) -> None:
        super().__init__()
        self.network, self.readout = network, readout
        self.task, self.normalisation = task, normalisation

    def numbers(self) -> dict[Any, float]:
        """There are no unknown numbers."""
        return {}

    def forward(self, batch: SeriesBatch, seed: int | torch.Generator = 0) -> tuple[Tensor, Tensor]:
        """Predictions (B, K), or (L, B, K) per time; and which samples are finite, (B,)."""
        clock = (batch.times - self.normalisation.start) / self.normalisation.duration
        states = self.network(clock.to(batch.observed), batch.observed)
        if not self.task.per_time:
            # The state after the last real row: short series are padded.
            last = (batch.seen.sum(0) - 1)[None, :, None].expand(1, -1, states.shape[2])
            states = states.gather(0, last)[0]
        found = self.readout(states)
        # Padded rows mean nothing, and must not look like an explosion.
        rows = torch.isfinite(found).all(-1)
        return found, (rows | ~batch.seen).all(0) if self.task.per_time else rows

    def loss(self, batch: SeriesBatch, seed: int | torch.Generator = 0) -> Tensor:
        """Cross-entropy, or the mean square of normalised differences."""
        return loss_of(self.forward(batch, seed)[0], batch, self.task)
