"""Elements in time on a periodic box: exact solutions, exact inverses, gradients through the layer.

Cells    vorticity cos(2 pi x) cos(2 pi y) exp(-8 pi^2 nu t): transport by its own streamfunction vanishes.
Heat     u_t = u_xx / 10 on [0, 2], where the norm's operator is the whole equation.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import pinnkit as pk
from pinnkit.lower.periodic_elements import PeriodicElements, radau
from pinnkit.nn import HardConstraint
from pinnkit.problems import NavierStokesTorus  # pyright: ignore[reportMissingImports]

ROUNDOFF = 1e-10
NU = 0.01
t, x = pk.coords("t x")
u, u0 = pk.field("u", t, x), pk.given("u0", x)


def flow(**knobs: Any) -> PeriodicElements:
    family = NavierStokesTorus(nu=NU).system
    return PeriodicElements(family, 0.5, **{"nodes": 8, "times": 4, **knobs})


def heat(reaction: float = 0.0, **knobs: Any) -> PeriodicElements:
    system = pk.PDESystem(
        [u.diff(t) - u.diff(x, 2) / 10 + reaction * u**2],
        pk.Interval(t, 0, 1) * pk.Interval(x, 0, 2),
        [pk.Initial(u, u0), pk.Periodic(u, x)],
    )
    family = pk.PDEFamily(system, {u0: pk.GaussianField(length=0.3, periodic=True)})
    return PeriodicElements(family, 1.0, **{"nodes": 8, "times": 3, **knobs})


def grid(elements: PeriodicElements) -> list[torch.Tensor]:
    at = torch.arange(elements.nodes, dtype=torch.float64) / elements.nodes
    return list(torch.meshgrid(*[at] * elements.dimension, indexing="ij"))


def known(elements: PeriodicElements, batch: int = 1) -> torch.Tensor:
    """No equation here reads an input."""
    return torch.zeros(batch, len(elements.points()), len(elements.nf.coords) + 3).double()


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def kept(values: torch.Tensor, elements: PeriodicElements) -> torch.Tensor:
    """Without the highest mode of each axis."""
    axes = tuple(range(-elements.dimension, 0))
    modes = torch.fft.fftn(values, dim=axes)
    for axis in axes:
        modes.select(axis, elements.nodes // 2).zero_()
    return torch.fft.ifftn(modes, dim=axes).real


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_radau_nodes_integrate_and_differentiate_polynomials(count: int):
    nodes, slopes, weights = radau(count)
    for power in range(1, count + 1):
        assert np.allclose(slopes @ nodes**power, power * nodes ** (power - 1), atol=ROUNDOFF)
    for power in range(2 * count - 1):
        assert weights @ nodes**power == pytest.approx(1 / (power + 1), abs=ROUNDOFF)


def test_leaves_are_derivatives_and_the_streamfunction_follows():
    elements = flow(stages=2)
    a, b = grid(elements)
    wave, moved = torch.sin(2 * math.pi * (a - 2 * b)), torch.cos(2 * math.pi * a)
    instants = elements.instants[:, None, None]
    found = elements.leaves(wave * instants**2 + moved, moved)
    at = elements.points()
    time, phase, other = at[:, 0], 2 * math.pi * (at[:, 1] - 2 * at[:, 2]), 2 * math.pi * at[:, 1]
    psi_x = torch.cos(phase) * time**2 / (10 * math.pi) - torch.sin(other) / (2 * math.pi)
    exact = {
        (1, (1, 0, 0)): 2 * time * torch.sin(phase),
        (1, (0, 0, 2)): -((4 * math.pi) ** 2) * time**2 * torch.sin(phase),
        (0, (0, 1, 0)): psi_x,
    }
    for leaf, values in exact.items():
        column = found[:, elements.pointwise.wanted.index(leaf)]
        assert torch.allclose(column, values, atol=1e-9)


def test_an_exact_flow_leaves_nothing_but_the_error_of_its_elements():
    """Of order 4 in the element's length, four nodes each; a wrong viscosity is seen at once."""
    sizes = []
    for stages in (1, 2, 4):
        elements = flow(stages=stages)
        a, b = grid(elements)
        cells = torch.cos(2 * math.pi * a) * torch.cos(2 * math.pi * b)
        decay = torch.exp(-8 * math.pi**2 * NU * elements.instants)[:, None, None]
        leaves = elements.leaves((cells * decay)[None], cells[None])
        sizes.append(float(elements(known(elements), leaves).abs().max()))
    assert sizes[-1] < 1e-5
    assert np.all(np.array(sizes[:-1]) / sizes[1:] > 12)
    still = elements.leaves(cells.expand(1, 16, 8, 8), cells[None])
    assert float(elements(known(elements), still).abs().max()) > 0.5


