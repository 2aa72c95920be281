"""Ordinary equations with neural terms: shooting, evidence, the solution, what is refused.

y' = -k y with y = exp(-k t), the oscillator x'' = -w x with x = cos(sqrt(w) t), and
y' = -y + gamma(y) with gamma = y (2 - y), whose solution is 1 / (1 + c exp(-t)).
"""

from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pytest
import sympy as sp
import torch

import pinnkit as pk
from pinnkit.ir.ordinary_form import ordinary_form
from pinnkit.lower.ordinary import OrdinaryModule
from pinnkit.solution.trajectory_approximation import TrajectoryApproximation
from pinnkit.solvers.base import Env
from pinnkit.solvers.neural_ode_terms import Form

t = pk.coords("t")
x, y = pk.field("x", t), pk.field("y", t)
gamma = pk.neural("gamma", inputs=(y,))
ENV = Env(torch.device("cpu"), torch.float64, torch.Generator().manual_seed(0), 0)


def logistic(noise: float = 0.0, points: int = 25, **more: Any) -> pk.PDESystem:
    """y' = -y + gamma(y); y(0) = 1/5 and c = 4."""
    times = np.linspace(0, 4, points)
    clean = 1 / (1 + 4 * np.exp(-times))
    values = clean + noise * np.random.default_rng(0).normal(size=points)
    seen = pk.Observations(y, {t: times}, values, **more)
    return pk.PDESystem([y.diff(t) + y - gamma], pk.Interval(t, 0, 4), [seen])


def state_of(problem: pk.PDESystem, solver: pk.NeuralODE) -> Any:
    return solver.init(problem, ENV)


def two_fields(start: bool) -> pk.PDESystem:
    """Everything at once: a second-order equation, a number, an observed product, unequal times."""
    k = pk.parameter("k", initial=0.7, bounds=(0, 3))
    first = np.array([0.0, 0.3, 0.7, 1.1, 1.5, 2.0])
    second = np.array([0.5, 1.1, 1.8])
    conditions: list[Any] = [
        pk.Observations(x, {t: first}, np.cos(first)),
        pk.Observations(k * x * y, {t: second}, np.ones(3), noise=0.1),
    ]
    if start:
        conditions += [pk.Initial(x, 1), pk.Initial(y, 0.5)]
    g = pk.neural("g", inputs=(x, y, t))
    equations = [x.diff(t, 2) + k * x - g, y.diff(t) + y * g]
    return pk.PDESystem(equations, pk.Interval(t, 0, 2), conditions)


@pytest.mark.parametrize("start", [False, True])
@pytest.mark.parametrize("length", [1, 2, 3, 100])
def test_rows_are_the_jacobian(length, start):
    """Of all kinds of rows, against reverse mode through the whole simulation."""
    problem = two_fields(start)
    solver = pk.NeuralODE(width=3, depth=1, steps=4)
    state = state_of(problem, solver)
    form = ordinary_form(problem.normal_form)
    fit = solver._first_fit(form, Form(2, network=True), state.guess, ENV)
    fit.length = length
    shooting = solver._shooting(state.guess, fit)
    gen = torch.Generator().manual_seed(1)
    weights = 0.5 * torch.randn(shooting.weights, generator=gen, dtype=torch.float64)
    theta = shooting.theta(weights, state.guess.states + 0.1)
    r, rows = shooting.rows(theta)
    assert torch.equal(r, shooting.residual(theta))
    step = 1e-6
    for k in range(len(theta)):
        moved = torch.zeros_like(theta)
        moved[k] = step
        slope = (shooting.residual(theta + moved) - shooting.residual(theta - moved)) / (2 * step)
        torch.testing.assert_close(rows[:, k], slope, rtol=1e-5, atol=1e-5)


