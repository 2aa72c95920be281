"""`pk.verify` and `judge`: wrong candidates are never ok, whatever they are made of."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sympy as sp
import torch

import pinnkit as pk
from pinnkit.errors import Evidence, Status
from tests.solution.fakes import EXACT, Classical, Halving, heat, t, u, x


def test_right_candidates_of_every_kind_are_ok(classical: Classical):
    module = torch.nn.Module()
    module.forward = lambda p: p[:, 1] ** 2 + 2 * p[:, 0]
    for candidate in (EXACT, {u: EXACT}, lambda t, x: x**2 + 2 * t, module):
        found = pk.verify(heat(), candidate)
        assert found.ok and found.evidence is Evidence.REFERENCE, candidate
        assert found.error == pytest.approx(1e-9, rel=1e-3)
        assert found.final_time_error < 1e-12 and found.seconds > 0


@pytest.mark.parametrize(
    "wrong", [sp.Integer(0), EXACT * 1.01, EXACT + 0.01, EXACT.subs(t, t + 0.01)]
)
def test_wrong_candidates_are_not(classical: Classical, wrong: sp.Expr):
    found = pk.verify(heat(), wrong)
    assert not found.ok and found.status is Status.INACCURATE and found.error > 1e-3


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_candidates_that_are_not_finite_are_not_ok(classical: Classical, bad: float):
    found = pk.verify(heat(), lambda t, x: np.where(x > 0.5, bad, x**2 + 2 * t))
    assert not found.ok and found.status is Status.INACCURATE and math.isinf(found.error)


def test_a_candidate_without_derivatives_and_without_reference_is_unverified(classical: Classical):
    classical.refusal = "not this one."
    found = pk.verify(heat(), lambda t, x: x**2 + 2 * t)
    assert found.status is Status.UNVERIFIED and "derivatives are not known" in found.reason


def test_data_must_cover_the_domain(classical: Classical):
    sol = pk.solve(heat(), Halving(), max_steps=60)
    whole = sol.to_xarray(t=51, x=51)
    assert pk.verify(heat(), whole).ok
    with pytest.raises(ValueError, match=r"cover 0 <= t <= 0.5, the problem 0 <= t <= 1"):
        pk.verify(heat(), whole.isel(t=slice(0, 26)))


def test_a_grid_solution_is_judged_by_another_discretisation(classical: Classical):
    sol = pk.solve(heat(), Halving(), max_steps=60)
    sol.approximation.kind = "grid"  # pyright: ignore[reportAttributeAccessIssue]
    classical.asked.clear()
    pk.verify(heat(), sol)
    assert {variant for *_, variant in classical.asked} == {"alternate"}


def test_asking_again_at_another_tol(classical: Classical):
    sol = pk.solve(heat(), Halving(target=(1.001, 2.0)), max_steps=60)
    assert sol.ok and sol.verify() is sol.verification
    assert not sol.verify(tol=1e-5).ok


def test_a_broken_answer_by_tiny_patches_is_seen(classical: Classical):
    """Wrong in 1 % of the domain by the size of the solution: the quadrature has points there."""
    patch = sp.exp(-(((x - sp.Rational(3, 10)) / sp.Rational(1, 200)) ** 2))
    found = pk.verify(heat(), EXACT + patch)
    assert not found.ok
