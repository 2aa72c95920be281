"""Saving and loading: everything comes back; a hostile file executes nothing."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pinnkit as pk
from pinnkit.solution import files
from pinnkit.train.checkpoint import ArchiveError
from tests.solution.fakes import EXACT, Classical, Halving, Polynomial, coefficients, t, u, x


@pytest.fixture
def saved(
    classical: Classical, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> tuple[pk.Solution, Path]:
    monkeypatch.setitem(files.KINDS, "network", Polynomial)
    monkeypatch.setattr("pinnkit.driver.SOLVERS", (Halving,))
    problem = pk.PDESystem(
        [u.diff(t) - u.diff(x, 2)],
        domain=pk.Interval(t, 0, 1) * pk.Interval(x, 0, 1),
        conditions=[
            pk.Initial(u, x**2),
            pk.Dirichlet(u, 2 * t, on=pk.boundary(x, "left")),
            pk.Dirichlet(u, 1 + 2 * t, on=pk.boundary(x, "right")),
        ],
    )
    sol = pk.solve(problem, Halving(noise=1e-6), max_steps=40)
    sol.save(tmp_path / "a.pinn")
    return sol, tmp_path / "a.pinn"


def test_everything_comes_back(saved: tuple[pk.Solution, Path]):
    sol, path = saved
    back = pk.load(path)
    points = {"t": [0.1, 0.5], "x": 0.3}
    np.testing.assert_array_equal(back(**points), sol(**points))
    assert (back.status, back.evidence, back.ok) == (sol.status, sol.evidence, sol.ok)
    assert back.error_estimate == sol.error_estimate and dict(back.errors) == dict(sol.errors)
    assert back.stats == sol.stats and back.history.losses == sol.history.losses
    assert repr(back.solver) == repr(sol.solver)
    assert back.error(EXACT) == sol.error(EXACT)
    assert back.problem.equations == sol.problem.equations


def test_a_loaded_solution_can_be_resumed_and_saved_again(saved: tuple[pk.Solution, Path]):
    sol, path = saved
    on = pk.solve(sol.problem, Halving(noise=1e-6), max_steps=50, resume=path)
    whole = pk.solve(sol.problem, Halving(noise=1e-6), max_steps=50)
    assert torch.equal(coefficients(on), coefficients(whole))
    pk.load(path).save(path.with_name("b.pinn"))
    assert pk.load(path.with_name("b.pinn")).stats == sol.stats


def rewritten(path: Path, change: Callable[[dict[str, Any]], None], tensors: bytes = b"") -> Path:
    with zipfile.ZipFile(path) as archive:
        record = json.loads(archive.read("record.json"))
        packed = tensors or archive.read("tensors.pt")
    change(record)
    bad = path.with_name("bad.pinn")
    with zipfile.ZipFile(bad, "w") as archive:
        archive.writestr("record.json", json.dumps(record))
        archive.writestr("tensors.pt", packed)
    return bad


class Bomb:
    def __reduce__(self):
        return (os.mkdir, (os.environ["BOMB"],))


def test_a_hostile_file_executes_nothing(
    saved: tuple[pk.Solution, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    _, path = saved
    target = tmp_path / "went_off"
    monkeypatch.setenv("BOMB", str(target))
    code = f"__import__('os').mkdir({str(target)!r})"

    def poison(value: Any) -> Any:
        """Every string of the record becomes code."""
        if isinstance(value, dict):
            return {k: poison(v) for k, v in value.items()}
        if isinstance(value, list):
            return [poison(v) for v in value]
        return code if isinstance(value, str) else value

    def in_problem(record: dict[str, Any]) -> None:
        record["problem"] = poison(record["problem"])

    def in_problem_text(record: dict[str, Any]) -> None:
        record["problem"] = code

    def in_solver(record: dict[str, Any]) -> None:
        record["solver"] = {"name": "os.system", "repr": code, "fields": {"command": code}}

    def in_kind(record: dict[str, Any]) -> None:
        record["approximation"]["kind"] = "os.system"

    def in_status(record: dict[str, Any]) -> None:
        record["status"] = code

    for change in (in_problem, in_problem_text, in_kind, in_status):
        with pytest.raises(ArchiveError, match="damaged or was tampered with"):
            pk.load(rewritten(path, change))
    assert repr(pk.load(rewritten(path, in_solver)).solver) == code  # text, no more
    packed = io.BytesIO()
    torch.save({"approximation": {"coefficients": Bomb()}}, packed)
    for payload in (packed.getvalue(), pickle.dumps(Bomb())):
        with pytest.raises(ArchiveError, match="without executing code"):
            pk.load(rewritten(path, lambda record: None, payload))
    assert not target.exists()


def test_another_version_and_another_kind_of_file_are_named(saved: tuple[pk.Solution, Path]):
    _, path = saved

    def newer(record: dict[str, Any]) -> None:
        record["version"] = 99

    with pytest.raises(ArchiveError, match="has version 99; this pinnkit reads version 1"):
        pk.load(rewritten(path, newer))
    (path.with_name("text")).write_text("hello")
    with pytest.raises(ArchiveError, match="text is no pinnkit solution file"):
        pk.load(path.with_name("text"))
