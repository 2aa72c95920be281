"""Training of `HardConstraintMoE`: draws, the layer inside the loss, the optimiser.

In    the discretisation, weights, draws of the inputs.
Out   `LearningState`, stepped by the one loop of `pinnkit.train`.
Next  `family_learning` runs it.

On several ranks each holds its share of the draws. Coefficients of nearly dependent functions magnify rounding,
so that two sums of the same numbers in different orders end in runs that part. Therefore nothing is summed over
ranks: what each draw says (its loss, its coefficients, the slope towards its field) is gathered, and every rank
does the same sums. What belongs to a draw between updates (coefficients, the state its norm is linearised at) is
gathered, too, so that a checkpoint is whole and does not depend on how many ranks there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pinnkit.declare.family import PDEFamily
from pinnkit.nn import DeepONet, HardConstraint
from pinnkit.nn.hard_constraint import combined_leaves
from pinnkit.solvers.base import Env
from pinnkit.solvers.family_weights import OTHER_KNOBS, start_from
from pinnkit.solvers.hard_constraint_model import Discretisation, HardConstraintModel, Members
from pinnkit.train.parameters import flat_gradient, flat_parameters, load_parameters
from pinnkit.train.ranks import ONE, Ranks
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
        members: Drawn; this rank's.
        at: Leaves (B, S, 2, n, L), stage by stage, of what a member starts from (A and what was reached
            before) and of what its norm is linearised at; None: as the layer finds them with these weights.
        ranks: The processes that share the members.
        own: How many of the members count; None: all. A rank without a draw takes one along that does not.
        draws: Members of all ranks together; None: as many as `own`.
    """

    def __init__(
        self,
        parts: Discretisation,
        network: DeepONet,
        members: Members,
        at: Tensor | None = None,
        *,
        ranks: Ranks = ONE,
        own: int | None = None,
        draws: int | None = None,
    ) -> None:
        self.parts, self.network, self.members, self.ranks = parts, network, members, ranks
        self.own = len(members.samples) if own is None else own
        self.draws = self.own if draws is None else draws
        self.basis = parts.basis(network)
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        solver = parts.solver
        self.w = members.offset.new_zeros(
            len(members.samples), solver.stages, solver.functions * solver.experts
        )
        with torch.no_grad():
            self._fixed = self.basis.fixed(parts.points, parts.spec)
            self.at = self._found() if at is None else at
            self._known = (self.at[:, :, 0].flatten(0, 1), members.inputs)
            norm = parts.norm(members, self.at[:, :, 1].flatten(0, 1))
            self.layer: HardConstraint = parts.layer(norm, max_steps=INNER)

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
        """This rank's rows at the best coefficients, without a graph."""
        self.put(theta)
        with torch.no_grad():
            leaves = self._leaves()
            rows = self.layer.rows(self._best(leaves), leaves, *self._known)
        return rows[: self.own * self.parts.solver.stages].flatten()

    def rows(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Not offered: the coefficients move with the weights."""
        raise NotImplementedError("a family is learned by SelfScaledBroyden, from gradients")

    def gradient(self, theta: Tensor) -> tuple[float, Tensor]:
        """The loss of all ranks and its gradient; w is held fixed, for it is a minimiser of the same loss."""
        self.put(theta)
        leaves = self._leaves()
        stages = self.parts.solver.stages
        if not self.parts.solver.constraint:
            rows = self.layer.rows(self._best(leaves), leaves, *self._known)[: self.own * stages]
            loss = rows.square().sum() / (self.draws * stages)
            part = torch.cat([flat_gradient(loss, self.parameters), loss.detach()[None]])
            whole = self.ranks.sum(part)
            return float(whole[-1]), whole[:-1]
        # u = A + sum_j w_j B_j with w held: the slope towards B_j is that towards u, times w_j.
        # One alone is taken twice: a batch of one is multiplied by other means, with other bits.
        some = (self._best(leaves), *self._known)
        w, begun, inputs = (v.expand(max(2, len(v)), *v.shape[1:]) for v in some)
        begun = begun.clone().requires_grad_()
        losses = self.layer.rows(w, leaves.detach(), begun, inputs).square().sum(1)
        (slopes,) = torch.autograd.grad(losses.sum(), begun)
        parts = (losses.detach(), slopes.flatten(1), w)
        losses, slopes, w = (self.ranks.gather(v[: self.own * stages]) for v in parts)
        towards = (slopes.T @ w).view_as(leaves) / (self.draws * stages)
        loss = float(losses.sum()) / (self.draws * stages)
        return loss, flat_gradient((leaves * towards).sum(), self.parameters)

    def _best(self, leaves: Tensor) -> Tensor:
        if not self.parts.solver.constraint:
            return self.network.coefficients(self.parts.sensing(self.members.samples))
        with torch.no_grad():
            start = self.w.flatten(0, 1)
            w = self.layer(leaves.detach(), *self._known, start=start).coefficients
        self.w = w.reshape(self.w.shape)
        return w

    def _found(self) -> Tensor:
        """`at`, by the weights of now."""
        parts, members = self.parts, self.members
        now, ends = parts.leaves(self.basis)
        if parts.solver.constraint:
            begun, found = parts.marched((now, ends), members, max_steps=INNER)
            self.w = torch.stack([f.coefficients for f in found], 1)
            w = self.w
        else:
            begun = members.offset[:, None]
            w = self.network.coefficients(parts.sensing(members.samples))[:, None]
        reached = combined_leaves(now, w.flatten(0, 1)).view_as(begun)
        return torch.stack([begun, begun + reached], 2)

    def _leaves(self) -> Tensor:
        return self.basis.leaves(self._fixed, self.parts.spec, self.parts.wanted)


class LearningState:
    """Weights, the optimiser's memory, and which draws training sees."""

    def __init__(self, solver: HardConstraintMoE, family: PDEFamily, env: Env) -> None:
        self.family, self.env, self.step = family, env, 0
        self.parts = Discretisation(family, solver, dtype=env.dtype, device=env.device)
        self.solver = self.parts.solver
        # Drawn on the CPU whatever the device, so that a seed means the same everywhere.
        self.network = self.parts.network(env.generator).to(env.device)
        self.optimiser = SelfScaledBroyden()
        if env.warm_start is not None:
            start_from(self.network, env.warm_start)
        self.loss = self._renewed()
        self._w = self._gathered(self.loss.w)
        self.memory = self.optimiser.init(self.loss.theta())

    @property
    def parameters(self) -> int:
        """Number of trained weights."""
        return sum(p.numel() for p in self.network.parameters())

    def update(self) -> float:
        """One step of the optimiser; the root of the loss, which is about the relative error."""
        if self.step and self.step % self.solver.renew == 0:
            # H is built from differences of one loss: with other draws it starts again.
            self.loss = self._renewed()
            self.memory = self.optimiser.init(self.memory["theta"])
        report = self.optimiser.step(self.loss, self.memory)
        self.loss.put(self.memory["theta"])
        self.step += 1
        self._w = self._gathered(self.loss.w)
        self.env.ranks.check_equal(self.memory["theta"], f"after step {self.step} the parameters")
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
            "w": self._w,
            "at": self._at,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave; ValueError where other knobs made it."""
        same_weights = state["memory"]["theta"].numel() == self.parameters
        if not same_weights or any(
            state[k].shape != v.shape for k, v in (("w", self._w), ("at", self._at))
        ):
            raise ValueError(OTHER_KNOBS)
        self.step = int(state["step"])
        device = self.env.device
        self.memory = {
            k: v.to(device) if isinstance(v, Tensor) else v for k, v in state["memory"].items()
        }
        self.network.load_state_dict(state["network"])
        # The draws of the round under way: those of the last finished step.
        self._w, at = state["w"].to(device), state["at"].to(device)
        self.loss = self._renewed(max(self.step - 1, 0), at=at)
        self.loss.w = self._w[self._held()]

    def _held(self) -> slice:
        """The draws of a round that this rank holds: its share, or the first where its share is empty."""
        share = self.env.ranks.share(self.solver.draws)
        return share if share.stop > share.start else slice(0, 1)

    def _gathered(self, own: Tensor) -> Tensor:
        """What belongs to the draws of all ranks, draw by draw."""
        return self.env.ranks.gather(own[: self.loss.own])

    def _renewed(self, step: int | None = None, at: Tensor | None = None) -> FamilyLoss:
        """The loss of the draws that belong to a step; `at` of all draws, where it is known."""
        solver, ranks, held = self.solver, self.env.ranks, self._held()
        first = (self.step if step is None else step) // solver.renew * solver.draws
        samples = self.family.sample(
            held.stop - held.start, self.env.seed, start=first + held.start
        )
        members = self.parts.members([self.family.read_sample(s) for s in samples])
        share = ranks.share(solver.draws)
        loss = FamilyLoss(
            self.parts, self.network, members, None if at is None else at[held],
            ranks=ranks, own=share.stop - share.start, draws=solver.draws,
        )  # fmt: skip
        self._at = ranks.gather(loss.at[: loss.own]) if at is None else at
        return loss
