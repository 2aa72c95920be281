"""Poisson's equation in a cube with a fast solution."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

__all__ = ["HighFrequencyPoisson3D"]

x, y, z = pk.coords("x y z")
u = pk.field("u", x, y, z)


@pk.problem
class HighFrequencyPoisson3D(pk.ProblemClass):
    """u_xx + u_yy + u_zz = f on [0, 2 pi]^3, u = 0 on the boundary, u = sin(k x) sin(k y) sin(k z).

    Args:
        k: Frequency in all three directions, an integer.
    """

    k: int = 30
    citation = (
        "S. Fang et al.: Solving High Frequency and Multi-Scale PDEs with Gaussian Processes. "
        "ICLR 2024, arXiv:2311.04465 (its two-dimensional problem, with one coordinate more)."
    )

    def declare(self) -> pk.PDESystem:
        """The equation with its manufactured source, and the six sides."""
        return pk.PDESystem(
            [pk.laplacian(u) + 3 * self.k**2 * self.exact()[u]],
            domain=pk.Box((x, y, z), (0, 0, 0), (2 * sp.pi, 2 * sp.pi, 2 * sp.pi)),
            conditions=[pk.Dirichlet(u, 0, on=pk.boundary(c)) for c in (x, y, z)],
        )

    def exact(self) -> dict[sp.Expr, sp.Expr]:
        """A checkerboard in three directions."""
        return {u: sp.sin(self.k * x) * sp.sin(self.k * y) * sp.sin(self.k * z)}
