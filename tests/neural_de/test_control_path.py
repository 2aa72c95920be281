"""Control paths: the three conditions of the cubic, fills against scalar ones, causality, batches."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pinnkit.declare import IrregularSeries
from pinnkit.neural_de import fill, fill_forward, make_path

EXACT = 1e-12
KINDS = ("hermite", "linear", "held", "rectilinear")


def batch(missing=0.4, seed=0):
    """Five series of 2 to 9 times, three channels, padded."""
    rng = np.random.default_rng(seed)
    lengths = (9, 2, 5, 9, 7)
    times = [np.sort(rng.uniform(0, 1, n)) for n in lengths]
    values = [rng.normal(size=(n, 3)) for n in lengths]
    data = IrregularSeries(times, values)
    return (data.drop(missing, seed=1) if missing else data).padded()


def at(path, t):
    return path.evaluate(torch.as_tensor(t, dtype=torch.float64))


def slow_fill(times, values):
    """np.interp, series by series and channel by channel."""
    out = np.zeros_like(values)
    for i in range(values.shape[0]):
        for c in range(values.shape[2]):
            seen = ~np.isnan(values[i, :, c])
            if seen.any():
                out[i, :, c] = np.interp(times[i], times[i, seen], values[i, seen, c])
    return out


def slow_fill_forward(values):
    out = np.zeros_like(values)
    for i in range(values.shape[0]):
        for c in range(values.shape[2]):
            last = 0.0
            for k in range(values.shape[1]):
                last = last if math.isnan(values[i, k, c]) else values[i, k, c]
                out[i, k, c] = last
    return out


def test_fills_equal_the_scalar_loops():
    """Also where a channel of a series is empty, and behind the end of short series."""
    padded = batch(missing=0.7)
    assert np.isnan(padded.values).all(axis=1).any()
    np.testing.assert_allclose(
        fill(padded.times, padded.values), slow_fill(padded.times, padded.values), atol=EXACT
    )
    np.testing.assert_array_equal(fill_forward(padded.values), slow_fill_forward(padded.values))


def test_cubic_meets_its_conditions():
    """Values and slopes at both ends of every interval; slopes are backward differences."""
    padded = batch(missing=0)
    path = make_path(padded.times, padded.values, "hermite")
    t, x = padded.times[0], padded.values[0]
    slopes = np.diff(x, axis=0) / np.diff(t)[:, None]
    for k in range(len(t)):
        value, slope = at(path, t[k])[0], path.derivative(torch.tensor(t[k]))[0]
        np.testing.assert_allclose(value, x[k], atol=EXACT)
        if k < len(t) - 1:
            np.testing.assert_allclose(slope, slopes[max(k - 1, 0)], rtol=1e-9)
            before = path.derivative(torch.tensor(np.nextafter(t[k + 1], 0)))[0]
            np.testing.assert_allclose(before, slopes[k], rtol=1e-6)


@pytest.mark.parametrize("kind", ["hermite", "linear", "rectilinear"])
def test_derivative_is_that_of_the_value(kind):
    """Central differences inside intervals; zero outside a series' span."""
    padded = batch()
    path = make_path(padded.times, padded.values, kind)
    low, high = (float(e[0]) for e in path.ends)
    for t in np.linspace(low + 0.0123, high - 0.0123, 18):
        numerical = (at(path, t + 1e-6) - at(path, t - 1e-6)) / 2e-6
        assert torch.allclose(path.derivative(torch.tensor(t)), numerical, rtol=1e-4, atol=1e-4)
    beyond = torch.tensor(max(float(e) for e in path.ends[1]) + 1.0, dtype=torch.float64)
    assert float(path.derivative(beyond).abs().max()) == 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_own_clocks_are_common_clocks_one_by_one(kind):
    """t of shape (B, 1) against B calls; samples do not see each other."""
    padded = batch()
    path = make_path(padded.times, padded.values, kind)
    clocks = torch.linspace(-0.1, 1.3, 5, dtype=torch.float64)[:, None]
    together = path.evaluate(clocks)
    for i in range(5):
        assert torch.equal(together[i], path.evaluate(clocks[i, 0])[i])
        alone = make_path(padded.times[i : i + 1], padded.values[i : i + 1], kind)
        assert torch.allclose(alone.evaluate(clocks[i, 0])[0], together[i], rtol=0, atol=EXACT)


@pytest.mark.parametrize("kind", KINDS)
def test_constant_outside_the_observations(kind):
    """Before the first and after the last time, short series included."""
    padded = batch(missing=0)
    path = make_path(padded.times, padded.values, kind)
    ends = [torch.stack([e - s for e in path.ends]) for s in (0.0, 5.0, -5.0)]
    first, last = at(path, ends[0][0][:, None]), at(path, ends[0][1][:, None])
    assert torch.equal(at(path, ends[1][0][:, None]), first)
    assert torch.allclose(at(path, ends[2][1][:, None]), last, rtol=0, atol=EXACT)
    final = np.stack([v[n - 1] for v, n in zip(padded.values, padded.lengths, strict=True)])
    np.testing.assert_allclose(last[:, -3:], final, atol=EXACT)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("j", [2, 4])
