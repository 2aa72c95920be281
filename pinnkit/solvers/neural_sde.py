"""NeuralSDE: stochastic equations with neural terms, trained on labelled series by gradients.

In    an `SDESystem` with data.
Out   a trained `SeriesModel`.
Next  `solvers.series_learning` runs it and builds the `SeriesSolution`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from pinnkit.declare.noise import Calculus, Noise
from pinnkit.declare.sde_system import SDESystem
from pinnkit.declare.series import IrregularSeries
from pinnkit.declare.series_target import SeriesTarget
from pinnkit.errors import Status
from pinnkit.lower.stochastic import StochasticModule, Units
from pinnkit.neural_de import (
    AbstractMethod,
    Direct,
    DormandPrince,
    EulerMaruyama,
    LocalError,
    Recompute,
    StochasticHeun,
    make_path,
)
from pinnkit.neural_de.baselines import GatedRecurrentNetwork
from pinnkit.nn import MLP
from pinnkit.nn.layers import make_linear
from pinnkit.solution.series_model import SeriesBatch, SeriesModel, Task
from pinnkit.solution.series_recurrent import RecurrentModel
from pinnkit.solvers.base import AbstractSolver, Env
from pinnkit.solvers.series_batches import SeriesBatches

__all__ = ["NeuralSDE", "NeuralSDEState"]

LEAST = 1e-5  # relative decrease of the validation loss that counts
SMALLEST = 20  # fewer series than this: none is held out
LOOKS = 2  # noise paths per held-out series


@dataclass
class NeuralSDEState:
    """Where training stands. `best` are the weights of the lowest validation loss so far."""

    model: SeriesModel | RecurrentModel
    optimiser: torch.optim.Optimizer
    training: SeriesBatches
    validation: SeriesBatches | None
    generator: torch.Generator
    order: list[int]
    best: dict[str, Tensor]
    lowest: float = float("inf")
    epoch: int = 0
    waited: int = 0
    step: int = 0

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": copy.deepcopy(self.model.state_dict()),
            "optimiser": copy.deepcopy(self.optimiser.state_dict()),
            "best": dict(self.best),
            "order": list(self.order),
            "numbers": [self.lowest, self.epoch, self.waited, self.step],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.best, self.order = dict(state["best"]), list(state["order"])
        lowest, epoch, waited, step = state["numbers"]
        self.lowest, self.epoch = float(lowest), int(epoch)
        self.waited, self.step = int(waited), int(step)


@final
@dataclass(frozen=True, kw_only=True)
class NeuralSDE(AbstractSolver):
    """Back-propagation through the integrated equation, batch by batch, with fresh noise each time.

    Minimises the cross-entropy of the labels, or the mean square of normalised targets, by Adam. A part
    of the data is held out; the weights that did best on it are kept, and training ends when it has not
    improved for `patience` epochs.

    Args:
        width, depth: Hidden layers of the networks of neural terms that have none of their own.
        steps: Integration steps over the longest series.
        method: `EulerMaruyama()`, `Milstein()`, `StochasticHeun()`; None: the first for Ito equations,
            the last for Stratonovich ones. `DormandPrince()`: adaptive steps, without noise only.
        path: Control path: "hermite" and "linear" look ahead to the next observation, "held" does not.
        reads: What networks see of it. "points": X where a step begins. "steps": its mean over the step and
            its increment, two numbers a channel, each scaled to be about 1 in the training part. Steps
            may then be longer than the gaps between observations, and slow series are not a constant.
        batch: Series per step.
        lr, weight_decay: Adam's.
        clip: Largest norm of the gradient.
        epochs: Passes over the data at most.
        patience: Epochs without improvement on the held-out part.
        held_out: Its share; nothing is held out of fewer than 20 series.
        samples: Noise paths a prediction averages over.
        backward: `Direct()`, or `Recompute()` for less memory.
        regularise: `LocalError(weight=...)` makes dynamics that take fewer steps. A weight that changes
            does so over `epochs`.

    Not: equations without data. References: oh2024stable.
    """

    width: int = 32
    depth: int = 1
    steps: int = 32
    method: AbstractMethod | DormandPrince | None = None
    path: str = "hermite"
    reads: str = "points"
    batch: int = 64
    lr: float = 3e-3
    weight_decay: float = 0.0
    clip: float = 1.0
    epochs: int = 100
    patience: int = 20
    held_out: float = 0.15
    samples: int = 8
    backward: Direct | Recompute = Direct()  # noqa: RUF009  (frozen, so it may be shared)
    regularise: LocalError | None = None

    citation: ClassVar[str] = (
        "@inproceedings{oh2024stable,\n"
        "  author    = {Oh, YongKyung and Lim, Dong-Young and Kim, Sungil},\n"
        "  title     = {Stable Neural Stochastic Differential Equations in Analyzing Irregular Time "
        "Series Data},\n"
        "  booktitle = {International Conference on Learning Representations},\n"
        "  year      = {2024},\n"
        "  note      = {arXiv:2402.14989}\n"
        "}"
    )

    def __post_init__(self) -> None:
        faults = [
            f"{name}={value!r} must be a positive integer"
            for name in ("width", "depth", "steps", "batch", "epochs", "patience", "samples")
            if isinstance(value := getattr(self, name), bool)
            or not isinstance(value, int)
            or value < 1
        ]
        faults += [
            f"{name}={value!r} must be positive"
            for name in ("lr", "clip")
            if not (value := getattr(self, name)) > 0
        ]
        if self.path not in ("hermite", "linear", "held"):
            faults.append(f'path={self.path!r} must be "hermite", "linear" or "held"')
        if self.reads not in ("points", "steps"):
            faults.append(f'reads={self.reads!r} must be "points" or "steps"')
        if self.reads == "steps" and self.path == "held":
            faults.append('reads="steps" looks to the end of a step, and path="held" must not')
        if not 0 <= self.held_out < 1:
            faults.append(f"held_out={self.held_out!r} must be a share below 1")
        if not self.weight_decay >= 0:
            faults.append(f"weight_decay={self.weight_decay!r} must not be negative")
        if faults:
            raise ValueError("NeuralSDE: " + "; ".join(faults))

    def supports(self, problem: Any) -> str | None:
        if not isinstance(problem, (SDESystem, SeriesTarget)):
            return "NeuralSDE learns stochastic equations, SDESystem. For others use CausalPINN()."
        if problem.data is None:
            return (
                f"This {type(problem).__name__} has no data to learn from. Write "
                "remake(data=IrregularSeries(...))."
            )
        if problem.data.labels is None and problem.data.targets is None:
            return (
                "The series have neither labels nor targets to learn. Give "
                "IrregularSeries(..., labels=...) or targets=...."
            )
        if isinstance(problem, SeriesTarget):
            if self.regularise is None:
                return None
            return "A recurrent network takes no steps to regularise. Leave regularise= out."
        method = self._method(problem)
        form = problem.normal_form
        if self.reads == "steps":
            if isinstance(method, (DormandPrince, StochasticHeun)):
                return (
                    f'reads="steps" needs a method that looks at the left end of fixed steps, and '
                    f'{type(method).__name__} does not. Use EulerMaruyama(), or reads="points".'
                )
            if self.regularise is not None:
                return (
                    'LocalError looks between the points of the grid, where reads="steps" says nothing. '
                    'Use reads="points".'
                )
        if isinstance(method, DormandPrince):
            if form.diffusion:
                return (
                    "DormandPrince() is for equations without noise, and this one has d(W). Use "
                    "method=EulerMaruyama()."
                )
            return self._why_not_regularised()
        if self.regularise is not None and self.regularise.kind != "error":
            return (
                f'LocalError(kind="{self.regularise.kind}") needs adaptive steps: '
                'method=DormandPrince(). Use kind="error".'
            )
        if not form.noise.commutes and not isinstance(method, (EulerMaruyama, StochasticHeun)):
            return (
                f"{type(method).__name__} is wrong for general noise. Use method=EulerMaruyama()."
            )
        return None

    def _why_not_regularised(self) -> str | None:
        method, by = self.method, self.regularise
        if by is None or by.sampling != "global" or not getattr(method, "adjoint", False):
            return None
        return (
            'LocalError(sampling="global") differentiates every step, which the adjoint does not keep. '
            "Use DormandPrince(adjoint=False), or another sampling."
        )

    def _method(self, problem: SDESystem) -> AbstractMethod | DormandPrince:
        if self.method is not None:
            return self.method
        form = problem.normal_form
        ito = form.calculus is Calculus.ITO or form.noise is Noise.ADDITIVE
        return EulerMaruyama() if ito else StochasticHeun()

    def init(self, problem: Any, env: Env) -> NeuralSDEState:
        data: IrregularSeries = problem.data
        training, validation = data, None
        if self.held_out and len(data) >= SMALLEST:
            seed = int(torch.randint(2**31, (), generator=env.generator))
            training, validation = data.split((1 - self.held_out, self.held_out), seed=seed)
        model = self._build(problem, training, env)
        optimiser = torch.optim.Adam(model.parameters(), lr=self.lr, weight_decay=self.weight_decay)

        def make(some: IrregularSeries) -> SeriesBatch:
            return SeriesBatch.of(
                some, model.normalisation, model.task, model.kind, env.dtype, env.device
            )

        return NeuralSDEState(
            model,
            optimiser,
            SeriesBatches(training, make),
            None if validation is None else SeriesBatches(validation, make),
            env.generator,
            [],
            _copy(model),
        )

    def _build(
        self, problem: SDESystem | SeriesTarget, training: IrregularSeries, env: Env
    ) -> SeriesModel | RecurrentModel:
        normalisation, task = training.normalisation(), Task.of(training)
        gen, dtype = env.generator, env.dtype
        if isinstance(problem, SeriesTarget):
            network = GatedRecurrentNetwork(
                training.n_channels, problem.dim, generator=gen, dtype=dtype
            )
            readout = _make_readout(problem, problem.dim, task, env)
            recurrent = RecurrentModel(network, readout, task, normalisation)
            return recurrent.to(env.device, env.dtype)
        form = problem.normal_form

        def build(inputs: int, outputs: int) -> nn.Module:
            return MLP(
                inputs,
                outputs,
                self.width,
                self.depth,
                activation="silu",
                generator=gen,
                dtype=dtype,
            )

        units = Units(
            normalisation.start,
            normalisation.duration,
            tuple(normalisation.mean.tolist()),
            tuple(normalisation.std.tolist()),
            self._increments(training) if self.reads == "steps" and form.controls else (),
        )
        coefficients = StochasticModule(form, build, units, dtype=dtype)
        start = None
        if not form.initial:
            start = make_linear(training.n_channels, form.dim, gen, dtype)
        model = SeriesModel(
            coefficients,
            start,
            _make_readout(problem, form.dim, task, env),
            task,
            normalisation,
            method=self._method(problem),
            steps=self.steps,
            kind=self.path,
            backward=self.backward,
        )
        return model.to(env.device, env.dtype)

    def _increments(self, training: IrregularSeries) -> tuple[float, ...]:
        """Root mean squares of the normalised control's increments over the steps of each series, per channel."""
        padded = training.normalisation().apply(training).padded()
        path = make_path(padded.times, padded.values, self.path)
        first, last = (e[:, None] for e in path.ends)
        points = first + torch.linspace(0, 1, self.steps + 1, dtype=first.dtype) * (last - first)
        size = path.table(points)[0].diff(dim=1).square().mean((0, 1)).sqrt()
        return tuple(torch.where(size > 0, size, torch.ones_like(size)).tolist())

    def step(self, problem: Any, state: NeuralSDEState) -> Mapping[str, float | Tensor]:
        if not state.order:
            shuffled = torch.randperm(len(state.training), generator=state.generator)
            state.order = shuffled.tolist()
        chosen, state.order = state.order[: self.batch], state.order[self.batch :]
        batch = state.training.take(chosen)
        state.model.train()
        state.optimiser.zero_grad(set_to_none=True)
        loss = self._loss(state, batch)
        loss.backward()
        # Clipped after the gradient is known, not before.
        nn.utils.clip_grad_norm_(state.model.parameters(), self.clip)
        if bool(torch.isfinite(loss.detach())):
            state.optimiser.step()
        state.step += 1
        losses: dict[str, float | Tensor] = {"loss": loss.detach()}
        if not state.order:
            state.epoch += 1
            losses["validation"] = self._look(state, float(loss.detach()))
        return losses

    def _loss(self, state: NeuralSDEState, batch: SeriesBatch) -> Tensor:
        model, by = state.model, self.regularise
        if by is None or isinstance(model, RecurrentModel):
            return model.loss(batch, state.generator)
        # An annealed weight follows the steps there are at most, whatever ends training before.
        most = self.epochs * math.ceil(len(state.training) / self.batch)
        now = by.at(state.step / most)
        return model.loss(batch, state.generator, regularise=now, generator=state.generator)

    def _look(self, state: NeuralSDEState, training_loss: float) -> float:
        """The loss of the held-out part along fixed noise; keeps the weights if it is the lowest."""
        value = training_loss
        if state.validation is not None:
            state.model.eval()
            with torch.no_grad():
                # Several paths side by side: a small batch takes as long as a large one.
                batch = state.validation.take(list(range(len(state.validation))) * LOOKS)
                value = float(state.model.loss(batch, 1000))
        # Where the weight of a penalty changes, so does what is minimised: the last weights are its answer.
        annealed = self.regularise is not None and self.regularise.final is not None
        # Less than this is no improvement, or training would never end.
        better = value < state.lowest - LEAST * abs(state.lowest) or state.lowest == math.inf
        if annealed or better:
            state.lowest, state.waited, state.best = value, 0, _copy(state.model)
        else:
            state.waited += 1
        return value

    def terminate(self, problem: Any, state: NeuralSDEState) -> Status | None:
        if state.epoch >= self.epochs:
            return Status.MAX_STEPS
        return Status.STALLED if state.waited >= self.patience else None

    def finish(self, problem: Any, state: NeuralSDEState) -> Any:
        """The module with the best weights; those of the last step before the first look."""
        model = copy.deepcopy(state.model)
        if state.epoch:
            model.load_state_dict(state.best)
        return model.eval()


def _make_readout(problem: SDESystem | SeriesTarget, dim: int, task: Task, env: Env) -> nn.Module:
    if problem.readout is None:
        return make_linear(dim, task.outputs, env.generator, env.dtype)
    if isinstance(problem.readout, nn.Module):
        return copy.deepcopy(problem.readout)  # training must not change the declaration
    return problem.readout(dim, task.outputs)


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
