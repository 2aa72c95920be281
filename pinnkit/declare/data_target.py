"""A problem without an equation: what is wanted is known from data alone.

In    nothing: subclasses say what the data are.
Out   `DataTarget`, what `SeriesTarget` and `GraphTarget` have in common.
Next  `declare.series_target`, `declare.graph_target`.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Self

import sympy as sp

from pinnkit.declare.problem import AbstractProblem
from pinnkit.errors import UnsupportedProblemError

__all__ = ["DataTarget"]


class DataTarget(AbstractProblem):
    """Something to be learned that nobody derived: no coordinates, no fields, no residual."""

    @property
    @abstractmethod
    def declared(self) -> dict[str, Any]:
        """What the constructor was called with."""

    @property
    def system(self) -> Self:
        """Itself."""
        return self

    @property
    def normal_form(self) -> Self:
        """Itself: there is nothing to normalise."""
        return self

    @property
    def coords(self) -> tuple[sp.Symbol, ...]:
        """None: no equation names them."""
        return ()

    @property
    def fields(self) -> tuple[Any, ...]:
        """None: nothing is determined by equations."""
        return ()

    @property
    def parameters(self) -> tuple[sp.Symbol, ...]:
        """None."""
        return ()

    def remake(self, **changes: Any) -> Self:
        """The same with some parts exchanged."""
        return type(self)(**self.declared | changes)

    def residual(self, candidate: Any) -> Any:
        """There is none."""
        raise UnsupportedProblemError(f"a {type(self).__name__} has no equation, hence no residual")

    def diagnose(self) -> Any:
        """There is none."""
        raise UnsupportedProblemError(f"a {type(self).__name__} has no equation to diagnose")

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.declared)


def _rebuild(cls: type[DataTarget], declared: dict[str, Any]) -> DataTarget:
    return cls(**declared)
