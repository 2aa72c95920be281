"""Several runs of one system: what is declared, the rows, the estimates, the solution along each.

y' = -k y with y = a exp(-k t) from a = 3 and a = 1/2; the log evidence of a term that is linear in
everything unknown against the density of the observations, which is Gaussian.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import pinnkit as pk
from pinnkit.ir.ordinary_form import ordinary_form
from pinnkit.solvers.base import Env
from pinnkit.solvers.neural_ode_evidence import WIDTH, weigh
from pinnkit.solvers.neural_ode_terms import Form, group_of_parameters

t = pk.coords("t")
x, y = pk.field("x", t), pk.field("y", t)
k = pk.parameter("k", initial=1.0, bounds=(0, 5))
FIRST, SECOND = np.linspace(0, 2, 11), np.linspace(0.1, 1.3, 7)


def decay(conditions: list[Any]) -> pk.PDESystem:
    return pk.PDESystem([y.diff(t) + k * y], pk.Interval(t, 0, 2), conditions)


def env() -> Env:
    return Env(torch.device("cpu"), torch.float64, torch.Generator().manual_seed(0), 0)


@pytest.fixture(scope="module")
def two() -> pk.Solution:
    """Two noiseless runs on times of their own."""
    tables = [
        {"t": FIRST, "y": 3 * np.exp(-1.7 * FIRST)},
        {"t": SECOND, "y": 0.5 * np.exp(-1.7 * SECOND)},
    ]
    return decay(pk.observe_runs(tables, [y])).solve(pk.NeuralODE(steps=20), verify=False)


def test_two_starts_and_one_number(two):
    """k to what RK4's steps of 1/10 lose; every run from a start of its own, none at its first time."""
    assert two.parameters[k].value == pytest.approx(1.7, rel=1e-5)
    assert two(t=1.0) == pytest.approx(3 * math.exp(-1.7), rel=1e-4)
    other = two.run(1)
    np.testing.assert_allclose(other(t=[0, 2]), 0.5 * np.exp([0, -3.4]), rtol=1e-4)
    assert two.run(0)(t=1.0) == two(t=1.0)
    assert two.stats.more["segments"] == 2
    with pytest.raises(IndexError, match="runs 0 to 1 were"):
        two.run(2)
    with pytest.raises(TypeError, match="integer"):
        two.run("second")


def test_saved_and_loaded_has_all_runs(two, tmp_path):
    two.save(tmp_path / "law.pinn")
    back = pk.load(tmp_path / "law.pinn")
    assert back.run(1)(t=1.0) == two.run(1)(t=1.0)
    assert [o.run for o in back.problem.normal_form.observations] == [0, 1]
    two.run(1).save(tmp_path / "second.pinn")
    assert pk.load(tmp_path / "second.pinn")(t=1.0) == two.run(1)(t=1.0)


def test_two_copies_are_one_run_with_half_the_variance():
    """Value and standard error; where the noise is estimated, the same one for both."""
    values = np.exp(-1.7 * FIRST) + 0.01 * np.random.default_rng(0).normal(size=11)

    def solve(runs: int, noise: float | None) -> pk.Solution:
        seen = [pk.Observations(y, {t: FIRST}, values, noise, run=r) for r in range(runs)]
        return decay(seen).solve(pk.NeuralODE(steps=20), verify=False)

    one, both = solve(1, 0.01 / math.sqrt(2)).parameters[k], solve(2, 0.01).parameters[k]
    assert both.value == pytest.approx(one.value, rel=1e-6)
    assert both.stderr == pytest.approx(one.stderr, rel=1e-4)
    found = solve(2, None)
    assert found.parameters[k].value == pytest.approx(one.value, rel=1e-6)
    assert len(set(found.stats.more["sigmas"])) == 1


