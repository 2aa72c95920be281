"""Sequences of ever finer discretisations of one problem.

In    a NormalForm.
Out   a ladder: `climb()` solves on the next level and returns a `GridApproximation`.
Next  `refine` compares neighbouring levels until the difference is small enough.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import sympy as sp

from pinnkit.classical.axes import Axis, DifferenceAxis, ElementAxis
from pinnkit.classical.conditions import boundary_conditions, jump_positions, switch_positions
from pinnkit.classical.discretise import System, field_orders
from pinnkit.classical.features import find_breaks
from pinnkit.classical.grid_approximation import GridApproximation, from_time_grid
from pinnkit.classical.implicit import IntegrationError, TimeGrid, consistent_start, integrate
from pinnkit.classical.meshes import first_breaks, indicators, split
from pinnkit.classical.row_blocks import Background
from pinnkit.classical.steady import newton
from pinnkit.classical.tableaux import Tableau, radau_tableau
from pinnkit.ir.normal_form import NormalForm

__all__ = ["DifferenceLadder", "ElementLadder", "Ladder"]

Array = np.ndarray
log = logging.getLogger(__name__)

LEAST_TARGET = 1e-13
TIME_SHARE = 0.02  # below 1/shrink, else errors in time look like unresolved elements
MOST_REPAIRS = 8
MOST_ELEMENTS = 600
MOST_INTERVALS = 3000
# Nonzeros of the factors of a matrix in two dimensions: measured are 4 to 11 times size^1.5. What is
# beyond MOST_FILLING (4 GiB) is not begun: nothing stops a factorisation once it runs.
FILLING, MOST_FILLING = 8.0, 3.5e8
BYTES = 12  # per nonzero


class Ladder(Protocol):
    """Levels of one method, coarse to fine. `growth` predicts how much dearer the next level is."""

    growth: float

    def climb(self, deadline: float) -> tuple[GridApproximation, dict[str, Any]]:
        """Solve on the next level; the dict describes it for the record."""
        ...


class ElementLadder:
    """Orthogonal spline collocation on elements that adapt to the solution, and Radau IIA in time.

    Each level aims at an accuracy `shrink` times better than the one before: elements that the last
    solution shows unresolved are split, the degree goes up by `raise_degree` everywhere (so that the
    space levels differ even where nothing is split), and the tolerance in time follows.
    """

    def __init__(
        self,
        nf: NormalForm,
        *,
        accuracy: float = 1e-3,
        shrink: float = 30.0,
        points: int | None = None,
        tableau: Tableau | None = None,
        background: Background | None = None,
        floors: Array | None = None,
    ) -> None:
        self.nf = nf
        self.target = accuracy
        self.shrink = shrink
        self.tableau = tableau or radau_tableau(7)
        self.background = background
        self.floors = floors
        self.level = 0
        self.growth = 2.0
        self.most_steps = 50  # of the first level: an unresolved solution needs many, to no purpose
        flat = len(nf.space) == 1
        self.points = points or (8 if flat else 6)
        self.raise_degree = 1 if flat else 2
        self.most_points = 14 if flat else 16
        jumps, switches = jump_positions(nf), switch_positions(nf)
        narrow = find_breaks(nf)
        self.stops = narrow[nf.time] if nf.time is not None else []
        self.axes = [
            ElementAxis(
                first_breaks(
                    *nf.bounds[c],
                    _merged(_merged(jumps[i], switches[i]), narrow[c]),
                    2 if flat else 1,
                ),
                self.points,
                c in nf.periodic,
            )
            for i, c in enumerate(nf.space)
        ]
        self.solution: GridApproximation | None = None

    def climb(self, deadline: float) -> tuple[GridApproximation, dict[str, Any]]:
        if self.solution is None:
            self._resolve_initial_data()
        for attempt in range(MOST_REPAIRS + 1):
            check_size(self.nf, self.axes)
            system = System(self.nf, self.axes, self.background)
            try:
                states = self._solve(system, deadline)
                break
            except IntegrationError as error:
                # On too coarse a grid a solution may blow up that in truth does not.
                if attempt == MOST_REPAIRS or not self._repair(system, error):
                    raise
        self.level += 1
        self.solution = from_time_grid(system, states)
        info = {
            "elements": [axis.elements for axis in self.axes],
            "points": self.points,
            "unknowns": system.size,
            "steps": len(states.breaks) - 1 if isinstance(states, TimeGrid) else 0,
            "accuracy": self.target,
        }
        log.debug("level %s", info)
        self._adapt(system)
        return self.solution, info

    def _solve(self, system: System, deadline: float) -> TimeGrid | Array:
        if self.nf.time is None:
            return newton(system, self._guess(system), deadline=deadline)
        if self.target < LEAST_TARGET:
            raise IntegrationError("rounding errors stop further refinement")
        lower, upper = self.nf.bounds[self.nf.time]
        # Steps are finer on every level even where the tolerance would not ask for it.
        fraction = 1.5**-self.level * (upper - lower)
        return integrate(
            system,
            consistent_start(system, system.initial(), lower, upper - lower),
            (lower, upper),
            TIME_SHARE * self.target,
            self.tableau,
            deadline=deadline,
            floors=self.floors,
            max_step=fraction / 4,
            first_step=fraction * 1e-3,
            most_steps=self.most_steps if self.level == 0 and self.nf.space else None,
            stops=self.stops,
        )

    def _repair(self, system: System, error: IntegrationError) -> bool:
        """Split elements the broken solution shows unresolved, or all; False where that is no use."""
        if not self.nf.space or max(axis.elements for axis in self.axes) > MOST_ELEMENTS:
            return False
        before = [axis.elements for axis in self.axes]
        if error.partial is not None:
            fields = from_time_grid(system, error.partial).fields
            self._split(system, [self._time_first(grid.values) for grid in fields], self.target)
        if [axis.elements for axis in self.axes] == before:
            if error.partial is not None and len(error.partial.breaks) > self.most_steps:
                self.most_steps *= 4  # resolved, it just needs many steps
                return True
            self.axes = [ElementAxis(_halved(a.breaks), a.k, a.periodic) for a in self.axes]
        return True

    def _guess(self, system: System) -> Array:
        """The level below on this level's nodes."""
        y = np.zeros(system.size)
        if self.solution is not None:
            for i, grid in enumerate(self.solution.fields):
                orders = system.space_orders[i]
                meshes = {
                    c: a.nodes(m) for c, a, m in zip(self.nf.space, self.axes, orders, strict=True)
                }
                values = grid.on_grid([meshes[c] for c in self.nf.coords])
                order = [self.nf.coords.index(c) for c in self.nf.space]
                y[system.field_slice(i)] = np.transpose(values, order).ravel()
        return y

    def _resolve_initial_data(self) -> None:
        """Split elements until the initial data are resolved (without solving anything)."""
        if self.nf.time is None:
            return
        for _ in range(6):
            system = System(self.nf, self.axes, self.background)
            y = system.initial()
            before = [axis.elements for axis in self.axes]
            values = [
                y[system.field_slice(i)].reshape((1,) + system.shapes[i])
                for i in range(len(self.nf.fields))
            ]
            self._split(system, values, self.target, most=2)
            if [axis.elements for axis in self.axes] == before or max(before) > 100:
                return

    def _adapt(self, system: System) -> None:
        assert self.solution is not None
        values = [self._time_first(grid.values) for grid in self.solution.fields]
        goal = self.target / self.shrink
        worst = self._split(system, values, goal, most=4 if len(self.axes) < 2 else 2)
        # Time is not refined ahead of space: a level far from its aim is repeated on a better mesh.
        if worst <= 30 * self.target:
            self.target = goal
        grown = min(self.points + self.raise_degree, self.most_points)
        if grown == self.points and all(
            axis.elements == len(old.breaks) - 1
            for axis, old in zip(self.axes, system.axes, strict=True)
            if isinstance(old, ElementAxis)
        ):
            self.axes = [ElementAxis(_halved(a.breaks), a.k, a.periodic) for a in self.axes]
        self.points = grown
        self.axes = [ElementAxis(a.breaks, grown, a.periodic) for a in self.axes]
        if self.axes:
            ratio = np.prod([len(a.points) for a in self.axes]) / system.point_count
            self.growth = predicted_growth(float(ratio), len(self.axes), self.nf.time is not None)

    def _time_first(self, values: Array) -> Array:
        """From the order of nf.coords to time, then space; a leading 1 without time."""
        order = [self.nf.coords.index(c) for c in self.nf.space]
        if self.nf.time is None:
            return np.transpose(values, order)[None]
        return np.transpose(values, [self.nf.coords.index(self.nf.time), *order])

    def _split(self, system: System, values: list[Array], goal: float, most: int = 4) -> float:
        """Split what is not resolved to `goal`; returns the worst field's remainder (L2)."""
        worst = 0.0
        for a, axis in enumerate(self.axes):
            remainder = np.zeros(axis.elements)
            least = 0
            for i, array in enumerate(values):
                floor = 0.0 if self.floors is None else float(self.floors[i])
                mine = indicators(array, system.bases[i][a], 1 + a, floor)
                remainder = np.maximum(remainder, mine)
                least = max(least, system.space_orders[i][a])
            worst = max(worst, float(np.sqrt((remainder**2).sum())))
            breaks = split(axis, remainder, goal, axis.k + least, most)
            self.axes[a] = ElementAxis(breaks, axis.k, axis.periodic)
        return worst


