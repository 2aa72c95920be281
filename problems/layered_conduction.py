"""Heat conduction through two layers."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

__all__ = ["LayeredConduction"]

x = pk.coords("x")
u = pk.field("u", x)


@pk.problem
class LayeredConduction(pk.ProblemClass):
    """div(k grad u) = 0 on [0, 1], k jumping from `left` to `right` at x = `seam`; u(0) = 0, u(1) = 1.

    The flux is continuous, the slope is not. Off the seam u'' = 0 holds for u = x too: the wrong
    answer has zero residual almost everywhere, and only the flux form tells the two apart.

    Exact: piecewise linear, flux q = 1 / (seam / left + (1 - seam) / right).

    Args:
        left: Conductivity for x < seam.
        right: Conductivity for x > seam.
        seam: Where the layers meet.
    """

    left: float = 1.0
    right: float = 10.0
    seam: float = 0.5
    citation = "H. S. Carslaw, J. C. Jaeger: Conduction of heat in solids. Oxford, 1959."

    def declare(self) -> pk.PDESystem:
        """The equation in flux form and both ends."""
        k = sp.Piecewise((self.left, x < self.seam), (self.right, True))
        return pk.PDESystem(
            [pk.div(k * pk.grad(u))],
            domain=pk.Interval(x, 0, 1),
            conditions=[
                pk.Dirichlet(u, 0, on=pk.boundary(x, "left")),
                pk.Dirichlet(u, 1, on=pk.boundary(x, "right")),
            ],
        )

    def exact(self) -> dict[sp.Expr, sp.Expr]:
        """Two straight pieces with the same flux."""
        flux = 1 / (self.seam / self.left + (1 - self.seam) / self.right)
        pieces = (flux * x / self.left, x < self.seam), (1 - flux * (1 - x) / self.right, True)
        return {u: sp.Piecewise(*pieces)}
