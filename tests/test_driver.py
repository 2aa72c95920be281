"""The driver with the real solvers and a small problem: y' = -k y, y(0) = 1, exact exp(-k t)."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import sympy as sp
import torch

import pinnkit as pk

T = pk.coords("t")
y = pk.field("y", T)


@pk.problem
class Decay(pk.ProblemClass):
    """y' = -k y."""

    k: float = 1.0

    def declare(self) -> pk.PDESystem:
        return pk.PDESystem(
            [y.diff(T) + self.k * y], domain=pk.Interval(T, 0, 1), conditions=[pk.Initial(y, 1)]
        )


def test_the_choice_is_physics_informed_and_says_where_a_classical_solve_would_do():
    solver, reason = pk.choose_solver(Decay())
    assert isinstance(solver, pk.CausalPINN)
    assert "linear evolution problem of order 1 in time without space" in reason
    assert "MethodOfLines() would solve it in about a second" in reason


def test_the_choice_is_logged(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, logger="pinnkit.driver"):
        Decay().solve(max_steps=1, verify=False)
    assert any("CausalPINN()" in r.getMessage() for r in caplog.records)


def test_a_solution_keeps_the_problem_the_user_passed():
    problem = Decay(k=2.0)
    sol = problem.solve(pk.MethodOfLines())
    assert sol.problem is problem and sol.ok and sol.evidence is pk.Evidence.REFERENCE
    assert sol.error(sp.exp(-2 * T)) < 1e-6
    assert pk.verify(problem, sp.exp(-2 * T)).ok
    assert not pk.verify(problem, sp.exp(-T)).ok


@pytest.mark.parametrize("solver", [pk.CausalPINN(), pk.MethodOfLines()], ids=repr)
def test_saved_and_loaded_it_is_the_same(solver, tmp_path: Path):
    sol = Decay().solve(solver, max_steps=2, verify=False)
    sol.save(tmp_path / "a.pinn")
    back = pk.load(tmp_path / "a.pinn")
    times = np.linspace(0, 1, 9)
    np.testing.assert_array_equal(back(t=times), sol(t=times))
    np.testing.assert_array_equal(back[y.diff(T)](t=times), sol[y.diff(T)](t=times))
    assert back.status is sol.status and repr(back.solver) == repr(sol.solver)


def test_train_4_then_4_more_is_train_8(tmp_path: Path):
    def numbers(sol: pk.Solution) -> torch.Tensor:
        return torch.cat([v.flatten() for v in sol.approximation.to_state()[1].values()])

    path = tmp_path / "c"
    Decay().solve(pk.CausalPINN(), max_steps=4, verify=False, checkpoint=(path, 2))
    resumed = Decay().solve(pk.CausalPINN(), max_steps=8, verify=False, resume=path)
    whole = Decay().solve(pk.CausalPINN(), max_steps=8, verify=False)
    assert torch.equal(numbers(resumed), numbers(whole))


def test_no_step_is_an_answer_too_but_not_ok():
    sol = Decay().solve(pk.CausalPINN(), max_steps=0)
    assert sol.stats.steps == 0 and not sol.ok and np.isfinite(sol(t=0.5))


def test_unknown_knobs_are_errors_through_the_problem_too():
    with pytest.raises(TypeError, match="max_stepz"):
        Decay().solve(pk.CausalPINN(), max_stepz=3)
