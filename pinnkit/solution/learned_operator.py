"""What operators of families and of graphs have in common: their verdict and how they came about.

In    the errors on held-out draws, the solver's figures.
Out   `LearnedOperator` with `status`, `ok`, `evidence`, `error_estimate`, `errors`.
Next  `solution.operator` for families, `solution.graph_operator` for graphs.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pinnkit.errors import Evidence, Status
from pinnkit.solution.estimate import Stats
from pinnkit.solution.held_out import HeldOut
from pinnkit.solution.solution import Snapshot
from pinnkit.train.callbacks import History

__all__ = ["LearnedOperator"]

CPU = torch.device("cpu")


@dataclass(kw_only=True, eq=False, repr=False)
class LearnedOperator(ABC):
    """Inputs in, solutions out, judged by a quantile of the errors on draws that training never saw.

    Args:
        problem: What was learned, as the user passed it.
        solver: The method.
        held_out: The errors.
        status: The verdict, or why training stopped.
        history, stats: Of the training.
        snapshot: Where training stood, to go on from.
        device, dtype: Of the answers.
    """

    problem: Any
    solver: Any
    held_out: HeldOut
    status: Status
    history: History
    stats: Stats
    snapshot: Snapshot | None = None
    device: torch.device = CPU
    dtype: torch.dtype = torch.float64

    @property
    @abstractmethod
    def declaration(self) -> Any:
        """What was learned, also where a problem class declares it."""

    @property
    def ok(self) -> bool | None:
        """Whether the quantile of held-out errors is below the tolerance; None for data alone."""
        return None if self.status is Status.NO_GROUND_TRUTH else self.status.ok

    @property
    def evidence(self) -> Evidence:
        """Where `error_estimate` comes from: the weakest of the draws."""
        return self.held_out.evidence

    @property
    def error_estimate(self) -> float | None:
        """The judged quantile of relative errors; None where nothing was judged."""
        error = self.held_out.error
        return None if math.isnan(error) else error

    @property
    def errors(self) -> np.ndarray:
        """Relative L2 error of every held-out draw."""
        return self.held_out.errors
