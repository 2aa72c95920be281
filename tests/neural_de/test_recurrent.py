"""The recurrent baseline: what it sees, that it trains as equations do, and what it refuses."""

from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch

import pinnkit as pk
from pinnkit.neural_de.baselines import GatedRecurrentNetwork, recurrent_inputs

EXACT = 1e-12
QUICK = pk.NeuralSDE(batch=20, epochs=2, samples=2)
F64 = torch.float64
TARGET: Any = pk.SeriesTarget


def shifted(n=40, seed=0, **more):
    """Two classes that differ in the mean; own times, some values missing."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(4, 8, n)
    times = [np.sort(rng.uniform(0, 2, k)) for k in lengths]
    values = [rng.normal([0, 2 * (i % 2)], 1, size=(k, 2)) for i, k in enumerate(lengths)]
    more = more or {"labels": np.array(["low", "high"])[np.arange(n) % 2]}
    return pk.IrregularSeries(times, values, **more).drop(0.2, seed=0)


def slow_inputs(times, observed):
    """One series, one channel, row by row: Che et al., equation (2) for the gaps."""
    rows, value, gap = [], 0.0, 0.0
    for k, (t, x) in enumerate(zip(times, observed, strict=True)):
        if k:
            gap = t - times[k - 1] + (gap if math.isnan(observed[k - 1]) else 0.0)
        value = value if math.isnan(x) else x
        rows.append([value, 0.0 if math.isnan(x) else 1.0, gap])
    return np.array(rows)


def test_inputs_equal_the_scalar_recursion():
    """Last value, mask, time since the last observation, with gaps at both ends and empty channels."""
    rng = np.random.default_rng(0)
    times = np.sort(rng.uniform(0, 1, (9, 4)), axis=0)
    observed = np.where(rng.random((9, 4, 3)) < 0.6, np.nan, rng.normal(size=(9, 4, 3)))
    observed[:, 0, 0] = np.nan
    found = recurrent_inputs(torch.tensor(times), torch.tensor(observed)).numpy()
    for b in range(4):
        for c in range(3):
            expected = slow_inputs(times[:, b], observed[:, b, c])
            np.testing.assert_allclose(found[:, b, [c, 3 + c, 6 + c]], expected, atol=EXACT)


def test_the_state_knows_nothing_of_the_future(gen):
    """Changing the last row leaves all states before it; seeds make equal weights."""
    net, again = (
        GatedRecurrentNetwork(2, 5, generator=torch.Generator().manual_seed(3), dtype=F64)
        for _ in range(2)
    )
    times = torch.rand(6, 3, generator=gen, dtype=F64).cumsum(0)
    observed = torch.randn(6, 3, 2, generator=gen, dtype=F64)
    changed = observed.clone()
    changed[-1] += 1.0
    states = net(times, observed)
    assert torch.equal(states, again(times, observed))
    assert torch.equal(states[:-1], net(times, changed)[:-1])
    assert not torch.equal(states[-1], net(times, changed)[-1])


def test_trains_and_predicts_as_equations_do():
    """The same solver, the same answers: labels, probabilities, samples, score, status, citation."""
    data = shifted()
    problem = pk.SeriesTarget(data, dim=8)
    sol = problem.solve(QUICK)
    assert set(sol.predict(data)) <= {"low", "high"}
    np.testing.assert_allclose(sol.probabilities(data).sum(1), 1, atol=EXACT)
    assert sol.sample(data, 3).shape == (3, 40)
    assert 0 <= sol.score(data) <= 1
    assert (sol.status, sol.ok, sol.parameters) == (pk.Status.NO_GROUND_TRUTH, None, {})
    assert "Cho" in pk.citation(sol) and "Che" in pk.citation(sol)
    np.testing.assert_array_equal(problem.solve(QUICK).probabilities(data), sol.probabilities(data))
    assert isinstance(pk.choose_solver(problem)[0], pk.NeuralSDE)


def test_predictions_do_not_depend_on_the_company():
    """A series is predicted alone as in a crowd of longer ones: padding is not looked at."""
    data = shifted()
    sol = pk.SeriesTarget(data, dim=4).solve(QUICK)
    alone = np.concatenate([sol.probabilities(one) for one in data])
    np.testing.assert_allclose(sol.probabilities(data), alone, atol=1e-10)


def test_learns_what_separates_the_classes():
    """Accuracy on fresh series; chance is 0.5."""
    solver = pk.NeuralSDE(epochs=30, batch=60, lr=2e-2, samples=1)
    sol = pk.SeriesTarget(shifted(120)).solve(solver)
    assert sol.score(shifted(60, seed=1)) >= 0.8


def test_numbers_per_series_and_per_time():
    plain = shifted()
    rows = pk.IrregularSeries(
        plain.times, plain.values, targets=[np.full((len(k), 1), 100.0) for k in plain.times]
    )
    found = pk.SeriesTarget(rows, dim=4).solve(QUICK).predict(rows)
    assert [f.shape for f in found] == [(len(k), 1) for k in rows.times]
    ones = shifted(targets=100 + np.random.default_rng(0).normal(size=(40, 3)))
    assert pk.SeriesTarget(ones, dim=4).solve(QUICK).predict(ones).shape == (40, 3)


def test_the_declaration_is_closed():
    """Immutable, picklable, without equations."""
    problem = pk.SeriesTarget(shifted(), dim=4)
    again = pickle.loads(pickle.dumps(problem))
    assert repr(again) == repr(problem)
    assert problem.remake(dim=6).dim == 6
    assert (problem.system, problem.coords, problem.fields) == (problem, (), ())
    with pytest.raises(AttributeError, match="immutable"):
        problem.dim = 3
    with pytest.raises(pk.UnsupportedProblemError, match="no residual"):
        problem.residual(0)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: TARGET([[1.0]]), pk.DeclarationError, "no IrregularSeries"),
        (lambda: pk.SeriesTarget(dim=0), pk.DeclarationError, "0 is no number of components"),
        (lambda: TARGET(readout=3), pk.DeclarationError, "readout is no network"),
        (lambda: pk.SeriesTarget().solve(), pk.UnsupportedProblemError, "SeriesTarget has no data"),
        (
            lambda: pk.SeriesTarget(shifted()).solve(pk.CausalPINN()),
            pk.UnsupportedProblemError,
            "does not solve",
        ),
    ],
)
def test_refusals(make, error, message):
    with pytest.raises(error, match=message):
        make()
