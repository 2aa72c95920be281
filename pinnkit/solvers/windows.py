"""Time windows of a network solver: the ansatz and residuals on a part of the time span.

In    the normal form, where the window starts and ends, the window before.
Out   `Window`: its collocation, its parameters, what it hands over to the next.
Next  `causal_pinn` trains it.

A window hands over a Fourier/Chebyshev projection of its last instant with a measured error, not
itself: networks nested in networks would make every later window slower than the one before.
"""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy as sp
import torch
from torch import Tensor

from pinnkit.ir.corner_layers import corner_layers
from pinnkit.ir.normal_form import Face, NormalForm
from pinnkit.ir.sampling import evaluate
from pinnkit.lower.fields import ExpressionJets, HardForm, make_field_model
from pinnkit.lower.integrals import IntegralTerm
from pinnkit.lower.network_approximation import NetworkApproximation, WindowedApproximation
from pinnkit.lower.projection import project_instant
from pinnkit.lower.residuals import compile_residuals, group_terms
from pinnkit.lower.scales import FieldScale, estimate_field_scales
from pinnkit.nn import MLP, zero_output
from pinnkit.solvers.base import Env
from pinnkit.solvers.collocation import Collocation, Group, Seam
from pinnkit.solvers.exact_conditions import ExactConditions, exact_conditions
from pinnkit.train.parameters import flat_parameters, load_parameters

__all__ = ["Window", "as_approximation", "network_size", "open_window"]

logger = logging.getLogger(__name__)

SHORT = 0.25  # share of the time span below which a window is short
# Features that differ from the start: first layer twice as steep, biases in [-1, 1].
GAIN, SPREAD = 2.0, 1.0
WAVES, COUNTS = 3, 0.1  # Fourier harmonics; a wave counts from this share of the largest on


