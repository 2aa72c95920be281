"""`IrregularSeries`: what it refuses, what it reads, and that nothing leaks between parts."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pandas as pd
import pytest

import pinnkit as pk
from pinnkit.declare import IrregularSeries

EXACT = 1e-12


def made(n=40, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, 9, n)
    return IrregularSeries(
        [np.sort(rng.uniform(0, 1, k)) for k in lengths],
        [rng.normal(3.0, 2.0, size=(k, 2)) for k in lengths],
        labels=np.arange(n) % classes,
        targets=rng.normal(size=n),
    )


@pytest.mark.parametrize(
    ("times", "values", "message"),
    [
        (
            [[0, 2, 1]],
            [[1, 2, 3]],
            r"series 0: its time goes back after entry 1, from 2 to 1\. Sort",
        ),
        ([[0, 1], [0, 1, 1]], [[1, 2], [1, 2, 3]], "series 1: its time repeats after entry 1"),
        ([[0.0]], [[1.0]], "series 0: it has 1 time, and a path needs two"),
        ([[0, math.nan]], [[1, 2]], "a time is nan"),
        ([[0, 1, 2]], [[1, 2]], "one time per row"),
        ([[0, 1]], [[1, math.inf]], "value 1 is infinite"),
        ([[0, 1]], [[math.nan, math.nan]], "nothing in it was observed"),
        ([[0, 1]] * 2, [[[1, math.nan]] * 2] * 2, "'channel 1' is empty in every series"),
        ([[0, 1]] * 2, [[[1, 2]] * 2, [[1]] * 2], "it has 1 channels, and series 0 has 2"),
        ([[0, 1]], [], "there is no series"),
        ([[0, 1], [0, 1]], [[1, 2]], "times of 2 series and values of 1"),
        ([[0, 1]], [["a", "b"]], "its values are no numbers"),
    ],
)
def test_bad_data_are_named(times, values, message):
    with pytest.raises(pk.DeclarationError, match=message):
        IrregularSeries(times, values)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"labels": [0]}, r"labels of shape \(1,\) for 2 series"),
        ({"labels": [0.5, 1.0]}, "expected whole numbers or strings"),
        ({"targets": [1.0, math.nan]}, "a target is nan"),
        ({"targets": [[[1.0]], [[1.0]]]}, "one row per time"),
        ({"channels": ["a", "b"]}, "the values have 1 channels"),
    ],
)
def test_bad_labels_and_targets_are_named(extra, message):
    with pytest.raises(pk.DeclarationError, match=message):
        IrregularSeries([[0, 1], [0, 1]], [[1, 2], [1, 2]], **extra)


def test_an_empty_channel_of_one_series_is_allowed():
    data = IrregularSeries([[0, 1], [0, 1]], [[[1, 2], [1, 2]], [[1, math.nan], [1, math.nan]]])
    assert data.missing == 0.25


def test_shared_times_and_three_dimensional_values():
    data = IrregularSeries(np.linspace(0, 1, 5), np.zeros((3, 5, 2)), labels=["b", "a", "b"])
    assert (len(data), data.n_channels, data.classes) == (3, 2, ("a", "b"))
    assert data.label_index is not None and data.label_index.tolist() == [1, 0, 1]


def test_parts_keep_what_belongs_to_them():
    data = made()
    part = data[[3, 5]]
    assert np.array_equal(part.times[1], data.times[5])
    assert part.labels is not None and part.labels.tolist() == [3, 1]
    assert part.classes == data.classes
    assert isinstance(data.targets, np.ndarray) and isinstance(part.targets, np.ndarray)
    assert part.targets[1, 0] == data.targets[5, 0]
    assert len(data[2]) == 1 and len(list(data)) == 40


def test_series_are_immutable_and_picklable():
    data = made()
    with pytest.raises(AttributeError, match="immutable"):
        data.times = ()  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        data.values[0][0] = 1.0
    again = pickle.loads(pickle.dumps(data))
    assert repr(again) == repr(data)
    assert all(np.array_equal(a, b) for a, b in zip(again.values, data.values, strict=True))


@pytest.mark.parametrize("per", ["channel", "time"])
def test_dropping_is_seeded_and_of_the_right_size(per):
    """The same series lose the same observations whatever the others are; every series stays a path."""
    data = made(200)
    less = data.drop(0.5, seed=3, per=per)
    again = data[:50].drop(0.5, seed=3, per=per)
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(less.values[:50], again.values))
    other = data.drop(0.5, seed=4, per=per)
    assert any(not np.array_equal(a, b, equal_nan=True) for a, b in zip(less.values, other.values))
    left = sum(int((~np.isnan(v)).sum()) for v in less.values)
    assert left / sum(v.size for v in data.values) == pytest.approx(0.5, abs=0.06)
    assert all(len(t) >= 2 for t in less.times)
    assert not any(np.isnan(v).all() for v in less.values)
    assert data.missing == 0


def test_normalisation_is_that_of_the_training_part():
    """Observed values only; what is fitted to one part never looks at another."""
    data = made(100).drop(0.3, seed=0)
    train, test = data.split((0.8, 0.2), seed=0)
    fitted = train.normalisation()
    together = np.concatenate(fitted.apply(train).values)
    np.testing.assert_allclose(np.nanmean(together, 0), 0, atol=EXACT)
    np.testing.assert_allclose(np.nanstd(together, 0), 1, atol=EXACT)
    moved = test.with_values([v + 100 for v in test.values])
    assert np.nanmean(np.concatenate(fitted.apply(moved).values)) > 40
    np.testing.assert_allclose(
        fitted.undo(fitted.apply(test).values[0]), test.values[0], atol=EXACT
    )
    times = np.concatenate(fitted.apply(train).times)
    assert (times.min(), times.max()) == (0.0, 1.0)


def test_a_constant_channel_keeps_its_size():
    data = IrregularSeries([[0, 1], [0, 1]], [[0.1, 0.1], [0.1, 0.1]])
    np.testing.assert_allclose(data.normalisation().apply(data).values[0], 0, atol=EXACT)


def test_other_channels_are_refused():
    with pytest.raises(pk.DeclarationError, match="fitted to 2 channels, and the series have 1"):
        made().normalisation().apply(IrregularSeries([[0, 1]], [[1, 2]]))


def test_splits_are_disjoint_complete_and_stratified():
    data = made(200)
    marked = data.with_values([np.full_like(v, i) for i, v in enumerate(data.values)])
    parts = marked.split((0.7, 0.15, 0.15), seed=1)
    members = [{int(v[0, 0]) for v in part.values} for part in parts]
    assert set.union(*members) == set(range(200))
    assert sum(map(len, members)) == 200
    for part, share in zip(parts, (0.7, 0.15, 0.15), strict=True):
        assert part.label_index is not None
        counts = np.bincount(part.label_index, minlength=4)
        assert np.abs(counts - 50 * share).max() <= 1
    again = marked.split((0.7, 0.15, 0.15), seed=1)
    assert all(np.array_equal(a.values[0], b.values[0]) for a, b in zip(parts, again))


def test_groups_are_never_torn_apart():
    data = made(120)
    groups = np.repeat(np.arange(30), 4)
    marked = data.with_values([np.full_like(v, g) for g, v in zip(groups, data.values)])
    members = [{int(v[0, 0]) for v in p.values} for p in marked.split(seed=0, groups=groups)]
    assert not (members[0] & members[1] or members[0] & members[2] or members[1] & members[2])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: d.split((0.5, 0.6), seed=0), "add up to 1"),
        (lambda d: d[:2].split((0.9, 0.05, 0.05), seed=0), "would be empty"),
        (lambda d: d.split(seed=0, groups=[1]), "1 names for 40 series"),
        (lambda d: d.drop(1.0, seed=0), "the rate is no share"),
        (lambda d: d.drop(0.5, seed=0, per="row"), "'row' is unknown"),
        (lambda d: d[[]], "nothing is selected"),
    ],
)
def test_bad_requests_are_named(call, message):
    with pytest.raises(pk.DeclarationError, match=message):
        call(made())


def test_ts_files(tmp_path):
    """Unequal lengths, missing values, labels; and the form with time stamps."""
    plain = tmp_path / "a.ts"
    plain.write_text(
        "# made up\n@problemName a\n@timeStamps false\n@classLabel true x y\n@data\n"
        "1,2,?:4,5,6:x\n1,2:3,4:y\n"
    )
    data = IrregularSeries.from_ts(plain)
    assert (
        repr(data) == "IrregularSeries(2 series, 2 to 3 times, 2 channels, 10 % missing, 2 classes)"
    )
    assert data.labels is not None and data.labels.tolist() == ["x", "y"]
    stamped = tmp_path / "b.ts"
    stamped.write_text("@timeStamps true\n@targetLabel true\n@data\n(0,1.5),(0.5,2):(0.25,7):3.5\n")
    data = IrregularSeries.from_ts(stamped)
    assert data.times[0].tolist() == [0.0, 0.25, 0.5]
    np.testing.assert_array_equal(data.values[0][:, 1], [math.nan, 7.0, math.nan])
    assert isinstance(data.targets, np.ndarray) and data.targets.tolist() == [[3.5]]
    bad = tmp_path / "c.ts"
    bad.write_text("@data\n1,two,3\n")
    with pytest.raises(pk.DeclarationError, match=r"c\.ts, line 2: it cannot be read"):
        IrregularSeries.from_ts(bad)


def test_pandas_tables():
    frame = pd.DataFrame(
        {
            "id": [2, 1, 1, 2],
            "when": [1.0, 3.0, 0.5, 0.0],
            "x": [1.0, 2, 3, 4],
            "y": ["b", "a", "a", "b"],
        }
    )
    data = IrregularSeries.from_frame(frame, series="id", time="when", values=["x"], label="y")
    assert data.times[0].tolist() == [0.5, 3.0]
    assert data.values[1][:, 0].tolist() == [4.0, 1.0]
    assert data.channels == ("x",)
    assert data.labels is not None and data.labels.tolist() == ["a", "b"]
    with pytest.raises(pk.DeclarationError, match="no column 'z'"):
        IrregularSeries.from_frame(frame, series="id", time="when", values=["z"])
