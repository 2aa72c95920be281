"""Functions known by numbers: exact at their nodes, exactly differentiable, one sympy node each."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import sympy as sp
import torch
from scipy.interpolate import CubicSpline

from pinnkit.declare.expansion import (
    AppliedExpansion,
    ChebyshevAxis,
    Expansion,
    FourierAxis,
    SplineAxis,
    expanded,
)
from pinnkit.declare.symbols import coords
from pinnkit.ir.expression_tree import from_tree, to_tree
from pinnkit.ir.sampling import evaluate
from pinnkit.lower.expressions import compile_expressions

EXACT = 1e-12
ROUNDOFF = 1e-9  # of derivatives of series

x, y = coords("x y")
NODES = np.linspace(-1.0, 2.0, 9)


def wavy(seed: int = 0) -> Expansion:
    """Fourier along one axis, splines along the other."""
    rng = np.random.default_rng(seed)
    fourier = FourierAxis(0.0, 2.0, 7)
    spline = Expansion.interpolating([NODES], np.zeros(9)).axes[0]
    return Expansion((fourier, spline), rng.normal(size=(7, spline.size)))


@pytest.mark.parametrize("n", [8, 9])
def test_trigonometric_interpolation_meets_its_values(n):
    """Also with an even number of nodes, whose highest mode has a cosine only."""
    values = np.random.default_rng(n).normal(size=(n, 6))
    f = Expansion.periodic([0.0, 1.0], [1.0, 3.0], values)
    nodes = np.arange(n) / n, 1 + 3 * np.arange(6) / 6
    assert np.abs(f.on_grid(*nodes) - values).max() < EXACT
    assert np.abs(f(nodes[0] + 2.0, 1.0) - values[:, 0]).max() < EXACT


def test_a_sine_is_differentiated_exactly():
    f = Expansion((FourierAxis(0.5, 2.0, 5),), np.array([0.0, 0.0, 0.0, 0.0, 1.0]))
    s = np.linspace(0.0, 4.0, 41)
    assert np.abs(f(s) - np.sin(2 * np.pi * (s - 0.5))).max() < EXACT
    expected = -((2 * np.pi) ** 2) * np.sin(2 * np.pi * (s - 0.5))
    assert np.abs(f.derivative(0).derivative(0)(s) - expected).max() < ROUNDOFF


def test_chebyshev_values_and_derivatives_of_an_exponential():
    axis = ChebyshevAxis(-1.0, 3.0, 24)
    f = Expansion((axis,), axis.from_nodes @ np.exp(axis.nodes))
    s = np.linspace(-1.0, 3.0, 33)
    assert np.abs(f(s) - np.exp(s)).max() < EXACT * 100
    assert np.abs(f.derivative(0)(s) - np.exp(s)).max() < ROUNDOFF


def test_splines_are_those_of_scipy_ends_included():
    values = np.sin(NODES) + NODES**2
    f, theirs = Expansion.interpolating([NODES], values), CubicSpline(NODES, values)
    s = np.linspace(-1.0, 2.0, 50)
    for _ in range(3):
        assert np.abs(f(s) - theirs(s)).max() < ROUNDOFF
        f, theirs = f.derivative(0), theirs.derivative()


def test_cubic_polynomials_of_two_coordinates_are_reproduced():
    grid = NODES[:, None] ** 3 * NODES[None] - NODES[None] ** 2
    f = Expansion.interpolating([NODES, NODES], grid)
    a, b = np.random.default_rng(0).uniform(-1, 2, (2, 30))
    assert np.abs(f(a, b) - (a**3 * b - b**2)).max() < ROUNDOFF
    assert np.abs(f.derivative(0).derivative(1)(a, b) - 3 * a**2).max() < ROUNDOFF


def test_a_grid_is_its_points():
    f, a, b = wavy(), np.linspace(0, 2, 5), np.linspace(-1, 2, 4)
    assert np.abs(f.on_grid(a, b) - f(a[:, None], b)).max() < EXACT


def test_equal_numbers_are_one_sympy_function():
    """Equal by content, so that sympy's cache and pickles give the same function; others differ."""
    f = wavy()
    node = expanded("a", f, x, y)
    again = expanded("a", Expansion(f.axes, np.array(f.coefficients)), x, y)
    assert isinstance(node, AppliedExpansion)
    assert node == again and hash(node) == hash(again)
    assert pickle.loads(pickle.dumps(sp.exp(node).diff(y))) == sp.exp(node).diff(y)
    assert node != expanded("a", wavy(1), x, y)
    assert node.diff(x, y) == node.diff(y, x) != node.diff(x)


def test_numbers_agree_everywhere():
    """The array, lambdify, the checks' evaluator, evalf and torch; torch differentiates alike."""
    f = wavy()
    node = expanded("a", f, x, y)
    a, b = np.random.default_rng(2).uniform(0.1, 1.9, (2, 6))
    expected = np.exp(f(a, b)) * f.derivative(1)(a, b)
    expr = sp.exp(node).diff(y)
    assert np.allclose(sp.lambdify([x, y], expr, cse=True)(a, b), expected, rtol=EXACT)
    assert np.allclose(evaluate(expr, {x: a, y: b}), expected, rtol=EXACT)
    assert float(expr.subs({x: a[0], y: b[0]})) == pytest.approx(expected[0], rel=EXACT)
    points = [torch.tensor(v, requires_grad=True) for v in (a, b)]
    (value,) = compile_expressions([sp.exp(node)], [x, y])(points)
    (slope,) = torch.autograd.grad(value.sum(), points[1])
    assert np.allclose(slope.numpy(), expected, rtol=ROUNDOFF)


def test_files_hold_the_function_and_nothing_else():
    node = expanded("a", wavy(), x, y).diff(x)
    tree = to_tree(2 * node)
    assert from_tree(tree) == 2 * node
    plain = to_tree(node)
    for harm in (
        {"axes": [["fourier", 0.0, 1.0, 10**9]], "coefficients": []},
        {"axes": [["spline", [0.0, 1.0], 3]], "coefficients": []},
        {"axes": [["chebyshev", 0.0, 1.0, 2]], "coefficients": [0.0, float("nan")]},
        {"axes": [["other", 0.0, 1.0, 2]], "coefficients": [0.0, 0.0]},
    ):
        with pytest.raises(ValueError, match="not a saved expansion"):
            from_tree([plain[0], plain[1], harm, *plain[3:]])


def test_the_shape_of_coefficients_is_checked():
    with pytest.raises(ValueError, match=r"shape \(4,\), the axes \(3,\)"):
        Expansion((FourierAxis(0.0, 1.0, 3),), np.zeros(4))
    assert SplineAxis((0.0, 0.0, 1.0, 1.0), 1).size == 2
