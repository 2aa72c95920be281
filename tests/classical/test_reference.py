"""Reference solutions: true errors against exact solutions, and honest estimates of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sympy as sp
import torch

import pinnkit as pk
from pinnkit.classical import GridApproximation, solve_reference, supports
from pinnkit.classical.choice import choose_ladder
from pinnkit.classical.etdrk4 import SpectralLadder
from pinnkit.classical.explicit import ExplicitLadder
from pinnkit.classical.ladders import DifferenceLadder
from pinnkit.errors import UnsupportedProblemError

t, x, y = pk.coords("t x y")
u = pk.field("u", t, x)
w = pk.field("w", x, y)
z = pk.field("z", x)
time_box = pk.Interval(t, 0, 1) * pk.Interval(x, 0, 1)


def heat():
    """u_t = u_xx / 10, u(0) = u(1) = 0."""
    exact = sp.exp(-(sp.pi**2) * t / 10) * sp.sin(sp.pi * x)
    system = pk.PDESystem(
        [u.diff(t) - u.diff(x, 2) / 10],
        domain=time_box,
        conditions=[pk.Initial(u, sp.sin(sp.pi * x)), pk.Dirichlet(u, 0, on=pk.boundary(x))],
    )
    return system, {u: exact}


def wave():
    """u_tt = 4 u_xx with two modes: oscillatory."""
    exact = (
        sp.sin(sp.pi * x) * sp.cos(2 * sp.pi * t)
        + sp.sin(4 * sp.pi * x) * sp.cos(8 * sp.pi * t) / 2
    )
    system = pk.PDESystem(
        [u.diff(t, 2) - 4 * u.diff(x, 2)],
        domain=time_box,
        conditions=[
            pk.Initial(u, exact.subs(t, 0)),
            pk.Initial(u.diff(t), 0),
            pk.Dirichlet(u, 0, on=pk.boundary(x)),
        ],
    )
    return system, {u: exact}


def beam():
    """u_tt = -u_xxxx, supported: two conditions per end."""
    exact = sp.sin(sp.pi * x) * sp.cos(sp.pi**2 * t)
    system = pk.PDESystem(
        [u.diff(t, 2) + u.diff(x, 4)],
        domain=time_box,
        conditions=[
            pk.Initial(u, exact.subs(t, 0)),
            pk.Initial(u.diff(t), 0),
            pk.Dirichlet(u, 0, on=pk.boundary(x)),
            pk.Robin(u.diff(x, 2), on=pk.boundary(x)),
        ],
    )
    return system, {u: exact}


def radiation():
    """u_t = u_xx + f with the nonlinear condition u_x + u^4 = g on the right."""
    exact = sp.exp(-t) * (1 + x**2)
    source = exact.diff(t) - exact.diff(x, 2)
    data = (exact.diff(x) + exact**4).subs(x, 1)
    system = pk.PDESystem(
        [u.diff(t) - u.diff(x, 2) - source],
        domain=time_box,
        conditions=[
            pk.Initial(u, exact.subs(t, 0)),
            pk.Dirichlet(u, exact.subs(x, 0), on=pk.boundary(x, "left")),
            pk.Robin(pk.dn(u) + u**4 - data, on=pk.boundary(x, "right")),
        ],
    )
    return system, {u: exact}


def advection():
    """u_t + u_x = 0 with a condition at the inflow only."""
    exact = sp.sin(2 * sp.pi * (x - t))
    system = pk.PDESystem(
        [u.diff(t) + u.diff(x)],
        domain=time_box,
        conditions=[
            pk.Initial(u, exact.subs(t, 0)),
            pk.Dirichlet(u, exact.subs(x, 0), on=pk.boundary(x, "left")),
        ],
    )
    return system, {u: exact}


def logistic():
    """v' = 5 v (1 - v)."""
    v = pk.field("v", t)
    system = pk.PDESystem(
        [v.diff(t) - 5 * v * (1 - v)],
        domain=pk.Interval(t, 0, 1),
        conditions=[pk.Initial(v, sp.Rational(1, 10))],
    )
    return system, {v: 1 / (1 + 9 * sp.exp(-5 * t))}


def poisson_1d():
    """u'' + pi^2 sin(pi x) = 0."""
    system = pk.PDESystem(
        [z.diff(x, 2) + sp.pi**2 * sp.sin(sp.pi * x)],
        domain=pk.Interval(x, 0, 1),
        conditions=[pk.Dirichlet(z, 0, on=pk.boundary(x))],
    )
    return system, {z: sp.sin(sp.pi * x)}


def poisson_2d():
    """Laplace w - w^3 = f on the square: Newton."""
    exact = sp.sin(sp.pi * x) * sp.sin(sp.pi * y)
    system = pk.PDESystem(
        [pk.laplacian(w) - w**3 + 2 * sp.pi**2 * exact + exact**3],
        domain=pk.Interval(x, 0, 1) * pk.Interval(y, 0, 1),
        conditions=[pk.Dirichlet(w, 0, on=pk.boundary(x)), pk.Dirichlet(w, 0, on=pk.boundary(y))],
    )
    return system, {w: exact}


