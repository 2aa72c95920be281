"""Ornstein-Uhlenbeck paths, predicted one observation ahead: the toy problem with a known floor."""

from __future__ import annotations

import numpy as np
import sympy as sp

import pinnkit as pk

__all__ = ["OrnsteinUhlenbeck"]

t = pk.coords("t")
W, X = pk.wiener("W", t), pk.control("X", t)


@pk.problem
class OrnsteinUhlenbeck(pk.ProblemClass):
    """x_i = x_{i-1} (1 - rate dt) + noise sqrt(dt) N(0, 1), x_0 = 1, on 0, dt, ..., (points - 1) dt.

    The target at every time is the series itself, so a control path that contains x_i before t_i
    (cubic, linear) can copy it: errors near 0 then mean nothing. With a held path the best predictor is
    x_{i-1} (1 - rate dt), whose mean square error is `floor`; no causal model gets below it.

    Args:
        rate, noise: Of the process.
        dt, points: The observation times.
        paths: Number of series.
        dim: Components of the latent state.
        seed: Names the series.
    """

    rate: float = 0.2
    noise: float = 0.1
    dt: float = 0.5
    points: int = 20
    paths: int = 800
    dim: int = 32
    seed: int = 42
    citation = (
        "Y. Oh, D.-Y. Lim, S. Kim: Stable Neural Stochastic Differential Equations in Analyzing "
        "Irregular Time Series Data. ICLR 2024, arXiv:2402.14989."
    )

    def series(self, seed: int, paths: int | None = None) -> pk.IrregularSeries:
        """Paths with themselves as targets; take another seed for a test set."""
        n = self.paths if paths is None else paths
        shocks = np.random.default_rng(seed).normal(size=(n, self.points - 1))
        x = np.ones((n, self.points))
        for i in range(1, self.points):
            step = self.noise * np.sqrt(self.dt) * shocks[:, i - 1]
            x[:, i] = x[:, i - 1] * (1 - self.rate * self.dt) + step
        times = self.dt * np.arange(self.points)
        return pk.IrregularSeries(times, x[:, :, None], targets=list(x[:, :, None]))

    @property
    def floor(self) -> float:
        """Mean square error of the best predictor from the past; x_0 is known."""
        return self.noise**2 * self.dt * (self.points - 1) / self.points

    def declare(self) -> pk.SDESystem:
        """Additive noise: the Langevin class."""
        z = pk.process("z", t, dim=self.dim)
        gamma = pk.neural("gamma", inputs=(z, X))
        sigma = pk.neural("sigma", inputs=(t,))
        equation = sp.Eq(pk.d(z), gamma * pk.d(t) + sigma * pk.d(W))
        return pk.SDESystem([equation], data=self.series(self.seed))
