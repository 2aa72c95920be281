"""Which rank is dead: every rank beats, every rank listens.

In    the key-value store that torchrun (or rank 0) keeps for all ranks.
Out   `roll_call`: who is missing, in words; and an end to a process that waits for a dead one.
Next  `ranks` asks when an exchange fails.

An exchange with a process that was killed fails at once, but does not say which process that was. One
with a machine that lost its power, or a process that hangs, does not even fail. So a thread counts up
a number in the store every second and reads the others'. Counted are our own looks at it, not
seconds: a job that was stopped as a whole and goes on finds nobody missing.
"""

from __future__ import annotations

import datetime
import logging
import os
import signal
import sys
import threading
import time
from typing import Any

__all__ = ["RankError", "RankWatch"]

logger = logging.getLogger(__name__)

BEAT = 1.0  # seconds
SILENT = 40  # looks in a row at a number that does not change: that rank is taken for dead
LOOKS = 3  # as many after an exchange has failed, when somebody is known to be gone
LEFT, FAILED = "left", "failed "
PARTING = 60  # seconds, and looks, to wait for the others to come or to part


class RankError(RuntimeError):
    """The ranks cannot go on together: one died, failed, or holds other numbers than the rest."""


class RankWatch:
    """The beat of one rank and its ear for the others', until `leave`.

    A rank that goes silent for forty looks ends this process, whose main thread may be waiting
    for it where no exception reaches: a message on standard error, and exit code 1.

    Args:
        rank, size: This process among all.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self._store = _connect()
        restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        turn = self._store.add(f"pinnkit/{restart}/turn/{rank}", 1)
        # Names of their own for every start and every `join_ranks`: old beats mean nothing.
        self._keys = [f"pinnkit/{restart}/{turn}/{k}" for k in range(size)]
        self._lock = threading.Lock()  # one connection, two threads
        self._over = threading.Event()
        self._beats = 0
        self._beat()
        self._store.wait(self._keys, datetime.timedelta(seconds=PARTING))
        self._thread = threading.Thread(target=self._listen, name="pinnkit ranks", daemon=True)
        self._thread.start()

    def roll_call(self) -> str:
        """Who has failed, left or died, in words; empty if all are there. Takes a few seconds."""
        if threading.current_thread() is threading.main_thread():
            # torchrun ends the survivors of a death at once; the message is worth three seconds.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            before = self._read()
            time.sleep(LOOKS * BEAT)
            now = self._read()
        except RuntimeError:
            return _keeper_gone()
        found = [self._word(k, now[k]) for k in range(self.size) if now[k].startswith(FAILED)]
        found = found or [
            self._word(k, b) for k, b in enumerate(now) if k != self.rank and b == before[k]
        ]
        return "; ".join(found)

    def leave(self, fault: str = "") -> None:
        """Stop listening and tell the others: parted in peace, or failed with `fault`."""
        self._over.set()
        self._thread.join(2 * BEAT)
        try:
            with self._lock:
                self._store.set(self._keys[self.rank], FAILED + fault if fault else LEFT)
            if self.rank == 0:
                self._see_off()
        except RuntimeError as gone:
            logger.debug("the store of the ranks was gone before rank %d: %s", self.rank, gone)

    def _see_off(self) -> None:
        """The store may live in this process: it stays while others that have not parted beat."""
        last, still = [""], 0
        for _ in range(PARTING):
            beats = self._read()
            if all(b == LEFT or b.startswith(FAILED) for b in beats):
                return
            still = still + 1 if beats == last else 0
            if still >= LOOKS:
                return
            last = beats
            time.sleep(BEAT)

    def _listen(self) -> None:
        last, silent = [""] * self.size, [0] * self.size
        while not self._over.wait(BEAT):
            try:
                self._beat()
                beats = self._read()
            except RuntimeError:
                self._end(_keeper_gone())
                return
            for k, beat in enumerate(beats):
                silent[k] = silent[k] + 1 if beat == last[k] and beat != LEFT else 0
                if k != self.rank and silent[k] >= SILENT:
                    self._end(self._word(k, beat))
                    return
            last = beats

    def _end(self, why: str) -> None:
        if self._over.is_set():
            return
        sys.stderr.write(f"RankError: rank {self.rank} of {self.size}: {why}\n")
        sys.stderr.flush()
        os._exit(1)

    def _word(self, k: int, beat: str) -> str:
        if beat.startswith(FAILED):
            return f"rank {k} failed: {beat.removeprefix(FAILED)}"
        if beat == LEFT:
            return f"rank {k} has left while others go on"
        return f"rank {k} of {self.size} died or does not answer any more"

    def _beat(self) -> None:
        self._beats += 1
        with self._lock:
            self._store.set(self._keys[self.rank], str(self._beats))

    def _read(self) -> list[str]:
        with self._lock:
            return [value.decode() for value in self._store.multi_get(self._keys)]


def _connect() -> Any:
    """A connection of our own: the group's waits where ours must not."""
    # Late: some builds of torch come without it.
    from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

    return TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=False,
        timeout=datetime.timedelta(seconds=PARTING),
        wait_for_workers=False,
    )


def _keeper_gone() -> str:
    place = os.environ.get("MASTER_ADDR", "?")
    return f"rank 0 or its launcher at {place} died: the store of the ranks does not answer"
