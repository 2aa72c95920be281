"""Labels given out anew: composition of maps, the way back, and the speed of reading.

Exact flow: dX/dt = sin(X) has tan(X / 2) = e^t tan(x0 / 2), so that s = X - x0 is a closed form,
put in the place of the trained displacement.
"""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import sympy as sp
import torch

import pinnkit as pk
from pinnkit.ir.labels import to_labels
from pinnkit.lower.fields import ExpressionJets, HardForm, make_field_model
from pinnkit.lower.network_approximation import NetworkApproximation
from pinnkit.lower.relabelled import Origin, RelabelledApproximation, make_part
from pinnkit.lower.scales import FieldScale
from pinnkit.nn import MLP

ROUNDOFF = 1e-9

t, x = pk.coords("t x")
u = pk.field("u", t, x)
END = 1.5
LENGTH = 2 * math.pi
NF = pk.PDESystem(
    [u.diff(t) + sp.sin(x) * u.diff(x)],
    pk.Interval(t, 0, END) * pk.Interval(x, 0, 2 * sp.pi),
    [pk.Initial(u, sp.exp(sp.sin(x))), pk.Periodic(u, x)],
).normal_form


def displacement(since):
    """X - x0 for labels given out at `since`."""
    grown = sp.exp(t - sp.Float(since, 17))
    return 2 * sp.atan(
        (grown - 1) * sp.sin(x) / 2 / (sp.cos(x / 2) ** 2 + grown * sp.sin(x / 2) ** 2)
    )


def fields(form, exact=True):
    """The exact displacement as a network that is multiplied by zero; or a random one."""
    generator = torch.Generator().manual_seed(0)
    since = form.span[0]
    hard = HardForm(
        ExpressionJets([displacement(since)], form.nf.coords),
        ExpressionJets([sp.S.Zero if exact else t - sp.Float(since, 17)], form.nf.coords),
    )
    model = make_field_model(
        form.nf,
        lambda i, o: MLP(i, o, width=20, depth=3, generator=generator),
        scales={f: FieldScale(0.05) for f in form.nf.fields},
        hard=hard,
    )
    return NetworkApproximation(model)


def relabelled(count, exact=True):
    parts = []
    for k in range(count):
        form = to_labels(NF, (END * k / count, END))
        before = RelabelledApproximation(parts) if parts else None
        origin = Origin.fit(parts[-1], form.span[0]) if form.origin else None
        parts.append(make_part(form, fields(form, exact), before, origin=origin))
    return RelabelledApproximation(parts)


def some_points(n):
    generator = torch.Generator().manual_seed(1)
    points = torch.rand(n, 2, generator=generator, dtype=torch.float64)
    return points * torch.tensor([END, LENGTH], dtype=torch.float64)


def traced_back(points, steps=600):
    """Dense characteristics: the labels by Runge-Kutta's fourth-order method, backwards in time."""
    times, place = points[:, 0].numpy(), points[:, 1].numpy().copy()
    h = -times / steps
    for _ in range(steps):
        k1 = np.sin(place)
        k2 = np.sin(place + h / 2 * k1)
        k3 = np.sin(place + h / 2 * k2)
        k4 = np.sin(place + h * k3)
        place += h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return place


def test_relabelling_changes_nothing():
    """Values and derivatives of one part and of five, for the same exact flow."""
    wanted = [(0, a) for a in ((0, 0), (0, 1), (1, 0), (0, 2))]
    points = some_points(400)
    for one, five in zip(
        relabelled(1).derivatives(points, wanted),
        relabelled(5).derivatives(points, wanted),
        strict=True,
    ):
        assert torch.allclose(one, five, rtol=1e-7, atol=1e-8)


def test_reading_agrees_with_dense_characteristics():
    """The bar of the method: 1e-8."""
    points = some_points(2000)
    (value,) = relabelled(4).derivatives(points, [(0, (0, 0))])
    assert np.abs(value.numpy() - np.exp(np.sin(traced_back(points)))).max() < 1e-8


def test_the_way_back_is_composed():
    part = relabelled(4).parts[-1]
    assert isinstance(part.known, Origin)
    at = some_points(200)
    at[:, 0] = part.form.span[0]
    (way,) = part.known.derivatives(at, [(0, (0, 0))])
    assert np.abs((at[:, 1] + way).numpy() - traced_back(at)).max() < ROUNDOFF


def test_gradients_pass_through_all_parts():
    approximation = relabelled(3)
    points = some_points(60).requires_grad_()
    value, ux, ut = approximation.derivatives(points, [(0, (0, 0)), (0, (0, 1)), (0, (1, 0))])
    (gradient,) = torch.autograd.grad(value.sum(), points)
    assert torch.allclose(gradient, torch.stack([ut, ux], 1), rtol=1e-7, atol=1e-8)


def test_stored_and_read_it_is_the_same_function():
    approximation = relabelled(3, exact=False)
    back = RelabelledApproximation.from_state(*approximation.to_state(), NF)
    points = some_points(50)
    for before, after in zip(
        approximation.derivatives(points, [(0, (0, 1))]),
        back.derivatives(points, [(0, (0, 1))]),
        strict=True,
    ):
        assert torch.equal(before, after)


@pytest.mark.slow
def test_a_hundred_thousand_points_are_read_in_two_seconds():
    """Seconds of one processor; the maps are random networks of the default size."""
    approximation, points = relabelled(12, exact=False), some_points(100_000)
    approximation.derivatives(points[:10], [(0, (0, 0))])
    started = time.process_time()
    (value,) = approximation.derivatives(points, [(0, (0, 0))])
    assert time.process_time() - started < 2.0
    assert bool(torch.isfinite(value).all())
