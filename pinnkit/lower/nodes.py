"""What each sympy class becomes in torch.

In    one sympy node, its arguments already lowered to tensors or Python floats.
Out   `lower_node(node)`: a function of the lowered arguments.
Next  `lower.expressions` walks trees with it.

`lower_node` is a `functools.singledispatch` function. A function missing here is added from outside
exactly as it is done here:

    @lower_node.register(sp.airyai)
    def _(node): return lambda x: my_airy(x)

At least one argument is a tensor (nodes without unknowns are folded to numbers beforehand). Constants
are Python floats, which take the tensors' dtype instead of changing it.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import sympy as sp
import torch
from sympy.logic.boolalg import And, Not, Or, Xor
from torch import Tensor

from pinnkit.declare.expansion import AppliedExpansion
from pinnkit.errors import UnsupportedProblemError

__all__ = ["Lowered", "lower_node"]

Value = Any  # Tensor or float or bool
Lowered = Callable[..., Tensor]


@functools.singledispatch
def lower_node(node: sp.Basic) -> Lowered:
    """The torch function of the node's lowered arguments."""
    raise UnsupportedProblemError(
        f"{node} contains {type(node).__name__}, which has no torch form. Rewrite it with elementary "
        f"functions, or register one: @pinnkit.lower.lower_node.register(sympy.{type(node).__name__})."
    )


def _tensors(*values: Value) -> list[Tensor]:
    """Numbers among the values become tensors of the others' dtype."""
    like = next(v for v in values if isinstance(v, Tensor))
    return [v if isinstance(v, Tensor) else torch.full_like(like, v) for v in values]


def _register_unary(cls: Any, function: Callable[[Tensor], Tensor]) -> None:
    lower_node.register(cls)(lambda node: function)


def integer_power(x: Tensor, n: int) -> Tensor:
    """x^n by repeated squaring: exact derivatives at 0, and cheaper than pow."""
    if n < 0:
        return 1 / integer_power(x, -n)
    result: Tensor | None = None
    while True:
        if n & 1:
            result = x if result is None else result * x
        n >>= 1
        if n == 0:
            return torch.ones_like(x) if result is None else result
        x = x * x


@lower_node.register(sp.Add)
def _(node: sp.Add) -> Lowered:
    return lambda *terms: functools.reduce(operator.add, terms)


@lower_node.register(sp.Mul)
def _(node: sp.Mul) -> Lowered:
    return lambda *factors: functools.reduce(operator.mul, factors)


@lower_node.register(sp.Pow)
def _(node: sp.Pow) -> Lowered:
    exponent = node.exp
    if isinstance(exponent, sp.Integer):
        n = int(exponent)
        if abs(n) <= 64:
            return lambda x, _: integer_power(x, n)
        return lambda x, _: torch.pow(x, n)
    if exponent == sp.Rational(1, 2):
        return lambda x, _: torch.sqrt(x)
    if exponent == sp.Rational(-1, 2):
        return lambda x, _: torch.rsqrt(x)
    # x^(3/2) stays one pow: as x * sqrt(x) its derivative at 0 would be 0 * inf.
    return torch.pow


@lower_node.register(AppliedExpansion)
def _(node: AppliedExpansion) -> Lowered:
    expansion = node.expansion
    coefficients = torch.from_numpy(expansion.coefficients.copy())

    def lowered(*operands: Value) -> Tensor:
        columns = torch.broadcast_tensors(*_tensors(*operands))
        known = coefficients.to(columns[0])
        return expansion.contract([c.reshape(-1) for c in columns], known, torch).view_as(
            columns[0]
        )

    return lowered


for _cls, _function in {
    sp.exp: torch.exp,
    sp.log: torch.log,
    sp.sin: torch.sin,
    sp.cos: torch.cos,
    sp.tan: torch.tan,
    sp.sinh: torch.sinh,
    sp.cosh: torch.cosh,
    sp.tanh: torch.tanh,
    sp.asin: torch.asin,
    sp.acos: torch.acos,
    sp.atan: torch.atan,
    sp.asinh: torch.asinh,
    sp.acosh: torch.acosh,
    sp.atanh: torch.atanh,
    sp.Abs: torch.abs,
    sp.sign: torch.sign,
    sp.erf: torch.erf,
    sp.erfc: torch.erfc,
    sp.floor: torch.floor,
    sp.ceiling: torch.ceil,
}.items():
    _register_unary(_cls, _function)

