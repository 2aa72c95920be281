"""Evaluate any expression in the fields, their derivatives and the coordinates on an approximation.

In    an expression in the user's symbols, the `NormalForm` it belongs to, an `Approximation`.
Out   a function of points (n, d), real or complex, differentiable where the points are.
Next  `solution.solution` calls it for `sol[expr]`, residuals and plots.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import sympy as sp
import torch
from sympy.core.function import AppliedUndef
from torch import Tensor

from pinnkit.ir.normal_form import NormalForm
from pinnkit.lower.expressions import compile_expressions
from pinnkit.solution.answer import Approximation, Learned, Uncertain

__all__ = [
    "FieldExpressions",
    "field_name",
    "field_values",
    "in_problem_symbols",
    "relative_residual",
    "residual_columns",
    "user_fields",
]

CHUNK = 50_000  # points evaluated at once where no gradient is wanted: bounds the memory of jets


def in_problem_symbols(nf: NormalForm, expr: Any) -> Any:
    """`expr` with symbols and fields exchanged for the problem's own of the same name.

    A coordinate declared again without its unit, or as a plain `sympy.Symbol`, means the same axis.
    """
    expr = sp.sympify(expr)
    ours = {s.name: s for s in (*nf.coords, *nf.parameters)}
    expr = expr.xreplace(
        {s: ours[s.name] for s in expr.free_symbols if isinstance(s, sp.Symbol) and s.name in ours}
    )
    fields = {field_name(f): f for f in (*nf.fields, *user_fields(nf))}
    return expr.xreplace(
        {
            f: fields[field_name(f)]
            for f in expr.atoms(AppliedUndef)
            if field_name(f) in fields and f.args == fields[field_name(f)].args
        }
    )


def field_name(field: sp.Expr) -> str:
    """The name the user gave: "u" for u(t, x)."""
    return field.func.__name__


def user_fields(nf: NormalForm) -> tuple[sp.Expr, ...]:
    """The fields as declared: complex ones once, not as two real parts; in the order of `nf.fields`."""
    whole = {part: psi for psi, parts in nf.complex_fields.items() for part in parts}
    return tuple(dict.fromkeys(whole.get(f, f) for f in nf.fields))


class FieldExpressions:
    """Compiled expressions. Call with an approximation and points (n, d); each result has shape (n,).

    Args:
        nf: The problem whose fields the expressions hold.
        exprs: Expressions in the user's symbols (complex fields whole).
        parameters: Values of the problem's unknown parameters.
    """

    def __init__(
        self,
        nf: NormalForm,
        exprs: Sequence[sp.Expr],
        parameters: Mapping[sp.Symbol, float],
    ) -> None:
        self.nf, self.exprs, self.parameters = nf, tuple(exprs), dict(parameters)
        real_parts: list[sp.Expr] = []
        is_complex: list[bool] = []
        leaves: dict[sp.Expr, sp.Dummy] = {}
        self._terms: dict[sp.Symbol, sp.Dummy] = {}
        for expr in self.exprs:
            real, imaginary = self._split(expr, leaves)
            is_complex.append(imaginary != 0)
            real_parts += [real] if imaginary == 0 else [real, imaginary]
        self._is_complex = tuple(is_complex)
        self._wanted = tuple((self._index(leaf), nf.multi_index(leaf)) for leaf in leaves)
        stand_ins = [*nf.coords, *leaves.values(), *self._terms.values()]
        self._compiled = compile_expressions(real_parts, stand_ins)
        needed = {c for leaf in leaves for c in self._field(leaf).args}
        needed |= {s for e in real_parts for s in e.free_symbols}
        needed |= set(nf.coords) if self._terms else set()
        self.coords = tuple(c for c in nf.coords if c in needed)  # those the expressions depend on

    def __call__(self, approximation: Approximation, points: Tensor) -> list[Tensor]:
        """One tensor (n,) per expression; complex where the expression is."""
        values = approximation.derivatives(points, self._wanted) if self._wanted else []
        if self._terms:
            assert isinstance(approximation, Learned)  # only its problems have neural terms
            values = [*values, *approximation.terms(points, list(self._terms))]
        columns = self._compiled([*points.unbind(1), *values])
        parts = iter([c.to(points.dtype).expand(len(points)) for c in columns])
        return [
            torch.complex(next(parts), next(parts)) if pair else next(parts)
            for pair in self._is_complex
        ]

    def numpy(self, approximation: Approximation, points: Tensor) -> list[np.ndarray]:
        """The same without gradients, in chunks, as numpy arrays."""
        pieces: list[list[np.ndarray]] = []
        with torch.no_grad():
            for chunk in points.split(CHUNK):
                pieces.append([v.cpu().numpy() for v in self(approximation, chunk)])
        if not pieces:
            return [np.empty(0) for _ in self.exprs]
        return [np.concatenate(columns) for columns in zip(*pieces, strict=True)]

    def std(self, approximation: Uncertain, points: Tensor) -> Tensor:  # shape: (n,)
        """Standard deviation of the first expression, linearised at the mean where it is not linear."""
        if self._is_complex[0]:
            raise ValueError(f"{self.exprs[0]} is complex; ask for its sp.re and sp.im apart")
        inside = points.detach()
        with torch.enable_grad():
            means = [
                v.detach().requires_grad_()
                for v in approximation.derivatives(inside, self._wanted)  # type: ignore[attr-defined]
            ]
            (value,) = self._compiled([*inside.unbind(1), *means])
            slopes = torch.autograd.grad(value.sum(), means) if means else ()
        if not slopes:
            return torch.zeros(len(points), dtype=points.dtype, device=points.device)
        return approximation.combined_std(inside, self._wanted, slopes)

    def sample(
        self, approximation: Uncertain, points: Tensor, n: int, seed: int
    ) -> Tensor:  # shape: (n, k)
        """The first expression of `n` joint draws of the fields."""
        draws = approximation.sample_derivatives(points, self._wanted, n, seed)
        columns = self._compiled([*(c.expand(n, -1) for c in points.unbind(1)), *draws])
        whole = torch.complex(*columns) if self._is_complex[0] else columns[0]
        return whole.to(points).expand(n, len(points)) if not whole.is_complex() else whole

    def _split(self, expr: Any, leaves: dict[sp.Expr, sp.Dummy]) -> tuple[sp.Expr, sp.Expr]:
        """Real and imaginary part with fields and derivatives replaced by real dummies."""
        nf = self.nf
        whole = {psi: a + sp.I * b for psi, (a, b) in nf.complex_fields.items()}
        expr = in_problem_symbols(nf, expr)
        flat = expr.subs(whole).doit() if whole else expr.doit()
        for leaf in sorted(flat.atoms(sp.Derivative), key=sp.default_sort_key):
            self._index(leaf)
            leaves.setdefault(leaf, sp.Dummy(str(leaf.func), real=True))
        flat = flat.xreplace(leaves)
        for leaf in sorted(flat.atoms(AppliedUndef), key=sp.default_sort_key):
            self._index(leaf)
            leaves.setdefault(leaf, sp.Dummy(field_name(leaf), real=True))
        flat = flat.xreplace(leaves).xreplace({p: sp.Float(v) for p, v in self.parameters.items()})
        for term in nf.neurals:
            if flat.has(term):
                self._terms.setdefault(term, sp.Dummy(term.name, real=True))
        flat = flat.xreplace(self._terms)
        known = {*nf.coords, *leaves.values(), *self._terms.values()}
        unknown = flat.free_symbols - known
        if unknown:
            names = ", ".join(sorted(map(str, unknown)))
            raise ValueError(
                f"{expr} contains {names}, which the problem does not know; it has the coordinates "
                f"{_listed(nf.coords)} and the fields {_listed(user_fields(nf))}"
            )
        if not flat.has(sp.I):
            return flat, sp.S.Zero
        real, imaginary = (part.replace(sp.arg, _angle) for part in flat.as_real_imag())
        return real, imaginary

    def _field(self, leaf: Any) -> Any:
        return leaf.expr if isinstance(leaf, sp.Derivative) else leaf

    def _index(self, leaf: Any) -> int:
        field = self._field(leaf)
        if field not in self.nf.fields:
            raise ValueError(
                f"{leaf} is no field of this problem nor a derivative of one; "
                f"its fields are {_listed(user_fields(self.nf))}"
            )
        return self.nf.fields.index(field)


def field_values(
    nf: NormalForm, approximation: Approximation, points: np.ndarray
) -> dict[str, np.ndarray]:
    """Values of all the user's fields at points (n, d), by name; complex fields complex."""
    zeros = (0,) * len(nf.coords)
    wanted = [(i, zeros) for i in range(len(nf.fields))]
    pieces: list[list[np.ndarray]] = []
    with torch.no_grad():
        for chunk in torch.as_tensor(points, dtype=torch.float64).split(CHUNK):
            pieces.append([v.cpu().numpy() for v in approximation.derivatives(chunk, wanted)])
    columns = [np.concatenate(c) for c in zip(*pieces, strict=True)]
    real = dict(zip(nf.fields, columns, strict=True))
    return {
        field_name(f): (
            real[nf.complex_fields[f][0]] + 1j * real[nf.complex_fields[f][1]]
            if f in nf.complex_fields
            else real[f]
        )
        for f in user_fields(nf)
    }


