"""Fixed features of the coordinates: exact periodicity, random Fourier features.

In    points (n, d), usually scaled to [-1, 1].
Out   features (n, w), without trainable parameters.
Next  the first linear layer of a network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

__all__ = ["PeriodicFeatures", "RandomFourierFeatures"]


class PeriodicFeatures(nn.Module):
    """Replace every periodic column x by cos(k w x), sin(k w x), k = 1..harmonics, w = 2 pi / period.

    Whatever network follows is exactly periodic, with all its derivatives. The other columns
    come first, unchanged and in order.

    Args:
        inputs: Number of columns.
        periods: {column: period}.
        harmonics: Highest k, one for all or {column: k}; 1 is enough in principle (a network makes
            the rest), more starts richer.
    """

    angular: Tensor

    def __init__(
        self,
        inputs: int,
        periods: Mapping[int, float],
        *,
        harmonics: int | Mapping[int, int] = 1,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        counts = {
            c: harmonics if isinstance(harmonics, int) else harmonics.get(c, 1) for c in periods
        }
        if min(counts.values(), default=1) < 1:
            raise ValueError(f"harmonics={harmonics} must be at least 1")
        unknown = [c for c in periods if not 0 <= c < inputs]
        if unknown:
            raise ValueError(f"periods name columns {unknown}, but there are {inputs} columns")
        self.config = {
            "inputs": inputs,
            "periods": {int(c): float(p) for c, p in periods.items()},
            "harmonics": {int(c): k for c, k in counts.items()},
        }
        self.plain = [c for c in range(inputs) if c not in periods]
        angular = torch.zeros(sum(counts.values()), inputs, dtype=dtype, device=device)
        row = 0
        for column, period in sorted(periods.items()):
            for k in range(1, counts[column] + 1):
                angular[row, column] = k * 2 * math.pi / period
                row += 1
        self.register_buffer("angular", angular, persistent=False)

    @property
    def outputs(self) -> int:
        """Number of features."""
        return len(self.plain) + 2 * self.angular.shape[0]

    def forward(self, z: Tensor) -> Tensor:
        phase = z @ self.angular.T
        return torch.cat([z[..., self.plain], torch.cos(phase), torch.sin(phase)], dim=-1)


class RandomFourierFeatures(nn.Module):
    """z -> [cos(B z), sin(B z)] with B ~ N(0, scale^2), fixed.

    Args:
        inputs: Number of columns.
        features: Number of rows of B; twice as many features come out.
        scale: Standard deviation of B; raises the frequencies a network sees first (1-10).

    References: tancik2020fourier.
    """

    frequencies: Tensor

    def __init__(
        self,
        inputs: int,
        features: int,
        *,
        scale: float = 1.0,
        generator: torch.Generator,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.config = {"inputs": inputs, "features": features, "scale": scale}
        draw = torch.randn(
            features, inputs, generator=generator, dtype=dtype, device=generator.device
        )
        # Persistent: these numbers belong to the trained function.
        self.register_buffer("frequencies", scale * draw)

    @property
    def outputs(self) -> int:
        """Number of features."""
        return 2 * self.frequencies.shape[0]

    def forward(self, z: Tensor) -> Tensor:
        phase = z @ self.frequencies.T
        return torch.cat([torch.cos(phase), torch.sin(phase)], dim=-1)
