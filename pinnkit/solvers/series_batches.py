"""Batches of series, prepared once where all of them fit into memory.

In    series, and what makes a batch of some of them.
Out   `SeriesBatches.take(places)`.
Next  `solvers.neural_sde` trains on them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import numpy as np
import torch

from pinnkit.declare.series import IrregularSeries
from pinnkit.solution.series_model import SeriesBatch

__all__ = ["SeriesBatches"]

LARGEST = 2**26  # numbers kept: half a gigabyte in float64
COPIES = 6  # of every value: itself, and four coefficients with its time


@final
class SeriesBatches:
    """Any of the series as a batch.

    Preparing one (filling gaps, coefficients of the control path) takes longer than a training step of a
    small equation, so it is done once and rows are taken out; beyond `LARGEST` numbers, each time.

    Args:
        data: The series.
        make: A batch of series.
    """

    def __init__(
        self, data: IrregularSeries, make: Callable[[IrregularSeries], SeriesBatch]
    ) -> None:
        self._data, self._make = data, make
        size = COPIES * len(data) * int(data.lengths.max()) * (data.n_channels + 1)
        self._whole = make(data) if size <= LARGEST else None

    def __len__(self) -> int:
        return len(self._data)

    def take(self, places: list[int]) -> SeriesBatch:
        """The series at these places, in this order; a place may repeat."""
        if self._whole is None:
            return self._make(self._data[np.array(places)])
        return self._whole.take(torch.tensor(places))
