"""Residuals of exact solutions vanish, do not depend on units, and their rows are their gradients."""

import math
from typing import Any

import numpy as np
import pytest
import sympy as sp
import torch

from pinnkit.declare.boundaries import boundary
from pinnkit.declare.conditions import Dirichlet, Initial, Integral, Observations, Periodic
from pinnkit.declare.domains import Interval
from pinnkit.declare.operators import div
from pinnkit.declare.problem import PDESystem
from pinnkit.declare.symbols import coords, field, parameter
from pinnkit.errors import UnsupportedProblemError
from pinnkit.lower import (
    ExpressionJets,
    FieldModel,
    HardForm,
    IntegralTerm,
    JetSpec,
    ResidualGroup,
    compile_residuals,
    estimate_field_scales,
    face_points,
    group_terms,
    interior_points,
    make_field_model,
)
from pinnkit.nn import MLP

EXACT = 1e-12
ROUNDOFF = 1e-10

t, x = coords("t x")
u = field("u", t, x)


def burgers(length=1.0, time=1.0, size=1.0):
    """u_t + u u_x = 0.01/pi u_xx in other units: the same problem."""
    nu = 0.01 / math.pi * length**2 / time
    advection = length / time / size
    return PDESystem(
        [u.diff(t) + advection * u * u.diff(x) - nu * u.diff(x, 2)],
        domain=Interval(t, 0, time) * Interval(x, -length, length),
        conditions=[
            Initial(u, -size * sp.sin(sp.pi * x / length)),
            Dirichlet(u, 0, on=boundary(x)),
        ],
    ).normal_form


def model_of(nf, seed=0, **kw):
    gen = torch.Generator().manual_seed(seed)

    def network(i, o):
        return MLP(i, o, 8, 2, generator=gen)

    return make_field_model(nf, network, **kw)


def all_points(nf, group, n=20, seed=1):
    gen = torch.Generator().manual_seed(seed)
    if group.face is None:
        return interior_points(nf, n, gen)
    return face_points(nf, group.face, n, gen)


class Known(torch.nn.Module):
    """A solution in sympy's hands, offered like a model."""

    def __init__(self, nf, solution):
        super().__init__()
        self.jets = ExpressionJets([solution[f] for f in nf.fields], nf.coords)

    def derivatives(self, points, wanted, tape=None):
        spec = JetSpec.closure([a for _, a in wanted], points.shape[1])
        jet = self.jets.jets(points, spec)
        return [jet[spec.position[a], :, f] * spec.factorials[spec.position[a]] for f, a in wanted]


def test_exact_solution_gives_zero_residuals():
    """u_t = u_xx + (pi^2 - 1) u..., u = exp(-t) sin(pi x): equation, initial and boundary terms."""
    solution = sp.exp(-t) * sp.sin(sp.pi * x)
    nf = PDESystem(
        [u.diff(t) - u.diff(x, 2) - (sp.pi**2 - 1) * u],
        domain=Interval(t, 0, 1) * Interval(x, 0, 1),
        conditions=[Initial(u, sp.sin(sp.pi * x)), Dirichlet(u, 0, on=boundary(x))],
    ).normal_form
    groups = group_terms(compile_residuals(nf))
    assert [g.kind for g in groups] == ["interior", "initial", "boundary", "boundary"]
    for group in groups:
        points = all_points(nf, group)
        known: Any = Known(nf, {u: solution})
        assert group.evaluate(known, points).abs().max() < ROUNDOFF


@pytest.mark.parametrize("units", [(1e6, 1e-6, 1e6), (1e-6, 1e6, 1e-6), (1e6, 1e6, 1e-6)])
def test_units_do_not_change_the_scaled_residual(units):
    """Rule 1 of the numerics: t, x, u in other units give the same numbers."""
    plain, other = burgers(), burgers(*units)
    for a, b in zip(
        group_terms(compile_residuals(plain)), group_terms(compile_residuals(other)), strict=True
    ):
        r, j = a.rows(model_of(plain), all_points(plain, a))
        s, k = b.rows(model_of(other), all_points(other, b))
        assert (r - s).abs().max() <= 1e-11 * r.abs().max()
        assert (j - k).abs().max() <= 1e-11 * j.abs().max()


