"""Conditions: what holds at the start, on the boundary, on average, and at measured points.

In    fields or expressions, values, and `on=` a part of the boundary.
Out   frozen records that say what the user wrote; nothing is interpreted here.
Next  `ir.place_conditions` puts them on faces, `ir.checks_conditions` counts them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import sympy as sp

from pinnkit.declare.boundaries import Boundary, read_boundary
from pinnkit.declare.operators import NormalDerivative
from pinnkit.declare.printing import refusal, show
from pinnkit.declare.symbols import AppliedField, Coordinate, fields_in

__all__ = [
    "AbstractCondition",
    "Dirichlet",
    "Gauge",
    "Initial",
    "Integral",
    "Neumann",
    "Observations",
    "Periodic",
    "Robin",
]


class AbstractCondition:
    """Base of all conditions; `exprs` lists every expression in it, for checks and substitutions."""

    @property
    def exprs(self) -> tuple[sp.Expr, ...]:
        """All sympy expressions of the condition."""
        return ()

    def subs(self, values: Mapping[sp.Basic, Any]) -> AbstractCondition:
        """The same condition with symbols replaced by numbers."""
        raise NotImplementedError


@final
@dataclass(frozen=True)
class Initial(AbstractCondition):
    """expr = value at the lower end of time, or of the coordinate `at`.

    A second-order equation needs it for u and for u.diff(t).
    """

    expr: Any
    value: Any
    at: sp.Symbol | None = None

    def __post_init__(self) -> None:
        _read_pair(self, "Initial")
        _check_known(self, "Initial", "write its value at the start, free of the unknown")
        if self.expr.has(NormalDerivative) or self.value.has(NormalDerivative):
            raise refusal(
                f"Initial({show(self.expr)}, {show(self.value)})",
                "dn is the derivative along the outward normal of a boundary",
                "write Initial(u.diff(t), value) for a velocity, Neumann(u, value, on=...) for dn",
            )
        if self.at is not None and not isinstance(self.at, Coordinate):
            raise refusal(
                f"Initial({show(self.expr)}, {show(self.value)}, at={show(self.at)})",
                f"{show(self.at)} is not a coordinate",
                "write at=x for data at the lower end of x",
            )

    @property
    def exprs(self) -> tuple[sp.Expr, ...]:
        """Left and right side."""
        return (self.expr, self.value)

    def subs(self, values: Mapping[sp.Basic, Any]) -> Initial:
        """With numbers for symbols."""
        return Initial(self.expr.subs(values), self.value.subs(values), self.at)

    def __repr__(self) -> str:
        at = "" if self.at is None else f", at={self.at}"
        return f"Initial({show(self.expr)}, {show(self.value)}{at})"


@final
@dataclass(frozen=True)
class Dirichlet(AbstractCondition):
    """u = value on a part of the boundary."""

    expr: Any
    value: Any = 0
    on: Any = None

    def __post_init__(self) -> None:
        _read_pair(self, "Dirichlet")
        _check_known(self, "Dirichlet", "write Robin(left - right, on=...) for a relation")
        bad = [e for e in _entries(self.expr) if not isinstance(e, AppliedField)]
        if bad:
            raise refusal(
                f"Dirichlet({show(self.expr)}, {show(self.value)})",
                f"{show(bad[0])} is not a field",
                f"write Robin({show(bad[0])} - ({show(self.value)}), on=...) for an expression",
            )
        _read_on(self, "Dirichlet")

    @property
    def exprs(self) -> tuple[sp.Expr, ...]:
        """Field and value."""
        return (self.expr, self.value)

    def subs(self, values: Mapping[sp.Basic, Any]) -> Dirichlet:
        """With numbers for symbols."""
        return Dirichlet(self.expr, self.value.subs(values), on=_subs_on(self.on, values))

    def __repr__(self) -> str:
        return f"Dirichlet({show(self.expr)}, {show(self.value)}, on={_show_on(self.on)})"


@final
@dataclass(frozen=True)
class Neumann(AbstractCondition):
    """dn(u) = value on a part of the boundary: the derivative along the outward normal."""

    expr: Any
    value: Any = 0
    on: Any = None

    def __post_init__(self) -> None:
        _read_pair(self, "Neumann")
        bad = [e for e in _entries(self.expr) if not isinstance(e, AppliedField)]
        if bad:
            raise refusal(
                f"Neumann({show(self.expr)}, {show(self.value)})",
                f"{show(bad[0])} is not a field",
                "write Neumann(u, value, on=...) for dn(u) = value, or Robin(expression, on=...)",
            )
        _read_on(self, "Neumann")

    @property
    def exprs(self) -> tuple[sp.Expr, ...]:
        """Field and value."""
        return (self.expr, self.value)

    def subs(self, values: Mapping[sp.Basic, Any]) -> Neumann:
        """With numbers for symbols."""
        return Neumann(self.expr, self.value.subs(values), on=_subs_on(self.on, values))

    def __repr__(self) -> str:
        return f"Neumann({show(self.expr)}, {show(self.value)}, on={_show_on(self.on)})"


@final
@dataclass(frozen=True)
class Robin(AbstractCondition):
    """expr = value on a part of the boundary, expr any expression in fields, derivatives and dn."""

    expr: Any
    value: Any = 0
    on: Any = None

    def __post_init__(self) -> None:
        _read_pair(self, "Robin")
        _read_on(self, "Robin")

    @property
    def exprs(self) -> tuple[sp.Expr, ...]:
        """Left and right side."""
        return (self.expr, self.value)

    def subs(self, values: Mapping[sp.Basic, Any]) -> Robin:
        """With numbers for symbols."""
        return Robin(self.expr.subs(values), self.value.subs(values), on=_subs_on(self.on, values))

    def __repr__(self) -> str:
        value = "" if self.value == 0 else f", {show(self.value)}"
        return f"Robin({show(self.expr)}{value}, on={_show_on(self.on)})"


@final
@dataclass(frozen=True, init=False)
class Periodic(AbstractCondition):
    """The fields and their derivatives, up to one below the highest order, repeat along the axes.

    `Periodic(u, x)`, `Periodic((u, v), x)`, `Periodic(u, x, y)`.
    """

    fields: tuple[AppliedField, ...]
    axes: tuple[sp.Symbol, ...]

    def __init__(self, fields: Any, *axes: sp.Symbol) -> None:
        names = tuple(_entries(fields))
        wrote = f"Periodic({', '.join(map(show, (*names, *axes)))})"
        for f in names:
            if not isinstance(f, AppliedField):
                raise refusal(wrote, f"{show(f)} is not a field", "write Periodic(u, x)")
        if not axes:
            raise refusal(wrote, "no axis is given", f"write Periodic({show(names[0])}, x)")
        for a in axes:
            if not isinstance(a, Coordinate):
                raise refusal(wrote, f"{show(a)} is not a coordinate", "write Periodic(u, x)")
        object.__setattr__(self, "fields", names)
        object.__setattr__(self, "axes", tuple(axes))

    @property
    def exprs(self) -> tuple[sp.Expr, ...]:
        """The fields."""
        return self.fields

    def subs(self, values: Mapping[sp.Basic, Any]) -> Periodic:
        """Itself: nothing to replace."""
        return self

    def __repr__(self) -> str:
        names = [show(f) for f in self.fields]
        first = names[0] if len(names) == 1 else f"({', '.join(names)})"
        return f"Periodic({first}, {', '.join(map(str, self.axes))})"


@final
@dataclass(frozen=True)
class Gauge(AbstractCondition):
    """The mean of a field that enters only through its derivatives (a pressure, a potential)."""

    expr: Any
    mean: Any = 0

    def __post_init__(self) -> None:
        if not isinstance(self.expr, AppliedField):
            raise refusal(
                f"Gauge({show(self.expr)})", "a gauge fixes one field", "write Gauge(p, mean=0)"
            )
        object.__setattr__(self, "mean", read_expr(self.mean, f"Gauge({show(self.expr)})"))

    @property
    def exprs(self) -> tuple[sp.Expr, ...]:
        """Field and mean."""
        return (self.expr, self.mean)

    def subs(self, values: Mapping[sp.Basic, Any]) -> Gauge:
        """With numbers for symbols."""
        return Gauge(self.expr, self.mean.subs(values))

    def __repr__(self) -> str:
        return f"Gauge({show(self.expr)}, mean={show(self.mean)})"


@final
@dataclass(frozen=True)
class Integral(AbstractCondition):
    """The integral of expr over the coordinates `over` equals `equals`."""

    expr: Any
    over: Any
    equals: Any = 0

    def __post_init__(self) -> None:
        over = tuple(self.over) if isinstance(self.over, (tuple, list)) else (self.over,)
        wrote = f"Integral({show(self.expr)}, over={', '.join(map(show, over))})"
        object.__setattr__(self, "expr", read_expr(self.expr, wrote))
        object.__setattr__(self, "equals", read_expr(self.equals, wrote))
        for c in over:
            if not isinstance(c, Coordinate):
                raise refusal(
                    wrote, f"{show(c)} is not a coordinate", "write over=x or over=(x, y)"
                )
        if not over or len(set(over)) < len(over):
            raise refusal(wrote, "the coordinates of `over` are empty or repeated", "write over=x")
        if not fields_in(self.expr):
            raise refusal(wrote, "no field is in the integrand", "integrate an unknown field")
        object.__setattr__(self, "over", over)

    @property
    def exprs(self) -> tuple[sp.Expr, ...]:
        """Integrand and value."""
        return (self.expr, self.equals)

    def subs(self, values: Mapping[sp.Basic, Any]) -> Integral:
        """With numbers for symbols."""
        return Integral(self.expr.subs(values), self.over, self.equals.subs(values))

    def __repr__(self) -> str:
        over = ", ".join(map(str, self.over))
        over = over if len(self.over) == 1 else f"({over})"
        return f"Integral({show(self.expr)}, over={over}, equals={show(self.equals)})"


@final
@dataclass(frozen=True, eq=False)
class Observations(AbstractCondition):
    """Measured values of an expression.

    Args:
        expr: A field, or any expression in fields and derivatives.
        points: {coord: (n,)} or an array (n, d) in the order of `problem.coords`.
        values: (n,) numbers.
        noise: Absolute standard deviation of the values; None means it is estimated.
        run: Which run of the system was observed, counted from 0. Runs obey the same equations, terms and
            unknown numbers from starts of their own, all at the lower end of time; what `Initial` says holds
            for each. `observe_runs` declares many at once. Only `NeuralODE` takes more than one.
    """

    expr: Any
    points: Any
    values: Any
    noise: float | None = None
    run: int = 0

    def __post_init__(self) -> None:
        wrote = f"Observations({show(self.expr)}, ...)"
        object.__setattr__(self, "expr", read_expr(self.expr, wrote))
        if not fields_in(self.expr):
            raise refusal(wrote, "no field is in the expression", "observe an unknown field")
        values = _read_array(self.values, wrote, "values", real=False)
        if values.ndim != 1 or len(values) == 0:
            raise refusal(
                wrote, f"values have the shape {values.shape}", "give one number per point, (n,)"
            )
        if isinstance(self.points, Mapping):
            points: Any = {
                c: np.broadcast_to(_read_array(p, wrote, f"points[{c}]"), values.shape).copy()
                if np.ndim(p) == 0 or np.shape(p) == values.shape
                else _wrong_length(wrote, f"points[{c}]", np.shape(p), values.shape)
                for c, p in self.points.items()
            }
        else:
            points = _read_array(self.points, wrote, "points")
            if points.ndim != 2 or len(points) != len(values):
                _wrong_length(wrote, "points", points.shape, (len(values), "d"))
        if self.noise is not None and not 0 < float(self.noise) < float("inf"):
            raise refusal(
                wrote,
                f"noise={self.noise} is not a positive standard deviation",
                "leave it out to have it estimated",
            )
        whole = isinstance(self.run, (int, np.integer)) and not isinstance(self.run, bool)
        if not whole or self.run < 0:
            raise refusal(wrote, f"run={self.run!r} is no number of a run", "write 0, 1, 2, ...")
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "run", int(self.run))

    @property
    def exprs(self) -> tuple[sp.Expr, ...]:
        """The observed expression."""
        return (self.expr,)

    def subs(self, values: Mapping[sp.Basic, Any]) -> Observations:
        """With numbers for symbols."""
        return Observations(self.expr.subs(values), self.points, self.values, self.noise, self.run)

    def __repr__(self) -> str:
        which = f", run {self.run}" if self.run else ""
        return f"Observations({show(self.expr)}, {len(self.values)} points{which})"


def read_expr(value: Any, wrote: str) -> Any:
    """A finite sympy expression (or column of them); anything else is refused."""
    if isinstance(value, (list, tuple)):
        value = sp.ImmutableDenseMatrix([read_expr(v, wrote) for v in value])
    if isinstance(value, sp.MatrixBase):
        for entry in value:
            read_expr(entry, wrote)
        return sp.ImmutableDenseMatrix(value)
    if (
        isinstance(value, (str, bool))
        or value is None
        or (callable(value) and not isinstance(value, sp.Basic))
    ):
        raise refusal(
            wrote,
            f"{value!r} is not an expression",
            "write numbers and sympy expressions in the coordinates, fields and parameters",
        )
    try:
        expr = sp.sympify(value)
    except (sp.SympifyError, TypeError, AttributeError):
        expr = None
    if not isinstance(expr, sp.Expr):
        raise refusal(
            wrote,
            f"{show(value)} is not an expression",
            "write numbers and sympy expressions in the coordinates, fields and parameters",
        )
    if expr.has(sp.nan, sp.oo, -sp.oo, sp.zoo):
        raise refusal(wrote, f"{show(expr)} is not finite", "write finite numbers only")
    return expr


def _read_pair(condition: Any, name: str) -> None:
    wrote = f"{name}({show(condition.expr)}, {show(condition.value)})"
    expr = read_expr(condition.expr, wrote)
    value = read_expr(condition.value, wrote)
    if not fields_in(expr) and not expr.has(NormalDerivative):
        raise refusal(wrote, f"{show(expr)} contains no field", f"write {name}(u, value)")
    if isinstance(expr, sp.MatrixBase):
        if not isinstance(value, sp.MatrixBase):
            # One number for every component; usually the zero of a no-slip wall.
            value = sp.ImmutableDenseMatrix([value] * len(expr))
        if len(value) != len(expr):
            raise refusal(
                wrote,
                f"{len(expr)} components are given {len(value)} values",
                "give one value per component",
            )
    elif isinstance(value, sp.MatrixBase):
        raise refusal(wrote, "a scalar is given a vector", "give one value")
    object.__setattr__(condition, "expr", expr)
    object.__setattr__(condition, "value", value)


def _check_known(condition: Any, name: str, instead: str) -> None:
    """Refuse u = u + 1: the value of a field must not contain the field itself."""
    for u, value in zip(_entries(condition.expr), _entries(condition.value)):
        if isinstance(u, AppliedField) and value.has(u):
            raise refusal(
                f"{name}({show(condition.expr)}, {show(condition.value)})",
                f"the value {show(value)} contains the unknown {show(u)} it is given for",
                instead,
            )


def _read_on(condition: Any, name: str) -> None:
    wrote = f"{name}({show(condition.expr)}, {show(condition.value)}, on={condition.on!r})"
    object.__setattr__(condition, "on", read_boundary(condition.on, wrote))


def _show_on(on: tuple[Boundary, ...]) -> str:
    parts = [repr(b) for b in on]
    return parts[0] if len(parts) == 1 else f"[{', '.join(parts)}]"


def _subs_on(on: tuple[Boundary, ...], values: Mapping[sp.Basic, Any]) -> tuple[Boundary, ...]:
    return tuple(b.subs(values) for b in on)


def _entries(expr: Any) -> list[Any]:
    if isinstance(expr, (list, tuple, sp.Tuple)):
        return [e for part in expr for e in _entries(part)]
    return expr.flat() if isinstance(expr, sp.MatrixBase) else [expr]


def _read_array(value: Any, wrote: str, name: str, real: bool = True) -> np.ndarray:
    try:
        array = np.array(value, dtype=None)
        array = array.astype(complex if np.iscomplexobj(array) and not real else float)
    except (TypeError, ValueError) as error:
        raise refusal(wrote, f"{name} are not numbers", "give arrays of numbers") from error
    if not np.isfinite(array).all():
        raise refusal(wrote, f"{name} contain nan or inf", "leave missing measurements out")
    return array


def _wrong_length(wrote: str, name: str, got: Any, expected: Any) -> Any:
    raise refusal(
        wrote, f"{name} have the shape {got}, expected {expected}", "give one point per value"
    )
