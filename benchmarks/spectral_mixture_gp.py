"""SpectralMixtureGP on the published high-frequency problems, beside a Chebyshev solve.

In    nothing: `python benchmarks/spectral_mixture_gp.py [--only NAME] [--noise]`.
Out   a table: relative L2 error on a grid that resolves the highest frequency, seconds of the solve
      (verification apart), rounds, functions; the authors' best figure and time; Chebyshev collocation.
      --noise: noisy sensors and unknown parameters over seeds.
Next  docs/spectral_mixture_gp.md.

The authors' figures are the best of 20 checkpoints chosen by test error; ours are the last iterate
with default settings.
"""

from __future__ import annotations

import argparse
import math
import time
from typing import Any

import numpy as np
import sympy as sp
from _common import measured, print_table

import pinnkit as pk
from pinnkit import problems  # pyright: ignore[reportAttributeAccessIssue]

TWO_PI = 2 * math.pi
# name, problem, authors' best, their seconds, bar, limit in seconds, Chebyshev points per axis
ROWS: list[tuple[str, Any, float | None, float | None, float, float, int]] = [
    ("sin 100x", problems.HighFrequencyPoisson1D(), 4.0e-7, 1329, 1e-7, 10, 400),
    ("sin 6x cos 100x", problems.HighFrequencyPoisson1D(slow=6), 1.5e-6, 1329, 2e-7, 10, 440),
    ("x sin 200x", problems.GrowingWavePoisson1D(), 9.0e-7, 7451, 9e-7, 15, 700),
    ("mixture on [0, 1]", problems.MultiScalePoisson1D(), 3.5e-4, 4667, 1e-6, 15, 120),
    (
        "mixture on [0, 2 pi]",
        problems.MultiScalePoisson1D(length=TWO_PI),
        2.1e-3,
        4452,
        1e-6,
        15,
        400,
    ),
    ("sin 500x - 2(x-.5)^2", problems.SineParabolaPoisson1D(), 4.2e-4, 5705, 1e-6, 15, 340),
    ("chirp", problems.ChirpPoisson1D(), None, None, 1e-5, 30, 140),
    ("Helmholtz k = 50", problems.Helmholtz1D(), None, None, 1e-5, 30, 60),
    ("Allen-Cahn sin 100x", problems.HighFrequencyAllenCahn1D(), 7.7e-7, 1998, 4e-6, 30, 440),
    (
        "Allen-Cahn sin 6x cos 100x",
        problems.HighFrequencyAllenCahn1D(slow=6),
        4.2e-6,
        1996,
        4e-6,
        30,
        460,
    ),
    ("Poisson 2-D sin100 sin100", problems.HighFrequencyPoisson2D(), 6.5e-5, 5586, 2e-5, 60, 400),
    ("Poisson 2-D sin6cos20", problems.MixedPoisson2D(), 1.0e-3, 6627, 1e-5, 60, 140),
    ("Allen-Cahn 2-D mixture", problems.MultiScaleAllenCahn2D(), 2.6e-3, 15926, 1e-5, 60, 110),
    ("advection, initial + inflow", problems.FastAdvection(), 1.3e-3, 9654, 1e-5, 30, 0),
]


