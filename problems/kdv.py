"""The Korteweg-de Vries equation: a cosine breaks up into solitons."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

__all__ = ["KdV"]

t, x = pk.coords("t x")
u = pk.field("u", t, x)


@pk.problem
class KdV(pk.ProblemClass):
    """u_t + u u_x + delta^2 u_xxx = 0, periodic on [-1, 1], u(0, x) = cos(pi x).

    The cosine steepens and, instead of a shock, sheds a train of solitons; dispersion keeps every
    short wave that an inexact solver creates. Zabusky and Kruskal's delta is 0.022.

    Args:
        delta: Strength of the dispersion (its square multiplies u_xxx).
        T: Final time.
    """

    delta: float = 0.022
    T: float = 1.0
    citation = (
        "N. J. Zabusky, M. D. Kruskal: Interaction of solitons in a collisionless plasma and the "
        "recurrence of initial states. Phys. Rev. Lett. 15 (1965) 240."
    )

    def declare(self) -> pk.PDESystem:
        """The equation on the ring."""
        return pk.PDESystem(
            [u.diff(t) + u * u.diff(x) + self.delta**2 * u.diff(x, 3)],
            domain=pk.Interval(t, 0, self.T) * pk.Interval(x, -1, 1),
            conditions=[pk.Initial(u, sp.cos(sp.pi * x)), pk.Periodic(u, x)],
        )
