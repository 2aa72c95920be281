"""The Lotka-Volterra equations: predators and their prey."""

from __future__ import annotations

import pinnkit as pk

__all__ = ["LotkaVolterra"]

t = pk.coords("t")
prey, predator = pk.field("prey", t), pk.field("predator", t)


@pk.problem
class LotkaVolterra(pk.ProblemClass):
    """prey' = (a - b predator) prey, predator' = (d prey - g) predator, both 1 at t = 0.

    Closed orbits around an equilibrium: sharp peaks between long flat stretches, and an error in
    the conserved quantity is never healed. T = 10 is about two and a half rounds.

    Args:
        a: Growth rate of the prey.
        b: Loss of prey per predator.
        d: Gain of predators per prey.
        g: Death rate of the predators.
        T: Final time.
    """

    a: float = 1.5
    b: float = 1.0
    d: float = 1.0
    g: float = 3.0
    T: float = 10.0
    citation = (
        "V. Volterra: Variazioni e fluttuazioni del numero d'individui in specie animali "
        "conviventi. Mem. R. Accad. Lincei 2 (1926) 31."
    )

    def declare(self) -> pk.PDESystem:
        """The two equations and the start."""
        return pk.PDESystem(
            [
                prey.diff(t) - (self.a - self.b * predator) * prey,
                predator.diff(t) - (self.d * prey - self.g) * predator,
            ],
            domain=pk.Interval(t, 0, self.T),
            conditions=[pk.Initial(prey, 1), pk.Initial(predator, 1)],
        )
