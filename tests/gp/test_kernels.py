"""Kernels: derivatives against sympy, Toeplitz columns, products, gpytorch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sympy as sp
import torch

from pinnkit.gp import (
    GaussianMixture,
    ProductKernel,
    StudentMixture,
    as_gpytorch,
    toeplitz,
    toeplitz_matvec,
)

EXACT = 1e-12
FREQUENCIES, WIDTHS, WEIGHTS = (0.0, 3.0, 70.0), (0.5, 1.0, 2.0), (1.0, 0.5, 0.2)
KINDS = (GaussianMixture, StudentMixture)


def mixture(kind, dtype=torch.float64):
    return kind(FREQUENCIES, WIDTHS, WEIGHTS).requires_grad_(False).to(dtype)


def formula(kind, z):
    """The kernel for z > 0 in sympy."""
    total = sp.Integer(0)
    for m, s, w in zip(FREQUENCIES, WIDTHS, WEIGHTS, strict=True):
        m, s, w = (sp.nsimplify(v) for v in (m, s, w))
        if kind is GaussianMixture:
            envelope = sp.exp(-s * z**2)
        else:
            a = sp.sqrt(5) * s
            envelope = (1 + a * z + a**2 * z**2 / 3) * sp.exp(-a * z)
        total += w * envelope * sp.cos(m * z)
    return total


@pytest.mark.parametrize("order", range(5))
@pytest.mark.parametrize("kind", KINDS)
def test_derivatives_are_sympys(kind, order):
    """Identity: every order, on both sides of zero; k is even, so odd orders are odd."""
    z = sp.Symbol("z", positive=True)
    places = np.linspace(0.01, 2.0, 17)
    expected = sp.lambdify(z, sp.diff(formula(kind, z), z, order), "numpy")(places)
    right = mixture(kind).derivative(torch.tensor(places), order).numpy()
    left = mixture(kind).derivative(torch.tensor(-places), order).numpy()
    size = np.abs(expected).max()
    assert np.abs(right - expected).max() <= EXACT * size
    assert np.abs(left - (-1) ** order * expected).max() <= EXACT * size


def test_second_derivative_at_zero_is_not_zero():
    """k''(0) = -sum w (2 s + m^2), or -sum w (a^2/3 + m^2): automatic |z| would give the m^2 part or 0."""
    zero = torch.zeros(1, dtype=torch.float64)
    triples = list(zip(FREQUENCIES, WIDTHS, WEIGHTS, strict=True))
    gaussian = -sum(w * (2 * s + m**2) for m, s, w in triples)
    student = -sum(w * (5 * s**2 / 3 + m**2) for m, s, w in triples)
    assert float(mixture(GaussianMixture).derivative(zero, 2)) == pytest.approx(gaussian, rel=EXACT)
    assert float(mixture(StudentMixture).derivative(zero, 2)) == pytest.approx(student, rel=EXACT)


def test_a_gaussian_mixture_has_derivatives_of_any_order():
    """Order 8 against sympy: the recursion does not lose digits."""
    z = sp.Symbol("z", positive=True)
    expected = sp.lambdify(z, sp.diff(formula(GaussianMixture, z), z, 8), "mpmath")(0.3)
    found = mixture(GaussianMixture).derivative(torch.tensor([0.3], dtype=torch.float64), 8)
    assert float(found) == pytest.approx(float(expected), rel=1e-9)


def test_matern_ends_at_its_fourth_derivative():
    """The fifth jumps at zero; asking for it is refused with the way out."""
    with pytest.raises(ValueError, match="4 derivatives, not 5; use GaussianMixture"):
        mixture(StudentMixture).derivative(torch.zeros(1), 5)


@pytest.mark.parametrize("order", range(4))
@pytest.mark.parametrize("kind", KINDS)
def test_first_column_makes_the_matrix(kind, order, gen):
    """Fast path = slow path: Toeplitz from one column, dense and by the FFT; odd orders antisymmetric."""
    n, step = 33, 0.07
    x = step * torch.arange(n, dtype=torch.float64)
    dense = mixture(kind)(x, x, order)
    column = mixture(kind).column(n, step, order)
    odd = order % 2 == 1
    vectors = torch.randn(n, 2, dtype=torch.float64, generator=gen)
    size = dense.abs().max()
    assert (toeplitz(column, odd=odd) - dense).abs().max() <= EXACT * size
    product = toeplitz_matvec(column, vectors, odd=odd)
    assert (product - dense @ vectors).abs().max() <= 1e-11 * size


def test_product_of_three_coordinates():
    """k(x, y) = k1 k2 k3, each with its own mixture, mixed derivatives included."""
    factors = [GaussianMixture([float(k)], [1.0 + k]).requires_grad_(False) for k in range(3)]
    points = torch.linspace(0, 1, 15, dtype=torch.float64).reshape(5, 3)
    product = ProductKernel(*factors)(points, points, orders=(1, 0, 2))
    for i in range(5):
        for j in range(5):
            z = points[i] - points[j]
            one = [
                f.derivative(z[k], order) for k, (f, order) in enumerate(zip(factors, (1, 0, 2)))
            ]
            assert float(product[i, j]) == pytest.approx(float(math.prod(one)), abs=EXACT)


def test_weights_and_widths_are_positive():
    """They are stored as logarithms, so zero is refused where it is written."""
    with pytest.raises(ValueError, match="positive"):
        GaussianMixture([1.0], [0.0])
    with pytest.raises(ValueError, match="as many weights"):
        GaussianMixture([1.0, 2.0], [1.0, 1.0], [1.0])


def test_fits_inside_a_gpytorch_model():
    """The kernel is gpytorch's too: same covariance, and its parameters learn in an ExactGP."""
    gpytorch = pytest.importorskip("gpytorch")
    kernel = ProductKernel(GaussianMixture([9.0], [4.0]))
    x = torch.linspace(0, 1, 40, dtype=torch.float64)[:, None]
    y = torch.sin(10 * x[:, 0])

    class Model(gpytorch.models.ExactGP):
        def __init__(self, likelihood):
            super().__init__(x, y, likelihood)
            self.mean = gpytorch.means.ZeroMean()
            self.covariance = as_gpytorch(kernel)

        def forward(self, points):
            return gpytorch.distributions.MultivariateNormal(
                self.mean(points), self.covariance(points)
            )

    likelihood = gpytorch.likelihoods.GaussianLikelihood().double()
    model = Model(likelihood).double()
    dense = model.covariance(x).to_dense()
    assert (dense - kernel(x, x)).abs().max() <= EXACT
    objective = gpytorch.mlls.ExactMarginalLogLikelihood(likelihood, model)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.05)
    model.train()
    losses = []
    for _ in range(20):
        optimiser.zero_grad()
        loss = -objective(model(x), y)  # type: ignore[operator]
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.1
    assert all(p.grad is not None for p in kernel.parameters())
