"""Symbols of equations on graphs: values at nodes, features of nodes and edges, sums over neighbours.

In    names, as in `coords` and `field`.
Out   sympy symbols, and the nodes `NeighbourSum` and `NeighbourMax`.
Next  ordinary sympy expressions of them are the equations of a `GraphSystem`.

An equation stands for one node. Inside a sum over neighbours, `p` is the node's own value,
`p.neighbour` the value at the other end, `k` a feature of the edge between.
"""

from __future__ import annotations

from typing import Any, ClassVar, cast

import sympy as sp
from sympy.logic.boolalg import BooleanAtom, BooleanTrue

from pinnkit.declare.conditions import read_expr
from pinnkit.declare.declared_symbol import DeclaredSymbol, make_declared
from pinnkit.declare.printing import refusal, show
from pinnkit.declare.symbols import Parameter, read_names

__all__ = [
    "AbstractNeighbours",
    "EdgeFeature",
    "Neighbour",
    "NeighbourMax",
    "NeighbourSum",
    "NodeFeature",
    "NodeField",
    "edge_feature",
    "neighbour_max",
    "neighbour_sum",
    "node_feature",
    "node_field",
    "orientation",
]


class _GraphSymbol(DeclaredSymbol):
    """A symbol of an equation that stands for one node."""

    __slots__ = ()


class NodeField(_GraphSymbol):
    """An unknown number at every node. `initial` is where iterations start."""

    __slots__ = ("initial", "unit")
    _declared = ("initial", "unit")
    initial: float | None
    unit: str | None

    @property
    def neighbour(self) -> Neighbour:
        """The value at the other end of the edge, inside a sum over neighbours."""
        return make_declared(Neighbour, f"{self.name}.neighbour", {"of": self})


class NodeFeature(_GraphSymbol):
    """A known number at every node: the graph's node feature of this name (or one column of it)."""

    __slots__ = ("column",)
    _declared = ("column",)
    column: int | None

    @property
    def neighbour(self) -> Neighbour:
        """The value at the other end of the edge, inside a sum over neighbours."""
        return make_declared(Neighbour, f"{self.name}.neighbour", {"of": self})

    def _sympystr(self, printer: Any) -> str:
        return _with_column(self)


class EdgeFeature(_GraphSymbol):
    """A known number at every edge. An odd one changes its sign with the direction of passage."""

    __slots__ = ("column", "odd")
    _declared = ("column", "odd")
    column: int | None
    odd: bool

    def _sympystr(self, printer: Any) -> str:
        return _with_column(self)


class Neighbour(_GraphSymbol):
    """The value of `of`, a field or node feature, at the other end of the edge."""

    __slots__ = ("of",)
    _declared = ("of",)
    of: NodeField | NodeFeature

    def _sympystr(self, printer: Any) -> str:
        return f"{printer._print(self.of)}.neighbour"


def _with_column(symbol: Any) -> str:
    return symbol.name if symbol.column is None else f"{symbol.name}[{symbol.column}]"


orientation: EdgeFeature = make_declared(EdgeFeature, "orientation", {"column": None, "odd": True})
"""+1 where an edge is passed as it was given (row 0 to row 1), -1 against it."""


class AbstractNeighbours(sp.Expr):
    """Something taken over all edges of a node: args = (expression, whether over outgoing edges)."""

    is_commutative = True
    is_extended_real = True
    door: ClassVar[str] = ""

    @property
    def expr(self) -> sp.Expr:
        """What is taken over the edges."""
        return self.args[0]  # type: ignore[return-value]

    @property
    def outgoing(self) -> bool:
        """Over the edges out of the node instead of those into it."""
        return isinstance(self.args[1], BooleanTrue)

    def _sympystr(self, printer: Any) -> str:
        tail = ", outgoing=True" if self.outgoing else ""
        return f"{self.door}({printer._print(self.expr)}{tail})"


class NeighbourSum(AbstractNeighbours):
    """The sum; 0 at a node without edges."""

    door = "neighbour_sum"


class NeighbourMax(AbstractNeighbours):
    """The largest value; only for nodes with at least one edge."""

    door = "neighbour_max"


def node_field(names: str, *, initial: float | None = None, unit: str | None = None) -> Any:
    """Unknown numbers at every node (several names give a tuple).

    Args:
        names: Names separated by blanks.
        initial: Where iterations start, for nonlinear equations; default: the mean of the fixed
            values, or 0.
        unit: Unit of the values, for plots and files.

    >>> p = node_field("p")
    >>> p.neighbour - p
    -p + p.neighbour
    """
    wrote = f'node_field("{names}", initial={initial!r})'
    start = None if initial is None else _finite(initial, wrote)
    return _each(names, "node_field", NodeField, {"initial": start, "unit": unit})


