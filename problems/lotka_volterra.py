"""The Lotka-Volterra equations: predators and their prey, known or with the interaction missing."""

from __future__ import annotations

import numpy as np
from scipy.integrate import solve_ivp

import pinnkit as pk

__all__ = ["LotkaVolterra", "MissingInteraction"]

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


@pk.problem
class MissingInteraction(pk.ProblemClass):
    """prey' = a prey - eaten, predator' = gained - g predator: who eats whom is to be learned.

    One noisy trajectory of the Lotka-Volterra equations, about a round and a quarter; two networks of
    prey and predator stand for both interaction terms, and the start is unknown, too. The truth is
    eaten = gained = prey predator (`LotkaVolterra` with b = d = 1), which `sol.read` should find.

    Args:
        a: Growth rate of the prey.
        g: Death rate of the predators.
        T: Length of the observed trajectory.
        points: Number of observation times, equidistant.
        noise: Standard deviation relative to each field's root mean square.
        seed: Names the noise.
    """

    a: float = 1.5
    g: float = 3.0
    T: float = 5.0
    points: int = 101
    noise: float = 0.05
    seed: int = 0
    citation = (
        "C. Rackauckas et al.: Universal Differential Equations for Scientific Machine Learning. "
        "arXiv:2001.04385."
    )

    eaten = pk.neural("eaten", inputs=(prey, predator))
    gained = pk.neural("gained", inputs=(prey, predator))

    def truth(self, times: np.ndarray) -> np.ndarray:
        """The trajectory without noise, (n, 2), at ascending times from 0 on."""

        def rates(_: float, y: np.ndarray) -> list[float]:
            return [self.a * y[0] - y[0] * y[1], y[0] * y[1] - self.g * y[1]]

        span = (0.0, float(times[-1]))
        return solve_ivp(
            rates, span, [1, 1], t_eval=times, rtol=1e-10, atol=1e-12, method="DOP853"
        ).y.T

    def observed(self) -> tuple[np.ndarray, np.ndarray]:
        """Times (n,) and noisy values (n, 2)."""
        times = np.linspace(0, self.T, self.points)
        clean = self.truth(times)
        shocks = np.random.default_rng(self.seed).normal(size=clean.shape)
        return times, clean + self.noise * np.sqrt((clean**2).mean(0)) * shocks

    def declare(self) -> pk.PDESystem:
        """What is known, and the observations."""
        times, values = self.observed()
        return pk.PDESystem(
            [
                prey.diff(t) - (self.a * prey - self.eaten),
                predator.diff(t) - (self.gained - self.g * predator),
            ],
            domain=pk.Interval(t, 0, self.T),
            conditions=[
                pk.Observations(prey, {t: times}, values[:, 0]),
                pk.Observations(predator, {t: times}, values[:, 1]),
            ],
        )
