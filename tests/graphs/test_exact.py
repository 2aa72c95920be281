"""`SparseFixedPoint`: Kirchhoff, Bellman, power flow; against dense algebra, laws and published values."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import sympy as sp
import torch

import pinnkit as pk
from pinnkit.graphs import pore_network, sparse_solve
from pinnkit.graphs.error_bounds import bound_error, estimate_error, rounding_factor
from pinnkit.graphs.sparse_solve import factorise
from pinnkit.lower.graph_residual import GraphEquations
from pinnkit.problems import PoreNetwork, PowerFlow, ResistorNetwork  # pyright: ignore[reportMissingImports]

EXACT, ROUNDOFF = 1e-12, 1e-10
S = pk.neighbour_sum
p, k, s = pk.node_field("p"), pk.edge_feature("k"), pk.node_feature("s")
LAPLACE = pk.GraphSystem(
    S(k * (p.neighbour - p)), [pk.Fixed(p, 1, where="inlet"), pk.Fixed(p, 0, where="outlet")]
)


def random_graph(n: int = 30, seed: int = 0, *, directed: bool = False) -> pk.Graph:
    """Connected, with parallel edges and a self loop, conductances over two decades."""
    rng = np.random.default_rng(seed)
    path = np.stack([np.arange(n - 1), np.arange(1, n)])
    edges = np.concatenate([path, rng.integers(0, n, (2, 3 * n)), path[:, :2], [[5], [5]]], axis=1)
    if directed:
        edges = np.concatenate([edges, edges[::-1]], axis=1)
    place = np.arange(n)
    return pk.Graph(
        edges,
        node={"inlet": place < 2, "outlet": place >= n - 2, "s": rng.random(n)},
        edge={"k": 10 ** rng.uniform(-1, 1, edges.shape[1]), "w": rng.normal(size=edges.shape[1])},
        directed=directed,
    )


def dense_laplacian(graph: pk.Graph) -> np.ndarray:
    """A[receiver, sender], arc by arc; parallel edges add up."""
    L = np.zeros((graph.n_nodes, graph.n_nodes))
    for j, i, e in zip(*graph.arcs()):
        L[i, j] += graph.edge["k"][e]
        L[i, i] -= graph.edge["k"][e]
    return L


@pytest.mark.parametrize("directed", [False, True])
def test_equals_the_dense_solution(directed):
    """Reference: the same equations written as a dense matrix."""
    graph = random_graph(directed=directed)
    L, fixed = dense_laplacian(graph), graph.node["inlet"] | graph.node["outlet"]
    known = graph.node["inlet"] * 1.0
    free = ~fixed
    expected = known.copy()
    expected[free] = np.linalg.solve(L[np.ix_(free, free)], -L[free] @ known)
    sol = LAPLACE.on(graph).solve(pk.SparseFixedPoint())
    assert np.abs(sol[p] - expected).max() <= EXACT
    assert sol.ok
    assert sol.stats.more["relative_residual"] <= EXACT
    assert sol.error({p: expected}) <= EXACT


@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_proved_bounds_hold(directed, seed):
    """CERTIFIED means proved: against a solution in longer precision every node's error is below its bound."""
    graph = random_graph(20, seed, directed=directed)
    sol = LAPLACE.on(graph).solve()
    assert sol.evidence is pk.Evidence.CERTIFIED
    fixed = graph.node["inlet"] | graph.node["outlet"]
    free, known = ~fixed, graph.node["inlet"] * 1
    L = sp.Matrix(20, 20, lambda i, j: 0)
    for j, i, e in zip(*graph.arcs()):
        weight = sp.Rational(float(graph.edge["k"][e]))
        L[int(i), int(j)] += weight
        L[int(i), int(i)] -= weight
    rows = [int(i) for i in np.flatnonzero(free)]
    columns = [int(i) for i in np.flatnonzero(fixed)]
    right = -L.extract(rows, columns) * sp.Matrix([int(known[c]) for c in columns])
    exact = L.extract(rows, rows).evalf(40).LUsolve(right.evalf(40))
    error = np.array([abs(float(exact[r] - sp.Float(sol[p][i], 40))) for r, i in enumerate(rows)])
    assert (error <= sol.bound(p)[free]).all()
    assert sol.bound(p)[fixed].max() == 0
    assert sol.bound(p).max() <= ROUNDOFF  # and says something


