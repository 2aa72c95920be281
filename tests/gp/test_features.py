"""Square roots of kernels, truncated bases, the posterior, frequencies."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pinnkit.gp import (
    GaussianMixture,
    GaussianProcessApproximation,
    StudentMixture,
    TrigonometricBasis,
    axis_basis,
    compress,
    condition,
)
from pinnkit.gp.features import StackedBasis, basis_from_state, constant
from pinnkit.gp.frequencies import axis_amplitudes, find_tones, is_resolved, scattered_tones
from pinnkit.gp.gaussian_process import Layout
from pinnkit.gp.posterior import preconditioned_lsqr

EXACT, ROUNDOFF = 1e-12, 1e-8
POINTS = torch.linspace(0.3, 2.3, 41, dtype=torch.float64)


def gaussian(width=1.0):
    return GaussianMixture([0.0, 40.0], [width, 2 * width], [1.0, 0.3]).requires_grad_(False)


@pytest.mark.parametrize("width", [0.3, 3.0, 30.0])
def test_features_are_a_root_of_the_kernel(width):
    """f(x) . f(y) = k(x - y) to rounding, and the same for derivatives up to order 2."""
    kernel = gaussian(width)
    basis = axis_basis(kernel, 0.3, 2.3)
    for i in range(3):
        for j in range(3):
            found = basis(POINTS, i) @ basis(POINTS, j).T
            expected = (-1) ** j * kernel(POINTS, POINTS, i + j)
            assert (found - expected).abs().max() <= EXACT * expected.abs().max()


def test_compressed_features_drop_only_what_is_below_the_tolerance():
    """The truncated basis is much smaller and still the kernel up to tolerance^2."""
    kernel = gaussian()
    basis = axis_basis(kernel, 0.3, 2.3)
    small, values = compress(basis, torch.linspace(0.3, 2.3, 300, dtype=torch.float64), 1e-7)
    assert small.size < basis.size // 3 and len(values) == small.size
    error = small(POINTS) @ small(POINTS).T - kernel(POINTS, POINTS)
    assert error.abs().max() <= 300 * 1e-14 + EXACT


def test_periodic_features_repeat_with_all_derivatives():
    """On a ring values and derivatives at both ends agree exactly; equal modes are merged."""
    basis = axis_basis(gaussian(), 0.0, 2.0, periodic=True)
    ends = torch.tensor([0.0, 2.0], dtype=torch.float64)
    for order in range(4):
        left, right = basis(ends, order)
        assert (left - right).abs().max() <= 1e-11 * (1 + left.abs().max())
    assert isinstance(basis, TrigonometricBasis)
    assert len(torch.unique(basis.frequencies)) == len(basis.frequencies)


def test_student_features_reproduce_the_kernel_on_their_nodes():
    """Kernels without a closed root are projected onto a grid; on it nothing is lost."""
    kernel = StudentMixture([0.0, 9.0], [1.0, 0.2]).requires_grad_(False)
    basis = axis_basis(kernel, 0.0, 1.0, nodes=60)
    x = torch.linspace(0.0, 1.0, 60, dtype=torch.float64)
    assert (basis(x) @ basis(x).T - kernel(x, x)).abs().max() <= ROUNDOFF


def test_stacked_features_are_the_sum_of_their_kernels():
    """Side by side f . f adds; a combination and the state are kept."""
    parts = [GaussianMixture([m], [1.0]).requires_grad_(False) for m in (0.0, 40.0)]
    stack = StackedBasis([axis_basis(p, 0.3, 2.3) for p in parts])
    together = parts[0](POINTS, POINTS) + parts[1](POINTS, POINTS)
    assert (stack(POINTS) @ stack(POINTS).T - together).abs().max() <= EXACT * 4
    half = stack.rotated(0.5 * torch.eye(stack.size, dtype=torch.float64)[:, ::2])
    assert half.size == (stack.size + 1) // 2
    back = basis_from_state(*half.to_state())
    assert torch.equal(back(POINTS, 1), half(POINTS, 1))
    assert torch.allclose(half(POINTS), 0.5 * stack(POINTS)[:, ::2])


@pytest.mark.parametrize("make", [gaussian, lambda: StudentMixture([4.0], [1.0])])
def test_bases_survive_their_state(make):
    """to_state and back: the same numbers bit by bit."""
    basis = axis_basis(make(), 0.0, 1.0, nodes=30)
    spec, tensors = basis.to_state()
    back = basis_from_state(spec, tensors)
    x = torch.linspace(0, 1, 7, dtype=torch.float64)
    assert torch.equal(basis(x, 2), back(x, 2))


def test_posterior_is_the_dense_gaussian_one(gen):
    """Mean, covariance, evidence and effective number against the textbook formulas."""
    rows = torch.randn(30, 12, dtype=torch.float64, generator=gen)
    values = torch.randn(30, dtype=torch.float64, generator=gen)
    prior = torch.linspace(0.5, 2.0, 12, dtype=torch.float64)
    found = condition(rows, values, prior)
    precision = rows.T @ rows + torch.diag(prior**-2)
    covariance = torch.linalg.inv(precision)
    assert torch.allclose(found.mean, covariance @ rows.T @ values, atol=EXACT)
    root = found.covariance_root()
    assert torch.allclose(root @ root.T, covariance, atol=EXACT)
    full = torch.eye(30, dtype=torch.float64) + (rows * prior**2) @ rows.T
    normal = torch.distributions.MultivariateNormal(torch.zeros(30, dtype=torch.float64), full)
    assert found.log_evidence == pytest.approx(float(normal.log_prob(values)), rel=1e-10)
    effective = 12 - float((covariance.diagonal() / prior**2).sum())
    assert found.effective(prior) == pytest.approx(effective, rel=1e-10)


def test_preconditioned_lsqr_is_least_squares(gen):
    """With the factor of a nearby matrix a few iterations reach the solution of the matrix itself."""
    rows = torch.randn(60, 20, dtype=torch.float64, generator=gen)
    nearby = rows + 0.05 * torch.randn(60, 20, dtype=torch.float64, generator=gen)
    right = torch.randn(60, dtype=torch.float64, generator=gen)
    factor = torch.linalg.qr(nearby, mode="r").R
    found, count = preconditioned_lsqr(
        lambda v: rows @ v, lambda w: rows.T @ w, right, factor, tolerance=1e-14, most=60
    )
    expected = torch.linalg.lstsq(rows, right[:, None]).solution[:, 0]
    assert torch.allclose(found, expected, atol=1e-10)
    assert count < 30


def test_process_in_two_coordinates_is_what_its_coefficients_say(gen):
    """Mean, derivative, deviation and samples at points against dense rows; pairs left out are zero."""
    first = axis_basis(gaussian(), 0.0, 1.0)
    nodes = torch.linspace(0, 1, 60, dtype=torch.float64)
    first, _ = compress(first, nodes, 1e-2)
    bases = [first, first]
    r = first.size
    kept = torch.arange(0, r * r, 2)
    layout = Layout([(r, r)], [kept])
    z = torch.randn(len(kept), dtype=torch.float64, generator=gen)
    root = torch.randn(len(kept), 5, dtype=torch.float64, generator=gen)
    process = GaussianProcessApproximation([bases], layout.grids(z), root, layout)
    points = torch.rand(9, 2, dtype=torch.float64, generator=gen)
    outer = torch.einsum("np,nq->npq", first(points[:, 0]), first(points[:, 1], 1)).flatten(1)
    (slope,) = process.derivatives(points, [(0, (0, 1))])
    assert torch.allclose(slope, outer[:, kept] @ z, atol=1e-10)
    rows = torch.einsum("np,nq->npq", first(points[:, 0]), first(points[:, 1])).flatten(1)[:, kept]
    assert torch.allclose(process.std(points, 0), (rows @ root).norm(dim=1), atol=1e-10)
    draws = process.sample(points, 0, 4000, seed=1)
    spread = (draws - draws.mean(0)).T @ (draws - draws.mean(0)) / 3999
    exact = rows @ root @ root.T @ rows.T
    assert (spread - exact).abs().max() <= 0.15 * exact.abs().max()


def test_a_coordinate_a_field_does_not_know():
    """The basis of a missing coordinate is the function 1."""
    x = torch.linspace(0, 1, 5, dtype=torch.float64)
    assert torch.equal(constant()(x), torch.ones(5, 1, dtype=torch.float64))
    assert float(constant()(x, 1).abs().max()) == 0


@pytest.mark.parametrize("tones", [(100.0,), (94.0, 106.0), (20.0, 100.0, 300.0)])
def test_tones_of_a_sum_of_waves(tones):
    """Each frequency is found to a fifth of a bin; close pairs may be one component."""
    length = 2 * math.pi
    x = np.linspace(0, length, 2039)
    waves = np.sum([np.sin(w * x + w) for w in tones], axis=0)
    ((omega, amplitudes),) = axis_amplitudes(waves, [length])
    found = [w for w, _ in find_tones(omega, amplitudes, length, threshold=1e-3)]
    assert is_resolved(amplitudes)
    for w in tones:
        assert min(abs(w - f) for f in found) <= 0.2


def test_an_aliased_wave_is_not_resolved():
    """At 2.2 samples per period the spectrum reaches its upper half."""
    x = np.linspace(0, 1, 200)
    ((_, amplitudes),) = axis_amplitudes(np.sin(2 * np.pi * 90 * x), [1.0])
    assert not is_resolved(amplitudes)


def test_tones_of_scattered_noisy_samples():
    """Two waves under 20 % noise at 200 random places; pure noise has no tones."""
    rng = np.random.default_rng(0)
    x = np.sort(rng.uniform(0, 1, 200))
    values = np.sin(40 * x) + 0.5 * np.cos(90 * x) + 0.2 * rng.normal(size=200)
    found = scattered_tones(x, values, 1.0)
    assert min(abs(f - 40) for f in found) <= 3 and min(abs(f - 90) for f in found) <= 3
    assert scattered_tones(x, rng.normal(size=200), 1.0) == []
