"""From `ir.NormalForm` to torch: expressions, jets, fields, residuals, rows, points."""

from pinnkit.lower.expressions import compile_expressions
from pinnkit.lower.fields import ExpressionJets, FieldModel, HardForm, make_field_model
from pinnkit.lower.integrals import IntegralTerm
from pinnkit.lower.jets import JetSpec, input_jet, jet_mul, propagate, register_jet
from pinnkit.lower.network_approximation import NetworkApproximation, WindowedApproximation
from pinnkit.lower.nodes import lower_node
from pinnkit.lower.projection import ProjectedField
from pinnkit.lower.residuals import (
    ResidualGroup,
    ResidualTerm,
    compile_residuals,
    group_terms,
    lowering_refusal,
)
from pinnkit.lower.rows import RowOperator, jacobian_rows, rows_matvec, rows_rmatvec
from pinnkit.lower.sampling import (
    adaptive_choice,
    face_points,
    grid_points,
    interior_points,
    unit_sobol,
)
from pinnkit.lower.scales import FieldScale, estimate_field_scales, term_size
from pinnkit.lower.tape import Tape

__all__ = [
    "ExpressionJets",
    "FieldModel",
    "FieldScale",
    "HardForm",
    "IntegralTerm",
    "JetSpec",
    "NetworkApproximation",
    "ProjectedField",
    "ResidualGroup",
    "ResidualTerm",
    "RowOperator",
    "Tape",
    "WindowedApproximation",
    "adaptive_choice",
    "compile_expressions",
    "compile_residuals",
    "estimate_field_scales",
    "face_points",
    "grid_points",
    "group_terms",
    "input_jet",
    "interior_points",
    "jacobian_rows",
    "jet_mul",
    "lower_node",
    "lowering_refusal",
    "make_field_model",
    "propagate",
    "register_jet",
    "rows_matvec",
    "rows_rmatvec",
    "term_size",
    "unit_sobol",
]