def test_bounds_hold_for_wrong_answers():
    """The bound judges the answer, not the solver: moved answers get bounds that cover the move."""
    graph = random_graph()
    problem = LAPLACE.on(graph)
    truth = problem.solve()[p]
    moved = truth + 1e-3 * np.random.default_rng(0).random(graph.n_nodes) * ~(
        graph.node["inlet"] | graph.node["outlet"]
    )
    verdict = pk.verify(problem, {p: moved})
    assert verdict.evidence is pk.Evidence.CERTIFIED
    off = float(np.linalg.norm(moved - truth) / np.linalg.norm(truth))
    assert off <= verdict.error
    assert not pk.verify(problem, moved, tol=off / 2).ok
    assert pk.verify(problem, {"p": truth}).ok
    wrong = pk.verify(problem, truth + 1)
    assert "fixed values of p are missed" in wrong.reason
    assert not wrong.ok


def test_maximum_principle_and_flow_balance():
    """Values lie between the fixed ones; what enters at the inlet leaves at the outlet."""
    graph = random_graph(60)
    sol = LAPLACE.on(graph).solve()
    assert sol[p].min() >= 0
    assert sol[p].max() <= 1
    entering = sol[S(k * (p - p.neighbour))]
    assert entering[graph.node["inlet"]].sum() == pytest.approx(
        -entering[graph.node["outlet"]].sum(), rel=EXACT
    )
    inside = ~(graph.node["inlet"] | graph.node["outlet"])
    assert np.abs(entering[inside]).max() <= EXACT * entering.max()
    assert np.array_equal(sol.residual()["p"], -entering)


def test_flows_along_edges_have_the_sign_of_the_edge():
    """From row 0 to row 1, summed at nodes they give the divergence."""
    graph = random_graph()
    sol = LAPLACE.on(graph).solve()
    flow = sol.edges(k * (p.neighbour - p))
    sender, receiver = graph.edges
    assert np.allclose(
        flow, graph.edge["k"] * (sol[p][sender] - sol[p][receiver]), rtol=0, atol=1e-14
    )
    into = np.zeros(graph.n_nodes)
    np.add.at(into, receiver, flow)
    np.add.at(into, sender, -flow)
    assert np.allclose(into, sol[S(k * (p.neighbour - p))], rtol=0, atol=EXACT)


def test_renumbering_nodes_changes_nothing():
    """Law: permutation equivariance."""
    graph, order = random_graph(), np.random.default_rng(1).permutation(30)
    one = LAPLACE.on(graph).solve()[p]
    two = LAPLACE.on(graph.permute(order)).solve()[p]
    assert np.abs(two - one[order]).max() <= EXACT


def test_units_change_nothing():
    """Law: conductances and pressures in other units give the same relative error and status."""
    graph = random_graph()
    usual = LAPLACE.on(graph).solve()
    small = LAPLACE.on(graph.replace(edge={"k": 1e-15 * graph.edge["k"]})).solve()
    assert np.abs(small[p] - usual[p]).max() <= EXACT
    assert small.evidence is pk.Evidence.CERTIFIED
    assert small.error_estimate == pytest.approx(usual.error_estimate, rel=1.0)


def test_an_odd_feature_turns_its_sign():
    """A battery in every edge of a ring drives a current round, whatever way the edges are written."""
    emf, v = pk.edge_feature("emf", odd=True), pk.node_field("v")
    ring = pk.GraphSystem(S(k * (v.neighbour - v + emf)), [pk.Fixed(v, 0, where="ground")])
    ground = np.arange(4) == 0
    forward = pk.Graph(
        [[0, 1, 2, 3], [1, 2, 3, 0]],
        node={"ground": ground},
        edge={"k": np.ones(4), "emf": np.ones(4)},
    )
    sol = ring.on(forward).solve()
    assert np.allclose(sol[v], 0, atol=EXACT)
    assert np.allclose(sol.edges(k * (v.neighbour - v + emf)), 1)
    turned = pk.Graph(
        [[0, 2, 2, 3], [1, 1, 3, 0]],
        node={"ground": ground},
        edge={"k": np.ones(4), "emf": [1.0, -1.0, 1.0, 1.0]},
    )
    again = ring.on(turned).solve()
    assert np.allclose(again[v], 0, atol=EXACT)
    assert np.allclose(again.edges(k * (v.neighbour - v + emf)), [1, -1, 1, 1])
    assert np.allclose(sol[S(pk.orientation)], 0)


