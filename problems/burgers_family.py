"""Burgers' equation from random periodic starts."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

__all__ = ["BurgersFamily"]

t, x = pk.coords("t x")
k = sp.Symbol("k", real=True)
u = pk.field("u", t, x)
u0 = pk.given("u0", x)


@pk.problem
class BurgersFamily(pk.FamilyClass):
    """u_t + u u_x = nu u_xx, periodic on [0, 1], u0 ~ N(0, 625 (-d_xx + 25)^-2) without its mean.

    Each start steepens into one or two layers of width about nu over their height. The law is that of the
    Fourier neural operator's paper, which has nu = 0.1; 0.01 is what later papers take. The mean of u is
    conserved and only carries the picture along, hence left out.

    Args:
        nu: Viscosity.
        T: Final time.
        modes: Highest Fourier mode of u0.
    """

    nu: float = 0.01
    T: float = 1.0
    modes: int = 64
    citation = (
        "Z. Li, N. Kovachki, K. Azizzadenesheli, B. Liu, K. Bhattacharya, A. Stuart, A. Anandkumar: "
        "Fourier neural operator for parametric partial differential equations. ICLR 2021, "
        "arXiv:2010.08895."
    )

    def declare(self) -> pk.PDEFamily:
        """The equation on the circle."""
        system = pk.PDESystem(
            [u.diff(t) + u * u.diff(x) - self.nu * u.diff(x, 2)],
            domain=pk.Interval(t, 0, self.T) * pk.Interval(x, 0, 1),
            conditions=[pk.Initial(u, u0), pk.Periodic(u, x)],
        )
        law = pk.GaussianField(
            spectrum=625 / (k**2 + 25) ** 2, periodic=True, zero_mean=True, modes=self.modes
        )
        return pk.PDEFamily(system, inputs={u0: law})
