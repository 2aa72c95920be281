"""Which field each boundary condition closes, and what is continuous across a jump.

In    a NormalForm and the order of every field along every axis.
Out   (condition, owner) pairs, per field the flux that is continuous where a coefficient jumps, and
      where a side passes from one condition to another.
Next  `discretise` writes one row per condition and owner's node.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import sympy as sp

from pinnkit.classical.expressions import compile_value, find_leaves
from pinnkit.declare.operators import Div
from pinnkit.errors import UnsupportedProblemError
from pinnkit.ir.normal_form import Condition, NormalForm

__all__ = [
    "assign_owners",
    "boundary_conditions",
    "check_initial_data",
    "jump_positions",
    "partial_refusal",
    "refuse_not_finite",
    "seam_fluxes",
    "switch_positions",
]

Array = np.ndarray
SAMPLES = {0: 1, 1: 1025, 2: 129}  # per space axis, ends and middle included


def boundary_conditions(nf: NormalForm) -> list[Condition]:
    """Conditions on space axes (an initial condition "at x" counts as one)."""
    return [c for c in nf.conditions if c.face.coord != nf.time and c.face.coord not in nf.periodic]


def check_initial_data(nf: NormalForm) -> None:
    """Refuse initial values that are not finite somewhere on a sample of the domain."""
    if nf.time is None:
        return
    meshes = [np.linspace(*nf.bounds[c], SAMPLES[len(nf.space)]) for c in nf.space]
    by_name = dict(zip(nf.space, np.meshgrid(*meshes, indexing="ij"), strict=True))
    shape = tuple(len(mesh) for mesh in meshes)
    by_name[nf.time] = np.full(shape, nf.bounds[nf.time][0])
    columns = [by_name[c] for c in nf.coords]
    for condition in nf.conditions:
        if condition.kind == "initial" and condition.value is not None:
            values = compile_value(condition.value, nf)(columns, shape)
            refuse_not_finite(condition, nf, columns, values)


def refuse_not_finite(
    condition: Condition, nf: NormalForm, columns: Sequence[Array], values: Array
) -> None:
    """Raise `UnsupportedProblemError` naming the first place where `values` is not finite."""
    bad = ~np.isfinite(values)
    if not bad.any():
        return
    first = {
        c: np.broadcast_to(column, values.shape)[bad][0]
        for c, column in zip(nf.coords, columns, strict=True)
    }
    place = ", ".join(f"{c} = {first[c]:.6g}" for c in nf.space)
    raise UnsupportedProblemError(
        f"MethodOfLines() needs finite initial values; {condition.label}, "
        f"{condition.target} = {condition.value}, is not finite"
        + (f" at {place}" if place else "")
        + ". If it has a finite limit there, write it with sp.Piecewise; else change the domain."
    )


def assign_owners(
    nf: NormalForm, space_orders: Sequence[Sequence[int]]
) -> list[tuple[Condition, int]]:
    """Give every boundary condition a field, so that a field of order m along an axis gets m.

    Conditions on parts of a side (`where`) go to their first field; `partial_refusal` counts them.
    """
    pairs: list[tuple[Condition, int]] = []
    for axis, coord in enumerate(nf.space):
        here = [c for c in boundary_conditions(nf) if c.face.coord == coord]
        room = [orders[axis] for orders in space_orders]
        whole = [c for c in here if c.face.where == sp.true]
        candidates = [_candidates(c, nf) for c in whole]
        owners = _match(candidates, room)
        if owners is None:
            # First-order systems give several conditions to one field and none to another: the
            # count must still be right, and whose node a row stands on does not matter then.
            owners = _match(
                [c + [i for i in range(len(room)) if i not in c] for c in candidates], room
            )
        if owners is None:
            names = ", ".join(c.label for c in whole)
            raise UnsupportedProblemError(
                f"MethodOfLines() cannot assign the conditions on {coord} ({names}) to the fields: "
                "there are more than the orders of the equations along that axis. Use CausalPINN()."
            )
        pairs += zip(whole, owners, strict=True)
        pairs += [(c, _candidates(c, nf)[0]) for c in here if c.face.where != sp.true]
    return pairs


def _candidates(condition: Condition, nf: NormalForm) -> list[int]:
    """Fields in the condition, the plain target of a Dirichlet condition first."""
    leaves = find_leaves(condition.residual, nf).values()
    found = sorted(
        {leaf.field for leaf in leaves}, key=lambda i: (nf.fields[i] != condition.target, i)
    )
    return found


def _match(candidates: list[list[int]], room: list[int]) -> list[int] | None:
    """Bipartite matching with capacities by augmenting paths; None if some condition finds no field."""
    owners: list[int] = [-1] * len(candidates)

    def place(number: int, tried: set[int]) -> bool:
        for field in candidates[number]:
            if field in tried:
                continue
            tried.add(field)
            held = [n for n, owner in enumerate(owners) if owner == field]
            if len(held) < room[field]:
                owners[number] = field
                return True
            for other in held:
                if place(other, tried):
                    owners[number] = field
                    return True
        return False

    return owners if all(place(n, set()) for n in range(len(candidates))) else None


def partial_refusal(nf: NormalForm, space_orders: Sequence[Sequence[int]]) -> str | None:
    """None, or why conditions on parts of a side (`where`) leave the rows of a grid uncounted for."""
    partial = [c for c in boundary_conditions(nf) if c.face.where != sp.true]
    if not partial:
        return None
    for c in partial:
        if nf.time in c.face.where.free_symbols:
            return (
                f"MethodOfLines() needs the same kind of condition at all times; that of {c.label} "
                f"changes with {nf.time}. Use CausalPINN()."
            )
    pairs = assign_owners(nf, space_orders)
    switches = switch_positions(nf)
    for axis, coord in enumerate(nf.space):
        here = [(c, owner) for c, owner in pairs if c.face.coord == coord]
        if all(c.face.where == sp.true for c, _ in here):
            continue
        needed = [orders[axis] for orders in space_orders]
        for place in _pieces(nf, switches, coord):
            active = [owner for c, owner in here if c.face.where.subs(place | _on(c)) == sp.true]
            given = [active.count(i) for i in range(len(needed))]
            if given != needed:
                at = ", ".join(f"{c} = {value:.3g}" for c, value in place.items())
                return (
                    f"MethodOfLines() needs {sum(needed)} conditions along {coord} wherever it is "
                    f"crossed; near {at} there are {sum(given)}. Use CausalPINN()."
                )
    return None


def switch_positions(nf: NormalForm) -> list[list[float]]:
    """Per space axis, where one condition on a part of a side gives way to another."""
    out: list[list[float]] = [[] for _ in nf.space]
    for c in boundary_conditions(nf):
        where = c.face.where.subs(_on(c))
        for axis, coord in enumerate(nf.space):
            if where.free_symbols != {coord}:
                continue
            grid = np.linspace(*nf.bounds[coord], 4001)
            holds = sp.lambdify(coord, where, "numpy")
            values = np.broadcast_to(holds(grid), grid.shape)
            for k in np.flatnonzero(values[1:] != values[:-1]):
                place = _bisect(holds, grid[k], grid[k + 1])
                if not np.isclose(out[axis], place, rtol=1e-9, atol=0).any():
                    out[axis].append(place)
    return [sorted(positions) for positions in out]


def _on(condition: Condition) -> dict[Any, Any]:
    return {condition.face.coord: condition.face.value}


def _pieces(
    nf: NormalForm, switches: list[list[float]], across: sp.Symbol
) -> list[dict[Any, float]]:
    """The middle of every piece that the switches cut from the axes other than `across`."""
    places: list[dict[Any, float]] = [{}]
    for coord, cuts in zip(nf.space, switches, strict=True):
        if coord != across:
            lower, upper = nf.bounds[coord]
            middles = (np.array([lower, *cuts]) + np.array([*cuts, upper])) / 2
            places = [p | {coord: float(m)} for p in places for m in middles]
    return places


def _bisect(holds: Callable[[float], Any], a: float, b: float) -> float:
    """Where `holds` changes between a and b."""
    first = holds(a)
    for _ in range(60):
        middle = (a + b) / 2
        a, b = (middle, b) if holds(middle) == first else (a, middle)
    return float((a + b) / 2)


def jump_positions(nf: NormalForm) -> list[list[float]]:
    """Per space axis, where a coefficient jumps; only jumps along an axis (x = number) are handled."""
    out: list[list[float]] = [[] for _ in nf.space]
    for jump in nf.jumps:
        free = jump.free_symbols & set(nf.coords)
        if len(free) != 1 or not free <= set(nf.space):
            raise UnsupportedProblemError(
                f"MethodOfLines() handles coefficients that jump at fixed positions of one space "
                f"coordinate; {jump} = 0 is not one. Use CausalPINN()."
            )
        coord = next(c for c in nf.space if c in free)
        lower, upper = nf.bounds[coord]
        axis = nf.space.index(coord)
        for root in _roots(jump, coord, lower, upper):
            if lower < root < upper and not np.isclose(out[axis], root).any():
                out[axis].append(root)
    return [sorted(positions) for positions in out]


def _roots(jump: sp.Expr, coord: sp.Symbol, lower: float, upper: float) -> list[float]:
    if jump.is_polynomial(coord) and sp.Poly(jump, coord).degree() == 1:
        return [float(sp.solve(jump, coord)[0])]
    # Bisection on a fine grid: every sign change of g is one position.
    function = sp.lambdify(coord, jump, "numpy")
    grid = np.linspace(lower, upper, 4001)
    values = np.broadcast_to(np.asarray(function(grid), dtype=float), grid.shape)
    roots = list(grid[values == 0.0])
    for a, b, fa in zip(grid[:-1], grid[1:], values[:-1], strict=True):
        if fa * float(function(b)) < 0:
            roots.append(_bisect(lambda z, fa=fa: fa * float(function(z)) > 0, a, b))
    return [float(r) for r in roots]


def seam_fluxes(nf: NormalForm, axis: int) -> dict[int, sp.Expr]:
    """Per field, the flux along the axis that stays continuous where its coefficient jumps."""
    if not nf.jumps:
        return {}
    coord = nf.space[axis]
    out: dict[int, sp.Expr] = {}
    for number, equation in enumerate(nf.equations):
        for node in equation.conservative.atoms(Div):
            flux = flux_component(node, coord)
            if flux is None:
                continue
            fields = [leaf.field for leaf in find_leaves(flux, nf).values() if any(leaf.alpha)]
            free = [i for i in fields if i not in out]
            if free:
                out[number if number in free else free[0]] = flux
    return out


def flux_component(node: Div, coord: sp.Symbol) -> sp.Expr | None:
    """The component of a divergence's flux along one coordinate."""
    return dict(zip(node.coordinates, node.flux, strict=True)).get(coord)
