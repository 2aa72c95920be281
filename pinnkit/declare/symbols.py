"""Symbols of a declaration: coordinates, fields, vectors of fields, unknown numbers.

In    names, as in `sympy.symbols`.
Out   `Coordinate`, `Parameter` (sympy symbols) and applied fields such as u(t, x).
Next  ordinary sympy expressions of them are the equations of a `PDESystem`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import sympy as sp
from sympy.core.function import AppliedUndef, UndefinedFunction

from pinnkit.declare.declared_symbol import DeclaredSymbol, make_declared
from pinnkit.declare.printing import refusal

__all__ = [
    "AppliedField",
    "Coordinate",
    "Parameter",
    "check_coordinates",
    "coords",
    "field",
    "fields_in",
    "is_field",
    "make_field",
    "parameter",
    "read_names",
    "split_names",
    "vector",
]


class Coordinate(DeclaredSymbol):
    """A real coordinate. `is_time` marks the time axis; `scale` and `unit` are optional."""

    __slots__ = ("is_time", "scale", "unit")
    _declared = ("is_time", "scale", "unit")

    is_time: bool
    scale: float | None
    unit: str | None

    def __new__(
        cls,
        name: str,
        *,
        is_time: bool = False,
        scale: float | None = None,
        unit: str | None = None,
    ) -> Coordinate:
        return make_declared(cls, name, {"is_time": is_time, "scale": scale, "unit": unit})


class Parameter(DeclaredSymbol):
    """An unknown real number, to be determined. `initial` is a guess, `bounds` = (lower, upper)."""

    __slots__ = ("bounds", "initial", "unit")
    _declared = ("initial", "bounds", "unit")

    initial: float | None
    bounds: tuple[float, float] | None
    unit: str | None

    def __new__(
        cls,
        name: str,
        *,
        initial: float | None = None,
        bounds: tuple[float, float] | None = None,
        unit: str | None = None,
    ) -> Parameter:
        return make_declared(cls, name, {"initial": initial, "bounds": bounds, "unit": unit})

    @property
    def guess(self) -> float:
        """The number to start from: `initial`, else the middle of the bounds, else 1."""
        if self.initial is not None:
            return self.initial
        return 0.5 * (self.bounds[0] + self.bounds[1]) if self.bounds else 1.0


class AppliedField(AppliedUndef):
    """An unknown function at its coordinates, u(t, x). `u.diff(x)` is its derivative."""

    # Set per field by `make_field`; class attributes because sympy compares functions by them.
    field_complex: bool = False
    field_scale: float | None = None
    field_unit: str | None = None

    @property
    def is_complex_valued(self) -> bool:
        """True for a field declared with complex=True."""
        return type(self).field_complex

    @property
    def scale(self) -> float | None:
        """The user's estimate of the field's size."""
        return type(self).field_scale

    @property
    def unit(self) -> str | None:
        """The unit of the field's values."""
        return type(self).field_unit

    # No __call__: sympy's Pow takes callable functions for operators, (s**2).subs(s, u) = u(2).

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        meta = {
            "complex": self.is_complex_valued,
            "scale": self.scale,
            "unit": self.unit,
        }
        return _rebuild, (make_field, (self.name, self.args), meta)


