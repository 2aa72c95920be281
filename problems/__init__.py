"""The gallery: published problems and textbook ones, one file each, installed as `pinnkit.problems`.

Each is a frozen dataclass with parameters: `Burgers(nu=0.05).solve()`. Its docstring gives the
equation and what makes it hard, `.citation` the source, `.exact()` the solution where there is one.
`GALLERY` is what `pinnkit list` shows. Imports are relative because the folder is not called
`pinnkit/problems`: type checkers then find the files where they lie.
"""

from __future__ import annotations

import pinnkit as pk

from .advected_pulse import AdvectedPulse
from .advection import Advection
from .allen_cahn import AllenCahn
from .allen_cahn_smooth import AllenCahnSmooth
from .burgers import Burgers
from .burgers_family import BurgersFamily
from .chirp_poisson_1d import ChirpPoisson1D
from .convection import Convection
from .darcy import Darcy
from .diffusion_sorption import DiffusionSorption
from .diffusion_sorption_inflow import DiffusionSorptionInflow
from .double_well import DoubleWell
from .euler_bernoulli_beam import EulerBernoulliBeam
from .fast_advection import FastAdvection
from .fisher_kpp import FisherKPP
from .geometric_brownian_motion import GeometricBrownianMotion
from .ginzburg_landau import GinzburgLandau
from .graph_classification import GraphClassification
from .graph_value_iteration import GraphValueIteration
from .gray_scott_1d import GrayScott1D
from .gray_scott_2d import GrayScott2D
from .growing_wave_poisson_1d import GrowingWavePoisson1D
from .heat_1d import Heat1D
from .heat_2d import Heat2D
from .helmholtz_1d import Helmholtz1D
from .helmholtz_2d import Helmholtz2D
from .high_frequency_allen_cahn_1d import HighFrequencyAllenCahn1D
from .high_frequency_poisson_1d import HighFrequencyPoisson1D
from .high_frequency_poisson_2d import HighFrequencyPoisson2D
from .high_frequency_poisson_3d import HighFrequencyPoisson3D
from .inviscid_burgers import InviscidBurgers
from .irregular_classification import IrregularClassification
from .kdv import KdV
from .klein_gordon import KleinGordon
from .kuramoto_sivashinsky import KuramotoSivashinsky
from .kuramoto_sivashinsky_chaotic import KuramotoSivashinskyChaotic
from .layered_conduction import LayeredConduction
from .logistic import Logistic
from .lorenz import Lorenz
from .lotka_volterra import LotkaVolterra, MissingInteraction
from .mixed_poisson_2d import MixedPoisson2D
from .multi_scale_allen_cahn_2d import MultiScaleAllenCahn2D
from .multi_scale_poisson_1d import MultiScalePoisson1D
from .navier_stokes_pressure import NavierStokesPressure
from .navier_stokes_streamfunction import NavierStokesStreamfunction
from .navier_stokes_torus import NavierStokesTorus
from .navier_stokes_vorticity import NavierStokesVorticity
from .noisy_source_poisson_1d import NoisySourcePoisson1D
from .nonlinear_schroedinger import NonlinearSchroedinger
from .nonlinear_schroedinger_breather import NonlinearSchroedingerBreather
from .ornstein_uhlenbeck import OrnsteinUhlenbeck
from .periodic_burgers import PeriodicBurgers
from .periodic_poisson import PeriodicPoisson
from .poisson_1d import Poisson1D
from .poisson_2d import Poisson2D
from .poisson_5d import Poisson5D
from .pore_network import PoreNetwork
from .power_flow import PowerFlow
from .pulse_outflow import PulseOutflow
from .reaction import Reaction
from .reaction_advection import ReactionAdvection
from .reaction_diffusion import ReactionDiffusion
from .resistor_network import ResistorNetwork
from .rod_conductivity import RodConductivity
from .rotating_gaussian import RotatingGaussian
from .sine_gordon import SineGordon
from .sine_parabola_poisson_1d import SineParabolaPoisson1D
from .slotted_cylinder import SlottedCylinder
from .spiral_ode import SpiralODE
from .stochastic_lorenz import StochasticLorenz
from .swirling_deformation import SwirlingDeformation
from .taylor_green import TaylorGreen
from .van_der_pol import VanDerPol
from .variable_convection import VariableConvection
from .vibrating_beam import VibratingBeam
from .wave import Wave

