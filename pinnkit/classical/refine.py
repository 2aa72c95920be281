"""A reference solution with a known error: levels compared until they agree.

In    a NormalForm, a tolerance and a time limit.
Out   `Reference`: the second finest level, and its distance from the finest as its error.
Next  `verification` judges other solvers by it; `MethodOfLines` is it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import sympy as sp

from pinnkit.classical.choice import choose_ladder, supports
from pinnkit.classical.conditions import check_initial_data
from pinnkit.classical.features import unseen_share
from pinnkit.classical.grid_approximation import GridApproximation
from pinnkit.classical.implicit import IntegrationError, OutOfTime
from pinnkit.classical.ladders import Ladder
from pinnkit.classical.norms import relative_differences
from pinnkit.errors import Status, UnsupportedProblemError
from pinnkit.ir.normal_form import NormalForm

__all__ = ["Reference", "solve_reference"]

log = logging.getLogger(__name__)

FEWEST_LEVELS = 3
ROUNDING = 3e-15  # no difference below this counts as measured


@dataclass(frozen=True)
class Reference:
    """A solution by refinement. `error` is the estimated relative L2 error, the largest field's.

    `unseen` is the share of sources and data that falls between the points of the mesh, part of
    `error`. `stopped_by` is OK, TIME_LIMIT, DIVERGED (no solution to the end of the time span, or none
    at all) or STALLED. `approximation` is None where not even two levels finished in time (`error` is then infinite; `only_level` is
    the one that did, if any).
    """

    approximation: GridApproximation | None
    error: float
    errors: Mapping[sp.Expr, float]
    finished: bool
    reason: str
    seconds: float
    levels: list[dict[str, Any]] = field(default_factory=list)
    unseen: float = 0.0
    stopped_by: Status = Status.OK
    only_level: GridApproximation | None = None


def solve_reference(
    nf: NormalForm, *, tol: float = 1e-8, time_limit: float = 75.0, variant: str = "primary"
) -> Reference:
    """Refine until the estimated error is at most `tol`, or as far as the time goes.

    The finest level only measures: what is returned is the level below it, whose distance from the
    finest *is* its error up to the finest's own (each level aims an order of magnitude or more below
    the one before, in space and in time). `variant="alternate"` uses another discretisation and
    another integrator, to check a solution of the primary one.

    Raises:
        UnsupportedProblemError: see `supports`; also where initial data are not finite.
    """
    reason = supports(nf)
    if reason is not None:
        raise UnsupportedProblemError(reason)
    if variant not in ("primary", "alternate"):
        raise ValueError(f'variant is "primary" or "alternate", not {variant!r}')
    start = time.monotonic()
    with np.errstate(all="ignore"):  # what is not finite is looked for, not warned of
        check_initial_data(nf)
        found = _climb(choose_ladder(nf, variant), nf, tol, start, start + time_limit)
        return _with_unseen(nf, found)


def _with_unseen(nf: NormalForm, found: Reference) -> Reference:
    """Levels that miss the same feature agree: what the mesh has not seen counts as error."""
    if found.approximation is None:
        return found
    unseen, where = unseen_share(nf, found.approximation)
    reason = found.reason
    if unseen > found.error:
        reason = f"{where} that the mesh does not resolve ({unseen:.1e} of the whole is missed)"
    errors = {u: e + unseen for u, e in found.errors.items()}
    return replace(found, error=found.error + unseen, errors=errors, unseen=unseen, reason=reason)


def _climb(ladder: Ladder, nf: NormalForm, tol: float, start: float, deadline: float) -> Reference:
    levels: list[dict[str, Any]] = []
    best: tuple[GridApproximation, np.ndarray] | None = None
    previous: GridApproximation | None = None
    gaps: list[np.ndarray] = []
    costs: list[float] = []
    finished, reason = False, ""
    unread = 0.0
    stopped_by = Status.TIME_LIMIT
    while True:
        began = time.monotonic()
        # Without an estimate yet the next level is worth a gamble; it stops itself at the deadline.
        odds = 1.0 if best is not None else 0.2
        if costs and began + odds * ladder.growth * costs[-1] > deadline:
            reason = "the next level would not finish within the time limit"
            break
        try:
            current, info = ladder.climb(deadline)
        except OutOfTime:
            reason = "the time limit came before the next level finished"
            break
        except IntegrationError as error:
            reason = str(error)
            stopped_by = Status.DIVERGED if best is None else Status.STALLED
            break
        costs.append(time.monotonic() - began)
        info["seconds"] = costs[-1]
        if previous is not None:
            gap = relative_differences(previous, current)
            gap[~np.isfinite(gap)] = np.inf
            gaps.append(gap)
            # Levels stored at the same instants miss the same between them.
            errors = _extrapolated(gaps) + unread
            info["difference"] = float(gap.max())
            # A gap of a level that was repeated rather than refined can be smaller than its error;
            # the best level is the last one, whatever the gaps say, unless things got worse.
            if best is None or errors.max() <= best[1].max():
                best = (previous, errors)
        unread = info.get("unread", 0.0)
        levels.append(info)
        log.info("reference level %d: %s", len(levels), info)
        if best is not None and len(levels) >= FEWEST_LEVELS and best[1].max() <= tol:
            finished, reason = True, "the estimated error is below the tolerance"
            stopped_by = Status.OK
            break
        if len(gaps) >= 3 and gaps[-1].max() > gaps[-2].max() and gaps[-2].max() < 1e-9:
            reason, stopped_by = "rounding errors stop further refinement", Status.STALLED
            break
        previous = current
    seconds = time.monotonic() - start
    if best is None:
        errors = dict.fromkeys(nf.fields, np.inf)
        return Reference(
            None,
            np.inf,
            errors,
            False,
            reason,
            seconds,
            levels,
            stopped_by=stopped_by,
            only_level=previous,
        )
    errors = {u: float(e) for u, e in zip(nf.fields, best[1], strict=True)}
    error = float(best[1].max())
    return Reference(
        best[0], error, errors, finished, reason, seconds, levels, stopped_by=stopped_by
    )


def _extrapolated(gaps: list[np.ndarray]) -> np.ndarray:
    """Error of the second finest level: its gap to the finest, plus a geometric tail."""
    gap = np.maximum(gaps[-1], ROUNDING)
    if len(gaps) < 2 or not np.isfinite(gaps[-2:]).all():
        # One comparison alone says little: two levels may agree by both missing a feature.
        return 3.0 * gap
    ratio = np.clip(gap / np.maximum(gaps[-2], ROUNDING), 0.0, 0.8)
    return gap / (1.0 - ratio)
