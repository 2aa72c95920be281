"""Contractions: maps that are one by construction, and what Banach's theorem says of an iterate.

In    a Lipschitz bound g < 1 of f in z, and a bound of f's rounding.
Out   |z - z*| <= (|f(z) - z| + rounding) / (1 - g), sample by sample.
Next  `fixed_point(..., contraction=)` puts it into the record.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pinnkit.implicit.lipschitz import (
    Affine,
    Layer,
    layers_of,
    lipschitz,
    rounding_error,
    snapshot,
    vector_norm,
)
from pinnkit.implicit.record import Record, flattened

__all__ = ["BoundedNorm", "Contraction", "ContractiveCell", "certify"]

GUESSED = 16  # units in the last place taken as f's rounding where nothing is known of it


@final
@dataclass(frozen=True, kw_only=True)
class Contraction:
    """A Lipschitz bound of f(z, *params) in z.

    Args:
        factor: The bound, a number or one per sample, shape (B,).
        norm: `math.inf` or 2.
        rounding: (z, *params) -> (B,), a bound of |computed f(z) - f(z)|; None: unknown, and errors
            are estimates only.
        box: Where the factor holds, (low, high); None: everywhere. The bound is proved if the ball
            around z with the bound as its radius lies inside: f then maps that ball into itself.
    """

    factor: Tensor | float
    norm: float = math.inf
    rounding: Callable[..., Tensor] | None = None
    box: tuple[Tensor, Tensor] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.factor, Tensor) and not self.factor >= 0:
            raise ValueError(f"Contraction: factor={self.factor} must not be negative")
        if self.norm not in (2, math.inf):
            raise ValueError(f"Contraction: norm={self.norm!r} must be 2 or math.inf")

    def judge(
        self,
        gap: Callable[..., Tensor],
        z: Tensor,
        params: tuple[Tensor, ...],
        record: Record,
    ) -> Record:
        """The record with Banach's bound of the distance between z and the fixed point."""
        with torch.no_grad():
            z, params = z.detach(), tuple(p.detach() for p in params)
            eps = torch.finfo(z.dtype).eps
            flat = flattened(z).double()
            r = vector_norm(flattened(gap(z, *params)).double(), self.norm)
            factor = torch.as_tensor(self.factor, dtype=torch.float64, device=z.device)
            if self.rounding is None:
                rounding = GUESSED * eps * vector_norm(flat, self.norm)
            else:
                rounding = self.rounding(z, *params)
            # f(z) - z is rounded once more, and so are the few operations here.
            bound = (r * (1 + 4 * eps) + rounding) / (1 - factor)
            bound = bound * (1 + (flat.shape[1] + 16) * torch.finfo(torch.float64).eps)
            contracts = (factor < 1) & torch.isfinite(bound)
            known = contracts & self._covers(flat, bound)
            error = torch.where(contracts, bound, torch.inf)
            # Rounded upwards on the way back to z's precision.
            error = (error * (1 + 2 * eps)).to(record.error)
            proved = known if self.rounding is not None else torch.zeros_like(known)
            return record._replace(error=error, certified=proved.expand(record.certified.shape))

    def _covers(self, z: Tensor, radius: Tensor) -> Tensor:
        if self.box is None:
            return torch.ones_like(radius, dtype=torch.bool)
        low, high = (end.to(z) for end in self.box)
        inside = torch.minimum(z - low, high - z).amin(-1)
        return inside >= radius


def certify(
    net: nn.Module, *, norm: float = math.inf, box: tuple[Tensor, Tensor] | None = None
) -> Contraction:
    """The Lipschitz bound and the rounding of a network z -> net(z) as it is now.

    Arguments as in `lipschitz`. The factor may exceed 1: nothing is certified then.

    >>> half = nn.Linear(1, 1, dtype=torch.float64)
    >>> _ = nn.init.constant_(half.weight, 0.5)
    >>> certify(nn.Sequential(half, nn.Tanh())).factor <= 0.5 + 1e-14
    tensor(True)
    """
    layers = snapshot(net)
    return Contraction(
        factor=lipschitz(net, norm=norm, box=box),
        norm=norm,
        rounding=lambda z, *_: rounding_error(layers, z, norm=norm),
        box=box,
    )


