"""What the contract suite runs: solvers x problems. A new solver or problem is one line here.

Everything is made when asked for, so that a solver or problem that cannot be made fails its own
tests and no others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pinnkit as pk
from pinnkit import problems  # pyright: ignore[reportAttributeAccessIssue]

__all__ = ["EXAMPLES", "FAST_FOR_CLASSICAL", "LARGE", "PROBLEMS", "SOLVERS", "STEPS", "TIME_LIMITS"]

SOLVERS: dict[str, Callable[[], Any]] = {
    "CausalPINN": lambda: pk.CausalPINN(),
    "LagrangianPINN": lambda: pk.LagrangianPINN(),
    "MethodOfLines": lambda: pk.MethodOfLines(),
}

# Enough to move every part of a solver once; a direct method does all its work in one step.
STEPS = {"CausalPINN": 2, "LagrangianPINN": 2, "MethodOfLines": 1}

# Seconds; a quarter of them is for the error estimate, which chaotic problems use up.
TIME_LIMITS = {"CausalPINN": 12, "LagrangianPINN": 12, "MethodOfLines": 120}

# A small problem of the solver's own kind, where it does not take the one a test would use.
EXAMPLES = {"LagrangianPINN": "VariableConvection"}

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

# Two steps and one look at their error take ten seconds: only with --runslow.
LARGE = (
    "GinzburgLandau",
    "GrayScott2D",
    "KuramotoSivashinskyChaotic",
    "NavierStokesPressure",
    "NavierStokesStreamfunction",
    "NavierStokesVorticity",
    "SwirlingDeformation",
)
