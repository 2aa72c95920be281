"""Burgers' equation, the benchmark everyone quotes."""

from __future__ import annotations

import math

import sympy as sp

import pinnkit as pk

__all__ = ["Burgers"]

t, x = pk.coords("t x")
u = pk.field("u", t, x)


@pk.problem
class Burgers(pk.ProblemClass):
    """u_t + u u_x = nu u_xx on [-1, 1], u = 0 at both ends, u(0, x) = -sin(pi x).

    For nu = 0.01/pi the sine steepens at t = 1/pi into a layer of width about nu at x = 0, which
    uniform sampling points miss. The Cole-Hopf transformation gives the solution as a quotient of
    two integrals, but not as an expression, hence no `exact`.

    Args:
        nu: Viscosity.
        T: Final time.
    """

    nu: float = 0.01 / math.pi
    T: float = 1.0
    citation = (
        "M. Raissi, P. Perdikaris, G. E. Karniadakis: Physics-informed neural networks. "
        "J. Comput. Phys. 378 (2019) 686."
    )

    def declare(self) -> pk.PDESystem:
        """The equation, the sine and the fixed ends."""
        return pk.PDESystem(
            [u.diff(t) + u * u.diff(x) - self.nu * u.diff(x, 2)],
            domain=pk.Interval(t, 0, self.T) * pk.Interval(x, -1, 1),
            conditions=[
                pk.Initial(u, -sp.sin(sp.pi * x)),
                pk.Dirichlet(u, 0, on=pk.boundary(x)),
            ],
        )
