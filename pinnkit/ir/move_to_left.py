"""Pass 2: every equation as one expression that vanishes.

In    the user's equations: expressions, sp.Eq, columns.
Out   a flat list of (label, left minus right).
Next  `split_complex` makes them real.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sympy as sp

__all__ = ["move_to_left"]


def move_to_left(equations: Sequence[Any]) -> list[tuple[str, sp.Expr]]:
    """Left minus right side; columns fall apart into components."""
    flat: list[tuple[str, sp.Expr]] = []
    equation: Any
    for number, equation in enumerate(equations, 1):
        left: Any = equation
        if isinstance(equation, sp.Equality):
            left, right = equation.args  # type: ignore[assignment]
            left = left - right
        label = f"equation {number}"
        if isinstance(left, (sp.MatrixBase, sp.MatrixExpr)):
            column = sp.ImmutableDenseMatrix(left).flat()
            for i, entry in enumerate(column, 1):
                flat.append((f"{label} (component {i})", sp.sympify(entry)))
        else:
            flat.append((label, left))
    return flat
