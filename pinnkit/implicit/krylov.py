"""Krylov solvers for a batch of systems: conjugate gradients and GMRES, by products with A alone.

In    an `Affine` system A x - b, sample by sample.
Out   states whose correction is |A x - b|, relative to |b|; solutions differentiable in A and b.
Next  `Newton(linear=GMRES())`, `Exact(linear=CG())`, `linear_solve(..., solver=GMRES())`; with
      `preconditioners` where products are dear.

Never the normal equations: they would square the condition number.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from pinnkit.implicit.equation import Equation, Function, implicit
from pinnkit.implicit.iteration import (
    AbstractMethod,
    Rule,
    State,
    System,
    default_rtol,
    iterate,
)
from pinnkit.implicit.jacobian import Jacobian, Map
from pinnkit.implicit.linear import AbstractLinearSolver, Inverse
from pinnkit.implicit.preconditioners import (
    Jacobi,
    Preconditioner,
    check_preconditioner,
    checked,
    diagonal,
)
from pinnkit.implicit.record import Record, flattened, norms

__all__ = ["CG", "GMRES", "AbstractKrylov", "Affine"]

FORCING = 1e-3  # relative residual of the systems inside Newton's method


@dataclass(frozen=True, kw_only=True)
class Affine(System):
    """A x - b; `function` is x -> A x, `precondition` something like r -> A^-1 r."""

    rhs: Tensor
    precondition: Map | None = None

    def __call__(self, z: Tensor) -> Tensor:
        return self.function(z) - self.rhs

    @functools.cached_property
    def size(self) -> Tensor:
        """|b| of every sample."""
        return norms(self.rhs)


class AbstractKrylov(AbstractMethod, AbstractLinearSolver):
    """A Krylov method as an iteration, and as the solver of Newton's and adjoint systems."""

    rtol: float | None
    max_steps: int
    preconditioner: Preconditioner | None

    def __post_init__(self) -> None:
        name = type(self).__name__
        Rule(0.0 if self.rtol is None else self.rtol, 0.0, self.max_steps)
        check_preconditioner(self.preconditioner, owner=name)

    @property
    def precondition(self) -> Function | None:
        helper = self.preconditioner
        if helper is None or isinstance(helper, Jacobi):
            return None
        return lambda v, *_: checked(helper)(v)

    def inverse(self, jacobian: Jacobian, on_rows: Callable[[Map], Map]) -> Inverse:
        rule = Rule(FORCING if self.rtol is None else self.rtol, 0.0, self.max_steps)
        given = self.preconditioner
        every = jacobian.pusher()

        def push(v: Tensor) -> Tensor:  # nothing is gained where the Jacobian is not finite
            y = every(v)
            return torch.where(torch.isfinite(y).all(1, keepdim=True), y, 0)

        if given is None or isinstance(given, Jacobi):
            helper = self._reader(push, jacobian.value)
        else:
            helper = on_rows(checked(given))

        def apply(rhs: Tensor) -> tuple[Tensor, Tensor]:
            # Samples that left the finite numbers have failed already; the others go on.
            rhs = torch.where(torch.isfinite(rhs).all(1, keepdim=True), rhs, 0)
            system = Affine(push, rhs=rhs, precondition=helper)
            x, record = iterate(self, system, torch.zeros_like(rhs), rule)
            # Where nothing was gained, x = 0 is no step.
            moved = record.converged | (record.residual < norms(rhs))
            return torch.where(moved[:, None], x, torch.nan), record.converged

        return apply

    def solve(
        self, matvec: Function, rhs: Tensor, *args: Tensor, precondition: Function | None = None
    ) -> Tensor:
        rtol = default_rtol(rhs.dtype) if self.rtol is None else self.rtol
        rule = Rule(rtol, 0.0, self.max_steps)
        start = torch.zeros_like(rhs)
        return self.attached(
            matvec, start, rule, rhs, *args, strict=True, precondition=precondition
        )[0]

    def attached(
        self,
        matvec: Function,
        x0: Tensor,
        rule: Rule,
        rhs: Tensor,
        *args: Tensor,
        strict: bool,
        precondition: Function | None = None,
    ) -> tuple[Tensor, Record]:
        """x and its record, differentiable; `strict`: failure must be heard, nobody sees the record."""
        helper = self.precondition if precondition is None else precondition
        equation = Equation(
            optimality=lambda x, rhs, *args: matvec(x, *args) - rhs,
            function=lambda x, rhs, *args: matvec(x, *args),
            find=_Find(self, rule, strict),
            linear=self,
            precondition=helper and (lambda v, x, rhs, *args: helper(v, *args)),
        )
        return implicit(equation, x0, rhs, *args)

    def _reader(self, product: Map, like: Tensor) -> Map | None:
        """Jacobi's preconditioner of a map of rows, where that is the one."""
        if not isinstance(self.preconditioner, Jacobi):
            return None
        entries = _nonzero(diagonal(product, like))
        return lambda r: r / entries