def test_outgoing_sums_run_over_the_other_end():
    """A Markov chain: p P = p with P[i, j] = w_ij / sum_j w_ij; the out-weight is an outgoing sum."""
    graph = random_graph(directed=True)
    damping = 0.85
    rank = p - damping * S(k * p.neighbour / s.neighbour) - (1 - damping) / graph.n_nodes
    weights = np.zeros(graph.n_nodes)
    np.add.at(weights, graph.edges[0], graph.edge["k"])
    out = pk.GraphSystem(p - S(k, outgoing=True)).on(graph).solve()[p]
    assert np.allclose(out, weights, rtol=EXACT)
    sol = pk.GraphSystem(rank).on(graph.replace(node={"s": weights})).solve()
    assert sol.ok
    assert sol[p].sum() == pytest.approx(1.0, rel=EXACT)
    assert sol[p].min() > 0


def test_an_unknown_number_is_determined_by_a_total():
    """The pressure that drives a given flow is that flow times the resistance of the network."""
    graph, P = random_graph(), pk.parameter("P")
    flow = S(k * (p - p.neighbour))
    resistance = 1 / LAPLACE.on(graph).solve()[flow][graph.node["inlet"]].sum()
    system = pk.GraphSystem(
        S(k * (p.neighbour - p)),
        [
            pk.Fixed(p, P, where="inlet"),
            pk.Fixed(p, 0, where="outlet"),
            pk.Total(flow, 3, where="inlet"),
        ],
    )
    sol = system.on(graph).solve()
    assert sol.parameters[P].value == pytest.approx(3 * resistance, rel=ROUNDOFF)
    assert sol.ok
    assert sol[P * p / P][0] == pytest.approx(3 * resistance, rel=ROUNDOFF)


def test_the_jacobian_is_the_derivative_of_the_residual():
    """Reference: autograd, with every kind of term at once."""
    u, v, P = pk.node_field("u"), pk.node_field("v"), pk.parameter("P", initial=0.3)
    w = pk.edge_feature("w", odd=True)
    system = pk.GraphSystem(
        {
            u: S(k * (u.neighbour**2 - u) * s.neighbour + w * v) * u
            + sp.sin(v) * S(k * u * v.neighbour, outgoing=True) ** 2
            + s
            + P * S(w * pk.orientation * P),
            v: pk.neighbour_max(k * v.neighbour + sp.exp(u)) - v**3 + S(1) * u * s,
        },
        [
            pk.Fixed(u, P * s + 1, where="inlet"),
            pk.Fixed(v, 2, where="outlet"),
            pk.Total(S(k * (u - u.neighbour * v)) * u + P, 1.5, where="inlet"),
        ],
    )
    problem = system.on(random_graph(12))
    equations = GraphEquations(problem.normal_form, problem.graph, problem.binding)
    gen = torch.Generator().manual_seed(0)
    z = torch.randn(equations.n, dtype=torch.float64, generator=gen)
    J = torch.zeros(equations.n, equations.n, dtype=torch.float64)
    J[equations.rows, equations.cols] = equations.entries(z)
    expected = torch.autograd.functional.jacobian(equations.residual, z)
    assert (J - expected).abs().max() <= EXACT * expected.abs().max()  # pyright: ignore
    assert torch.equal(equations.pack(equations.unpack(z)), z)


def test_bellman_is_solved_by_policy_iteration():
    """Newton on a maximum: as long a value iteration gives the same values, and ties do not stop it."""
    V, r = pk.node_field("V"), pk.edge_feature("r")
    rng = np.random.default_rng(0)
    edges = np.stack([rng.integers(0, 40, 240), np.repeat(np.arange(40), 6)])
    graph = pk.Graph(edges, edge={"r": np.round(rng.uniform(-1, 1, 240), 1)}, directed=True)
    sol = pk.GraphSystem(V - pk.neighbour_max(r + 0.9 * V.neighbour)).on(graph).solve()
    values = np.zeros(40)
    for _ in range(400):
        new = np.full(40, -np.inf)
        np.maximum.at(new, edges[1], graph.edge["r"] + 0.9 * values[edges[0]])
        values = new
    assert np.abs(sol[V] - values).max() <= ROUNDOFF
    assert sol.stats.steps <= 15
    assert sol.ok


