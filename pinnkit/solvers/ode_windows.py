"""Windows of initial value problems: ordinary differential equations solved to near rounding.

In    the normal form of a system in time alone, where a window starts and ends, the window before.
Out   `open_window`: exact initial values, fixed features, fixed points; `WindowLength`,
      which says when a window is solved and how long the next one is.
Next  `causal_pinn` trains it.

Errors of a chaotic system grow like exp(t), so every window must be right to twelve digits. What
gets there is a network that is linear in what is trained: u = u(t0) + (t - t0)^k N with k the order
in time and N a tanh network whose hidden layer stays as it is, only the last one being trained.
Newton's method then meets no nonlinearity but the equations' own and converges quadratically, in
about ten steps; a trained hidden layer is still between 3e-4 and 3e-7 after thirty (windows of Lorenz),
because small damping throws it out of the range where it is linear.
References: dong2021locelm (local extreme learning machines).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sympy as sp
import torch
from torch import Tensor

from pinnkit.ir.leaves import leaves
from pinnkit.ir.normal_form import NormalForm
from pinnkit.lower.fields import ExpressionJets, FieldModel, HardForm, make_field_model
from pinnkit.lower.residuals import compile_residuals, group_terms
from pinnkit.lower.scales import FieldScale, estimate_field_scales
from pinnkit.nn import MLP
from pinnkit.solvers.base import Env
from pinnkit.solvers.collocation import Batch, Collocation, Part
from pinnkit.solvers.windows import Window
from pinnkit.train.gauss_newton import GaussNewton
from pinnkit.train.parameters import flat_parameters

__all__ = [
    "MOST_OF_REST",
    "OPTIMISER",
    "InitialValueWindow",
    "WindowLength",
    "applies",
    "fixed_batch",
    "initial_values",
    "open_window",
    "usual_target",
]

# Fixed points leave no noise that damping or momentum would have to even out.
OPTIMISER = GaussNewton(space="rows", momentum=0.0, less=10.0)
TARGET = 1e-12
MOST_OF_REST = 0.2  # of the seconds left, for one window

WIDTH = 40  # features: on half a time unit of Lorenz a residual of 1e-14 is left
SLOPE = 0.04  # mean slope per feature: fewer features have to be flatter; window scaled to [-1, 1]
REACH = 1.1  # centres of the features lie in [-REACH, REACH]
OVERSAMPLING = 2  # points per feature
RESCALE = 2.0  # growth of a field over its scale that is worth compiling the residuals again

STUCK = 6  # readings in which the loss does not halve: the window is too long
MOST_STEPS = 40  # of a window that may still be halved
LONGER = ((5, 3.0), (15, 1.5))  # (steps a window took at most, length of the next over its own)
HOLD = 4  # windows after a failed one that do not try to be longer
SAME = 0.1  # loss of a halved window over that of the whole: no better, so rounding is the limit
SHORTEST = 2.0**-20  # of the time span


@dataclass
class InitialValueWindow(Window):
    """A window and the sizes its fields are scaled by."""

    scales: Mapping[sp.Expr, FieldScale] = dataclasses.field(default_factory=dict)


def initial_values(nf: NormalForm) -> dict[tuple[sp.Expr, int], float] | None:
    """u and its derivatives below the order at the start; None where that is not all there is given."""
    if nf.time is None or nf.space or not nf.predicates.evolution:
        return None
    if nf.integrals or nf.observations or nf.periodic:
        return None
    found: dict[tuple[sp.Expr, int], float] = {}
    for condition in nf.conditions:
        target, value = condition.target, condition.value
        if condition.kind != "initial" or target is None or value is None or leaves(value):
            return None
        u: Any = target.expr if isinstance(target, sp.Derivative) else target
        found[u, sum(nf.multi_index(target))] = float(value)  # no coordinate is left on the face
    wanted = {(u, k) for u in nf.fields for k in range(nf.predicates.time_order.get(u, 0))}
    return found if set(found) == wanted else None


def applies(nf: NormalForm, solver: Any) -> bool:
    """Whether the defaults of `solver` stand and `nf` is a problem of initial values."""
    default = solver.network is None and solver.width is None and solver.depth is None
    return default and solver.optimiser == GaussNewton() and initial_values(nf) is not None


def usual_target(dtype: torch.dtype) -> float:
    """Residual of a solved window: 1e-12, or what the numbers can hold."""
    return max(TARGET, 30.0 * torch.finfo(dtype).eps)


def open_window(
    nf: NormalForm, solver: Any, env: Env, start: float, end: float, before: Window | None
) -> InitialValueWindow:
    """The ansatz and the equations on [start, end] (shares of the time span).

    Nothing is drawn: the features are spread evenly, so a resumed run finds the same.

    Args:
        solver: Gives the weights of a `Collocation`.
        before: The window whose last instant is the start; None at the beginning.
    """
    assert nf.time is not None
    low, high = nf.bounds[nf.time]
    begin, length = low + start * (high - low), (end - start) * (high - low)
    if before is None:
        given, scales = initial_values(nf), _plain(estimate_field_scales(nf))
        assert given is not None
    else:
        assert isinstance(before, InitialValueWindow)
        given, scales = _last_values(nf, before, begin), _grown(nf, before)
    orders = [nf.predicates.time_order.get(u, 0) for u in nf.fields]
    since = nf.time - sp.Float(begin)  # not divided by the length: sympy would multiply out
    known = [
        sp.Add(*(sp.Float(given[u, k]) * since**k / math.factorial(k) for k in range(order)))
        for u, order in zip(nf.fields, orders, strict=True)
    ]
    bounds = {nf.time: (begin, begin + length)}
    model = make_field_model(
        nf,
        functools.partial(_features, width=WIDTH, dtype=env.dtype),
        scales={
            u: FieldScale(scales[u].scale / length**order)
            for u, order in zip(nf.fields, orders, strict=True)
        },
        hard=HardForm(
            ExpressionJets(known, nf.coords),
            ExpressionJets([since**order for order in orders], nf.coords),
        ),
        bounds=bounds,
        dtype=env.dtype,
    ).to(env.device)
    if before is not None and scales == before.scales:
        groups = before.collocation.groups
    else:
        groups = [g for g in group_terms(compile_residuals(nf, scales)) if g.kind == "interior"]
    collocation = Collocation(
        nf, groups, model,
        bounds=bounds, condition_weight=solver.condition_weight, face_density=solver.face_density,
        ranks=env.ranks,
    )  # fmt: skip
    return InitialValueWindow(start, end, collocation, flat_parameters(collocation.params), scales)


def fixed_batch(window: Window, points: int | None) -> Batch:
    """Chebyshev points of the window, the same for all of its steps."""
    owner = window.collocation
    assert owner.nf.time is not None
    low, high = owner.bounds[owner.nf.time]
    # Columns of the last layer and its bias, one each per field.
    n = points or OVERSAMPLING * max(4, owner.size // len(owner.nf.fields))
    angles = math.pi * (torch.arange(n, dtype=torch.float64) + 0.5) / n
    column = (0.5 * (low + high) - 0.5 * (high - low) * torch.cos(angles)).to(owner.params[0])
    owner.last_drawn = n
    weights = column.new_full((n, owner.equations), 1.0 / n)
    return Batch(
        owner, [Part(index, column[:, None], weights) for index in range(len(owner.groups))]
    )


class WindowLength:
    """When a window is solved, when it is too long, and how long the next one is.

    Losses here are squared. A window that gets stuck above the target is halved; one that was easy
    lets the next be longer. Where halving does not help, rounding is the limit: what was reached
    is then good enough for this window and the later ones.

    Args:
        target: Squared held-out residual of a solved window.
        dtype: Of the numbers; residuals above the root of their rounding are never blamed on it.
    """

    def __init__(self, target: float, dtype: torch.dtype) -> None:
        self.enough, self.eps = target, torch.finfo(dtype).eps
        self.failed = math.inf  # loss of the longer window that was given up at the same start
        self.mark, self.idle, self.hold, self.unsolved = math.inf, 0, 0, 0

    def judge(self, loss: float, steps: int, share: float) -> str:
        """ "train" on, "close" the window, "halve" it, or "stop" for good.

        Args:
            loss: The best held-out loss of this window.
            steps: Taken in it.
            share: Of the time span, its length.
        """
        if steps == 0:
            self.mark, self.idle = math.inf, 0
        if loss <= self.enough:
            self.unsolved = 0
            return "close"
        if loss < 0.5 * self.mark:
            self.mark, self.idle = loss, 0
        else:
            self.idle += 1
        if self.idle < STUCK and steps < MOST_STEPS:
            return "train"
        if loss < self.eps and loss > SAME * self.failed:
            self.enough = 10.0 * loss
            return "close"
        if share > SHORTEST:
            self.failed, self.hold = loss, HOLD
            return "halve"
        # A jump in the data makes one such window, and little of it is wrong; a singularity many.
        self.unsolved += 1
        return "close" if self.unsolved == 1 and loss < 1.0 else "stop"

    def following(self, share: float, steps: int) -> float:
        """The length of the next window, as a share of the time span."""
        self.failed = math.inf
        if self.hold:
            self.hold -= 1
            return share
        return share * next((factor for most, factor in LONGER if steps <= most), 1.0)

    def state_dict(self) -> dict[str, float]:
        """For the checkpoint."""
        return {name: getattr(self, name) for name in _NUMBERS}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Put back what `state_dict` gave."""
        for name in _NUMBERS:
            setattr(self, name, state[name])


