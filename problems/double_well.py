"""A particle between two wells: where it ends, from irregular observations of how it starts."""

from __future__ import annotations

import numpy as np
import sympy as sp

import pinnkit as pk

__all__ = ["DoubleWell"]

t = pk.coords("t")
W, X = pk.wiener("W", t), pk.control("X", t)


@pk.problem
class DoubleWell(pk.ProblemClass):
    """dx = (x - x^3) dt + noise dW, x(0) = 0; the label is the well, left or right, at time T.

    Both wells are equally likely, and the density in the long run is in proportion to
    exp((x^2 - x^4 / 2) / noise^2). Observations stop at T / 2: for moderate noise most particles have
    decided by then, the rest cannot be told by anyone.

    Args:
        noise: Of the process.
        T: When the well is looked at.
        paths, observations: Number of series, and of times in each.
        dim: Components of the latent state.
        seed: Names the series.
    """

    noise: float = 0.4
    T: float = 4.0
    paths: int = 400
    observations: int = 10
    dim: int = 8
    seed: int = 0
    citation = "C. W. Gardiner: Handbook of Stochastic Methods. Springer, 2004."

    def series(self, seed: int, paths: int | None = None) -> pk.IrregularSeries:
        """Simulated with 800 steps; take another seed for a test set."""
        n, k, steps = self.paths if paths is None else paths, self.observations, 800
        rng = np.random.default_rng(seed)
        h = self.T / steps
        x = np.zeros((n, steps + 1))
        for i in range(steps):
            now = x[:, i]
            x[:, i + 1] = now + (now - now**3) * h + self.noise * np.sqrt(h) * rng.normal(size=n)
        half = steps // 2
        seen = np.sort([rng.choice(half, k, replace=False) for _ in range(n)], axis=1)
        values = np.take_along_axis(x, seen, axis=1)[:, :, None]
        labels = np.where(x[:, -1] < 0, "left", "right")
        return pk.IrregularSeries(list(h * seen), values, labels=labels)

    def declare(self) -> pk.SDESystem:
        """Additive noise: the Langevin class."""
        z = pk.process("z", t, dim=self.dim)
        gamma = pk.neural("gamma", inputs=(z, X))
        sigma = pk.neural("sigma", inputs=(t,))
        equation = sp.Eq(pk.d(z), gamma * pk.d(t) + sigma * pk.d(W))
        return pk.SDESystem([equation], data=self.series(self.seed))
