"""Classes of series with gaps: noisy rotations, or any labelled set in the `.ts` format."""

from __future__ import annotations

import functools
import pathlib
from typing import Any

import numpy as np

import pinnkit as pk

__all__ = ["IrregularClassification"]

SPLIT = (0.85, 0.15)  # to learn from (a part of it held out by the solver), and to test


@pk.problem
class IrregularClassification(pk.ProblemClass):
    """x_1, ..., x_L at irregular times, some of them missing -> the class of the series.

    Without a folder: rotations, x(t) = (cos, sin)(phi +- omega t) + noise, phi uniform. A single
    observation says nothing about the direction, all that counts is their order. With a folder: the set
    NAME_TRAIN.ts and NAME_TEST.ts in it, joined (UEA/UCR archive).

    Args:
        equation: What predicts, made of `data` and `dim`: `LangevinSDE`, `LinearNoiseSDE`, `GeometricSDE`,
            `UnconstrainedSDE`, `NeuralCDE`, `SeriesTarget`, or a partial of one.
        folder: Where the set lies; "" for rotations.
        name: Of the set.
        missing: The share of values taken away, channel by channel.
        paths, observations: Number of rotations, and of times in each.
        dim: Components of the latent state.
        seed: Names the rotations, what is missing, and the split.
    """

    equation: Any = pk.LinearNoiseSDE
    folder: str = ""
    name: str = "rotations"
    missing: float = 0.3
    paths: int = 240
    observations: int = 16
    dim: int = 16
    seed: int = 0
    citation = (
        "Y. Oh, D.-Y. Lim, S. Kim: Stable Neural Stochastic Differential Equations in Analyzing Irregular "
        "Time Series Data. ICLR 2024; A. Bagnall et al.: The UEA Multivariate Time Series Classification "
        "Archive, arXiv:1811.00075 (2018)."
    )

    def series(self, seed: int, paths: int | None = None) -> pk.IrregularSeries:
        """Rotations with gaps; another seed for a test set."""
        return _thinned(
            self._rotations(seed, self.paths if paths is None else paths), self.missing, seed
        )

    def _rotations(self, seed: int, n: int) -> pk.IrregularSeries:
        rng = np.random.default_rng(seed)
        times = np.sort(rng.uniform(0, 1, (n, self.observations)), axis=1)
        left = rng.permutation(n) % 2 == 0
        speed = rng.uniform(5, 8, n) * np.where(left, 1, -1)
        angle = rng.uniform(0, 2 * np.pi, n)[:, None] + speed[:, None] * times
        values = np.stack([np.cos(angle), np.sin(angle)], axis=2)
        values += 0.3 * rng.normal(size=values.shape)
        labels = np.where(left, "left", "right")
        return pk.IrregularSeries(list(times), values, labels=labels)

    def parts(self, missing: float | None = None) -> tuple[pk.IrregularSeries, pk.IrregularSeries]:
        """(to learn from, to test); `missing` takes another share of the same series away, in the same split.

        What is missing at a low share is missing at a higher one.
        """
        rate, seed = self.missing if missing is None else missing, self.seed
        complete = (
            _joined(self.folder, self.name) if self.folder else self._rotations(seed, self.paths)
        )
        learned, tested = _thinned(complete, rate, seed).split(SPLIT, seed=seed)
        return learned, tested

    def declare(self) -> Any:
        """The equation, with the part to learn from."""
        return self.equation(data=self.parts()[0], dim=self.dim).system


def _thinned(complete: pk.IrregularSeries, rate: float, seed: int) -> pk.IrregularSeries:
    return complete.drop(rate, seed=seed) if rate else complete


@functools.lru_cache(maxsize=2)
def _joined(folder: str, name: str) -> pk.IrregularSeries:
    """The set's two files in one, in their order."""
    ends = ("TRAIN", "TEST")
    one, two = (pk.IrregularSeries.from_ts(pathlib.Path(folder) / f"{name}_{e}.ts") for e in ends)
    labels = [*np.asarray(one.labels), *np.asarray(two.labels)]
    return pk.IrregularSeries([*one.times, *two.times], [*one.values, *two.values], labels=labels)
