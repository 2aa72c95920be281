"""Preconditioners change how many products are needed, and nothing else: values, gradients, records."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from pinnkit.implicit import (
    CG,
    GMRES,
    Exact,
    Factors,
    Jacobi,
    Newton,
    differentiable,
    fixed_point,
    linear_solve,
    root,
)
from pinnkit.implicit.preconditioners import diagonal
from tests.implicit.cases import EXACT, ITERATIVE, contraction, normal

# What torch says once about its own forward mode and sparse tensors.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Sparse:UserWarning"),
]

N = 40


def graded(symmetric=True):
    """A diagonal over six decades and a coupling that scales with it: Jacobi leaves a condition of 3."""
    scale = torch.logspace(-3, 3, N, dtype=torch.float64).sqrt()
    c = contraction(N, 0.5, seed=3)
    c = 0.5 * (c + c.T) if symmetric else c
    return scale[:, None] * (torch.eye(N, dtype=c.dtype) + c) * scale


@pytest.mark.parametrize("kind", ["dense", "per sample", "coo", "csr", "function"])
@pytest.mark.parametrize("method", [CG, GMRES])
def test_jacobi_saves_products_and_changes_nothing(method, kind):
    """Value and both gradients as LAPACK's; three times fewer products than without."""
    a, b = graded(method is CG).requires_grad_(), normal(2, N, seed=1, grad=True)
    forms = {
        "dense": (a, ()),
        "per sample": (a.expand(2, N, N), ()),
        "coo": (a.to_sparse_coo(), ()),
        "csr": (a.to_sparse_csr(), ()),
        "function": (lambda x, a: x @ a.T, (a,)),
    }
    A, params = forms[kind]
    x, record = linear_solve(A, b, *params, solver=method(preconditioner=Jacobi()), rtol=1e-13)
    assert record.converged.all()
    exact = torch.linalg.solve(a, b.T).T
    assert (x - exact).abs().max() < ITERATIVE * exact.abs().max()
    with torch.no_grad():
        plain = linear_solve(A, b, *params, solver=method(), rtol=1e-13)[1]
    assert 3 * record.iterations.max() <= plain.iterations.max() or not plain.converged.all()
    if kind == "csr":
        return  # torch has no derivative of to_sparse_csr; of the entries: tests/implicit/test_linear
    weights = normal(2, N, seed=2)
    found = torch.autograd.grad((weights * x).sum(), (a, b))
    wanted = torch.autograd.grad((weights * exact).sum(), (a, b))
    for f, w in zip(found, wanted, strict=True):
        assert (f - w).abs().max() < ITERATIVE * w.abs().max()


def test_the_exact_inverse_takes_one_product():
    """Factors of A itself, sparse, dense and incomplete, and an inverse written as a function."""
    a, b = graded(), normal(3, N)
    inverse = torch.linalg.inv(a)
    helpers = [
        Factors(a),
        Factors(a.to_sparse_coo()),
        Factors(a.to_sparse_csr(), drop=1e-14),
        lambda r: r @ inverse.T,
    ]
    for helper in helpers:
        for method in (CG, GMRES):
            _, record = linear_solve(a, b, solver=method(preconditioner=helper))
            assert record.converged.all() and record.iterations.max() <= 2


def test_adjoints_take_the_transposed_preconditioner():
    """The factors of a matrix that is not symmetric solve its adjoint, and the adjoint's adjoint."""
    a = graded(symmetric=False)
    d, b = torch.ones(2, N, dtype=a.dtype, requires_grad=True), normal(2, N, grad=True)
    solver = GMRES(preconditioner=Factors(a.to_sparse_coo()), max_steps=3)

    def layer(d, b):  # three products suffice only with the right inverse
        return linear_solve(lambda x, d: (d * x) @ a.T, b, d, solver=solver)[0]

    x = layer(d, b)
    g = torch.autograd.grad(x.square().sum(), (d, b), create_graph=True)
    exact = torch.linalg.solve(a, b.T).T / d
    wanted = torch.autograd.grad(exact.square().sum(), (d, b), create_graph=True)
    for f, w in zip(g, wanted, strict=True):
        assert (f - w).abs().max() < ITERATIVE * w.abs().max()
    second = [torch.autograd.grad(pair[1].sum(), d, retain_graph=True)[0] for pair in (g, wanted)]
    assert (second[0] - second[1]).abs().max() < ITERATIVE * second[1].abs().max()


@pytest.mark.parametrize("helper", [Jacobi(), Factors(torch.diag(torch.arange(1.0, 3).double()))])
def test_second_derivatives_with_a_preconditioner(helper):
    """Of Newton-Krylov roots and their adjoints, in reverse and under vmap of either."""
    stiff = torch.arange(1.0, 3, dtype=torch.float64)
    solver = GMRES(preconditioner=helper)
    a = normal(1, 2, seed=4, grad=True)

    def layer(a):
        return root(
            lambda z, a: stiff * z + torch.tanh(z.flip(1)) - a,
            torch.zeros_like(a),
            a,
            solver=Newton(linear=solver),
            backward=Exact(linear=solver),
            rtol=1e-13,
        )[0]

    assert gradcheck(layer, (a,), check_forward_ad=True)
    assert gradgradcheck(layer, (a,))
    many = torch.stack([a.detach(), 2 * a.detach(), -a.detach()])
    assert (torch.vmap(layer)(many)[1] - layer(many[1])).abs().max() < EXACT


