"""Hard constraints with a mixture of experts: learn a basis, solve for its coefficients.

In    a `PDEFamily` of evolution equations in one space dimension.
Out   a basis whose span holds the solutions of all members; an operator that solves for the coefficients of
      any member by least squares.
Next  `hard_constraint_state` trains it, `hard_constraint_model` answers, `family_learning` judges.

    u(t, x; a) = A(t, x; a) + sum_k sum_j w_kj B(t, x) chi_k(x) tau_j(t, x),
    w(a) = argmin |P F(u)|^2,      loss(theta) = mean over draws of min_w |P F(u)|^2.

A and B make start and walls exact (`lower.family_form`), chi_k are the experts' windows, tau_j is learned
without any solution. P is `lower.defect_norm`, so that the square root of the loss is about the relative
error itself. With several `stages` time is marched through: the sum of all that earlier stages reached stands
beside A, so that handovers are exact, and tau_j covers the length of one stage. Fronts that move and steepen
are then solved from a near start, and a least-squares iteration over all of time does not lose its way.
On a periodic axis tau_j sees the place within its window: all experts have the same functions.

At the minimum over w the loss has no slope in w: its gradient by theta is that with w held fixed, exactly.
(The layer, `nn.HardConstraint`, differentiates through w for losses of another kind.)

Departures from the published method, each by a knob that goes back: the norm (`norm="pointwise"`: the plain
residual, which trades the truth for a smaller residual), windows that overlap (`overlap=0`: boxes with jumps
between them), no ridge, exact derivatives in place of differences, one network for all inputs (a basis of
the family) in place of one evaluation of an FNO for each input.
References: chalapathi2024scaling (arXiv:2402.13412), negiar2023pdecl.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

from torch import Tensor

from pinnkit.declare.family import PDEFamily
from pinnkit.errors import Status
from pinnkit.lower.family_form import family_refusal
from pinnkit.solvers.base import AbstractSolver, Env
from pinnkit.solvers.hard_constraint_model import HardConstraintModel
from pinnkit.solvers.hard_constraint_state import LearningState

__all__ = ["HardConstraintMoE"]


@final
@dataclass(frozen=True, kw_only=True)
class HardConstraintMoE(AbstractSolver):
    """Learns a basis for a family; every member is a small least-squares problem in it.

    Args:
        functions: Learned functions per expert (N; paper: 16 and 64).
        experts: Windows along the axis of space (K; paper: 4); 1: one global constraint (PI-HC).
        overlap: Share of a window over which neighbours blend; 0: disjoint boxes, as published.
        stages: Equal parts of time, solved one after another, each from where the last one ended; `times`
            is the grid's size in each. Not where a layer leaves a corner.
        constraint: Whether coefficients are solved for; False: a branch network predicts them, trained by
            the same loss (the soft baseline; a physics-informed DeepONet).
        norm: "defect": of the error the residual makes; "pointwise": of the residual itself.
        width, depth: Of the networks.
        times, nodes: Of the grid on which the residual is least.
        grading: Of the times towards the start; None: 2.5 where layers leave the corners, else 1.5.
        draws: Members per update.
        renew: Updates until others are drawn.
        steps: Updates in all.
        rtol, max_steps: Of the least-squares iteration for one member.
        judged: Held-out draws the operator is judged by.
        quantile: The operator is ok if this quantile of their errors is below the tolerance.

    Supports families of first order in time, in one space dimension. Not: unknown parameters, conditions
    on parts of a side, integral conditions. Layers that form inside the domain need more experts.
    Several ranks (`torchrun`, docs/scaling_out.md) share the draws of every update.
    References: chalapathi2024scaling.
    """

    functions: int = 12
    experts: int = 4
    overlap: float = 1.0
    stages: int = 1
    constraint: bool = True
    norm: str = "defect"
    width: int = 24
    depth: int = 2
    times: int = 24
    nodes: int = 48
    grading: float | None = None
    draws: int = 6
    renew: int = 50
    steps: int = 100
    rtol: float = 1e-6
    max_steps: int = 30
    judged: int = 12
    quantile: float = 0.9

    shards: ClassVar[bool] = True
    citation: ClassVar[str] = (
        "@inproceedings{chalapathi2024scaling,\n"
        "  title     = {Scaling physics-informed hard constraints with mixture-of-experts},\n"
        "  author    = {Chalapathi, Nithin and Du, Yiheng and Krishnapriyan, Aditi S.},\n"
        "  booktitle = {International Conference on Learning Representations},\n"
        "  year      = {2024}\n}"
    )

    def __post_init__(self) -> None:
        names = [
            "functions",
            "experts",
            "stages",
            "width",
            "depth",
            "times",
            "nodes",
            "draws",
            "renew",
            "steps",
            "max_steps",
            "judged",
        ]
        faults = [
            f"{n}={getattr(self, n)} must be at least 1" for n in names if getattr(self, n) < 1
        ]
        if self.stages > 1 and not self.constraint:
            faults.append(
                f"stages={self.stages} needs constraint=True: a branch network knows no end"
            )
        if not 0 <= self.overlap <= 1:
            faults.append(f"overlap={self.overlap} must lie in [0, 1]")
        if self.norm not in ("defect", "pointwise"):
            faults.append(f'norm={self.norm!r} must be "defect" or "pointwise"')
        if self.grading is not None and not self.grading >= 1:
            faults.append(f"grading={self.grading} must be at least 1")
        if not 0 < self.quantile <= 1:
            faults.append(f"quantile={self.quantile} must lie in (0, 1]")
        if not 0 < self.rtol < 1:
            faults.append(f"rtol={self.rtol} must lie in (0, 1)")
        if faults:
            raise ValueError("HardConstraintMoE: " + "; ".join(faults))

    def supports(self, problem: Any) -> str | None:
        """None, or in one sentence why not and what can do it."""
        family = problem if isinstance(problem, PDEFamily) else getattr(problem, "system", None)
        if not isinstance(family, PDEFamily):
            return (
                "HardConstraintMoE learns a family; this is one problem. Use CausalPINN(), or declare a"
                " PDEFamily with the inputs that vary."
            )
        reason = family_refusal(family)
        if reason is None:
            return None
        return f"HardConstraintMoE does not take this family: {reason}. Solve members by family.on(sample)."

    def restore(
        self, family: PDEFamily, spec: dict[str, Any], tensors: dict[str, Tensor]
    ) -> HardConstraintModel:
        """The model that its `to_state` described, for files."""
        return HardConstraintModel.from_state(self, family, spec, tensors)

    # --- training -------------------------------------------------------------------------------

    def init(self, problem: PDEFamily, env: Env) -> LearningState:
        return LearningState(self, problem, env)

    def step(self, problem: PDEFamily, state: LearningState) -> Mapping[str, float | Tensor]:
        return {"defect": state.update()}

    def terminate(self, problem: PDEFamily, state: LearningState) -> Status | None:
        return Status.OK if state.step >= self.steps else None

    def finish(self, problem: PDEFamily, state: LearningState) -> Any:
        """What answers for any member, with the weights reached."""
        return state.model()
