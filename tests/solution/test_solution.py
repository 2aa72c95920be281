"""Calling a solution: names, broadcasting, tensors, the domain, expressions, several fields."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import sympy as sp
import torch

import pinnkit as pk
from pinnkit.errors import Evidence, Status, UnsupportedProblemError
from pinnkit.ir.normal_form import IntegralCondition
from pinnkit.solution.candidates import ExpressionApproximation
from pinnkit.solution.verification import Verification
from tests.solution.fakes import System, normal_form, t, u, x

EXACT = 1e-12
k = pk.field("k", x)
psi = pk.field("psi", t, x, complex=True)
a, b = pk.field("psi_re", t, x), pk.field("psi_im", t, x)


def solution(exprs: dict[Any, Any], nf: Any = None, **changes: Any) -> pk.Solution:
    """A solution whose fields are given by expressions."""
    nf = normal_form(**changes) if nf is None else nf
    return pk.Solution(
        problem=System(nf),
        normal_form=nf,
        solver=None,
        approximation=ExpressionApproximation(nf, exprs),
        status=Status.UNVERIFIED,
        verification=Verification(math.nan, evidence=Evidence.NONE),
        parameters={},
        history=pk.History(),
        stats=pk.Stats(1.0, 2, 3, 4, 5, Status.MAX_STEPS),
    )


def one() -> pk.Solution:
    return solution({u: sp.exp(-t) * sp.sin(3 * x)})


def test_numbers_lists_and_arrays_broadcast():
    sol = one()
    assert isinstance(sol(t=0.5, x=[0.1, 0.2]), np.ndarray)
    tt, xx = np.linspace(0, 1, 5)[:, None], np.linspace(0, 1, 7)[None]
    np.testing.assert_allclose(sol(t=tt, x=xx), np.exp(-tt) * np.sin(3 * xx), rtol=EXACT)
    assert sol(t=0, x=0).shape == () and sol(t=[], x=1).shape == (0,)
    assert sol(t=sp.Rational(1, 2), x=0.5) == pytest.approx(math.exp(-0.5) * math.sin(1.5))


def test_more_points_than_a_chunk_holds_give_the_same():
    sol, xx = one(), np.linspace(0, 1, 40001)
    np.testing.assert_allclose(sol(t=0.3, x=xx), math.exp(-0.3) * np.sin(3 * xx), rtol=EXACT)


def test_tensors_give_differentiable_tensors():
    sol = one()
    tt = torch.tensor([0.5, 0.6], dtype=torch.float64, requires_grad=True)
    xx = torch.tensor([[0.1], [0.2]], dtype=torch.float64, requires_grad=True)
    value = sol(t=tt, x=xx)
    assert value.shape == (2, 2) and value.requires_grad
    gradients = torch.autograd.grad(value.sum(), (tt, xx))
    expected = (3 * torch.exp(-tt) * torch.cos(3 * xx)).sum(1, keepdim=True)
    torch.testing.assert_close(gradients[1], expected, rtol=EXACT, atol=EXACT)
    single = sol(t=0.5, x=torch.tensor([0.5], dtype=torch.float32))
    assert single.dtype == torch.float32


def test_outside_the_domain_is_an_error_that_names_coordinate_and_bounds():
    sol = one()
    with pytest.raises(ValueError, match=r"x = 3 lies outside the domain 0 <= x <= 1"):
        sol(t=0.5, x=[0.5, 3.0])
    assert sol(t=0.5, x=3.0, extrapolate=True) == pytest.approx(math.exp(-0.5) * math.sin(9))
    with pytest.raises(ValueError, match="t is not finite"):
        sol(t=math.nan, x=0.5)
    # Roundoff at the end, also float32's, is no error.
    sol(t=1.0, x=1.0 + 1e-15)
    sol(t=1.0, x=np.float32(0.1) * np.float32(10))


def test_periodic_axes_wrap():
    sol = solution({u: sp.cos(2 * sp.pi * x) + t}, periodic=(x,))
    np.testing.assert_allclose(sol(t=0.2, x=[0.1, 1.1, -0.9]), sol(t=0.2, x=0.1), rtol=1e-12)
    with pytest.raises(ValueError, match=r"t = 1\.5"):
        sol(t=1.5, x=0.1)


def test_missing_and_unknown_coordinates_are_named():
    with pytest.raises(
        TypeError, match="missing coordinate t and unknown coordinate y; the coordinates are t, x"
    ):
        one()(x=0.5, y=1.0)
    with pytest.raises(ValueError, match=r"do not broadcast together: t: \(2,\), x: \(3,\)"):
        one()(t=[0, 1], x=[0, 0.5, 1])
    with pytest.raises(TypeError, match="neither a number nor an array"):
        one()(t="now", x=0.5)


def test_any_expression_in_fields_derivatives_and_coordinates():
    sol = one()
    expr = u * u.diff(x, 2) + t * u.diff(t, x) + sp.diff(x * u, x)
    exact = expr.subs(u, sp.exp(-t) * sp.sin(3 * x)).doit()
    expected = float(exact.subs({t: 0.3, x: 0.7}))
    assert sol[expr](t=0.3, x=0.7) == pytest.approx(expected, rel=EXACT)
    assert sol[u.diff(x)](t=[0.3], x=[0.7]).shape == (1,)
    assert sol[sp.Integer(3)]() == 3.0


def test_symbols_of_the_same_name_mean_the_same():
    plain_t, plain_x = sp.symbols("t x")
    same = sp.Function("u")(plain_t, plain_x)
    assert one()[same.diff(plain_x) + plain_x](t=0.3, x=0.7) == pytest.approx(
        3 * math.exp(-0.3) * math.cos(2.1) + 0.7
    )


def test_expressions_of_something_else_are_refused_by_name():
    y, v = pk.coords("y"), pk.field("v", t, x)
    with pytest.raises(ValueError, match=r"contains y, which the problem does not know.*u\(t, x\)"):
        one()[u + y]
    with pytest.raises(ValueError, match=r"v\(t, x\).* is no field of this problem"):
        one()[v.diff(x)]
    with pytest.raises(TypeError, match="not the string 'u'"):
        one()["u"]


def test_several_fields_come_as_a_dict_and_a_field_over_a_subset_needs_only_its_coordinates():
    sol = solution({u: t * x, k: 1 + x}, fields=(u, k), equations=(u.diff(t) - k,))
    values = sol(t=0.5, x=[0.1, 0.2])
    assert set(values) == {"u", "k"}
    np.testing.assert_allclose(values["k"], [1.1, 1.2])
    np.testing.assert_allclose(sol[k](x=[0.1, 0.2]), [1.1, 1.2])
    with pytest.raises(TypeError, match="missing coordinate t"):
        sol[u](x=0.1)


def test_a_complex_field_is_complex_and_its_modulus_real():
    nf = normal_form(fields=(a, b), equations=(), complex_fields={psi: (a, b)})
    sol = solution({psi: sp.exp(sp.I * (x - t))}, nf)
    expected = np.exp(1j * (0.7 - 0.3))
    assert sol(t=0.3, x=0.7) == pytest.approx(expected)
    assert sol[psi.diff(x)](t=0.3, x=0.7) == pytest.approx(1j * expected)
    modulus = sol[psi * sp.conjugate(psi)](t=0.3, x=0.7)
    assert not np.iscomplexobj(modulus) and modulus == pytest.approx(1.0)
    assert sol[sp.Abs(psi) ** 2](t=0.3, x=0.7) == pytest.approx(1.0)
    assert sol.error(2 * sp.exp(sp.I * (x - t))) == pytest.approx(0.5)


def test_grid_is_an_array_with_coordinates():
    grid = one().grid(t=3, x=[0.0, 0.25, 1.0])
    assert grid.shape == (3, 3) and list(grid.coords["t"].values) == [0.0, 0.5, 1.0]
    np.testing.assert_allclose(grid.sel(t=0.5, x=0.25), math.exp(-0.5) * math.sin(0.75))
    with pytest.raises(TypeError, match="unknown coordinate y"):
        one().grid(y=3)


def test_residual_is_left_minus_right_in_the_users_units():
    points = np.array([[0.3, 0.7], [0.1, 0.2]])
    sol = solution({u: t * x**2})
    np.testing.assert_allclose(sol.residual(points)[:, 0], points[:, 1] ** 2 - 2 * points[:, 0])
    by_name = sol.residual({t: points[:, 0], "x": points[:, 1]})
    np.testing.assert_allclose(by_name, sol.residual(points))
    with pytest.raises(ValueError, match=r"shape \(2,\); expected \(n, 2\) in the order t, x"):
        sol.residual([0.1, 0.2])


def test_errors_against_any_reference():
    """u = 1.1 r: every reference gives 0.1."""
    r = sp.exp(-t) * sp.sin(3 * x)
    sol = solution({u: sp.Rational(11, 10) * r})
    module = torch.nn.Module()
    module.forward = lambda p: torch.exp(-p[:, :1]) * torch.sin(3 * p[:, 1:])
    references = [
        r,
        {u: r},
        {"u": r},
        lambda t, x: np.exp(-t) * np.sin(3 * x),
        lambda t, x: {"u": np.exp(-t) * np.sin(3 * x)},
        solution({u: r}),
        solution({u: r}).to_xarray(t=201, x=201),
        solution({u: r}).grid(t=201, x=201),
        module,
    ]
    for reference in references:
        assert sol.error(reference) == pytest.approx(0.1, rel=1e-9)
        assert sol.errors(reference) == pytest.approx({"u": 0.1}, rel=1e-9)


def test_wrong_references_are_explained():
    with pytest.raises(TypeError, match="cannot judge a str"):
        one().error("sin")
    with pytest.raises(ValueError, match="v is no field of the problem; its fields are u"):
        one().error({"v": x})
    with pytest.raises(ValueError, match=r"values for u have shape \(2,\)"):
        one().error(lambda t, x: np.zeros(2))
    with pytest.raises(ValueError, match="contains y"):
        one().error(sp.Symbol("y"))


def test_gauge_fields_are_compared_modulo_constants():
    gauge = IntegralCondition(u, (x,), sp.S.Zero, "gauge of u", gauge=True)
    shifted = {u: sp.sin(3 * x) + 5 + t}
    assert solution(shifted, integrals=(gauge,)).error(sp.sin(3 * x)) < 1e-12
    assert solution(shifted).error(sp.sin(3 * x)) > 1


def test_a_field_that_is_zero_is_measured_by_the_scale():
    sol = solution({u: sp.Float(0.01) * x, k: 2 + 0 * x}, fields=(u, k), scales={u: 5.0})
    assert sol.errors({u: 0, k: 2})["u"] == pytest.approx(0.01 / math.sqrt(3) / 5)


def test_the_fluctuation_is_reported_where_a_mean_dominates():
    """293 + 0.01 sin: a relative error of 1e-6 hides a fluctuation that is wrong by 3 %."""
    from pinnkit.solution.candidates import make_candidate
    from pinnkit.solution.metrics import compare

    nf = normal_form()
    wave = sp.sin(2 * sp.pi * x)
    pair = [make_candidate(nf, 293 + c * wave).values for c in (0.0103, 0.01)]
    found = compare(nf, *pair)
    assert found.error < 1e-6 and found.fluctuation_error == pytest.approx(0.03, rel=1e-6)
    assert math.isnan(
        compare(nf, *[make_candidate(nf, c * wave).values for c in (1, 2)]).fluctuation_error
    )


def test_the_max_norm_is_not_given_where_data_jump_at_a_corner():
    from pinnkit.solution.candidates import make_candidate
    from pinnkit.solution.metrics import compare

    pair = [make_candidate(normal_form(), c * x).values for c in (1.5, 1)]
    assert compare(normal_form(), *pair).max_error == pytest.approx(0.5)
    slope = normal_form(corners=(("slope of u at x = 0", 1, 2.0),))
    jump = normal_form(corners=(("u at x = 0", 0, 2.0),))
    assert compare(slope, *pair).max_error == pytest.approx(0.5)
    assert math.isnan(compare(jump, *pair).max_error)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_relative_errors_do_not_know_units(scale: float):
    """x, t and u in other units: the same numbers."""
    bounds = {t: (0.0, scale), x: (0.0, scale)}
    wave = sp.exp(-t / scale) * sp.sin(3 * x / scale)
    sol = solution({u: scale * wave * sp.Float(1.1)}, bounds=bounds)
    assert sol.error(scale * wave) == pytest.approx(0.1, rel=1e-9)


def test_std_and_sample_say_that_there_is_no_distribution():
    for ask in (lambda: one().std(t=0, x=0), lambda: one().sample(3)):
        with pytest.raises(UnsupportedProblemError, match="one answer without a distribution"):
            ask()


def test_horizon_is_the_time_up_to_which_the_error_is_small():
    sol = solution({u: sp.cos(x) * (1 + sp.Max(0, t - sp.Rational(1, 2)))})
    assert sol.horizon(1e-3, reference=sp.cos(x)) == pytest.approx(0.5, abs=0.011)


@pytest.mark.parametrize("growth", [0, 2, 10])
@pytest.mark.parametrize("sign", [-1, 1])
def test_no_horizon_is_claimed_that_a_wrong_reference_within_its_error_hides(
    growth: int, sign: int
):
    """The reference errs like exp(growth t), as the answer does, and says how much in space and time."""
    tol, truth = 1e-3, sp.cos(x)
    wrong = 2e-4 * sp.exp(growth * (t - sp.Rational(9, 10)))
    sol = solution({u: truth * (1 + 2 * wrong)})
    reference = solution({u: truth * (1 + sign * wrong)})
    true = sol.horizon(tol, reference=truth)
    own = reference.error(truth)
    reference.verification = Verification(own, evidence=Evidence.EXACT)
    sol.verification = Verification(
        math.nan,
        reference_error=own,
        evidence=Evidence.REFERENCE,
        reference=reference.approximation,
    )
    for claim in (sol.horizon(tol), sol.horizon(tol, reference=reference)):
        assert 0.5 * true <= claim <= true


def test_a_space_time_error_bounds_every_instant_of_an_error_that_grows():
    from pinnkit.solution.metrics import error_at_instants

    times = np.linspace(0, 4, 201)
    for growth in (0.0, 1.0, 5.0):
        at = np.exp(growth * times)
        mean_square = np.sum(0.5 * (at[1:] ** 2 + at[:-1] ** 2)) / 200
        bound = error_at_instants(math.sqrt(mean_square), times)
        assert (at <= bound * (1 + 1e-12)).all() and bound[0] == math.sqrt(mean_square)


def test_estimates_print_and_bound():
    estimate = pk.Estimate(2.0, 0.1)
    assert estimate.interval95 == pytest.approx((1.804, 2.196), abs=1e-4)
    assert str(estimate) == "2 +- 0.1" and float(estimate) == 2.0
    assert all(map(math.isnan, pk.Estimate(1.0).interval95))


def test_a_glance_says_what_matters():
    text = str(one())
    for part in ("u(t, x)", "UNVERIFIED", "0 <= x <= 1", "NONE", "2 steps", "MAX_STEPS"):
        assert part in text
    assert "UNVERIFIED" in repr(one())


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.array([0.5 + 0j]), "x must be real"),
        (1j, "x must be real"),
        ("0.5", "neither a number nor an array"),
        (None, "neither a number nor an array"),
        (sp.Symbol("a"), "neither a number nor an array"),
        ([[0.1], [0.1, 0.2]], "neither a number nor an array"),
    ],
)
def test_coordinates_that_are_no_real_numbers_are_refused(value: Any, message: str):
    with pytest.raises(TypeError, match=message):
        one()(t=0.5, x=value)


@pytest.mark.parametrize(
    ("expr", "message"),
    [
        (None, "takes a field or an expression, not None"),
        ([u, u.diff(x)], "takes one expression"),
        (sp.Matrix([u]), "takes one expression"),
        (pk.dn(u), r"dn\(u\) is a derivative along the outward normal"),
        (sp.Integral(u, (x, 0, 1)), "is an integral or sum"),
    ],
)
def test_what_is_no_expression_is_refused(expr: Any, message: str):
    with pytest.raises((TypeError, ValueError), match=message):
        one()[expr]


def test_grids_are_numbers_of_nodes_or_lists_of_values():
    with pytest.raises(TypeError, match="x=True is neither"):
        one().grid(x=True)
    with pytest.raises(TypeError, match="x='a' is neither"):
        one().grid(x="a")
    with pytest.raises(ValueError, match=r"x has the shape \(2, 2\)"):
        one().grid(x=np.zeros((2, 2)))
