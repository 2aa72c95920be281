"""Adaptive steps for series: equations without noise, every sample on its own clock.

In    an `SDE` without diffusion, first states, times per sample.
Out   a `Trajectory`, and the right-hand side on the common clock its steps were taken on.
Next  `NeuralSDE(method=DormandPrince())`.

torchdiffeq has one clock for a batch. So time is run through from 0 to 1: sample b, from a_b to e_b, has
dz/ds = (e_b - a_b) f(a_b + s (e_b - a_b), z).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from pinnkit.declare.noise import Calculus
from pinnkit.neural_de.equation import SDE, VectorField
from pinnkit.neural_de.torchdiffeq_adapter import integrate_ode
from pinnkit.neural_de.trajectory import Trajectory

__all__ = ["DormandPrince"]

ALIKE = 1e-9  # difference of scaled clocks that is rounding


@final
@dataclass(frozen=True, kw_only=True)
class DormandPrince:
    """Dormand and Prince's method of order 5, its step chosen for the whole batch.

    Args:
        rtol, atol: Tolerances of one step.
        adjoint: Gradients by the continuous adjoint: constant memory, errors of a second solve.
        max_steps: Steps at most between two outputs.
    """

    rtol: float = 1e-3
    atol: float = 1e-4
    adjoint: bool = False
    max_steps: int = 10_000

    calculi: ClassVar[frozenset[Calculus]] = frozenset(Calculus)

    def __post_init__(self) -> None:
        if not (self.rtol > 0 and self.atol > 0 and self.max_steps >= 1):
            raise ValueError(
                f"DormandPrince: rtol={self.rtol!r}, atol={self.atol!r} and "
                f"max_steps={self.max_steps!r} must be positive"
            )

    def integrate(
        self,
        sde: SDE,
        z0: Tensor,  # shape: (B, H)
        times: Tensor,  # shape: (T, B)
        owner: nn.Module,
        *,
        keep: bool = False,
    ) -> tuple[Trajectory, VectorField]:
        """The run, in the samples' own times, and dz/ds.

        Args:
            sde: Its drift alone is read.
            z0: First states.
            times: Ascending; scaled to 0 ... 1 they must be the same for all samples.
            owner: The module whose parameters f uses, for the adjoint.
            keep: Keep the accepted steps as the run's `walk`, on the common clock.
        """
        begin, span = times[0], times[-1] - times[0]
        clock = (times - begin) / span
        if not bool(((clock - clock[:, :1]).abs() <= ALIKE).all()):
            raise ValueError(
                "DormandPrince has one step for the whole batch, and these series are observed at "
                "different times. Use fixed steps, or targets per series."
            )
        first, length = begin.to(z0)[:, None], span.to(z0)[:, None]

        def rate(s: Tensor, z: Tensor) -> Tensor:
            return length * sde.drift(first + s.to(z) * length, z)

        run = integrate_ode(
            rate, z0, clock[:, 0], rtol=self.rtol, atol=self.atol, max_steps=self.max_steps,
            adjoint=owner if self.adjoint else None, keep=keep,
        )  # fmt: skip
        reached = begin.to(run.reached) + run.reached * span.to(run.reached)
        # A sample that came to the end must reach it exactly, not up to rounding.
        whole = torch.where(run.complete, times[-1].to(reached), reached)
        return dataclasses.replace(run, times=times, reached=whole), rate