def test_group_equals_its_terms_and_rows_equal_autograd():
    """One jet pass for two coupled equations; J against one autograd call per residual."""
    v = field("v", t, x)
    nf = PDESystem(
        [u.diff(t) - u.diff(x, 2) + u * v, v.diff(t) - 0.1 * v.diff(x, 2) - u.diff(x)],
        domain=Interval(t, 0, 1) * Interval(x, 0, 2),
        conditions=[
            Initial(u, sp.sin(sp.pi * x)),
            Initial(v, 1 + sp.cos(sp.pi * x)),
            Periodic(u, x),
            Periodic(v, x),
        ],
    ).normal_form
    terms = compile_residuals(nf)
    for shared in (True, False):
        model = model_of(nf, shared=shared, harmonics=2)
        params = list(model.parameters())
        for group in group_terms(terms):
            points = all_points(nf, group, n=5)
            r, j = group.rows(model, points)
            assert isinstance(group, ResidualGroup)
            for e, term in enumerate(group.terms):
                assert (term.evaluate(model, points) - r[:, e]).abs().max() < EXACT
                assert (term.rows(model, points)[1] - j[:, e]).abs().max() < 1e-10
            plain = group.evaluate(model, points)
            assert (plain - r).abs().max() < EXACT
            grads = torch.autograd.grad(plain[2, 0], params, allow_unused=True)
            want = torch.cat(
                [
                    (torch.zeros_like(p) if g is None else g).flatten()
                    for g, p in zip(grads, params, strict=True)
                ]
            )
            assert (j[2, 0] - want).abs().max() < EXACT * max(1.0, float(want.abs().max()))


def test_derivatives_are_physical_and_differentiable_in_the_points():
    """The chain rule of the scaling, and d(u_x)/dx = u_xx."""
    nf = burgers(length=3.0, time=0.5)
    model = model_of(nf)
    points = interior_points(nf, 6, torch.Generator().manual_seed(4)).requires_grad_()
    value, slope, second = model.derivatives(points, [(0, (0, 0)), (0, (0, 1)), (0, (0, 2))])
    first = torch.autograd.grad(value.sum(), points, create_graph=True)[0][:, 1]
    assert (first - slope).abs().max() < EXACT
    assert (torch.autograd.grad(slope.sum(), points)[0][:, 1] - second).abs().max() < EXACT


def test_periodic_axes_wrap_exactly():
    """All derivatives agree at both ends."""
    nf = PDESystem(
        [u.diff(t) + u.diff(x)],
        domain=Interval(t, 0, 1) * Interval(x, -1, 3),
        conditions=[Initial(u, sp.sin(sp.pi * x / 2)), Periodic(u, x)],
    ).normal_form
    ends = torch.tensor([[0.3, -1.0], [0.3, 3.0]], dtype=torch.float64)
    for column in model_of(nf, harmonics=3).derivatives(ends, [(0, (0, k)) for k in range(4)]):
        assert abs(column[0] - column[1]).item() < ROUNDOFF


def test_hard_form_holds_its_conditions_and_has_rows():
    """u = A + B N with A the initial data and B = t."""
    nf = burgers()
    hard = HardForm(ExpressionJets([-sp.sin(sp.pi * x)], nf.coords), ExpressionJets([t], nf.coords))
    model = model_of(nf, hard=hard)
    interior, initial, *_ = group_terms(compile_residuals(nf))
    assert initial.evaluate(model, all_points(nf, initial)).abs().max() < EXACT
    points = all_points(nf, interior, n=4)
    _, j = interior.rows(model, points)
    grads = torch.autograd.grad(interior.evaluate(model, points)[1, 0], list(model.parameters()))
    assert (j[1, 0] - torch.cat([g.flatten() for g in grads])).abs().max() < ROUNDOFF


def test_unknown_parameters_and_observations():
    """Rows with respect to a physical parameter are appended; data are subtracted."""
    y = field("y", t)
    k = parameter("k", initial=2.0, bounds=(0, 5))
    times = np.linspace(0, 1, 7)
    nf = PDESystem(
        [y.diff(t) + k * y],
        domain=Interval(t, 0, 1),
        conditions=[Initial(y, 1), Observations(y, {t: times}, np.exp(-times))],
    ).normal_form
    model = model_of(nf)
    value = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    equation, start, data = group_terms(compile_residuals(nf))
    points = all_points(nf, equation, n=4)
    r, j = equation.rows(model, points, parameters=[value])
    plain = equation.evaluate(model, points, parameters=[value])
    assert (plain - r).abs().max() < EXACT
    (gradient,) = torch.autograd.grad(plain[3, 0], value)
    assert abs(float(gradient - j[3, 0, -1])) < EXACT
    assert start.rows(model, all_points(nf, start), parameters=[value])[1].shape[0] == 1
    assert isinstance(data, ResidualGroup)
    (term,) = data.terms
    assert term.points is not None
    residual = term.evaluate(model, term.points, parameters=[value]) * term.scale
    want = model(term.points)[:, 0] - torch.from_numpy(np.exp(-times))
    assert (residual - want).abs().max() < EXACT


