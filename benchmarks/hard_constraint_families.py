"""Families with functions as inputs: experts against one constraint and against none; beyond the end; cost.

    python benchmarks/hard_constraint_families.py [--part families extrapolation cost] [--case burgers ...]
        [--inputs 100] [--seed 0] [--out FILE]

families       reaction-diffusion, Burgers, diffusion-sorption with a random start and inlet: test inputs that
               training never saw, by knob
extrapolation  diffusion-sorption learned on t <= 400, asked for 400 < t <= 500
cost           CPU seconds of the layer by number of points and by formulation

True solutions are this script's own: an integrating factor and Runge-Kutta on 512 Fourier modes (Burgers),
differences of second order and LSODA elsewhere. Training sees none of them. Rows are appended to `--out` as
lines of JSON, and rows found there are not run again. Seconds are of the process (`time.process_time`).
`--seed` is that of training; test inputs are those of seed 54321 + seed. In each case the experts train first;
every rival trains for as many seconds. "Equal unknowns": as many functions, and a trunk as wide, as all experts
have together; "the same functions": as many as one of them, as in the published comparison. A trunk of 240 has
too many weights for the dense matrix of the optimiser (110 GB) and is taken as it is before training.
Knobs of Burgers' experts are the defaults (by misfit alone, `solvers/front_knobs.py`); those of the other two
were chosen on draws of other seeds (777, 12345).
"""

from __future__ import annotations

import argparse
import json
import pathlib
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from _common import measured, print_table
from scipy.integrate import solve_ivp

import pinnkit as pk
from pinnkit.nn import HardConstraint
from pinnkit.problems import (  # pyright: ignore[reportMissingImports]
    BurgersFamily,
    DiffusionSorption,
    DiffusionSorptionInflow,
    ReactionDiffusion,
)
from pinnkit.solvers.hard_constraint_model import Discretisation, HardConstraintModel

TEST_SEED = 54321
D = 5e-4
SORPTION = (1 - 0.29) / 0.29 * 2880 * 3.5e-4 * 0.874
CELLS, INSTANTS = 512, 65

Grid = tuple[np.ndarray, np.ndarray]


# --- true solutions -----------------------------------------------------------------------------


def given_values(family: Any, samples: Sequence[Any], at: Grid) -> dict[str, np.ndarray]:
    """The given functions at pairs (t, x), by name: (B, n)."""
    values = family.values(samples, np.stack(at, 1), family.given)
    return {str(g.func if g.args else g): np.array(v) for g, v in values.items()}


