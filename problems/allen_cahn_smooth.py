"""The Allen-Cahn equation with initial data that are smooth on the ring."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

__all__ = ["AllenCahnSmooth"]

t, x = pk.coords("t x")
u = pk.field("u", t, x)


@pk.problem
class AllenCahnSmooth(pk.ProblemClass):
    """u_t = d u_xx + 5 (u - u^3), periodic on [-1, 1], u(0, x) = x^2 cos(3 pi x) + x^2.

    As `AllenCahn`, but value and slope of the initial data match at x = +-1: the case to use when
    errors below 1e-5 are to mean something.

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
            conditions=[
                pk.Initial(u, x**2 * sp.cos(3 * sp.pi * x) + x**2),
                pk.Periodic(u, x),
            ],
        )