_NUMBERS = ("enough", "failed", "mark", "idle", "hold", "unsolved")


def _features(inputs: int, outputs: int, *, width: int, dtype: torch.dtype) -> MLP:
    """A tanh network that starts at zero and of which only the last layer is trained."""
    network = MLP(
        inputs, outputs, width, 1, generator=torch.Generator().manual_seed(0), dtype=dtype
    )
    first, last = network.layers[0], network.layers[-1]
    assert isinstance(first, torch.nn.Linear) and isinstance(last, torch.nn.Linear)
    golden = 0.5 * (math.sqrt(5.0) - 1.0)
    with torch.no_grad():
        # Glorot's numbers are nearly linear on [-1, 1] and all centred at 0: rank three.
        counts = torch.arange(1, width + 1, dtype=torch.float64)
        slopes = SLOPE * width * (0.5 + torch.frac(golden * counts))
        centres = torch.linspace(-REACH, REACH, width, dtype=torch.float64)
        first.weight.copy_(slopes[:, None])
        first.bias.copy_(-slopes * centres)
        last.weight.zero_()
        last.bias.zero_()
    network.requires_grad_(False)
    last.requires_grad_(True)
    return network


def _plain(scales: Mapping[sp.Expr, FieldScale]) -> dict[sp.Expr, FieldScale]:
    """Without offsets: the initial value is subtracted already."""
    return {u: FieldScale(max(s.scale, abs(s.offset))) for u, s in scales.items()}