@pytest.mark.parametrize("stages", [1, 3])
def test_the_defect_of_a_linear_equation_is_the_error(stages: int):
    elements = heat(stages=stages)
    v = kept(drawn(2, 1, 3 * stages, 8), elements)
    residual = elements(known(elements, 2), elements.leaves(v)[:, 0])
    assert torch.allclose(elements.defects(residual[..., None]), v, atol=ROUNDOFF)
    rows = elements.norm(residual[..., None])
    nodes, _, weights = radau(3)
    square = (torch.from_numpy(weights).repeat(stages)[:, None] * v[:, 0] ** 2).sum(1) / stages
    assert torch.allclose(rows.square().sum((1, 2)), square.mean(1), atol=ROUNDOFF)
    assert nodes[-1] == 1.0


def test_the_layer_finds_the_decay_of_cells():
    """In the span of a truth that solves the equation: coefficients to the error of the elements."""
    elements = flow(times=5)
    a, b = grid(elements)
    cells = torch.cos(2 * math.pi * a) * torch.cos(2 * math.pi * b)
    decay = torch.exp(-8 * math.pi**2 * NU * elements.instants)[:, None, None]
    others = kept(drawn(3, 5, 8, 8), elements) * elements.instants[:, None, None]
    basis = elements.basis_leaves(torch.cat([((decay - 1) * cells)[None], others])[None])
    offset = elements.leaves(cells.expand(1, 5, 8, 8), cells[None])
    layer = HardConstraint(elements, elements.norm)
    found = layer(basis, offset, known(elements))
    exact = torch.tensor([[1.0, 0, 0, 0]], dtype=torch.float64)
    assert bool(found.record.converged.all()) and float(found.misfit) < 1e-6
    assert torch.allclose(found.coefficients, exact, atol=1e-5)


def test_corrections_hold_the_error_of_a_state():
    """Nonlinear, from a still state: each further correction takes away more of the misfit."""
    elements = heat(reaction=1.0, stages=2)
    start = 1.0 + 0.5 * torch.cos(math.pi * 2 * grid(elements)[0])
    still = start.expand(1, 6, 8)
    offset = elements.leaves(still, start[None])
    misfits = []
    for number in (1, 2, 4):
        basis = elements.basis_leaves(elements.corrections(known(elements), offset, number))
        layer = HardConstraint(elements, elements.norm)
        misfits.append(float(layer(basis, offset, known(elements)).misfit))
    assert misfits[0] > 3 * misfits[1] > 9 * misfits[2]


def test_gradients_through_leaves_and_layer():
    elements = heat(reaction=1.0, nodes=4, times=2)
    start = 1.0 + 0.5 * torch.cos(math.pi * 2 * grid(elements)[0])
    offset = elements.leaves(start.expand(1, 2, 4), start[None])
    functions = (kept(drawn(1, 2, 2, 4), elements) * elements.instants[:, None]).requires_grad_()
    layer = HardConstraint(elements, elements.norm, rtol=1e-13)

    def coefficients(functions: torch.Tensor) -> torch.Tensor:
        return layer(elements.basis_leaves(functions), offset, known(elements)).coefficients

    assert torch.autograd.gradcheck(coefficients, functions, atol=1e-6, fast_mode=True)


def test_rate_and_fields_of_a_state():
    """Heat with a reaction against its formula; the streamfunction of one wave."""
    elements = heat(reaction=1.0)
    wave = torch.cos(2 * math.pi * grid(elements)[0])  # cos(pi x), twice around is one period
    rate = elements.rate(known(elements), wave[None])[0]
    assert torch.allclose(rate, -(math.pi**2) / 10 * wave - wave**2, atol=ROUNDOFF)
    elements = flow()
    wave = torch.sin(2 * math.pi * (grid(elements)[0] + grid(elements)[1]))
    psi, w = elements.fields(wave)
    assert torch.allclose(w, wave, atol=ROUNDOFF)
    assert torch.allclose(psi, wave / (8 * math.pi**2), atol=ROUNDOFF)


def test_other_families_are_refused():
    walls = pk.PDESystem(
        [u.diff(t) - u.diff(x, 2)],
        pk.Interval(t, 0, 1) * pk.Interval(x, 0, 1),
        [pk.Initial(u, u0), pk.Neumann(u, 0, on=pk.boundary(x))],
    )
    family = pk.PDEFamily(walls, {u0: pk.GaussianField(length=0.3)})
    with pytest.raises(ValueError, match="periodic along every axis"):
        PeriodicElements(family, 1.0)
    box = pk.Interval(t, 0, 1) * pk.Interval(x, 0, 1)
    starts = [pk.Initial(u, u0), pk.Initial(u.diff(t), 0)]
    twice = pk.PDESystem([u.diff(t, 2) - u.diff(x, 2)], box, [*starts, pk.Periodic(u, x)])
    with pytest.raises(ValueError, match="one field of first order in time"):
        PeriodicElements(
            pk.PDEFamily(twice, {u0: pk.GaussianField(length=0.3, periodic=True)}), 1.0
        )
