"""Pass 3: complex fields become two real ones; a complex residual becomes two real ones.

In    expressions in the user's fields.
Out   pairs (real part, imaginary part) in real fields psi_re, psi_im.
Next  everything after this pass is real; `NormalForm.complex_fields` leads back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy as sp

from pinnkit.declare.operators import Div, NormalDerivative
from pinnkit.declare.printing import refusal, show
from pinnkit.declare.symbols import AppliedField, make_field
from pinnkit.ir.leaves import freeze, settle

__all__ = ["ComplexSplit", "make_split", "split_equations"]


@dataclass(frozen=True)
class ComplexSplit:
    """The real fields of a problem and how the complex ones are made of them."""

    fields: tuple[AppliedField, ...]
    parts: Mapping[sp.Expr, tuple[sp.Expr, sp.Expr]]

    def __call__(self, expr: Any) -> tuple[sp.Expr, sp.Expr]:
        """Real and imaginary part of an expression, in real fields."""
        expr = sp.sympify(expr)
        if not self.parts and not expr.has(sp.I):
            return expr, sp.S.Zero
        whole = expr.xreplace({psi: a + sp.I * b for psi, (a, b) in self.parts.items()})
        return self._split(settle(whole, keep=lambda node: True))

    def _split(self, expr: Any) -> tuple[sp.Expr, sp.Expr]:
        inner: dict[Any, Any] = {}  # a real symbol for every real Div and dn
        back: dict[sp.Expr, sp.Expr] = {}

        def stand_in(node: sp.Expr) -> sp.Expr:
            if node == 0:
                return sp.S.Zero
            symbol = sp.Dummy("part", real=True)
            back[symbol] = node
            return symbol

        for node in expr.atoms(Div, NormalDerivative):
            if isinstance(node, Div):
                pairs = [self._split(f) for f in node.flux]
                re, im = (Div([p[i] for p in pairs], node.coordinates) for i in (0, 1))
                re, im = (sp.S.Zero if not any(p.flux) else p for p in (re, im))
            else:
                re, im = (
                    NormalDerivative(p) if p != 0 else sp.S.Zero for p in self._split(node.args[0])
                )
            inner[node] = stand_in(re) + sp.I * stand_in(im)
        # Leaves become real symbols, since sympy does not know that u.diff(x) is real.
        frozen = freeze([expr.xreplace(inner)])
        re, im = sp.expand_mul(frozen.exprs[0]).as_real_imag()
        return tuple(frozen.thaw(p).xreplace(back) for p in (re, im))  # type: ignore[return-value]


def make_split(fields: Sequence[AppliedField], taken: Sequence[str] = ()) -> ComplexSplit:
    """psi_re and psi_im for every complex psi; real fields stay."""
    names = {f.name for f in fields} | set(taken)
    real: list[AppliedField] = []
    parts: dict[sp.Expr, tuple[sp.Expr, sp.Expr]] = {}
    for f in fields:
        if not f.is_complex_valued:
            real.append(f)
            continue
        pair = []
        for ending in ("re", "im"):
            name = f"{f.name}_{ending}"
            while name in names:
                name += "_"
            names.add(name)
            args: Any = f.args
            pair.append(make_field(name, args, scale=f.scale, unit=f.unit))
        real += pair
        parts[f] = (pair[0], pair[1])
    return ComplexSplit(tuple(real), parts)


def split_equations(
    residuals: Sequence[tuple[str, sp.Expr]], split: ComplexSplit
) -> list[tuple[str, sp.Expr]]:
    """One or two real residuals per equation; a complex equation of real fields is refused."""
    out: list[tuple[str, sp.Expr]] = []
    for label, residual in residuals:
        re, im = split(residual)
        if im == 0:
            out.append((label, re))
        elif re == 0:
            out.append((label, im))
        elif any(residual.has(psi) for psi in split.parts):
            out += [(f"{label} (real part)", re), (f"{label} (imaginary part)", im)]
        else:
            raise refusal(
                f"{label}, {show(residual)}",
                "it is complex, but all its fields are real",
                'declare the field with field("psi", ..., complex=True)',
            )
    return out
