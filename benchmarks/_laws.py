"""Ordinary equations with terms to be learned, other than Lotka-Volterra's: some are polynomials, some not.

In    a seed, which names the noise.
Out   a `Law`: what is declared, how long it was observed, the truth to twice that.
Next  `benchmarks/missing_term.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from scipy.integrate import solve_ivp

import pinnkit as pk

__all__ = ["LAWS", "Law"]

t = pk.coords("t")
x, y = pk.field("x", t), pk.field("y", t)


@final
@dataclass(frozen=True, eq=False)
class Law:
    """`truth` gives (n, fields) at times to 2 T, in the order of `names`."""

    system: Any
    T: float
    names: tuple[str, ...]
    truth: Callable[[np.ndarray], np.ndarray]


def _orbit(rate: Any, start: list[float], end: float) -> Any:
    return solve_ivp(rate, (0, end), start, rtol=1e-10, atol=1e-12, dense_output=True).sol


def van_der_pol(seed: int) -> Law:
    """x'' = -x + (1 - x^2) x': the damping is unknown, a cubic; 61 points, noise 0.02."""
    end, g = 6.0, pk.neural("damping", inputs=(x, x.diff(t)))
    orbit = _orbit(lambda _, z: [z[1], (1 - z[0] ** 2) * z[1] - z[0]], [1.0, 0.0], 2 * end)
    return _oscillator(seed, x.diff(t, 2) + x - g, orbit, end, 61, 0.02)


def friction(seed: int) -> Law:
    """x'' = -x - 0.3 tanh(8 x'): nearly dry friction is unknown, no polynomial; 81 points, noise 0.02."""
    end, g = 8.0, pk.neural("friction", inputs=(x.diff(t),))
    orbit = _orbit(lambda _, z: [z[1], -z[0] - 0.3 * np.tanh(8 * z[1])], [2.5, 0.0], 2 * end)
    return _oscillator(seed, x.diff(t, 2) + x - g, orbit, end, 81, 0.02)


def pendulum(seed: int) -> Law:
    """x'' = -sin(x), swinging to 2.6: the force is unknown; 81 points, noise 0.05."""
    end, g = 12.0, pk.neural("force", inputs=(x,))
    orbit = _orbit(lambda _, z: [z[1], -np.sin(z[0])], [2.6, 0.0], 2 * end)
    return _oscillator(seed, x.diff(t, 2) - g, orbit, end, 81, 0.05)


def saturating_predator(seed: int) -> Law:
    """x' = x (1 - x/5) - e, y' = e - 0.6 y, e = x y / (1 + x/2): oscillations that grow; 101 points, 5 %.

    Twice as far the orbit has left what was observed: nothing but the right form can tell how.
    """
    end = 20.0

    def rate(_: float, z: np.ndarray) -> list[float]:
        eaten = z[0] * z[1] / (1 + 0.5 * z[0])
        return [z[0] * (1 - z[0] / 5) - eaten, eaten - 0.6 * z[1]]

    orbit = _orbit(rate, [1.0, 1.3], 2 * end)
    times = np.linspace(0, end, 101)
    clean = orbit(times).T
    shocks = np.random.default_rng(seed).normal(size=clean.shape)
    seen = clean + 0.05 * np.sqrt((clean**2).mean(0)) * shocks
    eaten, gained = pk.neural("eaten", inputs=(x, y)), pk.neural("gained", inputs=(x, y))
    system = pk.PDESystem(
        [x.diff(t) - (x * (1 - x / 5) - eaten), y.diff(t) - (gained - 0.6 * y)],
        pk.Interval(t, 0, end),
        [pk.Observations(u, {t: times}, seen[:, i]) for i, u in enumerate((x, y))],
    )
    return Law(system, end, ("x", "y"), lambda at: orbit(at).T)


def _oscillator(seed: int, equation: Any, orbit: Any, end: float, points: int, noise: float) -> Law:
    times = np.linspace(0, end, points)
    seen = orbit(times)[0] + noise * np.random.default_rng(seed).normal(size=points)
    system = pk.PDESystem(
        [equation], pk.Interval(t, 0, end), [pk.Observations(x, {t: times}, seen)]
    )
    return Law(system, end, ("x",), lambda at: orbit(at)[:1].T)


LAWS: dict[str, Callable[[int], Law]] = {
    law.__name__: law for law in (van_der_pol, friction, pendulum, saturating_predator)
}
