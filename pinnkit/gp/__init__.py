"""Gaussian processes with spectral-mixture kernels: kernels, their square roots, grid algebra."""

from pinnkit.gp.features import KernelBasis, TrigonometricBasis, axis_basis, compress
from pinnkit.gp.gaussian_process import GaussianProcessApproximation
from pinnkit.gp.interop import as_gpytorch
from pinnkit.gp.kernels import GaussianMixture, ProductKernel, SpectralMixture, StudentMixture
from pinnkit.gp.kronecker import (
    KroneckerCovariance,
    kron_apply,
    toeplitz,
    toeplitz_matvec,
    truncated_eigenbasis,
)
from pinnkit.gp.posterior import Conditioned, condition

__all__ = [
    "Conditioned",
    "GaussianMixture",
    "GaussianProcessApproximation",
    "KernelBasis",
    "KroneckerCovariance",
    "ProductKernel",
    "SpectralMixture",
    "StudentMixture",
    "TrigonometricBasis",
    "as_gpytorch",
    "axis_basis",
    "compress",
    "condition",
    "kron_apply",
    "toeplitz",
    "toeplitz_matvec",
    "truncated_eigenbasis",
]
