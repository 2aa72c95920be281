"""Training of `HardConstraintMoE`: draws, the layer inside the loss, the optimiser.

In    the discretisation, weights, draws of the inputs.
Out   `LearningState`, stepped by the one loop of `pinnkit.train`.
Next  `family_learning` runs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pinnkit.declare.family import PDEFamily
from pinnkit.nn import DeepONet, HardConstraint
from pinnkit.solvers.base import Env
from pinnkit.solvers.hard_constraint_model import Discretisation, HardConstraintModel, Members
from pinnkit.train.parameters import flat_gradient, flat_parameters, load_parameters
from pinnkit.train.self_scaled_broyden import SelfScaledBroyden

if TYPE_CHECKING:
    from pinnkit.solvers.hard_constraint_moe import HardConstraintMoE

__all__ = ["FamilyLoss", "LearningState"]

INNER = 8  # iterations of the layer within a step of training; it starts from where it was


class FamilyLoss:
    """mean over members of |P F(u)|^2 at the best coefficients, as a function of all weights.

    Args:
        parts: The discretisation.
        network: Whose weights are trained.
        members: Drawn.
        at: Leaves the norm is linearised at, (B, n, L); None: at what the layer finds in the norm at A.
    """

    def __init__(
        self,
        parts: Discretisation,
        network: DeepONet,
        members: Members,
        at: Tensor | None = None,
    ) -> None:
        self.parts, self.network, self.members = parts, network, members
        self.basis = parts.basis(network)
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        count = parts.solver.functions * parts.solver.experts
        self.w = members.offset.new_zeros(len(members.offset), count)
        with torch.no_grad():
            self._fixed = self.basis.fixed(parts.points, parts.spec)
            if at is None:
                self.layer = parts.layer(parts.norm(members, members.offset), max_steps=INNER)
                basis = self._leaves()
                at = members.offset + torch.einsum("nlj,bj->bnl", basis, self._best(basis))
            self.at = at
            self.layer: HardConstraint = parts.layer(parts.norm(members, at), max_steps=INNER)

    @property
    def shapes(self) -> Sequence[tuple[int, ...]]:
        """Of the weights, one after the other."""
        return [tuple(p.shape) for p in self.parameters]

    def theta(self) -> Tensor:
        """All weights as one vector."""
        return flat_parameters(self.parameters)

    def put(self, theta: Tensor) -> None:
        """Give the network these weights."""
        load_parameters(self.parameters, theta)

    def residual(self, theta: Tensor) -> Tensor:
        """All rows at the best coefficients, without a graph."""
        self.put(theta)
        with torch.no_grad():
            leaves = self._leaves()
            return self.layer.rows(self._best(leaves), leaves, *self._known()).flatten()

    def rows(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Not offered: the coefficients move with the weights."""
        raise NotImplementedError("a family is learned by SelfScaledBroyden, from gradients")

    def gradient(self, theta: Tensor) -> tuple[float, Tensor]:
        """The loss and its gradient; w is held fixed, for it is a minimiser of the same loss."""
        self.put(theta)
        leaves = self._leaves()
        w = self._best(leaves)
        rows = self.layer.rows(w, leaves, *self._known())
        loss = rows.square().sum() / len(rows)
        return float(loss.detach()), flat_gradient(loss, self.parameters)

    def _best(self, leaves: Tensor) -> Tensor:
        if not self.parts.solver.constraint:
            return self.network.coefficients(self.parts.sensing(self.members.samples))
        with torch.no_grad():
            self.w = self.layer(leaves.detach(), *self._known(), start=self.w).coefficients
        return self.w

    def _known(self) -> tuple[Tensor, Tensor]:
        return self.members.offset, self.members.inputs

    def _leaves(self) -> Tensor:
        return self.basis.leaves(self._fixed, self.parts.spec, self.parts.wanted)


class LearningState:
    """Weights, the optimiser's memory, and which draws training sees."""

    def __init__(self, solver: HardConstraintMoE, family: PDEFamily, env: Env) -> None:
        self.solver, self.family, self.env, self.step = solver, family, env, 0
        self.parts = Discretisation(family, solver, dtype=env.dtype, device=env.device)
        # Drawn on the CPU whatever the device, so that a seed means the same everywhere.
        self.network = self.parts.network(env.generator).to(env.device)
        self.optimiser = SelfScaledBroyden()
        if env.warm_start is not None:
            self._start_from(env.warm_start)
        self._loss = self._renewed()
        self.memory = self.optimiser.init(self._loss.theta())

    @property
    def parameters(self) -> int:
        """Number of trained weights."""
        return sum(p.numel() for p in self.network.parameters())

    def update(self) -> float:
        """One step of the optimiser; the root of the loss, which is about the relative error."""
        if self.step and self.step % self.solver.renew == 0:
            # H is built from differences of one loss: with other draws it starts again.
            self._loss = self._renewed()
            self.memory = self.optimiser.init(self.memory["theta"])
        report = self.optimiser.step(self._loss, self.memory)
        self._loss.put(self.memory["theta"])
        self.step += 1
        return report.loss**0.5

    def model(self) -> HardConstraintModel:
        """What answers for any member."""
        return HardConstraintModel(self.parts, self.network)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on."""
        return {
            "step": self.step,
            "memory": dict(self.memory),
            "network": dict(self.network.state_dict()),
            "w": self._loss.w,
            "at": self._loss.at,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.step = int(state["step"])
        device = self.env.device
        self.memory = {
            k: v.to(device) if isinstance(v, Tensor) else v for k, v in state["memory"].items()
        }
        self.network.load_state_dict(state["network"])
        # The draws of the round under way: those of the last finished step.
        self._loss = self._renewed(max(self.step - 1, 0), at=state["at"].to(device))
        self._loss.w = state["w"].to(device)

    def _renewed(self, step: int | None = None, at: Tensor | None = None) -> FamilyLoss:
        """The loss of the draws that belong to a step."""
        solver = self.solver
        number = (self.step if step is None else step) // solver.renew
        samples = self.family.sample(solver.draws, self.env.seed, start=number * solver.draws)
        members = self.parts.members([self.family.read_sample(s) for s in samples])
        return FamilyLoss(self.parts, self.network, members, at)

    def _start_from(self, other: Any) -> None:
        network = getattr(getattr(other, "model", None), "network", None)
        if network is None:
            raise TypeError(f"warm_start={other!r} is no operator learned by HardConstraintMoE")
        try:
            self.network.load_state_dict(network.state_dict())
        except RuntimeError as fault:
            raise ValueError(
                "warm_start has a network of another size; give the same knobs"
            ) from fault
