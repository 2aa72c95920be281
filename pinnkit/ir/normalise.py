"""From a declared problem to its normal form: the passes in order, and why in that order.

In    a `PDESystem`.
Out   `NormalForm` and the user's fields.
Next  `lower` and `classical`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sympy as sp

from pinnkit.ir.carry_out_divergence import carry_out_divergence, find_jumps
from pinnkit.ir.check_compatibility import check_compatibility
from pinnkit.ir.checks_coefficients import check_coefficients
from pinnkit.ir.checks_conditions import check_conditions
from pinnkit.ir.checks_wellposed import check_eigenvalue, check_wellposed
from pinnkit.ir.classify import classify
from pinnkit.ir.collect_symbols import collect_symbols
from pinnkit.ir.find_corners import find_corners
from pinnkit.ir.fix_gauge import fix_gauge
from pinnkit.ir.move_to_left import move_to_left
from pinnkit.ir.normal_form import Equation, NormalForm
from pinnkit.ir.place_conditions import place_conditions
from pinnkit.ir.split_complex import make_split, split_equations

if TYPE_CHECKING:
    from pinnkit.declare.problem import PDESystem

__all__ = ["normalise"]


def normalise(system: PDESystem) -> tuple[NormalForm, tuple[sp.Expr, ...]]:
    """Check a declared problem and bring it into normal form."""
    # Roles first: every later message must be able to name symbols and their meaning.
    symbols = collect_symbols(system)
    # One side only, before the split, so that an equation is split once and not side by side.
    residuals = move_to_left(system.equations)
    # Real before anything looks at orders or coefficients: all later passes are real.
    taken = [s.name for s in (*symbols.coords, *symbols.parameters, *symbols.given)]
    split = make_split(symbols.fields, taken)
    parts = split_equations(residuals, split)
    # Divergences after the split, because a complex flux falls apart inside its divergence.
    equations = []
    for label, residual in parts:
        carried, conservative = carry_out_divergence(residual)
        equations.append(
            Equation(carried, conservative, label, _coords_of(carried, symbols.coords))
        )
    # Coefficients now, while it is visible which derivatives came from a flux.
    jumps = find_jumps([e.conservative for e in equations], symbols.bounds)
    check_coefficients(equations, jumps, symbols)
    # Conditions need the split fields, and dn needs the face it stands on.
    placed = place_conditions(system.conditions, symbols, split)
    # Orders are final now; the checks below count by them.
    predicates = classify(
        equations,
        placed.conditions,
        [i.integrand for i in placed.integrals],
        split.fields,
        symbols,
    )
    # Eigenvalue problems before counting: their conditions count right, yet zero solves them.
    check_eigenvalue(equations, placed, symbols)
    # Type before counting: for an ill-posed equation the count would only confuse.
    check_wellposed(equations, placed, predicates, symbols)
    periodic = check_conditions(equations, placed, predicates, symbols)
    # Gauges after the conditions: any of them may fix the level.
    fix_gauge(equations, placed, symbols)
    # Where a level is free, sources must balance: known only now.
    check_compatibility(equations, placed, symbols)
    # Corners last: they compare conditions that are each right by themselves.
    corners = find_corners(equations, placed, predicates, symbols)
    scaled: tuple[Any, ...] = (*symbols.coords, *split.fields)
    scales = {s: s.scale for s in scaled if s.scale is not None}
    normal_form = NormalForm(
        coords=symbols.coords,
        time=symbols.time,
        space=symbols.space,
        bounds=dict(symbols.bounds),
        fields=tuple(split.fields),
        parameters=tuple(symbols.parameters),
        equations=tuple(equations),
        conditions=tuple(placed.conditions),
        periodic=periodic,
        predicates=predicates,
        integrals=tuple(placed.integrals),
        observations=tuple(placed.observations),
        complex_fields=dict(split.parts),
        region=symbols.region,
        jumps=jumps,
        corners=tuple((c.label, c.order, c.size) for c in corners),
        scales=scales,
        given=symbols.given,
        neurals=symbols.neurals,
    )
    return normal_form, tuple(symbols.fields)


def _coords_of(residual: sp.Expr, coords: tuple[sp.Symbol, ...]) -> tuple[sp.Symbol, ...]:
    """The coordinates an equation lives on: those of its fields and coefficients."""
    used = residual.free_symbols
    return tuple(c for c in coords if c in used)
