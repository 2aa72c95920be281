"""FNO and DeepONet: resolution, derivatives, shapes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from pinnkit.nn import FNO, DeepONet, SpectralConvolution, spectral_derivative

ROUNDOFF = 1e-10


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def waves(*sizes: int) -> torch.Tensor:
    """A band-limited field on the unit torus, (1, 1, *sizes)."""
    axes = [2 * math.pi * torch.arange(n, dtype=torch.float64) / n for n in sizes]
    grids = torch.meshgrid(*axes, indexing="ij")
    field = torch.sin(grids[0]) + 0.3 * torch.cos(2 * grids[0] - grids[-1]) + 0.1
    return field[None, None]


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_a_fourier_layer_is_the_same_on_every_grid(dimension):
    layer = SpectralConvolution(1, 2, (3,) * dimension, generator=gen())
    coarse, fine = layer(waves(*[8] * dimension)), layer(waves(*[16] * dimension))
    again = fine[(slice(None), slice(None), *[slice(None, None, 2)] * dimension)]
    assert torch.allclose(coarse, again, atol=ROUNDOFF)


def test_a_fourier_layer_commutes_with_shifts():
    layer = SpectralConvolution(1, 2, (3, 3), generator=gen())
    v = waves(8, 8)
    moved = layer(torch.roll(v, (2, 5), dims=(2, 3)))
    assert torch.allclose(moved, torch.roll(layer(v), (2, 5), dims=(2, 3)), atol=ROUNDOFF)


def test_a_grid_too_coarse_is_refused():
    layer = SpectralConvolution(1, 1, (5,), generator=gen())
    with pytest.raises(ValueError, match="does not resolve"):
        layer(waves(8))
    with pytest.raises(ValueError, match="1 to 3 axes"):
        SpectralConvolution(1, 1, (2, 2, 2, 2), generator=gen())


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_fno_learns_by_gradients(dimension):
    net = FNO(1, 2, (2,) * dimension, width=4, depth=2, generator=gen())
    out = net(waves(*[6] * dimension))
    assert out.shape == (1, 2, *[6] * dimension)
    grads = torch.autograd.grad(out.square().sum(), list(net.parameters()))
    assert all(bool(torch.isfinite(g).all()) and float(g.abs().max()) > 0 for g in grads)


def test_spectral_derivatives_are_exact_for_waves():
    n = 16
    x = torch.arange(n, dtype=torch.float64) / n * 3.0  # period 3
    k = 2 * math.pi / 3
    u = torch.sin(2 * k * x)[:, None] * torch.cos(k * x)[None]
    mixed = spectral_derivative(u, (1, 2), (3.0, 3.0))
    exact = -2 * k**3 * torch.cos(2 * k * x)[:, None] * torch.cos(k * x)[None]
    assert torch.allclose(mixed, exact, atol=ROUNDOFF * k**3)


def test_the_highest_cosine_has_no_slope_on_the_grid():
    v = torch.tensor([1.0, -1.0] * 4, dtype=torch.float64)
    assert float(spectral_derivative(v, (1,), (1.0,)).abs().max()) == 0


def test_deeponet_is_basis_times_coefficients():
    net = DeepONet(2, 5, 3, sensors=4, generator=gen())
    points = torch.rand(7, 2, dtype=torch.float64, generator=gen(1))
    a = torch.rand(6, 4, dtype=torch.float64, generator=gen(2))
    assert not bool(net(points, a).any())  # the branch starts at zero
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.rand(p.shape, dtype=p.dtype, generator=gen(3)) - 0.5)
    out = net(points, a)
    assert out.shape == (6, 7, 3)
    one: Any = sum(net.coefficients(a)[2, j] * net.basis(points)[:, j] for j in range(5))
    assert torch.allclose(out[2], one)


def test_without_a_branch_it_is_a_basis():
    net = DeepONet(2, 5, generator=gen())
    assert net.basis(torch.zeros(7, 2, dtype=torch.float64)).shape == (7, 5, 1)
    with pytest.raises(ValueError, match="no branch"):
        net.coefficients(torch.zeros(1, 4))
    with pytest.raises(ValueError, match="give 1 at least"):
        DeepONet(2, 0, generator=gen())
