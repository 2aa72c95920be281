"""The solution as a torch function: exact first and second derivatives in every feature."""

from __future__ import annotations

import numpy as np
import pytest
import sympy as sp
import torch

import pinnkit as pk
from pinnkit.graphs import pore_network
from pinnkit.problems import PowerFlow  # pyright: ignore[reportMissingImports]

S = pk.neighbour_sum
p, k, s = pk.node_field("p"), pk.edge_feature("k"), pk.node_feature("s")
ENDS = [pk.Fixed(p, 1, where="inlet"), pk.Fixed(p, 0, where="outlet")]


def square(k_values=(1.0, 2.0, 3.0, 0.5, 1.5)) -> pk.Graph:
    """Five edges on four nodes, inlet 0."""
    return pk.Graph(
        [[0, 1, 2, 0, 1], [1, 2, 3, 3, 3]],
        node={"inlet": np.arange(4) == 0, "outlet": np.arange(4) == 3, "s": np.linspace(1, 2, 4)},
        edge={"k": np.array(k_values)},
    )


@pytest.mark.parametrize("direct", [True, False])
def test_gradient_of_the_flow_is_the_squared_drop(direct):
    """d flow / d k_ij = (p_i - p_j)^2 / drop, on 200 pores, to 1e-8 of the largest; finite differences too."""
    drop, graph = 5.0, pore_network(200, seed=1)
    system = pk.GraphSystem(
        S(k * (p.neighbour - p)),
        [pk.Fixed(p, drop, where="inlet"), pk.Fixed(p, 0, where="outlet")],
    )
    layer = system.on(graph).differentiable(pk.SparseFixedPoint(direct=direct))
    inlet = torch.tensor(graph.node["inlet"])

    def flow(values: torch.Tensor) -> torch.Tensor:
        return layer(edge={"k": values})[S(k * (p - p.neighbour))][inlet].sum()

    values = torch.tensor(graph.edge["k"], requires_grad=True)
    (gradient,) = torch.autograd.grad(flow(values), values)
    pressure = system.on(graph).solve()[p]
    i, j = graph.edges
    expected = (pressure[i] - pressure[j]) ** 2 / drop
    assert np.abs(gradient.numpy() - expected).max() <= 1e-8 * expected.max()
    for e in np.argsort(expected)[-3:]:
        h = 1e-4 * float(values[e].detach())
        step = torch.zeros_like(values)
        step[e] = h
        with torch.no_grad():
            slope = float(flow(values + step) - flow(values - step)) / (2 * h)
        assert slope == pytest.approx(expected[e], rel=1e-6)


def test_derivatives_of_linear_systems():
    """gradcheck and gradgradcheck in conductances, sources and fixed values."""
    system = pk.GraphSystem(
        S(k * (p.neighbour - p)) + s**2,
        [pk.Fixed(p, sp.sin(s), where="inlet"), pk.Fixed(p, 0, where="outlet")],
    )
    layer, graph = system.on(square()).differentiable(), square()

    def fields(kk: torch.Tensor, ss: torch.Tensor) -> torch.Tensor:
        return layer(edge={"k": kk}, node={"s": ss})[p]

    given = [torch.tensor(v, requires_grad=True) for v in (graph.edge["k"], graph.node["s"])]
    assert torch.autograd.gradcheck(fields, given)
    assert torch.autograd.gradgradcheck(fields, given, fast_mode=True)


def test_derivatives_of_nonlinear_systems():
    """The same for Newton's solution, with an unknown number and flows along edges."""
    P = pk.parameter("P", initial=1.0)
    system = pk.GraphSystem(
        S(k * (p.neighbour - p) ** 3 + k * (p.neighbour - p)) - sp.exp(p) * s / 10,
        [
            pk.Fixed(p, P, where="inlet"),
            pk.Fixed(p, 0, where="outlet"),
            pk.Total(S(k * (p - p.neighbour)), 2, where="inlet"),
        ],
    )
    layer, graph = system.on(square()).differentiable(), square()

    def everything(kk: torch.Tensor) -> torch.Tensor:
        found = layer(edge={"k": kk})
        flows = found.edges(k * (p.neighbour - p))
        return torch.stack([found[p][1] * found[p][2], flows.square().sum(), found.parameters[P]])

    values = torch.tensor(graph.edge["k"], requires_grad=True)
    assert torch.autograd.gradcheck(everything, (values,))
    assert torch.autograd.gradgradcheck(everything, (values,), fast_mode=True)


def test_values_are_those_of_the_solver():
    """Same numbers as `solve`, for a problem class with several fields."""
    problem = PowerFlow()
    sol, found = problem.solve(), problem.system.differentiable()()
    for field in problem.fields:
        assert np.abs(found[field].numpy() - sol[field]).max() <= 1e-12


def test_single_precision_comes_out_as_it_went_in():
    system = pk.GraphSystem(S(k * (p.neighbour - p)), ENDS)
    layer = system.on(square()).differentiable()
    values = torch.ones(5, dtype=torch.float32, requires_grad=True)
    found = layer(edge={"k": values})[p]
    assert found.dtype == torch.float32
    (gradient,) = torch.autograd.grad(found.sum(), values)
    assert gradient.dtype == torch.float32
    exact = layer(edge={"k": values.double()})[p]
    assert (found - exact).abs().max() <= 1e-6


@pytest.mark.gpu
def test_features_on_an_accelerator():
    layer = pk.GraphSystem(S(k * (p.neighbour - p)), ENDS).on(square()).differentiable()
    values = torch.ones(5, dtype=torch.float64)
    there = layer(edge={"k": values.cuda()})[p]
    assert there.is_cuda
    assert (there.cpu() - layer(edge={"k": values})[p]).abs().max() <= 1e-12


def test_wrong_features_are_refused_in_words():
    layer = pk.GraphSystem(S(k * (p.neighbour - p)), ENDS).on(square()).differentiable()
    good = torch.ones(5, dtype=torch.float64)
    for given, kind, message in (
        ({"edge": {"g": good}}, ValueError, "has no such feature; it has k"),
        ({"edge": {"k": good[:3]}}, ValueError, r"shape \(3,\), the graph's feature has \(5,\)"),
        ({"edge": {"k": [1.0]}}, TypeError, "give a floating-point tensor"),
        ({"edge": {"k": good}, "node": {"s": torch.ones(4)}}, ValueError, "one device and dtype"),
    ):
        with pytest.raises(kind, match=message):
            layer(**given)
    with pytest.raises(pk.DeclarationError, match="is not among the fields"):
        layer()[pk.node_field("q")]
    with pytest.raises(TypeError, match="takes SparseFixedPoint"):
        pk.GraphSystem(S(k * (p.neighbour - p)), ENDS).on(square()).differentiable(pk.CausalPINN())


def test_no_solution_is_an_error():
    """A layer cannot return a status: Newton's failure raises."""
    layer = pk.GraphSystem(p**2 + 1 + 0 * S(k * p)).on(square()).differentiable()
    with pytest.raises(pk.SolveError, match=r"STALLED|singular"):
        layer()
