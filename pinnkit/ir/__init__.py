"""The waist: `NormalForm`, the passes that make it, the checks that guard it. sympy and numpy only."""

from pinnkit.ir.leaves import derivative_count, field_of, leaves
from pinnkit.ir.normal_form import (
    Condition,
    Equation,
    Face,
    IntegralCondition,
    NormalForm,
    ObservationSet,
    Predicates,
)
from pinnkit.ir.normalise import normalise

__all__ = [
    "Condition",
    "Equation",
    "Face",
    "IntegralCondition",
    "NormalForm",
    "ObservationSet",
    "Predicates",
    "derivative_count",
    "field_of",
    "leaves",
    "normalise",
]
