"""What comes back: a solution that can be called, and knows how wrong it is."""

from pinnkit.solution.answer import Answer, Approximation
from pinnkit.solution.estimate import Estimate, Stats
from pinnkit.solution.graph_operator import GraphOperator, GraphPrediction
from pinnkit.solution.graph_solution import GraphSolution
from pinnkit.solution.learned import sparse_reading
from pinnkit.solution.operator import FamilyModel, FamilyOperator
from pinnkit.solution.solution import Solution
from pinnkit.solution.summary import citation
from pinnkit.solution.verification import Verification

__all__ = [
    "Answer",
    "Approximation",
    "Estimate",
    "FamilyModel",
    "FamilyOperator",
    "GraphOperator",
    "GraphPrediction",
    "GraphSolution",
    "Solution",
    "Stats",
    "Verification",
    "citation",
    "sparse_reading",
]