def pure_neumann():
    """Laplace w + f = 0, dn(w) = 0: a gauge fixes the constant."""
    exact = sp.cos(sp.pi * x) * sp.cos(sp.pi * y)
    system = pk.PDESystem(
        [pk.laplacian(w) + 2 * sp.pi**2 * exact],
        domain=pk.Interval(x, 0, 1) * pk.Interval(y, 0, 1),
        conditions=[
            pk.Neumann(w, 0, on=pk.boundary(x)),
            pk.Neumann(w, 0, on=pk.boundary(y)),
            pk.Gauge(w, mean=0),
        ],
    )
    return system, {w: exact}


def layered():
    """(k z')' = -exp(x)-ish source, k = 1 | 10 at x = 1/3: the flux is continuous, z' jumps."""
    third = sp.Rational(1, 3)
    k = sp.Piecewise((1, x < third), (10, True))
    # k z' = c - sin(3 x); z(0) = 0, z(1) = 0 fixes c.
    integral = sp.Piecewise(
        ((sp.cos(3 * x) - 1) / 3, x < third),
        ((sp.cos(1) - 1) / 3 + (sp.cos(3 * x) - sp.cos(1)) / 30, True),
    )
    length = sp.Piecewise((x, x < third), (third + (x - third) / 10, True))
    c = -((sp.cos(1) - 1) / 3 + (sp.cos(3) - sp.cos(1)) / 30) / (third + sp.Rational(2, 30))
    system = pk.PDESystem(
        [pk.div(k * pk.grad(z)) + 3 * sp.cos(3 * x)],
        domain=pk.Interval(x, 0, 1),
        conditions=[pk.Dirichlet(z, 0, on=pk.boundary(x))],
    )
    return system, {z: c * length + integral}


CASES = [
    heat, wave, beam, radiation, advection, logistic, poisson_1d, poisson_2d, pure_neumann, layered
]  # fmt: skip


def true_error(nf, approximation: GridApproximation, exact) -> float:
    """Relative L2 at midpoints (no end points: the ends of time are no part of a volume)."""
    meshes = []
    for coord in nf.coords:
        lower, upper = nf.bounds[coord]
        meshes.append(lower + (upper - lower) * (np.arange(50) + 0.5) / 50)
    grids = np.meshgrid(*meshes, indexing="ij")
    worst = 0.0
    for i, field in enumerate(nf.fields):
        truth = sp.lambdify(nf.coords, exact[field], "numpy")(*grids)
        gap = approximation.fields[i].on_grid(meshes) - truth
        worst = max(worst, float(np.linalg.norm(gap) / np.linalg.norm(truth)))
    return worst


@pytest.mark.parametrize("variant", ["primary", "alternate"])
@pytest.mark.parametrize("case", CASES)
def test_the_estimate_is_the_error(case, variant: str):
    """Both discretisations: true error small, estimate / true within [0.3, 30] above rounding."""
    system, exact = case()
    nf = system.normal_form
    reference = solve_reference(nf, tol=1e-6, time_limit=60, variant=variant)
    assert reference.finished, reference.reason
    assert reference.approximation is not None
    error = true_error(nf, reference.approximation, exact)
    assert error <= 3e-6
    assert reference.error <= 1e-6
    if error > 1e-11:  # below, rounding errors and not discretisation errors are compared
        assert 0.3 <= reference.error / error <= 30


def test_burgers_shock_layer_is_found_by_the_elements():
    """nu = 0.01 / pi against the Cole-Hopf integral."""
    nu = 0.01 / np.pi
    system = pk.PDESystem(
        [u.diff(t) + u * u.diff(x) - nu * u.diff(x, 2)],
        domain=pk.Interval(t, 0, 1) * pk.Interval(x, -1, 1),
        conditions=[pk.Initial(u, -sp.sin(sp.pi * x)), pk.Dirichlet(u, 0, on=pk.boundary(x))],
    )
    reference = solve_reference(system.normal_form, tol=1e-6, time_limit=60)
    assert reference.approximation is not None
    points = np.linspace(-0.98, 0.98, 99)
    moment = 0.7
    reach = 14 * np.sqrt(2 * nu * moment) + 4 * moment
    eta = np.linspace(-reach, reach, 6001)
    exponent = -np.cos(np.pi * (points[:, None] - eta)) / (2 * np.pi * nu)
    exponent = exponent - eta**2 / (4 * nu * moment)
    weight = np.exp(exponent - exponent.max(axis=1, keepdims=True))
    truth = -(np.sin(np.pi * (points[:, None] - eta)) * weight).sum(axis=1) / weight.sum(axis=1)
    found = reference.approximation.fields[0].on_grid([np.array([moment]), points])[0]
    assert np.linalg.norm(found - truth) / np.linalg.norm(truth) <= 3e-6


