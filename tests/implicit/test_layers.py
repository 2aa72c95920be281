"""Values, gradients and records of the doors: against closed forms, finite differences and each other."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import torch
from torch.autograd import gradcheck, gradgradcheck

import pinnkit as pk
from pinnkit.implicit import (
    GMRES,
    Anderson,
    Broyden,
    Direct,
    Exact,
    JacobianFree,
    Newton,
    Phantom,
    Picard,
    Unrolled,
    differentiable,
    fixed_point,
    least_squares,
    root,
)
from tests.implicit.cases import (
    EXACT,
    ITERATIVE,
    affine_map,
    cardano,
    contraction,
    cubic,
    normal,
    tanh_map,
)

MAP_METHODS = [Picard(), Anderson(), Broyden(), Newton(), Newton(linear=GMRES())]


@pytest.mark.parametrize("solver", MAP_METHODS, ids=str)
def test_affine_fixed_point_and_its_gradients_are_those_of_the_inverse(solver):
    """z = A z + b: value and both gradients equal dense linear algebra."""
    a, b = contraction(4, 0.5).requires_grad_(), normal(3, 4, seed=1, grad=True)
    z, record = fixed_point(affine_map, torch.zeros_like(b), a, b, solver=solver)
    exact = torch.linalg.solve(torch.eye(4) - a, b.T).T
    assert record.converged.all() and record.iterations.min() >= 1
    assert (z - exact).abs().max() < ITERATIVE
    weights = normal(3, 4, seed=2)
    found = torch.autograd.grad((weights * z).sum(), (a, b))
    wanted = torch.autograd.grad((weights * exact).sum(), (a, b))
    for f, w in zip(found, wanted, strict=True):
        assert (f - w).abs().max() < ITERATIVE


@pytest.mark.parametrize(
    "backward", [Exact(), Exact(linear=GMRES()), Unrolled(), Phantom(steps=40)], ids=str
)
def test_gradients_of_fixed_points(backward):
    """First and second derivatives against finite differences; 40 steps of a 0.3-contraction are exact."""
    w, b = contraction(2, 0.3).requires_grad_(), normal(2, 2, seed=1, grad=True)

    def layer(w, b):
        return fixed_point(
            tanh_map, torch.zeros(2, 2, dtype=w.dtype), w, b, backward=backward, rtol=1e-14
        )[0]

    assert gradcheck(layer, (w, b))
    assert gradgradcheck(layer, (w, b))


@pytest.mark.parametrize("backward", [Exact(), Exact(linear=GMRES()), Unrolled()], ids=str)
@pytest.mark.parametrize("solver", [Newton(), Broyden()], ids=str)
def test_gradients_of_roots(backward, solver):
    """Two coupled equations, non-symmetric Jacobian."""
    a = normal(1, 2, seed=3, grad=True)

    def equations(z, a):
        x, y = z.unbind(1)
        return torch.stack([x + 0.3 * torch.sin(y) - a[:, 0], 2 * y + x * y / 5 - a[:, 1]], 1)

    def layer(a):
        return root(equations, torch.zeros_like(a), a, backward=backward, solver=solver)[0]

    assert gradcheck(layer, (a,))
    assert gradgradcheck(layer, (a,))


@pytest.mark.parametrize("backward", [Exact(), Exact(linear=GMRES())], ids=str)
def test_gradients_of_least_squares_with_a_residual(backward):
    """The fit is poor on purpose: without second derivatives of r the gradient would be wrong."""
    t = torch.linspace(0, 1, 4, dtype=torch.float64)
    y = (torch.exp(-t) + 0.3 * normal(1, 4, seed=2)).requires_grad_()

    def misfit(z, y):
        return z[:, :1] * torch.exp(-z[:, 1:] * t) - y

    def layer(y):
        start = torch.ones(1, 2, dtype=torch.float64)
        return least_squares(misfit, start, y, backward=backward, rtol=1e-12)[0]

    assert gradcheck(layer, (y,), atol=1e-4)
    assert gradgradcheck(layer, (y,), atol=1e-3)

    z = layer(y)
    g = torch.ones_like(z)
    exact = torch.autograd.grad(z, y, g)[0]
    with torch.no_grad():
        j = torch.stack([torch.exp(-z[:, 1:] * t), -z[:, :1] * t * torch.exp(-z[:, 1:] * t)], 2)
        gauss_newton = (j @ torch.linalg.solve(j.mT @ j, g[..., None]))[..., 0]
    assert (exact - gauss_newton).abs().max() > 1e-2 * exact.abs().max()


def test_least_squares_agrees_with_scipy():
    """Same minimum as MINPACK's, and |r| in the record."""
    t = torch.linspace(0, 2, 15, dtype=torch.float64)
    y = 2 * torch.exp(-1.5 * t) + 0.05 * normal(1, 15)
    z, record = least_squares(
        lambda z, y: z[:, :1] * torch.exp(-z[:, 1:] * t) - y, torch.ones(1, 2, dtype=t.dtype), y
    )

    def misfit(p):
        return p[0] * np.exp(-p[1] * t.numpy()) - y[0].numpy()

    known = scipy.optimize.least_squares(misfit, [1.0, 1.0], method="lm", xtol=1e-15, ftol=1e-15)
    assert np.abs(z[0].numpy() - known.x).max() < 1e-7
    assert record.converged.all()
    assert abs(record.residual.item() - np.linalg.norm(known.fun)) < 1e-10


