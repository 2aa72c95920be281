"""Jets through networks: every derivative a problem needs, in one forward pass.

In    a module, the jet of its input, the `JetSpec`, and optionally a `Tape`.
Out   the jet of its output (S, n, w), coefficients D^alpha u / alpha!.
Next  `lower.fields` turns them into physical derivatives, `lower.rows` into rows of J.

`propagate` is a `functools.singledispatch` function: add a layer exactly as it is done here, with
`@register_jet(MyLayer)`. Modules without a rule go through nested `torch.func.jvp`, which is slow
but general (any module that treats each point alone).
"""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pinnkit.lower import activations
from pinnkit.lower.activations import activation_jet, is_traced
from pinnkit.lower.jet_algebra import JetSpec, MultiIndex, input_jet, jet_mul
from pinnkit.lower.tape import FactorSite, GeneralSite, LinearSite, SkipSite, Tape
from pinnkit.nn.features import PeriodicFeatures, RandomFourierFeatures
from pinnkit.nn.layers import FactorisedLinear, Sin
from pinnkit.nn.networks import (
    MLP,
    AdaptiveSkip,
    Chain,
    ModifiedMLP,
    PirateBlock,
    PirateNet,
    Product,
    Select,
    SideBySide,
    Sum,
)

__all__ = [
    "JetSpec",
    "MultiIndex",
    "input_jet",
    "jet_mul",
    "propagate",
    "propagate_generally",
    "register_jet",
]

JetRule = Callable[..., Tensor]


@functools.singledispatch
def propagate(
    module: nn.Module,
    jet: Tensor,  # shape: (S, n, i)
    spec: JetSpec,
    tape: Tape | None = None,
) -> Tensor:  # shape: (S, n, o)
    """The jet of module(z) from the jet of z; dispatches on the module's class."""
    return propagate_generally(module, jet, spec, tape)


def register_jet(*classes: type[nn.Module]) -> Callable[[JetRule], JetRule]:
    """Register a rule (module, jet, spec, tape) -> jet for exactly these modules' `forward`.

    A subclass with its own `forward`, or a module with forward hooks, does something else than the
    rule says; it takes the general route.
    """

    def decorate(rule: JetRule) -> JetRule:
        for cls in classes:

            def checked(
                module: Any,
                jet: Tensor,
                spec: JetSpec,
                tape: Tape | None = None,
                *,
                _cls: type[nn.Module] = cls,
            ) -> Tensor:
                own = type(module).forward is _cls.forward
                if own and not module._forward_hooks and not module._forward_pre_hooks:
                    return rule(module, jet, spec, tape)
                return propagate_generally(module, jet, spec, tape)

            propagate.register(cls)(checked)
        return rule

    return decorate


def propagate_generally(
    module: nn.Module, jet: Tensor, spec: JetSpec, tape: Tape | None = None
) -> Tensor:
    """Any pointwise module: coefficients as nested directional derivatives of module(z(eps)) at eps = 0."""
    parameters = {k: p for k, p in module.named_parameters() if p.requires_grad}
    if tape is None or not parameters:
        return _general_jet(module, jet, spec)

    def function(values: dict[str, Tensor], z: Tensor) -> Tensor:
        return _general_jet(lambda x: torch.func.functional_call(module, values, (x,)), z, spec)

    constants = {k: p.detach() for k, p in parameters.items()}
    return tape.record(GeneralSite(parameters, function, jet, function(constants, jet)))


