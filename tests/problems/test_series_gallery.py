"""Gallery problems of series: their laws, their floors, and that they solve from one line."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch

import pinnkit as pk
from pinnkit.neural_de import SDE, Noise, integrate
from pinnkit.problems import (  # pyright: ignore[reportMissingImports]
    SERIES_GALLERY,
    DoubleWell,
    GeometricBrownianMotion,
    IrregularClassification,
    OrnsteinUhlenbeck,
)


@pytest.mark.parametrize("kind", SERIES_GALLERY, ids=lambda c: c.__name__)
def test_solves_from_one_line(kind):
    """Declared, pickled, trained for one step, scored on fresh series."""
    problem = kind(paths=40, dim=4)
    again = pickle.loads(pickle.dumps(problem))
    assert again.system.equations == problem.system.equations
    sol = problem.solve(pk.NeuralSDE(steps=4, width=8, samples=1), max_steps=1)
    assert sol.status is pk.Status.NO_GROUND_TRUTH
    assert math.isfinite(sol.score(problem.series(7, 20)))
    assert "oh2024stable" in pk.citation(sol) and kind.citation and kind.__doc__


@pytest.mark.parametrize("kind", SERIES_GALLERY, ids=lambda c: c.__name__)
def test_the_seed_is_the_series(kind):
    problem = kind(paths=5)
    first, again, other = (problem.series(s).values[0] for s in (1, 1, 2))
    assert np.array_equal(first, again, equal_nan=True)
    assert not np.array_equal(first, other, equal_nan=True)


def test_ornstein_uhlenbeck_floor_and_baselines():
    """Best predictor, persistence and mean path, exact from the recursion, within four standard errors."""
    problem = OrnsteinUhlenbeck()
    x = np.stack([v[:, 0] for v in problem.series(1, 20_000).values])
    ahead = x[:, 1:] - 0.9 * x[:, :-1]
    stay = x[:, 1:] - x[:, :-1]
    mean = x - 0.9 ** np.arange(20)
    for found, expected in ((ahead, problem.floor), (stay, 0.00751), (mean, 0.01949)):
        each = (found**2).sum(1) / 20
        assert abs(each.mean() - expected) <= 4 * each.std() / math.sqrt(len(each)) + 5e-6
    assert problem.floor == pytest.approx(0.00475)


def test_geometric_brownian_motion_floor():
    """The conditional mean reaches the floor; another drift does not."""
    problem = GeometricBrownianMotion()
    series = problem.series(1, 20_000)
    truth = np.asarray(series.targets)
    each = (problem.best(series) - truth) ** 2
    assert abs(each.mean() - problem.floor) <= 4 * each.std() / math.sqrt(len(each))
    wrong = (GeometricBrownianMotion(drift=0.0).best(series) - truth) ** 2
    assert wrong.mean() > problem.floor + 0.03


def test_double_well_law():
    """Both wells alike; the second moment is that of our integrator on the same equation."""
    problem = DoubleWell()
    labels = problem.series(1, 4000).labels
    assert labels is not None
    share = float(np.mean(labels == "left"))
    assert abs(share - 0.5) <= 4 * 0.5 / math.sqrt(4000)
    law = SDE(lambda t, z: z - z**3, lambda t, z: torch.full_like(z, problem.noise), Noise.ADDITIVE)
    end = integrate(law, torch.zeros(4000, 1).double(), [0.0, 1.5], dt=0.005).end.square()
    series = problem.series(2, 4000)
    pairs = zip(series.times, series.values, strict=True)
    late = [v[np.abs(k - 1.5) < 0.01, 0] for k, v in pairs]
    found = np.concatenate(late) ** 2
    spread = math.sqrt(found.var() / len(found) + float(end.var()) / 4000)
    assert abs(found.mean() - float(end.mean())) <= 4 * spread


def test_rotations_are_told_apart_by_order_alone():
    """Each coordinate has the same law in both classes; the swept area has its sign from the direction."""
    series = IrregularClassification(missing=0.0).series(1, 1000)
    left = np.asarray(series.labels) == "left"
    values = np.stack(series.values)
    for power in (1, 2):
        rows = (values**power).mean(1)  # one per series and coordinate: those are independent
        gap = rows[left].mean(0) - rows[~left].mean(0)
        spread = np.sqrt(rows[left].var(0) / left.sum() + rows[~left].var(0) / (~left).sum())
        assert (np.abs(gap) <= 4 * spread).all()
    x, y = values[..., 0], values[..., 1]
    area = (x[:, :-1] * y[:, 1:] - y[:, :-1] * x[:, 1:]).sum(1)
    assert ((area > 0) == left).mean() >= 0.95


def test_parts_of_a_classification_are_paired():
    """The same split at every rate; what is missing at a low rate is missing at a higher one."""
    problem = IrregularClassification(missing=0.3, paths=40)
    for low, high in zip(problem.parts(), problem.parts(0.7), strict=True):
        assert np.array_equal(np.asarray(low.labels), np.asarray(high.labels))
        for a, b in zip(low.values, high.values, strict=True):
            assert np.array_equal(a[~np.isnan(b)], b[~np.isnan(b)])
            assert np.isnan(b).mean() > np.isnan(a).mean()


def test_sets_in_files_are_joined(tmp_path):
    """Both files in one, split again by seed; the equation is any that takes data and dim."""
    for end, shift in (("TRAIN", 0), ("TEST", 100)):
        rows = [f"{i + shift},2,3,4:{'a' if i % 2 else 'b'}" for i in range(20)]
        text = "@timeStamps false\n@classLabel true a b\n@data\n" + "\n".join(rows) + "\n"
        (tmp_path / f"Small_{end}.ts").write_text(text)
    problem = IrregularClassification(pk.SeriesTarget, str(tmp_path), "Small", 0.0)
    learned, tested = problem.parts()
    firsts = sorted(float(v[0, 0]) for v in (*learned.values, *tested.values))
    assert firsts == [*range(20), *range(100, 120)]
    assert (len(learned), len(tested)) == (34, 6)
    assert isinstance(problem.system, pk.SeriesTarget)