@dataclass(frozen=True)
class _Find:
    """Runs a Krylov method on plain tensors of any shape (B, ...)."""

    method: AbstractKrylov
    rule: Rule
    strict: bool

    def __call__(
        self, equation: Equation, x0: Tensor | None, params: tuple[Tensor, ...]
    ) -> tuple[Tensor, Record]:
        assert x0 is not None
        start, shape, given = x0, x0.shape, equation.precondition

        def flat(x: Tensor) -> Tensor:
            return flattened(equation.function(x.reshape(shape), *params))

        # A 0 - b: under vmap the right-hand side alone would not have the shape of the samples.
        b = -flattened(equation.optimality(torch.zeros_like(x0), *params))
        if given is None:
            helper = self.method._reader(flat, b)
        else:
            helper = lambda r: flattened(given(r.reshape(shape), start, *params))  # noqa: E731
        system = Affine(flat, rhs=b, precondition=helper)
        x, record = iterate(self.method, system, flattened(x0), self.rule)
        if self.strict and not bool(record.converged.all()):
            warnings.warn(
                f"a linear system behind a gradient was solved to a residual of"
                f" {float(record.residual.max()):.3g} only, so that the gradient is inexact. Use"
                " backward=Exact(linear=Direct()), or a Krylov solver with more max_steps or a"
                " preconditioner.",
                stacklevel=2,
            )
        return x.reshape(shape), record


@final
@dataclass(frozen=True, kw_only=True)
class CG(AbstractKrylov):
    """Conjugate gradients, for symmetric positive definite A; a sample on which A is not fails.

    Args:
        rtol: |A x - b| <= rtol |b| inside Newton's method (None: 1e-3) and for adjoints (None:
            eps^(2/3)); `linear_solve` has its own.
        max_steps: Products with A at most.
        preconditioner: `Jacobi()`, `Factors(P)` with a matrix P that resembles A, or a function r -> M r
            with M something like A^-1; symmetric positive definite, acting sample by sample on any
            number of samples. The residual that counts is the true one.
    """

    rtol: float | None = None
    max_steps: int = 1000
    preconditioner: Preconditioner | None = None

    def init(self, system: System, z: Tensor) -> State:
        return self._started(system, z, -system(z))

    def _started(self, system: System, z: Tensor, r: Tensor, **known: Tensor) -> State:
        # In units of its own size: squares of the residual neither overflow nor vanish. A power of two,
        # so that nothing else is rounded.
        length = norms(r)
        size = torch.exp2(torch.clamp(torch.frexp(length).exponent, min=-1000).to(r) - 1)
        unit = r / size[:, None]
        y = _preconditioned(system, unit)
        memory = (size, unit, y, (unit * y).sum(1))
        return _residual_state(system, z, length, memory, **known)

    def step(self, system: System, state: State, tolerance: Tensor, left: Tensor) -> State:
        size, r, p, before = state.memory
        ap = system.function(p)
        curvature = (p * ap).sum(1)
        usable = (curvature > 0) & (before > 0)
        alpha = torch.where(usable, before / torch.where(usable, curvature, 1), 0)[:, None]
        z, r = state.z + (alpha * size[:, None]) * p, r - alpha * ap
        length = norms(r)
        ends = (length * size <= tolerance) & (left > 0)
        if bool(ends.any()):
            # The recursion's residual can be smaller than the true one: only that one counts at the
            # end, and the method starts anew where that is not small enough.
            r = torch.where(ends[:, None], -system(z) / size[:, None], r)
            length = norms(r)
        y = _preconditioned(system, r)
        new = (r * y).sum(1)
        beta = torch.where(usable & ~ends, new / torch.where(usable, before, 1), 0)
        memory = (size, r, y + beta[:, None] * p, new)
        return _residual_state(system, z, length * size, memory, stalled=~usable)


