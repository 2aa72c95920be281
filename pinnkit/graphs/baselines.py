"""What a convergent network must beat: nodes by themselves, a few hops, an implicit network.

In    the same features and arcs.
Out   `EdgeFree`, `GIN`, `ImplicitGNN`: called like `ConvergentGraphNetwork`; `matched` gives them as many
      parameters.
Next  `ConvergentGraphSolver(network=...)` trains them on the same batches; the benchmark compares.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Required, TypedDict, Unpack, final

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pinnkit.graphs.arcs import Arcs
from pinnkit.graphs.attention import ACTIVATIONS, make_mlp
from pinnkit.graphs.network import Prior, check_target, decoder_inputs, edges_on_arcs
from pinnkit.graphs.readout import Readout
from pinnkit.graphs.standardise import BatchNorm, Standardiser
from pinnkit.implicit.contraction import BoundedNorm
from pinnkit.implicit.layers import fixed_point
from pinnkit.implicit.record import Record
from pinnkit.nn.layers import make_linear

__all__ = ["GIN", "EdgeFree", "ImplicitGNN", "count_parameters", "matched"]


class _Common(TypedDict, total=False):
    """What all models take besides their own, as `ConvergentGraphNetwork` does."""

    width: int
    activation: str
    target: str
    decoder: Sequence[int]
    generator: Required[torch.Generator]
    dtype: torch.dtype


class _GraphModel(nn.Module):
    """Scales at both ends, a decoder; subclasses make the node states, (N, width)."""

    def __init__(
        self,
        node_inputs: int,
        edge_inputs: int,
        outputs: int,
        *,
        width: int = 64,
        activation: str = "relu",
        target: str = "node",
        decoder: Sequence[int] = (64, 32),
        generator: torch.Generator,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        check_target(target)
        self.target, self.width, self.activation = target, width, activation
        device = generator.device
        self.node_scale = Standardiser(node_inputs, dtype=dtype, device=device)
        self.edge_scale = Standardiser(edge_inputs, dtype=dtype, device=device)
        self.target_scale = Standardiser(outputs, logarithms=False, dtype=dtype, device=device)
        self.readout = Readout(device=device)
        inputs = decoder_inputs(target, width, edge_inputs)
        sizes = (inputs, *decoder, outputs)
        self.decoder = make_mlp(sizes, activation, generator, dtype, last=False)

    def forward(
        self,
        arcs: Arcs,
        nodes: Tensor,
        edges: Tensor,
        held: Tensor | None = None,
        prior: Prior | None = None,
    ) -> tuple[Tensor, Record | None]:
        edges = self.edge_scale(edges)
        h, record = self.states(arcs, self.node_scale(nodes), edges)
        if self.target == "edge":
            count = arcs.n_edges
            ends = h[arcs.senders[:count]], h[arcs.receivers[:count]]
            h = torch.cat([*ends, edges[:count]], 1)
        elif self.target == "graph":
            h = self.readout(arcs, h)
        return self.target_scale.back(self.decoder(h)), record

    def states(self, arcs: Arcs, nodes: Tensor, edges: Tensor) -> tuple[Tensor, Record | None]:
        raise NotImplementedError


@final
class EdgeFree(_GraphModel):
    """h = MLP(x) at every node by itself: what the features tell without a single edge.

    Args:
        layers: Of the MLP.
        Others as in `ConvergentGraphNetwork`; width=64, activation="relu".
    """

    def __init__(
        self,
        node_inputs: int,
        edge_inputs: int,
        outputs: int = 1,
        *,
        layers: int = 2,
        **common: Unpack[_Common],
    ) -> None:
        super().__init__(node_inputs, edge_inputs, outputs, **common)
        generator, dtype = common["generator"], self.node_scale.mean.dtype
        sizes = (node_inputs, *[self.width] * layers)
        self.alone = make_mlp(sizes, self.activation, generator, dtype, last=True)

    def states(self, arcs: Arcs, nodes: Tensor, edges: Tensor) -> tuple[Tensor, None]:
        return self.alone(nodes), None


@final
class GIN(_GraphModel):
    """Graph isomorphism network with edge features: h' = MLP((1 + eps) h + sum of relu(h_s + V x_e)).

    Args:
        layers: Information travels that many hops.
        norm: Normalise each layer over the batch.
        Others as in `ConvergentGraphNetwork`; width=64, activation="relu".

    References: xu2019gin, hu2020strategies.
    """

    def __init__(
        self,
        node_inputs: int,
        edge_inputs: int,
        outputs: int = 1,
        *,
        layers: int = 4,
        norm: bool = False,
        **common: Unpack[_Common],
    ) -> None:
        super().__init__(node_inputs, edge_inputs, outputs, **common)
        width, activation = self.width, self.activation
        generator, dtype = common["generator"], self.node_scale.mean.dtype
        kept = {"dtype": dtype, "device": generator.device}
        self.start = make_linear(node_inputs, width, generator, dtype)
        self.links = nn.ModuleList(
            make_linear(edge_inputs, width, generator, dtype) for _ in range(layers)
        )
        self.rounds = nn.ModuleList(
            make_mlp((width, width, width), activation, generator, dtype, last=True)
            for _ in range(layers)
        )
        self.norms = nn.ModuleList(
            BatchNorm(width, **kept) if norm else nn.Identity() for _ in range(layers)
        )
        self.eps = nn.Parameter(torch.zeros(layers, **kept))  # type: ignore[arg-type]

    def states(self, arcs: Arcs, nodes: Tensor, edges: Tensor) -> tuple[Tensor, None]:
        h = self.start(nodes)
        on_arcs = edges_on_arcs(arcs, edges)
        for k, (link, mlp, norm) in enumerate(zip(self.links, self.rounds, self.norms)):
            messages = torch.relu(h[arcs.senders] + link(on_arcs))
            h = norm(mlp((1 + self.eps[k]) * h + arcs.sum(messages)))
        return h, None


@final
class ImplicitGNN(_GraphModel):
    """X = phi(A X W + b(U)), A the mean over the arcs into a node, rows of W at most `kappa` in sum.

    A does not depend on the features; those of edges enter b as means. The whole batch is one sample of
    `pinnkit.implicit.fixed_point`.

    Args:
        kappa: Contraction factor.
        Others as in `ConvergentGraphNetwork`; width=64 columns of X, activation="leaky_relu".

    References: gu2020ignn.
    """

    def __init__(
        self,
        node_inputs: int,
        edge_inputs: int,
        outputs: int = 1,
        *,
        kappa: float = 0.9,
        **common: Unpack[_Common],
    ) -> None:
        common.setdefault("activation", "leaky_relu")
        super().__init__(node_inputs, edge_inputs, outputs, **common)
        width, activation = self.width, self.activation
        generator, dtype = common["generator"], self.node_scale.mean.dtype
        inputs = node_inputs + edge_inputs
        self.source = make_mlp((inputs, width, width), activation, generator, dtype, last=False)
        self.mix = make_linear(width, width, generator, dtype)
        self.mix.register_parameter("bias", None)  # the source holds it
        parametrize.register_parametrization(self.mix, "weight", BoundedNorm(kappa))
        self.phi = ACTIVATIONS[activation]()

    def states(self, arcs: Arcs, nodes: Tensor, edges: Tensor) -> tuple[Tensor, Record]:
        around = arcs.mean(edges_on_arcs(arcs, edges))
        source = self.source(torch.cat([nodes, around], 1))

        def step(z: Tensor, weight: Tensor, source: Tensor) -> Tensor:
            h = arcs.mean(z[0][arcs.senders])
            return self.phi(h @ weight.T + source)[None]

        weight: Any = self.mix.weight
        z, record = fixed_point(step, torch.zeros_like(source)[None], weight, source, max_steps=300)
        return z[0], record


def count_parameters(module: nn.Module) -> int:
    """Trainable numbers."""
    return sum(p.numel() for p in module.parameters())


def matched(make: Callable[[int], nn.Module], parameters: int) -> nn.Module:
    """make(width) for the width whose number of parameters comes nearest to `parameters`.

    >>> gen = torch.Generator().manual_seed(0)
    >>> count_parameters(matched(lambda w: GIN(5, 3, width=w, generator=gen), 8546))
    8575
    """
    low, high = 1, 2
    while count_parameters(make(high)) < parameters:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if count_parameters(make(middle)) < parameters:
            low = middle
        else:
            high = middle
    ends = [make(low), make(high)]
    return min(ends, key=lambda module: abs(count_parameters(module) - parameters))
