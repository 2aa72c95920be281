"""Checks of a family: every input has a law that fits it, and every sample is complete.

In    a system with given symbols and the distributions; later the samples.
Out   both in the order of the given symbols, or a refusal in the user's own words.
Next  `declare.family.PDEFamily` keeps them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import sympy as sp

from pinnkit.declare.distributions import AbstractDistribution
from pinnkit.declare.given import AppliedGiven, Given
from pinnkit.declare.printing import refusal, show
from pinnkit.declare.problem import PDESystem

if TYPE_CHECKING:
    from pinnkit.declare.family import PDEFamily

__all__ = ["check_family", "read_sample"]


def check_family(system: Any, inputs: Any) -> dict[Any, AbstractDistribution]:
    """The distributions by given symbol, in the order of `normal_form.given`."""
    if not isinstance(system, PDESystem):
        raise refusal(
            f"PDEFamily({type(system).__name__}(...), ...)",
            "that is not a system of equations",
            "write PDEFamily(PDESystem(...), inputs={u0: Uniform(0, 1)})",
        )
    if not isinstance(inputs, Mapping):
        raise refusal(
            f"PDEFamily(system, inputs={inputs!r})",
            "that is not a dictionary",
            "write inputs={u0: Uniform(0, 1)}",
        )
    given = system.normal_form.given
    if not given:
        raise refusal(
            "PDEFamily(system, ...)",
            "nothing in the system is given, so all its members are the same",
            'write given("u0") for a number or given("a", x) for a function in its equations or '
            "conditions; one problem alone is solved by system.solve()",
        )
    if system.parameters:
        names = ", ".join(map(str, system.parameters))
        raise refusal(
            "PDEFamily(system, ...)",
            f"{names} is an unknown number, which every member would have another value of",
            "give it a value with system.remake(parameters=...), or declare it with given(...)",
        )
    for g, law in inputs.items():
        wrote = f"inputs={{{show(g)}: {law!r}}}"
        if not isinstance(g, (Given, AppliedGiven)):
            raise refusal(
                wrote,
                f"{show(g)} is not an input",
                f'declare it with given("{g}") and use that object in the system',
            )
        if g not in given:
            raise refusal(
                wrote,
                f"{show(g)} does not occur in the system",
                f"its inputs are {', '.join(map(show, given))}",
            )
        if not isinstance(law, AbstractDistribution):
            raise refusal(
                wrote,
                f"{law!r} is not a distribution",
                f"write Uniform(low, high), GaussianField(...) or the like; a fixed value belongs "
                f"into the system, in the place of {show(g)}",
            )
    for g in given:
        if g not in inputs:
            law = "GaussianField(length=...)" if isinstance(g, AppliedGiven) else "Uniform(0, 1)"
            raise refusal(
                f"PDEFamily(system, inputs of {', '.join(map(show, inputs)) or 'nothing'})",
                f"{show(g)} is given, but no distribution says how",
                f"add {show(g)}: {law}",
            )
        inputs[g].check(g, system.domain.bounds)
    return {g: inputs[g] for g in given}


def read_sample(family: PDEFamily, sample: Any) -> dict[Any, Any]:
    """{given: float or expression} in the order of `family.given`."""
    if not isinstance(sample, Mapping):
        raise TypeError(
            f"a sample is a dictionary {{input: value}}, as family.sample(n) gives, not {sample!r}"
        )
    by_name = {g.name: g for g in family.given}
    named = {by_name.get(k, k) if isinstance(k, str) else k: v for k, v in sample.items()}
    for k in named:
        if k not in family.inputs:
            raise ValueError(
                f"{show(k)} is no input of this family; it has {', '.join(map(show, family.given))}"
            )
    missing = [g for g in family.given if g not in named]
    if missing:
        raise ValueError(f"the sample gives no value for {show(missing[0])}")
    return {g: _read_value(g, named[g]) for g in family.given}


def _read_value(g: Any, value: Any) -> Any:
    try:
        if isinstance(value, (str, bool)):
            raise TypeError
        if not isinstance(g, AppliedGiven):
            number = float(value)
            if not math.isfinite(number):
                raise TypeError
            return number
        expr = sp.sympify(value)
        if not isinstance(expr, sp.Expr):
            raise TypeError
    except (TypeError, ValueError, sp.SympifyError):
        wanted = "an expression in its coordinates" if isinstance(g, AppliedGiven) else "a number"
        raise ValueError(f"the value of {show(g)} is {wanted}, not {value!r}") from None
    strangers = sorted(expr.free_symbols - set(g.args), key=str)
    if strangers:
        own = ", ".join(map(str, g.args))
        raise ValueError(f"the value of {show(g)}({own}) contains {strangers[0]}, not only {own}")
    return expr
