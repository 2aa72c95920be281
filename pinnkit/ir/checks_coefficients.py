"""Checks of how derivatives enter: jumps belong under div, and so does what forms shocks.

In    equations with their flux form, the jump sets.
Out   nothing, or a refusal naming the term and its flux.
Next  `ir.checks_wellposed`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sympy as sp

from pinnkit.declare.operators import Div
from pinnkit.declare.printing import refusal, show
from pinnkit.ir.carry_out_divergence import jump_sets
from pinnkit.ir.collect_symbols import Symbols
from pinnkit.ir.leaves import derivative_count, field_of, freeze, leaves, steps_of
from pinnkit.ir.normal_form import Equation

__all__ = ["check_coefficients"]


def check_coefficients(
    equations: Sequence[Equation], jumps: Sequence[sp.Expr], symbols: Symbols
) -> None:
    """Refuse jumping coefficients and shock-forming terms that stand outside a flux."""
    for equation in equations:
        if jumps:
            _check_jumping(equation, symbols)
    _check_shocks(equations, symbols)


def _outside_flux(equation: Equation) -> Any:
    """The residual with every divergence struck out."""
    return equation.conservative.xreplace(
        dict.fromkeys(equation.conservative.atoms(Div), sp.S.Zero)
    )


def _check_jumping(equation: Equation, symbols: Symbols) -> None:
    # sympy differentiates Piecewise piece by piece and drops the jump: (k*u.diff(x)).diff(x) and
    # k*u.diff(x, 2) are the same expression by the time we see it, so both are refused.
    frozen = freeze([_outside_flux(equation)])
    for leaf, symbol in frozen.symbols.items():
        if max(derivative_count(leaf, c) for c in symbols.coords) < 2:
            continue
        slope = sp.diff(frozen.exprs[0], symbol)
        if slope.has(sp.Piecewise, sp.Heaviside, sp.sign) and jump_sets(slope, symbols.bounds):
            raise refusal(
                f"{equation.label}, the term with {show(leaf)}",
                f"its coefficient {show(frozen.thaw(slope))} jumps, and the derivative of a "
                "coefficient that jumps is lost when it is carried out",
                "write the flux as div(k*grad(u)); if no flux is meant, divide the equation by "
                "the coefficient",
            )


def _check_shocks(equations: Sequence[Equation], symbols: Symbols) -> None:
    """Quasi-linear first-order terms outside div, in fields that nothing smooths."""
    if symbols.time is None:
        return
    all_leaves = leaves(*(e.residual for e in equations))
    transported = {
        u
        for u in {field_of(lf) for lf in all_leaves}
        if any(field_of(lf) == u and derivative_count(lf, symbols.time) for lf in all_leaves)
        and max(
            (
                derivative_count(lf, c)
                for lf in all_leaves
                for c in symbols.space
                if field_of(lf) == u
            ),
            default=0,
        )
        == 1
    }
    if len({field_of(lf) for lf in all_leaves}) > len(transported) and _has_constraint(
        all_leaves, symbols
    ):
        return  # a pressure or another constraint: incompressible flow forms no shocks
    for equation in equations:
        frozen = freeze([_outside_flux(equation)])
        back: dict[Any, sp.Expr] = {s: lf for lf, s in frozen.symbols.items()}
        for leaf, symbol in frozen.symbols.items():
            u = field_of(leaf)
            if u not in transported or derivative_count(leaf, symbols.time):
                continue
            if derivative_count(leaf) != 1:
                continue
            speed = sp.diff(frozen.exprs[0], symbol)
            culprits = {field_of(back[s]) for s in speed.free_symbols if s in back}
            if speed.free_symbols & {symbol}:
                continue  # fully nonlinear in the gradient: a kink may form, but no jump
            if any(z == u or _feels(z, u, equations) for z in culprits & transported):
                _refuse_shock(equation, leaf, frozen.thaw(speed))


def _has_constraint(all_leaves: Sequence[sp.Expr], symbols: Symbols) -> bool:
    """Some field has space derivatives but no time derivative."""
    assert symbols.time is not None
    for u in {field_of(lf) for lf in all_leaves}:
        own = [lf for lf in all_leaves if field_of(lf) == u]
        moves = any(derivative_count(lf, symbols.time) for lf in own)
        if not moves and any(derivative_count(lf) for lf in own):
            return True
    return False


def _feels(z: sp.Expr, u: sp.Expr, equations: Sequence[Equation]) -> bool:
    """Does some equation hold the time change of z together with a derivative of u?"""
    for e in equations:
        own = leaves(e.residual)
        if any(field_of(lf) == z and derivative_count(lf) for lf in own) and any(
            field_of(lf) == u and derivative_count(lf) for lf in own
        ):
            return z != u
    return False


def _refuse_shock(equation: Equation, leaf: sp.Expr, speed: sp.Expr) -> None:
    u = field_of(leaf)
    coord = steps_of(leaf)[0][0]
    term = show(speed * leaf)
    instead = "write the flux with div(...), for example div(u**2/2) for u*u.diff(x)"
    if not speed.has(sp.Derivative) and speed.free_symbols >= u.free_symbols:
        s = sp.Dummy("s", real=True)
        frozen = speed.xreplace({u: s})
        if not leaves(frozen) and not frozen.free_symbols & set(u.args):
            flux = sp.integrate(frozen, s).subs(s, u)
            instead = f"write {term} in flux form, div({show(flux)})"
    raise refusal(
        f"{equation.label}, the term {term}",
        f"a first-order equation with a speed that depends on {show(u)} forms shocks along "
        f"{coord}, and without flux form their speed is undefined",
        f"{instead}, or add the diffusion that smooths them",
    )
