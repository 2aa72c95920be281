"""Differential equations along which networks are trained: noise, grids, integrators, control paths."""

from pinnkit.declare.noise import Calculus, Noise
from pinnkit.neural_de.adaptive import DormandPrince
from pinnkit.neural_de.brownian import BrownianPath
from pinnkit.neural_de.control_path import (
    ControlPath,
    HeldPath,
    HermitePath,
    LinearPath,
    RectilinearPath,
    fill,
    fill_forward,
    make_path,
)
from pinnkit.neural_de.equation import SDE, check_diagonal
from pinnkit.neural_de.grid import TimeGrid
from pinnkit.neural_de.integrate import Direct, Recompute, integrate
from pinnkit.neural_de.local_error import LocalError
from pinnkit.neural_de.methods import AbstractMethod, EulerMaruyama, Milstein, StochasticHeun
from pinnkit.neural_de.torchdiffeq_adapter import integrate_ode
from pinnkit.neural_de.torchsde_adapter import integrate_torchsde
from pinnkit.neural_de.trajectory import IntegrationStatus, Trajectory, Walk

__all__ = [
    "SDE",
    "AbstractMethod",
    "BrownianPath",
    "Calculus",
    "ControlPath",
    "Direct",
    "DormandPrince",
    "EulerMaruyama",
    "HeldPath",
    "HermitePath",
    "IntegrationStatus",
    "LinearPath",
    "LocalError",
    "Milstein",
    "Noise",
    "Recompute",
    "RectilinearPath",
    "StochasticHeun",
    "TimeGrid",
    "Trajectory",
    "Walk",
    "check_diagonal",
    "fill",
    "fill_forward",
    "integrate",
    "integrate_ode",
    "integrate_torchsde",
    "make_path",
]
