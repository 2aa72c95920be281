"""The heat equation on a square plate."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

__all__ = ["Heat2D"]

t, x, y = pk.coords("t x y")
u = pk.field("u", t, x, y)


@pk.problem
class Heat2D(pk.ProblemClass):
    """u_t = alpha (u_xx + u_yy) on the unit square, u = 0 on its boundary.

    u(0, x, y) = sin(pi x) sin(pi y). Linear and smooth; what is hard is only that there is one
    coordinate more to sample.

    Exact: exp(-2 alpha pi^2 t) sin(pi x) sin(pi y).

    Args:
        alpha: Diffusivity.
        T: Final time.
    """

    alpha: float = 0.1
    T: float = 1.0
    citation = "J. Fourier: Theorie analytique de la chaleur. Firmin Didot, Paris, 1822."

    def declare(self) -> pk.PDESystem:
        """The equation, the plate and its conditions."""
        return pk.PDESystem(
            [u.diff(t) - self.alpha * pk.laplacian(u)],
            domain=pk.Interval(t, 0, self.T) * pk.Box((x, y), (0, 0), (1, 1)),
            conditions=[
                pk.Initial(u, sp.sin(sp.pi * x) * sp.sin(sp.pi * y)),
                pk.Dirichlet(u, 0, on=pk.boundary(x)),
                pk.Dirichlet(u, 0, on=pk.boundary(y)),
            ],
        )

    def exact(self) -> dict[sp.Expr, sp.Expr]:
        """The first eigenfunction, decaying."""
        decay = sp.exp(-2 * self.alpha * sp.pi**2 * t)
        return {u: decay * sp.sin(sp.pi * x) * sp.sin(sp.pi * y)}