def _last_values(
    nf: NormalForm, before: Window, instant: float
) -> dict[tuple[sp.Expr, int], float]:
    wanted = [
        (i, (k,))
        for i, u in enumerate(nf.fields)
        for k in range(nf.predicates.time_order.get(u, 0))
    ]
    model = before.collocation.model
    values = model.derivatives(model.centre.new_full((1, 1), instant), wanted)
    return {
        (nf.fields[i], alpha[0]): float(v.detach()[0])
        for (i, alpha), v in zip(wanted, values, strict=True)
    }


def _grown(nf: NormalForm, before: InitialValueWindow) -> Mapping[sp.Expr, FieldScale]:
    """The scales so far, larger where a field has outgrown its own.

    Initial data may say little of a field: Lorenz' start at 1 and reach 40.
    """
    sizes = _largest(before.collocation)
    grown = {
        u: FieldScale(size)
        if RESCALE * before.scales[u].scale < size < math.inf
        else before.scales[u]
        for u, size in zip(nf.fields, sizes, strict=True)
    }
    return grown


def _largest(owner: Collocation) -> list[float]:
    """Largest absolute value of every field on the window."""
    assert owner.nf.time is not None
    model: FieldModel = owner.model
    low, high = owner.bounds[owner.nf.time]
    at = torch.linspace(low, high, 65, dtype=torch.float64)[:, None].to(model.centre)
    with torch.no_grad():
        values: Tensor = model(at)
    return values.abs().amax(0).tolist()
