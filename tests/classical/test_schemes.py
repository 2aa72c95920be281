"""Stencils, elements and integrators converge at their orders."""

from __future__ import annotations

import time

import numpy as np
import pytest
import sympy as sp

import pinnkit as pk
from pinnkit.classical.axes import DifferenceAxis, ElementAxis
from pinnkit.classical.basis import stencil_basis
from pinnkit.classical.discretise import System
from pinnkit.classical.implicit import integrate
from pinnkit.classical.steady import newton
from pinnkit.classical.tableaux import lobatto_tableau, radau_tableau

ROUNDING = 1e-9
t, x = pk.coords("t x")


def slope(sizes: list[float], errors: list[float]) -> float:
    return float(np.polyfit(np.log(sizes), np.log(errors), 1)[0])


@pytest.mark.parametrize("order", [0, 1, 2, 3, 4])
def test_element_derivatives_are_exact_for_polynomials_of_their_degree(order: int):
    axis = ElementAxis(np.array([-1.0, 0.2, 0.5, 2.0]), k=5)
    polynomial = np.polynomial.Polynomial([1.0, -2.0, 0.5, 3.0, -1.0, 0.25, 0.1])
    values = polynomial(axis.nodes(2))
    expected = (polynomial.deriv(order) if order else polynomial)(axis.points)
    found = axis.at_points(2, order) @ values
    assert np.abs(found - expected).max() <= ROUNDING * np.abs(expected).max()


def test_unknowns_minus_collocation_points_are_the_conditions():
    """k Gauss points per element, m - 1 seams per inner breakpoint, m conditions at the ends."""
    axis = ElementAxis(np.linspace(0, 1, 6), k=4)
    for m in range(5):
        seams = 4 * max(m - 1, 0)
        assert axis.size(m) == len(axis.points) + seams + m
    ring = ElementAxis(np.linspace(0, 1, 6), k=4, periodic=True)
    for m in range(1, 5):
        assert ring.size(m) == len(ring.points) + 5 * (m - 1)


def test_difference_stencils_converge_at_order_eight():
    """Nine nodes, first derivative at a node: centred order 8."""
    counts, errors = [16, 24, 32, 48], []
    for count in counts:
        axis = DifferenceAxis(0.0, 2 * np.pi, count, 9, periodic=True)
        found = axis.at_points(1, 1) @ np.sin(axis.nodes(1))
        errors.append(np.abs(found - np.cos(axis.points)).max())
    assert slope([1 / n for n in counts], errors) == pytest.approx(8, abs=0.3)


def test_centred_stencils_interpolate_at_their_width():
    steps, errors = [], []
    points = np.linspace(0.3, 5.9, 301)
    for count in (24, 36, 54):
        nodes = 2 * np.pi * np.arange(count) / count
        matrix = stencil_basis(nodes, 6, 2 * np.pi).matrix(points)
        steps.append(1 / count)
        errors.append(np.abs(matrix @ np.sin(nodes) - np.sin(points)).max())
    assert slope(steps, errors) == pytest.approx(6, abs=0.4)


def test_collocation_of_a_boundary_value_problem_converges_at_order_k_plus_2():
    """-u'' = pi^2 sin(pi x), u(0) = u(1) = 0; u = sin(pi x); k = 3 gives degree 4, order 5."""
    u = pk.field("u", x)
    nf = pk.PDESystem(
        [u.diff(x, 2) + sp.pi**2 * sp.sin(sp.pi * x)],
        domain=pk.Interval(x, 0, 1),
        conditions=[pk.Dirichlet(u, 0, on=pk.boundary(x))],
    ).normal_form
    counts, errors = [4, 8, 16], []
    points = np.linspace(0, 1, 501)
    for count in counts:
        system = System(nf, [ElementAxis(np.linspace(0, 1, count + 1), 3)])
        y = newton(system, np.zeros(system.size), deadline=time.monotonic() + 30)
        values = system.bases[0][0].matrix(points) @ y
        errors.append(np.abs(values - np.sin(np.pi * points)).max())
    assert slope([1 / n for n in counts], errors) == pytest.approx(5, abs=0.3)


@pytest.mark.parametrize(
    ("tableau", "order"),
    [
        (radau_tableau(2), 3),
        (radau_tableau(3), 5),
        (lobatto_tableau(3), 4),
        (lobatto_tableau(4), 6),
    ],
    ids=["radau2", "radau3", "lobatto3", "lobatto4"],
)
def test_integrators_have_their_classical_order_at_the_ends_of_steps(tableau, order: int):
    """u' = -u^2 cos(t), u(0) = 1: u = 1 / (1 + sin t); equal steps."""
    u = pk.field("u", t)
    nf = pk.PDESystem(
        [u.diff(t) + u**2 * sp.cos(t)],
        domain=pk.Interval(t, 0, 2),
        conditions=[pk.Initial(u, 1)],
    ).normal_form
    system = System(nf, [])
    steps, errors = [0.25, 0.125, 0.0625], []
    for h in steps:
        # A generous tolerance leaves the step to `max_step`; one so loose would also loosen Newton.
        grid = integrate(
            system,
            np.array([1.0]),
            (0.0, 2.0),
            1.0,
            tableau,
            deadline=time.monotonic() + 30,
            max_step=h,
            first_step=h,
            newton_tol=1e-14,
        )
        errors.append(abs(grid.states[-1, 0] - 1 / (1 + np.sin(2.0))))
    assert slope(steps, errors) == pytest.approx(order, abs=0.4)


def test_tableaux_are_stiffly_accurate_and_l_stable():
    """The last stage is the step's end, and the stability function vanishes at minus infinity."""
    for tableau in (radau_tableau(5), radau_tableau(7), lobatto_tableau(5), lobatto_tableau(8)):
        assert tableau.c[-1] == pytest.approx(1.0, abs=1e-14)
        a = np.linalg.inv(tableau.inverse)
        one = np.ones(tableau.stages)
        z = -1e10
        stages = np.linalg.solve(np.eye(tableau.stages) - z * a, one)
        assert abs(stages[-1]) < 1e-6
