"""Neural terms as a polynomial beside a network: whose prior is whose, what is struck out, what is left.

The relevance of coefficients is checked against linear regression, y = sum_k c_k phi_k + noise, where the
Gaussian theory behind `strike_out` is exact.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

import pinnkit as pk
from pinnkit.ir.ordinary_form import ordinary_form
from pinnkit.lower.ordinary import OrdinaryModule
from pinnkit.solvers.neural_ode_fit import Fit, begin_from
from pinnkit.solvers.neural_ode_terms import (
    BESIDE,
    Form,
    begin_again,
    choice_price,
    first_precisions,
    forms_of,
    group_of_parameters,
    kept_of,
    make_term,
    spread_precisions,
    strike_out,
)

BOTH = Form(2, network=True)
t = pk.coords("t")
x, y = pk.field("x", t), pk.field("y", t)


def module(form: Form = BOTH) -> OrdinaryModule:
    """x' = k x - f(x, y), y' = g(y): a number and two terms, of 6 and 3 coefficients."""
    k = pk.parameter("k", initial=1.0)
    f, g = pk.neural("f", inputs=(x, y)), pk.neural("g", inputs=(y,))
    seen = pk.Observations(x, {t: np.array([0.0, 1.0])}, np.ones(2))
    problem = pk.PDESystem([x.diff(t) - k * x + f, y.diff(t) - g], pk.Interval(t, 0, 1), [seen])
    gen = torch.Generator().manual_seed(0)

    def build(inputs: int, outputs: int) -> torch.nn.Module:
        return make_term(
            inputs, outputs, form=form, width=3, depth=1, activation="tanh",
            generator=gen, dtype=torch.float64,
        )  # fmt: skip

    return OrdinaryModule(ordinary_form(problem.normal_form), build)


def test_every_coefficient_has_a_precision_of_its_own():
    """Numbers none, networks one each."""
    group, own = group_of_parameters(module()), first_precisions(module())
    counts = torch.bincount(group[group >= 0]).tolist()
    assert int((group < 0).sum()) == 1
    assert sorted(counts) == [1] * 9 + [10, 13]
    spread = spread_precisions(module(), own)
    assert float(spread[group < 0]) == 0
    assert sorted(set(spread.tolist())) == [0.0, 1.0, 10.0]
    alone = group_of_parameters(module(Form(None, network=True)))
    assert torch.bincount(alone[alone >= 0]).tolist() == [13, 10]


def test_least_certain_coefficients_are_struck_out():
    """Regression on 9 columns, two of them almost alike: what made the data stays, with its estimate."""
    law = module()
    group = group_of_parameters(law)
    single = [i for i in range(len(group)) if int((group == group[i]).sum()) == 1 and group[i] >= 0]
    gen = torch.Generator().manual_seed(0)
    phi = torch.randn(200, 9, generator=gen, dtype=torch.float64)
    phi[:, 5] = phi[:, 4] + 0.05 * phi[:, 5]
    noise = 0.1 * torch.randn(200, generator=gen, dtype=torch.float64)
    data = 2 * phi[:, 4] - 1 * phi[:, 7] + noise
    left = set(range(9))
    theta = torch.zeros(len(group), dtype=torch.float64)
    for _ in range(9):
        kept = sorted(left)
        hessian = phi[:, kept].T @ phi[:, kept] / 0.1**2
        covariance = 1e-6 * torch.eye(len(group), dtype=torch.float64)
        places = torch.tensor([single[k] for k in kept])
        covariance[places[:, None], places] = torch.linalg.inv(hessian)
        theta[places] = torch.linalg.lstsq(phi[:, kept], data[:, None]).solution[:, 0]
        struck, theta = strike_out(law, theta, covariance, 200)
        if not struck:
            break
        left -= {single.index(i) for i in range(len(group)) if int(group[i]) in struck}
        kept = sorted(left)
        exact = torch.linalg.lstsq(phi[:, kept], data[:, None]).solution[:, 0]
        torch.testing.assert_close(theta[[single[k] for k in kept]], exact, rtol=1e-6, atol=1e-8)
    assert left == {4, 7}
    assert [float(k.sum()) for k in kept_of(law)] == [1.0, 1.0]
    begin_again(law, torch.Generator().manual_seed(1))
    assert [float(k.sum()) for k in kept_of(law)] == [6.0, 3.0]


@pytest.fixture(scope="module")
def logistic() -> tuple[pk.PDESystem, pk.Solution]:
    """y' = -y + gamma(y), gamma = 2 y - y^2: y = 1 / (1 + 4 exp(-t)), seen to t = 4 with noise."""
    times = np.linspace(0, 4, 25)
    values = curve(times) + 0.01 * np.random.default_rng(0).normal(size=25)
    gamma = pk.neural("gamma", inputs=(y,))
    seen = pk.Observations(y, {t: times}, values)
    problem = pk.PDESystem([y.diff(t) + y - gamma], pk.Interval(t, 0, 4), [seen])
    return problem, problem.solve(pk.NeuralODE(width=4, steps=24, expansion=2), seed=0)


