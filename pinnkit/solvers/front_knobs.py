"""Knobs for families whose solutions may form fronts, from the declaration alone.

In    a family in one space dimension, a solver that leaves its resolution open.
Out   the solver with stages, experts, times and nodes for the family, and in words why.
Next  `family_learning` learns with it.

Where something is carried along faster than it diffuses, a start of long waves may steepen into fronts no wider
than D / |a|, and a least-squares iteration over all of time starts too far from the answer. How fast, the
slopes of the equation say at A, the form without learned functions (`lower.family_form`):

    Pe = max |dF/du_x| (b - a) / |dF/du_xx| over the draws that are looked at and over the grid.

Below `FRONTS` nothing is changed. Above it a short ladder of ever finer knobs is climbed: on each rung a few
draws are solved with a basis that has not been trained, until the largest misfit |P F(u)| is at most `ENOUGH`.
In the defect norm the misfit is about the relative error, so that no solution needs to be known. The draws and
the weights are always the same, and so is the choice.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from pinnkit.declare.family import PDEFamily
from pinnkit.ir.leaves import steps_of
from pinnkit.solvers.hard_constraint_model import LOOK_SEED, SHORT, Discretisation

if TYPE_CHECKING:
    from pinnkit.solvers.hard_constraint_moe import HardConstraintMoE

__all__ = ["settle_fronts"]

FRONTS = 10.0  # Pe above which fronts are looked for
ENOUGH = 2e-3  # of the largest misfit
DRAWS = 4  # that are solved on every rung
LADDER: tuple[Mapping[str, int], ...] = (
    {},
    {"stages": 4, "experts": 6, "times": 12, "nodes": 65},
    {"stages": 8, "experts": 12, "times": 10, "nodes": 97},
    {"stages": 8, "experts": 18, "times": 10, "nodes": 145},
)
# A march is S problems for each draw, and its basis is nearly as good before it is trained.
TRAINING: Mapping[str, int] = {"draws": 2, "renew": 12, "steps": 12}

log = logging.getLogger(__name__)


def settle_fronts(
    solver: HardConstraintMoE,
    family: PDEFamily,
    *,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
) -> tuple[HardConstraintMoE, str]:
    """The solver with knobs for the fronts of a family, and why; itself and "" where there is no question.

    There is none where the solver has a value for any of the knobs of the ladder, no constraint, the pointwise
    norm or disjoint boxes; where nothing is carried along; and where layers leave the corners, which are
    not marched through.
    """
    asked = any(getattr(solver, name) is not None for name in LADDER[-1])
    plain = not solver.constraint or solver.norm == "pointwise" or solver.overlap == 0
    if asked or plain or not _carries(family):
        return solver, ""
    usual = Discretisation(family, solver, dtype=dtype, device=device)
    number = _peclet(usual)
    if usual.form.layered or number <= FRONTS:
        return solver, ""
    tried: list[tuple[float, Mapping[str, int]]] = []
    for rung in LADDER:
        parts = usual
        if rung:
            parts = Discretisation(family, replace(solver, **rung), dtype=dtype, device=device)
        tried.append((_largest_misfit(parts), rung))
        if tried[-1][0] <= ENOUGH:
            break
    _, best = min(tried, key=lambda t: t[0])
    steps = ", ".join(f"{misfit:.1e} with {_said(rung)}" for misfit, rung in tried)
    reason = (
        f"Peclet number {number:.1e} at the start: fronts may form; the largest misfit of {DRAWS} draws is"
        f" {steps}; chosen: {_said(best)}"
    )
    log.info(reason)
    if not best:
        return solver, reason
    training = {n: v for n, v in TRAINING.items() if getattr(solver, n) is None}
    return replace(solver, **best, **training), reason


def _carries(family: PDEFamily) -> bool:
    """Whether an equation has a first derivative in space."""
    x = family.normal_form.space[0]
    return any(tuple(steps_of(d)) == ((x, 1),) for d in family.normal_form.derivatives())


def _peclet(parts: Discretisation) -> float:
    members = parts.members(_draws(parts.family))
    slopes = parts.residual.slopes(members.inputs, members.offset).abs()
    numbers = [0.0]
    for carried, (field, in_time, in_space) in enumerate(parts.orders):
        if (in_time, in_space) != (0, 1):
            continue
        speed = slopes[..., carried]
        diffused = (field, 0, 2)
        width = torch.zeros_like(speed)
        if diffused in parts.orders:
            width = slopes[..., parts.orders.index(diffused)]
        ratio = torch.where(speed > 0, speed / width, 0)
        numbers.append(float(ratio.max()) * parts.grid.length)
    return max(numbers)


def _largest_misfit(parts: Discretisation) -> float:
    """Of the draws, with the weights of seed 0."""
    network = parts.network(torch.Generator().manual_seed(0)).to(parts.points.device)
    with torch.no_grad():
        leaves = parts.leaves(parts.basis(network))
        _, found = parts.marched(leaves, parts.members(_draws(parts.family)), max_steps=SHORT)
    largest = max(float(f.misfit.max()) for f in found)
    return largest if math.isfinite(largest) else math.inf


def _draws(family: PDEFamily) -> list[dict[Any, Any]]:
    return [family.read_sample(s) for s in family.sample(DRAWS, LOOK_SEED)]


def _said(rung: Mapping[str, int]) -> str:
    return ", ".join(f"{n}={v}" for n, v in rung.items()) or "the usual knobs"
