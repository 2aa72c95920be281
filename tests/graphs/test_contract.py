"""The contract on graphs: the exact solver x the gallery's problems on graphs, held to what all solvers are."""

from __future__ import annotations

import os
import pickle
import random
import warnings
from typing import Any

import numpy as np
import pytest
import torch

import pinnkit as pk
from pinnkit import problems  # pyright: ignore[reportAttributeAccessIssue]

ON_GRAPHS = {
    cls.__name__: cls
    for cls in problems.GRAPH_GALLERY
    if cls.__name__ in ("PoreNetwork", "ResistorNetwork", "PowerFlow")
}


@pytest.mark.parametrize("name", ON_GRAPHS)
def test_solves_honestly(name):
    """One array per field, a status, a verdict that agrees with it, figures."""
    problem = ON_GRAPHS[name]()
    sol = problem.solve()
    n = problem.system.graph.n_nodes
    for field in problem.fields:
        assert isinstance(sol[field], np.ndarray)
        assert sol[field].shape == (n,)
        assert np.isfinite(sol[field]).all()
    assert sol.ok
    assert sol.ok == sol.status.ok == sol.verification.ok
    assert sol.error_estimate == pytest.approx(max(sol.errors.values()))
    assert sol.stats.steps == len(sol.history)
    assert sol.stats.stopped_by is pk.Status.OK
    assert pk.verify(problem, sol).ok
    assert isinstance(sol, pk.GraphSolution)
    assert "evidence" in str(sol)
    assert "GraphSolution of" in repr(sol)
    assert "pinnkit" in pk.citation(sol)
    assert len(problem.citation) > 10


@pytest.mark.parametrize("name", ON_GRAPHS)
def test_saved_and_loaded_is_the_same(name, tmp_path):
    """Values, bounds, status, evidence, solver and problem survive the file; expressions still work."""
    sol = ON_GRAPHS[name]().solve(pk.SparseFixedPoint(direct=True))
    path = tmp_path / "a.pinn"
    sol.save(path)
    back = pk.load(path)
    assert isinstance(back, pk.GraphSolution)
    for field in sol.problem.fields:
        assert np.array_equal(back[field], sol[field])
        assert np.array_equal(back[pk.neighbour_sum(field)], sol[pk.neighbour_sum(field)])
    assert (back.status, back.evidence, back.ok) == (sol.status, sol.evidence, sol.ok)
    assert back.verification.error == sol.verification.error
    assert back.solver == sol.solver
    assert back.problem.solve(resume=back).stats.steps >= sol.stats.steps
    if sol.evidence is pk.Evidence.CERTIFIED:
        field = sol.problem.fields[0]
        assert np.array_equal(back.bound(field), sol.bound(field))


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "a.pinn"
    path.write_bytes(b"nothing of ours")
    with pytest.raises(ValueError, match=r"a\.pinn"):
        pk.load(path)


@pytest.mark.parametrize("name", ON_GRAPHS)
def test_same_answer_twice(name):
    """Nothing is drawn."""
    problem = ON_GRAPHS[name]()
    one, two = (problem.solve(seed=seed, verify=False) for seed in (0, 1))
    assert all(np.array_equal(one[f], two[f]) for f in problem.fields)


def test_no_global_state_is_touched():
    """Default dtype and device, random states, warning filters, environment, threads: all as before."""

    def traces() -> tuple[Any, ...]:
        return (
            torch.get_default_dtype(),
            torch.get_default_device(),
            torch.get_num_threads(),
            torch.is_grad_enabled(),
            torch.random.get_rng_state().numpy().tobytes(),
            np.random.get_state()[1].tobytes(),  # type: ignore[union-attr]  # noqa: NPY002
            random.getstate(),
            list(warnings.filters),
            dict(os.environ),
            np.geterr(),
        )

    before = traces()
    for name in ON_GRAPHS:
        ON_GRAPHS[name]().solve()
    assert traces() == before


def test_works_under_the_other_default_dtype():
    problem = problems.PowerFlow()
    usual = problem.solve()
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64 if before == torch.float32 else torch.float32)
        changed = problem.solve()
    finally:
        torch.set_default_dtype(before)
    assert all(np.array_equal(usual[f], changed[f]) for f in problem.fields)
    assert changed.error_estimate == usual.error_estimate


