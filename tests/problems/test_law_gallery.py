"""Gallery problems with terms to be learned: their data, and that they solve from one line."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import pinnkit as pk
from pinnkit.problems import (  # pyright: ignore[reportMissingImports]
    LAW_GALLERY,
    LotkaVolterra,
    MissingInteraction,
    SpiralODE,
)

FEW = pk.NeuralODE(width=3, depth=1, steps=20)


@pytest.mark.parametrize("kind", LAW_GALLERY, ids=lambda c: c.__name__)
def test_solves_from_one_line(kind):
    """Declared, pickled, trained for two steps; a model of data alone, in the contract's words."""
    problem = kind(points=21)
    again = pickle.loads(pickle.dumps(problem))
    assert again.system.equations == problem.system.equations
    sol = problem.solve(FEW, max_steps=2)
    values = sol(t=[0.0, 0.5])
    assert all(v.shape == (2,) and np.isfinite(v).all() for v in values.values())
    assert sol.status is pk.Status.NO_GROUND_TRUTH and sol.ok is None
    assert "turan2022multiple" in pk.citation(sol) and kind.citation and kind.__doc__
    assert pk.choose_solver(problem)[0] == pk.NeuralODE()


@pytest.mark.parametrize("kind", LAW_GALLERY, ids=lambda c: c.__name__)
def test_same_seed_same_answer(kind):
    """Bit by bit; another seed is another network."""
    first, again, other = (
        kind(points=11).solve(FEW, max_steps=2, seed=seed).approximation.state for seed in (0, 0, 1)
    )
    assert bool((first == again).all())
    assert bool((first != other).any())


def test_the_missing_interaction_is_lotka_and_volterras():
    """The truth keeps their invariant d x - g ln x + b y - a ln y; the noise is as large as declared."""
    problem, known = MissingInteraction(seed=3, points=2001), LotkaVolterra()
    times, values = problem.observed()
    clean = problem.truth(times)
    x, y = clean.T
    kept = known.d * x - known.g * np.log(x) + known.b * y - known.a * np.log(y)
    assert np.ptp(kept) < 1e-7
    spread = (values - clean).std(0) / np.sqrt((clean**2).mean(0))
    np.testing.assert_allclose(spread, problem.noise, rtol=4 / np.sqrt(2 * 2001))


def test_the_spiral_winds_inwards():
    """d(x^4 + y^4)/dt = -4 damping (x^6 + y^6): the size falls, on the turns as between them."""
    times = np.linspace(0, 10, 101)
    size = (SpiralODE().truth(times) ** 4).sum(1)
    assert size[0] == 16
    assert (np.diff(size) < 0).all()
