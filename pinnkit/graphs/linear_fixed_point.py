"""h = W h + b on graphs, for many heads at once: found sparsely, certified, differentiated exactly.

In    `Arcs`, a weight per arc and head, a bias per node and head.
Out   (h, Record), the record by graph and head; gradients of any order.
Next  `graphs.network` puts an encoder before it and a decoder behind it.

The iterations are those of `pinnkit.implicit`: a sample is one head on one graph, and stops by itself.
With h = (1 - W)^-1 b and an incoming gradient g, lambda = (1 - W^T)^-1 g is the same problem on the
reversed arcs; db = lambda and dW[r, s] = lambda_r h_s. The backward pass is made of this function and
of ordinary operations, so that it can be differentiated in turn. Memory does not grow with the number
of iterations, and is linear in arcs and nodes.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pinnkit.graphs.arcs import Arcs, Block
from pinnkit.implicit.checks import uncompiled
from pinnkit.implicit.contraction import Contraction
from pinnkit.implicit.iteration import (
    AbstractMethod,
    Rule,
    State,
    System,
    default_rtol,
    iterate,
)
from pinnkit.implicit.krylov import CG, GMRES, AbstractKrylov, Affine
from pinnkit.implicit.maps import Anderson, Picard
from pinnkit.implicit.record import ConvergenceError, Record, norms

__all__ = ["linear_fixed_point"]

METHODS = (Picard, Anderson, CG, GMRES)
PLAIN = (Picard(), Anderson(), GMRES())
# Contraction factors up to which plain iteration needs the least work, and from which Anderson's
# method sometimes fails: of 1000 random graphs two at 0.999, where GMRES solved all.
FAST, SLOW = 0.6, 0.95


@uncompiled
def linear_fixed_point(
    arcs: Arcs,
    weights: Tensor,  # shape: (A, M)
    bias: Tensor,  # shape: (N, M)
    *,
    solver: AbstractMethod | None = None,
    balance: Tensor | None = None,  # shape: (N, M)
    rtol: float | None = None,
    atol: float = 0.0,
    max_steps: int = 1000,
    throw: bool = False,
) -> tuple[Tensor, Record]:
    """h (N, M) with h_r = sum over arcs s -> r of weight * h_s + b_r, head by head.

    Args:
        arcs: The arcs; messages go from senders to receivers.
        weights: One number per arc and head. Where their absolute values on the arcs into each node
            add up to less than 1, the map is a contraction in the largest norm.
        bias: One number per node and head.
        solver: `Picard()`, `Anderson()`, `GMRES()`, or `CG()` for balanced weights. None: CG with a
            balance, else by the contraction factor: Picard up to 0.6, Anderson up to 0.95, then GMRES.
        balance: Positive d with d_r W[r, s] = d_s W[s, r]: weights of an undirected resistor network
            are so, d being the sum of conductances at a node.
        rtol, atol: A sample (a head on a graph) has converged when |W h + b - h| <= atol + rtol |h|
            (relative to the right-hand side for CG and GMRES); rtol=None means eps^(2/3).
        max_steps: Products with W at most.
        throw: Raise `ConvergenceError` instead of reporting failures in the record.

    The record's entries have shape (G, M). `record.error` bounds the largest error of the sample,
    rounding included, and is `certified`, where the weights contract.

    >>> arcs = Arcs(torch.tensor([0, 1]), torch.tensor([1, 0]), 2)
    >>> half = torch.full((2, 1), 0.5, dtype=torch.float64)
    >>> h, record = linear_fixed_point(arcs, half, torch.tensor([[1.0], [0.0]], dtype=torch.float64))
    >>> [round(v, 9) for v in h[:, 0].tolist()], record.certified.tolist()
    ([1.333333333, 0.666666667], [[True]])
    """
    _check(arcs, weights, bias, balance)
    if solver is not None and not isinstance(solver, METHODS):
        raise TypeError(f"solver={solver!r}; use Picard(), Anderson(), CG() or GMRES().")
    if isinstance(solver, CG) and balance is None:
        raise ValueError(
            "solver=CG() needs a symmetric system: give balance=, or use Anderson() or GMRES()."
        )
    rule = Rule(default_rtol(bias.dtype) if rtol is None else rtol, atol, max_steps)
    task = _Task(arcs, solver, rule, None if balance is None else balance.detach())
    h, *entries = _FixedPoint.apply(task, weights, bias)  # type: ignore[misc]
    record = Record(*entries)
    if throw and not bool(record.converged.all()):
        flat = Record(*(e.T.flatten() for e in record))
        raise ConvergenceError(h.detach(), flat)
    return h, record


@dataclass(frozen=True)
class _Task:
    """What is to be solved, apart from the numbers that gradients flow to."""

    arcs: Arcs
    solver: AbstractMethod | None
    rule: Rule
    balance: Tensor | None
    adjoint: bool = False

    def transposed(self) -> _Task:
        # d W = (d W)^T makes W^T balanced by 1 / d.
        turned = None if self.balance is None else 1 / self.balance
        return replace(self, arcs=self.arcs.reversed, balance=turned, adjoint=not self.adjoint)

    def solve(self, weights: Tensor, bias: Tensor) -> tuple[Tensor, Record]:
        """On plain tensors, block by block."""
        arcs, heads = self.arcs, bias.shape[1]
        h = torch.zeros_like(bias)
        shape = (arcs.n_graphs, heads)
        # A graph without nodes has nothing left to do.
        record = Record(
            bias.new_zeros(shape),
            torch.zeros(shape, dtype=torch.int64, device=bias.device),
            torch.ones(shape, dtype=torch.bool, device=bias.device),
            bias.new_zeros(shape),
            torch.ones(shape, dtype=torch.bool, device=bias.device),
        )
        for block in arcs.blocks:
            z, found = self._solve_block(block, weights, bias)
            block.unpadded(z, h)
            for whole, part in zip(record, found, strict=True):
                whole[block.graphs] = part.reshape(heads, -1).T
        return h, record

    def _solve_block(self, block: Block, weights: Tensor, bias: Tensor) -> tuple[Tensor, Record]:
        matrix = _BlockMatrix(block, block.entries(weights))
        b = block.padded(bias)
        unit = _units(b, self.rule)
        # The transposed weights contract in the sum norm, where their column sums count.
        factor = matrix.row_sums().amax(1)
        factor = factor * (1 + (int(block.counts.max()) + 4) * torch.finfo(b.dtype).eps)
        solver = self.solver
        if self.balance is None:
            z, record = self._unbalanced(matrix, b / unit, factor)
        else:
            solver = solver or CG()
            root = block.padded(self.balance).sqrt()
            root = torch.where(root > 0, root, torch.ones_like(root))  # the padding
            scaled = matrix.balanced(root)
            if isinstance(solver, CG):
                _check_balanced(scaled, root)
            z, record = _run(solver, scaled, b / unit * root, self.rule)
            z = z / root
        z, record = z * unit, record._replace(error=record.error * unit[:, 0])

        def gap(z: Tensor) -> Tensor:
            return matrix.product(z) + b - z

        def rounding(z: Tensor) -> Tensor:
            # A sum of k products is off by at most k + 2 units relative to the sum of their sizes.
            size = factor * z.abs().amax(1) + b.abs().amax(1)
            return (int(block.counts.max()) + 4) * torch.finfo(b.dtype).eps * size.double()

        record = record._replace(residual=norms(gap(z)))
        if not self.adjoint:
            bound = Contraction(factor=factor.double(), norm=math.inf, rounding=rounding)
            record = bound.judge(gap, z, (), record)
        return z, record

    def _unbalanced(self, matrix: _BlockMatrix, b: Tensor, factor: Tensor) -> tuple[Tensor, Record]:
        """Each sample by the method that its own factor asks for, whatever its batch-mates."""
        if self.solver is not None:
            return _run(self.solver, matrix, b, self.rule)
        kind = torch.bucketize(factor, factor.new_tensor((FAST, SLOW)))
        found = []
        for k in kind.unique().tolist():
            # The others are given nothing to do, which takes no iteration.
            mine = (kind == k)[:, None]
            found.append((mine, *_run(PLAIN[k], matrix, torch.where(mine, b, 0), self.rule)))
        _, z, record = found[0]
        for mine, other, theirs in found[1:]:
            z = torch.where(mine, other, z)
            pairs = zip(theirs, record, strict=True)
            record = Record(*(torch.where(mine[:, 0], new, old) for new, old in pairs))
        return z, record


class _BlockMatrix:
    """The block-diagonal sparse matrix of all heads on the graphs of a block."""

    def __init__(self, block: Block, entries: Tensor) -> None:
        self.block, self.entries = block, entries
        heads = len(entries)
        self.size = heads * len(block.counts)
        self.pointers, self.columns = block.pattern(heads)
        self._csr = self._make(entries)

    def _make(self, entries: Tensor) -> Tensor:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message="Sparse CSR tensor support", category=UserWarning
            )
            return torch.sparse_csr_tensor(
                self.pointers,
                self.columns,
                entries.flatten(),
                (self.size, self.size),
                check_invariants=False,
            )

    def product(self, z: Tensor) -> Tensor:  # shape: (B, size)
        return (self._csr @ z.flatten()).reshape(z.shape)

    def row_sums(self) -> Tensor:  # shape: (B, size)
        """Sums of the entries' absolute values."""
        ones = self.entries.new_ones(self.size)
        return (self._make(self.entries.abs()) @ ones).reshape(-1, self.block.size)

    def balanced(self, root: Tensor) -> _BlockMatrix:  # shape: (B, size)
        """root W / root."""
        flat = root.reshape(len(self.entries), -1)
        rows = torch.repeat_interleave(flat, self.block.counts, dim=1)
        return _BlockMatrix(self.block, self.entries * rows / flat[:, self.block.columns])


