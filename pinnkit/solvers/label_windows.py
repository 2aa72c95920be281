"""Time windows in labels: the ansatz and residuals along characteristics on a part of the time span.

In    a label form, where the window starts and ends, the window before.
Out   `LabelWindow`; `as_lagrangian`, the windows read at positions.
Next  `lagrangian_pinn` trains it.

Displacement and state start as X = x0 + A + t N and W = W_start + t N, t = 0 at the start of the
window. A window keeps the labels of the one before, from a projection of its last instant; or it
gives out new ones, and then the displacement starts from zero and the state from a projection of
what was at those positions. Where the velocity is a function of coordinates alone, the displacement
is trained by itself, and the state afterwards on the map that is then known.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import logging
import math
from dataclasses import dataclass
from typing import Any

import sympy as sp
import torch
from torch import nn

from pinnkit.ir.labels import LabelForm
from pinnkit.ir.leaves import derivative_count, field_of, leaves
from pinnkit.ir.smoothness import is_smooth
from pinnkit.lower.fields import ExpressionJets, FieldModel, HardForm, make_field_model
from pinnkit.lower.lagrangian import LagrangianApproximation
from pinnkit.lower.projection import project_instant
from pinnkit.lower.relabelled import Origin, RelabelledApproximation, make_part
from pinnkit.lower.residuals import compile_residuals, group_terms
from pinnkit.lower.scales import FieldScale, estimate_field_scales
from pinnkit.nn import MLP, SideBySide, zero_output
from pinnkit.solvers.base import Env
from pinnkit.solvers.collocation import Collocation
from pinnkit.solvers.windows import GAIN, SPREAD, Window, as_approximation, network_size
from pinnkit.train.parameters import flat_parameters

__all__ = [
    "BOTH",
    "FLOW",
    "STATE",
    "LabelWindow",
    "as_lagrangian",
    "at_rest",
    "at_stage",
    "first_stage",
    "open_label_window",
]

logger = logging.getLogger(__name__)

TERM_DISPLACEMENT = 1e-3  # of the axis: displacement at which terms are sized, where J is still 1
FLOW, STATE, BOTH = "flow", "state", "both"  # what a window trains


@dataclass
class LabelWindow(Window):
    """A window in the labels of `form`.

    `planned` is the end it was trained for; `end` may be earlier, where the map deforms too much.
    `mates` are the windows before it in the same labels, `earlier` the parts in other labels,
    `origin` the way back from the start of these labels. `stage` says what is trained: the flow, the
    states it carries, or both. `soft` fields meet their initial data by a residual only.
    """

    planned: float
    form: LabelForm
    mates: tuple[LabelWindow, ...]
    earlier: RelabelledApproximation | None
    origin: Origin | None
    soft: frozenset[sp.Expr]
    stage: str

    @property
    def model(self) -> FieldModel:
        """The ansatz."""
        return self.collocation.model

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds: all that is trained so far, and which part of it is being trained."""
        return {
            **super().state_dict(),
            "planned": self.planned,
            "since": self.form.span[0],
            "stage": self.stage,
            "model": flat_parameters(list(self.model.parameters())),
        }


def as_lagrangian(
    window: LabelWindow, until: float = math.inf
) -> LagrangianApproximation | RelabelledApproximation:
    """The windows up to this one, read at positions; those that share labels make one part."""
    inner = as_approximation(window.form.nf, [*window.mates, window])
    part = make_part(window.form, inner, window.earlier, until, window.origin)
    if window.earlier is None and part.known is None:
        return part
    return RelabelledApproximation([*(window.earlier.parts if window.earlier else ()), part])


def at_rest(window: LabelWindow) -> LabelWindow:
    """The same window with N = 0: nothing has happened since its start."""
    model = copy.deepcopy(window.model)
    zero_output(model.network)
    theta = flat_parameters([p for p in model.parameters() if p.requires_grad])
    return dataclasses.replace(window, theta=theta)


def first_stage(form: LabelForm) -> str:
    """What is trained first."""
    return FLOW if form.passive and form.speeds and form.trained else BOTH


