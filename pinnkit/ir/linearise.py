"""The linearised symbol: what small, short waves do at given states.

In    residuals and numbers for coordinates, fields and derivatives.
Out   the matrix of the linearised operator as polynomials in one frequency; its determinant.
Next  `ir.checks_wellposed` looks at growth in time, `ir.checks_conditions` at decay from the sides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import sympy as sp

from pinnkit.declare.symbols import Parameter
from pinnkit.ir.collect_symbols import Symbols
from pinnkit.ir.leaves import derivative_count, field_of, freeze, settle, steps_of
from pinnkit.ir.normal_form import Equation
from pinnkit.ir.place_conditions import Placed
from pinnkit.ir.sampling import evaluate

__all__ = ["Linearised", "determinant", "scaled_roots"]

_TINY = 1e-10


class Linearised:
    """Coefficients d residual_i / d leaf, ready to be evaluated at sampled states."""

    def __init__(
        self, equations: Sequence[Equation], fields: Sequence[sp.Expr], symbols: Symbols
    ) -> None:
        self.fields = tuple(fields)
        self.coords = symbols.coords
        self.time = symbols.time
        self._frozen = freeze([e.residual for e in equations])
        self.entries: list[tuple[int, int, tuple[int, ...], sp.Expr]] = []
        for i, expr in enumerate(self._frozen.exprs):
            for leaf, symbol in self._frozen.symbols.items():
                if not expr.has(symbol):
                    continue
                counts = tuple(derivative_count(leaf, c) for c in symbols.coords)
                column = self.fields.index(field_of(leaf))
                self.entries.append((i, column, counts, sp.diff(expr, symbol)))
        self.square = len(equations) == len(self.fields)
        self.size = len(self.fields)
        used = set().union(*(e[3].free_symbols for e in self.entries)) if self.entries else set()
        self.state_leaves = [lf for lf, s in self._frozen.symbols.items() if s in used]
        self.depends_on_coords = bool(used & set(symbols.coords))

    def coefficients(
        self, points: Mapping[sp.Symbol, np.ndarray], state: Mapping[sp.Expr, np.ndarray]
    ) -> np.ndarray:
        """One row per entry, one column per point; shape (entries, n)."""
        values = dict(points)
        for leaf, numbers in state.items():
            values[self._frozen.symbols[leaf]] = numbers
        n = max((np.size(v) for v in values.values()), default=1)
        rows = []
        for *_, expr in self.entries:
            for p in expr.free_symbols:
                if isinstance(p, Parameter):
                    values[p] = np.full(n, p.guess)
            row = np.real(evaluate(expr, values)).astype(float) if values else evaluate(expr, {})
            rows.append(np.broadcast_to(row, (n,)))
        return np.array(rows) if rows else np.zeros((0, n))

    def polynomials(
        self,
        numbers: np.ndarray,  # shape: (entries,)
        variable: sp.Symbol,
        frequencies: Mapping[sp.Symbol, complex],
    ) -> list[list[np.ndarray]]:
        """Matrix of polynomials in the symbol of d/d variable (ascending coefficients)."""
        axis = self.coords.index(variable)
        matrix = [[np.zeros(1, dtype=complex) for _ in range(self.size)] for _ in range(self.size)]
        for (i, j, counts, _), number in zip(self.entries, numbers, strict=True):
            if number == 0:
                continue
            factor = complex(number)
            for c, k in zip(self.coords, counts, strict=True):
                if c != variable and k:
                    factor *= frequencies[c] ** k
            k = counts[axis]
            poly = matrix[i][j]
            if len(poly) <= k:
                poly = np.concatenate([poly, np.zeros(k + 1 - len(poly), dtype=complex)])
            poly[k] += factor
            matrix[i][j] = poly
        return matrix


def determinant(matrix: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Determinant of a matrix of polynomials (ascending coefficients), trailing zeros cut.

    Expansion row by row over subsets of columns, beside it the permanent of absolute values: what
    is far below it is cancellation noise and set to zero, so that the degree can be trusted.
    """
    m = len(matrix)
    best: dict[int, tuple[np.ndarray, np.ndarray]] = {0: (np.ones(1, complex), np.ones(1))}
    for row in matrix:
        new: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for used, (value, size) in best.items():
            for j in range(m):
                entry = row[j]
                if used >> j & 1 or not np.any(entry):
                    continue
                # The sign counts the used columns right of j.
                sign = -1.0 if (used >> (j + 1)).bit_count() % 2 else 1.0
                term = sign * np.convolve(value, entry)
                bulk = np.convolve(size, np.abs(entry))
                old = new.get(used | 1 << j)
                if old is not None:
                    term, bulk = _add(old[0], term), _add(old[1], bulk)
                new[used | 1 << j] = (term, bulk)
        best = new
    if (1 << m) - 1 not in best:
        return np.zeros(0, dtype=complex)
    value, size = best[(1 << m) - 1]
    value = np.where(np.abs(value) > _TINY * size, value, 0.0)
    return np.trim_zeros(value, "b")


