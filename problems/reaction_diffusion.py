"""Diffusion and a quadratic reaction driven by a random source."""

from __future__ import annotations

import pinnkit as pk

__all__ = ["ReactionDiffusion"]

t, x = pk.coords("t x")
u = pk.field("u", t, x)
f = pk.given("f", x)


@pk.problem
class ReactionDiffusion(pk.FamilyClass):
    """u_t = D u_xx + k u^2 + f(x) on [0, 1], u = 0 at the start and at both ends, f a Gaussian field.

    The source does not vanish at the ends, where u_t = 0: u_xx jumps at both corners.

    Args:
        D: Diffusivity.
        k: Reaction rate.
        length: Correlation length of the source.
        T: Final time.
    """

    D: float = 0.01
    k: float = 0.01
    length: float = 0.2
    T: float = 1.0
    citation = (
        "S. Wang, H. Wang, P. Perdikaris: Learning the solution operator of parametric partial "
        "differential equations with physics-informed DeepONets. Science Advances 7 (2021) eabi8605."
    )

    def declare(self) -> pk.PDEFamily:
        """The equation with nothing at the start and at the ends."""
        system = pk.PDESystem(
            [u.diff(t) - self.D * u.diff(x, 2) - self.k * u**2 - f],
            domain=pk.Interval(t, 0, self.T) * pk.Interval(x, 0, 1),
            conditions=[pk.Initial(u, 0), pk.Dirichlet(u, 0, on=pk.boundary(x))],
        )
        return pk.PDEFamily(system, inputs={f: pk.GaussianField(length=self.length)})
