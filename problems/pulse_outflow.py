"""A Gaussian pulse that runs into a wall held at zero and forms a layer there."""

from __future__ import annotations

import math

import sympy as sp

import pinnkit as pk

__all__ = ["PulseOutflow"]

t, x = pk.coords("t x")
u = pk.field("u", t, x)


@pk.problem
class PulseOutflow(pk.ProblemClass):
    """u_t + (1 + 0.5 sin x) u_x = nu u_xx on [0, 2 pi], u = 0 on both sides, a Gaussian pulse at x = pi.

    The Peclet number is 2 pi / nu. Characteristics leave through x = 2 pi, yet diffusion wants a
    value there: a layer of thickness nu appears as soon as the pulse arrives, at t = 4.8. A frame
    that moves with the flow has lost those particles; a fixed frame has to resolve the layer.

    Args:
        nu: Diffusivity.
        width: Width of the pulse.
        T: Final time.
    """

    nu: float = 2 * math.pi / 100
    width: float = 0.3
    T: float = 5.0
    citation = (
        "H.-G. Roos, M. Stynes, L. Tobiska: Robust numerical methods for singularly perturbed "
        "differential equations. Springer, 2008."
    )

    def declare(self) -> pk.PDESystem:
        """The equation on the line, open at neither end."""
        return pk.PDESystem(
            [u.diff(t) + (1 + sp.sin(x) / 2) * u.diff(x) - self.nu * u.diff(x, 2)],
            domain=pk.Interval(t, 0, self.T) * pk.Interval(x, 0, 2 * sp.pi),
            conditions=[
                pk.Initial(u, sp.exp(-(((x - sp.pi) / self.width) ** 2))),
                pk.Dirichlet(u, 0, on=pk.boundary(x)),
            ],
        )
