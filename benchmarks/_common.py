"""What all benchmark scripts share: the machine's speed, true solutions, rows over seeds, tables.

In    nothing; every script is one command and prints Markdown tables for docs/benchmarks.md.
Out   `measured` (speed before and after), `truth_of` (an answer better than any we judge), `error_of`,
      `run_rows` (the loop over rows and seeds), `make_parser` (its command line).

True solutions come from `exact()`, from the Cole-Hopf quadrature, from tight ODE integrations and
from Fourier/ETDRK4 solves refined far beyond the tolerances in question (two dimensions: `_torus`):
none of them uses pinnkit's own classical solver, which is among the things judged.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import _torus
import numpy as np
import sympy as sp
import torch
from scipy.integrate import solve_ivp

__all__ = [
    "Truth",
    "absolute_error_of",
    "burgers_grid",
    "cole_hopf",
    "error_in_time",
    "error_of",
    "evaluate",
    "hardware",
    "make_parser",
    "matmul_rate",
    "measured",
    "print_table",
    "report",
    "run_rows",
    "truth_of",
]

# A run on a machine slowed down by more than this is to be repeated (design, section 5).
SLOWED = 1.3


def matmul_rate(size: int = 1024, repeats: int = 6) -> float:
    """Float64 matrix multiplication, 1e9 operations per second, best of `repeats`."""
    gen = torch.Generator().manual_seed(0)
    a = torch.rand(size, size, dtype=torch.float64, generator=gen)
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        torch.mm(a, a)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best / 1e9


def hardware() -> str:
    """One line: processor, cores, threads, versions."""
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )


@contextlib.contextmanager
def measured(title: str) -> Iterator[None]:
    """Print the machine and its speed before and after; say so if it was slowed down between."""
    before = matmul_rate()
    print(f"\n## {title}\n\n{hardware()}; float64 matmul before: {before:.1f} GFLOP/s", flush=True)
    start = time.perf_counter()
    yield
    after = matmul_rate()
    print(f"float64 matmul after: {after:.1f} GFLOP/s; {time.perf_counter() - start:.0f} s in all")
    if max(before, after) > SLOWED * min(before, after):
        print("The machine changed its speed by more than 1.3: repeat this run.")


def print_table(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A Markdown table; floats with three significant digits."""
    cells = [[_cell(c) for c in row] for row in rows]
    widths = [max(len(h), *(len(r[i]) for r in cells), 3) for i, h in enumerate(headers)]
    for line in ([*headers], ["-" * w for w in widths], *cells):
        print("| " + " | ".join(c.ljust(w) for c, w in zip(line, widths)) + " |")
    print(flush=True)


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def make_parser(
    doc: str | None, cases: Iterable[str], *, default: str = "the table"
) -> argparse.ArgumentParser:
    """The options of every script whose rows are cases, solved once per seed."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0] if doc else "")
    parser.add_argument(
        "--case", action="append", choices=sorted(cases), help=f"default: {default}"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--time-limit", type=float, default=None, help="instead of the row's own")
    parser.add_argument(
        "--stored",
        type=pathlib.Path,
        default=None,
        help="solve nothing: the table of what --out has written to this file, in one run or in many",
    )
    return parser


def report(run: Mapping[str, Any], out: pathlib.Path | None) -> None:
    """Print what a solve gave as a line of JSON, and append it to `out`."""
    line = json.dumps(run)
    print(line, flush=True)
    if out is not None:
        with out.open("a") as file:
            file.write(line + "\n")


def stored_runs(path: pathlib.Path) -> dict[tuple[str, int], dict[str, Any]]:
    """What `report` appended to a file, by case and seed; the last one where there are several."""
    runs = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    return {(run["case"], run["seed"]): run for run in runs}


def run_rows(
    limits: Mapping[str, float],
    args: argparse.Namespace,
    *,
    headers: Sequence[str],
    solve: Callable[[str, int, float], dict[str, Any]],
    tell: Callable[[str, int, dict[str, Any]], None],
    judge: Callable[[str, float, list[dict[str, Any]]], tuple[list[Any], bool]],
) -> int:
    """Solve every row once per seed and print the table; the number of rows whose bar was missed.

    Args:
        limits: The rows in the order of the table, and the seconds each is allowed.
        args: What `make_parser` read. With `stored` rows of that file take the place of solves, and
            rows and seeds it does not hold are left out.
        headers: Of all columns but the last, which says whether the bar was met.
        solve: (row, seed, seconds) to what the solve gave.
        tell: Called with (row, seed, what it gave) after every solve: the next may take hours.
        judge: (row, seconds, what its seeds gave) to its cells and whether it met its bar.
    """
    rows, missed = [], 0
    known = None if args.stored is None else stored_runs(args.stored)
    for name, allowed in limits.items():
        seconds = args.time_limit or allowed
        runs = []
        for seed in args.seeds:
            if known is None:
                runs.append({**solve(name, seed, seconds), "limit": seconds})
            elif (name, seed) in known:
                runs.append(known[name, seed])
            else:
                continue
            tell(name, seed, runs[-1])
        if not runs:
            continue
        cells, passed = judge(name, max(r["limit"] for r in runs), runs)
        missed += not passed
        rows.append([*cells, "yes" if passed else "NO"])
    print_table([*headers, "passed"], rows)
    return missed


@dataclasses.dataclass(frozen=True)
class Truth:
    """Values of the true solution on a tensor grid, with quadrature weights.

    axes: coordinate name -> nodes; weights: the same names -> quadrature weights;
    values: field name -> array over the grid; error: the truth's own relative error.
    """

    axes: Mapping[str, np.ndarray]
    weights: Mapping[str, np.ndarray]
    values: Mapping[str, np.ndarray]
    error: float

    def grid(self) -> dict[str, np.ndarray]:
        """The axes, shaped to broadcast against each other."""
        d = len(self.axes)
        return {
            name: nodes.reshape([-1 if i == j else 1 for j in range(d)])
            for i, (name, nodes) in enumerate(self.axes.items())
        }


def evaluate(
    candidate: Any, grid: Mapping[str, np.ndarray], names: Sequence[str]
) -> dict[str, Any]:
    """The candidate's fields by name; a single field may come as a bare array."""
    out = candidate(**grid)
    return dict(out) if isinstance(out, Mapping) else {names[0]: out}


