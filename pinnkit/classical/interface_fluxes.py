"""Conservative differences: (F_(i+1/2) - F_(i-1/2)) / h along one axis, sharp and free of wiggles.

In    node values with ghosts, their fluxes, and the wave speeds between neighbours.
Out   numerical fluxes at the interfaces.
Next  `shock_ladder` sums the differences over the axes.

Both are upwinded by local Lax-Friedrichs splitting: with |f'| <= alpha between the nodes it is
entropy satisfying (of an E-scheme's kind), so that a jump which should fan out does.
`weno5` is the finite difference scheme of Jiang & Shu 1996, eqs. (2.7)-(2.17), of order 5 where the
solution is smooth. `muscl` limits slopes (van Leer 1979) and takes Rusanov's flux between the two
sides of the interface: order 2, total variation diminishing for scalar laws; the second opinion.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

__all__ = ["GHOSTS", "muscl", "weno5"]

Array = np.ndarray

GHOSTS = 3  # beyond each end
EPSILON = 1e-6  # of Jiang & Shu's weights, relative to the squared range of the flux
TINY = 1e-300


def weno5(u: Array, f: Array, speeds: Array, flux: Callable[[Array], Array]) -> Array:
    """Fluxes at the n + 1 interfaces of n nodes: u and f (m, ..., n + 6), speeds (..., n + 5)."""
    n = u.shape[-1] - 2 * GHOSTS + 1
    alpha = speeds[..., :n]
    for k in range(1, 5):  # the largest speed anywhere in the stencil of six nodes
        alpha = np.maximum(alpha, speeds[..., k : k + n])
    right = [0.5 * (f[..., k : k + n] + alpha * u[..., k : k + n]) for k in range(5)]
    left = [0.5 * (f[..., k : k + n] - alpha * u[..., k : k + n]) for k in range(5, 0, -1)]
    others = tuple(range(1, u.ndim))
    size = np.ptp(f, axis=others, keepdims=True)
    size = size + alpha.max() * np.ptp(u, axis=others, keepdims=True)
    epsilon = EPSILON * size**2 + TINY
    return _weno(right, epsilon) + _weno(left, epsilon)


def _weno(g: list[Array], epsilon: Array) -> Array:
    """The upwind value between g[2] and g[3]: three parabolas, weighted by their smoothness."""
    a, b, c, d, e = g
    rough0 = 13 / 12 * (a - 2 * b + c) ** 2 + 0.25 * (a - 4 * b + 3 * c) ** 2
    rough1 = 13 / 12 * (b - 2 * c + d) ** 2 + 0.25 * (b - d) ** 2
    rough2 = 13 / 12 * (c - 2 * d + e) ** 2 + 0.25 * (3 * c - 4 * d + e) ** 2
    w0 = 0.1 / (epsilon + rough0) ** 2
    w1 = 0.6 / (epsilon + rough1) ** 2
    w2 = 0.3 / (epsilon + rough2) ** 2
    q0 = 2 * a - 7 * b + 11 * c
    q1 = -b + 5 * c + 2 * d
    q2 = 2 * c + 5 * d - e
    return (w0 * q0 + w1 * q1 + w2 * q2) / (6 * (w0 + w1 + w2))


def muscl(u: Array, f: Array, speeds: Array, flux: Callable[[Array], Array]) -> Array:
    """The same from limited slopes; f is evaluated anew at the two sides of each interface."""
    step = np.diff(u, axis=-1)
    before, after = step[..., :-1], step[..., 1:]
    product = before * after
    # Harmonic mean of the one-sided differences, zero at extrema.
    slope = np.where(product > 0, 2 * product / np.where(product > 0, before + after, 1.0), 0.0)
    centre = u[..., 1:-1]
    below, above = (centre + slope / 2)[..., 1:-2], (centre - slope / 2)[..., 2:-1]
    alpha = speeds[..., 2:-2]
    return 0.5 * (flux(below) + flux(above) - alpha * (above - below))