@pytest.mark.parametrize("length", [1, 3, 100])
def test_rows_are_the_jacobian(length):
    """Of runs of 6 and 3 intervals, one start known and one not; segments of both side by side."""
    g = pk.neural("g", inputs=(x, y))
    times, few = np.linspace(0.2, 2, 6), np.array([0.3, 0.8, 1.1])
    seen = [
        pk.Observations(x, {t: times}, np.cos(times)),
        pk.Observations(x * y, {t: few}, np.ones(3), run=1),
        pk.Observations(y, {t: few[1:]}, np.ones(2), noise=0.1, run=1),
    ]
    problem = pk.PDESystem(
        [x.diff(t) + k * y - g, y.diff(t) - x], pk.Interval(t, 0, 2), [*seen, pk.Initial(y, 0.5)]
    )
    solver = pk.NeuralODE(width=2, steps=4)
    guess = solver.init(problem, env()).guess
    form = ordinary_form(problem.normal_form)
    fit = solver._first_fit(form, Form(None, network=True), guess, env())
    fit.length = length
    shooting = solver._shooting(guess, fit)
    assert shooting.whole == (length == 100)
    gen = torch.Generator().manual_seed(1)
    weights = 0.5 * torch.randn(shooting.weights, generator=gen, dtype=torch.float64)
    theta = shooting.theta(weights, guess.states + 0.1)
    assert shooting.starts(theta)[:, 1].tolist() == [0.5, 0.5]
    torch.testing.assert_close(shooting.starts(theta)[:, 0], guess.states[[0, 7], 0] + 0.1)
    r, rows = shooting.rows(theta)
    assert torch.equal(r, shooting.residual(theta))
    step = 1e-6 * torch.eye(len(theta), dtype=torch.float64)
    slopes = [(shooting.residual(theta + s) - shooting.residual(theta - s)) / 2e-6 for s in step]
    torch.testing.assert_close(rows, torch.stack(slopes, 1), rtol=1e-5, atol=1e-5)


def test_evidence_is_the_density_of_the_observations():
    """y' = a + b t + c t^2 in two runs from y = 1, coefficients with Gaussian priors: exactly Gaussian."""
    gamma = pk.neural("gamma", inputs=(t,))
    sets = [
        pk.Observations(y, {t: at}, 1 + np.sin(at), noise=0.1 + 0.1 * r, run=r)
        for r, at in enumerate((FIRST[1:], SECOND))
    ]
    problem = pk.PDESystem([y.diff(t) - gamma], pk.Interval(t, 0, 2), [pk.Initial(y, 1), *sets])
    solver = pk.NeuralODE()
    guess = solver.init(problem, env()).guess
    form = ordinary_form(problem.normal_form)
    fit = solver._first_fit(form, Form(2, network=False), guess, env())
    fit.length, fit.precisions = 100, torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    shooting = solver._shooting(guess, fit)
    theta = torch.zeros(3, dtype=torch.float64)
    r, rows = shooting.rows(theta)  # linear, so one Gauss-Newton step ends at the minimum
    theta = theta - torch.linalg.solve(rows.T @ rows, rows.T @ r)
    names = group_of_parameters(fit.module)
    found = weigh(shooting, theta, names, guess.declared, fit.precisions, guess.kinds)
    noise = np.repeat([0.1, 0.2], [len(FIRST) - 1, len(SECOND)])
    phi = rows[: len(noise)].numpy() * noise[:, None]
    truth = np.concatenate([np.sin(FIRST[1:]), np.sin(SECOND)])
    covariance = phi @ np.diag([2.0, 1.0, 0.5]) @ phi.T + np.diag(noise**2)
    size = np.linalg.slogdet(2 * np.pi * covariance)[1]
    density = -0.5 * (size + truth @ np.linalg.solve(covariance, truth))
    # Beside it the share of each precision's prior that its posterior fills.
    shares = [WIDTH - 0.5 * math.log(4 * math.pi / g) for g in found.determined.tolist()]
    assert found.log == pytest.approx(density - sum(shares), abs=1e-4)


