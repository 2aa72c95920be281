"""The exact solver on graphs: sparse factors or conjugate gradients; Newton where it is not linear.

In    a `GraphProblem`.
Out   the values at all nodes, to rounding.
Next  `graph_solving` runs it, judges the answer and builds the `GraphSolution`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
import torch
from torch import Tensor

from pinnkit.declare.graph_system import GraphProblem
from pinnkit.errors import SolveError, Status
from pinnkit.graphs.newton import Newton, norm
from pinnkit.ir.graph_binding import floating_refusal, unreached
from pinnkit.ir.graph_form import GraphForm
from pinnkit.lower.graph_program import NodeValues
from pinnkit.lower.graph_residual import GraphEquations
from pinnkit.solution.graph_layer import GraphLayer, make_newton
from pinnkit.solution.graph_solution import GraphSolution, read_values
from pinnkit.solvers.base import AbstractSolver, Env

__all__ = ["SparseFixedPoint", "SparseFixedPointState", "solve_fields"]


@dataclass
class SparseFixedPointState:
    """Where Newton's method stands; one step solves linear equations."""

    equations: GraphEquations
    newton: Newton
    step: int = 0

    @property
    def values(self) -> NodeValues:
        """The fields at all nodes."""
        with torch.no_grad():
            return self.equations.unpack(torch.from_numpy(self.newton.z).to(self.equations.device))

    def state_dict(self) -> dict[str, Any]:
        return {"z": torch.from_numpy(self.newton.z.copy()), "step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        start = state["z"].cpu().double().numpy().copy()
        self.newton = make_newton(self.equations, start=start, direct=self.newton.direct)
        self.step = int(state["step"])


@final
@dataclass(frozen=True, kw_only=True)
class SparseFixedPoint(AbstractSolver):
    """Solves the equations of a graph as they stand, to rounding: F(u) = 0 with its analytic sparse Jacobian.

    Linear equations: one sparse solve and its refinement. By default LU factors up to 5,000 unknowns and for
    thin (planar, tree-like) graphs of any size; above, conjugate gradients preconditioned by the
    diagonal where the matrix is symmetric and dominated by it, else factors up to 20,000 and GMRES. Nonlinear ones: Newton's
    method, damped by the natural monotonicity test, with pseudo-time steps where it fails; of several
    solutions it finds one.

    The error is a proved bound (CERTIFIED) for linear equations with an M-matrix, for example
    conductances and fixed potentials; else an estimate by the linearised error equation (DEFECT).

    `problem.differentiable()` is the same as a torch function of all features, with exact adjoints.

    Args:
        direct: True for factors, False for iterations, None by size.
        newton_steps: Newton (and pseudo-time) steps at most.

    Supports every `GraphSystem` on a graph: `system.on(graph)`. Not: differential equations.
    References: deuflhard2011newton.
    """

    direct: bool | None = None
    newton_steps: int = 200

    citation: ClassVar[str] = (
        "@book{deuflhard2011newton, author={Deuflhard, Peter}, "
        "title={Newton Methods for Nonlinear Problems}, publisher={Springer}, year={2011}}"
    )

    def __post_init__(self) -> None:
        faults = []
        if self.direct not in (None, True, False):
            faults.append(f"direct is True, False or None, not {self.direct!r}")
        if isinstance(self.newton_steps, bool) or not self.newton_steps >= 1:
            faults.append(f"newton_steps is a number of steps, not {self.newton_steps!r}")
        if faults:
            raise ValueError("SparseFixedPoint: " + "; ".join(faults))

    def supports(self, problem: Any) -> str | None:
        system = getattr(problem, "system", problem)
        if isinstance(system, GraphProblem):
            return None
        if isinstance(getattr(system, "normal_form", None), GraphForm):
            return (
                "SparseFixedPoint solves on one graph, and this system is not on any. Write "
                "system.on(graph).solve(SparseFixedPoint())."
            )
        return (
            "SparseFixedPoint solves equations on graphs; this is a differential equation. Use "
            "CausalPINN(), or MethodOfLines()."
        )

    def init(self, problem: Any, env: Env) -> SparseFixedPointState:
        system: GraphProblem = problem.system
        # Double precision whatever was asked for: exactness is what this solver is for.
        equations = GraphEquations(
            system.normal_form, system.graph, system.binding, device=env.device
        )
        _check_weights(equations)
        start = None
        if env.warm_start is not None:
            start = _start(equations, env.warm_start)
        return SparseFixedPointState(
            equations, make_newton(equations, start=start, direct=self.direct)
        )

    def step(self, problem: Any, state: SparseFixedPointState) -> Mapping[str, float | Tensor]:
        newton = state.newton
        if not newton.failed:
            newton.step()
        state.step += 1
        losses = {"residual": norm(newton.F)}
        return losses | ({"step": newton.length} if np.isfinite(newton.length) else {})

    def terminate(self, problem: Any, state: SparseFixedPointState) -> Status | None:
        if state.newton.converged:
            return Status.OK
        if state.newton.failed or state.step >= self.newton_steps:
            return Status.STALLED
        return None

    def finish(self, problem: Any, state: SparseFixedPointState) -> Any:
        """The values reached."""
        return state.values

    def layer(self, problem: Any) -> GraphLayer:
        """The solution on this graph as a torch function of its features."""
        return GraphLayer(problem.system, max_steps=self.newton_steps, direct=self.direct)


def solve_fields(
    problem: GraphProblem, solver: SparseFixedPoint | None = None
) -> dict[str, np.ndarray]:
    """The fields by name, (N,) each, without a record of how good they are; SolveError if there is none."""
    solver = solver or SparseFixedPoint()
    equations = GraphEquations(problem.normal_form, problem.graph, problem.binding)
    _check_weights(equations)
    state = SparseFixedPointState(equations, make_newton(equations, direct=solver.direct))
    while (reason := solver.terminate(problem, state)) is None:
        solver.step(problem, state)
    if reason is not Status.OK:
        error = SolveError(reason, None)  # type: ignore[arg-type]
        error.args = (f"{reason.name}: {state.newton.failed or 'Newton has not converged'}",)
        raise error
    return {str(f): v.numpy() for f, v in state.values.fields.items()}


def _check_weights(equations: GraphEquations) -> None:
    """Refuse parts that hang on the rest by edges of weight zero only: no value there is right or wrong."""
    form, graph = equations.form, equations.graph
    if not form.linear or form.totals or not form.floating:
        return
    outgoing = any(r.outgoing and r.varies for r in form.program.reductions)
    with torch.no_grad():
        z = equations.start()
        for f in form.fields:
            if f in form.floating:
                keep = equations.coupled(z, f)
                lost = unreached(graph, equations.binding.fixed[f], keep, both_ways=outgoing)
                if len(lost):
                    raise floating_refusal(f, lost, " by edges whose weight is not zero")


def _start(equations: GraphEquations, warm: Any) -> np.ndarray:
    if not isinstance(warm, (GraphSolution, Mapping, np.ndarray)):
        raise TypeError(
            f"warm_start={warm!r}: SparseFixedPoint starts from a GraphSolution or {{field: values}}"
        )
    given = read_values(equations.form, equations.graph, warm)
    numbers = warm.values.parameters if isinstance(warm, GraphSolution) else {}
    values = NodeValues(
        {f: torch.from_numpy(v).to(equations.device) for f, v in given.items()},
        {
            p: torch.as_tensor(numbers.get(p, p.guess), dtype=equations.dtype)
            for p in equations.form.parameters
        },
    )
    return equations.pack(values).cpu().double().numpy()
