"""A system on a graph as torch functions: the residual and the entries of its sparse Jacobian.

In    a `GraphForm`, a `Graph`, their `GraphBinding`; features as tensors.
Out   `GraphEquations`: residual (n,), Jacobian entries (nnz,) on a fixed pattern, both differentiable.
Next  `graphs` solves sparse systems with them, `solution` evaluates expressions.

The unknowns are numbered field after field over the nodes where it is not fixed, then come the unknown
numbers; rows are numbered likewise, with totals in the place of unknown numbers. Nothing here is
larger than nodes plus arcs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import sympy as sp
import torch
from torch import Tensor

from pinnkit.declare.graph import Graph
from pinnkit.declare.graph_symbols import NodeField
from pinnkit.declare.symbols import Parameter
from pinnkit.ir.graph_binding import GraphBinding
from pinnkit.ir.graph_derivatives import differentiate
from pinnkit.ir.graph_form import GraphForm
from pinnkit.lower.graph_arcs import Arcs, Features
from pinnkit.lower.graph_program import CompiledProgram, CompiledValue, NodeValues, Slopes, evaluate

__all__ = ["GraphEquations"]

_ZERO = sp.Dummy("zero")


class GraphEquations:
    """Residual and Jacobian of a system on one graph.

    `rows`, `cols` (nnz,) say where the Jacobian may have entries, each place once; `n` is the number of
    unknowns.
    """

    def __init__(
        self,
        form: GraphForm,
        graph: Graph,
        binding: GraphBinding,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self.form, self.graph, self.binding = form, graph, binding
        self.device, self.dtype = torch.device(device), dtype
        self.arcs = Arcs.of(graph, self.device)
        self.features = Features.of(graph, self.device, dtype)
        self._program = CompiledProgram(form.program)
        self._fixed = [CompiledValue(c.value, form.parameters) for c in form.fixed]
        self._places = [torch.tensor(np.flatnonzero(p)).to(device) for p in binding.places]
        self._free, self._column, self.n = self._number()
        self._row = [self._column[f] for f in form.fields]
        for mask in binding.totals:
            row = torch.full((graph.n_nodes,), -1, device=self.device)
            row[torch.tensor(mask).to(device)] = self.n + len(self._row) - len(form.fields)
            self._row.append(row)
        self._equals = torch.tensor([float(c.equals) for c in form.totals], dtype=torch.float64)
        self._equals = self._equals.to(device, dtype)
        self.values = self.n  # unknown values at nodes; the numbers come after them
        self.n += len(form.parameters)
        self._blocks = list(self._place_blocks())
        self.rows, self.cols, self._inverse = self._pattern()

    # --- unknowns and values --------------------------------------------------------------------

    def start(self, features: Features | None = None) -> Tensor:  # shape: (n,)
        """Where iterations begin: the declared start, else the mean of the fixed values, else 0."""
        numbers = {p: torch.tensor(p.guess, dtype=self.dtype).to(self.device) for p in self._known}
        fixed = self._fixed_values(numbers, features or self.features)
        parts = []
        for f in self.form.fields:
            known = fixed[f][torch.tensor(self.binding.fixed[f]).to(self.device)]
            usual = known.mean() if known.numel() else torch.zeros((), dtype=self.dtype)
            value = torch.as_tensor(usual if f.initial is None else f.initial)
            parts.append(value.to(self.device, self.dtype).expand(len(self._free[f])))
        parts += [numbers[p].reshape(1) for p in self._known]
        return torch.cat(parts).detach()

    def unpack(self, z: Tensor, features: Features | None = None) -> NodeValues:
        """The unknowns (n,) at their nodes, among the fixed values."""
        numbers = {p: z[self.values + i] for i, p in enumerate(self._known)}
        values = self._fixed_values(numbers, features or self.features)
        place = 0
        for f in self.form.fields:
            free = self._free[f]
            values[f] = values[f].index_put((free,), z[place : place + len(free)])
            place += len(free)
        return NodeValues(values, numbers)

    def pack(self, values: NodeValues) -> Tensor:  # shape: (n,)
        """The unknowns among the values."""
        parts = [values.fields[f][self._free[f]] for f in self.form.fields]
        return torch.cat([*parts, *(values.parameters[p].reshape(1) for p in self._known)])

    def spans(self) -> dict[NodeField, slice]:
        """Where each field's unknowns stand in z."""
        result, place = {}, 0
        for f in self.form.fields:
            result[f] = slice(place, place + len(self._free[f]))
            place += len(self._free[f])
        return result

    # --- equations ------------------------------------------------------------------------------

    def residual(self, z: Tensor, features: Features | None = None) -> Tensor:  # shape: (n,)
        """The equations at free nodes, then the totals."""
        features = features or self.features
        everywhere = self.everywhere(self.unpack(z, features), features)
        parts = [e[self._free[f]] for f, e in zip(self.form.fields, everywhere)]
        for i, total in enumerate(everywhere[len(self.form.fields) :]):
            inside = self._row[len(self.form.fields) + i] >= 0
            parts.append((total[inside].sum() - self._equals[i]).reshape(1))
        return torch.cat(parts)

    def everywhere(self, values: NodeValues, features: Features | None = None) -> list[Tensor]:
        """Each equation's left side, and each total's summand, at every node: (N,)."""
        features = features or self.features
        return self._program.values(self.arcs, values, features)

    def entries(self, z: Tensor, features: Features | None = None) -> Tensor:  # shape: (nnz,)
        """The Jacobian's entries at `rows`, `cols`."""
        features = features or self.features
        values = self.unpack(z, features)
        slopes = self._program.slopes(self.arcs, values, features)
        pushed = {}
        for i, fixed in enumerate(self._fixed):
            for p in fixed.by_parameter:
                pushed[i, p] = fixed.slope(p, self._known_values(values.parameters, features))
        raw = [block.values(slopes, pushed) for block in self._blocks]
        total = torch.zeros(len(self.rows), dtype=z.dtype, device=z.device)
        if not raw:
            return total
        return total.index_add(0, self._inverse, torch.cat(raw))

    def magnitudes(self, z: Tensor) -> Tensor:  # shape: (n,)
        """Row by row the sum of the absolute values of all terms (of the linear part, at z).

        What rounding may do to the residual is a small multiple of the unit roundoff times this.
        """
        values = self.unpack(z)
        slopes = self._program.slopes(self.arcs, values, self.features, absolute=True)
        zero = torch.zeros_like(z)
        nothing = self.unpack(zero)
        nothing = NodeValues(
            {f: torch.zeros_like(v) for f, v in nothing.fields.items()}, nothing.parameters
        )
        total = torch.zeros(self.n, dtype=z.dtype, device=z.device)
        for i, constant in enumerate(self.everywhere(nothing)):
            # Nonlinear equations need not have a value where all fields are zero.
            known = torch.nan_to_num(constant.abs(), nan=0.0, posinf=0.0)
            total = _add(total, self._row[i], known)
        total[self.n - len(self._equals) :] += self._equals.abs()
        for (i, f), slope in slopes.own.items():
            total = _add(total, self._row[i], slope * values.fields[f].abs())
        for (i, k, f), slope in slopes.arcs.items():
            here, there = self.arcs.ends(self.form.program.reductions[k].outgoing)
            total = _add(total, self._row[i][here], slope * values.fields[f].abs()[there])
        for (i, p), slope in slopes.parameters.items():
            total = _add(total, self._row[i], slope * values.parameters[p].abs())
        return total

    def coupled(self, z: Tensor, field: NodeField) -> np.ndarray:  # shape: (A,)
        """The arcs through which the neighbour's value of the field enters with a weight not zero."""
        slopes = self._program.slopes(self.arcs, self.unpack(z), self.features)
        found = torch.zeros_like(self.arcs.edges, dtype=torch.bool)
        for (_, _, f), weights in slopes.arcs.items():
            if f == field:
                found |= weights != 0
        return found.cpu().numpy()

    # --- other expressions ----------------------------------------------------------------------

    def at_nodes(
        self, expr: sp.Expr, values: NodeValues, features: Features | None = None
    ) -> Tensor:  # shape: (N,)
        """Any expression of a node, sums over neighbours included."""
        compiled = CompiledProgram(differentiate([expr], (), ()))
        return compiled.values(self.arcs, values, features or self.features)[0]

    def at_edges(
        self, expr: sp.Expr, values: NodeValues, features: Features | None = None
    ) -> Tensor:  # shape: (E,)
        """An expression along the edges as given: the neighbour stands in row 0, the node in row 1."""
        given = Arcs.of(self.graph, self.device, as_given=True)
        return evaluate(expr, given, values, features or self.features)

    # --- within ---------------------------------------------------------------------------------

    @property
    def _known(self) -> tuple[Parameter, ...]:
        return self.form.parameters

    def _number(self) -> tuple[dict[NodeField, Tensor], dict[NodeField, Tensor], int]:
        free, column, n = {}, {}, 0
        for f in self.form.fields:
            nodes = torch.as_tensor(np.flatnonzero(~self.binding.fixed[f])).to(self.device)
            numbers = torch.full((self.graph.n_nodes,), -1, device=self.device)
            numbers[nodes] = torch.arange(n, n + len(nodes), device=self.device)
            free[f], column[f] = nodes, numbers
            n += len(nodes)
        return free, column, n

    def _fixed_values(
        self, numbers: Mapping[Parameter, Tensor], features: Features
    ) -> dict[NodeField, Tensor]:
        known = self._known_values(numbers, features)
        values = dict.fromkeys(self.form.fields, known[_ZERO])
        for condition, fixed, place in zip(self.form.fixed, self._fixed, self._places):
            here = fixed.value(known)[place]
            values[condition.field] = values[condition.field].index_put((place,), here)
        return values

    def _known_values(
        self, numbers: Mapping[Parameter, Tensor], features: Features
    ) -> dict[Any, Tensor]:
        """What fixed values are made of, (N,) each, and a zero for the shape."""
        zero = torch.zeros(self.graph.n_nodes, dtype=self.dtype, device=self.device)
        wide = {p: value.expand(self.graph.n_nodes) for p, value in numbers.items()}
        return {**features.at_nodes(c.value for c in self.form.fixed), **wide, _ZERO: zero}

    def _place_blocks(self) -> Iterator[_Block]:
        """Every product that may contribute to the Jacobian, with its rows and columns."""
        program, masks = self.form.program, self._place_masks()
        for i, row in enumerate(self._row):
            for f in self.form.fields:
                if self._program.has_own(i, f):
                    yield _Block(("own", i, f), row, self._column[f])
                    for (c, p), inside in masks.items():
                        if self.form.fixed[c].field == f:
                            yield _Block(("own", i, f), row, self._pinned(inside, p), push=(c, p))
            for k, reduction in enumerate(program.reductions):
                if (i, k) not in program.by_reduction:
                    continue
                here, there = self.arcs.ends(reduction.outgoing)
                for f in reduction.neighbour:
                    key = ("arcs", i, k, f)
                    yield _Block(key, row[here], self._column[f][there])
                    for (c, p), inside in masks.items():
                        if self.form.fixed[c].field == f:
                            cols = self._pinned(inside, p)[there]
                            yield _Block(key, row[here], cols, push=(c, p), at=there)
            for j, p in enumerate(self._known):
                if self._program.has_parameter(i, p):
                    yield _Block(("by", i, p), row, torch.full_like(row, self.values + j))

    def _place_masks(self) -> dict[tuple[int, Parameter], Tensor]:
        return {
            (c, p): torch.tensor(mask).to(self.device)
            for c, (fixed, mask) in enumerate(zip(self._fixed, self.binding.places))
            for p in fixed.by_parameter
        }

    def _pinned(self, inside: Tensor, p: Parameter) -> Tensor:
        column = self.values + self._known.index(p)
        return torch.where(inside, column, -1)

    def _pattern(self) -> tuple[Tensor, Tensor, Tensor]:
        if not self._blocks:
            nothing = torch.zeros(0, dtype=torch.int64, device=self.device)
            return nothing, nothing, nothing
        rows = torch.cat([b.rows[b.kept] for b in self._blocks])
        cols = torch.cat([b.cols[b.kept] for b in self._blocks])
        keys, inverse = torch.unique(rows * self.n + cols, return_inverse=True)
        return keys // self.n, keys % self.n, inverse


class _Block:
    """Entries of one kind: where they go, and how they are found among the slopes."""

    def __init__(
        self,
        key: tuple[Any, ...],
        rows: Tensor,
        cols: Tensor,
        push: tuple[int, Parameter] | None = None,
        at: Tensor | None = None,
    ) -> None:
        self.key, self.rows, self.cols, self.push, self.at = key, rows, cols, push, at
        self.kept = torch.nonzero((rows >= 0) & (cols >= 0))[:, 0]

    def values(self, slopes: Slopes, pushed: Mapping[tuple[int, Parameter], Tensor]) -> Tensor:
        kind, *rest = self.key
        table: Any = {"own": slopes.own, "arcs": slopes.arcs, "by": slopes.parameters}[kind]
        values = table[tuple(rest)]
        if self.push is not None:  # the fixed value moves with an unknown number
            factor = pushed[self.push]
            values = values * (factor if self.at is None else factor[self.at])
        return values[self.kept]


def _add(total: Tensor, rows: Tensor, values: Tensor) -> Tensor:
    kept = rows >= 0
    return total.index_add(0, rows[kept], values[kept])
