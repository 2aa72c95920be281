"""The steady Allen-Cahn equation on an interval with a fast solution."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

from ._manufactured import manufactured

__all__ = ["HighFrequencyAllenCahn1D"]

x = pk.coords("x")
u = pk.field("u", x)


@pk.problem
class HighFrequencyAllenCahn1D(pk.ProblemClass):
    """u'' + u (u^2 - 1) = f on [0, 2 pi], u = sin(k x), or sin(slow x) cos(k x) where slow is not 0.

    The cube puts the frequencies 3 k into the source that the solution does not have.

    Args:
        k: Fast frequency, radians per unit of length.
        slow: Frequency of the envelope; 0 for the plain wave.
    """

    k: float = 100
    slow: float = 0
    citation = (
        "S. Fang et al.: Solving High Frequency and Multi-Scale PDEs with Gaussian Processes. "
        "ICLR 2024, arXiv:2311.04465."
    )

    def declare(self) -> pk.PDESystem:
        """The equation with its manufactured source, and both ends."""
        return manufactured(
            u.diff(x, 2) + u * (u**2 - 1), self.exact(), pk.Interval(x, 0, 2 * sp.pi)
        )

    def exact(self) -> dict[sp.Expr, sp.Expr]:
        """The manufactured wave."""
        k, slow = sp.nsimplify(self.k), sp.nsimplify(self.slow)
        return {u: sp.sin(slow * x) * sp.cos(k * x) if slow else sp.sin(k * x)}
