"""The kernels as gpytorch kernels, for people with a gpytorch model of their own.

In    a `ProductKernel` or a single mixture.
Out   a `gpytorch.kernels.Kernel` that shares its parameters.
Next  `gpytorch.models.ExactGP`.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pinnkit.errors import MissingDependencyError
from pinnkit.gp.kernels import ProductKernel, SpectralMixture

__all__ = ["as_gpytorch"]


def as_gpytorch(kernel: ProductKernel | SpectralMixture) -> Any:
    """The kernel behind gpytorch's interface; gpytorch is imported here and nowhere else."""
    try:
        from gpytorch.kernels import Kernel
    except ImportError as missing:
        raise MissingDependencyError(
            "as_gpytorch needs gpytorch: pip install gpytorch"
        ) from missing
    product = kernel if isinstance(kernel, ProductKernel) else ProductKernel(kernel)

    class SpectralMixtureKernel(Kernel):
        """Our closed forms under gpytorch's calling convention."""

        def __init__(self) -> None:
            super().__init__()
            self.product = product

        def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **params: Any) -> Tensor:
            if diag:
                columns = [
                    factor.derivative(x1[..., k] - x2[..., k])  # type: ignore[operator]
                    for k, factor in enumerate(self.product.factors)
                ]
            else:
                columns = [
                    factor.derivative(x1[..., :, None, k] - x2[..., None, :, k])  # type: ignore[operator]
                    for k, factor in enumerate(self.product.factors)
                ]
            total = columns[0]
            for column in columns[1:]:
                total = total * column
            return total

    return SpectralMixtureKernel()
