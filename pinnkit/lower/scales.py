"""How large the fields and the terms of a residual are, before anything is solved.

In    the normal form: its box, its data, its equations.
Out   `FieldScale` per field; the size of a residual's largest term.
Next  `lower.fields` scales the ansatz, `lower.residuals` divides every residual.

All estimates are homogeneous: rescaling t, x or u rescales them exactly, so that the scaled problem
is the same in any units. Fields: from `scale=`, else from the values prescribed for them, or from
the balance of an equation's largest linear term with its source, whichever is larger. Derivatives:
scale / (half width of each coordinate)^order; in a balance they grow by the source's own rates of
change where these are faster (sin(4 pi y) makes u, not u / 100, of size 1 in a Poisson equation).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sympy as sp
import torch
from torch import Tensor

from pinnkit.errors import UnsupportedProblemError
from pinnkit.ir.leaves import field_of, leaves
from pinnkit.ir.normal_form import NormalForm
from pinnkit.lower.expressions import compile_expressions

__all__ = ["FieldScale", "estimate_field_scales", "parameter_values", "term_size"]

_SAMPLES = 257  # points per estimate; a prime number of them does not resonate with waves


@dataclass(frozen=True)
class FieldScale:
    """A field is offset + scale * (something of size 1)."""

    scale: float
    offset: float = 0.0


def parameter_values(nf: NormalForm) -> dict[sp.Symbol, float]:
    """Initial values of the unknown physical parameters."""
    return {p: float(getattr(p, "initial", None) or 1.0) for p in nf.parameters}


def estimate_field_scales(nf: NormalForm) -> dict[sp.Expr, FieldScale]:
    """Offset and scale of every real field.

    The offset is used only where the prescribed values vary by less than a fifth of their mean.
    """
    found: dict[sp.Expr, FieldScale] = {}
    for u in nf.fields:
        declared = _declared_scale(nf, u)
        prescribed = _prescribed(nf, u)
        if declared is not None:
            found[u] = FieldScale(declared)
        elif prescribed is not None and prescribed.scale > 0:
            driven = 0.0 if prescribed.offset else _balanced_scale(nf, u, {})
            found[u] = FieldScale(max(prescribed.scale, driven), prescribed.offset)
    # Fields without data follow from balances; each round may make the next field's source known.
    for _ in nf.fields:
        missing = [u for u in nf.fields if u not in found]
        for u in missing:
            scale = _balanced_scale(nf, u, found)
            if scale > 0:
                found[u] = FieldScale(scale)
    return {u: found.get(u, FieldScale(1.0)) for u in nf.fields}


def term_size(
    residual: sp.Expr,
    nf: NormalForm,
    scales: Mapping[sp.Expr, FieldScale],
    *,
    fixed: Mapping[sp.Symbol, float] | None = None,
) -> float:
    """Root mean square of the residual's largest additive term; 1 where every term vanishes.

    Fields stand in as offset + scale, derivatives as scale / half^alpha. What is left without any
    field counts as one term (a large offset cancels there, as it does in the solution).

    Args:
        fixed: Coordinates held at one value (the face of a condition).
    """
    with_fields, source = _sizes(residual, nf, scales, fixed or {})
    largest = max([*with_fields.values(), source], default=0.0)
    return largest if largest > 0 else 1.0


def _declared_scale(nf: NormalForm, u: sp.Expr) -> float | None:
    value = nf.scales.get(u)
    if value is None:
        # The parts of a complex field carry its declared scale.
        owners = [psi for psi, parts in nf.complex_fields.items() if u in parts]
        value = nf.scales.get(owners[0]) if owners else None
    return None if value is None else float(value)


def _prescribed(nf: NormalForm, u: sp.Expr) -> FieldScale | None:
    """Scale and offset from the values that conditions and observations prescribe for the field."""
    values: list[Tensor] = []
    for condition in nf.conditions:
        if condition.target == u and condition.value is not None and not leaves(condition.value):
            fixed = {condition.face.coord: condition.face.value}
            values.append(_evaluate([condition.value], nf, fixed)[0])
    for observed in nf.observations:
        if observed.expr == u:
            values.append(torch.as_tensor(observed.values, dtype=torch.float64))
    if not values:
        return None
    joined = torch.cat([v[torch.isfinite(v)] for v in values])
    if not joined.numel():
        return None
    low, high = float(joined.min()), float(joined.max())
    middle, spread = (low + high) / 2, (high - low) / 2
    if spread > 0 and abs(middle) > 5 * spread:
        return FieldScale(spread, middle)
    return FieldScale(max(abs(low), abs(high)))


def _balanced_scale(nf: NormalForm, u: sp.Expr, known: Mapping[sp.Expr, FieldScale]) -> float:
    """Largest scale at which some equation's or condition's linear terms in u reach its other terms."""
    estimate = 0.0
    trial = {**known, u: FieldScale(1.0)}
    candidates: list[tuple[sp.Expr, dict[sp.Symbol, float]]] = [
        (e.residual, {}) for e in nf.equations
    ]
    candidates += [(c.residual, {c.face.coord: c.face.value}) for c in nf.conditions]
    for residual, fixed in candidates:
        present = {field_of(leaf) for leaf in leaves(residual)}
        if u not in present or not present <= set(trial):
            continue
        rates = _source_rates(residual, nf, fixed)
        with_fields, source = _sizes(residual, nf, trial, fixed, rates)
        linear, others = 0.0, source
        for term, size in with_fields.items():
            own = [leaf for leaf in leaves(term) if field_of(leaf) == u]
            if not own:
                others = max(others, size)
            elif len(own) == 1 and _degree_one(term, own[0]):
                linear = max(linear, size)
        if linear > 0:
            estimate = max(estimate, others / linear)
    return estimate


def _source_rates(
    residual: sp.Expr, nf: NormalForm, fixed: Mapping[sp.Symbol, float]
) -> dict[sp.Symbol, float]:
    """How fast the source changes along each coordinate: rms of its derivative over its rms."""
    source = sp.Add(*(t for t in sp.Add.make_args(sp.expand(residual)) if not leaves(t)))
    rates = _plain_rates(nf)
    slopes = [sp.diff(source, c) for c in nf.coords]
    if source == 0 or any(d.has(sp.DiracDelta, sp.Derivative, sp.Subs) for d in slopes):
        return rates
    size, *changes = (_root_mean_square(v) for v in _evaluate([source, *slopes], nf, fixed))
    if size > 0:
        for c, change in zip(nf.coords, changes, strict=True):
            rates[c] = max(rates[c], change / size)
    return rates


def _plain_rates(nf: NormalForm) -> dict[sp.Symbol, float]:
    return {c: 2 / (nf.bounds[c][1] - nf.bounds[c][0]) for c in nf.coords}


def _degree_one(term: sp.Expr, leaf: sp.Expr) -> bool:
    stand_in = sp.Dummy(real=True)
    replaced = term.xreplace({leaf: stand_in})
    return not (replaced / stand_in).has(stand_in)


def _sizes(
    residual: sp.Expr,
    nf: NormalForm,
    scales: Mapping[sp.Expr, FieldScale],
    fixed: Mapping[sp.Symbol, float],
    rates: Mapping[sp.Symbol, float] | None = None,
) -> tuple[dict[sp.Expr, float], float]:
    """Size of each additive term with a field in it, and of everything else taken together."""
    shifted = {u: u + sp.Float(s.offset, 17) for u, s in scales.items() if s.offset}
    terms = sp.Add.make_args(sp.expand(_replace_fields(residual, shifted), deep=False))
    terms = [t for part in terms for t in sp.Add.make_args(sp.expand_mul(part))]
    with_fields = [t for t in terms if leaves(t)]
    source = sp.Add(*(t for t in terms if not leaves(t)))
    found = leaves(*with_fields)
    rates = _plain_rates(nf) if rates is None else rates
    stand_ins: dict[sp.Expr, float] = {}
    for leaf in found:
        size = scales[field_of(leaf)].scale
        for c, k in zip(nf.coords, nf.multi_index(leaf), strict=True):
            size *= rates[c] ** k
        stand_ins[leaf] = size
    values = _evaluate([*with_fields, source], nf, fixed, stand_ins)
    sizes = [_root_mean_square(v) for v in values]
    return dict(zip(with_fields, sizes[:-1], strict=True)), sizes[-1]


def _replace_fields(expr: sp.Expr, rule: Mapping[sp.Expr, sp.Expr]) -> sp.Expr:
    """Replace fields, but not inside their derivatives."""
    if not rule:
        return expr
    derivatives = {d: sp.Dummy(real=True) for d in expr.atoms(sp.Derivative)}
    back = {stand_in: d for d, stand_in in derivatives.items()}
    return expr.xreplace(derivatives).xreplace(dict(rule)).xreplace(back)


def _root_mean_square(values: Tensor) -> float:
    finite = values[torch.isfinite(values)]
    if not finite.numel():
        return 0.0
    largest = float(finite.abs().max())
    # Divided first: squares of 1e-200 or 1e200 would leave the range of floats.
    return largest * float((finite / largest).square().mean().sqrt()) if largest > 0 else 0.0


def _evaluate(
    exprs: Sequence[sp.Expr],
    nf: NormalForm,
    fixed: Mapping[sp.Symbol, float],
    stand_ins: Mapping[sp.Expr, float] | None = None,
) -> list[Tensor]:
    """Values at points spread over the box; a function without a torch form is reported here."""
    numbers = {**(stand_ins or {}), **parameter_values(nf)}
    steps = torch.arange(1, _SAMPLES + 1, dtype=torch.float64)
    columns: list[Tensor] = []
    for i, c in enumerate(nf.coords):
        low, high = nf.bounds[c]
        # Kronecker's sequence: evenly spread in any dimension, and the same on every call.
        fraction = torch.frac(steps * _irrational(i, len(nf.coords)))
        columns.append(low + (high - low) * fraction)
        if c in fixed:
            columns[-1] = torch.full_like(steps, float(fixed[c]))
    values = columns + [torch.full_like(steps, float(v)) for v in numbers.values()]
    try:
        return compile_expressions(exprs, [*nf.coords, *numbers])(values)
    except UnsupportedProblemError as error:
        raise UnsupportedProblemError(f"while estimating sizes: {error}") from error


def _irrational(i: int, d: int) -> float:
    """Powers of the generalised golden ratio, x^(d+1) = x + 1."""
    x = 1.5
    for _ in range(60):
        x = (1 + x) ** (1 / (d + 1))
    return x ** -(i + 1)
