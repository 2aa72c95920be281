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
from pinnkit.declare.distributions import (
    AbstractDistribution,
    FromSamples,
    LogNormal,
    Normal,
    Uniform,
)
from pinnkit.declare.domains import CSG, AbstractDomain, AbstractRegion, Box, Interval, Product
from pinnkit.declare.expansion import Expansion
from pinnkit.declare.family import PDEFamily
from pinnkit.declare.gaussian_field import GaussianField
from pinnkit.declare.given import AppliedGiven, Given, given
from pinnkit.declare.graph import Graph
from pinnkit.declare.graph_conditions import Fixed, Total
from pinnkit.declare.graph_symbols import (
    AbstractNeighbours,
    EdgeFeature,
    Neighbour,
    NeighbourMax,
    NeighbourSum,
    NodeFeature,
    NodeField,
    edge_feature,
    neighbour_max,
    neighbour_sum,
    node_feature,
    node_field,
    orientation,
)
from pinnkit.declare.graph_system import GraphProblem, GraphSystem
from pinnkit.declare.graph_target import GraphTarget
from pinnkit.declare.neural_equations import NeuralCDE, UnconstrainedSDE
from pinnkit.declare.noise import Calculus, Noise
from pinnkit.declare.observed_runs import observe_runs
from pinnkit.declare.operators import Div, NormalDerivative, curl, div, dn, grad, laplacian
from pinnkit.declare.printing import show
from pinnkit.declare.problem import AbstractProblem, PDESystem
from pinnkit.declare.problem_class import FamilyClass, ProblemClass, problem
from pinnkit.declare.regions import Ball, Disk, Geometry, Polygon
from pinnkit.declare.sde_system import SDESystem
from pinnkit.declare.series import IrregularSeries
from pinnkit.declare.series_target import SeriesTarget
from pinnkit.declare.stable_sde import GeometricSDE, LangevinSDE, LinearNoiseSDE
from pinnkit.declare.stochastic import (
    Control,
    Differential,
    Neural,
    Process,
    Wiener,
    control,
    d,
    neural,
    process,
    wiener,
)
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
    "AbstractDistribution",
    "AbstractDomain",
    "AbstractNeighbours",
    "AbstractProblem",
    "AbstractRegion",
    "AppliedField",
    "AppliedGiven",
    "Ball",
    "Boundary",
    "Box",
    "Calculus",
    "Control",
    "Coordinate",
    "Differential",
    "Dirichlet",
    "Disk",
    "Div",
    "EdgeFeature",
    "Expansion",
    "FamilyClass",
    "Fixed",
    "FromSamples",
    "Gauge",
    "GaussianField",
    "GeometricSDE",
    "Geometry",
    "Given",
    "Graph",
    "GraphProblem",
    "GraphSystem",
    "GraphTarget",
    "Initial",
    "Integral",
    "Interval",
    "IrregularSeries",
    "LangevinSDE",
    "LinearNoiseSDE",
    "LogNormal",
    "Neighbour",
    "NeighbourMax",
    "NeighbourSum",
    "Neumann",
    "Neural",
    "NeuralCDE",
    "NodeFeature",
    "NodeField",
    "Noise",
    "Normal",
    "NormalDerivative",
    "Observations",
    "PDEFamily",
    "PDESystem",
    "Parameter",
    "Periodic",
    "Polygon",
    "ProblemClass",
    "Process",
    "Product",
    "Robin",
    "SDESystem",
    "SeriesTarget",
    "Total",
    "UnconstrainedSDE",
    "Uniform",
    "Wiener",
    "boundary",
    "control",
    "coords",
    "curl",
    "d",
    "div",
    "dn",
    "edge_feature",
    "field",
    "fields_in",
    "given",
    "grad",
    "is_field",
    "laplacian",
    "make_field",
    "neighbour_max",
    "neighbour_sum",
    "neural",
    "node_feature",
    "node_field",
    "observe_runs",
    "orientation",
    "parameter",
    "problem",
    "process",
    "show",
    "vector",
    "wiener",
]
