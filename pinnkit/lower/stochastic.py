"""From a stochastic normal form to torch: drift and diffusion with networks for the neural terms.

In    a `StochasticForm`, units (the span of time, mean and size of the control's channels), a builder
      of networks.
Out   a `StochasticModule`; `module.along(path)` binds a control path and gives f(t, z) and g(t, z).
Next  `neural_de.integrate` integrates them, `solvers.neural_sde` trains them.

Units: equations are in the user's. A network sees normalised controls and time from 0 to 1; its values
are per span where it stands in a drift and per square root of the span in a diffusion. So measuring
time in seconds or years gives the same model.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, final

import sympy as sp
import torch
from torch import Tensor, nn

from pinnkit.declare.noise import Calculus, Noise
from pinnkit.declare.stochastic import Control, Neural, Process
from pinnkit.declare.symbols import Parameter
from pinnkit.errors import UnsupportedProblemError
from pinnkit.ir.stochastic_form import StochasticForm
from pinnkit.lower.expressions import compile_expressions

__all__ = ["Along", "Builder", "Path", "StochasticModule", "Units"]

Builder = Callable[[int, int], nn.Module]


class Path(Protocol):
    """A control path, normalised."""

    def evaluate(self, t: Tensor) -> Tensor:  # shape: (B, C)
        """X(t)."""
        ...

    def derivative(self, t: Tensor) -> Tensor:  # shape: (B, C)
        """dX/dt."""
        ...


@final
@dataclass(frozen=True, eq=False)
class Units:
    """What 1 means to the networks.

    Args:
        start, span: The first time and the length of the time axis.
        mean, size: Of the control's channels, shape (C,); empty without a control.
    """

    start: float = 0.0
    span: float = 1.0
    mean: tuple[float, ...] = ()
    size: tuple[float, ...] = ()


@final
class StochasticModule(nn.Module):
    """The coefficients of a system as one torch module.

    Args:
        form: The normal form.
        build: (inputs, outputs) -> network, for neural terms without a network of their own.
        units: What the networks measure in.
        dtype, device: Of everything made here.
    """

    mean: Tensor
    size: Tensor

    def __init__(
        self,
        form: StochasticForm,
        build: Builder,
        units: Units | None = None,
        *,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        self.form, self.units = form, units or Units()
        place: dict[str, Any] = {"dtype": dtype, "device": device}
        self.register_buffer("mean", torch.tensor(self.units.mean, **place), persistent=False)
        self.register_buffer("size", torch.tensor(self.units.size, **place), persistent=False)
        if len(form.controls) > 1:
            names = ", ".join(map(str, form.controls))
            raise UnsupportedProblemError(
                f"the controls {names} are all the path through the data; use one of them"
            )
        self._widths: dict[Any, int] = {form.time: 1}
        self._widths |= {z: z.dim for z in form.processes} | dict.fromkeys(form.parameters, 1)
        self._widths |= {x: len(self.units.mean) for x in form.controls}
        raw = {p.name: nn.Parameter(torch.tensor(_raw(p), **place)) for p in form.parameters}
        self.numbers = nn.ParameterDict(raw)
        self._inputs: dict[Neural, list[_Term]] = {}
        nets: dict[str, nn.Module] = {}
        for neural in form.neurals:
            self._inputs[neural] = [_Term(entry, form) for entry in neural.inputs]
            nets[neural.name] = self._make_net(neural, build).to(dtype=dtype, device=device)
        self.nets = nn.ModuleDict(nets)
        self._factors = {n: self._factor(n) for n in form.neurals}
        compiled = {**form.drift, **form.diffusion, **form.driven}
        self._terms = {key: _Term(expr, form) for key, expr in compiled.items()}
        self._starts = {z: _Term(expr, form) for z, expr in form.initial.items()}

    @property
    def dim(self) -> int:
        """H, the number of components of the state."""
        return self.form.dim

    def along(self, path: Path | None = None) -> Along:
        """Drift and diffusion along a control path (of as many samples as the states)."""
        if path is None and self.form.controls:
            raise ValueError(f"the equations contain {self.form.controls[0]}; give a path")
        return Along(self, path)

    def value(self, parameter: Parameter) -> Tensor:
        """An unknown number as it stands, within its bounds."""
        raw = self.numbers[parameter.name]
        if parameter.bounds is None:
            return raw
        low, high = parameter.bounds
        return low + (high - low) * torch.sigmoid(raw)

    def start(self, t: Tensor, x: Tensor | None, samples: int) -> Tensor:  # shape: (B, H)
        """Initial states from the declared `initial`."""
        like = self.mean if x is None else x
        known = _Known(self, t.to(like), {}, x, samples)
        parts = [known.evaluate(self._starts[z], (z.dim,)) for z in self.form.processes]
        return torch.cat(parts, dim=1)

    def input_width(self, neural: Neural) -> int:
        """How many numbers the network of a neural term sees."""
        return sum(self._width(e) for e in neural.inputs)

    def _width(self, expr: sp.Expr) -> int:
        return max((self._widths[s] for s in expr.free_symbols), default=1)

    def shape_of(self, neural: Neural) -> tuple[int, ...]:
        """Its shape, with the control's number of channels filled in."""
        channels = len(self.units.mean)
        return tuple(channels if n is None else n for n in self.form.shapes[neural])

    def _make_net(self, neural: Neural, build: Builder) -> nn.Module:
        if isinstance(neural.net, nn.Module):
            return copy.deepcopy(neural.net)  # training must not change the declaration
        made = (neural.net or build)(self.input_width(neural), math.prod(self.shape_of(neural)))
        if not isinstance(made, nn.Module):
            raise TypeError(f'neural("{neural}", net=...) built {type(made).__name__}, no module')
        return made

    def _factor(self, neural: Neural) -> float:
        """1 / sqrt(span) in a diffusion, 1 / span in a drift, 1 elsewhere.

        The diffusion first: where sigma stands in both, it is as sigma**2 that it enters the drift.
        """
        if any(neural in g.free_symbols for g in self.form.diffusion.values()):
            return 1.0 / math.sqrt(self.units.span)
        if any(neural in f.free_symbols for f in self.form.drift.values()):
            return 1.0 / self.units.span
        return 1.0


