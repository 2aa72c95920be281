"""The residual of a candidate: what is left when an expression is put in for the field.

In    a problem and expressions for its fields.
Out   one sympy expression per equation, condition and periodic pair, in the user's fields.
Next  users read it; zero everywhere means the candidate is an exact solution.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import sympy as sp

from pinnkit.declare.symbols import Parameter
from pinnkit.ir.check_exact import read_candidate
from pinnkit.ir.leaves import settle
from pinnkit.ir.move_to_left import move_to_left
from pinnkit.ir.sampling import evaluate, sample_box
from pinnkit.ir.split_complex import ComplexSplit

if TYPE_CHECKING:
    from pinnkit.declare.problem import PDESystem

__all__ = ["residual_of"]

_SHORT = 400  # operations; longer expressions are not simplified, which could take minutes


def residual_of(system: PDESystem, candidate: Any) -> tuple[sp.Expr, ...]:
    """Equations first, then conditions on their faces, then periodic differences."""
    table = read_candidate(system, candidate, "residual(...)")
    nf = system.normal_form
    out = [
        _tidy(settle(residual.xreplace(table)), system)
        for _, residual in move_to_left(system.equations)
    ]
    real = _real_parts(system, table)
    for c in nf.conditions:
        value = settle(c.residual.xreplace(real))
        if c.face.region is None:
            end = system.domain.ends[c.face.coord][0 if c.face.side == "left" else 1]
            value = value.subs(c.face.coord, end)
        out.append(_tidy(value, system))
    for axis in nf.periodic:
        low, high = system.domain.ends[axis]
        for u in nf.fields:
            for order in range(nf.predicates.space_order.get((u, axis), 0)):
                slope = sp.diff(real[u], axis, order)
                out.append(_tidy(slope.subs(axis, low) - slope.subs(axis, high), system))
    for i in nf.integrals:
        integrand = settle(i.integrand.xreplace(real))
        value = integrand
        for c in i.over:
            low, high = system.domain.ends[c]
            value = sp.integrate(value, (c, low, high))
        out.append(_tidy(value - i.equals, system))
    return tuple(out)


def _real_parts(system: PDESystem, table: dict[sp.Expr, sp.Expr]) -> dict[sp.Expr, sp.Expr]:
    split = ComplexSplit((), {})
    real: dict[sp.Expr, sp.Expr] = {}
    for f, e in table.items():
        pair = system.normal_form.complex_fields.get(f)
        if pair is None:
            real[f] = e
        else:
            real.update(zip(pair, split(e), strict=True))
    return real


def _tidy(expr: sp.Expr, system: PDESystem) -> sp.Expr:
    """Simplified only where numbers say that it vanishes: proving anything else is slow and vain."""
    if expr == 0 or not expr.free_symbols:
        short = sp.nsimplify(expr) if expr.is_Rational else expr
        return sp.S.Zero if short.is_zero else short
    expanded = sp.expand_mul(expr)
    if expanded == 0:
        return sp.S.Zero
    bounds = system.domain.bounds
    points: dict[Any, Any] = dict(sample_box(system.coords, bounds, 7, seed=8))
    points |= {p: p.guess for p in expr.free_symbols if isinstance(p, Parameter)}
    numbers = np.abs(evaluate(expr, points))
    terms = [np.abs(evaluate(t, points)) for t in sp.Add.make_args(expanded)]
    size = max((float(np.nanmax(t)) for t in terms), default=1.0)
    vanishes = np.isfinite(numbers).all() and float(numbers.max()) <= 1e-11 * max(size, 1e-300)
    if vanishes and expr.count_ops() <= _SHORT:
        return sp.simplify(expr)
    return expr
