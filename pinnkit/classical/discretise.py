"""A problem on a grid: one square system F(t, y, y') = 0 of differential and algebraic equations.

In    a NormalForm and one axis per space coordinate.
Out   `System`: residuals at several times at once, sparse dF/dy and dF/dy', initial values, norms.
Next  `radau` integrates it, `steady` solves it without time, `defect` adds a known background.

The state holds, field by field, the values at the field's nodes, then for fields of second and
higher order in time the first, second.. time derivatives at the collocation points, then one
multiplier per integral condition that comes on top of a square system (a gauge). The rows are the
equations at the collocation points, P u' = v for each time derivative in the state, the conditions,
the matching of derivatives across seams, and the integrals. Nothing is eliminated, so a condition
may be any expression; rows without y' are algebraic and the integrators must be able to take them.
In two dimensions rows on sides of the first axis hold at all nodes of the second, and rows on sides
of the second at the collocation points of the first: with tensor products this is square.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import scipy.sparse as sps
import sympy as sp

from pinnkit.classical.axes import Axis
from pinnkit.classical.basis import PiecewiseBasis
from pinnkit.classical.conditions import assign_owners, refuse_not_finite, seam_fluxes
from pinnkit.classical.expressions import Leaf, compile_residual, compile_value, find_leaves
from pinnkit.classical.row_blocks import Background, RowBlock, Source, Term
from pinnkit.errors import UnsupportedProblemError
from pinnkit.ir.normal_form import Condition, NormalForm

__all__ = ["Frame", "System", "field_orders"]

Array = np.ndarray
Matrix = sps.csr_matrix


@dataclass(frozen=True, eq=False)
class Frame:
    """All of a system that depends on time alone, at given times: computed once per step."""

    t: Array
    coords: list[list[list[Array]]]  # per block, per term, per coordinate
    known: list[list[list[Array] | None]]  # per block, per term


def field_orders(nf: NormalForm) -> tuple[list[int], list[list[int]]]:
    """(order in time per field, order along each space axis per field), from the equations."""
    time_orders = [0] * len(nf.fields)
    space_orders = [[0] * len(nf.space) for _ in nf.fields]
    for equation in nf.equations:
        for leaf in find_leaves(equation.residual, nf).values():
            for coord, count in zip(nf.coords, leaf.alpha, strict=True):
                if coord == nf.time:
                    time_orders[leaf.field] = max(time_orders[leaf.field], count)
                else:
                    axis = nf.space.index(coord)
                    orders = space_orders[leaf.field]
                    orders[axis] = max(orders[axis], count)
    return time_orders, space_orders


class System:
    """F(t, y, y') = 0 for one problem on one grid."""

    def __init__(
        self, nf: NormalForm, axes: Sequence[Axis], background: Background | None = None
    ) -> None:
        self.nf = nf
        self.axes = tuple(axes)
        self.background = background or Background()
        self.time_orders, self.space_orders = field_orders(nf)
        self.bases: list[list[PiecewiseBasis]] = [
            [axis.basis(m) for axis, m in zip(self.axes, orders, strict=True)]
            for orders in self.space_orders
        ]
        self.shapes = [tuple(b.size for b in bases) for bases in self.bases]
        self._lay_out()
        self._blocks: list[RowBlock] = []
        self._rows = 0
        self._add_equations()
        self._add_rates()
        self._add_conditions()
        self._add_seams()
        self._add_integrals()
        if self._rows != self.size:
            raise UnsupportedProblemError(
                f"MethodOfLines() gets {self._rows} equations for {self.size} unknowns on its grid: "
                "the number of conditions does not match the orders of the equations in space."
            )
        terms = [term for block in self._blocks for term in block.terms]
        self.affine = all(term.residual.affine for term in terms)
        self.steady_jacobian = self.affine and all(term.residual.steady_partials for term in terms)

    # The state vector.

    def _lay_out(self) -> None:
        self.point_count = int(np.prod([len(a.points) for a in self.axes], dtype=int))
        self.start: list[list[int]] = []  # start[i][k]: k-th time derivative of field i
        position = 0
        for shape, order in zip(self.shapes, self.time_orders, strict=True):
            starts = [position]
            position += int(np.prod(shape, dtype=int))
            for _ in range(1, order):
                starts.append(position)
                position += self.point_count
            self.start.append(starts)
        self._multiplier_start = position
        self.size = position

    def field_slice(self, index: int) -> slice:
        """Where the nodal values of a field are in the state."""
        start = self.start[index][0]
        return slice(start, start + int(np.prod(self.shapes[index], dtype=int)))

    def nodal_weights(self, index: int) -> Array:
        """Quadrature weights of the field's nodes (integrals of its basis functions)."""
        per_axis = [
            np.abs(axis.weights @ axis.at_points(m, 0))
            for axis, m in zip(self.axes, self.space_orders[index], strict=True)
        ]
        return reduce(np.kron, per_axis, np.ones(1))

    # Rows.

    def _add(self, terms: Sequence[Term], **options: object) -> None:
        block = RowBlock(self._rows, tuple(terms), **options)  # type: ignore[arg-type]
        if block.terms[0].size:
            self._blocks.append(block)
            self._rows += block.size

    def _point_operator(self, index: int, alpha: Sequence[int]) -> Matrix:
        """Space derivative of a field at all collocation points."""
        orders = self.space_orders[index]
        return _kron([a.at_points(m, k) for a, m, k in zip(self.axes, orders, alpha, strict=True)])

    def _split(self, leaf: Leaf) -> tuple[int, list[int]]:
        """(counts in time, counts per space axis) of a leaf."""
        counts = dict(zip(self.nf.coords, leaf.alpha, strict=True))
        time = counts.pop(self.nf.time, 0) if self.nf.time is not None else 0
        return time, [counts[c] for c in self.nf.space]

    def _columns(self, meshes: Sequence[Array]) -> tuple[Array | None, ...]:
        """Coordinate columns in the order of nf.coords from one array per space axis."""
        grids = np.meshgrid(*meshes, indexing="ij") if meshes else []
        size = int(np.prod([len(m) for m in meshes], dtype=int))
        by_name = {c: g.reshape(size, 1) for c, g in zip(self.nf.space, grids, strict=True)}
        return tuple(None if c == self.nf.time else by_name[c] for c in self.nf.coords)

    def _state_source(self, leaf: Leaf, operator: Matrix, at_points: bool) -> Source:
        """Take a leaf from the state or from its rate, by its order in time."""
        time, alpha = self._split(leaf)
        order = self.time_orders[leaf.field]
        if time == 0:
            return Source(False, self.start[leaf.field][0], operator)
        if at_points and not any(alpha):
            identity = sps.csr_matrix(sps.identity(self.point_count))
            if time < order:
                return Source(False, self.start[leaf.field][time], identity)
            if time == order and order >= 2:
                return Source(True, self.start[leaf.field][order - 1], identity)
        if time == 1:
            return Source(True, self.start[leaf.field][0], operator)
        raise UnsupportedProblemError(
            "MethodOfLines() cannot take space derivatives of second or higher time derivatives "
            f"of {self.nf.fields[leaf.field]}; introduce the time derivative as a field of its own."
        )

    def _point_term(self, expr: sp.Expr) -> Term:
        residual = compile_residual(expr, self.nf)
        sources = [
            self._state_source(leaf, self._point_operator(leaf.field, self._split(leaf)[1]), True)
            for leaf in residual.leaves
        ]
        columns = self._columns([a.points for a in self.axes])
        return Term(residual, columns, tuple(sources), self.point_count)

    def _add_equations(self) -> None:
        self.equation_blocks: list[int] = []
        for equation in self.nf.equations:
            self.equation_blocks.append(len(self._blocks))
            self._add([self._point_term(equation.residual)])

    def _add_rates(self) -> None:
        """P u' = v and v' = w for the time derivatives kept in the state."""
        columns = self._columns([a.points for a in self.axes])
        for i, order in enumerate(self.time_orders):
            for k in range(1, order):
                # As a residual D(u, t, k) - v, the k-th derivative taken once from the rate of the
                # (k-1)-th and once from the state: no known background remains in it.
                if k == 1:
                    operator = self._point_operator(i, [0] * len(self.axes))
                    rate = Source(True, self.start[i][0], operator)
                else:
                    identity = sps.csr_matrix(sps.identity(self.point_count))
                    rate = Source(True, self.start[i][k - 1], identity)
                value = Source(
                    False, self.start[i][k], sps.csr_matrix(sps.identity(self.point_count))
                )
                leaf = Leaf(i, tuple(k if c == self.nf.time else 0 for c in self.nf.coords))
                symbol = sp.Derivative(self.nf.fields[i], (self.nf.time, k))
                unit = compile_residual(symbol, self.nf)
                assert unit.leaves == (leaf,)
                self._add(
                    [
                        Term(unit, columns, (rate,), self.point_count, known=False),
                        Term(unit, columns, (value,), self.point_count, -1.0, known=False),
                    ]
                )

    def _tangential(self, owner: int, axis: int) -> list[Array]:
        """Where rows on a side of `axis` hold along the other axes (see the module's text)."""
        return [
            a.points if b < axis else a.nodes(self.space_orders[owner][b])
            for b, a in enumerate(self.axes)
        ]

    def _side_term(
        self,
        expr: sp.Expr,
        owner: int,
        axis: int,
        across: Callable[[int, int], Matrix],
        x: Array,
        *,
        sign: float = 1.0,
        mask: Array | None = None,
        known: bool = True,
    ) -> Term:
        """A residual on points of one axis (`across(m, order)` gives its matrices) times the others."""
        meshes = self._tangential(owner, axis)
        meshes[axis] = x
        columns = self._columns(meshes)
        residual = compile_residual(expr, self.nf)
        sources = []
        for leaf in residual.leaves:
            orders = self.space_orders[leaf.field]
            _, alpha = self._split(leaf)
            factors = [
                across(orders[b], alpha[b])
                if b == axis
                else self.bases[leaf.field][b].matrix(meshes[b], alpha[b])
                for b in range(len(self.axes))
            ]
            operator = _kron(factors)
            if mask is not None:
                operator = operator[mask]
            sources.append(self._state_source(leaf, operator, False))
        size = int(np.prod([len(m) for m in meshes], dtype=int))
        if mask is not None:
            columns = tuple(None if c is None else c[mask] for c in columns)
            size = int(mask.sum())
        return Term(residual, columns, tuple(sources), size, sign, known)

    def _add_conditions(self) -> None:
        for condition, owner in assign_owners(self.nf, self.space_orders):
            face = condition.face
            axis = self.nf.space.index(face.coord)
            grid = self.axes[axis]

            def across(m: int, k: int, grid: Axis = grid, side: str = face.side) -> Matrix:
                return grid.at_edge(m, side, k)

            x = np.array([face.value])
            mask = self._mask(condition, owner, axis, x)
            self._add([self._side_term(condition.residual, owner, axis, across, x, mask=mask)])

    def _mask(self, condition: Condition, owner: int, axis: int, x: Array) -> Array | None:
        if condition.face.where == sp.true:
            return None
        meshes = self._tangential(owner, axis)
        # A node where two parts of a side meet goes to the upper one, whether < or <= was written.
        for b, coord in enumerate(self.nf.space):
            lower, upper = self.nf.bounds[coord]
            nudge = 1e-9 * (upper - lower)
            meshes[b] = np.clip(meshes[b] + nudge, lower + nudge, upper - nudge)
        meshes[axis] = x
        size = int(np.prod([len(m) for m in meshes], dtype=int))
        where = compile_value(sp.Piecewise((1, condition.face.where), (0, True)), self.nf)
        columns = [np.zeros((1, 1)) if c is None else c for c in self._columns(meshes)]
        return where(columns, (size, 1))[:, 0] > 0.5

    def _add_seams(self) -> None:
        """Derivatives (or fluxes, where a coefficient jumps) match at breakpoints."""
        for axis, grid in enumerate(self.axes):
            fluxes = seam_fluxes(self.nf, axis)
            for i, orders in enumerate(self.space_orders):
                for order in grid.seam_orders(orders[axis]):
                    coord = self.nf.space[axis]
                    expr = sp.Derivative(self.nf.fields[i], (coord, order))
                    if order == 1 and i in fluxes:
                        expr = fluxes[i]
                    self._add_seam(expr, i, axis, grid)

    def _add_seam(self, expr: sp.Expr, owner: int, axis: int, grid: Axis) -> None:
        x = grid.seam_points
        # Coefficients are taken just inside either element; the shift is far below any accuracy.
        nudge = 1e-13 * (abs(x).max() + 1.0) if len(x) else 0.0
        lower, upper = self.nf.bounds[self.nf.space[axis]]
        below_x = np.where(x == lower, upper, x) - nudge

        def below(m: int, k: int) -> Matrix:
            return grid.seams(m, k)[0]

        def above(m: int, k: int) -> Matrix:
            return grid.seams(m, k)[1]

        # A background is smooth: only where its flux jumps or it must be periodic does it matter.
        known = not isinstance(expr, sp.Derivative) or self.nf.space[axis] in self.nf.periodic
        self._add(
            [
                self._side_term(expr, owner, axis, below, below_x, known=known),
                self._side_term(expr, owner, axis, above, x + nudge, sign=-1.0, known=known),
            ]
        )

    def _add_integrals(self) -> None:
        """Integral conditions: in place of missing conditions, else bordered with a multiplier."""
        nf = self.nf
        missing = self.size - self._rows
        weights = reduce(np.kron, [a.weights for a in self.axes], np.ones(1))
        for integral in nf.integrals:
            if set(integral.over) != set(nf.space):
                raise UnsupportedProblemError(
                    f"MethodOfLines() needs integrals over all space coordinates; {integral.label} "
                    f"runs over {', '.join(map(str, integral.over))} only. Use CausalPINN()."
                )
            if integral.equals.free_symbols:
                raise UnsupportedProblemError(
                    f"MethodOfLines() needs a number on the right of {integral.label}. Use CausalPINN()."
                )
            term = self._point_term(integral.integrand)
            if missing > 0:
                missing -= 1
            else:
                self._border(term)
            self._add([term], quadrature=weights, constant=float(integral.equals))

    def _border(self, term: Term) -> None:
        """One more unknown: a constant added to the equation that loses solvability."""
        gauged = {leaf.field for leaf in term.residual.leaves}
        number = self._equation_to_border(gauged)
        block = self._blocks[self.equation_blocks[number]]
        self._blocks[self.equation_blocks[number]] = RowBlock(
            block.start, block.terms, multiplier=self.size
        )
        self.size += 1

    def _equation_to_border(self, gauged: set[int]) -> int:
        """The steady equation that holds the gauged field, else any steady one, else the first."""

        def leaves(number: int) -> list[Leaf]:
            return list(find_leaves(self.nf.equations[number].residual, self.nf).values())

        numbers = range(len(self.nf.equations))
        steady = [n for n in numbers if all(self._split(leaf)[0] == 0 for leaf in leaves(n))]
        own = [n for n in steady if any(leaf.field in gauged for leaf in leaves(n))]
        return (own or steady or list(numbers))[0]

    @property
    def multipliers(self) -> slice:
        """The multipliers in the state: not zero means the sources are not compatible."""
        return slice(self._multiplier_start, self.size)

    # Evaluation.

    def frame(self, t: Array) -> Frame:
        """Coordinates and background at the times t (s,)."""
        t = np.atleast_1d(np.asarray(t, dtype=float))
        coords = [[term.coordinates(t) for term in block.terms] for block in self._blocks]
        known = [
            [self.background.leaves(term, t) if term.known else None for term in block.terms]
            for block in self._blocks
        ]
        return Frame(t, coords, known)

    def residual(self, frame: Frame, y: Array, rate: Array) -> Array:
        """F at the frame's times: y and rate (size, s) -> (size, s)."""
        out = np.empty((self.size, len(frame.t)))
        for block, coords, known in zip(self._blocks, frame.coords, frame.known, strict=True):
            out[block.start : block.start + block.size] = block.values(coords, known, y, rate)
        return out

    def jacobian(
        self, frame: Frame, y: Array, rate: Array
    ) -> tuple[sps.csc_matrix, sps.csc_matrix]:
        """(dF/dy, dF/dy') at a frame of one time."""
        parts: dict[bool, list[tuple[Array, Array, Array]]] = {False: [], True: []}
        y, rate = y.reshape(self.size, 1), rate.reshape(self.size, 1)
        for block, coords, known in zip(self._blocks, frame.coords, frame.known, strict=True):
            for of_rate, rows, columns, data in block.entries(coords, known, y, rate):
                parts[of_rate].append((rows, columns, data))
        return self._assemble(parts[False]), self._assemble(parts[True])

    def _assemble(self, parts: list[tuple[Array, Array, Array]]) -> sps.csc_matrix:
        if not parts:
            return sps.csc_matrix((self.size, self.size))
        rows, columns, data = (np.concatenate(p) for p in zip(*parts, strict=True))
        return sps.csc_matrix((data, (rows, columns)), shape=(self.size, self.size))

    def initial(self) -> Array:
        """The state at the start; fields without a time derivative start from zero."""
        nf = self.nf
        y = np.zeros(self.size)
        start_time = nf.bounds[nf.time][0] if nf.time is not None else 0.0
        for condition in nf.conditions:
            if condition.kind != "initial" or condition.face.coord != nf.time:
                continue
            if condition.value is None or condition.target is None:
                raise UnsupportedProblemError(
                    f"MethodOfLines() needs {condition.label} in the form field = value."
                )
            (leaf,) = find_leaves(condition.target, nf).values()
            time, _ = self._split(leaf)
            if time >= max(self.time_orders[leaf.field], 1):
                continue
            if time == 0:
                meshes = [
                    a.nodes(m)
                    for a, m in zip(self.axes, self.space_orders[leaf.field], strict=True)
                ]
            else:
                meshes = [a.points for a in self.axes]
            columns = [
                np.full((1, 1), start_time) if c is None else c for c in self._columns(meshes)
            ]
            size = int(np.prod([len(m) for m in meshes], dtype=int))
            values = compile_value(condition.value, nf)(columns, (size, 1))[:, 0]
            refuse_not_finite(condition, nf, [c.ravel() for c in columns], values)
            points = np.concatenate([np.broadcast_to(c, (size, 1)) for c in columns], axis=1)
            known = self.background.nodal(leaf.field, leaf.alpha, points)
            if known is not None:
                values = values - known
            begin = self.start[leaf.field][time]
            y[begin : begin + size] = values
        return y


def _kron(factors: Sequence[Matrix]) -> Matrix:
    if not factors:
        return sps.csr_matrix(sps.identity(1))
    out = factors[0]
    for factor in factors[1:]:
        out = sps.csr_matrix(sps.kron(out, factor, format="csr"))
    return out
