"""Pass 6: facts of the equations that choose methods, derived and never declared.

In    real residuals and conditions.
Out   `Predicates`.
Next  solvers and references choose their discretisation by them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sympy as sp

from pinnkit.declare.operators import Div
from pinnkit.ir.collect_symbols import Symbols
from pinnkit.ir.leaves import derivative_count, field_of, freeze, leaves
from pinnkit.ir.normal_form import Condition, Equation, Predicates

__all__ = ["classify", "is_affine", "linear_coefficients"]


def classify(
    equations: Sequence[Equation],
    conditions: Sequence[Condition],
    integrands: Sequence[sp.Expr],
    fields: Sequence[Any],
    symbols: Symbols,
) -> Predicates:
    """All predicates of a problem."""
    residuals = [e.residual for e in equations]
    everything = leaves(*residuals)
    time_order = {
        u: max(
            (derivative_count(lf, symbols.time) for lf in everything if field_of(lf) == u),
            default=0,
        )
        if symbols.time is not None
        else 0
        for u in fields
    }
    space_order = {
        (u, c): max((derivative_count(lf, c) for lf in everything if field_of(lf) == u), default=0)
        for u in fields
        for c in u.args
        if c != symbols.time
    }
    others = [c.residual for c in conditions] + list(integrands)
    return Predicates(
        linear=not symbols.neurals and all(is_affine(r) for r in residuals + others),
        evolution=any(time_order.values()),
        semilinear=all(_is_semilinear(r, symbols) for r in residuals),
        constant_coefficients=all(
            not c.free_symbols & set(symbols.coords)
            for r in residuals
            for c in linear_coefficients(r).values()
        ),
        flux_form=any(e.conservative.has(Div) for e in equations),
        time_order=time_order,
        space_order=space_order,
    )


def is_affine(residual: sp.Expr) -> bool:
    """Is the expression affine in its fields and derivatives jointly?"""
    frozen = freeze([residual])
    symbols = set(frozen.symbols.values())
    if not symbols:
        return True
    expr = frozen.exprs[0]
    if all(_degree(t, symbols) is not None for t in sp.Add.make_args(expr)):
        return True
    expanded = sp.expand(expr)
    return all(_degree(t, symbols) is not None for t in sp.Add.make_args(expanded))


def _degree(term: sp.Expr, symbols: set[sp.Symbol]) -> int | None:
    """0 or 1 for a term that is constant or linear in the symbols, else None."""
    inside = term.free_symbols & symbols
    if not inside:
        return 0
    factors = [f for f in sp.Mul.make_args(term) if f.free_symbols & symbols]
    if len(factors) > 1:
        return None
    if factors[0] in symbols:
        return 1
    # A factor such as (u + v): affine if all its terms are.
    if factors[0].is_Add and all(
        _degree(t, symbols) is not None for t in sp.Add.make_args(factors[0])
    ):
        return 1
    return None


def linear_coefficients(residual: sp.Expr) -> dict[sp.Expr, sp.Expr]:
    """Leaf -> coefficient of the part of the residual that is linear in its leaves."""
    frozen = freeze([residual])
    symbols = set(frozen.symbols.values())
    back: dict[Any, sp.Expr] = {s: leaf for leaf, s in frozen.symbols.items()}
    found: dict[sp.Expr, sp.Expr] = {}
    for term in sp.Add.make_args(sp.expand(frozen.exprs[0])):
        inside = term.free_symbols & symbols
        if len(inside) != 1:
            continue
        s = next(iter(inside))
        coefficient = term / s
        if not coefficient.free_symbols & symbols:
            leaf = back[s]
            found[leaf] = found.get(leaf, sp.S.Zero) + coefficient
    return found


def _is_semilinear(residual: sp.Expr, symbols: Symbols) -> bool:
    """Do the highest space derivatives of every field stand with coefficients free of fields?"""
    frozen = freeze([residual])
    spatial = {lf: sum(derivative_count(lf, c) for c in symbols.space) for lf in frozen.symbols}
    for u in {field_of(lf) for lf in spatial}:
        own = {lf: k for lf, k in spatial.items() if field_of(lf) == u}
        top = max(own.values())
        if top == 0:
            continue
        for lf in (lf for lf, k in own.items() if k == top):
            slope = sp.expand(sp.diff(frozen.exprs[0], frozen.symbols[lf]))
            if slope.free_symbols & set(frozen.symbols.values()):
                return False
    return True