def test_a_number_is_found_with_its_standard_error():
    """k of y' = -k y from noise of known size: within four standard errors, which are the linear theory's."""
    k = pk.parameter("k", initial=1.0, bounds=(0, 5))
    times, noise = np.linspace(0, 2, 41), 0.01
    values = np.exp(-1.7 * times) + noise * np.random.default_rng(0).normal(size=41)
    problem = pk.PDESystem(
        [y.diff(t) + k * y], pk.Interval(t, 0, 2),
        [pk.Initial(y, 1), pk.Observations(y, {t: times}, values, noise=noise)],
    )  # fmt: skip
    sol = problem.solve(pk.NeuralODE(), verify=False, time_limit=20)
    found = sol.parameters[k]
    theory = noise / math.sqrt(np.sum((times * np.exp(-1.7 * times)) ** 2))
    assert found.stderr == pytest.approx(theory, rel=0.05)
    assert abs(found.value - 1.7) <= 4 * theory


def test_an_unseen_velocity_is_estimated():
    """x'' = -w x from positions alone: w, the start and its slope, to the accuracy of the steps."""
    w = pk.parameter("w", initial=2.0)
    times = np.linspace(0, 3, 31)
    seen = pk.Observations(x, {t: times}, np.cos(1.5 * times + 0.4))
    problem = pk.PDESystem([x.diff(t, 2) + w * x], pk.Interval(t, 0, 3), [seen])
    sol = problem.solve(pk.NeuralODE(), verify=False, time_limit=20)
    assert sol.parameters[w].value == pytest.approx(2.25, rel=1e-5)
    assert sol[x.diff(t)](t=0.0) == pytest.approx(-1.5 * math.sin(0.4), rel=1e-4)
    assert sol[x.diff(t, 2)](t=1.0) == pytest.approx(-2.25 * math.cos(1.9), rel=1e-4)


@pytest.fixture(scope="module")
def fitted():
    solver = pk.NeuralODE(width=4, depth=1, steps=50, expansion=None)
    return logistic(noise=0.01).solve(solver, seed=0)


def test_a_term_is_learned_and_read(fitted):
    """Trajectory inside and beyond the training span; the formula is the one that made the data."""
    times = np.linspace(0, 6, 61)
    truth = 1 / (1 + 4 * np.exp(-times))
    found = fitted(t=times, extrapolate=True)
    assert np.abs(found - truth).max() < 0.02  # measured 0.004
    with pytest.raises(ValueError, match="outside the domain"):
        fitted(t=6.0)
    term = fitted.read(gamma, [y, y**2], threshold=0.05)
    assert term == pk.sparse_reading(fitted, gamma, [y, y**2], threshold=0.05)
    assert set(term.atoms(sp.Pow)) == {y**2}
    assert float(term.coeff(y, 1)) == pytest.approx(2, rel=0.15)


def test_what_the_solution_says(fitted):
    """A law from data alone: no error, no ok; module, status, citation, choice."""
    assert fitted.status is pk.Status.NO_GROUND_TRUTH
    assert fitted.ok is None
    assert fitted.error_estimate is None
    assert "gamma is learned" in fitted.verification.reason
    assert fitted.stats.stopped_by is pk.Status.OK
    assert "turan2022multiple" in pk.citation(fitted)
    assert "NO_GROUND_TRUTH" in str(fitted)
    solver, reason = pk.choose_solver(fitted.problem)
    assert isinstance(solver, pk.NeuralODE)
    assert "gamma" in reason
    assert fitted.stats.more["form"] == "network"
    assert list(fitted.stats.more["evidence"]) == ["network"]
    assert fitted.stats.more["sigmas"][0] == pytest.approx(0.01, rel=0.5)
    state = torch.tensor([[0.5]], dtype=torch.float64)
    rate = fitted.module(torch.tensor(0.0), state)
    term = fitted.module.term(gamma, 0.0, state)
    torch.testing.assert_close(rate[:, 0], term - 0.5)


def test_terms_are_expressions_like_any(fitted):
    """sol[gamma], the residual of the learned equation, a picture, an array."""
    values = fitted[gamma - y](t=[0.5, 1.0])
    np.testing.assert_allclose(values, fitted[y.diff(t)](t=[0.5, 1.0]), rtol=1e-9)
    assert np.abs(fitted.residual({t: np.array([0.0, 2.0])})).max() < 1e-9
    assert fitted.plot() is not None
    assert fitted.to_xarray(t=5)["y"].shape == (5,)


