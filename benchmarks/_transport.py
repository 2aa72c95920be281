"""Reference solutions of transport problems, and the norm that a solver that does nothing cannot please.

In    a gallery problem, or `deforming_flow()`.
Out   `truth`: its values at equidistant times, T / 2 and T among them, and its own measured error;
      `errors_of`: errors over the whole span, at T / 2 and at T, each over the norm of u minus its mean.
Next  `lagrangian_pinn` and `peers` judge by them.

    python benchmarks/_transport.py [NAME ...]     prints times and errors of the references

Without diffusion u is carried: characteristics are followed back to their start by DOP853 at 1e-12, or
their equation is solved to rounding where they are straight. With diffusion: Cole-Hopf for Burgers,
Fourier modes and DOP853 on the ring, Chebyshev nodes and a matrix exponential between walls. An error
is the relative difference from a coarser solve (half the modes, a hundred times the tolerance), a
generous bound for the finer one, which is returned. Speeds are written down again in numpy; none of
this shares code with pinnkit.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import _common as common
import numpy as np
import scipy.linalg
import sympy as sp
from scipy.integrate import solve_ivp

import pinnkit as pk
from pinnkit import problems  # pyright: ignore[reportAttributeAccessIssue]

__all__ = ["break_up", "deforming_flow", "errors_of", "l1_error_of", "straight_labels", "truth"]

Array = np.ndarray
RING = 2 * math.pi
TIGHT, LOOSE = 1e-12, 1e-10  # tolerances of the two solves that are compared
ROUNDING = 1e-14


def errors_of(candidate: Callable[..., Any], found: common.Truth) -> dict[str, float]:
    """Relative L2 over the whole span, at T / 2 and at T; inf where a value is missing."""
    (true,) = found.values.values()
    got = np.broadcast_to(
        common.evaluate(candidate, found.grid(), list(found.values))[next(iter(found.values))],
        true.shape,
    )
    last = len(found.axes["t"]) - 1
    parts = {"span": slice(None), "half": slice(last // 2, last // 2 + 1), "end": slice(last, None)}
    return {name: _relative(got[part], true[part], found, part) for name, part in parts.items()}


def _relative(got: Array, true: Array, found: common.Truth, part: slice) -> float:
    """|got - true| / |true - mean|, weighted."""
    if not np.isfinite(got).all():
        return math.inf
    weights = found.weights["t"][part]
    if len(weights) == 1:
        weights = np.ones(1)
    for name, w in found.weights.items():
        if name != "t":
            weights = np.multiply.outer(weights, w)
    mean = np.sum(weights * true) / np.sum(weights)
    return float(
        np.sqrt(np.sum(weights * (got - true) ** 2) / np.sum(weights * (true - mean) ** 2))
    )


def l1_error_of(candidate: Callable[..., Any], found: common.Truth) -> float:
    """Relative L1 over the whole span: the norm for shocks."""
    (true,) = found.values.values()
    got = common.evaluate(candidate, found.grid(), list(found.values))[next(iter(found.values))]
    weights = np.multiply.outer(*(found.weights[name] for name in found.axes))
    gap = np.broadcast_to(got, true.shape) - true
    return float(np.sum(weights * np.abs(gap)) / np.sum(weights * np.abs(true)))


# -- problems ------------------------------------------------------------------------------------------


def deforming_flow(nu: float = 0.01, T: float = 1.0) -> pk.PDESystem:
    """u_t + (1 + 0.5 sin x) u_x = nu u_xx on the ring from sin x: diffusion in labels alone is wrong."""
    t, x = pk.coords("t x")
    u = pk.field("u", t, x)
    return pk.PDESystem(
        [u.diff(t) + (1 + sp.sin(x) / 2) * u.diff(x) - nu * u.diff(x, 2)],
        domain=pk.Interval(t, 0, T) * pk.Interval(x, 0, 2 * sp.pi),
        conditions=[pk.Initial(u, sp.sin(x)), pk.Periodic(u, x)],
    )


def truth(problem: Any) -> common.Truth:
    """The reference of a problem of this benchmark, by its class; a bare `PDESystem` is `deforming_flow()`."""
    return TRUTHS[type(problem).__name__](problem)


def _known(axes: Mapping[str, Array], weights: Mapping[str, Array], u: Array, error: float) -> Any:
    return common.Truth(axes, weights, {"u": u}, max(error, ROUNDING))


def _times(T: float, n: int = 41) -> tuple[Array, Array]:
    """Equidistant times, an odd number of them, and trapezoidal weights."""
    t = np.linspace(0, T, n)
    w = np.full(n, T / (n - 1))
    w[[0, -1]] /= 2
    return t, w


def _ring(low: float, length: float, n: int) -> tuple[Array, Array]:
    """Midpoints of n equal cells: the natural rule for what is periodic."""
    return low + length * (np.arange(n) + 0.5) / n, np.full(n, length / n)


def _from_exact(problem: Any, nodes: int, instants: int) -> common.Truth:
    """The declared exact solution on a grid of ours."""
    nf = problem.system.normal_form
    axes, weights = {}, {}
    axes["t"], weights["t"] = _times(problem.T, instants)
    for c in nf.space:
        low, high = nf.bounds[c]
        axes[c.name], weights[c.name] = _ring(low, high - low, nodes)
    (expr,) = problem.exact().values()
    plain = sp.sympify(expr).xreplace({c: sp.Symbol(str(c)) for c in expr.free_symbols})
    f = sp.lambdify([sp.Symbol(name) for name in axes], plain, "numpy")
    grid = np.meshgrid(*axes.values(), indexing="ij")
    return _known(axes, weights, np.broadcast_to(f(*grid), grid[0].shape), 1e-15)


# -- no diffusion --------------------------------------------------------------------------------------


def _carried(
    velocity: Callable[[float, Array], Array],
    start: Callable[[Array], Array],
    axes: dict[str, Array],
    weights: dict[str, Array],
) -> common.Truth:
    """u(t, x) = start(X(0)), X(t) = x, followed back from every node. Places have shape (d, n)."""
    space = [axes[name] for name in axes if name != "t"]
    shape = tuple(map(len, space))
    places = np.stack([g.ravel() for g in np.meshgrid(*space, indexing="ij")])

    def feet(t: float, tol: float) -> Array:
        if t == 0:
            return places

        def rate(s: float, flat: Array) -> Array:
            return velocity(s, flat.reshape(places.shape)).ravel()

        run = solve_ivp(rate, (t, 0), places.ravel(), "DOP853", [0.0], rtol=tol, atol=tol)
        return run.y[:, -1].reshape(places.shape)

    fine, coarse = (
        np.stack([start(feet(t, tol)).reshape(shape) for t in axes["t"]]) for tol in (TIGHT, LOOSE)
    )
    return _known(axes, weights, fine, _difference(fine, coarse))


def _difference(fine: Array, coarse: Array) -> float:
    return float(np.linalg.norm(fine - coarse) / np.linalg.norm(fine - fine.mean()))


def _variable_convection(p: Any) -> common.Truth:
    """Characteristics without diffusion, else Fourier modes."""

    def speed(t: float, x: Array) -> Array:
        return p.beta * (1 + 0.5 * np.sin(x) * np.cos(t))

    if p.nu > 0:
        return _fourier(speed, p.nu, np.sin, p.T, 512)
    axes, weights = {}, {}
    axes["t"], weights["t"] = _times(p.T)
    axes["x"], weights["x"] = _ring(0, RING, 512)
    return _carried(speed, lambda x: np.sin(x[0]), axes, weights)


def _swirl(p: Any) -> common.Truth:
    """LeVeque's flow, followed back from 64 x 64 nodes."""

    def velocity(t: float, at: Array) -> Array:
        x, y = np.pi * at
        turning = np.cos(np.pi * t / p.period)
        return turning * np.stack(
            [np.sin(x) ** 2 * np.sin(2 * y), -(np.sin(y) ** 2) * np.sin(2 * x)]
        )

    def bell(at: Array) -> Array:
        away = np.sin(np.pi * (at[0] - 0.5)) ** 2 + np.sin(np.pi * (at[1] - 0.75)) ** 2
        return np.exp(-away / (np.pi * p.width) ** 2)

    axes, weights = {}, {}
    axes["t"], weights["t"] = _times(p.period, 11)
    for name in ("x", "y"):
        axes[name], weights[name] = _ring(0, 1, 64)
    return _carried(velocity, bell, axes, weights)


