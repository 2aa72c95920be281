"""From ordinary equations with neural terms to torch: F(t, y) as a module.

In    an `OrdinaryForm`, what 1 means to each network (`Gauges`), a builder of networks.
Out   an `OrdinaryModule`: (t, y) to y', differentiable by everything, with one network per neural term.
Next  `solvers.neural_ode` trains it, `solution.trajectory_approximation` integrates it.

Equations are in the user's units. A network sees its inputs minus their mean over their spread along the
data, and what it gives is multiplied by a size, so that measuring in other units gives the same model.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

import sympy as sp
import torch
from torch import Tensor, nn

from pinnkit.declare.stochastic import Neural
from pinnkit.errors import UnsupportedProblemError
from pinnkit.ir.ordinary_form import OrdinaryForm
from pinnkit.lower.expressions import Compiled, compile_expressions
from pinnkit.lower.unknown_numbers import raw_number, value_of_raw

__all__ = ["Gauge", "OrdinaryModule", "compile_observed", "find_gauges"]

Builder = Callable[[int, int], nn.Module]


@final
@dataclass(frozen=True)
class Gauge:
    """What 1 means to a network: inputs enter as (value - mean) / spread, values leave times `size`."""

    mean: tuple[float, ...]
    spread: tuple[float, ...]
    size: float = 1.0


@final
class OrdinaryModule(nn.Module):
    """y' = F(t, y) with trainable numbers and networks.

    Args:
        form: The equations.
        build: (inputs, outputs) -> network, for neural terms without a network of their own.
        gauges: One per neural term, by name; a term without one sees raw inputs.
        dtype, device: Of everything made here.
    """

    def __init__(
        self,
        form: OrdinaryForm,
        build: Builder,
        gauges: Mapping[str, Gauge] | None = None,
        *,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        self.form = form
        place: dict[str, Any] = {"dtype": dtype, "device": device}
        self.numbers = nn.ParameterDict(
            {p.name: nn.Parameter(torch.tensor(raw_number(p), **place)) for p in form.parameters}
        )
        nets: dict[str, nn.Module] = {}
        for term in form.neurals:
            nets[term.name] = _make_net(term, build).to(**place)
        self.nets = nn.ModuleDict(nets)
        leaves: list[Any] = [form.time, *form.states, *form.parameters]
        self._seen = {n: compile_expressions(list(n.inputs), leaves) for n in form.neurals}
        self._rates = compile_expressions(form.rates, [*leaves, *form.neurals])
        like = torch.zeros((), **place)
        for term in form.neurals:
            width = len(term.inputs)
            for part, values in (
                ("mean", (0.0,) * width),
                ("spread", (1.0,) * width),
                ("size", 1.0),
            ):
                self.register_buffer(f"{term.name}_{part}", like.new_tensor(values))
        for name, gauge in (gauges or {}).items():
            self.set_gauge(name, gauge)
        self.register_buffer("_like", like, persistent=False)

    def set_gauge(self, name: str, gauge: Gauge) -> None:
        """Say what 1 means to the network of a term."""
        for part in ("mean", "spread", "size"):
            old = self._buffer(f"{name}_{part}")
            old.copy_(old.new_tensor(getattr(gauge, part)))

    def forward(
        self,
        t: Tensor,  # shape: () or (n,)
        y: Tensor,  # shape: (n, d)
    ) -> Tensor:  # shape: (n, d)
        """The rates F(t, y)."""
        known = self._known(t, y)
        terms = [self._term(n, known) for n in self.form.neurals]
        return torch.stack(self._rates([*known, *terms]), dim=1)

    def term(self, neural: Neural, t: Any, y: Tensor) -> Tensor:  # shape: (n,)
        """The value of a neural term at times () or (n,) and states (n, d)."""
        own = next((n for n in self.form.neurals if n.name == str(neural)), None)
        if own is None:
            names = ", ".join(map(str, self.form.neurals)) or "none"
            raise KeyError(f"{neural} is no neural term of this problem; it has {names}")
        return self._term(own, self._known(torch.as_tensor(t).to(y), y))

    def inputs(self, neural: Neural, t: Tensor, y: Tensor) -> Tensor:  # shape: (n, width)
        """What the network of a term sees, before its gauge."""
        return torch.stack(self._seen[neural](self._known(t, y)), dim=1)

    def value(self, name: str) -> Tensor:
        """An unknown number as it stands, within its bounds."""
        parameter = next(p for p in self.form.parameters if p.name == name)
        return value_of_raw(parameter, self.numbers[name])

    def values_of(self, named: Mapping[str, Tensor]) -> list[Tensor]:
        """All unknown numbers, of these parameters instead of the module's own."""
        return [value_of_raw(p, named[f"numbers.{p.name}"]) for p in self.form.parameters]

    def _known(self, t: Tensor, y: Tensor) -> list[Tensor]:
        numbers = [self.value(p.name).expand(len(y)) for p in self.form.parameters]
        return [t.expand(len(y)), *y.unbind(1), *numbers]

    def _term(self, neural: Neural, known: list[Tensor]) -> Tensor:
        name = neural.name
        seen = torch.stack(self._seen[neural](known), dim=1)
        scaled = (seen - self._buffer(f"{name}_mean")) / self._buffer(f"{name}_spread")
        return self.nets[name](scaled)[:, 0] * self._buffer(f"{name}_size")

    def _buffer(self, name: str) -> Tensor:
        return getattr(self, name)


