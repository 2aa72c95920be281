"""The one door to DeepXDE's geometries, opened late.

In    a declared region that is not a box.
Out   so far only the refusal; DeepXDE is imported nowhere else in the package.
Next  samplers on curved regions.
"""

from __future__ import annotations

import importlib
import os
from types import ModuleType
from typing import Any

from pinnkit.errors import MissingDependencyError, UnsupportedProblemError

__all__ = ["check_box", "load_deepxde"]


def load_deepxde() -> ModuleType:
    """The deepxde module on its torch backend.

    Without a chosen backend deepxde would try all of them and write a file into the home directory;
    the variable is set only around the import, and only if the user has not set it.
    """
    chosen = os.environ.get("DDE_BACKEND")
    try:
        if chosen is None:
            os.environ["DDE_BACKEND"] = "pytorch"
        return importlib.import_module("deepxde")
    except ImportError as error:
        raise MissingDependencyError("curved regions need deepxde: pip install deepxde") from error
    finally:
        if chosen is None:
            os.environ.pop("DDE_BACKEND", None)


def check_box(region: Any) -> None:
    """Refuse a region that is not a box, by name: never a bounding box in its place."""
    if region is not None:
        raise UnsupportedProblemError(
            f"the domain {region} is not a box, and no solver handles it yet. "
            "Use a Box, or products of Intervals."
        )
