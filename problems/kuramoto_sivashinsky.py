"""The Kuramoto-Sivashinsky equation before chaos sets in."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

__all__ = ["KuramotoSivashinsky"]

t, x = pk.coords("t x")
u = pk.field("u", t, x)


@pk.problem
class KuramotoSivashinsky(pk.ProblemClass):
    """u_t + 5 u u_x + 0.5 u_xx + 0.005 u_xxxx = 0, periodic on [-1, 1], u(0, x) = -sin(pi x).

    The "regular" case. The second derivative feeds, the fourth damps: perturbations with wave
    numbers below 10 grow at rates up to 12.5, so an error of the residual is amplified by orders
    of magnitude on its way to the end, and the time span is best cut into windows.

    Args:
        T: Final time.
    """

    T: float = 1.0
    citation = (
        "S. Wang, S. Sankaran, P. Perdikaris: Respecting causality for training physics-informed "
        "neural networks. Comput. Methods Appl. Mech. Engrg. 421 (2024) 116813, arXiv:2203.07404."
    )

    def declare(self) -> pk.PDESystem:
        """The equation on the ring."""
        residual = (
            u.diff(t)
            + 5 * u * u.diff(x)
            + sp.Rational(1, 2) * u.diff(x, 2)
            + sp.Rational(1, 200) * u.diff(x, 4)
        )
        return pk.PDESystem(
            [residual],
            domain=pk.Interval(t, 0, self.T) * pk.Interval(x, -1, 1),
            conditions=[pk.Initial(u, -sp.sin(sp.pi * x)), pk.Periodic(u, x)],
        )
