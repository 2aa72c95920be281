"""Linear systems: dense, sparse and matrix-free, direct and Krylov, agree with LAPACK and its gradients."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from pinnkit.implicit import CG, GMRES, Direct, linear_solve
from tests.implicit.cases import EXACT, ITERATIVE, contraction, normal

# torch announces once that its sparse tensors are young, and that it does not check them.
pytestmark = pytest.mark.filterwarnings("ignore:Sparse:UserWarning")


def spd(n, seed=0):
    a = normal(n, n, seed=seed)
    return a @ a.T / n + torch.eye(n, dtype=a.dtype)


@pytest.mark.parametrize("solver", [Direct(), GMRES(), CG()], ids=str)
@pytest.mark.parametrize("kind", ["shared", "per sample", "coo", "csr", "function"])
def test_all_forms_of_a_matrix_give_the_same_solution(solver, kind):
    """And the same gradients in the entries and the right-hand side."""
    a, b = spd(6).requires_grad_(), normal(3, 6, seed=1, grad=True)
    exact = torch.linalg.solve(a, b.T).T
    if kind == "per sample":
        x, record = linear_solve(a.expand(3, 6, 6), b, solver=solver)
    elif kind == "coo":
        x, record = linear_solve(a.to_sparse_coo(), b, solver=solver)
    elif kind == "csr":
        rows = torch.arange(0, 37, 6)
        cols = torch.arange(6).repeat(6)
        x, record = linear_solve(
            torch.sparse_csr_tensor(rows, cols, a.flatten(), (6, 6), check_invariants=True),
            b,
            solver=solver,
        )
    elif kind == "function":
        x, record = linear_solve(lambda x, a: x @ a.T, b, a, solver=solver)
    else:
        x, record = linear_solve(a, b, solver=solver)
    assert record.converged.all() and record.iterations.min() >= 1
    assert (x - exact).abs().max() < ITERATIVE
    weights = normal(3, 6, seed=2)
    found = torch.autograd.grad((weights * x).sum(), (a, b))
    wanted = torch.autograd.grad((weights * exact).sum(), (a, b))
    for f, w in zip(found, wanted, strict=True):
        assert (f - w).abs().max() < ITERATIVE


@pytest.mark.parametrize("solver", [Direct(), GMRES()], ids=str)
def test_second_derivatives_of_sparse_solutions(solver):
    """In the entries on the pattern and the right-hand side."""
    n = 4
    full = torch.eye(n, dtype=torch.float64) + 0.3 * contraction(n, 1.0)
    index = (full.abs() > 0.05).nonzero().T
    entries = full[index[0], index[1]].clone().requires_grad_()
    b = normal(2, n, seed=1, grad=True)

    def layer(entries, b):
        a = torch.sparse_coo_tensor(index, entries, (n, n), is_coalesced=True)
        return linear_solve(a, b, solver=solver, rtol=1e-14)[0]

    assert gradcheck(layer, (entries, b))
    assert gradgradcheck(layer, (entries, b))


@pytest.mark.parametrize("solver", [GMRES(), CG()], ids=str)
def test_second_derivatives_of_matrix_free_solutions(solver):
    """A(x, k) = k x + x / 4 flipped: symmetric, definite for k near 1."""
    k, b = (1 + 0.1 * normal(2, 3)).requires_grad_(), normal(2, 3, seed=1, grad=True)

    def layer(k, b):
        return linear_solve(lambda x, k: k * x + x.flip(1) / 4, b, k, solver=solver)[0]

    assert gradcheck(layer, (k, b))
    assert gradgradcheck(layer, (k, b))


def test_krylov_methods_end_after_as_many_steps_as_unknowns():
    """In exact arithmetic; CG on Poisson's matrix, GMRES without restart on any."""
    b = normal(2, 20, seed=3)
    eye = torch.eye(20, dtype=torch.float64)
    tridiagonal = (
        2 * eye - torch.diag(eye[0, 0].expand(19), 1) - torch.diag(eye[0, 0].expand(19), -1)
    )
    x, record = linear_solve(tridiagonal, b, solver=CG())
    assert record.converged.all() and record.iterations.max() <= 21
    assert (x @ tridiagonal - b).abs().max() < 1e-9
    _, record = linear_solve(eye + contraction(20, 3.0), b, solver=GMRES())
    assert record.converged.all() and record.iterations.max() <= 20