def compile_observed(expr: sp.Expr, form: OrdinaryForm) -> Compiled:
    """An observed expression as a function of [time, *states, *parameters]."""
    leaves: list[Any] = [form.time, *form.states, *form.parameters]
    try:
        return compile_expressions([expr], leaves)
    except UnsupportedProblemError as fault:
        raise UnsupportedProblemError(
            f"the observed expression {expr} is no function of {', '.join(map(str, leaves))}"
        ) from fault


def find_gauges(
    module: OrdinaryModule,
    t: Tensor,  # shape: (n,)
    y: Tensor,  # shape: (n, d)
    rates: Tensor,  # shape: (d,)
) -> dict[str, Gauge]:
    """Gauges by states near the solution: inputs to mean 0 and spread 1, values to the states' rates.

    A term that stands in row i with the factor c is O(1) in units of rates_i / |c|; the smallest over its
    rows is taken.
    """
    form, found = module.form, {}
    with torch.no_grad():
        known = module._known(t, y)
        zero = [torch.zeros_like(t) for _ in form.neurals]
        silent = torch.stack(module._rates([*known, *zero]), dim=1)
        for i, term in enumerate(form.neurals):
            seen = module.inputs(term, t, y)
            spread = seen.std(0)
            # A constant input says nothing; its own size keeps it finite.
            still = seen.abs().amax(0).clamp_min(torch.finfo(y.dtype).tiny) * 1e-8
            spread = torch.where(spread > still, spread, torch.ones_like(spread))
            ones = [torch.ones_like(t) if k == i else z for k, z in enumerate(zero)]
            factor = (torch.stack(module._rates([*known, *ones]), dim=1) - silent).square().mean(0)
            rows = factor > 0
            size = (rates[rows] / factor[rows].sqrt()).amin() if bool(rows.any()) else rates.amax()
            found[term.name] = Gauge(
                tuple(seen.mean(0).tolist()), tuple(spread.tolist()), float(size)
            )
    return found


def _make_net(neural: Neural, build: Builder) -> nn.Module:
    if isinstance(neural.net, nn.Module):
        return copy.deepcopy(neural.net)  # training must not change the declaration
    made = (neural.net or build)(len(neural.inputs), 1)
    if not isinstance(made, nn.Module):
        raise TypeError(f'neural("{neural}", net=...) built {type(made).__name__}, no module')
    return made
