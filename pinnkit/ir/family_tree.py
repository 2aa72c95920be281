"""Families as JSON: the system and the distributions of its inputs.

In    a `PDEFamily`.
Out   plain data, and back through the whitelist of `ir.expression_tree`; ValueError for anything else.
Next  `solution.operator_files` stores it beside what was learned.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import sympy as sp

from pinnkit.declare.distributions import FromSamples, LogNormal, Normal, Uniform
from pinnkit.declare.family import PDEFamily
from pinnkit.declare.gaussian_field import GaussianField
from pinnkit.declare.symbols import Coordinate
from pinnkit.ir.expression_tree import from_tree, to_tree
from pinnkit.ir.system_tree import system_from_tree, system_to_tree

__all__ = ["family_from_tree", "family_to_tree"]

_PLACE = Coordinate("value")  # trees know coordinates, and no symbols without a role
_NUMBERS = {law.__name__: law for law in (Uniform, Normal, LogNormal)}


def family_to_tree(family: PDEFamily) -> dict[str, Any]:
    """The declaration as plain data; ValueError where a distribution is the user's own."""
    inputs = [[to_tree(g), _law_to_tree(law)] for g, law in family.inputs.items()]
    return {"system": system_to_tree(family.system), "inputs": inputs}


def family_from_tree(tree: Any) -> PDEFamily:
    """The family of a tree, declared (and so validated) anew."""
    try:
        inputs = {from_tree(g): _law_from_tree(law) for g, law in tree["inputs"]}
        return PDEFamily.without_warnings(system_from_tree(tree["system"]), inputs)
    except ValueError:
        raise
    except (TypeError, AttributeError, KeyError, IndexError) as error:
        raise ValueError(f"not a saved family: {error!r}") from error


def _law_to_tree(law: Any) -> dict[str, Any]:
    kind = type(law).__name__
    if kind in _NUMBERS:
        numbers = {n: getattr(law, n) for n in law.__dataclass_fields__}
        return {"kind": kind, "numbers": numbers}
    if isinstance(law, FromSamples):
        nodes = None
        if law.nodes is not None:
            nodes = [[to_tree(c), v.tolist()] for c, v in law.nodes.items()]
        return {
            "kind": kind,
            "values": law.values.tolist(),
            "nodes": nodes,
            "periodic": law.periodic,
        }
    if isinstance(law, GaussianField):
        axes = law.periodic
        if isinstance(axes, tuple):
            axes = [to_tree(c) for c in axes]
        transform: Any = law.transform
        return {
            "kind": kind,
            "length": law.length,
            "spectrum": None if law.spectrum is None else _with_symbol(law.spectrum),
            "mean": to_tree(law.mean),
            "std": law.std,
            "periodic": axes,
            "zero_mean": law.zero_mean,
            "transform": None if transform is None else _with_symbol(transform.expr),
            "modes": law.modes,
        }
    raise ValueError(f"{law!r} cannot be saved: it is a distribution of your own")


def _law_from_tree(tree: Any) -> Any:
    kind = tree["kind"]
    if kind in _NUMBERS:
        return _NUMBERS[kind](**{str(n): float(v) for n, v in tree["numbers"].items()})
    if kind == "FromSamples":
        nodes = tree["nodes"]
        if nodes is not None:
            nodes = {from_tree(c): np.array(v, dtype=float) for c, v in nodes}
        values = np.array(tree["values"], dtype=float)
        return FromSamples(values, nodes=nodes, periodic=bool(tree["periodic"]))
    if kind == "GaussianField":
        axes = tree["periodic"]
        spectrum, transform = tree["spectrum"], tree["transform"]
        inner = None if transform is None else from_tree(transform)
        return GaussianField(
            length=tree["length"],
            spectrum=None if spectrum is None else from_tree(spectrum),
            mean=from_tree(tree["mean"]),
            std=float(tree["std"]),
            periodic=tuple(from_tree(c) for c in axes) if isinstance(axes, list) else bool(axes),
            zero_mean=bool(tree["zero_mean"]),
            transform=None if inner is None else sp.Lambda(_PLACE, inner),
            modes=tree["modes"],
        )
    raise ValueError(f"not a saved family: unknown distribution {kind!r}")


def _with_symbol(expr: Any) -> Any:
    """An expression in one symbol, with `_PLACE` for it."""
    (symbol,) = expr.free_symbols or {_PLACE}
    return to_tree(expr.xreplace({symbol: _PLACE}))
