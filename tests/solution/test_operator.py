"""Operators of families: solutions on demand, judged by a quantile of draws nobody trained on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sympy as sp

import pinnkit as pk
from pinnkit.errors import Evidence, Status
from pinnkit.solution.answer import Answer
from pinnkit.solution.candidates import ExpressionApproximation
from pinnkit.solution.estimate import Stats
from pinnkit.solution.held_out import HeldOut, operator_status, quantile_of
from pinnkit.solution.operator import FamilyOperator, held_out_draws, judge_draws
from pinnkit.solution.operator_files import load
from pinnkit.train.callbacks import History
from pinnkit.train.checkpoint import ArchiveError

ROUNDOFF = 1e-12

t, x = pk.coords("t x")
u = pk.field("u", t, x)
u0 = pk.given("u0")
DECAY = sp.sin(sp.pi * x) * sp.exp(-(sp.pi**2) * t)


def heat(exact: bool = True) -> pk.PDEFamily:
    system = pk.PDESystem(
        [u.diff(t) - u.diff(x, 2)],
        pk.Interval(t, 0, 0.1) * pk.Interval(x, 0, 1),
        [pk.Initial(u, u0 * sp.sin(sp.pi * x)), pk.Dirichlet(u, 0, on=pk.boundary(x))],
        exact=u0 * DECAY if exact else None,
    )
    return pk.PDEFamily(system, {u0: pk.Uniform(0, 1)})


@dataclass(frozen=True)
class Model:
    """The exact solution, wrong by `error` where u0 is below `share`."""

    family: Any
    error: float
    share: float = 1.0

    def solve(self, samples: Any) -> list[Answer]:
        return [self._answer(s) for s in samples]

    def to_state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"error": self.error, "share": self.share}, {}

    def _answer(self, sample: Any) -> Answer:
        size = sample[u0] * (1 + (self.error if sample[u0] < self.share else 0.0))
        nf = self.family.normal_form
        return Answer(ExpressionApproximation(nf, {u: size * DECAY}), stats={"iterations": 3})


@dataclass(frozen=True)
class Learner:
    """Stands for the solver that learned the model."""

    width: int = 8

    def restore(self, family: Any, spec: dict[str, Any], tensors: Any) -> Model:
        return Model(family, spec["error"], spec["share"])


@lru_cache
def operator(error: float, share: float = 1.0) -> FamilyOperator:
    """Judged once: no test changes it."""
    family = heat()
    model = Model(family, error, share)
    held = judge_draws(family, model, held_out_draws(family, 12, 0), quantile=0.9, tol=1e-2)
    return FamilyOperator(
        problem=family,
        solver=Learner(),
        model=model,
        held_out=held,
        status=operator_status(Status.MAX_STEPS, held, verified=True),
        history=History(),
        stats=Stats(1.0, 5, 17, 100, 0, Status.MAX_STEPS),
    )


def test_a_call_is_a_solution_of_that_member():
    op = operator(1e-3)
    sol = op({u0: 0.5})
    expected = 0.5 * 1.001 * np.sin(np.pi * 0.3) * np.exp(-(np.pi**2) * 0.05)
    assert sol(t=0.05, x=0.3) == pytest.approx(expected, rel=ROUNDOFF)
    assert sol[u.diff(x)](t=0.05, x=0.5) == pytest.approx(0, abs=ROUNDOFF)
    assert sol.problem.conditions[0] == pk.Initial(u, 0.5 * sp.sin(sp.pi * x))
    assert sol.status is Status.UNVERIFIED and sol.stats.more["iterations"] == 3
    assert "12 other draws" in sol.verification.reason
    assert sol.verify().ok and sol.verify().error == pytest.approx(1e-3, rel=1e-6)


def test_values_of_many_samples_are_those_of_calls():
    op = operator(1e-3)
    points = np.random.default_rng(0).uniform([0, 0], [0.1, 1], (7, 2))
    samples = op.family.sample(3)
    values = op.values(samples, points)
    assert set(values) == {"u"} and values["u"].shape == (3, 7)
    for row, s in zip(values["u"], samples, strict=True):
        assert np.allclose(row, op(s)(t=points[:, 0], x=points[:, 1]), rtol=ROUNDOFF)
    assert op.values([], points)["u"].shape == (0, 7)
    late = points + np.array([100.0, 0.0])
    with pytest.raises(ValueError, match="lies outside the domain"):
        op.values(samples, late)
    assert op.values(samples, late, extrapolate=True)["u"].shape == (len(samples), 7)
    with pytest.raises(ValueError, match="expected"):
        op.values(samples, points[:, 0])


def test_the_verdict_is_a_quantile_of_held_out_draws():
    """Uniformly wrong by 1e-3: ok at 1e-2; wrong where a tenth lies: the quantile decides."""
    good, bad = operator(1e-3), operator(1e-1)
    assert good.ok and good.evidence is Evidence.EXACT
    assert good.error_estimate == pytest.approx(1e-3, rel=1e-6) and len(good.errors) == 12
    assert not bad.ok and bad.status is Status.INACCURATE
    drawn = [s[u0] for s in held_out_draws(heat(), 12, 0)]
    rarely = operator(1e-1, share=sorted(drawn)[1])  # the smallest one of twelve
    assert rarely.ok and rarely.errors.max() == pytest.approx(0.1, rel=1e-6)
    assert "at the 90 % quantile of 12 held-out draws" in str(good) and "u0 -> u" in repr(good)


def test_held_out_draws_are_never_those_of_training():
    family = heat()
    training = {s[u0] for seed in range(3) for s in family.sample(50, seed)}
    judged = {s[u0] for s in held_out_draws(family, 50, 0)}
    scored = {s[u0] for s in held_out_draws(family, 50, 0, round_=1)}
    assert not training & judged and not judged & scored
    assert held_out_draws(family, 3, 5) == held_out_draws(family, 3, 5)


def test_score_takes_other_draws_and_other_tolerances():
    op = operator(1e-3)
    held = op.score(5, seed=2, tol=1e-4, quantile=0.5)
    assert len(held.errors) == 5 and held.tol == 1e-4 and held.quantile == 0.5
    assert held.mean == pytest.approx(1e-3, rel=1e-6)
    mine = op.score(samples=[{u0: 0.25}])
    assert mine.errors == pytest.approx([1e-3], rel=1e-6)
    short = op.score(200, time_limit=1e-9)
    assert len(short.errors) == 1 and "time for 1 of 200 draws" in short.reason
    with pytest.raises(ValueError, match="quantile=0"):
        op.score(1, quantile=0)


def test_without_an_exact_solution_an_independent_one_judges():
    family = heat(exact=False)
    held = judge_draws(family, Model(family, 1e-2), family.sample(1), quantile=0.9, tol=0.1)
    assert held.evidence is Evidence.REFERENCE
    assert held.error == pytest.approx(1e-2, rel=1e-3)


def test_status_of_operators():
    """Too few draws are no evidence; nobody's look leaves the reason; divergence stays."""
    few = HeldOut(np.full(3, 1e-9), 0.9, 1e-9, 1e-3, Evidence.REFERENCE)
    none = HeldOut(np.zeros(0), 0.9, np.nan, 1e-3, Evidence.NONE)
    assert operator_status(Status.MAX_STEPS, few, verified=True) is Status.UNVERIFIED
    assert operator_status(Status.MAX_STEPS, none, verified=False) is Status.MAX_STEPS
    assert operator_status(Status.OK, none, verified=False) is Status.UNVERIFIED
    assert operator_status(Status.DIVERGED, few, verified=True) is Status.DIVERGED
    assert operator_status(Status.OK, few, verified=True, given=True) is Status.NO_GROUND_TRUTH
    assert quantile_of(np.array([1.0, 2.0, 3.0]), 0.5) == 2.0 and np.isnan(none.mean)


def test_draws_that_cannot_be_judged_count_as_wrong():
    """An answer that is not a number is no answer."""
    family = heat()
    held = judge_draws(family, Model(family, np.inf), family.sample(2), quantile=0.5)
    assert held.evidence is Evidence.NONE and np.isinf(held.errors).all()


def test_files(tmp_path: Path):
    op = operator(1e-3)
    op.save(tmp_path / "a.pinn")
    back = load(tmp_path / "a.pinn", {"Learner": Learner})
    sample = op.family.sample(1, seed=9)[0]
    assert back(sample)(t=0.05, x=0.3) == op(sample)(t=0.05, x=0.3)
    assert (back.status, back.ok, back.evidence) == (op.status, True, Evidence.EXACT)
    assert np.array_equal(back.errors, op.errors) and back.stats == op.stats
    assert back.family.sample(3) == op.family.sample(3)
    with pytest.raises(ArchiveError, match="the solver 'Learner' is not known here"):
        load(tmp_path / "a.pinn", {})
