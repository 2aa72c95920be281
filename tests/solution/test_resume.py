"""Killed, interrupted, resumed: the parameters end up as if nothing had happened."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import pinnkit as pk
from pinnkit.errors import Status
from pinnkit.train.checkpoint import ArchiveError
from tests.solution.fakes import Classical, Halving, coefficients, heat, t, u, x

ROOT = Path(__file__).parent.parent.parent


def test_train_7_then_13_more_is_train_20(classical: Classical, tmp_path: Path):
    solver, path = Halving(noise=0.1), tmp_path / "c"
    whole = pk.solve(heat(), solver, max_steps=20, seed=5)
    first = pk.solve(heat(), solver, max_steps=7, seed=5, checkpoint=(path, 3))
    from_file = pk.solve(heat(), solver, max_steps=20, resume=path)
    from_solution = pk.solve(heat(), solver, max_steps=20, resume=first)
    again = pk.solve(heat(), solver, max_steps=20, resume=first)
    for resumed in (from_file, from_solution, again):
        assert torch.equal(coefficients(resumed), coefficients(whole))
        assert resumed.history.steps == whole.history.steps
        assert resumed.history["loss"] == whole.history["loss"]
        assert resumed.stats.steps == 20


def test_checkpoints_do_not_change_training(classical: Classical, tmp_path: Path):
    plain = pk.solve(heat(), Halving(noise=0.1), max_steps=20)
    saved = pk.solve(heat(), Halving(noise=0.1), max_steps=20, checkpoint=(tmp_path / "c", 1))
    assert torch.equal(coefficients(plain), coefficients(saved))


def test_a_checkpoint_of_something_else_is_refused(classical: Classical, tmp_path: Path):
    path = tmp_path / "c"
    pk.solve(heat(), Halving(), max_steps=2, checkpoint=path)
    other = heat(equations=(u.diff(t) - 2 * u.diff(x, 2),))
    with pytest.raises(ValueError, match=r"belongs to another problem; .*warm_start="):
        pk.solve(other, Halving(), max_steps=3, resume=path)
    with pytest.raises(ArchiveError, match="nonsense is no pinnkit checkpoint file"):
        (tmp_path / "nonsense").write_bytes(b"x")
        pk.solve(heat(), Halving(), resume=tmp_path / "nonsense")
    with pytest.raises(FileNotFoundError, match="folder of checkpoint="):
        pk.solve(heat(), Halving(), checkpoint=tmp_path / "no" / "c")
    with pytest.raises(ValueError, match="every must be a positive"):
        pk.solve(heat(), Halving(), checkpoint=(path, 0))
    with pytest.raises(TypeError, match="must be a Solution or the path"):
        pk.solve(heat(), Halving(), resume=3)


@pytest.mark.usefixtures("ctrl_c")
def test_first_ctrl_c_returns_the_best_so_far(classical: Classical):
    def press(info: pk.StepInfo) -> None:
        if info.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    sol = pk.solve(heat(), Halving(), callback=press, max_steps=100)
    assert sol.status is Status.INTERRUPTED and sol.stats.steps == 3 and not sol.ok
    assert classical.asked == []  # the user wants out: nothing is checked
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("ctrl_c")
def test_second_ctrl_c_raises(classical: Classical):
    def press(info: pk.StepInfo) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)

    with pytest.raises(KeyboardInterrupt):
        pk.solve(heat(), Halving(), callback=press, max_steps=3)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_while_checking_keeps_the_answer(classical: Classical, monkeypatch):
    def press(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(classical, "solve_reference", press)
    sol = pk.solve(heat(), Halving(), max_steps=60)
    assert sol.status is Status.INTERRUPTED and sol(t=0.5, x=0.5) == pytest.approx(1.25)


CHILD = """
import os, sys, torch
sys.path.insert(0, {root!r})
import pinnkit as pk
from tests.solution.fakes import Halving, heat
path = {path!r}
sol = pk.solve(heat(), Halving(noise=0.1, pause=0.002), max_steps=200, seed=2, verify=False,
               checkpoint=(path, 7), resume=path if os.path.exists(path) else None)
torch.save(sol.approximation.coefficients, path + ".result")
"""


@pytest.mark.parametrize("kills", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_killed_at_random_moments_and_resumed_gives_identical_parameters(
    tmp_path: Path, kills: int
):
    """kill -9; what is on disk is always a whole checkpoint."""
    path = tmp_path / "c"
    code = CHILD.format(root=str(ROOT), path=str(path))
    gen = random.Random(0)
    for _ in range(kills):
        before = path.stat().st_mtime_ns if path.exists() else 0
        child = subprocess.Popen([sys.executable, "-c", code])
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and child.poll() is None:
            if path.exists() and path.stat().st_mtime_ns != before:
                break
            time.sleep(0.01)
        time.sleep(gen.uniform(0.0, 0.15))
        child.kill()
        child.wait()
    resumed = pk.solve(heat(), Halving(noise=0.1), max_steps=200, seed=2, verify=False, resume=path)
    whole = pk.solve(heat(), Halving(noise=0.1), max_steps=200, seed=2, verify=False)
    assert torch.equal(coefficients(resumed), coefficients(whole))
