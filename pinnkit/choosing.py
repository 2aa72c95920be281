"""Which solver takes a problem, and why: `choose_solver`.

In    a problem of any kind.
Out   a solver with its defaults, and the reason in words.
Next  `pinnkit.driver.solve` where the user names none; `pinnkit solve` prints the reason.
"""

from __future__ import annotations

from typing import Any

from pinnkit.declare.family import PDEFamily
from pinnkit.declare.graph_system import GraphProblem, GraphSystem
from pinnkit.declare.graph_target import GraphTarget
from pinnkit.declare.problem import AbstractProblem
from pinnkit.declare.problem_class import ProblemClass
from pinnkit.errors import UnsupportedProblemError
from pinnkit.ir.characteristics import Convection, Transport, find_transport, measure_convection
from pinnkit.ir.normal_form import NormalForm
from pinnkit.solvers import (
    CausalPINN,
    ConvergentGraphSolver,
    HardConstraintMoE,
    LagrangianPINN,
    MethodOfLines,
    NeuralODE,
    SparseFixedPoint,
)
from pinnkit.solvers.base import AbstractSolver
from pinnkit.solvers.series_learning import choose_for_series, is_stochastic

__all__ = ["choose_solver", "is_on_graph", "system_of"]


def choose_solver(problem: Any) -> tuple[AbstractSolver, str]:
    """(solver, why) among the physics-informed solvers.

    The reason also says where a classical solve would do: it is one argument away. On a graph the
    exact solver is chosen; for a `GraphSystem` without a graph the learned one.
    """
    if is_on_graph(problem):
        return _choose_on_graphs(problem)
    if is_stochastic(problem):
        return choose_for_series()
    system = system_of(problem)
    if isinstance(system, PDEFamily):
        return _choose_for_family(system)
    nf: NormalForm = system.normal_form
    if nf.neurals or any(o.run for o in nf.observations):
        return _choose_for_neural(system)
    convection = _convection(nf) if LagrangianPINN().supports(system) is None else None
    why = CausalPINN().supports(system)
    if convection is not None and (convection.dominates or why is not None):
        solver: AbstractSolver = LagrangianPINN()
        reason = f"LagrangianPINN(): {convection}, followed along the characteristics."
    elif why is not None:
        raise UnsupportedProblemError(f"no physics-informed solver handles this problem: {why}")
    else:
        solver, reason = CausalPINN(), f"CausalPINN(): {_character(nf)}."
    if MethodOfLines().supports(system) is None:
        reason += (
            f" The classical MethodOfLines() would solve it in {_classical_effort(nf)}: "
            "pass it to solve() where only the answer matters."
        )
    return solver, reason


def _choose_for_family(family: PDEFamily) -> tuple[AbstractSolver, str]:
    why = HardConstraintMoE().supports(family)
    if why is not None:
        raise UnsupportedProblemError(f"no solver learns this family: {why}")
    names = ", ".join(map(str, family.given))
    reason = (
        f"HardConstraintMoE(): the solutions for all {names}, in a learned basis. One member alone is"
        " family.on(sample).solve(), or family.reference(sample)."
    )
    return HardConstraintMoE(), reason


def _choose_for_neural(system: Any) -> tuple[AbstractSolver, str]:
    why = NeuralODE().supports(system)
    if why is not None:
        raise UnsupportedProblemError(f"no solver learns the terms of this problem: {why}")
    nf: NormalForm = system.normal_form
    names = ", ".join(map(str, (*nf.neurals, *nf.parameters))) or "the start of every run"
    return NeuralODE(), f"NeuralODE(): {names} learned from observations of the trajectory."


def system_of(problem: Any, *, series: bool = False) -> Any:
    """The declared system of a problem; with `series`, one of stochastic equations passes, too.

    Raises:
        TypeError: for a class in place of an instance, and for anything that is no problem.
    """
    if isinstance(problem, type) and issubclass(problem, AbstractProblem):
        raise TypeError(
            f"problem={problem.__name__} is a class; pass an instance: {problem.__name__}()"
        )
    form = getattr(problem, "normal_form", None)
    if not (isinstance(form, NormalForm) or (series and is_stochastic(problem))):
        raise TypeError(
            f"problem={problem!r} is no problem; pass a PDESystem or an instance of a problem class"
        )
    return problem.system if isinstance(problem, ProblemClass) else problem


def is_on_graph(problem: Any) -> bool:
    """Whether it is made of equations on graphs, on one graph or on none yet."""
    system = problem.system if isinstance(problem, ProblemClass) else problem
    return isinstance(system, (GraphSystem, GraphProblem, GraphTarget))


def _choose_on_graphs(problem: Any) -> tuple[AbstractSolver, str]:
    form = problem.normal_form
    if isinstance(form, GraphTarget):
        return ConvergentGraphSolver(), f"ConvergentGraphSolver(): {form!r} is learned from data."
    kind = "linear" if form.linear else "nonlinear"
    if isinstance(problem.system, GraphProblem):
        how = "one sparse solve" if form.linear else "Newton's method on the sparse Jacobian"
        return SparseFixedPoint(), f"SparseFixedPoint(): {kind} equations on one graph, by {how}."
    reason = (
        f"ConvergentGraphSolver(): {kind} equations on every graph, learned from data=[graphs]. On one "
        "graph system.on(graph).solve() is exact."
    )
    return ConvergentGraphSolver(), reason


def _convection(nf: NormalForm) -> Convection:
    transport = find_transport(nf)
    assert isinstance(transport, Transport)
    return measure_convection(nf, transport)


def _character(nf: NormalForm) -> str:
    facts = nf.predicates
    kind = "linear" if facts.linear else "nonlinear"
    if not facts.evolution:
        where = f"{len(nf.coords)} coordinate{'s' if len(nf.coords) > 1 else ''}"
        return (
            f"a {kind} steady problem in {where}, trained on the whole domain by second-order steps"
        )
    order = max(facts.time_order.values(), default=1)
    space = f"{len(nf.space)} space dimensions" if len(nf.space) != 1 else "one space dimension"
    where = f"in {space}" if nf.space else "without space (ODEs)"
    return (
        f"a {kind} evolution problem of order {order} in time {where}, "
        "trained causally in time by second-order steps"
    )


def _classical_effort(nf: NormalForm) -> str:
    dimensions = len(nf.space)
    return "about a second" if dimensions <= 1 else "seconds to a minute"