def test_the_common_knobs():
    """Steps, callbacks, limits, verify, throw, checkpoints: as for every solver."""
    problem = problems.PowerFlow()
    assert problem.solve(max_steps=1).ok is False
    assert problem.solve(max_steps=2).stats.steps == 2
    assert problem.solve(callback=lambda info: True).stats.steps == 1
    assert problem.solve(time_limit=0).stats.stopped_by is pk.Status.TIME_LIMIT
    unjudged = problem.solve(verify=False)
    assert unjudged.status is pk.Status.UNVERIFIED
    assert unjudged.error_estimate is None
    assert problem.solve(tol=1e-16).status is pk.Status.INACCURATE
    with pytest.raises(pk.SolveError, match="INACCURATE"):
        problem.solve(tol=1e-16, throw=True)
    with pytest.raises(TypeError, match="max_stepz"):
        problem.solve(max_stepz=3)
    with pytest.raises(TypeError):
        pk.SparseFixedPoint(no_such_knob=1)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match=r"direct is True, False or None.*newton_steps"):
        pk.SparseFixedPoint(direct=2, newton_steps=0)  # type: ignore[arg-type]


def test_resumed_is_the_same_as_uninterrupted(tmp_path):
    """From a solution and from a checkpoint; another problem is refused."""
    problem, path = problems.ResistorNetwork(), tmp_path / "c.pinn"
    whole = problem.solve()
    first = problem.solve(max_steps=3, checkpoint=path)
    for source in (first, path):
        rest = problem.solve(resume=source)
        assert all(np.allclose(rest[f], whole[f], rtol=0, atol=1e-10) for f in problem.fields)
        assert rest.ok
    with pytest.raises(ValueError, match="another problem"):
        problems.ResistorNetwork(seed=1).solve(resume=first)
    with pytest.raises(TypeError, match="GraphSolution or the path"):
        problem.solve(resume=3)


def test_the_solver_is_a_frozen_record():
    made = pk.SparseFixedPoint()
    assert made == pk.SparseFixedPoint()
    assert hash(made) == hash(pk.SparseFixedPoint())
    with pytest.raises((AttributeError, TypeError)):
        made.anything = 1  # type: ignore[attr-defined]


def test_choose_and_support():
    """On a graph the exact solver; for all graphs the learned one; differential equations are refused."""
    problem = problems.PoreNetwork(n=20)
    solver, reason = pk.choose_solver(problem)
    assert isinstance(solver, pk.SparseFixedPoint)
    assert "linear" in reason
    assert solver.supports(problem) is None
    assert "system.on(graph)" in str(solver.supports(problem.equations()))
    learned, reason = pk.choose_solver(problem.equations())
    assert isinstance(learned, pk.ConvergentGraphSolver)
    assert "exact" in reason
    heat = problems.Heat1D()
    assert "differential equation" in str(solver.supports(heat.system))
    with pytest.raises(pk.UnsupportedProblemError, match="CausalPINN"):
        heat.solve(pk.SparseFixedPoint())
    with pytest.raises(ValueError, match="learns from graphs"):
        problem.equations().solve()


def test_what_solutions_refuse():
    sol = problems.PowerFlow().solve()
    with pytest.raises(pk.UnsupportedProblemError, match="no bound is proved"):
        sol.bound(sol.problem.fields[0])
    with pytest.raises(TypeError, match="takes one expression"):
        sol["theta"]
    with pytest.raises(pk.DeclarationError, match="belongs to a node"):
        sol.edges(pk.neighbour_sum(1))
    with pytest.raises(pk.DeclarationError, match="is no unknown number here"):
        sol[pk.parameter("P")]
    with pytest.raises(pk.DeclarationError, match="no node feature 'x'"):
        sol[pk.node_feature("x")]
    with pytest.raises(ValueError, match="there are 2 fields; give"):
        sol.error(np.ones(14))


def test_pictures_and_data():
    """Positions in three dimensions, and none at all."""
    sol = problems.PoreNetwork(n=30).solve()
    assert len(sol.plot().axes) == 2
    flow = problems.PowerFlow().solve()
    assert flow.plot(flow.problem.fields[1]).axes
    with pytest.raises(ValueError, match=r"expected \(14, 2\)"):
        flow.plot(position=np.ones(14))
    data = sol.to_xarray()
    assert data["p"].shape == (30,)
    assert data["k"].dims == ("edge",)


@pytest.mark.parametrize("name", ON_GRAPHS)
def test_problems_pickle(name):
    problem = ON_GRAPHS[name]()
    assert pickle.loads(pickle.dumps(problem)) == problem
    assert repr(pickle.loads(pickle.dumps(problem.system))) == repr(problem.system)
