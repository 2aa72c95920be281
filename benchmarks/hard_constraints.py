"""Families with hard constraints: what the norm is worth, and what a mixture of experts reaches.

    python benchmarks/hard_constraints.py [--part oracle norm sorption] [--inputs 100] [--steps 100]

oracle     the truth in the span (POD of true trajectories): published objective against the defect norm
norm       constants of both norms within the span of an untrained basis
sorption   diffusion-sorption, 100 test inputs: published rows, trivial baselines, ours by knob

True trajectories are this script's own finite volumes (cell-centred, LSODA with a banded Jacobian); training
never sees them. Families with functions as inputs: `hard_constraint_families.py`.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from _common import measured, print_table
from scipy.integrate import solve_ivp
from scipy.interpolate import make_interp_spline
from torch import Tensor

import pinnkit as pk
from pinnkit.nn import HardConstraint, norm_constants
from pinnkit.problems import (  # pyright: ignore[reportMissingImports]
    BurgersFamily,
    DiffusionSorption,
    ReactionDiffusion,
)
from pinnkit.solvers.hard_constraint_model import Discretisation

T, D, CELLS, INSTANTS = 500.0, 5e-4, 1024, 101
SORPTION = (1 - 0.29) / 0.29 * 2880 * 3.5e-4  # theta(u) = u + SORPTION u^n
N_F, EPS = 0.874, 1e-6
GRID_T = np.linspace(0, T, INSTANTS)
GRID_X = (np.arange(CELLS) + 0.5) / CELLS


def trajectory(u0: float, *, ghost: bool = False, rtol: float = 1e-7) -> np.ndarray:
    """u on 101 x 1024, second order in space; `ghost`: the boundary of the published data."""
    dx = 1 / CELLS

    def rate(_: float, u: np.ndarray) -> np.ndarray:
        wide = np.empty(CELLS + 2)
        wide[1:-1] = u
        if ghost:
            wide[0], wide[-1] = 1.0, D * (u[-2] - u[-1]) / dx
        else:
            wide[0] = 2.0 - u[0]
            wide[-1] = u[-1] * (2 * D / dx - 1) / (2 * D / dx + 1)
        retardation = 1 + SORPTION * N_F * (np.maximum(u, 0) + EPS) ** (N_F - 1)
        return D / retardation * (wide[2:] - 2 * wide[1:-1] + wide[:-2]) / dx**2

    found = solve_ivp(
        rate, (0, T), np.full(CELLS, u0), method="LSODA", t_eval=GRID_T,
        rtol=rtol, atol=1e-10, lband=1, uband=1,
    )  # fmt: skip
    return found.y.T


def relative(u: np.ndarray, v: np.ndarray) -> float:
    """|u - v| / |v|."""
    return float(np.linalg.norm(u - v) / np.linalg.norm(v))


# --- the truth in the span ----------------------------------------------------------------------


class Published:
    """u_t - D/R u_xx by differences at sampled points, start, sides: leaves (u, u_t, u_x, u_xx, kind)."""

    def __init__(self, kinds: Tensor, u0: float) -> None:
        self.kinds, self.u0 = kinds, u0

    def __call__(self, inputs: Tensor, leaves: Tensor) -> Tensor:
        u, ut, ux, uxx = leaves.unbind(-1)
        rows = [ut - D / self._r(u) * uxx, (u - self.u0) / self.u0, u - 1, u - D * ux]
        out = torch.stack(rows, -1)
        return out.gather(-1, self.kinds.expand(out.shape[:-1])[..., None])

    def slopes(self, inputs: Tensor, leaves: Tensor) -> Tensor:
        u, _, _, uxx = leaves.unbind(-1)
        r, one, zero = self._r(u), torch.ones_like(u), torch.zeros_like(u)
        rise = SORPTION * N_F * (N_F - 1) * (u.clamp(min=0) + EPS) ** (N_F - 2)
        by_u = torch.where(u > 0, D / r**2 * rise * uxx, zero)
        rows = [
            torch.stack([by_u, one, zero, -D / r], -1),
            torch.stack([one / self.u0, zero, zero, zero], -1),
            torch.stack([one, zero, zero, zero], -1),
            torch.stack([one, zero, -D * one, zero], -1),
        ]
        out = torch.stack(rows, -2)
        index = self.kinds.expand(out.shape[:-2])[..., None, None].expand(*out.shape[:-2], 1, 4)
        return out.gather(-2, index)

    def _r(self, u: Tensor) -> Tensor:
        return 1 + SORPTION * N_F * (u.clamp(min=0) + EPS) ** (N_F - 1)


class Conservative:
    """theta(u^n+1) - theta(u^n) - D int u_xx dt on every interval and cell; row 0: the start.

    Leaves (u^n, u^n+1, D int u_xx dt); the integral is that of the spline in sqrt(t).
    """

    def __init__(self, u0: float) -> None:
        self.u0 = u0

    def __call__(self, inputs: Tensor, leaves: Tensor) -> Tensor:
        before, after, flow = leaves.unbind(-1)
        change = _theta(after) - _theta(before) - flow
        return torch.where(inputs[..., 0] > 0, after - self.u0, change)[..., None]

    def slopes(self, inputs: Tensor, leaves: Tensor) -> Tensor:
        before, after, _ = leaves.unbind(-1)
        first = inputs[..., 0] > 0
        one, zero = torch.ones_like(after), torch.zeros_like(after)
        parts = [
            torch.where(first, zero, -_theta_slope(before)),
            torch.where(first, one, _theta_slope(after)),
            torch.where(first, zero, -one),
        ]
        return torch.stack(parts, -1)[..., None, :]


def _theta(u: Tensor) -> Tensor:
    return u + SORPTION * (u.clamp(min=0) + EPS) ** N_F


def _theta_slope(u: Tensor) -> Tensor:
    return 1 + SORPTION * N_F * (u.clamp(min=0) + EPS) ** (N_F - 1)


class March:
    """The defect norm on the data's own grid: v^n = (R + dt A)^-1 (R v^n-1 + r^n), R = 3.9 frozen."""

    def __init__(self) -> None:
        dt, dx, self.r = T / (INSTANTS - 1), 1 / CELLS, 3.9
        e = D * dt / dx**2
        k = 2 * D / dx
        matrix = np.diag(np.full(CELLS, self.r + 2 * e))
        matrix += np.diag(np.full(CELLS - 1, -e), 1) + np.diag(np.full(CELLS - 1, -e), -1)
        matrix[0, 0] += e
        matrix[-1, -1] -= e * (k - 1) / (k + 1)
        self.inverse = torch.from_numpy(np.linalg.inv(matrix))

    def __call__(self, columns: Tensor) -> Tensor:
        rows = columns.reshape(len(columns), INSTANTS, CELLS, -1)
        v, out = rows[:, 0], [rows[:, 0]]
        for n in range(1, INSTANTS):
            v = self.inverse @ (self.r * v + rows[:, n])
            out.append(v)
        return torch.stack(out, 1).flatten(1, 2)