def error_of(candidate: Callable[..., Any], truth: Truth) -> float:
    """Quadrature-weighted relative L2 difference over the whole grid, the largest over the fields."""
    got = evaluate(candidate, truth.grid(), list(truth.values))
    worst = 0.0
    for name, true in truth.values.items():
        value = np.broadcast_to(np.asarray(got[name]), true.shape)
        if not np.isfinite(value).all():
            return float("inf")
        worst = max(worst, _norm(value - true, truth) / _norm(true, truth))
    return worst


def absolute_error_of(candidate: Callable[..., Any], truth: Truth) -> float:
    """Root of the integral of the squared difference, not divided by anything: as KFAC's authors quote it."""
    got = evaluate(candidate, truth.grid(), list(truth.values))
    gaps = (np.broadcast_to(got[name], v.shape) - v for name, v in truth.values.items())
    return max(_norm(gap, truth) for gap in gaps)


def error_in_time(
    candidate: Callable[..., Any], truth: Truth, time: str = "t"
) -> tuple[np.ndarray, np.ndarray]:
    """The truth's times, and at each the largest over the fields of |u - r|(t) / rms of |r| over all times."""
    axis = list(truth.axes).index(time)
    got = evaluate(candidate, truth.grid(), list(truth.values))
    span = truth.weights[time].sum()
    rest = dataclasses.replace(truth, weights={k: w for k, w in truth.weights.items() if k != time})
    worst = np.zeros(len(truth.axes[time]))
    for name, true in truth.values.items():
        gap = np.moveaxis(np.broadcast_to(got[name], true.shape) - true, axis, 0)
        size = _norm(true, truth) / np.sqrt(span)
        worst = np.maximum(worst, [_norm(g, rest) / size for g in gap])
    return truth.axes[time], worst


def _norm(values: np.ndarray, truth: Truth) -> float:
    square = np.abs(values) ** 2
    for weights in reversed(list(truth.weights.values())):
        square = square @ weights
    return float(np.sqrt(square))


