"""Many problems on processes: order, seeds, threads, and what one failure leaves of the others."""

from __future__ import annotations

import multiprocessing
import os
import signal
from typing import Any

import numpy as np
import pytest
import torch

import pinnkit as pk
from pinnkit import process_pool
from tests.train import rank_jobs

T = pk.coords("t")
y = pk.field("y", T)


@pk.problem
class Decay(pk.ProblemClass):
    """y' = -k y; some values of k are traps."""

    k: float = 1.0

    def declare(self) -> pk.PDESystem:
        if self.k == 13 and multiprocessing.parent_process() is not None:
            os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does when memory is short
        if self.k == 7 and multiprocessing.parent_process() is not None:
            raise ValueError(
                f"threads: {torch.get_num_threads()} {os.environ.get('OMP_NUM_THREADS')}"
            )
        return pk.PDESystem(
            [y.diff(T) + self.k * y], domain=pk.Interval(T, 0, 1), conditions=[pk.Initial(y, 1)]
        )


@pytest.mark.parametrize("start", ["forkserver", pytest.param("spawn", marks=pytest.mark.slow)])
def test_results_come_in_order_and_failures_in_their_places(
    start: str, monkeypatch: pytest.MonkeyPatch
):
    """One problem raises, one takes its process along; the others are what `solve` gives."""
    if start == "forkserver":  # the same processes without their seconds of imports
        monkeypatch.setattr(process_pool, "SPAWN", rank_jobs.FORKS)
    before = dict(os.environ)
    problems = [Decay(1.0), Decay(7.0), Decay(2.0), Decay(13.0)]
    seen: dict[int, Any] = {}
    solver = pk.CausalPINN(width=4, depth=1, points=16)
    with pytest.raises(pk.ProblemsFailed, match="2 of 4 problems failed") as caught:
        pk.solve_many(
            problems, solver,
            workers=2, seed=[0, 0, 5, 0], max_steps=2, verify=False, callback=seen.__setitem__,
        )  # fmt: skip
    results = caught.value.results
    assert seen == dict(enumerate(results)) and dict(os.environ) == before
    for k, seed in ((0, 0), (2, 5)):
        alone = problems[k].solve(solver, seed=seed, max_steps=2, verify=False)
        np.testing.assert_allclose(results[k](t=0.5), alone(t=0.5), rtol=1e-9)
        assert results[k].problem is problems[k] and results[k].solver == solver
    assert "ended with signal 9" in str(results[3])
    assert isinstance(results[1], ValueError)
    if start == "spawn":
        threads = max(1, torch.get_num_threads() // 2)
        assert str(results[1]) == f"threads: {threads} {threads}"
    assert "Traceback" in results[1].__notes__[0]


@pytest.mark.slow
def test_a_process_that_died_is_replaced():
    """With one worker the second problem needs a new one."""
    found = pk.solve_many(
        [Decay(13.0), Decay(2.0)], pk.MethodOfLines(), workers=1, keep_failures=True
    )
    assert isinstance(found[0], ChildProcessError) and found[1].ok


def test_what_cannot_be_sent_fails_alone():
    """Found out before a process is started."""
    local = type("Local", (), {})()  # of a class that no other process can import
    found = pk.solve_many([local], pk.MethodOfLines(), keep_failures=True)
    assert "cannot be sent" in found[0].__notes__[0]


@pytest.mark.parametrize(
    "knobs, message",
    [
        ({"workers": 0}, "workers=0 must be a positive number"),
        ({"seed": [1, 2]}, "seed: 2 given for 1 problems"),
        ({"solver": [pk.MethodOfLines()] * 2}, "solver: 2 given for 1 problems"),
        ({"time_limit": -1}, "time_limit=-1"),
    ],
)
def test_wrong_knobs_are_refused_at_once(knobs: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        pk.solve_many([Decay()], **knobs)


def test_no_problems_have_no_results():
    assert pk.solve_many([]) == []
