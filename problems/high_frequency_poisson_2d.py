"""Poisson's equation on a square with a fast solution."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

__all__ = ["HighFrequencyPoisson2D"]

x, y = pk.coords("x y")
u = pk.field("u", x, y)


@pk.problem
class HighFrequencyPoisson2D(pk.ProblemClass):
    """u_xx + u_yy = f on [0, 2 pi]^2, u = 0 on the boundary, u = sin(k x) sin(k y).

    Ten thousand cells of a checkerboard: a grid that resolves them has 400 points per side.

    Args:
        k: Frequency in both directions, an integer.
    """

    k: int = 100
    citation = (
        "S. Fang et al.: Solving High Frequency and Multi-Scale PDEs with Gaussian Processes. "
        "ICLR 2024, arXiv:2311.04465."
    )

    def declare(self) -> pk.PDESystem:
        """The equation with its manufactured source, and the four sides."""
        return pk.PDESystem(
            [pk.laplacian(u) + 2 * self.k**2 * self.exact()[u]],
            domain=pk.Box((x, y), (0, 0), (2 * sp.pi, 2 * sp.pi)),
            conditions=[
                pk.Dirichlet(u, 0, on=pk.boundary(x)),
                pk.Dirichlet(u, 0, on=pk.boundary(y)),
            ],
        )

    def exact(self) -> dict[sp.Expr, sp.Expr]:
        """The checkerboard."""
        return {u: sp.sin(self.k * x) * sp.sin(self.k * y)}