def _units(b: Tensor, rule: Rule) -> Tensor:  # shapes: (B, size) -> (B, 1)
    """A power of two of the size of each sample: gradients of 1e-44 are equations like any others.

    Multiplying by it changes no digit. An absolute tolerance is in the user's units, which stay.
    """
    size = b.abs().amax(1, keepdim=True)
    if rule.atol > 0:
        return torch.ones_like(size)
    info = torch.finfo(b.dtype)
    exponent = torch.frexp(size).exponent
    exponent = exponent.clamp(math.frexp(info.tiny)[1], math.frexp(info.max)[1] - 1)
    return torch.where(size > 0, torch.ldexp(torch.ones_like(size), exponent), 1)


def _run(
    solver: AbstractMethod, matrix: _BlockMatrix, b: Tensor, rule: Rule
) -> tuple[Tensor, Record]:
    if isinstance(solver, AbstractKrylov):
        system: System = Affine(lambda z: z - matrix.product(z), rhs=b)
        return iterate(_Attainable(solver, rule.rtol), system, torch.zeros_like(b), rule)
    system = System(lambda z: matrix.product(z) + b - z, is_map=True)
    return iterate(solver, system, b.clone(), rule)


@dataclass(frozen=True)
class _Attainable(AbstractMethod):
    """A Krylov method that is content with a residual of rounding, where |h| is much more than |b|.

    With gamma near 1 a residual of rtol |b| may lie below the rounding of h itself.
    """

    method: AbstractMethod
    rtol: float

    def init(self, system: System, z: Tensor) -> State:
        return self._widened(self.method.init(system, z))

    def step(self, system: System, state: State, tolerance: Tensor, left: Tensor) -> State:
        return self._widened(self.method.step(system, state, tolerance, left))

    def _widened(self, state: State) -> State:
        reach = 4 * torch.finfo(state.z.dtype).eps / max(self.rtol, 1e-300)
        return replace(state, scale=state.scale + reach * norms(state.z))