def straight_labels(t: Array, x: Array) -> Array:
    """x0 of x = x0 + t sin(x0), by halving to rounding; t < 1, arrays of one shape."""
    low, high = x - t - 1e-9, x + t + 1e-9
    for _ in range(60):
        middle = 0.5 * (low + high)
        beyond = middle + t * np.sin(middle) > x
        low, high = np.where(beyond, low, middle), np.where(beyond, middle, high)
    return 0.5 * (low + high)


def break_up(p: Any) -> tuple[float, float]:
    """When and where characteristics of `InviscidBurgers` first cross: u0' is smallest at pi, -1 there."""
    assert type(p).__name__ == "InviscidBurgers"
    return 1.0, math.pi


def _inviscid(p: Any) -> common.Truth:
    """Lax and Oleinik: the label that makes (x - y)^2 / 2t + int u0 smallest; u = sin of it."""
    t, wt = _times(p.T)
    x, wx = _ring(0, RING, 512)
    # By symmetry the shock stands at pi, and no particle passes it.
    labels = np.empty((len(t), len(x)))
    for i, ti in enumerate(t):
        left = np.where(x < np.pi, 0.0, np.pi)
        # x0 + t sin(x0) rises up to arccos(-1 / t) and comes down again: the first crossing is the one.
        top = np.pi if ti <= 1 else math.acos(-1 / ti)
        low, high = np.zeros_like(x), np.full_like(x, top)
        side = np.where(left == 0, x, RING - x)
        for _ in range(60):
            middle = 0.5 * (low + high)
            beyond = middle + ti * np.sin(middle) > side
            low, high = np.where(beyond, low, middle), np.where(beyond, middle, high)
        labels[i] = np.where(left == 0, 0.5 * (low + high), RING - 0.5 * (low + high))
    return _known({"t": t, "x": x}, {"t": wt, "x": wx}, np.sin(labels), 1e-14)


