"""Vorticity on the torus at 32 x 32 x 32: a network's march, and what a constraint makes of it.

    python benchmarks/hard_constraint_torus.py [--inputs 20] [--steps 750] [--seed 0] [--out rows.jsonl]
    python benchmarks/hard_constraint_torus.py --ratios rows.jsonl

`problems.NavierStokesTorus` (nu = 1e-4, T = 5, random start) by `HardConstraintMoE`: eight elements of three Radau
nodes, 32 x 32 modes. One FNO is trained once, without solutions, and serves every row (`warm_start=`):

soft              `constraint=False`: the march of the network alone
one constraint    `stages=1`: coefficients of corrections over [0, T]
one for each      `stages=8`: experts in time, elements one after the other
2 x 2 experts     `experts=2`: in each element the corrections times windows in space, that overlap
from a still state    the constraint of each element without the network: what the corrections do by themselves

Truth: this script's own pseudo-spectral solver, 64 x 64 with the 2/3 rule, Runge-Kutta of order 4 with an
integrating factor. Its own error by halving and doubling is printed. Errors are relative L2, member by member.
`--ratios` reads the rows: seed by seed, geometric means over the members of a rival's error over that of "one for
each element, 6 corrections", with intervals of 95 % (t of the logarithms; the members are the sample).
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from _common import measured, print_table
from scipy import stats

import pinnkit as pk
from pinnkit.problems import NavierStokesTorus  # pyright: ignore[reportMissingImports]
from pinnkit.solvers.torus_constraint import TorusDiscretisation, TorusModel

NODES, COMPARED = 32, 32  # of the comparison: nodes on each axis, instants
FIELD = pk.field("w", *pk.coords("t x y"))
AGAINST = "one for each element, 6 corrections"
HEAD = ["", "error", "largest misfit of a stage", "processor seconds"]


# --- truth ----------------------------------------------------------------------------------------


def grid_values(family: Any, samples: Sequence[Any], n: int) -> np.ndarray:  # shape: (B, n, n)
    """The starts on n x n nodes."""
    at = np.arange(n) / n
    a, b = np.meshgrid(at, at, indexing="ij")
    points = np.stack([np.zeros(n * n), a.ravel(), b.ravel()], 1)
    return family.values(samples, points)[family.given[0]].reshape(-1, n, n)


def march_truth(start: np.ndarray, nu: float, T: float, steps: int) -> np.ndarray:
    """(B, COMPARED + 1, n, n) at equidistant times."""
    n = start.shape[-1]
    kx = 2 * np.pi * np.fft.fftfreq(n, 1 / n)[:, None]
    ky = 2 * np.pi * np.arange(n // 2 + 1)[None, :]
    square = kx**2 + ky**2
    inverse = np.divide(1.0, square, out=np.zeros_like(square), where=square > 0)
    mask = ((np.abs(kx) < 2 * np.pi * n / 3) & (ky < 2 * np.pi * n / 3)).astype(float)

    def back(modes: np.ndarray) -> np.ndarray:
        return np.fft.irfft2(modes, (n, n))

    def rate(w: np.ndarray) -> np.ndarray:
        psi = w * inverse
        flow = back(1j * ky * psi) * back(1j * kx * w) - back(1j * kx * psi) * back(1j * ky * w)
        return -mask * np.fft.rfft2(flow)

    w, dt = mask * np.fft.rfft2(start), T / steps
    half = np.exp(-nu * square * dt / 2)
    found = [back(w)]
    for step in range(1, steps + 1):
        a = dt * rate(w)
        b = dt * rate(half * (w + a / 2))
        c = dt * rate(half * w + b / 2)
        d = dt * rate(half**2 * w + half * c)
        w = half**2 * w + (half**2 * a + 2 * half * (b + c) + d) / 6
        if step % (steps // COMPARED) == 0:
            found.append(back(w))
    return np.stack(found, 1)


# --- rivals ---------------------------------------------------------------------------------------


class Still(TorusDiscretisation):
    """In the place of the network's guess the state as it is."""

    def guess(self, network: Any, state: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """The same at all instants of the element."""
        return state[:, None].expand(-1, self.solver.times, *state.shape[1:])


def rivals(corrections: tuple[int, ...] = (6, 24)) -> dict[str, tuple[bool, dict[str, Any]]]:
    """Rows by name: whether the network guesses, and the knobs."""
    rows: dict[str, tuple[bool, dict[str, Any]]] = {
        "soft: the march alone": (True, {"constraint": False})
    }
    for number in corrections:
        after = f", {number} corrections"
        rows[f"one constraint over all of T{after}"] = (
            True,
            {"stages": 1, "corrections": number},
        )
        rows[f"one for each element{after}"] = (True, {"corrections": number})
    rows["one for each element, 12 corrections"] = (True, {"corrections": 12})
    rows["each element and 2 x 2 experts, 6 corrections"] = (True, {"experts": 2, "corrections": 6})
    for number in corrections:
        rows[f"each element, from a still state, {number} corrections"] = (
            False,
            {"corrections": number},
        )
    return rows


def table(inputs: int, steps: int, seed: int, out: pathlib.Path | None) -> list[list[Any]]:
    """All rows with one network, but for those that the file has."""
    lines = out.read_text().splitlines() if out is not None and out.exists() else []
    known = {(r["name"], r["seed"]) for r in map(json.loads, lines)}
    left = {name: rival for name, rival in rivals().items() if (name, seed) not in known}
    if not left:
        return []
    problem = NavierStokesTorus()
    family = problem.system
    samples = [family.read_sample(s) for s in family.sample(inputs, 12345)]
    fine = march_truth(grid_values(family, samples, 64), problem.nu, problem.T, 320)
    check = march_truth(grid_values(family, samples[:2], 128), problem.nu, problem.T, 640)
    own = np.linalg.norm(fine[:2] - check[:, :, ::2, ::2]) / np.linalg.norm(fine[:2])
    print(f"the truth's own error, two members against 128 x 128 and half the step: {own:.1e}\n")
    every = 64 // NODES
    truth = fine[:, 1:, ::every, ::every].reshape(inputs, -1)
    times, at = np.arange(1, COMPARED + 1) * problem.T / COMPARED, np.arange(NODES) / NODES
    mesh = np.stack(np.meshgrid(times, at, at, indexing="ij"), -1).reshape(-1, 3)
    points, w = torch.from_numpy(mesh), [(family.normal_form.fields.index(FIELD), (0, 0, 0))]
    common: Any = {"seed": seed, "verify": False, "time_limit": None, "progress": False}
    begun = time.process_time()
    op = family.solve(pk.HardConstraintMoE(steps=steps), **common)
    spent = time.process_time() - begun
    defect = float(np.mean(op.history["defect"][-50:]))
    print(f"{steps} steps in {spent:.0f} processor seconds, defect of an element {defect:.3f}\n")
    still = fine[:, :1, ::every, ::every].repeat(COMPARED, 1).reshape(inputs, -1)
    rows = [_row("the start, unchanged", still, truth, math.nan, 0.0)]
    for name, (learned, knobs) in left.items():
        solver = pk.HardConstraintMoE(**knobs)
        model: Any = family.solve(solver, warm_start=op, max_steps=0, **common).model
        if not learned:
            model = TorusModel(Still(family, solver, dtype=op.dtype), model.network)
        begun, answers = time.process_time(), []
        for sample in samples:  # one by one, as a user would ask
            answers += model.solve([sample])
        cost = (time.process_time() - begun) / inputs
        found = np.stack([a.approximation.derivatives(points, w)[0].numpy() for a in answers])
        misfit = float(np.mean([a.stats["misfit"] for a in answers]))
        rows.append(_row(name, found, truth, misfit, cost))
        if out is not None:
            wrong = sum(a.stats.get("converged") is False for a in answers)
            kept = {"name": name, "seed": seed, "errors": list(errors(found, truth)), "cost": cost}
            kept |= {"misfit": misfit, "unconverged": wrong, "steps": steps, "training": spent}
            with out.open("a") as file:
                file.write(json.dumps(kept) + "\n")
    return rows


def errors(found: np.ndarray, truth: np.ndarray) -> np.ndarray:  # shapes: (B, n), (B, n), (B,)
    """Relative L2, member by member."""
    return np.linalg.norm(found - truth, axis=1) / np.linalg.norm(truth, axis=1)


def _row(name: str, found: np.ndarray, truth: np.ndarray, misfit: float, cost: float) -> list[Any]:
    off = errors(found, truth)
    row = [name, f"{off.mean():.2e} (largest {off.max():.1e})", misfit, cost]
    print_table(HEAD, [row])
    return row


def ratios(file: pathlib.Path) -> list[list[Any]]:
    """Rivals against `AGAINST`, paired by member, seed by seed."""
    found = [json.loads(line) for line in file.read_text().splitlines()]
    ours = {r["seed"]: np.log(r["errors"]) for r in found if r["name"] == AGAINST}
    rows = []
    for row in found:
        if row["name"] == AGAINST:
            continue
        off = np.log(row["errors"]) - ours[row["seed"]]
        wide = stats.t.ppf(0.975, len(off) - 1) * off.std(ddof=1) / math.sqrt(len(off))
        low, middle, high = np.exp(off.mean() + wide * np.array([-1, 0, 1]))
        better = f"{int((off > 0).sum())} of {len(off)}"
        rows.append([row["name"], row["seed"], f"{middle:.2f} ({low:.2f} ... {high:.2f})", better])
    return rows


def main() -> None:
    """Train once, then all rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--inputs", type=int, default=20)
    parser.add_argument("--steps", type=int, default=750, help="of training")
    parser.add_argument("--seed", type=int, default=0, help="of training and of its draws")
    parser.add_argument(
        "--out", type=pathlib.Path, help="file to append rows to; known ones are kept"
    )
    parser.add_argument("--ratios", type=pathlib.Path, help="rows to compare, nothing is run")
    args = parser.parse_args()
    if args.ratios is not None:
        head = ["", "seed", f"its error over that of: {AGAINST}", "larger"]
        print_table(head, ratios(args.ratios))
        return
    torch.set_num_threads(1)
    with measured("Vorticity on the torus, 32 x 32 x 32"):
        rows = table(args.inputs, args.steps, args.seed, args.out)
        print_table(HEAD, rows)


if __name__ == "__main__":
    main()