def residual_columns(
    nf: NormalForm,
    approximation: Approximation,
    points: Tensor,  # shape: (n, d)
    parameters: Mapping[sp.Symbol, float],
) -> np.ndarray:  # shape: (n, e)
    """Left minus right side of every equation, in the user's units."""
    exprs = tuple(e.residual for e in nf.equations)
    columns = FieldExpressions(nf, exprs, parameters).numpy(approximation, points)
    return np.stack(columns, axis=1)


def relative_residual(
    nf: NormalForm,
    approximation: Approximation,
    points: Tensor,
    parameters: Mapping[sp.Symbol, float],
) -> float:
    """Largest over the equations of rms(residual) / rms(its largest term): a number without units."""
    worst = 0.0
    for equation in nf.equations:
        terms: Sequence[sp.Expr] = sp.Add.make_args(sp.expand(equation.residual))
        columns = FieldExpressions(nf, tuple(terms), parameters).numpy(approximation, points)
        scale = max(_rms(c) for c in columns)
        if not np.isfinite(scale):
            return float("nan")
        worst = max(worst, _rms(np.sum(columns, axis=0)) / scale if scale > 0 else 0.0)
    return worst


def _angle(number: sp.Expr) -> sp.Expr:
    real, imaginary = number.as_real_imag()
    return sp.atan2(imaginary, real)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.abs(values) ** 2)))


def _listed(things: Sequence[sp.Basic]) -> str:
    return ", ".join(map(str, things))
