"""The rules of status, evidence and throw; u_t = u_xx, exact u = x^2 + 2 t, a solver that halves."""

from __future__ import annotations

import math

import pytest
import torch

import pinnkit as pk
from pinnkit.driver import final_status
from pinnkit.errors import Evidence, SolveError, Status, UnsupportedProblemError
from pinnkit.solution.verification import Verification
from tests.solution.fakes import EXACT, Classical, Halving, coefficients, heat, u


def test_ok_is_an_independent_reference_and_an_error_below_tol(classical: Classical):
    sol = pk.solve(heat(), Halving(), max_steps=60)
    assert sol.ok and sol.status is Status.OK and sol.evidence is Evidence.REFERENCE
    assert sol.stats.stopped_by is Status.MAX_STEPS  # the verdict wins over it
    assert sol.error_estimate == pytest.approx(1e-9, rel=1e-3)  # never below the reference's own


def test_inaccurate_wins_over_the_reason_training_stopped(classical: Classical):
    sol = pk.solve(heat(), Halving(), max_steps=2)
    assert not sol.ok and sol.status is Status.INACCURATE
    assert sol.stats.stopped_by is Status.MAX_STEPS and (sol.error_estimate or 0) > 1e-3


def test_tol_is_what_the_error_is_judged_at(classical: Classical):
    """a = 1.01: the relative error is about 2.5e-3."""
    solver = Halving(target=(1.01, 2.0), stop_at=60)
    found = pk.solve(heat(), solver, tol=1e-2), pk.solve(heat(), solver)
    assert [s.status for s in found] == [Status.OK, Status.INACCURATE]
    assert found[0].error_estimate == pytest.approx(found[0].error(EXACT), rel=1e-5)


@pytest.mark.parametrize("own, status", [(4.9e-4, Status.OK), (5.1e-4, Status.UNVERIFIED)])
def test_a_reference_known_to_less_than_half_of_tol_verifies_nothing(
    classical: Classical, own: float, status: Status
):
    classical.own_error = own
    sol = pk.solve(heat(), Halving(), max_steps=60)
    assert sol.status is status and sol.evidence is Evidence.REFERENCE
    assert (sol.error_estimate or 0) >= own


def test_a_declared_exact_solution_is_the_strongest_evidence(classical: Classical):
    sol = pk.solve(heat(exact={u: EXACT}), Halving(), max_steps=60)
    assert sol.ok and sol.evidence is Evidence.EXACT and classical.asked == []


def test_a_residual_alone_makes_nothing_ok(classical: Classical):
    classical.refusal = "not this one"
    sol = pk.solve(heat(), Halving(stop_at=60))
    assert sol.status is Status.UNVERIFIED and sol.evidence is Evidence.RESIDUAL
    assert sol.error_estimate is None and sol.verification.residual < 1e-12


def test_a_broken_reference_costs_neither_the_answer_nor_honesty(classical: Classical):
    classical.breaks = True
    sol = pk.solve(heat(), Halving(), max_steps=60)
    assert sol.status is Status.UNVERIFIED and "out of order" in sol.verification.reason
    assert "out of order" in str(sol)
    assert sol(t=0.5, x=0.5) == pytest.approx(1.25)


def test_the_defect_judges_where_no_reference_is_found(classical: Classical):
    classical.own_error, classical.defect = math.inf, 2e-4
    sol = pk.solve(heat(), Halving(), max_steps=60)
    assert sol.ok and sol.evidence is Evidence.DEFECT and sol.error_estimate == 2e-4


def test_verify_false_estimates_by_the_defect_only(classical: Classical):
    classical.defect = 2e-4
    sol = pk.solve(heat(), Halving(), max_steps=60, verify=False)
    assert sol.ok and sol.evidence is Evidence.DEFECT
    assert [kind for kind, *_ in classical.asked] == ["defect"]


def test_verify_false_without_estimate_keeps_the_reason_training_stopped(classical: Classical):
    classical.refusal = "not this one"
    assert pk.solve(heat(), Halving(), max_steps=3, verify=False).status is Status.MAX_STEPS
    assert pk.solve(heat(), Halving(stop_at=3), verify=False).status is Status.UNVERIFIED


def test_training_never_sees_the_reference(classical: Classical):
    """Bit-identical weights whether the classical solver works or raises."""
    first = pk.solve(heat(), Halving(noise=0.1), max_steps=20, seed=3)
    classical.breaks = True
    second = pk.solve(heat(), Halving(noise=0.1), max_steps=20, seed=3)
    assert torch.equal(coefficients(first), coefficients(second))


def test_what_judges_a_classical_solution_is_refined_until_it_is_sharper(classical: Classical):
    classical.own_error = 1e-8
    sol = pk.solve(heat(), Halving(), max_steps=60)
    assert len(classical.asked) == 1  # a trained answer is judged once
    sol.approximation.kind = "grid"  # pyright: ignore[reportAttributeAccessIssue]
    classical.asked.clear()
    pk.verify(heat(), sol)
    targets = [tol for _, tol, *_ in classical.asked]
    assert len(targets) == 2 and targets[1] < targets[0]


def test_verification_takes_at_most_a_quarter_of_the_time_limit(classical: Classical):
    pk.solve(heat(), Halving(), max_steps=3, time_limit=40)
    pk.solve(heat(), Halving(), max_steps=3, time_limit=None)
    assert classical.asked[0][2] <= 10.0 and 50.0 < classical.asked[-1][2] <= 75.0