__all__ = [
    "FAMILY_GALLERY",
    "GALLERY",
    "GRAPH_GALLERY",
    "LAW_GALLERY",
    "SERIES_GALLERY",
    "AdvectedPulse",
    "Advection",
    "AllenCahn",
    "AllenCahnSmooth",
    "Burgers",
    "BurgersFamily",
    "ChirpPoisson1D",
    "Convection",
    "Darcy",
    "DiffusionSorption",
    "DiffusionSorptionInflow",
    "DoubleWell",
    "EulerBernoulliBeam",
    "FastAdvection",
    "FisherKPP",
    "GeometricBrownianMotion",
    "GinzburgLandau",
    "GraphClassification",
    "GraphValueIteration",
    "GrayScott1D",
    "GrayScott2D",
    "GrowingWavePoisson1D",
    "Heat1D",
    "Heat2D",
    "Helmholtz1D",
    "Helmholtz2D",
    "HighFrequencyAllenCahn1D",
    "HighFrequencyPoisson1D",
    "HighFrequencyPoisson2D",
    "HighFrequencyPoisson3D",
    "InviscidBurgers",
    "IrregularClassification",
    "KdV",
    "KleinGordon",
    "KuramotoSivashinsky",
    "KuramotoSivashinskyChaotic",
    "LayeredConduction",
    "Logistic",
    "Lorenz",
    "LotkaVolterra",
    "MissingInteraction",
    "MixedPoisson2D",
    "MultiScaleAllenCahn2D",
    "MultiScalePoisson1D",
    "NavierStokesPressure",
    "NavierStokesStreamfunction",
    "NavierStokesTorus",
    "NavierStokesVorticity",
    "NoisySourcePoisson1D",
    "NonlinearSchroedinger",
    "NonlinearSchroedingerBreather",
    "OrnsteinUhlenbeck",
    "PeriodicBurgers",
    "PeriodicPoisson",
    "Poisson1D",
    "Poisson2D",
    "Poisson5D",
    "PoreNetwork",
    "PowerFlow",
    "PulseOutflow",
    "Reaction",
    "ReactionAdvection",
    "ReactionDiffusion",
    "ResistorNetwork",
    "RodConductivity",
    "RotatingGaussian",
    "SineGordon",
    "SineParabolaPoisson1D",
    "SlottedCylinder",
    "SpiralODE",
    "StochasticLorenz",
    "SwirlingDeformation",
    "TaylorGreen",
    "VanDerPol",
    "VariableConvection",
    "VibratingBeam",
    "Wave",
]

GALLERY: tuple[type[pk.ProblemClass], ...] = (
    Heat1D,
    Heat2D,
    Poisson1D,
    Poisson2D,
    Poisson5D,
    Helmholtz2D,
    PeriodicPoisson,
    LayeredConduction,
    EulerBernoulliBeam,
    VibratingBeam,
    Advection,
    Convection,
    VariableConvection,
    AdvectedPulse,
    PulseOutflow,
    RotatingGaussian,
    SlottedCylinder,
    SwirlingDeformation,
    Reaction,
    ReactionAdvection,
    Logistic,
    FisherKPP,
    Wave,
    KleinGordon,
    SineGordon,
    Burgers,
    PeriodicBurgers,
    InviscidBurgers,
    AllenCahn,
    AllenCahnSmooth,
    KdV,
    KuramotoSivashinsky,
    KuramotoSivashinskyChaotic,
    NonlinearSchroedinger,
    NonlinearSchroedingerBreather,
    GrayScott1D,
    GrayScott2D,
    GinzburgLandau,
    TaylorGreen,
    NavierStokesStreamfunction,
    NavierStokesVorticity,
    NavierStokesPressure,
    Lorenz,
    VanDerPol,
    LotkaVolterra,
    HighFrequencyPoisson1D,
    GrowingWavePoisson1D,
    MultiScalePoisson1D,
    SineParabolaPoisson1D,
    ChirpPoisson1D,
    Helmholtz1D,
    HighFrequencyAllenCahn1D,
    HighFrequencyPoisson2D,
    HighFrequencyPoisson3D,
    MixedPoisson2D,
    MultiScaleAllenCahn2D,
    FastAdvection,
    NoisySourcePoisson1D,
    RodConductivity,
)

# On graphs: solved exactly, or learned; they have nodes in the place of coordinates.
GRAPH_GALLERY: tuple[type[pk.ProblemClass], ...] = (
    PoreNetwork,
    ResistorNetwork,
    PowerFlow,
    GraphValueIteration,
    GraphClassification,
)

# Stochastic equations learned from series.
SERIES_GALLERY: tuple[type[pk.ProblemClass], ...] = (
    OrnsteinUhlenbeck,
    GeometricBrownianMotion,
    DoubleWell,
    IrregularClassification,
    StochasticLorenz,
)

# Ordinary equations with terms nobody wrote down, learned from one observed trajectory.
LAW_GALLERY: tuple[type[pk.ProblemClass], ...] = (MissingInteraction, SpiralODE)

# Families: one solve for every draw of their inputs.
FAMILY_GALLERY: tuple[type[pk.ProblemClass], ...] = (
    DiffusionSorption,
    DiffusionSorptionInflow,
    BurgersFamily,
    ReactionDiffusion,
    Darcy,
    NavierStokesTorus,
)
