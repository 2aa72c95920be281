"""The declared exact solution: read, checked by numbers, split into real fields.

In    a validated problem and what the user says solves it.
Out   `problem.exact` and `problem.normal_form.exact`; a refusal if it does not solve it.
Next  EXACT evidence, tests and pictures rest on it, so a wrong one must not pass.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import sympy as sp

from pinnkit.declare.conditions import read_expr
from pinnkit.declare.printing import refusal, show, show_number
from pinnkit.declare.symbols import Parameter, fields_in
from pinnkit.ir.leaves import freeze, settle
from pinnkit.ir.sampling import evaluate, sample_box
from pinnkit.ir.split_complex import ComplexSplit

if TYPE_CHECKING:
    from pinnkit.declare.problem import PDESystem
    from pinnkit.ir.normal_form import NormalForm

__all__ = ["read_candidate", "read_exact"]

_SOLVES = 1e-7  # residual of an exact solution relative to its terms, in double precision


def read_candidate(system: PDESystem, candidate: Any, wrote: str) -> dict[sp.Expr, sp.Expr]:
    """{field: expression} for every field of the problem, from one expression or a mapping."""
    fields = system.fields
    if isinstance(candidate, dict):
        table: dict[Any, Any] = {f: read_expr(e, wrote) for f, e in candidate.items()}
    elif len(fields) == 1:
        table = {fields[0]: read_expr(candidate, wrote)}
    else:
        names = ", ".join(f"{show(f)}: ..." for f in fields)
        raise refusal(wrote, f"the problem has {len(fields)} fields", f"write {{{names}}}")
    by_name = {f.name: f for f in fields}  # type: ignore[attr-defined]
    table = {by_name.get(k, k) if isinstance(k, str) else k: e for k, e in table.items()}
    missing = [f for f in fields if f not in table]
    unknown = [f for f in table if f not in fields]
    if missing or unknown:
        culprit = show((unknown or missing)[0])
        raise refusal(
            wrote,
            f"{culprit} is no field of the problem" if unknown else f"{culprit} is missing",
            f"give an expression for each of {', '.join(map(show, fields))}",
        )
    allowed = {*system.coords, *system.parameters}
    for f, e in table.items():
        stray = (e.free_symbols - allowed) or set(fields_in(e))
        if stray:
            raise refusal(
                wrote,
                f"the expression for {show(f)} contains {show(sorted(stray, key=str)[0])}",
                "write it in the coordinates and parameters of the problem",
            )
    return table


def read_exact(system: PDESystem, exact: Any, put: Callable[[str, Any], None]) -> None:
    """Check the exact solution and attach it through `put`."""
    wrote = f"exact={show(exact) if isinstance(exact, sp.Basic) else exact}"
    table = read_candidate(system, exact, wrote)
    nf = system.normal_form
    real: dict[sp.Expr, sp.Expr] = {}
    split = ComplexSplit((), {})
    for f, e in table.items():
        re, im = split(e)
        if f in nf.complex_fields:
            real.update(zip(nf.complex_fields[f], (re, im), strict=True))
        elif im != 0:
            raise refusal(wrote, f"{show(f)} is real, but {show(e)} is complex", "correct it")
        else:
            real[f] = re
    _check_solves(nf, real, wrote)
    put("exact", table)
    put("_normal_form", dataclasses.replace(nf, exact=real))


def _check_solves(nf: NormalForm, real: dict[sp.Expr, sp.Expr], wrote: str) -> None:
    points = sample_box(nf.coords, nf.bounds, 13, seed=6)
    for e in nf.equations:
        _check_residual(e.residual, e.label, real, points, wrote)
    for c in nf.conditions:
        if c.face.region is not None:
            continue
        on_face = dict(points)
        on_face[c.face.coord] = np.full(13, c.face.value)
        if c.face.where != sp.true:
            holds = evaluate(c.face.where, on_face).astype(bool)
            if not holds.any():
                continue
            on_face = {s: v[holds] for s, v in on_face.items()}
        _check_residual(c.residual, c.label, real, on_face, wrote, inside=points)


def _check_residual(
    residual: sp.Expr,
    label: str,
    real: dict[sp.Expr, sp.Expr],
    points: dict[sp.Symbol, np.ndarray],
    wrote: str,
    inside: dict[sp.Symbol, np.ndarray] | None = None,
) -> None:
    frozen = freeze([residual])
    values: dict[Any, Any] = dict(points)
    unknown = residual.free_symbols.union(*(e.free_symbols for e in real.values()))
    values |= {p: p.guess for p in unknown if isinstance(p, Parameter)}
    if any(isinstance(p, Parameter) for p in unknown):
        return  # true for one value of the unknown numbers only
    leaf_values: dict[Any, Any] = {}
    sizes = [1e-300]
    for leaf, symbol in frozen.symbols.items():
        expr = settle(leaf.xreplace(real))
        leaf_values[symbol] = np.real(evaluate(expr, values))
        if inside is not None:
            # On its face every term of w = 0 may be rounding: compare with w inside as well.
            within = np.abs(evaluate(expr, {**values, **inside}))
            sizes.append(float(np.nanmax(np.where(np.isfinite(within), within, 0.0))))
    values |= leaf_values
    expr = frozen.exprs[0]
    total = np.abs(evaluate(expr, values))
    terms = [np.abs(evaluate(t, values)) for t in sp.Add.make_args(expr)]
    size = np.nanmax(np.stack([np.broadcast_to(t, total.shape) for t in terms]))
    size = max(float(size), *sizes)
    usable = np.isfinite(total)
    if usable.any() and float(total[usable].max()) > _SOLVES * size:
        at = int(np.argmax(np.where(usable, total, -1.0)))
        place = ", ".join(f"{c} = {show_number(v[at])}" for c, v in points.items())
        raise refusal(
            wrote,
            f"it does not satisfy {label}: the residual at {place} is {show_number(total[at])}",
            "correct the exact solution, or leave it out",
        )