@functools.cache
def load_forward_mode() -> None:
    """Let torch load its forward-mode rules: it warns there of its own use of torch.jit, once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        importlib.import_module("torch._decomp.decompositions_for_jvp")


def _general_jet(module: Callable[[Tensor], Tensor], jet: Tensor, spec: JetSpec) -> Tensor:
    def along(*eps: Tensor) -> Tensor:
        # z(eps) = sum of z_alpha eps^alpha; powers as repeated products, exact at eps = 0.
        total = jet[0]
        for s, alpha in enumerate(spec.indices[1:], start=1):
            term = jet[s]
            for i, count in enumerate(alpha):
                for _ in range(count):
                    term = term * eps[i]
            total = total + term
        return module(total)

    load_forward_mode()
    origin = tuple(jet.new_zeros(()) for _ in range(spec.dimension))
    one = jet.new_ones(())

    def derivative(f: Callable[..., Tensor], axis: int) -> Callable[..., Tensor]:
        def slope(*eps: Tensor) -> Tensor:
            def line(value: Tensor) -> Tensor:
                return f(*eps[:axis], value, *eps[axis + 1 :])

            return torch.func.jvp(line, (eps[axis],), (one,))[1]

        return slope

    coefficients = []
    for alpha, factorial in zip(spec.indices, spec.factorials, strict=True):
        f: Callable[..., Tensor] = along
        for axis, count in enumerate(alpha):
            for _ in range(count):
                f = derivative(f, axis)
        coefficients.append(f(*origin) / factorial)
    return torch.stack(coefficients)


class _LinearJet(torch.autograd.Function):
    """W z_s for all components in one product, the bias on the value component only."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(z, weight)
        ctx.has_bias = bias is not None
        out = (z.reshape(-1, z.shape[-1]) @ weight.T).view(*z.shape[:-1], weight.shape[0])
        if bias is not None:
            out[0] += bias
        return out

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, g: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        z, weight = ctx.saved_tensors
        need_z, need_weight, need_bias = ctx.needs_input_grad
        flat = g.reshape(-1, g.shape[-1])
        grad_z = (flat @ weight).view_as(z) if need_z else None
        grad_weight = flat.T @ z.reshape(-1, z.shape[-1]) if need_weight else None
        grad_bias = g[0].sum(0) if ctx.has_bias and need_bias else None
        return grad_z, grad_weight, grad_bias


