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
    Calculus,
    Dirichlet,
    Disk,
    Fixed,
    Gauge,
    GeometricSDE,
    Geometry,
    Graph,
    GraphProblem,
    GraphSystem,
    GraphTarget,
    Initial,
    Integral,
    Interval,
    IrregularSeries,
    LangevinSDE,
    LinearNoiseSDE,
    Neumann,
    Observations,
    PDESystem,
    Periodic,
    Polygon,
    ProblemClass,
    Robin,
    SDESystem,
    Total,
    boundary,
    control,
    coords,
    curl,
    d,
    div,
    dn,
    edge_feature,
    field,
    grad,
    laplacian,
    neighbour_max,
    neighbour_sum,
    neural,
    node_feature,
    node_field,
    orientation,
    parameter,
    problem,
    process,
    vector,
    wiener,
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
    from pinnkit import graphs, implicit
    from pinnkit.driver import choose_solver, load, solve, verify
    from pinnkit.solution import Estimate, GraphSolution, Solution, Stats, Verification, citation
    from pinnkit.solvers import (
        AbstractSolver,
        CausalPINN,
        ConvergentGraphSolver,
        LagrangianPINN,
        MethodOfLines,
        NeuralSDE,
        SparseFixedPoint,
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
    "Calculus",
    "CausalPINN",
    "CausalSchedule",
    "ConvergentGraphSolver",
    "DeclarationError",
    "DeclarationWarning",
    "Dirichlet",
    "Disk",
    "Estimate",
    "Evidence",
    "Fixed",
    "Gauge",
    "GaussNewton",
    "GeometricSDE",
    "Geometry",
    "Graph",
    "GraphProblem",
    "GraphSolution",
    "GraphSystem",
    "GraphTarget",
    "History",
    "Initial",
    "Integral",
    "Interval",
    "IrregularSeries",
    "LagrangianPINN",
    "LangevinSDE",
    "LinearNoiseSDE",
    "MethodOfLines",
    "MissingDependencyError",
    "Neumann",
    "NeuralSDE",
    "NysNewtonCG",
    "Observations",
    "PDESystem",
    "Periodic",
    "Polygon",
    "ProblemClass",
    "Progress",
    "Robin",
    "SDESystem",
    "SelfScaledBroyden",
    "Solution",
    "SolveError",
    "SparseFixedPoint",
    "SpectralMixtureGP",
    "Stats",
    "Status",
    "StepInfo",
    "Total",
    "UnsupportedProblemError",
    "Verification",
    "boundary",
    "choose_solver",
    "citation",
    "control",
    "coords",
    "curl",
    "d",
    "div",
    "dn",
    "edge_feature",
    "field",
    "grad",
    "graphs",
    "implicit",
    "iterate",
    "laplacian",
    "load",
    "neighbour_max",
    "neighbour_sum",
    "neural",
    "node_feature",
    "node_field",
    "orientation",
    "parameter",
    "problem",
    "process",
    "solve",
    "vector",
    "verify",
    "wiener",
]

_WHERE = {
    "pinnkit.driver": ("choose_solver", "load", "solve", "verify"),
    "pinnkit.solution": (
        "Estimate",
        "GraphSolution",
        "Solution",
        "Stats",
        "Verification",
        "citation",
    ),
    "pinnkit.solvers": (
        "AbstractSolver",
        "CausalPINN",
        "ConvergentGraphSolver",
        "LagrangianPINN",
        "MethodOfLines",
        "NeuralSDE",
        "SparseFixedPoint",
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
_PACKAGES = ("graphs", "implicit")  # used under their own names
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
