"""Classical numerics: reference solutions with known errors, and the error equation."""

from pinnkit.classical.choice import supports
from pinnkit.classical.defect import Defect, solve_defect
from pinnkit.classical.grid_approximation import FieldGrid, GridApproximation
from pinnkit.classical.refine import Reference, solve_reference

__all__ = [
    "Defect",
    "FieldGrid",
    "GridApproximation",
    "Reference",
    "solve_defect",
    "solve_reference",
    "supports",
]
