"""Networks and features, offered as plain `torch.nn.Module`s."""

from pinnkit.nn.deeponet import DeepONet
from pinnkit.nn.describe import describe, rebuild
from pinnkit.nn.expert_mixture import ExpertMixture, Experts, Windows, interface_jumps
from pinnkit.nn.features import PeriodicFeatures, RandomFourierFeatures
from pinnkit.nn.fno import FNO, SpectralConvolution, spectral_derivative
from pinnkit.nn.hard_constraint import Constrained, HardConstraint, norm_constants
from pinnkit.nn.layers import FactorisedLinear, Sin
from pinnkit.nn.networks import (
    MLP,
    Chain,
    ModifiedMLP,
    PirateNet,
    Product,
    Select,
    SideBySide,
    Sum,
    zero_output,
)
from pinnkit.nn.polynomial import Polynomial

__all__ = [
    "FNO",
    "MLP",
    "Chain",
    "Constrained",
    "DeepONet",
    "ExpertMixture",
    "Experts",
    "FactorisedLinear",
    "HardConstraint",
    "ModifiedMLP",
    "PeriodicFeatures",
    "PirateNet",
    "Polynomial",
    "Product",
    "RandomFourierFeatures",
    "Select",
    "SideBySide",
    "Sin",
    "SpectralConvolution",
    "Sum",
    "Windows",
    "describe",
    "interface_jumps",
    "norm_constants",
    "rebuild",
    "spectral_derivative",
    "zero_output",
]
