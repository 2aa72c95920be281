"""A spiral whose law is unknown altogether: the neural ordinary equation everybody begins with."""

from __future__ import annotations

import numpy as np
from scipy.integrate import solve_ivp

import pinnkit as pk

__all__ = ["SpiralODE"]

t = pk.coords("t")
x, y = pk.field("x", t), pk.field("y", t)


@pk.problem
class SpiralODE(pk.ProblemClass):
    """x' = f(x, y), y' = g(x, y); the truth is -damping x^3 + 2 y^3 and -2 x^3 - damping y^3.

    From (2, 0) the orbit winds inwards. Turns are fast at first and slow down like the square of the
    radius, so that a trajectory fitted as a whole from nothing stays a straight line through the middle.

    Args:
        damping: How fast it winds inwards.
        T: Length of the observed trajectory.
        points: Number of observation times, equidistant.
        noise: Standard deviation of the observations.
        seed: Names the noise.
    """

    damping: float = 0.1
    T: float = 10.0
    points: int = 201
    noise: float = 0.02
    seed: int = 0
    citation = (
        "R. T. Q. Chen, Y. Rubanova, J. Bettencourt, D. Duvenaud: Neural Ordinary Differential "
        "Equations. NeurIPS 2018, arXiv:1806.07366."
    )

    f = pk.neural("f", inputs=(x, y))
    g = pk.neural("g", inputs=(x, y))

    def truth(self, times: np.ndarray) -> np.ndarray:
        """The trajectory without noise, (n, 2), at ascending times from 0 on."""

        def rates(_: float, z: np.ndarray) -> list[float]:
            a, b = z**3
            return [-self.damping * a + 2 * b, -2 * a - self.damping * b]

        span = (0.0, float(times[-1]))
        return solve_ivp(
            rates, span, [2, 0], t_eval=times, rtol=1e-10, atol=1e-12, method="DOP853"
        ).y.T

    def declare(self) -> pk.PDESystem:
        """Nothing known but what was observed."""
        times = np.linspace(0, self.T, self.points)
        clean = self.truth(times)
        shocks = np.random.default_rng(self.seed).normal(size=clean.shape)
        values = clean + self.noise * shocks
        return pk.PDESystem(
            [x.diff(t) - self.f, y.diff(t) - self.g],
            domain=pk.Interval(t, 0, self.T),
            conditions=[
                pk.Observations(x, {t: times}, values[:, 0]),
                pk.Observations(y, {t: times}, values[:, 1]),
            ],
        )
