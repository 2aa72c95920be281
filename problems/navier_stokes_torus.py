"""Decaying two-dimensional turbulence from random vorticities on the unit torus."""

from __future__ import annotations

import math

import pinnkit as pk

__all__ = ["NavierStokesTorus"]

t, x, y = pk.coords("t x y")
psi, w = pk.field("psi w", t, x, y)
w0 = pk.given("w0", x, y)


@pk.problem
class NavierStokesTorus(pk.FamilyClass):
    """w_t + v . grad w = nu lap w, -lap psi = w, v = (psi_y, -psi_x), periodic on [0, 1]^2, w(0) = w0.

    w0 is a Gaussian field of mean 0 whose covariance is exp(-sum_i sin^2(pi d_i)/(2 l^2)) with l = 0.8 in
    distances d along the axes: `GaussianField` with length = l/pi. Vortices of unit strength stretch each
    other into filaments of width about sqrt(nu).

    Args:
        nu: Viscosity.
        T: Final time.
        length: l.
    """

    nu: float = 1e-4
    T: float = 5.0
    length: float = 0.8
    citation = (
        "N. Chalapathi, Y. Du, A. Krishnapriyan: Scaling physics-informed hard constraints with "
        "mixture-of-experts. ICLR 2024, arXiv:2402.13412."
    )

    def declare(self) -> pk.PDEFamily:
        """Transport of vorticity by its own streamfunction."""
        system = pk.PDESystem(
            [
                w.diff(t)
                + psi.diff(y) * w.diff(x)
                - psi.diff(x) * w.diff(y)
                - self.nu * pk.laplacian(w),
                pk.laplacian(psi) + w,
            ],
            domain=pk.Interval(t, 0, self.T) * pk.Box((x, y), (0, 0), (1, 1)),
            conditions=[
                pk.Initial(w, w0),
                *(pk.Periodic(f, axis) for f in (psi, w) for axis in (x, y)),
                pk.Gauge(psi, mean=0),
            ],
        )
        law = pk.GaussianField(length=self.length / math.pi, periodic=True, zero_mean=True)
        return pk.PDEFamily(system, inputs={w0: law})
