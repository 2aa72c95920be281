"""NeuralODE: ordinary equations with neural terms and unknown numbers, fitted to observed trajectories.

In    a `PDESystem` in one coordinate, time, with `Observations`.
Out   an `Answer`: the trajectory of the learned equation, the numbers with their standard errors.
Next  `pinnkit.driver`; `sol.module` is the learned equation, `sol.read(gamma)` writes it down.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from pinnkit.errors import Status, UnsupportedProblemError
from pinnkit.ir.ordinary_form import ordinary_form
from pinnkit.lower.ordinary import OrdinaryModule, compile_observed, find_gauges
from pinnkit.nn import zero_output
from pinnkit.solution.trajectory_approximation import TrajectoryApproximation
from pinnkit.solvers.base import AbstractSolver, Answer, Env, graph_refusal
from pinnkit.solvers.neural_ode_data import FirstGuess, first_guess
from pinnkit.solvers.neural_ode_evidence import Evidence, weigh
from pinnkit.solvers.neural_ode_shooting import Observed, Shooting
from pinnkit.solvers.neural_ode_terms import (
    begin_again,
    first_precisions,
    group_of_parameters,
    kept_of,
    make_term,
    measure_expansions,
    spread_precisions,
    strike_out,
)
from pinnkit.train.gauss_newton import GaussNewton
from pinnkit.train.residual_model import Memory

__all__ = ["NeuralODE", "NeuralODEState"]

log = logging.getLogger(__name__)

SETTLED = 0.05  # change of the logarithm of noise and precisions below which they stay
FLAT = 1e-3  # relative decrease of the loss below which a step has nothing left to do
ROUNDS, LAST_ROUNDS = 2, 12  # seams before segments are merged; estimates of noise afterwards
CLOSER = 0.1  # factor on the seam per round: segments nearly fit together when they are merged
LOST = (
    2.0  # noise found over noise seen in second differences, beyond which a fit is a local minimum
)
RESTARTS = 2
NOTHING = 1e-9  # loss that is rounding: a billionth of what one observation off by its noise adds
REFUSALS = 4  # steps in a row that the optimiser refused


@dataclass
class NeuralODEState:
    """Where training stands: `length` intervals per segment, the weights of the residuals, the step's memory."""

    module: OrdinaryModule
    guess: FirstGuess
    length: int
    sigmas: list[float]
    precisions: Tensor  # of each network's prior, by `module.nets`
    memory: Memory
    generator: torch.Generator
    evidence: Evidence | None = None
    tried: int = 0  # steps since the weights were estimated
    refused: int = 0
    rounds: int = 0
    restarts: int = 0
    done: bool = False
    step: int = 0

    def state_dict(self) -> dict[str, Any]:
        return {
            "length": self.length,
            "sigmas": list(self.sigmas),
            "precisions": self.precisions.clone(),
            "kept": [k.clone() for k in kept_of(self.module)],
            "memory": dict(self.memory),
            "counts": [
                self.tried,
                self.refused,
                self.rounds,
                self.restarts,
                int(self.done),
                self.step,
            ],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        like = self.memory["theta"]
        self.length, self.sigmas = int(state["length"]), [float(s) for s in state["sigmas"]]
        self.precisions = state["precisions"].to(like)
        for own, stored in zip(kept_of(self.module), state["kept"], strict=True):
            own.copy_(stored)
        self.memory = {
            k: v.to(like) if isinstance(v, Tensor) else v for k, v in state["memory"].items()
        }
        counts = (int(n) for n in state["counts"])
        self.tried, self.refused, self.rounds, self.restarts, done, self.step = counts
        self.done = bool(done)


@final
@dataclass(frozen=True, kw_only=True)
class NeuralODE(AbstractSolver):
    """Multiple shooting with Gauss-Newton steps; noise and weight decay from the evidence.

    A long trajectory fitted at once has many local minima: a wave out of phase is worse than none. So the
    time axis begins as short segments with starting states of their own, taken from the observations;
    they are merged, `growth` at a time, until one is left, which is the trajectory that is returned.
    Residuals and their exact derivatives are those of `neural_ode_shooting`. Standard deviations of
    observations that declare none, and the precision of the Gaussian prior of each network's weights, are
    re-estimated as MacKay does, so nothing is held out and no weight decay is tuned.

    Args:
        width, depth: Hidden layers of the networks of neural terms that have none of their own.
        activation: Theirs.
        expansion: Degree of a polynomial beside each of them, of which few monomials are kept. Predicts far
            beyond the observations where the law is such a polynomial, and can miss one that is not.
            None for networks alone.
        steps: RK4 steps over the training span at least; between observations at least one.
        growth: Segments merged at a time.
        seam: Jump between segments, relative to the state's size, that counts as one standard deviation.
        patience: Gauss-Newton steps at most between two estimates of noise and precisions.
        optimiser: `GaussNewton(...)`.

    Supports ordinary equations of any order, linear in their highest derivatives, with neural terms,
    unknown numbers, known or unknown initial values, some fields unobserved. Not: chaotic trajectories
    much longer than the inverse of their largest exponent, stiff equations, several trajectories.
    References: bock1983, turan2022multiple (arXiv:2109.06786), mackay1992practical.
    """

    width: int = 8
    depth: int = 1
    activation: str = "tanh"
    expansion: int | None = None
    steps: int = 100
    growth: int = 3
    seam: float = 0.02
    patience: int = 40
    optimiser: GaussNewton = GaussNewton(momentum=0.0, damping=1.0)  # noqa: RUF009  (frozen)

    citation: ClassVar[str] = (
        "@article{turan2022multiple,\n"
        '  author  = {Turan, Evren Mert and J{\\"a}schke, Johannes},\n'
        "  title   = {Multiple Shooting for Training Neural Differential Equations on Time Series},\n"
        "  journal = {IEEE Control Systems Letters},\n"
        "  volume  = {6},\n"
        "  pages   = {1897--1902},\n"
        "  year    = {2022},\n"
        "  note    = {arXiv:2109.06786}\n"
        "}"
    )

    def __post_init__(self) -> None:
        faults = [
            f"{name}={value!r} must be a positive integer"
            for name in ("width", "depth", "steps", "patience")
            if isinstance(value := getattr(self, name), bool)
            or not isinstance(value, int)
            or value < 1
        ]
        if self.expansion is not None and (
            isinstance(self.expansion, bool)
            or not isinstance(self.expansion, int)
            or self.expansion < 0
        ):
            faults.append(f"expansion={self.expansion!r} must be a degree, 0 or more, or None")
        if not isinstance(self.growth, int) or self.growth < 2:
            faults.append(f"growth={self.growth!r} must be an integer of at least 2")
        if not self.seam > 0:
            faults.append(f"seam={self.seam!r} must be positive")
        if not isinstance(self.optimiser, GaussNewton):
            faults.append(f"optimiser={self.optimiser!r} must be a GaussNewton(...)")
        if faults:
            raise ValueError("NeuralODE: " + "; ".join(faults))

    def supports(self, problem: Any) -> str | None:
        if (reason := graph_refusal(problem, "NeuralODE")) is not None:
            return reason
        nf = problem.normal_form
        try:
            form = ordinary_form(nf)
            for o in nf.observations:
                compile_observed(o.expr, form)
        except UnsupportedProblemError as fault:
            return str(fault)
        if not nf.observations:
            return (
                "NeuralODE learns from Observations, and this problem has none. Use CausalPINN() or "
                "MethodOfLines()."
            )
        if not (nf.neurals or nf.parameters or len(form.initial) < len(form.states)):
            return "Nothing is unknown but the trajectory: use CausalPINN() or MethodOfLines()."
        return None

    def init(self, problem: Any, env: Env) -> NeuralODEState:
        nf = problem.normal_form
        form = ordinary_form(nf)

        def build(inputs: int, outputs: int) -> nn.Module:
            return make_term(
                inputs, outputs, width=self.width, depth=self.depth, activation=self.activation,
                expansion=self.expansion, generator=env.generator, dtype=env.dtype,
            )  # fmt: skip

        module = OrdinaryModule(form, build, dtype=env.dtype).to(env.device)
        for net in module.nets.values():
            zero_output(net)  # no term at first: the equation as far as it is written down
        guess = first_guess(nf, form, dtype=env.dtype, device=env.device)
        gauges = find_gauges(module, guess.grid, guess.states, guess.rates)
        for name, gauge in gauges.items():
            module.set_gauge(name, gauge)
        measure_expansions(module, gauges, guess.grid, guess.states)
        state = NeuralODEState(
            module,
            guess,
            1,
            list(guess.sigmas),
            first_precisions(module),
            {},
            env.generator,
        )
        shooting = self._shooting(state)
        state.memory = self.optimiser.init(shooting.theta(flat(module), guess.states))
        return state

    def _shooting(self, state: NeuralODEState) -> Shooting:
        guess, module = state.guess, state.module
        widest = float(guess.grid.diff().max())
        span = float(guess.grid[-1] - guess.grid[0])
        observed = [
            Observed(o.function, o.places, o.values, sigma)
            for o, sigma in zip(guess.observed, state.sigmas, strict=True)
        ]
        return Shooting(
            module,
            guess.grid,
            observed,
            guess.sizes,
            guess.start,
            length=state.length,
            substeps=max(1, math.ceil(widest * self.steps / span - 1e-9)),
            precisions=spread_precisions(module, state.precisions),
            seam=self.seam * CLOSER**state.rounds,
        )

    def step(self, problem: Any, state: NeuralODEState) -> Mapping[str, float | Tensor]:
        shooting = self._shooting(state)
        report = self.optimiser.step(shooting, state.memory)
        state.step, state.tried = state.step + 1, state.tried + 1
        # A refused step only was too long; the noise of a fit that is not finished is none.
        state.refused = 0 if report.accepted else state.refused + 1
        still = report.accepted and report.loss - report.new_loss <= FLAT * abs(report.loss)
        still = still or report.new_loss <= NOTHING
        over = still or state.refused >= REFUSALS or state.tried >= self.patience
        if math.isfinite(report.loss) and over:
            self._settle(state, shooting)
        return {"loss": report.new_loss, "segments": float(shooting.segments)}

    def _settle(self, state: NeuralODEState, shooting: Shooting) -> None:
        """After convergence: tighten seams, merge segments, or estimate noise and precisions anew."""
        state.tried, state.refused, state.rounds = 0, 0, state.rounds + 1
        theta = state.memory["theta"]
        if shooting.segments == 1:
            self._weigh(state, shooting)
        elif state.rounds >= ROUNDS:
            states = shooting.states(theta)
            weights, _ = shooting.split(theta)
            state.length, state.rounds = state.length * self.growth, 0
            state.memory = self.optimiser.init(self._shooting(state).theta(weights, states))
        state.memory["mu"] = max(state.memory["mu"], 1e-3 * self.optimiser.damping)

    def _weigh(self, state: NeuralODEState, shooting: Shooting) -> None:
        """Estimate noise and precisions anew; the end, where that changes nothing."""
        # Not while there are seams: their small deviations would count as precise observations, and
        # the weights as determined by them.
        names = group_of_parameters(state.module)
        theta, declared = state.memory["theta"], state.guess.declared
        found = weigh(shooting, theta, names, declared, state.precisions)
        # How large a weight's prior is means nothing any more where no weight is determined.
        moved = (found.precisions / state.precisions).log().abs() * found.determined.clamp(max=1)
        change = max(
            [abs(math.log(a / b)) for a, b in zip(found.sigmas, state.sigmas, strict=True)]
            + moved.tolist(),
            default=0.0,
        )
        state.sigmas, state.precisions, state.evidence = found.sigmas, found.precisions, found
        count = sum(len(o.values) for o in shooting.observed)
        struck, state.memory["theta"] = strike_out(state.module, theta, found.covariance, count)
        if struck:
            state.precisions[struck], state.rounds = 1.0, state.rounds - 1
        state.done = not struck and (change < SETTLED or state.rounds >= LAST_ROUNDS)
        if state.done and is_lost(state) and state.restarts < RESTARTS:
            self._restart(state)

    def _restart(self, state: NeuralODEState) -> None:
        """From the observations again with other weights: the best fit of these was a local minimum."""
        log.info("NeuralODE: the fit missed the observations, beginning again with other weights")
        begin_again(state.module, state.generator)
        state.length, state.rounds, state.restarts, state.done = 1, 0, state.restarts + 1, False
        state.sigmas = list(state.guess.sigmas)
        state.precisions = first_precisions(state.module)
        first = self._shooting(state).theta(flat(state.module), state.guess.states)
        state.memory = self.optimiser.init(first)

    def terminate(self, problem: Any, state: NeuralODEState) -> Status | None:
        return Status.OK if state.done else None

    def finish(self, problem: Any, state: NeuralODEState) -> Answer:
        shooting = self._shooting(state)
        weights, nodes = shooting.split(state.memory["theta"])
        module = copy.deepcopy(state.module)
        with torch.no_grad():
            nn.utils.vector_to_parameters(weights, module.parameters())
        approximation = TrajectoryApproximation(
            module, float(state.guess.grid[0]), nodes[0].clone()
        )
        evidence = state.evidence if shooting.segments == 1 else None
        parameters = {}
        for k, p in enumerate(module.form.parameters):
            raw = module.numbers[p.name]
            value = module.value(p.name)
            slope = torch.autograd.grad(value, raw)[0] if value.requires_grad else torch.ones(())
            spread = None if evidence is None else float(evidence.deviations[k] * slope.abs())
            parameters[p] = (float(value.detach()), spread)
        return Answer(
            approximation,
            parameters,
            {
                "parameters": len(weights) + int(shooting.free.sum()),
                "points": sum(len(o.values) for o in shooting.observed),
                "segments": shooting.segments,
                "sigmas": list(state.sigmas),
                "missed": is_lost(state),
                "restarts": state.restarts,
                "effective_parameters": None if evidence is None else evidence.effective,
            },
        )


def is_lost(state: NeuralODEState) -> bool:
    """Whether some observations are missed by far more than their own scatter."""
    pairs = zip(state.sigmas, state.guess.sigmas, state.guess.declared, strict=True)
    # A declared noise is not re-estimated; what it misses shows in the loss alone.
    return any(now > LOST * first for now, first, given in pairs if given is None)


def flat(module: nn.Module) -> Tensor:
    """All parameters as one vector."""
    return nn.utils.parameters_to_vector(module.parameters()).detach().clone()
