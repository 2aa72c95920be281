"""The Kuramoto-Sivashinsky equation in the chaotic regime."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

__all__ = ["KuramotoSivashinskyChaotic"]

t, x = pk.coords("t x")
u = pk.field("u", t, x)


@pk.problem
class KuramotoSivashinskyChaotic(pk.ProblemClass):
    """u_t + a u u_x + b u_xx + c u_xxxx = 0, periodic on [0, 2 pi], u(0, x) = cos(x) (1 + sin(x)).

    a = 100/16, b = 100/16^2, c = 100/16^4. Neighbouring solutions separate exponentially, so every
    solver loses the trajectory at some time; the published causal network follows it to about
    t = 0.8. Published errors are over t <= 0.5: `remake(T=0.5)`.

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
            + sp.Rational(100, 16) * u * u.diff(x)
            + sp.Rational(100, 16**2) * u.diff(x, 2)
            + sp.Rational(100, 16**4) * u.diff(x, 4)
        )
        return pk.PDESystem(
            [residual],
            domain=pk.Interval(t, 0, self.T) * pk.Interval(x, 0, 2 * sp.pi),
            conditions=[pk.Initial(u, sp.cos(x) * (1 + sp.sin(x))), pk.Periodic(u, x)],
        )