def open_label_window(
    form: LabelForm,
    engine: Any,
    env: Env,
    start: float,
    end: float,
    before: LabelWindow | None,
    *,
    stage: str,
    fresh: bool = True,
) -> LabelWindow:
    """The ansatz u = u_start + (t - t_start) N and the residual groups on [start, end].

    Args:
        form: Labels of this window: those of `before`, or new ones.
        engine: Gives `network`, `width`, `depth`, `harmonics`, ... as for every network solver.
        start, end: Shares of the time span.
        before: The window whose last instant is the start of this one; None at the beginning.
        stage: What to train first.
        fresh: Draw the initial parameters from `env.generator`; else from a throwaway one.
    """
    nf = form.nf
    assert nf.time is not None
    low, high = nf.bounds[nf.time]
    span = (low + start * (high - low), low + end * (high - low))
    bounds = {**nf.bounds, nf.time: span}
    mates: tuple[LabelWindow, ...] = ()
    earlier, origin = None, None
    if before is not None and form is before.form:
        mates, earlier, origin = (*before.mates, before), before.earlier, before.origin
    elif before is not None:
        found = as_lagrangian(before)
        parts = found.parts if isinstance(found, RelabelledApproximation) else [found]
        earlier = RelabelledApproximation(parts)
        origin = Origin.fit(parts[-1], span[0]) if form.origin else None
        if origin is not None:
            logger.info("new labels at t = %g, way back to relative error %.1e", span[0], origin.field.error)  # fmt: skip
    soft = _soft_fields(form) if before is None else frozenset()
    model = make_field_model(
        nf,
        _builder(form, engine, env, fresh),
        scales=_scales(form, span[1] - span[0], soft),
        harmonics=engine.harmonics or 1,  # seen from a particle everything is smooth
        hard=_hard_form(form, before, earlier, span, soft, env),
        bounds=bounds,
        dtype=env.dtype,
    ).to(env.device)
    if before is not None and _same_shapes(before.model.network, model.network):
        # The same shapes in scaled time: a good first guess, above all where the flow is steady.
        model.network.load_state_dict(before.model.network.state_dict())
    elif not soft:
        zero_output(model.network)  # the identity can be inverted from the first step on
    collocation = Collocation(
        nf, (), model,
        bounds=bounds, condition_weight=engine.condition_weight, face_density=engine.face_density,
    )  # fmt: skip
    window = LabelWindow(
        start, end, collocation, torch.empty(0),
        end, form, mates, earlier, origin, soft, stage,
    )  # fmt: skip
    return at_stage(window, stage)


def at_stage(window: LabelWindow, stage: str) -> LabelWindow:
    """The same window, training what the stage says on the residuals that determine it."""
    form, old = window.form, window.collocation
    parts = [m for m in window.model.modules() if isinstance(m, SideBySide)]
    for parameter in window.model.parameters():
        parameter.requires_grad_(stage == BOTH)
    if stage != BOTH:
        for parameter in parts[0].parts[0 if stage == FLOW else 1].parameters():
            parameter.requires_grad_(True)
    lengths = [form.nf.bounds[c][1] - form.nf.bounds[c][0] for c in form.nf.space]
    known = estimate_field_scales(form.nf)
    sizes = {u: known[u] for u in form.nf.fields}
    sizes |= {s: FieldScale(TERM_DISPLACEMENT * min(lengths)) for s in form.speeds}
    kept: list[Any] = []
    for term in compile_residuals(form.nf, sizes):
        fields = {field_of(lf) for lf in term.leaves}
        if term.kind == "initial" and not fields & window.soft:
            continue
        if stage == BOTH or (fields <= set(form.speeds)) == (stage == FLOW):
            kept.append(term)
    collocation = Collocation(
        form.nf, group_terms(kept), window.model,
        bounds=old.bounds, condition_weight=old.condition_weight, face_density=old.face_density,
    )  # fmt: skip
    theta = flat_parameters(collocation.params)
    return dataclasses.replace(window, collocation=collocation, theta=theta, stage=stage)