def oracle(inputs: int) -> list[list[Any]]:
    """Eight POD modes of 24 trajectories; test inputs between them."""
    training = [trajectory(v) for v in (np.arange(24) + 0.5) / 24 * 0.2]
    modes = np.linalg.svd(np.stack(training).reshape(24, -1), full_matrices=False)[2][:8]
    modes = modes.reshape(8, INSTANTS, CELLS)
    tests = np.random.default_rng(1).uniform(0, 0.2, inputs)
    truths = [trajectory(v) for v in tests]
    mean = np.linalg.lstsq(modes.reshape(8, -1).T, np.mean(training, 0).ravel(), rcond=None)[0]
    rows = []
    best = [_in_span(modes, truth) for truth in truths]
    rows.append(["best approximation in the span", _show(best), "-"])
    for name, make in (
        ("published objective", _published(modes)),
        ("the layer, defect norm", _conservative(modes)),
    ):
        errors, done = [], 0
        for u0, truth in zip(tests, truths, strict=True):
            layer, leaves, offset, known = make(u0)
            start = torch.from_numpy(mean)[None]
            found = layer(leaves, offset, known, start=start)
            done += bool(found.record.converged.all())
            w = found.coefficients[0].numpy()
            errors.append(relative(np.tensordot(w, modes, 1), truth))
        rows.append([name, _show(errors), f"{done} of {inputs}"])
    return rows


