"""Conditions on parts of a side: Laplace's equation with w = x^2 - y^2 on the unit square.

Where a Dirichlet value gives way to a Neumann one the exact solution stays smooth, so that any error
is one of the rows; with other data there is a singularity of r^(1/2), which meshes resolve slowly.
"""

from typing import Any

import numpy as np
import pytest
import sympy as sp

import pinnkit as pk
from pinnkit.classical.conditions import switch_positions
from pinnkit.errors import Evidence, Status

ITERATIVE = 1e-9

t, x, y = pk.coords("t x y")
w, u = pk.field("w", x, y), pk.field("u", t, x)
v = pk.field("v", t, x, y)
SQUARE = pk.Box((x, y), 0, 1)
EXACT = x**2 - y**2
HALF = sp.Rational(1, 2)


def divided(across: sp.Symbol, below: Any, above: Any) -> pk.PDESystem:
    """The right side of `across` carries a value where `below` holds and a slope where `above` does."""
    (other,) = {x, y} - {across}
    return pk.PDESystem(
        [pk.laplacian(w)],
        SQUARE,
        [
            pk.Dirichlet(w, EXACT, on=pk.boundary(other)),
            pk.Dirichlet(w, EXACT, on=pk.boundary(across, "left")),
            pk.Dirichlet(w, EXACT, on=pk.boundary(across, "right", where=below)),
            pk.Neumann(w, EXACT.diff(across), on=pk.boundary(across, "right", where=above)),
        ],
    )


@pytest.mark.parametrize(
    ("across", "below", "above"),
    [
        (y, x < HALF, x >= HALF),
        (y, x <= 0.3, x > 0.3),
        (x, y < HALF, y > HALF),  # no row for the node in between, as written
        (x, y <= HALF, y >= HALF),  # and two of them
        (x, sp.Or(y < 0.2, y > 0.7), sp.And(y >= 0.2, y <= 0.7)),
    ],
)
def test_a_side_in_two_parts_is_solved_and_checked(across, below, above):
    """Every node of the side has one row, however the relations treat the place where they meet."""
    problem = divided(across, below, above)
    assert pk.MethodOfLines().supports(problem) is None
    sol = pk.solve(problem, pk.MethodOfLines(), time_limit=20)
    assert sol.status is Status.OK and sol.evidence is Evidence.REFERENCE
    assert sol.error(EXACT) < ITERATIVE


def test_elements_end_where_conditions_change():
    (first, second) = switch_positions(
        divided(x, sp.Or(y < 0.2, y > 0.7), sp.And(y >= 0.2, y <= 0.7)).normal_form
    )
    assert first == [] and np.allclose(second, [0.2, 0.7], rtol=1e-12)


def test_evolution_beside_a_side_in_two_parts():
    """v_t = v_xx + v_yy with v = (x^2 - y^2) + 4 t x."""
    exact = EXACT + 4 * t * x
    problem = pk.PDESystem(
        [v.diff(t) - pk.laplacian(v) - 4 * x],
        pk.Interval(t, 0, 1) * SQUARE,
        [
            pk.Initial(v, EXACT),
            pk.Dirichlet(v, exact, on=pk.boundary(x)),
            pk.Dirichlet(v, exact, on=pk.boundary(y, "left")),
            pk.Dirichlet(v, exact, on=pk.boundary(y, "right", where=x < HALF)),
            pk.Neumann(v, exact.diff(y), on=pk.boundary(y, "right", where=x >= HALF)),
        ],
    )
    sol = pk.solve(problem, pk.MethodOfLines(), time_limit=20, verify=False)
    assert sol.error(exact) < ITERATIVE


def test_a_condition_that_changes_with_time_is_refused_beforehand():
    """It was once taken as it stands at t = 0, in silence."""
    problem = pk.PDESystem(
        [u.diff(t) - u.diff(x, 2)],
        pk.Interval(t, 0, 1) * pk.Interval(x, 0, 1),
        [
            pk.Initial(u, sp.sin(sp.pi * x)),
            pk.Dirichlet(u, 0, on=pk.boundary(x, "left")),
            pk.Dirichlet(u, 0, on=pk.boundary(x, "right", where=t < HALF)),
            pk.Neumann(u, 0, on=pk.boundary(x, "right", where=t >= HALF)),
        ],
    )
    refusal = pk.MethodOfLines().supports(problem)
    assert refusal is not None and "changes with t. Use CausalPINN()" in refusal
    with pytest.raises(pk.UnsupportedProblemError, match="at all times"):
        pk.solve(problem, pk.MethodOfLines())
    assert "MethodOfLines()" not in pk.choose_solver(problem)[1]


def test_lines_that_cross_too_few_conditions_are_refused_beforehand():
    """v_t + x y v_x: particles enter on both sides where y < 0 and on none where y > 0."""
    problem = pk.PDESystem(
        [v.diff(t) + x * y * v.diff(x)],
        pk.Interval(t, 0, 1) * pk.Box((x, y), -1, 1),
        [pk.Initial(v, 0), pk.Dirichlet(v, 0, on=pk.boundary(x, where=y < 0))],
    )
    refusal = pk.MethodOfLines().supports(problem)
    assert refusal is not None
    assert "needs 1 conditions along x" in refusal and "near y = -0.5 there are 2" in refusal
