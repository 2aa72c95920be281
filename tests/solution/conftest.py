"""Fixtures of the driver's and the solution's tests."""

from __future__ import annotations

import importlib
import signal
from collections.abc import Iterator

import pytest

from tests.solution.fakes import Classical


@pytest.fixture
def classical(monkeypatch: pytest.MonkeyPatch) -> Classical:
    """A stand-in for `pinnkit.classical` wherever verdicts are made."""
    fake = Classical()
    for module in ("pinnkit.solution.verification", "pinnkit.solution.stopping"):
        monkeypatch.setattr(importlib.import_module(module), "classical", fake)
    return fake


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Python's own answer to Ctrl-C, which a suite run in the background starts without."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
