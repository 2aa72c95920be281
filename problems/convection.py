"""Fast convection around a ring, a published failure of plain PINNs."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

__all__ = ["Convection"]

t, x = pk.coords("t x")
u = pk.field("u", t, x)


@pk.problem
class Convection(pk.ProblemClass):
    """u_t + beta u_x = 0 on [0, 2 pi], periodic, u(0, x) = sin(x).

    For beta = 50 the profile goes round eight times within the time span. Plain PINNs end in the
    zero solution (relative error near 1); 2.0e-2 is the best general-purpose figure we know of.

    Exact: sin(x - beta t).

    Args:
        beta: Speed.
        T: Final time.
    """

    beta: float = 50.0
    T: float = 1.0
    citation = (
        "A. Krishnapriyan, A. Gholami, S. Zhe, R. Kirby, M. W. Mahoney: Characterizing possible "
        "failure modes in physics-informed neural networks. NeurIPS 2021, arXiv:2109.01050."
    )

    def declare(self) -> pk.PDESystem:
        """The equation on the ring."""
        return pk.PDESystem(
            [u.diff(t) + self.beta * u.diff(x)],
            domain=pk.Interval(t, 0, self.T) * pk.Interval(x, 0, 2 * sp.pi),
            conditions=[pk.Initial(u, sp.sin(x)), pk.Periodic(u, x)],
        )

    def exact(self) -> dict[sp.Expr, sp.Expr]:
        """The profile, turned by beta t."""
        return {u: sp.sin(x - self.beta * t)}