def scaled_roots(polynomial: np.ndarray) -> np.ndarray:
    """Roots of a polynomial (ascending) whose coefficients may differ by many decades."""
    degree = len(polynomial) - 1
    if degree < 1:
        return np.zeros(0, dtype=complex)
    low = int(np.flatnonzero(polynomial)[0])
    core = polynomial[low:]
    n = len(core) - 1
    zeros = np.zeros(low, dtype=complex)
    if n == 0:
        return zeros
    scale = float(np.exp((np.log(abs(core[0])) - np.log(abs(core[-1]))) / n))
    logs = np.log(np.maximum(np.abs(core), 1e-300)) + np.arange(n + 1) * np.log(scale)
    phases = np.where(core != 0, core / np.maximum(np.abs(core), 1e-300), 0)
    balanced = phases * np.exp(logs - logs.max())
    return np.concatenate([np.roots(balanced[::-1]) * scale, zeros])


def initial_expressions(placed: Placed, symbols: Symbols) -> dict[sp.Expr, dict[int, sp.Expr]]:
    """field -> {order in time: its initial value}, from the plain Initial conditions."""
    found: dict[sp.Expr, dict[int, sp.Expr]] = {}
    for c in placed.conditions:
        if c.kind != "initial" or c.face.coord != symbols.time or c.target is None:
            continue
        u = field_of(c.target)
        if derivative_count(c.target) == c.order and c.value is not None:
            found.setdefault(u, {})[c.order] = c.value
    return found


def initial_state(
    state_leaves: Sequence[sp.Expr],
    points: Mapping[sp.Symbol, np.ndarray],
    placed: Placed,
    symbols: Symbols,
) -> tuple[dict[sp.Expr, np.ndarray], set[sp.Expr]]:
    """Numbers of the leaves at the initial time, and the leaves no initial value is known for."""
    known = initial_expressions(placed, symbols)
    guesses = {
        p: p.guess
        for data in known.values()
        for e in data.values()
        for p in e.free_symbols
        if isinstance(p, Parameter)
    }
    n = max((np.size(v) for v in points.values()), default=1)
    state: dict[sp.Expr, np.ndarray] = {}
    unknown: set[sp.Expr] = set()
    for leaf in state_leaves:
        u = field_of(leaf)
        order = derivative_count(leaf, symbols.time) if symbols.time is not None else 0
        value = known.get(u, {}).get(order)
        if value is None:
            unknown.add(leaf)
            continue
        for c, k in steps_of(leaf):
            if c != symbols.time:
                value = sp.diff(value, c, k)
        numbers = np.real(evaluate(settle(value), {**points, **guesses}))
        state[leaf] = np.nan_to_num(np.broadcast_to(numbers, (n,)).astype(float))
    return state, unknown


def _add(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    out = np.zeros(max(len(a), len(b)), dtype=np.result_type(a, b))
    out[: len(a)] += a
    out[: len(b)] += b
    return out


__all__ += ["initial_expressions", "initial_state"]
