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
from pinnkit.lower.unknown_numbers import raw_number, value_of_raw

__all__ = ["Along", "Builder", "Instant", "Path", "StochasticModule", "Units"]

Builder = Callable[[int, int], nn.Module]


class Path(Protocol):
    """A control path, normalised."""

    def evaluate(self, t: Tensor) -> Tensor:  # shape: (B, C)
        """X(t)."""
        ...

    def derivative(self, t: Tensor) -> Tensor:  # shape: (B, C)
        """dX/dt."""
        ...

    def table(self, points: Tensor) -> tuple[Tensor, Tensor]:  # (B, K) -> (B, K, C) twice
        """Both at many times."""
        ...

    def means(self, points: Tensor) -> Tensor:  # (B, K) -> (B, K - 1, C)
        """Means of X from each time to the next."""
        ...


@final
@dataclass(frozen=True, eq=False)
class Instant:
    """A point of a grid in the place of a time, with what is known there whatever the state is.

    Args:
        t: Shape (B, 1).
        x, slope: The normalised control and its derivative, shape (B, C); None where nothing needs them.
        seen: What networks see of the control, shape (B, C), or (B, 2 C) for a module that reads steps.
        values: Of the neural terms that see no process.
    """

    t: Tensor
    x: Tensor | None
    seen: Tensor | None
    slope: Tensor | None
    values: Mapping[Neural, Tensor]


