"""The sine-Gordon equation: a breather."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

__all__ = ["SineGordon"]

t, x = pk.coords("t x")
u = pk.field("u", t, x)


@pk.problem
class SineGordon(pk.ProblemClass):
    """u_tt = u_xx - sin(u) on [-L, L], a breather of frequency omega.

    A kink and an antikink bound to each other. The breather's own values are given at both ends,
    so it is the exact solution of this very problem, whatever L.

    Exact: 4 atan(s cos(omega t) / (omega cosh(s x))), s = sqrt(1 - omega^2).

    Args:
        omega: Frequency, between 0 and 1.
        L: Half the length of the interval.
        T: Final time.
    """

    omega: float = 0.6
    L: float = 5.0
    T: float = 5.0
    citation = (
        "M. J. Ablowitz, D. J. Kaup, A. C. Newell, H. Segur: Method for solving the sine-Gordon "
        "equation. Phys. Rev. Lett. 30 (1973) 1262."
    )

    def declare(self) -> pk.PDESystem:
        """The equation; the breather's own values at the start and at both ends."""
        breather = self._breather()
        return pk.PDESystem(
            [u.diff(t, 2) - u.diff(x, 2) + sp.sin(u)],
            domain=pk.Interval(t, 0, self.T) * pk.Interval(x, -self.L, self.L),
            conditions=[
                pk.Initial(u, breather.subs(t, 0)),
                pk.Initial(u.diff(t), breather.diff(t).subs(t, 0)),
                pk.Dirichlet(u, breather.subs(x, -self.L), on=pk.boundary(x, "left")),
                pk.Dirichlet(u, breather.subs(x, self.L), on=pk.boundary(x, "right")),
            ],
        )

    def exact(self) -> dict[sp.Expr, sp.Expr]:
        """The breather."""
        return {u: self._breather()}

    def _breather(self) -> sp.Expr:
        s = sp.sqrt(1 - sp.Float(self.omega) ** 2)
        return 4 * sp.atan(s * sp.cos(self.omega * t) / (self.omega * sp.cosh(s * x)))
