"""The one rule by which a solve gets its status.

In    why training stopped, and the verdict.
Out   a `Status`.
Next  `pinnkit.driver` and the solves on graphs.
"""

from __future__ import annotations

from pinnkit.errors import Status
from pinnkit.solution.verification import JUDGING, Verification

__all__ = ["final_status"]

# Reasons that stay the status of an answer nobody could judge; the others become UNVERIFIED.
KEPT = frozenset(
    {
        Status.DIVERGED,
        Status.INTERRUPTED,
        Status.SHOCK,
        Status.NOT_IDENTIFIABLE,
        Status.NO_GROUND_TRUTH,
    }
)


def final_status(
    stopped_by: Status, verdict: Verification, verified: bool, *, learned: bool = False
) -> Status:
    """The one rule: a verdict wins over the reason why training stopped.

    Without a verdict, a special reason (diverged, interrupted, a shock, ...) stays. An answer that
    was looked at in vain is UNVERIFIED; one that nobody was asked to look at keeps its reason.
    A law `learned` from data alone has no error to check, whatever ended its training.
    """
    if learned:
        return stopped_by if stopped_by in KEPT else Status.NO_GROUND_TRUTH
    if verdict.evidence in JUDGING and verdict.status in (Status.OK, Status.INACCURATE):
        return verdict.status
    if stopped_by in KEPT:
        return stopped_by
    if verified or stopped_by is Status.OK:
        return Status.UNVERIFIED
    return stopped_by
