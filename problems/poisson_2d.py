"""Poisson's equation on a square."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

__all__ = ["Poisson2D"]

x, y = pk.coords("x y")
u = pk.field("u", x, y)


@pk.problem
class Poisson2D(pk.ProblemClass):
    """-(u_xx + u_yy) = 2 pi^2 sin(pi x) sin(pi y) on the unit square, u = 0 on its boundary.

    The standard test of second-order optimisers: natural gradients reach 1e-7 here where Adam
    stops near 1e-4.

    Exact: sin(pi x) sin(pi y).
    """

    citation = (
        "J. Mueller, M. Zeinhofer: Achieving high accuracy with PINNs via energy natural gradients. "
        "ICML 2023, arXiv:2302.13163."
    )

    def declare(self) -> pk.PDESystem:
        """The equation and the four sides."""
        source = 2 * sp.pi**2 * sp.sin(sp.pi * x) * sp.sin(sp.pi * y)
        return pk.PDESystem(
            [pk.laplacian(u) + source],
            domain=pk.Box((x, y), (0, 0), (1, 1)),
            conditions=[
                pk.Dirichlet(u, 0, on=pk.boundary(x)),
                pk.Dirichlet(u, 0, on=pk.boundary(y)),
            ],
        )

    def exact(self) -> dict[sp.Expr, sp.Expr]:
        """The first eigenfunction of the square."""
        return {u: sp.sin(sp.pi * x) * sp.sin(sp.pi * y)}
