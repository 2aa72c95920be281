"""Convergent graph solver: learn the map from a graph's features to the solution on it.

In    a `GraphSystem` (or a given target) and a `GraphBatch` of training graphs.
Out   the loss and its gradient by all weights; the network it builds.
Next  `graph_learning` draws batches, steps the optimiser, and judges the operator on held-out graphs.

The network is `graphs.network.ConvergentGraphNetwork`; what it is built of follows from the declaration
and the data unless the solver says otherwise. Fixed values are not learned but imposed.
References: park2022cgs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from pinnkit.declare.graph_target import GraphTarget
from pinnkit.errors import Status
from pinnkit.graphs.network import ConvergentGraphNetwork
from pinnkit.implicit.iteration import AbstractMethod
from pinnkit.ir.graph_form import GraphForm
from pinnkit.solution.graph_features import FeaturePlan
from pinnkit.solvers.base import AbstractSolver, Env
from pinnkit.solvers.graph_training import GraphTask, LearningState
from pinnkit.train.adam import Adam
from pinnkit.train.residual_model import AbstractOptimiser

__all__ = ["ConvergentGraphSolver"]

NEAR_ONE = 0.999  # information reaches across the graph: 1 / (1 - gamma) = 1000 hops
DISCOUNT = 0.9  # where nothing is fixed, heads forget over about ten hops and learn how fast


@final
@dataclass(frozen=True, kw_only=True)
class ConvergentGraphSolver(AbstractSolver):
    """Learns features -> solution as the decoded fixed point of contracting linear maps.

    An encoder passes messages over `layers` hops and gives, for each of `heads` heads, a bias b at every
    node and a weight on every arc; A has non-negative rows that add up to at most 1; h = gamma A h + b is
    solved to rounding, whatever gamma < 1, and differentiated exactly; a decoder reads the heads. So
    long range costs iterations, not layers, every answer is unique, and its error as a fixed point is
    certified.

    Args:
        heads: Fixed points beside each other (M).
        layers, width, hidden, activation, aggregation: The encoder.
        decoder: Hidden widths of the decoder.
        node_decoder: For targets of whole graphs: hidden widths of an MLP that nodes pass before they are
            gathered. None: `hidden`, (): none, and sums of fixed points are all that is seen.
        norm: Normalise within the network over each batch. It has paid from a thousand graphs to learn
            from on, and harmed where there were two hundred.
        normalisation: "conductance" (symmetric: reciprocity, and CG), "softmax" or "degree". None:
            conductance on undirected graphs, softmax on directed ones.
        leak: Learn a loss per head.
        factor: Contraction factor at the start. None: 0.999 where values are fixed, for these must
            reach every node, else 0.9.
        learned: "fixed", "shared" or "heads". None: fixed at 0.999, else one for each head.
        largest: What learned factors stay below.
        source: How b enters: "plain", "mean" or "message", see `ConvergentGraphNetwork`. None: mean
            where values are fixed, else message.
        readout: For targets of whole graphs: "sum", "mean" or "max".
        skip: Linear maps past encoder and decoder.
        method: Of the fixed point: `Anderson()`, `CG()`, ...; None: as `linear_fixed_point` chooses.
        rtol: Of the fixed point in training; None: 1e-6, or 1e-5 in single precision.
        network: Builder (plan, generator=, dtype=) -> module instead of all above: baselines.
        features: Names of node and edge features shown beside those in the equations.
        target: Name of a given feature of nodes, edges or graphs to be learned; None: the fields,
            solved exactly by `SparseFixedPoint` on every training graph.
        classes: Their number, if the target is a class; 0: a number.
        optimiser: `Adam` or another with a learning rate, which follows a cosine over `steps`.
        steps: Updates in all.
        batch: Graphs per update, of a list of graphs.
        reuse: Updates a batch serves. None: 1 for a list of graphs, 32 for drawn ones.
        held_out: Share of a list of graphs, or number of drawn ones, kept for judging.
        quantile: The operator is ok if this quantile of the held-out errors is below the tolerance.

    Supports any `GraphSystem` without unknown parameters, and given targets. Not: extrapolation to
    other physics; where one exact solve is enough, `SparseFixedPoint()` is faster and exact.
    References: park2022cgs.
    """

    heads: int = 8
    layers: int = 1
    width: int = 64
    hidden: tuple[int, ...] = (64,)
    activation: str = "leaky_relu"
    aggregation: str = "sum"
    decoder: tuple[int, ...] = (64, 32)
    node_decoder: tuple[int, ...] | None = None
    norm: bool = False
    normalisation: str | None = None
    leak: bool = False
    factor: float | None = None
    learned: str | None = None
    largest: float = NEAR_ONE
    source: str | None = None
    readout: str = "sum"
    skip: bool = True
    method: AbstractMethod | None = None
    rtol: float | None = None
    network: Callable[..., nn.Module] | None = None
    features: tuple[str, ...] = ()
    target: str | None = None
    classes: int = 0
    optimiser: AbstractOptimiser = field(default_factory=lambda: Adam(lr=3e-3, decay=1.0))
    steps: int = 1000
    batch: int = 32
    reuse: int | None = None
    held_out: float = 0.2
    quantile: float = 0.9

    citation: ClassVar[str] = (
        "@inproceedings{park2022cgs,\n"
        "  title     = {Convergent Graph Solvers},\n"
        "  author    = {Park, Junyoung and Choo, Jinhyun and Park, Jinkyoo},\n"
        "  booktitle = {International Conference on Learning Representations},\n"
        "  year      = {2022}\n}"
    )

    def __post_init__(self) -> None:
        faults = [
            f"{name}={value} must be at least 1"
            for name in ("heads", "layers", "width", "steps", "batch", "reuse")
            if (value := getattr(self, name)) is not None and value < 1
        ]
        if self.classes == 1 or self.classes < 0:
            faults.append(f"classes={self.classes} must be 0 (a number) or at least 2")
        if self.classes and self.target is None:
            faults.append("classes= needs target=, the name of the feature that holds the class")
        if not 0 < self.quantile < 1:
            faults.append(f"quantile={self.quantile} must lie in (0, 1)")
        if self.held_out < 0:
            faults.append(f"held_out={self.held_out} must not be negative")
        if isinstance(self.features, str):
            faults.append(
                f"features={self.features!r} must be a tuple of names: ({self.features!r},)"
            )
        if not hasattr(self.optimiser, "lr"):
            faults.append(f"optimiser={self.optimiser!r} has no learning rate; use Adam or SOAP")
        if faults:
            raise ValueError("ConvergentGraphSolver: " + "; ".join(faults))

    def supports(self, problem: Any) -> str | None:
        """None, or in one sentence why not and what can do it."""
        form = getattr(problem, "normal_form", None)
        if isinstance(form, GraphTarget):
            return None
        if not isinstance(form, GraphForm):
            return (
                "ConvergentGraphSolver learns on graphs; this is a differential equation. Use "
                "CausalPINN(), or declare a GraphSystem."
            )
        if form.parameters:
            names = ", ".join(map(str, form.parameters))
            return (
                f"ConvergentGraphSolver does not determine unknown parameters ({names}). Give them "
                "values with remake(parameters=...), or use SparseFixedPoint() on one graph."
            )
        return None

    def arguments(self, plan: FeaturePlan, *, directed: bool, anchored: bool) -> dict[str, Any]:
        """The network's, with what was left open decided: plain values, as files hold them.

        Args:
            plan: What goes in and out.
            directed: Whether the graphs are.
            anchored: Whether values are fixed somewhere.
        """
        start = self.factor if self.factor is not None else (NEAR_ONE if anchored else DISCOUNT)
        kind = "softmax" if directed else "conductance"
        learned = "fixed" if anchored or start == 0 else "heads"
        whole = plan.of == "graph"
        inner = self.node_decoder if self.node_decoder is not None else self.hidden if whole else ()
        return {
            "node_inputs": plan.node_inputs,
            "edge_inputs": plan.edge_inputs,
            "outputs": plan.outputs,
            "target": plan.of,
            "heads": self.heads,
            "layers": self.layers,
            "width": self.width,
            "hidden": list(self.hidden),
            "activation": self.activation,
            "aggregation": self.aggregation,
            "decoder": list(self.decoder),
            "node_decoder": list(inner),
            "norm": self.norm,
            "normalisation": self.normalisation or kind,
            "leak": self.leak,
            "factor": start,
            "learned": self.learned or learned,
            "largest": self.largest,
            "source": self.source or ("mean" if anchored else "message"),
            "readout": self.readout,
            "skip": self.skip,
        }

    def build(
        self,
        plan: FeaturePlan,
        arguments: dict[str, Any],
        *,
        generator: torch.Generator,
        dtype: torch.dtype,
    ) -> nn.Module:
        """The network with initial weights."""
        if self.network is not None:
            return self.network(plan, generator=generator, dtype=dtype)
        rtol = self.rtol or (1e-6 if dtype == torch.float64 else 1e-5)
        return ConvergentGraphNetwork(
            **arguments, solver=self.method, rtol=rtol, generator=generator, dtype=dtype
        )

    # --- training -------------------------------------------------------------------------------

    def init(self, problem: GraphTask, env: Env) -> LearningState:
        return LearningState(self, problem, env)

    def step(self, problem: GraphTask, state: LearningState) -> Mapping[str, float | Tensor]:
        return {"loss": state.update()}

    def terminate(self, problem: GraphTask, state: LearningState) -> Status | None:
        return Status.OK if state.step >= self.steps else None

    def finish(self, problem: GraphTask, state: LearningState) -> Any:
        """The network with the weights reached."""
        return state.module
