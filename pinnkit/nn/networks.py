"""Networks: plain modules from (n, inputs) to (n, outputs).

In    widths, an activation's name, a generator and a dtype; nothing global is read or changed.
Out   `MLP`, `ModifiedMLP`, `PirateNet`, sums, products and chains of networks.
Next  `lower.jets` propagates Taylor coefficients through them layer by layer.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pinnkit.nn.layers import FactorisedLinear, make_activation, make_linear
from pinnkit.nn.polynomial import Polynomial

__all__ = [
    "MLP",
    "AdaptiveSkip",
    "Chain",
    "ModifiedMLP",
    "PirateBlock",
    "PirateNet",
    "Product",
    "Select",
    "SideBySide",
    "Sum",
    "zero_output",
]


class MLP(nn.Module):
    """Fully connected network: `depth` hidden layers of `width`, a linear layer at the end.

    Args:
        inputs, outputs: Widths at both ends.
        width, depth: Width and number of hidden layers.
        activation: "tanh", "sin", "silu", "gelu", "sigmoid" or "softplus".
        factorised: Use random weight factorisation in every layer.
        gain: Factor on the initial weights of the first layer.
        spread: Initial biases of the hidden layers are uniform in [-spread, spread].
        generator: Source of the initial weights (Glorot normal).
        dtype: Floating type of the parameters.

    >>> net = MLP(2, 1, width=8, depth=2, generator=torch.Generator().manual_seed(0))
    >>> net(torch.zeros(5, 2, dtype=torch.float64)).shape
    torch.Size([5, 1])
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        width: int = 30,
        depth: int = 3,
        *,
        activation: str = "tanh",
        factorised: bool = False,
        gain: float = 1.0,
        spread: float = 0.0,
        generator: torch.Generator,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        _check_sizes(inputs=inputs, outputs=outputs, width=width, depth=depth)
        self.config = {
            "inputs": inputs,
            "outputs": outputs,
            "width": width,
            "depth": depth,
            "activation": activation,
            "factorised": factorised,
            "gain": gain,
            "spread": spread,
        }
        widths = [inputs] + [width] * depth
        layers: list[nn.Module] = []
        for i, o in itertools.pairwise(widths):
            layers += [
                make_linear(i, o, generator, dtype, factorised=factorised),
                make_activation(activation),
            ]
        layers.append(make_linear(width, outputs, generator, dtype, factorised=factorised))
        self.layers = nn.Sequential(*layers)
        if gain == 1.0 and spread == 0.0:
            return
        with torch.no_grad():
            for k, layer in enumerate(layers[:-1:2]):
                assert isinstance(layer, (nn.Linear, FactorisedLinear))
                if k == 0:
                    size = layer.factor if isinstance(layer, FactorisedLinear) else layer.weight
                    size.mul_(gain)
                if spread:
                    uniform = torch.rand(
                        width, generator=generator, dtype=dtype, device=generator.device
                    )
                    layer.bias.copy_(spread * (2 * uniform - 1))

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z)


