"""Advection at high speed through an interval, from initial and inflow data alone."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

__all__ = ["FastAdvection"]

t, x = pk.coords("t x")
u = pk.field("u", t, x)


@pk.problem
class FastAdvection(pk.ProblemClass):
    """u_t + beta u_x = 0 on [0, 1]^2, u(0, x) = sin(x), u(t, 0) = sin(-beta t).

    Slow in space, fast in time: the inflow oscillates beta / 2 pi times. The published code also
    prescribes the final time and the outflow, which answers the question beforehand; not here.

    Args:
        beta: Speed.
    """

    beta: float = 200
    citation = (
        "S. Fang et al.: Solving High Frequency and Multi-Scale PDEs with Gaussian Processes. "
        "ICLR 2024, arXiv:2311.04465."
    )

    def declare(self) -> pk.PDESystem:
        """The equation with initial and inflow data."""
        beta = sp.nsimplify(self.beta)
        return pk.PDESystem(
            [u.diff(t) + beta * u.diff(x)],
            domain=pk.Interval(t, 0, 1) * pk.Interval(x, 0, 1),
            conditions=[
                pk.Initial(u, sp.sin(x)),
                pk.Dirichlet(u, sp.sin(-beta * t), on=pk.boundary(x, "left")),
            ],
        )

    def exact(self) -> dict[sp.Expr, sp.Expr]:
        """The travelling wave."""
        return {u: sp.sin(x - sp.nsimplify(self.beta) * t)}
