"""The nonlinear Klein-Gordon equation with a manufactured solution."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

__all__ = ["KleinGordon"]

t, x = pk.coords("t x")
u = pk.field("u", t, x)


@pk.problem
class KleinGordon(pk.ProblemClass):
    """u_tt - u_xx + u^3 = f on [0, 1], with u = x cos(5 pi t) + (x t)^3.

    Fast in time at one end, slow at the other; the losses of the equation and of the conditions
    differ by four orders of magnitude, which plain PINNs never balance.

    Args:
        T: Final time.
    """

    T: float = 1.0
    citation = (
        "S. Wang, Y. Teng, P. Perdikaris: Understanding and mitigating gradient flow pathologies in "
        "physics-informed neural networks. SIAM J. Sci. Comput. 43 (2021) A3055, arXiv:2001.04536."
    )

    def declare(self) -> pk.PDESystem:
        """The equation with its manufactured source, and the solution's own conditions."""
        made = _made()
        source = made.diff(t, 2) - made.diff(x, 2) + made**3
        return pk.PDESystem(
            [u.diff(t, 2) - u.diff(x, 2) + u**3 - source],
            domain=pk.Interval(t, 0, self.T) * pk.Interval(x, 0, 1),
            conditions=[
                pk.Initial(u, made.subs(t, 0)),
                pk.Initial(u.diff(t), made.diff(t).subs(t, 0)),
                pk.Dirichlet(u, made.subs(x, 0), on=pk.boundary(x, "left")),
                pk.Dirichlet(u, made.subs(x, 1), on=pk.boundary(x, "right")),
            ],
        )

    def exact(self) -> dict[sp.Expr, sp.Expr]:
        """The function the source was made for."""
        return {u: _made()}


def _made() -> sp.Expr:
    return x * sp.cos(5 * sp.pi * t) + (x * t) ** 3