def test_power_flow_has_the_published_voltages():
    """The IEEE 14-bus case: magnitudes to the printed 1e-3, angles to 0.02 degrees."""
    sol = PowerFlow().solve()
    V, theta = (f for name in ("V", "theta") for f in sol.problem.fields if f.name == name)
    printed = [
        1.06,
        1.045,
        1.01,
        1.019,
        1.02,
        1.07,
        1.062,
        1.09,
        1.056,
        1.051,
        1.057,
        1.055,
        1.05,
        1.036,
    ]
    angles = [
        0,
        -4.98,
        -12.72,
        -10.33,
        -8.78,
        -14.22,
        -13.37,
        -13.36,
        -14.94,
        -15.1,
        -14.79,
        -15.07,
    ]
    assert np.abs(sol[V] - printed).max() <= 1.5e-3
    assert np.abs(np.degrees(sol[theta])[:12] - angles).max() <= 0.03
    assert sol.ok
    assert sol.evidence is pk.Evidence.DEFECT
    assert set(sol.errors) == {"theta", "V"}


def test_no_solution_is_no_success():
    """Beyond the limit of the grid nothing solves the equations, and the status does not pretend."""
    sol = PowerFlow(load=6.0).solve(pk.SparseFixedPoint(newton_steps=30))
    assert not sol.ok
    assert sol.stats.stopped_by is pk.Status.STALLED
    assert sol.error_estimate is None or sol.error_estimate > 1e-3
    with pytest.raises(pk.SolveError, match=r"UNVERIFIED|INACCURATE"):
        PowerFlow(load=6.0).solve(pk.SparseFixedPoint(newton_steps=3), throw=True)


def test_diodes_pass_current_one_way():
    """Kirchhoff holds at every node; against the diodes the current is less by orders of magnitude."""
    forward, backward = ResistorNetwork(diodes=0.9).solve(), ResistorNetwork(voltage=-0.5).solve()
    assert forward.ok
    v = forward.problem.fields[0]
    left = forward.residual()["v"]
    inside = ~(forward.graph.node["source"] | forward.graph.node["ground"])
    assert np.abs(left[inside]).max() <= 1e-12 * np.abs(left).max() + 1e-15
    assert forward[v].max() <= 5.0
    assert forward[v].min() >= 0.0
    assert backward.ok
    assert np.array_equal(forward.graph.components(), np.zeros(64))


def test_newton_is_quadratic_and_scale_free():
    """Law: the correct digits double; multiplying equations by a number changes no step."""
    graph, u = random_graph(), pk.node_field("u")
    equation = S(k * (u.neighbour - u)) - sp.exp(u) + 2
    steps = []
    for scale in (1, sp.Rational(1, 10**9)):
        sol = pk.GraphSystem(scale * equation).on(graph).solve()
        assert sol.ok
        steps.append([x for x in sol.history["step"] if x == x])
    assert steps[0] == pytest.approx(steps[1], rel=1e-3, abs=1e-12)
    last = [x for x in steps[0] if 1e-7 < x < 1e-1]
    assert all(b <= 3 * a**2 for a, b in itertools.pairwise(last))


def test_iterations_and_factors_agree():
    """Conjugate gradients and GMRES against LU, on symmetric and directed graphs, transposed too."""
    for directed in (False, True):
        graph = pore_network(300) if not directed else random_graph(300, directed=True)
        problem = LAPLACE.on(graph)
        one = problem.solve(pk.SparseFixedPoint(direct=True))
        two = problem.solve(pk.SparseFixedPoint(direct=False))
        assert np.abs(one[p] - two[p]).max() <= ROUNDOFF
        assert two.evidence is pk.Evidence.CERTIFIED
        assert two.stats.more["iterations"] > 0
        assert ("conjugate" in two.stats.more["linear"]) != directed
    A = np.diag(np.full(50, 4.0)) + np.diag(np.full(49, -1.0), 1) + np.diag(np.full(48, 0.5), -2)
    b = np.random.default_rng(0).normal(size=(50, 2))
    for direct in (True, False):
        inverse = factorise(A, direct=direct)
        assert np.allclose(inverse.solve(b), np.linalg.solve(A, b), atol=ROUNDOFF)
        assert np.allclose(
            inverse.solve(b[:, 0], "T"), np.linalg.solve(A.T, b[:, 0]), atol=ROUNDOFF
        )


