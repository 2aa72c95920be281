"""Pass 1, continued: the inputs of a family, each declared once and used at its own coordinates.

In    the expressions of a `PDESystem`, each with the words that name it.
Out   given numbers and functions by name, or a refusal.
Next  `ir.collect_symbols` checks their names against the others.
"""

from __future__ import annotations

from typing import Any

import sympy as sp

from pinnkit.declare.given import given_in
from pinnkit.declare.printing import refusal, show
from pinnkit.declare.symbols import Coordinate

__all__ = ["collect_given"]


def collect_given(sources: list[tuple[str, Any]], coords: tuple[sp.Symbol, ...]) -> tuple[Any, ...]:
    """Given numbers and functions, by name."""
    found: dict[str, Any] = {}
    for where, expr in sources:
        for g in given_in(expr):
            for a in g.args:
                if not isinstance(a, Coordinate):
                    raise refusal(
                        where,
                        f"{show(g)} is a given function at a place of its own",
                        "write it at the coordinates it was declared with",
                    )
                if a not in coords:
                    raise refusal(
                        where,
                        f"{show(g)} depends on {a}, but the domain has no {a}",
                        f"multiply the domain by Interval({a}, ..., ...)",
                    )
            if found.setdefault(g.name, g) != g:
                raise refusal(
                    where,
                    f"the input {g.name} is declared twice with different properties",
                    "declare it once with given(...) and use that object everywhere",
                )
    return tuple(found[name] for name in sorted(found))
