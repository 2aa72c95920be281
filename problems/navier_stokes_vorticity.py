"""Incompressible flow on the torus: velocity and vorticity, as in the causal paper."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

from ._torus_flow import CITATION, start_vorticity

__all__ = ["NavierStokesVorticity"]

t, x, y = pk.coords("t x y")
u, v, w = pk.field("u v w", t, x, y)


@pk.problem
class NavierStokesVorticity(pk.ProblemClass):
    """w_t + u w_x + v w_y = lap w / Re, u_x + v_y = 0, w = v_x - u_y, periodic on [0, 2 pi]^2.

    Only w is prescribed at the start; u and v have no time derivative and follow from w at every
    instant by two first-order equations, up to a uniform flow. That flow stands in the transport,
    so it must be said that its mean is zero. Small residuals of div and curl spread over the whole
    torus. w starts from a fixed sum of ten vortices with rms speed 1.

    Args:
        Re: Reynolds number, with unit speed and length 1 (the box has 2 pi).
        T: Final time.
    """

    Re: float = 100.0
    T: float = 1.0
    citation = CITATION

    def declare(self) -> pk.PDESystem:
        """Transport of vorticity, div and curl of the velocity, the vortices, no mean flow."""
        return pk.PDESystem(
            [
                w.diff(t) + u * w.diff(x) + v * w.diff(y) - pk.laplacian(w) / self.Re,
                u.diff(x) + v.diff(y),
                w - v.diff(x) + u.diff(y),
            ],
            domain=pk.Interval(t, 0, self.T) * pk.Box((x, y), (0, 0), (2 * sp.pi, 2 * sp.pi)),
            conditions=[
                pk.Initial(w, start_vorticity(x, y)),
                *(pk.Periodic(f, axis) for f in (u, v, w) for axis in (x, y)),
                pk.Integral(u, over=(x, y), equals=0),
                pk.Integral(v, over=(x, y), equals=0),
            ],
        )