def test_stalled_iterations_fall_back_to_factors(monkeypatch):
    """A long chain, where conjugate gradients would need as many iterations as nodes."""
    monkeypatch.setattr(sparse_solve, "MOST", 20)
    n = 400
    A = 2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)
    inverse = factorise(A, direct=False)
    b = np.ones(n)
    assert np.allclose(inverse.solve(b), np.linalg.solve(A, b), rtol=1e-8)
    assert inverse.kind == "sparse LU factors"
    B = A + 0.1 * np.eye(n, k=3)
    inverse = factorise(B, direct=False)
    assert np.allclose(inverse.solve(b), np.linalg.solve(B, b), rtol=1e-8)


def test_bounds_refuse_what_is_no_m_matrix():
    """A positive entry off the diagonal, or a row that does not dominate: no proof, no bound."""
    good = factorise(np.eye(2)).solve(np.ones(2))
    assert np.array_equal(good, np.ones(2))
    import scipy.sparse

    d = np.full(2, 1e-3)
    for entries, known in (
        ([[2.0, -1.0], [-1.0, 2.0]], True),
        ([[-2.0, 1.0], [1.0, -2.0]], True),
        ([[2.0, 1.0], [-1.0, 2.0]], False),
        ([[1.0, -3.0], [-3.0, 1.0]], False),
        ([[1.0, 0.0], [0.0, -1.0]], False),
    ):
        A = scipy.sparse.csr_matrix(np.array(entries))
        inverse = factorise(A)
        bound = bound_error(A, d, inverse, rounding_factor(A))
        assert (bound is not None) == known
        exact = np.abs(np.linalg.inv(entries)) @ d
        if bound is not None:
            assert (exact <= bound).all()
            assert (bound <= 2.1 * exact).all()
        estimate = estimate_error(d, inverse, slice(0, 2))
        assert exact.max() / 3 <= estimate <= exact.max() * (1 + EXACT)


def test_weights_of_zero_do_not_connect():
    """Two nodes that hang on the rest by nothing have no value, whatever the solver would return."""
    place = np.arange(4)
    graph = pk.Graph(
        [place[:-1], place[1:]],
        node={"inlet": place == 0, "outlet": place == 3},
        edge={"k": [0.0, 1.0, 0.0]},
    )
    with pytest.raises(pk.DeclarationError, match=r"nodes 1 and 2 are .* whose weight is not zero"):
        LAPLACE.on(graph).solve()


def test_singular_systems_are_not_solved():
    """Found only by numbers: p_0 = p_1 twice. The status says so, and the reason why."""
    system = pk.GraphSystem(p - S(p.neighbour))
    sol = system.on(pk.Graph([[0], [1]])).solve()
    assert not sol.ok
    assert "singular" in sol.verification.reason


def test_a_start_outside_the_equations_domain():
    """log at 0 has no value: STALLED with the reason, and the way out is initial=."""
    u = pk.node_field("u")
    bad = pk.GraphSystem(sp.log(u) + S(k * (u.neighbour - u)) - 1).on(random_graph()).solve()
    assert bad.stats.stopped_by is pk.Status.STALLED
    assert "not finite at the start" in bad.verification.reason
    u = pk.node_field("u", initial=1.0)
    assert pk.GraphSystem(sp.log(u) + S(k * (u.neighbour - u)) - 1).on(random_graph()).solve().ok


def test_where_solutions_start():
    """From another solution, and from values; the wrong thing is refused."""
    problem = ResistorNetwork()
    sol = problem.solve()
    again = problem.solve(warm_start=sol)
    assert again.stats.steps <= 2 < sol.stats.steps
    v = problem.fields[0]
    assert problem.solve(warm_start={v: sol[v]}).stats.steps <= 2
    with pytest.raises(TypeError, match="starts from a GraphSolution"):
        problem.solve(warm_start=3)
    with pytest.raises(ValueError, match=r"shape \(3,\), not \(64,\)"):
        problem.solve(warm_start={v: np.ones(3)})


def test_pore_network_is_what_it_says():
    """The gallery's problem: CERTIFIED, between 0 and the drop."""
    problem = PoreNetwork(n=100, seed=3, drop=2.0)
    sol = problem.solve()
    (field,) = problem.fields
    assert sol.evidence is pk.Evidence.CERTIFIED
    assert 0 <= sol[field].min() <= sol[field].max() == 2.0
    assert (
        np.abs(
            problem.system.residual({field: sol[field]})["p"][~problem.system.binding.fixed[field]]
        ).max()
        < 1e-25
    )
