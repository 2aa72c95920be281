"""Vector calculus in the space coordinates: grad, div, curl, laplacian and the outward dn.

In    fields, scalar expressions, vectors (sympy columns, lists or tuples).
Out   sympy expressions; `div` and `dn` stay unevaluated nodes.
Next  `ir.carry_out_divergence` keeps the flux, `ir.place_conditions` gives `dn` its sign.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sympy as sp

from pinnkit.declare.printing import refusal, show
from pinnkit.declare.symbols import Coordinate, fields_in

__all__ = ["Div", "NormalDerivative", "curl", "div", "dn", "grad", "laplacian"]


class Div(sp.Expr):
    """Divergence of a flux, not carried out, so that jumps of coefficients survive.

    args = (Tuple of flux components, Tuple of their coordinates); `.doit()` carries it out.
    """

    is_commutative = True

    def __new__(cls, flux: Sequence[Any], coordinates: Sequence[Any]) -> Div:
        return sp.Expr.__new__(cls, sp.Tuple(*flux), sp.Tuple(*coordinates))

    @property
    def flux(self) -> tuple[sp.Expr, ...]:
        """The components, in the order of `coordinates`."""
        return tuple(self.args[0])  # type: ignore[arg-type]

    @property
    def coordinates(self) -> tuple[sp.Symbol, ...]:
        """The coordinates each component is differentiated by."""
        return tuple(self.args[1])  # type: ignore[arg-type]

    def doit(self, **hints: Any) -> sp.Expr:
        """Sum of d flux_i / d x_i. The jump of a discontinuous coefficient is lost here."""
        parts = [sp.diff(f, c) for f, c in zip(self.flux, self.coordinates, strict=True)]
        return sp.Add(*(p.doit(**hints) for p in parts))

    def _eval_derivative(self, s: sp.Symbol) -> sp.Expr:
        return Div([sp.diff(f, s) for f in self.flux], self.coordinates)


class NormalDerivative(sp.Expr):
    """Derivative along the outward normal of the boundary a condition stands on."""

    is_commutative = True

    def __new__(cls, expr: Any) -> NormalDerivative:
        return sp.Expr.__new__(cls, sp.sympify(expr))


def grad(expr: Any, *coordinates: sp.Symbol) -> Any:
    """Gradient: a column of space derivatives; in one space coordinate the derivative itself.

    Of a vector: the matrix with one row per component. `coordinates` default to the space
    coordinates of the fields in it.
    """
    space = coordinates or _space_of(expr, "grad")
    parts = _components(expr)
    if parts is not None:
        return sp.ImmutableDenseMatrix([[sp.diff(p, c) for c in space] for p in parts])
    if len(space) == 1:
        return sp.diff(expr, space[0])
    return sp.ImmutableDenseMatrix([sp.diff(expr, c) for c in space])


def div(flux: Any, *coordinates: sp.Symbol) -> Any:
    """Divergence of a flux, kept unevaluated: div(k*grad(u)) holds also where k jumps.

    The flux is a column, list or tuple with one component per space coordinate, or one
    expression in one space coordinate. A matrix gives the divergence of each row.

    >>> from pinnkit.declare.symbols import coords, field
    >>> t, x = coords("t x")
    >>> u = field("u", t, x)
    >>> div(u**2 / 2).doit()
    u(t, x)*Derivative(u(t, x), x)
    """
    space = coordinates or _space_of(flux, "div")
    if isinstance(flux, sp.MatrixBase) and flux.shape[1] > 1 and flux.shape[0] > 1:
        return sp.ImmutableDenseMatrix([div(list(flux.row(i)), *space) for i in range(flux.rows)])
    parts = _components(flux)
    parts = [sp.sympify(flux)] if parts is None else parts
    if len(parts) != len(space):
        names = ", ".join(c.name for c in space)
        raise refusal(
            f"div({show(flux)})",
            f"the flux has {len(parts)} component(s) for the space coordinates {names}",
            f"give one component per coordinate, or name them: div(flux, {names})",
        )
    return Div(parts, space)


def curl(expr: Any, *coordinates: sp.Symbol) -> Any:
    """Curl: of a 3-vector a 3-vector; of a 2-vector the scalar dv_y/dx - dv_x/dy; of a scalar in
    two dimensions the column (d/dy, -d/dx)."""
    space = coordinates or _space_of(expr, "curl")
    v = _components(expr)
    if v is not None and len(v) == 3 and len(space) == 3:
        x, y, z = space
        return sp.ImmutableDenseMatrix(
            [
                sp.diff(v[2], y) - sp.diff(v[1], z),
                sp.diff(v[0], z) - sp.diff(v[2], x),
                sp.diff(v[1], x) - sp.diff(v[0], y),
            ]
        )
    if v is not None and len(v) == 2 and len(space) == 2:
        return sp.diff(v[1], space[0]) - sp.diff(v[0], space[1])
    if v is None and len(space) == 2:
        return sp.ImmutableDenseMatrix([sp.diff(expr, space[1]), -sp.diff(expr, space[0])])
    raise refusal(
        f"curl({show(expr)})",
        f"a curl needs 2 or 3 space coordinates and matching components, here {len(space)} "
        f"coordinate(s) and {1 if v is None else len(v)} component(s)",
        "use a vector with one component per space coordinate",
    )


def laplacian(expr: Any, *coordinates: sp.Symbol) -> Any:
    """Sum of second space derivatives; of a vector, component by component."""
    space = coordinates or _space_of(expr, "laplacian")
    parts = _components(expr)
    if parts is not None:
        return sp.ImmutableDenseMatrix([laplacian(p, *space) for p in parts])
    return sp.Add(*(sp.diff(expr, c, 2) for c in space))


def dn(expr: Any) -> Any:
    """Derivative outward from the domain, for conditions: Robin(dn(u) + u, on=...)."""
    parts = _components(expr)
    if parts is not None:
        return sp.ImmutableDenseMatrix([NormalDerivative(p) for p in parts])
    return NormalDerivative(expr)


def _components(expr: Any) -> list[sp.Expr] | None:
    """The entries of a vector; None for a scalar."""
    if isinstance(expr, sp.MatrixBase):
        return expr.flat()
    if isinstance(expr, (list, tuple, sp.Tuple)):
        entries: list[Any] = [sp.sympify(e) for e in expr]
        return entries
    return None


def _space_of(expr: Any, operator: str) -> tuple[Coordinate, ...]:
    """Space coordinates of the fields in the expression, else of the expression itself."""
    parts = _components(expr)
    whole = sp.Tuple(*parts) if parts is not None else sp.sympify(expr)
    owners = sorted(fields_in(whole), key=lambda f: -len(f.args))
    found: list[Coordinate] = []
    candidates = [a for f in owners for a in f.args] or sorted(whole.free_symbols, key=str)
    for a in candidates:
        if isinstance(a, Coordinate) and not a.is_time and a not in found:
            found.append(a)
    if not found:
        raise refusal(
            f"{operator}({show(expr)})",
            "no space coordinate is in it",
            f"apply it to a field of space, or name the coordinates: {operator}(..., x, y)",
        )
    return tuple(found)
