"""Poisson's equation on an interval with a fast solution, one tone or two."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

from ._manufactured import manufactured

__all__ = ["HighFrequencyPoisson1D"]

x = pk.coords("x")
u = pk.field("u", x)


@pk.problem
class HighFrequencyPoisson1D(pk.ProblemClass):
    """u'' = f on [0, 2 pi], u = sin(k x), or sin(slow x) cos(k x) where slow is not 0.

    A hundred periods: networks see the source of size k^2 and learn nothing for a long time, and any
    grid or kernel below the Nyquist rate answers with another, slower wave.

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
        return manufactured(u.diff(x, 2), self.exact(), pk.Interval(x, 0, 2 * sp.pi))

    def exact(self) -> dict[sp.Expr, sp.Expr]:
        """The manufactured wave."""
        k, slow = sp.nsimplify(self.k), sp.nsimplify(self.slow)
        return {u: sp.sin(slow * x) * sp.cos(k * x) if slow else sp.sin(k * x)}
