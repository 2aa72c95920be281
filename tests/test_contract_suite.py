"""The contract, over all solvers x all problems: shapes, honesty, seeds, no traces, refusals.

A solver that is added to `tests/cases.py` is held to everything here.
"""

from __future__ import annotations

import math
import os
import random
import warnings
from typing import Any

import numpy as np
import pytest
import torch

import pinnkit as pk
from pinnkit import driver
from pinnkit.solution.verification import Verification
from tests.cases import (
    EXAMPLES,
    FAMILIES,
    FAMILY_SOLVERS,
    FAST,
    LARGE,
    LARGE_FAMILIES,
    PROBLEMS,
    SOLVERS,
    STEPS,
    TIME_LIMITS,
)

TOL = 1e-3  # the tolerance judged at when none is given

PAIRS = [
    pytest.param(
        solver,
        problem,
        id=f"{solver}-{problem}",
        marks=[pytest.mark.slow]
        if (problem not in FAST[solver] if solver in FAST else problem in LARGE)
        else [],
    )
    for solver in SOLVERS
    for problem in PROBLEMS
]
# One of each kind: evolution, ring, steady, ordinary, complex, several fields.
FEW = ("Heat1D", "AllenCahn", "Poisson2D", "Logistic", "NonlinearSchroedinger", "LotkaVolterra")


def short_solve(solver: str, problem: Any, **knobs: Any) -> Any:
    """The few steps of the suite; verified where that costs nothing (an exact solution)."""
    knobs = {"max_steps": STEPS[solver], "time_limit": TIME_LIMITS[solver], "seed": 0} | knobs
    knobs.setdefault("verify", problem.exact() is not None)
    return problem.solve(SOLVERS[solver](), **knobs)


def some_points(problem: Any, n: int = 3) -> dict[str, np.ndarray]:
    """n points inside the domain, by coordinate name."""
    nf = problem.normal_form
    rng = np.random.default_rng(0)
    ends = {c.name: nf.bounds[c] for c in nf.coords}
    return {name: low + (high - low) * rng.random(n) for name, (low, high) in ends.items()}


def values(sol: Any, problem: Any, **at: Any) -> list[np.ndarray]:
    """The fields' values as a list, one field or several."""
    out = sol(**(at or some_points(problem)))
    return list(out.values()) if isinstance(out, dict) else [out]


def supported(solver: str, problem: Any) -> bool:
    return SOLVERS[solver]().supports(problem.system) is None


@pytest.mark.parametrize(("solver", "problem"), PAIRS)
def test_solves_honestly_or_refuses_with_a_reason(solver, problem):
    """Supported: values of the right shape, a status, and never ok with a wrong answer. Else: why not."""
    problem = PROBLEMS[problem]()
    reason = SOLVERS[solver]().supports(problem.system)
    if reason is not None:
        assert reason.strip().endswith(".") or len(reason.split()) >= 4
        with pytest.raises(pk.UnsupportedProblemError) as refused:
            short_solve(solver, problem)
        assert reason in str(refused.value)
        return
    sol = short_solve(solver, problem)
    out = values(sol, problem)
    assert len(out) == len(problem.fields)
    for value, field in zip(out, problem.fields):
        assert isinstance(value, np.ndarray)
        assert value.shape == (3,)
        # A map that was not learned folds, and has no value there: then the status says so.
        assert np.isfinite(value).all() or sol.status in (pk.Status.DIVERGED, pk.Status.SHOCK)
        assert np.iscomplexobj(value) == (field in problem.normal_form.complex_fields)
    assert isinstance(sol.status, pk.Status)
    assert isinstance(sol.evidence, pk.Evidence)
    # A law learned from data alone can be neither ok nor not.
    assert sol.ok == (None if sol.status is pk.Status.NO_GROUND_TRUTH else sol.status.ok)
    assert sol.stats.steps <= STEPS[solver]
    if problem.exact() is not None and sol.ok:
        assert sol.error(problem.exact()) <= TOL
    if solver == "CausalPINN" and sol.evidence in (pk.Evidence.RESIDUAL, pk.Evidence.NONE):
        assert not sol.ok


# The uniform start of diffusion-sorption contradicts its inlet: that is the problem.
@pytest.mark.filterwarnings("ignore::pinnkit.errors.DeclarationWarning")
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if n in LARGE_FAMILIES else []) for n in FAMILIES],
)
@pytest.mark.parametrize("solver", FAMILY_SOLVERS)
def test_learns_families_or_refuses_with_a_reason(solver, name):
    """One step: an operator whose members have values of the right shape, and that nobody calls ok."""
    family, method = FAMILIES[name](), FAMILY_SOLVERS[solver]()
    reason = method.supports(family.system)
    if reason is not None:
        assert len(reason.split()) >= 4
        with pytest.raises(pk.UnsupportedProblemError) as refused:
            family.solve(method, max_steps=1)
        assert reason in str(refused.value)
        return
    op = family.solve(method, max_steps=1, verify=False, seed=0)
    assert op.stats.steps == 1 and not op.ok and op.status is not pk.Status.OK
    assert op.problem == family and "@" in pk.citation(op)
    rng, nf = np.random.default_rng(0), family.system.normal_form
    lower, upper = np.array([nf.bounds[c] for c in nf.coords]).T
    points = lower + (upper - lower) * rng.random((3, len(lower)))
    found = op.values(family.sample(2, seed=5), points)
    assert all(v.shape == (2, 3) and np.isfinite(v).all() for v in found.values())
    assert len(found) == len(family.fields)


