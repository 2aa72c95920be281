"""Logistic growth, an ordinary differential equation."""

from __future__ import annotations

import sympy as sp

import pinnkit as pk

__all__ = ["Logistic"]

t = pk.coords("t")
y = pk.field("y", t)


@pk.problem
class Logistic(pk.ProblemClass):
    """y' = rate y (1 - y), y(0) = start.

    The smallest nonlinear problem: it grows, then saturates, so errors are first amplified and
    then forgotten.

    Exact: start / (start + (1 - start) exp(-rate t)).

    Args:
        rate: Growth rate.
        start: Initial value.
        T: Final time.
    """

    rate: float = 1.0
    start: float = 0.1
    T: float = 5.0
    citation = (
        "P.-F. Verhulst: Notice sur la loi que la population suit dans son accroissement. "
        "Correspondance mathematique et physique 10 (1838) 113."
    )

    def declare(self) -> pk.PDESystem:
        """The equation and its initial value."""
        return pk.PDESystem(
            [y.diff(t) - self.rate * y * (1 - y)],
            domain=pk.Interval(t, 0, self.T),
            conditions=[pk.Initial(y, self.start)],
        )

    def exact(self) -> dict[sp.Expr, sp.Expr]:
        """The logistic curve."""
        return {y: self.start / (self.start + (1 - self.start) * sp.exp(-self.rate * t))}
