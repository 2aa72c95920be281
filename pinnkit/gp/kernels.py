"""Spectral-mixture kernels of one coordinate, with all the derivatives they have, in closed form.

In    mixtures: weights, frequencies, widths; differences z = x - x'.
Out   k(z) and its derivatives; first columns of Toeplitz matrices; covariance matrices.
Next  `gp.kronecker` multiplies and inverts them, `gp.features` turns them into basis functions.

Derivatives are taken of the signed formulas, never of |z| by automatic differentiation: there
d|z| = sign(z) and sign(0) = 0 would silently put zeros on the diagonal of k''.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["GaussianMixture", "ProductKernel", "SpectralMixture", "StudentMixture"]


class SpectralMixture(nn.Module, ABC):
    """k(z) = sum_q w_q envelope_q(z) cos(m_q z); weights and widths are stored as logarithms.

    Args:
        frequencies: m_q in radians per unit of the coordinate.
        widths: s_q, what they mean is said by the subclass.
        weights: w_q; 1 each where absent.
    """

    frequencies: Tensor
    log_widths: Tensor
    log_weights: Tensor

    def __init__(
        self,
        frequencies: Sequence[float] | Tensor,
        widths: Sequence[float] | Tensor | float,
        weights: Sequence[float] | Tensor | None = None,
    ) -> None:
        super().__init__()
        m = torch.as_tensor(frequencies, dtype=torch.float64).clone().reshape(-1)
        s = torch.as_tensor(widths, dtype=torch.float64).expand(m.shape).clone()
        w = torch.ones_like(m) if weights is None else torch.as_tensor(weights, dtype=m.dtype)
        if w.shape != m.shape or not len(m):
            raise ValueError(f"{len(m)} frequencies need as many weights, got {tuple(w.shape)}")
        if not bool((s > 0).all() and (w > 0).all()):
            raise ValueError("widths and weights of a mixture are positive")
        self.frequencies = nn.Parameter(m)
        self.log_widths = nn.Parameter(s.log())
        self.log_weights = nn.Parameter(w.log())

    @property
    def widths(self) -> Tensor:
        """s_q."""
        return self.log_widths.exp()

    @property
    def weights(self) -> Tensor:
        """w_q."""
        return self.log_weights.exp()

    @abstractmethod
    def derivative(self, z: Tensor, order: int = 0) -> Tensor:
        """d^order k / dz^order at differences z of any shape."""

    def column(self, n: int, step: float, order: int = 0) -> Tensor:  # shape: (n,)
        """First column of the Toeplitz matrix k^(order)(x_i - x_j) on a uniform grid.

        The matrix is symmetric for even orders, antisymmetric for odd ones.
        """
        z = step * torch.arange(n, dtype=torch.float64, device=self.log_weights.device)
        return self.derivative(z, order)

    def forward(self, x: Tensor, y: Tensor, order: int = 0) -> Tensor:
        """The matrix of the order-th derivative by x: (n,), (m,) -> (n, m)."""
        return self.derivative(x.reshape(-1, 1) - y.reshape(1, -1), order)


class GaussianMixture(SpectralMixture):
    """k(z) = sum_q w_q exp(-s_q z^2) cos(m_q z): Gaussians at +-m_q in the spectrum.

    s = 2 pi^2 sigma^2 where sigma is the standard deviation in cycles per unit. Infinitely smooth.
    """

    def derivative(self, z: Tensor, order: int = 0) -> Tensor:
        """d^n/dz^n Re exp(-s z^2 + i m z) by the recursion of Hermite's polynomials.

        With g = -2 s z + i m the factor p_n before the exponential obeys
        p_{n+1} = g p_n - 2 s n p_{n-1}, since p' = -2 s n p_{n-1}.
        """
        z = z.unsqueeze(-1)
        s, m = self.widths, self.frequencies
        envelope = self.weights * torch.exp(-s * z.square())
        phase = torch.complex(torch.cos(m * z), torch.sin(m * z))
        g = torch.complex(-2 * s * z, m.expand_as(envelope))
        before, now = torch.zeros_like(g), torch.ones_like(g)
        for n in range(order):
            before, now = now, g * now - 2 * n * s * before
        return (envelope * (now * phase).real).sum(-1)


class StudentMixture(SpectralMixture):
    """k(z) = sum_q w_q (1 + a|z| + a^2 z^2 / 3) exp(-a|z|) cos(m_q z), a = sqrt(5) rho_q.

    Matern-5/2 envelopes, Student-t densities in the spectrum; the widths are rho, inverse lengths.
    Samples have two derivatives, the kernel four.
    """

    HIGHEST = 4  # the fifth derivative jumps at 0

    def derivative(self, z: Tensor, order: int = 0) -> Tensor:
        """Leibniz' rule over derivatives of the envelope and of the cosine."""
        if order > self.HIGHEST:
            raise ValueError(
                f"a Matern-5/2 kernel has {self.HIGHEST} derivatives, not {order}; "
                "use GaussianMixture for higher equations"
            )
        z = z.unsqueeze(-1)
        m, a = self.frequencies, math.sqrt(5) * self.widths
        total: Tensor | None = None
        for k in range(order + 1):
            j = order - k
            cosine = m**j * torch.cos(m * z + j * math.pi / 2)
            term = math.comb(order, k) * _matern(z, a, k) * cosine
            total = term if total is None else total + term
        assert total is not None
        return (self.weights * total).sum(-1)


def _matern(z: Tensor, a: Tensor, order: int) -> Tensor:
    """The order-th derivative of (1 + a|z| + a^2 z^2/3) exp(-a|z|), right at z = 0 too."""
    r = a * z.abs()
    decay = torch.exp(-r)
    if order == 0:
        return (1 + r + r.square() / 3) * decay
    if order == 1:
        return -(a.square() / 3) * z * (1 + r) * decay
    if order == 2:
        return -(a.square() / 3) * (1 + r - r.square()) * decay
    if order == 3:
        return a**4 / 3 * z * (3 - r) * decay
    return a**4 / 3 * (3 - 5 * r + r.square()) * decay


class ProductKernel(nn.Module):
    """k(x, y) = prod_d k_d(x_d - y_d): a mixture of its own along every coordinate.

    Args:
        factors: One mixture per column of the points.
    """

    def __init__(self, *factors: SpectralMixture) -> None:
        super().__init__()
        if not factors:
            raise ValueError("a product needs at least one factor")
        self.factors = nn.ModuleList(factors)

    def forward(
        self,
        x: Tensor,  # shape: (n, d)
        y: Tensor,  # shape: (m, d)
        orders: Sequence[int] | None = None,
    ) -> Tensor:  # shape: (n, m)
        """The covariance, differentiated `orders` times by the columns of x."""
        orders = orders or (0,) * len(self.factors)
        product: Tensor | None = None
        for k, (factor, order) in enumerate(zip(self.factors, orders, strict=True)):
            part = factor(x[:, k], y[:, k], order)
            product = part if product is None else product * part
        assert product is not None
        return product
