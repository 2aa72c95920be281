"""The solution on a graph: ask it for fields, expressions and flows, and how wrong they are.

In    values at nodes, the problem, the verdict, the figures.
Out   `GraphSolution`: numpy arrays by field or expression.
Next  the user.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any, final

import numpy as np
import sympy as sp
import torch

from pinnkit.declare.graph import Graph
from pinnkit.declare.graph_symbols import NodeField
from pinnkit.declare.graph_system import GraphProblem
from pinnkit.errors import Evidence, Status, UnsupportedProblemError
from pinnkit.ir.graph_expressions import edge_expression, node_expression
from pinnkit.ir.graph_form import GraphForm
from pinnkit.lower.graph_program import NodeValues
from pinnkit.lower.graph_residual import GraphEquations
from pinnkit.solution.estimate import Estimate, Stats, solver_name
from pinnkit.solution.solution import Snapshot
from pinnkit.solution.verification import JUDGING, Verification
from pinnkit.train.callbacks import History

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["GraphSolution", "describe_graph"]


@final
class GraphSolution:
    """An answer on a graph that says how wrong it is.

    `sol[p]` is a field at all nodes, (N,); `sol[expr]` any expression of a node, sums over neighbours
    included (at a fixed node, an equation's left side is what fixing the value costs);
    `sol.edges(k * (p.neighbour - p))` an expression along every edge as given, (E,): `p.neighbour` stands
    in row 0 of the edges and p in row 1, so that this is the flow from row 0 to row 1.

    `status`, `ok`, `evidence`, `error_estimate` (relative L2 over the nodes), `errors` (per field),
    `bound(p)` (of every node, where it is proved) say how good it is; `stats`, `history`, `solver`,
    `problem`, `parameters` how it came about.
    """

    def __init__(
        self,
        *,
        problem: Any,
        solver: Any,
        values: NodeValues,
        status: Status,
        verification: Verification,
        history: History,
        stats: Stats,
        bounds: Mapping[str, np.ndarray] | None = None,
        snapshot: Snapshot | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self.problem, self.solver = problem, solver
        self.status, self.verification = status, verification
        self.history, self.stats, self.snapshot = history, stats, snapshot
        self.device, self.dtype = torch.device(device), dtype
        self.values = NodeValues(
            {f: v.detach().cpu() for f, v in values.fields.items()},
            {p: v.detach().cpu() for p, v in values.parameters.items()},
        )
        self._bounds = None if bounds is None else dict(bounds)
        self._equations: GraphEquations | None = None

    @property
    def _on_graph(self) -> GraphProblem:
        return self.problem.system

    @property
    def graph(self) -> Graph:
        """The graph it lives on."""
        return self._on_graph.graph

    @property
    def normal_form(self) -> GraphForm:
        """What was solved."""
        return self._on_graph.normal_form

    # --- how good it is -------------------------------------------------------------------------

    @property
    def ok(self) -> bool:
        """True exactly when the error is known to be below the tolerance."""
        return self.status.ok

    @property
    def evidence(self) -> Evidence:
        """Where `error_estimate` comes from."""
        return self.verification.evidence

    @property
    def error_estimate(self) -> float | None:
        """Relative L2 error over the nodes, the largest over the fields; None where it is unknown."""
        judged = self.evidence in JUDGING and not math.isnan(self.verification.error)
        return self.verification.error if judged else None

    @property
    def errors(self) -> Mapping[str, float]:
        """`error_estimate` per field."""
        return self.verification.errors

    @property
    def parameters(self) -> dict[sp.Symbol, Estimate]:
        """The unknown numbers, determined by the totals."""
        return {p: Estimate(float(v)) for p, v in self.values.parameters.items()}

    def bound(self, field: NodeField) -> np.ndarray:  # shape: (N,)
        """A proved bound of the field's error at every node, 0 where it is fixed."""
        if self._bounds is None:
            raise UnsupportedProblemError(
                "no bound is proved for these equations (their matrix is not an M-matrix, or they are "
                "not linear); sol.error_estimate tells how wrong the answer is"
            )
        return self._bounds[str(node_expression(field, self.normal_form, self.graph))].copy()

    def error(self, reference: Any) -> float:
        """Relative L2 difference from another answer, the largest over the fields.

        Args:
            reference: {field: values (N,)}, values for a single field, or a GraphSolution.
        """
        found = []
        for f, theirs in read_values(self.normal_form, self.graph, reference).items():
            mine = self[f]
            size = float(np.linalg.norm(theirs))
            difference = float(np.linalg.norm(mine - theirs))
            found.append(difference / size if size > 0 else difference)
        return max(found)

    def residual(self) -> dict[str, np.ndarray]:
        """Left minus right side of every field's equation at every node: (N,)."""
        names = [str(f) for f in self.normal_form.fields]
        with torch.no_grad():
            parts = self._compiled().everywhere(self.values)
        return {name: part.numpy() for name, part in zip(names, parts)}

    # --- values ---------------------------------------------------------------------------------

    def __getitem__(self, expr: Any) -> np.ndarray:  # shape: (N,)
        found = node_expression(expr, self.normal_form, self.graph)
        if isinstance(found, NodeField):
            return self.values.fields[found].numpy().copy()
        with torch.no_grad():
            return self._compiled().at_nodes(found, self.values).numpy().copy()

    def edges(self, expr: Any) -> np.ndarray:  # shape: (E,)
        """An expression along every edge as given: `p.neighbour` in row 0 of the edges, p in row 1."""
        found = edge_expression(expr, self.normal_form, self.graph)
        with torch.no_grad():
            return self._compiled().at_edges(found, self.values).numpy().copy()

    # --- pictures and files ---------------------------------------------------------------------

    def plot(self, field: NodeField | None = None, *, position: Any = None) -> Figure:
        """A matplotlib figure: nodes coloured by a field, edges between them.

        Args:
            field: Which field; default: the first.
            position: Name of a node feature with two or three columns, or an array (N, 2) or (N, 3);
                default: "position", else a layout by breadth from the fixed nodes.
        """
        from pinnkit.solution import graph_plots

        return graph_plots.plot(self, field, position)

    def to_xarray(self) -> Any:
        """An xarray Dataset: fields and node features over `node`, edges and their features over `edge`."""
        import xarray as xr

        data: dict[str, Any] = {str(f): ("node", self[f]) for f in self.normal_form.fields}
        for kind in ("node", "edge"):
            for name, array in getattr(self.graph, kind).items():
                key = name if name not in data else f"{kind}_{name}"
                dims = (kind,) if array.ndim == 1 else (kind, f"{key}_column")
                data[key] = (dims, array)
        data["sender"], data["receiver"] = (("edge", row) for row in self.graph.edges)
        return xr.Dataset(data)

    def save(self, path: str | PathLike[str]) -> None:
        """Write a `.pinn` file (JSON and tensors, nothing executable); `pk.load` reads it."""
        from pinnkit.solution import graph_files

        graph_files.save(self, path)

    def __str__(self) -> str:
        return describe_graph(self)

    def __repr__(self) -> str:
        known = "" if self.error_estimate is None else f", E={self.error_estimate:.2e}"
        names = ", ".join(map(str, self.normal_form.fields))
        return f"<GraphSolution of {names}: {self.status.name}, {self.evidence.name}{known}>"

    # --- within ---------------------------------------------------------------------------------

    def _compiled(self) -> GraphEquations:
        if self._equations is None:
            problem = self._on_graph
            self._equations = GraphEquations(problem.normal_form, problem.graph, problem.binding)
        return self._equations


def read_values(form: GraphForm, graph: Graph, candidate: Any) -> dict[NodeField, np.ndarray]:
    """{field: (N,)} of what a user gives as an answer; ValueError for another shape."""
    if isinstance(candidate, GraphSolution):
        candidate = {f: candidate[f] for f in form.fields}
    if not isinstance(candidate, Mapping):
        if len(form.fields) != 1:
            raise ValueError(
                f"there are {len(form.fields)} fields; give {{field: values}} for "
                f"{', '.join(map(str, form.fields))}"
            )
        candidate = {form.fields[0]: candidate}
    named = {str(k): v for k, v in candidate.items()}
    found = {}
    for f in form.fields:
        if str(f) not in named:
            raise ValueError(f"no values are given for {f}")
        array = np.asarray(named[str(f)], dtype=float)
        if array.shape != (graph.n_nodes,):
            raise ValueError(f"values of {f} have the shape {array.shape}, not ({graph.n_nodes},)")
        found[f] = array
    return found


def describe_graph(sol: GraphSolution) -> str:
    """Status, evidence, error, seconds, parameters: one glance."""
    stats, verdict = sol.stats, sol.verification
    source = {
        Evidence.DEFECT: "the linearised error equation, with its rounding",
        Evidence.RESIDUAL: "the residual (not an error)",
    }.get(sol.evidence, sol.evidence.value)
    lines = [
        f"Solution of {', '.join(map(str, sol.normal_form.fields))} on {sol.graph!r}",
        f"  status    {sol.status.name}: {sol.status.message}",
        f"  evidence  {sol.evidence.name}: {source}",
    ]
    if sol.error_estimate is not None:
        lines.append(f"  error     {sol.error_estimate:.2e} relative L2, judged at {verdict.tol:g}")
        if len(sol.errors) > 1:
            lines.append("            " + ", ".join(f"{n} {e:.2e}" for n, e in sol.errors.items()))
        if not math.isnan(verdict.fluctuation_error):
            lines.append(f"            {verdict.fluctuation_error:.2e} of the fluctuation")
    if not math.isnan(verdict.residual):
        lines.append(f"  residual  {verdict.residual:.1e} relative to the right-hand side")
    if verdict.reason:
        lines.append(f"  because   {verdict.reason}")
    lines.append(
        f"  solver    {solver_name(sol.solver)}: {stats.steps} steps in {stats.seconds:.2f} s "
        f"({stats.more.get('linear', 'unknown')}), stopped by {stats.stopped_by.name}; "
        f"checked in {stats.verification_seconds:.2f} s"
    )
    lines.append(
        f"  size      {stats.more.get('unknowns', '?')} unknowns, "
        f"{stats.more.get('nonzeros', '?')} entries, {stats.peak_memory / 2**20:.0f} MiB at most"
    )
    lines += [f"  {p!s:<9} {estimate}" for p, estimate in sol.parameters.items()]
    return "\n".join(lines)
