"""Jets through element-wise functions: tanh, sine, exponential, sigmoid, SiLU, GELU, softplus.

In    the jet of a, as (S, n, w).
Out   the jet of f(a); differentiable, also twice.
Next  `lower.jets` calls `activation_jet` for the activation modules it knows.

Every rule returns two jets: y of f(a) and d of f'(a). d serves twice. Forward, the chain rule
y' = d a' gives each coefficient of y from lower ones. Backward, a perturbation of the jet obeys
delta y = d * delta a (a product of jets), so the gradient with respect to a is the transposed
product with d: one saved tensor, no graph of the recursion.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pinnkit.lower.jet_algebra import JetSpec, multiply

__all__ = [
    "RULES",
    "activation_jet",
    "exp_rule",
    "gelu_rule",
    "is_traced",
    "sigmoid_rule",
    "silu_rule",
    "sin_rule",
    "softplus_rule",
    "tanh_rule",
]

_THREAD_SHARE = 1 << 16  # numbers per thread; below half of it torch leaves threads idle

Coefficients = list[Tensor]
Rule = Callable[[Coefficients, JetSpec], tuple[Coefficients, Coefficients]]


def is_traced() -> bool:
    """True under torch.compile and inside torch.func transforms, where plain operations are needed."""
    return (
        torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack() is not None  # type: ignore[attr-defined]
    )


def activation_jet(a: Tensor, rule: Rule, spec: JetSpec) -> Tensor:  # shapes: (S, n, w)
    """The jet of f(a) for the function f that `rule` stands for."""
    if is_traced():
        # The compiler and torch.func differentiate the recursion themselves (and fuse it better).
        return torch.stack(rule(list(a.unbind(0)), spec)[0])
    if rule is tanh_rule:
        return _Tanh.apply(a, spec)  # type: ignore[return-value]
    return _Composition.apply(a, rule, spec)  # type: ignore[return-value]


class _Composition(torch.autograd.Function):
    """y = f(a) on jets with the hand-written backward g_a = d^T g_y."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, rule: Rule, spec: JetSpec) -> Tensor:
        y, d = rule(list(a.unbind(0)), spec)
        ctx.rule, ctx.spec = rule, spec
        ctx.save_for_backward(a, torch.stack(d))
        return torch.stack(y)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        a, d = ctx.saved_tensors
        spec: JetSpec = ctx.spec
        slopes = list(d.unbind(0))
        if torch.is_grad_enabled():
            # A second differentiation: d must depend on a, so it is computed again in the open.
            slopes = ctx.rule(list(a.unbind(0)), spec)[1]
        return torch.stack(_transposed_multiply(slopes, g.unbind(0), spec)), None, None


