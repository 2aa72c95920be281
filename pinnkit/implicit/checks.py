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
from torch.autograd import forward_ad

from pinnkit.implicit.jacobian import linearised

__all__ = [
    "as_function",
    "check_captures",
    "check_finite",
    "check_samples",
    "check_start",
    "numbers",
    "uncompiled",
]

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
    """f and its parameters; a module's parameters and buffers come last, so that gradients reach them."""
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
    # Buffers, too: under `torch.vmap` over an ensemble of modules each has its own.
    own: dict[str, Tensor] = {**dict(f.named_parameters()), **dict(f.named_buffers())}
    count = len(params)

    def call(z: Tensor, *both: Tensor) -> Any:
        state = dict(zip(own, both[count:], strict=True))
        return torch.func.functional_call(f, state, (z, *both[:count]))

    return call, (*params, *own.values())


def check_start(z0: Any, *, name: str) -> None:
    """z0 is a tensor of single or double precision whose first dimension counts samples."""
    if not isinstance(z0, Tensor):
        raise TypeError(f"{name} is of type {type(z0).__name__}; it must be a tensor.")
    if z0.dtype not in (torch.float64, torch.float32):
        raise TypeError(
            f"{name} has dtype {z0.dtype}; it must be real and floating, float64 or float32: half"
            " precision has no linear algebra, complex unknowns are pairs of real ones."
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
) -> Tensor:
    """One evaluation on plain tensors: the shape is right, and no gradient comes from elsewhere.

    Returns its numbers.

    A tensor that the function captures is a constant to the implicit function theorem: where it
    requires a gradient, that gradient would silently be zero.
    """
    inputs = [_plain(t) for t in (z0, *params)]
    before = [None if t.is_inference() else t._version for t in inputs]
    y: Any = function(*inputs)
    if before != [None if t.is_inference() else t._version for t in inputs]:
        raise ValueError(
            f"{name} changed one of its arguments in place; it must return a new tensor. (Of a module its"
            " buffers are arguments, too: batch normalisation needs .eval().)"
        )
    if not isinstance(y, Tensor):
        raise TypeError(f"{name} returned {type(y).__name__}; it must return a tensor.")
    shape = inputs[0].shape
    if (y.shape != shape) if same_shape else (y.ndim == 0 or len(y) != shape[0]):
        wanted = "the same shape" if same_shape else "one row per sample"
        raise ValueError(
            f"{name} turned shape {tuple(shape)} into {tuple(y.shape)}; it must return {wanted}."
        )
    if y.dtype != z0.dtype:
        raise ValueError(
            f"{name} returned {y.dtype} for {z0.dtype}; give z0 and params the same dtype."
        )
    why = _wants_gradient(y)
    if why is not None:
        raise ValueError(
            f"{name} uses a tensor that {why} but is not among params, so that its gradient would be"
            f" zero. Pass it, as in {name}(z, a) with params a; detach() it if it is a constant; pass"
            " a module itself instead of a function that calls it."
        )
    return numbers(y)


def _wants_gradient(y: Tensor) -> str | None:
    """Why the value of plain tensors is not a constant, at any level of `torch.func`."""
    functorch = torch._C._functorch  # pyright: ignore[reportAttributeAccessIssue]
    if y.requires_grad and not functorch.is_functorch_wrapped_tensor(y):
        return "requires grad"
    while True:
        moved = forward_ad.unpack_dual(y).tangent is not None
        if y.requires_grad or moved or functorch.is_batchedtensor(y):
            return "is under a torch.func transform"
        if not functorch.is_functorch_wrapped_tensor(y):
            return None
        y = functorch.get_unwrapped(y)


def check_finite(tensor: Tensor, *, name: str) -> None:
    """Every number of it, also where it is under `torch.vmap`."""
    entries = numbers(tensor)
    if not bool(torch.isfinite(entries).all()):
        count = int((~torch.isfinite(entries)).sum())
        raise ValueError(f"{name} is not finite in {count} of its {entries.numel()} entries.")


def numbers(tensor: Tensor) -> Tensor:
    """All that is inside the wrappers of `torch.func`."""
    functorch = torch._C._functorch  # pyright: ignore[reportAttributeAccessIssue]
    while functorch.is_functorch_wrapped_tensor(tensor):
        tensor = functorch.get_unwrapped(tensor)
    return tensor.detach()


def _plain(tensor: Tensor) -> Tensor:
    """The numbers alone; of a vmapped dimension the first slice."""
    functorch = torch._C._functorch  # pyright: ignore[reportAttributeAccessIssue]
    while functorch.is_functorch_wrapped_tensor(tensor):
        inner = functorch.get_unwrapped(tensor)
        if functorch.is_batchedtensor(tensor):
            inner = inner.select(functorch.maybe_get_bdim(tensor), 0)
        tensor = inner
    return forward_ad.unpack_dual(tensor).primal.detach()


def check_samples(function: Function, z: Tensor, params: tuple[Tensor, ...]) -> None:
    """Products with the transposed Jacobian: half of the values depend on their own samples only.

    The halves are those of the Thue-Morse sequence, which no shift and no period leaves as it is: any
    systematic coupling crosses them. Small batches are looked at from both sides.
    """
    if len(z) < 2:
        return
    y, pull = linearised(lambda z: function(z, *params), z)
    count = torch.arange(1, y.shape[1:].numel() + 1, dtype=y.dtype, device=y.device)
    probe = torch.cos(count).reshape(y.shape[1:])  # no pattern that a mean or a difference removes
    parity = torch.arange(len(z), device=z.device)
    for shift in (32, 16, 8, 4, 2, 1):
        parity = parity ^ (parity >> shift)
    parity = parity % 2 == 0
    for half in (parity, ~parity)[: 2 if len(z) < 4 else 1]:
        u = torch.where(half.reshape(-1, *[1] * (y.ndim - 1)), probe, 0)
        others = pull(u)[~half]
        if bool(((others != 0) & torch.isfinite(others)).any()):
            raise ValueError(
                "a sample of the function depends on other samples, but dimension 0 counts independent"
                " samples. Give a coupled system one leading dimension more: z0[None]."
            )
