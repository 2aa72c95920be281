"""The loop: limits, precedence of reasons, divergence."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from pinnkit.errors import Status
from pinnkit.train import History, Progress, iterate
from pinnkit.train.iteration import StepInfo


@dataclass
class Counter:
    step: int = 0

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]


@dataclass
class Counting:
    """Loss 1/step; converges after `enough` steps; `bad` step has a loss that is nan."""

    enough: int | None = None
    bad: int | None = None
    calls: list[int] = field(default_factory=list)

    def step(self, problem: Any, state: Counter) -> dict[str, float | torch.Tensor]:
        state.step += 1
        self.calls.append(state.step)
        loss = float("nan") if state.step == self.bad else 1.0 / state.step
        return {"loss": torch.tensor(loss), "half": 0.5 * loss}

    def terminate(self, problem: Any, state: Counter) -> Status | None:
        return Status.OK if self.enough is not None and state.step >= self.enough else None


def test_max_steps_counts_all_steps_of_the_state_so_a_resumed_run_ends_at_the_same_place():
    loop = iterate(Counting(), None, Counter(step=3), max_steps=5)
    assert [info.step for info in loop] == [4, 5]
    assert loop.stopped_by is Status.MAX_STEPS


def test_converged_on_the_last_step_is_converged():
    loop = iterate(Counting(enough=5), None, Counter(), max_steps=5)
    list(loop)
    assert loop.stopped_by is Status.OK


def test_no_step_is_taken_after_the_time_limit():
    solver = Counting()
    loop = iterate(solver, None, Counter(), time_limit=0.0)
    assert list(loop) == [] and loop.stopped_by is Status.TIME_LIMIT and solver.calls == []


def test_a_loss_that_is_nan_ends_the_loop_after_being_shown():
    loop = iterate(Counting(bad=3), None, Counter(), max_steps=10)
    assert [info.step for info in loop] == [1, 2, 3]
    assert loop.stopped_by is Status.DIVERGED


def test_the_first_reason_to_stop_stays():
    loop = iterate(Counting(), None, Counter(), max_steps=10)
    for _ in loop:
        loop.stop(Status.INTERRUPTED)
        loop.stop(Status.OK)
    assert loop.stopped_by is Status.INTERRUPTED and loop.state.step == 1


def test_history_thins_by_step_number_and_round_trips():
    """What is kept depends on the step numbers only: resumed and uninterrupted runs agree."""
    whole, first = History(limit=8), History(limit=8)
    for info in iterate(Counting(), None, Counter(), max_steps=30):
        whole(info)
        if info.step <= 11:
            first(info)
    second = History.from_state(first.to_state())
    for info in iterate(Counting(), None, Counter(step=11), max_steps=30):
        second(info)
    assert whole.steps == second.steps and len(whole) <= 8
    assert whole["loss"] == second["loss"]
    assert whole["half"] == [0.5 / s for s in whole.steps]


def test_progress_writes_one_line_and_ends_it():
    import io

    stream = io.StringIO()
    show = Progress(interval=0.0, stream=stream)
    show(StepInfo(7, 9, {"loss": 0.25}, 1.5, None))
    show.close()
    assert stream.getvalue() == "\rstep 7/9  1.5 s  loss 2.50e-01\n"
