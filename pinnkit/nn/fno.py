"""Fourier neural operator on uniform periodic or padded grids, one to three dimensions.

In    fields on a grid (B, channels, *grid).
Out   fields on the same grid; exact derivatives of what is band-limited.
Next  a basis for a constraint layer: each output channel is one function.

A layer multiplies the lowest Fourier modes by learned matrices and adds a pointwise linear map,

    v <- phi(W v + F^-1(R_k F(v)_k)),

so that one set of weights works on every grid that resolves the modes.
References: li2021fno (arXiv:2010.08895).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pinnkit.nn.layers import make_activation, make_linear

__all__ = ["FNO", "SpectralConvolution", "spectral_derivative"]


class SpectralConvolution(nn.Module):
    """F^-1(R_k F(v)_k) over |k_i| < modes_i, the last axis k >= 0 only: the result is real.

    Args:
        inputs, outputs: Channels.
        modes: Per axis; the grid has at least 2 modes points there.
        generator, dtype: Of the real and imaginary parts of R, N(0, 1 / (inputs outputs)).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        modes: Sequence[int],
        *,
        generator: torch.Generator,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        if not 1 <= len(modes) <= 3 or min(modes) < 1:
            raise ValueError(f"modes={tuple(modes)}: one positive number for each of 1 to 3 axes")
        self.modes = tuple(int(k) for k in modes)
        self.outputs = outputs
        # One block of weights per sign of the wave numbers of all axes but the last.
        blocks = 2 ** (len(self.modes) - 1)
        draw = torch.randn(
            blocks, inputs, outputs, *self.modes, 2, generator=generator, dtype=dtype
        )
        self.weight = nn.Parameter(draw / math.sqrt(inputs * outputs))

    def forward(self, v: Tensor) -> Tensor:
        grid = v.shape[2:]
        small = [n < 2 * k for n, k in zip(grid, self.modes, strict=True)]
        if any(small):
            raise ValueError(f"a grid of {tuple(grid)} points does not resolve {self.modes} modes")
        axes = tuple(range(2, v.ndim))
        spectrum = torch.fft.rfftn(v, dim=axes)
        out = spectrum.new_zeros(len(v), self.outputs, *spectrum.shape[2:])
        weight = torch.view_as_complex(self.weight)
        signs = itertools.product((False, True), repeat=len(grid) - 1)
        letters = "xyz"[: len(grid)]
        for block, negative in zip(weight, signs, strict=True):
            part = tuple(
                slice(-k, None) if n else slice(None, k)
                for n, k in zip((*negative, False), self.modes, strict=True)
            )
            where = (slice(None), slice(None), *part)
            out[where] = torch.einsum(
                f"bi{letters},io{letters}->bo{letters}", spectrum[where], block
            )
        return torch.fft.irfftn(out, s=list(grid), dim=axes)


class FNO(nn.Module):
    """Lift, `depth` Fourier layers, project: (B, inputs, *grid) -> (B, outputs, *grid).

    Args:
        inputs, outputs: Channels; coordinates are given as channels where they matter.
        modes: Fourier modes kept per axis.
        width, depth: Channels inside, and number of layers.
        activation: As in `MLP`.
        generator, dtype: Source and type of the initial weights.

    >>> net = FNO(2, 3, modes=(4,), width=8, generator=torch.Generator().manual_seed(0))
    >>> net(torch.zeros(5, 2, 16, dtype=torch.float64)).shape
    torch.Size([5, 3, 16])
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        modes: Sequence[int],
        width: int = 32,
        depth: int = 4,
        *,
        activation: str = "gelu",
        generator: torch.Generator,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        self.activation = make_activation(activation)
        self.lift = make_linear(inputs, width, generator, dtype)
        self.spectral = nn.ModuleList(
            SpectralConvolution(width, width, modes, generator=generator, dtype=dtype)
            for _ in range(depth)
        )
        self.pointwise = nn.ModuleList(
            make_linear(width, width, generator, dtype) for _ in range(depth)
        )
        self.hidden = make_linear(width, 2 * width, generator, dtype)
        self.last = make_linear(2 * width, outputs, generator, dtype)

    def forward(self, v: Tensor) -> Tensor:
        v = _on_channels(self.lift, v)
        for k, (spectral, pointwise) in enumerate(zip(self.spectral, self.pointwise, strict=True)):
            v = spectral(v) + _on_channels(pointwise, v)
            if k + 1 < len(self.spectral):
                v = self.activation(v)
        return _on_channels(self.last, self.activation(_on_channels(self.hidden, v)))


def spectral_derivative(
    v: Tensor,  # shape: (..., *grid)
    orders: Sequence[int],
    lengths: Sequence[float],
) -> Tensor:
    """The derivative of the trigonometric interpolant of v along its last axes.

    Args:
        v: Real values on a uniform periodic grid, the last point not repeated.
        orders: How often along each of the last `len(orders)` axes.
        lengths: The periods.
    """
    axes = tuple(range(v.ndim - len(orders), v.ndim))
    spectrum = torch.fft.fftn(v, dim=axes)
    for axis, order, length in zip(axes, orders, lengths, strict=True):
        if not order:
            continue
        n = v.shape[axis]
        k = torch.fft.fftfreq(n, 1.0 / n, dtype=v.dtype, device=v.device)
        if n % 2 == 0 and order % 2 == 1:
            k[n // 2] = 0.0  # the highest cosine has no odd derivative on the grid
        factor = (2j * math.pi / length * k) ** order
        spectrum = spectrum * factor.reshape(-1, *([1] * (v.ndim - 1 - axis)))
    return torch.fft.ifftn(spectrum, dim=axes).real


def _on_channels(layer: nn.Module, v: Tensor) -> Tensor:
    return layer(v.movedim(1, -1)).movedim(-1, 1)
