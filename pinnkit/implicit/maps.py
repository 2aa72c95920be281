"""Fixed-point iterations: Picard's, and Anderson's acceleration of it.

In    a `System` G = f - identity.
Out   states whose correction is |f(z) - z| itself.
Next  `iteration.iterate` runs them; `layers.fixed_point` takes Anderson's by default.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from pinnkit.implicit.iteration import AbstractMethod, State, System, is_count
from pinnkit.implicit.record import norms

__all__ = ["Anderson", "Picard"]

Pair = tuple[Tensor, Tensor]  # iterate and residual, shapes: (B, n)


@final
@dataclass(frozen=True, kw_only=True)
class Picard(AbstractMethod):
    """z <- z + damping (f(z) - z). Linear: each step gains the contraction's factor.

    Args:
        damping: In (0, 1]; below 1 for maps that oscillate.
    """

    only_maps: ClassVar[bool] = True
    damping: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.damping <= 1:
            raise ValueError(f"Picard: damping={self.damping} must lie in (0, 1]")

    def init(self, system: System, z: Tensor) -> State:
        return _observe(z, system(z), None)

    def step(self, system: System, state: State, tolerance: Tensor, left: Tensor) -> State:
        before: Pair = state.memory[0]
        z = before[0] + self.damping * before[1]
        return _observe(z, system(z), before)


@final
@dataclass(frozen=True, kw_only=True)
class Anderson(AbstractMethod):
    """Picard's step from the combination of the last iterates with the smallest residual.

    With differences dZ, dR of the last `memory` iterates and residuals, g minimises |r - dR g| and
    z <- z + damping r - (dZ + damping dR) g. On linear maps as good as GMRES of that length.

    Args:
        memory: Iterates remembered.
        damping: In (0, 1].
        regularisation: Of the least squares, relative to the residuals' differences, each scaled to
            length 1; None: eps^(2/3). Larger is slower and safer for noisy maps.

    References: anderson1965, walker2011anderson.
    """

    only_maps: ClassVar[bool] = True
    memory: int = 5
    damping: float = 1.0
    regularisation: float | None = None

    def __post_init__(self) -> None:
        faults = []
        if not is_count(self.memory) or self.memory < 1:
            faults.append(f"memory={self.memory} must be a whole number, at least 1")
        if not 0 < self.damping <= 1:
            faults.append(f"damping={self.damping} must lie in (0, 1]")
        if self.regularisation is not None and not self.regularisation > 0:
            faults.append(f"regularisation={self.regularisation} must be positive")
        if faults:
            raise ValueError("Anderson: " + "; ".join(faults))

    def init(self, system: System, z: Tensor) -> State:
        return _observe(z, system(z), None)

    def step(self, system: System, state: State, tolerance: Tensor, left: Tensor) -> State:
        history: tuple[Pair, ...] = state.memory
        z, r = history[0]
        new = z + self.damping * r
        if len(history) > 1:
            pairs = list(itertools.pairwise(history))
            dz = torch.stack([a[0] - b[0] for a, b in pairs], 2)  # shape: (B, n, k)
            dr = torch.stack([a[1] - b[1] for a, b in pairs], 2)
            g = self._combination(dr, r)
            new = new - ((dz + self.damping * dr) @ g)[..., 0]
        return _observe(new, system(new), *history[: self.memory])

    def _combination(self, dr: Tensor, r: Tensor) -> Tensor:  # shape: (B, k, 1)
        """Differences shrink with the residual: only scaled ones have a Gram matrix worth solving."""
        lengths = norms(dr.transpose(1, 2).flatten(0, 1)).reshape(len(dr), 1, dr.shape[2])
        lengths = torch.where(lengths > 0, lengths, torch.ones_like(lengths))
        unit = dr / lengths
        least = self.regularisation or torch.finfo(r.dtype).eps ** (2 / 3)
        gram = unit.transpose(1, 2) @ unit
        eye = torch.eye(gram.shape[1], dtype=r.dtype, device=r.device)
        right = unit.transpose(1, 2) @ r[..., None]
        return torch.linalg.solve_ex(gram + least * eye, right)[0] / lengths.transpose(1, 2)


def _observe(z: Tensor, r: Tensor, *history: Pair | None) -> State:
    """State at z, with |r| / (1 - q) as estimated error, q the expansion seen since the last iterate."""
    size = norms(r)
    error = torch.full_like(size, torch.nan)
    past = tuple(pair for pair in history if pair is not None)
    if past:
        dz = z - past[0][0]
        q = norms(dz + r - past[0][1]) / norms(dz)
        error = torch.where(q < 1, size / (1 - q), torch.where(size == 0, size, torch.inf))
    return State.of(z, size, size, ((z, r), *past), error=error)
