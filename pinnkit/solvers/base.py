"""The solver abstraction: a frozen record of hyperparameters with five methods to write.

In    a `PDESystem` (its `normal_form` is all a solver reads) and an `Env`.
Out   a state advanced by `step`, and at the end an `Answer`.
Next  `pinnkit.driver.solve` runs the loop, judges the answer and builds the `Solution`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from pinnkit.errors import Status
from pinnkit.ir.graph_form import GraphForm
from pinnkit.ir.normal_form import NormalForm
from pinnkit.solution.answer import Answer
from pinnkit.train.iteration import TrainingState
from pinnkit.train.ranks import ONE, Ranks

__all__ = [
    "AbstractSolver",
    "Answer",
    "Env",
    "State",
    "graph_refusal",
    "neural_refusal",
    "unknowns_refusal",
]

State = TrainingState


@dataclass
class Env:
    """Where and within what limits a solve runs.

    `generator` lives on the CPU whatever the device, so that a seed means the same everywhere; all
    randomness of a solver comes from it (its state is part of every checkpoint). `time_limit` is the
    training budget: solvers may plan with it, the loop enforces it. `ranks` are the processes that
    solve together; only solvers with `shards` ever see more than one.
    """

    device: torch.device
    dtype: torch.dtype
    generator: torch.Generator
    seed: int
    tol: float | None = None
    time_limit: float | None = None
    warm_start: object | None = None
    max_steps: int | None = None
    ranks: Ranks = ONE


class AbstractSolver(ABC):
    """One method. Subclasses are frozen dataclasses of its hyperparameters and hold no state.

    `problem` is always the `PDESystem`, never a problem class (solvers on graphs take both).
    """

    citation: ClassVar[str] = ""  # BibTeX of the method, for `pk.citation`
    shards: ClassVar[bool] = False  # whether several ranks share its work (`Env.ranks`)

    @abstractmethod
    def supports(self, problem: Any) -> str | None:
        """None, or in one sentence why not and what can do it."""

    @abstractmethod
    def init(self, problem: Any, env: Env) -> State:
        """The state before the first step; all randomness from `env.generator`."""

    @abstractmethod
    def step(self, problem: Any, state: Any) -> Mapping[str, float | Tensor]:
        """Advance `state` in place by one step (`state.step += 1`); return detached losses."""

    @abstractmethod
    def terminate(self, problem: Any, state: Any) -> Status | None:
        """None to go on, else the reason; `OK` means converged, to be judged by the driver."""

    @abstractmethod
    def finish(self, problem: Any, state: Any) -> Answer:
        """The best answer so far. Changes nothing: it is also called in the middle of training."""

    def complete(self, problem: Any, state: Any) -> bool:
        """Whether the answer so far is meant for the whole domain; its error is estimated only then."""
        return True


def graph_refusal(problem: Any, solver: str) -> str | None:
    """Why a solver of one differential problem cannot take graphs, or a whole family; None if it is none."""
    form = getattr(problem, "normal_form", None)
    if isinstance(form, NormalForm) and form.given:
        names = ", ".join(str(g) for g in form.given)
        return (
            f"{solver} solves one problem, and in this one {names} must be given first. Write "
            "PDEFamily(system, inputs).on({input: value}), or learn the whole family."
        )
    if not isinstance(form, GraphForm):
        return None
    return (
        f"{solver} solves differential equations; these are equations on a graph. Use "
        "SparseFixedPoint(), or ConvergentGraphSolver() to learn them."
    )


def neural_refusal(nf: NormalForm, solver: str) -> str | None:
    """Why a solver of one run that learns no terms cannot take the problem; None if it can."""
    if any(o.run for o in nf.observations):
        return f"{solver} takes Observations of one run, and there are several. Use NeuralODE()."
    if not nf.neurals:
        return None
    names = ", ".join(map(str, nf.neurals))
    return f"{solver} does not learn neural terms ({names}). Use NeuralODE()."


def unknowns_refusal(nf: NormalForm, solver: str) -> str | None:
    """Why a solver that determines nothing but fields cannot take the problem; None if it can."""
    if (reason := neural_refusal(nf, solver)) is not None:
        return reason
    if nf.parameters:
        names = ", ".join(str(p) for p in nf.parameters)
        return (
            f"{solver} does not determine unknown parameters yet ({names}). "
            "Give them values with remake(parameters=...)."
        )
    if nf.observations:
        return f"{solver} does not use Observations yet. Drop them, or wait for the next version."
    return None
