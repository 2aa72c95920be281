"""Certified Lipschitz constants of layered networks, and bounds of their rounding errors.

In    an `nn.Sequential` of linear layers and known activations; perhaps a box of inputs.
Out   numbers that no difference quotient exceeds, computed in double precision and rounded upwards.
Next  `contraction` turns a constant below 1 into a bound of the error of a fixed point.

Two bounds, the smaller counts. The product of the layers' norms and steepest slopes; and interval
propagation: the box gives each unit's range before its activation, hence its slopes, and the interval
matrices W_L diag(s) ... diag(s) W_1 contain every Jacobian. Intervals are kept as centre and radius;
every product's radius grows by its own rounding.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pinnkit.errors import UnsupportedProblemError

__all__ = [
    "Affine",
    "Elementwise",
    "Layer",
    "layers_of",
    "lipschitz",
    "rounding_error",
    "snapshot",
    "vector_norm",
]

EPS = torch.finfo(torch.float64).eps
ULPS = 4  # rounding of an activation: torch's are correct to two units in the last place or better


@dataclass(frozen=True)
class Affine:
    """x -> W x + b."""

    weight: Tensor  # shape: (m, n)
    bias: Tensor  # shape: (m,) or (B, m)


@dataclass(frozen=True)
class Elementwise:
    """An activation and the range of its slope.

    Args:
        function: Element by element.
        slopes: (low, high) -> the least and the largest slope there, rounding included; for infinite
            ends, too.
        exact: Whether it is computed without rounding.
    """

    function: Callable[[Tensor], Tensor]
    slopes: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    exact: bool = False

    def steepest(self) -> float:
        """The largest slope anywhere."""
        end = torch.tensor(torch.inf, dtype=torch.float64)
        return float(torch.stack(self.slopes(-end, end)).abs().max())


Layer = Affine | Elementwise


@functools.singledispatch
def layers_of(module: Any) -> list[Layer]:
    """The layers of a module. Teach it an activation of your own with `@layers_of.register`.

    >>> @layers_of.register
    ... def _(module: nn.Softsign) -> list[Layer]:
    ...     always = lambda low, high: (torch.zeros_like(low), torch.ones_like(high))
    ...     return [Elementwise(module, always)]
    >>> lipschitz(nn.Sequential(nn.Linear(1, 1, bias=False), nn.Softsign())).shape
    torch.Size([])
    """
    raise UnsupportedProblemError(
        f"no Lipschitz bound is known for {type(module).__name__}. Give an nn.Sequential of nn.Linear"
        " and Tanh, Sigmoid, ReLU, LeakyReLU, ELU, SiLU, GELU or Identity, or register the"
        " module's layers with pinnkit.implicit.layers_of.register."
    )


def lipschitz(
    net: nn.Module,
    *,
    norm: float = math.inf,
    box: tuple[Tensor, Tensor] | None = None,
) -> Tensor:  # shape: () or (B,), float64
    """An upper bound of |net(x) - net(y)| / |x - y|, everywhere or for x and y in a box.

    Args:
        net: An `nn.Sequential`, or anything `layers_of` knows.
        norm: `math.inf` or 2, on both sides.
        box: (low, high), each (n,), or (B, n) for one box per sample.

    >>> double = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    >>> _ = nn.init.constant_(double.weight, 2.0)
    >>> round(lipschitz(nn.Sequential(double, nn.Tanh())).item(), 12)
    2.0
    """
    with torch.no_grad():
        return _bound(snapshot(net), norm, box)


def snapshot(net: nn.Module) -> list[Layer]:
    """The layers with the weights of now, in double precision."""

    def copied(w: Tensor) -> Tensor:
        return w.detach().to(torch.float64, copy=True)

    return [
        Affine(copied(x.weight), copied(x.bias)) if isinstance(x, Affine) else x
        for x in layers_of(net)
    ]


def rounding_error(
    layers: list[Layer], z: Tensor, *, norm: float
) -> Tensor:  # shapes: (B, n) -> (B,)
    """A bound of |computed - exact| for layers evaluated at z in its own precision, in any order."""
    eps = torch.finfo(z.dtype).eps
    value, error = z.double(), torch.zeros_like(z, dtype=torch.float64)
    for layer in layers:
        if isinstance(layer, Affine):
            w, b = layer.weight.double(), layer.bias.double()
            sizes = (value.abs() + error) @ w.abs().T + b.abs()
            error = error @ w.abs().T + _gamma(w.shape[1], eps) * sizes
            value = value @ w.T + b
        else:
            before, value = value, layer.function(value)
            own = 0.0 if layer.exact else ULPS * eps
            # Relative to the argument, too: some activations subtract nearly equal numbers.
            sizes = torch.maximum(value.abs(), before.abs() + error)
            error = layer.steepest() * error + own * sizes
    # All this is rounded as well, in double precision.
    return vector_norm(error, norm) * (1 + 1e-12)


def vector_norm(x: Tensor, norm: float) -> Tensor:  # shapes: (..., n) -> (...)
    """The norm of the last dimension."""
    _check_norm(norm)
    return torch.linalg.vector_norm(x, ord=norm, dim=-1)


def _bound(layers: list[Layer], norm: float, box: tuple[Tensor, Tensor] | None) -> Tensor:
    _check_norm(norm)
    first = next((x for x in layers if isinstance(x, Affine)), None)
    if first is None:
        raise ValueError("the network has no linear layer, so that its number of inputs is unknown")
    n = first.weight.shape[1]
    like = first.weight
    if box is None:
        high = like.new_full((n,), torch.inf)
        low = -high
    else:
        low, high = (torch.as_tensor(end).to(like) for end in box)
        if low.shape[-1] != n or low.shape != high.shape or not bool((low <= high).all()):
            raise ValueError(
                f"box has ends of shapes {tuple(low.shape)} and {tuple(high.shape)}; both must be"
                f" ({n},) or (B, {n}), the lower end nowhere above the upper one."
            )
    product = like.new_ones(low.shape[:-1])
    centre = torch.eye(n, dtype=like.dtype, device=like.device).expand(*low.shape, n)
    radius = torch.zeros_like(centre)
    for layer in layers:
        if isinstance(layer, Affine):
            product = product * _matrix_norm(layer.weight, norm)
            centre, radius = _times(layer.weight, centre, radius)
            low, high = _image(layer, low, high)
        else:
            least, most = layer.slopes(low, high)
            steep = torch.maximum(least.abs(), most.abs())
            product = product * steep.amax(-1)
            s, width = 0.5 * (least + most)[..., None], 0.5 * (most - least)[..., None]
            sizes = centre.abs() + radius
            radius = s.abs() * radius + width * sizes + 4 * EPS * steep[..., None] * sizes
            centre = s * centre
            low, high = _activated(layer, low, high, steep)
    sizes = centre.abs() + radius
    bound = _matrix_norm(sizes, norm)
    if norm == 2:
        spread = torch.linalg.matrix_norm(radius) * (1 + _gamma(n * n, EPS))
        bound = torch.minimum(bound, _matrix_norm(centre, norm) + spread)
    return torch.minimum(bound, product) * (1 + _gamma(4 * len(layers), EPS))


def _matrix_norm(a: Tensor, norm: float) -> Tensor:  # shapes: (..., m, n) -> (...)
    """The operator norm, rounded upwards."""
    m, n = a.shape[-2:]
    if norm == math.inf:
        return a.abs().sum(-1).amax(-1) * (1 + _gamma(n, EPS))
    # |A| <= |U| s_1 |V| + |A - U S V|, where |U|^2 <= 1 + |U^T U - 1|: true for whatever the
    # decomposition returned, so that its accuracy need not be believed.
    u, s, vh = torch.linalg.svd(a, full_matrices=False)
    eye = torch.eye(s.shape[-1], dtype=a.dtype, device=a.device)
    rounding = _gamma(m + n, EPS)
    skew = [torch.linalg.matrix_norm(q - eye) for q in (u.mT @ u, vh @ vh.mT)]
    stretch = 1.0
    for part in skew:
        stretch = stretch * torch.sqrt(1 + part + rounding * s.shape[-1])
    rest = torch.linalg.matrix_norm(a - (u * s[..., None, :]) @ vh)
    sizes = torch.linalg.matrix_norm(a) * math.sqrt(min(m, n))
    return (s[..., 0] * stretch + rest + rounding * sizes) * (1 + rounding)


def _times(w: Tensor, centre: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    grown = w.abs() @ radius
    rounding = _gamma(w.shape[1], EPS) * (w.abs() @ (centre.abs() + radius))
    return w @ centre, grown + 2 * rounding


def _image(layer: Affine, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    w, b = layer.weight, layer.bias
    if not bool(torch.isfinite(low).all() and torch.isfinite(high).all()):
        end = w.new_full((*low.shape[:-1], w.shape[0]), torch.inf)
        return -end, end
    centre, half = 0.5 * (low + high), 0.5 * (high - low)
    middle = centre @ w.T + b
    sizes = torch.maximum(low.abs(), high.abs()) @ w.abs().T + b.abs()
    spread = half @ w.abs().T + 2 * _gamma(w.shape[1] + 2, EPS) * sizes
    return middle - spread, middle + spread


def _activated(
    layer: Elementwise, low: Tensor, high: Tensor, steep: Tensor
) -> tuple[Tensor, Tensor]:
    """The mean value theorem around the middle of the range; nothing where the range is infinite."""
    centre, half = 0.5 * (low + high), 0.5 * (high - low)
    middle = layer.function(centre)
    spread = steep * half * (1 + 4 * EPS) + ULPS * EPS * (middle.abs() + steep * centre.abs())
    finite = torch.isfinite(low) & torch.isfinite(high)
    end = torch.where(finite, spread, torch.inf)
    middle = torch.where(finite, middle, 0)
    return middle - end, middle + end


def _gamma(n: int, eps: float) -> float:
    """Relative rounding of a sum of n products in any order, and of a few operations more."""
    return (n + 8) * eps / (1 - (n + 8) * eps)


def _check_norm(norm: float) -> None:
    if norm not in (2, math.inf):
        raise ValueError(f"norm={norm!r} must be 2 or math.inf")


def _bell(slope: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Slopes that are even and fall on both sides of zero."""

    def slopes(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        near = torch.clamp(torch.maximum(low, -high), min=0)
        far = torch.maximum(low.abs(), high.abs())
        slack = 8 * EPS
        return torch.clamp(slope(far) - slack, min=0), torch.clamp(slope(near), max=1) + slack

    return slopes


def _rising(slope: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Slopes that grow with the argument."""
    return lambda low, high: (slope(low) - 8 * EPS, slope(high) + 8 * EPS)


def _between(least: float, most: float) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    return lambda low, high: (torch.full_like(low, least), torch.full_like(high, most))


@layers_of.register
def _(module: nn.Sequential) -> list[Layer]:
    return [layer for part in module for layer in layers_of(part)]


@layers_of.register
def _(module: nn.Linear) -> list[Layer]:
    w = module.weight
    return [Affine(w, w.new_zeros(w.shape[0]) if module.bias is None else module.bias)]


@layers_of.register
def _(module: nn.Identity) -> list[Layer]:
    return [Elementwise(module, _between(1.0, 1.0), exact=True)]


@layers_of.register
def _(module: nn.Tanh) -> list[Layer]:
    return [Elementwise(module, _bell(lambda x: 1 - torch.tanh(x).square()))]


@layers_of.register
def _(module: nn.Sigmoid) -> list[Layer]:
    return [Elementwise(module, _bell(lambda x: torch.sigmoid(x) * torch.sigmoid(-x)))]


@layers_of.register
def _(module: nn.ReLU) -> list[Layer]:
    return [
        Elementwise(
            torch.relu, lambda low, high: ((low > 0).to(low), (high > 0).to(high)), exact=True
        )
    ]


@layers_of.register
def _(module: nn.LeakyReLU) -> list[Layer]:
    a = module.negative_slope
    least, most = min(a, 1.0), max(a, 1.0)
    return [Elementwise(lambda x: torch.nn.functional.leaky_relu(x, a), _between(least, most))]


@layers_of.register
def _(module: nn.ELU) -> list[Layer]:
    a = module.alpha
    function = lambda x: torch.nn.functional.elu(x, a)  # noqa: E731
    return [Elementwise(function, _between(min(0.0, a), max(a, 1.0)))]


@layers_of.register
def _(module: nn.SiLU) -> list[Layer]:
    return [Elementwise(torch.nn.functional.silu, _between(-0.0999, 1.0999))]


@layers_of.register
def _(module: nn.GELU) -> list[Layer]:
    kind = module.approximate
    function = lambda x: torch.nn.functional.gelu(x, approximate=kind)  # noqa: E731
    return [Elementwise(function, _between(-0.13, 1.13))]