class _Tanh(torch.autograd.Function):
    """`tanh_rule`, the hottest lines of a Gauss-Newton step: buffers in cache, and d made twice.

    d = 1 - y^2 follows from the output, so nothing but y is kept: for wide layers touching new
    memory costs more than the arithmetic.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, spec: JetSpec) -> Tensor:
        y = torch.empty_like(a)
        for rows in _pieces(a):
            _tanh_into(y[:, rows], a[:, rows], spec)
        ctx.spec = spec
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (y,) = ctx.saved_tensors
        spec: JetSpec = ctx.spec
        if torch.is_grad_enabled():  # y is an output, so its dependence on a is in the graph
            slopes = [1 - y[0] * y[0]]
            slopes += [-_square(list(y.unbind(0)), s, spec) for s in range(1, spec.size)]
            return torch.stack(_transposed_multiply(slopes, g.unbind(0), spec)), None
        out = torch.empty_like(y)
        for rows in _pieces(y):
            _tanh_backward_into(out[:, rows], y[:, rows], g[:, rows], spec)
        return out, None


def _pieces(jet: Tensor) -> list[slice]:
    """Slices of points: small, so that a piece stays in cache, but with work for every thread."""
    points, width = jet.shape[1:]
    size = max(1, torch.get_num_threads() * _THREAD_SHARE // max(1, width))
    if jet.device.type != "cpu" or size >= points:
        return [slice(None)]
    return [slice(start, start + size) for start in range(0, points, size)]


def _tanh_into(y: Tensor, a: Tensor, spec: JetSpec) -> None:
    ys, inputs = y.unbind(0), a.unbind(0)
    torch.tanh(inputs[0], out=ys[0])
    ds = {0: torch.rsub(ys[0] * ys[0], 1)}
    minus_twice = ys[0] * -2
    if spec.size > 1:
        torch.mul(a[1:], ds[0], out=y[1:])
    for s in range(1, spec.size):
        for b, c, weight in spec.chains[s]:
            ys[s].addcmul_(inputs[b], ds[c], value=weight)
        if s in spec.slopes_used:
            ds[s] = _tanh_slope(minus_twice, ys, s, spec)


def _tanh_backward_into(out: Tensor, y: Tensor, g: Tensor, spec: JetSpec) -> None:
    ys, gs, outs = y.unbind(0), g.unbind(0), out.unbind(0)
    torch.mul(g, torch.rsub(ys[0] * ys[0], 1), out=out)
    minus_twice = ys[0] * -2
    for c in range(1, spec.size):
        slope = _tanh_slope(minus_twice, ys, c, spec)
        for s, b in spec.shifts[c]:
            outs[b].addcmul_(slope, gs[s])


def _tanh_slope(minus_twice: Tensor, ys: tuple[Tensor, ...], s: int, spec: JetSpec) -> Tensor:
    """Coefficient s > 0 of 1 - y^2."""
    slope = minus_twice * ys[s]
    for b, c, count in spec.squares[s]:
        slope.addcmul_(ys[b], ys[c], value=-count)
    return slope


def _transposed_multiply(d: Coefficients, g: tuple[Tensor, ...], spec: JetSpec) -> Coefficients:
    out = [d[0] * g_s for g_s in g]
    for s, pairs in enumerate(spec.products):
        for b, c in pairs:
            if c:
                out[b] = torch.addcmul(out[b], d[c], g[s])
    return out


def _chain(a: Coefficients, d: Coefficients, s: int, spec: JetSpec) -> Tensor:
    """Coefficient s of y from y' = d a'; needs d at lower orders only."""
    total = a[s] * d[0]
    for b, c, weight in spec.chains[s]:
        total = torch.addcmul(total, a[b], d[c], value=weight)
    return total


def _square(y: Coefficients, s: int, spec: JetSpec) -> Tensor:
    """Coefficient s > 0 of y^2."""
    total = 2 * y[0] * y[s]
    for b, c, count in spec.squares[s]:
        total = torch.addcmul(total, y[b], y[c], value=count)
    return total


def tanh_rule(a: Coefficients, spec: JetSpec) -> tuple[Coefficients, Coefficients]:
    """d = 1 - y^2."""
    y = [torch.tanh(a[0])]
    d = [1 - y[0] * y[0]]
    for s in range(1, spec.size):
        y.append(_chain(a, d, s, spec))
        d.append(-_square(y, s, spec))
    return y, d


def sigmoid_rule(a: Coefficients, spec: JetSpec) -> tuple[Coefficients, Coefficients]:
    """d = y - y^2."""
    y = [torch.sigmoid(a[0])]
    d = [y[0] * (1 - y[0])]
    for s in range(1, spec.size):
        y.append(_chain(a, d, s, spec))
        d.append(y[s] - _square(y, s, spec))
    return y, d


def exp_rule(a: Coefficients, spec: JetSpec) -> tuple[Coefficients, Coefficients]:
    """d = y."""
    y = [torch.exp(a[0])]
    for s in range(1, spec.size):
        y.append(_chain(a, y, s, spec))
    return y, y


def sin_rule(a: Coefficients, spec: JetSpec) -> tuple[Coefficients, Coefficients]:
    """y = sin a, d = cos a, and d' = -y a'."""
    y, d = [torch.sin(a[0])], [torch.cos(a[0])]
    for s in range(1, spec.size):
        y.append(_chain(a, d, s, spec))
        d.append(-_chain(a, y, s, spec))
    return y, d


def softplus_rule(a: Coefficients, spec: JetSpec) -> tuple[Coefficients, Coefficients]:
    """y = log(1 + e^a), d = sigmoid a."""
    d, _ = sigmoid_rule(a, spec)
    y = [torch.nn.functional.softplus(a[0], threshold=40)]
    y += [_chain(a, d, s, spec) for s in range(1, spec.size)]
    return y, d


def silu_rule(a: Coefficients, spec: JetSpec) -> tuple[Coefficients, Coefficients]:
    """y = a sigmoid a, d = sigmoid a + a sigmoid' a."""
    sigma, slope = sigmoid_rule(a, spec)
    d = [p + q for p, q in zip(sigma, multiply(a, slope, spec), strict=True)]
    return multiply(a, sigma, spec), d


def gelu_rule(a: Coefficients, spec: JetSpec) -> tuple[Coefficients, Coefficients]:
    """y = a Phi(a), d = Phi(a) + a phi(a), with the normal distribution Phi and its density phi."""
    exponent = [-0.5 * q for q in multiply(a, a, spec)]
    density = [q / math.sqrt(2 * math.pi) for q in exp_rule(exponent, spec)[0]]
    cumulative = [0.5 * torch.erfc(-a[0] / math.sqrt(2))]
    cumulative += [_chain(a, density, s, spec) for s in range(1, spec.size)]
    d = [p + q for p, q in zip(cumulative, multiply(a, density, spec), strict=True)]
    return multiply(a, cumulative, spec), d


RULES: dict[str, Rule] = {
    "tanh": tanh_rule,
    "sin": sin_rule,
    "exp": exp_rule,
    "sigmoid": sigmoid_rule,
    "silu": silu_rule,
    "gelu": gelu_rule,
    "softplus": softplus_rule,
}
