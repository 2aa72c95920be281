"""One solve on several processes: agreement, time per step, and what a killed rank leaves.

    python benchmarks/ranks.py                           all tables, 1 and 2 ranks
    python benchmarks/ranks.py --part scaling --ranks 1 2 4
    python benchmarks/ranks.py --part family --ranks 1 2 4
    python benchmarks/ranks.py --smoke                   a look that it runs: few points, few steps

`CausalPINN` on Burgers' equation, for `family` `HardConstraintMoE` on diffusion-sorption; one thread per
rank, gloo on CPUs, started by torchrun.

agreement   the first batch's gradient and J^T J, and the losses of 20 steps, against one process.
scaling     milliseconds per Gauss-Newton step (median), with the points of a rank held (weak) and those
            of all ranks together held (strong). Efficiency: time of one rank over time of n ranks, the
            latter times n where points are held in all.
family      as agreement: gradient at the start, losses of 20 updates; and processor seconds of rank 0
            per update, its share of the six draws being 6, 3, 2 or 1; then milliseconds of one loss and
            gradient (median) with the draws of a rank held, and its efficiency.
killed      rank 1 of 2 gets SIGKILL after a checkpoint: seconds until torchrun ends, its exit code, and
            the losses after one process has resumed, against those of an undisturbed run.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import _common as common
import numpy as np
import torch

import pinnkit as pk
from pinnkit import problems  # pyright: ignore[reportAttributeAccessIssue]
from pinnkit.driver import solve
from pinnkit.solvers.base import Env
from pinnkit.train.ranks import Ranks, join_ranks

WIDTH, DEPTH = 20, 3
POINTS = (250, 1000, 4000, 16000)  # inside the domain; of a rank, or of all
WARM, STEPS = 2, 5  # steps not counted, steps counted
CURVE = 20  # steps whose losses are compared
DRAWS = (2, 6, 12)  # of a rank
NEVER = 10**6
PARTS = ("agreement", "family", "scaling", "killed")


def solver(points: int | None = None) -> pk.CausalPINN:
    """The same work in every step."""
    return pk.CausalPINN(
        width=WIDTH, depth=DEPTH, points=points, most_points=points, adaptive=False, windows=1,
        probe_every=NEVER,
    )  # fmt: skip


def step_seconds(ranks: Ranks, points: int) -> tuple[float, int, int]:
    """(median seconds of a step, rows, parameters)."""
    instants: list[float] = []
    sizes: list[float] = []

    def look(info: Any) -> None:
        instants.append(time.perf_counter())
        sizes.append(float(info.losses["points"]))

    sol = solve(
        problems.Burgers(), solver(points),
        max_steps=WARM + STEPS, time_limit=None, callback=look, verify=False, ranks=ranks,
    )  # fmt: skip
    took = np.diff(instants)[WARM - 1 :]
    return statistics.median(took.tolist()), int(sizes[-1]), sol.stats.parameters


def exchange_seconds(ranks: Ranks, numbers: int) -> float:
    """Median seconds of one sum over the ranks."""
    values, took = torch.zeros(numbers, dtype=torch.float64), []
    for _ in range(10):
        start = time.perf_counter()
        ranks.sum(values)
        took.append(time.perf_counter() - start)
    return statistics.median(took)


def first_step(ranks: Ranks) -> dict[str, list[float]]:
    """Gradient and J^T J of the first batch, flat."""
    env = Env(torch.device("cpu"), torch.float64, torch.Generator().manual_seed(0), 0, ranks=ranks)
    state = pk.CausalPINN().init(problems.Burgers(), env)
    state.read_probe()
    state.draw()
    assert state.batch is not None
    theta = state.memory["theta"]
    rows = state.batch.rows(theta)[1]
    return {
        "gradient": state.batch.gradient(theta)[1].tolist(),
        "J^T J": ranks.sum(rows.T @ rows).flatten().tolist(),
    }


def losses(ranks: Ranks, steps: int) -> list[float]:
    """Of the default solver."""
    sol = solve(
        problems.Burgers(), pk.CausalPINN(),
        max_steps=steps, time_limit=None, verify=False, ranks=ranks,
    )  # fmt: skip
    ranks.check_equal(sol.snapshot.state["memory"]["theta"], "at the end the parameters")
    return sol.history["loss"]


def family_updates(ranks: Ranks, steps: int) -> dict[str, Any]:
    """Gradient at the start, losses of the default solver, processor seconds of rank 0 per update."""
    family, place = problems.DiffusionSorption().system, torch.device("cpu")
    env = Env(place, torch.float64, torch.Generator().manual_seed(0), 0, ranks=ranks)
    state: Any = pk.HardConstraintMoE().init(family, env)
    gradient = state.loss.gradient(state.memory["theta"])[1]
    started = time.process_time()
    found = [state.update() for _ in range(steps)]
    seconds = (time.process_time() - started) / steps
    return {"gradient": gradient.tolist(), "loss": found, "seconds": seconds}


def gradient_seconds(ranks: Ranks, draws: int) -> float:
    """Median seconds of one loss and gradient of the default solver, this many draws on each rank."""
    family, place = problems.DiffusionSorption().system, torch.device("cpu")
    env = Env(place, torch.float64, torch.Generator().manual_seed(0), 0, ranks=ranks)
    state: Any = pk.HardConstraintMoE(draws=draws * ranks.size).init(family, env)
    theta, took = state.memory["theta"], []
    for _ in range(WARM + STEPS):
        start = time.perf_counter()
        state.loss.gradient(theta)
        took.append(time.perf_counter() - start)
    return statistics.median(took[WARM:])


def work(part: str, points: list[int], steps: int, out: pathlib.Path) -> None:
    """What every rank does; rank 0 writes."""
    torch.set_num_threads(1)
    with join_ranks() as ranks:
        if part == "agreement":
            found: Any = first_step(ranks) | {"loss": losses(ranks, steps)}
        elif part == "family":
            found = family_updates(ranks, steps)
            found["weak"] = [[n, gradient_seconds(ranks, n)] for n in DRAWS]
        else:
            found = [[n, *step_seconds(ranks, n)] for n in points]
            count = found[0][-1]
            found = {"rows": found, "exchange": exchange_seconds(ranks, count**2)}
        if ranks.first:
            out.write_text(json.dumps(found))


def torchrun(count: int, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """`arguments` on `count` processes of this machine, one thread each."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    return subprocess.run(
        [sys.executable, *launcher, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"} | more.pop("env", {}),
        capture_output=True, text=True, check=False, **more,
    )  # fmt: skip


