"""A model of series: it predicts, samples and scores; there is no truth it could be checked against.

In    a trained `SeriesModel`, the problem, what training cost.
Out   `SeriesSolution`: `predict`, `probabilities`, `sample`, `score`, `module`, `parameters`.
Next  the user.
"""

from __future__ import annotations

import math
import warnings
from os import PathLike
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from pinnkit.declare.series import IrregularSeries
from pinnkit.errors import Evidence, Status
from pinnkit.solution.estimate import Estimate, Stats, solver_name
from pinnkit.solution.series_model import SeriesBatch, SeriesModel
from pinnkit.solution.series_recurrent import RecurrentModel
from pinnkit.solution.solution import Snapshot
from pinnkit.solution.stability import Stability, stability_of
from pinnkit.train.callbacks import History

__all__ = ["SeriesSolution"]

BATCH = 512  # series predicted at a time


@final
class SeriesSolution:
    """What `SDESystem.solve` returns.

    `ok` is None: a model of data alone has no error to check, only a score on data it has not seen.
    It is False where training diverged.
    """

    def __init__(
        self,
        *,
        problem: Any,
        solver: Any,
        module: SeriesModel | RecurrentModel,
        status: Status,
        history: History,
        stats: Stats,
        seed: int,
        samples: int,
        device: torch.device,
        dtype: torch.dtype,
        snapshot: Snapshot | None = None,
    ) -> None:
        self.problem, self.solver, self.module = problem, solver, module
        self.status, self.history, self.stats = status, history, stats
        self.device, self.dtype = device, dtype
        self.seed, self.samples, self.snapshot = seed, samples, snapshot

    evidence = Evidence.NONE
    error_estimate = math.nan

    @property
    def ok(self) -> bool | None:
        """None: there is nothing to check; False where training diverged."""
        return False if self.status is Status.DIVERGED else None

    @property
    def parameters(self) -> dict[Any, Estimate]:
        """The unknown numbers, as trained."""
        return {p: Estimate(value) for p, value in self.module.numbers().items()}

    def predict(self, data: IrregularSeries) -> np.ndarray | list[np.ndarray]:
        """Labels (N,), numbers (N, K), or one array (L_i, K) per series; the mean over noise paths."""
        task = self.module.task
        if task.mean is None:
            best = self.probabilities(data).argmax(1)
            return np.array(task.classes)[best]
        mean = self._in_units(self._paths(data, self.samples, self.seed).mean(0))
        if not task.per_time:
            return mean
        return [mean[: len(t), i] for i, t in enumerate(data.times)]

    def probabilities(self, data: IrregularSeries) -> np.ndarray:  # shape: (N, classes)
        """The probability of each class, the mean over noise paths."""
        if self.module.task.mean is not None:
            raise ValueError("this model predicts numbers; only classes have probabilities")
        logits = self._paths(data, self.samples, self.seed)
        return torch.softmax(logits, dim=-1).mean(0).cpu().numpy()

    def sample(self, data: IrregularSeries, n: int = 1, *, seed: int = 0) -> np.ndarray:
        """Predictions along n independent noise paths.

        Returns:
            Classes (n, N); numbers (n, N, K), or (n, L, N, K) per time.
        """
        paths = self._paths(data, n, seed)
        if self.module.task.mean is None:
            return np.array(self.module.task.classes)[paths.argmax(-1).cpu().numpy()]
        return self._in_units(paths)

    def score(self, data: IrregularSeries) -> float:
        """Accuracy for classes; for numbers 1 - (mean square error) / (variance), at most 1."""
        task, found = self.module.task, self.predict(data)
        if task.mean is None:
            if data.labels is None:
                raise ValueError("these series have no labels to compare with")
            return float(np.mean(np.asarray(found) == data.labels))
        if data.targets is None:
            raise ValueError("these series have no targets to compare with")
        truth = np.concatenate([np.reshape(x, (-1, task.outputs)) for x in data.targets])
        rows = np.concatenate([np.reshape(x, (-1, task.outputs)) for x in found])
        spread = ((truth - truth.mean(0)) ** 2).mean()
        return float(1 - ((rows - truth) ** 2).mean() / spread) if spread > 0 else math.nan

    def stability(self, data: IrregularSeries | None = None) -> tuple[Stability, ...]:
        """What is known about the stability of a `LangevinSDE`, `LinearNoiseSDE` or `GeometricSDE`.

        Args:
            data: Series along which conditions are looked at; None: those it was trained on, which a
                file does not hold.
        """
        along = self.problem.system.data if data is None else data
        if along is None:
            raise ValueError("a loaded model has no series; pass some: sol.stability(data)")
        if isinstance(self.module, RecurrentModel):
            raise ValueError("a recurrent network is no equation whose stability is known")
        return stability_of(self.problem, self.module, along, self.device, self.dtype)

    def save(self, path: str | PathLike[str]) -> None:
        """Write a `.pinn` file (JSON and tensors, nothing executable, no series); `pk.load` reads it."""
        from pinnkit.solution import series_files

        series_files.save(self, path)

    def __repr__(self) -> str:
        return (
            f"SeriesSolution({self.status.name} by {solver_name(self.solver)}, "
            f"{self.stats.steps} steps in {self.stats.seconds:.1f} s, "
            f"{self.stats.parameters} parameters)"
        )

    def __str__(self) -> str:
        lines = [repr(self), f"  {self.status.message}"]
        lines += [f"  {p} = {e}" for p, e in self.parameters.items()]
        return "\n".join(lines)

    def _paths(self, data: IrregularSeries, n: int, seed: int) -> Tensor:
        """Raw predictions along n noise paths: (n, N, K) or (n, L, N, K)."""
        if not isinstance(data, IrregularSeries):
            raise TypeError(f"data is {type(data).__name__}, expected IrregularSeries")
        self.module.normalisation.apply(data[:1])  # refuses other channels
        module = self.module.eval()
        longest = int(data.lengths.max())
        parts, lost = [], 0
        with torch.no_grad():
            for start in range(0, len(data), BATCH):
                batch = SeriesBatch.of(
                    data[start : start + BATCH],
                    module.normalisation,
                    module.task,
                    module.kind,
                    self.dtype,
                    self.device,
                )
                found, complete = zip(*(module(batch, _mix(seed, start, k)) for k in range(n)))
                lost += int((~torch.stack(complete)).any(0).sum())
                stacked = torch.stack(found)
                if module.task.per_time:  # chunks differ in length
                    stacked = torch.nn.functional.pad(
                        stacked, (0, 0, 0, 0, 0, longest - stacked.shape[1])
                    )
                parts.append(stacked)
        if lost:
            warnings.warn(
                f"{lost} of {len(data)} series left the range of numbers along a noise path: what is "
                "predicted there was read off the last state before",
                RuntimeWarning,
                stacklevel=3,
            )
        return torch.cat(parts, dim=-2)

    def _in_units(self, normalised: Tensor) -> np.ndarray:
        task = self.module.task
        assert task.mean is not None and task.std is not None
        return normalised.cpu().numpy() * task.std + task.mean


def _mix(seed: int, start: int, path: int) -> int:
    """A seed of its own for every chunk and path."""
    words = np.random.SeedSequence((seed % 2**63, start, path)).generate_state(2, np.uint32)
    return int(words[0]) << 31 | int(words[1]) >> 1