def test_saved_and_loaded_is_the_same_function(fitted, tmp_path):
    fitted.save(tmp_path / "law.pinn")
    back = pk.load(tmp_path / "law.pinn")
    times = np.linspace(0, 5, 7)
    assert np.array_equal(back(t=times, extrapolate=True), fitted(t=times, extrapolate=True))
    assert (back.status, back.ok, repr(back.solver)) == (fitted.status, None, repr(fitted.solver))
    assert back.read(gamma, [y, y**2]) == fitted.read(gamma, [y, y**2])
    assert back.problem.normal_form.neurals[0].inputs == (y,)


def test_resumed_training_is_uninterrupted_training(tmp_path):
    solver = pk.NeuralODE(width=3, depth=1, steps=20)
    whole = logistic().solve(solver, max_steps=14)
    path = tmp_path / "training.pinn"
    logistic().solve(solver, max_steps=5, checkpoint=path)
    again = logistic().solve(solver, max_steps=14, resume=path)
    assert np.array_equal(whole(t=[0.0, 1.0, 4.0]), again(t=[0.0, 1.0, 4.0]))
    assert whole.history["loss"] == again.history["loss"]


@pytest.mark.slow
@pytest.mark.parametrize("stop", [0.5, 0.95])
def test_resumed_while_forms_are_compared(stop, tmp_path):
    """In the polynomial's fit, in that of both: the same choice, evidence and errors."""
    k = pk.parameter("k", initial=0.7)
    problem = logistic(noise=0.01).remake(equations=[y.diff(t) + k * y - gamma - y])
    solver = pk.NeuralODE(width=3, steps=24, expansion=2)
    whole = problem.solve(solver)
    path = tmp_path / "training.pinn"
    problem.solve(solver, max_steps=round(stop * whole.stats.steps), checkpoint=path)
    again = problem.solve(solver, resume=path)
    assert np.array_equal(whole(t=[0.0, 1.0, 4.0]), again(t=[0.0, 1.0, 4.0]))
    counts = [sol.stats.more.pop("effective_parameters") for sol in (whole, again)]
    assert counts[1] == pytest.approx(
        counts[0], rel=1e-3
    )  # of a resume by the weights as they ended
    assert whole.stats.more == again.stats.more
    assert again.parameters[k].stderr == pytest.approx(whole.parameters[k].stderr, rel=1e-2)


@pytest.mark.parametrize("size", [1e6, 1e-6])
def test_units_do_not_matter(size):
    """Time and values in other units: the same trajectory, to what rounding does in ten steps."""

    def solve(unit: float) -> np.ndarray:
        times = np.linspace(0, 4, 15)
        seen = pk.Observations(y, {t: unit * times}, unit / (1 + 4 * np.exp(-times)))
        problem = pk.PDESystem([y.diff(t) + y / unit - gamma], pk.Interval(t, 0, 4 * unit), [seen])
        sol = problem.solve(pk.NeuralODE(width=3, depth=1, steps=15), max_steps=10)
        return sol(t=unit * times) / unit

    np.testing.assert_allclose(solve(size), solve(1.0), rtol=1e-6)


def test_derivatives_by_time():
    """Any order along the solution, and the first one through tensors that require a gradient."""
    problem = pk.PDESystem(
        [y.diff(t) + sp.sin(t) * y], pk.Interval(t, 0, 2),
        [pk.Observations(y, {t: np.array([0.0, 1.0])}, np.ones(2))],
    )  # fmt: skip
    form = ordinary_form(problem.normal_form)
    state = torch.tensor([1.0], dtype=torch.float64)
    trajectory = TrajectoryApproximation(OrdinaryModule(form, torch.nn.Linear), 0.0, state)
    at = torch.tensor([[0.3], [1.7], [-0.4]], dtype=torch.float64)
    exact = sp.exp(sp.cos(t) - 1)
    for order in range(4):
        (found,) = trajectory.derivatives(at, [(0, (order,))])
        expected = [float(exact.diff(t, order).evalf(subs={t: s})) for s in at[:, 0].tolist()]
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6, atol=1e-6)
    moving = at[:1].clone().requires_grad_()
    (slope,) = torch.autograd.grad(trajectory.derivatives(moving, [(0, (0,))])[0].sum(), moving)
    assert float(slope) == pytest.approx(float(exact.diff(t).evalf(subs={t: 0.3})), rel=1e-6)


