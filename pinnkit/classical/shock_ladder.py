"""Conservation laws with shocks: WENO5 in space, SSP Runge-Kutta in time, meshes halved.

In    a `ConservationLaw`.
Out   `ShockLadder`: each level has twice the nodes and stored instants of the one before.
Next  `refine` climbs it; the order it observes is 5 for smooth solutions and 1/2 in L2 with shocks.

Nodes are cell centres x_i = a + (i + 1/2) h. Differences of interface fluxes are summed over the
axes, so that on periodic axes the sum over the nodes changes by rounding and by sources alone.
Time: SSP-RK3 of Shu & Osher 1988, eq. (2.18), steps limited by the wave speeds of the moment.
The alternate takes limited slopes and Heun's method (SSP-RK2).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from pinnkit.classical.basis import stencil_basis
from pinnkit.classical.conservation_law import ConservationLaw, End
from pinnkit.classical.grid_approximation import FieldGrid, GridApproximation
from pinnkit.classical.implicit import IntegrationError, OutOfTime
from pinnkit.classical.interface_fluxes import GHOSTS, muscl, weno5

__all__ = ["MUSCL_HEUN", "WENO5_SSPRK3", "Scheme", "ShockLadder"]

Array = np.ndarray
log = logging.getLogger(__name__)

FIRST_NODES = {1: 50, 2: 24}
LEAST_INSTANTS = 16
MOST_INSTANTS = 8  # of the first level, times its nodes: many turnovers need not all be kept
MOST_STORED = 2**23  # numbers: 64 MiB
SMOOTH_WIDTH = 6  # of the stencils that read a smooth solution between its nodes
INFLOW_SPEED = 1e-3  # of the fastest: slower boundary data carry no slope inwards


@dataclass(frozen=True)
class Scheme:
    """Interface fluxes and the convex combinations (a, b) of an SSP Runge-Kutta method.

    Stage k is a u + b (v + h L(v)), v the stage before; `times` are where L is evaluated. `order`
    is that in space, and `order_time` of the method in time.
    """

    name: str
    interface: Callable[[Array, Array, Array, Callable[[Array], Array]], Array]
    stages: tuple[tuple[float, float], ...]
    times: tuple[float, ...]
    courant: float
    order: int
    order_time: int


WENO5_SSPRK3 = Scheme(
    "WENO5, SSP-RK3",
    weno5,
    ((0.0, 1.0), (3 / 4, 1 / 4), (1 / 3, 2 / 3)),
    (0.0, 1.0, 0.5),
    0.6,
    5,
    3,
)
MUSCL_HEUN = Scheme(
    "limited slopes, SSP-RK2", muscl, ((0.0, 1.0), (0.5, 0.5)), (0.0, 1.0), 0.45, 2, 2
)


class ShockLadder:
    """Each level has twice the nodes along every axis.

    While solutions are smooth, steps shrink like h^(order in space / order in time), so that time
    does not hold up the order; with shocks like h.
    """

    def __init__(self, law: ConservationLaw, scheme: Scheme = WENO5_SSPRK3) -> None:
        self.law = law
        self.scheme = scheme
        d = len(law.nf.space)
        self.nodes = FIRST_NODES[d]
        self.courant = scheme.courant
        self.instants: int | None = None
        self.growth = 2.0 ** (d + 1)

    def climb(self, deadline: float) -> tuple[GridApproximation, dict[str, Any]]:
        nf = self.law.nf
        assert nf.time is not None
        mesh = _Mesh(self.law, self.nodes, self.scheme)
        lower, upper = nf.bounds[nf.time]
        if self.instants is None:
            # Between stored instants the fastest wave should cross one cell.
            crossings = (upper - lower) * mesh.frequency(mesh.initial(), lower)
            most = MOST_INSTANTS * self.nodes
            self.instants = int(np.clip(np.ceil(crossings), LEAST_INSTANTS, most))
        d = len(nf.space)
        if len(nf.fields) * self.nodes**d * self.instants > MOST_STORED:
            raise IntegrationError("the next level would not fit into the memory set aside for it")
        times = np.linspace(lower, upper, self.instants + 1)
        with np.errstate(all="ignore"):
            states, steps = self._march(mesh, times, deadline)
        smooth = _is_smooth(states)
        info = {
            "scheme": self.scheme.name,
            "nodes": self.nodes,
            "unknowns": states[0].size,
            "steps": steps,
            "smooth": smooth,
        }
        log.debug("level %s", info)
        shrink = 2.0 ** (self.scheme.order / self.scheme.order_time - 1) if smooth else 1.0
        self.courant /= shrink
        self.nodes *= 2
        self.instants *= 2
        self.growth = shrink * 2.0 ** (d + 1)
        return _approximation(mesh, times, states, SMOOTH_WIDTH if smooth else 2), info

    def _march(self, mesh: _Mesh, times: Array, deadline: float) -> tuple[Array, int]:
        """States (instants, fields, nodes..) and the number of steps."""
        law, steps = self.law, 0
        u = mesh.initial()
        states = np.empty((len(times), *u.shape))
        states[0] = u
        for k, (t, end) in enumerate(pairwise(times)):
            left = end - t
            while left > 0:
                # 1 / the time in which the fastest wave crosses a cell, or the source acts.
                rate = mesh.frequency(u, t)
                if law.has_source:
                    rate += law.source_rate(mesh.coords(t), u)
                if not np.isfinite(rate):
                    raise IntegrationError(
                        f"the solution grew beyond bounds near {law.nf.time} = {t:.6g}"
                    )
                # Equal steps up to the next stored instant, as far as the speeds stay what they are.
                count = max(1, int(np.ceil(left * rate / self.courant)))
                if time.monotonic() > deadline:
                    raise OutOfTime
                h = left / count
                v = u
                for (a, b), c in zip(self.scheme.stages, self.scheme.times, strict=True):
                    v = a * u + b * (v + h * mesh.rates(v, t + c * h))
                u, t, steps = v, t + h, steps + 1
                left = end - t if count > 1 else 0.0
            if not np.isfinite(u).all():
                raise IntegrationError(
                    f"the solution grew beyond bounds near {law.nf.time} = {end:.6g}"
                )
            states[k + 1] = u
        return states, steps


class _Mesh:
    """The law on equally spaced nodes."""

    def __init__(self, law: ConservationLaw, nodes: int, scheme: Scheme) -> None:
        self.law = law
        self.scheme = scheme
        nf = law.nf
        self.axes = range(len(nf.space))
        self.bounds = [nf.bounds[c] for c in nf.space]
        self.steps = [(upper - lower) / nodes for lower, upper in self.bounds]
        self.nodes = [
            lower + h * (np.arange(nodes) + 0.5)
            for (lower, _), h in zip(self.bounds, self.steps, strict=True)
        ]
        self.padded = [
            lower + h * (np.arange(-GHOSTS, nodes + GHOSTS) + 0.5)
            for (lower, _), h in zip(self.bounds, self.steps, strict=True)
        ]
        self.edges = [
            lower + h * np.arange(nodes + 1)
            for (lower, _), h in zip(self.bounds, self.steps, strict=True)
        ]

    def initial(self) -> Array:
        nf = self.law.nf
        shape = tuple(len(x) for x in self.nodes)
        columns = self.coords(nf.bounds[nf.time][0] if nf.time is not None else 0.0)
        return np.stack([value(columns, shape) for value in self.law.initial])

    def coords(self, t: float, axis: int | None = None, along: Array | None = None) -> list[Array]:
        """Arrays that broadcast over the nodes; with `axis`, over (other nodes.., along)."""
        order = [a for a in self.axes if a != axis] + ([] if axis is None else [axis])
        by_name = {}
        for position, a in enumerate(order):
            shape = [1] * len(order)
            shape[position] = -1
            x = along if a == axis and along is not None else self.nodes[a]
            by_name[self.law.nf.space[a]] = x.reshape(shape)
        now = np.full((1,) * len(order), t)
        return [now if c == self.law.nf.time else by_name[c] for c in self.law.nf.coords]

    def rates(self, u: Array, t: float) -> Array:
        """du/dt at the nodes."""
        out = self.law.source(self.coords(t), u) if self.law.has_source else np.zeros_like(u)
        for axis in self.axes:
            padded = self._pad(u, axis, t)
            speeds = self._speeds(padded, axis, t)
            f = self.law.flux(axis, self.coords(t, axis, self.padded[axis]), padded)
            at_edges = self.coords(t, axis, self.edges[axis])
            numerical = self.scheme.interface(
                padded, f, speeds, lambda v, a=axis, c=at_edges: self.law.flux(a, c, v)
            )
            out -= np.moveaxis(np.diff(numerical, axis=-1), -1, 1 + axis) / self.steps[axis]
        return out

    def frequency(self, u: Array, t: float) -> float:
        """Cells crossed in unit time by the fastest waves, summed over the axes."""
        return sum(
            float(self._speeds(self._pad(u, axis, t), axis, t).max()) / self.steps[axis]
            for axis in self.axes
        )

    def _speeds(self, padded: Array, axis: int, t: float) -> Array:
        """The largest wave speed between neighbours, both included: (..., n + 5)."""
        coords = self.coords(t, axis, self.padded[axis])
        nodal = self.law.speed(axis, coords, padded)
        fastest = np.maximum(nodal[..., :-1], nodal[..., 1:])
        step = np.diff(padded, axis=-1)
        below = self.coords(t, axis, self.padded[axis][:-1])
        for fraction in self.law.fractions[1:]:
            between = self.law.speed(axis, below, padded[..., :-1] + fraction * step)
            fastest = np.maximum(fastest, between)
        return fastest

    def _pad(self, u: Array, axis: int, t: float) -> Array:
        """Ghost nodes at both ends, the axis moved last: (fields, others.., n + 6)."""
        inside = np.moveaxis(u, 1 + axis, -1)
        ends = self.law.ends[axis]
        if ends is None:
            return np.concatenate([inside[..., -GHOSTS:], inside, inside[..., :GHOSTS]], axis=-1)
        left = self._ghosts(ends[0], inside, axis, t, 0)
        right = self._ghosts(ends[1], inside[..., ::-1], axis, t, 1)
        return np.concatenate([left[..., ::-1], inside, right], axis=-1)

    def _ghosts(self, end: End, inwards: Array, axis: int, t: float, side: int) -> Array:
        """Values at the distances h/2, 3h/2, 5h/2 outside, from those inside in the same order.

        Data in the ghosts and an upwind flux at the end: characteristics that leave ignore them,
        as the entropy condition at a boundary (Bardos, LeRoux & Nedelec 1979) asks.
        """
        out = _extrapolated(inwards)
        edge = np.array([self.bounds[axis][side]])
        coords = self.coords(t, axis, edge)
        distance = self.steps[axis] * (np.arange(GHOSTS) + 0.5)
        for i, value in enumerate(end.values):
            if value is not None:
                out[i] = value(coords, (*inwards.shape[1:-1], 1))
        if end.slope is not None:
            outwards = -1.0 if side == 0 else 1.0
            above, speed = (float(part(coords, (1,))[0]) for part in end.slope)
            fastest = float(self.law.speed(axis, coords, inwards[..., :1]).max())
            if -outwards * speed > INFLOW_SPEED * fastest:
                out[0] += outwards * distance * above / speed
        return out


def _extrapolated(inwards: Array) -> Array:
    """Outflow: a parabola where the solution is smooth up to the end, else a constant."""
    a, b, c = inwards[..., 0:1], inwards[..., 1:2], inwards[..., 2:3]
    parabola = np.concatenate(
        [3 * a - 3 * b + c, 6 * a - 8 * b + 3 * c, 10 * a - 15 * b + 6 * c], -1
    )
    smooth = np.abs(a - 2 * b + c) <= 0.5 * np.abs(a - b)
    return np.where(smooth, parabola, np.broadcast_to(a, parabola.shape))


def _is_smooth(states: Array) -> bool:
    """Do differences fall with their order, in time and along every axis? At a jump they grow.

    If not, polynomials of higher degree between the nodes are worse than straight lines.
    """
    rounding = 1e-13 * np.abs(states).max()
    for axis in (0, *range(2, states.ndim)):
        second = np.diff(states, 2, axis=axis)
        fourth = np.abs(np.diff(second, 2, axis=axis)).max()
        if fourth > 0.5 * np.abs(second).max() + rounding:
            return False
    return True


def _approximation(mesh: _Mesh, times: Array, states: Array, width: int) -> GridApproximation:
    nf = mesh.law.nf
    assert nf.time is not None
    bases = {nf.time: stencil_basis(times, width)}
    for axis, coord in enumerate(nf.space):
        lower, upper = mesh.bounds[axis]
        period = upper - lower if coord in nf.periodic else None
        bases[coord] = stencil_basis(mesh.nodes[axis], width, period)
    order = [nf.time, *nf.space]
    fields = []
    for i in range(len(nf.fields)):
        values = np.transpose(states[:, i], [order.index(c) for c in nf.coords])
        fields.append(FieldGrid(tuple(bases[c] for c in nf.coords), np.ascontiguousarray(values)))
    return GridApproximation(fields)
