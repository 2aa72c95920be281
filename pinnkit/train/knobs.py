"""The common knobs of a solve: checked once, with all faults named.

In    what the user passed to `solve`.
Out   nothing, or errors; the device and the random generator.
Next  `pinnkit.driver`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

__all__ = ["DTYPES", "check_dtype", "check_knobs", "read_place"]

DTYPES = (torch.float64, torch.float32)  # the precisions answers are saved in


def check_knobs(max_steps: int | None, time_limit: float | None, tol: float | None) -> None:
    """Refuse limits and tolerances that are none."""
    faults = []
    if max_steps is not None and not (_is_whole(max_steps) and max_steps >= 0):
        faults.append(f"max_steps={max_steps!r} must be a whole number, not negative, or None")
    if time_limit is not None and not (_is_real(time_limit) and time_limit >= 0):
        faults.append(f"time_limit={time_limit!r} must be a number, not negative, or None")
    if tol is not None and not (_is_real(tol) and 0 < tol < math.inf):
        faults.append(f"tol={tol!r} must be a positive number or None")
    if faults:
        raise ValueError("; ".join(faults))


def check_dtype(dtype: Any) -> None:
    """Refuse precisions that answers are not saved in."""
    if dtype not in DTYPES:
        names = ", ".join(map(str, DTYPES))
        raise ValueError(f"dtype={dtype!r} must be one of {names}")


def read_place(
    device: str | torch.device, seed: int | torch.Generator
) -> tuple[torch.device, torch.Generator]:
    """The device, and a generator on the CPU."""
    try:
        place = torch.device(device)
    except (RuntimeError, TypeError) as fault:
        raise ValueError(
            f'device={device!r} names no device here; write "cpu" or "cuda"'
        ) from fault
    if place.type == "meta":
        raise ValueError('device="meta" holds no numbers; write "cpu" or "cuda"')
    if place.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={str(device)!r}, but torch finds no accelerator here")
    if isinstance(seed, torch.Generator):
        if seed.device.type != "cpu":
            raise ValueError("seed must be an integer or a generator on the CPU")
        return place, seed
    if not _is_whole(seed) or not -(2**63) <= seed < 2**63:
        raise ValueError(f"seed={seed!r} must be an integer of 64 bits or a torch.Generator")
    return place, torch.Generator().manual_seed(int(seed))


def _is_whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _is_real(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
