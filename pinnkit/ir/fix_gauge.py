"""Pass 7: fields whose level nothing fixes get a gauge.

In    equations, placed conditions.
Out   `IntegralCondition`s with gauge=True, and a notice in the log.
Next  solvers impose the mean; comparisons are made modulo the null space.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import sympy as sp

from pinnkit.declare.printing import refusal, show
from pinnkit.ir.collect_symbols import Symbols
from pinnkit.ir.leaves import freeze
from pinnkit.ir.normal_form import Equation, IntegralCondition
from pinnkit.ir.place_conditions import Placed
from pinnkit.ir.sampling import evaluate

__all__ = ["fix_gauge"]

logger = logging.getLogger(__name__)


def fix_gauge(equations: Sequence[Equation], placed: Placed, symbols: Symbols) -> None:
    """Append the missing gauges to `placed.integrals`; refuse gauges of fields that are fixed.

    A combination of levels c is free if every residual stays the same when c is added to the
    fields: the null space of d residual / d (plain fields), sampled at random states.
    """
    fields = placed.split.fields
    asked = [i for i in placed.integrals if i.gauge]
    exprs = [e.residual for e in equations] + [c.residual for c in placed.conditions]
    exprs += [i.integrand for i in placed.integrals if not i.gauge]
    exprs += [o.expr for o in placed.observations]
    free = _free_levels(exprs, fields)
    for gauge in asked:
        column = fields.index(gauge.integrand)
        if not free.size or np.abs(free[:, column]).max() < 1e-9:
            raise refusal(
                gauge.label,
                f"the level of {show(gauge.integrand)} is already fixed by the equations and "
                "conditions",
                "drop the Gauge",
            )
        free = _without(free, column)
    while free.size:
        column = int(np.argmax(np.abs(free).max(axis=0)))
        u = fields[column]
        over: tuple[Any, ...] = tuple(c for c in u.args if c != symbols.time)
        if not over:  # a field of time alone: its level is a matter of initial values
            free = _without(free, column)
            continue
        logger.info(
            "nothing fixes the level of %s, which enters only through derivatives: its mean is "
            "set to 0; write Gauge(%s, mean=...) to choose another",
            show(u),
            show(u),
        )
        placed.integrals.append(
            IntegralCondition(u, over, sp.S.Zero, f"Gauge({show(u)}, mean=0)", gauge=True)
        )
        free = _without(free, column)


def _free_levels(exprs: Sequence[sp.Expr], fields: Sequence[sp.Expr]) -> np.ndarray:
    """Rows span the shifts that change nothing; shape (k, m)."""
    frozen = freeze(exprs, extra=fields)
    slopes = [[sp.diff(e, frozen.symbols[u]) for u in fields] for e in frozen.exprs]
    present = [any(s != 0 for s in (row[j] for row in slopes)) for j in range(len(fields))]
    if all(present) and len(fields) == 1:
        return np.zeros((0, 1))
    gen = np.random.default_rng(2)
    others = sorted(
        set().union(*(s.free_symbols for row in slopes for s in row)), key=lambda s: str(s)
    )
    values = {s: gen.uniform(0.4, 0.9, 5) for s in others}
    rows = []
    for row in slopes:
        block = np.stack([np.real(evaluate(s, values)) * np.ones(5) for s in row], axis=1)
        rows.append(np.nan_to_num(block, nan=1.0, posinf=1.0, neginf=1.0))
    matrix = np.concatenate(rows)
    size = np.abs(matrix).max(axis=1, keepdims=True)
    matrix = matrix / np.where(size > 0, size, 1.0)
    _, values_, vectors = np.linalg.svd(matrix)
    rank = int((values_ > 1e-9 * max(1.0, values_.max(initial=0.0))).sum())
    return vectors[rank:]


def _without(free: np.ndarray, column: int) -> np.ndarray:
    """The free shifts left once the level of one field is fixed."""
    pivot = int(np.argmax(np.abs(free[:, column])))
    rest = free - np.outer(free[:, column] / free[pivot, column], free[pivot])
    rest = np.delete(rest, pivot, axis=0)
    return rest[np.abs(rest).max(axis=1) > 1e-9] if rest.size else rest
