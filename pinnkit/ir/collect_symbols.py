"""Pass 1: who is who. Coordinates, time, fields and unknown numbers, each declared once.

In    a `PDESystem`.
Out   `Symbols`, or a refusal naming the symbol nobody declared.
Next  all later passes take the roles from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sympy as sp
from sympy.core.function import AppliedUndef

from pinnkit.declare.conditions import AbstractCondition, Observations
from pinnkit.declare.given import AppliedGiven, Given
from pinnkit.declare.printing import refusal, show
from pinnkit.declare.stochastic import Neural
from pinnkit.declare.symbols import AppliedField, Coordinate, Parameter
from pinnkit.ir.checks_equations import check_nodes
from pinnkit.ir.collect_given import collect_given
from pinnkit.ir.collect_neurals import collect_neurals

if TYPE_CHECKING:
    from pinnkit.declare.problem import PDESystem

__all__ = ["Symbols", "collect_symbols"]


@dataclass(frozen=True)
class Symbols:
    """The roles of all symbols of a problem."""

    coords: tuple[sp.Symbol, ...]
    time: sp.Symbol | None
    space: tuple[sp.Symbol, ...]
    ends: Mapping[sp.Symbol, tuple[sp.Expr, sp.Expr]]
    bounds: Mapping[sp.Symbol, tuple[float, float]]
    region: Any
    fields: tuple[AppliedField, ...]  # as declared, complex ones unsplit
    parameters: tuple[Parameter, ...]
    given: tuple[Any, ...] = ()  # numbers and functions that a family is to draw, by name
    neurals: tuple[Neural, ...] = ()


def collect_symbols(system: PDESystem) -> Symbols:
    """Find coordinates, fields and parameters; refuse what is undeclared or declared twice."""
    domain = system.domain
    coords = domain.coords
    times = [c for c in coords if getattr(c, "is_time", False)]
    if len(times) > 1:
        raise refusal(
            f"domain={domain!r}",
            f"it has two time coordinates, {times[0]} and {times[1]}",
            'declare one of them as space, for example coords("z t", time="z")',
        )
    sources = [(f"equation {i}, {show(e)}", e) for i, e in enumerate(system.equations, 1)]
    sources += [(repr(c), e) for c in system.conditions for e in c.exprs]
    for where, expr in sources:
        check_nodes(expr, where, coords, in_equation=where.startswith("equation"))
    neurals = collect_neurals(sources, coords)
    # What networks see has fields and unknown numbers of its own.
    sources += [(f'neural("{n}")', entry) for n in neurals for entry in n.inputs]
    fields = _collect_fields(system, sources, coords)
    given = collect_given(sources, coords)
    parameters = _collect_parameters(sources, coords)
    _check_names(coords, fields, parameters, given)
    _check_fields_have_equations(system, fields)
    for c in coords:
        if not any(c in f.args for f in fields):
            raise refusal(
                f"domain={domain!r}",
                f"no field depends on {c}",
                f"drop {c} from the domain, or declare the field over {c}",
            )
    return Symbols(
        coords=coords,
        time=times[0] if times else None,
        space=tuple(c for c in coords if c not in times),
        ends=domain.ends,
        bounds=domain.bounds,
        region=domain.region,
        fields=fields,
        parameters=parameters,
        given=given,
        neurals=neurals,
    )


def _collect_fields(
    system: PDESystem, sources: list[tuple[str, Any]], coords: tuple[sp.Symbol, ...]
) -> tuple[AppliedField, ...]:
    found: dict[str, AppliedField] = {}
    # First the plain ones u(t, x): they say what the others, u(t, 0), should have been.
    for _, expr in sources:
        for f in sorted(expr.atoms(AppliedField), key=lambda f: f.name):
            if all(isinstance(a, Coordinate) for a in f.args):
                found.setdefault(f.name, f)
    for where, expr in sources:
        for f in sorted(expr.atoms(AppliedUndef) - expr.atoms(AppliedGiven), key=str):
            if not isinstance(f, AppliedField):
                raise refusal(
                    where,
                    f"the function {f} is unknown",
                    f'declare it as an unknown with field("{f.func}", ...), or write it out',
                )
            in_condition = not where.startswith("equation")
            _check_arguments(f, found.get(f.name), where, coords, in_condition)
    return tuple(found.values())


def _check_arguments(
    f: AppliedField,
    plain: AppliedField | None,
    where: str,
    coords: tuple[sp.Symbol, ...],
    in_condition: bool,
) -> None:
    """u must stand as u(t, x): other arguments are traces, delays or mistakes."""
    written = f"{f.name}({', '.join(map(show, f.args))})"
    for a in f.args:
        if isinstance(a, Coordinate):
            if a not in coords:
                raise refusal(
                    where,
                    f"{f.name} depends on {a}, but the domain has no {a}",
                    f"multiply the domain by Interval({a}, ..., ...)",
                )
            continue
        if in_condition:
            raise refusal(
                where,
                f"{written} fixes the place inside the field",
                f"write the field {show(plain or f)} itself; Initial stands at the start, and "
                "on=boundary(x) or on=sp.Eq(x, ...) names the place",
            )
        moved = sorted(a.free_symbols, key=str)
        if moved and any(getattr(c, "is_time", False) for c in moved):
            raise refusal(
                where,
                f"{written} is a delay: the field at another time",
                "problems with delay are not supported; approximate the delay by additional "
                "fields (a chain of first-order lags) or expand it in the lag",
            )
        what = (
            f"{written} is the field at a shifted point"
            if moved
            else f"{written} is a trace: the field at one fixed point or side"
        )
        raise refusal(
            where,
            what,
            "equations hold point by point; declare the trace as a field of its own over the "
            "remaining coordinates and tie it to the field by a condition on the boundary",
        )
    if plain is not None and f != plain:
        same = f.name == plain.name and f.args == plain.args
        raise refusal(
            where,
            f"{f.name} is declared twice with different properties"
            if same
            else f"{f.name} is used with wrong arguments: as {written} and as "
            f"{plain.name}({', '.join(map(show, plain.args))})",
            "declare the field once with field(...) and use that object everywhere",
        )


def _collect_parameters(
    sources: list[tuple[str, Any]], coords: tuple[sp.Symbol, ...]
) -> tuple[Parameter, ...]:
    found: dict[str, Parameter] = {}
    for where, expr in sources:
        for s in sorted(expr.free_symbols, key=str):
            if isinstance(s, Parameter):
                if found.setdefault(s.name, s) != s:
                    raise refusal(
                        where,
                        f"the unknown number {s} is declared twice with different properties",
                        "declare it once with parameter(...) and use that object everywhere",
                    )
            elif isinstance(s, (Given, Neural)):
                continue  # collected apart
            elif isinstance(s, Coordinate):
                if s not in coords:
                    twin = next((c for c in coords if c.name == s.name), None)
                    raise refusal(
                        where,
                        f"the coordinate {s} is not in the domain"
                        if twin is None
                        else f"{s} is declared twice with different properties",
                        f"multiply the domain by Interval({s}, ..., ...)"
                        if twin is None
                        else "declare it once with coords(...) and use that object everywhere",
                    )
            else:
                raise refusal(
                    where,
                    f"the symbol {s} is unknown",
                    f'write coords("{s}") for a coordinate, parameter("{s}") for an unknown '
                    "number, or put its value",
                )
    return tuple(found.values())


def _check_names(
    coords: tuple[sp.Symbol, ...],
    fields: tuple[AppliedField, ...],
    parameters: tuple[Parameter, ...],
    given: tuple[Any, ...],
) -> None:
    seen: dict[str, str] = {}
    roles = [(c.name, "a coordinate") for c in coords]
    roles += [(f.name, "a field") for f in fields]
    roles += [(p.name, "an unknown number") for p in parameters]
    roles += [(g.name, "an input") for g in given]
    for name, role in roles:
        if name in seen:
            raise refusal(
                f"the name {name}",
                f"it is used twice, for {seen[name]} and for {role}",
                "give one of them another name",
            )
        seen[name] = role


def _check_fields_have_equations(system: PDESystem, fields: tuple[AppliedField, ...]) -> None:
    in_equations = set().union(*(e.atoms(AppliedField) for e in system.equations))
    observed = {f for f in fields if _is_observed(f, system.conditions)}
    if not in_equations:
        raise refusal(
            f"equation 1, {show(system.equations[0])}",
            "it contains no field, so nothing is unknown",
            'declare an unknown with field("u", t, x) and write an equation for it',
        )
    for f in fields:
        if f not in in_equations and f not in observed:
            raise refusal(
                f"the field {show(f)}",
                "no equation and no Observations contain it, only conditions",
                f"add an equation for {show(f)} or drop its conditions",
            )
    count = sum(_rows(e) for e in system.equations)
    names = ", ".join(map(show, fields))
    if count < len(fields) and not observed:
        raise refusal(
            f"{count} equation(s) for {len(fields)} fields, {names}",
            "the fields without an equation of their own are undetermined",
            "add the missing equations, or Observations of the field",
        )
    if count > len(fields):
        raise refusal(
            f"{count} equations for {len(fields)} field(s), {names}",
            "the system is over-determined",
            "drop the equations that follow from the others, or declare the missing field",
        )


def _rows(equation: Any) -> int:
    """How many scalar equations an equation stands for."""
    side: Any = equation.lhs if isinstance(equation, sp.Equality) else equation
    return len(side) if isinstance(side, sp.MatrixBase) else 1


def _is_observed(f: AppliedField, conditions: tuple[AbstractCondition, ...]) -> bool:
    return any(isinstance(c, Observations) and c.expr.has(f) for c in conditions)
