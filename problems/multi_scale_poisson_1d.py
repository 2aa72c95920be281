"""Poisson's equation on an interval with three scales in its solution."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

from ._manufactured import manufactured

__all__ = ["MultiScalePoisson1D"]

x = pk.coords("x")
u = pk.field("u", x)


@pk.problem
class MultiScalePoisson1D(pk.ProblemClass):
    """u'' = f on [0, length], u = sin(x) + sin(20 x)/10 + sin(100 x)/20.

    The source hides the slow scale: its three parts have the sizes 1, 40 and 500. On [0, 1] the slow
    wave is less than a period long. (The published text has cos(100 x), the published code sin.)

    Args:
        length: Of the interval; 1 and 2 pi are the published ones.
    """

    length: float = 1
    citation = (
        "S. Fang et al.: Solving High Frequency and Multi-Scale PDEs with Gaussian Processes. "
        "ICLR 2024, arXiv:2311.04465."
    )

    def declare(self) -> pk.PDESystem:
        """The equation with its manufactured source, and both ends."""
        return manufactured(u.diff(x, 2), self.exact(), pk.Interval(x, 0, self.length))

    def exact(self) -> dict[sp.Expr, sp.Expr]:
        """The three waves."""
        return {u: sp.sin(x) + sp.sin(20 * x) / 10 + sp.sin(100 * x) / 20}
