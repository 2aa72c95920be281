"""Training on graphs: batches, their loss, the state that an optimiser advances.

In    a `ConvergentGraphSolver`, a declaration and data: a list of graphs, or a function that draws them.
Out   `LearningState`, stepped by the one loop of `pinnkit.train`.
Next  `graph_learning` runs it and judges what came out.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pinnkit.declare.graph import Graph
from pinnkit.declare.graph_target import GraphTarget
from pinnkit.declare.printing import refusal
from pinnkit.ir.graph_form import GraphForm
from pinnkit.solution.graph_features import (
    GraphBatch,
    make_batch,
    make_plan,
    with_targets,
)
from pinnkit.solvers.base import Env
from pinnkit.solvers.sparse_fixed_point import solve_fields
from pinnkit.train.parameters import flat_gradient, flat_parameters, load_parameters

if TYPE_CHECKING:
    from pinnkit.solvers.convergent_graph_solver import ConvergentGraphSolver

__all__ = ["GraphLoss", "GraphTask", "LearningState"]

Draw = Callable[[int], Sequence[Graph]]  # seed -> graphs
DRAWN_HELD_OUT = 64  # graphs at least that are drawn for judging
FEWEST = 5  # graphs of a list from which some are held out
FITTED = 512  # graphs the scales of features are taken from, at most


@dataclass(frozen=True)
class GraphTask:
    """What is to be learned.

    Args:
        system: A `GraphSystem`, or a `GraphTarget`.
        data: Graphs, or a function seed -> graphs.
        target, of, classes: A given target; target=None: the fields of the system.
    """

    system: Any
    data: Sequence[Graph] | Draw
    target: str | None = None
    of: str | None = None
    classes: int = 0

    @classmethod
    def make(cls, system: Any, solver: ConvergentGraphSolver, data: Any) -> GraphTask:
        """With the target that the declaration or the solver names."""
        if not isinstance(system, GraphTarget):
            return cls(system, data, solver.target, None, solver.classes)
        if solver.target not in (None, system.name):
            raise ValueError(
                f"ConvergentGraphSolver(target={solver.target!r}), but the problem is {system!r}"
            )
        return cls(system, data, system.name, system.of, system.classes or solver.classes)

    @property
    def form(self) -> GraphForm | None:
        """The checked record of the equations, if there are any."""
        return None if isinstance(self.system, GraphTarget) else self.system.normal_form

    def answered(self, graphs: Sequence[Graph]) -> list[Graph]:
        """Checked, and with the exact fields where they are the target."""
        if self.target is None:
            return [with_targets(g, solve_fields(self.system.on(g))) for g in graphs]
        for g in graphs if self.form is not None else ():
            self.system.on(g)
        return list(graphs)


class GraphLoss:
    """The loss of one batch as a function of all weights: what an optimiser sees.

    Args:
        module: The network.
        batch: Graphs with targets.
        classes: Their number, if the target is a class.
        mapped: Whether the targets are fields, which may be fixed at some nodes.
    """

    def __init__(
        self, module: nn.Module, batch: GraphBatch, *, classes: int = 0, mapped: bool = True
    ) -> None:
        self.module, self.batch = module, batch
        self.classes, self.mapped = classes, mapped
        self.parameters = [p for p in module.parameters() if p.requires_grad]

    @property
    def shapes(self) -> Sequence[tuple[int, ...]]:
        """Of the parameters, one after the other."""
        return [tuple(p.shape) for p in self.parameters]

    def theta(self) -> Tensor:
        """All weights as one vector."""
        return flat_parameters(self.parameters)

    def put(self, theta: Tensor) -> None:
        """Give the module these weights."""
        load_parameters(self.parameters, theta)

    def residual(self, theta: Tensor) -> Tensor:
        """Scaled differences at what is not fixed, without a graph."""
        self.put(theta)
        with torch.no_grad():
            return self._differences().flatten()

    def rows(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Not for networks of this size."""
        raise NotImplementedError("graph networks are trained by first-order methods: Adam, SOAP")

    def gradient(self, theta: Tensor) -> tuple[float, Tensor]:
        """The mean loss and its gradient."""
        self.put(theta)
        if self.classes:
            logits = self.module(self.batch.arcs, self.batch.nodes, self.batch.edges)[0]
            assert self.batch.targets is not None
            loss = nn.functional.cross_entropy(logits, self.batch.targets)
        else:
            loss = self._differences().square().mean()
        return float(loss.detach()), flat_gradient(loss, self.parameters)

    def _differences(self) -> Tensor:
        batch = self.batch
        assert batch.targets is not None
        y, _ = self.module(batch.arcs, batch.nodes, batch.edges, batch.held)
        scale = getattr(self.module, "target_scale", None)
        off = y - batch.targets
        if scale is not None:
            off = off / scale.spread
        # Fixed values are imposed, not learned.
        return off[~batch.fixed] if self.mapped else off


