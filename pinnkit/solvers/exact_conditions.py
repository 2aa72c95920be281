"""Conditions the ansatz fulfils by construction: u = A + B N, with A and B known.

In    the normal form, the box of a window, the window before.
Out   `ExactConditions`: the form, which fields have one, and which conditions need no residual.
Next  `windows` builds the ansatz with it and drops the residuals.

A condition that is exact costs no points and competes with no equation; the network learns what the
equations add. Used only where it is true: smooth data that fit together at every corner of the
domain. Elsewhere an exact form would keep a kink for all time.

    initial values    A = u0 + (t - t0) u1 ...,                    B = (t - t0)^order
    two sides         A += (g - A at the sides), linear between,   B *= (x - a) (b - x)

Along one axis that is not periodic, any values; along several, zeros only. The lift must vanish at t0
with its time derivatives below the order: at the sides of a struck string, u_t = 1 beside u = 0, it
does not, and the sides stay soft.
References: lagaris1998artificial.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sympy as sp
import torch

from pinnkit.ir.leaves import leaves
from pinnkit.ir.normal_form import Condition, NormalForm
from pinnkit.ir.smoothness import is_smooth, largest_value
from pinnkit.lower.fields import ExpressionJets, HardForm
from pinnkit.lower.projection import ProjectedField, project_instant

__all__ = ["ExactConditions", "exact_conditions"]

ROUNDING = 1e-13  # of the data: what is left of two values that agree
CORNER = 1e-8  # of the data: smaller mismatches at a corner are rounding in the user's numbers


@dataclass(frozen=True)
class ExactConditions:
    """What `exact_conditions` found.

    `fields` have A and B of their own; the others stand in the form as A = 0, B = 1. `held` need no
    residual. `seam`: the values handed over by the window before are among what is exact.
    """

    form: HardForm
    fields: frozenset[sp.Expr]
    held: tuple[Condition, ...]
    seam: bool

    def holds(self, face: Any, residual: sp.Expr) -> bool:
        """Whether the condition with this residual on this face is fulfilled by construction."""
        return any(c.face == face and c.residual == residual for c in self.held)


def exact_conditions(
    nf: NormalForm,
    bounds: Mapping[sp.Symbol, tuple[float, float]],
    before: Any,  # the Window before, or None
    dtype: torch.dtype,
) -> ExactConditions | None:
    """The form on this window; None where no condition can be exact."""
    if nf.corners or not nf.space or nf.region is not None or nf.parameters:
        return None
    every_start = before is not None and set(nf.space) <= set(nf.periodic)
    offsets, factors, fields, held = [], [], set(), []
    carried: list[tuple[int, int]] = []  # (field, time derivative) that the window before gives
    for index, u in enumerate(nf.fields):
        own = _of_field(nf, u, bounds, carry=every_start) if _everywhere(nf, u) else None
        if own is None:
            offsets.append(sp.S.Zero)
            factors.append(sp.S.One)
            continue
        offset, factor, conditions, orders = own
        offsets.append(offset)
        factors.append(factor)
        fields.add(u)
        held += conditions
        carried += [(index, k) for k in range(orders)]
    if not fields:
        return None
    offset_jets: ExpressionJets | ProjectedField = ExpressionJets(offsets, nf.coords)
    if carried:
        if len(fields) < sum(1 for u in nf.fields if nf.predicates.time_order.get(u, 0)):
            return None  # a seam that is exact for some fields only: leave it soft for all
        offset_jets = _handed_over(nf, bounds, before, carried).to(dtype=dtype)
    form = HardForm(offset_jets, ExpressionJets(factors, nf.coords))
    return ExactConditions(form, frozenset(fields), tuple(held), bool(carried))


def _everywhere(nf: NormalForm, u: sp.Expr) -> bool:
    return set(nf.field_coords(u)) == set(nf.coords)


def _of_field(
    nf: NormalForm, u: sp.Expr, bounds: Mapping[sp.Symbol, tuple[float, float]], *, carry: bool
) -> tuple[sp.Expr, sp.Expr, list[Condition], int] | None:
    """A, B, the conditions they fulfil, and how many time derivatives the seam gives; None: nothing."""
    order = nf.predicates.time_order.get(u, 0) if nf.time is not None else 0
    offset: sp.Expr = sp.S.Zero
    factor: sp.Expr = sp.S.One
    held: list[Condition] = []
    carried = 0
    if order:
        assert nf.time is not None
        start, end = bounds[nf.time]
        given = _initial(nf, u, order)
        if carry and order <= 2:
            carried = order
        elif given is not None and start == nf.bounds[nf.time][0]:
            since = nf.time - sp.Float(start, 17)
            offset = sp.Add(*(c.value * since**k / math.factorial(k) for k, c in enumerate(given)))
            held += given
        else:
            given = None
        if carried or given is not None:
            ramp = (nf.time - sp.Float(start, 17)) / sp.Float(end - start, 17)
            factor = ramp**order
    sides = _sides(nf, u, offset, order if held else 0)
    if sides is not None:
        lift, bubble, conditions = sides
        offset, factor = offset + lift, factor * bubble
        held += conditions
    return (offset, factor, held, carried) if held or carried else None


def _initial(nf: NormalForm, u: sp.Expr, order: int) -> list[Condition] | None:
    """The conditions that give u, u_t, ... below the order, as values; None where one is missing."""
    wanted = [u if k == 0 else sp.Derivative(u, (nf.time, k)) for k in range(order)]
    own = {
        c.target: c
        for c in nf.conditions
        if c.kind == "initial" and c.face.coord == nf.time and _has_values(nf, c)
    }
    found = [own.get(w) for w in wanted]
    return [c for c in found if c is not None] if all(found) else None


def _has_values(nf: NormalForm, condition: Condition) -> bool:
    """Whether it prescribes smooth values on a whole face."""
    value = condition.value
    highest = max(nf.predicates.space_order.values(), default=0)
    return (
        condition.face.where == sp.true
        and value is not None
        and not leaves(value)
        and is_smooth(value, nf.bounds, max(2, highest))
    )


def _sides(
    nf: NormalForm, u: sp.Expr, offset: sp.Expr, order: int
) -> tuple[sp.Expr, sp.Expr, list[Condition]] | None:
    """What A gains and B is multiplied by so that Dirichlet values hold on all sides.

    `order`: derivatives in time, from the value on, that A has already right at the start.
    """
    axes = [c for c in nf.space if c not in nf.periodic]
    if not axes:
        return None
    size = largest_value(offset, nf.bounds)
    lift, bubble, held = sp.S.Zero, sp.S.One, []
    for x in axes:
        pair = [_dirichlet(nf, u, x, side) for side in ("left", "right")]
        if None in pair:
            return None
        a, b = (sp.Float(v, 17) for v in nf.bounds[x])
        gaps = []
        for condition, end in zip(pair, (a, b), strict=True):
            assert condition is not None and condition.value is not None
            gap = condition.value - sp.sympify(offset).subs(x, end)
            # sin(pi * 1.0) is 1e-16 in floats: rounding, not a value that has to be lifted.
            if largest_value(gap, nf.bounds) <= ROUNDING * size:
                gap = sp.S.Zero
            elif len(axes) > 1 or not _begins_at_zero(nf, gap, order, size):
                return None
            gaps.append(gap)
            held.append(condition)
        lift += (gaps[0] * (b - x) + gaps[1] * (x - a)) / (b - a)
        bubble *= 4 * (x - a) * (b - x) / (b - a) ** 2
    return lift, bubble, held


def _begins_at_zero(nf: NormalForm, gap: sp.Expr, order: int, size: float) -> bool:
    """Whether the lift leaves u, u_t, ... at the start as they are."""
    for k in range(order):
        assert nf.time is not None
        low, high = nf.bounds[nf.time]
        first = sp.diff(gap, nf.time, k).subs(nf.time, sp.Float(low, 17))
        scale = max(size, largest_value(gap, nf.bounds)) / (high - low) ** k
        if not largest_value(first, nf.bounds) <= CORNER * scale:
            return False
    return True


def _dirichlet(nf: NormalForm, u: sp.Expr, x: sp.Symbol, side: str) -> Condition | None:
    own = [
        c
        for c in nf.conditions
        if c.kind == "dirichlet"
        and c.target == u
        and c.face.coord == x
        and c.face.side == side
        and _has_values(nf, c)
    ]
    return own[0] if len(own) == 1 else None


def _handed_over(
    nf: NormalForm,
    bounds: Mapping[sp.Symbol, tuple[float, float]],
    before: Any,
    carried: list[tuple[int, int]],
) -> ProjectedField:
    """u0(x) + (t - t0) u1(x) of all fields: Fourier in space, Chebyshev in time."""
    assert nf.time is not None
    axis = nf.coords.index(nf.time)
    wanted = [(i, tuple(k if c == axis else 0 for c in range(len(nf.coords)))) for i, k in carried]
    model = before.collocation.model
    projected = project_instant(model, wanted, nf, bounds, model.centre)
    config = projected.config
    start, end = bounds[nf.time]
    half = 0.5 * (end - start)
    given = projected.coefficients  # (modes..., len(carried))
    degrees = 1 + max(k for _, k in carried)
    made = given.new_zeros(degrees, *given.shape[:-1], len(nf.fields))
    for column, (index, k) in enumerate(carried):
        # (t - t0)^k = half^k (T_1 + T_0)^k, k = 0 or 1
        for degree in range(k + 1):
            made[degree, ..., index] += half**k * given[..., column]
    return ProjectedField(
        [axis, *config["columns"]], [start, *config["lower"]], [end, *config["upper"]],
        [False, *config["periodic"]], made, projected.error,
    )  # fmt: skip
