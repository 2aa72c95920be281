"""A session of training: one iteration run to its end, and all that goes on around its steps.

In    an `Iteration`, its history, the progress line, the user's callback, how to write checkpoints.
Out   whether Ctrl-C ended it; the state is the loop's.
Next  `pinnkit.driver` and the solvers that learn from graphs or series judge what was reached.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

from pinnkit.errors import Status
from pinnkit.train.callbacks import History, Progress
from pinnkit.train.interrupt import on_interrupt
from pinnkit.train.iteration import Callback, Iteration, StepInfo
from pinnkit.train.ranks import ONE, Ranks

__all__ = ["run"]


def run(
    loop: Iteration,
    history: History,
    *,
    show: Progress | None = None,
    callback: Callback | None = None,
    look: Callable[[StepInfo], None] | None = None,
    save: Callable[[], None] | None = None,
    every: int = 1,
    ranks: Ranks = ONE,
) -> bool:
    """Run the loop to its end; True if Ctrl-C ended it.

    On several ranks all take part in every step, rank 0's callback decides, rank 0 alone saves, and
    Ctrl-C is left to whoever started them.

    Args:
        loop: Of `train.iteration.iterate`.
        history: Gets every step.
        show: Shows progress.
        callback: The user's; True ends the loop as INTERRUPTED.
        look: Called after both, and may stop the loop.
        save: Writes a checkpoint: after every `every`-th step and at the end.
        every: See `save`.
        ranks: The processes that run it together.
    """
    pressed = False

    def press() -> None:
        nonlocal pressed
        pressed = True
        loop.stop(Status.INTERRUPTED)

    if not ranks.first:
        save = None
    with on_interrupt(press) if ranks.size == 1 else nullcontext():
        for info in loop:
            history(info)
            if show is not None:
                show(info)
            if ranks.same(callback is not None and bool(callback(info))):
                loop.stop(Status.INTERRUPTED)
            if look is not None:
                look(info)
            if save is not None and info.step % every == 0:
                save()
        if save is not None:
            save()
    return pressed
