"""Lipschitz bounds hold for every pair of points, error bounds for every iterate; by construction too."""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pinnkit.errors import UnsupportedProblemError
from pinnkit.implicit import (
    Anderson,
    BoundedNorm,
    Contraction,
    ContractiveCell,
    Elementwise,
    Newton,
    Picard,
    certify,
    fixed_point,
    layers_of,
    lipschitz,
)
from pinnkit.implicit.lipschitz import Layer
from tests.implicit.cases import EXACT, contraction, generator, normal

CASES = 100
ACTIVATIONS = [nn.Tanh, nn.Sigmoid, nn.ReLU, nn.SiLU, nn.GELU, nn.ELU, nn.LeakyReLU]


def network(gen, widths, activation):
    """Random weights; the last layer is linear."""
    parts: list[nn.Module] = []
    for i, o in itertools.pairwise(widths):
        layer: Any = nn.utils.skip_init(nn.Linear, i, o, dtype=torch.float64)
        with torch.no_grad():
            layer.weight.copy_(torch.randn(o, i, generator=gen, dtype=torch.float64) / i**0.5)
            layer.bias.copy_(0.3 * torch.randn(o, generator=gen, dtype=torch.float64))
        parts += [layer, activation()]
    return nn.Sequential(*parts[:-1])


def size(x, norm: Any) -> torch.Tensor:
    return torch.linalg.vector_norm(x, ord=norm, dim=-1)


