"""A learned graph solver: give it a graph, get the fields, and know how wrong they are on average.

In    the trained network, what it was shown, the errors on held-out graphs.
Out   `GraphOperator` with `predict`, `GraphPrediction` with values by field and a certificate.
Next  the user; `save` and `load_operator` keep it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, final, overload

import numpy as np
import torch
from torch import Tensor, nn

from pinnkit.declare.graph import Graph
from pinnkit.implicit.record import Record
from pinnkit.ir.graph_form import GraphForm
from pinnkit.solution.graph_features import FeaturePlan, GraphBatch, make_batch
from pinnkit.solution.held_out import describe
from pinnkit.solution.learned_operator import LearnedOperator

__all__ = ["GraphOperator", "GraphPrediction", "predict_batch"]


@final
class GraphPrediction(Mapping[str, np.ndarray]):
    """The values on one graph: `prediction[p]` or `prediction["p"]`.

    `record` says how each head's fixed point was found, entries (1, M); None for networks without.
    `certified` is True where the distance of every head from its exact fixed point is bounded; that is
    the error of solving, not of learning. `probabilities` (rows, classes) where the target is a class.
    """

    def __init__(
        self,
        values: Mapping[str, np.ndarray],
        record: Record | None,
        probabilities: np.ndarray | None = None,
    ) -> None:
        self._values, self.record, self.probabilities = dict(values), record, probabilities

    @property
    def certified(self) -> bool:
        """Whether every head converged, with a proved bound."""
        if self.record is None:
            return False
        return bool(self.record.converged.all()) and bool(self.record.certified.all())

    def __getitem__(self, field: Any) -> np.ndarray:
        name = str(field)
        if name not in self._values:
            known = ", ".join(self._values)
            raise KeyError(f"{name} was not learned; this operator predicts {known}")
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        parts = ", ".join(f"{n} {v.shape}" for n, v in self._values.items())
        return f"<GraphPrediction of {parts}>"


@final
@dataclass(kw_only=True, eq=False, repr=False)
class GraphOperator(LearnedOperator):
    """Graphs in, fields out. `predict(graph)[p]` has shape (N,); fixed values are exact.

    `status`, `ok`, `evidence`, `error_estimate` judge it by a quantile of the errors on held-out graphs
    (`held_out`); `ok` is None where there is data only. `module` is the trained network.
    """

    form: GraphForm | None
    module: nn.Module
    plan: FeaturePlan
    arguments: Mapping[str, Any] | None

    @property
    def declaration(self) -> Any:
        """The `GraphSystem` or `GraphTarget`."""
        return self.problem.system

    @overload
    def predict(self, graphs: Graph) -> GraphPrediction: ...
    @overload
    def predict(self, graphs: Sequence[Graph]) -> list[GraphPrediction]: ...
    def predict(self, graphs: Graph | Sequence[Graph]) -> GraphPrediction | list[GraphPrediction]:
        """The values on a graph, or on each of several, solved side by side.

        Args:
            graphs: With the features the operator was trained on; what is to be found is not needed.
        """
        alone = isinstance(graphs, Graph)
        given: list[Graph] = [graphs] if isinstance(graphs, Graph) else list(graphs)
        for graph in given:
            self._check(graph)
        if not given:
            return []
        batch = make_batch(self.plan, self.form, given, device=self.device, dtype=self.dtype)
        y, record = predict_batch(self.module, self.plan, batch)
        found = [self._prediction(y[batch.row_graph == g], record, g) for g in range(len(given))]
        return found[0] if alone else found

    def save(self, path: str | PathLike[str]) -> None:
        """Write a `.pinn` file (JSON and tensors, nothing executable); `pk.load` reads it."""
        from pinnkit.solution import graph_operator_files

        graph_operator_files.save(self, path)

    def __str__(self) -> str:
        what = self.plan.target or ", ".join(self.plan.fields)
        return describe(self, f"features of a graph -> {what}", "graphs")

    def __repr__(self) -> str:
        what = self.plan.target or ", ".join(self.plan.fields)
        known = "" if self.error_estimate is None else f", E={self.error_estimate:.2e}"
        return f"<GraphOperator for {what}: {self.status.name}, {self.evidence.name}{known}>"

    def _check(self, graph: Graph) -> None:
        if not isinstance(graph, Graph):
            raise TypeError(f"predict takes a Graph or several, not {graph!r}")
        if self.form is not None:
            self.problem.system.on(graph)  # names, masks and reachability, in the user's words
        for kind, names in (("node", self.plan.node), ("edge", self.plan.edge)):
            for name in names:
                known = getattr(graph, kind)
                if name not in known:
                    raise ValueError(
                        f"the graph has no {kind} feature {name!r}, which the operator was trained on;"
                        f" it has {', '.join(known) or 'none'}"
                    )

    def _prediction(self, y: Tensor, record: Record | None, g: int) -> GraphPrediction:
        part = None if record is None else Record(*(entry[g : g + 1] for entry in record))
        rows = y.cpu().numpy()
        if self.plan.classes:
            assert self.plan.target is not None
            classes = rows.argmax(1)
            if self.plan.of == "graph":
                classes = classes[0]
            return GraphPrediction({self.plan.target: np.asarray(classes)}, part, rows)
        names = self.plan.fields if self.plan.target is None else (self.plan.target,)
        if len(names) == rows.shape[1]:
            values = {n: rows[:, m] for m, n in enumerate(names)}
        else:
            values = {names[0]: rows}
        if self.plan.of == "graph":
            values = {n: v[0] for n, v in values.items()}
        return GraphPrediction(values, part)


def predict_batch(
    module: nn.Module, plan: FeaturePlan, batch: GraphBatch
) -> tuple[Tensor, Record | None]:
    """(values in the user's units, or probabilities, (rows, outputs); the record), in double precision."""
    training = module.training
    module.eval()
    with torch.no_grad():
        y, record = module(batch.arcs, batch.nodes, batch.edges, batch.held)
        y = y.double()
        if plan.classes:
            y = torch.softmax(y, 1)
        else:
            if plan.mapped:
                y = y * batch.scale.double() + batch.offset.double()
            if plan.target is None:
                y = torch.where(batch.fixed, batch.values, y)
    module.train(training)
    return y, _padded_record(record, batch)


def _padded_record(record: Record | None, batch: GraphBatch) -> Record | None:
    """One row per graph, also where a network treated the batch as one sample."""
    if record is None:
        return None
    count = batch.arcs.n_graphs
    rows = [entry.reshape(len(entry), -1) for entry in record]
    return Record(*(r if len(r) == count else r.expand(count, -1) for r in rows))
