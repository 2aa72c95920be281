"""A cantilever under uniform load."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

__all__ = ["EulerBernoulliBeam"]

x = pk.coords("x")
w = pk.field("w", x)


@pk.problem
class EulerBernoulliBeam(pk.ProblemClass):
    """w'''' + load = 0 on [0, 1], clamped at x = 0, free at x = 1.

    w = w' = 0 at the clamp; no moment and no shear force, w'' = w''' = 0, at the free end. Fourth
    order: an error in the residual at the free end is a moment all along the beam.

    Exact: -load x^2 (x^2 - 4 x + 6) / 24.

    Args:
        load: Load per length over the bending stiffness.
    """

    load: float = 1.0
    citation = "S. P. Timoshenko: Strength of materials, part I. Van Nostrand, 1930."

    def declare(self) -> pk.PDESystem:
        """The equation, the clamp and the free end."""
        clamp, free = pk.boundary(x, "left"), pk.boundary(x, "right")
        return pk.PDESystem(
            [w.diff(x, 4) + self.load],
            domain=pk.Interval(x, 0, 1),
            conditions=[
                pk.Dirichlet(w, 0, on=clamp),
                pk.Neumann(w, 0, on=clamp),
                pk.Robin(w.diff(x, 2), 0, on=free),
                pk.Robin(w.diff(x, 3), 0, on=free),
            ],
        )

    def exact(self) -> dict[sp.Expr, sp.Expr]:
        """The quartic of the textbooks."""
        return {w: -self.load * x**2 * (x**2 - 4 * x + 6) / 24}
