"""Vorticity on the torus at 32 x 32 x 32: a network's march, and what a constraint makes of it.

    python benchmarks/hard_constraint_torus.py [--inputs 20] [--seconds 100] [--seed 0] [--out rows.jsonl]
    python benchmarks/hard_constraint_torus.py --ratios rows.jsonl

`problems.NavierStokesTorus` (nu = 1e-4, T = 5, random start), from its declaration by `PeriodicElements`: eight
elements of three Radau nodes, 32 x 32 modes. One FNO maps the state at an element's start to its three
nodal increments. It is trained once, without solutions, by the defect norm of its own marches, for `--seconds`
of processor time, and serves every row:

soft              the march of the network alone
one constraint    the network's march, and coefficients of corrections (`PeriodicElements.corrections`) over [0, T]
one for each      experts in time: elements one after the other, each from where the last one ended
2 x 2 experts     in each element the corrections times windows in space, a partition of unity that overlaps
untrained         the constraint of each element from a still state: what the corrections do by themselves

Truth: this script's own pseudo-spectral solver, 64 x 64 with the 2/3 rule, Runge-Kutta of order 4 with an
integrating factor. Its own error by halving and doubling is printed. Errors are relative L2, member by member.
`--ratios` reads the rows of one run: geometric means over the members of a rival's error over that of "one for
each element, 6 corrections", with intervals of 95 % (t of the logarithms; the members are the sample).
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from _common import measured, print_table
from scipy import stats
from torch import Tensor

from pinnkit.lower.periodic_elements import PeriodicElements, radau
from pinnkit.nn import FNO, HardConstraint, Windows
from pinnkit.problems import NavierStokesTorus  # pyright: ignore[reportMissingImports]

NODES, TIMES, STAGES, COMPARED = 32, 3, 8, 32
SCALE = 0.65  # of a start, rms
LR, BATCH, DRAWS, RENEW = 3e-3, 8, 8, 20
AGAINST = "one for each element, 6 corrections"
March = Callable[
    [Tensor], tuple[Tensor, float]
]  # (B, *grid) -> nodal values (B, S Q, *grid), misfit


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


# --- the network and the constraint -----------------------------------------------------------------


class Learner:
    """An FNO for one element, and the layers that start from it."""

    def __init__(self, family: Any, T: float, seed: int) -> None:
        self.family, self.T = family, T
        knobs: dict[str, Any] = {"times": TIMES, "nodes": NODES, "scale": SCALE}
        self.element = PeriodicElements(family, T / STAGES, **knobs)
        self.whole = PeriodicElements(family, T, stages=STAGES, **knobs)
        gen = torch.Generator().manual_seed(seed)
        self.network = FNO(3, TIMES, modes=(10, 10), width=20, depth=3, generator=gen)
        last: Any = self.network.last
        with torch.no_grad():
            last.weight.mul_(0.1)
            last.bias.zero_()

    def known(self, elements: PeriodicElements, batch: int) -> Tensor:
        """Nothing but the coordinates: these equations read no input after the start."""
        columns = len(self.family.coords) + len(self.family.leaves) + 2
        return torch.zeros(batch, len(elements.points()), columns, dtype=torch.float64)

    def guess(self, state: Tensor) -> Tensor:
        """Nodal values of the element that starts there: (B, Q, *grid)."""
        element = self.element
        rate = element.rate(self.known(element, len(state)), state)
        psi = element.fields(state)[:, 0] * (2 * math.pi) ** 2
        change = self.network(torch.stack([state, rate, psi], 1) / SCALE) * SCALE
        rise = element.instants[:, None, None] * (rate[:, None] + change)
        return state[:, None] + rise - rise.mean((-1, -2), keepdim=True)

    def defect(self, state: Tensor) -> Tensor:
        """Mean square defect of the network's element: (B,)."""
        element = self.element
        leaves = element.leaves(self.guess(state), state)
        rows = element.norm(element(self.known(element, len(state)), leaves)[..., None])
        return rows.square().sum((1, 2))

    def train(self, seconds: float, seed: int) -> tuple[int, float]:
        """Steps, and the root mean defect of the last fifty."""
        optimiser = torch.optim.Adam(self.network.parameters(), lr=LR)
        gen, begun, step, found = torch.Generator().manual_seed(seed), time.process_time(), 0, []
        pool = torch.empty(0)
        while (share := (time.process_time() - begun) / seconds) < 1:
            if step % RENEW == 0:
                draws = self.family.sample(DRAWS, seed, start=step // RENEW * DRAWS)
                states = [torch.from_numpy(grid_values(self.family, draws, NODES))]
                # Its own marches, longer as it learns; nothing else says where later states lie.
                with torch.no_grad():
                    for _ in range(min(STAGES - 1, int(1 + 2 * STAGES * share))):
                        states.append(self.guess(states[-1])[:, -1])
                pool = torch.cat(states)
            warm = min(1.0, step / RENEW)
            for group in optimiser.param_groups:
                group["lr"] = LR * warm * 0.5 * (1 + math.cos(math.pi * share))
            chosen = torch.randint(len(pool), (BATCH,), generator=gen)
            loss = self.defect(pool[chosen]).mean()
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            optimiser.step()
            found.append(float(loss.detach()))
            step += 1
        return step, math.sqrt(np.mean(found[-50:]))

    def soft(self, state: Tensor) -> tuple[Tensor, float]:
        """The network's march."""
        found, misfits = [], []
        for _ in range(STAGES):
            misfits.append(float(self.defect(state).mean().sqrt()))
            found.append(self.guess(state))
            state = found[-1][:, -1]
        return torch.cat(found, 1), float(np.mean(misfits))

    def by_element(self, number: int, experts: int, *, trained: bool = True) -> March:
        """The constraint in each element, `experts` windows along each axis."""

        def march(state: Tensor) -> tuple[Tensor, float]:
            found, misfits = [], []
            for _ in range(STAGES):
                first = self.guess(state) if trained else state[:, None].expand(-1, TIMES, -1, -1)
                values, misfit = self.corrected(self.element, first, state, number, experts)
                found.append(values)
                misfits.append(misfit)
                state = values[:, -1]
            return torch.cat(found, 1), float(np.mean(misfits))

        return march

    def over_all(self, number: int) -> March:
        """One set of coefficients for all of [0, T]."""

        def march(state: Tensor) -> tuple[Tensor, float]:
            return self.corrected(self.whole, self.soft(state)[0], state, number, 1)

        return march

    def corrected(
        self, elements: PeriodicElements, first: Tensor, start: Tensor, number: int, experts: int
    ) -> tuple[Tensor, float]:
        """first + sum_kj w_kj chi_k d_j with the coefficients of the constraint layer."""
        known, offset = self.known(elements, len(start)), elements.leaves(first, start)
        windows = Windows(0, 1, experts, overlap=1.0, periodic=True)
        bells = windows.taylor(torch.arange(NODES, dtype=torch.float64) / NODES, 0)[0]
        boxes = torch.einsum("xk,yl->klxy", bells, bells).flatten(0, 1)
        functions = elements.corrections(known, offset, number)
        functions = torch.einsum("kxy,bmqxy->bkmqxy", boxes, functions).flatten(1, 2)
        functions = functions - functions.mean((-1, -2), keepdim=True)  # vorticity keeps its mean
        layer = HardConstraint(elements, elements.norm, rtol=1e-5, max_steps=12)
        answer = layer(elements.basis_leaves(functions), offset, known)
        values = first + torch.einsum("bm,bmqxy->bqxy", answer.coefficients, functions)
        return values, float(answer.misfit.mean())


def at_equidistant(values: Tensor, start: Tensor) -> Tensor:
    """Nodal values (B, S Q, *grid) -> (B, COMPARED, *grid), by the elements' polynomials."""
    nodes, _, _ = radau(TIMES)
    share = np.arange(1, COMPARED // STAGES + 1) * STAGES / COMPARED
    powers = np.arange(TIMES + 1)
    known = np.concatenate([[0.0], nodes])
    weights = share[:, None] ** powers @ np.linalg.inv(known[:, None] ** powers)
    parts = values.unflatten(1, (STAGES, TIMES))
    begins = torch.cat([start[:, None], parts[:, :-1, -1]], 1)[:, :, None]
    every = torch.cat([begins, parts], 2)
    return torch.einsum("iq,bsqxy->bsixy", torch.from_numpy(weights), every).flatten(1, 2)


def errors(found: Tensor, truth: Tensor) -> np.ndarray:
    """Relative L2, member by member."""
    return ((found - truth).flatten(1).norm(dim=1) / truth.flatten(1).norm(dim=1)).numpy()


def table(inputs: int, seconds: float, seed: int, out: pathlib.Path | None) -> list[list[Any]]:
    """All rows with one network."""
    problem = NavierStokesTorus()
    family = problem.system
    samples = family.sample(inputs, 12345)
    fine = march_truth(grid_values(family, samples, 64), problem.nu, problem.T, 320)
    check = march_truth(grid_values(family, samples[:2], 128), problem.nu, problem.T, 640)
    own = np.linalg.norm(fine[:2] - check[:, :, ::2, ::2]) / np.linalg.norm(fine[:2])
    print(f"the truth's own error, two members against 128 x 128 and half the step: {own:.1e}\n")
    truth = torch.from_numpy(fine[:, 1:, ::2, ::2].copy())
    start = torch.from_numpy(grid_values(family, samples, NODES))
    learner = Learner(family, problem.T, seed)
    steps, defect = learner.train(seconds, seed)
    print(f"{steps} steps in {seconds:.0f} processor seconds, defect of an element {defect:.3f}\n")
    rivals: dict[str, March] = {
        "the start, unchanged": lambda s: (s[:, None].expand(-1, STAGES * TIMES, -1, -1), math.nan),
        "soft: the network alone": learner.soft,
        "one constraint over all of T, 6 corrections": learner.over_all(6),
        "one constraint over all of T, 24 corrections": learner.over_all(24),
        AGAINST: learner.by_element(6, 1),
        "one for each element, 24 corrections": learner.by_element(24, 1),
        "each element and 2 x 2 experts, 6 corrections": learner.by_element(6, 2),
        "each element, untrained, 6 corrections": learner.by_element(6, 1, trained=False),
        "each element, untrained, 24 corrections": learner.by_element(24, 1, trained=False),
    }
    rows = []
    with torch.no_grad():
        for name, march in rivals.items():
            begun, off = time.process_time(), []
            misfits = []
            for i in range(inputs):  # one by one: the leaves of 24 functions over [0, T] are large
                values, misfit = march(start[i : i + 1])
                found = at_equidistant(values, start[i : i + 1])
                off.append(errors(found, truth[i : i + 1])[0])
                misfits.append(misfit)
            cost = (time.process_time() - begun) / inputs
            rows.append(
                [name, f"{np.mean(off):.2e} (largest {max(off):.1e})", np.mean(misfits), cost]
            )
            print_table(["", "error", "misfit", "processor seconds"], rows[-1:])
            if out is not None:
                kept = {"name": name, "seed": seed, "errors": [float(e) for e in off], "cost": cost}
                with out.open("a") as file:
                    file.write(json.dumps(kept | {"steps": steps, "seconds": seconds}) + "\n")
    return rows


def ratios(file: pathlib.Path) -> list[list[Any]]:
    """Rivals against `AGAINST`, paired by member."""
    found = [json.loads(line) for line in file.read_text().splitlines()]
    ours = np.log(next(r["errors"] for r in found if r["name"] == AGAINST))
    rows = []
    for row in found:
        off = np.log(row["errors"]) - ours
        if row["name"] != AGAINST:
            wide = stats.t.ppf(0.975, len(off) - 1) * off.std(ddof=1) / math.sqrt(len(off))
            low, middle, high = np.exp(off.mean() + wide * np.array([-1, 0, 1]))
            better = f"{int((off > 0).sum())} of {len(off)}"
            rows.append([row["name"], f"{middle:.2f} ({low:.2f} ... {high:.2f})", better])
    return rows


def main() -> None:
    """Train once, then all rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--inputs", type=int, default=20)
    parser.add_argument(
        "--seconds", type=float, default=100.0, help="of training, of the processor"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path, help="file to append rows to")
    parser.add_argument("--ratios", type=pathlib.Path, help="rows to compare, nothing is run")
    args = parser.parse_args()
    if args.ratios is not None:
        print_table(["", f"its error over that of: {AGAINST}", "larger"], ratios(args.ratios))
        return
    torch.set_num_threads(1)
    with measured("Vorticity on the torus, 32 x 32 x 32"):
        rows = table(args.inputs, args.seconds, args.seed, args.out)
        print_table(["", "error", "misfit", "processor seconds"], rows)


if __name__ == "__main__":
    main()