def test_a_periodic_kink_is_resolved():
    """Allen-Cahn with u0 = x^2 cos(pi x): its slope jumps at x = +-1; the two methods agree."""
    system = pk.PDESystem(
        [u.diff(t) - sp.Rational(1, 1000) * u.diff(x, 2) + 5 * u**3 - 5 * u],
        domain=pk.Interval(t, 0, sp.Rational(1, 5)) * pk.Interval(x, -1, 1),
        conditions=[pk.Initial(u, x**2 * sp.cos(sp.pi * x)), pk.Periodic(u, x)],
    )
    nf = system.normal_form
    first = solve_reference(nf, tol=1e-5, time_limit=30)
    second = solve_reference(nf, tol=1e-4, time_limit=30, variant="alternate")
    assert first.approximation is not None
    assert second.approximation is not None
    meshes = [np.linspace(0.02, 0.2, 40), np.linspace(-1, 1, 101)]
    a = first.approximation.fields[0].on_grid(meshes)
    b = second.approximation.fields[0].on_grid(meshes)
    assert np.linalg.norm(a - b) / np.linalg.norm(a) <= 2 * (first.error + second.error)


def test_a_field_that_starts_from_zero_is_solved():
    """No size is known at the start; the boundary brings it in. Units must not matter."""
    errors = []
    for size in (1e-6, 1.0, 1e6):
        system = pk.PDESystem(
            [u.diff(t) - u.diff(x, 2)],
            domain=time_box,
            conditions=[
                pk.Initial(u, 0),
                pk.Dirichlet(u, 0, on=pk.boundary(x, "left")),
                pk.Dirichlet(u, size * (1 - sp.exp(-10 * t)), on=pk.boundary(x, "right")),
            ],
        )
        reference = solve_reference(system.normal_form, tol=1e-5, time_limit=30)
        assert reference.finished
        errors.append(reference.error)
    assert max(errors) <= 2 * min(errors)


def test_methods_follow_the_problem():
    """Rule 6: explicit order 8 for ODEs, Fourier ETDRK4 beside elements, differences where stable."""
    first: Any = choose_ladder(logistic()[0].normal_form, "primary")
    assert isinstance(first.ladders[0], ExplicitLadder)
    assert isinstance(choose_ladder(heat()[0].normal_form, "alternate"), DifferenceLadder)
    kdv = pk.PDESystem(
        [u.diff(t) + u * u.diff(x) + sp.Rational(1, 2000) * u.diff(x, 3)],
        domain=time_box,
        conditions=[pk.Initial(u, sp.cos(2 * sp.pi * x)), pk.Periodic(u, x)],
    )
    assert isinstance(choose_ladder(kdv.normal_form, "alternate"), SpectralLadder)


def test_too_little_time_is_said_and_not_hidden():
    reference = solve_reference(wave()[0].normal_form, tol=1e-9, time_limit=1e-3)
    assert not reference.finished
    assert reference.error == np.inf
    assert reference.approximation is None
    assert "time" in reference.reason


def test_three_space_dimensions_are_refused_by_name():
    a, b, c = pk.coords("a b c")
    v = pk.field("v", a, b, c)
    system = pk.PDESystem(
        [pk.laplacian(v) + 1],
        domain=pk.Box((a, b, c), (0, 0, 0), (1, 1, 1)),
        conditions=[pk.Dirichlet(v, 0, on=pk.boundary(k)) for k in (a, b, c)],
    )
    reason = supports(system.normal_form)
    assert reason is not None
    assert "at most two space coordinates" in reason
    with pytest.raises(UnsupportedProblemError, match="at most two space coordinates"):
        solve_reference(system.normal_form)


def test_derivatives_are_right_differentiable_and_survive_a_file():
    system, exact = heat()
    nf = system.normal_form
    reference = solve_reference(nf, tol=1e-8, time_limit=30)
    assert reference.approximation is not None
    spec, tensors = reference.approximation.to_state()
    grids = GridApproximation.from_state(spec, tensors, nf)
    points = torch.rand(40, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    points = (0.05 + 0.9 * points).requires_grad_()
    wanted = [(0, (0, 0)), (0, (1, 0)), (0, (0, 1)), (0, (0, 2))]
    found = grids.derivatives(points, wanted)
    for (_, alpha), value in zip(wanted, found, strict=True):
        expr = exact[u]
        for coord, count in zip((t, x), alpha, strict=True):
            expr = sp.diff(expr, coord, count) if count else expr
        truth = sp.lambdify((t, x), expr, "numpy")(*points.detach().numpy().T)
        assert np.abs(value.detach().numpy() - truth).max() <= 1e-5
    (slope,) = torch.autograd.grad(found[0].sum(), points, create_graph=True)
    assert torch.allclose(slope[:, 0], found[1])
    assert torch.allclose(slope[:, 1], found[2])
    (second,) = torch.autograd.grad(slope[:, 1].sum(), points)
    assert torch.allclose(second[:, 1], found[3])
