"""A target without an equation: a feature of graphs that examples show and nobody derived.

In    the name of a feature of nodes, edges or whole graphs.
Out   `GraphTarget`, a problem for solvers that learn from data alone.
Next  `ConvergentGraphSolver` with `data=`.
"""

from __future__ import annotations

from typing import Any, final

from pinnkit.declare.data_target import DataTarget
from pinnkit.declare.printing import refusal

__all__ = ["GraphTarget"]


@final
class GraphTarget(DataTarget):
    """The feature `name` of nodes, edges or graphs, to be learned from graphs that have it.

    There is no ground truth beyond the data, so that the answer's `ok` is None.

    Args:
        name: Of the feature.
        of: "node", "edge" or "graph"; None: wherever the graphs have it.
        classes: Their number, if it is a class counted from 0; 0: a number or several.

    >>> GraphTarget("label", of="graph", classes=2)
    GraphTarget('label', of='graph', classes=2)
    """

    def __init__(self, name: str, *, of: str | None = None, classes: int = 0) -> None:
        wrote = f"GraphTarget({name!r}, of={of!r}, classes={classes!r})"
        if not isinstance(name, str) or not name.isidentifier():
            raise refusal(wrote, f"{name!r} is not the name of a feature", 'write "label"')
        if of not in (None, "node", "edge", "graph"):
            raise refusal(wrote, f"of={of!r} is no part of a graph", '"node", "edge" or "graph"')
        if (
            isinstance(classes, bool)
            or not isinstance(classes, int)
            or classes in (1,)
            or classes < 0
        ):
            raise refusal(wrote, "classes is their number", "write 0 (a number), 2 or more")
        put = vars(self).__setitem__  # the instance is closed to plain assignment
        put("name", name)
        put("of", of)
        put("classes", classes)

    name: str
    of: str | None
    classes: int

    @property
    def declared(self) -> dict[str, Any]:
        """The feature, where it is, and its classes."""
        return {"name": self.name, "of": self.of, "classes": self.classes}

    def latex(self) -> str:
        """Features to target."""
        return rf"\text{{features}} \mapsto \text{{{self.name}}}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GraphTarget) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        return f"GraphTarget({self.name!r}, of={self.of!r}, classes={self.classes})"
