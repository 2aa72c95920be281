"""Convergent graph networks and their rivals: sizes, invariances, parallel edges, every target."""

from __future__ import annotations

import pytest
import torch

from pinnkit.graphs import (
    GIN,
    Arcs,
    AttentionLayer,
    ConvergentGraphNetwork,
    EdgeFree,
    ImplicitGNN,
    Prior,
    Readout,
    Standardiser,
    contracting_weights,
    count_parameters,
    matched,
)
from pinnkit.nn.layers import make_linear
from tests.graphs.shapes import ITERATIVE, ROUNDOFF, normal, some_arcs


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


PUBLISHED = {
    "pore network": (8546, {"node_inputs": 5, "edge_inputs": 3, "heads": 16}),
    "graph value iteration": (
        280_069,
        {"node_inputs": 1, "edge_inputs": 1, "heads": 64, "layers": 4, "hidden": (128,)},
    ),
    "MUTAG": (
        186_981,
        {
            "node_inputs": 7,
            "edge_inputs": 1,
            "outputs": 2,
            "target": "graph",
            "heads": 32,
            "layers": 3,
            "hidden": (128,),
            "activation": "silu",
            "aggregation": "mean",
        },
    ),
}


@pytest.mark.parametrize("case", PUBLISHED)
def test_published_sizes(case):
    """The three published configurations have the published number of parameters."""
    expected, arguments = PUBLISHED[case]
    network = ConvergentGraphNetwork(**arguments, generator=generator())
    assert count_parameters(network) == expected


@pytest.mark.parametrize("make", [ConvergentGraphNetwork, EdgeFree, GIN, ImplicitGNN])
@pytest.mark.parametrize("target", ["node", "edge", "graph"])
def test_every_model_has_every_target(make, target):
    """Shapes, gradients to all parameters, and independence of how nodes are numbered."""
    arcs = some_arcs(sizes=(9, 5))
    model = make(2, 3, 2, target=target, generator=generator())
    nodes, edges = normal(0, 14, 2), normal(1, arcs.n_arcs, 3)
    y, _ = model(arcs, nodes, edges)
    assert y.shape == ({"node": 14, "edge": arcs.n_arcs, "graph": 2}[target], 2)
    y.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    order = torch.cat([torch.randperm(9, generator=generator()), torch.arange(9, 14)])
    new = torch.argsort(order)
    turned = Arcs(new[arcs.senders], new[arcs.receivers], 14, arcs.node_graph)
    again, _ = model(turned, nodes[order], edges)
    expected = y[order] if target == "node" else y
    assert torch.allclose(again, expected, atol=ITERATIVE)


@pytest.mark.parametrize("source", ["plain", "mean", "message"])
@pytest.mark.parametrize("kind", ["degree", "softmax", "conductance"])
def test_a_batch_is_its_graphs_one_by_one(kind, source):
    """Encoder, fixed point and decoder do not mix graphs: 1e-8 of the values."""
    parts = [some_arcs(s, sizes=(n,), undirected=True) for s, n in enumerate((6, 30))]
    # All edges forwards, then all backwards, as undirected graphs have them.
    ends = [
        torch.cat([getattr(a, end).chunk(2)[k] + o for k in (0, 1) for a, o in zip(parts, (0, 6))])
        for end in ("senders", "receivers")
    ]
    joined = Arcs(ends[0], ends[1], 36, torch.tensor([0] * 6 + [1] * 30))
    network = ConvergentGraphNetwork(
        2, 1, heads=3, normalisation=kind, source=source, factor=0.9, skip=True, rtol=1e-12,
        generator=generator(),
    )  # fmt: skip
    nodes = normal(0, 36, 2)
    features = [normal(k + 1, a.n_arcs, 1) for k, a in enumerate(parts)]
    mixed = torch.cat([f.chunk(2)[k] for k in (0, 1) for f in features])
    y, record = network(joined, nodes, mixed)
    assert record.certified.all()
    for k, (part, rows) in enumerate(zip(parts, (slice(0, 6), slice(6, 36)))):
        alone, _ = network(part, nodes[rows], features[k])
        assert torch.allclose(alone, y[rows], atol=ITERATIVE)


def test_parallel_edges_are_not_overwritten():
    """Two parallel arcs are one arc of twice the weight: both enter the operator."""
    arcs = Arcs(torch.tensor([0, 0, 2]), torch.tensor([1, 1, 1]), 3)
    network = ConvergentGraphNetwork(1, 1, heads=1, factor=0.9, generator=generator())
    operator, _, _ = network.equation(arcs, normal(0, 3, 1), normal(1, 3, 1))
    single = contracting_weights(arcs, normal(1, 3, 1))
    assert (operator.weights > 0).all() and operator.weights[0] != operator.weights[1]
    assert torch.allclose(arcs.sum(single.weights)[1], torch.ones(1, dtype=torch.float64))