@dataclass
class Window:
    """One window: [start, end] as shares of the time span, trained parameters `theta` (P,)."""

    start: float
    end: float
    collocation: Collocation
    theta: Tensor

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds; the rest is rebuilt from the problem."""
        return {"start": self.start, "end": self.end, "theta": self.theta}


def network_size(nf: NormalForm, share: float = 1.0) -> tuple[int, int]:
    """(width, depth) of the default tanh network, by the number of coordinates and fields.

    Second-order steps cost N P^2, so the smallest network that is accurate enough is the fastest.
    On a short window (`share` of the time span) the solution changes little: shallow and wide wins.
    """
    d = len(nf.coords)
    if d == 1:
        return 20 + 5 * min(4, len(nf.fields) - 1), 2
    if not nf.predicates.evolution or (d == 2 and nf.predicates.linear):
        return (20, 3) if d <= 2 else (32, 3)
    if d == 2 and share <= SHORT:
        return 40, 2
    return (25, 4) if d == 2 else (36, 3)


def _harmonics(nf: NormalForm, instant: float, before: Window | None) -> int:
    """Fourier harmonics of the periodic axis: `WAVES` where a window starts from more waves than one.

    One in more than one space dimension, for linear problems (whose waves do not make others), and
    where the start is not known.
    """
    evolves = nf.predicates.evolution and not nf.predicates.linear
    if not evolves or len(nf.space) != 1 or nf.space[0] not in nf.periodic:
        return 1
    assert nf.time is not None
    (x,) = nf.space
    low, high = nf.bounds[x]
    places = low + (high - low) * np.arange(64) / 64
    if before is not None:
        axis = nf.coords.index(nf.time)
        columns = [np.full(64, instant) if i == axis else places for i in range(2)]
        model = before.collocation.model
        points = torch.tensor(np.stack(columns, 1)).to(model.centre)
        wanted = [(i, (0, 0)) for i, u in enumerate(nf.fields) if nf.predicates.time_order.get(u)]
        starts = [v.detach().cpu().numpy() for v in model.derivatives(points, wanted)]
    else:
        data = [c.value for c in nf.conditions if c.kind == "initial" and c.target in nf.fields]
        starts = [np.real(evaluate(v, {x: places})) for v in data if v is not None]
    most = 1
    for values in starts:
        sizes = np.abs(np.fft.rfft(values))[1:]
        if np.isfinite(sizes).all() and sizes.max() > 0:
            most = max(most, int(np.flatnonzero(sizes > COUNTS * sizes.max()).max()) + 1)
    return WAVES if most > 1 else 1  # no counts between: each change begins with a new network


def open_window(
    nf: NormalForm,
    solver: Any,
    env: Env,
    start: float,
    end: float,
    before: Window | None,
    *,
    fresh: bool = True,
) -> Window:
    """The ansatz and the residual groups on [start, end] (shares of the time span).

    Args:
        solver: Gives `network`, `width`, `depth`, `harmonics`, `exact`, `condition_weight`.
        before: The window that hands over its last instant; None at the beginning.
        fresh: Draw the initial parameters from `env.generator`; else from a throwaway one, because
            trained parameters follow (a resumed run must not draw twice).
    """
    generator = env.generator if fresh else torch.Generator().manual_seed(0)
    bounds = dict(nf.bounds)
    if nf.time is not None:
        low, high = nf.bounds[nf.time]
        bounds[nf.time] = (low + start * (high - low), low + end * (high - low))
    scales = estimate_field_scales(nf)
    exact = exact_conditions(nf, bounds, before, env.dtype) if solver.exact else None
    builder = solver.network
    if builder is None:
        width, depth = network_size(nf, end - start)
        builder = functools.partial(
            MLP, width=solver.width or width, depth=solver.depth or depth, gain=GAIN, spread=SPREAD
        )
    model = make_field_model(
        nf,
        lambda i, o: builder(i, o, generator=generator, dtype=env.dtype),
        scales=_about_known(scales, exact),
        harmonics=solver.harmonics
        or _harmonics(nf, bounds[nf.time][0] if nf.time else 0.0, before),
        hard=_known_part(nf) if exact is None else exact.form,
        bounds=bounds,
        dtype=env.dtype,
    ).to(env.device)
    terms = compile_residuals(nf, scales)
    if exact is not None:
        zero_output(model.network)  # the ansatz starts as its known part
        terms = [
            t for t in terms if isinstance(t, IntegralTerm) or not exact.holds(t.face, t.residual)
        ]
    groups: list[Group] = list(group_terms(terms))
    if before is not None:
        groups = [g for g in groups if g.kind != "initial"]
        if exact is None or not exact.seam:
            groups.append(_seam(nf, before, bounds, scales))
    collocation = Collocation(
        nf, groups, model,
        bounds=bounds, condition_weight=solver.condition_weight, face_density=solver.face_density,
        ranks=env.ranks,
    )  # fmt: skip
    return Window(start, end, collocation, flat_parameters(collocation.params))


def _about_known(
    scales: Mapping[sp.Expr, FieldScale], exact: ExactConditions | None
) -> dict[sp.Expr, FieldScale]:
    """Where A is known the network is what is missing from it: no offset."""
    known = frozenset() if exact is None else exact.fields
    return {u: FieldScale(s.scale, 0.0) if u in known else s for u, s in scales.items()}


def _known_part(nf: NormalForm) -> HardForm | None:
    """Corner layers, so that the network has only smooth functions to learn."""
    layers = corner_layers(nf)
    if not layers:
        return None
    logger.info("corner layers in closed form for %s", ", ".join(str(u) for u in layers))
    return HardForm(ExpressionJets([layers.get(u, sp.Integer(0)) for u in nf.fields], nf.coords))


def as_approximation(
    nf: NormalForm, windows: Sequence[Window]
) -> NetworkApproximation | WindowedApproximation:
    """The trained windows as the fields of the whole problem (the last one goes on beyond its end)."""
    models = []
    for window in windows:
        model = copy.deepcopy(window.collocation.model)
        load_parameters([p for p in model.parameters() if p.requires_grad], window.theta)
        models.append(model)
    if len(models) == 1:
        return NetworkApproximation(models[0])
    assert nf.time is not None
    low, high = nf.bounds[nf.time]
    breaks = [low + w.start * (high - low) for w in windows] + [high]
    return WindowedApproximation(breaks, models, nf.coords.index(nf.time))


def _seam(nf: NormalForm, before: Window, bounds: Any, scales: Any) -> Seam:
    """Values and time derivatives below the order, projected from the window before."""
    assert nf.time is not None
    axis = nf.coords.index(nf.time)
    instant, half = bounds[nf.time][0], 0.5 * (bounds[nf.time][1] - bounds[nf.time][0])
    wanted, sizes = [], []
    for index, u in enumerate(nf.fields):
        for k in range(nf.predicates.time_order.get(u, 0)):
            alpha = tuple(k if i == axis else 0 for i in range(len(nf.coords)))
            wanted.append((index, alpha))
            sizes.append(scales[u].scale / half**k)
    face = Face(nf.time, "left", instant)
    model = before.collocation.model
    if not nf.space:
        at = torch.full((1, 1), instant).to(model.centre)
        constants = [v.detach() for v in model.derivatives(at, wanted)]
        return Seam(
            face, tuple(wanted), tuple(sizes),
            lambda points: [c.to(points).expand(len(points)) for c in constants],
        )  # fmt: skip
    projected = project_instant(model, wanted, nf, bounds, model.centre).to(model.centre)
    return Seam(face, tuple(wanted), tuple(sizes), lambda points: list(projected(points).unbind(1)))
