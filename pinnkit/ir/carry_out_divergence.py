"""Pass 4: divergences, both kept as fluxes and carried out; and where coefficients jump.

In    a real residual with `Div` nodes.
Out   the carried-out and the flux form; the zero sets of the jumps inside the domain.
Next  pointwise methods read the first, finite volumes and interface conditions the second.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import sympy as sp

from pinnkit.declare.symbols import AppliedField, Parameter
from pinnkit.ir.leaves import settle
from pinnkit.ir.sampling import evaluate, sample_box

__all__ = ["carry_out_divergence", "find_jumps", "jump_sets"]


def carry_out_divergence(residual: sp.Expr) -> tuple[sp.Expr, sp.Expr]:
    """(every divergence carried out, fluxes left standing)."""
    conservative = settle(residual, keep=lambda node: True)
    carried = settle(conservative)
    # Off the jump the coefficient is smooth: the delta of its derivative lives on the jump alone,
    # where the flux form holds instead.
    deltas = carried.atoms(sp.DiracDelta)
    if deltas:
        carried = carried.xreplace(dict.fromkeys(deltas, sp.S.Zero))
    return carried, conservative


def find_jumps(
    exprs: Iterable[sp.Expr], bounds: Mapping[sp.Symbol, tuple[float, float]]
) -> tuple[sp.Expr, ...]:
    """g(coords) whose zero sets carry a jump of some coefficient inside the domain."""
    found: dict[sp.Expr, None] = {}
    for expr in exprs:
        for g in jump_sets(expr, bounds):
            if g not in found and -g not in found:
                found[g] = None
    return tuple(found)


def jump_sets(expr: sp.Expr, bounds: Mapping[sp.Symbol, tuple[float, float]]) -> list[sp.Expr]:
    """The same for one expression; switches that depend on fields are no coefficient."""
    sets: list[Any] = []
    found: list[Any] = sorted(
        expr.atoms(sp.Piecewise, sp.Heaviside, sp.sign), key=sp.default_sort_key
    )
    for node in found:
        if isinstance(node, sp.Piecewise):
            pairs: Any = node.args
            relations = [r for _, c in pairs for r in c.atoms(sp.core.relational.Relational)]
            candidates = [r.lhs - r.rhs for r in relations]
        else:
            candidates = [node.args[0]]
        sets += [g for g in candidates if not g.atoms(AppliedField) and _jumps(node, g, bounds)]
    return sets


def _jumps(node: Any, g: Any, bounds: Mapping[sp.Symbol, tuple[float, float]]) -> bool:
    """Does the node differ on the two sides of g = 0, somewhere inside the box?"""
    if not g.free_symbols & set(bounds):
        return False
    coords = sorted(g.free_symbols & set(bounds), key=str)
    others = sorted((node.free_symbols & set(bounds)) - set(coords), key=str)
    ends = sample_box([*coords, *others], bounds, 512)
    guesses = {p: p.guess for p in g.free_symbols | node.free_symbols if isinstance(p, Parameter)}
    first = dict(ends.items())
    gen = np.random.default_rng(1)
    second = {c: v[gen.permutation(len(v))] if c in coords else v for c, v in ends.items()}
    ga, gb = (evaluate(g, {**s, **guesses}) for s in (first, second))
    crossing = ga * gb < 0
    if not crossing.any():
        return False
    if isinstance(node, (sp.Heaviside, sp.sign)):
        return True
    if node.atoms(AppliedField):
        return True
    a = {c: v[crossing] for c, v in first.items()}
    b = {c: v[crossing] for c, v in second.items()}
    ga = ga[crossing]
    for _ in range(60):  # bisection down to neighbouring numbers
        middle = {c: 0.5 * (a[c] + b[c]) for c in a}
        gm = evaluate(g, {**middle, **guesses})
        left = ga * gm > 0
        a = {c: np.where(left, middle[c], a[c]) for c in a}
        b = {c: np.where(left, b[c], middle[c]) for c in b}
    va, vb = (evaluate(node, {**s, **guesses}) for s in (a, b))
    scale = 1e-12 + np.abs(va) + np.abs(vb)
    return bool((np.abs(va - vb) > 1e-6 * scale).any())
