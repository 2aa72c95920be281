"""Real symbols that know what was declared about them.

In    a name, and what is known beside it (a scale, bounds, a unit, a column).
Out   `DeclaredSymbol`, the base of coordinates, unknown numbers, inputs and symbols of graphs.
Next  `declare.symbols`, `declare.given`, `declare.graph_symbols`.

What was declared is part of a symbol's identity, beside the name: sympy caches expressions by
equality, so two equal symbols with different metadata would be exchanged for one another silently.
"""

from __future__ import annotations

from typing import Any, ClassVar

import sympy as sp

__all__ = ["DeclaredSymbol", "make_declared"]


class DeclaredSymbol(sp.Symbol):
    """A real symbol that compares by its class, its name and what was declared about it."""

    __slots__ = ()
    _declared: ClassVar[tuple[str, ...]] = ()  # the slots of the subclass

    @classmethod
    def class_key(cls) -> tuple[int, int, str]:
        """Sorted and printed like any symbol: pi*x, not x*pi."""
        return sp.Symbol.class_key()

    @property
    def declared(self) -> dict[str, Any]:
        """What was declared beside the name."""
        return {name: getattr(self, name) for name in self._declared}

    def _hashable_content(self) -> tuple[Any, ...]:
        # As texts: sympy sorts equal symbols made twice by these values, and None has no order.
        parts = (type(self).__name__, *(repr(v) for v in self.declared.values()))
        return (*super()._hashable_content(), *parts)

    def __getnewargs_ex__(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (self.name,), self.declared

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return make_declared, (type(self), self.name, self.declared)


def make_declared(cls: Any, name: str, declared: dict[str, Any]) -> Any:
    """A symbol of the class `cls`, without any check."""
    made = sp.Symbol.__xnew__(cls, name, real=True)  # type: ignore[attr-defined]
    for key, value in declared.items():
        setattr(made, key, value)
    return made
