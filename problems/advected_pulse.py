"""A Gaussian pulse carried around a ring at high Peclet number."""

from __future__ import annotations

import math

import sympy as sp

import pinnkit as pk

__all__ = ["AdvectedPulse"]

t, x = pk.coords("t x")
u = pk.field("u", t, x)


@pk.problem
class AdvectedPulse(pk.ProblemClass):
    """u_t + (1 + 0.5 sin x) u_x = nu u_xx on [0, 2 pi], periodic, a Gaussian pulse at x = pi.

    The Peclet number is 2 pi / nu. The pulse widens and narrows with the speed of the flow, so that
    diffusion computed in the moving frame without the Jacobian of the map is visibly wrong.

    Args:
        nu: Diffusivity.
        width: Width of the pulse.
        T: Final time.
    """

    nu: float = 2 * math.pi / 1e4
    width: float = 0.3
    T: float = 1.0
    citation = "R. J. LeVeque: Finite volume methods for hyperbolic problems. Cambridge, 2002."

    def declare(self) -> pk.PDESystem:
        """The equation on the ring."""
        return pk.PDESystem(
            [u.diff(t) + (1 + sp.sin(x) / 2) * u.diff(x) - self.nu * u.diff(x, 2)],
            domain=pk.Interval(t, 0, self.T) * pk.Interval(x, 0, 2 * sp.pi),
            conditions=[
                pk.Initial(u, sp.exp(-(((x - sp.pi) / self.width) ** 2))),
                pk.Periodic(u, x),
            ],
        )
