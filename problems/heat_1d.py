"""The heat equation on a rod."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

__all__ = ["Heat1D"]

t, x = pk.coords("t x")
u = pk.field("u", t, x)


@pk.problem
class Heat1D(pk.ProblemClass):
    """u_t = alpha u_xx on [0, 1], u = 0 at both ends, u(0, x) = sin(pi x).

    The easiest evolution problem there is: linear, smooth, forgetful of its own errors. A solver
    that needs more than seconds here has something wrong with it.

    Exact: exp(-alpha pi^2 t) sin(pi x).

    Args:
        alpha: Diffusivity.
        T: Final time.
    """

    alpha: float = 0.1
    T: float = 1.0
    citation = "J. Fourier: Theorie analytique de la chaleur. Firmin Didot, Paris, 1822."

    def declare(self) -> pk.PDESystem:
        """The equation, the rod and its three conditions."""
        return pk.PDESystem(
            [u.diff(t) - self.alpha * u.diff(x, 2)],
            domain=pk.Interval(t, 0, self.T) * pk.Interval(x, 0, 1),
            conditions=[
                pk.Initial(u, sp.sin(sp.pi * x)),
                pk.Dirichlet(u, 0, on=pk.boundary(x)),
            ],
        )

    def exact(self) -> dict[sp.Expr, sp.Expr]:
        """The first eigenfunction, decaying."""
        return {u: sp.exp(-self.alpha * sp.pi**2 * t) * sp.sin(sp.pi * x)}
