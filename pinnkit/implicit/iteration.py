"""The one loop of all iterations: every sample stops by itself, and is left alone from then on.

In    a method, a `System` on flat vectors, a start, a `Rule`.
Out   the last iterates (the best one of a sample that failed) and the `Record`.
Next  `equation` differentiates through what was found; the methods are in the files beside.

A sample never sees its batch-mates: it is frozen with the iterate it had when it stopped, and each
method works sample by sample. Nothing here calls anything but the user's function and linear algebra.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, ClassVar

import torch
from torch import Tensor

from pinnkit.implicit.jacobian import Jacobian, Map
from pinnkit.implicit.record import ConvergenceError, Record, norms

__all__ = ["AbstractMethod", "Rule", "State", "System", "default_rtol", "is_count", "iterate"]


@dataclass(frozen=True)
class Rule:
    """When to stop: correction <= atol + rtol * scale (+ rounding of the largest iterate so far)."""

    rtol: float
    atol: float
    max_steps: int
    throw: bool = False

    def __post_init__(self) -> None:
        for name in ("rtol", "atol"):
            if isinstance(value := getattr(self, name), bool) or not isinstance(value, Real):
                raise TypeError(f"{name}={value!r} must be a number")
        faults = []
        if not 0 <= self.rtol < 1:
            faults.append(f"rtol={self.rtol} must lie in [0, 1)")
        if not 0 <= self.atol < math.inf:
            faults.append(f"atol={self.atol} must be finite and not negative")
        if not is_count(self.max_steps) or self.max_steps < 1:
            faults.append(f"max_steps={self.max_steps} must be a whole number, at least 1")
        if faults:
            raise ValueError("; ".join(faults))


def is_count(value: object) -> bool:
    """Whether it is a whole number; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def default_rtol(dtype: torch.dtype) -> float:
    """eps^(2/3): 4e-11 in double, 2e-5 in single precision."""
    return torch.finfo(dtype).eps ** (2 / 3)


@dataclass(frozen=True)
class System:
    """A batch of equations G(z) = 0 on flat vectors, at fixed parameters.

    Args:
        function: (B, n) -> (B, m), sample by sample.
        is_map: Whether G = f - identity, so that G itself is a step towards the solution.
        jacobian: dG/dz at z, (B, n) -> (B, m, n), where it is known in closed form.
        on_rows: Makes what maps samples as the user sees them a map of vectors.
    """

    function: Callable[[Tensor], Tensor]
    is_map: bool = False
    jacobian: Callable[[Tensor], Tensor] | None = None
    on_rows: Callable[[Map], Map] = lambda user: user

    def __call__(self, z: Tensor) -> Tensor:
        return self.function(z)

    def matrix(self, z: Tensor) -> Tensor:  # shape: (B, m, n)
        """All entries of dG/dz: by the given formula, else a row at a time."""
        return Jacobian(self, z).matrix() if self.jacobian is None else self.jacobian(z)


@dataclass(frozen=True)
class State:
    """What a method knows of each sample, z first; `memory` is the method's own.

    Args:
        z: Iterates, shape (B, n).
        merit: Size of the residual there, by which the best iterate is chosen.
        correction: Size of what is still to be corrected: compared with the tolerance.
        scale: What `rtol` is relative to.
        error: Estimated distance from the solution; nan where unknown.
        work: Iterations that the last step cost.
        stalled: Samples that can get no further.
    """

    z: Tensor
    merit: Tensor
    correction: Tensor
    scale: Tensor
    error: Tensor
    work: Tensor
    stalled: Tensor
    memory: Any = None

    @classmethod
    def of(
        cls,
        z: Tensor,
        merit: Tensor,
        correction: Tensor,
        memory: Any,
        *,
        scale: Tensor | None = None,
        error: Tensor | None = None,
        work: Tensor | None = None,
        stalled: Tensor | None = None,
    ) -> State:
        """The common case: relative to |z|, one iteration, nothing known of the error."""
        return cls(
            z,
            merit,
            correction,
            norms(z) if scale is None else scale,
            torch.full_like(merit, torch.nan) if error is None else error,
            torch.ones_like(merit, dtype=torch.int64) if work is None else work,
            torch.zeros_like(merit, dtype=torch.bool) if stalled is None else stalled,
            memory,
        )

    def kept(self, old: State, active: Tensor) -> State:
        """This state where `active`, the old one elsewhere; the memory of frozen samples is idle."""

        def choose(new: Tensor, before: Tensor) -> Tensor:
            mask = active.reshape(-1, *([1] * (new.ndim - 1)))
            return torch.where(mask, new, before)

        names = ("z", "merit", "correction", "scale", "error")
        return replace(self, **{n: choose(getattr(self, n), getattr(old, n)) for n in names})


class AbstractMethod(ABC):
    """An iteration. Frozen: what evolves is in the `State`."""

    only_maps: ClassVar[bool] = False  # needs a fixed-point map
    unrolls: ClassVar[bool] = True  # autograd can differentiate its steps

    @abstractmethod
    def init(self, system: System, z: Tensor) -> State:
        """What is known at the start."""

    @abstractmethod
    def step(self, system: System, state: State, tolerance: Tensor, left: Tensor) -> State:
        """One step of all samples; `left` iterations remain for each, 0 for those that stopped."""


def iterate(
    method: AbstractMethod,
    system: System,
    z0: Tensor,  # shape: (B, n)
    rule: Rule,
) -> tuple[Tensor, Record]:
    """Run the method until every sample has converged, stalled, left the finite numbers or timed out."""
    eps = torch.finfo(z0.dtype).eps
    if not bool(torch.isfinite(z0).all()):
        raise ValueError("the start z0 is not finite; give numbers to start from.")
    state = method.init(system, z0)
    _check_start(state.merit)
    largest = state.scale
    # Rounding of the largest iterate: without it z = 0 would never be reached relative to itself.
    tolerance = rule.atol + rule.rtol * state.scale + eps * largest
    converged = state.correction <= tolerance
    active = ~converged
    iterations = torch.zeros_like(state.work)
    best = state
    while bool(active.any()):
        left = torch.where(active, rule.max_steps - iterations, 0)
        new = method.step(system, state, tolerance, left)
        finite = torch.isfinite(new.merit) & torch.isfinite(new.correction)
        state = new.kept(state, active & finite)
        best = state.kept(best, active & finite & (state.merit < best.merit))
        largest = torch.maximum(largest, state.scale)
        tolerance = rule.atol + rule.rtol * state.scale + eps * largest
        iterations = iterations + torch.where(active, new.work, 0)
        converged = converged | (active & finite & (state.correction <= tolerance))
        active = active & finite & ~converged & ~new.stalled & (iterations < rule.max_steps)
    last = state.kept(best, converged)
    error = torch.where(converged, last.error + eps * last.scale, torch.nan)
    record = Record(last.merit, iterations, converged, error, torch.zeros_like(converged))
    record = Record(*(entry.detach() for entry in record))
    if rule.throw and not bool(converged.all()):
        raise ConvergenceError(last.z.detach(), record)
    return last.z, record


def _check_start(merit: Tensor) -> None:
    if not bool(torch.isfinite(merit).all()):
        where = (~torch.isfinite(merit)).nonzero().flatten().tolist()
        raise ValueError(
            f"the function is not finite at the start of sample {where[0]} ({len(where)} of"
            f" {len(merit)}); start where it is defined, and check the parameters."
        )