@final
@dataclass(frozen=True, eq=False)
class Units:
    """What 1 means to the networks.

    Args:
        start, span: The first time and the length of the time axis.
        mean, size: Of the control's channels, shape (C,); empty without a control.
        increment: What an increment of the normalised control over a step amounts to, shape (C,). Given it,
            networks see the control in a step, its mean there and its increment in these units, instead of
            its value where the step begins. At a time that begins no step the increment is 0.
    """

    start: float = 0.0
    span: float = 1.0
    mean: tuple[float, ...] = ()
    size: tuple[float, ...] = ()
    increment: tuple[float, ...] = ()

    @property
    def by_step(self) -> bool:
        """Whether networks see means and increments."""
        return bool(self.increment)


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
    increment: Tensor

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
        rise = torch.tensor(self.units.increment, **place)
        self.register_buffer("increment", rise, persistent=False)
        if len(form.controls) > 1:
            names = ", ".join(map(str, form.controls))
            raise UnsupportedProblemError(
                f"the controls {names} are all the path through the data; use one of them"
            )
        self._widths: dict[Any, int] = {form.time: 1}
        self._widths |= {z: z.dim for z in form.processes} | dict.fromkeys(form.parameters, 1)
        self._widths |= {x: len(self.units.mean) * (1 + self.units.by_step) for x in form.controls}
        raw = {p.name: nn.Parameter(torch.tensor(raw_number(p), **place)) for p in form.parameters}
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
        return value_of_raw(parameter, self.numbers[parameter.name])

    def start(self, t: Tensor, x: Tensor | None, samples: int) -> Tensor:  # shape: (B, H)
        """Initial states from the declared `initial`."""
        like = self.mean if x is None else x
        known = _Known(self, t.to(like), {}, x, _seen_at(self, x), samples)
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
        seen: Tensor | None,  # by networks, shape: (B, C) or (B, 2 C)
        samples: int,
        values: Mapping[Neural, Tensor] | None = None,
    ) -> None:
        self.module, self.samples, self.seen = module, samples, seen
        self.t = t if t.shape == (samples, 1) else t.reshape(-1, 1).expand(samples, 1)
        self.x = x
        self.values: dict[Any, Tensor] = {module.form.time: self.t, **states, **(values or {})}

    def of(self, symbol: Any, *, seen_by_network: bool = False) -> Tensor:
        module = self.module
        if seen_by_network and symbol == module.form.time:
            return (self.t - module.units.start) / module.units.span
        if isinstance(symbol, Control):
            assert self.x is not None and self.seen is not None
            return self.seen if seen_by_network else self.x * module.size + module.mean
        if symbol not in self.values:
            if isinstance(symbol, Parameter):
                self.values[symbol] = module.value(symbol).expand(self.samples, 1)
            else:
                self.values[symbol] = self._network(symbol)
        return self.values[symbol]

    def _network(self, neural: Neural) -> Tensor:
        module = self.module
        parts = [self._input(term) for term in module._inputs[neural]]
        out = module.nets[neural.name](torch.cat(parts, dim=1))
        factor, shape = module._factors[neural], (self.samples, *module.shape_of(neural))
        # Each operation left out counts: small tensors, and one of these per step.
        out = out if factor == 1.0 else out * factor
        return out if out.shape == shape else out.reshape(shape)

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
        (value,) = term.compiled.filling((self.samples, *shape), tensors)
        return value


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
        terms = (*form.drift.values(), *form.diffusion.values(), *form.driven.values())
        self._stateless = [
            n
            for n in form.neurals
            if any(n in e.free_symbols for e in terms) and not any(e.has(Process) for e in n.inputs)
        ]

    def instants(
        self,
        clock: Tensor,  # shape: (K, B, 1)
        *,
        increments: bool = False,
    ) -> list[Instant]:
        """The points of a grid, with the control and the networks that see no process evaluated there at once.

        Args:
            clock: The times.
            increments: Let the control's slope be (X(t_{k+1}) - X(t_k)) / (t_{k+1} - t_k): what a method that
                looks at the left end of a step multiplies by the step is then the increment itself, however
                much X moves inside.

        A module that reads steps is given the mean of X over the step that begins at each point, and networks
        the increment as well.
        """
        count, samples, _ = clock.shape
        x = slope = None
        if self.path is not None and any(self._sees_x.values()):
            x, slope = (v.transpose(0, 1) for v in self.path.table(clock[..., 0].T))
            if increments:
                h = clock.diff(dim=0)
                mean = x.diff(dim=0) / torch.where(h > 0, h, torch.ones_like(h))
                slope = torch.cat([torch.where(h > 0, mean, torch.zeros_like(mean)), slope[-1:]])
        x, seen = self._read(clock, x)
        flat, wide = (None if v is None else v.flatten(0, 1) for v in (x, seen))
        known = _Known(self.module, clock.flatten(0, 1), {}, flat, wide, count * samples)
        tables = {n: known.of(n).unflatten(0, (count, samples)) for n in self._stateless}
        rows = [dict(zip(tables, row)) for row in zip(*(v.unbind(0) for v in tables.values()))]
        return [
            Instant(
                clock[k],
                None if x is None else x[k],
                None if seen is None else seen[k],
                None if slope is None or not self.module.form.driven else slope[k],
                rows[k] if rows else {},
            )
            for k in range(count)
        ]

    def _read(self, clock: Tensor, x: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """The control of each point of a grid, (K, B, C), and what networks see of it."""
        if x is None or not self.module.units.by_step:
            return x, x
        assert self.path is not None
        means = torch.cat([self.path.means(clock[..., 0].T).transpose(0, 1), x[-1:]])
        increments = torch.cat([x.diff(dim=0) / self.module.increment, torch.zeros_like(x[:1])])
        return means, torch.cat([means, increments], dim=2)

    def drift(self, t: Tensor | Instant, z: Tensor) -> Tensor:  # shape: (B, H)
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

    def diffusion(self, t: Tensor | Instant, z: Tensor) -> Tensor:  # shape: (B, H) or (B, H, M)
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

    def _known(self, part: str, t: Tensor | Instant, z: Tensor) -> _Known:
        form = self.module.form
        if len(form.processes) == 1:
            states = {form.processes[0]: z}
        else:
            states = dict(zip(form.processes, z.split([p.dim for p in form.processes], dim=1)))
        if isinstance(t, Instant):
            return _Known(self.module, t.t, states, t.x, t.seen, len(z), t.values)
        x = self.path.evaluate(t) if self.path is not None and self._sees_x[part] else None
        return _Known(self.module, t, states, x, _seen_at(self.module, x), len(z))

    def _slope(self, t: Tensor | Instant) -> Tensor:
        if isinstance(t, Instant):
            assert t.slope is not None
            return t.slope
        assert self.path is not None
        return self.path.derivative(t)


def _seen_at(module: StochasticModule, x: Tensor | None) -> Tensor | None:
    """What networks see of the control at a time that begins no step."""
    if x is None or not module.units.by_step:
        return x
    return torch.cat([x, torch.zeros_like(x)], dim=1)


def _needs_control(expr: sp.Expr) -> bool:
    if expr.has(Control):
        return True
    return any(e.has(Control) for n in expr.atoms(Neural) for e in n.inputs)