def on_ranks(count: int, part: str, points: list[int], steps: int) -> Any:
    """`work` under torchrun, and what it wrote."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "found.json"
        numbers = [str(n) for n in points]
        done = torchrun(
            count, __file__, "--work", part, "--points", *numbers, "--steps", str(steps),
            "--out", str(out),
        )  # fmt: skip
        if not out.exists():
            raise RuntimeError(done.stderr)
        return json.loads(out.read_text())


def agreement(counts: list[int], steps: int, part: str = "agreement") -> None:
    """Largest differences from one process."""
    alone = on_ranks(1, part, [], steps)
    compared = [k for k in ("gradient", "J^T J") if k in alone]
    rows, weak = [], []
    for count in counts:
        found = alone if count == 1 else on_ranks(count, part, [], steps)
        relative = [
            float(np.abs(np.subtract(found[k], alone[k])).max() / np.abs(alone[k]).max())
            for k in compared
        ]
        off = float(np.abs(np.subtract(found["loss"], alone["loss"])).max())
        cost = [found["seconds"]] if "seconds" in found else []
        rows.append([count, *relative, off, found["loss"][-1], *cost])
        weak.append([1e3 * seconds for _, seconds in found.get("weak", [])])
    heads = ["ranks", *compared, f"loss, {steps} steps", "last loss"]
    more = ["processor seconds per update"] if "seconds" in alone else []
    common.print_table(heads + more, rows)
    if weak[0]:
        heads = ["draws per rank", *(f"{c} ranks, ms" for c in counts), "efficiency"]
        table = [[n, *took, took[0] / took[-1]] for n, *took in zip(DRAWS, *weak, strict=True)]
        common.print_table(heads, table)


def scaling(counts: list[int], points: list[int]) -> None:
    """Weak and strong, from the same runs where their sizes meet."""
    wanted = sorted({n * c for n in points for c in counts} | set(points))
    found: dict[int, dict[int, tuple[float, int, int]]] = {}
    exchange = {}
    for count in counts:
        mine = wanted if count > 1 else points
        got = on_ranks(count, "scaling", mine, 0)
        found[count] = {n: (seconds, rows, p) for n, seconds, rows, p in got["rows"]}
        exchange[count] = got["exchange"]
    first = counts[0]
    heads = ["points per rank", *(f"{c} ranks, ms" for c in counts), "efficiency"]
    common.print_table(
        heads,
        [
            [n, *(1e3 * found[c][n * c][0] for c in counts),
             found[first][n * first][0] / found[counts[-1]][n * counts[-1]][0]]
            for n in points
        ],
    )  # fmt: skip
    heads = ["points in all", *(f"{c} ranks, ms" for c in counts), "speed-up"]
    common.print_table(
        heads,
        [
            [n, *(1e3 * found[c][n][0] for c in counts),
             found[first][n][0] / found[counts[-1]][n][0]]
            for n in points
        ],
    )  # fmt: skip
    p = found[first][points[0]][2]
    told = ", ".join(f"{1e3 * exchange[c]:.2g} ms on {c}" for c in counts if c > 1)
    print(f"{p} parameters; one sum of {p}^2 numbers over the ranks: {told}\n", flush=True)


MINE = """
import os, signal, threading, time
from pinnkit.problems import Burgers

