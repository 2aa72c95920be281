"""Expressions as the user wrote them, for messages: u.diff(x, 2), not Derivative(u(t, x), (x, 2)).

In    sympy expressions of a declaration.
Out   short text; `refusal` joins the three parts of every `DeclarationError`.
Next  all checks of `declare` and `ir` speak through here.
"""

from __future__ import annotations

from typing import Any

import sympy as sp
from sympy.core.function import AppliedUndef
from sympy.printing.str import StrPrinter

from pinnkit.errors import DeclarationError

__all__ = ["refusal", "show", "show_number"]

_LONGEST = 160


class _UserPrinter(StrPrinter):
    """sympy's text with fields by name and derivatives as method calls."""

    def _print_AppliedUndef(self, expr: Any) -> str:
        # Arguments are shown only where they are not the plain coordinates.
        if all(isinstance(a, sp.Symbol) for a in expr.args):
            return str(expr.func.__name__)
        return f"{expr.func.__name__}({', '.join(self._print(a) for a in expr.args)})"

    def _print_Function(self, expr: Any) -> str:
        if isinstance(expr, AppliedUndef):
            return self._print_AppliedUndef(expr)
        return super()._print_Function(expr)

    def _print_Derivative(self, expr: Any) -> str:
        steps = ", ".join(
            self._print(s) if n == 1 else f"{self._print(s)}, {n}" for s, n in expr.variable_count
        )
        inner = self._print(expr.expr)
        return (
            f"({inner}).diff({steps})"
            if expr.expr.is_Add or expr.expr.is_Mul
            else f"{inner}.diff({steps})"
        )

    def _print_Div(self, expr: Any) -> str:
        parts = [self._print(f) for f in expr.flux]
        return f"div({parts[0]})" if len(parts) == 1 else f"div([{', '.join(parts)}])"

    def _print_NormalDerivative(self, expr: Any) -> str:
        return f"dn({self._print(expr.args[0])})"

    def _print_Equality(self, expr: Any) -> str:
        return f"{self._print(expr.lhs)} = {self._print(expr.rhs)}"

    def _print_Float(self, expr: Any) -> str:
        return show_number(float(expr))


def show(expr: Any) -> str:
    """The expression in the user's own symbols, shortened in the middle if very long.

    >>> import sympy as sp
    >>> show(sp.Function("u")(sp.Symbol("x")).diff(sp.Symbol("x"), 2))
    'u.diff(x, 2)'
    """
    if not isinstance(expr, (sp.Basic, sp.MatrixBase)):
        return repr(expr)
    if isinstance(expr, sp.MatrixBase):
        rows = [", ".join(map(show, expr.row(i))) for i in range(expr.rows)]
        flat = expr.cols == 1
        return f"[{', '.join(rows)}]" if flat else "[" + ", ".join(f"[{r}]" for r in rows) + "]"
    text = _UserPrinter().doprint(expr)
    if len(text) > _LONGEST:
        half = (_LONGEST - 5) // 2
        text = f"{text[:half]} ... {text[-half:]}"
    return text


def show_number(value: float) -> str:
    """A number with as many digits as a reader wants.

    >>> show_number(0.1 + 0.2), show_number(-1.0)
    ('0.3', '-1')
    """
    return f"{value:.6g}"


def refusal(wrote: str, wrong: str, instead: str) -> DeclarationError:
    """The error with its three parts: what you wrote, what is wrong, what to write instead."""
    end = instead[:1].upper() + instead[1:]
    return DeclarationError(f"{wrote}: {wrong}. {end}{'' if end.endswith('.') else '.'}")