def node_feature(names: str, *, column: int | None = None) -> Any:
    """Known numbers at every node, by the names of the graph's node features.

    Args:
        names: Names separated by blanks (several give a tuple).
        column: Which column, of features with several; booleans count as 0 and 1.
    """
    _check_column(column, f'node_feature("{names}", column={column!r})')
    return _each(names, "node_feature", NodeFeature, {"column": column})


def edge_feature(names: str, *, odd: bool = False, column: int | None = None) -> Any:
    """Known numbers at every edge, by the names of the graph's edge features.

    An undirected edge is seen from both its ends, with the same value. An odd feature (a pump's head,
    a phase shift, a prescribed flow) is given along the edge, from row 0 of `edges` to row 1, and
    changes its sign where it is seen the other way: along the arc sender -> receiver it counts as
    given if the sender stands in row 0.

    Args:
        names: Names separated by blanks (several give a tuple).
        odd: Whether it changes its sign on the way back.
        column: Which column, of features with several.
    """
    wrote = f'edge_feature("{names}", odd={odd!r}, column={column!r})'
    _check_column(column, wrote)
    if not isinstance(odd, bool):
        raise refusal(wrote, "odd is True or False", "write one of them")
    if "orientation" in str(names).split():
        raise refusal(
            wrote, "the name is taken by pk.orientation", "use that, or give it another name"
        )
    return _each(names, "edge_feature", EdgeFeature, {"column": column, "odd": odd})


def neighbour_sum(expr: Any, *, outgoing: bool = False) -> Any:
    """The sum of `expr` over the edges into the node.

    Args:
        expr: In the node's own values, the neighbours' (`p.neighbour`), edge features, parameters.
        outgoing: Over the edges out of the node; of an undirected graph these are the same edges,
            but odd features and `orientation` are then seen from the node outwards.

    >>> p, k = node_field("p"), edge_feature("k")
    >>> neighbour_sum(k * (p.neighbour - p))
    neighbour_sum(k*(-p + p.neighbour))
    """
    return _over_neighbours(NeighbourSum, expr, outgoing)


def neighbour_max(expr: Any, *, outgoing: bool = False) -> Any:
    """The largest `expr` over the edges into the node (the smallest: -neighbour_max(-expr)).

    >>> V, r = node_field("V"), edge_feature("r")
    >>> neighbour_max(r + V.neighbour / 2)
    neighbour_max(V.neighbour/2 + r)
    """
    return _over_neighbours(NeighbourMax, expr, outgoing)


def _over_neighbours(cls: type[AbstractNeighbours], expr: Any, outgoing: bool) -> Any:
    wrote = f"{cls.door}({show(expr)})"
    if not isinstance(outgoing, (bool, BooleanAtom)):
        raise refusal(wrote, f"outgoing={outgoing!r} is not True or False", "write one of them")
    inner = read_expr(expr, wrote)
    if isinstance(inner, sp.MatrixBase):
        raise refusal(wrote, "this is a vector", f"write one {cls.door} for each component")
    if inner.has(AbstractNeighbours):
        raise refusal(
            wrote,
            "there is a sum over neighbours inside another",
            "make the inner one a field of its own with an equation",
        )
    strange = [s for s in inner.free_symbols if not isinstance(s, (_GraphSymbol, Parameter))]
    if strange:
        raise refusal(
            wrote,
            f"{strange[0]} is no symbol of a graph",
            f'make it with node_field("{strange[0]}"), node_feature, edge_feature or parameter',
        )
    return cast(Any, cls)(inner, sp.true if outgoing else sp.false)


def _each(names: str, door: str, cls: Any, declared: dict[str, Any]) -> Any:
    if not isinstance(names, str):
        raise refusal(f"{door}({names!r})", "names are a string", f'write {door}("p")')
    made = tuple(make_declared(cls, name, declared) for name in read_names(names, door))
    return made[0] if len(made) == 1 else made


def _check_column(column: Any, wrote: str) -> None:
    whole = isinstance(column, int) and not isinstance(column, bool) and column >= 0
    if column is not None and not whole:
        raise refusal(wrote, "a column is a whole number, from 0", "write column=0")


def _finite(value: Any, wrote: str) -> float:
    number = read_expr(value, wrote)
    if not getattr(number, "is_number", False) or not number.is_real:
        raise refusal(wrote, "that is not a real number", "write a number")
    return float(number)
