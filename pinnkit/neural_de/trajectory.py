"""What an integration returns: states at the requested times, and how far each sample came.

In    states, counts, the reason an integration ended.
Out   `Trajectory`, whose `status` is data: nothing is raised for a solution that explodes.
Next  readouts and losses; `solution` for users.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

__all__ = ["IntegrationStatus", "Trajectory", "Walk"]


class IntegrationStatus(enum.Enum):
    """How an integration ended; the value is the message."""

    COMPLETE = "every sample reached the last time"
    BLOWN_UP = "a sample left the range of numbers; it stands still where it was last seen"
    UNDERFLOW = "the adaptive step fell to its smallest size; the tolerance was not kept"
    MAX_STEPS = (
        "the adaptive integration ran out of steps; later states repeat the last one reached"
    )

    @property
    def ok(self) -> bool:
        """True for COMPLETE only."""
        return self is IntegrationStatus.COMPLETE

    @property
    def message(self) -> str:
        """What happened, in one sentence."""
        return self.value


@final
@dataclass(frozen=True, eq=False)
class Walk:
    """The steps an integration took, where it was asked to keep them.

    Args:
        times: Where each began, shape (K,) or (K, B).
        widths: Their lengths, of the same shape.
        states: There, shape (K, B, H), with the graph of the integration.
        embedded: Whether they were steps of an embedded pair of ordinary equations.
    """

    times: Tensor
    widths: Tensor
    states: Tensor
    embedded: bool

    def __len__(self) -> int:
        return len(self.times)

    @property
    def lengths(self) -> Tensor:  # shape: (K,), float64 on the CPU
        """The length of each step, the mean over samples."""
        return self.widths.detach().double().cpu().reshape(len(self), -1).mean(1)

    @property
    def span(self) -> float:
        """The length of the whole walk."""
        return float(self.lengths.sum())

    def detach(self) -> Walk:
        """Without the graph."""
        return Walk(self.times, self.widths, self.states.detach(), self.embedded)

    def step(self, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """Time and length, of shape () or (B, 1), and the states (B, H) of step k."""
        z = self.states[k]
        shape = (-1, 1) if self.times.ndim == 2 else ()
        return self.times[k].to(z).reshape(shape), self.widths[k].to(z).reshape(shape), z


@final
@dataclass(frozen=True, eq=False)
class Trajectory:
    """States of B samples at T times.

    Args:
        times: Requested times, float64, shape (T,) or (T, B).
        states: Shape (T, B, H).
        reached: The time up to which each sample is a solution, float64, shape (B,); what follows
            repeats the state there, without gradient.
        evaluations: Calls of f and g (of the right-hand side, for ordinary equations).
        steps: Steps taken, None where an adaptive method does not tell.
        rejected: Steps an adaptive method threw away.
        problem: What an adaptive method complained of, else None.
        walk: Every step, where they were to be kept.
    """

    times: Tensor
    states: Tensor
    reached: Tensor
    evaluations: int
    steps: int | None
    rejected: int = 0
    problem: IntegrationStatus | None = None
    walk: Walk | None = None

    @property
    def end(self) -> Tensor:  # shape: (B, H)
        """The states at the last time."""
        return self.states[-1]

    @property
    def complete(self) -> Tensor:  # shape: (B,)
        """True for samples that reached the last time."""
        return self.reached >= self.times[-1].to(self.reached.device)

    @property
    def status(self) -> IntegrationStatus:
        """The worst of all samples. Waits for the device."""
        if self.problem is not None:
            return self.problem
        if bool(torch.all(self.complete)):
            return IntegrationStatus.COMPLETE
        return IntegrationStatus.BLOWN_UP
