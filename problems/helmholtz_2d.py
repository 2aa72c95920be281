"""Helmholtz' equation on a square."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

__all__ = ["Helmholtz2D"]

x, y = pk.coords("x y")
u = pk.field("u", x, y)


@pk.problem
class Helmholtz2D(pk.ProblemClass):
    """u_xx + u_yy + k^2 u = q on [-1, 1]^2, u = 0 on the boundary.

    The source q is such that u = sin(a pi x) sin(b pi y). The operator is indefinite for large k,
    and the fast direction (b = 4) makes the equation's loss outweigh the boundary's by two orders.

    Args:
        k: Wave number of the operator.
        a: Half waves per unit length in x, an integer.
        b: Half waves per unit length in y, an integer.
    """

    k: float = 1.0
    a: int = 1
    b: int = 4
    citation = (
        "S. Wang, Y. Teng, P. Perdikaris: Understanding and mitigating gradient flow pathologies in "
        "physics-informed neural networks. SIAM J. Sci. Comput. 43 (2021) A3055, arXiv:2001.04536."
    )

    def declare(self) -> pk.PDESystem:
        """The equation with its manufactured source, and the four sides."""
        wave = sp.sin(self.a * sp.pi * x) * sp.sin(self.b * sp.pi * y)
        source = (self.k**2 - (self.a**2 + self.b**2) * sp.pi**2) * wave
        return pk.PDESystem(
            [pk.laplacian(u) + self.k**2 * u - source],
            domain=pk.Box((x, y), (-1, -1), (1, 1)),
            conditions=[
                pk.Dirichlet(u, 0, on=pk.boundary(x)),
                pk.Dirichlet(u, 0, on=pk.boundary(y)),
            ],
        )

    def exact(self) -> dict[sp.Expr, sp.Expr]:
        """The manufactured wave."""
        return {u: sp.sin(self.a * sp.pi * x) * sp.sin(self.b * sp.pi * y)}
