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
    from pinnkit.ir.normal_form import IntegralCondition, NormalForm

__all__ = ["read_candidate", "read_exact"]

_SOLVES = 1e-7  # residual of an exact solution relative to its terms, in double precision
_INTEGRATES = 1e-2  # of its integrals: the quadrature may be coarse for it


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
    columns = [f for f, e in table.items() if isinstance(e, sp.MatrixBase)]
    if columns:
        raise refusal(
            wrote, f"a column is given for {show(columns[0])}", "give one expression per field"
        )
    missing = [f for f in fields if f not in table]
    unknown = [f for f in table if f not in fields]
    if missing or unknown:
        culprit = show((unknown or missing)[0])
        raise refusal(
            wrote,
            f"{culprit} is no field of the problem" if unknown else f"{culprit} is missing",
            f"give an expression for each of {', '.join(map(show, fields))}",
        )
    allowed = {*system.coords, *system.parameters, *system.normal_form.given}
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
    if not nf.given:  # else every member of the family is checked by itself
        _check_solves(nf, real, wrote)
    put("exact", table)
    put("_normal_form", dataclasses.replace(nf, exact=real))


def _check_solves(nf: NormalForm, real: dict[sp.Expr, sp.Expr], wrote: str) -> None:
    points = sample_box(nf.coords, nf.bounds, 13, seed=6)
    _check_finite(nf, real, points, wrote)
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
    for coord in nf.periodic:
        _check_repeats(nf, real, coord, points, wrote)
    for i in nf.integrals:
        if not i.gauge:  # a gauge is compared modulo its mean everywhere
            _check_integral(nf, i, real, wrote)


def _check_finite(
    nf: NormalForm,
    real: dict[sp.Expr, sp.Expr],
    points: dict[sp.Symbol, np.ndarray],
    wrote: str,
) -> None:
    """Refuse what has no real value in most of the domain: every comparison with nan would pass."""
    for f, e in real.items():
        known = {**points, **{p: p.guess for p in e.free_symbols if isinstance(p, Parameter)}}
        bad = ~np.isfinite(evaluate(e, known))
        if 2 * bad.sum() > len(bad):
            at = int(np.argmax(bad))
            place = ", ".join(f"{c} = {show_number(points[c][at])}" for c in nf.coords)
            raise refusal(
                wrote,
                f"{show(f)} has no real, finite value at {place}",
                "correct the exact solution, or leave it out",
            )


def _check_repeats(
    nf: NormalForm,
    real: dict[sp.Expr, sp.Expr],
    coord: sp.Symbol,
    points: dict[sp.Symbol, np.ndarray],
    wrote: str,
) -> None:
    """The exact solution takes the same values at both ends of a periodic axis."""
    for f, e in real.items():
        if coord not in e.free_symbols or any(isinstance(p, Parameter) for p in e.free_symbols):
            continue
        low, high = (
            evaluate(e, {**points, coord: np.full_like(points[coord], end)})
            for end in nf.bounds[coord]
        )
        gap, inside = np.abs(high - low), np.abs(evaluate(e, points))
        sizes = np.concatenate([inside, np.abs(low), np.abs(high)])
        usable = np.isfinite(gap)
        size = float(sizes[np.isfinite(sizes)].max(initial=1e-300))
        if usable.any() and float(gap[usable].max()) > _SOLVES * size:
            lower, upper = map(show_number, nf.bounds[coord])
            raise refusal(
                wrote,
                f"{show(f)} does not repeat along {coord}: it differs at {coord} = {lower} and "
                f"{coord} = {upper} by {show_number(float(gap[usable].max()))}",
                "correct the exact solution, or leave it out",
            )


def _check_integral(
    nf: NormalForm, condition: IntegralCondition, real: dict[sp.Expr, sp.Expr], wrote: str
) -> None:
    """Gauss-Legendre over the coordinates of the integral, at three values of the others."""
    frozen = freeze([condition.integrand])
    known = {s: settle(leaf.xreplace(real)) for leaf, s in frozen.symbols.items()}
    integrand, equals = frozen.exprs[0].xreplace(known), condition.equals
    if any(isinstance(p, Parameter) for p in (integrand - equals).free_symbols):
        return
    nodes, weights = np.polynomial.legendre.leggauss(max(8, 48 // len(condition.over)))
    axes = [0.5 * (b + a + (b - a) * nodes) for a, b in (nf.bounds[c] for c in condition.over)]
    grids = [g.ravel() for g in np.meshgrid(*axes, indexing="ij")]
    product = np.ones(1)
    for a, b in (nf.bounds[c] for c in condition.over):
        product = np.multiply.outer(product, 0.5 * (b - a) * weights).ravel()
    others = [c for c in nf.coords if c not in condition.over]
    for at in range(3):
        place = {c: v[at] for c, v in sample_box(others, nf.bounds, 3, seed=6).items()}
        here: dict[Any, Any] = {**place, **dict(zip(condition.over, grids, strict=True))}
        values = evaluate(integrand, here)
        wanted = float(np.real(evaluate(equals, place)[0]))
        size = float(np.sum(product * np.abs(values))) + abs(wanted)
        gap = abs(float(np.sum(product * values)) - wanted)
        if np.isfinite(gap) and gap > _INTEGRATES * size:
            raise refusal(
                wrote,
                f"it does not satisfy {condition.label}: the integral is off by {show_number(gap)}",
                "correct the exact solution, or leave it out",
            )


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
    known = np.concatenate([np.broadcast_to(t, total.shape) for t in terms])
    size = max(float(known[np.isfinite(known)].max(initial=0.0)), *sizes)
    usable = np.isfinite(total)
    if usable.any() and float(total[usable].max()) > _SOLVES * size:
        at = int(np.argmax(np.where(usable, total, -1.0)))
        place = ", ".join(f"{c} = {show_number(v[at])}" for c, v in points.items())
        raise refusal(
            wrote,
            f"it does not satisfy {label}: the residual at {place} is {show_number(total[at])}",
            "correct the exact solution, or leave it out",
        )