def _rebuild(make: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return make(*args, **kwargs)


def make_field(
    name: str,
    args: Iterable[sp.Expr],
    *,
    complex: bool = False,
    scale: float | None = None,
    unit: str | None = None,
) -> AppliedField:
    """u(args) without any check; `field` is the public door."""
    kind = {"complex": True} if complex else {"real": True}
    function = UndefinedFunction(
        name,
        bases=(AppliedField,),
        field_complex=complex,
        field_scale=scale,
        field_unit=unit,
        **kind,
    )
    return function(*args)  # type: ignore[return-value]


def coords(
    names: str,
    *,
    time: str | None = None,
    scale: float | None = None,
    unit: str | None = None,
) -> Any:
    """Coordinates, as in `sympy.symbols`: one name gives one symbol, several a tuple.

    Args:
        names: Names separated by blanks or commas.
        time: The name of the time coordinate; without it, the coordinate named t is time.
        scale: A typical length (or duration), if the domain's extent is not one.
        unit: Unit of the values, for plots and files.

    >>> t, x = coords("t x")
    >>> x == coords("x"), t.is_time, x.is_time
    (True, True, False)
    """
    parts = split_names(names, "coords")
    if time is not None and time not in parts:
        raise refusal(
            f'coords("{names}", time="{time}")',
            f"{time} is not among the names",
            f"write time={parts[0]!r} or add {time} to the names",
        )
    if "extrapolate" in parts:
        raise refusal(
            f'coords("{names}")',
            "sol(extrapolate=True) means something else",
            "give the coordinate another name",
        )
    _check_scale(scale, f'coords("{names}")')
    made = tuple(
        Coordinate(n, is_time=(n == (time or "t")), scale=_as_float(scale), unit=unit)
        for n in parts
    )
    return made[0] if len(made) == 1 else made


def field(
    name: str,
    *coordinates: sp.Symbol,
    complex: bool = False,
    scale: float | None = None,
    unit: str | None = None,
) -> Any:
    """An unknown function of the coordinates (several names give a tuple).

    Args:
        name: The name, or several names separated by blanks.
        coordinates: What it depends on, made by `coords`.
        complex: True for complex values; one pass splits it into two real fields.
        scale: A typical size of the values, if known.
        unit: Unit of the values, for plots and files.

    >>> t, x = coords("t x")
    >>> u = field("u", t, x)
    >>> u.diff(x, 2)
    Derivative(u(t, x), (x, 2))
    """
    names = split_names(name, "field")
    wrote = f'field("{name}", {", ".join(map(str, coordinates))})'
    if not coordinates:
        raise refusal(
            f'field("{name}")',
            "a field needs coordinates to depend on",
            f'write field("{name}", t, x), or parameter("{name}") for an unknown number',
        )
    only = "{} and keep other arguments out of the field"
    check_coordinates(coordinates, names, wrote, what="a field", only=only)
    _check_scale(scale, wrote)
    made = tuple(
        make_field(n, coordinates, complex=complex, scale=_as_float(scale), unit=unit)
        for n in names
    )
    return made[0] if len(made) == 1 else made


def vector(
    name: str,
    *coordinates: sp.Symbol,
    complex: bool = False,
    scale: float | None = None,
    unit: str | None = None,
) -> sp.ImmutableDenseMatrix:
    """A column of fields, one per space coordinate: vector("v", t, x, y) has v_x and v_y.

    >>> t, x, y = coords("t x y")
    >>> list(vector("v", t, x, y))
    [v_x(t, x, y), v_y(t, x, y)]
    """
    space = [c for c in coordinates if not getattr(c, "is_time", False)]
    if not space:
        raise refusal(
            f'vector("{name}")',
            "a vector has one component per space coordinate, and none is given",
            f'write vector("{name}", t, x, y)',
        )
    return sp.ImmutableDenseMatrix(
        [
            field(f"{name}_{c.name}", *coordinates, complex=complex, scale=scale, unit=unit)
            for c in space
        ]
    )


def parameter(
    name: str,
    *,
    initial: float | None = None,
    bounds: tuple[float, float] | None = None,
    unit: str | None = None,
) -> Any:
    """An unknown number (several names give a tuple), with a first guess and bounds if known.

    >>> parameter("nu", initial=0.1, bounds=(0, 1)).bounds
    (0.0, 1.0)
    """
    names = split_names(name, "parameter")
    wrote = f'parameter("{name}", initial={initial}, bounds={bounds})'
    lohi: tuple[float, float] | None = None
    if bounds is not None:
        if not isinstance(bounds, Iterable) or isinstance(bounds, str) or len(tuple(bounds)) != 2:
            raise refusal(wrote, "bounds are a pair", "write bounds=(lower, upper)")
        low, high = (_as_float(b, f'parameter("{name}"): a bound') for b in bounds)
        if low is None or high is None:
            raise refusal(wrote, "a bound is missing", "write a wide one, or no bounds")
        if not low < high:
            raise refusal(wrote, f"the bounds ({low:g}, {high:g}) are empty", "write lower < upper")
        lohi = (low, high)
    guess = _as_float(initial, f'parameter("{name}"): initial')
    if (guess is not None and guess != guess) or guess in (float("inf"), float("-inf")):
        raise refusal(wrote, "the initial guess is not finite", "write a finite number")
    if guess is not None and lohi is not None and not lohi[0] <= guess <= lohi[1]:
        raise refusal(
            wrote,
            f"the initial guess {guess:g} lies outside its bounds",
            "move the guess or widen the bounds",
        )
    made = tuple(Parameter(n, initial=guess, bounds=lohi, unit=unit) for n in names)
    return made[0] if len(made) == 1 else made


def is_field(expr: Any) -> bool:
    """True for a plain field u(t, x), not for its derivatives."""
    return isinstance(expr, AppliedField)


def fields_in(expr: Any) -> tuple[AppliedField, ...]:
    """Every field in an expression or matrix, by name."""
    atoms = expr.atoms(AppliedField) if hasattr(expr, "atoms") else set()
    return tuple(sorted(atoms, key=lambda f: (f.name, str(f))))


def check_coordinates(
    coordinates: Sequence[Any], names: Sequence[str], wrote: str, *, what: str, only: str
) -> None:
    """Refuse what a function of the coordinates cannot depend on.

    Args:
        coordinates: What it depends on.
        names: Of the functions declared together.
        wrote: What the user wrote.
        what: What is declared, "a field".
        only: The advice where something is no coordinate; {} is how to make one.
    """
    for c in coordinates:
        if not isinstance(c, Coordinate):
            instead = only.format(f'make it with coords("{c}")')
            raise refusal(wrote, f"{c} is not a coordinate", instead)
    if len(set(coordinates)) < len(coordinates):
        raise refusal(wrote, "a coordinate is used twice", "name each coordinate once")
    for n in names:
        if n in {c.name for c in coordinates}:
            raise refusal(
                wrote,
                f"the name {n} is used twice, for a coordinate and for {what}",
                f"give the {what.split()[-1]} another name",
            )


def read_names(names: str, door: str) -> list[str]:
    """The names in a string, separated by blanks or commas."""
    parts = names.replace(",", " ").split()
    bad = [p for p in parts if not p.isidentifier()]
    if not parts or bad:
        raise refusal(
            f'{door}("{names}")',
            f"{bad[0]!r} is not a name" if bad else "no name is given",
            "use letters, digits and underscores, separated by blanks",
        )
    return parts


def split_names(names: str, door: str) -> list[str]:
    """As `read_names`, each name once."""
    if not isinstance(names, str):
        raise refusal(f"{door}({names!r})", "names are a string", f'write {door}("u")')
    parts = read_names(names, door)
    if len(set(parts)) < len(parts):
        twice = next(p for p in parts if parts.count(p) > 1)
        raise refusal(f'{door}("{names}")', f"the name {twice} is used twice", "name each once")
    return parts


def _check_scale(scale: float | None, wrote: str) -> None:
    number = _as_float(scale, f"{wrote}: scale")
    if number is not None and not 0 < number < float("inf"):
        raise refusal(wrote, f"scale={scale} is not a positive number", "write a typical size")


def _as_float(value: Any, wrote: str = "") -> float | None:
    if value is None:
        return None
    try:
        if isinstance(value, (str, bool)):
            raise TypeError
        return float(sp.sympify(value))
    except (TypeError, ValueError, sp.SympifyError):
        raise refusal(f"{wrote}={value!r}", "it is not a number", "write a real number") from None
