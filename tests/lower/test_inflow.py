"""Values that particles bring in through sides, and their derivatives.

Speed 1 on [0, 1]: u = f(x - t), f(-t) coming in. Velocity (1, 1/2) on the unit square: f(x - t,
y - t / 2) through the left and the lower side. Both maps have closed forms.
"""

from __future__ import annotations

import pytest
import sympy as sp
import torch

import pinnkit as pk
from pinnkit.ir.labels import to_labels
from pinnkit.lower.expressions import compile_expressions
from pinnkit.lower.inflow import Carried
from pinnkit.lower.relabelled import RelabelledApproximation, make_part

ROUNDOFF = 1e-8

t, x, y = pk.coords("t x y")
u, w = pk.field("u", t, x), pk.field("w", t, x, y)
LINE_EXACT = sp.sin(3 * (x - t)) + sp.exp(t - x)
SQUARE_EXACT = sp.sin(3 * (x - t)) * sp.exp(y - t / 2)


def line():
    return pk.PDESystem(
        [u.diff(t) + u.diff(x)],
        pk.Interval(t, 0, 2) * pk.Interval(x, 0, 1),
        [
            pk.Initial(u, LINE_EXACT.subs(t, 0)),
            pk.Dirichlet(u, LINE_EXACT.subs(x, 0), on=pk.boundary(x, "left")),
        ],
    ).normal_form


def square():
    return pk.PDESystem(
        [w.diff(t) + w.diff(x) + w.diff(y) / 2],
        pk.Interval(t, 0, 1) * pk.Box((x, y), (0, 0), (1, 1)),
        [
            pk.Initial(w, SQUARE_EXACT.subs(t, 0)),
            pk.Dirichlet(w, SQUARE_EXACT.subs(x, 0), on=pk.boundary(x, "left")),
            pk.Dirichlet(w, SQUARE_EXACT.subs(y, 0), on=pk.boundary(y, "left")),
        ],
    ).normal_form


def in_two_parts(nf):
    """Labels given out anew at half time."""
    low, high = nf.bounds[t]
    middle = 0.5 * (low + high)
    first = make_part(to_labels(nf, (low, middle)), None, None)
    whole = RelabelledApproximation([first])
    return RelabelledApproximation([first, make_part(to_labels(nf, (middle, high)), None, whole)])


def some_points(nf, n=300):
    generator = torch.Generator().manual_seed(0)
    shares = torch.rand(n, len(nf.coords), generator=generator, dtype=torch.float64)
    low = torch.tensor([nf.bounds[c][0] for c in nf.coords], dtype=torch.float64)
    high = torch.tensor([nf.bounds[c][1] for c in nf.coords], dtype=torch.float64)
    return low + (high - low) * shares


@pytest.mark.parametrize(("make", "exact"), [(line, LINE_EXACT), (square, SQUARE_EXACT)])
def test_values_and_derivatives_are_exact(make, exact):
    nf = make()
    space = [(0, *(1 if i == j else 0 for i in range(len(nf.space)))) for j in range(len(nf.space))]
    alphas = [(0,) * len(nf.coords), (1, *(0,) * len(nf.space)), *space]
    alphas += [tuple(2 * k for k in a) for a in space]
    points = some_points(nf)
    derivatives = [
        sp.diff(exact, *(p for p in zip(nf.coords, a, strict=True) if p[1])) if any(a) else exact
        for a in alphas
    ]
    truth = compile_expressions(derivatives, nf.coords)(points.unbind(1))
    for approximation in (make_part(to_labels(nf), None, None), in_two_parts(nf)):
        values = approximation.derivatives(points, [(0, a) for a in alphas])
        for value, wanted in zip(values, truth, strict=True):
            assert torch.allclose(value.detach(), wanted, rtol=ROUNDOFF, atol=ROUNDOFF)


def test_gradients_of_values_are_the_derivatives():
    """Reference: autograd through the instant of entry against the derivative along the side."""
    approximation = in_two_parts(line())
    points = some_points(line(), 80).requires_grad_()
    value, slope, second = approximation.derivatives(
        points, [(0, (0, 0)), (0, (0, 1)), (0, (0, 2))]
    )
    (first,) = torch.autograd.grad(value.sum(), points, create_graph=True)
    assert torch.allclose(first[:, 1], slope, rtol=1e-6, atol=1e-7)
    (again,) = torch.autograd.grad(first[:, 1].sum(), points)
    assert torch.allclose(again[:, 1], second, rtol=1e-5, atol=1e-6)


def test_instants_and_sides_of_entry():
    form = to_labels(square())
    carried = Carried(form, None, None)
    # Labels at t = 0.8: inside all the time; in through the left at 0.3; from below at 0.4.
    points = torch.tensor(
        [[0.8, 0.1, 0.2], [0.8, -0.3, 0.3], [0.8, 0.15, -0.2]], dtype=torch.float64
    )
    times, sides = carried.entries(points)
    assert times.tolist() == pytest.approx([0.0, 0.3, 0.4], abs=1e-8)
    names = [None if k < 0 else form.entries[k].face for k in sides.tolist()]
    assert names[0] is None
    assert [(f.coord, f.side) for f in names[1:] if f is not None] == [(x, "left"), (y, "left")]


def test_there_is_no_value_outside():
    """Downstream of the domain a particle carries what it had; upstream nobody knows."""
    approximation = make_part(to_labels(line()), None, None)
    points = torch.tensor([[0.5, -0.04], [0.5, 0.5]], dtype=torch.float64)
    (value,) = approximation.derivatives(points, [(0, (0, 0))])
    assert torch.isfinite(value).tolist() == [False, True]
