"""The driver with the real solvers and a small problem: y' = -k y, y(0) = 1, exact exp(-k t)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

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


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"tol": "1e-3"}, "tol='1e-3' must be a positive number"),
        ({"tol": 0}, "tol=0 must be a positive number"),
        ({"time_limit": float("nan")}, "time_limit=nan must be a number"),
        ({"time_limit": "3"}, "time_limit='3' must be a number"),
        ({"max_steps": 1.5}, "max_steps=1.5 must be a whole number"),
        ({"seed": "a"}, "seed='a' must be an integer"),
        ({"seed": None}, "seed=None must be an integer"),
        ({"seed": 2**70}, "must be an integer of 64 bits"),
        ({"dtype": "float32"}, "dtype='float32' must be one of torch.float64, torch.float32"),
        ({"dtype": torch.int64}, "dtype=torch.int64 must be one of"),
        ({"device": "gpu"}, "device='gpu' names no device"),
        ({"device": "meta"}, "holds no numbers"),
        ({"callback": 3}, "callback=3 is not callable"),
        ({"checkpoint": "."}, "checkpoint='.' is a folder"),
        ({"checkpoint": ("a", 1, 2)}, "must be a path or"),
    ],
)
def test_wrong_knobs_are_refused_before_anything_is_done(knobs: dict[str, Any], message: str):
    with pytest.raises((TypeError, ValueError, OSError), match=message):
        Decay().solve(pk.MethodOfLines(), **knobs)


def test_numpy_integers_are_seeds_too():
    assert Decay().solve(pk.MethodOfLines(), seed=np.int64(3)).ok


@pytest.mark.parametrize(
    ("thing", "message"), [(3, "problem=3 is no problem"), (Decay, "problem=Decay is a class")]
)
def test_what_is_no_problem_is_refused(thing: Any, message: str):
    for door in (pk.solve, pk.choose_solver, lambda p: pk.verify(p, 0)):
        with pytest.raises(TypeError, match=message):
            door(thing)


def test_an_exact_solution_of_a_complex_field_is_the_evidence():
    psi = pk.field("psi", T, complex=True)
    problem = pk.PDESystem(
        [sp.I * psi.diff(T) - psi],
        pk.Interval(T, 0, 1),
        [pk.Initial(psi, 1)],
        exact=sp.exp(-sp.I * T),
    )
    sol = problem.solve(pk.MethodOfLines())
    assert sol.ok and sol.evidence is pk.Evidence.EXACT
    assert sol[sp.arg(psi)](t=0.5) == pytest.approx(-0.5, abs=1e-6)
    assert sol[sp.log(psi)](t=0.5) == pytest.approx(-0.5j, abs=1e-6)
    assert not pk.verify(problem, sp.exp(sp.I * T)).ok
