"""From sympy expressions to torch functions, without changing the mathematics.

In    expressions, and the leaves (coordinates, parameters, field calls, derivatives) they stand on.
Out   a function from the leaves' tensors to the expressions' tensors.
Next  `lower.residuals` feeds it derivatives from jets; `solution` feeds it a solution's fields.

Trees are walked once, when compiled, into a list of instructions; equal subtrees become one
instruction. The result is made of plain torch operations: any device, any float type, differentiable
any number of times, safe under `torch.func` and `torch.compile`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import sympy as sp
import torch
from sympy.core.function import AppliedUndef
from sympy.logic.boolalg import BooleanAtom
from torch import Tensor

from pinnkit.errors import UnsupportedProblemError
from pinnkit.lower.nodes import lower_node

__all__ = ["Compiled", "compile_expressions"]

# A Piecewise branch of these alone is finite with all its derivatives wherever its inputs are.
_HARMLESS = (sp.Add, sp.Mul, sp.Number, sp.NumberSymbol, sp.Symbol, sp.sin, sp.cos, sp.tanh)


def compile_expressions(exprs: Sequence[sp.Expr], leaves: Sequence[sp.Basic]) -> Compiled:
    """The expressions as one function of the leaves.

    Args:
        exprs: Expressions (or relations, which give boolean tensors).
        leaves: Symbols, field calls such as u(t, x), and their `Derivative`s.

    Returns:
        A function: tensors in the order of `leaves` (broadcast together) to a list of tensors, one
        per expression, all of the broadcast shape.

    Raises:
        UnsupportedProblemError: for a symbol, field or derivative that is not a leaf, an imaginary
            or undefined number, or a function without a torch form.

    >>> x = sp.Symbol("x")
    >>> compile_expressions([sp.sqrt(2) * x, sp.pi], [x])([torch.tensor([1.0, 2.0])])
    [tensor([1.4142, 2.8284]), tensor([3.1416, 3.1416])]
    """
    stand_ins = [sp.Dummy(str(leaf), real=True) for leaf in leaves]
    rule = dict(zip(leaves, stand_ins, strict=True))
    program = _Program({s: i for i, s in enumerate(stand_ins)})
    outputs = []
    for expr in exprs:
        # xreplace meets a Derivative or field call before the symbols inside it.
        replaced = sp.sympify(expr).xreplace(rule)
        _check_leaves(replaced, expr, set(stand_ins))
        try:
            outputs.append(program.add(replaced))
        except UnsupportedProblemError as error:
            readable = str(error)
            for stand_in, leaf in zip(stand_ins, leaves, strict=True):
                readable = readable.replace(str(stand_in), str(leaf))
            raise UnsupportedProblemError(readable) from None
    return Compiled(len(leaves), program, outputs)


@dataclass(frozen=True, eq=False)
class Compiled:
    """Instructions over numbered slots; the first slots are the leaves."""

    leaf_count: int
    program: _Program
    outputs: list[int]

    def __call__(self, values: Sequence[Tensor]) -> list[Tensor]:
        if len(values) != self.leaf_count or not values:
            raise ValueError(
                f"expected {self.leaf_count} tensors (at least one), got {len(values)}"
            )
        # Not broadcast_shapes, which is Python: a third of the time of a small expression in a loop.
        shape = torch.broadcast_tensors(*values)[0].shape
        return self.filling(shape, values)

    def filling(self, shape: tuple[int, ...], values: Sequence[Tensor]) -> list[Tensor]:
        """The same, expanded to a shape that is known to be that of the values together, or larger."""
        slots = self.program.run(values)
        return [_full(slots[i], values[0], shape) for i in self.outputs]


def _full(value: Any, like: Tensor, shape: tuple[int, ...]) -> Tensor:
    if isinstance(value, Tensor):
        return value if value.shape == shape else value.expand(shape)
    dtype = torch.bool if isinstance(value, bool) else like.dtype
    return torch.full(shape, value, dtype=dtype, device=like.device)


@dataclass(eq=False)
class _Program:
    """Straight-line code: constants and operations, each filling the next slot after the leaves."""

    memo: dict[sp.Basic, int]
    code: list[tuple[Callable[..., Any], tuple[int, ...]]] = field(default_factory=list)
    leaf_count: int = field(init=False)

    def __post_init__(self) -> None:
        self.leaf_count = len(self.memo)

    def add(self, node: sp.Basic) -> int:
        """The slot that will hold the node's value."""
        known = self.memo.get(node)
        if known is not None:
            return known
        if not node.free_symbols:
            constant = _number(node)
            slot = self._emit(lambda: constant, ())
        elif isinstance(node, sp.Piecewise):
            slot = self._piecewise(node)
        else:
            operands = tuple(self.add(a) for a in node.args)
            slot = self._emit(lower_node(node), operands)
        self.memo[node] = slot
        return slot

    def _emit(self, function: Callable[..., Any], operands: tuple[int, ...]) -> int:
        self.code.append((function, operands))
        return self.leaf_count + len(self.code) - 1

    def _piecewise(self, node: sp.Piecewise) -> int:
        """torch.where over the branches, safe where an unselected branch is singular.

        The gradient of where(c, sqrt(x), 0) at an unselected x = 0 is 0 * inf = NaN. So a branch that
        may be singular is compiled by itself on masked inputs where(selected, x, x.detach()): whatever
        gradient arises at unselected points ends at the detached copy.
        """
        operands: list[int] = []
        branches: list[_Branch] = []
        for value, condition in node.args:  # type: ignore[misc]
            operands.append(self.add(condition))
            if value.free_symbols and not _is_harmless(value):
                inputs = sorted(value.free_symbols, key=lambda s: self.memo[s])
                inner = _Program({s: i for i, s in enumerate(inputs)})
                branches.append(_Branch(inner, inner.add(value), len(inputs)))
                operands += [self.memo[s] for s in inputs]
            else:
                branches.append(_Branch(None, 0, 1))
                operands.append(self.add(value))
        # A leaf comes along for its dtype: all branches may be numbers.
        operands.append(self.memo[min(node.free_symbols, key=lambda s: self.memo[s])])
        return self._emit(_Select(branches), tuple(operands))

    def run(self, values: Sequence[Tensor]) -> list[Any]:
        """All slots for these leaves."""
        slots: list[Any] = list(values)
        for function, operands in self.code:
            slots.append(function(*(slots[i] for i in operands)))
        return slots