def curve(times: np.ndarray) -> np.ndarray:
    return 1 / (1 + 4 * np.exp(-times))


def test_a_polynomial_law_is_found_as_one(logistic):
    """Monomials y and y^2 alone; half as far again as good as the formula with its factors fitted."""
    problem, sol = logistic
    evidence = sol.stats.more["evidence"]
    assert list(evidence) == ["network", "degree 2", "degree 2 + network"]
    assert sol.stats.more["form"] == "degree 2" == max(evidence, key=evidence.__getitem__)
    (kept,) = kept_of(sol.module)
    assert kept.tolist() == [[0.0, 1.0, 1.0]]
    a, b = pk.parameter("a", initial=2.0), pk.parameter("b", initial=1.0)
    written = problem.remake(equations=[y.diff(t) + y - (a * y - b * y**2)])
    known = written.solve(pk.NeuralODE(steps=24), seed=0, verify=False)
    times = np.linspace(0, 6, 61)
    errors = [np.abs(s(t=times, extrapolate=True) - curve(times)).max() for s in (sol, known)]
    assert errors[0] < 1.3 * errors[1]  # measured 0.0210 and 0.0189


def test_both_begin_where_the_polynomial_alone_ended():
    """The same rates, numbers and choice of monomials; the network is 0 yet."""
    alone, both = module(Form(2, network=False)), module(BOTH)
    kept_of(alone)[0][0, 2] = 0.0
    gen = torch.Generator().manual_seed(3)
    weights = torch.randn(10, generator=gen, dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    found = Fit(Form(2, network=False), alone, [0.1], one, {}, length=9)
    fit = Fit(BOTH, both, [1.0], one, {})
    begin_from(fit, found, weights)
    torch.nn.utils.vector_to_parameters(weights, alone.parameters())
    state = torch.randn(5, 2, generator=gen, dtype=torch.float64)
    torch.testing.assert_close(both(one, state), alone(one, state))
    assert torch.equal(kept_of(both)[0], kept_of(alone)[0])
    assert (fit.length, fit.sigmas) == (9, [0.1])
    assert torch.equal(fit.precisions, first_precisions(both))


@pytest.mark.slow
def test_a_law_that_is_no_polynomial_stays_a_network():
    """x'' = -x - 0.3 tanh(8 x'), nearly dry friction, noise 0.02: polynomials are less probable."""
    times = np.linspace(0, 8, 81)
    orbit = solve_ivp(
        lambda _, z: [z[1], -z[0] - 0.3 * np.tanh(8 * z[1])],
        (0, 8), [2.5, 0], t_eval=times, rtol=1e-10, atol=1e-12,
    ).y[0]  # fmt: skip
    seen = orbit + 0.02 * np.random.default_rng(0).normal(size=81)
    g = pk.neural("friction", inputs=(x.diff(t),))
    problem = pk.PDESystem(
        [x.diff(t, 2) + x - g], pk.Interval(t, 0, 8), [pk.Observations(x, {t: times}, seen)]
    )
    sol = problem.solve(pk.NeuralODE(), seed=0)
    evidence = sol.stats.more["evidence"]
    assert sol.stats.more["form"] == "network" == max(evidence, key=evidence.__getitem__)
    assert len(evidence) == 4
    assert np.abs(sol(t=times) - orbit).max() < 0.03


def test_forms_worth_a_fit():
    """A network alone where the term has one of its own; small polynomials where observations are few."""
    f, own = pk.neural("f", inputs=(x, y)), pk.neural("g", inputs=(y,), net=torch.nn.Linear(1, 1))
    names = [str(form) for form in forms_of([f, own], 3, 100)]
    assert names == ["network", "degree 2", "degree 3", "degree 2 + network", "degree 3 + network"]
    assert [str(form) for form in forms_of([f], 3, 19)] == names[:2] + names[3:4]
    assert forms_of([f], 3, 5)[1:] == (Form(1, network=False), Form(1, network=True))
    assert forms_of([own], 3, 100) == forms_of([f], None, 100) == (Form(None, network=True),)


def test_every_number_of_monomials_is_as_probable_as_any():
    """One term of 6: exp(-price) over all choices adds up to 1."""
    law = module()
    kept = kept_of(law)
    prices = 0.0
    for choice in itertools.product([0.0, 1.0], repeat=9):
        kept[0].copy_(torch.tensor([choice[:6]]))
        kept[1].copy_(torch.tensor([choice[6:]]))
        prices += math.exp(-choice_price(law, Form(2, network=False)))
    assert prices == pytest.approx(1.0)
    assert choice_price(law, BOTH) == choice_price(law, Form(2, network=False)) + BESIDE


def test_saved_and_loaded_is_the_same_law(logistic, tmp_path):
    """What was struck out stays out."""
    sol = logistic[1]
    sol.save(tmp_path / "law.pinn")
    back = pk.load(tmp_path / "law.pinn")
    times = np.linspace(0, 5, 7)
    assert np.array_equal(back(t=times, extrapolate=True), sol(t=times, extrapolate=True))
    assert kept_of(back.module)[0].tolist() == kept_of(sol.module)[0].tolist()