def burgers_truth(problem: Any, samples: Sequence[Any], t: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Fourier in space, an integrating factor and Runge-Kutta of order 4 in time: (B, t, x)."""
    n, substeps = len(x), 64
    start = given_values(problem.system, samples, (0 * x, x))["u0"]
    k = 2 * np.pi * np.fft.rfftfreq(n, 1 / n)
    kept = np.arange(len(k)) < n // 3
    dt = (t[1] - t[0]) / substeps
    half = np.exp(-problem.nu * k**2 * dt / 2)

    def force(v: np.ndarray) -> np.ndarray:
        return -0.5j * k * np.fft.rfft(np.fft.irfft(v * kept, n) ** 2) * kept

    v = np.fft.rfft(start)
    out = [start]
    for _ in t[1:]:
        for _ in range(substeps):
            a = force(v)
            b = force(half * (v + dt / 2 * a))
            c = force(half * v + dt / 2 * b)
            d = force(half**2 * v + dt * half * c)
            v = half**2 * v + dt / 6 * (half**2 * a + 2 * half * (b + c) + d)
        out.append(np.fft.irfft(v, n))
    return np.stack(out, 1)


def reaction_truth(
    problem: Any, samples: Sequence[Any], t: np.ndarray, x: np.ndarray
) -> np.ndarray:
    """Cell-centred differences, LSODA with a banded Jacobian."""
    dx = x[1] - x[0]
    sources = given_values(problem.system, samples, (0 * x, x))["f"]
    out = []
    for f in sources:

        def rate(_: float, u: np.ndarray, f: np.ndarray = f) -> np.ndarray:
            wide = np.concatenate([[-u[0]], u, [-u[-1]]])
            lap = (wide[2:] - 2 * u + wide[:-2]) / dx**2
            return problem.D * lap + problem.k * u**2 + f

        out.append(_integrated(rate, 0 * x, t))
    return np.stack(out)


def inflow_truth(problem: Any, samples: Sequence[Any], t: np.ndarray, x: np.ndarray) -> np.ndarray:
    """As above; the wall's value stands between two cells, and so does the outflow's balance."""
    dx = x[1] - x[0]
    fine = np.linspace(t[0], t[-1], 4001)
    starts = given_values(problem.system, samples, (0 * x, x))["u0"]
    inlets = given_values(problem.system, samples, (fine, 0 * fine))["inlet"]
    return np.stack([sorption(u0, fine, g, t, dx) for u0, g in zip(starts, inlets, strict=True)])


def sorption(
    u0: np.ndarray, times: np.ndarray, inlet: np.ndarray, t: np.ndarray, dx: float
) -> np.ndarray:
    """R(u) u_t = D u_xx by cells, from u0 and between the inlet and the outflow."""
    k = 2 * D / dx

    def rate(now: float, u: np.ndarray) -> np.ndarray:
        left = 2 * np.interp(now, times, inlet) - u[0]
        wide = np.concatenate([[left], u, [u[-1] * (k - 1) / (k + 1)]])
        retardation = 1 + SORPTION * (np.maximum(u, 0) + 1e-6) ** -0.126
        return D / retardation * (wide[2:] - 2 * u + wide[:-2]) / dx**2

    return _integrated(rate, u0, t)


def _integrated(rate: Callable[..., np.ndarray], start: np.ndarray, t: np.ndarray) -> np.ndarray:
    found = solve_ivp(
        rate, (t[0], t[-1]), start, method="LSODA", t_eval=t,
        rtol=1e-7, atol=1e-10, lband=1, uband=1,
    )  # fmt: skip
    return found.y.T


# --- families -----------------------------------------------------------------------------------

Knobs = dict[str, dict[str, Any]]
_FINE = {"times": 32, "nodes": 97}  # what Burgers' rivals see of a front
_LONG = {"times": 48, "nodes": 64, "draws": 4, "renew": 10, "max_steps": 8}
EXPERTS = "experts"
SOFT = "soft (branch network, same loss)"
CASES: dict[str, tuple[Any, Callable[..., np.ndarray], bool, Knobs]] = {
    "reaction": (
        ReactionDiffusion(),
        reaction_truth,
        False,
        {
            EXPERTS: {"steps": 50},
            "one global constraint, the same functions": {"experts": 1},
            "one global constraint, equal unknowns": {"experts": 1, "functions": 48},
            SOFT: {"constraint": False},
        },
    ),
    "burgers": (
        BurgersFamily(),
        burgers_truth,
        True,
        {
            EXPERTS: {},
            "one global constraint, 60 functions": {"experts": 1, "functions": 60, **_FINE},
            SOFT: {"constraint": False, "experts": 18, **_FINE},
        },
    ),
    "inflow": (
        DiffusionSorptionInflow(),
        inflow_truth,
        False,
        {
            EXPERTS: {"functions": 40, "experts": 6, "steps": 2, **_LONG},
            "one global constraint, 60 functions": {"experts": 1, "functions": 60, **_LONG},
            "one global constraint, equal unknowns, untrained": {
                "experts": 1, "functions": 240, "width": 240, "steps": 0, **_LONG,
            },
            SOFT: {"constraint": False, "functions": 40, "experts": 6, **_LONG},
        },
    ),
}  # fmt: skip
ENDLESS = 100_000  # steps of a rival, whose seconds are counted instead


def families(
    names: Sequence[str],
    inputs: int,
    seed: int,
    known: Mapping[str, Any],
    save: Callable[..., None],
) -> None:
    """One row per case and knob: relative L2 errors over the inputs on 65 x 128 points."""
    mark = f" (seed {seed})" if seed else ""
    for name in names:
        problem, truth, periodic, table = CASES[name]
        family = problem.system
        labels = {knob: f"{name}: {knob}{mark}" for knob in table}
        if all(label in known for label in labels.values()):
            continue
        samples = family.sample(inputs, TEST_SEED + seed)
        (start, end), (low, high) = (family.normal_form.bounds[c] for c in family.coords)
        t = np.linspace(start, end, INSTANTS)
        x = low + (high - low) * (np.arange(CELLS) + (0 if periodic else 0.5)) / CELLS
        exact = truth(problem, samples, t, x)[:, :, ::4]
        mesh = np.stack(np.meshgrid(t, x[::4], indexing="ij"), -1).reshape(-1, 2)
        for knob, values in table.items():
            if labels[knob] in known:
                continue
            began = time.process_time()
            if values.get("steps") == 0:
                model, record = _untrained(family, values, seed), {"steps": 0}
            else:
                budget = float("inf")
                if knob != EXPERTS:  # the first of every table
                    values = {**values, "steps": ENDLESS}
                    budget = known[labels[EXPERTS]]["training"]
                model, record = _trained(family, values, seed, budget)
            trained = time.process_time()
            answers = model.solve([family.read_sample(s) for s in samples])
            found = np.stack([_at(a, mesh) for a in answers]).reshape(exact.shape)
            errors = np.linalg.norm(found - exact, axis=(1, 2)) / np.linalg.norm(exact, axis=(1, 2))
            save(
                labels[knob],
                errors=[float(e) for e in errors],
                training=trained - began,
                solving=time.process_time() - trained,
                misfits=[a.stats["misfit"] for a in answers] if knob != SOFT else [],
                **record,
            )


def _trained(family: Any, knobs: Mapping[str, Any], seed: int, seconds: float) -> tuple[Any, Any]:
    """The model after so many seconds, or the steps of the knobs; and what is to be known of it."""
    end = time.process_time() + seconds
    op = family.solve(
        pk.HardConstraintMoE(**knobs), seed=seed, verify=False, time_limit=None,
        callback=lambda _: time.process_time() > end,
    )  # fmt: skip
    known = {"steps": op.stats.steps, "parameters": op.stats.parameters, **op.stats.more}
    return op.model, known


def _untrained(family: Any, knobs: Mapping[str, Any], seed: int) -> HardConstraintModel:
    solver = pk.HardConstraintMoE(**{**knobs, "steps": None})
    parts = Discretisation(family, solver, dtype=torch.float64)
    return HardConstraintModel(parts, parts.network(torch.Generator().manual_seed(seed)))


def _at(answer: Any, mesh: np.ndarray) -> np.ndarray:
    """The one field of an answer at points."""
    (values,) = answer.approximation.derivatives(torch.from_numpy(mesh), [(0, (0, 0))])
    return values.numpy()


# --- beyond the end -----------------------------------------------------------------------------

BEYOND: Knobs = {
    "experts": {"steps": 50},
    "one global constraint": {"experts": 1, "steps": 50},
}


def extrapolation(inputs: int, known: Mapping[str, Any], save: Callable[..., None]) -> None:
    """Learned on members that end at t = 400; asked where 400 < t <= 500."""
    short, whole = DiffusionSorption(T=400.0).system, DiffusionSorption(T=500.0).system
    (u0,) = whole.given
    samples = whole.sample(inputs, TEST_SEED)
    t, x = np.linspace(0, 500, 101), (np.arange(CELLS) + 0.5) / CELLS
    late = t > 400
    times, inlet = np.array([0.0, 500.0]), np.ones(2)
    exact = np.stack([sorption(s[u0] + 0 * x, times, inlet, t, x[1] - x[0]) for s in samples])
    still = np.repeat(exact[:, ~late][:, -1:], late.sum(), 1)

    def distances(found: np.ndarray) -> list[float]:
        own = exact[:, late]
        gaps = np.linalg.norm(found - own, axis=(1, 2)) / np.linalg.norm(own, axis=(1, 2))
        return [float(g) for g in gaps]

    if "extrapolation: the true state at t = 400, kept" not in known:
        save("extrapolation: the true state at t = 400, kept", errors=distances(still))
    mesh = np.stack(np.meshgrid(t[late], x, indexing="ij"), -1).reshape(-1, 2)
    points = torch.from_numpy(mesh)
    for name, knobs in BEYOND.items():
        if f"extrapolation: {name}" in known:
            continue
        began = time.process_time()
        op = short.solve(pk.HardConstraintMoE(**knobs), seed=0, verify=False, time_limit=None)
        trained = time.process_time()
        answers = op.model.on(whole).solve([whole.read_sample(s) for s in samples])
        found = [a.approximation.derivatives(points, [(0, (0, 0))])[0].numpy() for a in answers]
        shaped = np.stack(found).reshape(inputs, int(late.sum()), len(x))
        save(
            f"extrapolation: {name}",
            errors=distances(shaped),
            training=trained - began,
            solving=time.process_time() - trained,
            steps=op.stats.steps,
        )


# --- cost ---------------------------------------------------------------------------------------

COSTS: Knobs = {
    "one constraint, defect norm": {"experts": 1, "functions": 48},
    "experts, defect norm": {},
    "one constraint, pointwise norm": {"experts": 1, "functions": 48, "norm": "pointwise"},
    "disjoint experts, pointwise norm": {"overlap": 0.0, "norm": "pointwise"},
}


def cost(known: Mapping[str, Any], save: Callable[..., None]) -> None:
    """CPU seconds of one Gauss-Newton step for eight members, 48 unknowns each, by points.

    The points grow in time, then in space. With disjoint boxes and the plain norm every expert solves for
    itself (`pk.nn.ExpertMixture`), as published.
    """
    family = ReactionDiffusion().system
    samples = [family.read_sample(s) for s in family.sample(8, TEST_SEED)]
    for name, knobs in COSTS.items():
        for times, nodes in ((24, 48), (48, 48), (96, 48), (24, 96), (24, 192)):
            label = f"cost: {name}: {times} times, {nodes} nodes"
            if label in known:
                continue
            solver = pk.HardConstraintMoE(**knobs, times=times, nodes=nodes)
            parts = Discretisation(family, solver, dtype=torch.float64)
            network = parts.network(torch.Generator().manual_seed(0))
            members = parts.members(samples)
            with torch.no_grad():
                leaves, _ = parts.leaves(parts.basis(network))
                seconds = [_one_step(parts, members, leaves) for _ in range(7)]
            save(label, seconds=sorted(seconds[1:])[3])


def _one_step(parts: Discretisation, members: Any, leaves: torch.Tensor) -> float:
    """Linearise the norm, build r and J, take the step."""
    solver = parts.solver
    began = time.process_time()
    norm = parts.norm(members, members.offset)
    if solver.overlap or solver.experts == 1:
        parts.layer(norm, max_steps=1)(leaves, members.offset, members.inputs)
        return time.process_time() - began
    place = parts.windows.place(parts.points[:, parts.nf.coords.index(parts.nf.space[0])])
    for k in range(solver.experts):  # boxes are not of equal size on Chebyshev's nodes
        own = place == k
        columns = slice(k * solver.functions, (k + 1) * solver.functions)
        layer = HardConstraint(parts.residual, solver=parts.layer(norm).solver, max_steps=1)
        layer(leaves[own][..., columns], members.offset[:, own], members.inputs[:, own])
    return time.process_time() - began


# --- the command --------------------------------------------------------------------------------


def show(rows: Mapping[str, Any]) -> None:
    """Tables of all rows there are."""
    judged = [
        [
            label, f"{100 * np.mean(r['errors']):.3g} %", f"{100 * np.quantile(r['errors'], 0.9):.3g} %",
            f"{100 * np.max(r['errors']):.3g} %", len(r["errors"]), r.get("steps", "-"),
            f"{r['training']:.0f}" if "training" in r else "-",
            f"{r['solving']:.0f}" if "solving" in r else "-",
        ]
        for label, r in rows.items() if "errors" in r
    ]  # fmt: skip
    if judged:
        heads = ["", "mean", "90 %", "largest", "inputs", "steps", "s training", "s for all inputs"]
        print_table(heads, judged)
    timed = [[label, f"{r['seconds']:.3f}"] for label, r in rows.items() if "seconds" in r]
    if timed:
        print_table(["", "s a step, eight members"], timed)


def main() -> None:
    """The parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    every = ["families", "extrapolation", "cost"]
    parser.add_argument("--part", nargs="+", choices=every, default=every)
    parser.add_argument("--case", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--inputs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path, default=None)
    args = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    rows: dict[str, Any] = {}
    if args.out is not None and args.out.exists():
        rows = {r["row"]: r for r in map(json.loads, args.out.read_text().splitlines())}

    def save(label: str, **values: Any) -> None:
        rows[label] = {"row": label, **values}
        line = json.dumps(rows[label])
        print(line[:200], flush=True)
        if args.out is not None:
            with args.out.open("a") as file:
                file.write(line + "\n")

    with measured("Families"):
        if "families" in args.part:
            families(args.case, args.inputs, args.seed, rows, save)
        if "extrapolation" in args.part:
            extrapolation(args.inputs, rows, save)
        if "cost" in args.part:
            cost(rows, save)
        show(rows)


if __name__ == "__main__":
    main()
