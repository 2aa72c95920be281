"""Features of size one: what mean and spread the training set had, kept in the module.

In    columns of features in any units, over the training set; features within a network, over a batch.
Out   `Standardiser`: a module whose buffers go into files and onto devices with the weights;
      `BatchNorm`: the same between layers, learned on the way.
Next  `graphs.network` looks at the world through it.

Conductances of pore networks are 1e-13 in SI units and spread over decades: a network that takes them
as they are sees zeros.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

__all__ = ["BatchNorm", "Standardiser"]

DECADE = 10.0  # ratio of the largest to the smallest value from which a logarithm is considered
FURTHEST = 20.0  # standard deviations; what lies beyond is held there


@final
class Standardiser(nn.Module):
    """(x - mean) / spread column by column, of log x where that is the less skewed.

    Columns of zeros and ones and constant columns keep their values. New values are held within 20
    standard deviations of the training set's.

    Args:
        columns: Their number.
        logarithms: False: never take a logarithm (for targets, whose errors are absolute).

    >>> scale = Standardiser(1).fit(torch.tensor([[1e-13], [1e-12], [1e-11]], dtype=torch.float64))
    >>> [round(v, 3) for v in scale(torch.tensor([[1e-12], [1e-11]], dtype=torch.float64))[:, 0].tolist()]
    [0.0, 1.225]
    """

    mean: Tensor
    spread: Tensor
    logs: Tensor
    least: Tensor

    def __init__(
        self,
        columns: int,
        *,
        logarithms: bool = True,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        self.logarithms = logarithms
        zeros = torch.zeros(columns, dtype=dtype, device=device)
        self.register_buffer("mean", zeros)
        self.register_buffer("spread", torch.ones_like(zeros))
        self.register_buffer("logs", torch.zeros_like(zeros, dtype=torch.bool))
        self.register_buffer(
            "least", torch.ones_like(zeros)
        )  # what logarithms are taken of, at least

    def fit(self, values: Tensor) -> Standardiser:
        """Take mean and spread from these rows; returns itself."""
        x = values.detach().double()
        if x.ndim != 2 or x.shape[1] != len(self.mean):
            raise ValueError(
                f"values have the shape {tuple(values.shape)}; expected (rows, {len(self.mean)})"
            )
        if len(x) == 0:
            return self
        least = x.amin(0)
        logs = torch.zeros_like(least, dtype=torch.bool)
        if self.logarithms:
            wide = (least > 0) & (x.amax(0) > DECADE * least)
            logs = wide & (_skewness(x.clamp(min=1e-300).log()).abs() < _skewness(x).abs())
        x = torch.where(logs, x.clamp(min=1e-300).log(), x)
        spread = x.std(0, correction=0)
        # A spread that is rounding of the mean is no spread.
        flat = spread <= 1e-9 * x.abs().amax(0)
        binary = ((x == 0) | (x == 1)).all(0)
        plain = binary | flat
        zero, one = torch.zeros_like(spread), torch.ones_like(spread)
        mean = torch.where(plain, zero, x.mean(0))
        # Of a constant its size is kept, so that units still do not matter.
        size = torch.where(flat & ~binary & (x.abs().amax(0) > 0), x.abs().amax(0), one)
        spread = torch.where(plain, size, spread)
        self.mean.copy_(mean)
        self.spread.copy_(spread)
        self.logs.copy_(logs)
        tiny = torch.finfo(self.mean.dtype).tiny
        self.least.copy_(torch.where(logs, least * 1e-6, one).clamp(min=tiny))
        return self

    def forward(self, values: Tensor) -> Tensor:
        # Logarithms in double precision: SI units leave single precision.
        x = values.double()
        logs = torch.maximum(x, self.least.double()).log()
        x = torch.where(self.logs, logs, x)
        z = (x - self.mean.double()) / self.spread.double()
        return z.clamp(-FURTHEST, FURTHEST).to(self.mean.dtype)

    def back(self, z: Tensor) -> Tensor:
        """The values that standardise to z, for columns without logarithm."""
        return z * self.spread + self.mean


@final
class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation of rows (nodes or arcs), also where a batch has only one or none of them.

    A single row has no spread: it is treated as in use, by what training has seen so far.
    References: ioffe2015batch.
    """

    def forward(self, input: Tensor) -> Tensor:
        if self.training and len(input) < 2:
            mean, var = self.running_mean, self.running_var
            return nn.functional.batch_norm(input, mean, var, self.weight, self.bias, eps=self.eps)
        return super().forward(input)


def _skewness(x: Tensor) -> Tensor:
    centred = x - x.mean(0)
    spread = centred.square().mean(0).sqrt()
    spread = torch.where(spread > 0, spread, torch.ones_like(spread))
    return (centred / spread).pow(3).mean(0)
