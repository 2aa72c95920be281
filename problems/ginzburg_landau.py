"""The complex Ginzburg-Landau equation in two dimensions: spiral waves."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

__all__ = ["GinzburgLandau"]

t, x, y = pk.coords("t x y")
A = pk.field("A", t, x, y, complex=True)


@pk.problem
class GinzburgLandau(pk.ProblemClass):
    """A_t = eps lap A + k (A - (1 + 1.5 i) A |A|^2), periodic on [-1, 1]^2.

    A(0) = 10 (i x + y) exp(-25 (x^2 + y^2)): a small vortex in an unstable vacuum. The modulus grows
    like exp(k t) until it is of order one, while the phase turns at a rate of 1.5 k |A|^2 that
    differs from place to place; what starts below a network's error is amplified by exp(10).

    Args:
        k: Rate of growth and of turning.
        eps: Diffusivity (published: k / 2500).
        T: Final time.
    """

    k: float = 10.0
    eps: float = 0.004
    T: float = 1.0
    citation = (
        "S. Wang, B. Li, Y. Chen, P. Perdikaris: PirateNets: physics-informed deep learning with "
        "residual adaptive networks. J. Mach. Learn. Res. 25 (2024) 402, arXiv:2402.00326."
    )

    def declare(self) -> pk.PDESystem:
        """The equation on the torus, and the vortex."""
        growth = A - (1 + sp.Rational(3, 2) * sp.I) * A * A * sp.conjugate(A)
        start = 10 * (sp.I * x + y) * sp.exp(-25 * (x**2 + y**2))
        return pk.PDESystem(
            [A.diff(t) - self.eps * pk.laplacian(A) - self.k * growth],
            domain=pk.Interval(t, 0, self.T) * pk.Box((x, y), (-1, -1), (1, 1)),
            conditions=[pk.Initial(A, start), pk.Periodic(A, x), pk.Periodic(A, y)],
        )