@pytest.fixture
def unjudged(monkeypatch):
    """Answers whose worth is another test's matter: looking for it takes longer than two steps."""
    monkeypatch.setattr(driver, "judge", lambda *_, **__: Verification(math.nan))


@pytest.mark.usefixtures("unjudged")
@pytest.mark.parametrize("problem", FEW)
@pytest.mark.parametrize("solver", SOLVERS)
def test_same_seed_same_answer(solver, problem):
    """Bit by bit; and nothing of the first run may leak into the second."""
    if solver in FAST and problem not in FAST[solver]:
        pytest.skip("a direct method has no seed, and this one takes its time")
    problem = PROBLEMS[problem]()
    if not supported(solver, problem):
        pytest.skip("refused, see the test above")
    # Two steps end it, however busy the machine is.
    knobs: dict[str, Any] = {"verify": False, "time_limit": max(60, TIME_LIMITS[solver])}
    first, second = (values(short_solve(solver, problem, **knobs), problem) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second))


@pytest.mark.usefixtures("unjudged")
@pytest.mark.parametrize("problem", FEW)
def test_another_seed_another_network(problem):
    """The seed reaches the initial weights; features of ordinary equations are spread, not drawn."""
    problem = PROBLEMS[problem]()
    if not problem.normal_form.space:
        pytest.skip("nothing is drawn")
    first, second = (
        values(short_solve("CausalPINN", problem, seed=seed, verify=False), problem)
        for seed in (0, 1)
    )
    assert any(not np.array_equal(a, b) for a, b in zip(first, second))


@pytest.mark.parametrize("solver", SOLVERS)
def test_no_global_state_is_touched(solver):
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

    problem = PROBLEMS[EXAMPLES.get(solver, "Heat1D")]()
    before = traces()
    short_solve(solver, problem)
    assert traces() == before


def test_works_under_the_other_default_dtype():
    """A default dtype set by the user changes nothing: every tensor of ours states its own."""
    problem = PROBLEMS["Heat1D"]()
    usual = values(short_solve("CausalPINN", problem), problem)
    before = torch.get_default_dtype()
    other = torch.float64 if before == torch.float32 else torch.float32
    try:
        torch.set_default_dtype(other)
        changed = values(short_solve("CausalPINN", problem), problem)
    finally:
        torch.set_default_dtype(before)
    assert all(np.array_equal(a, b) for a, b in zip(usual, changed))


def test_one_step_is_not_ok():
    """A network after one step agrees with nothing; its small residual elsewhere is no excuse."""
    for name in ("Heat1D", "Wave", "Convection"):
        assert short_solve("CausalPINN", PROBLEMS[name](), max_steps=1).ok is False


@pytest.mark.usefixtures("unjudged")
def test_float32_is_what_it_says():
    """dtype is an argument, reaches the answer's tensors, and the values stay numpy."""
    problem = PROBLEMS["Heat1D"]()
    sol = short_solve("CausalPINN", problem, dtype=torch.float32, verify=False)
    at = {k: torch.as_tensor(v, dtype=torch.float32) for k, v in some_points(problem).items()}
    assert sol(**at).dtype == torch.float32


@pytest.mark.parametrize("solver", SOLVERS)
def test_saved_and_loaded_is_the_same_function(solver, tmp_path):
    """Values, status and evidence survive the file."""
    problem = PROBLEMS[EXAMPLES.get(solver, "Logistic")]()
    sol = short_solve(solver, problem)
    path = tmp_path / "a.pinn"
    sol.save(path)
    back = pk.load(path)
    for a, b in zip(values(sol, problem), values(back, problem)):
        if solver == "LagrangianPINN":  # its closed forms are written down anew: the order of sums
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-14)
        else:
            assert np.array_equal(a, b)
    assert (back.status, back.evidence, back.ok) == (sol.status, sol.evidence, sol.ok)


@pytest.mark.parametrize("solver", SOLVERS)
def test_unknown_keywords_are_errors(solver):
    """A mistyped knob must not be ignored, on solve and on the solver."""
    with pytest.raises(TypeError, match="max_stepz"):
        PROBLEMS["Logistic"]().solve(SOLVERS[solver](), max_stepz=3)
    with pytest.raises(TypeError):
        type(SOLVERS[solver]())(no_such_knob=1)


@pytest.mark.parametrize("solver", SOLVERS)
def test_solvers_are_frozen_records(solver):
    """Hyperparameters only: equal to a copy, hashable, and closed to assignment."""
    made = SOLVERS[solver]()
    assert made == SOLVERS[solver]()
    assert hash(made) == hash(SOLVERS[solver]())
    with pytest.raises((AttributeError, TypeError)):
        made.anything = 1
