"""u_t + div f(u, x, t) = s(u, x, t): fluxes, wave speeds and data of a conservation law.

In    a NormalForm of first order whose nonlinear transport stands under `div`.
Out   `ConservationLaw`: compiled fluxes, speeds, sources, initial and boundary data; or the reason
      why the problem is not such a law.
Next  `interface_fluxes` discretises it, `shock_ladder` marches it in time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy as sp

from pinnkit.classical.conditions import boundary_conditions, flux_component
from pinnkit.classical.discretise import field_orders
from pinnkit.classical.expressions import compile_value, find_leaves
from pinnkit.classical.implicit import IntegrationError
from pinnkit.declare.operators import Div
from pinnkit.ir.normal_form import NormalForm

__all__ = ["ConservationLaw", "End", "law_refusal", "split_conservation_law"]

Array = np.ndarray
Function = Callable[..., Any]
Value = Callable[[Sequence[Array], tuple[int, ...]], Array]

# Imaginary part of a wave speed, relative to the fastest, that is no rounding error: a double
# eigenvalue splits by the root of one.
COMPLEX = 1e-3
# Between neighbouring nodes the speed of a flux that is not quadratic may be larger than at both.
FRACTIONS_QUADRATIC = (0.0,)
FRACTIONS_SCALAR = tuple(k / 8 for k in range(8))
FRACTIONS_SYSTEM = (0.0, 0.5)


@dataclass(frozen=True, eq=False)
class End:
    """One side of an axis: prescribed values per field (None: the field flows out freely).

    `slope` is du/dx of a scalar law from the equation itself, (s - g_t - f_x) / f'(g) at u = g, as
    (numerator, denominator) of time: the first term of the inverse Lax-Wendroff procedure.
    """

    values: tuple[Value | None, ...]
    slope: tuple[Value, Value] | None = None


@dataclass(frozen=True, eq=False)
class ConservationLaw:
    """Functions of `coords` (one array per coordinate of the problem) and u, shape (fields, ...)."""

    nf: NormalForm
    initial: tuple[Value, ...]
    ends: tuple[tuple[End, End] | None, ...]  # per space axis; None where it is periodic
    has_source: bool
    fractions: tuple[float, ...]
    _fluxes: tuple[Function, ...]  # per space axis
    _jacobians: tuple[Function, ...]
    _source: Function
    _source_jacobian: Function

    def flux(self, axis: int, coords: Sequence[Array], u: Array) -> Array:
        """f along one space axis."""
        return _stack(self._fluxes[axis](*coords, *u), u)

    def speed(self, axis: int, coords: Sequence[Array], u: Array) -> Array:
        """The largest |eigenvalue| of df/du along one space axis, at every point."""
        m = len(u)
        entries = _stack(self._jacobians[axis](*coords, *u), u)
        if m == 1:
            return np.abs(entries[0])
        if not np.isfinite(entries).all():
            raise IntegrationError("the wave speeds are not finite")
        if m == 2:  # the quadratic formula: many times faster than a general eigenvalue solver
            a, b, c, d = entries
            root = np.sqrt(((a - d) / 2) ** 2 + b * c + 0j)
            eigenvalues = np.stack([(a + d) / 2 + root, (a + d) / 2 - root], axis=-1)
        else:
            matrices = np.moveaxis(entries.reshape(m, m, *u.shape[1:]), (0, 1), (-2, -1))
            eigenvalues = np.linalg.eigvals(matrices)
        fastest = np.abs(eigenvalues).max(axis=-1)
        if np.abs(np.imag(eigenvalues)).max() > COMPLEX * max(float(fastest.max()), 1e-300):
            raise IntegrationError("the system is not hyperbolic: its wave speeds become complex")
        return fastest

    def source(self, coords: Sequence[Array], u: Array) -> Array:
        return _stack(self._source(*coords, *u), u)

    def source_rate(self, coords: Sequence[Array], u: Array) -> float:
        """A bound on |ds/du| (the largest row sum): 1 / the time in which the source acts."""
        entries = np.abs(_stack(self._source_jacobian(*coords, *u), u))
        return float(entries.reshape(len(u), len(u), -1).sum(axis=1).max())


def law_refusal(nf: NormalForm) -> str | None:
    """None, or in one sentence why a first-order nonlinear problem cannot be solved with shocks."""
    law = _split(nf)
    return law if isinstance(law, str) else None


def split_conservation_law(nf: NormalForm) -> ConservationLaw | None:
    """The law, or None where the problem is none or its flux is linear (no shock forms)."""
    if nf.time is None or not nf.space or not nf.predicates.flux_form or nf.predicates.linear:
        return None
    _, space_orders = field_orders(nf)
    if max(max(orders) for orders in space_orders) != 1:
        return None
    law = _split(nf)
    return None if isinstance(law, str) or not law[1] else law[0]


def _split(nf: NormalForm) -> str | tuple[ConservationLaw, bool]:
    """(the law, is its flux nonlinear), or the reason against it."""
    way_out = "write u.diff(t) + div(f(u)) instead of u.diff(t) + c(u)*u.diff(x)"
    if not nf.predicates.flux_form:
        return (
            "MethodOfLines() needs first-order nonlinear equations in flux form, because their "
            f"solutions jump: {way_out}."
        )
    if nf.jumps or nf.integrals:
        what = "a flux or source that jumps in space" if nf.jumps else "integral conditions"
        return f"MethodOfLines() does not handle conservation laws with {what}. Use smooth data."
    solved = _solve_for_rates(nf)
    if solved is None:
        return (
            "MethodOfLines() needs conservation laws that can be solved for the first time "
            "derivative of every field by numbers, with all nonlinear space derivatives under div: "
            f"{way_out}."
        )
    fluxes, sources = solved
    ends = _ends(nf, fluxes, sources)
    if isinstance(ends, str):
        return ends
    initial = _initial(nf)
    if isinstance(initial, str):
        return initial
    symbols = [sp.Dummy(f"u{i}", real=True) for i in range(len(nf.fields))]
    names: dict[Any, Any] = dict(zip(nf.fields, symbols, strict=True))
    plain: list[list[Any]] = [
        [f.xreplace(names) for f in row] for row in fluxes
    ]  # per axis, per field
    jacobians = [[sp.diff(f, s) for f in row for s in symbols] for row in plain]
    curvatures = [sp.diff(entry, s) for row in jacobians for entry in row for s in symbols]
    source: list[Any] = [s.xreplace(names) for s in sources]
    quadratic = not any(c.free_symbols & set(symbols) for c in curvatures)
    fractions = FRACTIONS_QUADRATIC if quadratic else FRACTIONS_SCALAR
    arguments = [*nf.coords, *symbols]
    law = ConservationLaw(
        nf=nf,
        initial=initial,
        ends=ends,
        has_source=any(s != 0 for s in source),
        fractions=fractions if len(symbols) == 1 else FRACTIONS_SYSTEM,
        _fluxes=tuple(_compile(arguments, row) for row in plain),
        _jacobians=tuple(_compile(arguments, row) for row in jacobians),
        _source=_compile(arguments, source),
        _source_jacobian=_compile(arguments, [sp.diff(e, s) for e in source for s in symbols]),
    )
    return law, any(c != 0 for c in curvatures)


def _solve_for_rates(nf: NormalForm) -> tuple[list[list[sp.Expr]], list[sp.Expr]] | None:
    """(f per axis and field, s per field) of u_t + sum_axis d f / d axis = s."""
    assert nf.time is not None
    m = len(nf.fields)
    rates = [sp.Derivative(u, nf.time) for u in nf.fields]
    slots = [sp.Dummy(f"rate{i}") for i in range(m)]
    mass = sp.zeros(m, m)
    rows: list[list[sp.Expr]] = [[sp.S.Zero] * m for _ in nf.space]
    rest: list[sp.Expr] = []
    for i, equation in enumerate(nf.equations):
        divs = sorted(equation.conservative.atoms(Div), key=sp.default_sort_key)
        outside: Any = equation.conservative.xreplace(dict.fromkeys(divs, sp.S.Zero))
        slopes = [
            node
            for node in find_leaves(outside, nf)
            if isinstance(node, sp.Derivative) and node not in rates
        ]
        standing: list[Any] = [*rates, *divs, *slopes]
        marks = [*slots, *(sp.Dummy() for _ in [*divs, *slopes])]
        expr = sp.expand(equation.conservative.xreplace(dict(zip(standing, marks, strict=True))))
        for node, mark in zip(standing, marks, strict=True):
            coefficient = sp.diff(expr, mark)
            if not coefficient.is_number:
                return None
            expr = sp.expand(expr - coefficient * mark)
            if node in rates:
                mass[i, rates.index(node)] = coefficient
                continue
            for axis, coord in enumerate(nf.space):
                rows[axis][i] += coefficient * _flux_along(node, coord)
        if expr.has(sp.Derivative, Div, *marks):
            return None
        rest.append(expr)
    if any(leaf for row in rows for f in row for leaf in f.atoms(sp.Derivative)):
        return None
    if mass.det() == 0:
        return None
    inverse = mass.inv()
    fluxes = [list(inverse * sp.Matrix(row)) for row in rows]
    return fluxes, list(-inverse * sp.Matrix(rest))


def _flux_along(node: Any, coord: sp.Symbol) -> sp.Expr:
    """What is differentiated by `coord`: a component of a flux, or the field of a plain derivative."""
    if isinstance(node, Div):
        return flux_component(node, coord) or sp.S.Zero
    return node.expr if node.variables == (coord,) else sp.S.Zero


def _initial(nf: NormalForm) -> tuple[Value, ...] | str:
    values = {}
    for condition in nf.conditions:
        if condition.kind == "initial" and condition.face.coord == nf.time:
            values[condition.target] = condition.value
    missing = [u for u in nf.fields if values.get(u) is None]
    if missing:
        return f"MethodOfLines() needs Initial({missing[0]}, value) in the form field = value."
    return tuple(compile_value(values[u], nf) for u in nf.fields)


def _ends(
    nf: NormalForm, fluxes: Sequence[Sequence[sp.Expr]], sources: Sequence[sp.Expr]
) -> tuple[tuple[End, End] | None, ...] | str:
    """Data on every side; conservation laws take values, or nothing where they flow out."""
    found: dict[tuple[sp.Symbol, str, sp.Expr], sp.Expr] = {}
    for c in boundary_conditions(nf):
        plain = c.kind == "dirichlet" and c.target in nf.fields and c.value is not None
        if not plain or c.face.where != sp.true:
            return (
                f"MethodOfLines() takes for conservation laws Dirichlet conditions on whole sides, "
                f"and none where the solution flows out; {c.label} is neither."
            )
        assert c.target is not None and c.value is not None
        found[c.face.coord, c.face.side, c.target] = c.value
    out: list[tuple[End, End] | None] = []
    for axis, coord in enumerate(nf.space):
        if coord in nf.periodic:
            out.append(None)
            continue
        sides = []
        for side, edge in zip(("left", "right"), nf.bounds[coord], strict=True):
            values = [found.get((coord, side, u)) for u in nf.fields]
            slope = None
            if values[0] is not None and len(nf.fields) == 1 and len(nf.space) == 1:
                slope = _slope(nf, fluxes[axis][0], sources[0], values[0], edge)
            sides.append(
                End(tuple(None if v is None else compile_value(v, nf) for v in values), slope)
            )
        out.append((sides[0], sides[1]))
    return tuple(out)


def _slope(
    nf: NormalForm, flux: sp.Expr, source: sp.Expr, value: sp.Expr, edge: float
) -> tuple[Value, Value]:
    assert nf.time is not None
    u, coord = nf.fields[0], nf.space[0]
    s = sp.Dummy("s", real=True)
    f, rest = flux.xreplace({u: s}), source.xreplace({u: s})
    above = rest - sp.diff(value, nf.time) - sp.diff(f, coord)
    at_edge = {s: value, coord: sp.Float(edge)}
    return compile_value(above.subs(at_edge), nf), compile_value(sp.diff(f, s).subs(at_edge), nf)


def _compile(arguments: Sequence[sp.Basic], exprs: Sequence[sp.Expr]) -> Function:
    helpers = {"Heaviside": lambda z, at_zero=0.5: np.heaviside(z, at_zero)}
    return sp.lambdify(arguments, list(exprs), modules=[helpers, "scipy", "numpy"], cse=True)


def _stack(values: Sequence[Any], u: Array) -> Array:
    out = np.empty((len(values), *u.shape[1:]))
    for i, value in enumerate(values):
        out[i] = value
    return out
