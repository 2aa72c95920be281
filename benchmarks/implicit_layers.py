"""Implicit layers against an unrolled iteration and TorchDEQ: gradients, memory, seconds, second derivatives.

    python benchmarks/implicit_layers.py [--part PART ...] [--widths 64 128 256] [--repeats 7]

The layer of all tables is z = tanh(W z + U x + b) with |W| = 0.9 in the 2-norm, in double precision.
TorchDEQ is measured where it can be imported, and is best kept apart from the environment:
`pip install --no-deps --target PEERS torchdeq`, then `PYTHONPATH=PEERS python benchmarks/...`.
"""

from __future__ import annotations

import argparse
import importlib.util
import pathlib
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from _common import measured, print_table
from torch import Tensor

from pinnkit.implicit import (
    CG,
    GMRES,
    LSMR,
    Exact,
    Factors,
    Jacobi,
    LevenbergMarquardt,
    Picard,
    fixed_point,
    least_squares,
    linear_solve,
    root,
)

RTOL = 1e-12  # of all forward and adjoint iterations that are compared
PEER = importlib.util.find_spec("torchdeq") is not None
Layer = Callable[..., Tensor]  # (W, U, b, x) -> z


def normal(*shape: int, seed: int) -> Tensor:
    """Standard normal numbers of their own generator."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def weights(width: int, batch: int) -> tuple[Tensor, ...]:
    """W, U, b, x; all require grad."""
    w = normal(width, width, seed=0)
    w = 0.9 * w / torch.linalg.matrix_norm(w, 2)
    u = normal(width, 16, seed=1) / 4
    parts = (w, u, 0.1 * normal(width, seed=2), normal(batch, 16, seed=3))
    return tuple(p.requires_grad_() for p in parts)


def cell(z: Tensor, w: Tensor, u: Tensor, b: Tensor, x: Tensor) -> Tensor:
    """The map whose fixed point is the layer."""
    return torch.tanh(z @ w.T + x @ u.T + b)


def start(w: Tensor, x: Tensor) -> Tensor:
    """Zeros."""
    return torch.zeros(len(x), len(w), dtype=w.dtype)


def ours(linear: Any = None, **options: Any) -> Layer:
    """`fixed_point` with the implicit function theorem."""

    def layer(w: Tensor, u: Tensor, b: Tensor, x: Tensor) -> Tensor:
        backward = Exact(linear=linear)
        chosen = {"rtol": RTOL, "max_steps": 500, "backward": backward, **options}
        return fixed_point(cell, start(w, x), w, u, b, x, **chosen)[0]

    return layer


def unrolled(steps: int) -> Layer:
    """A loop, and autograd through it."""

    def layer(w: Tensor, u: Tensor, b: Tensor, x: Tensor) -> Tensor:
        z = start(w, x)
        for _ in range(steps):
            z = cell(z, w, u, b, x)
        return z

    return layer


def torchdeq(**options: Any) -> Layer:
    """The peer: Anderson forwards and in the adjoint, its own implicit differentiation."""
    from torchdeq import get_deq  # pyright: ignore[reportMissingImports]

    settings = {"f_tol": RTOL, "b_tol": RTOL, "f_max_iter": 500, "b_max_iter": 500}
    modes = {"f_stop_mode": "rel", "b_stop_mode": "rel"}
    solvers = {"f_solver": "anderson", "b_solver": "anderson"}
    deq = get_deq(ift=True, **{**solvers, **settings, **modes, **options})

    def layer(w: Tensor, u: Tensor, b: Tensor, x: Tensor) -> Tensor:
        return deq(lambda z: cell(z, w, u, b, x), start(w, x))[0][-1]

    return layer


def layers() -> dict[str, Layer]:
    """The candidates of a table."""
    found = {
        "`fixed_point`": ours(),
        "the same, adjoint by `GMRES()`": ours(GMRES(rtol=RTOL)),
        "unrolled, Picard's 250 steps": unrolled(250),
    }
    if PEER:
        found["TorchDEQ"] = torchdeq()
    return found


def exact_gradient(parts: tuple[Tensor, ...], loss: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """By one dense solve for each sample, written down without any layer."""
    w, u, b, x = (p.detach() for p in parts)
    with torch.no_grad():
        z = start(w, x)
        for _ in range(60):  # Newton's steps would do; these cannot be wrong
            for _ in range(20):
                z = cell(z, w, u, b, x)
        slope = 1 - z.square()
        jacobian = torch.eye(len(w), dtype=w.dtype) - slope[:, :, None] * w
    incoming = torch.func.grad(loss)(z)
    adjoint = torch.linalg.solve(jacobian.mT, incoming[..., None])[..., 0]
    _, pull, *_ = torch.func.vjp(lambda *p: cell(z, *p), w, u, b, x)
    return list(pull(adjoint))


def off(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """The largest difference, relative to the largest entry of each tensor."""
    pairs = zip(found, wanted, strict=True)
    return max(float((f - w).abs().max() / w.abs().max()) for f, w in pairs)


def seconds(layer: Layer, parts: tuple[Tensor, ...]) -> tuple[float, float]:
    """Forward and backward, of one call."""
    begun = time.perf_counter()
    z = layer(*parts)
    between = time.perf_counter()
    torch.autograd.grad(z.square().sum(), parts)
    return between - begun, time.perf_counter() - between


def first_derivatives(widths: Sequence[int], repeats: int, batch: int = 64) -> None:
    """Gradients and seconds of all candidates."""
    rows = []
    for width in widths:
        parts = weights(width, batch)
        wanted = exact_gradient(parts, lambda z: z.square().sum())
        candidates = layers()
        runs: dict[str, list[tuple[float, float]]] = {name: [] for name in candidates}
        for _ in range(repeats + 1):  # in turn, so that all see the same machine
            for name, layer in candidates.items():
                runs[name].append(seconds(layer, parts))
        times = {
            name: [1e3 * statistics.median(t[k] for t in r[1:]) for k in (0, 1)]
            for name, r in runs.items()
        }
        peer = times.get("TorchDEQ")
        for name, layer in candidates.items():
            found = torch.autograd.grad(layer(*parts).square().sum(), parts)
            ratios = ["-", "-"] if peer is None else [t / p for t, p in zip(times[name], peer)]
            rows.append([width, name, off(found, wanted), *times[name], *ratios])
    head = ["width", "layer", "gradient off the dense one", "forward, ms", "backward, ms"]
    print_table([*head, "forward / TorchDEQ's", "backward / TorchDEQ's"], rows)


def second_derivatives(width: int = 24, batch: int = 8) -> None:
    """d/dW of |d(z . v)/dx|^2, against an iteration of 500 steps differentiated twice."""
    parts = weights(width, batch)
    v = normal(batch, width, seed=4)

    def penalty(layer: Layer) -> Tensor:
        (slope,) = torch.autograd.grad((layer(*parts) * v).sum(), parts[3], create_graph=True)
        return slope.square().sum()

    wanted = torch.autograd.grad(penalty(unrolled(500)), parts[0])
    rows: list[list[Any]] = []
    for name, layer in layers().items():
        try:
            found = torch.autograd.grad(penalty(layer), parts[0])
            rows.append([name, off(found, wanted)])
        except RuntimeError as error:
            rows.append([name, f"raises: {str(error).splitlines()[0][:60]}"])
    rows += [["`root`, z^3 + z = a", _root_row()], ["`least_squares`, two rates", _fit_row()]]
    print_table(["layer", "second derivative, relative error"], rows)


def _root_row() -> float:
    """Hessian of a sum of a thousand roots against Cardano's formula."""
    a = torch.linspace(-3, 5, 1001, dtype=torch.float64).requires_grad_()
    z = root(lambda z, a: z**3 + z - a, torch.zeros_like(a), a)[0]
    (first,) = torch.autograd.grad(z.sum(), a, create_graph=True)
    second = torch.autograd.grad(first.sum(), a)
    u = z.detach()
    return off(second, [-6 * u / (3 * u**2 + 1) ** 3])