class LearningState:
    """Weights, moments, and where in the data training stands."""

    def __init__(self, solver: ConvergentGraphSolver, task: GraphTask, env: Env) -> None:
        self.solver, self.task, self.env, self.step = solver, task, env, 0
        self.draws = callable(task.data)
        self.training, self.judged = self._split()
        form = task.form
        self.plan = make_plan(
            form,
            self.training,
            features=solver.features,
            target=task.target,
            of=task.of,
            classes=task.classes,
        )
        anchored = form is not None and bool(form.fixed)
        directed = any(g.directed for g in self.training)
        self.arguments = solver.arguments(self.plan, directed=directed, anchored=anchored)
        # Drawn on the CPU whatever the device, so that a seed means the same everywhere.
        module = solver.build(self.plan, self.arguments, generator=env.generator, dtype=env.dtype)
        self.module = module.to(env.device)
        self._order: list[int] = []
        self._kept: tuple[int, GraphBatch] | None = None
        self._fit()
        self.memory = solver.optimiser.init(self._loss().theta())
        if env.warm_start is not None:
            self._start_from(env.warm_start)

    def update(self) -> float:
        """One step of the optimiser; the learning rate follows a cosine over all steps."""
        solver = self.solver
        share = (1 + math.cos(math.pi * min(self.step / solver.steps, 1.0))) / 2
        optimiser: Any = solver.optimiser
        optimiser = dataclasses.replace(optimiser, lr=optimiser.lr * max(share, 1e-3))
        self.module.train()
        model = self._loss()
        report = optimiser.step(model, self.memory)
        model.put(self.memory["theta"])
        self.step += 1
        return report.loss

    def batch_of(self, graphs: Sequence[Graph]) -> GraphBatch:
        """These graphs as the network sees them."""
        env = self.env
        return make_batch(self.plan, self.task.form, graphs, device=env.device, dtype=env.dtype)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on."""
        return {
            "step": self.step,
            "memory": dict(self.memory),
            "module": dict(self.module.state_dict()),
            "order": list(self._order),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.step = int(state["step"])
        device = self.env.device
        self.memory = {
            k: v.to(device) if isinstance(v, Tensor) else v for k, v in state["memory"].items()
        }
        self.module.load_state_dict(state["module"])
        self._order = [int(i) for i in state["order"]]
        self._kept = None

    def _loss(self) -> GraphLoss:
        number = self.step // self._reuse
        if self._kept is None or self._kept[0] != number:
            self._kept = number, self.batch_of(self._graphs(number))
        plan = self.plan
        return GraphLoss(self.module, self._kept[1], classes=plan.classes, mapped=plan.mapped)

    @property
    def _reuse(self) -> int:
        return self.solver.reuse or (32 if self.draws else 1)

    def _graphs(self, number: int) -> Sequence[Graph]:
        """The graphs of batch `number`; which they are depends on the seed and the number only."""
        if self.draws:
            drawn = self.training if number == 0 else self._drawn(number)
            return self._checked(drawn) if number else drawn
        count = len(self.training)
        if count <= self.solver.batch:
            return self.training
        rounds, place = divmod(number * self.solver.batch, count)
        gen = torch.Generator().manual_seed(self._seed(rounds))
        order = torch.randperm(count, generator=gen).tolist()
        chosen = order[place : place + self.solver.batch]
        return [self.training[i] for i in chosen]

    def _seed(self, number: int) -> int:
        return (self.env.seed * 1_000_003 + number) % 2**31

    def _drawn(self, number: int) -> list[Graph]:
        return _read(self.task.data(self._seed(number)))  # type: ignore[operator]

    def _checked(self, graphs: Sequence[Graph]) -> list[Graph]:
        return self.task.answered(graphs)

    def _split(self) -> tuple[list[Graph], list[Graph]]:
        """(for training, for judging), both with their targets."""
        if self.draws:
            wanted = int(self.solver.held_out) if self.solver.held_out >= 1 else DRAWN_HELD_OUT
            judged: list[Graph] = []
            number = 2**30
            while len(judged) < wanted:
                new = self._drawn(number)
                if not new:
                    break
                judged, number = [*judged, *new], number + 1
            return self._checked(self._drawn(0)), self._checked(judged[:wanted])
        graphs = _read(self.task.data)
        count = int(self.solver.held_out)
        if self.solver.held_out < 1:
            count = round(self.solver.held_out * len(graphs)) if len(graphs) >= FEWEST else 0
        if count >= len(graphs):
            raise ValueError(
                f"ConvergentGraphSolver(held_out={self.solver.held_out}) leaves none of the"
                f" {len(graphs)} graphs for training"
            )
        order = torch.randperm(len(graphs), generator=self.env.generator).tolist()
        kept = [graphs[i] for i in sorted(order[count:])]
        return self._checked(kept), self._checked([graphs[i] for i in sorted(order[:count])])

    def _fit(self) -> None:
        """Scales of features and targets from the training set."""
        batch = self.batch_of(self.training[:FITTED])
        for name, values in (("node_scale", batch.nodes), ("edge_scale", batch.edges)):
            if (scale := getattr(self.module, name, None)) is not None:
                scale.fit(values)
        if (
            self.plan.of == "graph"
            and (readout := getattr(self.module, "readout", None)) is not None
        ):
            readout.fit(batch.arcs)
        scale = getattr(self.module, "target_scale", None)
        if scale is not None and not self.plan.classes and batch.targets is not None:
            scale.fit(batch.targets)

    def _start_from(self, other: Any) -> None:
        module = getattr(other, "module", None)
        if module is None:
            raise TypeError(f"warm_start={other!r} is no learned graph operator")
        try:
            self.module.load_state_dict(module.state_dict())
        except RuntimeError as fault:
            raise ValueError(
                "warm_start has a network of another size; give the same knobs and features"
            ) from fault
        self.memory = self.solver.optimiser.init(self._loss().theta())


def _read(data: Any) -> list[Graph]:
    graphs = [data] if isinstance(data, Graph) else list(data)
    for graph in graphs:
        if not isinstance(graph, Graph):
            raise refusal(
                f"data=[..., {graph!r}, ...]", "that is not a Graph", "give a list of pk.Graph"
            )
    if not graphs:
        raise refusal("data=[]", "there is no graph to learn from", "give at least one")
    return graphs