@dataclass(frozen=True, eq=False)
class _Branch:
    """A Piecewise branch: a program of its own on masked inputs, or (None) a value computed outside."""

    program: _Program | None
    output: int
    inputs: int


@dataclass(frozen=True, eq=False)
class _Select:
    """Piecewise on lowered operands: per branch the condition and the branch's inputs, at last a leaf."""

    branches: list[_Branch]

    def __call__(self, *operands: Any) -> Tensor:
        like, position = operands[-1], 0
        pairs: list[tuple[Any, Any]] = []
        free: Tensor | None = None  # where no earlier condition held; None = everywhere
        for branch in self.branches:
            condition = operands[position]
            inputs = operands[position + 1 : position + 1 + branch.inputs]
            position += 1 + branch.inputs
            if not isinstance(condition, Tensor):
                condition = torch.full_like(like, bool(condition), dtype=torch.bool)
            selected = condition if free is None else condition & free
            free = ~condition if free is None else free & ~condition
            if branch.program is None:
                value = inputs[0]
            else:
                masked = [torch.where(selected, x, x.detach()) for x in inputs]
                value = branch.program.run(masked)[branch.output]
            pairs.append((selected, value))
        # A point no condition selects has no value, as in sympy.
        result = torch.full_like(like, math.nan)
        for selected, value in reversed(pairs):
            if not isinstance(value, Tensor):
                value = torch.full_like(like, value)
            result = torch.where(selected, value, result)
        return result


def _is_harmless(node: sp.Basic) -> bool:
    if isinstance(node, sp.Pow):
        return isinstance(node.exp, sp.Integer) and node.exp > 0 and _is_harmless(node.base)
    return isinstance(node, _HARMLESS) and all(_is_harmless(a) for a in node.args)


def _number(node: sp.Basic) -> float | bool:
    """A node without unknowns as a Python number, correctly rounded."""
    if isinstance(node, BooleanAtom):
        return bool(node)
    if isinstance(node, sp.Integer) and abs(int(node)) < 2**53:
        return float(int(node))
    value = sp.N(node, 30)
    if value == 0:  # sympy evaluates 0.0 to an Integer
        return 0.0
    if value in (sp.oo, -sp.oo):
        return math.inf if value == sp.oo else -math.inf
    if not isinstance(value, sp.Float):
        kind = (
            "complex" if getattr(value, "is_number", False) and value.has(sp.I) else "not a number"
        )
        raise UnsupportedProblemError(
            f"{node} is {kind}, and residuals are real. Declare complex unknowns with "
            "field(..., complex=True), which splits equations into real and imaginary parts."
        )
    return float(value)


def _check_leaves(replaced: sp.Basic, written: Any, known: set[sp.Dummy]) -> None:
    for kind, name in ((sp.Derivative, "the derivative"), (AppliedUndef, "the field")):
        for node in replaced.atoms(kind):
            back = next((a for a in sp.sympify(written).atoms(kind) if a.func == node.func), node)
            raise UnsupportedProblemError(
                f"{written} contains {name} {back}, which is not given here"
            )
    strange = sorted(str(s) for s in replaced.free_symbols - known)
    if strange:
        raise UnsupportedProblemError(
            f"{written} contains the symbols {', '.join(strange)}, which are not given here"
        )