def test_rosenbrock_from_the_classical_start():
    """r = (10 (y - x^2), 1 - x): zero residual at (1, 1)."""
    z0 = torch.tensor([[-1.2, 1.0], [2.0, -3.0]], dtype=torch.float64)
    z, record = least_squares(
        lambda z: torch.stack([10 * (z[:, 1] - z[:, 0] ** 2), 1 - z[:, 0]], 1), z0
    )
    assert record.converged.all() and (z - 1).abs().max() < EXACT


def test_scalar_root_by_cardano_has_its_gradient():
    """One unknown per sample, shape (B,): no zero iterations, no zero gradient."""
    a = torch.tensor([-3.0, 0.2, 5.0], dtype=torch.float64, requires_grad=True)
    z, record = root(cubic, torch.zeros_like(a), a)
    assert (z - cardano(a)).abs().max() < EXACT
    assert record.iterations.min() >= 1
    gradient = torch.autograd.grad(z.sum(), a)[0]
    assert (gradient - 1 / (3 * z.detach() ** 2 + 1)).abs().max() < EXACT


def test_second_derivative_through_a_layer():
    """u(x) from u^3 + u = x: u'' = -6 u / (3 u^2 + 1)^3."""
    x = torch.linspace(-2, 2, 9, dtype=torch.float64).requires_grad_()
    u, _ = root(cubic, torch.zeros_like(x), x)
    ux = torch.autograd.grad(u.sum(), x, create_graph=True)[0]
    uxx = torch.autograd.grad(ux.sum(), x, create_graph=True)[0]
    assert (uxx + 6 * u / (3 * u**2 + 1) ** 3).abs().max() < EXACT


@pytest.mark.parametrize("steps", [1, 2, 5, 10])
def test_phantom_gradient_converges_like_the_contraction(steps):
    """k steps on z = g z + b give (1 - g^k) / (1 - g); one step is the Jacobian-free gradient."""
    g = 0.6
    b = torch.ones(1, 1, dtype=torch.float64, requires_grad=True)
    z, _ = fixed_point(
        lambda z, b: g * z + b, torch.zeros_like(b), b, backward=Phantom(steps=steps)
    )
    slope = torch.autograd.grad(z.sum(), b)[0].item()
    assert abs(slope - (1 - g**steps) / (1 - g)) < EXACT
    if steps == 1:
        z, _ = fixed_point(lambda z, b: g * z + b, torch.zeros_like(b), b, backward=JacobianFree())
        assert torch.autograd.grad(z.sum(), b)[0].item() == slope


