"""The Gray-Scott reaction in two dimensions, as published networks are measured on it."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

__all__ = ["GrayScott2D"]

t, x, y = pk.coords("t x y")
u, v = pk.field("u v", t, x, y)


@pk.problem
class GrayScott2D(pk.ProblemClass):
    """u_t = Du lap u + b (1 - u) - c u v^2, v_t = Dv lap v - d v + c u v^2, on [-1, 1]^2, periodic.

    u(0) = 1 - g(x + 0.05, y + 0.02), v(0) = g(x - 0.05, y - 0.02), with the bell
    g(x, y) = exp(-10 (x^2 + y^2)). Rates of 1000 beside a time span of 2: the first thousandths
    decide whether the seed ignites, and u = 1, v = 0 is a solution with zero residual to fall into.
    The published bells jump by 1e-4 across the seam; here the neighbouring bells of the periodic
    lattice are added, which changes the data by as much near the seam and makes them smooth.

    Args:
        Du: Diffusivity of the substrate u.
        Dv: Diffusivity of the catalyst v.
        b: Feed rate.
        d: Rate at which the catalyst is removed.
        c: Rate of the reaction.
        T: Final time.
    """

    Du: float = 0.2
    Dv: float = 0.1
    b: float = 40.0
    d: float = 100.0
    c: float = 1000.0
    T: float = 2.0
    citation = (
        "S. Wang, B. Li, Y. Chen, P. Perdikaris: PirateNets: physics-informed deep learning with "
        "residual adaptive networks. J. Mach. Learn. Res. 25 (2024) 402, arXiv:2402.00326."
    )

    def declare(self) -> pk.PDESystem:
        """The two equations on the torus, and the two bells."""
        reaction = self.c * u * v**2
        return pk.PDESystem(
            [
                u.diff(t) - self.Du * pk.laplacian(u) - self.b * (1 - u) + reaction,
                v.diff(t) - self.Dv * pk.laplacian(v) + self.d * v - reaction,
            ],
            domain=pk.Interval(t, 0, self.T) * pk.Box((x, y), (-1, -1), (1, 1)),
            conditions=[
                pk.Initial(u, 1 - _bell(x, "0.05") * _bell(y, "0.02")),
                pk.Initial(v, _bell(x, "-0.05") * _bell(y, "-0.02")),
                *(pk.Periodic(f, axis) for f in (u, v) for axis in (x, y)),
            ],
        )


def _bell(axis: sp.Symbol, shift: str) -> sp.Expr:
    """exp(-10 (axis + shift)^2), repeated with period 2; the next neighbours are below 1e-38."""
    return sp.Add(*(sp.exp(-10 * (axis + sp.Rational(shift) + n) ** 2) for n in (-2, 0, 2)))