_register_unary(sp.acot, lambda x: torch.atan(1 / x))
_register_unary(sp.cot, lambda x: torch.cos(x) / torch.sin(x))
_register_unary(sp.sec, lambda x: 1 / torch.cos(x))
_register_unary(sp.csc, lambda x: 1 / torch.sin(x))
_register_unary(sp.coth, lambda x: 1 / torch.tanh(x))
_register_unary(sp.sech, lambda x: 1 / torch.cosh(x))
_register_unary(sp.csch, lambda x: 1 / torch.sinh(x))
_register_unary(sp.sinc, lambda x: torch.sinc(x / math.pi))  # torch's sinc is sin(pi x) / (pi x)
# Every unknown and coordinate is real here (complex fields were split before).
_register_unary(sp.re, lambda x: x)
_register_unary(sp.im, torch.zeros_like)
_register_unary(sp.conjugate, lambda x: x)
_register_unary(sp.UnevaluatedExpr, lambda x: x)


@lower_node.register(sp.atan2)
def _(node: sp.atan2) -> Lowered:
    return lambda y, x: torch.atan2(*_tensors(y, x))


@lower_node.register(sp.Mod)
def _(node: sp.Mod) -> Lowered:
    return lambda x, n: torch.remainder(*_tensors(x, n))


@lower_node.register(sp.Max)
def _(node: sp.Max) -> Lowered:
    return lambda *values: functools.reduce(torch.maximum, _tensors(*values))


@lower_node.register(sp.Min)
def _(node: sp.Min) -> Lowered:
    return lambda *values: functools.reduce(torch.minimum, _tensors(*values))


@lower_node.register(sp.Heaviside)
def _(node: sp.Heaviside) -> Lowered:
    def heaviside(x: Tensor, at_zero: Value) -> Tensor:
        x, at_zero = _tensors(x, at_zero)
        step = torch.where(x > 0, torch.ones_like(x), torch.where(x < 0, 0 * x.detach(), at_zero))
        return torch.where(torch.isnan(x), x, step)  # comparisons would hide a NaN

    return heaviside


@lower_node.register(sp.gamma)
def _(node: sp.gamma) -> Lowered:
    def gamma(x: Tensor) -> Tensor:
        # Euler's reflection below 1/2; each branch sees a harmless argument where it is not used.
        low = x < 0.5
        direct = torch.exp(torch.lgamma(torch.where(low, torch.ones_like(x), x)))
        y = torch.where(low, x, torch.full_like(x, 0.25))
        reflected = math.pi / (torch.sin(math.pi * y) * torch.exp(torch.lgamma(1 - y)))
        return torch.where(low, reflected, direct)

    return gamma


@lower_node.register(sp.loggamma)
def _(node: sp.loggamma) -> Lowered:
    # Complex for x < 0, where torch's lgamma would return log|gamma|, another function.
    return lambda x: torch.where(x > 0, torch.lgamma(x), torch.full_like(x, math.nan))


@lower_node.register(sp.factorial)
def _(node: sp.factorial) -> Lowered:
    gamma = lower_node(sp.gamma(sp.Symbol("x")))
    return lambda x: gamma(x + 1)


@lower_node.register(sp.polygamma)
def _(node: sp.polygamma) -> Lowered:
    order = node.args[0]
    if not isinstance(order, sp.Integer):
        raise UnsupportedProblemError(f"{node}: polygamma needs an integer order")
    n = int(order)
    return lambda _, x: torch.special.polygamma(n, x)


for _cls, _compare in {
    sp.StrictLessThan: operator.lt,
    sp.LessThan: operator.le,
    sp.StrictGreaterThan: operator.gt,
    sp.GreaterThan: operator.ge,
    sp.Equality: operator.eq,
    sp.Unequality: operator.ne,
}.items():
    lower_node.register(_cls)(lambda node, _compare=_compare: _compare)


def _booleans(values: tuple[Value, ...]) -> list[Tensor]:
    like = next(v for v in values if isinstance(v, Tensor))
    return [v if isinstance(v, Tensor) else torch.full_like(like, bool(v)) for v in values]


@lower_node.register(And)
def _(node: And) -> Lowered:
    return lambda *values: functools.reduce(torch.logical_and, _booleans(values))


@lower_node.register(Or)
def _(node: Or) -> Lowered:
    return lambda *values: functools.reduce(torch.logical_or, _booleans(values))


@lower_node.register(Xor)
def _(node: Xor) -> Lowered:
    return lambda *values: functools.reduce(torch.logical_xor, _booleans(values))


@lower_node.register(Not)
def _(node: Not) -> Lowered:
    return torch.logical_not