def test_a_decorated_solver_is_differentiable_twice():
    """scipy finds the roots; the optimality condition gives the derivatives."""

    @differentiable(cubic)
    def by_brent(a):
        roots = [
            scipy.optimize.brentq(lambda z, a=x: z**3 + z - a, -9, 9, xtol=1e-14)
            for x in a.tolist()
        ]
        return torch.tensor(roots, dtype=a.dtype)

    a = torch.tensor([-3.0, 0.2, 5.0], dtype=torch.float64, requires_grad=True)
    z, record = by_brent(a)
    assert record.converged.all() and record.error.max() < 1e-11
    assert (z - cardano(a)).abs().max() < 1e-11
    assert gradcheck(lambda a: by_brent(a)[0], (a,))
    assert gradgradcheck(lambda a: by_brent(a)[0], (a,))
    both = torch.stack([a.detach(), 2 * a.detach()])
    assert torch.equal(torch.vmap(lambda a: by_brent(a)[0])(both)[0], z.detach())


def test_a_decorated_solver_that_is_wrong_is_found_out():
    """The Newton step from its answer is the error reported."""

    @differentiable(lambda z, a: z**2 - a)
    def rough(a):
        return torch.sqrt(a) + 0.01

    _, record = rough(torch.tensor([4.0], dtype=torch.float64))
    assert not record.converged.item()
    assert record.error.item() == pytest.approx(0.01, rel=0.01)


def test_modules_are_called_with_their_parameters():
    """A module's parameters get the gradients of the equation, through functional_call."""
    linear: Any = torch.nn.utils.skip_init(torch.nn.Linear, 3, 3, dtype=torch.float64)
    cell = torch.nn.Sequential(linear, torch.nn.Tanh())
    weight, bias = linear.weight, linear.bias
    with torch.no_grad():
        weight.copy_(contraction(3, 0.5))
        bias.copy_(normal(3, seed=1))
    z, _ = fixed_point(cell, torch.zeros(1, 3, dtype=torch.float64), rtol=1e-14)
    z.square().sum().backward()
    assert weight.grad is not None
    h = 1e-6
    with torch.no_grad():
        values = []
        for sign in (1, -1):
            weight[0, 1] += sign * h
            values.append(fixed_point(cell, torch.zeros_like(z), rtol=1e-14)[0].square().sum())
            weight[0, 1] -= sign * h
    assert abs((values[0] - values[1]) / (2 * h) - weight.grad[0, 1]) < 1e-8


def test_nested_layers_differentiate_through_each_other():
    """w solves w^2 = z(a) with z^3 + z = a inside: dw/da = z' / (2 w)."""
    a = torch.tensor([1.0, 4.0], dtype=torch.float64, requires_grad=True)

    def outer(w, a):
        return w**2 - root(cubic, torch.ones_like(a), a)[0]

    w, _ = root(outer, torch.ones_like(a), a)
    z = cardano(a)
    assert (w - torch.sqrt(z)).abs().max() < EXACT
    slope = torch.autograd.grad(w.sum(), a)[0]
    assert (slope - 1 / (3 * z**2 + 1) / (2 * torch.sqrt(z))).abs().max() < EXACT


def test_public_names_are_those_of_the_package():
    """`pk.implicit` needs no import of its own."""
    z, record = pk.implicit.fixed_point(
        lambda z, a: torch.cos(a * z),
        torch.zeros(3, 1, dtype=torch.float64),
        torch.ones(3, 1, dtype=torch.float64),
    )
    assert z.shape == (3, 1) and record.converged.shape == (3,)
    assert isinstance(Direct(), pk.implicit.Direct)


def test_the_documentation_runs():
    """Every snippet of its page, one after the other."""
    page = pathlib.Path(__file__).parents[2] / "docs" / "implicit_layers.md"
    names: dict[str, Any] = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for snippet in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S):
            exec(snippet, names)
    assert names["record"].converged.all()