def test_what_a_path_knows(kind, j):
    """Changing x_j: held until t_j, rectilinear until s = 2j - 1, the others until t_{j-1} unchanged."""
    padded = batch(missing=0)
    changed = padded.values.copy()
    changed[0, j] += 1.0
    paths = [make_path(padded.times, v, kind) for v in (padded.values, changed)]
    t = padded.times[0]
    known = {"held": np.nextafter(t[j], 0), "rectilinear": 2.0 * j - 1}.get(kind, t[j - 1])
    for s in np.linspace(float(paths[0].ends[0][0]), known, 40):
        assert torch.equal(at(paths[0], s)[0], at(paths[1], s)[0])
    after = known + (
        1e-3 if kind in ("hermite", "linear") else 0.5 if kind == "rectilinear" else 1e-9
    )
    assert not torch.equal(at(paths[0], after)[0], at(paths[1], after)[0])


def test_causal_paths_fill_from_the_past_only():
    """A value observed at t_j does not show in a gap before it."""
    times = np.array([[0.0, 1.0, 2.0]])
    values = np.array([[[1.0, math.nan], [math.nan, math.nan], [3.0, 5.0]]])
    held = make_path(times, values, "held")
    assert at(held, 1.9).tolist() == [[1.0, 0.0]]
    assert at(make_path(times, values, "linear"), 1.5).tolist() == [[2.5, 5.0]]
    assert at(make_path(times, values, "rectilinear"), 2.0).tolist() == [[1.0, 1.0, 0.0]]


@pytest.mark.parametrize(
    ("kind", "causal", "message"),
    [
        ("hermite", True, "cannot be causal"),
        ("held", False, "would fill it from the future"),
        ("spline", None, "choose one of hermite"),
    ],
)
def test_paths_that_are_not_what_was_asked(kind, causal, message):
    padded = batch()
    with pytest.raises(ValueError, match=message):
        make_path(padded.times, padded.values, kind, causal=causal)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_step_that_ends_in_a_knot_finds_it(dtype):
    """t_i in the states' precision is t_i to the path: held values change there and not a step later."""
    times = np.array([[0.0, 0.1, 0.7, 1.3]])
    path = make_path(times, np.arange(4.0).reshape(1, 4, 1), "held", dtype=dtype)
    found = [float(path.evaluate(torch.tensor(t, dtype=torch.float64).to(dtype))) for t in times[0]]
    assert found == [0.0, 1.0, 2.0, 3.0]


@pytest.mark.parametrize("kind", KINDS)
def test_dtype_is_kept(kind):
    padded = batch()
    path = make_path(padded.times, padded.values, kind, dtype=torch.float32)
    t = torch.tensor(0.5, dtype=torch.float32)
    assert path.evaluate(t).dtype is path.derivative(t).dtype is torch.float32


@pytest.mark.parametrize("kind", KINDS)
def test_tables_and_parts_are_the_path(kind):
    """Many times at once equal single ones; taken samples keep their paths, repeated ones included."""
    padded = batch()
    path = make_path(padded.times, padded.values, kind)
    points = torch.linspace(-0.1, 1.3, 35, dtype=torch.float64).reshape(5, 7)
    values, slopes = path.table(points)
    for k in range(7):
        assert torch.equal(values[:, k], path.evaluate(points[:, k : k + 1]))
        assert torch.equal(slopes[:, k], path.derivative(points[:, k : k + 1]))
    chosen = torch.tensor([3, 0, 3])
    part = path.take(chosen)
    assert (type(part), part.channels) == (type(path), path.channels)
    for whole, own in zip((values, slopes, *path.ends), (*part.table(points[chosen]), *part.ends)):
        assert torch.equal(whole[chosen], own)


@pytest.mark.parametrize("kind", KINDS)
def test_means_are_integrals(kind):
    """Against the midpoint rule with 4000 points, inside, across knots and beyond both ends; X for no time."""
    padded = batch()
    path = make_path(padded.times, padded.values, kind)
    low, high = (float(e[0]) for e in path.ends)
    points = torch.linspace(low - 0.2, high + 0.3, 9, dtype=torch.float64).expand(5, 9).clone()
    points[:, 4] = points[:, 3]
    share = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    means = path.means(points)
    for k in range(8):
        at_once = points[:, k : k + 1] + share * (points[:, k + 1] - points[:, k])[:, None]
        # A jump of a held path inside an interval costs the rule at most its size / 8000.
        allowed = 2e-3 if kind == "held" else 1e-5
        assert torch.allclose(means[:, k], path.table(at_once)[0].mean(1), rtol=0, atol=allowed), k
    assert torch.equal(means[:, 3], path.table(points)[0][:, 3])
