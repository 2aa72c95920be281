"""Geometric Brownian motion: the final value from irregular early observations."""

from __future__ import annotations

import numpy as np
import sympy as sp

import pinnkit as pk

__all__ = ["GeometricBrownianMotion"]

t = pk.coords("t")
W, X = pk.wiener("W", t), pk.control("X", t)


@pk.problem
class GeometricBrownianMotion(pk.ProblemClass):
    """dx = drift x dt + noise x dW, x(0) = 1; log x(1) is to be told from observations before 1/2.

    Each series has its own times. Given the last observation x(s), log x(1) is normal with mean
    log x(s) + (drift - noise^2 / 2) (1 - s) and variance noise^2 (1 - s): the mean of the latter is the
    `floor` of the mean square error.

    Args:
        drift, noise: Of the process.
        paths, observations: Number of series, and of times in each.
        dim: Components of the latent state.
        seed: Names the series.
    """

    drift: float = 0.5
    noise: float = 0.4
    paths: int = 400
    observations: int = 10
    dim: int = 8
    seed: int = 0
    citation = "P. E. Kloeden, E. Platen: Numerical Solution of Stochastic Differential Equations. Springer, 1992."

    def series(self, seed: int, paths: int | None = None) -> pk.IrregularSeries:
        """Sampled exactly; take another seed for a test set."""
        n, k = self.paths if paths is None else paths, self.observations
        rng = np.random.default_rng(seed)
        times = np.sort(rng.uniform(0, 0.5, (n, k)), axis=1)
        whole = np.concatenate([times, np.ones((n, 1))], axis=1)
        gaps = np.diff(whole, axis=1, prepend=0.0)
        mean = (self.drift - self.noise**2 / 2) * gaps
        log_x = np.cumsum(mean + self.noise * np.sqrt(gaps) * rng.normal(size=(n, k + 1)), axis=1)
        values = np.exp(log_x[:, :k, None])
        return pk.IrregularSeries(list(times), values, targets=log_x[:, -1])

    def best(self, series: pk.IrregularSeries) -> np.ndarray:  # shape: (N, 1)
        """The conditional mean, which no predictor beats."""
        rate = self.drift - self.noise**2 / 2
        pairs = zip(series.times, series.values, strict=True)
        return np.array([[np.log(x[-1, 0]) + rate * (1 - s[-1])] for s, x in pairs])

    @property
    def floor(self) -> float:
        """The mean square error of `best`: the last of k uniform times is k / (k + 1) of 1/2 on average."""
        k = self.observations
        return self.noise**2 * (1 - 0.5 * k / (k + 1))

    def declare(self) -> pk.SDESystem:
        """Noise in proportion to the state: the linear-noise class."""
        z = pk.process("z", t, dim=self.dim)
        gamma = pk.neural("gamma", inputs=(t, z, X))
        sigma = pk.neural("sigma", inputs=(t,))
        equation = sp.Eq(pk.d(z), gamma * pk.d(t) + sigma * z * pk.d(W))
        return pk.SDESystem([equation], data=self.series(self.seed))