def linear_jet(z: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """W z + b on a jet."""
    if is_traced():
        out = nn.functional.linear(z, weight)
        return out if bias is None else torch.cat([out[:1] + bias, out[1:]])
    return _LinearJet.apply(z, weight, bias)  # type: ignore[return-value]


@register_jet(nn.Linear)
def _linear(module: nn.Linear, jet: Tensor, spec: JetSpec, tape: Tape | None) -> Tensor:
    weight, bias = module.weight, module.bias
    if tape is None:
        return linear_jet(jet, weight, bias)
    if "weight" not in module._parameters:  # a parametrised weight: its own parameters count
        return propagate_generally(module, jet, spec, tape)
    out = linear_jet(jet, weight.detach(), None if bias is None else bias.detach())
    return tape.record(LinearSite(weight, bias, jet, out))


@register_jet(FactorisedLinear)
def _factorised(module: FactorisedLinear, jet: Tensor, spec: JetSpec, tape: Tape | None) -> Tensor:
    direction, factor, bias = module.direction, module.factor, module.bias
    if tape is None:
        return linear_jet(jet, factor[:, None] * direction, bias)
    product = linear_jet(jet, direction.detach(), None)
    out = factor.detach() * product
    out = torch.cat([out[:1] + bias.detach(), out[1:]])
    return tape.record(FactorSite(direction, factor, bias, jet, product, out))


@register_jet(AdaptiveSkip)
def _two_inputs(module: AdaptiveSkip, jet: Tensor, spec: JetSpec, tape: Tape | None) -> Tensor:
    raise TypeError("AdaptiveSkip takes two inputs; it is propagated by PirateBlock")


def _skip(module: AdaptiveSkip, h: Tensor, z: Tensor, tape: Tape | None) -> Tensor:
    if tape is None:
        return z + module.alpha * (h - z)
    difference = h - z
    out = z + module.alpha.detach() * difference
    return tape.record(SkipSite(module.alpha, difference, out))


def _register_activation(cls: type[nn.Module], rule: activations.Rule) -> None:
    @register_jet(cls)
    def _(module: nn.Module, jet: Tensor, spec: JetSpec, tape: Tape | None) -> Tensor:
        return activation_jet(jet, rule, spec)


_register_activation(nn.Tanh, activations.tanh_rule)
_register_activation(Sin, activations.sin_rule)
_register_activation(nn.Sigmoid, activations.sigmoid_rule)
_register_activation(nn.SiLU, activations.silu_rule)


@register_jet(nn.GELU)
def _gelu(module: nn.GELU, jet: Tensor, spec: JetSpec, tape: Tape | None) -> Tensor:
    if module.approximate != "none":
        return propagate_generally(module, jet, spec, tape)
    return activation_jet(jet, activations.gelu_rule, spec)


@register_jet(nn.Softplus)
def _softplus(module: nn.Softplus, jet: Tensor, spec: JetSpec, tape: Tape | None) -> Tensor:
    # torch's threshold replaces the function by a straight line above it (20 by default), which
    # costs e^-20 = 2e-9; the rule is the smooth function itself, as the module's beta = 1 means it.
    if module.beta != 1:
        return propagate_generally(module, jet, spec, tape)
    return activation_jet(jet, activations.softplus_rule, spec)


@register_jet(nn.Identity)
def _identity(module: nn.Identity, jet: Tensor, spec: JetSpec, tape: Tape | None) -> Tensor:
    return jet


@register_jet(nn.Sequential)
def _sequential(module: nn.Sequential, jet: Tensor, spec: JetSpec, tape: Tape | None) -> Tensor:
    for part in module:
        jet = propagate(part, jet, spec, tape)
    return jet


@register_jet(Chain)
def _chain(module: Chain, jet: Tensor, spec: JetSpec, tape: Tape | None) -> Tensor:
    for part in module.parts:
        jet = propagate(part, jet, spec, tape)
    return jet


@register_jet(MLP)
def _mlp(module: MLP, jet: Tensor, spec: JetSpec, tape: Tape | None) -> Tensor:
    return propagate(module.layers, jet, spec, tape)


@register_jet(ModifiedMLP)
def _modified_mlp(module: ModifiedMLP, jet: Tensor, spec: JetSpec, tape: Tape | None) -> Tensor:
    def layer(linear: nn.Module, z: Tensor) -> Tensor:
        return propagate(module.activation, propagate(linear, z, spec, tape), spec, tape)

    u, v = layer(module.encode_u, jet), layer(module.encode_v, jet)
    h, gate = jet, u - v
    for linear in module.hidden:
        h = v + jet_mul(layer(linear, h), gate, spec)
    return propagate(module.last, h, spec, tape)


@register_jet(PirateNet)
def _pirate_net(module: PirateNet, jet: Tensor, spec: JetSpec, tape: Tape | None) -> Tensor:
    def layer(linear: nn.Module, z: Tensor) -> Tensor:
        return propagate(module.activation, propagate(linear, z, spec, tape), spec, tape)

    h = layer(module.lift, jet)
    u, v = layer(module.encode_u, h), layer(module.encode_v, h)
    gate = u - v
    for block in module.blocks:
        assert isinstance(block, PirateBlock)
        f = v + jet_mul(layer(block.first, h), gate, spec)
        f = v + jet_mul(layer(block.second, f), gate, spec)
        h = _skip(block.skip, layer(block.third, f), h, tape)
    return propagate(module.last, h, spec, tape)


@register_jet(Sum)
def _sum(module: Sum, jet: Tensor, spec: JetSpec, tape: Tape | None) -> Tensor:
    value = propagate(module.parts[0], jet, spec, tape)
    for part in list(module.parts)[1:]:
        value = value + propagate(part, jet, spec, tape)
    return value


@register_jet(Product)
def _product(module: Product, jet: Tensor, spec: JetSpec, tape: Tape | None) -> Tensor:
    value = propagate(module.parts[0], jet, spec, tape)
    for part in list(module.parts)[1:]:
        value = jet_mul(value, propagate(part, jet, spec, tape), spec)
    return value


@register_jet(SideBySide)
def _side_by_side(module: SideBySide, jet: Tensor, spec: JetSpec, tape: Tape | None) -> Tensor:
    return torch.cat([propagate(part, jet, spec, tape) for part in module.parts], dim=-1)


@register_jet(Select)
def _select(module: Select, jet: Tensor, spec: JetSpec, tape: Tape | None) -> Tensor:
    return propagate(module.part, jet[..., list(module.columns)], spec, tape)


@register_jet(PeriodicFeatures)
def _periodic(module: PeriodicFeatures, jet: Tensor, spec: JetSpec, tape: Tape | None) -> Tensor:
    waves = _waves(jet, module.angular, spec)
    return torch.cat([jet[..., module.plain], waves], dim=-1) if module.plain else waves


@register_jet(RandomFourierFeatures)
def _fourier(
    module: RandomFourierFeatures, jet: Tensor, spec: JetSpec, tape: Tape | None
) -> Tensor:
    return _waves(jet, module.frequencies, spec)


def _waves(jet: Tensor, frequencies: Tensor, spec: JetSpec) -> Tensor:
    """cos and sin of the phases, both from one recursion."""
    phase = list((jet @ frequencies.T).unbind(0))
    sines, cosines = activations.sin_rule(phase, spec)
    return torch.cat([torch.stack(cosines), torch.stack(sines)], dim=-1)
