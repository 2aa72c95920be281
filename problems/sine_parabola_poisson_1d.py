"""Poisson's equation on an interval: a fast wave on a parabola."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

from ._manufactured import manufactured

__all__ = ["SineParabolaPoisson1D"]

x = pk.coords("x")
u = pk.field("u", x)


@pk.problem
class SineParabolaPoisson1D(pk.ProblemClass):
    """u'' = f on [0, 1], u = sin(k x) - 2 (x - 1/2)^2.

    The parabola's share of the source is 4 beside 250,000: it has to be found all the same.

    Args:
        k: Frequency, radians per unit of length.
    """

    k: float = 500
    citation = (
        "S. Fang et al.: Solving High Frequency and Multi-Scale PDEs with Gaussian Processes. "
        "ICLR 2024, arXiv:2311.04465."
    )

    def declare(self) -> pk.PDESystem:
        """The equation with its manufactured source, and both ends."""
        return manufactured(u.diff(x, 2), self.exact(), pk.Interval(x, 0, 1))

    def exact(self) -> dict[sp.Expr, sp.Expr]:
        """The wave on its parabola."""
        return {u: sp.sin(sp.nsimplify(self.k) * x) - 2 * (x - sp.Rational(1, 2)) ** 2}
