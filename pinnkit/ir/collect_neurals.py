"""Terms to be learned in the equations of a `PDESystem`: which there are, and that they are scalars.

In    (where, expression) pairs of a declaration, its coordinates.
Out   the neural terms by name, or a refusal naming the one that cannot be.
Next  `ir.collect_symbols` reads the fields their networks see.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sympy as sp

from pinnkit.declare.printing import refusal, show
from pinnkit.declare.stochastic import Neural, Process

__all__ = ["collect_neurals"]


def collect_neurals(
    sources: Sequence[tuple[str, Any]], coords: tuple[sp.Symbol, ...]
) -> tuple[Neural, ...]:
    """Neural terms of equations, each declared once, scalar, of one coordinate."""
    found: dict[str, Neural] = {}
    for where, expr in sources:
        for term in sorted(expr.atoms(Neural), key=str):
            if found.setdefault(term.name, term) != term:
                raise refusal(
                    where,
                    f"the neural term {term} is declared twice with different properties",
                    "declare it once with neural(...) and use that object everywhere",
                )
            if not where.startswith("equation"):
                raise refusal(
                    where, f"{term} is to be learned, and a condition must be known",
                    "put it into an equation",
                )  # fmt: skip
    for term in found.values():
        wrote = f'neural("{term}", inputs={tuple(map(show, term.inputs))})'
        if len(coords) > 1:
            raise refusal(
                wrote,
                f"terms are learned in ordinary differential equations, and the domain has "
                f"{', '.join(map(str, coords))}",
                "discretise in space and learn the equations of the values, or give the term a form "
                "with unknown numbers, parameter(...)",
            )
        if term.shape not in (None, (1,)):
            raise refusal(
                wrote, f"it has the shape {term.shape}, and equations of fields are scalar",
                "declare one neural term per equation",
            )  # fmt: skip
        for entry in term.inputs:
            if entry.has(Process):
                raise refusal(
                    wrote, f"{show(entry)} belongs to an SDESystem", "give it fields and time"
                )
    return tuple(found[name] for name in sorted(found))
