"""Lagrangian PINN: the causal engine on the problem written along its characteristics.

In    a problem of the form u_t + a(u, x, t) . grad u = rest, periodic in space.
Out   displacement and state over (t, labels), read back at positions, as an `Answer`.
Next  `driver` judges it against an independent classical solve.

`ir.labels` rewrites the declaration: unknowns s and W over (t, x0), X = x0 + A(t) + s, physical
derivatives by the inverse Jacobian of the map. What has a closed form is not trained: constant speed
needs no network at all. Displacement and state start as X = x0 + A + t N and W = u0(x0) + t N.
References: mojgani2023kolmogorov; nothing of its released code, whose diffusion acts in labels.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, final

import sympy as sp
import torch
from torch import Tensor, nn

from pinnkit.errors import Status
from pinnkit.ir.characteristics import Transport, find_transport, measure_convection
from pinnkit.ir.labels import LabelForm, label_refusal, to_labels
from pinnkit.ir.leaves import freeze
from pinnkit.ir.normal_form import NormalForm
from pinnkit.lower.fields import ExpressionJets, HardForm, make_field_model
from pinnkit.lower.lagrangian import Crossing, LagrangianApproximation
from pinnkit.lower.projection import ProjectedField
from pinnkit.lower.residuals import compile_residuals, group_terms, lowering_refusal
from pinnkit.lower.scales import FieldScale, estimate_field_scales
from pinnkit.nn import MLP
from pinnkit.solvers.base import AbstractSolver, Answer, Env, unknowns_refusal
from pinnkit.solvers.causal_pinn import SOLVED, CausalPINN, CausalState
from pinnkit.solvers.collocation import Collocation, flat_parameters
from pinnkit.solvers.windows import HANDOVER_TOL, Window, as_approximation, network_size

__all__ = ["LagrangianPINN"]

logger = logging.getLogger(__name__)

TARGET = 1e-5  # root of the held-out loss: errors of 1e-6 to 6e-5 in every case measured
TERM_DISPLACEMENT = 1e-3  # of the axis: displacement at which terms are sized, where J is still 1


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

    Supports first-order evolution in one velocity for all fields, periodic in space: constant,
    variable and solution-dependent speed, sources, diffusion and higher terms.
    Not: sides that are not periodic, jumps in coefficients, unknown parameters, observations.
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

    def finish(self, problem: Any, state: LagrangianState | ClosedState) -> Answer:
        stats: dict[str, object] = {"parameters": 0, "points": 0, "windows": 0}
        if isinstance(state, LagrangianState):
            stats = dict(self.engine.finish(problem, state).stats)
        approximation = state.approximation()
        if state.crossing is not None:
            stats["shock_time"] = state.crossing.time
            stats["shock_place"] = list(state.crossing.place)
        else:
            low, high = _span(state.form)
            stats["least_jacobian"] = approximation.least_jacobian(low, high)
        return Answer(approximation=approximation, stats=stats)


class ClosedState:
    """A problem solved by writing it down: nothing changes."""

    def __init__(self, form: LabelForm) -> None:
        self.form, self.step = form, 0
        self.crossing = _first_crossing(LagrangianApproximation(form, None), *_span(form))
        self.ended: Status | None = Status.OK if self.crossing is None else Status.SHOCK

    def approximation(self) -> LagrangianApproximation:
        """The closed form."""
        until = math.inf if self.crossing is None else self.crossing.time
        return LagrangianApproximation(self.form, None, until)

    def state_dict(self) -> dict[str, Any]:
        """Nothing but the count of steps."""
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.step = state["step"]


class LagrangianState(CausalState):
    """The causal state of the label problem; every window that closes is searched for crossings."""

    def __init__(self, engine: CausalPINN, form: LabelForm, env: Env) -> None:
        super().__init__(engine, form.nf, env)
        self.form = form
        self.share = 1.0 / (engine.windows or _turns(form))
        self.crossing: Crossing | None = None

    def make_window(
        self, start: float, end: float, before: Window | None, *, fresh: bool = True
    ) -> Window:
        """The ansatz in labels: exact at the start of every window."""
        return open_label_window(self.form, self.solver, self.env, start, end, before, fresh=fresh)

    def close(self) -> None:
        """Go on only where the map of the window just solved can be inverted."""
        low, high = _span(self.form)
        ends = [low + s * (high - low) for s in (self.window.start, self.window.end)]
        self.crossing = _first_crossing(self.approximation(), *ends)
        if self.crossing is not None:
            # The map of a window that was not learned folds too, where nothing breaks.
            self.ended = Status.SHOCK if self.best < SOLVED else Status.STALLED
            return
        super().close()

    def approximation(self) -> LagrangianApproximation:
        """The windows as they are best known, read at positions."""
        until = math.inf if self.crossing is None else self.crossing.time
        return LagrangianApproximation(self.form, super().approximation(), until)

    def state_dict(self) -> dict[str, Any]:
        """As the engine's, and the crossing."""
        crossing = None if self.crossing is None else [self.crossing.time, *self.crossing.place]
        return super().state_dict() | {"crossing": crossing}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        super().load_state_dict(state)
        found = state["crossing"]
        self.crossing = None if found is None else Crossing(found[0], tuple(found[1:]))


