"""Least squares by products alone: LSMR is the pseudo-inverse, Levenberg-Marquardt with it the same fit."""

from __future__ import annotations

import pytest
import torch

from pinnkit.implicit import CG, LSMR, Exact, LevenbergMarquardt, least_squares
from tests.implicit.cases import ITERATIVE, cubic, normal

FREE = LevenbergMarquardt(linear=LSMR())


def products(a):
    return lambda v: (a @ v[..., None])[..., 0], lambda u: (a.mT @ u[..., None])[..., 0]


@pytest.mark.parametrize("shape", [(9, 5), (5, 9), (6, 6)], ids=str)
@pytest.mark.parametrize("damping", [0.0, 1e-2, 1.0])
def test_lsmr_is_the_damped_pseudo_inverse(shape, damping):
    """(J^T J + mu |J v|^2)^-1 J^T r, the shortest minimiser without damping, for a batch."""
    a, r = normal(3, *shape), normal(3, shape[0], seed=1)
    mu = torch.full((3,), damping, dtype=a.dtype)
    push, pull = products(a)
    d, reached = LSMR().solve(push, pull, r, mu, mu >= 0, rtol=1e-13)
    v = pull(r)
    size = (push(v).square().sum(1) / v.square().sum(1))[:, None, None]
    eye = torch.eye(shape[1], dtype=a.dtype)
    if damping:
        exact = torch.linalg.solve(a.mT @ a + damping * size * eye, v[..., None])[..., 0]
    else:
        exact = (torch.linalg.pinv(a) @ r[..., None])[..., 0]
    assert reached.all() and (d - exact).abs().max() < ITERATIVE * exact.abs().max()


def test_lsmr_does_not_square_the_condition_number():
    """Condition 1e6: the pseudo-inverse to 1e-8, of which J^T J in double precision knows nothing."""
    n = 12
    q, _ = torch.linalg.qr(normal(2, 20, n))
    p, _ = torch.linalg.qr(normal(2, n, n, seed=1))
    a = q @ torch.diag(torch.logspace(0, -6, n, dtype=q.dtype)) @ p
    x = normal(2, n, seed=2)
    push, pull = products(a)
    zero = torch.zeros(2, dtype=a.dtype)
    d, reached = LSMR(max_steps=4000).solve(push, pull, push(x), zero, zero == 0, rtol=1e-22)
    assert reached.all() and (d - x).abs().max() < 1e-8


def test_samples_of_lsmr_stop_one_by_one():
    """k different singular values take k steps; neighbours and idle samples change nothing."""
    s = torch.ones(4, 12, dtype=torch.float64)
    for k in range(4):
        s[k] = 1 + torch.arange(12) % (k + 1)
    r, zero = normal(4, 12), torch.zeros(4, dtype=torch.float64)
    scaled = lambda s: lambda v: s * v
    active = torch.tensor([True, True, False, True])
    d, _ = LSMR().solve(scaled(s), scaled(s), r, zero, active, rtol=1e-13)
    assert (d[active] - (r / s)[active]).abs().max() < ITERATIVE and not d[2].any()
    for k in (0, 1, 3):
        one = s[k : k + 1]
        alone, _ = LSMR().solve(
            scaled(one), scaled(one), r[k : k + 1], zero[:1], zero[:1] == 0, rtol=1e-13
        )
        assert torch.equal(alone[0], d[k])


def misfit(z, y):
    t = torch.linspace(0, 2, y.shape[1], dtype=y.dtype)
    return z[:, :1] * torch.exp(-z[:, 1:2] * t) + z[:, 2:3] * torch.cos(z[:, 3:4] * t) - y


def test_without_a_matrix_the_fit_is_the_same():
    """Four coefficients, noise: values, records and exact gradients as with singular values."""
    y = misfit(
        torch.tensor([[2.0, 1.5, 0.5, 4.0], [1.0, 0.7, -0.4, 3.0]]).double(), normal(2, 25) * 0
    )
    y = (y + 0.02 * normal(2, 25)).requires_grad_()
    start = torch.tensor([[1.5, 1.0, 0.4, 3.7], [1.0, 1.0, -0.3, 3.2]]).double()
    fits = [least_squares(misfit, start, y, solver=s) for s in (LevenbergMarquardt(), FREE)]
    assert all(record.converged.all() for _, record in fits)
    assert (fits[0][0] - fits[1][0]).abs().max() < ITERATIVE
    slopes = [torch.autograd.grad(z.sum(), y)[0] for z, _ in fits]
    assert (slopes[0] - slopes[1]).abs().max() < 1e-7


