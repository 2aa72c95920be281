"""Jacobians of known pattern: the entries are autograd's, the solutions those of dense algebra, derivatives too."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from pinnkit.implicit import Broyden, Exact, Newton, SparseDirect, differentiable, root
from tests.implicit.cases import EXACT, ITERATIVE, normal

# What torch says once about its own forward mode and sparse tensors.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Sparse:UserWarning"),
]


def grid_pattern(n):
    """The five-point neighbours on an n x n grid."""
    k = torch.arange(n * n).reshape(n, n)
    pairs = torch.cat(
        [
            torch.stack([k[1:].flatten(), k[:-1].flatten()]),
            torch.stack([k[:, 1:].flatten(), k[:, :-1].flatten()]),
        ],
        1,
    )
    index = torch.cat([k.flatten().expand(2, -1), pairs, pairs.flip(0)], 1)
    return torch.sparse_coo_tensor(index, torch.ones(index.shape[1]), (n * n, n * n))


def bratu(z, a):
    """-Laplace z = a exp(z) on the unit square, cold sides; samples of shape (n, n)."""
    h = 1 / (z.shape[1] + 1)
    p = torch.nn.functional.pad(z, (1, 1, 1, 1))
    neighbours = p[:, 2:, 1:-1] + p[:, :-2, 1:-1] + p[:, 1:-1, 2:] + p[:, 1:-1, :-2]
    return (4 * z - neighbours) / h**2 - a * torch.exp(z)


def test_bratus_problem_and_its_gradients():
    """Two loads on 6 x 6: value and gradient of Newton with dense matrices; nonsymmetric twist included."""
    linear = SparseDirect(grid_pattern(6))
    a = torch.rand(2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    a.requires_grad_()

    def twisted(z, a):
        return bratu(z, a) + 3 * (z - torch.nn.functional.pad(z, (1, 0))[:, :, :-1])

    zero = torch.zeros(2, 6, 6, dtype=torch.float64)
    both = []
    for chosen in (linear, None):
        z, record = root(
            twisted, zero, a, solver=Newton(linear=chosen), backward=Exact(linear=chosen)
        )
        assert record.converged.all()
        both.append((z, *torch.autograd.grad(z.square().sum(), a, create_graph=True)))
    for found, wanted in zip(*both, strict=True):
        assert (found - wanted).abs().max() < ITERATIVE
    second = [torch.autograd.grad(g.sum(), a, retain_graph=True)[0] for _, g in both]
    assert (second[0] - second[1]).abs().max() < ITERATIVE


def test_derivatives_of_a_chain():
    """Three coupled unknowns with a triangular pattern: first and second, vmap, forward mode."""
    linear = SparseDirect(torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 1, 1]]))
    assert linear.products == 3  # with the transposes

    def equations(z, a):
        x, y, w = z.unbind(1)
        return torch.stack([x + 0.1 * x**3 - a[:, 0], y + x * y / 5 - a[:, 1], w + y**2 - 1], 1)

    def layer(a):
        z0 = torch.zeros(len(a), 3, dtype=a.dtype)
        return root(equations, z0, a, solver=Newton(linear=linear), backward=Exact(linear=linear))[
            0
        ]

    a = normal(2, 2, seed=1, grad=True)
    assert gradcheck(layer, (a,), check_forward_ad=True)
    assert gradgradcheck(layer, (a,))
    many = torch.stack([a.detach(), 2 * a.detach()])
    slope = torch.func.grad(lambda a: layer(a).square().sum())
    assert (torch.vmap(slope)(many)[1] - slope(many[1])).abs().max() < ITERATIVE


def test_a_fine_grid_needs_few_products():
    """2500 unknowns: a dozen products, a gradient, no matrix of six million entries."""
    linear = SparseDirect(grid_pattern(50))
    assert linear.products <= 12
    a = torch.full((1, 50, 50), 2.0, dtype=torch.float64, requires_grad=True)
    z, record = root(
        bratu,
        torch.zeros(1, 50, 50, dtype=torch.float64),
        a,
        solver=Newton(linear=linear),
        backward=Exact(linear=linear),
    )
    assert record.converged.all() and bratu(z, a).abs().max() < 1e-9
    (g,) = torch.autograd.grad(z.sum(), a)
    h = 1e-4
    moved = [
        root(bratu, z.detach(), a.detach() + s * h, solver=Newton(linear=linear))[0].sum()
        for s in (1, -1)
    ]
    assert abs((moved[0] - moved[1]) / (2 * h) - g.sum()) < 1e-6 * g.sum()


def test_broyden_and_decorated_solvers_take_it():
    linear = SparseDirect(torch.eye(4))
    a = normal(3, 4, grad=True)
    equations = lambda z, a: z**3 + 2 * z - a
    z, record = root(equations, torch.zeros_like(a), a, solver=Broyden(linear=linear))
    assert record.converged.all() and equations(z, a).abs().max() < ITERATIVE

    @differentiable(equations, linear=linear)
    def known(a):
        return z.detach()

    y, record = known(a)
    assert record.converged.all()
    slope = torch.autograd.grad(y.sum(), a)[0]
    assert (slope - 1 / (3 * z.detach() ** 2 + 2)).abs().max() < EXACT


def test_one_singular_sample_leaves_the_others_alone():
    """z^2 = a from 0: nothing can be said of the first sample."""
    a = torch.tensor([[1.0], [4.0]], dtype=torch.float64)
    start = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    z, record = root(
        lambda z, a: z**2 - a, start, a, solver=Newton(linear=SparseDirect(torch.eye(1)))
    )
    assert record.converged.tolist() == [False, True] and abs(z[1].item() - 2) < EXACT


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: SparseDirect(torch.ones(2, 3)), r"must be a tensor \(n, n\), not \(2, 3\)"),
        (
            lambda: root(
                lambda z: z + 0.1 * z.roll(1, 1) - 1,
                torch.zeros(1, 5).double(),
                solver=Newton(linear=SparseDirect(torch.eye(5))),
            ),
            "an unknown that the pattern does not name",
        ),
        (
            lambda: root(
                lambda z: z - 1,
                torch.zeros(1, 5).double(),
                solver=Newton(linear=SparseDirect(torch.eye(4))),
            ),
            "the pattern has 4 rows, the samples 5 unknowns",
        ),
    ],
    ids=["shape", "too few entries", "size"],
)
def test_wrong_patterns_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
