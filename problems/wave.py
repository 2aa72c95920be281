"""The wave equation on a string."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

__all__ = ["Wave"]

t, x = pk.coords("t x")
u = pk.field("u", t, x)


@pk.problem
class Wave(pk.ProblemClass):
    """u_tt = c^2 u_xx on [0, 1], fixed ends, released at rest from sin(k pi x).

    Second order in time, and nothing is forgotten: phase errors add up over c k T / 2 periods.

    Exact: sin(k pi x) cos(c k pi t).

    Args:
        k: Number of half waves, an integer.
        c: Speed.
        T: Final time.
    """

    k: int = 1
    c: float = 1.0
    T: float = 1.0
    citation = (
        "J. le Rond d'Alembert: Recherches sur la courbe que forme une corde tendue mise en "
        "vibration. Hist. Acad. Sci. Berlin 3 (1747) 214."
    )

    def declare(self) -> pk.PDESystem:
        """The equation, the release and the fixed ends."""
        return pk.PDESystem(
            [u.diff(t, 2) - self.c**2 * u.diff(x, 2)],
            domain=pk.Interval(t, 0, self.T) * pk.Interval(x, 0, 1),
            conditions=[
                pk.Initial(u, sp.sin(self.k * sp.pi * x)),
                pk.Initial(u.diff(t), 0),
                pk.Dirichlet(u, 0, on=pk.boundary(x)),
            ],
        )

    def exact(self) -> dict[sp.Expr, sp.Expr]:
        """A standing wave."""
        return {u: sp.sin(self.k * sp.pi * x) * sp.cos(self.c * self.k * sp.pi * t)}
