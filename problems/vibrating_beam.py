"""A beam on two supports, vibrating."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

__all__ = ["VibratingBeam"]

t, x = pk.coords("t x")
w = pk.field("w", t, x)


@pk.problem
class VibratingBeam(pk.ProblemClass):
    """w_tt + c^2 w_xxxx = 0 on [0, 1], simply supported, released at rest from sin(k pi x).

    w = w_xx = 0 at both ends. Bending waves disperse: the frequency grows with the square of the
    wave number, so the scales of the time and space derivatives are far apart.

    Exact: sin(k pi x) cos(c k^2 pi^2 t).

    Args:
        k: Number of half waves, an integer.
        c: Root of the bending stiffness over the mass per length.
        T: Final time.
    """

    k: int = 1
    c: float = 1.0
    T: float = 1.0
    citation = "S. P. Timoshenko: Vibration problems in engineering. Van Nostrand, 1928."

    def declare(self) -> pk.PDESystem:
        """The equation, the release and the supports."""
        return pk.PDESystem(
            [w.diff(t, 2) + self.c**2 * w.diff(x, 4)],
            domain=pk.Interval(t, 0, self.T) * pk.Interval(x, 0, 1),
            conditions=[
                pk.Initial(w, sp.sin(self.k * sp.pi * x)),
                pk.Initial(w.diff(t), 0),
                pk.Dirichlet(w, 0, on=pk.boundary(x)),
                pk.Robin(w.diff(x, 2), 0, on=pk.boundary(x)),
            ],
        )

    def exact(self) -> dict[sp.Expr, sp.Expr]:
        """A standing wave."""
        return {w: sp.sin(self.k * sp.pi * x) * sp.cos(self.c * (self.k * sp.pi) ** 2 * t)}
