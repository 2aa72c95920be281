"""What is refused at the doors, in the words of who called.

In    functions, starts, parameters.
Out   errors; or modules turned into functions of their parameters.
Next  `layers` and `systems` call these before anything is computed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from pinnkit.implicit.jacobian import linearised

__all__ = ["as_function", "check_captures", "check_samples", "check_start", "uncompiled"]

Function = Callable[..., Tensor]
C = TypeVar("C", bound=Callable[..., Any])


def uncompiled(door: C) -> C:
    """The door itself, also inside `torch.compile`: its loops end where the data say so.

    What surrounds it is compiled. The public `torch.compiler.disable` would import the compiler with
    this module; this one does when a compiler calls.
    """
    left_alone = torch._disable_dynamo(door)  # pyright: ignore[reportPrivateImportUsage]

    @functools.wraps(door)
    def call(*args: Any, **options: Any) -> Any:
        chosen = left_alone if torch.compiler.is_compiling() else door
        return chosen(*args, **options)

    return call  # type: ignore[return-value]


def as_function(
    f: Any, params: tuple[Tensor, ...], *, name: str
) -> tuple[Function, tuple[Tensor, ...]]:
    """f and its parameters; a module's own parameters come last, so that gradients reach them."""
    for k, p in enumerate(params):
        if not isinstance(p, Tensor):
            raise TypeError(
                f"parameter {k + 1} of {name} is of type {type(p).__name__}; params must be tensors."
                f" Put constants into {name} itself (a lambda will do)."
            )
    if not callable(f):
        raise TypeError(f"{name} is of type {type(f).__name__}; it must be callable.")
    if not isinstance(f, nn.Module):
        function: Any = f
        return function, params
    own: dict[str, Tensor] = dict(f.named_parameters())
    count = len(params)

    def call(z: Tensor, *both: Tensor) -> Any:
        state = dict(zip(own, both[count:], strict=True))
        return torch.func.functional_call(f, state, (z, *both[:count]))

    return call, (*params, *own.values())


def check_start(z0: Any, *, name: str) -> None:
    """z0 is a real floating-point tensor whose first dimension counts samples."""
    if not isinstance(z0, Tensor):
        raise TypeError(f"{name} is of type {type(z0).__name__}; it must be a tensor.")
    if not z0.is_floating_point():
        raise TypeError(
            f"{name} has dtype {z0.dtype}; it must be real and floating, as float64 is."
        )
    if z0.ndim == 0:
        raise ValueError(
            f"{name} has no dimension; dimension 0 counts the samples. Write {name}[None]."
        )


def check_captures(
    function: Function,
    z0: Tensor,
    params: tuple[Tensor, ...],
    *,
    name: str,
    same_shape: bool,
) -> None:
    """One evaluation on detached tensors: the shape is right, and no gradient comes from elsewhere.

    A tensor that the function captures is a constant to the implicit function theorem: where it
    requires a gradient, that gradient would silently be zero.
    """
    inputs = [t.detach() for t in (z0, *params)]
    y: Any = function(*inputs)
    if not isinstance(y, Tensor):
        raise TypeError(f"{name} returned {type(y).__name__}; it must return a tensor.")
    if (y.shape != z0.shape) if same_shape else (y.ndim == 0 or len(y) != len(z0)):
        wanted = "the same shape" if same_shape else "one row per sample"
        raise ValueError(
            f"{name} turned shape {tuple(z0.shape)} into {tuple(y.shape)}; it must return {wanted}."
        )
    if y.dtype != z0.dtype:
        raise ValueError(
            f"{name} returned {y.dtype} for {z0.dtype}; give z0 and params the same dtype."
        )
    level = torch._C._functorch.maybe_get_level  # pyright: ignore[reportAttributeAccessIssue]
    foreign = level(y) > max(map(level, inputs))
    if y.requires_grad or foreign:
        why = "is under a torch.func transform" if foreign else "requires grad"
        raise ValueError(
            f"{name} uses a tensor that {why} but is not among params, so that its gradient would be"
            f" zero. Pass it, as in {name}(z, a) with params a; detach() it if it is a constant; pass"
            " a module itself instead of a function that calls it."
        )


def check_samples(function: Function, z: Tensor, params: tuple[Tensor, ...]) -> None:
    """One product with the transposed Jacobian: sample 0 of the result depends on sample 0 of z only."""
    if len(z) < 2:
        return
    y, pull = linearised(lambda z: function(z, *params), z)
    count = torch.arange(1, y.shape[1:].numel() + 1, dtype=y.dtype, device=y.device)
    u = torch.zeros_like(y)
    u[0] = torch.cos(count).reshape(y.shape[1:])  # no pattern that a mean or a difference removes
    others = pull(u)[1:]
    if bool(((others != 0) & torch.isfinite(others)).any()):
        raise ValueError(
            "sample 0 of the function depends on other samples, but dimension 0 counts independent"
            " samples. Give a coupled system one leading dimension more: z0[None]."
        )
