"""`pk.verify` and `judge`: wrong candidates are never ok, whatever they are made of."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import sympy as sp
import torch

import pinnkit as pk
from pinnkit.errors import Evidence, Status
from pinnkit.solution.candidates import make_candidate
from pinnkit.solution.verification import judge
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


def test_what_is_printed_names_what_decided(classical: Classical):
    """One sentence after "because", which agrees with the status and starts in lower case."""

    def because(tol: float | None = None, **changes: Any) -> str:
        sol = pk.solve(heat(**changes), Halving(), max_steps=60, tol=tol)
        (line,) = [p for p in str(sol).splitlines() if p.startswith("  because ")]
        assert not line.endswith(".") and str(sol.verification).endswith(line[13:] + ".")
        return f"{sol.status.name} {line.split(maxsplit=1)[1]}"

    assert because(exact={u: EXACT}) == (
        "OK the difference from the declared exact solution is not above 0.001"
    )
    assert because(exact={u: 2 * EXACT}) == (
        "INACCURATE the difference from the declared exact solution is above 0.001"
    )
    assert because().startswith(
        "OK the difference from the reference, its own error included, is not above 0.001; the "
    )
    classical.own_error = 2e-3
    assert because().startswith(
        "UNVERIFIED the reference itself is only known to 2.0e-03, more than"
    )
    classical.own_error, classical.defect = math.inf, 2e-4
    assert because().startswith("OK the error found by the error equation is not above 0.001")
    assert because(tol=1e-4).startswith(
        "INACCURATE the error found by the error equation is above 0.0001"
    )
    classical.refusal = "MethodOfLines() works on boxes, not on a disk. Use CausalPINN()."
    assert because().startswith(
        "UNVERIFIED there is no independent solve: MethodOfLines() works on boxes, not on a disk; "
    )


def test_the_reference_says_how_far_it_was_refined(classical: Classical):
    """An inaccurate answer beside a good reference, and one that ran out of time."""
    wrong = 1.01 * EXACT
    found = pk.verify(heat(), wrong)
    assert found.status is Status.INACCURATE
    assert "is above 0.001; the reference was refined until its own error was below" in found.reason
    classical.own_error = 1e-4
    found = pk.verify(heat(), wrong)
    assert "; the reference's own error stayed at 1.0e-04: " in found.reason


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


def test_nan_never_passes_for_agreement(classical: Classical):
    """max() passes over a nan: an exact solution without values once made anything ok."""
    problem = heat()
    hollow = dataclasses.replace(problem.normal_form, exact={u: sp.sqrt(t - 3)})
    found = judge(hollow, make_candidate(hollow, sp.Integer(3)))
    assert not found.ok
    classical.refusal = "not this one."
    found = judge(hollow, make_candidate(hollow, sp.Integer(3)))
    assert not found.ok and "exact solution is not finite" in found.reason


@pytest.mark.parametrize(
    ("candidate", "message"),
    [
        (lambda t, x: None, "the values for u are no numbers"),
        (lambda t, x: "a", "the values for u are no numbers"),
        (lambda x: x, r"called with the coordinates by name, f\(t=..., x=...\)"),
        (lambda: 1, "called with the coordinates by name"),
        ({u: "x"}, "the value for u is a str"),
        (torch.nn.Linear(3, 1), r"the module fails on points of the shape \(n, 2\)"),
        (torch.nn.Linear(2, 2), r"expected \(\d+, 1\): one column each for u"),
    ],
)
def test_candidates_of_the_wrong_kind_are_refused(
    classical: Classical, candidate: Any, message: str
):
    with pytest.raises((TypeError, ValueError), match=message):
        pk.verify(heat(), candidate)


def test_data_at_one_instant_say_nothing_about_the_others(classical: Classical):
    whole = pk.solve(heat(), Halving(), max_steps=60).to_xarray(t=51, x=51)
    with pytest.raises(ValueError, match="the data have no dimension t"):
        pk.verify(heat(), whole.isel(t=25))


def decay(*coords: Any, until: float = 1) -> pk.PDESystem:
    """u_t = u_xx / pi^2 with the coordinates in the order asked for."""
    T, X = pk.coords("t x")
    w = pk.field("u", T, X)
    sides = {"t": pk.Interval(T, 0, until), "x": pk.Interval(X, 0, 1)}
    return pk.PDESystem(
        [w.diff(T) - w.diff(X, 2) / sp.pi**2],
        sides[coords[0]] * sides[coords[1]],
        [pk.Initial(w, sp.sin(sp.pi * X)), pk.Dirichlet(w, 0, on=pk.boundary(X))],
    )


def test_a_solution_with_its_coordinates_in_another_order_is_read_by_name():
    here, there = decay("t", "x"), decay("x", "t")
    theirs = there.solve(pk.MethodOfLines())
    assert pk.verify(here, theirs).ok
    assert here.solve(pk.MethodOfLines()).error(theirs) < 1e-9


def test_a_solution_of_a_smaller_domain_is_not_extrapolated():
    short = decay("t", "x", until=0.5).solve(pk.MethodOfLines())
    with pytest.raises(ValueError, match=r"known for 0 <= t <= 0.5, the problem asks for 0 <= t"):
        pk.verify(decay("t", "x"), short)
