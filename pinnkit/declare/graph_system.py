"""Equations on graphs: a `GraphSystem` for every graph, a `GraphProblem` for one.

In    one equation per field, fixed values, totals; a `Graph`.
Out   immutable records, validated when made.
Next  `ir.graph_form` does the validating, `pinnkit.driver.solve` the solving (both imported late).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, final

import sympy as sp

from pinnkit.declare.graph import Graph
from pinnkit.declare.graph_conditions import Fixed, Total
from pinnkit.declare.graph_symbols import NodeField
from pinnkit.declare.printing import refusal, show
from pinnkit.declare.problem import AbstractProblem, check_unknown_numbers, read_equation
from pinnkit.errors import UnsupportedProblemError

if TYPE_CHECKING:
    import numpy as np

    from pinnkit.ir.graph_binding import GraphBinding
    from pinnkit.ir.graph_form import GraphForm

__all__ = ["GraphProblem", "GraphSystem"]

_KEEP: Any = object()


class _OnNodes(AbstractProblem):
    """What systems and problems on graphs have in common."""

    @property
    def coords(self) -> tuple[sp.Symbol, ...]:
        """None: a graph has nodes, not coordinates."""
        return ()

    @property
    def fields(self) -> tuple[Any, ...]:
        """The unknown fields, in the order of their equations."""
        return self.normal_form.fields

    @property
    def parameters(self) -> tuple[sp.Symbol, ...]:
        """The unknown numbers."""
        return self.normal_form.parameters

    def diagnose(self) -> Any:
        """There is none for graphs."""
        raise UnsupportedProblemError(
            "diagnose() looks at differential equations; print(system) shows a graph's, and "
            "system.normal_form.linear says whether they are linear"
        )

    def latex(self) -> str:
        """Equations and conditions for a paper, i the node and j its neighbours."""
        from pinnkit.ir.graph_latex import latex_of_graph

        return latex_of_graph(self.normal_form)


@final
class GraphSystem(_OnNodes):
    """Equations that hold at every node of a graph, one per field, where the field is not fixed.

    Args:
        equations: Expressions ("= 0" understood) or sp.Eq. With several fields of which a node may
            have some fixed and some not, a dictionary {field: equation}: where the field is fixed,
            its equation does not hold.
        conditions: `Fixed` and `Total` conditions.

    >>> from pinnkit.declare import edge_feature, neighbour_sum, node_field
    >>> p, k = node_field("p"), edge_feature("k")
    >>> balance = neighbour_sum(k * (p.neighbour - p))
    >>> GraphSystem([balance], [Fixed(p, 1, where="inlet"), Fixed(p, 0, where="outlet")])
    GraphSystem:
        neighbour_sum(k*(-p + p.neighbour)) = 0
      with
        Fixed(p, 1, where='inlet')
        Fixed(p, 0, where='outlet')
    """

    equations: tuple[Any, ...]
    conditions: tuple[Any, ...]
    paired: tuple[NodeField, ...] | None
    _normal_form: GraphForm

    def __init__(self, equations: Any, conditions: Any = ()) -> None:
        from pinnkit.ir.graph_form import normalise_graph  # late: ir stands above declare

        put = vars(self).__setitem__  # the instance is closed to plain assignment
        given, paired = _read_equations(equations)
        put("equations", given)
        put("paired", paired)
        put("conditions", _read_conditions(conditions))
        put("_normal_form", normalise_graph(self))

    @property
    def system(self) -> GraphSystem:
        """Itself."""
        return self

    @property
    def normal_form(self) -> GraphForm:
        """What solvers read."""
        return self._normal_form

    def on(self, graph: Graph) -> GraphProblem:
        """The problem on one graph."""
        return GraphProblem(self, graph)

    def residual(self, candidate: Any) -> Any:
        """Known on a graph only."""
        raise UnsupportedProblemError(
            "a system has no residual without a graph; write system.on(graph).residual({p: values})"
        )

    def remake(
        self,
        *,
        equations: Any = _KEEP,
        conditions: Any = _KEEP,
        parameters: Mapping[sp.Symbol, float] | None = None,
    ) -> GraphSystem:
        """The same system with some parts exchanged; {P: 2.0} turns unknown numbers into known ones."""
        eqs: Any = self.equations if equations is _KEEP else _read_equations(equations)[0]
        pairs = self.paired if equations is _KEEP else _read_equations(equations)[1]
        conds = self.conditions if conditions is _KEEP else _read_conditions(conditions)
        values = dict(parameters or {})
        check_unknown_numbers(values, self, "system")
        if values:
            eqs = [e.subs(values) for e in eqs]
            conds = tuple(c.subs(values) for c in conds)
        return GraphSystem(eqs if pairs is None else dict(zip(pairs, eqs)), conds)

    def __reduce__(self) -> tuple[Any, ...]:
        eqs = self.equations if self.paired is None else dict(zip(self.paired, self.equations))
        return GraphSystem, (eqs, self.conditions)

    def __repr__(self) -> str:
        lines = []
        for i, e in enumerate(self.equations):
            label = "" if self.paired is None else f"{self.paired[i]}: "
            lines.append(f"    {label}{show(e)}{'' if isinstance(e, sp.Equality) else ' = 0'}")
        parts = ["GraphSystem:", *lines]
        if self.conditions:
            parts += ["  with", *(f"    {c!r}" for c in self.conditions)]
        return "\n".join(parts)


@final
class GraphProblem(_OnNodes):
    """A `GraphSystem` on one graph: `.solve(SparseFixedPoint())` gives a `GraphSolution`.

    >>> import numpy as np
    >>> from pinnkit.declare import edge_feature, neighbour_sum, node_field
    >>> p, k = node_field("p"), edge_feature("k")
    >>> system = GraphSystem(neighbour_sum(k * (p.neighbour - p)), [Fixed(p, 0, where="ground")])
    >>> ground = np.array([True, False])
    >>> system.on(Graph([[0], [1]], node={"ground": ground}, edge={"k": [1.0]})).graph
    Graph(2 nodes, 1 edges; node: ground; edge: k)
    """

    declaration: GraphSystem
    graph: Graph
    binding: GraphBinding

    def __init__(self, declaration: GraphSystem, graph: Graph) -> None:
        from pinnkit.ir.graph_binding import bind  # late: ir stands above declare

        if not isinstance(graph, Graph):
            raise refusal(f"system.on({graph!r})", "that is not a graph", "write pk.Graph(edges)")
        put = vars(self).__setitem__
        put("declaration", declaration)
        put("graph", graph)
        put("binding", bind(declaration.normal_form, graph))

    @property
    def system(self) -> GraphProblem:
        """Itself."""
        return self

    @property
    def normal_form(self) -> GraphForm:
        """What solvers read."""
        return self.declaration.normal_form

    def residual(self, candidate: Any) -> dict[str, np.ndarray]:
        """Left minus right side of the fields' equations at every node, by the fields' names.

        At fixed nodes, where the equation does not hold, it is what the fixed value costs.

        Args:
            candidate: {field: values (N,)}, or values for one field; parameters by {P: number}.
        """
        from pinnkit.driver import graph_residual  # late: the driver stands above all solvers

        return graph_residual(self, candidate)

    def differentiable(self, solver: Any = None) -> Any:
        """The solution as a torch function of the features: see `pinnkit.SparseFixedPoint`.

        >>> from pinnkit.declare import edge_feature, neighbour_sum, node_field
        >>> p, k = node_field("p"), edge_feature("k")
        >>> system = GraphSystem(neighbour_sum(k * (p.neighbour - p)), [Fixed(p, 0, where="g")])
        >>> layer = system.on(Graph([[0], [1]], {"g": [True, False]}, {"k": [1.0]})).differentiable()
        >>> layer()[p].tolist()
        [0.0, 0.0]
        """
        from pinnkit.driver import differentiable_graph

        return differentiable_graph(self, solver)

    def remake(self, *, graph: Graph | None = None, **changes: Any) -> GraphProblem:
        """On another graph, or with another system (see `GraphSystem.remake`)."""
        system = self.declaration.remake(**changes) if changes else self.declaration
        return GraphProblem(system, self.graph if graph is None else graph)

    def __reduce__(self) -> tuple[Any, ...]:
        return GraphProblem, (self.declaration, self.graph)

    def __repr__(self) -> str:
        return f"{self.declaration!r}\n  on {self.graph!r}"


def _read_equations(equations: Any) -> tuple[tuple[Any, ...], tuple[NodeField, ...] | None]:
    paired = None
    if isinstance(equations, Mapping):
        for f in equations:
            if not isinstance(f, NodeField):
                raise refusal(
                    f"GraphSystem({{{show(f)}: ...}})",
                    f"{show(f)} is not a field of nodes",
                    'write {p: equation} for p = node_field("p")',
                )
        paired, equations = tuple(equations), list(equations.values())
    parts = list(equations) if isinstance(equations, (list, tuple, sp.Tuple)) else [equations]
    if not parts:
        raise refusal("GraphSystem([])", "there is no equation", "give one per field")
    read = []
    for i, e in enumerate(parts):
        equation = read_equation(e, i + 1)
        if isinstance(equation, sp.MatrixBase):
            raise refusal(
                f"equation {i + 1}, {show(e)}", "this is a vector", "write one equation per field"
            )
        read.append(equation)
    return tuple(read), paired


def _read_conditions(conditions: Any) -> tuple[Any, ...]:
    if isinstance(conditions, (str, sp.Basic, Fixed, Total)) or not isinstance(
        conditions, Iterable
    ):
        conditions = [conditions]
    parts = tuple(conditions)
    for c in parts:
        if not isinstance(c, (Fixed, Total)):
            raise refusal(
                f"conditions=[..., {show(c)}, ...]",
                "that is not a condition on a graph",
                'write Fixed(p, value, where="inlet") or Total(expression, number)',
            )
    return parts
