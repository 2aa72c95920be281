"""Ranks: one solve on several processes that torchrun started.

In    the environment torchrun sets (RANK, WORLD_SIZE, MASTER_ADDR, ...) and a device.
Out   `Ranks`: which process this is, its share of a set of points, sums over all of them.
Next  `solvers.collocation` shares its points, the optimisers sum over them, `loop` agrees when to stop.

Every rank holds all parameters and takes the same steps; only points are shared out. A loss whose
weights contain the counts n_k of all ranks together,

    L = sum_k (lambda_k / n_k) sum_{i = 1..n_k} r_{k,i}^2 = sum_p L_p,

L_p being the terms of rank p, has grad L = sum_p grad L_p and J^T J = sum_p J_p^T J_p: sums, never
means of means, which are wrong where shares differ. The ranks stay in step by two rules: a decision
depends only on numbers that were summed or that come from rank 0, and every random number is
drawn by all ranks alike. `DistributedDataParallel` is not used: derivatives taken outside its forward
crash it or give wrong gradients.

One process is `ONE`, whose methods return what they are given.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, final

import torch
import torch.distributed as dist
from torch import Tensor

from pinnkit.train.rank_watch import RankError, RankWatch

__all__ = ["ONE", "RankError", "Ranks", "join_ranks"]

ARRIVAL = datetime.timedelta(seconds=120)  # within which all ranks must have come
# A rank may wait long for rank 0's look at the error. `RankWatch` finds the dead much sooner.
WAITING = datetime.timedelta(days=1)


@final
@dataclass(frozen=True)
class Ranks:
    """The processes of one solve as seen by one of them.

    Args:
        rank: Which of them this is; rank 0 decides what clocks decide, writes files and speaks.
        size: How many there are.
        local: The number of this process on its machine, which is the number of its accelerator.

    Every method but `share` and `place` is collective: all ranks call it, in the same order.
    """

    rank: int = 0
    size: int = 1
    local: int = 0
    _group: Any = field(default=None, repr=False, compare=False)
    _watch: RankWatch | None = field(default=None, repr=False, compare=False)

    @property
    def first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def share(self, n: int) -> slice:
        """This rank's part of n points: disjoint slices that cover all, of lengths that differ by one."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def place(self, device: str | torch.device) -> str | torch.device:
        """The device of this rank: "cuda" becomes the accelerator with its local number."""
        if self.size == 1 or str(device) != "cuda" or not torch.cuda.is_available():
            return device
        return torch.device("cuda", self.local % torch.cuda.device_count())

    def sum(self, part: Tensor) -> Tensor:
        """The sum over all ranks of tensors of one shape, the same bits on each.

        Raises:
            RankError: if another rank has died or failed.
        """
        if self.size == 1:
            return part
        # A collective writes into its argument and reads memory in order.
        whole = part.detach().clone(memory_format=torch.contiguous_format)
        with self._asking_who_is_missing():
            dist.all_reduce(whole, group=self._group)
        return whole

    def gather(self, part: Tensor) -> Tensor:  # shapes: (n_p, ...) -> (sum of n_p, ...)
        """The rows of all ranks below each other, in the order of the ranks; n_p may differ, and be 0."""
        if self.size == 1:
            return part
        counts = torch.zeros(self.size, dtype=torch.int64)
        counts[self.rank] = len(part)
        counts = self.sum(counts)
        start = int(counts[: self.rank].sum())
        # A sum with zeros is exact, and the one collective every backend has for every device.
        whole = part.new_zeros(int(counts.sum()), *part.shape[1:])
        whole[start : start + len(part)] = part.detach()
        return self.sum(whole)

    def same(self, value: float) -> float:
        """Rank 0's value: for whatever a clock or a user decides."""
        if self.size == 1:
            return value
        number = torch.tensor([value], dtype=torch.float64)
        with self._asking_who_is_missing():
            dist.broadcast(number, src=0, group=self._group)
        return float(number)

    def check_equal(self, values: Tensor, what: str) -> None:
        """Refuse to go on where `values` are not the same bits on all ranks.

        Raises:
            RankError: with `what`; different seeds, problems or kinds of processors do that.
        """
        if self.size == 1:
            return
        mine = values.detach().cpu().contiguous().view(torch.uint8).long()
        # A sum over bytes weighted by their places: an exact integer, whatever the numbers are.
        places = torch.arange(1, len(mine) + 1) % 65_521
        mark = (mine * places).sum()
        marks = self.gather(mark[None])
        if bool((marks != marks[0]).any()):
            odd = ", ".join(str(k) for k in torch.nonzero(marks != marks[0])[:, 0].tolist())
            raise RankError(
                f"{what} of rank {odd} are not those of rank 0: all ranks must solve the same problem "
                "with the same seed and knobs, on the same kind of processor"
            )

    @contextmanager
    def _asking_who_is_missing(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as fault:  # what the backends raise when a connection breaks
            missing = "" if self._watch is None else self._watch.roll_call()
            why = missing or f"the exchange between the ranks failed: {fault}"
            raise RankError(f"rank {self.rank} of {self.size}: {why}") from fault


ONE = Ranks()


@contextmanager
def join_ranks(device: str | torch.device = "cpu") -> Iterator[Ranks]:
    """The ranks torchrun started; `ONE` in a process it did not start.

    Within the context every rank listens to the others: one that dies or stops answering ends all
    of them within a minute, with its number in the message. Backends: gloo on CPUs, nccl where
    every process of a machine has an accelerator of its own.

    >>> with join_ranks() as ranks:
    ...     ranks.first, ranks.size, ranks.share(7)
    (True, 1, slice(0, 7, None))

    Args:
        device: Where the tensors to be summed live.

    Raises:
        RankError: if the other ranks do not come within two minutes.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ONE
        return
    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    ranks = Ranks(rank, size, local)
    backend = _backend(ranks.place(device))
    owned = not dist.is_initialized()
    try:
        if owned:
            dist.init_process_group(backend, rank=rank, world_size=size, timeout=ARRIVAL)
        group = dist.new_group(backend=backend, timeout=WAITING)
        watch = RankWatch(rank, size)
    except RuntimeError as fault:  # the backends' own errors derive from it
        raise RankError(f"rank {rank} of {size}: not all ranks have come: {fault}") from fault
    try:
        yield Ranks(rank, size, local, group, watch)
    except BaseException as fault:
        # Left as it is: taking a broken group down may wait for those who are gone.
        watch.leave(f"{type(fault).__name__}: {fault}")
        raise
    watch.leave()
    if owned:
        dist.destroy_process_group()


def _backend(place: str | torch.device) -> str:
    place = torch.device(place)
    if place.type != "cuda" or not torch.cuda.is_available():  # `solve` refuses the latter in words
        return "gloo"
    torch.cuda.set_device(place)
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    # nccl refuses two ranks on one accelerator; gloo copies through the host instead.
    return "cpu:gloo,cuda:nccl" if here <= torch.cuda.device_count() else "gloo"
