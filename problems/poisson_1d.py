"""Poisson's equation on an interval."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

__all__ = ["Poisson1D"]

x = pk.coords("x")
u = pk.field("u", x)


@pk.problem
class Poisson1D(pk.ProblemClass):
    """-u'' = (k pi)^2 sin(k pi x) on [0, 1], u = 0 at both ends.

    Easy for k = 1. The source grows like k^2 while the solution stays of size one, so an error of
    the residual is divided by k^2, and networks learn the large k last (spectral bias).

    Exact: sin(k pi x).

    Args:
        k: Number of half waves, an integer.
    """

    k: int = 1
    citation = (
        "N. Rahaman et al.: On the spectral bias of neural networks. ICML 2019, arXiv:1806.08734."
    )

    def declare(self) -> pk.PDESystem:
        """The equation and both ends."""
        wave = self.k * sp.pi
        return pk.PDESystem(
            [u.diff(x, 2) + wave**2 * sp.sin(wave * x)],
            domain=pk.Interval(x, 0, 1),
            conditions=[pk.Dirichlet(u, 0, on=pk.boundary(x))],
        )

    def exact(self) -> dict[sp.Expr, sp.Expr]:
        """k half waves."""
        return {u: sp.sin(self.k * sp.pi * x)}
