"""The Allen-Cahn equation with the published initial data, kink included."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

__all__ = ["AllenCahn"]

t, x = pk.coords("t x")
u = pk.field("u", t, x)


@pk.problem
class AllenCahn(pk.ProblemClass):
    """u_t = d u_xx + 5 (u - u^3), periodic on [-1, 1], u(0, x) = x^2 cos(pi x).

    Stiff: the reaction drives u to +1 and -1 and leaves layers of width sqrt(d). u = 0 is an
    unstable solution that training likes to fall into. The initial data have slope -2 at x = 1 and
    +2 at x = -1: their periodic extension has a kink, which only diffusion removes, and public
    reference files are wrong by 1e-5 because of it.

    Args:
        d: Diffusivity.
        T: Final time.
    """

    d: float = 1e-4
    T: float = 1.0
    citation = (
        "S. Wang, S. Sankaran, P. Perdikaris: Respecting causality for training physics-informed "
        "neural networks. Comput. Methods Appl. Mech. Engrg. 421 (2024) 116813, arXiv:2203.07404."
    )

    def declare(self) -> pk.PDESystem:
        """The equation on the ring."""
        return pk.PDESystem(
            [u.diff(t) - self.d * u.diff(x, 2) - 5 * (u - u**3)],
            domain=pk.Interval(t, 0, self.T) * pk.Interval(x, -1, 1),
            conditions=[pk.Initial(u, x**2 * sp.cos(sp.pi * x)), pk.Periodic(u, x)],
        )
