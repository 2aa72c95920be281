"""A cooling rod whose conductivity is to be found from noisy sensors."""

from __future__ import annotations

import numpy as np
import sympy as sp

import pinnkit as pk

__all__ = ["RodConductivity"]

t, x = pk.coords("t x")
u = pk.field("u", t, x)
k = pk.parameter("k", initial=0.5, bounds=(0.02, 5))


@pk.problem
class RodConductivity(pk.ProblemClass):
    """u_t = k u_xx on [0, T] x [0, 1], k unknown; u(0, x) = sin(pi x), u = 0 at both ends, noisy readings.

    The readings are exp(-pi^2 k t) sin(pi x) at random places and times with normal errors. No
    unbiased estimate of k can have a smaller standard deviation than `cramer_rao()`.

    Args:
        conductivity: The true k: used to make the readings, told to nobody.
        sensors: Number of readings.
        noise: Standard deviation of their errors.
        seed: Of places, times and errors.
        T: Final time.
    """

    conductivity: float = 0.3
    sensors: int = 100
    noise: float = 0.02
    seed: int = 0
    T: float = 0.3
    citation = (
        "J. V. Beck, B. Blackwell, C. R. St. Clair: Inverse heat conduction. Ill-posed problems. "
        "Wiley, 1985 (the rod is a textbook case; the readings are ours)."
    )

    def declare(self) -> pk.PDESystem:
        """The equation, the rod, the readings."""
        places, readings = self.measure()
        return pk.PDESystem(
            [u.diff(t) - k * u.diff(x, 2)],
            domain=pk.Interval(t, 0, self.T) * pk.Interval(x, 0, 1),
            conditions=[
                pk.Initial(u, sp.sin(sp.pi * x)),
                pk.Dirichlet(u, 0, on=pk.boundary(x)),
                pk.Observations(u, places, readings, noise=self.noise),
            ],
        )

    def measure(self) -> tuple[np.ndarray, np.ndarray]:
        """Places (t, x) and readings: (n, 2), (n,)."""
        rng = np.random.default_rng(self.seed)
        times, spots = rng.uniform(0, self.T, self.sensors), rng.uniform(0, 1, self.sensors)
        readings = self._mode(times, spots) + self.noise * rng.normal(size=self.sensors)
        return np.stack([times, spots], axis=1), readings

    def cramer_rao(self) -> float:
        """noise / |d readings / d k|."""
        times, spots = self.measure()[0].T
        slope = np.pi**2 * times * self._mode(times, spots)
        return self.noise / float(np.linalg.norm(slope))

    def _mode(self, times: np.ndarray, spots: np.ndarray) -> np.ndarray:
        return np.exp(-(np.pi**2) * self.conductivity * times) * np.sin(np.pi * spots)
