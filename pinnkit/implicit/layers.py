"""The doors: `fixed_point`, `root`, `least_squares`, and `differentiable` for solvers of one's own.

In    a function of (z, *params) on tensors whose dimension 0 counts independent samples.
Out   (z, Record), differentiable in params any number of times.
Next  used in any module or training loop; nothing here knows of differential equations.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pinnkit.implicit.backward import AbstractBackward, Exact
from pinnkit.implicit.checks import (
    as_function,
    check_captures,
    check_samples,
    check_start,
    uncompiled,
)
from pinnkit.implicit.contraction import Contraction
from pinnkit.implicit.equation import Equation, implicit, wants_gradient
from pinnkit.implicit.iteration import AbstractMethod, Rule, System, default_rtol, iterate
from pinnkit.implicit.jacobian import Jacobian
from pinnkit.implicit.krylov import CG, GMRES, AbstractKrylov
from pinnkit.implicit.levenberg_marquardt import LevenbergMarquardt
from pinnkit.implicit.linear import DENSE_SIZE, AbstractLinearSolver, Direct, check_linear
from pinnkit.implicit.maps import Anderson
from pinnkit.implicit.newton import Broyden, Newton, linear_for
from pinnkit.implicit.record import ConvergenceError, Record, flattened, norms
from pinnkit.implicit.sparse_jacobian import SparseDirect

__all__ = ["differentiable", "fixed_point", "least_squares", "root"]

Function = Callable[..., Tensor]


@uncompiled
def fixed_point(
    f: Function,
    z0: Tensor,  # shape: (B, ...)
    *params: Tensor,
    solver: AbstractMethod | None = None,
    backward: AbstractBackward | None = None,
    rtol: float | None = None,
    atol: float = 0.0,
    max_steps: int = 100,
    contraction: Contraction | None = None,
    throw: bool = False,
) -> tuple[Tensor, Record]:
    """z with f(z, *params) = z, sample by sample.

    Args:
        f: A function, or a module (its parameters then get gradients too).
        z0: Where to start; no gradient flows to it, except with `Unrolled()`.
        params: Every tensor f depends on; gradients flow to those that require them.
        solver: `Anderson()` (default), `Picard()`, `Broyden()`, or `Newton()` on f(z) - z = 0.
        backward: `Exact()` (default), `Phantom()`, `JacobianFree()` or `Unrolled()`.
        rtol, atol: A sample has converged when |f(z) - z| <= atol + rtol |z| (for Newton: the length
            of its step); rtol=None means eps^(2/3).
        max_steps: Steps of a sample at most.
        contraction: A Lipschitz bound of f in z, from `certify` or `ContractiveCell.contraction`;
            `record.error` then is Banach's bound, proved where `record.certified`.
        throw: Raise `ConvergenceError` instead of reporting failures in the record.

    >>> a = torch.ones(1, 1, dtype=torch.float64, requires_grad=True)
    >>> z, record = fixed_point(lambda z, a: torch.cos(a * z), torch.zeros_like(a), a)
    >>> round(z.item(), 10), record.converged.tolist()
    (0.7390851332, [True])
    """
    check_start(z0, name="z0")
    if contraction is not None and not isinstance(contraction, Contraction):
        raise TypeError(
            f"contraction={contraction!r}; use Contraction(factor=...), certify(net) or the cell's own."
        )
    function, params = as_function(f, params, name="f")
    check_captures(function, z0, params, name="f", same_shape=True)

    def gap(z: Tensor, *params: Tensor) -> Tensor:
        return function(z, *params) - z

    z, record = _solve(
        gap,
        gap,
        z0,
        params,
        method=_method(solver, Anderson(), door="fixed_point", is_map=True),
        backward=backward or Exact(),
        rule=_rule(z0, rtol, atol, max_steps, throw),
        is_map=True,
    )
    return z, record if contraction is None else contraction.judge(gap, z, params, record)


@uncompiled
def root(
    F: Function,
    z0: Tensor,  # shape: (B, ...)
    *params: Tensor,
    solver: AbstractMethod | None = None,
    backward: AbstractBackward | None = None,
    rtol: float | None = None,
    atol: float = 0.0,
    max_steps: int = 50,
    throw: bool = False,
) -> tuple[Tensor, Record]:
    """z with F(z, *params) = 0, as many equations as unknowns, sample by sample.

    Args:
        F: A function or a module from the shape of z to the same.
        z0, params, backward, max_steps, throw: As in `fixed_point`.
        solver: `Newton()` (default; `Newton(linear=GMRES())` is Newton-Krylov), or `Broyden()`.
        rtol, atol: A sample has converged when the full Newton step is no longer than
            atol + rtol |z|: that does not depend on the units of F. rtol=None means eps^(2/3).

    >>> a = torch.tensor([2.0, 9.0], dtype=torch.float64)
    >>> z, record = root(lambda z, a: z**2 - a, torch.ones_like(a), a)
    >>> z.tolist()
    [1.4142135623730951, 3.0]
    """
    check_start(z0, name="z0")
    function, params = as_function(F, params, name="F")
    check_captures(function, z0, params, name="F", same_shape=True)
    return _solve(
        function,
        function,
        z0,
        params,
        method=_method(solver, Newton(), door="root", is_map=False),
        backward=backward or Exact(),
        rule=_rule(z0, rtol, atol, max_steps, throw),
        is_map=False,
    )


@uncompiled
def least_squares(
    r: Function,
    z0: Tensor,  # shape: (B, ...)
    *params: Tensor,
    solver: LevenbergMarquardt | None = None,
    backward: AbstractBackward | None = None,
    rtol: float | None = None,
    atol: float = 0.0,
    max_steps: int = 100,
    throw: bool = False,
    jacobian: Function | None = None,
) -> tuple[Tensor, Record]:
    """z where |r(z, *params)|^2 is least, sample by sample.

    The gradient is that of J^T r = 0 with all second derivatives: it is exact where the residual is
    not zero, too.

    Args:
        r: A function or a module from (B, ...) to (B, ...), any number of residuals.
        z0, params, backward, max_steps, throw: As in `fixed_point`.
        solver: `LevenbergMarquardt()`; with `linear=LSMR()` no Jacobian is formed (the default above 128
            unknowns per sample).
        rtol, atol: A sample has converged when the undamped Gauss-Newton step is no longer than
            atol + rtol |z|; rtol=None means eps^(2/3).
        jacobian: (z, *params) -> dr/dz, shape (B, m, n) with both sides flattened; None: by autograd,
            a row at a time, which many residuals make slow.

    >>> t = torch.linspace(0, 1, 20, dtype=torch.float64)
    >>> data = torch.exp(-3 * t)[None]
    >>> z, _ = least_squares(lambda z, y: torch.exp(-z * t) - y, torch.ones_like(data[:, :1]), data)
    >>> round(z.item(), 10)
    3.0
    """
    check_start(z0, name="z0")
    count = len(params)
    function, params = as_function(r, params, name="r")
    check_captures(function, z0, params, name="r", same_shape=False)
    if solver is not None and not isinstance(solver, LevenbergMarquardt):
        raise TypeError(f"solver={solver!r}: least_squares takes LevenbergMarquardt().")

    def gradient(z: Tensor, *params: Tensor) -> Tensor:
        jacobian = Jacobian(lambda y: function(y, *params), z)
        return jacobian.pull(jacobian.value)

    return _solve(
        gradient,
        function,
        z0,
        params,
        method=solver or LevenbergMarquardt(),
        backward=backward or Exact(),
        rule=_rule(z0, rtol, atol, max_steps, throw),
        is_map=False,
        jacobian=None if jacobian is None else _first(jacobian, count),
        # Second derivatives at a minimum: symmetric, and definite where it is a proper one.
        linear=Direct() if z0.shape[1:].numel() <= DENSE_SIZE else CG(),
    )


def differentiable(
    optimality: Function,
    *,
    linear: AbstractLinearSolver | None = None,
    rtol: float | None = None,
    atol: float = 0.0,
    throw: bool = False,
) -> Callable[[Function], Callable[..., tuple[Tensor, Record]]]:
    """Make any solver differentiable by stating what its solutions satisfy.

    The decorated solver takes tensors and returns (z, Record) instead of z. It is called with plain
    tensors, so that numpy, scipy or a compiled library may do the work.

    Args:
        optimality: F(z, *params), zero at the solutions, of the shape of z: a residual, or the
            gradient of an objective; a function or a module.
        linear: As in `Exact`.
        rtol, atol: `converged` where the Newton step from the solver's answer is no longer than
            atol + rtol |z|; `record.error` is that length. rtol=None means eps^(1/3).
        throw: Raise `ConvergenceError` instead.

    >>> @differentiable(lambda z, a: z**3 - a)
    ... def cube_root(a):
    ...     return torch.from_numpy(a.numpy() ** (1 / 3))
    >>> a = torch.tensor([8.0], dtype=torch.float64, requires_grad=True)
    >>> z, record = cube_root(a)
    >>> round(torch.autograd.grad(z.sum(), a)[0].item(), 12)  # 1 / (3 a^(2/3))
    0.083333333333
    """

    Rule(rtol or 0.0, atol, 1)  # the same checks as everywhere
    check_linear(linear, owner="differentiable")
    if not callable(optimality):
        raise TypeError(f"optimality={optimality!r} must be a function F(z, *params).")

    def decorate(solver: Function) -> Callable[..., tuple[Tensor, Record]]:
        @functools.wraps(solver)
        def solve(*params: Tensor) -> tuple[Tensor, Record]:
            as_function(solver, params, name=getattr(solver, "__name__", "the solver"))
            count = len(params)
            if not params:
                raise TypeError("a decorated solver takes the tensors it depends on, at least one.")
            condition, params = as_function(optimality, params, name="the optimality condition")
            equation = Equation(
                optimality=condition,
                function=lambda *both: solver(*both[:count]),
                find=_Ask(linear, rtol, atol, throw),
                linear=_Late(linear),
                by_slices=True,
                warn=wants_gradient(params),
                precondition=linear and linear.precondition,
            )
            z, record = implicit(equation, None, *params)
            check_captures(condition, z, params, name="the optimality condition", same_shape=True)
            return z, record

        return uncompiled(solve)

    return decorate


def _solve(
    optimality: Function,
    function: Function,
    z0: Tensor,
    params: tuple[Tensor, ...],
    *,
    method: AbstractMethod,
    backward: AbstractBackward,
    rule: Rule,
    is_map: bool,
    jacobian: Function | None = None,
    linear: AbstractLinearSolver | None = None,
) -> tuple[Tensor, Record]:
    if not isinstance(backward, AbstractBackward):
        raise TypeError(
            f"backward={backward!r}; use Exact(), Phantom(), JacobianFree(), Unrolled()."
        )
    reason = backward.refuses(is_map=is_map, unrolls=method.unrolls)
    if reason is not None:
        raise ValueError(f"backward={backward!r} {reason}. Use Exact().")
    equation = Equation(
        optimality=optimality,
        function=function,
        find=_Iterate(method, rule, is_map),
        linear=linear or _adjoint(method, z0.shape[1:].numel()),
        jacobian=jacobian,
    )
    return backward.attach(equation, z0, params)


def _adjoint(method: AbstractMethod, unknowns: int) -> AbstractLinearSolver:
    """What solves with the transposed Jacobian; the method's pattern or preconditioner serves there, too."""
    own = method.linear if isinstance(method, Newton | Broyden) else None
    if isinstance(own, SparseDirect):
        return own
    usual = linear_for(unknowns)
    if isinstance(usual, AbstractKrylov) and isinstance(own, CG | GMRES) and own.preconditioner:
        return replace(own, rtol=None)
    return usual


