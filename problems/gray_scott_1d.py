"""The Gray-Scott reaction in one dimension."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

__all__ = ["GrayScott1D"]

t, x = pk.coords("t x")
u, v = pk.field("u", t, x), pk.field("v", t, x)


@pk.problem
class GrayScott1D(pk.ProblemClass):
    """u_t = Du u_xx - u v^2 + F (1 - u), v_t = Dv v_xx + u v^2 - (F + k) v, periodic on [-1, 1].

    v feeds on u and dies without it: u = 1, v = 0 is a stable solution with zero residual, and a
    network that misses the small seed g = exp(8 (cos(pi x) - 1)) in u(0, x) = 1 - g/2,
    v(0, x) = g/4 ends there. The seed ignites near t = 20.

    Args:
        Du: Diffusivity of the substrate u.
        Dv: Diffusivity of the catalyst v.
        F: Feed rate.
        k: Rate at which the catalyst is removed.
        T: Final time.
    """

    Du: float = 1e-3
    Dv: float = 5e-4
    F: float = 0.04
    k: float = 0.06
    T: float = 50.0
    citation = "J. E. Pearson: Complex patterns in a simple system. Science 261 (1993) 189."

    def declare(self) -> pk.PDESystem:
        """The two equations on the ring, and the seed."""
        seed = sp.exp(8 * (sp.cos(sp.pi * x) - 1))
        reaction = u * v**2
        return pk.PDESystem(
            [
                u.diff(t) - self.Du * u.diff(x, 2) + reaction - self.F * (1 - u),
                v.diff(t) - self.Dv * v.diff(x, 2) - reaction + (self.F + self.k) * v,
            ],
            domain=pk.Interval(t, 0, self.T) * pk.Interval(x, -1, 1),
            conditions=[
                pk.Initial(u, 1 - seed / 2),
                pk.Initial(v, seed / 4),
                pk.Periodic(u, x),
                pk.Periodic(v, x),
            ],
        )
