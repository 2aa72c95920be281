"""Ctrl-C between steps, not inside one: the state is never left half updated.

In    what to do at the first Ctrl-C.
Out   a context in which the first one does that and the second raises KeyboardInterrupt.
Next  `train.session` ends the loop with it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["on_interrupt"]


@contextmanager
def on_interrupt(first: Callable[[], None]) -> Iterator[None]:
    """Within the context the first Ctrl-C calls `first`, the second raises; the old handler comes back.

    Does nothing outside the main thread (signals never arrive there) and where somebody has set a
    handler of their own.
    """
    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if not ours:
        yield
        return
    pressed = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            signal.default_int_handler(number, frame)
        pressed = True
        first()

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
