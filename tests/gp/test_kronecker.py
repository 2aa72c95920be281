"""Grid algebra against dense matrices of the full size."""

from __future__ import annotations

import pytest
import torch

from pinnkit.gp import (
    GaussianMixture,
    KroneckerCovariance,
    StudentMixture,
    kron_apply,
    toeplitz,
    truncated_eigenbasis,
)

EXACT, ROUNDOFF = 1e-12, 1e-8
SIZES = (6, 5, 4)


def factors(kind=StudentMixture):
    """One covariance per coordinate."""
    return [
        toeplitz(kind([2.0 * k], [1.0 + k]).requires_grad_(False).column(n, 0.25))
        for k, n in enumerate(SIZES)
    ]


def dense(matrices):
    full = matrices[0]
    for matrix in matrices[1:]:
        full = torch.kron(full, matrix)
    return full


def test_apply_is_the_kronecker_product(gen):
    """(A (x) B (x) C) vec(U), rectangular matrices included."""
    matrices = [torch.randn(n + 1, n, dtype=torch.float64, generator=gen) for n in SIZES]
    grid = torch.randn(SIZES, dtype=torch.float64, generator=gen)
    expected = dense(matrices) @ grid.flatten()
    assert torch.allclose(kron_apply(matrices, grid).flatten(), expected, rtol=0, atol=1e-11)


def test_solve_logdet_and_density_are_the_dense_ones(gen):
    """Three coordinates with noise against the 120 x 120 matrix."""
    noise = 0.1
    covariance = KroneckerCovariance.of(factors(), noise)
    full = dense(factors()) + noise * torch.eye(120, dtype=torch.float64)
    grid = torch.randn(SIZES, dtype=torch.float64, generator=gen)
    solved = torch.linalg.solve(full, grid.flatten())
    assert torch.allclose(covariance.matmul(grid).flatten(), full @ grid.flatten(), atol=1e-10)
    assert torch.allclose(covariance.solve(grid).flatten(), solved, atol=1e-10)
    assert float(covariance.logdet()) == pytest.approx(float(torch.logdet(full)), rel=1e-10)
    normal = torch.distributions.MultivariateNormal(torch.zeros(120, dtype=torch.float64), full)
    expected = float(normal.log_prob(grid.flatten()))
    assert float(covariance.log_density(grid)) == pytest.approx(expected, rel=1e-10)


def test_logdet_keeps_eigenvalues_far_below_one():
    """Noise of 1e-14 under a smooth kernel: its logarithm counts, and is not clamped away."""
    smooth = [toeplitz(GaussianMixture([0.0], [0.5]).requires_grad_(False).column(12, 0.1))]
    noise = 1e-14
    covariance = KroneckerCovariance.of(smooth, noise)
    values = torch.linalg.eigvalsh(smooth[0])
    assert int((values < 1e-12).sum()) >= 2
    big = values[values > 12 * torch.finfo(torch.float64).eps * values[-1]]
    expected = float((big + noise).log().sum()) + (12 - len(big)) * float(
        torch.tensor(noise, dtype=torch.float64).log()
    )
    assert float(covariance.logdet()) == pytest.approx(expected, rel=1e-6)


def test_singular_covariances_are_refused():
    """Without noise a smooth kernel has no inverse in float64; the message says what to do."""
    smooth = [toeplitz(GaussianMixture([0.0], [0.5]).requires_grad_(False).column(40, 0.02))]
    with pytest.raises(ValueError, match="give it noise"):
        KroneckerCovariance.of(smooth).logdet()
    with pytest.raises(ValueError, match="cannot be negative"):
        KroneckerCovariance.of(smooth, -1.0)


def test_samples_have_the_covariance(gen):
    """Empirical second moments of 4,000 draws, within five standard errors of the largest entry."""
    covariance = KroneckerCovariance.of(factors()[:2], 0.01)
    draws = torch.stack([covariance.sample(gen).flatten() for _ in range(4000)])
    full = dense(factors()[:2]) + 0.01 * torch.eye(30, dtype=torch.float64)
    assert (draws.T @ draws / 4000 - full).abs().max() <= 5 * 2**0.5 * full.max() / 4000**0.5


def test_truncated_eigenbasis_gives_the_kernel_back():
    """V Lam V^T differs from K by the eigenvalues that were dropped, and no more."""
    kernel = toeplitz(
        GaussianMixture([0.0, 9.0], [2.0, 2.0]).requires_grad_(False).column(60, 0.03)
    )
    vectors, values = truncated_eigenbasis(kernel, 1e-10)
    assert 4 < len(values) < 40
    assert bool((values[:-1] >= values[1:]).all())
    error = (vectors * values) @ vectors.T - kernel
    assert error.abs().max() <= 1e-10 * 60 * kernel.max()
    assert (
        vectors.T @ vectors - torch.eye(len(values), dtype=torch.float64)
    ).abs().max() <= EXACT * 10