def test_integral_condition_and_its_rows():
    """The mean over x at every t, against a sum over points."""
    nf = PDESystem(
        [u.diff(t) - u.diff(x, 2)],
        domain=Interval(t, 0, 1) * Interval(x, 0, 2),
        conditions=[
            Initial(u, sp.cos(sp.pi * x)),
            Periodic(u, x),
            Integral(u**2, over=x, equals=1 + t),
        ],
    ).normal_form
    (term,) = [s for s in compile_residuals(nf) if isinstance(s, IntegralTerm)]
    model = model_of(nf)
    points = interior_points(nf, 3, torch.Generator().manual_seed(3))
    r, j = term.rows(model, points)
    fine = torch.linspace(0, 2, 4001, dtype=torch.float64)[:-1]
    for i in range(3):
        line = torch.stack([points[i, 0].expand(4000), fine], dim=1)
        mean = 2 * model(line)[:, 0].square().mean() - 1 - points[i, 0]
        assert abs(float(mean.detach() / term.scale - r[i, 0])) < ROUNDOFF
        grads = torch.autograd.grad(mean / term.scale, list(model.parameters()))
        assert (torch.cat([g.flatten() for g in grads]) - j[i, 0]).abs().max() < ROUNDOFF


def test_field_scales_come_from_data_then_from_sources():
    """Prescribed values; scale=; the balance of a Poisson equation with an oscillating source."""
    assert estimate_field_scales(burgers(size=1e4))[u].scale == pytest.approx(1e4, rel=1e-4)
    a, b = coords("x y")
    w = field("w", a, b)
    exact = sp.sin(sp.pi * a) * sp.sin(4 * sp.pi * b)

    def poisson(unknown):
        return PDESystem(
            [unknown.diff(a, 2) + unknown.diff(b, 2) + 17 * sp.pi**2 * exact],
            domain=Interval(a, -1, 1) * Interval(b, -1, 1),
            conditions=[Dirichlet(unknown, 0, on=boundary(c)) for c in (a, b)],
        ).normal_form

    assert 0.3 < estimate_field_scales(poisson(w))[w].scale < 3
    scaled = field("w", a, b, scale=7.0)
    assert estimate_field_scales(poisson(scaled))[scaled].scale == 7.0


def test_a_large_offset_is_taken_out():
    """A temperature of 300 +- 1: the condition is measured against 1, not 300."""
    nf = PDESystem(
        [u.diff(t) - u.diff(x, 2)],
        domain=Interval(t, 0, 1) * Interval(x, 0, 1),
        conditions=[Initial(u, 300 + sp.sin(2 * sp.pi * x)), Dirichlet(u, 300, on=boundary(x))],
    ).normal_form
    scale = estimate_field_scales(nf)[u]
    assert abs(scale.offset - 300) < 0.1 and 0.5 < scale.scale < 2
    terms = compile_residuals(nf)
    assert all(s.scale < 30 for s in terms)


def test_a_jumping_flux_is_refused_with_the_way_out():
    """A pointwise residual of div(k grad w) would lose the interface condition."""
    w = field("w", x)
    k = sp.Piecewise((1, x < 0.5), (10, True))
    nf = PDESystem(
        [div(k * w.diff(x)) + 1],
        domain=Interval(x, 0, 1),
        conditions=[Dirichlet(w, 0, on=boundary(x))],
    ).normal_form
    with pytest.raises(UnsupportedProblemError, match=r"jump.*MethodOfLines"):
        compile_residuals(nf)


def test_model_keeps_float32():
    """Buffers, networks and residuals in the asked dtype."""
    nf = burgers()
    gen = torch.Generator().manual_seed(0)
    model = make_field_model(
        nf, lambda i, o: MLP(i, o, 5, 1, generator=gen, dtype=torch.float32), dtype=torch.float32
    )
    assert isinstance(model, FieldModel)
    group = group_terms(compile_residuals(nf))[0]
    points = interior_points(nf, 5, gen, dtype=torch.float32)
    r, j = group.rows(model, points)
    assert r.dtype == j.dtype == torch.float32
