"""Which method discretises which problem, and what is refused.

In    a NormalForm.
Out   None or the reason for a refusal; a ladder of the method.
Next  `refine` climbs it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import sympy as sp

from pinnkit.classical.conditions import jump_positions, partial_refusal
from pinnkit.classical.conservation_law import law_refusal, split_conservation_law
from pinnkit.classical.constraints import constraint_refusal
from pinnkit.classical.discretise import field_orders
from pinnkit.classical.etdrk4 import SpectralLadder
from pinnkit.classical.explicit import ExplicitLadder, explicit_rates
from pinnkit.classical.expressions import find_leaves
from pinnkit.classical.features import find_breaks
from pinnkit.classical.grid_approximation import GridApproximation
from pinnkit.classical.implicit import IntegrationError
from pinnkit.classical.ladders import DifferenceLadder, ElementLadder, Ladder, drop_counts
from pinnkit.classical.linearly_implicit import PeriodicDifferenceLadder
from pinnkit.classical.semilinear import split_semilinear
from pinnkit.classical.shock_ladder import MUSCL_HEUN, ShockLadder
from pinnkit.classical.tableaux import lobatto_tableau
from pinnkit.errors import UnsupportedProblemError
from pinnkit.ir.normal_form import NormalForm

__all__ = ["FirstThatWorks", "choose_ladder", "supports"]

log = logging.getLogger(__name__)


def supports(nf: NormalForm) -> str | None:
    """None, or in one sentence why the problem cannot be solved classically here."""
    if nf.neurals:
        names = ", ".join(map(str, nf.neurals))
        return f"MethodOfLines() needs every term written down; {names} is to be learned. Use NeuralODE()."
    if nf.parameters:
        names = ", ".join(map(str, nf.parameters))
        return (
            f"MethodOfLines() solves for fields only; {names} is unknown. Use SpectralMixtureGP()."
        )
    if nf.region is not None:
        return f"MethodOfLines() works on boxes, not on {nf.region}. Use CausalPINN()."
    if len(nf.space) > 2:
        return (
            f"MethodOfLines() handles at most two space coordinates, here {len(nf.space)}. "
            "Use CausalPINN()."
        )
    for u in nf.fields:
        if set(u.args) != set(nf.coords):
            return (
                f"MethodOfLines() needs every field over all coordinates; {u} is not. "
                "Use CausalPINN()."
            )
    if len(nf.equations) != len(nf.fields):
        return (
            f"MethodOfLines() needs as many equations as fields, here {len(nf.equations)} for "
            f"{len(nf.fields)}. Use CausalPINN()."
        )
    try:
        jump_positions(nf)
    except UnsupportedProblemError as error:
        return str(error)
    if _is_quasilinear_first_order(nf):
        return law_refusal(nf)
    try:
        partial = partial_refusal(nf, field_orders(nf)[1])
    except UnsupportedProblemError as error:
        return str(error)
    if partial is not None:
        return partial
    # In one dimension elements try what Fourier modes cannot.
    return constraint_refusal(nf) if len(nf.space) == 2 else None


def choose_ladder(nf: NormalForm, variant: str) -> Ladder:
    """The primary method of a problem, or an independent one."""
    law = split_conservation_law(nf)
    if law is not None:
        # Also where no shock forms: close to breaking elements find no mesh fine enough.
        return ShockLadder(law) if variant == "primary" else ShockLadder(law, MUSCL_HEUN)
    rates = explicit_rates(nf)
    # Uniform nodes and steps cannot follow narrow features; elements can.
    narrow = any(find_breaks(nf).values())
    split = None if narrow else split_semilinear(nf)
    if split is not None and constraint_refusal(nf) is None:
        # In one dimension elements follow kinks and layers; in two Fourier modes are far cheaper.
        if (len(nf.space) == 2) == (variant == "primary"):
            return SpectralLadder(nf, split)
        if len(nf.space) == 2:
            return PeriodicDifferenceLadder(nf, split)
    if variant == "primary":
        elements = ElementLadder(nf)
        return elements if rates is None else FirstThatWorks([ExplicitLadder(nf, *rates), elements])
    if rates is not None:
        return _other_elements(nf)
    if (
        nf.space
        and not narrow
        and not nf.jumps
        and drop_counts(nf) is not None
        and _is_dissipative(nf)
    ):
        return DifferenceLadder(nf, lobatto_tableau(8))
    return _other_elements(nf)


def _other_elements(nf: NormalForm) -> Ladder:
    return ElementLadder(nf, points=5, tableau=lobatto_tableau(8))


class FirstThatWorks:
    """The first ladder whose first level can be solved."""

    def __init__(self, ladders: Sequence[Ladder]) -> None:
        self.ladders = list(ladders)
        self.growth = 2.0

    def climb(self, deadline: float) -> tuple[GridApproximation, dict[str, Any]]:
        while True:
            try:
                result = self.ladders[0].climb(deadline)
            except IntegrationError as error:
                if len(self.ladders) == 1:
                    raise
                log.info("another method, because %s", error)
                del self.ladders[0]
                continue
            del self.ladders[1:]
            self.growth = self.ladders[0].growth
            return result


def _is_dissipative(nf: NormalForm) -> bool:
    """Steady, or each field's rate stands beside its own highest, even space derivative.

    Centred differences with one-sided ends are stable there; on waves and transport they grow
    slowly, and elements must do.
    """
    if nf.time is None:
        return True
    time_orders, space_orders = field_orders(nf)
    time_axis = nf.coords.index(nf.time)
    for i, orders in enumerate(space_orders):
        if time_orders[i] > 1 or any(m % 2 for m in orders):
            return False
        if time_orders[i] == 0:
            continue
        own = [find_leaves(e.residual, nf).values() for e in nf.equations]
        own = [ls for ls in own if any(s.field == i and s.alpha[time_axis] for s in ls)]
        if not any(s.field == i and sum(s.alpha) >= max(orders) > 0 for ls in own for s in ls):
            return False
    return True


def _is_quasilinear_first_order(nf: NormalForm) -> bool:
    """First order in space, with a field in the coefficient of a space derivative."""
    _, space_orders = field_orders(nf)
    if nf.time is None or max((max(o, default=0) for o in space_orders), default=0) != 1:
        return False
    for equation in nf.equations:
        for node in equation.residual.atoms(sp.Derivative):
            counts = nf.multi_index(node)
            spatial = any(k and c != nf.time for c, k in zip(nf.coords, counts, strict=True))
            if spatial and any(sp.diff(equation.residual, node).has(u) for u in nf.fields):
                return True
    return False
