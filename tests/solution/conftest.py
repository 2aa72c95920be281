"""Fixtures of the driver's and the solution's tests."""

from __future__ import annotations

import importlib

import pytest

from tests.solution.fakes import Classical


@pytest.fixture
def classical(monkeypatch: pytest.MonkeyPatch) -> Classical:
    """A stand-in for `pinnkit.classical` wherever verdicts are made."""
    fake = Classical()
    for module in ("pinnkit.solution.verification", "pinnkit.solution.stopping"):
        monkeypatch.setattr(importlib.import_module(module), "classical", fake)
    return fake
