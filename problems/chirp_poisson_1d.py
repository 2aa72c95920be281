"""Poisson's equation on an interval: a wave that gets faster."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

from ._manufactured import manufactured

__all__ = ["ChirpPoisson1D"]

x = pk.coords("x")
u = pk.field("u", x)


@pk.problem
class ChirpPoisson1D(pk.ProblemClass):
    """u'' = f on [0, 1], u = sin(20 x + rate x^2).

    The frequency runs from 20 to 20 + 2 rate: a band, no line spectrum.

    Args:
        rate: Half the growth of the frequency per unit of length.
    """

    rate: float = 60
    citation = (
        "S. Fang et al.: Solving High Frequency and Multi-Scale PDEs with Gaussian Processes. "
        "ICLR 2024, arXiv:2311.04465 (method; the chirp is ours)."
    )

    def declare(self) -> pk.PDESystem:
        """The equation with its manufactured source, and both ends."""
        return manufactured(u.diff(x, 2), self.exact(), pk.Interval(x, 0, 1))

    def exact(self) -> dict[sp.Expr, sp.Expr]:
        """The chirp."""
        return {u: sp.sin(20 * x + sp.nsimplify(self.rate) * x**2)}
