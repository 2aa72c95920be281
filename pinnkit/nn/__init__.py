"""Networks and features, offered as plain `torch.nn.Module`s."""

from pinnkit.nn.describe import describe, rebuild
from pinnkit.nn.features import PeriodicFeatures, RandomFourierFeatures
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

__all__ = [
    "MLP",
    "Chain",
    "FactorisedLinear",
    "ModifiedMLP",
    "PeriodicFeatures",
    "PirateNet",
    "Product",
    "RandomFourierFeatures",
    "Select",
    "SideBySide",
    "Sin",
    "Sum",
    "describe",
    "rebuild",
    "zero_output",
]
