"""The module that is trained on series: initial map, stochastic equation, readout.

In    a normal form and networks; batches of series.
Out   a `SeriesModel`: a batch and a Brownian seed to predictions, differentiable.
Next  `solvers.neural_sde` trains it; `SeriesSolution` predicts with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor, nn

from pinnkit.declare.noise import Calculus
from pinnkit.declare.series import IrregularSeries, Normalisation
from pinnkit.lower.stochastic import StochasticModule
from pinnkit.neural_de import (
    SDE,
    AbstractMethod,
    ControlPath,
    Direct,
    Recompute,
    Trajectory,
    integrate,
    make_path,
)

__all__ = ["SeriesBatch", "SeriesModel", "Task"]


@final
@dataclass(frozen=True, eq=False)
class Task:
    """What is predicted: one of several classes, or numbers.

    Args:
        classes: The labels there are; empty for numbers.
        mean, std: Of the targets in the training data, shape (K,); for numbers.
        per_time: One row of numbers per observation time instead of one per series.
    """

    classes: tuple[object, ...] = ()
    mean: np.ndarray | None = None
    std: np.ndarray | None = None
    per_time: bool = False

    @staticmethod
    def of(data: IrregularSeries) -> Task:
        """Labels if there are any, else targets."""
        if data.labels is not None:
            return Task(classes=data.classes)
        assert data.targets is not None
        per_time = isinstance(data.targets, tuple)
        rows = np.concatenate(data.targets) if isinstance(data.targets, tuple) else data.targets
        rows = rows.reshape(len(rows), -1)
        std = rows.std(0)
        return Task((), rows.mean(0), np.where(std > 0, std, 1.0), per_time)

    @property
    def outputs(self) -> int:
        """Numbers the readout gives."""
        return len(self.classes) if self.mean is None else len(self.mean)


@final
@dataclass(frozen=True, eq=False)
class SeriesBatch:
    """Series as tensors: times in their own units, everything else normalised.

    Args:
        times: Shape (L, B), float64 on the CPU; short series repeat their last time.
        path: The control path.
        answers: Classes (B,), numbers (B, K) or (L, B, K); None where they are not known.
        seen: Which rows of per-time answers are real, shape (L, B).
    """

    times: Tensor
    path: ControlPath
    answers: Tensor | None
    seen: Tensor

    @staticmethod
    def of(
        data: IrregularSeries,
        normalisation: Normalisation,
        task: Task,
        kind: str,
        dtype: torch.dtype,
        device: torch.device,
    ) -> SeriesBatch:
        """The data of a model as a batch."""
        padded = data.padded()
        values = (padded.values - normalisation.mean) / normalisation.std
        times = torch.as_tensor(padded.times.T.copy())
        lengths = torch.as_tensor(padded.lengths)
        seen = torch.arange(len(times))[:, None] < lengths
        return SeriesBatch(
            times,
            make_path(padded.times, values, kind, dtype=dtype, device=device),
            _answers(data, task, len(times), dtype, device),
            seen.to(device),
        )

    def __len__(self) -> int:
        return self.times.shape[1]


def _answers(
    data: IrregularSeries, task: Task, length: int, dtype: torch.dtype, device: torch.device
) -> Tensor | None:
    if task.mean is None or task.std is None:
        if data.label_index is None:
            return None
        place = {label: i for i, label in enumerate(task.classes)}
        labels = [] if data.labels is None else data.labels.tolist()
        return torch.tensor([place.get(label, -1) for label in labels], device=device)
    if data.targets is None:
        return None
    if not task.per_time:
        rows = np.asarray(data.targets).reshape(len(data), -1)
        return torch.as_tensor((rows - task.mean) / task.std, dtype=dtype, device=device)
    full = np.zeros((length, len(data), task.outputs))
    for i, target in enumerate(data.targets):
        full[: len(target), i] = (target - task.mean) / task.std
    return torch.as_tensor(full, dtype=dtype, device=device)


@final
class SeriesModel(nn.Module):
    """X(t_first) -> z(t_first), dz = f dt + g dW along X, z -> prediction.

    Args:
        coefficients: f and g.
        start: Network from the normalised control at the first time to the first state; None where
            the problem declares initial values.
        readout: Network from the state to predictions.
        task: What is predicted.
        normalisation: Of the data, fitted to the training part.
        method: A one-step method for the equation's calculus, or for the other one: the equation is
            converted then.
        steps: Steps over the longest series; every series takes as many over its own span.
        kind: The control path's.
        backward: How gradients come back.
    """

    def __init__(
        self,
        coefficients: StochasticModule,
        start: nn.Module | None,
        readout: nn.Module,
        task: Task,
        normalisation: Normalisation,
        *,
        method: AbstractMethod,
        steps: int,
        kind: str,
        backward: Direct | Recompute,
    ) -> None:
        super().__init__()
        self.coefficients, self.start, self.readout = coefficients, start, readout
        self.task, self.normalisation = task, normalisation
        self.method, self.steps, self.kind, self.backward = method, steps, kind, backward

    def forward(self, batch: SeriesBatch, seed: int | torch.Generator) -> tuple[Tensor, Tensor]:
        """Predictions (B, K), or (L, B, K) per time; and which samples did not explode, (B,)."""
        run = self.integrate(batch, seed)
        states = run.states if self.task.per_time else run.end
        return self.readout(states), run.complete

    def integrate(self, batch: SeriesBatch, seed: int | torch.Generator) -> Trajectory:
        """The states at all observation times, or at the first and last one only."""
        times = batch.times if self.task.per_time else batch.times[[0, -1]]
        span = float((times[-1] - times[0]).max())
        path = batch.path
        first = times[0][:, None].to(path.ends[0].device)
        x0 = path.evaluate(first)
        if self.start is None:
            z0 = self.coefficients.start(first.to(x0.dtype), x0, len(batch))
        else:
            z0 = self.start(x0)
        along = self.coefficients.along(path)
        sde = SDE(along.drift, along.diffusion, along.noise, along.calculus)
        if sde.calculus not in self.method.calculi:
            ito = Calculus.ITO in self.method.calculi
            sde = sde.to_ito() if ito else sde.to_stratonovich()
        return integrate(
            sde,
            z0,
            times,
            dt=span / self.steps,
            method=self.method,
            brownian=seed,
            backward=self.backward,
        )

    def loss(self, batch: SeriesBatch, seed: int | torch.Generator) -> Tensor:
        """Cross-entropy, or the mean square of normalised differences; nan if a sample explodes."""
        found, complete = self.forward(batch, seed)
        if batch.answers is None:
            raise ValueError("the series have neither labels nor targets")
        if self.task.mean is None:
            loss = nn.functional.cross_entropy(found, batch.answers)
        elif self.task.per_time:
            squares = (found - batch.answers).square().mean(-1)
            loss = (squares * batch.seen).sum() / batch.seen.sum()
        else:
            loss = (found - batch.answers).square().mean()
        # A frozen state is no prediction: the loss must not look finite.
        return torch.where(complete.all(), loss, torch.full_like(loss, torch.nan))
