"""The weights of a network that was learned for a family: for files, and from one solve to the next.

In    a network, tensors from a file, an operator learned before.
Out   a description with tensors; the network with those weights.
Next  the models of `HardConstraintMoE` and their training.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

__all__ = ["OTHER_KNOBS", "loaded", "record_of", "start_from"]

N = TypeVar("N", bound=nn.Module)
OTHER_KNOBS = "resume= was learned with other knobs; give the same, or use warm_start="


def record_of(network: nn.Module, dtype: torch.dtype) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a file holds beside the declaration and the knobs: the precision, and the weights on the CPU."""
    tensors = {k: v.detach().cpu().clone() for k, v in network.state_dict().items()}
    return {"dtype": str(dtype).removeprefix("torch.")}, tensors


def loaded(network: N, tensors: Mapping[str, Tensor]) -> N:
    """The network with what `record_of` gave.

    Raises:
        ValueError: if they are of another network.
    """
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"the file's tensors do not fit its network: {error}") from error
    return network


def start_from(network: nn.Module, other: Any) -> None:
    """Give the network the weights of an operator that was learned before.

    Raises:
        TypeError: if the other is no such operator.
        ValueError: if its network is of another size.
    """
    known = getattr(getattr(other, "model", None), "network", None)
    if known is None:
        raise TypeError(f"warm_start={other!r} is no operator learned by HardConstraintMoE")
    try:
        network.load_state_dict(known.state_dict())
    except RuntimeError as fault:
        raise ValueError("warm_start has a network of another size; give the same knobs") from fault
