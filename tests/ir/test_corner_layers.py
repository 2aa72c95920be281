"""Corner layers: exact solutions of the heat equation, only where the form fits."""

from __future__ import annotations

import warnings

import mpmath
import numpy as np
import pytest
import sympy as sp

import pinnkit as pk
from pinnkit.errors import DeclarationWarning
from pinnkit.ir.corner_layers import corner_layers
from pinnkit.problems import (  # pyright: ignore[reportMissingImports]
    AllenCahn,
    AllenCahnSmooth,
    Burgers,
    Heat1D,
)

t, x = pk.coords("t x")
u = pk.field("u", t, x)
D = sp.Rational(1, 10)


def declared(equation, conditions, low=0, high=1):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeclarationWarning)
        return pk.PDESystem(
            [equation], pk.Interval(t, 0, 1) * pk.Interval(x, low, high), conditions
        )


def test_a_jump_at_a_wall_is_the_half_line_solution():
    """erfc solves the heat equation exactly, is 0 inside at the start and the jump at the wall."""
    problem = declared(
        u.diff(t) - D * u.diff(x, 2),
        [
            pk.Initial(u, 1),
            pk.Dirichlet(u, 0, on=pk.boundary(x, "left")),
            pk.Dirichlet(u, 1, on=pk.boundary(x, "right")),
        ],
    )
    (layer,) = corner_layers(problem.normal_form).values()
    residual = sp.lambdify((t, x), layer.diff(t) - D * layer.diff(x, 2), "mpmath")
    assert abs(residual(mpmath.mpf("0.3"), mpmath.mpf("0.2"))) < 1e-12
    assert float(layer.subs({t: 0.5, x: 0})) == pytest.approx(-1.0)
    assert abs(float(layer.subs({t: 0, x: 0.1}))) < 1e-15


def test_reaction_damps_a_jump():
    """u_t = D u_xx - 3 u: the layer times exp(-3 t) is an exact solution again."""
    problem = declared(
        u.diff(t) - D * u.diff(x, 2) + 3 * u,
        [
            pk.Initial(u, 1),
            pk.Dirichlet(u, 0, on=pk.boundary(x, "left")),
            pk.Dirichlet(u, 1, on=pk.boundary(x, "right")),
        ],
    )
    (layer,) = corner_layers(problem.normal_form).values()
    residual = sp.lambdify((t, x), layer.diff(t) - D * layer.diff(x, 2) + 3 * layer, "mpmath")
    assert abs(residual(mpmath.mpf("0.3"), mpmath.mpf("0.2"))) < 1e-12


def test_what_is_left_of_allen_cahn_has_no_kink():
    """x^2 cos(pi x) minus the layer repeats along x with its slope."""
    problem = AllenCahn().system
    nf = problem.normal_form
    (layer,) = corner_layers(nf).values()
    time, space = nf.coords
    data = space**2 * sp.cos(sp.pi * space)
    slope = sp.lambdify(space, sp.diff(data, space), "mpmath")
    rest = sp.lambdify(space, sp.diff(data - layer.subs(time, 0), space), "mpmath")
    assert float(slope(-1) - slope(1)) == pytest.approx(4)
    near = mpmath.mpf("0.9999")  # outside the regularised start of the layer
    assert abs(rest(-near) - rest(near)) < 1e-2  # only the third derivative still jumps


@pytest.mark.parametrize("problem", [AllenCahnSmooth(), Burgers(), Heat1D()])
def test_compatible_data_have_no_layer(problem):
    assert corner_layers(problem.system.normal_form) == {}


@pytest.mark.parametrize(
    "equation",
    [
        u.diff(t) + u.diff(x) - D * u.diff(x, 2),  # transport carries the layer away
        u.diff(t) - u * D * u.diff(x, 2),  # no constant D
        u.diff(t) + D * u.diff(x, 4),
    ],
)
def test_other_forms_stay_with_the_network(equation):
    conditions = [pk.Initial(u, 1), pk.Dirichlet(u, 0, on=pk.boundary(x))]
    if equation.has(u.diff(x, 4)):
        conditions.append(pk.Robin(u.diff(x, 2), on=pk.boundary(x)))
    assert corner_layers(declared(equation, conditions).normal_form) == {}


def test_a_layer_survives_saving(tmp_path):
    """The saved network brings its closed form along."""
    problem = declared(
        u.diff(t) - D * u.diff(x, 2),
        [pk.Initial(u, 1), pk.Dirichlet(u, 0, on=pk.boundary(x))],
    )
    solution = problem.solve(pk.CausalPINN(width=5, depth=1), max_steps=3, verify=False)
    solution.save(tmp_path / "layer")
    again = pk.load(tmp_path / "layer")
    assert float(again(t=0.2, x=0.3)) == float(solution(t=0.2, x=0.3))
    assert np.isfinite(float(solution(t=0.0, x=0.0)))  # at the corner itself too
