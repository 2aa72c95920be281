"""pinnkit: declare a PDE, solve it, know how wrong the answer is.

In    sympy equations with something unknown in them.
Out   a `Solution` that can be called and says how wrong it is.
Next  `solve(problem)` or `problem.solve()`; `pinnkit.problems` is the gallery.

What declares is imported at once (sympy only); what computes is imported when first used, so that
a declaration needs no torch.
"""

import importlib
import logging
from typing import TYPE_CHECKING, Any

from pinnkit.declare import (
    CSG,
    Ball,
    Box,
    Dirichlet,
    Disk,
    Gauge,
    Geometry,
    Initial,
    Integral,
    Interval,
    Neumann,
    Observations,
    PDESystem,
    Periodic,
    Polygon,
    ProblemClass,
    Robin,
    boundary,
    coords,
    curl,
    div,
    dn,
    field,
    grad,
    laplacian,
    parameter,
    problem,
    vector,
)
from pinnkit.errors import (
    DeclarationError,
    DeclarationWarning,
    Evidence,
    MissingDependencyError,
    SolveError,
    Status,
    UnsupportedProblemError,
)

if TYPE_CHECKING:
    from pinnkit import implicit
    from pinnkit.driver import choose_solver, load, solve, verify
    from pinnkit.solution import Estimate, Solution, Stats, Verification, citation
    from pinnkit.solvers import (
        AbstractSolver,
        CausalPINN,
        LagrangianPINN,
        MethodOfLines,
        SpectralMixtureGP,
    )
    from pinnkit.train import (
        LBFGS,
        SOAP,
        Adam,
        CausalSchedule,
        GaussNewton,
        History,
        NysNewtonCG,
        Progress,
        SelfScaledBroyden,
        StepInfo,
        iterate,
    )

__version__ = "0.1.0"

__all__ = [
    "CSG",
    "LBFGS",
    "SOAP",
    "AbstractSolver",
    "Adam",
    "Ball",
    "Box",
    "CausalPINN",
    "CausalSchedule",
    "DeclarationError",
    "DeclarationWarning",
    "Dirichlet",
    "Disk",
    "Estimate",
    "Evidence",
    "Gauge",
    "GaussNewton",
    "Geometry",
    "History",
    "Initial",
    "Integral",
    "Interval",
    "LagrangianPINN",
    "MethodOfLines",
    "MissingDependencyError",
    "Neumann",
    "NysNewtonCG",
    "Observations",
    "PDESystem",
    "Periodic",
    "Polygon",
    "ProblemClass",
    "Progress",
    "Robin",
    "SelfScaledBroyden",
    "Solution",
    "SolveError",
    "SpectralMixtureGP",
    "Stats",
    "Status",
    "StepInfo",
    "UnsupportedProblemError",
    "Verification",
    "boundary",
    "choose_solver",
    "citation",
    "coords",
    "curl",
    "div",
    "dn",
    "field",
    "grad",
    "implicit",
    "iterate",
    "laplacian",
    "load",
    "parameter",
    "problem",
    "solve",
    "vector",
    "verify",
]

_WHERE = {
    "pinnkit.driver": ("choose_solver", "load", "solve", "verify"),
    "pinnkit.solution": ("Estimate", "Solution", "Stats", "Verification", "citation"),
    "pinnkit.solvers": (
        "AbstractSolver",
        "CausalPINN",
        "LagrangianPINN",
        "MethodOfLines",
        "SpectralMixtureGP",
    ),
    "pinnkit.train": (
        "LBFGS",
        "SOAP",
        "Adam",
        "CausalSchedule",
        "GaussNewton",
        "History",
        "NysNewtonCG",
        "Progress",
        "SelfScaledBroyden",
        "StepInfo",
        "iterate",
    ),
}
_PACKAGES = ("implicit",)  # used under their own names
_LATE = {name: module for module, names in _WHERE.items() for name in names}

logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"pinnkit.{name}")
    if name not in _LATE:
        raise AttributeError(f"module 'pinnkit' has no attribute {name!r}")
    value = getattr(importlib.import_module(_LATE[name]), name)
    globals()[name] = value  # the next look-up finds it at once
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATE, *_PACKAGES})
