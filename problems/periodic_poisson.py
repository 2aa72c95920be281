"""Poisson's equation on a torus, known up to a constant."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

__all__ = ["PeriodicPoisson"]

x, y = pk.coords("x y")
u = pk.field("u", x, y)


@pk.problem
class PeriodicPoisson(pk.ProblemClass):
    """-(u_xx + u_yy) = f, periodic on [0, 2 pi]^2, mean of u = 0.

    Singular: any constant solves the homogeneous problem, so the mean is fixed by a gauge, and a
    solution exists only because the mean of f is zero.

    Exact: sin(x) cos(k y) + cos(2 x) / 2.

    Args:
        k: Wave number in y, an integer.
    """

    k: int = 2
    citation = "L. N. Trefethen: Spectral methods in MATLAB. SIAM, 2000."

    def declare(self) -> pk.PDESystem:
        """The equation on the torus, and the gauge."""
        wave = self._wave()
        source = -wave.diff(x, 2) - wave.diff(y, 2)
        return pk.PDESystem(
            [pk.laplacian(u) + source],
            domain=pk.Box((x, y), (0, 0), (2 * sp.pi, 2 * sp.pi)),
            conditions=[pk.Periodic(u, x), pk.Periodic(u, y), pk.Gauge(u, mean=0)],
        )

    def exact(self) -> dict[sp.Expr, sp.Expr]:
        """Two waves of mean zero."""
        return {u: self._wave()}

    def _wave(self) -> sp.Expr:
        return sp.sin(x) * sp.cos(self.k * y) + sp.cos(2 * x) / 2
