"""The stochastic Lorenz system: where a noisy chaotic path goes, from how it began."""

from __future__ import annotations

import numpy as np
import sympy as sp

import pinnkit as pk

__all__ = ["StochasticLorenz"]

t = pk.coords("t")
W, X = pk.wiener("W", t), pk.control("X", t)


@pk.problem
class StochasticLorenz(pk.ProblemClass):
    """dx = 10 (y - x) dt + noise x dW1, dy = (x (28 - z) - y) dt + noise y dW2, dz = (x y - 8/3 z) dt + noise z dW3.

    Observed at irregular times up to T / 2, with noise; the target is the state at T. Starts are standard
    normal, so the paths have just found the attractor. Chaos doubles an error about every 0.8, and the
    noise is not seen: nobody predicts the target exactly, but the mean of all targets is far worse
    than what can be known.

    Args:
        noise: Of the process, in proportion to the state.
        T: Time of the target.
        paths, observations: Number of series, and of times in each.
        blur: Standard deviation of the observations.
        dim: Components of the latent state.
        seed: Names the series.
    """

    noise: float = 0.15
    T: float = 1.0
    paths: int = 400
    observations: int = 20
    blur: float = 0.1
    dim: int = 16
    seed: int = 0
    citation = (
        "X. Li, T.-K. L. Wong, R. T. Q. Chen, D. Duvenaud: Scalable Gradients for Stochastic "
        "Differential Equations. AISTATS 2020, arXiv:2001.01328."
    )

    def series(self, seed: int, paths: int | None = None) -> pk.IrregularSeries:
        """Simulated by Euler-Maruyama with 1000 steps; take another seed for a test set."""
        n, steps = self.paths if paths is None else paths, 1000
        rng = np.random.default_rng(seed)
        h = self.T / steps
        path = np.empty((steps + 1, n, 3))
        path[0] = rng.normal(size=(n, 3))
        for i in range(steps):
            x, y, z = path[i].T
            drift = np.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z], axis=1)
            shock = self.noise * np.sqrt(h) * rng.normal(size=(n, 3))
            path[i + 1] = path[i] + drift * h + path[i] * shock
        seen = [rng.choice(steps // 2, self.observations, replace=False) for _ in range(n)]
        places = np.sort(seen, axis=1)
        clean = path[places, np.arange(n)[:, None]]
        values = clean + self.blur * rng.normal(size=clean.shape)
        return pk.IrregularSeries(list(h * places), list(values), targets=path[-1])

    def declare(self) -> pk.SDESystem:
        """Linear noise: the class that has the right noise."""
        z = pk.process("z", t, dim=self.dim)
        gamma = pk.neural("gamma", inputs=(t, z, X))
        sigma = pk.neural("sigma", inputs=(t,))
        equation = sp.Eq(pk.d(z), gamma * pk.d(t) + sigma * z * pk.d(W))
        return pk.SDESystem([equation], data=self.series(self.seed))
