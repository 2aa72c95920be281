"""Lagrangian PINN: the causal engine on the problem written along its characteristics.

In    a problem of the form u_t + a(u, x, t) . grad u = rest.
Out   displacement and state over (t, labels), read back at positions, as an `Answer`.
Next  `driver` judges it against an independent classical solve.

`ir.labels` rewrites the declaration: unknowns s and W over (t, x0), X = x0 + A(t) + s, physical
derivatives by the inverse Jacobian of the map. What has a closed form is not trained: constant speed
needs no network at all. Displacement and state start as X = x0 + A + t N and W = u0(x0) + t N.
References: mojgani2023kolmogorov; nothing of its released code, whose diffusion acts in labels.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, final

from torch import Tensor

from pinnkit.errors import Status
from pinnkit.ir.characteristics import Transport, find_transport, flow_windows
from pinnkit.ir.labels import LabelForm, label_refusal, to_labels
from pinnkit.ir.normal_form import NormalForm
from pinnkit.lower.lagrangian import Crossing, LagrangianApproximation
from pinnkit.lower.relabelled import RelabelledApproximation, make_part
from pinnkit.lower.residuals import lowering_refusal
from pinnkit.solvers.base import AbstractSolver, Answer, Env, graph_refusal, unknowns_refusal
from pinnkit.solvers.causal_pinn import CausalPINN
from pinnkit.solvers.causal_state import SOLVED, CausalState
from pinnkit.solvers.label_windows import (
    BOTH,
    FLOW,
    STATE,
    LabelWindow,
    as_lagrangian,
    at_rest,
    at_stage,
    first_stage,
    open_label_window,
)
from pinnkit.train.parameters import load_parameters

__all__ = ["LagrangianPINN"]

logger = logging.getLogger(__name__)

TARGET = 1e-5  # root of the held-out loss: errors of 1e-6 to 6e-5 in every case measured
MOST_DEFORMED = 30.0  # stretching or shrinking of lengths beyond which labels are given out anew
INSTANTS = 12  # per window, at which the deformation is looked at
FLOW_SHARE = 0.7  # of a window's seconds, where the states are trained after the flow


@final
@dataclass(frozen=True, kw_only=True)
class LagrangianPINN(AbstractSolver):
    """PINN in the frame that moves with the flow, for problems dominated by convection.

    For u_t + a(u, x, t) . grad u = rest it learns the displacement s of every particle and the
    state W it carries,

        s_t = a(W, X, t) - A'(t),   X = x0 + A(t) + s,      W_t = rest at X, with grad = F^-T grad_0,

    F = dX/dx0. Values at positions come from solving X(t, x0) = x by a bracketed Newton method.
    Where characteristics cross (det F = 0) the solve ends with `Status.SHOCK`, its time and place in
    `sol.stats.more`; later values are nan.

    Args:
        engine: The causal engine that trains displacement and state: width, windows, optimiser, ...

    Windows begin with new labels where the velocity is a function of coordinates alone, and elsewhere
    once lengths are stretched or shrunk thirtyfold: `deformation`, `least_jacobian` and `relabelled`
    in `sol.stats.more`. Through open sides particles bring in the Dirichlet value of their entry.

    Supports first-order evolution in one velocity for all fields: constant, variable and
    solution-dependent speed, sources, diffusion and higher terms on periodic axes and between walls
    (no normal velocity); open sides where nothing acts on the state and the velocity is known.
    Not: diffusion or sources beside open sides, jumps in coefficients, unknown parameters,
    observations.
    References: mojgani2023kolmogorov.
    """

    engine: CausalPINN = field(default_factory=lambda: CausalPINN(target=TARGET))

    citation: ClassVar[str] = (
        "@article{mojgani2023kolmogorov,\n"
        "  title   = {Kolmogorov n-width and {L}agrangian physics-informed neural networks: A causality-conforming manifold for convection-dominated {PDE}s},\n"
        "  author  = {Mojgani, Rambod and Balajewicz, Maciej and Hassanzadeh, Pedram},\n"
        "  journal = {Computer Methods in Applied Mechanics and Engineering},\n"
        "  volume  = {404}, pages = {115810}, year = {2023}\n}"
    )

    def __post_init__(self) -> None:
        if not isinstance(self.engine, CausalPINN):
            raise TypeError(f"LagrangianPINN: engine={self.engine!r} must be a CausalPINN")

    def supports(self, problem: Any) -> str | None:
        if (reason := graph_refusal(problem, "LagrangianPINN")) is not None:
            return reason
        nf: NormalForm = problem.normal_form
        reason = lowering_refusal(nf)
        if reason is not None:
            return reason
        if (reason := unknowns_refusal(nf, "LagrangianPINN")) is not None:
            return reason
        if nf.integrals:
            return (
                "LagrangianPINN does not use integral conditions. Drop them, or use another solver."
            )
        return label_refusal(nf)

    def init(self, problem: Any, env: Env) -> LagrangianState | ClosedState:
        form = to_labels(problem.normal_form)
        if not form.nf.fields:
            logger.info("everything has a closed form along the characteristics: nothing to train")
            return ClosedState(form)
        state = LagrangianState(self.engine, form, env)
        state.open(0.0)
        if env.warm_start is not None:
            state.start_from(env.warm_start)
        return state

    def step(self, problem: Any, state: Any) -> Mapping[str, float | Tensor]:
        return self.engine.step(problem, state)

    def terminate(self, problem: Any, state: Any) -> Status | None:
        return state.ended

    def complete(self, problem: Any, state: LagrangianState | ClosedState) -> bool:
        if isinstance(state, ClosedState):
            return True
        return state.window.stage != FLOW and self.engine.complete(problem, state)

    def finish(self, problem: Any, state: LagrangianState | ClosedState) -> Answer:
        stats: dict[str, object] = {"parameters": 0, "points": 0, "windows": 0}
        if isinstance(state, LagrangianState):
            stats = dict(self.engine.finish(problem, state).stats)
            windows: Any = [*state.closed, state.window]
            stats["parameters"] = sum(p.numel() for w in windows for p in w.model.parameters())
        approximation = state.approximation()
        if state.crossing is not None:
            stats["shock_time"] = state.crossing.time
            stats["shock_place"] = list(state.crossing.place)
            stats["after_shock"] = _after_shock(state.form.source)
        else:
            stats |= _map_stats(state, approximation)
        return Answer(approximation=approximation, stats=stats)


def _after_shock(nf: NormalForm) -> str:
    """Who knows the values after the crossing."""
    if nf.predicates.flux_form:
        return "MethodOfLines() gives the entropy solution of this law in flux form"
    return "not determined without flux form: write the speed as div(flux) and use MethodOfLines()"


def _map_stats(
    state: LagrangianState | ClosedState,
    approximation: LagrangianApproximation | RelabelledApproximation,
) -> dict[str, object]:
    """How far the map deforms: in the windows that closed, and in the one that did not."""
    low, high = _span(state.form)
    part = _last_part(approximation)
    start = max(low, part.form.span[0])
    least, deformation = part.least_jacobian(start, high), part.deformation(high)
    if isinstance(state, LagrangianState):
        least = min(least, state.least_jacobian)
        deformation = max(deformation, state.deformation)
    count = len(approximation.parts) if isinstance(approximation, RelabelledApproximation) else 1
    return {"least_jacobian": least, "deformation": deformation, "relabelled": count - 1}


class ClosedState:
    """A problem solved by writing it down: nothing changes."""

    def __init__(self, form: LabelForm) -> None:
        self.form, self.step = form, 0
        part = make_part(form, None, None)
        self.crossing = None if form.passive else _first_crossing(part, *_span(form))
        self.ended: Status | None = Status.OK if self.crossing is None else Status.SHOCK

    def approximation(self) -> LagrangianApproximation | RelabelledApproximation:
        """The closed form."""
        until = math.inf if self.crossing is None else self.crossing.time
        part = make_part(self.form, None, None, until)
        return part if part.known is None else RelabelledApproximation([part])

    def state_dict(self) -> dict[str, Any]:
        """Nothing but the count of steps."""
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.step = state["step"]


class LagrangianState(CausalState):
    """The causal state of the label problem; every window that closes is searched for crossings.

    Labels are given out anew at the start of every window where the velocity is a function of
    coordinates alone (all windows are then equally easy); elsewhere a window that deforms the map
    more than `MOST_DEFORMED` is cut short, and new labels follow.
    """

    window: LabelWindow  # type: ignore[assignment]

    def __init__(self, engine: CausalPINN, form: LabelForm, env: Env) -> None:
        super().__init__(engine, form.nf, env)
        self.form = form
        transport = find_transport(form.source)
        assert isinstance(transport, Transport)
        self.share = 1.0 / (engine.windows or flow_windows(form.source, transport))
        self.crossing: Crossing | None = None
        self.deformation, self.least_jacobian = 1.0, math.inf
        self.flow_best = 0.0
        self.deadline = math.inf
        self._trained: LabelWindow | None = None  # its flow is known, its states come next

    def make_window(
        self, start: float, end: float, before: Any, *, fresh: bool = True
    ) -> LabelWindow:
        """The ansatz in labels: exact at the start of every window."""
        if self._trained is not None:
            return at_stage(self._trained, STATE)
        form = self._labels(start, end, before)
        return open_label_window(
            form, self.solver, self.env, start, end, before,
            stage=first_stage(form), fresh=fresh,
        )  # fmt: skip

    def _labels(self, start: float, end: float, before: LabelWindow | None) -> LabelForm:
        """The labels of a window: new ones, or those of the window before."""
        now, then = self._time(start), self._time(end)
        if self.form.entries:
            return to_labels(self.form.source, (now, then))  # a long span has distant labels
        if before is None:
            return self.form
        if self.form.relabels and (self.form.passive or before.end < before.planned):
            return to_labels(self.form.source, (now, self._time(1.0)))
        return before.form

    def close(self) -> None:
        """Go on only where the map of the window just solved can be inverted."""
        window = self.window
        window.theta = self.best_theta
        load_parameters(window.collocation.params, self.best_theta)
        if window.stage == FLOW:
            self.flow_best, self._trained = self.best, window
            self.open(window.start)
            self._trained = None
            return
        part = _last_part(self.approximation())
        ends = [self._time(s) for s in (window.start, window.end)]
        if not window.form.passive:
            self.crossing = _first_crossing(part, *ends)
        self.least_jacobian = min(self.least_jacobian, part.least_jacobian(*ends))
        if self.crossing is not None or not self.least_jacobian > 0:
            # The map of a window that was not learned folds too, where nothing breaks.
            learned = self.crossing is not None and self.best < SOLVED
            self.ended = Status.SHOCK if learned else Status.STALLED
            return
        reached, deformation = _deformed(part, *ends)
        self.deformation = max(self.deformation, deformation)
        if reached < ends[1] and window.form.relabels:
            logger.info("the map has deformed by %.3g at t = %g: new labels", deformation, reached)
            low, high = _span(self.form)
            window.end = (reached - low) / (high - low)
        self.best = max(self.best, self.flow_best)
        if window.end < 1.0 and window.stage != BOTH:
            self.window = at_stage(window, BOTH)
            self.best_theta = self.window.theta
        super().close()

    def approximation(self) -> LagrangianApproximation | RelabelledApproximation:
        """The windows as they are best known, read at positions."""
        until = math.inf if self.crossing is None else self.crossing.time
        theta = self.best_theta if self.final and self.best < math.inf else self.memory["theta"]
        window = dataclasses.replace(self.window, theta=theta)
        found = as_lagrangian(window, until)
        if self.crossing is None and not self.best < SOLVED:
            ends = [self._time(s) for s in (window.start, window.end)]
            if not _last_part(found).least_jacobian(*ends) > 0:
                # Cut short in mid-training, where the map still folds: particles that wait where the
                # window began are wrong, too, but have places.
                return as_lagrangian(at_rest(window), until)
        return found

    def state_dict(self) -> dict[str, Any]:
        """As the engine's, and what was found of the map."""
        crossing = None if self.crossing is None else [self.crossing.time, *self.crossing.place]
        own = {"crossing": crossing, **{name: getattr(self, name) for name in _NUMBERS}}
        return super().state_dict() | own

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        super().load_state_dict(state)
        found = state["crossing"]
        self.crossing = None if found is None else Crossing(found[0], tuple(found[1:]))
        for name in _NUMBERS:
            setattr(self, name, state[name])

    def _reopen(self, record: Mapping[str, Any]) -> LabelWindow:
        before: Any = self.closed[-1] if self.closed else None
        start, planned = record["start"], record["planned"]
        form = self._labels(start, planned, before)
        window = open_label_window(
            form, self.solver, self.env, start, planned, before, stage=BOTH, fresh=False
        )
        parameters = list(window.model.parameters())
        load_parameters(parameters, record["model"].to(parameters[0]))
        window = at_stage(window, record["stage"])
        window.end = record["end"]
        window.theta = record["theta"].to(parameters[0])
        load_parameters(window.collocation.params, window.theta)
        return window

    def _allowance(self, start: float, end: float) -> float:
        """As the engine's, shared by the flow and the states it carries."""
        if self.env.time_limit is None:
            return math.inf
        if self.window.stage == STATE:
            return math.inf if end >= 1.0 else max(0.0, self.deadline - self.opened)
        if self.window.stage == BOTH:
            return super()._allowance(start, end)
        left = max(0.0, self.env.time_limit - (self.opened - self.started))
        seconds = left * (end - start) / (1.0 - start)
        self.deadline = self.opened + seconds
        return FLOW_SHARE * seconds

    def _time(self, share: float) -> float:
        low, high = _span(self.form)
        return low + share * (high - low)


_NUMBERS = ("deformation", "least_jacobian", "flow_best")


def _deformed(part: LagrangianApproximation, start: float, end: float) -> tuple[float, float]:
    """(instant, deformation): the last of some instants at which the map is not deformed too much.

    Never before the middle of the span, so that windows advance.
    """
    worst = 1.0
    for k in range(1, INSTANTS + 1):
        found = part.deformation(start + (end - start) * k / INSTANTS)
        if found > MOST_DEFORMED and 2 * k > INSTANTS:
            return start + (end - start) * (k - 1) / INSTANTS, worst
        worst = max(worst, found)
    return end, worst


def _last_part(
    approximation: LagrangianApproximation | RelabelledApproximation,
) -> LagrangianApproximation:
    if isinstance(approximation, RelabelledApproximation):
        return approximation.parts[-1]
    return approximation


def _first_crossing(
    approximation: LagrangianApproximation, start: float, end: float
) -> Crossing | None:
    found = approximation.crossing(start, end)
    if found is not None:
        logger.info("characteristics cross at t = %g, x = %s", found.time, found.place)
    return found


def _span(form: LabelForm) -> tuple[float, float]:
    assert form.nf.time is not None
    return form.nf.bounds[form.nf.time]
