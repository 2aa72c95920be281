"""Pore networks: what the generator promises, and the reader on a small file set and the real sand pack."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import pinnkit as pk
from pinnkit.graphs import hagen_poiseuille, pore_network, read_statoil

DATA = Path(os.environ.get("PINNKIT_DATA", "data")) / "graphs" / "porenets"


def test_generated_networks_are_as_published():
    """Connected, no pores touch, throats as wide as the narrower pore, a tenth inlet and outlet each."""
    graph = pore_network(120, seed=5)
    assert graph.n_nodes == 120
    assert graph.components().max() == 0
    assert graph.node["inlet"].sum() == graph.node["outlet"].sum() == 12
    y = graph.node["position"][:, 1]
    assert y[graph.node["inlet"]].max() < y[~graph.node["inlet"]].min()
    a, b = graph.edges
    d = graph.node["diameter"]
    distance = np.linalg.norm(graph.node["position"][a] - graph.node["position"][b], axis=1)
    assert (d[a] <= 0.9 * distance).all()
    assert np.allclose(graph.edge["diameter"], np.minimum(d[a], d[b]))
    assert np.allclose(graph.edge["length"], distance - (d[a] + d[b]) / 2)
    k = np.pi * (graph.edge["diameter"] / 2) ** 4 / (8e-5 * graph.edge["length"])
    assert np.allclose(graph.edge["k"], k, rtol=1e-12)
    assert len(np.unique(graph.edges, axis=1).T) == graph.n_edges
    # Median and spread of many sizes, of which few are cut off here.
    wide = pore_network(2000, seed=0, side=0.1).node["diameter"]
    assert np.median(wide) == pytest.approx(1e-5, rel=0.01)
    assert np.std(np.log(wide)) == pytest.approx(0.1, rel=0.05)


def test_same_seed_same_network():
    one, two, three = pore_network(40, 1), pore_network(40, 1), pore_network(40, 2)
    assert np.array_equal(one.edges, two.edges)
    assert np.array_equal(one.edge["k"], two.edge["k"])
    assert not np.array_equal(one.node["position"], three.node["position"])
    rng = np.random.default_rng(1)
    assert np.array_equal(pore_network(40, rng).edges, one.edges)
    assert not np.array_equal(pore_network(40, rng).edges[:, :20], one.edges[:, :20])


def test_too_few_pores():
    with pytest.raises(ValueError, match="at least 10 pores"):
        pore_network(3)


def test_flow_through_a_tube():
    """Poiseuille: sixteenfold when twice as wide."""
    k = hagen_poiseuille(np.array([1.0, 2.0]), np.array([1.0, 1.0]), 1.0)
    assert k[1] / k[0] == pytest.approx(16)


FILES = {
    "node1": "4 1 1 1\n1 0 0 0 2 -1 2 1 0 1 2\n2 0 1 0 2 1 3 0 0 2 3\n3 0 2 0 2 2 0 0 1 3 4\n4 0 0 5 0 0 0\n",
    "node2": "1 1e-9 1e-4 0.03 0\n2 2e-9 2e-4 0.03 0\n3 3e-9 3e-4 0.03 0\n4 4e-9 4e-4 0.03 0\n",
    "link1": "4\n1 -1 1 1e-5 0.04 1e-4\n2 1 2 2e-5 0.04 5e-4\n3 2 3 1e-5 0.04 5e-4\n4 3 0 1e-5 0.04 1e-4\n",
    "link2": "1 -1 1 0 0 1e-4 0 0\n2 1 2 1e-4 1e-4 3e-4 0 0\n3 2 3 1e-4 1e-4 0 0 0\n4 3 0 0 0 1e-4 0 0\n",
}


@pytest.fixture
def folder(tmp_path) -> Path:
    for name, text in FILES.items():
        (tmp_path / f"tiny_{name}.dat").write_text(text, encoding="ascii")
    return tmp_path


def test_statoil_files(folder):
    """Ids count from 1, -1 is the inlet's reservoir, 0 the outlet's; pore 4 touches neither."""
    graph = read_statoil(folder, "tiny", viscosity=1e-3)
    assert graph.edges.tolist() == [[0, 1], [1, 2]]
    assert graph.node["inlet"].tolist() == [True, False, False]
    assert graph.node["outlet"].tolist() == [False, False, True]
    assert graph.edge["length"].tolist() == [3e-4, 1e-9]
    assert graph.edge["k"][0] == pytest.approx(np.pi * 2e-5**4 / (8e-3 * 3e-4))
    assert graph.node["volume"].tolist() == [1e-9, 2e-9, 3e-9]
    assert read_statoil(folder, "tiny", connected=False).n_nodes == 4


def test_files_that_do_not_belong_together(folder):
    (folder / "tiny_node2.dat").write_text("1 1e-9 1e-4 0.03 0\n", encoding="ascii")
    with pytest.raises(ValueError, match="do not belong together"):
        read_statoil(folder, "tiny")


@pytest.mark.skipif(not DATA.is_dir(), reason="the scanned sand pack is not here")
def test_the_real_sand_pack():
    """F42A: 994 of 1246 pores hang together; solved with a proved bound."""
    graph = read_statoil(DATA, "F42A")
    assert graph.n_nodes == 994
    p, k = pk.node_field("p"), pk.edge_feature("k")
    system = pk.GraphSystem(
        pk.neighbour_sum(k * (p.neighbour - p)),
        [pk.Fixed(p, 1, where="inlet"), pk.Fixed(p, 0, where="outlet")],
    )
    sol = system.on(graph).solve()
    assert sol.evidence is pk.Evidence.CERTIFIED
    assert sol.error_estimate is not None
    assert sol.error_estimate <= 1e-9
    assert 0 <= sol[p].min() <= sol[p].max() <= 1
