"""Poisson's equation on a square: a modulated wave along each side."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

__all__ = ["MixedPoisson2D"]

x, y = pk.coords("x y")
u = pk.field("u", x, y)


@pk.problem
class MixedPoisson2D(pk.ProblemClass):
    """u_xx + u_yy = f on [0, 2 pi]^2, u = sin(slow x) cos(fast x) + sin(slow y) cos(fast y).

    A sum, where product kernels would rather have a product.

    Args:
        slow: Frequency of the envelopes, an integer.
        fast: Frequency of the carriers, an integer.
    """

    slow: int = 6
    fast: int = 20
    citation = (
        "S. Fang et al.: Solving High Frequency and Multi-Scale PDEs with Gaussian Processes. "
        "ICLR 2024, arXiv:2311.04465."
    )

    def declare(self) -> pk.PDESystem:
        """The equation with its manufactured source, and the four sides."""
        wave = self.exact()[u]
        source = sp.diff(wave, x, 2) + sp.diff(wave, y, 2)
        # Each wave vanishes at the ends of its own axis; written without it, the corners agree
        # exactly instead of up to rounding.
        return pk.PDESystem(
            [pk.laplacian(u) - source],
            domain=pk.Box((x, y), (0, 0), (2 * sp.pi, 2 * sp.pi)),
            conditions=[
                pk.Dirichlet(u, self._wave(y), on=pk.boundary(x)),
                pk.Dirichlet(u, self._wave(x), on=pk.boundary(y)),
            ],
        )

    def exact(self) -> dict[sp.Expr, sp.Expr]:
        """One wave per direction."""
        return {u: self._wave(x) + self._wave(y)}

    def _wave(self, z: sp.Symbol) -> sp.Expr:
        return sp.sin(self.slow * z) * sp.cos(self.fast * z)
