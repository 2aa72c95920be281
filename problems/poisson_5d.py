"""Poisson's equation in five dimensions, where no grid fits."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

__all__ = ["Poisson5D"]

xs = pk.coords("x1 x2 x3 x4 x5")
u = pk.field("u", *xs)


@pk.problem
class Poisson5D(pk.ProblemClass):
    """-lap u = pi^2 sum_i cos(pi x_i) on the unit cube in five dimensions, u given on its faces.

    Hard for every classical method (a hundred points per axis are 1e10), and so there is no
    reference solve either: only the exact solution can verify an answer.

    Exact: sum_i cos(pi x_i).
    """

    citation = (
        "F. Dangel, J. Mueller, M. Zeinhofer: Kronecker-factored approximate curvature for "
        "physics-informed neural networks. NeurIPS 2024, arXiv:2405.15603."
    )

    def declare(self) -> pk.PDESystem:
        """The equation and the ten faces."""
        solution = sum((sp.cos(sp.pi * xi) for xi in xs), sp.Integer(0))
        return pk.PDESystem(
            [pk.laplacian(u) + sp.pi**2 * solution],
            domain=pk.Box(xs, (0,) * 5, (1,) * 5),
            conditions=[
                pk.Dirichlet(u, solution.subs(xi, end), on=pk.boundary(xi, side))
                for xi in xs
                for side, end in (("left", 0), ("right", 1))
            ],
        )

    def exact(self) -> dict[sp.Expr, sp.Expr]:
        """A sum of functions of one coordinate each."""
        return {u: sum((sp.cos(sp.pi * xi) for xi in xs), sp.Integer(0))}
