"""The Fisher-KPP equation: a front invading an unstable state."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

__all__ = ["FisherKPP"]

t, x = pk.coords("t x")
u = pk.field("u", t, x)


@pk.problem
class FisherKPP(pk.ProblemClass):
    """u_t = D u_xx + rho u (1 - u) on [-1, 1], the travelling front of speed 5 sqrt(rho D / 6).

    Ahead of the front u = 0 is unstable: an error there grows like exp(rho t). The front itself is
    a layer of width sqrt(6 D / rho).

    Exact: (1 + exp(x sqrt(rho / (6 D)) - 5 rho t / 6))^(-2).

    Args:
        D: Diffusivity.
        rho: Growth rate.
        T: Final time.
    """

    D: float = 0.01
    rho: float = 5.0
    T: float = 1.0
    citation = (
        "M. J. Ablowitz, A. Zeppetella: Explicit solutions of Fisher's equation for a special wave "
        "speed. Bull. Math. Biol. 41 (1979) 835."
    )

    def declare(self) -> pk.PDESystem:
        """The equation; the front's own values at both ends."""
        front = self._front()
        return pk.PDESystem(
            [u.diff(t) - self.D * u.diff(x, 2) - self.rho * u * (1 - u)],
            domain=pk.Interval(t, 0, self.T) * pk.Interval(x, -1, 1),
            conditions=[
                pk.Initial(u, front.subs(t, 0)),
                pk.Dirichlet(u, front.subs(x, -1), on=pk.boundary(x, "left")),
                pk.Dirichlet(u, front.subs(x, 1), on=pk.boundary(x, "right")),
            ],
        )

    def exact(self) -> dict[sp.Expr, sp.Expr]:
        """The front of Ablowitz and Zeppetella."""
        return {u: self._front()}

    def _front(self) -> sp.Expr:
        steepness = sp.sqrt(self.rho / (6 * sp.Float(self.D)))
        return (1 + sp.exp(steepness * x - sp.Rational(5, 6) * self.rho * t)) ** -2