class DifferenceLadder:
    """Finite differences on equally spaced nodes, halved level by level: the second opinion."""

    def __init__(self, nf: NormalForm, tableau: Tableau, *, accuracy: float = 1e-4) -> None:
        self.nf = nf
        self.tableau = tableau
        self.target = accuracy
        self.count = 24 if len(nf.space) == 1 else 12
        self.level = 0
        d = len(nf.space)
        self.growth = predicted_growth(1.5**d, d, nf.time is not None)
        self.drops = drop_counts(nf)

    def climb(self, deadline: float) -> tuple[GridApproximation, dict[str, Any]]:
        for attempt in range(MOST_REPAIRS + 1):
            try:
                states, system = self._solve(deadline)
                break
            except IntegrationError:
                if attempt == MOST_REPAIRS or self.count > MOST_INTERVALS:
                    raise
                self.count *= 2
        info = {"intervals": self.count, "unknowns": system.size, "accuracy": self.target}
        log.debug("level %s", info)
        self.level += 1
        self.count = int(np.ceil(self.count * 1.5))
        self.target = max(self.target / 10, 1e-12)
        return from_time_grid(system, states), info

    def _solve(self, deadline: float) -> tuple[TimeGrid | Array, System]:
        axes: list[Axis] = []
        for coord, (left, right) in zip(self.nf.space, self.drops or [], strict=True):
            lower, upper = self.nf.bounds[coord]
            axes.append(
                DifferenceAxis(lower, upper, self.count, 9, coord in self.nf.periodic, left, right)
            )
        check_size(self.nf, axes)
        system = System(self.nf, axes)
        if self.nf.time is None:
            return newton(system, np.zeros(system.size), deadline=deadline), system
        lower, upper = self.nf.bounds[self.nf.time]
        fraction = 1.5**-self.level * (upper - lower)
        states = integrate(
            system,
            consistent_start(system, system.initial(), lower, upper - lower),
            (lower, upper),
            TIME_SHARE * self.target,
            self.tableau,
            deadline=deadline,
            max_step=fraction / 8,
            first_step=fraction * 1e-3,
            most_steps=100 if self.level == 0 else None,
            stops=find_breaks(self.nf)[self.nf.time],
        )
        return states, system


