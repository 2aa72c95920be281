"""Flow through a porous square whose permeability is random."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

__all__ = ["Darcy"]

x, y = pk.coords("x y")
p = pk.field("p", x, y)
a = pk.given("a", x, y)


@pk.problem
class Darcy(pk.FamilyClass):
    """-div(a grad p) = 1 on the unit square, p = 0 on its sides, log a a Gaussian field.

    Smooth permeabilities: the published benchmark cuts a rougher field into two values, 12 and 3, which
    jump along curves that no mesh knows.

    Args:
        length: Correlation length of log a.
        spread: Standard deviation of log a.
    """

    length: float = 0.25
    spread: float = 0.5
    citation = (
        "Z. Li, N. Kovachki, K. Azizzadenesheli, B. Liu, K. Bhattacharya, A. Stuart, A. Anandkumar: "
        "Fourier neural operator for parametric partial differential equations. ICLR 2021, "
        "arXiv:2010.08895."
    )

    def declare(self) -> pk.PDEFamily:
        """Darcy's law with a uniform source."""
        system = pk.PDESystem(
            [pk.div(a * pk.grad(p)) + 1],
            domain=pk.Box((x, y), (0, 0), (1, 1)),
            conditions=[
                pk.Dirichlet(p, 0, on=pk.boundary(x)),
                pk.Dirichlet(p, 0, on=pk.boundary(y)),
            ],
        )
        law = pk.GaussianField(length=self.length, std=self.spread, transform=sp.exp)
        return pk.PDEFamily(system, inputs={a: law})
