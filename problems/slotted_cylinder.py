"""A cylinder with a slot carried once round by solid-body rotation."""

from __future__ import annotations

import math

import sympy as sp

import pinnkit as pk

__all__ = ["SlottedCylinder"]

t, x, y = pk.coords("t x y")
u = pk.field("u", t, x, y)


@pk.problem
class SlottedCylinder(pk.ProblemClass):
    """u_t - omega y u_x + omega x u_y = 0 on [-1, 1]^2, u = 0 where the flow enters, a slotted disc at (0, 0.5).

    u = 1 in the disc of radius 0.3 except for a slot of width 0.1 that is open below and ends at
    y = 0.7; u = 0 elsewhere. The published shape in a square of twice the side. Its edges are
    jumps: what is measured is how much of them survives a turn.

    Exact: the disc, turned by omega t.

    Args:
        omega: Angular velocity; the default makes one turn in unit time.
        T: Final time.
    """

    omega: float = 2 * math.pi
    T: float = 1.0
    citation = (
        "S. T. Zalesak: Fully multidimensional flux-corrected transport algorithms for fluids. "
        "J. Comput. Phys. 31 (1979) 335."
    )

    def declare(self) -> pk.PDESystem:
        """The equation, the disc, and nothing coming in."""
        return pk.PDESystem(
            [u.diff(t) - self.omega * y * u.diff(x) + self.omega * x * u.diff(y)],
            domain=pk.Interval(t, 0, self.T) * pk.Box((x, y), (-1, -1), (1, 1)),
            conditions=[
                pk.Initial(u, _slotted_disc(x, y)),
                pk.Dirichlet(u, 0, on=pk.boundary(x, "left", where=y < 0)),
                pk.Dirichlet(u, 0, on=pk.boundary(x, "right", where=y > 0)),
                pk.Dirichlet(u, 0, on=pk.boundary(y, "left", where=x > 0)),
                pk.Dirichlet(u, 0, on=pk.boundary(y, "right", where=x < 0)),
            ],
        )

    def exact(self) -> dict[sp.Expr, sp.Expr]:
        """The disc, turned back to where it started."""
        c, s = sp.cos(self.omega * t), sp.sin(self.omega * t)
        return {u: _slotted_disc(c * x + s * y, c * y - s * x)}


def _slotted_disc(a: sp.Expr, b: sp.Expr) -> sp.Expr:
    """1 in the disc and outside its slot, else 0."""
    disc = a**2 + (b - sp.Rational(1, 2)) ** 2 <= sp.Rational(9, 100)
    slot = sp.And(a >= -sp.Rational(1, 20), a <= sp.Rational(1, 20), b <= sp.Rational(7, 10))
    return sp.Piecewise((0, slot), (1, disc), (0, True))
