"""CausalPINN(compile=True): the compiler changes no answer, and hides no fault but its own.

Problem: u_t = u_xx / 10 on [0, 1], u0 = sin(pi x).
"""

import functools
import logging
import math

import pytest
import torch

from pinnkit.solvers.causal_pinn import CausalPINN
from pinnkit.solvers.collocation import Batch
from tests.solvers.test_causal_pinn import advance, environment, heat

ROUNDOFF = 1e-12


def test_a_compiler_that_fails_is_logged_and_changes_nothing(monkeypatch, caplog):
    """A backend's own fault, as torch.compile hands it on: once, not at every step."""

    def backend(graph, inputs):
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    problem = heat()
    ends = []
    for compiled in (False, True):
        solver = CausalPINN(width=6, depth=1, compile=compiled)
        with caplog.at_level(logging.WARNING, logger="pinnkit.solvers.collocation"):
            state = advance(solver, problem, solver.init(problem, environment()), 5)
        ends.append(state.memory["theta"])
    assert torch.equal(*ends)
    ours = [r.getMessage() for r in caplog.records if r.name == "pinnkit.solvers.collocation"]
    assert len(ours) == 1 and "no compiler here" in ours[0]


def test_a_fault_of_a_compiled_residual_is_not_taken_for_one_of_the_compiler(monkeypatch, caplog):
    def faulty(group, model):
        def columns(points):
            raise ArithmeticError("the residual itself is wrong")

        return columns

    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    monkeypatch.setattr("pinnkit.solvers.collocation._straight", faulty)
    problem, solver = heat(), CausalPINN(width=6, depth=1, compile=True)
    with pytest.raises(ArithmeticError, match="the residual itself is wrong"):
        advance(solver, problem, solver.init(problem, environment()), 2)
    assert "torch.compile failed" not in caplog.text


def test_a_platform_without_a_compiler_is_logged_and_changes_nothing(monkeypatch, caplog):
    def refuse(function, **options):
        raise RuntimeError("not on this platform")

    monkeypatch.setattr(torch, "compile", refuse)
    problem, solver = heat(), CausalPINN(width=6, depth=1, compile=True)
    with caplog.at_level(logging.WARNING, logger="pinnkit.solvers.collocation"):
        state = advance(solver, problem, solver.init(problem, environment()), 2)
    assert math.isfinite(state.held_out) and "not on this platform" in caplog.text


def test_what_is_compiled_gives_the_same_residuals_and_gradients(monkeypatch):
    """The function handed to the compiler, run as it is."""
    handed: list[int] = []

    def compile_nothing(function, **options):
        def compiled(points):
            handed.append(len(points))
            return function(points)

        return compiled

    monkeypatch.setattr(torch, "compile", compile_nothing)
    problem, solver = heat(), CausalPINN(width=6, depth=2, points=20)
    state = advance(solver, problem, solver.init(problem, environment()), 2)
    batch, theta = Batch(state.batch.owner, state.batch.parts), state.memory["theta"]
    fine, (loss, gradient) = batch.residual(theta), batch.gradient(theta)
    batch.owner.compile()
    batch = Batch(batch.owner, batch.parts)
    assert torch.allclose(batch.residual(theta), fine, rtol=0, atol=ROUNDOFF)
    again, regained = batch.gradient(theta)
    assert again == pytest.approx(loss, rel=1e-12)
    assert torch.allclose(regained, gradient, rtol=1e-10, atol=ROUNDOFF)
    assert handed == [20, 20]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, of what it imports here
def test_the_real_compiler_gives_the_same_answer():
    problem, ends = heat(), []
    for compiled in (False, True):
        solver = CausalPINN(width=6, depth=1, compile=compiled)
        state = advance(solver, problem, solver.init(problem, environment()), 3)
        ends.append(state.memory["theta"])
    assert state.window.collocation._compiled  # it was not given up
    assert torch.allclose(*ends, rtol=1e-6, atol=1e-8)
