"""Poisson's equation on an interval with a fast wave of growing amplitude."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

from ._manufactured import manufactured

__all__ = ["GrowingWavePoisson1D"]

x = pk.coords("x")
u = pk.field("u", x)


@pk.problem
class GrowingWavePoisson1D(pk.ProblemClass):
    """u'' = f on [0, 2 pi], u = x sin(k x).

    No sum of a few pure tones: the amplitude grows along the interval. Two hundred periods.

    Args:
        k: Frequency, radians per unit of length.
    """

    k: float = 200
    citation = (
        "S. Fang et al.: Solving High Frequency and Multi-Scale PDEs with Gaussian Processes. "
        "ICLR 2024, arXiv:2311.04465."
    )

    def declare(self) -> pk.PDESystem:
        """The equation with its manufactured source, and both ends."""
        return manufactured(u.diff(x, 2), self.exact(), pk.Interval(x, 0, 2 * sp.pi))

    def exact(self) -> dict[sp.Expr, sp.Expr]:
        """The manufactured wave."""
        return {u: x * sp.sin(sp.nsimplify(self.k) * x)}
