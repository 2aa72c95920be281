"""A bell drawn out into a thread by a swirling flow, and gathered again."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

__all__ = ["SwirlingDeformation"]

t, x, y = pk.coords("t x y")
u = pk.field("u", t, x, y)


@pk.problem
class SwirlingDeformation(pk.ProblemClass):
    """u_t + a u_x + b u_y = 0 on [0, 1]^2, a = sin(pi x)^2 sin(2 pi y) cos(pi t / period), a bell at (0.5, 0.75).

    b = -sin(pi y)^2 sin(2 pi x) cos(pi t / period). The flow has no divergence and turns round at
    half its period: u(period) = u(0), and u(period / 2) is where the answer is hard, a thread wound
    once round for period 5. An answer that never moved is right at the end: look at half time.
    Both speeds vanish on all four sides and repeat beyond them, so that the square is declared
    periodic; nothing crosses its sides. The bell is a Gaussian of the width given, made periodic:
    exp(-(sin(pi (x - 0.5))^2 + sin(pi (y - 0.75))^2) / (pi width)^2).

    Args:
        period: Time after which everything is back; also the final time. 1.5 is mild, 5 is not.
        width: Width of the bell.
    """

    period: float = 1.5
    width: float = 0.15
    citation = (
        "R. J. LeVeque: High-resolution conservative algorithms for advection in incompressible "
        "flow. SIAM J. Numer. Anal. 33 (1996) 627."
    )

    def declare(self) -> pk.PDESystem:
        """The equation on the square and the bell."""
        turning = sp.cos(sp.pi * t / self.period)
        a = sp.sin(sp.pi * x) ** 2 * sp.sin(2 * sp.pi * y) * turning
        b = -(sp.sin(sp.pi * y) ** 2) * sp.sin(2 * sp.pi * x) * turning
        away = (
            sp.sin(sp.pi * (x - sp.Rational(1, 2))) ** 2
            + sp.sin(sp.pi * (y - sp.Rational(3, 4))) ** 2
        )
        return pk.PDESystem(
            [u.diff(t) + a * u.diff(x) + b * u.diff(y)],
            domain=pk.Interval(t, 0, self.period) * pk.Box((x, y), (0, 0), (1, 1)),
            conditions=[
                pk.Initial(u, sp.exp(-away / (sp.pi * self.width) ** 2)),
                pk.Periodic(u, x),
                pk.Periodic(u, y),
            ],
        )
