"""How gradients get past a solution: exactly, or cheaper.

In    an `Equation`, the start, the parameters.
Out   the solution, attached to the parameters, and its record.
Next  `layers` takes one of these as `backward=`; `Exact()` unless told otherwise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from pinnkit.implicit.equation import Equation, implicit, wants_gradient
from pinnkit.implicit.iteration import is_count
from pinnkit.implicit.linear import AbstractLinearSolver, check_linear
from pinnkit.implicit.record import Record

__all__ = ["AbstractBackward", "Exact", "JacobianFree", "Phantom", "Unrolled"]


class AbstractBackward(ABC):
    """Finds the solution and says what its gradient is."""

    @abstractmethod
    def attach(
        self, equation: Equation, z0: Tensor, params: tuple[Tensor, ...]
    ) -> tuple[Tensor, Record]:
        """The solution and its record."""

    def refuses(self, *, is_map: bool, unrolls: bool) -> str | None:
        """None, or why not for such an equation and method."""
        return None


@final
@dataclass(frozen=True, kw_only=True)
class Exact(AbstractBackward):
    """The implicit function theorem: one linear solve, memory independent of the iterations.

    Args:
        linear: Solves with the (transposed) Jacobian; `CG()` where it is symmetric and definite. None: the
            pattern of Newton's `SparseDirect`; else direct up to 128 unknowns per sample, then by
            products, with Newton's preconditioner: GMRES, for least squares CG.
    """

    linear: AbstractLinearSolver | None = None

    def __post_init__(self) -> None:
        check_linear(self.linear, owner="Exact")

    def attach(
        self, equation: Equation, z0: Tensor, params: tuple[Tensor, ...]
    ) -> tuple[Tensor, Record]:
        linear = equation.linear if self.linear is None else self.linear
        # Said by the user of the Jacobian's inverse; transposed with it.
        helper = linear.precondition if isinstance(linear, AbstractLinearSolver) else None
        equation = replace(
            equation, linear=linear, warn=wants_gradient(params), precondition=helper
        )
        return implicit(equation, z0, *params)


@final
@dataclass(frozen=True, kw_only=True)
class Phantom(AbstractBackward):
    """The gradient of a few damped steps z <- z + damping (f(z) - z) taken from the solution.

    For a contraction by g the neglected part falls like (1 - damping (1 - g))^steps.

    Args:
        steps: How many.
        damping: In (0, 1].

    References: geng2021phantom.
    """

    steps: int = 5
    damping: float = 1.0

    def __post_init__(self) -> None:
        if not is_count(self.steps) or self.steps < 1 or not 0 < self.damping <= 1:
            raise ValueError(
                f"Phantom: steps={self.steps} must be at least 1, damping={self.damping} in (0, 1]"
            )

    def refuses(self, *, is_map: bool, unrolls: bool) -> str | None:
        return None if is_map else "takes steps of a fixed-point map, and here is none"

    def attach(
        self, equation: Equation, z0: Tensor, params: tuple[Tensor, ...]
    ) -> tuple[Tensor, Record]:
        z, record = implicit(equation, z0, *(p.detach() for p in params))
        for _ in range(self.steps):
            z = z + self.damping * equation.optimality(z, *params)
        return z, record


@final
@dataclass(frozen=True)
class JacobianFree(AbstractBackward):
    """The gradient of one step: (dF/dz)^-1 taken as the identity. The cheapest; a direction of descent
    for contractions.

    References: fung2022jfb.
    """

    def refuses(self, *, is_map: bool, unrolls: bool) -> str | None:
        return Phantom(steps=1).refuses(is_map=is_map, unrolls=unrolls)

    def attach(
        self, equation: Equation, z0: Tensor, params: tuple[Tensor, ...]
    ) -> tuple[Tensor, Record]:
        return Phantom(steps=1).attach(equation, z0, params)


@final
@dataclass(frozen=True)
class Unrolled(AbstractBackward):
    """The gradient of the iteration as it ran; memory grows with its length, z0 gets a gradient too.

    What to take where samples do not converge. Not under `torch.vmap`: the loop ends as data say.
    """

    def refuses(self, *, is_map: bool, unrolls: bool) -> str | None:
        return None if unrolls else "differentiates the steps of a method, and these cannot be"

    def attach(
        self, equation: Equation, z0: Tensor, params: tuple[Tensor, ...]
    ) -> tuple[Tensor, Record]:
        functorch = torch._C._functorch  # pyright: ignore[reportAttributeAccessIssue]
        if any(map(functorch.is_batchedtensor, (z0, *params))):
            raise ValueError(
                "backward=Unrolled() does not work under torch.vmap: the loop ends where the data say"
                " so. Use Exact(), or let dimension 0 be the samples without vmap."
            )
        return equation.find(equation, z0, params)