def open_label_window(
    form: LabelForm,
    engine: CausalPINN,
    env: Env,
    start: float,
    end: float,
    before: Window | None,
    *,
    fresh: bool = True,
) -> Window:
    """The ansatz u = u_start + (t - t_start) N and the residual groups on [start, end].

    Args:
        start, end: Shares of the time span.
        before: The window whose last instant is the start of this one; None at the beginning.
        fresh: Draw the initial parameters from `env.generator`; else from a throwaway one.
    """
    nf = form.nf
    assert nf.time is not None
    generator = env.generator if fresh else torch.Generator().manual_seed(0)
    low, high = _span(form)
    bounds = {**nf.bounds, nf.time: (low + start * (high - low), low + end * (high - low))}
    builder = engine.network
    if builder is None:
        # A displacement alone is a smooth flow of one variable; states bring derivatives of J.
        width, depth = (20, 3) if len(nf.fields) == len(form.speeds) else network_size(nf)
        builder = functools.partial(MLP, width=engine.width or width, depth=engine.depth or depth)
    soft = _soft_fields(form) if before is None else frozenset()
    known = estimate_field_scales(nf)
    scales = {
        u: FieldScale(form.speeds[u] * (end - start) * (high - low))
        if u in form.speeds
        else FieldScale(known[u].scale, known[u].offset if u in soft else 0.0)
        for u in nf.fields
    }
    model = make_field_model(
        nf,
        lambda i, o: builder(i, o, generator=generator, dtype=env.dtype),
        scales=scales,
        harmonics=engine.harmonics,
        hard=_hard_form(form, before, bounds[nf.time], soft, env),
        bounds=bounds,
        dtype=env.dtype,
    ).to(env.device)
    if not soft:
        _silence(model.network)
    lengths = [nf.bounds[c][1] - nf.bounds[c][0] for c in nf.space]
    terms = compile_residuals(
        nf,
        {u: FieldScale(TERM_DISPLACEMENT * min(lengths)) if u in form.speeds else known[u]
         for u in nf.fields},
    )  # fmt: skip
    kept = [t for t in terms if t.kind != "initial" or set(t.leaves) & soft]
    collocation = Collocation(
        nf, group_terms(kept), model,
        bounds=bounds, condition_weight=engine.condition_weight, face_density=engine.face_density,
    )  # fmt: skip
    return Window(start, end, collocation, flat_parameters(collocation.params))


def _hard_form(
    form: LabelForm,
    before: Window | None,
    span: tuple[float, float],
    soft: frozenset[sp.Expr],
    env: Env,
) -> HardForm:
    """Value at the start of the window, and a factor that vanishes there."""
    nf = form.nf
    assert nf.time is not None
    ramp = (nf.time - sp.Float(span[0], 17)) / sp.Float(span[1] - span[0], 17)
    factor = ExpressionJets([sp.S.One if u in soft else ramp for u in nf.fields], nf.coords)
    if before is None:
        values = {c.fields[0]: c.value for c in nf.conditions}
        start: list[Any] = [sp.S.Zero if u in soft else values[u] for u in nf.fields]
        return HardForm(ExpressionJets(start, nf.coords), factor)
    columns = [nf.coords.index(c) for c in nf.space]
    earlier = as_approximation(nf, [before])
    zero = (0,) * len(nf.coords)

    def last_instant(labels: Tensor) -> Tensor:  # shapes: (q, k) -> (q, m)
        points = labels.new_full((len(labels), len(nf.coords)), span[0])
        points[:, columns] = labels
        values = earlier.derivatives(
            points.to(env.device), [(i, zero) for i in range(len(nf.fields))]
        )
        return torch.stack(values, 1).detach().cpu()

    projected = ProjectedField.fit(
        last_instant,
        columns,
        [nf.bounds[c][0] for c in nf.space],
        [nf.bounds[c][1] for c in nf.space],
        [True] * len(columns),
        tol=HANDOVER_TOL,
        max_modes={1: 1025, 2: 129}.get(len(columns), 33),
    )
    logger.info("labels at t = %g handed over with relative error %.1e", span[0], projected.error)
    return HardForm(projected.to(dtype=env.dtype), factor)


def _turns(form: LabelForm) -> int:
    """Windows to start with: one per axis length travelled, if coefficients vary along the axis.

    In the moving frame such a coefficient oscillates once per axis length; a network learns one
    oscillation in seconds and eight with difficulty.
    """
    source = form.source
    transport = find_transport(source)
    assert isinstance(transport, Transport)
    frozen = freeze([*transport.velocity, *transport.rest.values()])
    if not any(e.free_symbols & set(source.space) for e in frozen.exprs):
        return 1
    return max(1, math.ceil(measure_convection(source, transport).travelled))


def _soft_fields(form: LabelForm) -> frozenset[sp.Expr]:
    """States whose initial data have kinks at the seam: an exact form would keep them for all time."""
    return (
        frozenset(u for u in form.nf.fields if u not in form.speeds)
        if form.nf.corners
        else frozenset()
    )


def _silence(network: nn.Module) -> None:
    """N = 0 at first: the map starts as the identity, so that it can be inverted from the first step on."""
    for module in network.modules():
        if isinstance(module, MLP) and isinstance(module.layers[-1], nn.Linear):
            with torch.no_grad():
                for p in module.layers[-1].parameters():
                    p.zero_()


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
