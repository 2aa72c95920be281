"""Checks of what stands inside an expression: only local, smooth, deterministic terms.

In    the user's expressions, before any pass has changed them.
Out   nothing, or a refusal naming the term.
Next  `ir.checks_coefficients` looks at how the fields enter, `ir.checks_wellposed` at the type.
"""

from __future__ import annotations

from typing import Any

import sympy as sp

from pinnkit.declare.operators import NormalDerivative
from pinnkit.declare.printing import refusal, show
from pinnkit.declare.symbols import Coordinate

__all__ = ["check_nodes"]


def check_nodes(expr: Any, where: str, coords: tuple[sp.Symbol, ...], *, in_equation: bool) -> None:
    """Refuse integrals, traces, point sources, noise and derivatives by non-coordinates."""
    for node in sp.preorder_traversal(expr):
        if isinstance(node, (sp.Integral, sp.Sum)):
            raise refusal(
                where,
                f"{show(node)} is an integral or sum inside an equation",
                "make the integral a field of its own: w with w.diff(x) = integrand and w = 0 at "
                "the lower end; a mean over the whole domain goes into an Integral condition",
            )
        if isinstance(node, sp.Subs):
            raise refusal(
                where,
                f"{show(node)} is a trace: a derivative at one fixed point",
                "equations hold point by point; put it into a condition: Robin(..., on=boundary(x))",
            )
        if in_equation and isinstance(node, NormalDerivative):
            raise refusal(
                where,
                f"{show(node)} is a derivative along the outward normal, which only a boundary has",
                f"use it in a condition, Robin({show(node)} + ..., on=...) or Neumann(u, value, "
                "on=...); inside the domain write a derivative such as u.diff(x)",
            )
        if isinstance(node, sp.Limit):
            raise refusal(where, f"{show(node)} is a limit", "write the value it has")
        if isinstance(node, sp.DiracDelta):
            raise refusal(
                where,
                f"{show(node)} is a point source or the derivative of a coefficient that jumps",
                "write the flux as div(k*grad(u)); replace a point source by a narrow smooth one",
            )
        if _is_stochastic(node):
            raise refusal(
                where,
                f"{show(node)} is a stochastic term",
                "partial differential equations are deterministic here; ordinary stochastic "
                "equations are SDESystems",
            )
        if isinstance(node, sp.Derivative):
            _check_derivative(node, where, coords)


def _check_derivative(node: Any, where: str, coords: tuple[sp.Symbol, ...]) -> None:
    for symbol, count in node.variable_count:
        if not isinstance(symbol, Coordinate):
            raise refusal(
                where,
                f"{show(node)} differentiates by {show(symbol)}, which is not a coordinate",
                "differentiate by coordinates of the domain",
            )
        if not count.is_Integer:
            raise refusal(
                where, f"{show(node)} has the order {count}", "write a whole number as the order"
            )
        if symbol not in coords:
            raise refusal(
                where,
                f"{show(node)} differentiates by {symbol}, but the domain has no {symbol}",
                f"multiply the domain by Interval({symbol}, ..., ...)",
            )
    if node.expr.has(sp.Piecewise, sp.Heaviside, sp.sign):
        raise refusal(
            where,
            f"{show(node)} is the derivative of a coefficient that jumps",
            "write the flux as div(k*grad(u)), which keeps the jump",
        )


def _is_stochastic(node: Any) -> bool:
    # sympy.stats is not imported for this: it is slow to load, and its nodes name their module.
    module = type(node).__module__ or ""  # undefined functions have none
    return module.startswith("sympy.stats") or bool(getattr(node, "is_stochastic", False))
