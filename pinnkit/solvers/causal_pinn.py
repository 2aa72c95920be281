"""Causal-weighted PINN, trained by damped Gauss-Newton on fresh points.

In    a problem's normal form: the ansatz, the residual groups and the window follow from it.
Out   the network (one per time window) as an `Answer`.
Next  `driver` judges it against an independent classical solve.

One step: draw points, weight them causally, take one Gauss-Newton step on them. Every
`probe_every` steps the held-out probe is read: it gives the causal weights, says when the next
causality strength is due, when more points are needed and when training has stalled.
References: wang2024causality; second-order training: dangel2024kronecker, guzman2025improving.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from pinnkit.errors import Status
from pinnkit.ir.normal_form import NormalForm
from pinnkit.lower.residuals import lowering_refusal
from pinnkit.solvers.base import AbstractSolver, Answer, Env, unknowns_refusal
from pinnkit.solvers.collocation import Batch, flat_parameters, load_parameters
from pinnkit.solvers.windows import Window, as_approximation, open_window
from pinnkit.train.causality import CausalSchedule, causal_weights, slice_means
from pinnkit.train.gauss_newton import GaussNewton
from pinnkit.train.residual_model import AbstractOptimiser, Memory

__all__ = ["CausalPINN"]

STAGE_PATIENCE = 10  # probe readings a causality strength may take
AVERAGED = 30  # steps in the running mean of the parameters
HALFWAY = 0.5  # of the strengths: a window whose causality has not come that far is too long
LATEST = 0.6  # of a window's seconds: then all weights become 1, so that there is time to converge
SOLVED = 1e-6  # held-out loss above which a window out of time is not handed over: it would mislead


@final
@dataclass(frozen=True, kw_only=True)
class CausalPINN(AbstractSolver):
    """PINN whose residual at a time waits until earlier times are solved.

    The loss is the mean of w(t) |r|^2 over scaled equations plus `condition_weight` times the mean
    square of every condition, with w(t) = exp(-eps * integral of <r^2> up to t). eps runs through
    `schedule`; the last stage has all weights 1, and convergence is judged there.

    Args:
        width, depth: Hidden layers of the tanh network; None: chosen from the problem's predicates.
        network: Builder (inputs, outputs, generator=, dtype=) -> module, instead of width and depth.
        harmonics: Fourier harmonics of the exact embedding of periodic axes.
        optimiser: Second order by default; any `AbstractOptimiser`.
        schedule: Causality strengths; ignored for steady problems.
        slices: Slices of a window on which the causal integral is accumulated.
        points: Interior points per step at first; None: 0.3 rows per trainable number. They double
            when the held-out loss stops falling, up to `most_points`.
        most_points: None: three rows per trainable number.
        adaptive: Half of the interior points follow the residual; the other half is uniform.
        condition_weight: Weight of conditions beside equations.
        face_density: Points per length on faces, relative to the interior.
        windows: Equal time windows, or None: start with one, halve it when causality does not advance.
        probe_every: Steps between readings of the held-out probe.
        patience: Readings without progress before more points are drawn, or training has stalled.
        target: Root of the held-out loss (a mean scaled residual) at which nothing is left to gain.

    Supports equations and conditions on boxes, steady or in time, linear or not, of any order.
    Not: coefficient jumps in flux form, shocks, unknown parameters and observations (yet).
    References: wang2024causality.
    """

    width: int | None = None
    depth: int | None = None
    network: Any = None
    harmonics: int = 1
    optimiser: AbstractOptimiser = field(default_factory=GaussNewton)
    schedule: CausalSchedule = field(default_factory=CausalSchedule)
    slices: int = 50
    points: int | None = None
    most_points: int | None = None
    adaptive: bool = True
    condition_weight: float = 10.0
    face_density: float = 7.0
    windows: int | None = None
    probe_every: int = 10
    patience: int = 20
    target: float = 1e-6

    citation: ClassVar[str] = (
        "@article{wang2024causality,\n"
        "  title   = {Respecting causality for training physics-informed neural networks},\n"
        "  author  = {Wang, Sifan and Sankaran, Shyam and Perdikaris, Paris},\n"
        "  journal = {Computer Methods in Applied Mechanics and Engineering},\n"
        "  volume  = {421}, pages = {116813}, year = {2024}\n}"
    )

    def __post_init__(self) -> None:
        faults = [
            f"{name}={value} must be at least 1"
            for name in ("width", "depth", "harmonics", "slices", "points", "most_points",
                         "windows", "probe_every", "patience")
            if (value := getattr(self, name)) is not None and value < 1
        ]  # fmt: skip
        for name in ("condition_weight", "face_density", "target"):
            if not getattr(self, name) > 0:
                faults.append(f"{name}={getattr(self, name)} must be positive")
        if self.network is not None and (self.width or self.depth):
            faults.append("give either network or width and depth")
        if faults:
            raise ValueError("CausalPINN: " + "; ".join(faults))

    def supports(self, problem: Any) -> str | None:
        nf: NormalForm = problem.normal_form
        reason = lowering_refusal(nf)
        if reason is not None:
            return reason
        if (reason := unknowns_refusal(nf, "CausalPINN")) is not None:
            return reason
        if _may_shock(nf):
            return (
                "a nonlinear first-order conservation law may form shocks, where no smooth network "
                "is a solution. Add diffusion, or try MethodOfLines(), which gives the entropy "
                "solution."
            )
        return None

    def init(self, problem: Any, env: Env) -> CausalState:
        state = CausalState(self, problem.normal_form, env)
        state.open(0.0)
        if env.warm_start is not None:
            state.start_from(env.warm_start)
        return state

    def step(self, problem: Any, state: CausalState) -> Mapping[str, float | Tensor]:
        if state.since_open % self.probe_every == 0:
            window = None
            while window is not state.window:  # a window that opened is read before its first step
                window = state.window
                state.read_probe()
        if state.batch is None or state.batch_age >= state.batch_life:
            state.draw()
        assert state.batch is not None
        report = self.optimiser.step(state.batch, state.memory)
        state.take_average()
        state.batch_age += 1
        state.since_open += 1
        state.step += 1
        return {
            "loss": report.loss,
            "held_out": state.held_out,
            "eps": self.schedule.eps(state.stage) if state.causal else 0.0,
            "points": float(state.batch.size),
            "reached": state.reached,
        }

    def terminate(self, problem: Any, state: CausalState) -> Status | None:
        return state.ended

    def finish(self, problem: Any, state: CausalState) -> Answer:
        return Answer(
            approximation=state.approximation(),
            stats={
                "parameters": sum(w.collocation.size for w in [*state.closed, state.window]),
                "points": state.window.collocation.last_drawn,
                "windows": len(state.closed) + 1,
            },
        )


class CausalState:
    """All that changes: the open window, its optimiser memory, the causal stage, the closed windows."""

    def __init__(self, solver: CausalPINN, nf: NormalForm, env: Env) -> None:
        self.solver, self.nf, self.env = solver, nf, env
        self.generator = env.generator
        self.causal = nf.time is not None and nf.predicates.evolution
        self.step = 0
        self.ended: Status | None = None
        self.closed: list[Window] = []
        self.share = 1.0 / (solver.windows or 1)  # of the time span, per window
        self.started = time.perf_counter()

    # -- windows -----------------------------------------------------------------------------------

    def open(self, start: float) -> None:
        """Begin the window at `start` (share of the time span), from the last one's parameters."""
        end = min(1.0, start + self.share)
        if 1.0 - end < 1e-9:
            end = 1.0
        before = self.closed[-1] if self.closed else None
        self.window = self.make_window(start, end, before)
        theta = flat_parameters(self.window.collocation.params)
        if before is not None and len(before.theta) == len(theta):
            theta = before.theta.clone()  # the same shapes in scaled time: a good first guess
        self.memory: Memory = self.solver.optimiser.init(theta)
        self.window.collocation.make_probe(self._probe_points(), self.generator)
        self.stage, self.stage_readings = 0, 0
        self.means: Tensor | None = None
        self.batch: Batch | None = None
        self.batch_age, self.since_open = 0, 0
        rows = len(theta) / max(1, self.window.collocation.equations)
        self.points = self.solver.points or max(64, math.ceil(0.3 * rows))
        self.most_points = self.solver.most_points or max(256, math.ceil(3.0 * rows))
        self.held_out, self.reached = math.inf, start
        self.best, self.best_theta = math.inf, theta.clone()
        self.average, self.averaged = theta.clone(), 0
        self.mark, self.idle = math.inf, 0
        self.opened = time.perf_counter()
        self.allowance = self._allowance(start, end)

    def make_window(
        self, start: float, end: float, before: Window | None, *, fresh: bool = True
    ) -> Window:
        """The ansatz on [start, end]; other formulations of a problem bring their own."""
        return open_window(self.nf, self.solver, self.env, start, end, before, fresh=fresh)

    def _allowance(self, start: float, end: float) -> float:
        """Seconds for a window: its share of what is left, so that the last ones are reached too."""
        if self.env.time_limit is None or end >= 1.0:
            return math.inf
        left = self.env.time_limit - (self.opened - self.started)
        return max(0.0, left) * (end - start) / (1.0 - start)

    def start_from(self, solution: Any) -> None:
        """Begin with the parameters of another solution of the same ansatz (`warm_start=`)."""
        approximation = getattr(solution, "approximation", None)
        models = getattr(approximation, "models", None) or [getattr(approximation, "model", None)]
        model = models[0]
        if not isinstance(model, torch.nn.Module):
            raise ValueError(
                "warm_start must be a solution of CausalPINN; this one holds no network"
            )
        given = [p for p in model.parameters() if p.requires_grad]
        own = self.window.collocation.params
        if [p.shape for p in given] != [p.shape for p in own]:
            raise ValueError(
                f"warm_start holds a network of {sum(p.numel() for p in given)} parameters, this solve "
                f"needs {sum(p.numel() for p in own)}: use the same width, depth and fields"
            )
        theta = flat_parameters(given).to(own[0])
        self.memory = self.solver.optimiser.init(theta)
        self.best_theta, self.average = theta.clone(), theta.clone()

    def close(self) -> None:
        """The window is solved: go on with the next, or end."""
        self.window.theta = self.best_theta
        load_parameters(self.window.collocation.params, self.best_theta)
        if self.window.end >= 1.0:
            self.ended = Status.STALLED if self.best > self.solver.target**2 else Status.OK
            return
        self.closed.append(self.window)
        self.open(self.window.end)

    def halve(self) -> None:
        """The window is too long for its causality to advance: try half of it."""
        self.share = 0.5 * (self.window.end - self.window.start)
        self.open(self.window.start)

    # -- the probe ---------------------------------------------------------------------------------

    def read_probe(self) -> None:
        """Held-out residuals: causal weights, the next stage, more points, stall."""
        load_parameters(self.window.collocation.params, self.memory["theta"])
        reading = self.window.collocation.read_probe()
        self.held_out = reading.held_out
        if not math.isfinite(reading.held_out):
            return  # the loop sees it in the losses and ends with DIVERGED
        if self.causal:
            assert reading.times is not None
            self.means = slice_means(reading.times, reading.squared, self.solver.slices)
            self._advance()
            if not self.final and time.perf_counter() - self.opened > LATEST * self.allowance:
                self.stage = len(self.solver.schedule.strengths)
        if self.final:
            self._judge(reading.held_out)

    @property
    def final(self) -> bool:
        """Whether all causal weights are 1, so that convergence may be judged."""
        return not self.causal or self.solver.schedule.is_last(self.stage)

    def take_average(self) -> None:
        """Running mean of theta over about `AVERAGED` steps: fresh batches make theta jitter around it."""
        self.averaged = min(self.averaged + 1, AVERAGED)
        self.average = self.average + (self.memory["theta"] - self.average) / self.averaged

    def _advance(self) -> None:
        assert self.means is not None
        schedule = self.solver.schedule
        before = self.stage
        self.stage = schedule.advance(self.stage, self.means)
        self.stage_readings = 0 if self.stage > before else self.stage_readings + 1
        ends = torch.linspace(0, 1, 101, dtype=self.means.dtype, device=self.means.device)
        weights = causal_weights(ends, self.means, schedule.eps(self.stage))
        span = self.window.end - self.window.start
        self.reached = self.window.start + span * float((weights > 0.5).double().mean())
        if schedule.is_last(self.stage):
            return
        early = self.stage < HALFWAY * len(schedule.strengths)
        if early and self.solver.windows is None:
            if self.stage_readings > 2 * STAGE_PATIENCE:
                self.halve()
        elif self.stage_readings > STAGE_PATIENCE:
            # The noise of small batches keeps the residual above the last strengths' threshold.
            self.stage_readings = 0
            if not self._grow():
                self.stage = len(schedule.strengths)

    def _judge(self, held_out: float) -> None:
        theta = self.memory["theta"]
        load_parameters(self.window.collocation.params, self.average)
        averaged = self.window.collocation.read_probe().held_out
        if averaged < held_out:  # False for NaN
            held_out, theta = averaged, self.average
        if held_out < self.best:
            self.best, self.best_theta = held_out, theta.clone()
        late = time.perf_counter() - self.opened > self.allowance
        if held_out < self.solver.target**2 or (late and self.best < SOLVED):
            self.close()
        elif held_out < 0.9 * self.mark:
            self.mark, self.idle = held_out, 0
        else:
            self.idle += 1
            if self.idle < self.solver.patience:
                return
            self.idle = 0
            if not self._grow():
                self.close()

    def _grow(self) -> bool:
        """Twice the points, from the next step on; False if there are as many as there may be."""
        if self.points >= self.most_points:
            return False
        self.points, self.batch = min(2 * self.points, self.most_points), None
        return True

    # -- batches -----------------------------------------------------------------------------------

    @property
    def batch_life(self) -> int:
        """Steps on one batch: fresh ones are cheap in sample space; large ones are worth a few steps."""
        assert self.batch is not None
        if self.solver.optimiser.steps_per_batch is not None:
            return self.solver.optimiser.steps_per_batch
        return 1 if self.batch.size < 1.5 * self.window.collocation.size else 5

    def draw(self) -> None:
        """Fresh points for the model as it is."""
        load_parameters(self.window.collocation.params, self.memory["theta"])
        weight = None
        if self.causal and self.means is not None and not self.solver.schedule.is_last(self.stage):
            eps = self.solver.schedule.eps(self.stage)
            weight = functools.partial(causal_weights, means=self.means, eps=eps)
        self.batch = self.window.collocation.draw(
            self.points, self.generator, adaptive=self.solver.adaptive, time_weight=weight
        )
        self.batch_age = 0

    def _probe_points(self) -> int:
        return 2000 if len(self.nf.coords) > 1 else 500

    # -- the answer --------------------------------------------------------------------------------

    def approximation(self) -> Any:
        """The closed windows and the open one as they are best known."""
        theta = self.best_theta if self.final and self.best < math.inf else self.memory["theta"]
        last = dataclasses.replace(self.window, theta=theta)
        return as_approximation(self.nf, [*self.closed, last])

    def state_dict(self) -> dict[str, Any]:
        """Everything to go on exactly; windows are rebuilt from their parameters."""
        return {
            "step": self.step,
            "share": self.share,
            "ended": None if self.ended is None else self.ended.name,
            "closed": [w.state_dict() for w in self.closed],
            "window": self.window.state_dict(),
            "probe": self.window.collocation.probe_state(),
            "memory": dict(self.memory),
            "batch": None if self.batch is None else self.batch.state_dict(),
            "means": self.means,
            "best_theta": self.best_theta,
            "average": self.average,
            **{name: getattr(self, name) for name in _NUMBERS},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.step, self.share = state["step"], state["share"]
        self.ended = None if state["ended"] is None else Status[state["ended"]]
        self.closed = []
        for record in state["closed"]:
            self.closed.append(self._reopen(record))
        self.window = self._reopen(state["window"])
        self.window.collocation.load_probe(state["probe"])
        self.opened = time.perf_counter()
        self.allowance = self._allowance(self.window.start, self.window.end)
        like = self.window.collocation.params[0]
        self.memory = {
            k: v.to(like) if isinstance(v, Tensor) else v for k, v in state["memory"].items()
        }
        self.means = None if state["means"] is None else state["means"].to(like)
        self.best_theta = state["best_theta"].to(like)
        self.average = state["average"].to(like)
        batch = state["batch"]
        self.batch = None if batch is None else Batch.from_state(self.window.collocation, batch)
        for name in _NUMBERS:
            setattr(self, name, state[name])

    def _reopen(self, record: Mapping[str, Any]) -> Window:
        before = self.closed[-1] if self.closed else None
        window = self.make_window(record["start"], record["end"], before, fresh=False)
        window.theta = record["theta"].to(window.collocation.params[0])
        load_parameters(window.collocation.params, window.theta)
        return window


_NUMBERS = (
    "stage", "stage_readings", "averaged", "batch_age", "since_open", "points", "most_points",
    "held_out", "reached", "best", "mark", "idle",
)  # fmt: skip


def _may_shock(nf: NormalForm) -> bool:
    """A nonlinear law in flux form without derivatives above the first."""
    orders = [k for (_, axis), k in nf.predicates.space_order.items() if axis in nf.space]
    return (
        nf.predicates.flux_form and not nf.predicates.linear and bool(orders) and max(orders) == 1
    )