def test_samples_of_a_krylov_batch_stop_one_by_one():
    """Diagonal matrices with k different entries take k products; neighbours change nothing."""
    d = torch.ones(4, 12, dtype=torch.float64)
    for k in range(4):
        d[k] = 1 + torch.arange(12) % (k + 1)
    b = normal(4, 12)
    for solver in (GMRES(), CG()):
        x, record = linear_solve(lambda x, d: d * x, b, d, solver=solver)
        assert record.iterations.tolist() == [1, 2, 3, 4]
        for k in range(4):
            one, _ = linear_solve(lambda x, d: d * x, b[k : k + 1], d[k : k + 1], solver=solver)
            assert (one[0] - x[k]).abs().max() < EXACT


def test_gmres_passes_where_normal_equations_fail():
    """Condition number 1e6, not symmetric: squared, nothing of the tolerance would be left."""
    n = 30
    q, _ = torch.linalg.qr(normal(n, n))
    p, _ = torch.linalg.qr(normal(n, n, seed=1))
    a = q @ torch.diag(torch.logspace(0, -6, n, dtype=q.dtype)) @ p
    x, record = linear_solve(a, (a @ torch.ones(n, dtype=a.dtype))[None], solver=GMRES())
    assert record.converged.all() and (x - 1).abs().max() < 1e-3


def test_restarts_reach_the_tolerance():
    """Cycles of five products."""
    a = torch.eye(40, dtype=torch.float64) + contraction(40, 0.8)
    b = normal(2, 40)
    x, record = linear_solve(a, b, solver=GMRES(restart=5))
    assert record.converged.all() and record.iterations.min() > 5
    assert (x @ a.T - b).abs().max() < 1e-9


def test_cg_reports_an_indefinite_matrix():
    """Only that sample fails."""
    d = torch.ones(2, 3, dtype=torch.float64)
    d[1, 0] = -1
    b = torch.ones(2, 3, dtype=torch.float64)
    b[1] = torch.tensor([3.0, 1.0, 0.5])
    _, record = linear_solve(lambda x, d: d * x, b, d, solver=CG())
    assert record.converged.tolist() == [True, False]


def test_a_large_sparse_system_needs_no_matrix():
    """One million numbers would be dense; the five-point Laplacian on 100 x 100 has 5e4."""
    n = 100
    k = torch.arange(n * n).reshape(n, n)
    pairs = torch.cat(
        [
            torch.stack([k[1:].flatten(), k[:-1].flatten()]),
            torch.stack([k[:, 1:].flatten(), k[:, :-1].flatten()]),
        ],
        1,
    )
    rows = torch.cat([k.flatten(), pairs[0], pairs[1]])
    cols = torch.cat([k.flatten(), pairs[1], pairs[0]])
    values = torch.cat(
        [torch.full((n * n,), 4.0), torch.full((2 * pairs.shape[1],), -1.0)]
    ).double()
    values.requires_grad_()
    a = torch.sparse_coo_tensor(torch.stack([rows, cols]), values, (n * n, n * n))
    b = torch.ones(1, n * n, dtype=torch.float64)
    x, record = linear_solve(a, b)
    assert record.converged.all()
    (g,) = torch.autograd.grad(x.sum(), values)
    with torch.no_grad():  # A is symmetric and b = 1, so that the adjoint is x itself
        wanted = -x[0, rows] * x[0, cols]
    assert (g - wanted).abs().max() < 1e-8 * wanted.abs().max()