def chebyshev(n: int, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Points and the matrix of the second derivative."""
    k = np.arange(n + 1)
    s = np.cos(np.pi * k / n)
    c = np.where((k == 0) | (k == n), 2.0, 1.0) * (-1.0) ** k
    gap = s[:, None] - s[None, :] + np.eye(n + 1)
    d = np.outer(c, 1 / c) / gap
    np.fill_diagonal(d, 0)
    np.fill_diagonal(d, -d.sum(axis=1))
    d *= 2 / (high - low)
    return low + (high - low) * (1 + s) / 2, d @ d


def chebyshev_solve(problem: Any, n: int) -> tuple[float, float] | None:
    """(error at its own points, seconds) of Newton's method on u'' or Laplace plus a local term."""
    nf = problem.normal_form
    if n == 0:
        return None
    ((field, exact),) = problem.exact().items()
    start = time.perf_counter()
    low, high = nf.bounds[nf.coords[0]]
    x, d2 = chebyshev(n, low, high)
    inner = slice(1, -1)
    symbol = sp.Symbol("value")
    local = nf.equations[0].residual
    for c in nf.coords:
        local = local.subs(field.diff(c, 2), 0)
    local = local.subs(field, symbol)
    args = (*nf.coords, symbol)
    f, df = (sp.lambdify(args, e, "numpy") for e in (local, sp.diff(local, symbol)))
    grids = np.meshgrid(*[x] * len(nf.coords), indexing="ij")
    truth = np.broadcast_to(sp.lambdify(nf.coords, exact, "numpy")(*grids), grids[0].shape)
    u = truth.copy()
    u[(inner,) * u.ndim] = 0.0
    values, vectors = np.linalg.eig(d2[inner, inner])
    inverse = np.linalg.inv(vectors)
    for _ in range(12 if df(*([0.3] * len(args))) else 1):
        residual = d2 @ u + f(*grids, u) if u.ndim == 1 else d2 @ u + u @ d2.T + f(*grids, u)
        residual = residual[(inner,) * u.ndim]
        slope = np.broadcast_to(df(*grids, u), u.shape)[(inner,) * u.ndim]
        if u.ndim == 1:
            step = np.linalg.solve(d2[inner, inner] + np.diag(slope), residual)
        else:
            # Newton with the mean slope: the operator stays a sum of one-dimensional ones.
            total = values[:, None] + values[None, :] + slope.mean()
            step = (vectors @ ((inverse @ residual @ inverse.T) / total) @ vectors.T).real
        u[(inner,) * u.ndim] -= step
        if np.linalg.norm(step) <= 1e-13 * np.linalg.norm(u):
            break
    seconds = time.perf_counter() - start
    return float(np.linalg.norm(u - truth) / np.linalg.norm(truth)), seconds


def gp_solve(problem: Any) -> tuple[float, float, int, int]:
    """(error, seconds, rounds, functions) of the default solver."""
    sol = problem.solve(pk.SpectralMixtureGP(), verify=False)
    nf = problem.normal_form
    n = 3001 if len(nf.coords) == 1 else 501
    axes = {str(c): np.linspace(nf.bounds[c][0], nf.bounds[c][1], n) for c in nf.coords}
    grids = dict(zip(axes, np.meshgrid(*axes.values(), indexing="ij"), strict=True))
    (exact,) = problem.exact().values()
    truth = sp.lambdify(nf.coords, exact, "numpy")(*grids.values())
    error = np.linalg.norm(sol(**grids) - truth) / np.linalg.norm(truth)
    return float(error), sol.stats.seconds, sol.stats.steps, sol.stats.parameters


def noise_rows(seeds: int) -> list[list[str]]:
    """A rate and its error from noisy sensors; the band of a noisy wave; over seeds."""
    x = pk.coords("x")
    u, k = pk.field("u", x), pk.parameter("k", initial=3.0, bounds=(0.5, 10))
    values, errors, covered = [], [], []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        points = rng.uniform(0, 5, 80)
        data = np.sin(2 * points) + 0.05 * rng.normal(size=80)
        problem = pk.PDESystem(
            [u.diff(x, 2) + k * u],
            domain=pk.Interval(x, 0, 5),
            conditions=[
                pk.Initial(u, 0, at=x),
                pk.Observations(u, {x: points}, data, noise=0.05),
            ],
        )
        found = problem.solve(pk.SpectralMixtureGP(), verify=False).parameters[k]
        values.append(found.value - 4)
        errors.append(found.stderr)
        covered.append(abs(found.value - 4) <= 1.96 * found.stderr)
    rmse = float(np.sqrt(np.mean(np.square(values))))
    return [
        [
            "k in u'' + k u = 0, 80 sensors, 5 % noise",
            f"{rmse:.2e}",
            f"{np.mean(errors):.2e}",
            f"{100 * np.mean(covered):.0f} %",
        ]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--noise", action="store_true", help="noisy sensors over seeds")
    parser.add_argument("--seeds", type=int, default=40)
    arguments = parser.parse_args()
    if arguments.noise:
        with measured("SpectralMixtureGP: noisy sensors"):
            headers = ["case", "RMSE", "mean standard error", "95 % interval holds"]
            print_table(headers, noise_rows(arguments.seeds))
        return
    with measured("SpectralMixtureGP: high frequencies"):
        rows = []
        for name, problem, best, their, bar, limit, n in ROWS:
            if arguments.only not in name:
                continue
            error, seconds, rounds, size = gp_solve(problem)
            classical = chebyshev_solve(problem, n)
            rows.append(
                [
                    name,
                    f"{error:.1e}",
                    f"{seconds:.2f}",
                    str(rounds),
                    str(size),
                    f"{bar:.0e} in {limit:.0f} s",
                    "met" if error <= bar and seconds <= limit else "MISSED",
                    "-" if best is None else f"{best:.1e} ({their:.0f} s)",
                    "-" if classical is None else f"{classical[0]:.1e} ({classical[1]:.2f} s)",
                ]
            )
        print_table(
            ["case", "error", "s", "rounds", "functions", "bar", "", "authors' best", "Chebyshev"],
            rows,
        )


if __name__ == "__main__":
    main()