def _first(function: Function, count: int) -> Function:
    """Without the parameters of a module, which `as_function` appends."""
    return lambda z, *params: function(z, *params[:count])


def _method(
    solver: AbstractMethod | None, default: AbstractMethod, *, door: str, is_map: bool
) -> AbstractMethod:
    if solver is None:
        return default
    suited = isinstance(solver, AbstractMethod) and not isinstance(
        solver, (LevenbergMarquardt, AbstractLinearSolver)
    )
    if not suited or (solver.only_maps and not is_map):
        maps = "Anderson(), Picard(), " if is_map else ""
        raise TypeError(f"solver={solver!r}: {door} takes {maps}Newton() or Broyden().")
    return solver


def _rule(z0: Tensor, rtol: float | None, atol: float, max_steps: int, throw: bool) -> Rule:
    return Rule(default_rtol(z0.dtype) if rtol is None else rtol, atol, max_steps, throw)


@dataclass(frozen=True)
class _Iterate:
    """Runs a method on plain tensors of any shape (B, ...)."""

    method: AbstractMethod
    rule: Rule
    is_map: bool

    def __call__(
        self, equation: Equation, z0: Tensor | None, params: tuple[Tensor, ...]
    ) -> tuple[Tensor, Record]:
        assert z0 is not None
        check_samples(equation.function, z0, params)
        shape = z0.shape

        def flat(z: Tensor) -> Tensor:
            return flattened(equation.function(z.reshape(shape), *params))

        def matrix(z: Tensor) -> Tensor:
            assert equation.jacobian is not None
            found = equation.jacobian(z.reshape(shape), *params)
            if found.ndim != 3 or found.shape[::2] != z.shape:
                raise ValueError(
                    f"jacobian returned shape {tuple(found.shape)}; it must be (B, m, n), here"
                    f" ({z.shape[0]}, m, {z.shape[1]})."
                )
            return found

        known = None if equation.jacobian is None else matrix
        system = System(flat, self.is_map, known, lambda user: equation.on_rows(user, shape))
        z, record = iterate(self.method, system, flattened(z0), self.rule)
        return z.reshape(shape), record


