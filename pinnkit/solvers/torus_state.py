"""Training of `HardConstraintMoE` on periodic boxes: states of the network's own marches, Adam on their defects.

In    the discretisation, weights, draws of the inputs.
Out   `TorusState`, stepped by the one loop of `pinnkit.train`.
Next  `family_learning` runs it.

Every `renew` steps members are drawn and marched by the network as it is, further as training goes on; nothing
else says where later states lie. Every step takes some of these states and lowers the mean square defect of
the network's elements from there, without any solution and without the constraint.

On several ranks each takes its share of a step's states, and loss and gradient are summed in one vector: the
ranks have the same bits, another number of ranks other ones in the last place. (A gradient for each state, in
a fixed order, would take three times as long: half a million weights.) The marches, a small part of the work,
are made by every rank.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pinnkit.declare.family import PDEFamily
from pinnkit.nn import FNO
from pinnkit.solvers.base import Env
from pinnkit.solvers.family_weights import OTHER_KNOBS, start_from
from pinnkit.solvers.torus_constraint import TorusDiscretisation, TorusModel
from pinnkit.train.adam import Adam
from pinnkit.train.parameters import flat_gradient, flat_parameters, load_parameters
from pinnkit.train.ranks import ONE, Ranks

if TYPE_CHECKING:
    from pinnkit.solvers.hard_constraint_moe import HardConstraintMoE

__all__ = ["MarchLoss", "TorusState"]

RATE, WARM = 3e-3, 20  # of Adam, after so many steps; it falls to 0 as a cosine
CLIP = 1.0  # the longest gradient, so that one strange state does not lead the way
FURTHER = 2  # the marches reach the end after a half of training


class MarchLoss:
    """mean over states of the mean square defect of the network's element from there.

    Args:
        parts: The discretisation.
        network: Whose weights are trained.
        states: (B, *grid), the same on all ranks.
        known: What the equation reads there, (B, n, G).
        ranks: The processes that share the states.
    """

    def __init__(
        self,
        parts: TorusDiscretisation,
        network: FNO,
        states: Tensor,
        known: Tensor,
        *,
        ranks: Ranks = ONE,
    ) -> None:
        self.parts, self.network, self.ranks = parts, network, ranks
        self.count, share = len(states), ranks.share(len(states))
        self.own = (states[share], known[share])
        self.parameters = list(network.parameters())

    @property
    def shapes(self) -> Sequence[tuple[int, ...]]:
        """Of the weights, one after the other."""
        return [tuple(p.shape) for p in self.parameters]

    def residual(self, theta: Tensor) -> Tensor:
        """The defects of this rank's states."""
        load_parameters(self.parameters, theta)
        with torch.no_grad():
            return (self.parts.defect(self.network, *self.own) / self.count).sqrt()

    def rows(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Not offered: half a million weights."""
        raise NotImplementedError("a march is learned by Adam, from gradients")

    def gradient(self, theta: Tensor) -> tuple[float, Tensor]:
        """The loss of all ranks and its gradient, cut to a length of 1."""
        load_parameters(self.parameters, theta)
        part = theta.new_zeros(len(theta) + 1)
        if len(self.own[0]):
            loss = self.parts.defect(self.network, *self.own).sum() / self.count
            slope = flat_gradient(loss, self.parameters)
            part = torch.cat([slope, loss.detach()[None]])
        whole = self.ranks.sum(part)
        slope = whole[:-1]
        return float(whole[-1]), slope / (slope.norm() / CLIP).clamp(min=1.0)


class TorusState:
    """Weights, the optimiser's memory, and the states training sees."""

    def __init__(self, solver: HardConstraintMoE, family: PDEFamily, env: Env) -> None:
        self.family, self.env, self.step = family, env, 0
        self.parts = TorusDiscretisation(family, solver, dtype=env.dtype, device=env.device)
        self.solver = self.parts.solver
        # Drawn on the CPU whatever the device, so that a seed means the same everywhere.
        self.network = self.parts.network(env.generator).to(env.device)
        if env.warm_start is not None:
            start_from(self.network, env.warm_start)
        self.memory = Adam().init(flat_parameters(list(self.network.parameters())))
        self.pool = self.parts.points.new_zeros(0)  # (elements, draws, *grid)
        self._known: list[Tensor] = []  # by element, (draws, n, G)

    @property
    def parameters(self) -> int:
        """Number of trained weights."""
        return sum(p.numel() for p in self.network.parameters())

    def update(self) -> float:
        """One step of the optimiser; the root of the loss, which is about the error of an element."""
        if self.step % self.solver.renew == 0:
            self._known = self._read()
            self.pool = self._marched()
        optimiser = Adam(lr=self._rate(), decay=1.0)
        report = optimiser.step(self._loss(), self.memory)
        load_parameters(list(self.network.parameters()), self.memory["theta"])
        self.step += 1
        self.env.ranks.check_equal(self.memory["theta"], f"after step {self.step} the parameters")
        return report.loss**0.5

    def model(self) -> TorusModel:
        """What answers for any member."""
        return TorusModel(self.parts, self.network)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on."""
        return {"step": self.step, "memory": dict(self.memory), "pool": self.pool}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave; ValueError where other knobs made it."""
        pool, grid = state["pool"], (self.parts.solver.nodes,) * len(self.family.normal_form.space)
        fits = state["memory"]["theta"].numel() == self.parameters
        if len(pool):
            fits &= len(pool) <= self.parts.count and pool.shape[1:] == (self.solver.draws, *grid)
        if not fits:
            raise ValueError(OTHER_KNOBS)
        self.step, device = int(state["step"]), self.env.device
        self.memory = {
            k: v.to(device) if isinstance(v, Tensor) else v for k, v in state["memory"].items()
        }
        load_parameters(list(self.network.parameters()), self.memory["theta"])
        self.pool = state["pool"].to(device)
        if len(self.pool):
            self._known = self._read(max(self.step - 1, 0))

    def _rate(self) -> float:
        """Of this step."""
        share = self.step / self.solver.steps
        warm = min(1.0, (self.step + 1) / WARM)
        return RATE * warm * 0.5 * (1 + math.cos(math.pi * share))

    def _loss(self) -> MarchLoss:
        """Of some states of the pool, chosen by the seed and the step alone."""
        gen = torch.Generator().manual_seed((self.env.seed * 1_000_003 + self.step) % 2**63)
        elements, draws = self.pool.shape[:2]
        chosen = torch.randint(elements * draws, (self.solver.draws,), generator=gen).tolist()
        states = torch.stack([self.pool[i // draws, i % draws] for i in chosen])
        known = torch.stack([self._known[i // draws][i % draws] for i in chosen])
        return MarchLoss(self.parts, self.network, states, known, ranks=self.env.ranks)

    def _samples(self, step: int | None = None) -> list[dict[Any, Any]]:
        """The draws of the round that a step belongs to."""
        solver = self.solver
        first = (self.step if step is None else step) // solver.renew * solver.draws
        drawn = self.family.sample(solver.draws, self.env.seed, start=first)
        return [self.family.read_sample(s) for s in drawn]

    def _read(self, step: int | None = None) -> list[Tensor]:
        """What the equation reads along the marches of a round."""
        each = self.parts.inputs(self.parts.element, self._samples(step))
        return [each(number) for number in range(self.parts.count)]

    def _marched(self) -> Tensor:
        """States at the elements' starts, along the network's march from new draws."""
        parts = self.parts
        share = self.step / self.solver.steps
        ahead = min(parts.count - 1, int(1 + FURTHER * parts.count * share))
        states = [parts.element.starts(self._samples())]
        with torch.no_grad():
            for number in range(ahead):
                reached = parts.guess(self.network, states[-1], self._known[number])[:, -1]
                if not bool(reached.isfinite().all()):  # early marches may explode
                    break
                states.append(reached)
        return torch.stack(states)
