"""Incompressible flow on the torus: vorticity and streamfunction."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

from ._torus_flow import CITATION, start_vorticity

__all__ = ["NavierStokesStreamfunction"]

t, x, y = pk.coords("t x y")
w, psi = pk.field("w", t, x, y), pk.field("psi", t, x, y)


@pk.problem
class NavierStokesStreamfunction(pk.ProblemClass):
    """w_t + psi_y w_x - psi_x w_y = lap w / Re, -lap psi = w, periodic on [0, 2 pi]^2.

    The velocity is (psi_y, -psi_x), so that no flow is ever compressible and none has a mean. psi
    has no time derivative: it needs no initial condition and follows w at once everywhere, which
    is what a network weighted in time has to learn, too. Its level means nothing and a gauge fixes
    it. w starts from a fixed sum of ten vortices with rms speed 1, whose filaments are thinned by
    shear until viscosity stops it.

    Args:
        Re: Reynolds number, with unit speed and length 1 (the box has 2 pi).
        T: Final time.
    """

    Re: float = 100.0
    T: float = 1.0
    citation = CITATION

    def declare(self) -> pk.PDESystem:
        """Transport of vorticity, the streamfunction's Poisson equation, the vortices."""
        transport = psi.diff(y) * w.diff(x) - psi.diff(x) * w.diff(y)
        return pk.PDESystem(
            [
                w.diff(t) + transport - pk.laplacian(w) / self.Re,
                pk.laplacian(psi) + w,
            ],
            domain=pk.Interval(t, 0, self.T) * pk.Box((x, y), (0, 0), (2 * sp.pi, 2 * sp.pi)),
            conditions=[
                pk.Initial(w, start_vorticity(x, y)),
                *(pk.Periodic(f, axis) for f in (w, psi) for axis in (x, y)),
                pk.Gauge(psi, mean=0),
            ],
        )