def _in_span(modes: np.ndarray, truth: np.ndarray) -> float:
    flat = modes.reshape(len(modes), -1)
    return relative((flat.T @ (flat @ truth.ravel())).reshape(truth.shape), truth)


def _published(modes: np.ndarray) -> Callable[[float], Any]:
    rng = np.random.default_rng(0)
    dx = 1 / CELLS
    slope = np.gradient(modes, dx, axis=2)
    leaves = np.stack(
        [modes, np.gradient(modes, GRID_T[1], axis=1), slope, np.gradient(slope, dx, axis=2)], -1
    )
    inside = rng.choice(INSTANTS * CELLS, 20_000, replace=False)
    flat = leaves.reshape(8, -1, 4)
    parts = [flat[:, inside], leaves[:, 0], leaves[:, :100, 0], leaves[:, :100, -1]]
    kinds = torch.tensor(np.repeat(np.arange(4), [20_000, CELLS, 100, 100]))
    basis = torch.from_numpy(np.concatenate(parts, 1)).permute(1, 2, 0)
    zero = torch.zeros(1, len(basis), 4, dtype=torch.float64)

    def make(u0: float) -> Any:
        return HardConstraint(Published(kinds, u0), ridge=1e-4), basis, zero, zero[..., :1]

    return make


def _conservative(modes: np.ndarray) -> Callable[[float], Any]:
    dx, s = 1 / CELLS, np.sqrt(GRID_T)
    wide = np.empty((*modes.shape[:2], CELLS + 2))
    k = 2 * D / dx
    wide[..., 1:-1], wide[..., 0] = modes, -modes[..., 0]
    wide[..., -1] = modes[..., -1] * (k - 1) / (k + 1)
    curve = (wide[..., 2:] - 2 * wide[..., 1:-1] + wide[..., :-2]) / dx**2
    spline = make_interp_spline(s, np.eye(INSTANTS), k=3)
    nodes, weights = np.polynomial.legendre.leggauss(8)
    integral = np.zeros((INSTANTS, INSTANTS))
    for n in range(1, INSTANTS):
        half, middle = (s[n] - s[n - 1]) / 2, (s[n] + s[n - 1]) / 2
        at = middle + half * nodes
        integral[n] = (weights * half * 2 * at) @ spline(at)
    flow = D * np.einsum("st,jtx->jsx", integral, curve)
    before = np.concatenate([np.zeros_like(modes[:, :1]), modes[:, :-1]], 1)
    basis = torch.from_numpy(np.stack([before, modes, flow], -1).reshape(8, -1, 3)).permute(1, 2, 0)
    offset = torch.zeros(1, INSTANTS, CELLS, 3, dtype=torch.float64)
    offset[:, 1:, 0, 2] = D * 2 / dx**2 * GRID_T[1]
    first = torch.zeros(1, INSTANTS, CELLS, 1, dtype=torch.float64)
    first[:, 0] = 1.0
    march = March()

    def make(u0: float) -> Any:
        layer = HardConstraint(Conservative(u0), march)
        return layer, basis, offset.flatten(1, 2), first.flatten(1, 2)

    return make


# --- the norm -----------------------------------------------------------------------------------


def norm() -> list[list[Any]]:
    """c |B v| <= |P J v| <= C |B v| in the span of the untrained basis, on the layer's own grid."""
    rows = []
    for family in (DiffusionSorption().system, ReactionDiffusion().system, BurgersFamily().system):
        for kind in ("pointwise", "defect"):
            solver = pk.HardConstraintMoE(norm=kind, experts=1)
            parts = Discretisation(family, solver, dtype=torch.float64)
            members = parts.members([family.read_sample(s) for s in family.sample(1, 3)])
            basis = parts.basis(parts.network(torch.Generator().manual_seed(0)))
            with torch.no_grad():
                fixed = basis.fixed(parts.points, parts.spec)
                leaves = basis.leaves(fixed, parts.spec, parts.wanted)
                layer = parts.layer(parts.norm(members, members.offset))
                w = torch.zeros(1, leaves.shape[2], dtype=torch.float64)
                j = layer.jacobian(w, leaves, members.offset, members.inputs)[0]
            at = parts.wanted.index((0, (0, 0)))
            values = leaves[:, at] * parts.grid.weights.sqrt().reshape(-1, 1) / parts.scales[0]
            low, high = norm_constants(j, values)
            name = ", ".join(map(str, family.given)) + " -> u"
            rows.append([name, kind, f"{low:.2g}", f"{high:.2g}", f"{high / low:.1f}"])
    return rows


