"""Archives: atomic, exact, and nothing in them is executed."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from pinnkit.train.checkpoint import (
    ArchiveError,
    read_archive,
    write_archive,
    write_atomically,
)


def test_archive_round_trips_bit_for_bit(tmp_path: Path):
    generator = torch.Generator().manual_seed(0)
    state = {
        "w": torch.randn(5, 3, generator=generator, dtype=torch.float64),
        "nested": [{"a": (1, 2.5, None, True)}, generator.get_state()],
    }
    write_archive(tmp_path / "a", {"format": "test", "x": [1, "two"]}, state)
    record, back = read_archive(tmp_path / "a", kind="test")
    assert record == {"format": "test", "x": [1, "two"]}
    assert torch.equal(back["w"], state["w"])
    assert back["nested"][0] == {"a": (1, 2.5, None, True)}
    assert torch.equal(back["nested"][1], state["nested"][1])


def test_what_would_need_code_to_read_back_is_refused_when_written(tmp_path: Path):
    with pytest.raises(TypeError, match=r"state\['a'\]\[0\] is a ndarray"):
        write_archive(tmp_path / "a", {"format": "test"}, {"a": [np.zeros(2)]})
    assert not (tmp_path / "a").exists()


class Bomb:
    def __reduce__(self):
        return (os.mkdir, (os.environ["BOMB"],))


def test_a_hostile_archive_executes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BOMB", str(tmp_path / "went_off"))
    buffer = io.BytesIO()
    torch.save({"w": Bomb()}, buffer)
    for payload in (buffer.getvalue(), pickle.dumps({"w": Bomb()})):
        with zipfile.ZipFile(tmp_path / "bad", "w") as archive:
            archive.writestr("record.json", json.dumps({"format": "test"}))
            archive.writestr("tensors.pt", payload)
        with pytest.raises(ArchiveError, match="cannot be read without executing code"):
            read_archive(tmp_path / "bad", kind="test")
    assert not (tmp_path / "went_off").exists()


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 half"])
def test_garbage_is_a_clear_error(tmp_path: Path, content: bytes):
    (tmp_path / "bad").write_bytes(content)
    with pytest.raises(ArchiveError, match="bad is no test file, or it is damaged"):
        read_archive(tmp_path / "bad", kind="test")


def test_a_failed_write_leaves_the_old_file_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_atomically(tmp_path / "f", b"old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(tmp_path / "f", b"new")
    assert (tmp_path / "f").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
