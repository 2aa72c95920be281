"""The implicit function theorem: from "how to find z" to a differentiable function of the parameters.

In    an `Equation`: G(z, *params) = 0, how its root is found, and who solves with its Jacobian.
Out   `implicit(...)`: z and its record, differentiable any number of times, in both modes, under vmap.
Next  `backward.Exact`, and every Krylov solver, whose own derivative is the same rule again.

At a root, G(z, p) = 0 gives dz = -(dG/dz)^-1 (dG/dp) dp. Backwards: (dG/dz)^T u = -g, then p's
gradient is (dG/dp)^T u. Nothing of the iteration is kept, so memory does not grow with its length.
The backward pass consists of differentiable operations (the linear solve is itself such an equation),
so it can be differentiated in turn.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from pinnkit.implicit.jacobian import Jacobian, Map, linearised, primals
from pinnkit.implicit.record import Record, flattened

__all__ = ["Equation", "LinearSolver", "implicit", "wants_gradient"]

Function = Callable[..., Tensor]


class LinearSolver(Protocol):
    """Solves with a linear map of the samples."""

    def solve(
        self, matvec: Function, rhs: Tensor, *args: Tensor, precondition: Function | None = None
    ) -> Tensor:
        """x with matvec(x, *args) = rhs, differentiable in rhs and args.

        `precondition(v, *args)` resembles the inverse; it changes the work, not x.
        """
        ...


@dataclass(frozen=True)
class Equation:
    """G(z, *params) = 0 for a batch of samples.

    Args:
        optimality: G, from (B, ...) and the parameters to the shape of z.
        function: What `find` works with: the map, the residual, or the user's solver.
        find: (this equation, z0, params) -> (z, record), on plain tensors.
        linear: Solves with dG/dz and its transpose.
        by_slices: Whether `function` cannot be batched by `torch.vmap` (it is anything at all).
        warn: Whether to say when a gradient is asked for where G = 0 was not reached.
        jacobian: The matrices of `function` at (z, *params), where known in closed form.
        precondition: (v, z, *params) -> something like (dG/dz)^-1 v, linear in v.
        folds: Sizes of the vmapped dimensions that are folded into the samples, inner ones first.
    """

    optimality: Function
    function: Function
    find: Callable[[Equation, Tensor | None, tuple[Tensor, ...]], tuple[Tensor, Record]]
    linear: LinearSolver
    by_slices: bool = False
    warn: bool = False
    jacobian: Function | None = None
    precondition: Function | None = None
    folds: tuple[int, ...] = ()

    def folded(self, size: int, dims: tuple[int | None, ...]) -> Equation:
        """The same equation with one more batch dimension folded into the samples.

        `dims` says where each parameter carries that dimension (None: it does not).
        """
        fold = _sliced if self.by_slices else _batched
        return replace(
            self,
            optimality=_batched(self.optimality, size, dims),
            function=fold(self.function, size, dims),
            jacobian=None if self.jacobian is None else _batched(self.jacobian, size, dims),
            precondition=self.precondition and _batched(self.precondition, size, dims, samples=2),
            folds=(*self.folds, size),
        )

    def on_rows(self, user: Map, shape: torch.Size) -> Map:
        """A map of samples as the user sees them, made one of rows; `shape` is that of all samples."""
        for size in self.folds:
            user = _batched(user, size, ())
        return lambda v: flattened(user(v.reshape(shape)))


def implicit(equation: Equation, z0: Tensor | None, *params: Tensor) -> tuple[Tensor, Record]:
    """The root and its record; no gradient reaches z0."""
    try:
        z, *entries = _Implicit.apply(equation, z0, *params)  # type: ignore[misc]
    except RuntimeError as error:
        if "INTERNAL ASSERT" not in str(error) or "functorch" not in str(error):
            raise
        raise ValueError(
            "the function uses a tensor that was made inside a torch.func transform and is not among"
            " params. Pass it as one, constants too, or make it outside."
        ) from error
    return z, Record(*entries)


def wants_gradient(params: tuple[Tensor, ...]) -> bool:
    """Whether anything will be differentiated."""
    return torch.is_grad_enabled() and any(p.requires_grad for p in params)


class _Implicit(torch.autograd.Function):
    @staticmethod
    def forward(equation: Equation, z0: Tensor | None, *params: Tensor) -> tuple[Tensor, ...]:
        z, record = equation.find(equation, z0, params)
        if equation.warn and not bool(record.converged.all()):
            count = int((~record.converged).sum())
            warnings.warn(
                f"{count} of {len(z)} samples did not converge: their gradients are not those of a"
                " solution. Mask them with record.converged, or differentiate the iteration itself"
                " with backward=Unrolled().",
                stacklevel=2,
            )
        return z, *record

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        equation, _, *params = inputs
        z, *entries = output
        ctx.equation = equation
        ctx.mark_non_differentiable(*entries)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(z, *params)
        ctx.save_for_forward(z, *params)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        equation: Equation = ctx.equation
        z, *params = map(_alive, ctx.saved_tensors)
        wanted = ctx.needs_input_grad[2:]
        if grads[0] is None or not any(wanted):
            return None, None, *([None] * len(params))

        def transposed(u: Tensor, z: Tensor, *params: Tensor) -> Tensor:
            return Jacobian(lambda y: equation.optimality(y, *params), z).pull(u)

        helper = None if equation.precondition is None else _transposed(equation.precondition)
        u = equation.linear.solve(transposed, -grads[0], z, *params, precondition=helper)
        chosen = [p for p, w in zip(params, wanted, strict=True) if w]

        def of_chosen(*some: Tensor) -> Tensor:
            it = iter(some)
            given = [next(it) if w else p for p, w in zip(params, wanted, strict=True)]
            return equation.optimality(z, *given)

        _, pull, *_ = torch.func.vjp(of_chosen, *chosen)
        found = iter(pull(u))
        return None, None, *(next(found) if w else None for w in wanted)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
        equation: Equation = ctx.equation

        def forward(v: Tensor, z: Tensor, *params: Tensor) -> Tensor:
            return Jacobian(lambda y: equation.optimality(y, *params), z).push(v)

        with primals([_alive(t) for t in ctx.saved_tensors]) as (z, *params):
            change = torch.zeros_like(z)
            for k, tangent in enumerate(tangents[2:]):
                if tangent is not None:

                    def of_one(p: Tensor, k: int = k) -> Tensor:
                        return equation.optimality(z, *params[:k], p, *params[k + 1 :])

                    change = change + Jacobian(of_one, params[k]).push(tangent)
            dz = equation.linear.solve(
                forward, -change, z, *params, precondition=equation.precondition
            )
        return dz, *([None] * len(Record._fields))

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[int | None, ...],
        equation: Equation,
        z0: Tensor | None,
        *params: Tensor,
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        size = info.batch_size
        if z0 is not None:
            rows = z0.expand(size, *z0.shape) if in_dims[1] is None else z0.movedim(in_dims[1], 0)
            z0 = rows.flatten(0, 1)
        outputs = _Implicit.apply(equation.folded(size, in_dims[2:]), z0, *params)
        outputs = tuple(out.unflatten(0, (size, -1)) for out in outputs)  # type: ignore[union-attr]
        return outputs, (0,) * len(outputs)


def _transposed(linear: Function) -> Function:
    """The transpose in the first argument."""

    def pull(v: Tensor, *args: Tensor) -> Tensor:
        return linearised(lambda w: linear(w, *args), v)[1](v)

    return pull


def _alive(tensor: Tensor) -> Tensor:
    """What a `torch.func` transform that has ended wrapped: nested transforms refuse its wrapper."""
    return torch._C._functorch.unwrap_if_dead(tensor)  # pyright: ignore[reportAttributeAccessIssue]


def _batched(
    function: Function, size: int, dims: tuple[int | None, ...], *, samples: int = 1
) -> Function:
    """`function` on samples (its first arguments) in which a vmapped dimension is folded."""

    def folded(*args: Tensor) -> Tensor:
        inner = torch.vmap(function, in_dims=(*[0] * samples, *dims))
        rows = [z.unflatten(0, (size, -1)) for z in args[:samples]]
        return inner(*rows, *args[samples:]).flatten(0, 1)

    return folded


def _sliced(function: Function, size: int, dims: tuple[int | None, ...]) -> Function:
    """A user's solver called once for each slice of a vmapped dimension."""

    def folded(*params: Tensor) -> Tensor:
        slices = [
            function(*(p if d is None else p.select(d, k) for p, d in zip(params, dims)))
            for k in range(size)
        ]
        return torch.cat(slices)

    return folded