@pytest.mark.parametrize("norm", [math.inf, 2])
def test_no_pair_of_points_exceeds_the_bounds(norm):
    """Random networks and boxes: difference quotients and Jacobian norms stay below, everywhere."""
    gen = generator(1)
    for case in range(CASES // 2):
        activation = ACTIVATIONS[case % len(ACTIVATIONS)]
        n = 1 + case % 4
        net = network(gen, (n, 5, 4, n), activation)
        low = torch.randn(n, generator=gen, dtype=torch.float64)
        high = low + torch.rand(n, generator=gen, dtype=torch.float64)
        inside = low + (high - low) * torch.rand(20, n, generator=gen, dtype=torch.float64)
        outside = 3 * torch.randn(20, n, generator=gen, dtype=torch.float64)
        local, everywhere = lipschitz(net, norm=norm, box=(low, high)), lipschitz(net, norm=norm)
        assert local <= everywhere * (1 + 1e-9)
        for points, bound in ((inside, local), (outside, everywhere)):
            with torch.no_grad():
                quotients = size(net(points[1:]) - net(points[:-1]), norm)
                distances = size(points[1:] - points[:-1], norm)
                assert (quotients <= bound * distances + EXACT).all()  # the difference is rounded
            if case % 5 == 0:
                jacobians = torch.vmap(torch.func.jacrev(net.forward))(points).detach()
                assert (torch.linalg.matrix_norm(jacobians, ord=norm) <= bound).all()


@pytest.mark.parametrize("norm", [math.inf, 2])
def test_one_linear_layer_has_its_own_norm(norm):
    """And a small box makes a network's bound the norm of its Jacobian."""
    layer = nn.Linear(5, 3, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(normal(3, 5))
    exact = torch.linalg.matrix_norm(layer.weight, ord=norm).item()
    assert exact <= lipschitz(layer, norm=norm).item() < exact * (1 + 1e-12)
    net = network(generator(2), (3, 6, 3), nn.Tanh)
    z = normal(1, 3)[0]
    jacobian = torch.func.jacrev(lambda z: net(z))(z).detach()
    local = torch.linalg.matrix_norm(jacobian, ord=norm).item()
    bound = lipschitz(net, norm=norm, box=(z - 1e-7, z + 1e-7)).item()
    assert local <= bound < local * (1 + 1e-4)
    assert bound < 0.9 * lipschitz(net, norm=norm).item()


def test_boxes_per_sample():
    """(B, n) ends give (B,) bounds."""
    net = network(generator(3), (2, 5, 2), nn.Tanh)
    low = normal(4, 2)
    both = lipschitz(net, box=(low, low + 0.1))
    each = torch.stack([lipschitz(net, box=(x, x + 0.1)) for x in low])
    assert both.shape == (4,) and (both - each).abs().max() < EXACT


def reference(cell, x, start):
    """The fixed point of tanh(W z + U x + b) in extended precision, by Picard's iteration."""
    parts = (cell.state.weight, cell.input.weight, cell.input.bias, x)
    w, u, b, x = (np.asarray(t.detach().double(), dtype=np.longdouble) for t in parts)
    z = np.asarray(start, dtype=np.longdouble)
    for _ in range(6000):
        new = np.tanh(z @ w.T + x @ u.T + b)
        if np.abs(new - z).max() <= 4e-19:  # a few units in the last place
            break
        z = new
    return z


@pytest.mark.skipif(bool(np.finfo(np.longdouble).eps > 1e-18), reason="no extended precision here")
@pytest.mark.parametrize("norm", [math.inf, 2])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_contractive_cells_contract_and_their_errors_are_bounded(norm, dtype):
    """200 random cells in all: measured contraction <= factor, true error <= certified error, converged
    to rounding or stopped early."""
    gen = generator(5)
    sharp = 0.0
    for case in range(CASES // 4):
        n, factor = 1 + case % 6, (0.3, 0.8, 0.97)[case % 3]
        cell = ContractiveCell(n, 2, factor=factor, norm=norm, generator=gen, dtype=dtype)
        with torch.no_grad():
            cell.state.parametrizations.weight.original.mul_(3)  # pyright: ignore
            cell.input.weight.mul_(0.3)
        x = torch.randn(3, 2, generator=gen, dtype=dtype)
        contraction = cell.contraction()
        assert torch.as_tensor(contraction.factor) <= factor
        y = torch.randn(2, 3, n, generator=gen, dtype=dtype).double()
        wide = copy.deepcopy(cell).double()
        with torch.no_grad():
            moved = size(wide(y[0], x.double()) - wide(y[1], x.double()), norm)
        assert (
            moved <= torch.as_tensor(contraction.factor) * size(y[0] - y[1], norm) * (1 + 1e-6)
        ).all()
        with torch.no_grad():
            start, _ = fixed_point(wide, y[0], x.double(), solver=Newton())
        true = reference(cell, x, start)
        steps, solver = ((4, Picard()), (15, Anderson()))[case % 2]
        with torch.no_grad():
            z, record = fixed_point(
                cell,
                torch.zeros(3, n, dtype=dtype),
                x,
                contraction=contraction,
                max_steps=steps,
                solver=solver,
                rtol=0.0,
            )
        distance = np.linalg.norm(z.double().numpy() - true, ord=norm, axis=1)
        assert record.certified.all()
        assert (distance <= record.error.numpy()).all()
        if steps == 4:
            sharp = max(sharp, float((distance / record.error.numpy()).max()))
    assert sharp > 0.5  # the bounds are not idle


def test_certificates_of_networks_on_a_box():
    """Certified where the ball of the bound lies in the box, an estimate (False) where it does not."""
    net: Any = network(generator(7), (2, 8, 2), nn.Tanh)
    with torch.no_grad():
        net[2].weight.mul_(0.4)
    z, plain = fixed_point(net, torch.zeros(1, 2, dtype=torch.float64))
    assert not plain.certified.any() and plain.error.item() < 1e-9
    for half, inside in ((0.1, True), (1e-14, False)):
        box = (z.detach()[0] - half, z.detach()[0] + half)
        _, record = fixed_point(net, z.detach(), contraction=certify(net, box=box), max_steps=50)
        assert record.certified.item() is inside
    assert record.error.item() < 1e-9


def test_a_factor_alone_gives_an_estimate():
    """Rounding unknown: nothing is proved; a factor of 1 or more bounds nothing."""
    b = normal(2, 3)
    a = contraction(3, 0.5)

    def f(z, b):
        return z @ a.T + b

    exact = torch.linalg.solve(torch.eye(3, dtype=a.dtype) - a, b.T).T
    z, record = fixed_point(
        f, torch.zeros_like(b), b, contraction=Contraction(factor=0.5, norm=2), max_steps=6
    )
    assert not record.certified.any()
    assert (size(z - exact, 2) <= record.error).all()
    _, record = fixed_point(f, torch.zeros_like(b), b, contraction=Contraction(factor=1.0))
    assert torch.isinf(record.error).all()


def test_estimated_errors_are_of_the_right_size():
    """Without a certificate: from the expansion between the last iterates."""
    a = torch.tensor([[0.9]], dtype=torch.float64)
    b = torch.ones(1, 1, dtype=torch.float64)
    z, record = fixed_point(
        lambda z: z @ a + b, torch.zeros_like(b), solver=Picard(), rtol=1e-6, max_steps=999
    )
    assert record.error.item() == pytest.approx(abs(z.item() - 10), rel=1e-3)


@pytest.mark.parametrize("norm", [math.inf, 2])
def test_training_keeps_the_contraction(norm):
    """Twenty steps of gradient descent push the weights against the bound."""
    cell = ContractiveCell(4, 2, factor=0.8, norm=norm, generator=generator())
    x = normal(16, 2)
    target = torch.stack([x[:, 0], x[:, 1], x.sum(1), x[:, 0] * x[:, 1]], 1).tanh()
    optimiser = torch.optim.Adam(cell.parameters(), lr=0.05)
    losses = []
    for _ in range(20):
        z, record = fixed_point(cell, torch.zeros_like(target), x)
        assert record.converged.all()
        loss = (z - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        assert torch.as_tensor(cell.contraction().factor) <= 0.8
    assert losses[-1] < 0.5 * losses[0]


def test_unknown_layers_are_refused_until_registered():
    """`layers_of` is open: a user adds a layer as we do."""

    class Halved(nn.Module):
        def forward(self, x):
            return torch.sin(x) / 2

    linear: Any = nn.utils.skip_init(nn.Linear, 2, 2, dtype=torch.float64)
    with torch.no_grad():
        linear.weight.copy_(normal(2, 2))
        linear.bias.zero_()
    net = nn.Sequential(linear, Halved())
    with pytest.raises(UnsupportedProblemError, match=r"(?s)for Halved.*layers_of.register"):
        lipschitz(net)

    @layers_of.register(Halved)
    def _(module) -> list[Layer]:
        return [
            Elementwise(
                module, lambda low, high: (torch.full_like(low, -0.5), torch.full_like(high, 0.5))
            )
        ]

    assert lipschitz(net) <= 0.5 * linear.weight.abs().sum(1).max() * (1 + 1e-12)


def test_certificates_refuse_what_has_no_meaning():
    net = network(generator(), (2, 3, 2), nn.Tanh)
    with pytest.raises(ValueError, match=r"norm=1 must be 2 or math\.inf"):
        lipschitz(net, norm=1)
    with pytest.raises(ValueError, match=r"box has ends of shapes \(3,\)"):
        lipschitz(net, box=(torch.zeros(3), torch.ones(3)))
    with pytest.raises(ValueError, match=r"factor=1.5 must lie in \(0, 1\)"):
        ContractiveCell(2, 2, factor=1.5, generator=generator())
    with pytest.raises(ValueError, match="bound > 0"):
        BoundedNorm(-1.0)
