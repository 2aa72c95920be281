"""Brownian paths on a time grid: reproducible by seed, consistent when steps are halved.

In    a `TimeGrid`, how many paths and components, a seed.
Out   a `BrownianPath`: increments drawn in one call; `refine()` and `coarsen()` keep the path.
Next  `neural_de.integrate` consumes the increments.

A halved step is filled by the Brownian bridge: given W(t + h) - W(t) = D, the first half's increment
is D/2 + (sqrt(h)/2) xi with xi standard normal, and the second half's is the rest. So increments of a
coarse grid are sums of those of the finer one, which is what strong orders are measured with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from pinnkit.neural_de.grid import TimeGrid

__all__ = ["BrownianPath"]


@final
@dataclass(frozen=True, eq=False)
class BrownianPath:
    """W on a grid, for B samples with M components each. Make one with `draw`.

    Args:
        grid: Where it is known.
        increments: W(t_{k+1}) - W(t_k), shape (K, B, M).
        seed: The path's name: equal seed, grid and shape give equal paths on every device, because
            numbers are drawn on the CPU.
        level: How often the grid has been halved.
        coarser: The path this one was refined from.
    """

    grid: TimeGrid
    increments: Tensor
    seed: int
    level: int = 0
    coarser: BrownianPath | None = None

    @staticmethod
    def draw(
        grid: TimeGrid,
        samples: int,
        channels: int,
        *,
        seed: int | torch.Generator,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> BrownianPath:
        """A new path. A generator gives up one number, which becomes the seed."""
        if isinstance(seed, torch.Generator):
            seed = int(torch.randint(2**62, (), generator=seed, device=seed.device))
        shape = (grid.steps, samples, channels)
        scale = _per_step(grid.widths.sqrt(), dtype, device)
        noise = _normal(shape, seed, 0, dtype).to(device)
        return BrownianPath(grid, scale * noise, seed)

    def refine(self) -> BrownianPath:
        """The same path on the grid with every step halved."""
        k, b, m = self.increments.shape
        dtype, device = self.increments.dtype, self.increments.device
        half = _per_step(0.5 * self.grid.widths.sqrt(), dtype, device)
        noise = _normal((k, b, m), self.seed, self.level + 1, dtype).to(device)
        first = 0.5 * self.increments + half * noise
        finer = torch.stack([first, self.increments - first], dim=1).reshape(2 * k, b, m)
        return BrownianPath(self.grid.refine(), finer, self.seed, self.level + 1, self)

    def coarsen(self) -> BrownianPath:
        """The path this one was refined from."""
        if self.coarser is None:
            raise ValueError("this path has not been refined, so there is no coarser one")
        return self.coarser

    def values(self) -> Tensor:  # shape: (K + 1, B, M)
        """W at the grid's points, 0 at the first."""
        return torch.cat([torch.zeros_like(self.increments[:1]), self.increments.cumsum(0)])


def _normal(shape: tuple[int, ...], seed: int, level: int, dtype: torch.dtype) -> Tensor:
    # One stream per level, so that refining never depends on what was drawn in between.
    words = np.random.SeedSequence((seed % 2**64, level)).generate_state(2, np.uint32)
    generator = torch.Generator().manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)
    return torch.randn(shape, generator=generator, dtype=dtype)


def _per_step(width: Tensor, dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """(K,) or (K, B) as a factor of (K, B, M)."""
    wide = width[:, None, None] if width.ndim == 1 else width[:, :, None]
    return wide.to(device, dtype)
