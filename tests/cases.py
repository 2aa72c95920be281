"""What the contract suite runs: solvers x problems. A new solver or problem is one line here.

Everything is made when asked for, so that a solver or problem that cannot be made fails its own
tests and no others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pinnkit as pk
from pinnkit import problems  # pyright: ignore[reportAttributeAccessIssue]

__all__ = ["FAST_FOR_CLASSICAL", "PROBLEMS", "SOLVERS", "STEPS", "TIME_LIMITS"]

SOLVERS: dict[str, Callable[[], Any]] = {
    "CausalPINN": lambda: pk.CausalPINN(),
    "MethodOfLines": lambda: pk.MethodOfLines(),
}

# Enough to move every part of a solver once; a direct method does all its work in one step.
STEPS = {"CausalPINN": 2, "MethodOfLines": 1}

# Seconds; a quarter of them is for the error estimate, which chaotic problems use up.
TIME_LIMITS = {"CausalPINN": 30, "MethodOfLines": 120}

PROBLEMS: dict[str, Callable[[], Any]] = {cls.__name__: cls for cls in problems.GALLERY}

# A direct method really solves: only problems it does in about a second belong in the default run.
FAST_FOR_CLASSICAL = (
    "Heat1D",
    "Poisson1D",
    "Poisson2D",
    "Poisson5D",
    "LayeredConduction",
    "EulerBernoulliBeam",
    "Convection",
    "Logistic",
    "Wave",
    "LotkaVolterra",
)
