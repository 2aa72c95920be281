"""Ranks: the same numbers on one, two and four processes; what is left when one of them dies."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import time
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest
import torch

import pinnkit as pk
from pinnkit.train.ranks import ONE, RankError, Ranks, join_ranks
from tests.train import rank_jobs

EXACT = 1e-12  # of sums in another order, relative to the largest entry
CURVE = 1e-8  # of losses after twenty steps
SIZES = (2, pytest.param(4, marks=pytest.mark.slow))


@pytest.fixture(scope="module")
def one() -> dict[str, Any]:
    forkserver.ensure_running()  # which imports everything meanwhile
    return rank_jobs.everything(ONE)


@pytest.fixture(scope="module")
def many(one: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """size -> what every rank found, computed once."""

    @functools.cache
    def found(size: int) -> list[dict[str, Any]]:
        results = rank_jobs.run_ranks(size, rank_jobs.everything, tmp_path_factory.mktemp("ranks"))
        assert all(isinstance(r, dict) for r in results), results
        return results

    return found


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


def test_one_process_joins_nobody_and_gives_back_what_it_gets():
    """The very objects: with one process nothing is computed, copied or rounded anew."""
    tensor = torch.rand(3, generator=torch.Generator().manual_seed(0))
    with join_ranks() as ranks:
        assert ranks is ONE and ranks.first and ranks.place("cuda") == "cuda"
        assert ranks.sum(tensor) is tensor and ranks.gather(tensor) is tensor
        assert ranks.same(0.1) == 0.1 and ranks.share(7) == slice(0, 7)


@pytest.mark.parametrize("size", SIZES)
def test_sums_gathers_and_agreements(many: Any, size: int):
    """Shares cover everything once, in order, also where some are empty; odd numbers are noticed."""
    for found in (r["exchanges"] for r in many(size)):
        assert torch.equal(found["whole"], torch.arange(10.0))
        assert torch.equal(found["few"], torch.arange(3)[:, None])
        assert found["sum"] == 45 and found["same"] == 0.1
        assert "these numbers of rank 1 are not those of rank 0" in found["odd"]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", rank_jobs.METHODS)
def test_every_optimiser_takes_the_step_of_one_process(
    one: dict[str, Any], many: Any, name: str, size: int
):
    """With shares of different lengths, and of none (3 rows on 4 ranks)."""
    for n in rank_jobs.ROWS:
        found = [r["methods"][name, n] for r in many(size)]
        assert all(torch.equal(f, found[0]) for f in found)
        assert relative(found[0], one["methods"][name, n]) < CURVE


@pytest.mark.parametrize("size", SIZES)
def test_gradient_and_normal_equations_of_a_step(one: dict[str, Any], many: Any, size: int):
    alone = one["first_step"]
    found = [r["first_step"] for r in many(size)]
    for key in ("means", "loss", "gradient", "jtj", "jtr"):
        assert all(torch.equal(f[key], found[0][key]) for f in found), key
        assert relative(found[0][key], alone[key]) < EXACT, key
    rows = [int(f["rows"]) for f in found]
    assert sum(rows) == int(alone["rows"]) and max(rows) - min(rows) <= 4  # one per group


@pytest.mark.parametrize("size", SIZES)
def test_twenty_steps_of_a_solve(one: dict[str, Any], many: Any, size: int):
    """The same points, the same branches, the same losses; bit by bit among the ranks."""
    _check_training(one["training"], [r["training"] for r in many(size)])


@pytest.mark.slow
def test_twenty_steps_where_the_rows_are_gathered(tmp_path: Path):
    """Fewer rows than parameters; and initial value problems, by singular values."""
    alone = rank_jobs.other_trainings(ONE)
    found = rank_jobs.run_ranks(2, rank_jobs.other_trainings, tmp_path)
    for name in alone:
        _check_training(alone[name], [f[name] for f in found])


def _check_training(alone: dict[str, Any], found: list[dict[str, Any]]) -> None:
    for key in alone:
        assert all(torch.equal(f[key], found[0][key]) for f in found), key
    assert torch.equal(found[0]["generator"], alone["generator"])
    assert found[0]["points"] == alone["points"]
    for key in ("loss", "held_out"):
        torch.testing.assert_close(found[0][key], alone[key], rtol=CURVE, atol=CURVE)


@pytest.mark.parametrize("size", SIZES)
def test_a_family_shares_its_draws(one: dict[str, Any], many: Any, size: int):
    """Loss, gradient and the draws' coefficients at the start; shares of one, of two, and of none."""
    alone = one["family_step"]
    found = [r["family_step"] for r in many(size)]
    assert sorted(int(f["own"]) for f in found) == ([1, 2] if size == 2 else [0, 1, 1, 1])
    for key in ("loss", "gradient", "w"):
        assert all(torch.equal(f[key], found[0][key]) for f in found), key
        assert relative(found[0][key], alone[key]) < EXACT, key


