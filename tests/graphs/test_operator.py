"""The sparse fixed point of all heads, against dense linear algebra written out here."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pinnkit.graphs import (
    Arcs,
    ContractionFactor,
    Operator,
    contracting_weights,
    eliminate_held,
    linear_fixed_point,
)
from pinnkit.implicit import CG, GMRES, Anderson, ConvergenceError, Newton, Picard
from tests.graphs.shapes import EXACT, ITERATIVE, ROUNDOFF, dense, dense_solve, normal, some_arcs

TIGHT: dict[str, Any] = {"rtol": 1e-13}


def equation(arcs: Arcs, heads: int, factor: float, kind: str, seed: int = 0) -> tuple:
    logits = normal(seed, arcs.n_arcs, heads)
    found = contracting_weights(arcs, logits, normalisation=kind)
    return Operator(factor * found.weights, found.balance), normal(seed + 1, arcs.n_nodes, heads)


@pytest.mark.parametrize("kind", ["degree", "softmax", "conductance"])
def test_weights_are_substochastic_with_parallel_arcs_counted_each(kind):
    """Row sums are at most 1, exactly 1 for a softmax without leak, 0 at lonely nodes."""
    arcs = some_arcs(sizes=(9, 4), undirected=kind == "conductance")
    weights = contracting_weights(arcs, 3 * normal(0, arcs.n_arcs, 2), normalisation=kind).weights
    sums = arcs.sum(weights)
    assert (weights > 0).all() and sums.max() <= 1 + EXACT
    assert (sums[[8, 12]] == 0).all()
    if kind != "degree":
        assert torch.allclose(sums[arcs.indegree > 0], torch.ones(1, dtype=sums.dtype), atol=EXACT)
        leaky = contracting_weights(
            arcs, normal(0, arcs.n_arcs, 2), normalisation=kind, leak=normal(1, 2)
        )
        assert arcs.sum(leaky.weights).max() < 1


def test_conductances_are_balanced():
    """d_r W[r, s] is symmetric: the same conductance in both directions."""
    arcs = some_arcs(undirected=True)
    found = contracting_weights(arcs, normal(0, arcs.n_arcs, 2), normalisation="conductance")
    assert found.balance is not None
    matrix = found.balance.T[..., None] * dense(arcs, found.weights)
    assert torch.allclose(matrix, matrix.mT, atol=EXACT)


@pytest.mark.parametrize("solver", [Picard(), Anderson(), GMRES(), CG()])
def test_every_method_finds_what_dense_elimination_finds(solver):
    """Graphs of very different sizes side by side, three heads, gamma = 0.9."""
    arcs = some_arcs(sizes=(3, 40, 1, 12), undirected=True)
    operator, bias = equation(arcs, 3, 0.9, "conductance")
    balance = operator.balance if isinstance(solver, CG) else None
    h, record = linear_fixed_point(
        arcs, operator.weights, bias, solver=solver, balance=balance, **TIGHT
    )
    assert record.converged.all() and record.converged.shape == (4, 3)
    assert torch.allclose(h, dense_solve(arcs, operator, bias), atol=ROUNDOFF)


def test_gradients_are_those_of_the_inverse():
    """dL/dw and dL/db of a nonlinear function of h, against autograd through dense LU, 1e-10."""
    arcs = some_arcs(sizes=(7, 5))
    operator, bias = equation(arcs, 3, 0.9, "softmax")
    inputs = [operator.weights.requires_grad_(), bias.requires_grad_()]
    h, _ = linear_fixed_point(arcs, *inputs, **TIGHT)
    ours = torch.autograd.grad(h.sin().sum(), inputs)
    theirs = torch.autograd.grad(dense_solve(arcs, operator, bias).sin().sum(), inputs)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=ROUNDOFF)


@pytest.mark.parametrize("kind", ["degree", "conductance"])
def test_differentiable_twice(kind):
    """gradcheck and gradgradcheck from logits to states, parallel arcs, gamma = 0.7."""
    arcs = some_arcs(sizes=(4,), per_node=2, undirected=kind == "conductance")

    def states(logits, bias):
        found = contracting_weights(arcs, logits, normalisation=kind)
        return linear_fixed_point(
            arcs, 0.7 * found.weights, bias, balance=found.balance, rtol=1e-14
        )[0]

    inputs = (
        normal(0, arcs.n_arcs, 1).requires_grad_(),
        normal(1, arcs.n_nodes, 1).requires_grad_(),
    )
    assert torch.autograd.gradcheck(states, inputs)
    assert torch.autograd.gradgradcheck(states, inputs, atol=1e-6, fast_mode=True)


@pytest.mark.parametrize("solver", [Anderson(), CG()])
def test_a_batch_is_its_graphs_one_by_one(solver):
    """Every graph and head stops by itself: values, iterations and gradients, 1e-10."""
    sizes = (3, 40, 12)
    arcs = some_arcs(sizes=sizes, undirected=True)
    operator, bias = equation(arcs, 2, 0.95, "conductance")
    balance = operator.balance if isinstance(solver, CG) else None
    weights = operator.weights.requires_grad_()
    h, record = linear_fixed_point(arcs, weights, bias, solver=solver, balance=balance)
    (gradient,) = torch.autograd.grad(h.square().sum(), weights)
    scale = float(gradient.abs().max())
    for g in range(len(sizes)):
        nodes = (arcs.node_graph == g).nonzero()[:, 0]
        mine = (arcs.node_graph[arcs.receivers] == g).nonzero()[:, 0]
        first = nodes[0]
        alone = Arcs(arcs.senders[mine] - first, arcs.receivers[mine] - first, len(nodes))
        part = weights[mine].detach().requires_grad_()
        h1, record1 = linear_fixed_point(
            alone,
            part,
            bias[nodes],
            solver=solver,
            balance=None if balance is None else balance[nodes],
        )
        assert torch.allclose(h1, h[nodes], atol=ROUNDOFF, rtol=0)
        assert torch.equal(record1.iterations[0], record.iterations[g])
        (gradient1,) = torch.autograd.grad(h1.square().sum(), part)
        assert torch.allclose(gradient1, gradient[mine], rtol=ROUNDOFF, atol=ROUNDOFF * scale)


def test_batch_mates_do_not_choose_the_method():
    """Slow and fast samples in one batch, the method left open: each is found as it is alone, digit by digit."""
    arcs = some_arcs(sizes=(12, 12))
    factor = torch.where(arcs.node_graph[arcs.receivers] == 0, 0.5, 0.99)[:, None].double()
    weights = factor * contracting_weights(arcs, normal(0, arcs.n_arcs, 1)).weights
    bias = normal(1, 24, 1)
    together, record = linear_fixed_point(arcs, weights, bias)
    assert record.converged.all() and record.iterations[0] != record.iterations[1]
    for g, rows in enumerate((slice(0, 12), slice(12, 24))):
        mine = arcs.node_graph[arcs.receivers] == g
        part = Arcs(arcs.senders[mine] - 12 * g, arcs.receivers[mine] - 12 * g, 12)
        alone, found = linear_fixed_point(part, weights[mine], bias[rows])
        assert torch.equal(alone, together[rows])
        assert torch.equal(found.iterations[0], record.iterations[g])


@pytest.mark.parametrize("size", [1e-44, 1e-30, 1e30])
@pytest.mark.parametrize("kind", ["softmax", "conductance"])
def test_gradients_of_any_size_are_found(kind, size):
    """Gradients that vanish, as those of graphs classified beyond doubt, are solved for in few steps."""
    arcs = some_arcs(sizes=(12,), undirected=True)
    found = contracting_weights(arcs, normal(0, arcs.n_arcs, 1).float(), normalisation=kind)
    bias = torch.full((12, 1), size, dtype=torch.float32, requires_grad=True)
    h, record = linear_fixed_point(arcs, 0.9 * found.weights, bias, balance=found.balance)
    assert record.converged.all() and record.iterations.max() < 40
    (grad,) = torch.autograd.grad(h.sum(), bias, torch.tensor(size))
    # Rows add up to 0.9, but at the node without arcs: h = b / (1 - 0.9), and so does its adjoint's sum.
    assert torch.allclose(h[:-1] / size, torch.full_like(h[:-1], 10.0), rtol=0.2)
    assert abs(float((grad / size).sum()) - (11 * 10 + 1)) < 0.2 * 111


def test_renumbering_nodes_renumbers_the_answer():
    arcs = some_arcs(sizes=(11,))
    operator, bias = equation(arcs, 2, 0.8, "softmax")
    order = torch.randperm(11, generator=torch.Generator().manual_seed(0))
    new = torch.argsort(order)
    turned = Arcs(new[arcs.senders], new[arcs.receivers], 11)
    h, _ = linear_fixed_point(arcs, operator.weights, bias)
    again, _ = linear_fixed_point(turned, operator.weights, bias[order])
    assert torch.allclose(again, h[order], atol=ROUNDOFF)


def test_held_nodes_keep_their_value_and_symmetry_survives():
    """Elimination gives what rows of zeros at held nodes give, and CG still applies."""
    arcs = some_arcs(sizes=(12, 6), undirected=True)
    operator, bias = equation(arcs, 2, 0.99, "conductance")
    held = torch.zeros(18, dtype=torch.bool)
    held[[0, 3, 13]] = True
    cut = Operator(operator.weights * ~held[arcs.receivers, None])
    expected = dense_solve(arcs, cut, bias)
    inner, given = eliminate_held(arcs, operator, bias, held)
    h, record = linear_fixed_point(
        arcs, inner.weights, given, balance=inner.balance, solver=CG(), **TIGHT
    )
    assert record.converged.all()
    assert torch.allclose(h[held], bias[held], atol=EXACT)
    assert torch.allclose(h, expected, atol=ITERATIVE)


def test_jacobi_splitting_is_an_oracle_for_the_harmonic_problem():
    """Weights k / (sum of k) at free nodes give the pressures of a direct solve: 1e-8, gamma = 1."""
    arcs = some_arcs(sizes=(30,), per_node=4, undirected=True)
    k = torch.rand(
        arcs.n_arcs // 2, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    k = torch.cat([k, k]) + 0.1
    found = contracting_weights(arcs, k.log(), normalisation="conductance")
    held = torch.zeros(30, dtype=torch.bool)
    held[[0, 5, 29]] = True
    bias = torch.zeros(30, 1, dtype=torch.float64)
    bias[0] = 1.0
    inner, given = eliminate_held(arcs, found, bias, held)
    h, record = linear_fixed_point(
        arcs, inner.weights, given, balance=inner.balance, solver=CG(), rtol=1e-12
    )
    laplacian = torch.diag(arcs.sum(k)[:, 0]) - dense(arcs, k)[0]
    free = ~held
    expected = bias[:, 0].clone()
    expected[free] = torch.linalg.solve(
        laplacian[free][:, free], -laplacian[free][:, held] @ bias[held, 0]
    )
    assert record.converged.all()
    assert torch.allclose(h[:, 0], expected, atol=ITERATIVE)
    assert h.min() >= 0 and h.max() <= 1  # the maximum principle


@pytest.mark.parametrize("learned", ["fixed", "shared", "heads"])
def test_contraction_factors(learned):
    factor = ContractionFactor(3, 0.5, learned=learned, largest=0.9)
    assert torch.allclose(factor(), torch.full((3,), 0.5, dtype=torch.float64))
    count = sum(p.numel() for p in factor.parameters())
    assert count == {"fixed": 0, "shared": 1, "heads": 3}[learned]
    if learned != "fixed":
        torch.nn.init.constant_(factor.theta, 50.0)
        assert factor().max() <= 0.9


def test_memory_is_linear_in_the_arcs():
    """2e4 nodes and 8e4 arcs, solved and differentiated: a dense matrix would take 3.2 GB."""
    n = 20_000
    ring = torch.arange(n)
    senders = torch.cat([ring, ring, (ring + 1) % n, (ring + 7) % n])
    receivers = torch.cat([(ring + 1) % n, (ring + 7) % n, ring, ring])
    arcs = Arcs(senders, receivers, n)
    logits = normal(0, 4 * n, 1).requires_grad_()
    weights = 0.5 * contracting_weights(arcs, logits).weights
    h, record = linear_fixed_point(arcs, weights, normal(1, n, 1))
    h.square().sum().backward()
    assert record.converged.all() and record.certified.all()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all() and logits.grad.abs().max() > 0


def test_graphs_without_arcs_or_nodes():
    """h = b at lonely nodes; a graph without nodes has converged."""
    none = torch.zeros(0, dtype=torch.int64)
    arcs = Arcs(none, none, 3, torch.tensor([0, 0, 2]))
    bias = normal(0, 3, 2)
    weights = contracting_weights(arcs, normal(1, 0, 2)).weights
    h, record = linear_fixed_point(arcs, weights, bias.requires_grad_())
    assert torch.equal(h, bias) and record.converged.all() and record.error.shape == (3, 2)
    assert torch.equal(torch.autograd.grad(h.sum(), bias)[0], torch.ones_like(bias))


def test_an_answer_that_was_not_reached_is_said_to_be_so():
    arcs = some_arcs(sizes=(30,))
    operator, bias = equation(arcs, 1, 0.999, "softmax")
    _, record = linear_fixed_point(arcs, operator.weights, bias, max_steps=3)
    assert not record.converged.any() and (record.iterations == 3).all()
    with pytest.raises(ConvergenceError, match="1 of 1 samples did not converge in 3 iterations"):
        linear_fixed_point(arcs, operator.weights, bias, max_steps=3, throw=True)


def test_mistakes_are_named():
    arcs = some_arcs(undirected=True)
    operator, bias = equation(arcs, 2, 0.9, "conductance")
    weights = operator.weights
    with pytest.raises(
        ValueError, match=r"weights have the shape \(3, 2\); expected \(42, heads\)"
    ):
        linear_fixed_point(arcs, weights[:3], bias)
    with pytest.raises(ValueError, match=r"bias has the shape \(7, 1\); expected \(7, 2\)"):
        linear_fixed_point(arcs, weights, bias[:, :1])
    with pytest.raises(ValueError, match=r"weights are torch\.float64 and bias is torch\.float32"):
        linear_fixed_point(arcs, weights, bias.float())
    with pytest.raises(ValueError, match="must be finite"):
        linear_fixed_point(arcs, weights, bias / 0)
    with pytest.raises(
        TypeError, match=r"Newton.*use Picard\(\), Anderson\(\), CG\(\) or GMRES\(\)"
    ):
        linear_fixed_point(arcs, weights, bias, solver=Newton())
    with pytest.raises(ValueError, match=r"CG\(\) needs a symmetric system: give balance="):
        linear_fixed_point(arcs, weights, bias, solver=CG())
    with pytest.raises(ValueError, match="the weights are not balanced"):
        linear_fixed_point(arcs, weights, bias, solver=CG(), balance=operator.balance**2)
    with pytest.raises(ValueError, match="balance must be positive"):
        linear_fixed_point(arcs, weights, bias, balance=-operator.balance)
    with pytest.raises(ValueError, match="rtol=2 must lie in"):
        linear_fixed_point(arcs, weights, bias, rtol=2)
    with pytest.raises(ValueError, match="not those of an undirected graph"):
        contracting_weights(some_arcs(), normal(0, 21, 1), normalisation="conductance")
    with pytest.raises(ValueError, match="'row' must be one of degree, softmax, conductance"):
        contracting_weights(arcs, normal(0, 42, 1), normalisation="row")
    with pytest.raises(ValueError, match="drop leak"):
        contracting_weights(arcs, normal(0, 42, 1), normalisation="degree", leak=normal(0, 1))
    with pytest.raises(ValueError, match=r"(?s)learned='all'.*largest=1.*start=2"):
        ContractionFactor(2, 2, learned="all", largest=1)
    ends = torch.tensor([0, 1])
    with pytest.raises(ValueError, match="receivers hold numbers from 0 to 5"):
        Arcs(ends, torch.tensor([0, 5]), 2)
    with pytest.raises(ValueError, match="senders must be a tensor of node numbers"):
        Arcs(ends.float(), ends, 2)
    with pytest.raises(ValueError, match="an arc joins nodes of different graphs"):
        Arcs(ends, ends.flip(0), 2, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="must name the graph of each of the 2 nodes"):
        Arcs(ends, ends, 2, torch.tensor([1, 0]))
