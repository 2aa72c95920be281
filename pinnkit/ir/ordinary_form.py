"""Ordinary differential equations as y' = F(t, y), one state per derivative below the highest.

In    a `NormalForm` in one coordinate, time; unknown numbers and neural terms welcome.
Out   `OrdinaryForm`: states, their rates, what is known of them at the start.
Next  `lower.ordinary` compiles it to torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import sympy as sp

from pinnkit.declare.stochastic import Neural
from pinnkit.declare.symbols import Parameter
from pinnkit.errors import UnsupportedProblemError
from pinnkit.ir.leaves import leaves
from pinnkit.ir.normal_form import NormalForm

__all__ = ["OrdinaryForm", "ordinary_form"]


@final
@dataclass(frozen=True, eq=False)
class OrdinaryForm:
    """y' = F(t, y).

    Args:
        time: The coordinate.
        span: Its lower and upper end.
        states: Fields and their derivatives below the highest, field by field.
        rates: The derivative of each state, in states, time, parameters and neural terms.
        initial: Value at the lower end, a number, of every state that has one.
        parameters, neurals: The unknowns in the rates.
        orders: The order of the equation of each field.
    """

    time: sp.Symbol
    span: tuple[float, float]
    states: tuple[sp.Expr, ...]
    rates: tuple[sp.Expr, ...]
    initial: Mapping[sp.Expr, sp.Expr]
    parameters: tuple[Parameter, ...]
    neurals: tuple[Neural, ...]
    orders: Mapping[sp.Expr, int]


def ordinary_form(nf: NormalForm) -> OrdinaryForm:
    """The form; UnsupportedProblemError, in one sentence, where there is none."""
    if nf.time is None or len(nf.coords) != 1:
        names = ", ".join(map(str, nf.coords))
        raise UnsupportedProblemError(
            f"NeuralODE learns ordinary differential equations in time, and this problem has the "
            f"coordinates {names}. Use CausalPINN()."
        )
    if nf.integrals:
        raise UnsupportedProblemError(
            f"NeuralODE integrates forwards and cannot keep {nf.integrals[0].label}. Leave it out."
        )
    time: Any = nf.time
    orders = {u: int(nf.predicates.time_order[u]) for u in nf.fields}
    for u, order in orders.items():
        if not order:
            raise UnsupportedProblemError(
                f"no equation contains a time derivative of {u}, and NeuralODE needs its rate. "
                "Eliminate it, or use CausalPINN()."
            )
    tops = [sp.Derivative(u, (time, n)) for u, n in orders.items()]
    top_rates = _solve_for(tops, nf)
    states: list[sp.Expr] = []
    rates: list[sp.Expr] = []
    for u, n in orders.items():
        own = [u, *(sp.Derivative(u, (time, k)) for k in range(1, n))]
        states += own
        rates += [*own[1:], top_rates[sp.Derivative(u, (time, n))]]
    known = set(states)
    for term in nf.neurals:
        for leaf in leaves(*term.inputs):
            if leaf not in known:
                raise UnsupportedProblemError(
                    f"the network of {term} sees {leaf}, which is what its equation determines. "
                    "Give it lower derivatives."
                )
    return OrdinaryForm(
        time=time,
        span=nf.bounds[time],
        states=tuple(states),
        rates=tuple(rates),
        initial=_initial(nf, known),
        parameters=nf.parameters,  # type: ignore[arg-type]
        neurals=nf.neurals,
        orders=orders,
    )


def _solve_for(tops: list[Any], nf: NormalForm) -> dict[Any, sp.Expr]:
    """The highest derivatives, in which every equation must be linear."""
    residuals = [e.residual for e in nf.equations]
    marks = {top: sp.Dummy(f"top{i}") for i, top in enumerate(tops)}
    marked: Any = [r.xreplace(marks) for r in residuals]
    symbols = list(marks.values())
    try:
        matrix, right = sp.linear_eq_to_matrix(marked, symbols)
        found = matrix.LUsolve(right)
    except (ValueError, sp.matrices.exceptions.MatrixError) as fault:
        names = ", ".join(map(str, tops))
        raise UnsupportedProblemError(
            f"the equations cannot be solved for {names} ({fault}). Use CausalPINN()."
        ) from fault
    solved = {top: sp.sympify(value) for top, value in zip(tops, found, strict=True)}
    for top, value in solved.items():
        if value.has(sp.nan, sp.zoo) or set(symbols) & value.free_symbols:
            raise UnsupportedProblemError(
                f"the equations do not determine {top}. Use CausalPINN()."
            )
    return solved


def _initial(nf: NormalForm, states: set[sp.Expr]) -> dict[sp.Expr, sp.Expr]:
    found: dict[sp.Expr, sp.Expr] = {}
    for c in nf.conditions:
        if c.kind != "initial" or c.target is None or c.value is None or c.target not in states:
            raise UnsupportedProblemError(
                f"NeuralODE starts from values of fields and derivatives, not from {c.label}. "
                "Write Initial(u, value), or leave it out to have it estimated."
            )
        if set(nf.parameters) & c.value.free_symbols:
            raise UnsupportedProblemError(
                f"NeuralODE does not start from unknown numbers yet, as {c.label} does. Leave it out to "
                "have the start estimated."
            )
        found[c.target] = c.value
    return found
