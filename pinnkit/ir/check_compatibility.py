"""Check of sources where the level of a field is free: what flows in must be used up.

In    equations, placed conditions with their gauges.
Out   nothing, or a refusal naming the imbalance.
Next  `ir.find_corners`.

Integrating c u_xx + f = 0 over the domain leaves the outward fluxes and the source: with periodic or
Neumann sides only they must cancel, or no solution exists.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import sympy as sp

from pinnkit.declare.printing import refusal, show, show_number
from pinnkit.declare.symbols import Parameter
from pinnkit.ir.classify import is_affine, linear_coefficients
from pinnkit.ir.collect_symbols import Symbols
from pinnkit.ir.leaves import freeze, leaves, steps_of
from pinnkit.ir.normal_form import Equation
from pinnkit.ir.place_conditions import Placed
from pinnkit.ir.sampling import evaluate

__all__ = ["check_compatibility"]

_NODES = 24
_BALANCE = 1e-3  # relative: quadrature of a source that jumps is no better


def check_compatibility(equations: Sequence[Equation], placed: Placed, symbols: Symbols) -> None:
    """Steady, linear, one field, constant coefficients, at most three axes; others pass."""
    gauged = [i for i in placed.integrals if i.gauge]
    if len(equations) != 1 or not gauged or symbols.time is not None or len(symbols.coords) > 3:
        return
    if symbols.region is not None or len(placed.split.fields) != 1:
        return
    residual = equations[0].residual
    coefficients = linear_coefficients(residual)
    conditions = placed.conditions
    second = {steps_of(lf)[0][0]: c for lf, c in coefficients.items() if _is_second(lf)}
    other = [lf for lf in leaves(residual) if not _is_second(lf)]
    simple = not other and is_affine(residual) and not any(c.free_symbols for c in second.values())
    if not simple or any(c.kind != "neumann" or c.face.where != sp.true for c in conditions):
        return
    zero = dict.fromkeys(leaves(residual), sp.S.Zero)
    source: Any = residual.xreplace(zero)
    total, size = _integrate(source, symbols.coords, symbols)
    for c in conditions:
        # residual = dn(u) - g, so that the flux through the face is c_axis times g.
        flux = -_at_zero(c.residual) * second[c.face.coord]
        others = tuple(x for x in symbols.coords if x != c.face.coord)
        part, part_size = _integrate(flux, others, symbols)
        total, size = total + part, size + part_size
    if abs(total) > _BALANCE * size:
        raise refusal(
            f"{equations[0].label}, {show(residual)} = 0",
            f"no solution exists: source and fluxes through the boundary must cancel over the "
            f"domain, but their sum is {show_number(total)}",
            f"subtract {show_number(total / _volume(symbols))} from the left side, or correct a "
            "boundary value",
        )


def _at_zero(residual: sp.Expr) -> sp.Expr:
    """The residual with every field and derivative at zero."""
    frozen = freeze([residual])
    values: Mapping[sp.Basic, sp.Basic] = dict.fromkeys(frozen.symbols.values(), sp.S.Zero)
    return frozen.exprs[0].xreplace(dict(values))  # type: ignore[return-value]


def _is_second(leaf: sp.Expr) -> bool:
    steps = steps_of(leaf)
    return len(steps) == 1 and steps[0][1] == 2


def _volume(symbols: Symbols) -> float:
    return float(np.prod([b - a for a, b in symbols.bounds.values()]))


def _integrate(expr: sp.Expr, over: Sequence[sp.Symbol], symbols: Symbols) -> tuple[float, float]:
    """(integral, integral of the absolute value) by Gauss-Legendre quadrature."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    axes = []
    for c in over:
        a, b = symbols.bounds[c]
        axes.append((a + (b - a) * (nodes + 1) / 2, weights * (b - a) / 2))
    product = list(itertools.product(*(range(_NODES) for _ in over)))
    index = np.array(product, dtype=int).reshape(len(product), len(over))
    points = {c: axes[i][0][index[:, i]] for i, c in enumerate(over)}
    weight = np.prod([axes[i][1][index[:, i]] for i in range(len(over))], axis=0)
    guesses = {p: p.guess for p in expr.free_symbols if isinstance(p, Parameter)}
    values = np.real(evaluate(expr, {**points, **guesses})) * weight
    return float(values.sum()), float(np.abs(values).sum())