def check_size(nf: NormalForm, axes: Sequence[Axis]) -> None:
    """IntegrationError where the matrix of these axes is too large to be factorised."""
    if len(axes) < 2:
        return  # banded
    size = len(nf.fields) * math.prod(len(axis.points) for axis in axes)
    filling = FILLING * size**1.5
    if filling > MOST_FILLING:
        raise IntegrationError(
            f"the next level has {size:,} unknowns, and the factors of its matrix would take about "
            f"{BYTES * filling / 2**30:.0f} GiB, more than the {BYTES * MOST_FILLING / 2**30:.0f} GiB "
            "set aside for them"
        )


def drop_counts(nf: NormalForm) -> list[tuple[int, int]] | None:
    """Conditions at the (left, right) end of every axis, if the same for all fields and places; else None."""
    _, space_orders = field_orders(nf)
    if any(c.face.where != sp.true for c in boundary_conditions(nf)):
        return None
    out = []
    for axis, coord in enumerate(nf.space):
        orders = {orders[axis] for orders in space_orders if orders[axis]}
        if len(orders) > 1:
            return None
        sides = [c.face.side for c in boundary_conditions(nf) if c.face.coord == coord]
        count = sum(1 for orders_i in space_orders if orders_i[axis]) or 1
        left, right = sides.count("left"), sides.count("right")
        if left % count or right % count:
            return None
        out.append((left // count, right // count))
    return out


def predicted_growth(ratio: float, dimensions: int, evolves: bool) -> float:
    """Cost of the next level in units of this one: banded or filled factorisations, more steps."""
    return max(ratio, 1.0) ** (1.2 if dimensions == 1 else 1.7) * (1.3 if evolves else 1.0)


def _merged(jumps: list[float], narrow: list[float]) -> list[float]:
    """Jumps keep their exact places; features give way to them."""
    free = [p for p in narrow if not np.isclose(p, jumps, rtol=1e-9, atol=0).any()]
    return sorted([*jumps, *free])


def _halved(breaks: Array) -> Array:
    return np.sort(np.concatenate([breaks, (breaks[1:] + breaks[:-1]) / 2]))