def test_held_nodes_are_seen_but_not_moved():
    """At held nodes heads keep the encoder's value, so free nodes cannot change them."""
    arcs = some_arcs(sizes=(12,), undirected=True)
    held = torch.arange(12) < 3
    network = ConvergentGraphNetwork(
        1,
        1,
        heads=2,
        factor=0.99,
        normalisation="conductance",
        source="mean",
        generator=generator(),
    )
    nodes, edges = normal(0, 12, 1), normal(1, arcs.n_arcs, 1)
    h, _, _ = network.states(arcs, nodes, edges, held)
    _, bias, _ = network.equation(arcs, nodes, edges, held)
    assert torch.allclose(h[held], bias[held], atol=ROUNDOFF)
    free = torch.ones(12, dtype=torch.bool)
    without, _, _ = network.states(arcs, nodes, edges, ~free)
    assert not torch.allclose(without[held], h[held], atol=1e-3)


def test_a_mean_source_keeps_states_within_the_range_of_the_bias():
    """h is a weighted mean of b: the maximum principle, head by head."""
    arcs = some_arcs(sizes=(20,))
    network = ConvergentGraphNetwork(
        1, 1, heads=3, factor=0.99, normalisation="softmax", source="mean", generator=generator()
    )
    nodes, edges = normal(0, 20, 1), normal(1, arcs.n_arcs, 1)
    h, _, _ = network.states(arcs, nodes, edges)
    b, _ = network.encoder(arcs, network.node_scale(nodes), network.edge_scale(edges))
    assert (h <= b.amax(0) + 1e-6).all() and (h >= b.amin(0) - 1e-6).all()


def test_a_given_operator_is_one_more_head():
    """A prior's fixed point is the one of its own weights and bias."""
    arcs = some_arcs(sizes=(8,), undirected=True)
    given = contracting_weights(arcs, normal(5, arcs.n_arcs, 1), normalisation="conductance")
    bias = normal(6, 8, 1)
    prior = Prior(0.9 * given.weights, bias, given.balance)
    network = ConvergentGraphNetwork(
        1, 1, heads=2, priors=1, normalisation="conductance", rtol=1e-12, generator=generator()
    )
    h, _, record = network.states(arcs, normal(0, 8, 1), normal(1, arcs.n_arcs, 1), None, prior)
    gap = arcs.sum(prior.weights * h[arcs.senders, 2:]) + bias - h[:, 2:]
    assert h.shape == (8, 3) and gap.abs().max() < ITERATIVE and record.certified.all()


def test_units_do_not_matter_once_scales_are_fitted():
    """SI units and any others give the same numbers, targets included."""
    network = ConvergentGraphNetwork(1, 1, heads=2, generator=generator())
    arcs = some_arcs(sizes=(10,))
    nodes, edges = normal(0, 10, 1), normal(1, arcs.n_arcs, 1).exp()
    answers = []
    for unit in (1.0, 1e-13):
        network.node_scale.fit(unit * nodes)
        network.edge_scale.fit(unit * edges)
        answers.append(network(arcs, unit * nodes, unit * edges)[0])
    assert torch.allclose(*answers, atol=ROUNDOFF)


@pytest.mark.parametrize("kind", ["sum", "mean", "max"])
def test_readouts_gather_each_graph(kind):
    """Against torch on every graph alone; sums in units of the mean graph of the training set."""
    arcs = some_arcs(sizes=(9, 5))
    h = normal(0, 14, 3)
    readout = Readout(kind).fit(arcs)
    parts = h[:9], h[9:]
    expected = {
        "sum": torch.stack([part.sum(0) / 7 for part in parts]),
        "mean": torch.stack([part.mean(0) for part in parts]),
        "max": torch.stack([part.amax(0) for part in parts]),
    }[kind]
    assert torch.allclose(readout(arcs, h), expected, atol=ROUNDOFF)
    assert count_parameters(readout) == 0 and "typical" in readout.state_dict()


def test_standardiser_takes_logarithms_where_they_are_less_skewed():
    wide = normal(0, 200, 1).mul(2).exp()
    even = torch.rand(200, 1, dtype=torch.float64, generator=generator()) + 1e-3
    flag = (normal(1, 200, 1) > 0).double()
    scale = Standardiser(4).fit(torch.cat([wide, even, flag, torch.full_like(even, 7.0)], 1))
    assert scale.logs.tolist() == [True, False, False, False]
    z = scale(torch.cat([wide, even, flag, torch.full_like(even, 7.0)], 1))
    assert torch.allclose(z[:, :2].mean(0), torch.zeros(2, dtype=torch.float64), atol=ROUNDOFF)
    assert torch.equal(z[:, 2:3], flag) and (z[:, 3] == 1).all()
    assert torch.isfinite(scale(torch.zeros(1, 4, dtype=torch.float64))).all()
    targets = Standardiser(1, logarithms=False).fit(wide)
    assert torch.allclose(targets.back(targets(wide)), wide)