def test_series_and_tables():
    """Channels in their order or by name, gaps left out, noise by name."""
    data = pk.IrregularSeries(
        [FIRST[:2], SECOND[:3]],
        [[[1, 2], [math.nan, 3]], [[5, math.nan], [6, math.nan], [7, math.nan]]],
        channels=["prey", "both"],
    )
    first, product, second = pk.observe_runs(data, [x, x * y], noise={"both": 0.5})
    assert [o.run for o in (first, product, second)] == [0, 0, 1]
    assert (first.noise, product.noise, second.noise) == (None, 0.5, None)
    assert product.expr == x * y and product.values.tolist() == [2, 3]
    assert first.points[t].tolist() == [0] and second.points[t].tolist() == SECOND[:3].tolist()
    (named,) = pk.observe_runs(data[0], {"both": x})
    assert named.values.tolist() == [2, 3]
    (labelled,) = pk.observe_runs([{"t": [0], "x": [1], "who": ["hare"]}], [x])
    assert labelled.values.tolist() == [1]
    with pytest.raises(pk.DeclarationError, match="noise names 'x', which is not observed"):
        pk.observe_runs(data, {"both": x}, noise={"x": 0.1})
    again = pk.Observations(x, {t: [1]}, [1], run=np.int64(1))  # type: ignore[arg-type]
    assert again.run == 1
    assert (
        "run 1" in repr(second)
        and "run 1"
        in pk.PDESystem(
            [x.diff(t) - k], pk.Interval(t, 0, 2), [pk.Observations(x, {t: [1]}, [1], run=1)]
        ).latex()
    )


@pytest.mark.parametrize(
    ("data", "exprs", "match"),
    [
        ([], [y], "there is no run"),
        ([{"t": [0, 1], "y": [1, 2]}], {"z": y}, "no run has a column 'z'"),
        ([{"s": [0, 1], "y": [1, 2]}], [y], "run 0.*no column 't'"),
        ([{"t": [0, 1], "y": [1, 2, 3]}], [y], "3 values at 2 times"),
        ([{"t": [0], "y": [1]}, {"t": [0], "x": [1]}], [y], "run 1.*nothing in it"),
        (pk.IrregularSeries([[0, 1]], [[1, 2]]), [x, y], "2 expressions for 1 channels"),
        ({"t": [0], "y": [1]}, [y], "this is one table"),
        ([{"t": [0], "y": [1]}], y, "y is one expression"),
        ([{"t": [0], "y": ["low"]}], [y], "run 0: y is not numbers"),
    ],
)
def test_runs_that_cannot_be_read(data, exprs, match):
    with pytest.raises(pk.DeclarationError, match=match):
        pk.observe_runs(data, exprs)


def test_who_takes_runs():
    """`NeuralODE` alone, if they are numbered without gaps."""
    seen = [pk.Observations(y, {t: FIRST}, FIRST, run=r) for r in (0, 2)]
    assert "none of 3 is Observations(..., run=1)" in (pk.NeuralODE().supports(decay(seen)) or "")
    with pytest.raises(pk.DeclarationError, match="run=-1 is no number"):
        pk.Observations(y, {t: FIRST}, FIRST, run=-1)
    start = pk.Observations(y, {t: [0.0]}, [1.0])
    assert "later than the start" in (pk.NeuralODE().supports(decay([start])) or "")
    pair = decay([seen[0], pk.Observations(y, {t: FIRST}, FIRST, run=1)])
    for other in (pk.SpectralMixtureGP(), pk.CausalPINN()):
        assert "one run" in (other.supports(pair) or "")
    assert isinstance(pk.choose_solver(pair)[0], pk.NeuralODE)


def test_a_law_that_cannot_follow_its_data_is_no_success():
    """y' = -k y never oscillates: the fit ends, and the status says that it did not get there."""
    seen = pk.observe_runs([{"t": FIRST, "y": np.cos(4 * FIRST)}], [y])
    sol = decay(seen).solve(pk.NeuralODE(steps=20), verify=False, max_steps=60)
    assert sol.stats.more["missed"] and sol.status is pk.Status.STALLED