def _fit_row() -> float:
    """Hessian in the data of a fit with a residual; the truth by three Newton steps, unrolled."""
    t = torch.linspace(0, 2, 12, dtype=torch.float64)
    y = (torch.exp(-t) + torch.exp(-3 * t) + 0.1 * normal(12, seed=5))[None]

    def misfit(z: Tensor, y: Tensor) -> Tensor:
        return torch.exp(-z[:, :1] * t) + torch.exp(-z[:, 1:] * t) - y

    guess = torch.tensor([[0.8, 3.5]], dtype=torch.float64)

    def by_layer(y: Tensor) -> Tensor:
        return least_squares(misfit, guess, y, rtol=1e-14)[0].sum()

    best = least_squares(misfit, guess, y, rtol=1e-14)[0].detach()[0]

    def by_newton(y: Tensor) -> Tensor:
        def loss(z: Tensor) -> Tensor:
            return 0.5 * misfit(z[None], y).square().sum()

        z = best
        for _ in range(3):
            h, g = torch.func.hessian(loss)(z), torch.func.grad(loss)(z)
            # Cramer's rule: nothing of torch's linear algebra is differentiated.
            det = h[0, 0] * h[1, 1] - h[0, 1] * h[1, 0]
            dz = torch.stack([h[1, 1] * g[0] - h[0, 1] * g[1], h[0, 0] * g[1] - h[1, 0] * g[0]])
            z = z - dz / det
        return z.sum()

    twice = [torch.func.jacrev(torch.func.jacrev(f))(y) for f in (by_layer, by_newton)]
    return off(twice[:1], twice[1:])


