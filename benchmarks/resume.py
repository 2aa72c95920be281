"""A run killed with SIGKILL at random moments and resumed ends with the same parameters.

    python benchmarks/resume.py [--steps 60] [--kills 3] [--seed 0]

The child solves with a checkpoint file; the parent kills it, starts it again with `resume=`, and at
the end compares every tensor of the answer, bit by bit, with an uninterrupted run (CPU, float64).
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import _common as common
import torch


def child(folder: Path, steps: int, seed: int) -> None:
    """Solve, from the checkpoint if there is one; no time limit, so that only steps count."""
    import pinnkit as pk
    from pinnkit.problems import Burgers  # pyright: ignore[reportMissingImports]

    # One thread: the order of floating-point sums is then the same in every process.
    torch.set_num_threads(1)
    checkpoint = folder / "run.ckpt"
    sol = Burgers(nu=0.05).solve(
        pk.CausalPINN(),
        max_steps=steps,
        time_limit=None,
        seed=seed,
        checkpoint=checkpoint,
        resume=checkpoint if checkpoint.exists() else None,
        callback=lambda info: (folder / "step").write_text(str(info.step)) and None,
        verify=False,
    )
    torch.save(tensors(sol), folder / "final.pt")


def tensors(sol: object) -> dict[str, torch.Tensor]:
    """The numbers the answer is made of."""
    return dict(sol.approximation.to_state()[1])  # type: ignore[attr-defined]


def run(folder: Path, steps: int, seed: int, kills: list[float]) -> list[int]:
    """Run to the end, killing the child after each of the given numbers of seconds; the steps reached."""
    command = [sys.executable, __file__, "--child", str(folder)]
    command += ["--steps", str(steps), "--seed", str(seed)]
    reached = []
    for seconds in kills:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        # Seconds count from the first step of this child on: imports take their own time.
        before = _step(folder)
        while _step(folder) == before and process.poll() is None:
            time.sleep(0.01)
        time.sleep(seconds)
        process.kill()
        process.wait()
        reached.append(_step(folder))
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return reached


def _step(folder: Path) -> int:
    path = folder / "step"
    text = path.read_text() if path.exists() else ""
    return int(text or 0)


def main() -> int:
    """The uninterrupted run, the killed one, the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", type=Path, default=None, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child is not None:
        child(args.child, args.steps, args.seed)
        return 0
    with common.measured("Killed and resumed"), tempfile.TemporaryDirectory() as folder:
        whole, cut = Path(folder) / "whole", Path(folder) / "cut"
        whole.mkdir()
        cut.mkdir()
        start = time.perf_counter()
        run(whole, args.steps, args.seed, [])
        seconds = time.perf_counter() - start
        # Three moments spread over the run; random, so that no lucky step is always hit.
        rng = random.Random()
        each = seconds / (2 * args.kills)
        reached = run(
            cut, args.steps, args.seed, [rng.uniform(0.05, each) for _ in range(args.kills)]
        )
        a, b = torch.load(whole / "final.pt"), torch.load(cut / "final.pt")
        same = a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
        common.print_table(
            ["steps", "killed at step", "tensors", "identical"],
            [[args.steps, ", ".join(map(str, reached)), len(a), same]],
        )
    return int(not same)


if __name__ == "__main__":
    sys.exit(main())