@final
class _Term:
    """One coefficient: its expression compiled, and what it needs."""

    def __init__(self, expr: sp.Expr, form: StochasticForm) -> None:
        self.expr = expr
        found = expr.free_symbols - {form.time}
        self.leaves = [form.time, *sorted(found, key=str)]
        # Time comes always, so that constants have a tensor to take their dtype from.
        self.compiled = compile_expressions([expr], self.leaves)


@final
class _Known:
    """Values of all symbols at one time, each computed once and when asked for."""

    def __init__(
        self,
        module: StochasticModule,
        t: Tensor,  # shape: () or (B, 1)
        states: Mapping[Process, Tensor],
        x: Tensor | None,  # normalised, shape: (B, C)
        samples: int,
    ) -> None:
        self.module, self.samples = module, samples
        self.t = t.reshape(-1, 1).expand(samples, 1)
        self.x = x
        self.values: dict[Any, Tensor] = {module.form.time: self.t, **states}

    def of(self, symbol: Any, *, seen_by_network: bool = False) -> Tensor:
        module = self.module
        if seen_by_network and symbol == module.form.time:
            return (self.t - module.units.start) / module.units.span
        if isinstance(symbol, Control):
            assert self.x is not None
            return self.x if seen_by_network else self.x * module.size + module.mean
        if symbol not in self.values:
            if isinstance(symbol, Parameter):
                self.values[symbol] = module.value(symbol).expand(self.samples, 1)
            else:
                self.values[symbol] = self._network(symbol)
        return self.values[symbol]

    def _network(self, neural: Neural) -> Tensor:
        module = self.module
        parts = [self._input(term) for term in module._inputs[neural]]
        out = module.nets[neural.name](torch.cat(parts, dim=1)) * module._factors[neural]
        return out.reshape(self.samples, *module.shape_of(neural))

    def _input(self, term: _Term) -> Tensor:  # shape: (B, width)
        if isinstance(term.expr, sp.Symbol):
            return self.of(term.expr, seen_by_network=True)
        (value,) = term.compiled([self.of(s, seen_by_network=True) for s in term.leaves])
        return value

    def evaluate(self, term: _Term, shape: tuple[int, ...]) -> Tensor:
        """The coefficient, expanded to (B, *shape)."""
        tensors = [self.of(s) for s in term.leaves]
        if len(shape) == 2:  # vectors scale the rows of matrices
            tensors = [v if v.ndim == 3 else v.unsqueeze(-1) for v in tensors]
        (value,) = term.compiled(tensors)
        return value.expand(self.samples, *shape)


