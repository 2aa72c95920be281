"""`Graph`: arcs, batches, permutations, and every wrong input refused in words."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

import pinnkit as pk


def triangle(**more) -> pk.Graph:
    """0 - 1 - 2 - 0 with a feature of every kind."""
    return pk.Graph(
        [[0, 1, 2], [1, 2, 0]],
        node={"inlet": [True, False, False], "x": np.arange(6.0).reshape(3, 2)},
        edge={"k": [1.0, 2.0, 3.0], "kind": [1, 2, 3]},
        **more,
    )


def test_undirected_edges_are_two_arcs_that_share_their_features():
    """First all as given, then all reversed: what operators and the encoder rely on."""
    senders, receivers, index = triangle().arcs()
    assert senders.tolist() == [0, 1, 2, 1, 2, 0]
    assert receivers.tolist() == [1, 2, 0, 0, 1, 2]
    assert index.tolist() == [0, 1, 2, 0, 1, 2]


def test_directed_edges_are_one_arc():
    senders, receivers, index = triangle(directed=True).arcs()
    assert (senders.tolist(), receivers.tolist()) == ([0, 1, 2], [1, 2, 0])
    assert index.tolist() == [0, 1, 2]


def test_kinds_of_features_are_kept():
    """Booleans mark nodes, integers count, everything else is float64."""
    graph = triangle()
    assert graph.node["inlet"].dtype == bool
    assert graph.edge["kind"].dtype == np.int64
    assert pk.Graph([[0], [1]], edge={"k": np.ones(1, np.float32)}).edge["k"].dtype == np.float64
    assert graph.graph == {}
    assert triangle(graph={"label": 1}).graph["label"] == 1


def test_the_number_of_nodes():
    """Said, else that of the node features, else from the edges; isolated nodes count."""
    assert triangle().n_nodes == 3
    assert pk.Graph([[0, 5], [1, 2]]).n_nodes == 6
    assert pk.Graph(np.zeros((2, 0), int), nodes=4).n_nodes == 4
    assert pk.Graph(np.zeros((2, 0)), node={"a": np.ones(2)}).n_nodes == 2
    assert pk.Graph([[], []]).n_edges == 0


def test_nothing_can_be_changed():
    """Features are read-only, so a problem bound to a graph stays what it was."""
    graph = triangle()
    with pytest.raises(ValueError, match="read-only"):
        graph.edge["k"][0] = 7.0
    with pytest.raises(AttributeError, match=r"write graph\.replace"):
        graph.edges = None  # type: ignore[misc]
    assert graph.replace(edge={"k": [7.0, 7.0, 7.0]}).edge["k"].tolist() == [7.0] * 3
    assert graph.edge["k"].tolist() == [1.0, 2.0, 3.0]


def test_the_input_is_copied():
    """Writing to the arrays given later changes no graph."""
    k = np.ones(1)
    graph = pk.Graph([[0], [1]], edge={"k": k})
    k[0] = 5.0
    assert graph.edge["k"].tolist() == [1.0]


def test_permuted_nodes_keep_edges_and_features():
    """New node i is old node order[i]."""
    graph, order = triangle(), [2, 0, 1]
    moved = graph.permute(order)
    assert np.array_equal(moved.node["x"], graph.node["x"][order])
    back = moved.permute(np.argsort(order))
    assert np.array_equal(back.edges, graph.edges)
    with pytest.raises(ValueError, match=r"no permutation of 0 \.\.\. 2"):
        graph.permute([0, 0, 1])


def test_components_disregard_directions():
    graph = pk.Graph([[0, 3], [1, 4]], nodes=6, directed=True)
    assert graph.components().tolist() == [0, 0, 1, 2, 2, 3]


def test_a_batch_is_a_disjoint_union():
    """Offsets, graph numbers, common features; whole-graph features get an axis."""
    one, two = triangle(graph={"y": 1.0}), triangle(graph={"y": 2.0}).replace(node={"z": [0, 0, 1]})
    whole, nodes, edges = pk.Graph.batch([one, two])
    assert (whole.n_nodes, whole.n_edges) == (6, 6)
    assert whole.edges[:, 3:].min() == 3
    assert nodes.tolist() == [0, 0, 0, 1, 1, 1]
    assert edges.tolist() == [0, 0, 0, 1, 1, 1]
    assert set(whole.node) == {"inlet", "x"}
    assert whole.graph["y"].tolist() == [1.0, 2.0]


def test_pickles():
    graph = triangle(directed=True, graph={"y": [1.0, 2.0]})
    back = pickle.loads(pickle.dumps(graph))
    assert repr(back) == repr(graph)
    assert np.array_equal(back.edges, graph.edges)
    assert back.directed
    assert np.array_equal(back.node["x"], graph.node["x"])


EDGE = [[0], [1]]
WRONG = {
    "transposed": (lambda: pk.Graph([[0, 1], [1, 2], [2, 0]]), r"shape \(3, 2\).*edges\.T"),
    "flat": (lambda: pk.Graph([0, 1]), r"shape \(2,\), expected \(2, E\)"),
    "ragged": (lambda: pk.Graph([[0, 1], [1]]), "two rows differ in length"),
    "floats": (lambda: pk.Graph([[0.0], [1.0]]), "float64, expected integers"),
    "negative": (lambda: pk.Graph([[0, -1], [1, 2]]), "edge 1 joins node -1"),
    "too large": (lambda: pk.Graph([[0], [7]], nodes=3), r"joins node 7, but there are 3 nodes"),
    "no nodes": (lambda: pk.Graph(EDGE, nodes=0), "there are 0 nodes"),
    "nodes": (lambda: pk.Graph(EDGE, nodes=2.5), r"nodes=2\.5"),  # type: ignore[arg-type]
    "directed": (lambda: pk.Graph(EDGE, directed=1), "it is True or False"),  # type: ignore[arg-type]
    "node length": (
        lambda: pk.Graph(EDGE, node={"a": [1, 2], "b": [1]}),
        "1 rows, and there are 2",
    ),
    "edge length": (lambda: pk.Graph(EDGE, edge={"k": [1, 2]}), "2 rows, and there are 1 edges"),
    "edge shape": (lambda: pk.Graph(EDGE, edge={"k": np.ones((1, 1, 1))}), r"\(E,\) or \(E, k\)"),
    "scalar": (lambda: pk.Graph(EDGE, edge={"k": 1.0}), r"shape \(\)"),
    "nan": (lambda: pk.Graph(EDGE, node={"a": [0.0, np.nan]}), "nan or inf in row 1"),
    "graph nan": (lambda: pk.Graph(EDGE, graph={"a": np.inf}), "holds nan or inf"),
    "text": (lambda: pk.Graph(EDGE, node={"a": ["x", "y"]}), "expected numbers or booleans"),
    "name": (lambda: pk.Graph(EDGE, node={"a b": [1, 2]}), "that is not a name"),
    "list": (lambda: pk.Graph(EDGE, node=[1, 2]), "features have names"),  # type: ignore[arg-type]
    "gradient": (
        lambda: pk.Graph(EDGE, edge={"k": torch.ones(1, requires_grad=True)}),
        "no array of numbers",
    ),
    "empty batch": (lambda: pk.Graph.batch([]), "at least one"),
    "no graph": (lambda: pk.Graph.batch([1]), "not a Graph"),  # type: ignore[list-item]
    "mixed batch": (
        lambda: pk.Graph.batch([triangle(), triangle(directed=True)]),
        "some are directed",
    ),
    "wide batch": (
        lambda: pk.Graph.batch([triangle(), triangle().replace(node={"x": np.ones(3)})]),
        "different widths",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_graphs_are_refused_in_words(name):
    make, message = WRONG[name]
    with pytest.raises(ValueError, match=rf"(?s){message}"):
        make()
