"""The inverse of the map from labels, and derivatives at positions.

Inviscid Burgers from sin(x), t < 1: X = x0 + t sin(x0), u = sin(x0), u_x = cos(x0) / (1 + t cos(x0)).
"""

from __future__ import annotations

import math

import pytest
import sympy as sp
import torch

import pinnkit as pk
from pinnkit.ir.labels import to_labels
from pinnkit.lower.fields import make_field_model
from pinnkit.lower.lagrangian import LagrangianApproximation
from pinnkit.lower.network_approximation import NetworkApproximation
from pinnkit.lower.scales import FieldScale
from pinnkit.nn import MLP

ROUNDOFF = 1e-11

t, x, y = pk.coords("t x y")
u, w = pk.field("u", t, x), pk.field("w", t, x, y)
LENGTH = 2 * math.pi


def ring(equation, end=0.9):
    return pk.PDESystem(
        [equation],
        pk.Interval(t, 0, end) * pk.Interval(x, 0, 2 * sp.pi),
        [pk.Initial(u, sp.sin(x)), pk.Periodic(u, x)],
    ).normal_form


def burgers(end=0.9):
    return LagrangianApproximation(to_labels(ring(u.diff(t) + pk.div(u**2 / 2), end)), None)


def with_network(nf, size):
    """A map given by a random network, its displacement about `size`."""
    form = to_labels(nf)
    generator = torch.Generator().manual_seed(0)
    model = make_field_model(
        form.nf,
        lambda i, o: MLP(i, o, width=8, depth=2, generator=generator),
        scales={f: FieldScale(size if f in form.speeds else 1.0) for f in form.nf.fields},
    )
    return LagrangianApproximation(form, NetworkApproximation(model))


def some_points(d=2, n=500, end=0.9):
    generator = torch.Generator().manual_seed(1)
    points = torch.rand(n, d, generator=generator, dtype=torch.float64) * LENGTH
    points[:, 0] *= end / LENGTH
    return points


def test_there_and_back_again():
    """x -> label -> x, up to whole periods."""
    for approximation in (
        burgers(),
        with_network(ring(u.diff(t) + u * u.diff(x) - u.diff(x, 2)), 0.4),
    ):
        points = some_points()
        at = points.clone()
        at[:, 1:] = approximation.labels(points)
        assert bool((at[:, 1] >= 0).all() and (at[:, 1] <= LENGTH).all())
        gap = torch.remainder(approximation.positions(at) - points[:, 1:] + 1, LENGTH) - 1
        assert float(gap.detach().abs().max()) < ROUNDOFF


def test_labels_wrap_with_positions():
    approximation, points = burgers(), some_points()
    moved = points.clone()
    moved[:, 1] += LENGTH
    gap = approximation.labels(moved) - approximation.labels(points)
    assert float((torch.remainder(gap + 1, LENGTH) - 1).abs().max()) < ROUNDOFF


def test_derivatives_are_the_closed_ones():
    approximation, points = burgers(), some_points()
    value, slope, rate = approximation.derivatives(points, [(0, (0, 0)), (0, (0, 1)), (0, (1, 0))])
    label = approximation.labels(points)[:, 0]
    j = 1 + points[:, 0] * torch.cos(label)
    assert torch.allclose(value, torch.sin(label), rtol=0, atol=ROUNDOFF)
    assert torch.allclose(slope, torch.cos(label) / j, rtol=1e-9)
    assert torch.allclose(rate, -value * slope, rtol=1e-9, atol=ROUNDOFF)


def test_gradients_of_values_are_the_derivatives_twice():
    """Reference: autograd through the implicit function against the chain rule in labels."""
    for approximation in (
        burgers(),
        with_network(ring(u.diff(t) + u * u.diff(x) - u.diff(x, 2)), 0.4),
    ):
        points = some_points(n=50).requires_grad_()
        wanted = [(0, a) for a in ((0, 0), (0, 1), (1, 0), (0, 2), (1, 1))]
        value, ux, ut, uxx, uxt = approximation.derivatives(points, wanted)
        (first,) = torch.autograd.grad(value.sum(), points, create_graph=True)
        assert torch.allclose(first[:, 1], ux, rtol=1e-8, atol=1e-10)
        assert torch.allclose(first[:, 0], ut, rtol=1e-8, atol=1e-10)
        (second,) = torch.autograd.grad(first[:, 1].sum(), points)
        assert torch.allclose(second[:, 1], uxx, rtol=1e-7, atol=1e-9)
        assert torch.allclose(second[:, 0], uxt, rtol=1e-7, atol=1e-9)


def test_a_map_of_the_plane_is_inverted():
    nf = pk.PDESystem(
        [w.diff(t) + sp.sin(y) * w.diff(x) + sp.sin(x) * w.diff(y)],
        pk.Interval(t, 0, 1) * pk.Box((x, y), (0, 0), (2 * sp.pi, 2 * sp.pi)),
        [pk.Initial(w, sp.sin(x) * sp.cos(y)), pk.Periodic(w, x), pk.Periodic(w, y)],
    ).normal_form
    approximation = with_network(nf, 0.3)
    points = some_points(3, 200, 1.0)
    at = points.clone()
    at[:, 1:] = approximation.labels(points)
    gap = torch.remainder(approximation.positions(at) - points[:, 1:] + 1, LENGTH) - 1
    assert float(gap.detach().abs().max()) < ROUNDOFF
    points = some_points(3, 20, 1.0).requires_grad_()
    value, wx, wy = approximation.derivatives(
        points, [(0, (0, 0, 0)), (0, (0, 1, 0)), (0, (0, 0, 1))]
    )
    (gradient,) = torch.autograd.grad(value.sum(), points)
    assert torch.allclose(gradient[:, 1:], torch.stack([wx, wy], 1), rtol=1e-8, atol=1e-10)


def test_characteristics_cross_where_they_should():
    """sin(x): at t = 1 in x = pi, and never before."""
    assert burgers().crossing(0.0, 0.99) is None
    found = burgers().crossing(0.0, 1.5)
    assert found is not None
    assert found.time == pytest.approx(1.0, rel=1e-3)
    assert found.place[0] == pytest.approx(math.pi, rel=1e-3)
    assert burgers().least_jacobian(0.0, 0.5) == pytest.approx(0.5, rel=1e-3)


def test_no_values_after_crossing():
    form = to_labels(ring(u.diff(t) + pk.div(u**2 / 2), 1.5))
    approximation = LagrangianApproximation(form, None, until=1.0)
    points = torch.tensor([[0.9, 1.0], [1.1, 1.0]], dtype=torch.float64)
    (value,) = approximation.derivatives(points, [(0, (0, 0))])
    assert torch.isfinite(value).tolist() == [True, False]


def test_stored_and_read_it_is_the_same_function():
    nf = ring(u.diff(t) + u * u.diff(x) - u.diff(x, 2))
    for approximation, source in (
        (burgers(), ring(u.diff(t) + pk.div(u**2 / 2))),
        (with_network(nf, 0.4), nf),
    ):
        spec, tensors = approximation.to_state()
        back = LagrangianApproximation.from_state(spec, tensors, source)
        points = some_points(n=20)
        (before,) = approximation.derivatives(points, [(0, (0, 1))])
        (after,) = back.derivatives(points, [(0, (0, 1))])
        assert torch.equal(before, after)
