"""ConvergentGraphSolver from a declaration: exact where declared, honest, resumable, in any units."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import pinnkit as pk
from pinnkit import problems  # pyright: ignore[reportAttributeAccessIssue]
from pinnkit.graphs import GIN
from pinnkit.implicit import Picard
from pinnkit.solution.graph_features import make_plan

p, k = pk.node_field("p"), pk.edge_feature("k")
FLOW = pk.GraphSystem(
    [pk.neighbour_sum(k * (p.neighbour - p))],
    conditions=[pk.Fixed(p, 1, where="inlet"), pk.Fixed(p, 0, where="outlet")],
)
SMALL = pk.ConvergentGraphSolver(heads=2, hidden=(8,), decoder=(8,), batch=4)
MANY = dataclasses.replace(SMALL, held_out=10)


def network(n: int, seed: int, unit: float = 1.0) -> pk.Graph:
    """A ring with chords and log-normal conductances; one inlet, one outlet."""
    rng = np.random.default_rng(seed)
    ring = np.arange(n)
    edges = np.stack([np.r_[ring, ring], np.r_[(ring + 1) % n, (ring + 3) % n]])
    return pk.Graph(
        edges,
        node={"inlet": ring == 0, "outlet": ring == n // 2},
        edge={"k": unit * np.exp(rng.normal(size=2 * n))},
    )


def networks(count: int, seed: int = 0, unit: float = 1.0) -> list[pk.Graph]:
    """Small ones of different sizes."""
    rng = np.random.default_rng(seed)
    return [network(int(rng.integers(6, 14)), seed * 1000 + i, unit) for i in range(count)]


@pytest.fixture(scope="module")
def trained():
    return FLOW.solve(SMALL, data=networks(16), max_steps=3, seed=0)


def test_fixed_values_are_exact_whatever_was_learned(trained):
    graph = network(9, 99)
    found = trained.predict(graph)
    assert found[p].shape == (9,) and found[p][0] == 1 and found[p][4] == 0
    assert found.certified and found.record.iterations.shape == (1, 2)
    assert np.array_equal(found["p"], found[p])


def test_many_graphs_at_once_are_the_same_as_one_by_one(trained):
    graphs = networks(5, seed=7)
    together = trained.predict(graphs)
    for graph, found in zip(graphs, together, strict=True):
        assert np.allclose(found[p], trained.predict(graph)[p], atol=1e-6)
    assert trained.predict([]) == []


def test_status_and_record_are_honest(trained):
    assert trained.status is pk.Status.UNVERIFIED and trained.ok is False  # 3 held-out graphs
    assert "3 held-out graphs are too few" in str(trained)
    assert trained.stats.stopped_by is pk.Status.MAX_STEPS and trained.stats.steps == 3
    assert len(trained.errors) == 3 and trained.error_estimate >= np.median(trained.errors)
    assert len(trained.history["loss"]) == 3
    assert "park2022cgs" in pk.citation(trained)
    judged = FLOW.solve(MANY, data=networks(13), max_steps=1)
    assert judged.status is pk.Status.INACCURATE and judged.evidence is pk.Evidence.REFERENCE
    assert len(judged.errors) == 10
    loose = FLOW.solve(MANY, data=networks(13), max_steps=1, tol=100.0)
    assert loose.ok is True
    unseen = FLOW.solve(MANY, data=networks(13), max_steps=1, verify=False)
    assert unseen.error_estimate is None and unseen.ok is False


def test_held_out_errors_are_the_errors(trained):
    """The reported error of a graph is its relative L2 difference from the exact solve."""
    graphs = networks(6)
    op = FLOW.solve(SMALL, data=graphs, max_steps=2)
    off = []
    for graph in graphs:
        exact = FLOW.on(graph).solve(pk.SparseFixedPoint())[p]
        off.append(np.linalg.norm(op.predict(graph)[p] - exact) / np.linalg.norm(exact))
    assert all(min(abs(np.array(off) - e)) < 1e-6 for e in op.errors)


def test_same_seed_same_weights_and_resume_is_exact():
    data = networks(8)
    full = FLOW.solve(SMALL, data=data, max_steps=4, seed=3, verify=False)
    half = FLOW.solve(SMALL, data=data, max_steps=2, seed=3, verify=False)
    rest = FLOW.solve(SMALL, data=data, max_steps=4, seed=3, resume=half, verify=False)
    for a, b in zip(full.module.parameters(), rest.module.parameters(), strict=True):
        assert torch.equal(a, b)
    assert rest.stats.steps == 4 and rest.history.steps == [1, 2, 3, 4]
    other = FLOW.solve(SMALL, data=data, max_steps=1, seed=4, verify=False)
    assert not torch.equal(next(full.module.parameters()), next(other.module.parameters()))
    warm = FLOW.solve(SMALL, data=data, max_steps=0, seed=5, warm_start=full, verify=False)
    assert torch.equal(next(warm.module.parameters()), next(full.module.parameters()))


def test_save_and_load(trained, tmp_path):
    trained.save(tmp_path / "op.pinn")
    again = pk.load(tmp_path / "op.pinn")
    graph = network(9, 99)
    assert np.array_equal(again.predict(graph)[p], trained.predict(graph)[p])
    assert again.status is trained.status and again.error_estimate == trained.error_estimate
    assert str(again) == str(trained) and repr(again.solver) == repr(trained.solver)
    more = FLOW.solve(SMALL, data=networks(16), max_steps=4, resume=again, verify=False)
    assert more.stats.steps == 4


def test_checkpoint_resumes(tmp_path):
    data, path = networks(8), tmp_path / "run.ckpt"
    FLOW.solve(SMALL, data=data, max_steps=2, checkpoint=path, verify=False)
    rest = FLOW.solve(SMALL, data=data, max_steps=3, resume=path, verify=False)
    full = FLOW.solve(SMALL, data=data, max_steps=3, verify=False)
    assert torch.equal(next(rest.module.parameters()), next(full.module.parameters()))


def test_units_change_nothing():
    """Conductances in SI units, pressures in pascals with an offset: the same relative answer."""
    system = pk.GraphSystem(
        FLOW.equations,
        [pk.Fixed(p, 2e5, where="inlet"), pk.Fixed(p, 1e5, where="outlet")],
    )
    plain = FLOW.solve(SMALL, data=networks(8), max_steps=2, verify=False)
    units = system.solve(SMALL, data=networks(8, unit=1e-13), max_steps=2, verify=False)
    a = plain.predict(network(9, 5))[p]
    b = units.predict(network(9, 5, unit=1e-13))[p]
    assert np.allclose(b, 1e5 + 1e5 * a, rtol=1e-7)


def test_what_the_declaration_says_decides_what_is_shown():
    """Homogeneous in k: only ratios. With a source: absolute values. Odd features keep their sign."""
    graphs = networks(2)
    plan = make_plan(FLOW.normal_form, graphs)
    assert plan.relative == ("k",) and plan.shifts and plan.scales and plan.node_inputs == 2
    s, f = pk.node_feature("s"), pk.edge_feature("f", odd=True)
    sourced = pk.GraphSystem(
        [pk.neighbour_sum(k * (p.neighbour - p) + f) + s], [pk.Fixed(p, 0, where="outlet")]
    )
    richer = [
        g.replace(node={"s": np.ones(g.n_nodes)}, edge={"f": np.ones(g.n_edges)}) for g in graphs
    ]
    plan = make_plan(sourced.normal_form, richer)
    assert plan.relative == () and plan.shifts and not plan.scales
    assert plan.node == ("s",) and set(plan.edge) == {"k", "f"} and plan.odd == ("f",)
    assert sourced.solve(SMALL, data=richer, max_steps=1).predict(richer[0])[p].shape == (
        richer[0].n_nodes,
    )


def test_several_fields():
    a, b = pk.node_field("a b")
    system = pk.GraphSystem(
        {
            a: pk.neighbour_sum(k * (a.neighbour - a)) - a + b,
            b: pk.neighbour_sum(b.neighbour - b) - b,
        },
        [pk.Fixed(a, 1, where="inlet"), pk.Fixed(b, 2, where="outlet")],
    )
    op = system.solve(SMALL, data=networks(4), max_steps=2)
    found = op.predict(network(8, 1))
    assert set(found) == {"a", "b"} and found[a][0] == 1 and found[b][4] == 2


def test_bellman_is_learned_on_directed_graphs():
    """Nonlinear, parallel arcs, no fixed value: policy by softmax, rewards on arcs."""
    problem = problems.GraphValueIteration()
    op = problem.solve(SMALL, data=problem.graphs(4, seed=1), max_steps=2)
    (graph,) = problem.graphs(1, seed=2)
    assert op.arguments["normalisation"] == "softmax" and op.arguments["source"] == "message"
    assert op.predict(graph)["V"].shape == (graph.n_nodes,)


def test_given_targets_of_nodes_edges_and_graphs():
    rng = np.random.default_rng(0)
    graphs = [
        g.replace(
            node={"T": rng.normal(size=g.n_nodes)},
            edge={"q": rng.normal(size=(g.n_edges, 2))},
            graph={"total": rng.normal()},
        )
        for g in networks(5)
    ]
    for name, shape in (("T", (9,)), ("q", (18, 2)), ("total", ())):
        op = pk.GraphTarget(name).solve(
            pk.ConvergentGraphSolver(heads=2, hidden=(8,), features=("k",)),
            data=graphs,
            max_steps=2,
        )
        assert op.ok is None and op.status is pk.Status.NO_GROUND_TRUTH
        assert np.shape(op.predict(network(9, 1))[name]) == shape
    by_name = FLOW.solve(SMALL.__class__(heads=2, target="T"), data=graphs, max_steps=1)
    assert by_name.ok is None and by_name.predict(network(9, 1))["T"].shape == (9,)


def test_classes():
    graphs = [g.replace(graph={"label": i % 3}) for i, g in enumerate(networks(6))]
    problem = problems.GraphClassification(classes=3)
    op = problem.solve(pk.ConvergentGraphSolver(heads=2, features=("k",)), data=graphs, max_steps=2)
    found = op.predict(graphs[0])
    assert found["label"] in (0, 1, 2)
    assert found.probabilities.shape == (1, 3) and np.isclose(found.probabilities.sum(), 1)


def test_data_may_be_drawn():
    """A function of a seed: new graphs every `reuse` updates, others for judging."""
    seeds = []

    def draw(seed: int) -> list[pk.Graph]:
        seeds.append(seed)
        return networks(4, seed=seed % 1000)

    solver = pk.ConvergentGraphSolver(heads=2, hidden=(8,), reuse=2, held_out=4)
    op = FLOW.solve(solver, data=draw, max_steps=4)
    assert len(op.errors) == 4 and len(set(seeds)) == len(seeds) == 3
    again = FLOW.solve(solver, data=lambda seed: networks(4, seed=seed % 1000), max_steps=4)
    assert torch.equal(next(op.module.parameters()), next(again.module.parameters()))


def test_a_network_of_ones_own():
    """Baselines are trained on the same batches with the same fixed values."""
    solver = pk.ConvergentGraphSolver(
        network=lambda plan, **kept: GIN(plan.node_inputs, plan.edge_inputs, plan.outputs, **kept)
    )
    op = FLOW.solve(solver, data=networks(8), max_steps=1)
    found = op.predict(network(9, 1))
    assert found[p][0] == 1 and not found.certified
    with pytest.raises(TypeError, match="cannot be written to a file"):
        op.save("never.pinn")


def test_callback_time_limit_and_single_precision():
    stopped = FLOW.solve(SMALL, data=networks(6), callback=lambda info: True)
    assert stopped.status is pk.Status.INTERRUPTED and stopped.stats.steps == 1
    late = FLOW.solve(SMALL, data=networks(6), time_limit=0)
    assert late.stats.stopped_by is pk.Status.TIME_LIMIT and late.stats.steps == 0
    single = FLOW.solve(SMALL, data=networks(6), max_steps=1, dtype=torch.float32)
    assert next(single.module.parameters()).dtype == torch.float32
    assert single.predict(network(9, 1))[p].dtype == np.float64
    picard = FLOW.solve(
        pk.ConvergentGraphSolver(heads=1, factor=0.5, method=Picard()),
        data=networks(3),
        max_steps=1,
    )
    assert picard.predict(network(9, 1)).certified


def test_mistakes_are_named(trained):
    with pytest.raises(ValueError, match="learns from graphs"):
        FLOW.solve(SMALL)
    with pytest.raises(pk.DeclarationError, match="there is no graph to learn from"):
        FLOW.solve(SMALL, data=[])
    with pytest.raises(pk.DeclarationError, match="that is not a Graph"):
        FLOW.solve(SMALL, data=[3])
    with pytest.raises(pk.DeclarationError, match="no edge feature 'k'"):
        FLOW.solve(
            SMALL, data=[pk.Graph([[0], [1]], {"inlet": [True, False], "outlet": [False, False]})]
        )
    with pytest.raises(pk.DeclarationError, match="not every graph has a node or edge feature 'x'"):
        FLOW.solve(pk.ConvergentGraphSolver(features=("x",)), data=networks(2), max_steps=1)
    with pytest.raises(pk.DeclarationError, match="not every graph has a node, edge or graph"):
        pk.GraphTarget("y").solve(SMALL, data=networks(2), max_steps=1)
    with pytest.raises(
        ValueError, match=r"(?s)heads=0.*quantile=2.*features='k'.*no learning rate"
    ):
        pk.ConvergentGraphSolver(
            heads=0,
            quantile=2,
            features="k",  # type: ignore[arg-type]
            optimiser=pk.GaussNewton(),
        )
    with pytest.raises(ValueError, match=r"held_out=3.*leaves none of the 3 graphs"):
        FLOW.solve(pk.ConvergentGraphSolver(held_out=3), data=networks(3), max_steps=1)
    with pytest.raises(TypeError, match="predict takes a Graph or several"):
        trained.predict([3])
    with pytest.raises(KeyError, match="q was not learned; this operator predicts p"):
        trained.predict(network(9, 1))["q"]
    with pytest.raises(pk.DeclarationError, match="no edge feature 'k'"):
        trained.predict(pk.Graph([[0], [1]], {"inlet": [True, False], "outlet": [False, True]}))
    with pytest.raises(ValueError, match="belongs to another problem or solver"):
        pk.GraphTarget("k", of="edge").solve(SMALL, data=networks(2), max_steps=1, resume=trained)
    with pytest.raises(ValueError, match="warm_start has a network of another size"):
        FLOW.solve(
            pk.ConvergentGraphSolver(heads=3), data=networks(2), max_steps=1, warm_start=trained
        )
    t = pk.coords("t")
    y = pk.field("y", t)
    ode = pk.PDESystem([y.diff(t) + y], pk.Interval(t, 0, 1), [pk.Initial(y, 1)])
    assert "learns on graphs" in str(pk.ConvergentGraphSolver().supports(ode))
    with pytest.raises(pk.DeclarationError, match="'a b' is not the name of a feature"):
        pk.GraphTarget("a b")