# --- learned operators --------------------------------------------------------------------------

KNOBS: dict[str, dict[str, Any]] = {
    "soft (branch network, same loss)": {"constraint": False},
    "one global constraint, pointwise norm": {"experts": 1, "norm": "pointwise"},
    "disjoint experts, pointwise norm": {"overlap": 0.0, "norm": "pointwise"},
    "one global constraint, defect norm": {"experts": 1},
    "overlapping experts, defect norm (default)": {},
}


def sorption(inputs: int, steps: int) -> list[list[Any]]:
    """Relative L2 error on 101 x 1024 against the continuous and against the ghost-cell data."""
    family = DiffusionSorption().system
    samples = family.sample(inputs, 12345)
    numbers = [s[family.given[0]] for s in samples]
    started = time.perf_counter()
    truths = [trajectory(v) for v in numbers]
    seconds = (time.perf_counter() - started) / inputs
    ghosts = [trajectory(v, ghost=True) for v in numbers]
    draws = [trajectory(s[family.given[0]]) for s in family.sample(24, 0)]
    mean = np.mean(draws, 0)
    modes = np.linalg.svd(np.stack(draws).reshape(24, -1), full_matrices=False)[2]
    rows = [["mean of 24 trajectories", _show([relative(mean, v) for v in truths]), "-", "-", "-"]]
    for count in (2, 4):
        span = modes[:count].reshape(count, INSTANTS, CELLS)
        best = [_in_span(span, v) for v in truths]
        rows.append([f"POD, {count} modes, best in the span", _show(best), "-", "-", "-"])
    off = [relative(g, v) for g, v in zip(ghosts, truths, strict=True)]
    rows.append(["ghost-cell data themselves", _show(off), "0", "-", f"{seconds:.2f} each"])
    t, x = np.meshgrid(GRID_T, GRID_X, indexing="ij")
    points = np.stack([t, x], -1).reshape(-1, 2)
    for name, knobs in KNOBS.items():
        op = family.solve(
            pk.HardConstraintMoE(**knobs, steps=steps), seed=0, verify=False, time_limit=1800
        )
        found = op.values(samples, points)["u"].reshape(inputs, INSTANTS, CELLS)
        errors = [relative(u, v) for u, v in zip(found, truths, strict=True)]
        ghost = [relative(u, v) for u, v in zip(found, ghosts, strict=True)]
        jumps = [float(op(s).stats.more["interface_jump"]) for s in samples[:10]]
        rows.append(
            [
                name,
                _show(errors),
                f"{np.mean(ghost):.2e}",
                f"{max(jumps):.0e}",
                f"{op.stats.seconds:.0f}",
            ]
        )
        print_table(["", "error", "to ghost-cell data", "jump", "seconds"], rows[-1:])
    return rows


def _show(errors: list[float]) -> str:
    return f"{np.mean(errors):.2e} (largest {np.max(errors):.1e})"


def main() -> None:
    """The parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    every = ["oracle", "norm", "sorption"]
    parser.add_argument("--part", nargs="+", choices=every, default=every)
    parser.add_argument("--inputs", type=int, default=100)
    parser.add_argument("--steps", type=int, default=100)
    args = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    if "oracle" in args.part:
        with measured("The truth in the span: eight POD modes"):
            print_table(["", "error", "converged"], oracle(min(args.inputs, 10)))
    if "norm" in args.part:
        with measured("Constants of the norms"):
            print_table(["family", "norm", "c", "C", "C / c"], norm())
    if "sorption" in args.part:
        with measured("Diffusion-sorption"):
            rows = sorption(args.inputs, args.steps)
            print_table(["", "error", "to ghost-cell data", "jump", "seconds"], rows)


if __name__ == "__main__":
    main()
