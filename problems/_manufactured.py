"""Problems made from their solutions: the source is what the operator makes of a chosen field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sympy as sp

import pinnkit as pk

__all__ = ["manufactured"]


def manufactured(operator: sp.Expr, solution: Mapping[Any, sp.Expr], interval: Any) -> pk.PDESystem:
    """operator = its value at the solution, which is also prescribed at both ends.

    Args:
        operator: An expression in the field and its derivatives.
        solution: {field: expression}, one field of one coordinate.
        interval: Where the problem is posed.
    """
    ((field, exact),) = solution.items()
    (x,) = field.args
    source = operator.subs(field, exact).doit()
    return pk.PDESystem(
        [operator - source],
        domain=interval,
        conditions=[pk.Dirichlet(field, exact, on=pk.boundary(x))],
    )
