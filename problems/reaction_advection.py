"""Logistic growth of a bell that is carried fast around a ring."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

__all__ = ["ReactionAdvection"]

t, x = pk.coords("t x")
u = pk.field("u", t, x)


@pk.problem
class ReactionAdvection(pk.ProblemClass):
    """u_t + beta u_x = rho u (1 - u) on [0, 2 pi], periodic, a bell at x = pi.

    Two published failures of plain PINNs in one equation: the fast convection of one and the growth
    of the other, with u = 0 and u = 1 to fall into. Along the characteristics an ordinary
    differential equation is left. The bell is exp(16 (cos(x - pi) - 1) / pi^2): near its top the
    published Gaussian of standard deviation pi/4, and smooth across the seam.

    Exact: h e^(rho t) / (h e^(rho t) + 1 - h), h the bell in x - beta t.

    Args:
        beta: Speed.
        rho: Growth rate.
        T: Final time.
    """

    beta: float = 30.0
    rho: float = 5.0
    T: float = 1.0
    citation = (
        "A. Krishnapriyan, A. Gholami, S. Zhe, R. Kirby, M. W. Mahoney: Characterizing possible "
        "failure modes in physics-informed neural networks. NeurIPS 2021, arXiv:2109.01050."
    )

    def declare(self) -> pk.PDESystem:
        """The equation on the ring."""
        return pk.PDESystem(
            [u.diff(t) + self.beta * u.diff(x) - self.rho * u * (1 - u)],
            domain=pk.Interval(t, 0, self.T) * pk.Interval(x, 0, 2 * sp.pi),
            conditions=[pk.Initial(u, _bell(x)), pk.Periodic(u, x)],
        )

    def exact(self) -> dict[sp.Expr, sp.Expr]:
        """The logistic curve through the initial value at the label x - beta t."""
        carried = _bell(x - self.beta * t)
        grown = carried * sp.exp(self.rho * t)
        return {u: grown / (grown + 1 - carried)}


def _bell(place: sp.Expr) -> sp.Expr:
    """1 at pi, repeated with period 2 pi."""
    return sp.exp(16 * (sp.cos(place - sp.pi) - 1) / sp.pi**2)
