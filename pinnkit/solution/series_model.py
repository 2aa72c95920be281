"""The module that is trained on series: initial map, stochastic equation, readout.

In    a normal form and networks; batches of series.
Out   a `SeriesModel`: a batch and a Brownian seed to predictions, differentiable.
Next  `solvers.neural_sde` trains it; `SeriesSolution` predicts with it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, final

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
    DormandPrince,
    LocalError,
    Recompute,
    StochasticHeun,
    Trajectory,
    integrate,
    make_path,
)
from pinnkit.neural_de.equation import VectorField

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
        observed: What was observed, normalised, nan where nothing was, shape (L, B, C).
        path: The control path.
        answers: Classes (B,), numbers (B, K) or (L, B, K); None where they are not known.
        seen: Which rows of per-time answers are real, shape (L, B).
    """

    times: Tensor
    observed: Tensor
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
            torch.as_tensor(values, dtype=dtype, device=device).transpose(0, 1),
            make_path(padded.times, values, kind, dtype=dtype, device=device),
            _answers(data, task, len(times), dtype, device),
            seen.to(device),
        )

    def take(self, index: Tensor) -> SeriesBatch:  # shape: (n,), on the CPU
        """Some of the series, as short as the longest of them; `index` may repeat."""
        seen = self.seen[:, index.to(self.seen.device)]
        length = int(seen.any(1).sum())
        place = index.to(seen.device)
        answers = self.answers
        if answers is not None:
            per_time = answers.ndim == 3
            answers = answers[:length, place] if per_time else answers[place]
        return SeriesBatch(
            self.times[:length, index],
            self.observed[:length, place],
            self.path.take(place),
            answers,
            seen[:length],
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
            converted then. `DormandPrince` for equations without noise.
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
        method: AbstractMethod | DormandPrince,
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

    def numbers(self) -> dict[Any, float]:
        """The unknown numbers of the equations, as they stand."""
        parameters = self.coefficients.form.parameters
        return {p: self.coefficients.value(p).item() for p in parameters}

    def integrate(self, batch: SeriesBatch, seed: int | torch.Generator) -> Trajectory:
        """The states at all observation times, or at the first and last one only."""
        return self._run(batch, seed, keep=False)[0]

    def _run(
        self, batch: SeriesBatch, seed: int | torch.Generator, *, keep: bool
    ) -> tuple[Trajectory, SDE | VectorField]:
        """The run, and the equation its steps belong to."""
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
        if isinstance(self.method, DormandPrince):
            return self.method.integrate(sde, z0, times, self.coefficients, keep=keep)
        if sde.calculus not in self.method.calculi:
            ito = Calculus.ITO in self.method.calculi
            sde = sde.to_ito() if ito else sde.to_stratonovich()
        run = integrate(
            sde,
            z0,
            times,
            dt=span / self.steps,
            method=self.method,
            brownian=seed,
            backward=self.backward,
            # Heun's method looks at both ends of a step, the others at the left one.
            instants=functools.partial(
                along.instants, increments=not isinstance(self.method, StochasticHeun)
            ),
            keep=keep,
        )
        return run, sde

    def loss(
        self,
        batch: SeriesBatch,
        seed: int | torch.Generator,
        *,
        regularise: LocalError | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Cross-entropy, or the mean square of normalised differences; nan if a sample explodes.

        Args:
            batch, seed: As ever.
            regularise: Adds its penalty.
            generator: Draws for it, on the CPU.
        """
        run, sde = self._run(batch, seed, keep=regularise is not None)
        found = self.readout(run.states if self.task.per_time else run.end)
        # A frozen state is no prediction: the loss must not look finite.
        loss = loss_of(found, batch, self.task)
        loss = torch.where(run.complete.all(), loss, torch.full_like(loss, torch.nan))
        if regularise is None:
            return loss
        return loss + regularise(run, sde, generator or torch.Generator().manual_seed(0))


def loss_of(found: Tensor, batch: SeriesBatch, task: Task) -> Tensor:
    """Cross-entropy of labels, else the mean square of normalised differences."""
    if batch.answers is None:
        raise ValueError("the series have neither labels nor targets")
    if task.mean is None:
        return nn.functional.cross_entropy(found, batch.answers)
    if task.per_time:
        squares = (found - batch.answers).square().mean(-1)
        return (squares * batch.seen).sum() / batch.seen.sum()
    return (found - batch.answers).square().mean()
