"""A problem as LaTeX: equations, domain, conditions.

In    a `PDESystem`.
Out   an aligned environment.
Next  papers, notebooks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sympy as sp
from sympy.core.function import AppliedUndef
from sympy.printing.latex import LatexPrinter

from pinnkit.declare.conditions import (
    Dirichlet,
    Gauge,
    Initial,
    Integral,
    Neumann,
    Observations,
    Periodic,
    Robin,
)

if TYPE_CHECKING:
    from pinnkit.declare.problem import PDESystem

__all__ = ["latex_of"]


class _Latex(LatexPrinter):
    """Fields without their arguments, derivatives as subscripts, div and dn as mathematics."""

    def _print_AppliedUndef(self, expr: Any, exp: Any = None) -> str:
        base = self._print(sp.Symbol(expr.func.__name__))
        return base if exp is None else f"{base}^{{{exp}}}"

    def _print_Function(self, expr: Any, exp: Any = None) -> str:
        if isinstance(expr, AppliedUndef):
            return self._print_AppliedUndef(expr, exp)
        return super()._print_Function(expr, exp)

    def _print_Derivative(self, expr: Any) -> str:
        steps = "".join(self._print(c) * int(n) for c, n in expr.variable_count)
        return f"\\partial_{{{steps}}} {self._print(expr.expr)}"

    def _print_Div(self, expr: Any) -> str:
        parts = ",\\; ".join(self._print(f) for f in expr.flux)
        return f"\\nabla\\cdot\\left({parts}\\right)"

    def _print_NormalDerivative(self, expr: Any) -> str:
        return f"\\partial_n {self._print(expr.args[0])}"


def latex_of(system: PDESystem) -> str:
    """Equations, domain and conditions, one per line."""
    write = _Latex().doprint
    lines = []
    for e in system.equations:
        left, right = (e.lhs, e.rhs) if isinstance(e, sp.Equality) else (e, sp.S.Zero)
        lines.append(f"{write(left)} &= {write(right)}")
    ranges = ",\\; ".join(
        f"{write(a)} \\le {write(c)} \\le {write(b)}" for c, (a, b) in system.domain.ends.items()
    )
    lines.append(f"&{ranges}")
    lines += [_condition(c, system, write) for c in system.conditions]
    return "\\begin{aligned}\n" + " \\\\\n".join(lines) + "\n\\end{aligned}"


def _condition(condition: Any, system: PDESystem, write: Any) -> str:
    if isinstance(condition, Initial):
        coord = condition.at if condition.at is not None else system.normal_form.time
        start = write(system.domain.ends[coord][0])  # type: ignore[index]
        left, right = write(condition.expr), write(condition.value)
        return f"{left} &= {right} \\quad \\text{{at }} {write(coord)} = {start}"
    if isinstance(condition, (Dirichlet, Neumann, Robin)):
        left = write(condition.expr)
        left = f"\\partial_n {left}" if isinstance(condition, Neumann) else left
        places = ",\\; ".join(_place(b, write) for b in condition.on)
        return f"{left} &= {write(condition.value)} \\quad \\text{{on }} {places}"
    if isinstance(condition, Periodic):
        names, axes = (
            ",\\; ".join(map(write, part)) for part in (condition.fields, condition.axes)
        )
        return f"{names} &\\quad \\text{{periodic in }} {axes}"
    if isinstance(condition, Gauge):
        return f"\\operatorname{{mean}} {write(condition.expr)} &= {write(condition.mean)}"
    if isinstance(condition, Integral):
        over = " ".join(f"\\mathrm{{d}}{write(c)}" for c in condition.over)
        return f"\\int {write(condition.expr)}\\, {over} &= {write(condition.equals)}"
    if isinstance(condition, Observations):
        where = f"observed at {len(condition.values)} points"
        where += f" of run {condition.run}" if condition.run else ""
        return f"{write(condition.expr)} &\\quad \\text{{{where}}}"
    raise NotImplementedError(type(condition).__name__)


def _place(part: Any, write: Any) -> str:
    where = "" if part.where == sp.true else f" \\text{{ where }} {write(part.where)}"
    if part.region is not None:
        return f"\\partial\\Omega{where}"
    if part.value is not None:
        return f"{write(part.coord)} = {write(part.value)}{where}"
    end = {"left": "lower end of ", "right": "upper end of ", None: "both ends of "}[part.side]
    return f"\\text{{{end}}} {write(part.coord)}{where}"