@final
class Along:
    """f(t, z) and g(t, z) of a module along one batch of control paths; an `SDE` is made of these."""

    def __init__(self, module: StochasticModule, path: Path | None) -> None:
        self.module, self.path = module, path
        self.noise: Noise = module.form.noise
        self.calculus: Calculus = module.form.calculus
        form = module.form
        self._sees_x = {
            part: any(_needs_control(e) for e in terms.values())
            for part, terms in (("f", {**form.drift}), ("g", {**form.diffusion}))
        }
        self._sees_x["f"] |= bool(form.driven)

    def drift(self, t: Tensor, z: Tensor) -> Tensor:  # shape: (B, H)
        """f, with what controlled terms contribute, M dX/dt."""
        known = self._known("f", t, z)
        module, form = self.module, self.module.form
        parts = []
        for process in form.processes:
            total = known.evaluate(module._terms[process], (process.dim,))
            for owner, x in form.driven:
                if owner == process:
                    channels = len(module.units.mean)
                    matrix = known.evaluate(module._terms[owner, x], (process.dim, channels))
                    slope = self._slope(t)
                    total = total + (matrix @ slope.unsqueeze(-1)).squeeze(-1)
            parts.append(total)
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def diffusion(self, t: Tensor, z: Tensor) -> Tensor:  # shape: (B, H) or (B, H, M)
        """g, a vector where the noise keeps components apart, else a matrix."""
        module, form = self.module, self.module.form
        if not form.diffusion:
            return torch.zeros_like(z)
        known = self._known("g", t, z)
        if form.elementwise:
            driver = dict(form.diffusion.keys())
            parts = [
                known.evaluate(module._terms[p, driver[p]], (p.dim,))
                if p in driver
                else z.new_zeros(len(z), p.dim)
                for p in form.processes
            ]
            return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        rows = []
        for p in form.processes:
            blocks = []
            for w in form.wieners:
                if (p, w) not in form.diffusion:
                    blocks.append(z.new_zeros(len(z), p.dim, form.sizes[w]))
                else:
                    blocks.append(self._block(known, p, w))
            rows.append(torch.cat(blocks, dim=2))
        return torch.cat(rows, dim=1)

    def _block(self, known: _Known, p: Process, w: Any) -> Tensor:  # shape: (B, H_p, M_w)
        term, size = self.module._terms[p, w], self.module.form.sizes[w]
        if any(len(self.module.form.shapes[n]) == 2 for n in term.expr.atoms(Neural)):
            return known.evaluate(term, (p.dim, size))
        vector = known.evaluate(term, (p.dim,))
        return vector.unsqueeze(-1) if size == 1 else torch.diag_embed(vector)

    def _known(self, part: str, t: Tensor, z: Tensor) -> _Known:
        form = self.module.form
        states = dict(zip(form.processes, z.split([p.dim for p in form.processes], dim=1)))
        x = self.path.evaluate(t) if self.path is not None and self._sees_x[part] else None
        return _Known(self.module, t, states, x, len(z))

    def _slope(self, t: Tensor) -> Tensor:
        assert self.path is not None
        return self.path.derivative(t)


def _needs_control(expr: sp.Expr) -> bool:
    if expr.has(Control):
        return True
    return any(e.has(Control) for n in expr.atoms(Neural) for e in n.inputs)


def _raw(parameter: Parameter) -> float:
    """The trained number behind a parameter's first guess."""
    if parameter.bounds is None:
        return parameter.guess
    low, high = parameter.bounds
    share = min(max((parameter.guess - low) / (high - low), 1e-6), 1 - 1e-6)
    return math.log(share / (1 - share))