def truth_of(problem: Any, data: pathlib.Path | None = None) -> Truth | None:
    """The true solution of a gallery problem or `PDESystem`; None where we know of none."""
    kind = type(problem).__name__
    exact = problem.exact() if callable(getattr(problem, "exact", None)) else problem.exact
    if exact:
        return _from_exact(problem, exact)
    if data is not None and kind in _FILES and (found := _from_file(problem, data)):
        return found
    if kind == "Burgers":
        return _burgers(problem)
    if kind in _SPECTRAL:
        return _spectral(problem)
    if kind in _ODES:
        return _ode(problem)
    if kind in _torus.TORUS:
        return _from_torus(problem)
    return None


def _bounds(problem: Any) -> dict[str, tuple[float, float]]:
    nf = getattr(problem, "system", problem).normal_form
    return {c.name: nf.bounds[c] for c in nf.coords}


def _gauss(low: float, high: float, n: int) -> tuple[np.ndarray, np.ndarray]:
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return low + (high - low) * (nodes + 1) / 2, weights * (high - low) / 2


def _trapezoid(nodes: np.ndarray) -> np.ndarray:
    weights = np.zeros_like(nodes)
    weights[1:] += np.diff(nodes) / 2
    weights[:-1] += np.diff(nodes) / 2
    return weights


def _from_exact(problem: Any, exact: Mapping[sp.Expr, sp.Expr]) -> Truth:
    bounds = _bounds(problem)
    # Gauss points: no solver of ours trains or refines on them.
    n = {1: 801, 2: 161, 3: 41, 4: 17}.get(len(bounds), 9)
    rules = {name: _gauss(low, high, n) for name, (low, high) in bounds.items()}
    truth = Truth(
        {k: r[0] for k, r in rules.items()}, {k: r[1] for k, r in rules.items()}, {}, 1e-15
    )
    grid = truth.grid()
    shape = tuple(len(nodes) for nodes in truth.axes.values())
    values = {}
    for field, expr in exact.items():
        names = [sp.Symbol(name) for name in grid]
        plain = sp.sympify(expr).xreplace({c: sp.Symbol(str(c)) for c in expr.free_symbols})
        f = sp.lambdify(names, plain, "numpy")
        values[field.func.__name__] = np.broadcast_to(f(*grid.values()), shape)
    return dataclasses.replace(truth, values=values)


def cole_hopf(t: np.ndarray, x: np.ndarray, nu: float) -> np.ndarray:
    """Burgers' equation from -sin(pi x) by the Cole-Hopf quadrature, shape (len(t), len(x)).

    u = -int sin(pi (x - h)) e^E dh / int e^E dh,  E = -cos(pi (x - h)) / (2 pi nu) - h^2 / (4 nu t).
    """
    u = np.empty((len(t), len(x)))
    for i, ti in enumerate(t):
        if ti == 0:
            u[i] = -np.sin(np.pi * x)
            continue
        # Beyond 14 standard deviations plus the largest shift the integrand is below roundoff.
        h = np.linspace(-1, 1, 6001) * (14 * np.sqrt(2 * nu * ti) + 4 * ti)
        y = np.pi * (x[:, None] - h)
        e = -np.cos(y) / (2 * np.pi * nu) - h**2 / (4 * nu * ti)
        w = np.exp(e - e.max(axis=1, keepdims=True))
        u[i] = -(np.sin(y) * w).sum(axis=1) / w.sum(axis=1)
    return u


