"""The wave equation on a string."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

__all__ = ["Wave"]

t, x = pk.coords("t x")
u = pk.field("u", t, x)


@pk.problem
class Wave(pk.ProblemClass):
    """u_tt = c^2 u_xx on [0, 1], fixed ends, released at rest from sin(k pi x) + a sin(m pi x).

    Second order in time, and nothing is forgotten: phase errors add up over c k T / 2 periods. An
    overtone (a is its `share`, m its number) turns m / k times as fast, and a network learns the
    slow part long before it. Published: `Wave(c=2, share=0.5)` with m = 4 (jaxpi) and
    `Wave(c=2, overtone=3, share=0.5)` (ProPINN, PINNsFormer).

    Exact: sin(k pi x) cos(c k pi t) + a sin(m pi x) cos(c m pi t).

    Args:
        k: Number of half waves, an integer.
        c: Speed.
        T: Final time.
        overtone: m, the number of half waves of the overtone, an integer.
        share: a, the amplitude of the overtone; 0: none.
    """

    k: int = 1
    c: float = 1.0
    T: float = 1.0
    overtone: int = 4
    share: float = 0.0
    citation = (
        "J. le Rond d'Alembert: Recherches sur la courbe que forme une corde tendue mise en "
        "vibration. Hist. Acad. Sci. Berlin 3 (1747) 214."
    )

    def declare(self) -> pk.PDESystem:
        """The equation, the release and the fixed ends."""
        release = sp.Add(*(a * sp.sin(n * sp.pi * x) for n, a in self._parts()))
        return pk.PDESystem(
            [u.diff(t, 2) - self.c**2 * u.diff(x, 2)],
            domain=pk.Interval(t, 0, self.T) * pk.Interval(x, 0, 1),
            conditions=[
                pk.Initial(u, release),
                pk.Initial(u.diff(t), 0),
                pk.Dirichlet(u, 0, on=pk.boundary(x)),
            ],
        )

    def exact(self) -> dict[sp.Expr, sp.Expr]:
        """One or two standing waves."""
        waves = (
            a * sp.sin(n * sp.pi * x) * sp.cos(self.c * n * sp.pi * t) for n, a in self._parts()
        )
        return {u: sp.Add(*waves)}

    def _parts(self) -> tuple[tuple[int, float], ...]:
        """(number of half waves, amplitude) of the fundamental and, where there is one, the overtone."""
        return ((self.k, 1), (self.overtone, self.share)) if self.share else ((self.k, 1),)
