"""Helmholtz' equation on an interval, without a source."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

__all__ = ["Helmholtz1D"]

x = pk.coords("x")
u = pk.field("u", x)


@pk.problem
class Helmholtz1D(pk.ProblemClass):
    """u'' + k^2 u = 0 on [0, 1], u = cos(k x) + sin(k x) at both ends.

    Nothing in the data oscillates: the frequency is hidden in the operator. The solution is large
    beside its data where k is near a multiple of pi.

    Args:
        k: Wave number.
    """

    k: float = 50
    citation = (
        "S. Fang et al.: Solving High Frequency and Multi-Scale PDEs with Gaussian Processes. "
        "ICLR 2024, arXiv:2311.04465 (method; the problem is a textbook one)."
    )

    def declare(self) -> pk.PDESystem:
        """The equation and both ends."""
        k = sp.nsimplify(self.k)
        return pk.PDESystem(
            [u.diff(x, 2) + k**2 * u],
            domain=pk.Interval(x, 0, 1),
            conditions=[pk.Dirichlet(u, self.exact()[u], on=pk.boundary(x))],
        )

    def exact(self) -> dict[sp.Expr, sp.Expr]:
        """Both waves."""
        k = sp.nsimplify(self.k)
        return {u: sp.cos(k * x) + sp.sin(k * x)}
