"""What the user writes: symbols, operators, domains, conditions, problems. sympy and numpy only."""

from pinnkit.declare.boundaries import Boundary, boundary
from pinnkit.declare.conditions import (
    AbstractCondition,
    Dirichlet,
    Gauge,
    Initial,
    Integral,
    Neumann,
    Observations,
    Periodic,
    Robin,
)
from pinnkit.declare.domains import CSG, AbstractDomain, AbstractRegion, Box, Interval, Product
from pinnkit.declare.operators import Div, NormalDerivative, curl, div, dn, grad, laplacian
from pinnkit.declare.printing import show
from pinnkit.declare.problem import AbstractProblem, PDESystem
from pinnkit.declare.problem_class import ProblemClass, problem
from pinnkit.declare.regions import Ball, Disk, Geometry, Polygon
from pinnkit.declare.symbols import (
    AppliedField,
    Coordinate,
    Parameter,
    coords,
    field,
    fields_in,
    is_field,
    make_field,
    parameter,
    vector,
)

__all__ = [
    "CSG",
    "AbstractCondition",
    "AbstractDomain",
    "AbstractProblem",
    "AbstractRegion",
    "AppliedField",
    "Ball",
    "Boundary",
    "Box",
    "Coordinate",
    "Dirichlet",
    "Disk",
    "Div",
    "Gauge",
    "Geometry",
    "Initial",
    "Integral",
    "Interval",
    "Neumann",
    "NormalDerivative",
    "Observations",
    "PDESystem",
    "Parameter",
    "Periodic",
    "Polygon",
    "ProblemClass",
    "Product",
    "Robin",
    "boundary",
    "coords",
    "curl",
    "div",
    "dn",
    "field",
    "fields_in",
    "grad",
    "is_field",
    "laplacian",
    "make_field",
    "parameter",
    "problem",
    "show",
    "vector",
]