@final
@dataclass(frozen=True, kw_only=True)
class GMRES(AbstractKrylov):
    """Restarted GMRES, for any A; orthogonalised twice, residuals by Givens rotations.

    Args:
        restart: Vectors kept, restart (n + 1) numbers per sample.
        rtol: |A x - b| <= rtol |b| inside Newton's method (None: 1e-3) and for adjoints (None:
            eps^(2/3)); `linear_solve` has its own.
        max_steps: Products with A at most.
        preconditioner: As of `CG`, but any regular M; applied from the right, so that the residuals are
            those of A.

    References: saad1986gmres.
    """

    restart: int = 40
    rtol: float | None = None
    max_steps: int = 1000
    preconditioner: Preconditioner | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.restart < 1:
            raise ValueError(f"GMRES: restart={self.restart} must be at least 1")

    def init(self, system: System, z: Tensor) -> State:
        r = -system(z)
        return _residual_state(system, z, norms(r), r)

    def step(self, system: System, state: State, tolerance: Tensor, left: Tensor) -> State:
        """One cycle; a sample whose residual is small enough gets zero vectors from then on."""
        r, size = state.memory, norms(state.memory)
        running = (left > 0) & (size > 0)
        basis = [torch.where(running[:, None], r / _nonzero(size)[:, None], 0)]
        start = torch.where(running, size, 0)
        turns = torch.ones_like(size)[:, None, None]  # the product of all rotations
        triangle: list[Tensor] = []
        work = torch.zeros_like(left)
        length = min(self.restart, r.shape[1], int(left.max()))
        for j in range(length):
            work = work + running
            w, h = _orthogonalise(system.function(_preconditioned(system, basis[j])), basis)
            below = norms(w)
            h = (turns @ h[..., None])[..., 0]
            corner = torch.hypot(h[:, j], below)
            c = torch.where(corner > 0, h[:, j] / _nonzero(corner), 1)[:, None]
            s = torch.where(corner > 0, below / _nonzero(corner), 0)[:, None]
            # Columns whose vector is zero have a unit on the diagonal.
            triangle.append(torch.cat([h[:, :j], _nonzero(corner)[:, None]], 1))
            last = turns[:, j]
            rotated = torch.stack([torch.cat([c * last, s], 1), torch.cat([-s * last, c], 1)], 1)
            turns = torch.cat([torch.nn.functional.pad(turns[:, :j], (0, 1)), rotated], 1)
            left_over = (start * turns[:, j + 1, 0]).abs()
            running = running & (left_over > 0.5 * tolerance) & (work < left) & (below > 0)
            if not bool(running.any()):
                break
            basis.append(torch.where(running[:, None], w / _nonzero(below)[:, None], 0))
        z = state.z + _preconditioned(
            system, _combine(triangle, start[:, None] * turns[:, :, 0], basis)
        )
        new = -system(z)
        merit = norms(new)
        # A cycle that gains nothing repeats itself for ever.
        return _residual_state(system, z, merit, new, work=work, stalled=merit >= size)


def _residual_state(system: System, z: Tensor, size: Tensor, memory: Any, **known: Tensor) -> State:
    """The state of a residual of that size."""
    scale = system.size if isinstance(system, Affine) else torch.zeros_like(size)
    return State.of(z, size, size, memory, scale=scale, **known)


def _preconditioned(system: System, r: Tensor) -> Tensor:
    helper = system.precondition if isinstance(system, Affine) else None
    return r if helper is None else helper(r)


def _nonzero(x: Tensor) -> Tensor:
    return torch.where(x == 0, torch.ones_like(x), x)


def _orthogonalise(w: Tensor, basis: list[Tensor]) -> tuple[Tensor, Tensor]:
    """w without its parts along the basis, and those parts, shape (B, j + 1)."""
    vectors = torch.stack(basis, 1)  # shape: (B, j + 1, n)
    h = torch.zeros_like(vectors[..., 0])
    for _ in range(2):  # twice is enough
        part = (vectors @ w[..., None])[..., 0]
        w = w - (part[:, None] @ vectors)[:, 0]
        h = h + part
    return w, h


def _combine(triangle: list[Tensor], g: Tensor, basis: list[Tensor]) -> Tensor:
    """sum_j y_j v_j with R y = g; columns of R without the zeros below its diagonal."""
    k = len(triangle)
    if k == 0:
        return torch.zeros_like(basis[0])
    columns = [torch.nn.functional.pad(column, (0, k - column.shape[1])) for column in triangle]
    y = torch.linalg.solve_triangular(torch.stack(columns, 2), g[:, :k, None], upper=True)
    return (torch.stack(basis[:k], 1).mT @ y)[..., 0]
