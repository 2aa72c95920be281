"""M u_t = L u + N(u) on a torus: the constant-coefficient linear part and the rest.

In    a NormalForm, periodic in space, of first order in time; fields may lack a time derivative.
Out   `Semilinear`: coefficients of M and L per derivative, N; or None where it has no such form.
Next  `constraints` eliminates constraints, `etdrk4` integrates exactly in L, `extrapolation` otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import sympy as sp

from pinnkit.classical.expressions import Leaf, compile_value, find_leaves
from pinnkit.ir.normal_form import NormalForm

__all__ = ["Gauge", "Semilinear", "split_semilinear"]

Array = np.ndarray
Terms = tuple[tuple[float, Leaf], ...]
Initial = Callable[[list[Array], tuple[int, ...]], Array]


@dataclass(frozen=True)
class Gauge:
    """The mean of sum_i coefficients[i] * field i over space is `mean`."""

    coefficients: tuple[float, ...]
    mean: float


@dataclass(frozen=True, eq=False)
class Semilinear:
    """Row i: sum of mass[i] = sum of linear[i] + rest[i]; terms are (coefficient, leaf).

    `mass` leaves carry their derivatives in space only. `rest` holds `symbols` in place of `leaves`.
    Initial values as functions of the coordinates, None for fields without a time derivative.
    """

    coords: tuple[sp.Symbol, ...]
    mass: tuple[Terms, ...]
    linear: tuple[Terms, ...]
    rest: tuple[sp.Expr, ...]
    symbols: tuple[sp.Symbol, ...]
    leaves: tuple[Leaf, ...]
    initial: tuple[Initial | None, ...]
    gauges: tuple[Gauge, ...]

    @property
    def constrained(self) -> bool:
        """Whether some field or mode has no rate of its own."""
        return bool(self.gauges) or any(value is None for value in self.initial)

    def active_rows(self) -> list[int]:
        """Rows whose N is not zero."""
        return [i for i, entry in enumerate(self.rest) if entry != 0]

    def leaves_in(self, rows: Sequence[int]) -> list[int]:
        """Numbers of the leaves that N needs in these rows."""
        found = set().union(*(self.rest[i].free_symbols for i in rows))
        return [j for j, symbol in enumerate(self.symbols) if symbol in found]

    def compile_rest(self, rows: Sequence[int]) -> Callable[[list[Array], list[Array]], list[Any]]:
        """N of these rows from the coordinates and the values of `leaves_in(rows)`."""
        helpers = {"Heaviside": lambda z, at_zero=0.5: np.heaviside(z, at_zero)}
        arguments = [*self.coords, *(self.symbols[j] for j in self.leaves_in(rows))]
        entries = [self.rest[i] for i in rows]
        function = sp.lambdify(arguments, entries, modules=[helpers, "scipy", "numpy"], cse=True)
        return lambda coords, leaves: function(*coords, *leaves)


@lru_cache(maxsize=16)
def split_semilinear(nf: NormalForm) -> Semilinear | None:
    """Split the equations, or None: not periodic, rates not linear by numbers, or not semilinear."""
    if (
        nf.time is None
        or not nf.space
        or set(nf.periodic) != set(nf.space)
        or nf.jumps
        or len(nf.equations) != len(nf.fields)
    ):
        return None
    gauges = _gauges(nf)
    if gauges is None:
        return None
    at_time = nf.coords.index(nf.time)
    mass, linear, rest = [], [], []
    symbols: dict[Leaf, sp.Symbol] = {}
    for equation in nf.equations:
        terms, remainder = _split_linear(sp.expand(equation.residual), nf, symbols)
        if any(leaf.alpha[at_time] > 1 for _, leaf in terms):
            return None
        rates = tuple(
            (c, Leaf(leaf.field, _without(leaf.alpha, at_time)))
            for c, leaf in terms
            if leaf.alpha[at_time]
        )
        mass.append(rates)
        linear.append(tuple((-c, leaf) for c, leaf in terms if not leaf.alpha[at_time]))
        rest.append(-remainder)
    used = [s for s in symbols.values() if any(r.has(s) for r in rest)]
    leaf_of = {symbol: leaf for leaf, symbol in symbols.items()}
    leaves = tuple(leaf_of[s] for s in used)
    if any(leaf.alpha[at_time] for leaf in leaves):
        return None
    if not any(mass) or not _is_tame(mass, linear, leaves):
        return None
    moving = {leaf.field for row in mass for _, leaf in row}
    initial = _initial_values(nf, moving)
    if initial is None:
        return None
    return Semilinear(
        nf.coords, tuple(mass), tuple(linear), tuple(rest), tuple(used), leaves, initial, gauges
    )


def _split_linear(
    residual: sp.Expr, nf: NormalForm, symbols: dict[Leaf, sp.Symbol]
) -> tuple[list[tuple[float, Leaf]], sp.Expr]:
    """(constant-coefficient linear terms, the rest in `symbols`); new leaves are added to those."""
    names = {}
    for node, leaf in find_leaves(residual, nf).items():
        names[node] = symbols.setdefault(leaf, sp.Dummy(f"leaf{len(symbols)}", real=True))
    leaf_of = {symbols[leaf]: leaf for leaf in symbols}
    zero = dict.fromkeys(leaf_of, sp.Integer(0))
    entry: Any = residual.xreplace(names)
    remainder = entry
    terms = []
    for symbol in names.values():
        coefficient: Any = sp.diff(entry, symbol).xreplace(zero)
        if coefficient.is_number and coefficient.is_finite and coefficient != 0:
            terms.append((float(coefficient), leaf_of[symbol]))
            remainder = sp.expand(remainder - coefficient * symbol)
    return terms, remainder


def _is_tame(mass: list[Terms], linear: list[Terms], leaves: tuple[Leaf, ...]) -> bool:
    """N is of lower order than L or at most that of M, else nothing tames its stiffness."""
    order_rest = max((sum(leaf.alpha) for leaf in leaves), default=0)
    order_mass = max(sum(leaf.alpha) for row in mass for _, leaf in row)
    moving = [row for row, rates in zip(linear, mass, strict=True) if rates]
    order_linear = max((sum(leaf.alpha) for row in moving for _, leaf in row), default=0)
    return order_rest <= order_mass or order_rest < order_linear


def _gauges(nf: NormalForm) -> tuple[Gauge, ...] | None:
    """Integral conditions as means; None if one is no linear condition over all of space."""
    out = []
    volume = float(np.prod([nf.bounds[c][1] - nf.bounds[c][0] for c in nf.space]))
    for integral in nf.integrals:
        if set(integral.over) != set(nf.space) or not integral.equals.is_number:
            return None
        terms, remainder = _split_linear(sp.expand(integral.integrand), nf, {})
        if remainder != 0 or any(any(leaf.alpha) for _, leaf in terms):
            return None
        row = [0.0] * len(nf.fields)
        for coefficient, leaf in terms:
            row[leaf.field] += coefficient
        out.append(Gauge(tuple(row), float(integral.equals) / volume))
    return tuple(out)


def _without(alpha: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return tuple(0 if i == axis else k for i, k in enumerate(alpha))


def _initial_values(nf: NormalForm, moving: set[int]) -> tuple[Initial | None, ...] | None:
    values = {}
    for condition in nf.conditions:
        if condition.kind == "initial" and condition.value is not None and condition.order == 0:
            values[condition.target] = compile_value(condition.value, nf)
    if any(nf.fields[i] not in values for i in moving):
        return None
    return tuple(values[u] if i in moving else None for i, u in enumerate(nf.fields))
