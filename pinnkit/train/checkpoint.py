"""Files that survive a kill and execute nothing: JSON and tensors in a zip, written atomically.

In    a dictionary of JSON-able records and a nested dictionary of tensors and plain numbers.
Out   a file that is either the old one or the new one, never half of one.
Next  `pinnkit.driver` writes checkpoints with it, `solution.files` saves solutions with it.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "ArchiveError",
    "archive_kind",
    "plain_copy",
    "read_archive",
    "write_archive",
    "write_atomically",
]

TENSORS = "tensors.pt"
RECORD = "record.json"
LARGEST_RECORD = 64 * 2**20  # bytes of JSON; a larger one is no file of ours
PLAIN = (bool, int, float, str, type(None))


class ArchiveError(ValueError):
    """The file is not one of ours, is damaged, or holds something that could be executed."""


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` so that after a crash at any moment `path` holds the old content or the new."""
    target = Path(path)
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def write_archive(
    path: str | os.PathLike[str], record: Mapping[str, Any], tensors: Mapping[str, Any]
) -> None:
    """`record` goes to JSON, `tensors` (nested dicts and lists of tensors and plain values) to torch."""
    packed = io.BytesIO()
    torch.save(plain_copy(tensors, "state"), packed)
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(RECORD, json.dumps(record))
        archive.writestr(TENSORS, packed.getvalue())
    write_atomically(path, whole.getvalue())


def read_archive(
    path: str | os.PathLike[str], *, kind: str, device: torch.device | str = "cpu"
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(record, tensors) of an archive whose record says `"format": kind`; nothing in it is executed."""
    name = Path(path).name
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(RECORD).file_size > LARGEST_RECORD:
                raise ArchiveError(f"{name}: its record is too large to be one of ours")
            record = json.loads(archive.read(RECORD).decode("utf-8"))
            if not isinstance(record, dict) or record.get("format") != kind:
                raise ArchiveError(f"{name} is no {kind} file")
            packed = io.BytesIO(archive.read(TENSORS))
            if not zipfile.is_zipfile(
                packed
            ):  # a bare pickle; torch.save has not written those since 1.6
                raise pickle.UnpicklingError("a bare pickle")
            packed.seek(0)
            # weights_only: an unpickler that knows tensors and plain containers, nothing else.
            tensors = torch.load(packed, map_location=device, weights_only=True)
    except (zipfile.BadZipFile, KeyError, UnicodeDecodeError, json.JSONDecodeError) as fault:
        raise ArchiveError(f"{name} is no {kind} file, or it is damaged: {fault}") from fault
    except (pickle.UnpicklingError, RuntimeError, EOFError) as fault:
        raise ArchiveError(
            f"{name}: its tensors cannot be read without executing code, or are damaged"
        ) from fault
    if not isinstance(tensors, dict):
        raise ArchiveError(f"{name}: its tensors are no dictionary")
    return record, tensors


def archive_kind(path: str | os.PathLike[str]) -> str | None:
    """What the archive's record says it is; None for a file that is no archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(RECORD).file_size > LARGEST_RECORD:
                return None
            record = json.loads(archive.read(RECORD).decode("utf-8"))
    except (zipfile.BadZipFile, KeyError, UnicodeDecodeError, json.JSONDecodeError):
        return None
    return record.get("format") if isinstance(record, dict) else None


def plain_copy(value: Any, where: str) -> Any:
    """`value` with tensors detached and copied to the CPU; anything else than plain values is refused."""
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, Mapping):
        return {_key(k, where): plain_copy(v, f"{where}[{k!r}]") for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        parts = [plain_copy(v, f"{where}[{i}]") for i, v in enumerate(value)]
        return tuple(parts) if isinstance(value, tuple) else parts
    raise TypeError(
        f"{where} is a {type(value).__name__}; files hold tensors, numbers, strings, lists and dicts"
    )


def _key(key: Any, where: str) -> Any:
    if not isinstance(key, PLAIN):
        raise TypeError(f"{where} has a key of type {type(key).__name__}; use strings or integers")
    return key


def _umask() -> int:
    # There is no call that reads the mask without setting it.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    """Make the renaming itself durable where the system lets us (not on Windows)."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