def test_baselines_of_equal_size():
    """`matched` comes within a few parameters in a hundred."""
    for make in (
        lambda w: EdgeFree(5, 3, width=w, generator=generator()),
        lambda w: GIN(5, 3, width=w, generator=generator()),
        lambda w: ImplicitGNN(5, 3, width=w, generator=generator()),
    ):
        assert abs(count_parameters(matched(make, 8546)) - 8546) < 0.03 * 8546


def test_implicit_network_contracts():
    """Rows of W add up to kappa at most, so that its fixed point is found from anywhere."""
    model = ImplicitGNN(1, 1, width=16, kappa=0.8, generator=generator())
    with torch.no_grad():
        for weight in model.mix.parameters():
            weight.mul_(100)
    assert torch.as_tensor(model.mix.weight).abs().sum(1).max() <= 0.8
    arcs = some_arcs(sizes=(10,))
    _, record = model(arcs, normal(0, 10, 1), normal(1, arcs.n_arcs, 1))
    assert record.converged.all()


def whole_graphs(**options) -> ConvergentGraphNetwork:
    return ConvergentGraphNetwork(
        2, 1, 2, target="graph", heads=4, layers=2, node_decoder=(8,), norm=True, factor=0.5,
        generator=generator(), **options,
    )  # fmt: skip


def test_normalised_network_does_not_look_at_batch_mates_in_use():
    """While it is trained it does; a graph with one node, and one without arcs, pass either way."""
    both, alone = some_arcs(sizes=(7, 1)), some_arcs(sizes=(1,))
    network = whole_graphs(solver=None, rtol=1e-13)
    nodes, arcs = normal(0, 8, 2), normal(1, both.n_arcs, 1)
    learning = network(both, nodes, arcs)[0]
    single = network(alone, nodes[7:], normal(1, alone.n_arcs, 1))[0]
    assert torch.isfinite(learning).all() and torch.isfinite(single).all()
    network.eval()
    together = network(both, nodes, arcs)[0]
    assert not torch.allclose(together, learning)
    found = network(alone, nodes[7:], arcs[both.senders == 7])[0]
    torch.testing.assert_close(found, together[1:], rtol=1e-11, atol=1e-12)


def test_node_decoder_tells_two_kinds_of_nodes_from_their_mean():
    """Without arcs, sums of the states are linear in features if b is: only decoded nodes can be counted."""
    extremes, middle = torch.tensor([[1.0], [-1.0]]), torch.zeros(2, 1)
    arcs = Arcs(torch.tensor([], dtype=torch.int64), torch.tensor([], dtype=torch.int64), 2)
    edges = torch.zeros(0, 1, dtype=torch.float64)
    apart = []
    for inner in ((), (8,)):
        network = ConvergentGraphNetwork(
            1, 1, target="graph", heads=3, node_decoder=inner, skip=True, generator=generator()
        )
        # b linear in [what arcs bring; x]
        network.encoder.layers[0].node = make_linear(3 + 1, 3, generator(), torch.float64)
        found = [network(arcs, x.double(), edges)[0] for x in (extremes, middle)]
        apart.append(float((found[0] - found[1]).detach().abs().max()))
    assert apart[0] < 1e-14
    assert apart[1] > 1e-3


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"node_decoder= is for target='graph', not 'node'"):
        ConvergentGraphNetwork(1, 1, node_decoder=(8,), generator=generator())
    with pytest.raises(ValueError, match="target='nodes' must be one of node, edge, graph"):
        ConvergentGraphNetwork(1, 1, target="nodes", generator=generator())
    with pytest.raises(ValueError, match="source='b' must be one of plain, mean, message"):
        ConvergentGraphNetwork(1, 1, source="b", generator=generator())
    with pytest.raises(ValueError, match="readout='add' must be one of sum, mean, max"):
        ConvergentGraphNetwork(1, 1, readout="add", generator=generator())
    with pytest.raises(ValueError, match="heads=0 and outputs=1 must be at least 1"):
        ConvergentGraphNetwork(1, 1, heads=0, generator=generator())
    with pytest.raises(ValueError, match="aggregation='min' must be one of sum, mean, max"):
        AttentionLayer(1, 1, 1, 1, aggregation="min", generator=generator())
    with pytest.raises(ValueError, match="activation='relu6' must be one of"):
        ConvergentGraphNetwork(1, 1, activation="relu6", generator=generator())
    with pytest.raises(ValueError, match=r"values have the shape \(3, 1\); expected \(rows, 2\)"):
        Standardiser(2).fit(normal(0, 3, 1))
