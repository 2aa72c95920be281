"""A pulse entering and crossing an interval."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

__all__ = ["Advection"]

t, x = pk.coords("t x")
u = pk.field("u", t, x)


@pk.problem
class Advection(pk.ProblemClass):
    """u_t + c u_x = 0 on [0, 1], a Gaussian pulse moving to the right, inflow at x = 0 only.

    Nothing dissipates: an error made early is carried along. The side the characteristics leave
    through (x = 1 for c > 0) takes no condition; giving one is a classical mistake.

    Exact: exp(-((x - start - c t) / width)^2).

    Args:
        c: Speed, positive.
        start: Centre of the pulse at t = 0.
        width: Width of the pulse.
        T: Final time.
    """

    c: float = 0.5
    start: float = 0.3
    width: float = 0.15
    T: float = 1.0
    citation = "R. J. LeVeque: Finite volume methods for hyperbolic problems. Cambridge, 2002."

    def declare(self) -> pk.PDESystem:
        """The equation, the initial pulse and the inflow."""
        pulse = self._pulse()
        return pk.PDESystem(
            [u.diff(t) + self.c * u.diff(x)],
            domain=pk.Interval(t, 0, self.T) * pk.Interval(x, 0, 1),
            conditions=[
                pk.Initial(u, pulse.subs(t, 0)),
                pk.Dirichlet(u, pulse.subs(x, 0), on=pk.boundary(x, "left")),
            ],
        )

    def exact(self) -> dict[sp.Expr, sp.Expr]:
        """The pulse, moved by c t."""
        return {u: self._pulse()}

    def _pulse(self) -> sp.Expr:
        return sp.exp(-(((x - self.start - self.c * t) / self.width) ** 2))
