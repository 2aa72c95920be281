"""The classical solver: space discretised, time integrated, the error measured by refinement.

In    a `PDESystem` on an interval or a box of at most two space dimensions, or an ODE system.
Out   an `Answer` whose grid solution comes with an error from its own levels.
Next  the driver verifies it by another discretisation and integrator.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, final

from torch import Tensor

from pinnkit.classical import Reference, solve_reference, supports
from pinnkit.errors import SolveError, Status, UnsupportedProblemError
from pinnkit.solvers.base import AbstractSolver, Answer, Env, graph_refusal

__all__ = ["MethodOfLines", "MethodOfLinesState"]

log = logging.getLogger(__name__)


@dataclass
class MethodOfLinesState:
    """The reference once computed; nothing of a direct solve is worth a checkpoint."""

    tol: float
    time_limit: float
    max_steps: int | None = None
    step: int = 0
    reference: Reference | None = field(default=None, repr=False)

    def state_dict(self) -> dict[str, Any]:
        return {"tol": self.tol, "time_limit": self.time_limit, "step": 0}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.tol, self.time_limit, self.step = state["tol"], state["time_limit"], 0
        self.reference = None


@final
@dataclass(frozen=True, kw_only=True)
class MethodOfLines(AbstractSolver):
    """Method of lines, refined in space and time until the estimated error is below `tol`.

    Space: orthogonal spline collocation on elements that adapt to the solution. Time: Radau IIA of
    order 13 for everything with space or algebraic equations. On tori in two dimensions: Fourier
    modes and ETDRK4, fields without a rate (pressure, streamfunction) eliminated mode by mode.
    Steady problems: Newton. Nonlinear first-order conservation laws under `div`: WENO5 with local
    Lax-Friedrichs splitting and SSP-RK3 on uniform meshes, which gives the entropy solution, shocks
    included. The estimate is the distance between the two finest levels, extrapolated by the order
    the levels show (with shocks 1/2 in L2: there 1e-2 is a good answer, and 1e-3 out of reach). It
    is `sol.stats.more["own_error"]`: with `verify=False`, where nothing independent looks at the
    answer, the only number there is, and the status is UNVERIFIED.

    Narrow features of sources, coefficients and data are looked for first and get elements and steps
    of their own; what a mesh still misses of them counts as error.

    Args:
        tol: Relative L2 error to refine to; None takes a tenth of `solve`'s tol, at most 1e-7.
        patience: Seconds where `solve(time_limit=None)` sets no limit.

    Supports ODE systems, steady and evolution problems on intervals and rectangles, any order.
    Not: unknown parameters, regions other than boxes, three space dimensions, shocks of equations that are not written in flux form.
    References: de Boor & Swartz 1973 (collocation), Hairer & Wanner 1996 (Radau IIA), Cox & Matthews
    2002 (ETDRK4), Jiang & Shu 1996
    (WENO5), Shu & Osher 1988 (SSP-RK3).
    """

    tol: float | None = None
    patience: float = 300.0

    citation: ClassVar[str] = (
        "@book{hairer1996solving, author={Hairer, Ernst and Wanner, Gerhard}, "
        "title={Solving Ordinary Differential Equations II}, publisher={Springer}, year={1996}}"
    )

    def __post_init__(self) -> None:
        faults = []
        if self.tol is not None and not 0 < self.tol < 1:
            faults.append(f"tol is a relative error between 0 and 1, not {self.tol!r}")
        if not self.patience > 0:
            faults.append(f"patience is a positive number of seconds, not {self.patience!r}")
        if faults:
            raise ValueError("MethodOfLines: " + "; ".join(faults))

    def supports(self, problem: Any) -> str | None:
        if (reason := graph_refusal(problem, "MethodOfLines")) is not None:
            return reason
        return supports(problem.normal_form)

    def init(self, problem: Any, env: Env) -> MethodOfLinesState:
        reason = self.supports(problem)
        if reason is not None:
            raise UnsupportedProblemError(reason)
        if env.warm_start is not None:
            raise ValueError(
                "MethodOfLines solves directly and has no use for warm_start; leave it out"
            )
        # A hundredth of the usual tolerances costs a second or two more and leaves no doubt.
        tol = self.tol or min(1e-7, 0.1 * (env.tol or 1.0))
        # The rest of the limit is for what comes around: compiling, the record, the hand-over.
        limit = self.patience if env.time_limit is None else 0.9 * env.time_limit
        return MethodOfLinesState(tol, limit, env.max_steps)

    def step(self, problem: Any, state: MethodOfLinesState) -> Mapping[str, float | Tensor]:
        state.reference = solve_reference(
            problem.normal_form, tol=state.tol, time_limit=state.time_limit
        )
        state.step += 1
        log.info(
            "method of lines: estimated error %.1e after %.1f s: %s",
            state.reference.error,
            state.reference.seconds,
            state.reference.reason,
        )
        # An unknown error is no loss that diverged.
        return {"error": state.reference.error} if math.isfinite(state.reference.error) else {}

    def terminate(self, problem: Any, state: MethodOfLinesState) -> Status | None:
        if state.reference is None:
            return None
        return state.reference.stopped_by

    def finish(self, problem: Any, state: MethodOfLinesState) -> Answer:
        reference = state.reference
        if reference is None:
            out_of_steps = state.max_steps is not None and state.max_steps <= state.step
            raise _nothing(
                Status.MAX_STEPS if out_of_steps else Status.TIME_LIMIT,
                "its one step was not taken",
            )
        # One level alone is an answer too, of unknown error.
        approximation = reference.approximation or reference.only_level
        if approximation is None:
            raise _nothing(reference.stopped_by, reference.reason)
        levels = reference.levels
        return Answer(
            approximation,
            stats={
                "own_error": reference.error,
                "levels": levels,
                "unknowns": levels[-2]["unknowns"] if len(levels) > 1 else None,
                "reason": reference.reason,
            },
        )


def _nothing(status: Status, why: str) -> SolveError:
    """There is no answer, not even a partial one: `.solution` is None."""
    error = SolveError(status, None)  # type: ignore[arg-type]
    error.args = (f"{status.name}: MethodOfLines() has no answer, because {why}",)
    return error