def burgers_grid(end: float) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Nodes and weights on [0, end] x [-1, 1], with most nodes at x = 0 where the layer is."""
    t, wt = _gauss(0, end, 40)
    s, ws = _gauss(-1, 1, 240)
    # Gauss points in s of x = s / 10 + 9 s^3 / 10: ten times denser at 0 than equidistant ones.
    return {"t": t, "x": 0.1 * s + 0.9 * s**3}, {"t": wt, "x": ws * (0.1 + 2.7 * s**2)}


def _burgers(problem: Any) -> Truth:
    axes, weights = burgers_grid(problem.T)
    return Truth(axes, weights, {"u": cole_hopf(axes["t"], axes["x"], problem.nu)}, 1e-13)


def _ode(problem: Any) -> Truth:
    rhs, start, names = _ODES[type(problem).__name__](problem)
    t, w = _gauss(0, problem.T, 801)
    run = solve_ivp(rhs, (0, problem.T), start, "DOP853", t, rtol=1e-13, atol=1e-13)
    return Truth({"t": t}, {"t": w}, dict(zip(names, run.y)), 1e-9)


def _lorenz(p: Any) -> tuple[Callable[..., Any], list[float], list[str]]:
    def rhs(t: float, w: np.ndarray) -> list[float]:
        x, y, z = w
        return [p.sigma * (y - x), x * (p.rho - z) - y, x * y - p.beta * z]

    return rhs, [1.0, 1.0, 1.0], ["x", "y", "z"]


def _van_der_pol(p: Any) -> tuple[Callable[..., Any], list[float], list[str]]:
    return lambda t, w: [w[1], p.mu * (1 - w[0] ** 2) * w[1] - w[0]], [2.0, 0.0], ["y"]


def _lotka_volterra(p: Any) -> tuple[Callable[..., Any], list[float], list[str]]:
    def rhs(t: float, w: np.ndarray) -> list[float]:
        return [(p.a - p.b * w[1]) * w[0], (p.d * w[0] - p.g) * w[1]]

    return rhs, [1.0, 1.0], ["prey", "predator"]


_ODES = {"Lorenz": _lorenz, "VanDerPol": _van_der_pol, "LotkaVolterra": _lotka_volterra}


# Linear symbol in the wave number k, nonlinear part as (function of u, function of k applied to its
# transform), initial data: everything ETDRK4 needs. i k u^2 / 2 stands for u u_x.
_SPECTRAL: dict[str, Callable[[Any], tuple[Any, ...]]] = {
    "AllenCahn": lambda p: (
        lambda k: -p.d * k**2 + 5,
        lambda u: -5 * u**3,
        lambda k: np.ones_like(k),
        lambda x: x**2 * np.cos(np.pi * x),
        (8192, 5000),
    ),
    "AllenCahnSmooth": lambda p: (
        lambda k: -p.d * k**2 + 5,
        lambda u: -5 * u**3,
        lambda k: np.ones_like(k),
        lambda x: x**2 * np.cos(3 * np.pi * x) + x**2,
        (2048, 2500),
    ),
    "KdV": lambda p: (
        lambda k: 1j * p.delta**2 * k**3,
        lambda u: u**2,
        lambda k: -0.5j * k,
        lambda x: np.cos(np.pi * x),
        (1024, 10000),
    ),
    "KuramotoSivashinsky": lambda p: (
        lambda k: 0.5 * k**2 - 0.005 * k**4,
        lambda u: u**2,
        lambda k: -2.5j * k,
        lambda x: -np.sin(np.pi * x),
        (1024, 10000),
    ),
    "KuramotoSivashinskyChaotic": lambda p: (
        lambda k: 100 / 16**2 * k**2 - 100 / 16**4 * k**4,
        lambda u: u**2,
        lambda k: -0.5j * 100 / 16 * k,
        lambda x: np.cos(x) * (1 + np.sin(x)),
        (1024, 20000),
    ),
}

# Self-convergence with the numbers above; 1e-9 where nothing is said.
_SPECTRAL_ERRORS = {"AllenCahn": 3e-7, "KuramotoSivashinskyChaotic": 1e-7}


def _spectral(problem: Any) -> Truth:
    """Fourier in space, ETDRK4 in time (Kassam and Trefethen), 2/3 rule; 101 times, 512 points."""
    linear, local, outer, start, (n, steps) = _SPECTRAL[type(problem).__name__](problem)
    (low, high) = _bounds(problem)["x"]
    x = low + (high - low) * np.arange(n) / n
    k = 2 * np.pi / (high - low) * np.arange(n // 2 + 1)
    h = problem.T / steps
    lin = h * linear(k).astype(complex)
    # Means over a circle around each h*L avoid the cancellation in the phi functions near zero.
    circle = lin[:, None] + np.exp(2j * np.pi * (np.arange(32) + 0.5) / 32)
    ex, ex2 = np.exp(lin), np.exp(lin / 2)
    q = h * ((np.exp(circle / 2) - 1) / circle).mean(1)
    f1 = h * ((-4 - circle + np.exp(circle) * (4 - 3 * circle + circle**2)) / circle**3).mean(1)
    f2 = h * ((2 + circle + np.exp(circle) * (circle - 2)) / circle**3).mean(1)
    f3 = h * ((-4 - 3 * circle - circle**2 + np.exp(circle) * (4 - circle)) / circle**3).mean(1)
    mask = outer(k) * (np.arange(n // 2 + 1) <= n // 3)

    def nonlinear(v: np.ndarray) -> np.ndarray:
        return mask * np.fft.rfft(local(np.fft.irfft(v, n)))

    v = np.fft.rfft(start(x))
    every, thin = steps // 100, n // 512
    kept = [start(x)[::thin]]
    for i in range(1, steps + 1):
        nv = nonlinear(v)
        a = ex2 * v + q * nv
        na = nonlinear(a)
        b = ex2 * v + q * na
        nb = nonlinear(b)
        c = ex2 * a + q * (2 * nb - nv)
        v = ex * v + f1 * nv + 2 * f2 * (na + nb) + f3 * nonlinear(c)
        if i % every == 0:
            kept.append(np.fft.irfft(v, n)[::thin])
    t = np.linspace(0, problem.T, 101)
    wx = np.full(512, (high - low) / 512)
    error = _SPECTRAL_ERRORS.get(type(problem).__name__, 1e-9)
    return Truth(
        {"t": t, "x": x[::thin]}, {"t": _trapezoid(t), "x": wx}, {"u": np.array(kept)}, error
    )


def _from_torus(problem: Any) -> Truth:
    """Two periodic directions: an own pseudo-spectral solve, with its measured self-convergence."""
    kept = _torus.solve(problem)
    cell = np.full(len(kept.x), kept.x[1] - kept.x[0])
    return Truth(
        {"t": kept.t, "x": kept.x, "y": kept.x},
        {"t": _trapezoid(kept.t), "x": cell, "y": cell},
        kept.values,
        kept.error,
    )


# File names under --data, and the parameters they hold for. Columns of `u` are nodes in x, except
# for ordinary differential equations, where they are the fields.
_FILES: dict[str, tuple[str, dict[str, float], tuple[str, ...]]] = {
    "AllenCahn": ("allen_cahn.npz", {"d": 1e-4}, ("u",)),
    "AllenCahnSmooth": ("allen_cahn_smooth.npz", {"d": 1e-4}, ("u",)),
    "KdV": ("kdv.npz", {"delta": 0.022}, ("u",)),
    "KuramotoSivashinsky": ("ks_regular.npz", {}, ("u",)),
    "KuramotoSivashinskyChaotic": ("ks_chaotic.npz", {}, ("u",)),
    "Lorenz": ("lorenz.npz", {"sigma": 10.0, "rho": 28.0, "beta": 8.0 / 3.0}, ("x", "y", "z")),
}


def _from_file(problem: Any, data: pathlib.Path) -> Truth | None:
    """The file up to the problem's final time, with the error it states of itself."""
    name, holds, fields = _FILES[type(problem).__name__]
    path = data / name
    if not path.exists() or any(getattr(problem, k) != v for k, v in holds.items()):
        return None
    with np.load(path) as f:
        t, u, error = f["t"], f["u"], float(f["selferr"])
        x = f["x"] if len(fields) == 1 else None
    kept = t <= problem.T * (1 + 1e-12)
    if not np.isclose(t[kept][-1], problem.T, rtol=1e-9):
        return None  # the final time is beyond the file's end or between its instants
    t, u = t[kept], u[kept]
    axes, weights = {"t": t}, {"t": _trapezoid(t)}
    if x is None:
        return Truth(axes, weights, {field: u[:, i] for i, field in enumerate(fields)}, error)
    axes["x"], weights["x"] = x, _trapezoid(x)
    return Truth(axes, weights, {fields[0]: u}, error)
