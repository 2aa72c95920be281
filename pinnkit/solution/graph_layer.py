"""The solution of a graph problem as a torch function of the features.

In    a `GraphProblem`; features as tensors.
Out   `GraphTensors`: fields, expressions and flows, differentiable any number of times.
Next  the user's own training loop, through `problem.differentiable()`.

With z the solution found by plain numbers, z - J(z, a)^-1 F(z, a) has the same value, and the right
derivative with respect to the features a: dz = -J^-1 F_a da. For linear equations it is the solution for
every a, so that all derivatives are right; otherwise the step is taken twice, and derivatives are
right up to the third order. The sparse solve is that of `pinnkit.implicit`: its adjoint is a solve
with the transposed matrix, on the same factors.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from pinnkit.declare.graph_symbols import NodeField
from pinnkit.declare.graph_system import GraphProblem
from pinnkit.errors import SolveError, Status
from pinnkit.graphs.newton import Newton
from pinnkit.graphs.sparse_solve import factorise
from pinnkit.graphs.start import spread
from pinnkit.implicit.sparse import SparsePattern, sparse_solve
from pinnkit.ir.graph_expressions import edge_expression, node_expression
from pinnkit.lower.graph_arcs import Features
from pinnkit.lower.graph_program import NodeValues
from pinnkit.lower.graph_residual import GraphEquations

__all__ = ["GraphLayer", "GraphTensors", "make_newton"]


def make_newton(
    equations: GraphEquations,
    features: Features | None = None,
    *,
    start: np.ndarray | None = None,
    direct: bool | None = None,
) -> Newton:
    """Newton's method on plain numbers."""
    n = equations.n
    counts = torch.bincount(equations.rows.cpu(), minlength=n)
    pointers = np.concatenate([[0], np.cumsum(counts.numpy())])
    columns = equations.cols.cpu().numpy()

    def tensor(z: np.ndarray) -> Tensor:
        return torch.from_numpy(z).to(equations.device, equations.dtype)

    @torch.no_grad()
    def residual(z: np.ndarray) -> np.ndarray:
        return equations.residual(tensor(z), features).cpu().double().numpy()

    @torch.no_grad()
    def jacobian(z: np.ndarray) -> Any:
        entries = equations.entries(tensor(z), features).cpu().double().numpy()
        return scipy.sparse.csr_matrix((entries, columns, pointers), shape=(n, n))

    groups = list(equations.spans().values())
    groups += [slice(i, i + 1) for i in range(equations.values, n)]
    z = _start(equations, features) if start is None else start
    return Newton(residual, jacobian, z, equations.form.linear, groups, direct)


def _start(equations: GraphEquations, features: Features | None) -> np.ndarray:
    """Declared starts, and fixed values spread over the graph where the equations are not linear."""
    at = equations.start(features)
    if equations.form.linear:
        return at.cpu().double().numpy()
    values = equations.unpack(at, features)
    fields = dict(values.fields)
    for f, fixed in equations.binding.fixed.items():
        if f.initial is None:
            found = spread(equations.graph.edges, fixed, fields[f].detach().cpu().double().numpy())
            fields[f] = torch.from_numpy(found).to(fields[f])
    return equations.pack(NodeValues(fields, values.parameters)).detach().cpu().double().numpy()


class GraphTensors:
    """Fields and expressions as tensors: `t[p]`, `t[neighbour_sum(...)]`, `t.edges(k * (p.neighbour - p))`."""

    def __init__(self, equations: GraphEquations, values: NodeValues, features: Features) -> None:
        self._equations, self._values, self._features = equations, values, features

    @property
    def parameters(self) -> Mapping[Any, Tensor]:
        """The unknown numbers."""
        return self._values.parameters

    def __getitem__(self, expr: Any) -> Tensor:  # shape: (N,)
        found = node_expression(expr, self._equations.form, self._equations.graph)
        if isinstance(found, NodeField):
            return self._values.fields[found]
        return self._equations.at_nodes(found, self._values, self._features)

    def edges(self, expr: Any) -> Tensor:  # shape: (E,)
        """Along every edge as given: `p.neighbour` stands in row 0 of the edges, p in row 1."""
        found = edge_expression(expr, self._equations.form, self._equations.graph)
        return self._equations.at_edges(found, self._values, self._features)


