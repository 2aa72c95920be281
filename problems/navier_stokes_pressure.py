"""Incompressible flow on the torus: velocity and pressure."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

from ._torus_flow import CITATION, start_velocity

__all__ = ["NavierStokesPressure"]

t, x, y = pk.coords("t x y")
u, v, p = pk.field("u v p", t, x, y)


@pk.problem
class NavierStokesPressure(pk.ProblemClass):
    """u_t + u u_x + v u_y + p_x = lap u / Re, likewise v, u_x + v_y = 0, periodic on [0, 2 pi]^2.

    The flow of `NavierStokesVorticity` in the variables it is usually written in. The pressure has
    no equation of its own: it is whatever keeps the velocity free of divergence, at every instant
    and everywhere at once, and only its gradient is seen, so that a gauge fixes its mean.

    Args:
        Re: Reynolds number, with unit speed and length 1 (the box has 2 pi).
        T: Final time.
    """

    Re: float = 100.0
    T: float = 1.0
    citation = CITATION

    def declare(self) -> pk.PDESystem:
        """Momentum, continuity, the velocity of the vortices, the gauge."""
        u0, v0 = start_velocity(x, y)

        def momentum(f: sp.Expr) -> sp.Expr:
            return f.diff(t) + u * f.diff(x) + v * f.diff(y) - pk.laplacian(f) / self.Re

        return pk.PDESystem(
            [
                momentum(u) + p.diff(x),
                momentum(v) + p.diff(y),
                u.diff(x) + v.diff(y),
            ],
            domain=pk.Interval(t, 0, self.T) * pk.Box((x, y), (0, 0), (2 * sp.pi, 2 * sp.pi)),
            conditions=[
                pk.Initial(u, u0),
                pk.Initial(v, v0),
                *(pk.Periodic(f, axis) for f in (u, v, p) for axis in (x, y)),
                pk.Gauge(p, mean=0),
            ],
        )