def test_many_unknowns_need_no_matrix():
    """2 x 4000 unknowns, 8000 residuals each: their Jacobians alone would take half a gigabyte."""
    n = 4000
    a = normal(2, n, seed=3)

    def r(z, a):
        return torch.cat([z**3 + z - a, 0.1 * (z - z.roll(1, 1))], 1)

    z, record = least_squares(r, torch.zeros_like(a), a)
    assert record.converged.all()
    gradient = (3 * z**2 + 1) * (z**3 + z - a) + 0.01 * (2 * z - z.roll(1, 1) - z.roll(-1, 1))
    assert gradient.abs().max() < 1e-9


def test_gradients_of_a_large_fit_are_exact():
    """300 unknowns, a poor fit: conjugate gradients on all second derivatives, against a dense solve."""
    n = 300
    a = normal(1, n, seed=4).requires_grad_()

    def r(z, a):
        return torch.cat([torch.sin(z) - 0.1 * a, 0.5 * (z - z.roll(1, 1)) - 0.1], 1)

    z, record = least_squares(r, torch.zeros(1, n, dtype=a.dtype), a)
    assert record.converged.all()
    weights = normal(1, n, seed=5)
    (g,) = torch.autograd.grad((weights * z).sum(), a)
    z = z.detach()[0]

    def loss(z, a):
        return 0.5 * r(z[None], a[None]).square().sum()

    hessian = torch.func.jacrev(torch.func.grad(loss))(z, a.detach()[0])
    mixed = torch.func.jacrev(torch.func.grad(loss), argnums=1)(z, a.detach()[0])
    exact = -(torch.linalg.solve(hessian, weights[0]) @ mixed)
    assert (g[0] - exact).abs().max() < ITERATIVE * exact.abs().max()


def test_ill_conditioned_fits_do_not_stop_too_early():
    """Singular values over three decades: a small damped step is no proof, the undamped one is."""
    scale = torch.logspace(0, -3, 10, dtype=torch.float64)
    y = normal(2, 10, seed=6)
    z, record = least_squares(
        lambda z, y: torch.sinh(scale * z) - y, torch.zeros_like(y), y, solver=FREE
    )
    assert record.converged.all()
    assert (scale * z - torch.asinh(y)).abs().max() < 1e-9


def test_a_hopeless_sample_leaves_the_others_alone():
    """nan from the second step on in sample 1; too few products in all: honest, and no exception."""
    a = torch.tensor([[2.0], [3.0]], dtype=torch.float64)

    def r(z, a):
        return cubic(z, a) + torch.where((a > 2.5) & (z != 0), torch.nan, 0)

    z, record = least_squares(r, torch.zeros_like(a), a, solver=FREE)
    assert record.converged.tolist() == [True, False] and torch.isfinite(z).all()
    few = LevenbergMarquardt(linear=LSMR(max_steps=1))
    scale = torch.logspace(0, -3, 10, dtype=torch.float64)
    _, record = least_squares(lambda z: scale * z - 1, torch.zeros(1, 10).double(), solver=few)
    assert not record.converged.any()


def test_the_adjoint_may_be_chosen():
    """As everywhere, `Exact(linear=)`."""
    a = normal(2, 3, seed=7, grad=True)
    z, _ = least_squares(
        cubic, torch.zeros(2, 3).double(), a, solver=FREE, backward=Exact(linear=CG())
    )
    slope = 1 / (3 * z.detach() ** 2 + 1)
    assert (torch.autograd.grad(z.sum(), a)[0] - slope).abs().max() < ITERATIVE


def test_products_are_asked_for_by_their_class():
    with pytest.raises(TypeError, match=r"linear=CG\(.*must be LSMR\(\) or None"):
        LevenbergMarquardt(linear=CG())  # pyright: ignore