def die_once():
    while not os.path.exists("run.ckpt"):
        time.sleep(0.01)
    with open("died", "w") as file:
        file.write(str(time.time()))
    os.kill(os.getpid(), signal.SIGKILL)

if os.environ.get("DIE") and os.environ.get("RANK") == "1":
    threading.Thread(target=die_once, daemon=True).start()
problem = Burgers()
"""


def killed(steps: int) -> None:
    """A rank dies, the job ends, one process resumes."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "mine.py").write_text(MINE)
        checkpoint = folder / "run.ckpt"
        dead = torchrun(
            2, "-m", "pinnkit", "solve", "mine.py:problem", "--solver", "CausalPINN", "--quiet",
            "--max-steps", str(steps), "--checkpoint", "run.ckpt", "--checkpoint-every", "5",
            cwd=folder, env={"DIE": "1"},
        )  # fmt: skip
        seconds = time.time() - float((folder / "died").read_text())
        named = re.search(r"rank 1 of 2 died[^\n]*|rank\s*: 1 \(local_rank: 1\)", dead.stderr)
        knobs: Any = {"max_steps": steps, "time_limit": None, "verify": False}
        resumed = solve(problems.Burgers(), pk.CausalPINN(), resume=checkpoint, **knobs)
        whole = solve(problems.Burgers(), pk.CausalPINN(), **knobs)
        off = float(np.abs(np.subtract(resumed.history["loss"], whole.history["loss"])).max())
    common.print_table(
        ["exit code", "seconds until the end", "the message", "loss after resuming, difference"],
        [[dead.returncode, seconds, named.group(0) if named else "no rank named", off]],
    )


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--part", choices=PARTS, action="append")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--points", type=int, nargs="*", default=list(POINTS))
    parser.add_argument("--steps", type=int, default=CURVE)
    parser.add_argument("--smoke", action="store_true", help="few points, few steps")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=pathlib.Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work is not None:
        work(options.work, options.points, options.steps, options.out)
        return
    points, steps = (options.points[:1], 8) if options.smoke else (options.points, options.steps)
    torch.set_num_threads(1)
    with common.measured("One solve on several processes"):
        for part in options.part or PARTS:
            print(f"\n### {part}\n")
            if part in ("agreement", "family"):
                agreement(options.ranks, steps, part)
            elif part == "scaling":
                scaling(options.ranks, points)
            else:
                killed(steps)


if __name__ == "__main__":
    main()