@final
class BoundedNorm(nn.Module):
    """Parametrisation of a matrix: V is scaled down just so far that its norm is at most `bound`.

    In the infinity norm each row by itself, in the 2-norm the whole. Register it with
    `torch.nn.utils.parametrize`.

    >>> layer = nn.Linear(4, 4, dtype=torch.float64)
    >>> _ = parametrize.register_parametrization(layer, "weight", BoundedNorm(0.5))
    >>> lipschitz(layer) <= 0.5
    tensor(True)
    """

    def __init__(self, bound: float, norm: float = math.inf) -> None:
        super().__init__()
        if not bound > 0 or norm not in (2, math.inf):
            raise ValueError(f"need bound > 0 and norm 2 or math.inf, got {bound} and {norm}")
        self.bound, self.norm = bound, norm

    def forward(self, v: Tensor) -> Tensor:
        if self.norm == math.inf:
            size = v.abs().sum(1, keepdim=True)
        else:
            size = torch.linalg.matrix_norm(v, ord=2)
        # A little less than the bound, so that rounding cannot lift the norm above it again.
        width = sum(v.shape) + 8
        slack = 4 * width * torch.finfo(v.dtype).eps
        slack += 8 * width**2 * torch.finfo(torch.float64).eps  # what `lipschitz` itself adds
        return v / torch.clamp(size / (self.bound * (1 - slack)), min=1.0)


@final
class ContractiveCell(nn.Module):
    """f(z, x) = phi(W z + U x + b), a contraction in z by construction: |W| <= factor / sup |phi'|.

    Args:
        unknowns, inputs: Widths of z and x.
        factor: Of the contraction, in (0, 1).
        norm: In which it contracts, `math.inf` or 2.
        activation: One `layers_of` knows; tanh by default.
        generator: Source of the initial weights.
        dtype: Floating type of the parameters.

    >>> cell = ContractiveCell(3, 2, generator=torch.Generator().manual_seed(0))
    >>> cell(torch.zeros(5, 3, dtype=torch.float64), torch.ones(5, 2, dtype=torch.float64)).shape
    torch.Size([5, 3])
    """

    def __init__(
        self,
        unknowns: int,
        inputs: int,
        *,
        factor: float = 0.9,
        norm: float = math.inf,
        activation: nn.Module | None = None,
        generator: torch.Generator,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        if not 0 < factor < 1:
            raise ValueError(f"ContractiveCell: factor={factor} must lie in (0, 1)")
        self.norm = norm
        self.activation = nn.Tanh() if activation is None else activation
        (slope,) = layers_of(self.activation)
        if isinstance(slope, Affine):
            raise TypeError("ContractiveCell: activation must act element by element")
        self.state = _drawn(unknowns, unknowns, generator, dtype, bias=False)
        self.input = _drawn(inputs, unknowns, generator, dtype, bias=True)
        limit = BoundedNorm(factor / slope.steepest(), norm)
        parametrize.register_parametrization(self.state, "weight", limit)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return self.activation(self.state(z) + self.input(x))

    def contraction(self) -> Contraction:
        """The certificate of the weights as they are now."""
        return Contraction(
            factor=lipschitz(nn.Sequential(self.state, self.activation), norm=self.norm),
            norm=self.norm,
            rounding=self._rounding,
        )

    def _rounding(self, z: Tensor, x: Tensor, *_: Tensor) -> Tensor:
        # Both products are sums; that the two are added afterwards is one operation more.
        both = torch.cat([self.state.weight, self.input.weight], 1)
        bias = self.input.bias.detach()
        layers: list[Layer] = [Affine(both.detach(), bias), *layers_of(self.activation)]
        return rounding_error(layers, torch.cat([z, x], 1), norm=self.norm)


def _drawn(
    inputs: int, outputs: int, gen: torch.Generator, dtype: torch.dtype, *, bias: bool
) -> nn.Linear:
    # skip_init: nn.Linear's own initialisation would draw from torch's global generator.
    device = gen.device
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=bias, dtype=dtype, device=device)
    noise = torch.randn(outputs, inputs, generator=gen, dtype=dtype, device=gen.device)
    with torch.no_grad():
        layer.weight.copy_(noise / math.sqrt(max(inputs, 1)))  # type: ignore[operator]
        if bias:
            layer.bias.zero_()  # type: ignore[operator]
    return layer  # type: ignore[return-value]
