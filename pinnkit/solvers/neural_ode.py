"""NeuralODE: ordinary equations with neural terms and unknown numbers, fitted to observed trajectories.

In    a `PDESystem` in one coordinate, time, with `Observations` of one run or several.
Out   an `Answer`: the trajectories of the learned equation, the numbers with their standard errors.
Next  `pinnkit.driver`; `sol.module` is the learned equation, `sol.read(gamma)` writes it down.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Mapping
from dataclasses import InitVar, dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from pinnkit.errors import Status, UnsupportedProblemError
from pinnkit.ir.ordinary_form import OrdinaryForm, ordinary_form
from pinnkit.lower.ordinary import OrdinaryModule, compile_observed, find_gauges
from pinnkit.nn import zero_output
from pinnkit.solution.trajectory_approximation import TrajectoryApproximation
from pinnkit.solvers.base import AbstractSolver, Answer, Env, graph_refusal
from pinnkit.solvers.neural_ode_data import FirstGuess, first_guess, runs_of
from pinnkit.solvers.neural_ode_evidence import Evidence, weigh
from pinnkit.solvers.neural_ode_fit import Fit, begin_from, best_of, flat
from pinnkit.solvers.neural_ode_shooting import Observed, Shooting
from pinnkit.solvers.neural_ode_terms import (
    Form,
    begin_again,
    choice_price,
    first_precisions,
    forms_of,
    group_of_parameters,
    make_term,
    measure_expansions,
    spread_precisions,
    strike_out,
)
from pinnkit.train.gauss_newton import GaussNewton

__all__ = ["NeuralODE", "NeuralODEState"]

log = logging.getLogger(__name__)

SETTLED = 0.05  # change of the logarithm of noise and precisions below which they stay
FLAT = 1e-3  # relative decrease of the loss below which a step has nothing left to do
ROUNDS, LAST_ROUNDS = 2, 12  # seams before segments are merged; estimates of noise afterwards
CLOSER = 0.1  # factor on the seam per round: segments nearly fit together when they are merged
RESTARTS = 2
NOTHING = 1e-9  # loss that is rounding: a billionth of what one observation off by its noise adds
REFUSALS = 4  # steps in a row that the optimiser refused


@dataclass
class NeuralODEState:
    """The fits of all forms of the terms, one of which is at work."""

    guess: FirstGuess
    fits: list[Fit]
    generator: torch.Generator
    current: int = 0
    done: bool = False
    step: int = 0

    @property
    def fit(self) -> Fit:
        """The one at work; when all is done, the one that was chosen."""
        return self.fits[self.current]

    def state_dict(self) -> dict[str, Any]:
        return {
            "fits": {str(fit.form): fit.state_dict() for fit in self.fits},
            "counts": [self.current, int(self.done), self.step],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for fit in self.fits:
            fit.load_state_dict(state["fits"][str(fit.form)])
        self.current, done, self.step = (int(n) for n in state["counts"])
        self.done = bool(done)


@final
@dataclass(frozen=True, kw_only=True)
class NeuralODE(AbstractSolver):
    """Multiple shooting with Gauss-Newton steps; noise and weight decay from the evidence.

    A long trajectory fitted at once has many local minima: a wave out of phase is worse than none. So the
    time axis begins as short segments with starting states of their own, taken from the observations;
    they are merged, `growth` at a time, until one is left per run, which is the trajectory that is returned.
    Residuals and their exact derivatives are those of `neural_ode_shooting`. Standard deviations of
    observations that declare none, and the precision of the Gaussian prior of each network's weights, are
    re-estimated as MacKay does, so nothing is held out and no weight decay is tuned.

    What a neural term is, the evidence decides, too (`neural_ode_evidence`): a network, a polynomial of few
    monomials, which predicts beyond the observations where the law is one, or their sum. Each is fitted to
    its end, and the one under which the observations are most probable is returned. That costs three to
    four fits; `expansion=None` is one.

    Args:
        width, depth: Hidden layers of the networks of neural terms that have none of their own.
        activation: Theirs.
        expansion: Largest degree of polynomials that are tried in their place, and beside them; at most half
            as many monomials as observations. None for networks alone.
        steps: RK4 steps over the training span at least; between observations at least one.
        growth: Segments merged at a time.
        seam: Jump between segments, relative to the state's size, that counts as one standard deviation.
        patience: Gauss-Newton steps at most between two estimates of noise and precisions.
        optimiser: `GaussNewton(...)`.
        regularise: Refused: what it is for, and who takes it, says the ValueError.

    `sol.stats.more` holds what was chosen ("form"), log evidences by form ("evidence"), noise ("sigmas").

    Supports ordinary equations of any order, linear in their highest derivatives, with neural terms,
    unknown numbers, known or unknown initial values, some fields unobserved, several runs (`observe_runs`;
    `sol.run(k)`). Not: chaotic trajectories much longer than the inverse of their largest exponent, stiff
    equations.
    References: bock1983, turan2022multiple (arXiv:2109.06786), mackay1992practical.
    """

    width: int = 8
    depth: int = 1
    activation: str = "tanh"
    expansion: int | None = 3
    steps: int = 100
    growth: int = 3
    seam: float = 0.02
    patience: int = 40
    optimiser: GaussNewton = GaussNewton(momentum=0.0, damping=1.0)  # noqa: RUF009  (frozen)
    regularise: InitVar[Any] = None

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

    def __post_init__(self, regularise: Any) -> None:
        if regularise is not None:
            raise ValueError(
                "NeuralODE(regularise=...): its steps are of one size, so that a penalty on their error saves "
                "none, and a weight that nobody infers would spoil the evidence. Declare the equation in "
                "differentials, SDESystem([Eq(d(z), f*d(t))], data), and pass NeuralSDE(regularise=...)."
            )
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
            runs_of(nf)
        except UnsupportedProblemError as fault:
            return str(fault)
        if not nf.observations:
            return (
                "NeuralODE learns from Observations, and this problem has none. Use CausalPINN() or "
                "MethodOfLines()."
            )
        if all(float(o.points.max()) <= form.span[0] for o in nf.observations):
            return "No observation is later than the start, so none says how anything changes."
        if not (nf.neurals or nf.parameters or len(form.initial) < len(form.states)):
            return "Nothing is unknown but the trajectory: use CausalPINN() or MethodOfLines()."
        return None

    def init(self, problem: Any, env: Env) -> NeuralODEState:
        nf = problem.normal_form
        form = ordinary_form(nf)
        guess = first_guess(nf, form, dtype=env.dtype, device=env.device)
        observations = sum(len(o.values) for o in guess.observed)
        kinds = forms_of(form.neurals, self.expansion, observations)
        fits = [self._first_fit(form, kind, guess, env) for kind in kinds]
        return NeuralODEState(guess, fits, env.generator)

    def _first_fit(self, form: OrdinaryForm, kind: Form, guess: FirstGuess, env: Env) -> Fit:
        """The terms in one form, 0 yet, on the segments they begin with."""

        def build(inputs: int, outputs: int) -> nn.Module:
            return make_term(
                inputs, outputs, form=kind, width=self.width, depth=self.depth,
                activation=self.activation, generator=env.generator, dtype=env.dtype,
            )  # fmt: skip

        module = OrdinaryModule(form, build, dtype=env.dtype).to(env.device)
        for net in module.nets.values():
            zero_output(net)  # no term at first: the equation as far as it is written down
        gauges = find_gauges(module, guess.grid, guess.states, guess.rates)
        for name, gauge in gauges.items():
            module.set_gauge(name, gauge)
        measure_expansions(module, gauges, guess.grid, guess.states)
        fit = Fit(kind, module, list(guess.sigmas), first_precisions(module), {})
        first = self._shooting(guess, fit).theta(flat(module), guess.states)
        fit.memory = self.optimiser.init(first)
        return fit

    def _shooting(self, guess: FirstGuess, fit: Fit) -> Shooting:
        observed = [
            Observed(o.function, o.places, o.values, sigma)
            for o, sigma in zip(guess.observed, fit.sigmas, strict=True)
        ]
        return Shooting(
            fit.module,
            guess.grid,
            observed,
            guess.sizes,
            guess.start,
            counts=guess.counts,
            length=fit.length,
            substeps=max(1, math.ceil(guess.widest * self.steps / guess.span - 1e-9)),
            precisions=spread_precisions(fit.module, fit.precisions),
            seam=self.seam * CLOSER**fit.rounds,
        )

    def step(self, problem: Any, state: NeuralODEState) -> Mapping[str, float | Tensor]:
        fit = state.fit
        shooting = fit.shooting = fit.shooting or self._shooting(state.guess, fit)
        report = self.optimiser.step(shooting, fit.memory)
        state.step, fit.tried = state.step + 1, fit.tried + 1
        # A refused step only was too long; the noise of a fit that is not finished is none.
        fit.refused = 0 if report.accepted else fit.refused + 1
        still = report.accepted and report.loss - report.new_loss <= FLAT * abs(report.loss)
        still = still or report.new_loss <= NOTHING
        over = still or fit.refused >= REFUSALS or fit.tried >= self.patience
        if math.isfinite(report.loss) and over:
            self._settle(state, shooting)
        elif over and len(state.fits) > 1:  # the trajectory explodes; another form may not
            fit.done, fit.log_evidence, fit.shooting = True, -math.inf, None
        if fit.done:
            self._go_on(state)
        return {"loss": report.new_loss, "segments": float(shooting.segments)}

    def _settle(self, state: NeuralODEState, shooting: Shooting) -> None:
        """After convergence: tighten seams, merge segments, or estimate noise and precisions anew."""
        fit = state.fit
        fit.tried, fit.refused, fit.rounds, fit.shooting = 0, 0, fit.rounds + 1, None
        theta = fit.memory["theta"]
        if shooting.whole:
            self._weigh(state, shooting)
        elif fit.rounds >= ROUNDS:
            states = shooting.states(theta)
            weights, _ = shooting.split(theta)
            fit.length, fit.rounds = fit.length * self.growth, 0
            merged = self._shooting(state.guess, fit)
            fit.memory = self.optimiser.init(merged.theta(weights, states))
        fit.memory["mu"] = max(fit.memory["mu"], 1e-3 * self.optimiser.damping)

    def _weigh(self, state: NeuralODEState, shooting: Shooting) -> None:
        """Estimate noise and precisions anew; the end, where that changes nothing."""
        # Not while there are seams: their small deviations would count as precise observations, and
        # the weights as determined by them.
        fit = state.fit
        theta = fit.memory["theta"]
        found = _evidence(state.guess, fit, shooting)
        # How large a weight's prior is means nothing any more where no weight is determined.
        moved = (found.precisions / fit.precisions).log().abs() * found.determined.clamp(max=1)
        change = max(
            [abs(math.log(a / b)) for a, b in zip(found.sigmas, fit.sigmas, strict=True)]
            + moved.tolist(),
            default=0.0,
        )
        fit.sigmas, fit.precisions, fit.evidence = found.sigmas, found.precisions, found
        count = sum(len(o.values) for o in shooting.observed)
        struck, fit.memory["theta"] = strike_out(fit.module, theta, found.covariance, count)
        if struck:
            fit.precisions[struck], fit.rounds = 1.0, fit.rounds - 1
        elif change < SETTLED or fit.rounds >= LAST_ROUNDS:
            fit.done, fit.log_evidence = True, found.log - choice_price(fit.module, fit.form)

    def _go_on(self, state: NeuralODEState) -> None:
        """The next form worth a fit; after the last, the one with the greatest evidence."""
        guess, fits = state.guess, state.fits
        found = best_of(fit for fit in fits if not fit.form.network)
        for k, fit in enumerate(fits):
            if fit.done:
                continue
            if fit.form.network and fit.form.degree is not None:
                # Beside the best polynomial only, and only if that is near the observations.
                if found is None or fit.form.degree != found.form.degree or found.is_lost(guess):
                    continue
                ended = self._shooting(guess, found)
                weights, _ = ended.split(found.memory["theta"])
                begin_from(fit, found, weights)
                first = self._shooting(guess, fit)
                states = ended.states(found.memory["theta"])
                fit.memory = self.optimiser.init(first.theta(flat(fit.module), states))
            state.current = k
            return
        best = best_of(fits)
        assert best is not None  # this is called when a fit has ended
        if best.is_lost(guess) and fits[0].restarts < RESTARTS:
            self._restart(state)
        else:
            state.current, state.done = fits.index(best), True

    def _restart(self, state: NeuralODEState) -> None:
        """From the observations again with other weights: the best fit of these was a local minimum."""
        log.info("NeuralODE: the fit missed the observations, beginning again with other weights")
        state.current, fit = 0, state.fits[0]
        begin_again(fit.module, state.generator)
        fit.length, fit.rounds, fit.restarts, fit.done = 1, 0, fit.restarts + 1, False
        fit.tried, fit.refused, fit.shooting = 0, 0, None
        fit.sigmas = list(state.guess.sigmas)
        fit.precisions = first_precisions(fit.module)
        first = self._shooting(state.guess, fit).theta(flat(fit.module), state.guess.states)
        fit.memory = self.optimiser.init(first)

    def terminate(self, problem: Any, state: NeuralODEState) -> Status | None:
        if not state.done:
            return None
        fit = best_of(state.fits) or state.fit
        return Status.STALLED if fit.is_lost(state.guess) else Status.OK

    def finish(self, problem: Any, state: NeuralODEState) -> Answer:
        fit = best_of(state.fits) or state.fit
        shooting = self._shooting(state.guess, fit)
        theta = fit.memory["theta"]
        weights, _ = shooting.split(theta)
        module = copy.deepcopy(fit.module)
        with torch.no_grad():
            nn.utils.vector_to_parameters(weights, module.parameters())
        approximation = TrajectoryApproximation(
            module, float(state.guess.grid[0]), shooting.starts(theta).clone()
        )
        evidence = fit.evidence if shooting.whole else None
        if evidence is None and fit.done and math.isfinite(fit.log_evidence):  # after a resume
            evidence = _evidence(state.guess, fit, shooting)
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
                "parameters": len(weights) + shooting.runs * int(shooting.free.sum()),
                "points": sum(len(o.values) for o in shooting.observed),
                "segments": shooting.segments,
                "sigmas": list(fit.sigmas),
                "missed": fit.is_lost(state.guess),
                "restarts": fit.restarts,
                "effective_parameters": None if evidence is None else evidence.effective,
                "form": str(fit.form) if module.form.neurals else None,
                "evidence": {str(f.form): f.log_evidence for f in state.fits if f.done},
            },
        )


def _evidence(guess: FirstGuess, fit: Fit, shooting: Shooting) -> Evidence:
    names = group_of_parameters(fit.module)
    return weigh(shooting, fit.memory["theta"], names, guess.declared, fit.precisions, guess.kinds)
