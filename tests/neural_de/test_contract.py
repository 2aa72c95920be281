"""The contract on series: `NeuralSDE` x everything that is learned from series, held to what all solvers are."""

from __future__ import annotations

import functools
import math
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

BOUNDED = {"form": "bounded"}
EQUATIONS: dict[str, Any] = {
    "LangevinSDE": pk.LangevinSDE,
    "LinearNoiseSDE": pk.LinearNoiseSDE,
    "GeometricSDE": pk.GeometricSDE,
    "bounded LangevinSDE": functools.partial(pk.LangevinSDE, **BOUNDED),
    "bounded LinearNoiseSDE": functools.partial(pk.LinearNoiseSDE, **BOUNDED),
    "bounded GeometricSDE": functools.partial(pk.GeometricSDE, **BOUNDED),
    "UnconstrainedSDE": pk.UnconstrainedSDE,
    "NeuralCDE": pk.NeuralCDE,
    "SeriesTarget": pk.SeriesTarget,
}
QUICK = pk.NeuralSDE(width=6, steps=4, batch=16, epochs=1, samples=2)


def classify(name: str) -> Any:
    """Rotations with gaps, by one of the equations."""
    return problems.IrregularClassification(EQUATIONS[name], paths=24, dim=3)


GALLERY = {cls.__name__: functools.partial(cls, paths=24, dim=3) for cls in problems.SERIES_GALLERY}
CASES: dict[str, Any] = {
    **GALLERY,
    **{name: functools.partial(classify, name) for name in EQUATIONS},
}


@pytest.mark.parametrize("name", CASES)
def test_solves_honestly(name):
    """Predictions of the right shape, no claim of a truth, figures, a citation; the same seed, the same model."""
    problem = CASES[name]()
    assert QUICK.supports(problem.system) is None
    sol, again = problem.solve(QUICK), problem.solve(QUICK)
    fresh = problem.series(7, 12)
    for one, two in zip(sol.predict(fresh), again.predict(fresh), strict=True):
        assert np.array_equal(one, two)
    assert len(sol.predict(fresh)) == 12
    assert math.isfinite(sol.score(fresh))
    assert (sol.status, sol.ok, sol.evidence) == (pk.Status.NO_GROUND_TRUTH, None, pk.Evidence.NONE)
    assert math.isnan(sol.error_estimate)
    assert sol.stats.steps == len(sol.history) > 0
    assert sol.stats.parameters == sum(p.numel() for p in sol.module.parameters())
    assert "NO_GROUND_TRUTH" in repr(sol)
    assert "pinnkit" in pk.citation(sol) and len(problem.citation) > 10


@pytest.mark.parametrize("name", EQUATIONS)
def test_every_equation_trains_in_float32_with_a_gradient_everywhere(name):
    """dtype reaches all parameters; a step changes every tensor of them."""
    problem = classify(name)
    start, end = (
        problem.solve(QUICK, max_steps=n, time_limit=None, dtype=torch.float32).module
        for n in (0, 2)
    )
    for (which, before), after in zip(start.named_parameters(), end.parameters(), strict=True):
        assert after.dtype == torch.float32
        assert not torch.equal(before, after), which


@pytest.mark.parametrize("name", ["IrregularClassification", "SeriesTarget"])
def test_no_global_state_is_touched(name):
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

    problem, before = CASES[name](), traces()
    problem.solve(QUICK).predict(problem.series(7, 5))
    assert traces() == before


@pytest.mark.parametrize("name", ["IrregularClassification", "SeriesTarget"])
def test_works_under_the_other_default_dtype(name):
    problem = CASES[name]()
    fresh = problem.series(7, 12)
    usual = problem.solve(QUICK).probabilities(fresh)
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64 if before == torch.float32 else torch.float32)
        changed = problem.solve(QUICK).probabilities(fresh)
    finally:
        torch.set_default_dtype(before)
    np.testing.assert_array_equal(changed, usual)


@pytest.mark.parametrize("name", ["IrregularClassification", "SeriesTarget"])
def test_the_common_knobs(name):
    """Steps, callbacks, limits; unknown ones are errors."""
    problem = CASES[name]()
    assert problem.solve(QUICK, max_steps=1).stats.stopped_by is pk.Status.MAX_STEPS
    assert problem.solve(QUICK, time_limit=0).stats.steps == 0
    stopped = problem.solve(QUICK, callback=lambda info: True)
    assert (stopped.status, stopped.stats.steps) == (pk.Status.INTERRUPTED, 1)
    with pytest.raises(TypeError, match="max_stepz"):
        problem.solve(QUICK, max_stepz=3)


def test_the_solver_is_a_frozen_record():
    assert pk.NeuralSDE() == pk.NeuralSDE()
    assert hash(pk.NeuralSDE()) == hash(pk.NeuralSDE())
    with pytest.raises((AttributeError, TypeError)):
        pk.NeuralSDE().anything = 1  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        pk.NeuralSDE(no_such_knob=1)  # type: ignore[call-arg]


@pytest.mark.parametrize("name", CASES)
def test_other_solvers_refuse_and_problems_pickle(name):
    """With a reason; and a problem survives a process boundary."""
    problem = CASES[name]()
    solver, reason = pk.choose_solver(problem)
    assert isinstance(solver, pk.NeuralSDE)
    assert "series" in reason
    with pytest.raises(pk.UnsupportedProblemError, match="CausalPINN does not solve"):
        problem.solve(pk.CausalPINN())
    back = pickle.loads(pickle.dumps(problem))
    assert repr(back.system) == repr(problem.system)


def test_equations_of_fields_are_refused():
    heat = problems.Heat1D()
    assert "learns stochastic equations" in str(QUICK.supports(heat.system))
    with pytest.raises(pk.UnsupportedProblemError, match="CausalPINN"):
        heat.solve(QUICK)
