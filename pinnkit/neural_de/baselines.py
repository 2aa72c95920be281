"""What equations along a control path must beat: a gated recurrent network with masks and time gaps.

In    times and observed values of a batch, nan where nothing was observed.
Out   `GatedRecurrentNetwork`: the state after every time; `recurrent_inputs`, what it sees.
Next  `solution.series_recurrent` makes a model of it that trains as the equations do.

References: cho2014learning (the unit), che2018recurrent (masks and gaps as inputs, "GRU-simple").
"""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor, nn

__all__ = ["GatedRecurrentNetwork", "recurrent_inputs"]


def recurrent_inputs(
    times: Tensor,  # shape: (L, B)
    observed: Tensor,  # shape: (L, B, C)
) -> Tensor:  # shape: (L, B, 3 C)
    """Last observed value (0 before the first), mask, and time since the observation before, per channel."""
    seen = ~torch.isnan(observed)
    place = torch.arange(len(times), device=times.device)[:, None, None]
    last = torch.where(seen, place, -1).cummax(0).values
    values = torch.where(last < 0, 0.0, torch.nan_to_num(observed).gather(0, last.clamp_min(0)))
    clock = times[:, :, None].expand_as(observed)
    # Of the rows before: how old the last known value was when this row came.
    known = torch.where(seen, clock, clock[:1]).cummax(0).values
    gap = clock - torch.cat([clock[:1], known[:-1]])
    return torch.cat([values, seen.to(values.dtype), gap], dim=2)


@final
class GatedRecurrentNetwork(nn.Module):
    """h_k = (1 - u) n + u h_{k-1}, gates u, r and candidate n from h_{k-1} and x_k, mask m_k, gaps delta_k.

    Args:
        channels: C, of the series.
        dim: Components of h; h_0 = 0.
        generator: Source of the initial weights, uniform in +-1 / sqrt(dim).
        dtype: Their type.

    >>> net = GatedRecurrentNetwork(2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    >>> net(torch.rand(7, 3).cumsum(0), torch.zeros(7, 3, 2)).shape
    torch.Size([7, 3, 5])
    """

    def __init__(
        self, channels: int, dim: int, *, generator: torch.Generator, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.cell = nn.GRU(3 * channels, dim, dtype=dtype)
        bound = 1 / math.sqrt(dim)
        with torch.no_grad():
            for p in self.cell.parameters():
                uniform = torch.rand(p.shape, generator=generator, dtype=dtype)
                p.copy_(bound * (2 * uniform - 1))

    def forward(self, times: Tensor, observed: Tensor) -> Tensor:  # (L, B), (L, B, C) -> (L, B, H)
        """The state after each time. Times in units of the time axis, values normalised."""
        return self.cell(recurrent_inputs(times, observed))[0]