class ModifiedMLP(nn.Module):
    """MLP whose hidden layers are gated by two encodings of the input.

    U = phi(W_1 z + b_1), V = phi(W_2 z + b_2); each hidden layer
    H <- phi(W H + b) * U + (1 - phi(W H + b)) * V.

    Arguments as in `MLP`. References: wang2021understanding.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        width: int = 30,
        depth: int = 3,
        *,
        activation: str = "tanh",
        factorised: bool = False,
        generator: torch.Generator,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        _check_sizes(inputs=inputs, outputs=outputs, width=width, depth=depth)
        self.config = {
            "inputs": inputs,
            "outputs": outputs,
            "width": width,
            "depth": depth,
            "activation": activation,
            "factorised": factorised,
        }

        def linear(i: int, o: int) -> nn.Module:
            return make_linear(i, o, generator, dtype, factorised=factorised)

        self.activation = make_activation(activation)
        self.encode_u = linear(inputs, width)
        self.encode_v = linear(inputs, width)
        self.hidden = nn.ModuleList(
            linear(inputs if k == 0 else width, width) for k in range(depth)
        )
        self.last = linear(width, outputs)

    def forward(self, z: Tensor) -> Tensor:
        u = self.activation(self.encode_u(z))
        v = self.activation(self.encode_v(z))
        h = z
        for layer in self.hidden:
            h = v + self.activation(layer(h)) * (u - v)
        return self.last(h)


class PirateBlock(nn.Module):
    """Three gated layers beside an adaptive skip: z -> alpha h(z) + (1 - alpha) z, alpha = 0 at first."""

    def __init__(
        self, width: int, activation: str, generator: torch.Generator, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.activation = make_activation(activation)
        self.first = make_linear(width, width, generator, dtype)
        self.second = make_linear(width, width, generator, dtype)
        self.third = make_linear(width, width, generator, dtype)
        self.skip = AdaptiveSkip(dtype, generator.device)

    def forward(self, z: Tensor, u: Tensor, v: Tensor) -> Tensor:
        h = v + self.activation(self.first(z)) * (u - v)
        h = v + self.activation(self.second(h)) * (u - v)
        return self.skip(self.activation(self.third(h)), z)


class AdaptiveSkip(nn.Module):
    """alpha h + (1 - alpha) z with one trainable alpha, 0 at first."""

    def __init__(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros((), dtype=dtype, device=device))

    def forward(self, h: Tensor, z: Tensor) -> Tensor:
        return z + self.alpha * (h - z)


class PirateNet(nn.Module):
    """Residual blocks whose nonlinear part starts switched off, so the net starts linear in its features.

    Args:
        inputs, outputs: Widths at both ends.
        width: Width of the blocks; the input is lifted to it by one linear layer and an activation.
        depth: Number of blocks, three layers each.
        Others as in `MLP`.

    References: wang2024piratenets.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        width: int = 30,
        depth: int = 2,
        *,
        activation: str = "tanh",
        generator: torch.Generator,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        _check_sizes(inputs=inputs, outputs=outputs, width=width, depth=depth)
        self.config = {
            "inputs": inputs,
            "outputs": outputs,
            "width": width,
            "depth": depth,
            "activation": activation,
        }
        self.activation = make_activation(activation)
        self.lift = make_linear(inputs, width, generator, dtype)
        self.encode_u = make_linear(width, width, generator, dtype)
        self.encode_v = make_linear(width, width, generator, dtype)
        self.blocks = nn.ModuleList(
            PirateBlock(width, activation, generator, dtype) for _ in range(depth)
        )
        self.last = make_linear(width, outputs, generator, dtype)

    def forward(self, z: Tensor) -> Tensor:
        h = self.activation(self.lift(z))
        u = self.activation(self.encode_u(h))
        v = self.activation(self.encode_v(h))
        for block in self.blocks:
            h = block(h, u, v)
        return self.last(h)


class Sum(nn.Module):
    """Sum of networks with equal outputs."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(_at_least_one(parts))

    def forward(self, z: Tensor) -> Tensor:
        value = self.parts[0](z)
        for part in self.parts[1:]:  # type: ignore[union-attr]
            value = value + part(z)
        return value


class Product(nn.Module):
    """Element-wise product of networks with equal outputs."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(_at_least_one(parts))

    def forward(self, z: Tensor) -> Tensor:
        value = self.parts[0](z)
        for part in self.parts[1:]:  # type: ignore[union-attr]
            value = value * part(z)
        return value


class Chain(nn.Module):
    """Networks one after the other: features first, then the trainable net."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(_at_least_one(parts))

    def forward(self, z: Tensor) -> Tensor:
        for part in self.parts:
            z = part(z)
        return z


class SideBySide(nn.Module):
    """Networks of the same input, outputs one beside the other: one network per field."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(_at_least_one(parts))

    def forward(self, z: Tensor) -> Tensor:
        return torch.cat([part(z) for part in self.parts], dim=-1)


class Select(nn.Module):
    """A network of some of the columns: a field over a subset of the coordinates."""

    def __init__(self, columns: Sequence[int], part: nn.Module) -> None:
        super().__init__()
        self.columns = tuple(int(c) for c in columns)
        self.part = part

    def forward(self, z: Tensor) -> Tensor:
        return self.part(z[..., list(self.columns)])


def zero_output(network: nn.Module) -> bool:
    """Set the last linear layer to zero, so that the network is 0 and still learns; False if unknown.

    Of sums and of networks side by side every part, of a product the first factor, of a chain the last
    link. A network of a class this library does not know is left as it is.
    """
    if isinstance(network, (Sum, SideBySide)):
        known = [zero_output(part) for part in network.parts]
        return all(known)
    if isinstance(network, (Product, Chain)):
        return zero_output(network.parts[0 if isinstance(network, Product) else -1])
    if isinstance(network, Select):
        return zero_output(network.part)
    if isinstance(network, Polynomial):
        nn.init.zeros_(network.coefficients)
        return True
    if not isinstance(network, (MLP, ModifiedMLP, PirateNet)):
        return False
    last = network.layers[-1] if isinstance(network, MLP) else network.last
    with torch.no_grad():
        # Of a factorised layer the direction: were its factor zero, the direction would not learn.
        for p in (last.direction if isinstance(last, FactorisedLinear) else last.weight, last.bias):
            assert isinstance(p, Tensor)
            p.zero_()
    return True


def _at_least_one(parts: tuple[nn.Module, ...]) -> tuple[nn.Module, ...]:
    if not parts:
        raise ValueError("a sum, product or chain of networks needs at least one part")
    return parts


def _check_sizes(**sizes: int) -> None:
    wrong = {name: size for name, size in sizes.items() if size < 1}
    if wrong:
        raise ValueError(f"network sizes must be at least 1, got {wrong}")
