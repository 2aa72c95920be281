"""Krylov solvers for a batch of systems: conjugate gradients and GMRES, by products with A alone.

In    an `Affine` system A x - b, sample by sample.
Out   states whose correction is |A x - b|, relative to |b|; solutions differentiable in A and b.
Next  `Newton(linear=GMRES())`, `Exact(linear=CG())`, `linear_solve(..., solver=GMRES())`.

Never the normal equations: they would square the condition number.
"""

from __future__ import annotations

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
from pinnkit.implicit.jacobian import Jacobian
from pinnkit.implicit.linear import AbstractLinearSolver
from pinnkit.implicit.record import Record, flattened, norms

__all__ = ["CG", "GMRES", "AbstractKrylov", "Affine"]

FORCING = 1e-3  # relative residual of the systems inside Newton's method


@dataclass(frozen=True, kw_only=True)
class Affine(System):
    """A x - b; `function` is x -> A x."""

    rhs: Tensor

    def __call__(self, z: Tensor) -> Tensor:
        return self.function(z) - self.rhs


class AbstractKrylov(AbstractMethod, AbstractLinearSolver):
    """A Krylov method as an iteration, and as the solver of Newton's and adjoint systems."""

    rtol: float | None
    max_steps: int

    def inverse(self, jacobian: Jacobian) -> Callable[[Tensor], Tensor]:
        rule = Rule(self.rtol or FORCING, 0.0, self.max_steps)

        def apply(rhs: Tensor) -> Tensor:
            # Samples that left the finite numbers have failed already; the others go on.
            rhs = torch.where(torch.isfinite(rhs).all(1, keepdim=True), rhs, 0)
            system = Affine(jacobian.push, rhs=rhs)
            return iterate(self, system, torch.zeros_like(rhs), rule)[0]

        return apply

    def solve(self, matvec: Function, rhs: Tensor, *args: Tensor) -> Tensor:
        rule = Rule(self.rtol or default_rtol(rhs.dtype), 0.0, self.max_steps)
        return self.attached(matvec, torch.zeros_like(rhs), rule, rhs, *args, strict=True)[0]

    def attached(
        self, matvec: Function, x0: Tensor, rule: Rule, rhs: Tensor, *args: Tensor, strict: bool
    ) -> tuple[Tensor, Record]:
        """x and its record, differentiable; `strict`: failure must be heard, nobody sees the record."""
        equation = Equation(
            optimality=lambda x, rhs, *args: matvec(x, *args) - rhs,
            function=lambda x, rhs, *args: matvec(x, *args),
            find=_Find(self, rule, strict),
            linear=self,
        )
        return implicit(equation, x0, rhs, *args)


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
        shape = x0.shape

        def flat(x: Tensor) -> Tensor:
            return flattened(equation.function(x.reshape(shape), *params))

        # A 0 - b: under vmap the right-hand side alone would not have the shape of the samples.
        b = -flattened(equation.optimality(torch.zeros_like(x0), *params))
        x, record = iterate(self.method, Affine(flat, rhs=b), flattened(x0), self.rule)
        if self.strict and not bool(record.converged.all()):
            warnings.warn(
                f"a linear system behind a gradient was solved to a residual of"
                f" {float(record.residual.max()):.3g} only, so that the gradient is inexact. Use"
                " backward=Exact(linear=Direct()), or a Krylov solver with more max_steps.",
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
    """

    rtol: float | None = None
    max_steps: int = 1000

    def init(self, system: System, z: Tensor) -> State:
        r = -system(z)
        return _residual_state(system, z, r, (r, r, r.square().sum(1)))

    def step(self, system: System, state: State, tolerance: Tensor, left: Tensor) -> State:
        r, p, rr = state.memory
        ap = system.function(p)
        curvature = (p * ap).sum(1)
        usable = curvature > 0
        alpha = torch.where(usable, rr / torch.where(usable, curvature, 1), 0)[:, None]
        z, r = state.z + alpha * p, r - alpha * ap
        new = r.square().sum(1)
        beta = torch.where(rr > 0, new / torch.where(rr > 0, rr, 1), 0)
        memory = (r, r + beta[:, None] * p, new)
        # The recursion's residual can be smaller than the true one: only that one counts at the end.
        ends = (norms(r) <= tolerance) & (left > 0)
        true = torch.where(ends[:, None], -system(z), r) if bool(ends.any()) else r
        return _residual_state(system, z, true, memory, stalled=~usable)


@final
@dataclass(frozen=True, kw_only=True)
class GMRES(AbstractKrylov):
    """Restarted GMRES, for any A; orthogonalised twice, residuals by Givens rotations.

    Args:
        restart: Vectors kept, restart (n + 1) numbers per sample.
        rtol: |A x - b| <= rtol |b| inside Newton's method (None: 1e-3) and for adjoints (None:
            eps^(2/3)); `linear_solve` has its own.
        max_steps: Products with A at most.

    References: saad1986gmres.
    """

    restart: int = 40
    rtol: float | None = None
    max_steps: int = 1000

    def __post_init__(self) -> None:
        if self.restart < 1:
            raise ValueError(f"GMRES: restart={self.restart} must be at least 1")

    def init(self, system: System, z: Tensor) -> State:
        r = -system(z)
        return _residual_state(system, z, r, r)

    def step(self, system: System, state: State, tolerance: Tensor, left: Tensor) -> State:
        """One cycle; a sample whose residual is small enough gets zero vectors from then on."""
        r, size = state.memory, norms(state.memory)
        running = (left > 0) & (size > 0)
        basis = [torch.where(running[:, None], r / _nonzero(size)[:, None], 0)]
        g = [torch.where(running, size, 0)]  # the rotated right-hand side
        triangle: list[list[Tensor]] = []
        turns: list[tuple[Tensor, Tensor]] = []
        work = torch.zeros_like(left)
        length = min(self.restart, r.shape[1], int(left.max()))
        for j in range(length):
            work = work + running
            w, h = _orthogonalise(system.function(basis[j]), basis)
            below = norms(w)
            for i, (c, s) in enumerate(turns):
                h[i], h[i + 1] = c * h[i] + s * h[i + 1], c * h[i + 1] - s * h[i]
            length_j = torch.hypot(h[j], below)
            c = torch.where(length_j > 0, h[j] / _nonzero(length_j), 1)
            s = torch.where(length_j > 0, below / _nonzero(length_j), 0)
            h[j] = _nonzero(length_j)
            turns.append((c, s))
            triangle.append(h)
            g.append(-s * g[j])
            g[j] = c * g[j]
            running = running & (g[j + 1].abs() > 0.5 * tolerance) & (work < left) & (below > 0)
            if not bool(running.any()):
                break
            basis.append(torch.where(running[:, None], w / _nonzero(below)[:, None], 0))
        z = state.z + _combine(triangle, g, basis)
        new = -system(z)
        merit = norms(new)
        # A cycle that gains nothing repeats itself for ever.
        return _residual_state(system, z, new, new, work=work, stalled=merit >= size)


def _residual_state(system: System, z: Tensor, r: Tensor, memory: Any, **known: Tensor) -> State:
    size = norms(r)
    scale = norms(system.rhs) if isinstance(system, Affine) else torch.zeros_like(size)
    return State.of(z, size, size, memory, scale=scale, **known)


def _nonzero(x: Tensor) -> Tensor:
    return torch.where(x == 0, torch.ones_like(x), x)


def _orthogonalise(w: Tensor, basis: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """w without its parts along the basis, and those parts with a zero appended for the rotations."""
    vectors = torch.stack(basis, 1)  # shape: (B, j + 1, n)
    h = torch.zeros_like(vectors[..., 0])
    for _ in range(2):  # twice is enough
        part = (vectors @ w[..., None])[..., 0]
        w = w - (part[:, None] @ vectors)[:, 0]
        h = h + part
    return w, list(h.unbind(1))


def _combine(triangle: list[list[Tensor]], g: list[Tensor], basis: list[Tensor]) -> Tensor:
    """sum_j y_j v_j with R y = g; columns whose vector is zero have a unit on the diagonal."""
    k = len(triangle)
    y: list[Tensor] = [g[0]] * k
    for i in reversed(range(k)):
        known = sum((triangle[j][i] * y[j] for j in range(i + 1, k)), torch.zeros_like(g[i]))
        y[i] = (g[i] - known) / triangle[i][i]
    return sum((y[j][:, None] * basis[j] for j in range(k)), torch.zeros_like(basis[0]))