def test_newton_krylov_converges_where_it_would_not_without():
    """A stiff reaction, 200 unknowns over eight decades; the adjoint gets the same help unasked."""
    n = 200
    stiff = torch.logspace(0, 8, n, dtype=torch.float64)
    a = (stiff * normal(2, n, seed=5)).requires_grad_()

    def equations(z, a):
        return stiff * z + torch.sin(z.roll(1, 1)) - a

    few = GMRES(restart=10, max_steps=30)
    _, plain = root(
        equations,
        torch.zeros(2, n, dtype=a.dtype),
        a.detach(),
        solver=Newton(linear=few),
        max_steps=8,
    )
    helped = GMRES(restart=10, max_steps=30, preconditioner=lambda r: r / stiff)
    z, record = root(equations, torch.zeros(2, n, dtype=a.dtype), a, solver=Newton(linear=helped))
    assert record.converged.all()
    assert (record.iterations < plain.iterations).all() or not plain.converged.all()
    (g,) = torch.autograd.grad(z.sum(), a)
    jacobian = torch.diag(stiff) + torch.diag_embed(torch.cos(z.detach().roll(1, 1))).roll(-1, 2)
    exact = torch.linalg.solve(jacobian.mT, torch.ones(2, n, 1, dtype=a.dtype))[..., 0]
    assert (g - exact).abs().max() < ITERATIVE * exact.abs().max()


def test_samples_of_any_shape_meet_the_function():
    """What the user gives sees samples as they are, in Newton's systems, adjoints and under vmap."""
    seen = set()

    def helper(r):
        seen.add(tuple(r.shape[1:]))
        return r / 2

    solver = GMRES(preconditioner=helper)
    a = normal(2, 3, 4, seed=6)

    def layer(a):
        return root(
            lambda z, a: 2 * z + 0.1 * torch.sin(z.flip(1)) - a,
            torch.zeros_like(a),
            a,
            solver=Newton(linear=solver),
            backward=Exact(linear=solver),
        )[0].sum()

    torch.func.grad(layer)(a)
    torch.vmap(torch.func.grad(layer))(torch.stack([a, a]))
    assert seen == {(3, 4)}


def test_a_decorated_solver_takes_one():
    """Its adjoint is solved with two products."""
    k = torch.logspace(0, 4, 30, dtype=torch.float64)
    linear = GMRES(preconditioner=lambda r: r / k, max_steps=2)

    @differentiable(lambda z, a: k * z - a, linear=linear)
    def divide(a):
        return a / k

    a = normal(2, 30, grad=True)
    z, record = divide(a)
    assert record.converged.all()
    assert (torch.autograd.grad(z.sum(), a)[0] * k - 1).abs().max() < EXACT


def test_cg_reports_a_preconditioner_that_is_not_definite():
    """The sample fails; it does not return a wrong answer."""
    _, record = linear_solve(graded(), normal(2, N), solver=CG(preconditioner=torch.neg))
    assert not record.converged.any()


def test_diagonals_are_found_by_products():
    """Of a batch of matrices, in pieces."""
    a = normal(3, 7, 7)
    found = diagonal(lambda x: (a @ x[..., None])[..., 0], torch.zeros(3, 7, dtype=a.dtype))
    assert torch.equal(found, a.diagonal(0, 1, 2))


REFUSED = {
    "tensor": (
        TypeError,
        r"Write Factors\(P\)",
        lambda: CG(preconditioner=graded()),  # pyright: ignore
    ),
    "name": (TypeError, r"must be Jacobi\(\)", lambda: GMRES(preconditioner="jacobi")),  # pyright: ignore
    "shape": (
        ValueError,
        r"turned torch.float64 \(2, 40\) into torch.float64 \(2, 39\)",
        lambda: linear_solve(graded(), normal(2, N), solver=CG(preconditioner=lambda r: r[:, 1:])),
    ),
    "size": (
        ValueError,
        "matrix with 3 rows cannot precondition",
        lambda: linear_solve(
            graded(), normal(2, N), solver=CG(preconditioner=Factors(torch.eye(3).double()))
        ),
    ),
    "not square": (ValueError, r"shape \(n, n\), not \(2, 3\)", lambda: Factors(torch.zeros(2, 3))),
    "drop of dense": (ValueError, "0 for a dense matrix", lambda: Factors(torch.eye(2), drop=0.1)),
    "tolerance": (ValueError, r"rtol=-1 must lie in \[0, 1\)", lambda: CG(rtol=-1)),
    "steps": (ValueError, "max_steps=0 must be a whole number", lambda: GMRES(max_steps=0)),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_refusals_of_preconditioners(name):
    """Each by its words."""
    kind, words, call = REFUSED[name]
    with pytest.raises(kind, match=words):
        call()


def test_fixed_points_take_one_in_the_adjoint():
    """I - df/dz with a stiff diagonal: Jacobi by products."""
    k = torch.logspace(-6, 0, 20, dtype=torch.float64)
    b = normal(2, 20, seed=7, grad=True)
    z, _ = fixed_point(
        lambda z, b: (1 - k) * z + k * b,
        b.detach().clone(),
        b,
        backward=Exact(linear=GMRES(preconditioner=Jacobi(), max_steps=2)),
    )
    assert (torch.autograd.grad(z.sum(), b)[0] - 1).abs().max() < ITERATIVE
