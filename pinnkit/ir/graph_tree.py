"""Systems on graphs as JSON, and back through the whitelist of `ir.expression_tree`.

In    a `GraphSystem`.
Out   dicts and lists for json.dumps, and the system again.
Next  `solution.graph_files` stores it beside the graph's arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pinnkit.declare.graph_conditions import Fixed, Total
from pinnkit.declare.graph_system import GraphSystem
from pinnkit.ir.expression_tree import from_tree, to_tree

__all__ = ["graph_system_from_tree", "graph_system_to_tree"]

_VERSION = 1


def graph_system_to_tree(system: GraphSystem) -> dict[str, Any]:
    """The declaration as plain data; ValueError where it holds what cannot be saved."""
    return {
        "version": _VERSION,
        "equations": [to_tree(e) for e in system.equations],
        "paired": None if system.paired is None else [to_tree(f) for f in system.paired],
        "conditions": [_condition_to_tree(c) for c in system.conditions],
    }


def graph_system_from_tree(tree: Any) -> GraphSystem:
    """The system of a tree, declared (and so validated) anew; ValueError if it is none."""
    try:
        if tree["version"] != _VERSION:
            raise ValueError(f"this file has version {tree['version']!r}, known is {_VERSION}")
        equations: Any = [from_tree(e) for e in tree["equations"]]
        if tree["paired"] is not None:
            equations = dict(zip([from_tree(f) for f in tree["paired"]], equations, strict=True))
        return GraphSystem(equations, [_condition_from_tree(c) for c in tree["conditions"]])
    except ValueError:
        raise
    except (TypeError, AttributeError, KeyError, IndexError, RecursionError) as error:
        raise ValueError(f"not a saved system: {error!r}") from error


def _condition_to_tree(condition: Fixed | Total) -> dict[str, Any]:
    left, right = condition.exprs
    return {
        "kind": type(condition).__name__,
        "left": to_tree(left),
        "right": to_tree(right),
        "where": condition.where,
    }


def _condition_from_tree(tree: Mapping[str, Any]) -> Fixed | Total:
    kinds: dict[str, Any] = {"Fixed": Fixed, "Total": Total}
    if tree["kind"] not in kinds:
        raise ValueError(f"not a saved system: unknown condition {tree['kind']!r}")
    return kinds[tree["kind"]](from_tree(tree["left"]), from_tree(tree["right"]), tree["where"])
