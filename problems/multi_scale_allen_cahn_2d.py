"""The steady Allen-Cahn equation on a square with three scales per direction."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

__all__ = ["MultiScaleAllenCahn2D"]

x, y = pk.coords("x y")
u = pk.field("u", x, y)


@pk.problem
class MultiScaleAllenCahn2D(pk.ProblemClass):
    """u_xx + u_yy + u (u^2 - 1) = f on [0, length]^2, u = g(x) g(y), g(z) = sin z + sin(20 z)/10 + cos(100 z).

    Nine products of waves, the slow one among them smaller in the source by four orders.

    Args:
        length: Of the sides.
    """

    length: float = 1
    citation = (
        "S. Fang et al.: Solving High Frequency and Multi-Scale PDEs with Gaussian Processes. "
        "ICLR 2024, arXiv:2311.04465."
    )

    def declare(self) -> pk.PDESystem:
        """The equation with its manufactured source, and the four sides."""
        wave = self.exact()[u]
        source = sp.diff(wave, x, 2) + sp.diff(wave, y, 2) + wave * (wave**2 - 1)
        return pk.PDESystem(
            [pk.laplacian(u) + u * (u**2 - 1) - source],
            domain=pk.Box((x, y), (0, 0), (self.length, self.length)),
            conditions=[
                pk.Dirichlet(u, wave, on=pk.boundary(x)),
                pk.Dirichlet(u, wave, on=pk.boundary(y)),
            ],
        )

    def exact(self) -> dict[sp.Expr, sp.Expr]:
        """The product of the two mixtures."""
        return {u: _mixture(x) * _mixture(y)}


def _mixture(z: sp.Symbol) -> sp.Expr:
    return sp.sin(z) + sp.sin(20 * z) / 10 + sp.cos(100 * z)