@dataclass(frozen=True)
class _Ask:
    """Calls the user's solver and measures its answer by the Newton step from there."""

    linear: AbstractLinearSolver | None
    rtol: float | None
    atol: float
    throw: bool

    def __call__(
        self, equation: Equation, z0: Tensor | None, params: tuple[Tensor, ...]
    ) -> tuple[Tensor, Record]:
        z: Any = equation.function(*(p.detach() for p in params))
        check_start(z, name="the solver's answer")
        z = z.detach()
        shape = getattr(equation.optimality(z, *params), "shape", None)
        if shape != z.shape:
            raise ValueError(
                f"the solver answered with shape {tuple(z.shape)}, of which the optimality condition"
                f" makes {'no tensor' if shape is None else tuple(shape)}; it must return one equation"
                " for each unknown."
            )
        check_samples(equation.optimality, z, params)

        def flat(y: Tensor) -> Tensor:
            return flattened(equation.optimality(y.reshape(z.shape), *params))

        start = flattened(z)
        jacobian = Jacobian(flat, start)
        linear = self.linear or linear_for(start.shape[1])
        inverse = linear.inverse(jacobian, lambda user: equation.on_rows(user, z.shape))
        step, reached = inverse(jacobian.value)
        error = torch.where(reached, norms(step), torch.nan)
        rtol = torch.finfo(z.dtype).eps ** (1 / 3) if self.rtol is None else self.rtol
        converged = error <= self.atol + rtol * norms(z)
        ones = torch.ones_like(converged, dtype=torch.int64)
        record = Record(norms(jacobian.value), ones, converged, error, torch.zeros_like(converged))
        if self.throw and not bool(converged.all()):
            raise ConvergenceError(z, record)
        return z, record


@dataclass(frozen=True)
class _Late:
    """The solver for as many unknowns as the answer turns out to have."""

    linear: AbstractLinearSolver | None

    def solve(
        self, matvec: Function, rhs: Tensor, *args: Tensor, precondition: Function | None = None
    ) -> Tensor:
        linear = self.linear or linear_for(rhs.shape[1:].numel())
        return linear.solve(matvec, rhs, *args, precondition=precondition)