def test_beyond_an_explosion_there_is_nothing():
    """y' = y^2 from 1 ends at t = 1: values before, nan after, nothing raised."""
    problem = pk.PDESystem(
        [y.diff(t) - y**2], pk.Interval(t, 0, 3),
        [pk.Observations(y, {t: np.array([0.0, 0.5])}, np.array([1.0, 2.0]))],
    )  # fmt: skip
    form = ordinary_form(problem.normal_form)
    module = OrdinaryModule(form, torch.nn.Linear)
    trajectory = TrajectoryApproximation(module, 0.0, torch.ones(1, dtype=torch.float64))
    found = trajectory.states(torch.tensor([0.5, 0.9, 2.5], dtype=torch.float64))[:, 0]
    np.testing.assert_allclose(found[:2].numpy(), [2.0, 10.0], rtol=1e-5)
    assert bool(torch.isnan(found[2]))


def test_a_problem_with_a_network_survives_pickling():
    problem = logistic()
    again = pickle.loads(pickle.dumps(problem))
    assert again.normal_form.neurals == problem.normal_form.neurals
    assert again.equations == problem.equations


def test_other_solvers_name_this_one():
    problem = logistic()
    for other in (pk.CausalPINN(), pk.MethodOfLines(), pk.SpectralMixtureGP(), pk.LagrangianPINN()):
        assert "NeuralODE" in (other.supports(problem) or "")


def test_refusals():
    """Each in one sentence that names the way out."""
    seen = pk.Observations(y, {t: np.array([0.0, 1.0])}, np.ones(2))
    domain = pk.Interval(t, 0, 1)
    s = pk.coords("s")
    u = pk.field("u", t, s)
    law = pk.neural("law", inputs=(u,))
    with pytest.raises(pk.DeclarationError, match="ordinary differential equations"):
        pk.PDESystem([u.diff(t) - law], domain * pk.Interval(s, 0, 1), [pk.Initial(u, 0)])
    wide = pk.neural("law", inputs=(y,), shape=3)
    with pytest.raises(pk.DeclarationError, match="scalar"):
        pk.PDESystem([y.diff(t) - wide], domain, [seen])
    with pytest.raises(pk.DeclarationError, match="a condition must be known"):
        pk.PDESystem([y.diff(t) - gamma], domain, [pk.Initial(y, gamma), seen])
    solver = pk.NeuralODE()
    nothing = pk.PDESystem([y.diff(t) - gamma], domain, [pk.Initial(y, 1)])
    assert "Observations" in (solver.supports(nothing) or "")
    known = pk.PDESystem([y.diff(t) + y], domain, [pk.Initial(y, 1), seen])
    assert "Nothing is unknown" in (solver.supports(known) or "")
    fast = pk.PDESystem([y.diff(t) - pk.neural("g", inputs=(y.diff(t),))], domain, [seen])
    assert "lower derivatives" in (solver.supports(fast) or "")
    square = pk.PDESystem([y.diff(t) ** 2 - gamma], domain, [seen])
    assert "cannot be solved for" in (solver.supports(square) or "")
    with pytest.raises(ValueError, match=r"expansion=-1 .*growth=1 .*seam=-1"):
        pk.NeuralODE(expansion=-1, growth=1, seam=-1)
    with pytest.raises(ValueError, match=r"NeuralSDE\(regularise"):
        pk.NeuralODE(regularise=pk.neural_de.LocalError(weight=1.0))


def test_only_laws_can_be_read():
    ode = pk.PDESystem([y.diff(t) + y], pk.Interval(t, 0, 1), [pk.Initial(y, 1)])
    sol = ode.solve(pk.CausalPINN(), max_steps=1, verify=False)
    with pytest.raises(pk.UnsupportedProblemError, match="NeuralODE"):
        sol.read(gamma, [y])


def test_reading_needs_a_library_that_varies(fitted):
    with pytest.raises(ValueError, match="empty"):
        fitted.read(gamma, [])
    with pytest.raises(ValueError, match="vanishes"):
        fitted.read(gamma, [y, 0 * t])
    with pytest.raises(KeyError, match="it has gamma"):
        fitted.read(pk.neural("other", inputs=(y,)), [y])
