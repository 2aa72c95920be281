"""A family on a periodic box: trigonometric polynomials in space, elements in time, a defect norm.

In    a `PDEFamily` in time and one to three periodic axes, of which one field evolves and the others follow
      from it by linear equations (a streamfunction from a vorticity).
Out   `PeriodicElements`: leaves of nodal values, the residual and the norm for `nn.HardConstraint`;
      `periodic_refusal`: why a family is no such one.
Next  the constraint layer finds what networks, or `corrections`, leave open (`solvers.torus_constraint`).

A state has nodal values u (T, *grid): T = stages x times instants, the Radau nodes of every element, by n
nodes on each axis. In space it stands for the trigonometric interpolant without its highest mode, in time
for polynomials of degree `times` that meet at the elements' ends. Residuals are evaluated at 3n/2 nodes, so
that products of two are exact, and keep the modes of u. Fields that follow are found mode by mode.

The norm. With F(u* + e) = L e + O(e^2), |L^-1 F(u)| is about the error. L keeps of F' what has constant
coefficients (for a vorticity d/dt - nu lap): mode by mode a matrix of the element's nodes,

    (D / h + l(k)) (v - v_0) = r - l(k) v_0,      v_0 the end of the element before, at first 0.

Transport is not in L: v stays where it should move along, and `corrections` make up for that.
References: hairer1996solving (Radau IIA), chalapathi2024scaling.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import sympy as sp
import torch
from torch import Tensor

from pinnkit.declare.family import PDEFamily
from pinnkit.ir.leaves import freeze, leaves, steps_of
from pinnkit.ir.normal_form import NormalForm
from pinnkit.lower.expressions import compile_expressions
from pinnkit.lower.family_form import plain_start
from pinnkit.lower.family_residuals import FamilyResidual

__all__ = ["PeriodicElements", "periodic_refusal", "radau"]


class PeriodicElements:
    """Leaves, residual and norm on elements in time; a `PointwiseResidual` and its `norm`.

    Args:
        family: First order in time, periodic along every axis of space.
        length: Of all elements together.
        stages: Elements; one after the other by separate layers, or several in one.
        times: Radau nodes of an element.
        nodes: n, even, on each axis.
        scale: Size of the field that evolves; the norm's rows are relative to it.
        dtype, device: Of the tensors.

    Raises:
        ValueError: for a family of another kind, see `periodic_refusal`.
    """

    def __init__(
        self,
        family: PDEFamily,
        length: float,
        *,
        stages: int = 1,
        times: int = 3,
        nodes: int = 32,
        scale: float = 1.0,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        reason = periodic_refusal(family)
        if reason is not None:
            raise ValueError(f"PeriodicElements does not take this family: {reason}")
        nf = self.nf = family.normal_form
        self.family, self.pointwise = family, FamilyResidual(family, nf.conditions)
        row, self.following = _rows(nf)
        assert row is not None  # periodic_refusal has looked
        self.row = row
        orders = [nf.predicates.time_order.get(u, 0) for u in nf.fields]
        self.evolving, residual = orders.index(1), nf.equations[row].residual
        self.reads = [leaf for leaf in self.pointwise.given if residual.has(leaf)]
        self.stages, self.times, self.nodes, self.scale = stages, times, nodes, scale
        self.fine, self.dimension = 3 * nodes // 2, len(nf.space)
        self.length, self.place = length, {"dtype": dtype, "device": device}
        t, slopes, weights = (torch.from_numpy(a).to(**self.place) for a in radau(times))
        self.step, self._rates = length / stages, slopes * stages / length
        begins = torch.arange(stages, **self.place)[:, None]
        self.instants = ((begins + t) * self.step).flatten()  # since the start, (T,)
        self._weights = (weights / stages).repeat(stages)
        numbers = [np.fft.fftfreq(nodes, 1 / nodes)] * (self.dimension - 1)
        mesh = np.meshgrid(*numbers, np.arange(nodes // 2 + 1.0), indexing="ij")
        self._kept = torch.from_numpy(
            np.all([np.abs(m) < nodes // 2 for m in mesh], axis=0).astype(float)
        ).to(**self.place)
        waves = [
            2j * np.pi / (nf.bounds[x][1] - nf.bounds[x][0]) * m
            for x, m in zip(nf.space, mesh, strict=True)
        ]
        self._space = [nf.coords.index(x) for x in nf.space]
        assert nf.time is not None
        self._time = nf.coords.index(nf.time)
        self.symbols = self._field_symbols(waves)
        self._waves = waves
        self._rate, self._symbol = self._linear_part(waves)
        eye = torch.eye(times, **self.place)
        matrix = self._rate * self._rates + self._symbol[..., None, None] * eye
        self._inverse = torch.linalg.inv(matrix)  # (*modes, times, times)

    # --- values, modes ------------------------------------------------------------------------------

    def points(self, start: float = 0.0) -> Tensor:  # shape: (T *fine, d)
        """The fine nodes at the instants after `start`, columns as the family's coordinates."""
        return self._points(start + self.instants, self.fine)

    def _points(self, times: Tensor, count: int) -> Tensor:
        """Instants by equidistant nodes, time first."""
        axes: list[Any] = [None] * len(self.nf.coords)
        axes[self._time] = times
        for x, column in zip(self.nf.space, self._space, strict=True):
            low, high = self.nf.bounds[x]
            axes[column] = low + (high - low) / count * torch.arange(count, **self.place)
        order = [self._time, *self._space]
        mesh = torch.meshgrid(*(axes[c] for c in order), indexing="ij")
        return torch.stack([mesh[order.index(c)] for c in range(len(axes))], -1).flatten(0, -2)

    @property
    def autonomous(self) -> bool:
        """Whether the equation is the same at all times: then `inputs` do not depend on the start."""
        (explicit,) = freeze([self.nf.equations[self.row].residual]).exprs
        return self.nf.time not in explicit.free_symbols

    def inputs(self, samples: Sequence[Mapping[Any, Any]], start: float = 0.0) -> Tensor:
        """What the residual reads beside the leaves, for samples read by the family: (B, n, G).

        What is given but not in the equation, such as the start, is left at 0.
        """
        points = self.points(start)
        places = points.detach().cpu().double().numpy()
        values = self.family.values(samples, places, self.reads)
        blank = points.new_zeros(len(samples), len(points), 1)
        columns = [points.expand(len(samples), *points.shape)]
        for leaf in self.pointwise.given:
            known = values.get(leaf)
            columns.append(
                blank if known is None else torch.tensor(known.copy(), **self.place)[..., None]
            )
        return torch.cat([*columns, blank, blank], 2)  # no point of a ring lies on a side

    def read(self, inputs: Tensor) -> Tensor:  # shapes: (B, n, G) -> (B, R, *grid)
        """Nodal values, at the first instant, of what is given in the equation."""
        count, grid = self.stages * self.times, [self.fine] * self.dimension
        if not self.reads:  # not every backend transforms nothing
            return inputs.new_zeros(len(inputs), 0, *[self.nodes] * self.dimension)
        first = inputs.unflatten(1, (count, -1))[:, 0]
        ahead = len(self.nf.coords)
        columns = [ahead + self.pointwise.given.index(leaf) for leaf in self.reads]
        return self._values(self._coarsened(first[..., columns].movedim(-1, 1).unflatten(2, grid)))

    def starts(self, samples: Sequence[Mapping[Any, Any]]) -> Tensor:  # shape: (B, *grid)
        """The modes kept of the given start, as nodal values."""
        nf = self.nf
        condition = plain_start(nf, nf.fields[self.evolving])
        assert condition is not None and condition.value is not None  # periodic_refusal has looked
        nodes = self._points(condition.face.value + self.instants.new_zeros(1), self.nodes)
        given = [leaf for leaf in self.pointwise.given if condition.value.has(leaf)]
        known = self.family.values(samples, nodes.detach().cpu().double().numpy(), given)
        columns = [torch.tensor(known[leaf].copy(), **self.place) for leaf in given]
        shape = (len(samples), len(nodes))
        coords = [c.expand(shape) for c in nodes.unbind(1)]
        (value,) = compile_expressions([condition.value], [*nf.coords, *given])([*coords, *columns])
        grid = [self.nodes] * self.dimension
        return self._values(self._modes(value.expand(shape).unflatten(1, grid)))

    def leaves(
        self,
        values: Tensor,  # shape: (..., T, *grid)
        before: Tensor | None = None,  # shape: (..., *grid)
    ) -> Tensor:  # shape: (..., n, L)
        """The residual's leaves of nodal values at the n = T x fine nodes; `before` is at the start, None: 0."""
        first = (
            torch.zeros_like(values.select(-self.dimension - 1, 0)) if before is None else before
        )
        parts = values.unflatten(-self.dimension - 1, (self.stages, self.times))
        ends = parts.select(-self.dimension - 1, -1)
        begins = torch.cat(
            [first.unsqueeze(-self.dimension - 1), ends.narrow(-self.dimension - 1, 0, self.stages - 1)],
            -self.dimension - 1,
        )  # fmt: skip
        grid = "xyz"[: self.dimension]
        rise = parts - begins.unsqueeze(-self.dimension - 1)
        rates = torch.einsum(f"iq,...q{grid}->...i{grid}", self._rates, rise).reshape(values.shape)
        modes, rate_modes = self._modes(values), self._modes(rates)
        found = []
        for field, orders in self.pointwise.wanted:
            symbol = self.symbols[field] * self._powers(orders)
            chosen = rate_modes if orders[self._time] else modes
            found.append(self._refined(chosen * symbol))
        return torch.stack([f.flatten(-self.dimension - 1) for f in found], -1)

    def basis_leaves(self, functions: Tensor) -> Tensor:  # (B, M, T, *grid) -> (B, n, L, M)
        """Leaves of functions that vanish at the start, as `nn.HardConstraint` takes them."""
        return self.leaves(functions).permute(0, 2, 3, 1).contiguous()

    def fields(self, values: Tensor) -> Tensor:  # shapes: (..., *grid) -> (..., m, *grid)
        """Nodal values of all fields of the family, the modes kept, from those of the one that evolves."""
        modes = self._modes(values)
        return self._values(torch.stack([modes * s for s in self.symbols], -self.dimension - 1))

    def rate(self, inputs: Tensor, state: Tensor) -> Tensor:  # shapes: (B, n, G), (B, *grid)
        """du/dt of a state by the equation at the first instant: (B, *grid)."""
        count = self.stages * self.times
        still = state[:, None].expand(-1, count, *state.shape[1:])
        here = self(inputs, self.leaves(still, state))[..., 0].unflatten(1, (count, -1))[:, 0]
        modes = self._coarsened(here.unflatten(1, [self.fine] * self.dimension))
        return -self._values(modes) / self._rate

    # --- the residual, the norm -----------------------------------------------------------------------

    def __call__(self, inputs: Tensor, leaves: Tensor) -> Tensor:
        """F of the field that evolves: (B, n, 1)."""
        return self.pointwise(inputs, leaves)[..., self.row : self.row + 1]

    def slopes(self, inputs: Tensor, leaves: Tensor) -> Tensor:
        """dF/dl: (B, n, 1, L)."""
        return self.pointwise.slopes(inputs, leaves)[..., self.row : self.row + 1, :]

    def norm(self, columns: Tensor) -> Tensor:  # shapes: (B, n, 1, k) -> (B, T *grid, k)
        """L^-1 of every column over the scale, times square roots of weights: |.|^2 is a mean square."""
        v = self.defects(columns)
        share = (self._weights / self.nodes**self.dimension).sqrt() / self.scale
        rows = v * share.reshape(-1, *[1] * self.dimension)
        return rows.flatten(2).transpose(1, 2)

    def defects(self, columns: Tensor) -> Tensor:  # shapes: (B, n, 1, k) -> (B, k, T, *grid)
        """L^-1 of every column, as nodal values."""
        d = self.dimension
        shape = (self.stages, self.times, *[self.fine] * d)
        modes = self._coarsened(columns[:, :, 0].transpose(1, 2).unflatten(2, shape))
        before = torch.zeros_like(modes[:, :, 0, 0])
        found, grid = [], "xyz"[:d]
        for stage in range(self.stages):
            right = modes[:, :, stage] - (self._symbol * before)[:, :, None]
            change = torch.einsum(f"{grid}iq,bkq{grid}->bki{grid}", self._inverse, right)
            found.append(before[:, :, None] + change)
            before = found[-1][:, :, -1]
        return self._values(torch.cat(found, 2))

    def corrections(
        self, inputs: Tensor, leaves: Tensor, number: int
    ) -> Tensor:  # shape: (B, number, T, *grid)
        """L^-1 F(u), L^-1 F'(u) L^-1 F(u), ...: where the error of the state with these leaves lies.

        They span the Krylov space of Newton's equation for the error, preconditioned by L; they are
        orthogonal at the nodes (Arnoldi), and each has the size of the field. Where the space is
        exhausted the rest are 0.
        """
        slopes = self.slopes(inputs, leaves)
        column, found = self(inputs, leaves)[..., None], []
        for _ in range(number):
            v = self.defects(column)
            flat = v.flatten(1)
            whole = flat.norm(dim=1, keepdim=True)
            for known in found * 2:  # twice: once loses half of the digits
                flat = flat - (known * flat).sum(1, keepdim=True) * known
            size = flat.norm(dim=1, keepdim=True)
            lost = size <= torch.finfo(v.dtype).eps ** 0.75 * whole
            flat = torch.where(lost, 0.0, flat / torch.where(lost, 1.0, size))
            found.append(flat)
            column = self.leaves(flat.view_as(v))[:, 0]
            column = (slopes[..., 0, :] * column).sum(-1)[..., None, None]
        grid = [self.stages * self.times, *[self.nodes] * self.dimension]
        return torch.stack(found, 1).unflatten(2, grid) * (self.scale * math.prod(grid) ** 0.5)

    # --- transforms -----------------------------------------------------------------------------------

    def _modes(self, values: Tensor) -> Tensor:
        axes = tuple(range(-self.dimension, 0))
        return torch.fft.rfftn(values, dim=axes) * self._kept

    def _values(self, modes: Tensor) -> Tensor:
        """Nodal values of modes."""
        axes = tuple(range(-self.dimension, 0))
        return torch.fft.irfftn(modes, s=[self.nodes] * self.dimension, dim=axes)

    def _refined(self, modes: Tensor) -> Tensor:
        """Modes of the coarse grid -> values on the fine one."""
        d, axes = self.dimension, tuple(range(-self.dimension, 0))
        wide = [self.fine] * (d - 1) + [self.fine // 2 + 1]
        out = modes.new_zeros(*modes.shape[: modes.ndim - d], *wide)
        for part in self._blocks():
            out[part] = modes[part]
        return torch.fft.irfftn(out, s=[self.fine] * d, dim=axes) * (self.fine / self.nodes) ** d

    def _coarsened(self, values: Tensor) -> Tensor:
        """Values on the fine grid -> the coarse grid's modes."""
        d, axes = self.dimension, tuple(range(-self.dimension, 0))
        modes = torch.fft.rfftn(values, dim=axes) * (self.nodes / self.fine) ** d
        narrow = [self.nodes] * (d - 1) + [self.nodes // 2 + 1]
        out = modes.new_zeros(*modes.shape[: modes.ndim - d], *narrow)
        for part in self._blocks():
            out[part] = modes[part]
        return out

    def _blocks(self) -> list[tuple[Any, ...]]:
        """Where the kept modes lie, on both grids alike."""
        half = self.nodes // 2
        sides = (slice(None, half), slice(1 - half, None))
        return [
            (..., *s, slice(None, half))
            for s in itertools.product(sides, repeat=self.dimension - 1)
        ]

    def _powers(self, orders: Sequence[int]) -> Tensor:
        out = np.ones_like(self._waves[0])
        for column, wave in zip(self._space, self._waves, strict=True):
            out = out * wave ** orders[column]
        return self._complex(out)

    def _complex(self, values: Any) -> Tensor:
        kind = torch.complex64 if self.place["dtype"] == torch.float32 else torch.complex128
        return torch.as_tensor(values, dtype=kind, device=self.place["device"])

    # --- symbols --------------------------------------------------------------------------------------

    def _field_symbols(self, waves: Sequence[np.ndarray]) -> list[Tensor]:
        """Every field's modes over those of the field that evolves."""
        count, shape = len(self.nf.fields), waves[0].shape
        found = np.zeros((count, *shape), dtype=complex)
        found[self.evolving] = 1.0
        if self.following:
            rows = [self._row_symbols(row, waves) for row in self.following]
            others = [f for f in range(count) if f != self.evolving]
            left = np.moveaxis(np.array([[r[f] for f in others] for r in rows]), (0, 1), (-2, -1))
            right = np.moveaxis(np.array([r[self.evolving] for r in rows]), 0, -1)
            # A mode no equation fixes, the mean of a streamfunction, is 0.
            solved = -(np.linalg.pinv(left) @ right[..., None])[..., 0]
            found[others] = np.moveaxis(solved, -1, 0)
        return [self._complex(f) for f in found]

    def _linear_part(self, waves: Sequence[np.ndarray]) -> tuple[float, Tensor]:
        """(dF/du_t, the symbol of what is linear with constant coefficients in the field itself)."""
        rate, symbol = 0.0, np.zeros(waves[0].shape, dtype=complex)
        for (field, orders), slope in zip(
            self.pointwise.wanted, self._slopes_of(self.row), strict=True
        ):
            if field != self.evolving or not slope.is_number:
                continue
            if orders[self._time]:
                rate += float(slope)
            else:
                powers = [w ** orders[c] for c, w in zip(self._space, waves, strict=True)]
                symbol = symbol + float(slope) * math.prod(powers)
        return rate, self._complex(symbol)

    def _slopes_of(self, row: int) -> list[sp.Expr]:
        return _slopes(self.nf.equations[row].residual, self.pointwise.leaves)

    def _row_symbols(self, row: int, waves: Sequence[np.ndarray]) -> np.ndarray:
        out = np.zeros((len(self.nf.fields), *waves[0].shape), dtype=complex)
        for (field, orders), slope in zip(self.pointwise.wanted, self._slopes_of(row), strict=True):
            powers = [w ** orders[c] for c, w in zip(self._space, waves, strict=True)]
            out[field] += float(slope) * math.prod(powers)
        return out


def radau(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes in (0, 1], the last 1; slopes there of the polynomials that are 0 at 0; weights of quadrature.

    The nodes are the zeros of P_(n-1) - P_n: collocation at them has order 2 n - 1 at the end.
    """
    basis = np.zeros(count + 1)
    basis[count - 1], basis[count] = 1.0, -1.0
    nodes = (np.sort(np.polynomial.legendre.legroots(basis).real) + 1) / 2
    nodes[-1] = 1.0
    powers = np.arange(1, count + 1)
    values = nodes[:, None] ** powers
    slopes = powers * nodes[:, None] ** (powers - 1) @ np.linalg.inv(values)
    weights = np.linalg.solve((nodes[:, None] ** (powers - 1)).T, 1 / powers)
    return nodes, slopes, weights


def periodic_refusal(family: PDEFamily) -> str | None:
    """Why `PeriodicElements` does not cover the family; None if it does."""
    nf = family.normal_form
    ring = set(nf.periodic) == set(nf.space) and 1 <= len(nf.space) <= 3
    if nf.time is None or nf.region is not None or not ring:
        return (
            "it handles evolution in one space dimension, and in two or three on a box that is periodic"
            " along every axis"
        )
    unknown = nf.parameters or nf.observations or nf.neurals
    if unknown or any(not i.gauge or i.equals != 0 for i in nf.integrals):
        return (
            "it does not handle unknown numbers, observations or integrals other than a mean of 0"
        )
    orders = [nf.predicates.time_order.get(u, 0) for u in nf.fields]
    if sorted(orders) != [0] * (len(orders) - 1) + [1] or len(nf.equations) != len(orders):
        return "on a periodic box it handles one field of first order in time, and fields it determines"
    if any({nf.time} < {c for c, _ in steps_of(d)} for d in nf.derivatives()):
        return "an equation has a derivative in both time and space"
    evolving = nf.fields[orders.index(1)]
    start = plain_start(nf, evolving)
    if start is None or any(c is not start for c in nf.conditions):
        return f"on a periodic box the start is given by Initial({evolving}, value), and by nothing else"
    (row, following), found = _rows(nf), leaves(*(e.residual for e in nf.equations))
    if row is None or not all(_is_linear(nf.equations[i].residual, found) for i in following):
        return (
            "on a periodic box other fields follow from the one that evolves by linear equations with"
            " constant coefficients"
        )
    slopes = zip(found, _slopes(nf.equations[row].residual, found), strict=True)
    if not all(s.is_number for v, s in slopes if nf.time in dict(steps_of(v))):
        return f"the coefficient of the time derivative of {evolving} is not a number"
    return None


def _rows(nf: NormalForm) -> tuple[int | None, list[int]]:
    """(the one equation with a derivative in time, the others)."""
    moving = [v for v in nf.derivatives() if nf.time in dict(steps_of(v))]
    rows = [i for i, e in enumerate(nf.equations) if any(e.residual.has(v) for v in moving)]
    others = [i for i in range(len(nf.equations)) if i not in rows]
    return (rows[0] if len(rows) == 1 else None), others


def _is_linear(residual: sp.Expr, every: Sequence[sp.Expr]) -> bool:
    """Whether it is a sum of leaves times numbers, and nothing else."""
    frozen = freeze([residual], every)
    rest = frozen.exprs[0].xreplace(dict.fromkeys(frozen.symbols.values(), sp.S.Zero))
    return rest == 0 and all(s.is_number for s in _slopes(residual, every))


def _slopes(residual: sp.Expr, every: Sequence[sp.Expr]) -> list[sp.Expr]:
    frozen = freeze([residual], every)
    slopes = (sp.diff(frozen.exprs[0], frozen.symbols[leaf]) for leaf in every)
    return [frozen.thaw(sp.expand(slope)) for slope in slopes]
