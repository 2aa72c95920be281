"""Hard constraints with a mixture of experts: learn a basis, solve for its coefficients.

In    a `PDEFamily` of evolution equations in one space dimension, or on a periodic box of two or three.
Out   a basis whose span holds the solutions of all members; an operator that solves for the coefficients of
      any member by least squares. On a periodic box a march through time, and what corrects it.
Next  `hard_constraint_state` trains it, `hard_constraint_model` answers; `torus_state` and `torus_constraint`
      do on periodic boxes. `family_learning` judges.

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

import torch
from torch import Tensor

from pinnkit.declare.family import PDEFamily
from pinnkit.errors import Status
from pinnkit.lower.family_form import family_refusal
from pinnkit.lower.periodic_elements import periodic_refusal
from pinnkit.solution.operator import FamilyModel
from pinnkit.solvers.base import AbstractSolver, Env
from pinnkit.solvers.family_knobs import BasisKnobs, TorusKnobs, foreign_knobs
from pinnkit.solvers.family_weights import loaded
from pinnkit.solvers.front_knobs import settle_fronts
from pinnkit.solvers.hard_constraint_model import Discretisation, HardConstraintModel
from pinnkit.solvers.hard_constraint_state import LearningState
from pinnkit.solvers.torus_constraint import TorusDiscretisation, TorusModel
from pinnkit.solvers.torus_state import TorusState

__all__ = ["HardConstraintMoE"]

COUNTS = (
    "functions", "corrections", "experts", "stages", "elements", "width", "depth", "times", "nodes",
    "draws", "renew", "steps", "max_steps", "judged",
)  # fmt: skip


@final
@dataclass(frozen=True, kw_only=True)
class HardConstraintMoE(AbstractSolver):
    """Learns where a family's solutions lie; every member is a small least-squares problem there.

    In one space dimension a basis is learned, on a box that is periodic along every axis (two or three
    dimensions) a march through time whose own corrections are the basis. None: as the kind of family wants,
    in this order below. A knob that means nothing for the family at hand is refused. In one dimension, where
    something is carried along and fronts may form, `stages`, `experts`, `times`, `nodes` are found from the
    declaration if all four are None, by the misfit of a few draws (`solvers.front_knobs`); the operator's
    `solver` and `stats.more["knobs"]` show them.

    Args:
        functions: Learned functions per expert (N; paper: 16 and 64). 12; not on periodic boxes.
        corrections: Functions per expert made from the march, a Krylov space of Newton's equation. 24; only
            on periodic boxes.
        experts: Windows along each axis of space (K; paper: 4); 1: one global constraint (PI-HC). 4; 1.
        overlap: Share of a window over which neighbours blend; 0: disjoint boxes, as published.
        stages: Equal parts of time, each a constraint, solved one after another from where the last one
            ended; in one dimension not where a layer leaves a corner. 1; 8 over `elements`.
        elements: Radau elements in time of each stage, each a step of the march. 8 over `stages`; only on
            periodic boxes: `stages=1, elements=8` is one global constraint.
        constraint: Whether coefficients are solved for; False: the network alone answers, trained by the
            same loss (the soft baseline: a physics-informed DeepONet; the march).
        norm: "defect": of the error the residual makes; "pointwise": of the residual itself. "defect";
            not on periodic boxes, where it is the only one.
        width, depth: Of the networks. As many as `functions` (24 to 64), 2, for a narrower trunk has dependent
            functions; 20, 3 (an FNO of 10 modes on each axis).
        times, nodes: Of the grid on which the residual is least, in each stage, 24, 48; Radau nodes of an
            element, nodes on each axis (even), 3, 32.
        grading: Of the times towards the start; None: 2.5 where layers leave the corners, else 1.5. Not on
            periodic boxes.
        draws: Members per update, 6; members per round and states per update, 8.
        renew: Updates until others are drawn. 50; 20.
        steps: Updates in all. 100; 750.
        rtol, max_steps: Of the least-squares iteration for one member.
        judged: Held-out draws the operator is judged by.
        quantile: The operator is ok if this quantile of their errors is below the tolerance.

    Supports families of first order in time, in one space dimension, or of one evolving field on a periodic
    box. Not: unknown parameters, conditions on parts of a side, integral conditions. Fronts too thin for 145
    nodes need knobs of your own. Several ranks (`torchrun`, docs/scaling_out.md) share the draws of every
    update.
    References: chalapathi2024scaling.
    """

    functions: int | None = None
    corrections: int | None = None
    experts: int | None = None
    overlap: float = 1.0
    stages: int | None = None
    elements: int | None = None
    constraint: bool = True
    norm: str | None = None
    width: int | None = None
    depth: int | None = None
    times: int | None = None
    nodes: int | None = None
    grading: float | None = None
    draws: int | None = None
    renew: int | None = None
    steps: int | None = None
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
        faults = [
            f"{n}={value!r} must be a whole number, at least 1"
            for n in COUNTS
            if (value := getattr(self, n)) is not None
            and (isinstance(value, bool) or not isinstance(value, int) or value < 1)
        ]
        if self.stages is not None and self.stages > 1 and not self.constraint:
            faults.append(
                f"stages={self.stages} needs constraint=True: a branch network knows no end, and a march"
                " has elements="
            )
        if not 0 <= self.overlap <= 1:
            faults.append(f"overlap={self.overlap} must lie in [0, 1]")
        if self.norm not in (None, "defect", "pointwise"):
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
        box = on_box(family)
        reason = periodic_refusal(family) if box else family_refusal(family)
        if reason is not None:
            return (
                f"HardConstraintMoE does not take this family: {reason}. Solve members by"
                " family.on(sample)."
            )
        if alien := foreign_knobs(self, TorusKnobs if box else BasisKnobs):
            where = "on a periodic box" if box else "in one space dimension"
            return f"HardConstraintMoE({', '.join(alien)}) means nothing {where}. Leave it out."
        fault = TorusKnobs.of(self).fault if box else None
        return None if fault is None else f"HardConstraintMoE does not do this: {fault}."

    def restore(
        self, family: PDEFamily, spec: dict[str, Any], tensors: dict[str, Tensor]
    ) -> FamilyModel:
        """The model that its `to_state` described, for files; ValueError if the weights do not fit."""
        dtype = {"float32": torch.float32, "float64": torch.float64}[spec["dtype"]]
        gen = torch.Generator().manual_seed(0)
        if on_box(family):
            box = TorusDiscretisation(family, self, dtype=dtype)
            return TorusModel(box, loaded(box.network(gen), tensors))
        line = Discretisation(family, self, dtype=dtype)
        return HardConstraintModel(line, loaded(line.network(gen), tensors))

    # --- training -------------------------------------------------------------------------------

    def settled(self, family: PDEFamily, env: Env) -> tuple[HardConstraintMoE, str]:
        """The solver with what the declaration says about knobs left open, and why; see `front_knobs`."""
        if on_box(family):
            return self, ""
        return settle_fronts(self, family, dtype=env.dtype, device=env.device)

    def init(self, problem: PDEFamily, env: Env) -> LearningState | TorusState:
        return (TorusState if on_box(problem) else LearningState)(self, problem, env)

    def step(
        self, problem: PDEFamily, state: LearningState | TorusState
    ) -> Mapping[str, float | Tensor]:
        return {"defect": state.update()}

    def terminate(self, problem: PDEFamily, state: LearningState | TorusState) -> Status | None:
        return Status.OK if state.step >= state.solver.steps else None

    def finish(self, problem: PDEFamily, state: LearningState | TorusState) -> Any:
        """What answers for any member, with the weights reached."""
        return state.model()


def on_box(family: PDEFamily) -> bool:
    """Whether the march is the method for the family: it has two or more axes of space."""
    return len(family.normal_form.space) > 1
