"""Coordinates by keyword to points: names, broadcasting, the domain, periodic axes.

In    `t=0.5, x=[0.1, 0.2]`: numbers, lists, arrays or torch tensors.
Out   a `Placed` record: points (n, d), and how to give results back in the caller's shape and kind.
Next  `solution.solution` evaluates there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy as sp
import torch
from torch import Tensor

from pinnkit.ir.normal_form import NormalForm

__all__ = ["Placed", "broadcast_arguments", "grid_axes", "placed", "real_array"]

# Part of an axis' length by which roundoff (float32 included) may leave the domain; moved back.
SLACK = 5e-7
TIME_NODES = 101
SPACE_NODES = {1: 201, 2: 101, 3: 33}  # by number of space coordinates; 9 beyond


@dataclass(frozen=True, eq=False)
class Placed:
    """`points` (n, d); `back` reshapes a column (n,) to the caller's shape, dtype and library."""

    points: Tensor
    shape: tuple[int, ...]
    tensors: bool  # tensors were given, so tensors are given back
    back: Callable[[Any], Any]


def broadcast_arguments(
    nf: NormalForm,
    needed: Sequence[sp.Symbol],
    given: Mapping[str, Any],
    *,
    extrapolate: bool,
    device: torch.device,
    dtype: torch.dtype,
) -> Placed:
    """Points for the coordinates `given`; those of `needed` must be among them.

    Coordinates not needed may be left out (a field over a subset of them); they are put at the
    lower end, where the result does not depend on them.
    """
    names = [str(c) for c in nf.coords]
    unknown = [n for n in given if n not in names]
    missing = [str(c) for c in needed if str(c) not in given]
    if unknown or missing:
        faults = []
        if missing:
            faults.append(f"missing coordinate {', '.join(missing)}")
        if unknown:
            faults.append(f"unknown coordinate {', '.join(unknown)}")
        raise TypeError(f"{' and '.join(faults)}; the coordinates are {', '.join(names)}")
    source = next((v for v in given.values() if isinstance(v, Tensor)), None)
    columns = {name: _as_tensor(value, name, device, dtype) for name, value in given.items()}
    try:
        shape = torch.broadcast_shapes(*(c.shape for c in columns.values())) if columns else ()
    except RuntimeError:
        shapes = ", ".join(f"{n}: {tuple(c.shape)}" for n, c in columns.items())
        raise ValueError(f"the coordinates do not broadcast together: {shapes}") from None
    flat = []
    for c in nf.coords:
        if str(c) in columns:
            value = placed(nf, c, columns[str(c)], extrapolate)
            flat.append(value.expand(shape).reshape(-1))
        else:
            n = int(np.prod(shape)) if shape else 1
            flat.append(torch.full((n,), nf.bounds[c][0], device=device, dtype=dtype))
    points = torch.stack(flat, dim=1)
    if source is None:
        return Placed(points, tuple(shape), False, lambda v: np.asarray(v).reshape(shape))
    return Placed(points, tuple(shape), True, lambda v: _as_given(v, source).reshape(shape))


def grid_axes(nf: NormalForm, sizes: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Values per coordinate: a given number of them, given values, or a default number."""
    names = [str(c) for c in nf.coords]
    unknown = [n for n in sizes if n not in names]
    if unknown:
        raise TypeError(
            f"unknown coordinate {', '.join(unknown)}; the coordinates are {', '.join(names)}"
        )
    axes: dict[str, np.ndarray] = {}
    for c in nf.coords:
        lower, upper = nf.bounds[c]
        default = TIME_NODES if c == nf.time else SPACE_NODES.get(len(nf.space), 9)
        size = sizes.get(str(c), default)
        if isinstance(size, bool):
            raise TypeError(f"{c}={size} is neither a number of nodes nor their values")
        if isinstance(size, (int, np.integer)):
            if size < 1:
                raise ValueError(f"{c}={size} must be at least 1")
            axes[str(c)] = np.linspace(lower, upper, int(size))
        else:
            values = np.atleast_1d(real_array(size, str(c)))
            if values.ndim > 1:
                raise ValueError(f"{c} has the shape {values.shape}; expected a list of values")
            axes[str(c)] = values
    return axes


def _as_tensor(value: Any, name: str, device: torch.device, dtype: torch.dtype) -> Tensor:
    if isinstance(value, Tensor):
        if value.is_complex():
            raise TypeError(f"{name} must be real")
        return value.to(device=device, dtype=dtype)
    array = real_array(value, name)
    return torch.as_tensor(np.array(array), device=device, dtype=dtype)


def real_array(value: Any, name: str) -> np.ndarray:
    """Real numbers as float64; texts, None and complex numbers are refused, not converted."""
    wrong = f"{name}={value!r} is neither a number nor an array of numbers"
    try:
        array = np.asarray(value)
        if array.dtype.kind == "c":
            raise TypeError(f"{name} must be real, and {value!r} is complex")
        if array.dtype.kind not in "biufO" or any(v is None for v in array.flat):
            raise TypeError(wrong)
        return array.astype(np.float64)
    except (TypeError, ValueError) as fault:
        raise TypeError(str(fault) if "must be real" in str(fault) else wrong) from None


def placed(nf: NormalForm, c: sp.Symbol, value: Tensor, extrapolate: bool) -> Tensor:
    """`value` inside the domain: periodic axes wrap, roundoff at the ends is moved back.

    Raises:
        ValueError: where it is not finite, or outside and not to be extrapolated.
    """
    lower, upper = nf.bounds[c]
    length = upper - lower
    seen = value.detach()
    if not bool(torch.isfinite(seen).all()):
        raise ValueError(f"{c} is not finite everywhere")
    outside = (seen < lower) | (seen > upper)
    if not bool(outside.any()):
        return value
    slack = SLACK * max(length, abs(lower), abs(upper))
    near = outside & (seen > lower - slack) & (seen < upper + slack)
    # Moved by a constant, so that the gradient with respect to the coordinate stays 1.
    value = value + torch.where(near, seen.clamp(lower, upper) - seen, torch.zeros_like(seen))
    outside = outside & ~near
    if not bool(outside.any()):
        return value
    if c in nf.periodic:
        return torch.where(outside, lower + torch.remainder(value - lower, length), value)
    if extrapolate:
        return value
    culprit = float(seen[outside].reshape(-1)[0])
    raise ValueError(
        f"{c} = {culprit:g} lies outside the domain {lower:g} <= {c} <= {upper:g}; "
        "pass extrapolate=True to evaluate there all the same"
    )


def _as_given(value: Tensor, source: Tensor) -> Tensor:
    """In the caller's precision and on the caller's device; complex stays complex."""
    if not source.is_floating_point():
        return value.to(source.device)
    if value.is_complex():
        single = source.dtype in (torch.float16, torch.bfloat16, torch.float32)
        return value.to(source.device, torch.complex64 if single else torch.complex128)
    return value.to(source.device, source.dtype)