def _builder(form: LabelForm, engine: Any, env: Env, fresh: bool) -> Any:
    """(inputs, outputs) -> network; where the flow is trained by itself, two side by side."""
    generator = env.generator if fresh else torch.Generator().manual_seed(0)
    build = engine.network
    if build is None:
        # A displacement alone is a smooth flow of one variable; states bring derivatives of J.
        simple = form.passive or not form.trained
        width, depth = (20, 3) if simple else network_size(form.nf)
        width, depth = engine.width or width, engine.depth or depth
        build = functools.partial(MLP, width=width, depth=depth, gain=GAIN, spread=SPREAD)

    def builder(inputs: int, outputs: int) -> nn.Module:
        counts = [outputs]
        if first_stage(form) == FLOW:
            counts = [len(form.speeds), len(form.trained)]
        nets = [build(inputs, k, generator=generator, dtype=env.dtype) for k in counts]
        return nets[0] if len(nets) == 1 else SideBySide(*nets)

    return builder


def _scales(form: LabelForm, seconds: float, soft: frozenset[sp.Expr]) -> dict[sp.Expr, FieldScale]:
    """Sizes of what the network adds to the start of a window."""
    known = estimate_field_scales(form.nf)
    scales = {s: FieldScale(speed * seconds) for s, speed in form.speeds.items()}
    for u in form.trained:
        # A state carried by a flow that is known changes at the rate of what acts on it.
        change = form.rates[u] * seconds if form.passive else 0.0
        if u in soft:
            scales[u] = FieldScale(known[u].scale, known[u].offset)
        else:
            scales[u] = FieldScale(change if change > 0 else known[u].scale)
    return scales


def _hard_form(
    form: LabelForm,
    before: LabelWindow | None,
    earlier: RelabelledApproximation | None,
    span: tuple[float, float],
    soft: frozenset[sp.Expr],
    env: Env,
) -> HardForm:
    """Value at the start of the window, and a factor that vanishes there (and, for s, at walls)."""
    nf = form.nf
    assert nf.time is not None
    ramp = (nf.time - sp.Float(span[0], 17)) / sp.Float(span[1] - span[0], 17)
    factors = [sp.S.One if u in soft else ramp * _wall_factor(form, u) for u in nf.fields]
    factor = ExpressionJets(factors, nf.coords)
    if before is None:
        values = {c.fields[0]: c.value for c in nf.conditions if c.kind == "initial"}
        start: list[Any] = [sp.S.Zero if u in soft else values[u] for u in nf.fields]
        return HardForm(ExpressionJets(start, nf.coords), factor)
    if before.form is not form and not form.trained:
        return HardForm(ExpressionJets([sp.S.Zero] * len(nf.fields), nf.coords), factor)
    zero = (0,) * len(nf.coords)
    if before.form is form:
        last: Any = as_approximation(nf, [before])
        wanted = [(i, zero) for i in range(len(nf.fields))]
    else:
        last = earlier
        wanted = [(form.source.fields.index(u), zero) for u in form.trained]
    projected = project_instant(
        last, wanted, nf, {**nf.bounds, nf.time: span},
        torch.empty(0, dtype=torch.float64, device=env.device),
        zeros=len(nf.fields) - len(wanted),  # new labels: no displacement yet
    )  # fmt: skip
    return HardForm(projected.to(dtype=env.dtype), factor)


def _wall_factor(form: LabelForm, u: sp.Expr) -> Any:
    """1 inside, 0 at the walls: particles there stay there."""
    factor: Any = sp.S.One
    for face in form.walls.get(u, ()):
        low, high = form.nf.bounds[face.coord]
        inward = face.coord - low if face.side == "left" else high - face.coord
        factor *= 2 * inward / sp.Float(high - low, 17)
    return factor


def _soft_fields(form: LabelForm) -> frozenset[sp.Expr]:
    """States whose initial data have kinks that diffuse: an exact form would keep them for all time.

    Where nothing couples neighbouring particles a kink does stay with its particle.
    """
    nf = form.nf
    own = [lf for e in nf.equations for lf in leaves(e.residual) if field_of(lf) in form.trained]
    if not any(derivative_count(lf, c) for lf in own for c in nf.space):
        return frozenset()
    data = [c.value for c in nf.conditions if c.kind == "initial" and c.fields[0] in form.trained]
    smooth = all(v is None or is_smooth(v, nf.bounds, 2) for v in data)
    return frozenset() if smooth and not nf.corners else frozenset(form.trained)


def _same_shapes(one: nn.Module, other: nn.Module) -> bool:
    return [p.shape for p in one.parameters()] == [p.shape for p in other.parameters()]
