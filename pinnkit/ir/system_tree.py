"""Whole problems as JSON: `PDESystem` to a tree of plain data and back.

In    a `PDESystem`.
Out   dicts and lists for json.dumps; back through the whitelist of `ir.expression_tree`.
Next  `solution.files` stores it beside the numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import sympy as sp

from pinnkit.declare.boundaries import Boundary, boundary
from pinnkit.declare.conditions import (
    Dirichlet,
    Gauge,
    Initial,
    Integral,
    Neumann,
    Observations,
    Periodic,
    Robin,
)
from pinnkit.declare.domains import CSG, AbstractDomain, Box, Interval, Product
from pinnkit.declare.problem import PDESystem
from pinnkit.declare.regions import Ball, Disk, Polygon
from pinnkit.ir.expression_tree import from_tree, to_tree

__all__ = ["system_from_tree", "system_to_tree"]

_VERSION = 1


def system_to_tree(system: PDESystem) -> dict[str, Any]:
    """The declaration as plain data; ValueError where it holds what cannot be saved."""
    exact = None
    if system.exact is not None:
        exact = [[to_tree(f), to_tree(e)] for f, e in system.exact.items()]
    return {
        "version": _VERSION,
        "equations": [to_tree(e) for e in system.equations],
        "domain": _domain_to_tree(system.domain),
        "conditions": [_condition_to_tree(c) for c in system.conditions],
        "exact": exact,
    }


def system_from_tree(tree: Any) -> PDESystem:
    """The problem of a tree, declared (and so validated) anew; ValueError if it is none."""
    try:
        if tree["version"] != _VERSION:
            raise ValueError(f"this file has version {tree['version']!r}, known is {_VERSION}")
        exact = tree.get("exact")
        return PDESystem.without_warnings(
            [from_tree(e) for e in _list(tree["equations"])],
            _domain_from_tree(tree["domain"]),
            [_condition_from_tree(c) for c in _list(tree["conditions"])],
            exact=None if exact is None else {from_tree(f): from_tree(e) for f, e in exact},
        )
    except ValueError:
        raise
    except (TypeError, AttributeError, KeyError, IndexError, RecursionError) as error:
        raise ValueError(f"not a saved problem: {error!r}") from error


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("not a saved problem: expected a list")
    return value


def _domain_to_tree(domain: AbstractDomain) -> dict[str, Any]:
    kind = type(domain).__name__
    names = [to_tree(c) for c in domain.coords]
    if isinstance(domain, (Interval, Box)):
        ends = [[to_tree(a), to_tree(b)] for a, b in domain.ends.values()]
        return {"kind": kind, "coords": names, "ends": ends}
    if isinstance(domain, Product):
        return {"kind": kind, "parts": [_domain_to_tree(p) for p in domain.parts]}
    if isinstance(domain, (Disk, Ball)):
        centre = [to_tree(m) for m in domain.centre]
        return {"kind": kind, "coords": names, "centre": centre, "radius": to_tree(domain.radius)}
    if isinstance(domain, Polygon):
        corners = [[to_tree(a), to_tree(b)] for a, b in domain.vertices]
        return {"kind": kind, "coords": names, "vertices": corners}
    if isinstance(domain, CSG):
        parts = [_domain_to_tree(domain.left), _domain_to_tree(domain.right)]
        return {"kind": kind, "operation": domain.operation, "parts": parts}
    raise ValueError(f"{domain!r} cannot be saved: it holds an object of another package")


def _domain_from_tree(tree: Mapping[str, Any]) -> AbstractDomain:
    kind = tree["kind"]
    if kind == "Product":
        return Product(tuple(_domain_from_tree(p) for p in _list(tree["parts"])))
    if kind == "CSG":
        if tree["operation"] not in ("+", "-", "&"):
            raise ValueError("not a saved problem: unknown operation of a domain")
        left, right = (_domain_from_tree(p) for p in _list(tree["parts"]))
        return CSG(tree["operation"], left, right)
    coords = tuple(from_tree(c) for c in _list(tree["coords"]))
    if kind == "Interval":
        ((low, high),) = tree["ends"]
        return Interval(coords[0], from_tree(low), from_tree(high))
    if kind == "Box":
        lows, highs = zip(*tree["ends"], strict=True)
        return Box(coords, [from_tree(a) for a in lows], [from_tree(b) for b in highs])
    if kind in ("Disk", "Ball"):
        make = Disk if kind == "Disk" else Ball
        return make(coords, [from_tree(m) for m in tree["centre"]], from_tree(tree["radius"]))
    if kind == "Polygon":
        return Polygon(coords, [(from_tree(a), from_tree(b)) for a, b in tree["vertices"]])
    raise ValueError(f"not a saved problem: unknown domain {kind!r}")


def _on_to_tree(on: tuple[Boundary, ...]) -> list[Any]:
    return [
        {
            "coord": None if b.coord is None else to_tree(b.coord),
            "side": b.side,
            "value": None if b.value is None else to_tree(b.value),
            "region": None if b.region is None else _domain_to_tree(b.region),
            "where": to_tree(b.where),
        }
        for b in on
    ]


def _on_from_tree(tree: Any) -> list[Boundary]:
    parts = []
    for b in _list(tree):
        where = from_tree(b["where"])
        if b["region"] is not None:
            parts.append(boundary(_domain_from_tree(b["region"]), where=where))
            continue
        coord = from_tree(b["coord"])
        if b["value"] is not None:
            parts.append(boundary(sp.Eq(coord, from_tree(b["value"])), where=where))
        else:
            parts.append(boundary(coord, b["side"], where=where))
    return parts


def _condition_to_tree(condition: Any) -> dict[str, Any]:
    kind = type(condition).__name__
    if isinstance(condition, Initial):
        at = None if condition.at is None else to_tree(condition.at)
        expr, value = to_tree(condition.expr), to_tree(condition.value)
        return {"kind": kind, "expr": expr, "value": value, "at": at}
    if isinstance(condition, (Dirichlet, Neumann, Robin)):
        return {
            "kind": kind,
            "expr": to_tree(condition.expr),
            "value": to_tree(condition.value),
            "on": _on_to_tree(condition.on),
        }
    if isinstance(condition, Periodic):
        fields, axes = ([to_tree(e) for e in part] for part in (condition.fields, condition.axes))
        return {"kind": kind, "fields": fields, "axes": axes}
    if isinstance(condition, Gauge):
        return {"kind": kind, "expr": to_tree(condition.expr), "mean": to_tree(condition.mean)}
    if isinstance(condition, Integral):
        return {
            "kind": kind,
            "expr": to_tree(condition.expr),
            "over": [to_tree(c) for c in condition.over],
            "equals": to_tree(condition.equals),
        }
    if isinstance(condition, Observations):
        return _observations_to_tree(condition)
    raise ValueError(f"{condition!r} cannot be saved: {kind} is unknown here")


def _observations_to_tree(condition: Observations) -> dict[str, Any]:
    if isinstance(condition.points, Mapping):
        points: Any = {
            "by": [[to_tree(c), np.asarray(v).tolist()] for c, v in condition.points.items()]
        }
    else:
        points = {"rows": np.asarray(condition.points).tolist()}
    values = np.asarray(condition.values)
    imag = np.imag(values).tolist() if np.iscomplexobj(values) else None
    return {
        "kind": "Observations",
        "expr": to_tree(condition.expr),
        "points": points,
        "values": np.real(values).tolist(),
        "imag": imag,
        "noise": condition.noise,
        "run": condition.run,
    }


def _condition_from_tree(tree: Mapping[str, Any]) -> Any:
    reader = _CONDITIONS.get(tree["kind"])
    if reader is None:
        raise ValueError(f"not a saved problem: unknown condition {tree['kind']!r}")
    return reader(tree)


def _initial(tree: Mapping[str, Any]) -> Initial:
    at = None if tree["at"] is None else from_tree(tree["at"])
    return Initial(from_tree(tree["expr"]), from_tree(tree["value"]), at=at)


def _on_sides(make: Any) -> Callable[[Mapping[str, Any]], Any]:
    def read(tree: Mapping[str, Any]) -> Any:
        expr, value = from_tree(tree["expr"]), from_tree(tree["value"])
        return make(expr, value, on=_on_from_tree(tree["on"]))

    return read


def _periodic(tree: Mapping[str, Any]) -> Periodic:
    fields, axes = ([from_tree(e) for e in _list(tree[k])] for k in ("fields", "axes"))
    return Periodic(fields, *axes)


def _gauge(tree: Mapping[str, Any]) -> Gauge:
    return Gauge(from_tree(tree["expr"]), mean=from_tree(tree["mean"]))


def _integral(tree: Mapping[str, Any]) -> Integral:
    over = [from_tree(c) for c in _list(tree["over"])]
    return Integral(from_tree(tree["expr"]), over=over, equals=from_tree(tree["equals"]))


def _observations(tree: Mapping[str, Any]) -> Observations:
    points = tree["points"]
    if "by" in points:
        places: Any = {from_tree(c): np.asarray(v, dtype=float) for c, v in points["by"]}
    else:
        places = np.asarray(points["rows"], dtype=float)
    values = np.asarray(tree["values"], dtype=float)
    if tree["imag"] is not None:
        values = values + 1j * np.asarray(tree["imag"], dtype=float)
    run = int(tree.get("run", 0))  # files written before there were several have none
    return Observations(from_tree(tree["expr"]), places, values, noise=tree["noise"], run=run)


_CONDITIONS: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "Initial": _initial,
    "Dirichlet": _on_sides(Dirichlet),
    "Neumann": _on_sides(Neumann),
    "Robin": _on_sides(Robin),
    "Periodic": _periodic,
    "Gauge": _gauge,
    "Integral": _integral,
    "Observations": _observations,
}
