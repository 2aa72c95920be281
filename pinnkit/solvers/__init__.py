"""One file per method, readable beside its paper."""

from pinnkit.solvers.base import AbstractSolver, Env, State
from pinnkit.solvers.causal_pinn import CausalPINN
from pinnkit.solvers.convergent_graph_solver import ConvergentGraphSolver
from pinnkit.solvers.hard_constraint_moe import HardConstraintMoE
from pinnkit.solvers.lagrangian_pinn import LagrangianPINN
from pinnkit.solvers.method_of_lines import MethodOfLines
from pinnkit.solvers.neural_ode import NeuralODE
from pinnkit.solvers.neural_sde import NeuralSDE
from pinnkit.solvers.sparse_fixed_point import SparseFixedPoint
from pinnkit.solvers.spectral_mixture_gp import SpectralMixtureGP

__all__ = [
    "AbstractSolver",
    "CausalPINN",
    "ConvergentGraphSolver",
    "Env",
    "HardConstraintMoE",
    "LagrangianPINN",
    "MethodOfLines",
    "NeuralODE",
    "NeuralSDE",
    "SparseFixedPoint",
    "SpectralMixtureGP",
    "State",
]
