"""torch.func, torch.compile, other precisions and devices."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch.autograd import gradcheck

from pinnkit.implicit import (
    CG,
    GMRES,
    Direct,
    Exact,
    JacobianFree,
    Picard,
    fixed_point,
    least_squares,
    linear_solve,
    root,
)
from tests.implicit.cases import EXACT, ITERATIVE, cardano, contraction, cubic, normal, tanh_map

# What torch says once about its own forward mode and sparse tensors.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Sparse:UserWarning"),
]


@pytest.mark.parametrize("backward", [Exact(), Exact(linear=GMRES()), JacobianFree()], ids=str)
def test_vmap_is_a_loop(backward):
    """Over parameters, over the shared weights, and its gradients and records likewise."""
    w = torch.stack([contraction(3, f, seed=k) for k, f in enumerate((0.3, 0.6, 0.9))])
    b = normal(3, 2, 3, seed=1)
    z0 = torch.zeros(2, 3, dtype=torch.float64)

    def layer(w, b):
        return fixed_point(tanh_map, z0, w, b, backward=backward)

    def loss(w, b):
        return layer(w, b)[0].square().sum()

    z, record = torch.vmap(layer)(w, b)
    assert record.iterations.shape == (3, 2)
    each = [layer(*pair) for pair in zip(w, b, strict=True)]
    assert (z - torch.stack([e[0] for e in each])).abs().max() < EXACT
    assert record.iterations.tolist() == [e[1].iterations.tolist() for e in each]
    shared, _ = torch.vmap(layer, in_dims=(None, 0))(w[0], b)
    assert (shared[1] - layer(w[0], b[1])[0]).abs().max() < EXACT
    slopes = torch.vmap(torch.func.grad(loss))(w, b)
    loop = torch.stack([torch.func.grad(loss)(*pair) for pair in zip(w, b, strict=True)])
    assert (slopes - loop).abs().max() < ITERATIVE


@pytest.mark.parametrize("door", [root, least_squares])
def test_hessians_by_torch_func(door):
    """Reverse over reverse and forward over reverse equal the closed form."""
    a = torch.tensor([0.5, 3.0], dtype=torch.float64)

    def loss(a):
        return door(cubic, torch.zeros_like(a), a)[0].sum()

    z = cardano(a)
    wanted = torch.diag(-6 * z / (3 * z**2 + 1) ** 3)
    assert (torch.func.hessian(loss)(a) - wanted).abs().max() < 1e-10
    assert (torch.func.jacrev(torch.func.jacrev(loss))(a) - wanted).abs().max() < 1e-10
    by_vmap = torch.vmap(torch.func.hessian(loss))(torch.stack([a, a]))
    assert (by_vmap[1] - wanted).abs().max() < 1e-10


@pytest.mark.parametrize("linear", [Direct(), GMRES()], ids=str)
def test_forward_mode_is_the_transpose_of_reverse_mode(linear):
    """<u, J v> = <J^T u, v>, and both against finite differences."""
    w, b = contraction(3, 0.5).requires_grad_(), normal(2, 3, seed=1, grad=True)

    def layer(w, b):
        z0 = torch.zeros(2, 3, dtype=torch.float64)
        return fixed_point(tanh_map, z0, w, b, backward=Exact(linear=linear), rtol=1e-14)[0]

    assert gradcheck(layer, (w, b), check_forward_ad=True)
    primal, tangent = (w.detach(), b.detach()), (normal(3, 3, seed=5), normal(2, 3, seed=6))
    forward = torch.func.jvp(layer, primal, tangent)[1]
    u = normal(2, 3, seed=7)
    back = torch.func.vjp(layer, *primal)[1](u)
    inner = sum((x * y).sum() for x, y in zip(back, tangent, strict=True))
    assert abs((u * forward).sum() - inner) < 1e-9


@pytest.mark.parametrize("solver", [Direct(), GMRES(), CG()], ids=str)
@pytest.mark.parametrize("sparse", [False, True])
def test_linear_solves_under_vmap(solver, sparse):
    """Over right-hand sides and over matrices."""
    a = torch.stack([torch.eye(4, dtype=torch.float64) * (2 + k) for k in range(3)])
    a[:, 0, 1] = a[:, 1, 0] = 0.5
    b = normal(3, 2, 4)
    index = (a[0] != 0).nonzero().T

    def solve(a, b):
        if sparse:
            entries = a[index[0], index[1]]
            return linear_solve(torch.sparse_coo_tensor(index, entries, (4, 4)), b, solver=solver)[
                0
            ]
        return linear_solve(a, b, solver=solver)[0]

    exact = torch.linalg.solve(a, b.mT).mT
    if not sparse:  # torch has no batches of sparse tensors
        assert (torch.vmap(solve)(a, b) - exact).abs().max() < ITERATIVE
    same = torch.vmap(solve, in_dims=(None, 0))(a[0], b)
    assert (same - torch.linalg.solve(a[0], b.mT).mT).abs().max() < ITERATIVE


@pytest.mark.filterwarnings("ignore")  # the compiler looks at tensors in ways that warn
@pytest.mark.skipif(shutil.which("g++") is None, reason="no compiler for torch.compile")
def test_torch_compile_leaves_the_layer_as_it_is():
    """Values and gradients of a compiled function around it are those of the plain one."""
    a = torch.tensor([[0.5], [0.9]], dtype=torch.float64, requires_grad=True)

    def model(a):
        z, record = fixed_point(lambda z, a: torch.cos(a * z), torch.zeros_like(a), 2 * a - 1)
        return (3 * z).square().sum(), record.converged

    plain, _ = model(a)
    compiled, converged = torch.compile(model, backend="eager")(a)
    assert converged.all() and abs(compiled - plain) < EXACT
    slopes = [torch.autograd.grad(x, a)[0] for x in (plain, compiled)]
    assert (slopes[0] - slopes[1]).abs().max() < EXACT


def test_single_precision():
    """Tolerances follow the dtype."""
    a = torch.tensor([0.5, 3.0])
    z, record = root(cubic, torch.zeros_like(a), a)
    assert z.dtype == torch.float32 and record.converged.all()
    assert (z - cardano(a.double())).abs().max() < 1e-6


def test_other_default_dtype_changes_nothing():
    """Nothing is built in the default precision."""
    before = torch.get_default_dtype()
    a = normal(2, 3)
    plain = fixed_point(lambda z, a: torch.cos(z) * a / 3, torch.zeros_like(a), a, solver=Picard())
    try:
        torch.set_default_dtype(torch.float64)
        other = fixed_point(
            lambda z, a: torch.cos(z) * a / 3, torch.zeros_like(a), a, solver=Picard()
        )
    finally:
        torch.set_default_dtype(before)
    assert torch.equal(plain[0], other[0])


@pytest.mark.gpu
def test_the_accelerator_gives_the_same():
    """Every door once, value and gradient."""
    a = torch.tensor([[0.5, 0.1], [0.9, 0.4]], dtype=torch.float64)
    matrix = (torch.eye(2, dtype=torch.float64) + 0.1).to_sparse_coo()

    def all_doors(a):
        zero = torch.zeros_like(a)
        return [
            fixed_point(lambda z, a: torch.cos(a * z), zero, a)[0],
            root(cubic, zero, a)[0],
            root(cubic, zero, a, backward=Exact(linear=GMRES()))[0],
            least_squares(cubic, zero, a)[0],
            linear_solve(matrix.to(a.device), a)[0],
            linear_solve(matrix.to(a.device), a, solver=CG())[0],
        ]

    here = a.clone().requires_grad_()
    there = a.cuda().requires_grad_()
    for x, y in zip(all_doors(here), all_doors(there), strict=True):
        assert (x - y.cpu()).abs().max() < ITERATIVE
        slopes = [torch.autograd.grad(v.sum(), p)[0].cpu() for v, p in ((x, here), (y, there))]
        assert (slopes[0] - slopes[1]).abs().max() < ITERATIVE