# -- diffusion -----------------------------------------------------------------------------------------


def _fourier(
    speed: Callable[[float, Array], Array],
    nu: float,
    start: Callable[[Array], Array],
    T: float,
    modes: int,
) -> common.Truth:
    """u_t + speed u_x = nu u_xx on the ring; products are resolved, so nothing is cut."""
    t, wt = _times(T)

    def solve(n: int, tol: float) -> Array:
        x = RING * np.arange(n) / n
        k = 1j * np.arange(n // 2 + 1)
        first = k.copy()
        first[-1] = 0  # the slope of the highest mode is not seen by its nodes

        def rate(s: float, u: Array) -> Array:
            transform = np.fft.rfft(u)
            return nu * np.fft.irfft(k**2 * transform, n) - speed(s, x) * np.fft.irfft(
                first * transform, n
            )

        # Values between steps are less exact than steps, so steps are short; shorter for the finer.
        longest = t[1] / (8 if tol == TIGHT else 4)
        run = solve_ivp(rate, (0, T), start(x), "DOP853", t, rtol=tol, atol=tol, max_step=longest)
        return run.y.T

    fine, coarse = solve(modes, TIGHT), solve(modes // 2, LOOSE)
    x = RING * np.arange(modes) / modes
    axes, weights = {"t": t, "x": x}, {"t": wt, "x": np.full(modes, RING / modes)}
    return _known(axes, weights, fine, _difference(fine[:, ::2], coarse))


def _pulse(p: Any) -> common.Truth:
    return _fourier(
        lambda t, x: 1 + 0.5 * np.sin(x),
        p.nu,
        lambda x: np.exp(-(((x - np.pi) / p.width) ** 2)),
        p.T,
        512,
    )


def _deforming(p: pk.PDESystem) -> common.Truth:
    """Viscosity and final time are read off the declaration, so that a changed one is not misjudged."""
    t, x = p.coords
    (u,) = p.fields
    written: Any = sp.expand(p.equations[0])
    nu = -float(written.coeff(u.diff(x, 2)))
    T = p.normal_form.bounds[t][1]
    return _fourier(lambda s, at: 1 + 0.5 * np.sin(at), nu, np.sin, T, 256)


def _burgers_ring(p: Any) -> common.Truth:
    """Cole and Hopf, in the frame of the mean flow: x = mean t + pi (y + 1), t = pi s, u = mean + v(s, y)."""
    t, wt = _times(p.T)
    x, wx = _ring(0, RING, 512)
    u = np.stack(
        [
            common.cole_hopf(
                np.array([ti / np.pi]), (x - p.mean * ti) / np.pi - 1, p.nu / np.pi
            )[0]
            for ti in t
        ]
    )  # fmt: skip
    return _known({"t": t, "x": x}, {"t": wt, "x": wx}, p.mean + u, 1e-13)


def _between_walls(p: Any) -> common.Truth:
    """Chebyshev nodes between the two walls; the equation is linear and does not change in time."""
    t, wt = _times(p.T)
    s, w = np.polynomial.legendre.leggauss(200)
    x, wx = np.pi * (s + 1), np.pi * w

    def solve(n: int) -> Array:
        nodes, d = _chebyshev(n)
        at, d = np.pi * (nodes + 1), d / np.pi
        rate = (p.nu * d @ d - (1 + 0.5 * np.sin(at))[:, None] * d)[1:-1, 1:-1]
        step = scipy.linalg.expm(rate * (t[1] - t[0]))
        u = np.zeros((len(t), n + 1))
        u[0] = np.exp(-(((at - np.pi) / p.width) ** 2))
        for i in range(1, len(t)):
            u[i, 1:-1] = step @ u[i - 1, 1:-1]
        series = np.polynomial.chebyshev.chebvander(nodes, n)
        there = np.polynomial.chebyshev.chebvander(x / np.pi - 1, n)
        return np.linalg.solve(series, u.T).T @ there.T

    fine = solve(400)
    return _known({"t": t, "x": x}, {"t": wt, "x": wx}, fine, _difference(fine, solve(300)))


def _chebyshev(n: int) -> tuple[Array, Array]:
    """Nodes cos(pi j / n) and the matrix of the first derivative, its diagonal by the sum of the rows."""
    x = np.cos(np.pi * np.arange(n + 1) / n)
    c = np.where(np.arange(n + 1) % n == 0, 2.0, 1.0) * (-1.0) ** np.arange(n + 1)
    d = np.outer(c, 1 / c) / (x[:, None] - x[None, :] + np.eye(n + 1))
    return x, d - np.diag(d.sum(1))


TRUTHS: dict[str, Callable[[Any], common.Truth]] = {
    "Convection": lambda p: _from_exact(p, 256, 41),
    "ReactionAdvection": lambda p: _from_exact(p, 256, 41),
    "RotatingGaussian": lambda p: _from_exact(p, 100, 11),
    "SlottedCylinder": lambda p: _from_exact(p, 100, 11),
    "VariableConvection": _variable_convection,
    "AdvectedPulse": _pulse,
    "PDESystem": _deforming,
    "PeriodicBurgers": _burgers_ring,
    "InviscidBurgers": _inviscid,
    "SwirlingDeformation": _swirl,
    "PulseOutflow": _between_walls,
}


def main() -> int:
    """Print how long each reference takes and how well it is known."""
    rows = []
    for name in sys.argv[1:] or TRUTHS:
        problem = deforming_flow() if name == "PDESystem" else getattr(problems, name)()
        began = time.perf_counter()
        found = truth(problem)
        rows.append([name, time.perf_counter() - began, found.error])
    common.print_table(["problem", "seconds", "its own error"], rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
