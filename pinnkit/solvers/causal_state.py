"""What changes while `CausalPINN` trains: windows, causal stage, batches, what is known best.

In    the solver's settings, a problem's normal form, the environment.
Out   `CausalState`, advanced by `causal_pinn` step by step; its `approximation` is the answer so far.
Next  `causal_pinn` steps its optimiser; `lagrangian_pinn` has windows of its own.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pinnkit.errors import Status
from pinnkit.ir.normal_form import NormalForm
from pinnkit.solvers import ode_windows
from pinnkit.solvers.base import Env
from pinnkit.solvers.collocation import Batch
from pinnkit.solvers.windows import Window, as_approximation, open_window
from pinnkit.train.causality import causal_weights, slice_means
from pinnkit.train.parameters import flat_parameters, load_parameters
from pinnkit.train.residual_model import Memory

if TYPE_CHECKING:
    from pinnkit.solvers.causal_pinn import CausalPINN

__all__ = ["SOLVED", "CausalState"]

STAGE_PATIENCE = 10  # probe readings a causality strength may take
AVERAGED = 30  # steps in the running mean of the parameters
HALFWAY = 0.5  # of the strengths: a window whose causality has not come that far is too long
LATEST = 0.6  # of a window's seconds: then all weights become 1, so that there is time to converge
TARGET = 1e-6  # see `target`
PER_TOL = 1e-2  # residual aimed at over the tolerance asked for: errors grow in time
DISPERSIVE = 3  # order in space from which nonlinear waves run through each other
SHARE = 0.05  # of the time span, the first window of such a problem
SHARPER = 0.1  # times the usual target there: what an early window leaves, the later ones multiply
COARSE = 4.0  # rounding of a float32 Gram matrix over its trace, in units of the machine's
SOLVED = 1e-6  # held-out loss above which a window out of time is not handed over: it would mislead


class CausalState:
    """All that changes: the open window, its optimiser memory, the causal stage, the closed windows."""

    def __init__(self, solver: CausalPINN, nf: NormalForm, env: Env) -> None:
        self.solver, self.nf, self.env = solver, nf, env
        self.generator = env.generator
        self.from_values = ode_windows.applies(nf, solver)
        self.causal = nf.time is not None and nf.predicates.evolution and not self.from_values
        self.optimiser = ode_windows.OPTIMISER if self.from_values else solver.optimiser
        usual = ode_windows.usual_target(env.dtype) if self.from_values else TARGET
        if env.tol is not None:
            usual = min(usual, PER_TOL * env.tol)
        if _marches(nf):
            usual *= SHARPER
        self.target = usual if solver.target is None else solver.target
        self.length: ode_windows.WindowLength | None = None
        if self.from_values and solver.windows is None:
            self.length = ode_windows.WindowLength(self.target**2, env.dtype)
        self.probe_every = solver.probe_every if self.length is None else 1
        self.step = 0
        self.ended: Status | None = None
        self.closed: list[Window] = []
        # Of the time span, per window:
        self.share = SHARE if _marches(nf) else 1.0
        if solver.windows is not None:
            self.share = 1.0 / solver.windows
        self.started = time.perf_counter()

    # -- windows -----------------------------------------------------------------------------------

    def open(self, start: float) -> None:
        """Begin the window at `start` (share of the time span), from the last one's parameters."""
        end = min(1.0, start + self.share)
        if 1.0 - end < 1e-9:
            end = 1.0
        before = self.closed[-1] if self.closed else None
        self.window = self.make_window(start, end, before)
        self._compile()
        theta = flat_parameters(self.window.collocation.params)
        if before is not None and len(before.theta) == len(theta) and not self.from_values:
            theta = before.theta.clone()  # the same shapes in scaled time: a good first guess
        self.memory: Memory = self.optimiser.init(theta)
        self.window.collocation.make_probe(self._probe_points(), self.generator)
        self.stage, self.stage_readings = 0, 0
        self.means: Tensor | None = None
        self.batch: Batch | None = None
        self.batch_age, self.since_open = 0, 0
        rows = len(theta) / max(1, self.window.collocation.equations)
        self.points = self.solver.points or max(64, math.ceil(0.3 * rows))
        self.most_points = self.solver.most_points or max(256, math.ceil(3.0 * rows))
        self.held_out, self.reached = math.inf, start
        self.row_size = 0.0  # trace of J^T J: nothing is known of it before the first step
        self.best, self.best_theta = math.inf, theta.clone()
        self.average, self.averaged = theta.clone(), 0
        self.mark, self.idle = math.inf, 0
        self.opened = time.perf_counter()
        self.allowance = self._allowance(start, end)

    def make_window(
        self, start: float, end: float, before: Window | None, *, fresh: bool = True
    ) -> Window:
        """The ansatz on [start, end]; other formulations of a problem bring their own."""
        if self.from_values:
            return ode_windows.open_window(self.nf, self.solver, self.env, start, end, before)
        return open_window(self.nf, self.solver, self.env, start, end, before, fresh=fresh)

    def _compile(self) -> None:
        if self.solver.compile and not self.from_values:  # those windows are solved sooner
            self.window.collocation.compile()

    def _allowance(self, start: float, end: float) -> float:
        """Seconds for a window: its share of what is left, so that the last ones are reached too."""
        if self.env.time_limit is None or end >= 1.0:
            return math.inf
        left = max(0.0, self.env.time_limit - (self.opened - self.started))
        if self.length is not None:  # short windows are no easier than long ones
            return ode_windows.MOST_OF_REST * left
        return left * (end - start) / (1.0 - start)

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
        self.memory = self.optimiser.init(theta)
        self.best_theta, self.average = theta.clone(), theta.clone()

    def close(self) -> None:
        """The window is solved: go on with the next, or end."""
        self.window.theta = self.best_theta
        load_parameters(self.window.collocation.params, self.best_theta)
        if self.window.end >= 1.0:
            enough = self.target**2 if self.length is None else self.length.enough
            self.ended = Status.STALLED if self.best > enough else Status.OK
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
        self.env.ranks.check_equal(self.memory["theta"], f"after step {self.step} the parameters")
        reading = self.window.collocation.read_probe()
        self.held_out = reading.held_out
        if not math.isfinite(reading.held_out):
            return  # the loop sees it in the losses and ends with DIVERGED
        if self.causal:
            assert reading.times is not None
            self.means = slice_means(reading.times, reading.squared, self.solver.slices)
            self._advance()
            if not self.final and self._lasts(LATEST * self.allowance):
                self.stage = len(self.solver.schedule.strengths)
        if self.final:
            self._judge(reading.held_out)

    def _lasts(self, seconds: float) -> bool:
        """Whether this window has taken longer, by the clock of rank 0."""
        return bool(self.env.ranks.same(time.perf_counter() - self.opened > seconds))

    @property
    def final(self) -> bool:
        """Whether all causal weights are 1, so that convergence may be judged."""
        return not self.causal or self.solver.schedule.is_last(self.stage)

    def take_note(self) -> None:
        """After a step: how large the rows were; the running mean of theta over about `AVERAGED` steps.

        Fresh batches make theta jitter around that mean.
        """
        assert self.batch is not None
        self.row_size = self.batch.row_size or self.row_size
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
        if not self.from_values:  # fixed points leave nothing to average out
            load_parameters(self.window.collocation.params, self.average)
            averaged = self.window.collocation.read_probe().held_out
            if averaged < held_out:  # False for NaN
                held_out, theta = averaged, self.average
            else:  # it still holds steps from far away: begin again from here
                self.average, self.averaged = theta.clone(), 0
        if held_out < self.best:
            self.best, self.best_theta = held_out, theta.clone()
        late = self._lasts(self.allowance)
        if self.length is not None:
            self._measure_window(self.length, late)
        elif held_out < self.target**2 or (late and self.best < SOLVED):
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

    def _measure_window(self, length: ode_windows.WindowLength, late: bool) -> None:
        span = self.window.end - self.window.start
        verdict = length.judge(self.best, self.since_open, span)
        if verdict == "close" or (late and self.best < SOLVED):
            self.share = length.following(span, self.since_open)
            self.close()
        elif verdict == "halve":
            self.halve()
        elif verdict == "stop":
            self.ended = Status.STALLED

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
        if self.optimiser.steps_per_batch is not None:
            return self.optimiser.steps_per_batch
        return 1 if self.batch.size < 1.5 * self.window.collocation.size else 5

    def draw(self) -> None:
        """Fresh points for the model as it is."""
        if self.from_values:
            batch = ode_windows.fixed_batch(self.window, self.solver.points)
            self.batch, self.batch_age = batch, 0
            return
        load_parameters(self.window.collocation.params, self.memory["theta"])
        weight = None
        if self.causal and self.means is not None and not self.solver.schedule.is_last(self.stage):
            eps = self.solver.schedule.eps(self.stage)
            weight = functools.partial(causal_weights, means=self.means, eps=eps)
        self.batch = self.window.collocation.draw(
            self.points,
            self.generator,
            adaptive=self.solver.adaptive,
            time_weight=weight,
            coarse=self._coarse(),
        )
        self.batch_age = 0

    def _coarse(self) -> bool:
        """Whether rows in float32 will do: where the damping exceeds the rounding of J^T J."""
        if self.solver.precision == "double" or self.env.dtype == torch.float32:
            return False
        return self.memory["mu"] > COARSE * torch.finfo(torch.float32).eps * self.row_size

    def _probe_points(self) -> int:
        return 2000 if len(self.nf.coords) > 1 else 500

    # -- the answer --------------------------------------------------------------------------------

    def approximation(self) -> Any:
        """The closed windows and the open one as they are best known."""
        last = dataclasses.replace(self.window, theta=self._best_known())
        return as_approximation(self.nf, [*self.closed, last])

    def _best_known(self) -> Tensor:  # shape: (P,)
        """The best parameters read, or today's where those are better: readings are steps apart."""
        now = self.memory["theta"]
        if not self.final or self.best == math.inf:
            return now
        load_parameters(self.window.collocation.params, now)
        return now if self.window.collocation.read_probe().held_out < self.best else self.best_theta

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
            "length": None if self.length is None else self.length.state_dict(),
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
        self._compile()
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
        if self.length is not None:
            self.length.load_state_dict(state["length"])
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
    "held_out", "reached", "best", "mark", "idle", "row_size",
)  # fmt: skip


def _marches(nf: NormalForm) -> bool:
    """Whether short windows are worth their seams: there the start of each can be exact."""
    orders = [k for (_, axis), k in nf.predicates.space_order.items() if axis in nf.space]
    return (
        nf.predicates.evolution
        and not nf.predicates.linear
        and set(nf.space) <= set(nf.periodic)
        and max(orders, default=0) >= DISPERSIVE
    )
