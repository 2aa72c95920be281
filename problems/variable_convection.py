"""Fast convection around a ring with a speed that varies in space and time."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

__all__ = ["VariableConvection"]

t, x = pk.coords("t x")
u = pk.field("u", t, x)


@pk.problem
class VariableConvection(pk.ProblemClass):
    """u_t + beta (1 + 0.5 sin x cos t) u_x = nu u_xx on [0, 2 pi], periodic, u(0, x) = sin(x).

    As hard as constant convection, eight times round the ring for beta = 50, and without a solution
    to write down: characteristics bunch where the flow slows down.

    Args:
        beta: Mean speed at the start.
        nu: Diffusivity, 0 or small.
        T: Final time.
    """

    beta: float = 50.0
    nu: float = 0.0
    T: float = 1.0
    citation = (
        "R. Mojgani, M. Balajewicz, P. Hassanzadeh: Kolmogorov n-width and Lagrangian "
        "physics-informed neural networks. CMAME 404 (2023) 115810, arXiv:2205.02902."
    )

    def declare(self) -> pk.PDESystem:
        """The equation on the ring."""
        speed = self.beta * (1 + sp.sin(x) * sp.cos(t) / 2)
        return pk.PDESystem(
            [u.diff(t) + speed * u.diff(x) - self.nu * u.diff(x, 2)],
            domain=pk.Interval(t, 0, self.T) * pk.Interval(x, 0, 2 * sp.pi),
            conditions=[pk.Initial(u, sp.sin(x)), pk.Periodic(u, x)],
        )
