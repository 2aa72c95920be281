"""Poisson's equation on an interval whose source is known only from noisy sensors."""

from __future__ import annotations

import numpy as np
import sympy as sp

import pinnkit as pk

__all__ = ["NoisySourcePoisson1D"]

x = pk.coords("x")
u, f = pk.field("u", x), pk.field("f", x)


@pk.problem
class NoisySourcePoisson1D(pk.ProblemClass):
    """u'' = f on [0, 2 pi], u = 0 at both ends, f = wave'' only known at scattered noisy sensors.

    The wave is sin(k x), or sin(slow x) cos(k x) where slow is not 0. There may be fewer than two
    sensors per period: at random places no slower wave fits them as well.

    Args:
        k: Fast frequency, an integer.
        slow: Frequency of the envelope, an integer; 0 for the plain wave.
        sensors: Number of readings.
        noise: Standard deviation of their errors, relative to the rms of f.
        seed: Of places and errors.
    """

    k: int = 100
    slow: int = 0
    sensors: int = 200
    noise: float = 0.05
    seed: int = 0
    citation = (
        "S. Fang et al.: Solving High Frequency and Multi-Scale PDEs with Gaussian Processes. "
        "ICLR 2024, arXiv:2311.04465 (waves; the sensors are ours)."
    )

    def declare(self) -> pk.PDESystem:
        """The equation for both fields, the ends of u, the readings of f."""
        rng = np.random.default_rng(self.seed)
        places = rng.uniform(0, 2 * np.pi, self.sensors)
        source = sp.lambdify(x, self.exact()[f], "numpy")
        readings = source(places) + self.deviation() * rng.normal(size=self.sensors)
        return pk.PDESystem(
            [u.diff(x, 2) - f],
            domain=pk.Interval(x, 0, 2 * sp.pi),
            conditions=[
                pk.Dirichlet(u, 0, on=pk.boundary(x)),
                pk.Observations(f, {x: places}, readings, noise=self.deviation()),
            ],
        )

    def deviation(self) -> float:
        """The readings' standard deviation in the units of f."""
        square = sp.integrate(sp.expand(self.exact()[f] ** 2), (x, 0, 2 * sp.pi)) / (2 * sp.pi)
        return self.noise * float(sp.sqrt(square))

    def exact(self) -> dict[sp.Expr, sp.Expr]:
        """The wave and its second derivative."""
        k, slow = sp.Integer(self.k), sp.Integer(self.slow)
        wave = sp.sin(slow * x) * sp.cos(k * x) if slow else sp.sin(k * x)
        return {u: wave, f: sp.diff(wave, x, 2)}
