"""Certificates: the stated factor bounds the contraction seen, the stated error the true one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pinnkit.graphs import contracting_weights, linear_fixed_point
from pinnkit.implicit import Anderson, Picard
from tests.graphs.shapes import dense, normal, some_arcs


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("max_steps", [2, 40])
def test_true_error_is_below_the_bound(dtype, max_steps):
    """8 random graphs, weights and factors, converged or not; truth in double precision by LU."""
    rng = np.random.default_rng(0)
    for seed in range(8):
        arcs = some_arcs(seed, sizes=(int(rng.integers(1, 25)), 6), per_node=4)
        factor = float(rng.choice([0.3, 0.9, 0.999]))
        logits = 4 * normal(seed, arcs.n_arcs, 2)
        weights = (factor * contracting_weights(arcs, logits).weights).to(dtype)
        bias = (10.0 ** rng.uniform(-8, 8) * normal(seed, arcs.n_nodes, 2)).to(dtype)
        h, record = linear_fixed_point(
            arcs, weights, bias, solver=Picard() if seed % 2 else Anderson(), max_steps=max_steps
        )
        system = torch.eye(arcs.n_nodes, dtype=torch.float64) - dense(arcs, weights.double())
        truth = torch.linalg.solve(system, bias.double().T[..., None])[..., 0].T
        off = (h.double() - truth).abs()
        for g in range(2):
            error = off[arcs.node_graph == g].amax(0)
            assert record.certified[g].all()
            assert (error <= record.error[g].double()).all()


def test_one_sweep_contracts_by_the_factor():
    """|W (x - y)| <= gamma |x - y| in the largest norm, for weights of every kind."""
    for seed, kind in enumerate(["degree", "softmax", "conductance"] * 10):
        arcs = some_arcs(seed, sizes=(15,), undirected=kind == "conductance")
        logits = 5 * normal(seed, arcs.n_arcs, 3)
        weights = 0.97 * contracting_weights(arcs, logits, normalisation=kind).weights
        d = normal(seed + 1, 15, 3)
        moved = arcs.sum(weights * d[arcs.senders]).abs().amax(0)
        assert (moved <= 0.97 * (1 + 1e-14) * d.abs().amax(0)).all()


def test_weights_that_do_not_contract_are_not_certified():
    """Row sums of 1 and more: solved if it converges, but nothing is proved."""
    arcs = some_arcs(undirected=True)
    found = contracting_weights(arcs, normal(0, arcs.n_arcs, 1))
    _, record = linear_fixed_point(arcs, 1.5 * found.weights, normal(1, 7, 1), max_steps=50)
    assert not record.certified.any() and torch.isinf(record.error).all()


def test_a_tight_answer_has_a_tight_bound():
    """At a residual of rounding the bound is rounding over (1 - gamma), not more than 1e3 of it."""
    arcs = some_arcs(sizes=(50,))
    weights = 0.9 * contracting_weights(arcs, normal(0, arcs.n_arcs, 1)).weights
    h, record = linear_fixed_point(arcs, weights, normal(1, 50, 1), rtol=1e-15)
    assert float(record.error.max()) < 1e-11 * float(h.abs().max())
