"""Networks as data: constructor arguments that JSON can hold, for files.

In    a network of this package.
Out   {"class": name, "arguments": {...}} or {"class": name, "parts": [...]}; and back.
Next  `lower.network_approximation` stores it beside the tensors. No pickle, no code: a fixed list of classes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pinnkit.nn.features import PeriodicFeatures, RandomFourierFeatures
from pinnkit.nn.networks import (
    MLP,
    Chain,
    ModifiedMLP,
    PirateNet,
    Product,
    Select,
    SideBySide,
    Sum,
)
from pinnkit.nn.polynomial import Polynomial

__all__ = ["describe", "rebuild"]

_DRAWN: dict[str, type[nn.Module]] = {
    c.__name__: c for c in (MLP, ModifiedMLP, PirateNet, RandomFourierFeatures)
}
_COMPOSED: dict[str, type[nn.Module]] = {c.__name__: c for c in (Sum, Product, Chain, SideBySide)}


def describe(network: nn.Module) -> dict[str, Any]:
    """The network's class and constructor arguments; TypeError for a class not of this package."""
    name = type(network).__name__
    if type(network) is _COMPOSED.get(name):
        return {"class": name, "parts": [describe(p) for p in network.parts]}  # type: ignore[union-attr]
    if type(network) is Select:
        return {"class": name, "columns": list(network.columns), "part": describe(network.part)}
    if type(network) is PeriodicFeatures:
        config = dict(network.config)
        for key in ("periods", "harmonics"):  # JSON keys are strings
            config[key] = {str(c): v for c, v in config[key].items()}  # type: ignore[union-attr]
        return {"class": name, "arguments": config}
    if type(network) is _DRAWN.get(name) or type(network) is Polynomial:
        return {"class": name, "arguments": dict(network.config)}  # type: ignore[arg-type]
    raise TypeError(
        f"{type(network).__qualname__} cannot be written to a file: only networks of pinnkit.nn can "
        f"({', '.join(sorted([*_DRAWN, *_COMPOSED, 'PeriodicFeatures', 'Polynomial', 'Select']))}). "
        "Save its state_dict yourself."
    )


def rebuild(
    spec: dict[str, Any],
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> nn.Module:
    """The described network with initial weights (load its state_dict next); ValueError if malformed."""
    name = spec.get("class")
    arguments = dict(spec.get("arguments", {}))
    try:
        if name in _COMPOSED:
            parts = [rebuild(p, dtype=dtype, device=device) for p in spec["parts"]]
            return _COMPOSED[name](*parts)
        if name == "Select":
            return Select(spec["columns"], rebuild(spec["part"], dtype=dtype, device=device))
        if name == "PeriodicFeatures":
            for key in ("periods", "harmonics"):
                arguments[key] = {int(c): v for c, v in arguments[key].items()}
            return PeriodicFeatures(**arguments, dtype=dtype, device=device)
        if name == "Polynomial":
            return Polynomial(**arguments, dtype=dtype, device=device)
        if name in _DRAWN:
            generator = torch.Generator(device=device)
            return _DRAWN[name](**arguments, generator=generator, dtype=dtype)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"not a description of a network: {spec!r}") from error
    raise ValueError(f"not a network this package can build: {name!r}")
