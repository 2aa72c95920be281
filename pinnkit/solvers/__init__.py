"""One file per method, readable beside its paper."""

from pinnkit.solvers.base import AbstractSolver, Env, State
from pinnkit.solvers.causal_pinn import CausalPINN
from pinnkit.solvers.lagrangian_pinn import LagrangianPINN
from pinnkit.solvers.method_of_lines import MethodOfLines
from pinnkit.solvers.spectral_mixture_gp import SpectralMixtureGP

__all__ = [
    "AbstractSolver",
    "CausalPINN",
    "Env",
    "LagrangianPINN",
    "MethodOfLines",
    "SpectralMixtureGP",
    "State",
]
