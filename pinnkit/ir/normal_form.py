"""The waist: one frozen record of a declared problem, all that solvers and references read.

In    a `PDESystem` (through the passes of `ir.normalise`).
Out   `NormalForm`: real fields, residuals with everything on the left, conditions on faces.
Next  `lower` compiles it to torch, `classical` discretises it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import sympy as sp

from pinnkit.declare.given import is_given_leaf

__all__ = [
    "Condition",
    "Equation",
    "Face",
    "IntegralCondition",
    "NormalForm",
    "ObservationSet",
    "Predicates",
]


@dataclass(frozen=True)
class Face:
    """One side of the domain: `coord` = `value`, where the relation `where` holds (sympy true: everywhere)."""

    coord: sp.Symbol
    side: str  # "left" (lower end) or "right" (upper end)
    value: float
    where: sp.Basic = sp.true
    region: Any = None  # on the outline of a region that is not a box: side "region", value nan


@dataclass(frozen=True)
class Equation:
    """`residual` = 0 inside the domain.

    `residual` holds real fields, their `sp.Derivative`s (sorted, evaluated), coordinates, parameters;
    every divergence is carried out. `conservative` is the same with `Div(flux)` nodes left standing.
    `coords` are the coordinates it lives on (a subset of the problem's for fields over a subset).
    """

    residual: sp.Expr
    conservative: sp.Expr
    label: str  # "equation 2", "equation 1 (imaginary part)": for messages
    coords: tuple[sp.Symbol, ...]


@dataclass(frozen=True)
class Condition:
    """`residual` = 0 on `face`.

    kind: "initial" | "dirichlet" | "neumann" | "robin". `residual` is left minus right, with `dn`
    already replaced by the signed derivative. `fields` lists the fields in it. For "initial",
    `order` is the number of derivatives along `face.coord` it prescribes; for "initial" and
    "dirichlet" with a plain field or derivative on the left, `target` is that field or derivative
    and `value` its prescribed value, so target - value == residual; else both are None.
    `value` may be an expression in the remaining coordinates (already restricted to the face).
    """

    kind: str
    residual: sp.Expr
    face: Face
    fields: tuple[sp.Expr, ...]
    label: str
    target: sp.Expr | None = None
    value: sp.Expr | None = None
    order: int = 0


@dataclass(frozen=True)
class IntegralCondition:
    """Integral of `integrand` over the coordinates `over` equals `equals`; a gauge is one with `gauge` True.

    A gauge fixes a field's mean: `integrand` is the field and `equals` is mean times volume.
    """

    integrand: sp.Expr
    over: tuple[sp.Symbol, ...]
    equals: sp.Expr
    label: str
    gauge: bool = False


@dataclass(frozen=True, eq=False)
class ObservationSet:
    """Measured `values` (n,) of `expr` at `points` (n, d), columns in the order of the problem's coordinates.

    `run` says which run of an evolution was observed: runs differ in their starts alone.
    """

    expr: sp.Expr
    points: np.ndarray
    values: np.ndarray
    noise: float | None
    label: str
    run: int = 0


@dataclass(frozen=True)
class Predicates:
    """Facts of the equations that choose methods; all derived from the expressions, none declared."""

    linear: bool  # every equation and condition is affine in the fields jointly
    evolution: bool  # there is a time coordinate and some field has a time derivative
    semilinear: bool  # highest space derivatives have coefficients free of fields
    constant_coefficients: bool  # the linear part's coefficients are numbers or parameters
    flux_form: bool  # some equation was declared with div(...)
    time_order: Mapping[sp.Expr, int] = field(
        default_factory=dict
    )  # per field; 0 = algebraic or steady
    space_order: Mapping[tuple[sp.Expr, sp.Symbol], int] = field(
        default_factory=dict
    )  # (field, coord) -> order


@dataclass(frozen=True, eq=False)
class NormalForm:
    """A problem in the form every solver reads.

    `coords` keep the user's order; `time` is None for steady problems. `bounds[c]` = (lower, upper)
    as floats. `region` is None for a box, else the declared non-box region (solvers without support
    refuse it by name). `fields` are real; `complex_fields[psi]` = (real part, imaginary part), both
    in `fields`. `periodic` lists the axes whose fields all carry Periodic conditions.
    `jumps` are sympy expressions g(coords) whose zero sets carry coefficient jumps.
    `corners` holds one record per incompatible corner: (label, order of the mismatching derivative, size).
    `exact` maps fields to their exact solution where it was declared. `neurals` are terms to be learned:
    they stand in the equations as symbols, and each knows what its network sees.
    """

    coords: tuple[sp.Symbol, ...]
    time: sp.Symbol | None
    space: tuple[sp.Symbol, ...]
    bounds: Mapping[sp.Symbol, tuple[float, float]]
    fields: tuple[sp.Expr, ...]
    parameters: tuple[sp.Symbol, ...]
    equations: tuple[Equation, ...]
    conditions: tuple[Condition, ...]
    periodic: tuple[sp.Symbol, ...]
    predicates: Predicates
    integrals: tuple[IntegralCondition, ...] = ()
    observations: tuple[ObservationSet, ...] = ()
    complex_fields: Mapping[sp.Expr, tuple[sp.Expr, sp.Expr]] = field(default_factory=dict)
    region: Any = None
    jumps: tuple[sp.Expr, ...] = ()
    corners: tuple[tuple[str, int, float], ...] = ()
    scales: Mapping[sp.Basic, float] = field(default_factory=dict)  # user's scale= of fields/coords
    exact: Mapping[sp.Expr, sp.Expr] = field(default_factory=dict)  # of the real fields; else empty
    given: tuple[Any, ...] = ()  # numbers and functions still to be given: the inputs of a family
    neurals: tuple[Any, ...] = ()

    def field_coords(self, u: sp.Expr) -> tuple[sp.Symbol, ...]:
        """The coordinates the field depends on, in its declared order."""
        return tuple(u.args)  # type: ignore[arg-type]

    def derivatives(self, *exprs: sp.Expr) -> set[sp.Derivative]:
        """Every derivative of a field that appears in the expressions (default: equations and conditions)."""
        if not exprs:
            exprs = tuple(e.residual for e in self.equations) + tuple(
                c.residual for c in self.conditions
            )
        every = set().union(*(e.atoms(sp.Derivative) for e in exprs))
        return {d for d in every if not is_given_leaf(d)}

    def multi_index(self, derivative: sp.Expr) -> tuple[int, ...]:
        """Counts per coordinate of `coords`; zeros for the plain field."""
        counts = dict.fromkeys(self.coords, 0)
        if isinstance(derivative, sp.Derivative):
            steps: Any = derivative.variable_count
            for symbol, count in steps:
                counts[symbol] += int(count)
        return tuple(counts[c] for c in self.coords)
