"""SpectralMixtureGP: a Gaussian process whose spectrum finds the frequencies, conditioned on a PDE.

In    a `PDESystem` in one to three coordinates, with data where there are some.
Out   an `Answer`: posterior mean, deviation and samples of the fields; parameters with errors.
Next  the driver judges it; `spectral_mixture_round` is one solve for given mixtures.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from pinnkit.errors import SolveError, Status, UnsupportedProblemError
from pinnkit.gp.frequencies import COVERED
from pinnkit.gp.gaussian_process import GaussianProcessApproximation
from pinnkit.ir.normal_form import NormalForm
from pinnkit.lower.residuals import lowering_refusal
from pinnkit.lower.scales import parameter_values
from pinnkit.solvers.base import AbstractSolver, Answer, Env, graph_refusal, neural_refusal
from pinnkit.solvers.spectral_mixture_grid import Mixtures
from pinnkit.solvers.spectral_mixture_round import Round, solve_round
from pinnkit.solvers.spectral_mixture_rows import Term, make_terms
from pinnkit.solvers.spectral_mixture_tones import Tones, find_problem_tones, merge_tones
from pinnkit.solvers.spectral_mixture_training import JointState, JointTraining

__all__ = ["SpectralMixtureGP", "SpectralMixtureState"]

log = logging.getLogger(__name__)

# Standard deviation of a component, in bins of 2 pi / L: narrow ones in several coordinates, where
# the numbers of functions are multiplied.
NATURAL_WIDTH = {1: 1.4, 2: 0.35, 3: 0.35}
THRESHOLD = {1: 1e-6, 2: 1e-4, 3: 1e-3}
TARGET = {1: 1e-9, 2: 1e-7, 3: 1e-6}  # residual between the nodes, as a part of the field
HIGHEST_STUDENT = 2  # derivatives of samples with a Matern-5/2 envelope
WIDEST = 5.0  # bins: beyond it components are added, not widened
GAIN = 3.0  # a round that gains less than this factor is not worth another


@dataclass
class SpectralMixtureState:
    """The mixtures of the next round, and the best round so far."""

    terms: list[Term]
    tones: Tones
    mixtures: Mixtures
    target: float
    patience: float
    max_steps: int | None = None
    step: int = 0
    best: Round | None = field(default=None, repr=False)
    history: list[float] = field(default_factory=list)
    finished: Status | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"step": 0}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step, self.best, self.finished = 0, None, None
        self.history.clear()


@final
@dataclass(frozen=True, kw_only=True)
class SpectralMixtureGP(AbstractSolver):
    """Gaussian process with a spectral-mixture kernel per coordinate, conditioned on the equations.

    k(z) = sum_q w_q exp(-s_q z^2) cos(m_q z) along each coordinate, their product in several. Frequencies
    m_q come from the spectra of sources (divided by the equation's symbol), conditions and
    observations, and from the dispersion relation; none is set by hand. In the kernel's square root
    (`gp.features`) fields are u = f(x) . z with z ~ N(0, Id), and z is conditioned on equations,
    conditions and data by one regularised least-squares solve, or by damped Gauss-Newton with
    unknown parameters beside z. Afterwards the residual between the collocation points is looked
    at: what it shows becomes further components, or wider ones.

    Args:
        student: Matern-5/2 envelopes (Student-t spectra) instead of Gaussian ones: rougher fields,
            less accuracy for smooth ones; equations up to second order.
        width: Standard deviation of a component in the spectrum, in units of 2 pi / L; None
            chooses 1.4 in one coordinate and 0.35 in two.
        frequencies: Most components per coordinate.
        threshold: Tones below this part of the largest amplitude get no component of their own;
            None: 1e-6 in one coordinate, 1e-4 in two.
        rounds: Most rounds of adding what the residual shows.
        patience: Seconds where `solve(time_limit=None)` sets no limit.
        training: Adam on the joint probability, as published, instead of all of the above.

    With noisy data every component has a prior variance of its own, the one that makes the data most
    likely; components that are not needed vanish.

    Supports linear and nonlinear equations and systems on intervals and boxes of two coordinates
    (space and time alike), all conditions on their sides, observations with noise, unknown
    parameters; boxes of three coordinates for linear equations with constant coefficients. Not:
    regions, integrals, coefficients with jumps.
    References: fang2024solving.
    """

    student: bool = False
    width: float | None = None
    frequencies: int = 40
    threshold: float | None = None
    rounds: int = 6
    patience: float = 300.0
    training: JointTraining | None = None

    citation: ClassVar[str] = (
        "@inproceedings{fang2024solving, author={Fang, Shikai and Cooley, Madison and Long, Da and "
        "Li, Shibo and Kirby, Robert and Zhe, Shandian}, title={Solving High Frequency and "
        "Multi-Scale PDEs with Gaussian Processes}, booktitle={ICLR}, year={2024}}"
    )

    def __post_init__(self) -> None:
        faults = []
        if self.width is not None and not 0 < self.width <= 10:
            faults.append(f"width is a positive number of bins up to 10, not {self.width!r}")
        if not self.frequencies >= 1:
            faults.append(f"frequencies is at least 1, not {self.frequencies!r}")
        if self.threshold is not None and not 0 < self.threshold < 1:
            faults.append(f"threshold lies between 0 and 1, not at {self.threshold!r}")
        if not self.rounds >= 1:
            faults.append(f"rounds is at least 1, not {self.rounds!r}")
        if not self.patience > 0:
            faults.append(f"patience is a positive number of seconds, not {self.patience!r}")
        if faults:
            raise ValueError("SpectralMixtureGP: " + "; ".join(faults))

    def supports(self, problem: Any) -> str | None:
        if (reason := graph_refusal(problem, "SpectralMixtureGP")) is not None:
            return reason
        nf: NormalForm = problem.normal_form
        if (reason := neural_refusal(nf, "SpectralMixtureGP")) is not None:
            return reason
        names = ", ".join(map(str, nf.coords))
        if len(nf.coords) > 3:
            return (
                f"SpectralMixtureGP handles one to three coordinates, not {len(nf.coords)} "
                f"({names}). Use CausalPINN()."
            )
        reason = lowering_refusal(nf)
        if reason is not None:
            return reason
        if len(nf.coords) == 3 and (nf.observations or nf.parameters):
            return (
                "SpectralMixtureGP takes observations and unknown parameters in one or two "
                f"coordinates, not in three ({names}). Use fewer coordinates."
            )
        if nf.jumps:
            return (
                f"coefficients jump where {nf.jumps[0]} = 0, and the kernels of SpectralMixtureGP "
                "are smooth. Use MethodOfLines()."
            )
        if nf.integrals:
            return (
                f"SpectralMixtureGP does not use integrals yet ({nf.integrals[0].label}). "
                "Use CausalPINN()."
            )
        order = max((sum(nf.multi_index(d)) for d in nf.derivatives()), default=0)
        if self.student and (order > HIGHEST_STUDENT or nf.periodic):
            return (
                "SpectralMixtureGP(student=True) handles equations up to second order on axes that "
                "are not periodic. Use SpectralMixtureGP()."
            )
        try:
            terms = make_terms(nf)
            for term in terms:
                _ = term.compiled
        except UnsupportedProblemError as fault:
            return f"an equation cannot be linearised: {fault}"
        if self.training is not None and (refused := self.training.refusal(nf)) is not None:
            return refused
        if len(nf.coords) == 3 and not all(term.is_constant for term in terms):
            return (
                "SpectralMixtureGP handles three coordinates where the equations are linear with "
                f"constant coefficients; these in {names} are not. Use CausalPINN()."
            )
        return None

    def init(self, problem: Any, env: Env) -> SpectralMixtureState | JointState:
        reason = self.supports(problem)
        if reason is not None:
            raise UnsupportedProblemError(reason)
        if env.warm_start is not None:
            raise ValueError(
                "SpectralMixtureGP solves directly and has no use for warm_start; leave it out"
            )
        nf: NormalForm = problem.normal_form
        terms = make_terms(nf)
        if self.training is not None:
            return JointState(nf, terms, self.training, student=self.student, device=env.device)
        guesses = [torch.tensor(v, dtype=torch.float64) for v in parameter_values(nf).values()]
        threshold = self.threshold or THRESHOLD[len(nf.coords)]
        tones = find_problem_tones(nf, terms, guesses, threshold)
        if tones.unresolved:
            log.warning(
                "%s: not resolved by any grid tried; the answer may miss its fast parts",
                ", ".join(tones.unresolved),
            )
        bins = self.width or (NATURAL_WIDTH[len(nf.coords)])
        mixtures = Mixtures(
            [self._chosen(nf, k, tones, bins) for k in range(len(nf.coords))],
            [bins] * len(nf.coords),
        )
        for c, own in zip(nf.coords, mixtures.frequencies, strict=True):
            log.info("frequencies along %s: %s", c, ", ".join(f"{w:.4g}" for w in own))
        target = TARGET[len(nf.coords)]
        limit = self.patience if env.time_limit is None else 0.9 * env.time_limit
        state = SpectralMixtureState(terms, tones, mixtures, target, limit, env.max_steps)
        state.mixtures.device = env.device
        return state

    def step(
        self, problem: Any, state: SpectralMixtureState | JointState
    ) -> Mapping[str, float | Tensor]:
        if isinstance(state, JointState):
            return state.advance()
        nf: NormalForm = problem.normal_form
        started = time.perf_counter()
        now = solve_round(
            nf,
            state.terms,
            state.mixtures,
            student=self.student,
            threshold=self.threshold or THRESHOLD[len(nf.coords)],
            deadline=started + state.patience,
        )
        state.step += 1
        state.history.append(now.criterion)
        seconds = time.perf_counter() - started
        state.patience -= seconds
        log.info(
            "round %d: %d functions, residual worth %.1e of the field, %.1f s",
            state.step,
            now.size,
            now.criterion,
            seconds,
        )
        if not math.isfinite(now.criterion):
            return self._diverged(state, now)
        gained = state.best is None or now.criterion * GAIN < state.best.criterion
        better = state.best is None or now.is_better(state.best)
        if state.best is None or better:
            state.best = now
        spent = state.step >= self.rounds or state.patience < 2 * seconds
        if state.best.unidentified:
            state.finished = Status.NOT_IDENTIFIABLE
        elif now.noisy:
            if spent or not better or not self._add_missing(nf, state, now):
                state.finished = Status.OK if state.best.converged else Status.STALLED
        elif now.criterion <= state.target:
            state.finished = Status.OK if now.converged else Status.STALLED
        elif spent or not gained or not self._enrich(nf, state, now):
            state.finished = Status.STALLED
        if state.finished is Status.STALLED and not state.best.converged:
            log.warning(
                "round %d: the search for the most likely fields did not settle", state.step
            )
        return {"residual": now.criterion}

    def terminate(self, problem: Any, state: SpectralMixtureState | JointState) -> Status | None:
        if isinstance(state, JointState):
            return Status.MAX_STEPS if state.step >= state.options.steps else None
        return state.finished

    def finish(self, problem: Any, state: SpectralMixtureState | JointState) -> Answer:
        if isinstance(state, JointState):
            return state.answer()
        best = state.best
        if best is None:
            out_of_steps = state.max_steps is not None and state.max_steps <= state.step
            status = Status.MAX_STEPS if out_of_steps else Status.TIME_LIMIT
            error = SolveError(status, None)  # type: ignore[arg-type]
            error.args = (
                f"{status.name}: SpectralMixtureGP() has no answer, because no round was finished",
            )
            raise error
        nf: NormalForm = problem.normal_form
        return Answer(
            GaussianProcessApproximation(best.bases, best.coefficients, best.root, best.layout),
            parameters=dict(zip(nf.parameters, best.parameters, strict=True)),
            stats={
                "parameters": best.size,
                "points": best.points,
                "own_residual": best.criterion,
                "frequencies": {
                    str(c): own for c, own in zip(nf.coords, best.frequencies, strict=True)
                },
                "log_evidence": best.log_evidence,
                "noise": best.noise,
                "resolved": not state.tones.unresolved,
                "gauss_newton_steps": best.steps,
                "laplace_factor": "exact" if best.exact_factor else "averaged coefficients",
            },
        )

    def _chosen(self, nf: NormalForm, k: int, tones: Tones, bins: float) -> list[float]:
        low, high = nf.bounds[nf.coords[k]]
        apart = COVERED * bins / math.sqrt(2.0)
        return [0.0, *merge_tones(tones.axes[k], high - low, self.frequencies - 1, 0.5 * apart)]

    def _diverged(self, state: SpectralMixtureState, now: Round) -> Mapping[str, float]:
        """A residual that is not finite: the end, with the last finite answer if there is one."""
        if state.best is not None:
            log.warning(
                "round %d: the residual is not finite; the answer is an earlier round's", state.step
            )
            state.finished = Status.STALLED
            return {"residual": state.best.criterion}
        log.warning("round %d: the residual is not finite", state.step)
        state.best, state.finished = now, Status.DIVERGED
        return {"residual": now.criterion}

    def _add_missing(self, nf: NormalForm, state: SpectralMixtureState, now: Round) -> bool:
        """Components for the tones that the last round has missed; False if there are none new."""
        added = False
        for k in range(len(nf.coords)):
            before = state.mixtures.frequencies[k]
            state.tones.axes[k] += now.missing[k]
            after = self._chosen(nf, k, state.tones, state.mixtures.widths[k])
            added = added or len(after) > len(before)
            state.mixtures.frequencies[k] = after
        return added

    def _enrich(self, nf: NormalForm, state: SpectralMixtureState, now: Round) -> bool:
        """Components for what the residual shows; wider ones where there is nothing new."""
        if self._add_missing(nf, state, now):
            return True
        wider = [min(1.6 * w, WIDEST) for w in state.mixtures.widths]
        grown = wider != state.mixtures.widths
        state.mixtures.widths = wider
        return grown
