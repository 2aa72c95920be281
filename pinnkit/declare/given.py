"""Inputs of a family: numbers and functions that are given anew for every member.

In    names, as in `sympy.symbols`, and for a function the coordinates it depends on.
Out   `Given` (a sympy symbol) and applied functions such as a(x).
Next  `declare.family` draws them from distributions and puts what was drawn in their place.

Unlike a `Parameter`, a given number is not to be found: it is known, but only later.
"""

from __future__ import annotations

from typing import Any

import sympy as sp
from sympy.core.function import AppliedUndef, UndefinedFunction

from pinnkit.declare.declared_symbol import DeclaredSymbol, make_declared
from pinnkit.declare.symbols import check_coordinates, split_names

__all__ = ["AppliedGiven", "Given", "given", "given_in", "is_given_leaf", "make_given"]


class Given(DeclaredSymbol):
    """A real number that every member of a family has its own value of."""

    __slots__ = ("unit",)
    _declared = ("unit",)

    unit: str | None

    def __new__(cls, name: str, *, unit: str | None = None) -> Given:
        return make_declared(cls, name, {"unit": unit})


class AppliedGiven(AppliedUndef):
    """A given function at its coordinates, a(x); `a.diff(x)` is its derivative."""

    given_unit: str | None = None  # set per function by `make_given`, as for fields

    @property
    def unit(self) -> str | None:
        """The unit of the values."""
        return type(self).given_unit

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return _rebuild, (self.name, self.args, self.unit)


def make_given(name: str, args: Any, *, unit: str | None = None) -> AppliedGiven:
    """a(args) without any check; `given` is the public door."""
    function = UndefinedFunction(name, bases=(AppliedGiven,), given_unit=unit, real=True)
    return function(*args)  # type: ignore[return-value]


def _rebuild(name: str, args: Any, unit: str | None) -> AppliedGiven:
    return make_given(name, args, unit=unit)


def given(name: str, *coordinates: sp.Symbol, unit: str | None = None) -> Any:
    """An input of a family: a number, or a function of the coordinates (several names: a tuple).

    Args:
        name: The name, or several names separated by blanks.
        coordinates: What a function depends on, made by `coords`; none for a number.
        unit: Unit of the values, for plots and files.

    >>> from pinnkit.declare.symbols import coords
    >>> x = coords("x")
    >>> u0, a = given("u0"), given("a", x)
    >>> a.diff(x) + u0
    u0 + Derivative(a(x), x)
    """
    names = split_names(name, "given")
    wrote = f'given("{name}"{"".join(f", {c}" for c in coordinates)})'
    only = "{}; a given function depends on coordinates only"
    check_coordinates(coordinates, names, wrote, what="an input", only=only)
    made = tuple(
        make_given(n, coordinates, unit=unit) if coordinates else Given(n, unit=unit) for n in names
    )
    return made[0] if len(made) == 1 else made


def given_in(expr: Any) -> tuple[Any, ...]:
    """Every given number and function in an expression or matrix, by name."""
    atoms = expr.atoms(Given, AppliedGiven) if hasattr(expr, "atoms") else set()
    return tuple(sorted(atoms, key=lambda g: (g.name, str(g))))


def is_given_leaf(node: Any) -> bool:
    """True for a given number, a given function and its derivatives: known, but not yet."""
    inner = node.args[0] if isinstance(node, (sp.Derivative, sp.Subs)) else node
    if isinstance(inner, sp.Derivative):
        inner = inner.args[0]
    return isinstance(inner, (Given, AppliedGiven))
