"""Layers that `torch.nn` lacks: the sine activation and the weight-factorised linear layer.

In    widths, a generator and a dtype.
Out   plain modules on (..., width) tensors.
Next  `nn.networks` stacks them; `lower.jets` knows their Taylor rules.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["ACTIVATIONS", "FactorisedLinear", "Sin", "make_activation", "make_linear"]


class Sin(nn.Module):
    """sin(a), element by element."""

    def forward(self, a: Tensor) -> Tensor:
        return torch.sin(a)


ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "sin": Sin,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
}


def make_activation(name: str) -> nn.Module:
    """The activation module called `name`."""
    if name not in ACTIVATIONS:
        raise ValueError(f"activation={name!r} is not known; choose one of {sorted(ACTIVATIONS)}")
    return ACTIVATIONS[name]()


class FactorisedLinear(nn.Module):
    """Random weight factorisation: y = g * (V z) + b, one trainable factor g per output.

    g = exp(mu + sigma * N(0, 1)) and V = W / g with W Glorot, so that the layer starts as a Glorot
    layer whose rows live on different scales.

    Args:
        inputs, outputs: Widths.
        mu, sigma: Mean and spread of log g (published: mu = 0.5 or 1, sigma = 0.1).
        generator: Source of the initial numbers.
        dtype: Floating type of the parameters.

    References: wang2022rwf.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        mu: float = 0.5,
        sigma: float = 0.1,
        generator: torch.Generator,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        weight = glorot(inputs, outputs, generator, dtype)
        noise = torch.randn(outputs, generator=generator, dtype=dtype, device=generator.device)
        factor = torch.exp(mu + sigma * noise)
        self.direction = nn.Parameter(weight / factor[:, None])  # shape: (outputs, inputs)
        self.factor = nn.Parameter(factor)
        self.bias = nn.Parameter(torch.zeros_like(factor))

    def forward(self, z: Tensor) -> Tensor:
        return self.factor * nn.functional.linear(z, self.direction) + self.bias


def glorot(
    inputs: int, outputs: int, generator: torch.Generator, dtype: torch.dtype
) -> Tensor:  # shape: (outputs, inputs)
    """Glorot-normal weights: variance 2 / (inputs + outputs)."""
    std = math.sqrt(2.0 / (inputs + outputs))
    return std * torch.randn(
        outputs, inputs, generator=generator, dtype=dtype, device=generator.device
    )


def make_linear(
    inputs: int,
    outputs: int,
    generator: torch.Generator,
    dtype: torch.dtype,
    *,
    factorised: bool = False,
) -> nn.Module:
    """A Glorot-normal linear layer with zero bias, or its weight-factorised form."""
    if factorised:
        return FactorisedLinear(inputs, outputs, generator=generator, dtype=dtype)
    # skip_init: nn.Linear's own initialisation would draw from torch's global generator.
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs, dtype=dtype, device=generator.device)
    with torch.no_grad():
        layer.weight.copy_(glorot(inputs, outputs, generator, dtype))  # type: ignore[operator]
        layer.bias.zero_()  # type: ignore[operator]
    return layer
