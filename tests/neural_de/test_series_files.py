"""Models of series in files, and training that goes on where it stopped.

Law: saved and loaded it is the same function; 2 + 3 steps are 5 steps, to the bit.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import sympy as sp
import torch
from torch import nn

import pinnkit as pk
from pinnkit.declare.series_target import SeriesTarget
from pinnkit.neural_de import DormandPrince, Recompute
from pinnkit.train.checkpoint import ArchiveError

SMALL = pk.NeuralSDE(width=6, steps=4, batch=8, samples=2)


def series(n: int = 24, *, targets: bool = False, seed: int = 0) -> pk.IrregularSeries:
    """Two channels with gaps at irregular times; the label is the sign of a mean."""
    rng = np.random.default_rng(seed)
    times = [np.sort(rng.uniform(2, 5, 6)) for _ in range(n)]
    values = [rng.normal(size=(6, 2)) for _ in range(n)]
    labels = [("high", "low")[int(v.mean() < 0)] for v in values]
    for v in values:
        v[rng.integers(6), 0] = math.nan
    if targets:
        return pk.IrregularSeries(times, values, targets=[np.nan_to_num(v) for v in values])
    return pk.IrregularSeries(times, values, labels=labels)


def problems() -> dict[str, tuple[Any, pk.NeuralSDE]]:
    """One of each kind of model."""
    t = pk.coords("t")
    z, y, W, X = (
        pk.process("z", t, dim=3),
        pk.process("y", t),
        pk.wiener("W", t),
        pk.control("X", t),
    )
    f, k = pk.neural("f", inputs=(z, X, y)), pk.parameter("k", initial=0.5, bounds=(0, 2))
    equations = [sp.Eq(pk.d(z), f * pk.d(t) + 0.1 * pk.d(W)), sp.Eq(pk.d(y), -k * y * pk.d(t))]
    start = {z: pk.neural("s", inputs=(X,)), y: 1.0}
    mixed = pk.SDESystem(equations, data=series(), initial=start)
    plain = pk.SDESystem([sp.Eq(pk.d(z), pk.neural("g", inputs=(z,)) * pk.d(t))], data=series())
    adaptive = pk.NeuralSDE(width=6, batch=8, samples=1, method=DormandPrince(rtol=1e-2))
    return {
        "linear noise": (pk.LinearNoiseSDE(data=series(), dim=3, restoring=1.0), SMALL),
        "geometric": (pk.GeometricSDE(data=series(targets=True), dim=3), SMALL),
        "bounded": (pk.LangevinSDE(data=series(), dim=3, form="bounded"), SMALL),
        "mixed": (mixed, pk.NeuralSDE(width=6, steps=4, batch=8, backward=Recompute(2))),
        "adaptive": (plain, adaptive),
        "recurrent": (SeriesTarget(series(), dim=4), SMALL),
    }


@pytest.mark.parametrize("kind", problems())
def test_saved_and_loaded_is_the_same_function(kind, tmp_path):
    problem, solver = problems()[kind]
    sol = pk.solve(problem, solver, max_steps=2, dtype=torch.float32)
    path = tmp_path / "model.pinn"
    sol.save(path)
    back = pk.load(path)
    fresh = series(5, targets=kind == "geometric", seed=1)
    for a, b in zip(sol.predict(fresh), back.predict(fresh), strict=True):
        assert np.array_equal(a, b)
    assert np.array_equal(sol.sample(fresh, 2), back.sample(fresh, 2))
    assert (back.status, back.ok, back.dtype, back.stats.steps) == (sol.status, None, sol.dtype, 2)
    assert back.history["loss"] == sol.history["loss"]
    assert {str(p): e for p, e in back.parameters.items()} == {
        str(p): e for p, e in sol.parameters.items()
    }
    assert type(back.problem) is type(problem)
    assert back.problem.system.data is None
    assert pk.citation(back) == pk.citation(sol) or "NeuralSDE" in repr(back.solver)


def test_loaded_stability_needs_series(tmp_path):
    """The class survives the file, its series do not."""
    sol = pk.LinearNoiseSDE(data=series(), dim=3, restoring=1.0).solve(SMALL, max_steps=1)
    sol.save(tmp_path / "a.pinn")
    back = pk.load(tmp_path / "a.pinn")
    with pytest.raises(ValueError, match="has no series"):
        back.stability()
    assert back.stability(series())[0].statement == sol.stability()[0].statement


@pytest.mark.parametrize("kind", ["mixed", "recurrent"])
def test_resumed_training_is_uninterrupted_training(kind, tmp_path):
    """From a checkpoint, a solution and a saved solution alike, optimiser and shuffling included."""
    problem, solver = problems()[kind]
    whole = pk.solve(problem, solver, max_steps=5)
    path = tmp_path / "training.pinn"
    first = pk.solve(problem, solver, max_steps=2, checkpoint=(path, 1))
    saved = tmp_path / "first.pinn"
    first.save(saved)
    for source in (path, first, saved):
        sol = pk.solve(problem, solver, max_steps=5, resume=source)
        assert sol.history["loss"] == whole.history["loss"]
        for a, b in zip(sol.module.parameters(), whole.module.parameters(), strict=True):
            assert torch.equal(a, b)


def test_other_data_is_another_problem(tmp_path):
    path = tmp_path / "training.pinn"
    problem = pk.LangevinSDE(data=series(), dim=2)
    problem.solve(SMALL, max_steps=1, checkpoint=path)
    with pytest.raises(ValueError, match="belongs to another problem"):
        pk.LangevinSDE(data=series(seed=3), dim=2).solve(SMALL, max_steps=2, resume=path)
    t = pk.coords("t")
    y = pk.field("y", t)
    ode = pk.PDESystem([y.diff(t) + y], pk.Interval(t, 0, 1), [pk.Initial(y, 1)])
    field = ode.solve(pk.CausalPINN(), max_steps=1, verify=False)
    with pytest.raises(TypeError, match="must be a SeriesSolution"):
        problem.solve(SMALL, max_steps=2, resume=field)


def test_what_cannot_be_saved_says_so(tmp_path):
    """A user's own network is not described by a file; neither half of one is left behind."""

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 2, dtype=torch.float64)

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return torch.tanh(self.inner(z))

    t = pk.coords("t")
    z = pk.process("z", t, dim=3)
    equation = sp.Eq(pk.d(z), pk.neural("g", inputs=(z,)) * pk.d(t))
    sol = pk.SDESystem([equation], data=series(), readout=Own()).solve(SMALL, max_steps=1)
    with pytest.raises(TypeError, match="Own cannot be written to a file"):
        sol.save(tmp_path / "a.pinn")
    assert not list(tmp_path.iterdir())


def test_a_tampered_file_is_refused(tmp_path):
    sol = pk.LangevinSDE(data=series(), dim=2).solve(SMALL, max_steps=1)
    path = tmp_path / "a.pinn"
    sol.save(path)
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b'"EulerMaruyama"', b'"EulerMaruyamb"'))
    with pytest.raises(ArchiveError):
        pk.load(path)