class _FixedPoint(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, task: _Task, weights: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        h, record = task.solve(weights.detach(), bias.detach())
        if task.adjoint and not bool(record.converged.all()):
            warnings.warn(
                f"{int((~record.converged).sum())} of {record.converged.numel()} adjoint systems of a"
                " graph did not converge, so that the gradient is inexact. Raise max_steps, lower"
                " the contraction factor, or take another solver.",
                stacklevel=2,
            )
        ctx.task = task
        ctx.save_for_backward(weights, h)
        ctx.mark_non_differentiable(*record)
        ctx.set_materialize_grads(False)
        return h, *record

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        if grads[0] is None:
            return None, None, None
        weights, h = ctx.saved_tensors
        task: _Task = ctx.task
        adjoint: Any = _FixedPoint.apply(task.transposed(), weights, grads[0])
        turned = None
        if ctx.needs_input_grad[1]:
            turned = adjoint[0][task.arcs.receivers] * h[task.arcs.senders]
        return None, turned, adjoint[0]


def _check(arcs: Arcs, weights: Tensor, bias: Tensor, balance: Tensor | None) -> None:
    if weights.ndim != 2 or len(weights) != arcs.n_arcs:
        raise ValueError(
            f"weights have the shape {tuple(weights.shape)}; expected ({arcs.n_arcs}, heads), one row"
            " per arc"
        )
    expected = (arcs.n_nodes, weights.shape[1])
    for name, value in (("bias", bias), ("balance", balance)):
        if value is not None and tuple(value.shape) != expected:
            raise ValueError(f"{name} has the shape {tuple(value.shape)}; expected {expected}")
        if value is not None and value.dtype != weights.dtype:
            raise ValueError(f"weights are {weights.dtype} and {name} is {value.dtype}")
    if not bool(torch.isfinite(weights).all()) or not bool(torch.isfinite(bias).all()):
        raise ValueError("weights and bias must be finite")
    if balance is not None and not bool(((balance > 0) & torch.isfinite(balance)).all()):
        raise ValueError("balance must be positive and finite")


def _check_balanced(matrix: _BlockMatrix, like: Tensor) -> None:
    """x . W y = y . W x for two vectors that no structure of a graph would single out."""
    count = torch.arange(like.numel(), dtype=like.dtype, device=like.device).reshape(like.shape)
    x, y = torch.cos(count), torch.sin(3 * count + 1)
    wx, wy = matrix.product(x), matrix.product(y)
    off = ((x * wy).sum(1) - (y * wx).sum(1)).abs()
    size = norms(x) * norms(wy) + norms(y) * norms(wx)
    if bool((off > torch.finfo(like.dtype).eps ** 0.5 * size).any()):
        raise ValueError(
            "the weights are not balanced: d_r W[r, s] differs from d_s W[s, r]. Correct balance=, or"
            " use Anderson() or GMRES()."
        )