class GraphLayer:
    """Features to solution: `layer(edge={"k": k})` with tensors; others are the graph's own."""

    def __init__(
        self, problem: GraphProblem, *, max_steps: int = 100, direct: bool | None = None
    ) -> None:
        self.problem, self._max_steps, self._direct = problem, max_steps, direct
        self._made: dict[tuple[torch.device, torch.dtype], tuple[GraphEquations, Any]] = {}

    def __call__(
        self, *, node: Mapping[str, Any] | None = None, edge: Mapping[str, Any] | None = None
    ) -> GraphTensors:
        """Solve for these features.

        Args:
            node: Node features as tensors, by name.
            edge: Edge features as tensors, by name.
        """
        given = {"node": dict(node or {}), "edge": dict(edge or {})}
        tensors = [_checked(v, n, k, self) for k, part in given.items() for n, v in part.items()]
        like = tensors[0] if tensors else torch.zeros(0, dtype=torch.float64)
        for tensor in tensors:
            if (tensor.device, tensor.dtype) != (like.device, like.dtype):
                raise ValueError(
                    f"features lie on {like.device} as {like.dtype} and on {tensor.device} as "
                    f"{tensor.dtype}; convert them to one device and dtype"
                )
        equations, pattern = self._equations(like)
        own = equations.features
        features = Features({**own.node, **given["node"]}, {**own.edge, **given["edge"]})
        z = self._start(equations, features)
        # A linear system is solved by its one step, from anywhere.
        for _ in range(1 if equations.form.linear else 2):
            entries = equations.entries(z, features)
            z = z - sparse_solve(pattern, entries, equations.residual(z, features)[None])[0]
        return GraphTensors(equations, equations.unpack(z, features), features)

    def _start(self, equations: GraphEquations, features: Features) -> Tensor:
        if equations.form.linear:
            return equations.start(features)
        with torch.no_grad():
            newton = make_newton(equations, features, direct=self._direct)
            while not (newton.converged or newton.failed) and newton.steps < self._max_steps:
                newton.step()
        if not newton.converged:
            error = SolveError(Status.STALLED, None)  # type: ignore[arg-type]
            why = newton.failed or f"Newton's method has not converged in {newton.steps} steps"
            error.args = (f"{Status.STALLED.name}: {why}",)
            raise error
        return torch.from_numpy(newton.z).to(equations.device, equations.dtype)

    def _equations(self, like: Tensor) -> tuple[GraphEquations, SparsePattern]:
        key = (like.device, like.dtype)
        if key not in self._made:
            problem = self.problem
            equations = GraphEquations(
                problem.normal_form,
                problem.graph,
                problem.binding,
                device=like.device,
                dtype=like.dtype,
            )
            inverse = functools.partial(factorise, direct=self._direct)
            pattern = SparsePattern(equations.rows, equations.cols, equations.n, inverse)
            self._made[key] = equations, pattern
        return self._made[key]


def _checked(value: Any, name: str, kind: str, layer: GraphLayer) -> Tensor:
    known = getattr(layer.problem.graph, kind)
    if name not in known:
        has = ", ".join(known) or "none"
        raise ValueError(f"{kind}={{{name!r}: ...}}: the graph has no such feature; it has {has}")
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise TypeError(f"{kind}={{{name!r}: ...}}: give a floating-point tensor, not {value!r}")
    if tuple(value.shape) != known[name].shape:
        raise ValueError(
            f"{kind}={{{name!r}: ...}} has the shape {tuple(value.shape)}, the graph's feature has "
            f"{known[name].shape}"
        )
    return value
