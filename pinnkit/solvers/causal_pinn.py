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

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, final

from torch import Tensor

from pinnkit.errors import Status
from pinnkit.ir.normal_form import NormalForm
from pinnkit.lower.residuals import lowering_refusal
from pinnkit.solvers.base import AbstractSolver, Answer, Env, graph_refusal, unknowns_refusal
from pinnkit.solvers.causal_state import CausalState
from pinnkit.train.causality import CausalSchedule
from pinnkit.train.gauss_newton import GaussNewton
from pinnkit.train.residual_model import AbstractOptimiser

__all__ = ["CausalPINN"]


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
        harmonics: Fourier harmonics of the exact embedding of periodic axes. None: one, or three
            for nonlinear evolution in one space dimension where a window starts from several waves.
        optimiser: Second order by default; any `AbstractOptimiser`.
        schedule: Causality strengths; ignored for steady problems.
        slices: Slices of a window on which the causal integral is accumulated.
        points: Interior points per step at first; None: 0.3 rows per trainable number. They double
            when the held-out loss stops falling, up to `most_points`.
        most_points: None: three rows per trainable number.
        adaptive: Half of the interior points follow the residual; the other half is uniform.
        condition_weight: Weight of conditions beside equations.
        face_density: Points per length on faces, relative to the interior.
        windows: Equal time windows. None: one, or a twentieth of the time span for nonlinear periodic
            problems of third or higher order in space; halved when causality does not advance.
        precision: "double", or "mixed": float32 for the rows and the Gram matrix of Gauss-Newton as
            long as the damping exceeds their rounding. For devices on which float64 is slow.
        compile: Evaluate the equations through torch.compile (seconds per window to begin with; a
            failure is logged and changes nothing).
        exact: Fulfil initial and Dirichlet values by construction wherever data fit together; False:
            every condition is a residual.
        probe_every: Steps between readings of the held-out probe.
        patience: Readings without progress before more points are drawn, or training has stalled.
        target: Root of the held-out loss (a mean scaled residual) at which nothing is left to gain.
            None: 1e-6, less if `tol` asks for it; 1e-12 for initial value problems of ODEs.

    Initial value problems of ODEs are solved in windows of their own length by a network of which
    only the last layer is trained, to near rounding (see `ode_windows`), unless a network or an
    optimiser is given.

    Several ranks (`torchrun`, docs/scaling_out.md) share the points of every batch and of the probe.

    Supports equations and conditions on boxes, steady or in time, linear or not, of any order.
    Not: coefficient jumps in flux form, shocks, unknown parameters and observations (yet).
    References: wang2024causality.
    """

    width: int | None = None
    depth: int | None = None
    network: Any = None
    harmonics: int | None = None
    optimiser: AbstractOptimiser = field(default_factory=GaussNewton)
    schedule: CausalSchedule = field(default_factory=CausalSchedule)
    slices: int = 50
    points: int | None = None
    most_points: int | None = None
    adaptive: bool = True
    condition_weight: float = 10.0
    face_density: float = 7.0
    windows: int | None = None
    precision: str = "double"
    compile: bool = False
    exact: bool = True
    probe_every: int = 10
    patience: int = 5
    target: float | None = None

    shards: ClassVar[bool] = True
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
            if (value := getattr(self, name)) is not None and not value > 0:
                faults.append(f"{name}={getattr(self, name)} must be positive")
        if self.network is not None and (self.width or self.depth):
            faults.append("give either network or width and depth")
        if self.precision not in ("double", "mixed"):
            faults.append(f"precision={self.precision!r} must be 'double' or 'mixed'")
        elif self.precision == "mixed" and not isinstance(self.optimiser, GaussNewton):
            faults.append("precision='mixed' concerns the rows of GaussNewton")
        if faults:
            raise ValueError("CausalPINN: " + "; ".join(faults))

    def supports(self, problem: Any) -> str | None:
        if (reason := graph_refusal(problem, "CausalPINN")) is not None:
            return reason
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
        if state.since_open % state.probe_every == 0:
            window = None
            while window is not state.window:  # a window that opened is read before its first step
                window = state.window
                state.read_probe()
        if state.batch is None or state.batch_age >= state.batch_life:
            state.draw()
        assert state.batch is not None
        report = state.optimiser.step(state.batch, state.memory)
        state.take_note()
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

    def complete(self, problem: Any, state: CausalState) -> bool:
        return state.final and state.window.end >= 1.0

    def finish(self, problem: Any, state: CausalState) -> Answer:
        return Answer(
            approximation=state.approximation(),
            stats={
                "parameters": sum(w.collocation.size for w in [*state.closed, state.window]),
                "points": state.window.collocation.last_drawn,
                "windows": len(state.closed) + 1,
            },
        )


def _may_shock(nf: NormalForm) -> bool:
    """A nonlinear law in flux form without derivatives above the first."""
    orders = [k for (_, axis), k in nf.predicates.space_order.items() if axis in nf.space]
    return (
        nf.predicates.flux_form and not nf.predicates.linear and bool(orders) and max(orders) == 1
    )
