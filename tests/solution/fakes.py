"""Problems, approximations, solvers and references that need no training: for the driver's rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sympy as sp
import torch
from torch import Tensor

import pinnkit as pk
from pinnkit.errors import Status
from pinnkit.ir.normal_form import Equation, NormalForm, Predicates
from pinnkit.solution.answer import Answer
from pinnkit.solvers.base import AbstractSolver, Env

t, x = pk.coords("t x")
u = pk.field("u", t, x)
EXACT = x**2 + 2 * t  # of u_t = u_xx


@dataclass(frozen=True, eq=False)
class System:
    """What the driver needs of a PDESystem."""

    normal_form: NormalForm


def normal_form(
    fields: Sequence[Any] = (u,),
    equations: Sequence[Any] = (u.diff(t) - u.diff(x, 2),),
    coords: Sequence[sp.Symbol] = (t, x),
    **changes: Any,
) -> NormalForm:
    """Heat on the unit square of t and x unless told otherwise."""
    time = t if t in coords else None
    given: dict[str, Any] = {
        "coords": tuple(coords),
        "time": time,
        "space": tuple(c for c in coords if c != time),
        "bounds": dict.fromkeys(coords, (0.0, 1.0)),
        "fields": tuple(fields),
        "parameters": (),
        "equations": tuple(
            Equation(sp.sympify(e), sp.sympify(e), f"equation {i + 1}", tuple(coords))
            for i, e in enumerate(equations)
        ),
        "conditions": (),
        "periodic": (),
        "predicates": Predicates(True, time is not None, True, True, False),
    }
    return NormalForm(**(given | changes))


def heat(**changes: Any) -> System:
    """u_t = u_xx with the exact solution x^2 + 2 t."""
    return System(normal_form(**changes))


class Polynomial:
    """u = a x^2 + b t: one field, differentiable."""

    kind = "network"

    def __init__(self, coefficients: Tensor) -> None:
        self.coefficients = coefficients

    def derivatives(
        self, points: Tensor, wanted: Sequence[tuple[int, tuple[int, ...]]]
    ) -> list[Tensor]:
        a, b = self.coefficients.to(points)
        tt, xx = points.unbind(1)
        table: dict[tuple[int, ...], Tensor] = {
            (0, 0): a * xx**2 + b * tt,
            (1, 0): b + 0 * tt,
            (0, 1): 2 * a * xx,
            (0, 2): 2 * a + 0 * xx,
        }
        return [table.get(tuple(alpha), 0 * tt) for _, alpha in wanted]

    def to_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return {"name": "polynomial"}, {"coefficients": self.coefficients}

    @classmethod
    def from_state(
        cls, spec: dict[str, Any], tensors: dict[str, Tensor], nf: NormalForm
    ) -> Polynomial:
        return cls(tensors["coefficients"])


def coefficients(sol: pk.Solution) -> Tensor:
    """The trained numbers of a solution by `Halving`."""
    assert isinstance(sol.approximation, Polynomial)
    return sol.approximation.coefficients


@dataclass
class State:
    coefficients: Tensor
    generator: torch.Generator
    step: int = 0

    def state_dict(self) -> dict[str, Any]:
        return {"coefficients": self.coefficients, "step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.coefficients, self.step = state["coefficients"].clone(), state["step"]


@dataclass(frozen=True)
class Halving(AbstractSolver):
    """Each step halves the distance to a = 1, b = 2, but for noise drawn from the generator.

    `target` may be a wrong answer; `stop_at` and `reason` end training; `pause` slows a step; the
    answer is complete after the step `complete_after`.
    """

    target: tuple[float, float] = (1.0, 2.0)
    noise: float = 0.0
    stop_at: int | None = None
    reason: Status = Status.OK
    refuses: bool = False
    pause: float = 0.0
    complete_after: int = 0
    seen: list[Any] = field(default_factory=list, compare=False, repr=False)

    citation = "@article{zeno, title={Halving}}"

    def supports(self, problem: Any) -> str | None:
        return "Halving does not handle this; use MethodOfLines()" if self.refuses else None

    def init(self, problem: Any, env: Env) -> State:
        self.seen.append(env)
        start = torch.rand(2, generator=env.generator, dtype=env.dtype)
        return State(start, env.generator)

    def step(self, problem: Any, state: State) -> Mapping[str, float | Tensor]:
        import time

        time.sleep(self.pause)
        state.step += 1
        goal = torch.tensor(self.target, dtype=state.coefficients.dtype)
        gap = state.coefficients - goal
        noise = torch.randn(2, generator=state.generator, dtype=goal.dtype)
        state.coefficients = goal + 0.5 * gap + self.noise * noise
        return {"loss": gap.square().sum()}

    def terminate(self, problem: Any, state: State) -> Status | None:
        return self.reason if self.stop_at is not None and state.step >= self.stop_at else None

    def complete(self, problem: Any, state: State) -> bool:
        return state.step > self.complete_after

    def finish(self, problem: Any, state: State) -> Answer:
        return Answer(
            Polynomial(state.coefficients.clone()), stats={"parameters": 2, "points": 7, "tag": "x"}
        )


@dataclass
class Reference:
    """Shaped like `classical.Reference`."""

    approximation: Any
    error: float
    errors: dict[Any, float]
    finished: bool = True
    reason: str = "converged"
    seconds: float = 0.0
    levels: list[dict[str, Any]] = field(default_factory=list)
    unseen: float = 0.0


@dataclass
class Defect:
    """Shaped like `classical.Defect`."""

    errors: dict[Any, float]
    error: float
    correction: Any = None
    reason: str = ""


@dataclass
class Classical:
    """Stands in for the module `pinnkit.classical`; notes what it was asked."""

    own_error: float = 1e-9
    refusal: str | None = None
    defect: float | None = None
    breaks: bool = False
    asked: list[Any] = field(default_factory=list)

    def supports(self, nf: NormalForm) -> str | None:
        return self.refusal

    def solve_reference(
        self, nf: NormalForm, *, tol: float, time_limit: float, variant: str = "primary"
    ) -> Reference:
        self.asked.append(("reference", tol, time_limit, variant))
        if self.breaks:
            raise RuntimeError("the classical solver is out of order")
        exact = Polynomial(torch.tensor([1.0, 2.0], dtype=torch.float64))
        return Reference(exact, self.own_error, {nf.fields[0]: self.own_error})

    def solve_defect(self, nf: NormalForm, approximation: Any, *, time_limit: float) -> Defect:
        self.asked.append(("defect", time_limit))
        if self.breaks or self.defect is None:
            raise RuntimeError("no defect")
        return Defect({nf.fields[0]: self.defect}, self.defect)