def test_tol_stops_training_at_a_third_of_it(classical: Classical):
    """The estimate says 1e-4: enough for tol = 4e-4, not for 2e-4."""
    classical.defect = 1e-4
    stopped = pk.solve(heat(), Halving(), tol=4e-4, max_steps=400)
    assert stopped.stats.stopped_by is Status.OK and stopped.stats.steps == 20
    assert [(s, e) for s, _, e in stopped.history.estimates] == [(20, 1e-4)]
    on = pk.solve(heat(), Halving(), tol=2e-4, max_steps=400)
    assert on.stats.stopped_by is Status.MAX_STEPS and on.stats.steps == 400


def test_looks_at_the_error_come_at_steps_that_no_clock_decides(classical: Classical):
    """A solve must stop at the same step on every machine, so a slow one looks as often."""
    classical.defect = 1.0
    fast, slow = (
        pk.solve(heat(), Halving(pause=pause), tol=1e-3, max_steps=70) for pause in (0.0, 0.002)
    )
    looks = [[s for s, *_ in sol.history.estimates] for sol in (fast, slow)]
    assert looks == [[20, 30, 45, 68]] * 2


def test_the_error_of_an_answer_that_is_not_complete_is_not_looked_at(classical: Classical):
    """Windows that are not open yet make it wrong anyway; looks count from when it is complete."""
    classical.defect = 1.0
    sol = pk.solve(heat(), Halving(complete_after=50), tol=1e-3, max_steps=100)
    assert [s for s, *_ in sol.history.estimates] == [70, 80, 95]


def test_an_answer_that_is_not_finite_has_diverged(classical: Classical):
    sol = pk.solve(heat(), Halving(target=(math.nan, 2.0)), max_steps=5)
    assert sol.status is Status.DIVERGED and not sol.ok and classical.asked == []


def test_throw_raises_with_the_partial_solution(classical: Classical):
    with pytest.raises(SolveError, match="INACCURATE") as caught:
        pk.solve(heat(), Halving(), max_steps=1, throw=True)
    assert caught.value.solution.stats.steps == 1
    assert pk.solve(heat(), Halving(), max_steps=60, throw=True).ok


@pytest.mark.parametrize(
    "stopped_by, evidence, verdict, verified, status",
    [
        (Status.DIVERGED, Evidence.REFERENCE, Status.OK, True, Status.OK),
        (Status.DIVERGED, Evidence.REFERENCE, Status.INACCURATE, True, Status.INACCURATE),
        (Status.DIVERGED, Evidence.RESIDUAL, Status.UNVERIFIED, True, Status.DIVERGED),
        (Status.INTERRUPTED, Evidence.NONE, Status.UNVERIFIED, True, Status.INTERRUPTED),
        (Status.SHOCK, Evidence.REFERENCE, Status.UNVERIFIED, True, Status.SHOCK),
        (Status.TIME_LIMIT, Evidence.RESIDUAL, Status.UNVERIFIED, True, Status.UNVERIFIED),
        (Status.TIME_LIMIT, Evidence.RESIDUAL, Status.UNVERIFIED, False, Status.TIME_LIMIT),
        (Status.STALLED, Evidence.DEFECT, Status.OK, False, Status.OK),
        (Status.OK, Evidence.RESIDUAL, Status.UNVERIFIED, False, Status.UNVERIFIED),
    ],
)
def test_final_status(stopped_by, evidence, verdict, verified, status):
    record = Verification(math.nan, evidence=evidence, status=verdict)
    assert final_status(stopped_by, record, verified) is status


def test_a_callback_stops_and_the_answer_is_still_judged(classical: Classical):
    seen = []
    sol = pk.solve(
        heat(), Halving(), callback=lambda info: seen.append(info.step) or info.step == 4
    )
    assert seen == [1, 2, 3, 4] and sol.stats.steps == 4
    assert sol.stats.stopped_by is Status.INTERRUPTED and sol.status is Status.INACCURATE


def test_unknown_and_wrong_knobs_are_errors(classical: Classical):
    with pytest.raises(TypeError, match="max_stepz"):
        pk.solve(heat(), Halving(), max_stepz=3)  # pyright: ignore[reportCallIssue]
    with pytest.raises(ValueError, match=r"max_steps=-1 .*; tol=0 must be a positive number"):
        pk.solve(heat(), Halving(), max_steps=-1, tol=0)
    with pytest.raises(TypeError, match=r"Halving is a class; pass an instance: Halving\(\)"):
        pk.solve(heat(), Halving)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="'pinn' is no solver"):
        pk.solve(heat(), "pinn")  # pyright: ignore[reportArgumentType]
    with pytest.raises(UnsupportedProblemError, match="use MethodOfLines"):
        pk.solve(heat(), Halving(refuses=True))


def test_seed_decides_and_the_global_generator_is_left_alone(classical: Classical):
    before = torch.random.get_rng_state()
    runs = [pk.solve(heat(), Halving(noise=0.1), max_steps=5, seed=s) for s in (0, 0, 1)]
    a, b, c = map(coefficients, runs)
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(before, torch.random.get_rng_state())


def test_stats_and_environment_reach_their_places(classical: Classical):
    solver = Halving()
    sol = pk.solve(heat(), solver, max_steps=3, time_limit=7, tol=0.1, dtype=torch.float32)
    env = solver.seen[0]
    assert (env.time_limit, env.tol, env.dtype, env.max_steps) == (7, 0.1, torch.float32, 3)
    assert (sol.stats.parameters, sol.stats.points, sol.stats.more) == (2, 7, {"tag": "x"})
    assert sol.stats.seconds > 0 and sol.stats.peak_memory > 0
    assert sol(t=0.5, x=0.5).dtype.name == "float32"
