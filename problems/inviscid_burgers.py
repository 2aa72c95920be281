"""Inviscid Burgers up to the time at which it breaks, and beyond."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

__all__ = ["InviscidBurgers"]

t, x = pk.coords("t x")
u = pk.field("u", t, x)


@pk.problem
class InviscidBurgers(pk.ProblemClass):
    """u_t + (u^2 / 2)_x = 0 on [0, 2 pi], periodic, u(0, x) = sin(x).

    Characteristics are straight lines, x = x0 + t sin(x0). They cross at t = 1 in x = pi: up to then
    the solution is smooth, afterwards it has a shock there.

    Args:
        T: Final time; 1 is the breaking time.
    """

    T: float = 0.95
    citation = "R. J. LeVeque: Finite volume methods for hyperbolic problems. Cambridge, 2002."

    def declare(self) -> pk.PDESystem:
        """The conservation law on the ring."""
        return pk.PDESystem(
            [u.diff(t) + pk.div(u**2 / 2)],
            domain=pk.Interval(t, 0, self.T) * pk.Interval(x, 0, 2 * sp.pi),
            conditions=[pk.Initial(u, sp.sin(x)), pk.Periodic(u, x)],
        )