def peak(name: str, steps: int) -> float:
    """MiB that a forward and a backward pass of so many steps add to the process (Linux)."""
    parts = weights(256, 128)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ten steps do not converge
        torch.autograd.grad(_of_length(name, 2)(*parts).sum(), parts)
        before = _high_water(reset=True)
        torch.autograd.grad(_of_length(name, steps)(*parts).square().sum(), parts)
    return (_high_water() - before) / 1024


def _of_length(name: str, steps: int) -> Layer:
    """Exactly so many steps forwards."""
    if name == "ours":
        return ours(GMRES(), rtol=0.0, max_steps=steps, solver=Picard())
    if name == "torchdeq":
        return torchdeq(f_solver="fixed_point_iter", f_tol=0.0, f_max_iter=steps)
    return unrolled(steps)


def _high_water(*, reset: bool = False) -> int:
    """KiB that the process held at most, since the last reset: what is imported takes more for a moment."""
    if reset:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def memory() -> None:
    """Each cell in a process of its own."""
    names = {"ours": "`fixed_point`", "unrolled": "unrolled"}
    if PEER:
        names["torchdeq"] = "TorchDEQ"
    rows = []
    for name, shown in names.items():
        row: list[Any] = [shown]
        for steps in (10, 100, 1000):
            command = [sys.executable, __file__, "--peak", name, str(steps)]
            told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            row.append(float(told.split()[-1]))
        rows.append(row)
    print_table(["layer, 128 x 256", "10 steps, MiB", "100 steps, MiB", "1000 steps, MiB"], rows)