@pytest.mark.parametrize("size", SIZES)
def test_twenty_steps_of_a_family_and_its_checkpoint(
    one: dict[str, Any], many: Any, size: int, tmp_path_factory: pytest.TempPathFactory
):
    """The same losses; the checkpoint of several ranks is whole, and one process goes on from it."""
    alone = one["family_training"]
    found = [r["family_training"] for r in many(size)]
    for key in alone:
        assert all(torch.equal(f[key], found[0][key]) for f in found), key
        assert found[0][key].shape == alone[key].shape, key
    torch.testing.assert_close(found[0]["loss"], alone["loss"], rtol=CURVE, atol=CURVE)
    file = next(tmp_path_factory.getbasetemp().glob(f"ranks*/family-{size}.13"))
    resumed = rank_jobs.learn(ONE, 20, resume=file)
    torch.testing.assert_close(resumed["loss"], alone["loss"], rtol=CURVE, atol=CURVE)


@pytest.mark.parametrize("size", SIZES)
def test_a_family_on_a_box_shares_its_states(one: dict[str, Any], many: Any, size: int):
    """Shares of one, of two, and of none: the same losses, and the same bits on all ranks."""
    alone, found = one["box_training"], [r["box_training"] for r in many(size)]
    for key in alone:
        assert all(torch.equal(f[key], found[0][key]) for f in found), key
        assert relative(found[0][key], alone[key]) < CURVE, key


@pytest.mark.slow
def test_a_killed_rank_is_named_and_the_checkpoint_goes_on(one: dict[str, Any], tmp_path: Path):
    """Killed in step 12, resumed from step 10 by one process: the curve of an undisturbed run."""
    started = time.monotonic()
    found = rank_jobs.run_ranks(2, rank_jobs.killed, tmp_path)
    assert time.monotonic() - started < 60
    assert found[1] == -9 and isinstance(found[0], RankError)
    assert "rank 1 of 2 died or does not answer" in str(found[0])
    resumed = rank_jobs.train(
        ONE, rank_jobs.burgers(), rank_jobs.SOLVERS["parameters"], 20,
        resume=tmp_path / "checkpoint",
    )  # fmt: skip
    whole = one["training"]
    torch.testing.assert_close(resumed["loss"], whole["loss"], rtol=CURVE, atol=CURVE)
    assert torch.equal(resumed["generator"], whole["generator"])


@pytest.mark.slow
def test_a_family_goes_on_after_a_killed_rank(one: dict[str, Any], tmp_path: Path):
    """As above: one process goes on from step 10, where the draws are renewed."""
    found = rank_jobs.run_ranks(2, rank_jobs.killed_family, tmp_path)
    assert found[1] == -9 and isinstance(found[0], RankError)
    assert "rank 1 of 2 died or does not answer" in str(found[0])
    resumed = rank_jobs.learn(ONE, 20, resume=tmp_path / "checkpoint")
    whole = one["family_training"]["loss"]
    torch.testing.assert_close(resumed["loss"], whole, rtol=CURVE, atol=CURVE)


@pytest.mark.parametrize(
    "job, message",
    [
        (rank_jobs.at_odds, "after step 0 the parameters of rank 1 are not those of rank 0"),
        (rank_jobs.failing, "rank 1 failed: ValueError: no room left"),
    ],
)
def test_what_cannot_go_on_together_says_why(job: Any, message: str, tmp_path: Path):
    found = rank_jobs.run_ranks(2, job, tmp_path)
    assert message in str(found[0]), found


def test_a_solver_that_shares_nothing_out_refuses_ranks():
    with pytest.raises(pk.UnsupportedProblemError, match="MethodOfLines works in one process"):
        pk.solve(rank_jobs.decay(), pk.MethodOfLines(), ranks=Ranks(0, 2))


MINE = """
import os, signal, threading, time
from tests.train.rank_jobs import burgers

def die_once():
    while not os.path.exists("checkpoint"):
        time.sleep(0.05)
    with open("died", "w") as file:
        file.write(str(time.time()))
    os.kill(os.getpid(), signal.SIGKILL)

if os.environ.get("DIE") and os.environ.get("RANK") == "1":
    threading.Thread(target=die_once, daemon=True).start()
system = burgers()
"""


@pytest.mark.slow
def test_torchrun_ends_with_the_number_of_the_killed_rank_and_resumes_with_another_count(
    tmp_path: Path,
):
    """The command line under torchrun: 2 ranks, one killed; then 4 ranks from its checkpoint."""
    (tmp_path / "mine.py").write_text(MINE)
    root = str(Path(__file__).parents[2])

    def start(ranks: int, *options: str, **more: str) -> subprocess.CompletedProcess[str]:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command = [f"--nproc-per-node={ranks}", "-m", "pinnkit", "solve", "mine.py:system"]
        knobs = ["--max-steps", "30", "--solver", "CausalPINN", "--quiet", *options]
        return subprocess.run(
            [*launcher, *command, *knobs],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", **more},
            capture_output=True, text=True, timeout=400, check=False,
        )  # fmt: skip

    saving = ["--checkpoint", "checkpoint", "--checkpoint-every", "5"]
    dead = start(2, *saving, DIE="1")
    assert dead.returncode != 0
    assert time.time() - float((tmp_path / "died").read_text()) < 60
    assert "rank 1 of 2 died" in dead.stderr or re.search(r"rank\s*: 1", dead.stderr)
    went_on = start(4, *saving, "--resume", "checkpoint", "--out", "out")
    assert (tmp_path / "out" / "report.json").exists(), went_on.stderr
    assert went_on.stdout.count("wrote solution.pinn") == 1
