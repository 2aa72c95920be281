"""A Gaussian carried once round by solid-body rotation."""

from __future__ import annotations

import math

import sympy as sp

import pinnkit as pk

__all__ = ["RotatingGaussian"]

t, x, y = pk.coords("t x y")
u = pk.field("u", t, x, y)


@pk.problem
class RotatingGaussian(pk.ProblemClass):
    """u_t - omega y u_x + omega x u_y = 0 on [-1, 1]^2, u = 0 where the flow enters, a Gaussian at (0.4, 0).

    The bell exp(-((x - 0.4)^2 + y^2) / width^2) keeps its shape and comes back after 2 pi / omega.
    Grids smear it and networks in a fixed frame have to learn a moving one. After a whole turn an
    answer that never moved is right: look at half time. Every side is entered over one half of its
    length and left over the other; a condition stands on the first half only. The bell is below
    1e-10 on all sides for the default width.

    Exact: the bell around 0.4 (cos omega t, sin omega t).

    Args:
        omega: Angular velocity; the default makes one turn in unit time.
        width: Width of the bell.
        T: Final time.
    """

    omega: float = 2 * math.pi
    width: float = 0.12
    T: float = 1.0
    citation = (
        "R. J. LeVeque: High-resolution conservative algorithms for advection in incompressible "
        "flow. SIAM J. Numer. Anal. 33 (1996) 627."
    )

    def declare(self) -> pk.PDESystem:
        """The equation, the bell, and nothing coming in."""
        return pk.PDESystem(
            [u.diff(t) - self.omega * y * u.diff(x) + self.omega * x * u.diff(y)],
            domain=pk.Interval(t, 0, self.T) * pk.Box((x, y), (-1, -1), (1, 1)),
            conditions=[
                pk.Initial(u, self.exact()[u].subs(t, 0)),
                pk.Dirichlet(u, 0, on=pk.boundary(x, "left", where=y < 0)),
                pk.Dirichlet(u, 0, on=pk.boundary(x, "right", where=y > 0)),
                pk.Dirichlet(u, 0, on=pk.boundary(y, "left", where=x > 0)),
                pk.Dirichlet(u, 0, on=pk.boundary(y, "right", where=x < 0)),
            ],
        )

    def exact(self) -> dict[sp.Expr, sp.Expr]:
        """The bell, turned by omega t."""
        angle = self.omega * t
        a, b = sp.Rational(2, 5) * sp.cos(angle), sp.Rational(2, 5) * sp.sin(angle)
        return {u: sp.exp(-((x - a) ** 2 + (y - b) ** 2) / self.width**2)}