def preconditioners(n: int = 16) -> None:
    """Heat conduction on an n^3 grid, conductivities over six decades."""
    k = torch.arange(n**3).reshape(n, n, n)
    pairs = [(k.narrow(d, 0, n - 1), k.narrow(d, 1, n - 1)) for d in range(3)]
    a, b = (torch.cat([p[i].flatten() for p in pairs]) for i in (0, 1))
    c = 10 ** (1.5 * normal(n**3, seed=6)).clamp(-3, 3)
    g = 2 * c[a] * c[b] / (c[a] + c[b])
    diagonal = torch.zeros(n**3, dtype=c.dtype).index_add(0, a, g).index_add(0, b, g) + 1e-3 * c
    rows, cols = torch.cat([k.flatten(), a, b]), torch.cat([k.flatten(), b, a])
    A = torch.sparse_coo_tensor(
        torch.stack([rows, cols]), torch.cat([diagonal, -g, -g]), (n**3, n**3)
    ).coalesce()
    right = normal(4, n**3, seed=7)
    table = []
    for solver in (
        CG(),
        CG(preconditioner=Jacobi()),
        GMRES(preconditioner=Jacobi()),
        GMRES(preconditioner=Factors(A, drop=1e-3)),
    ):
        begun = time.perf_counter()
        _, record = linear_solve(A, right, solver=solver)
        taken = time.perf_counter() - begun
        name = str(solver.preconditioner or "none")
        done = "yes" if bool(record.converged.all()) else "NO"
        most = int(record.iterations.max())
        table.append([type(solver).__name__, name, most, done, taken])
    print_table(["method", "preconditioner", "products", "converged", "seconds"], table)


def fits() -> None:
    """Nonlinear least squares with a local coupling, by singular values and by products alone."""

    def r(z: Tensor, a: Tensor) -> Tensor:
        return torch.cat([z**3 + z - a, 0.3 * (z - z.roll(1, 1))], 1)

    table = []
    for n in (50, 100, 200, 10_000):
        a = normal(4, n, seed=8)
        row: list[Any] = [n]
        answers = []
        for solver in (LevenbergMarquardt(), LevenbergMarquardt(linear=LSMR())):
            if n > 400 and solver.linear is None:
                row.append("-")
                continue
            given = None if solver.linear else _fit_jacobian(n)
            begun = time.perf_counter()
            z, record = least_squares(r, torch.zeros_like(a), a, solver=solver, jacobian=given)
            row.append(
                f"{time.perf_counter() - begun:.2f}"
                + ("" if bool(record.converged.all()) else " not converged")
            )
            answers.append(z)
        row.append(float((answers[0] - answers[-1]).abs().max()) if len(answers) > 1 else "-")
        table.append(row)
    print_table(["unknowns", "singular values, s", "`LSMR()`, s", "difference"], table)


def _fit_jacobian(n: int) -> Callable[..., Tensor]:
    eye = torch.eye(n, dtype=torch.float64)
    smooth = 0.3 * (eye - eye.roll(-1, 1))

    def jacobian(z: Tensor, a: Tensor) -> Tensor:
        return torch.cat([torch.diag_embed(3 * z**2 + 1), smooth.expand(len(z), n, n)], 1)

    return jacobian


PARTS: dict[str, str] = {
    "first": "gradients of a layer, batch 64",
    "second": "second derivatives",
    "memory": "peak of memory beyond the weights, forward and backward",
    "preconditioners": "a sparse system of 4,096 unknowns, four right-hand sides",
    "fits": "least squares of four samples, two residuals for each unknown",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--part", choices=PARTS, action="append", help="default: all")
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="Sparse", category=UserWarning)
    if options.peak:
        print(f"{peak(options.peak[0], int(options.peak[1])):.1f}")
        return
    if not PEER:
        print(f"TorchDEQ is not installed and left out; see {pathlib.Path(__file__).name}.")
    actions: dict[str, Callable[[], None]] = {
        "first": lambda: first_derivatives(options.widths, options.repeats),
        "second": second_derivatives,
        "memory": memory,
        "preconditioners": preconditioners,
        "fits": fits,
    }
    for part in options.part or PARTS:
        with measured(PARTS[part]):
            actions[part]()


if __name__ == "__main__":
    main()
