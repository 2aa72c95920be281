"""What the contract suite runs: solvers x problems. A new solver or problem is one line here.

Everything is made when asked for, so that a solver or problem that cannot be made fails its own
tests and no others. Problems are immutable, and declared once for all tests of a process.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pinnkit as pk
from pinnkit import problems  # pyright: ignore[reportAttributeAccessIssue]

__all__ = [
    "EXAMPLES",
    "FAMILIES",
    "FAMILY_SOLVERS",
    "FAST",
    "FAST_FOR_CLASSICAL",
    "FAST_FOR_PROCESS",
    "LARGE",
    "LARGE_FAMILIES",
    "PROBLEMS",
    "SOLVERS",
    "STEPS",
    "TIME_LIMITS",
]

SOLVERS: dict[str, Callable[[], Any]] = {
    "CausalPINN": lambda: pk.CausalPINN(),
    "LagrangianPINN": lambda: pk.LagrangianPINN(),
    "MethodOfLines": lambda: pk.MethodOfLines(),
    "SpectralMixtureGP": lambda: pk.SpectralMixtureGP(),
    "NeuralODE": lambda: pk.NeuralODE(),
}

# Enough to move every part of a solver once; a direct method does all its work in one step.
STEPS = {
    "CausalPINN": 2,
    "LagrangianPINN": 2,
    "MethodOfLines": 1,
    "SpectralMixtureGP": 1,
    "NeuralODE": 2,
}

# Seconds; a quarter of them is for the error estimate, which chaotic problems use up.
TIME_LIMITS = {
    "CausalPINN": 6,
    "LagrangianPINN": 6,
    "MethodOfLines": 120,
    "SpectralMixtureGP": 60,
    "NeuralODE": 60,
}

# A small problem of the solver's own kind, where it does not take the one a test would use.
EXAMPLES = {"LagrangianPINN": "VariableConvection", "NeuralODE": "MissingInteraction"}

PROBLEMS: dict[str, Callable[[], Any]] = {
    cls.__name__: functools.cache(cls) for cls in (*problems.GALLERY, *problems.LAW_GALLERY)
}

# Solvers of families x families of the gallery; these knobs mean something on every kind of box.
FAMILY_SOLVERS: dict[str, Callable[[], Any]] = {
    "HardConstraintMoE": lambda: pk.HardConstraintMoE(
        times=4, nodes=8, stages=1, width=4, depth=1, draws=1
    ),
}

FAMILIES: dict[str, Callable[[], Any]] = {cls.__name__: cls for cls in problems.FAMILY_GALLERY}

# With --runslow only: the solver's own tests learn families of one dimension that are like these.
LARGE_FAMILIES = (
    "DiffusionSorption",
    "DiffusionSorptionInflow",
    "BurgersFamily",
    "ReactionDiffusion",
)

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

# As above for the Gaussian process: smooth or fast solutions in one coordinate, small ones in two.
FAST_FOR_PROCESS = (
    "Heat1D",
    "Poisson1D",
    "Poisson2D",
    "PeriodicPoisson",
    "LayeredConduction",
    "EulerBernoulliBeam",
    "Logistic",
    "HighFrequencyPoisson1D",
    "GrowingWavePoisson1D",
    "MultiScalePoisson1D",
    "SineParabolaPoisson1D",
    "ChirpPoisson1D",
    "Helmholtz1D",
    "FastAdvection",
    "Poisson5D",
)

# Problems of the default run, for solvers that do not only take a few steps.
FAST = {"MethodOfLines": FAST_FOR_CLASSICAL, "SpectralMixtureGP": FAST_FOR_PROCESS}

# Two steps and one look at their error take ten seconds: only with --runslow.
LARGE = (
    "GinzburgLandau",
    "GrayScott2D",
    "KuramotoSivashinskyChaotic",
    "NavierStokesPressure",
    "NavierStokesStreamfunction",
    "NavierStokesVorticity",
    "RotatingGaussian",
    "SlottedCylinder",
    "SwirlingDeformation",
)
