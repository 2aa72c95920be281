"""Speeds of convergence, and memory that does not grow with the iteration."""

from __future__ import annotations

import math

import pytest
import torch

from pinnkit.implicit import (
    GMRES,
    Anderson,
    Broyden,
    Exact,
    LevenbergMarquardt,
    Newton,
    Picard,
    Unrolled,
    fixed_point,
    least_squares,
    root,
)
from tests.implicit.cases import affine_map, cardano, contraction, cubic, normal


def errors_after(door, steps, exact, *args, **options):
    return [
        (door(*args, max_steps=k, rtol=0.0, **options)[0] - exact).abs().max().item() for k in steps
    ]


def order(errors):
    """Slope of log e_{k+1} over log e_k, from the last three errors."""
    a, b, c = (math.log(e) for e in errors[-3:])
    return (c - b) / (b - a)


def test_newton_is_quadratic():
    a = torch.tensor([6.0], dtype=torch.float64)
    errors = errors_after(root, [2, 3, 4], cardano(a), cubic, torch.full_like(a, 1.2), a)
    assert errors[-1] > 1e-14 and order(errors) == pytest.approx(2, abs=0.3)


def test_broyden_is_the_secant_method_for_one_unknown():
    """Order (1 + sqrt 5) / 2."""
    a = torch.tensor([6.0], dtype=torch.float64)
    errors = errors_after(
        root, [4, 5, 6], cardano(a), cubic, torch.full_like(a, 1.2), a, solver=Broyden()
    )
    assert errors[-1] > 1e-14 and order(errors) == pytest.approx(1.618, abs=0.3)


def test_levenberg_marquardt_is_quadratic_at_zero_residual():
    a = torch.tensor([6.0], dtype=torch.float64)
    errors = errors_after(
        least_squares,
        [2, 3, 4],
        cardano(a),
        cubic,
        torch.full_like(a, 1.2),
        a,
        solver=LevenbergMarquardt(damping=0.0),
    )
    assert errors[-1] > 1e-14 and order(errors) == pytest.approx(2, abs=0.3)


def test_newton_krylov_takes_few_more_steps_than_newton():
    """Inner residuals of 1e-3: each step gains at least that."""
    w, b = 2 * contraction(5, 1.0), normal(2, 5, seed=1)

    def equations(z, w, b):
        return z + torch.tanh(z @ w.T) / 3 - b

    _, exact = root(equations, torch.zeros_like(b), w, b)
    _, krylov = root(equations, torch.zeros_like(b), w, b, solver=Newton(linear=GMRES()))
    assert krylov.converged.all()
    assert (krylov.iterations - exact.iterations).max() <= 3


def test_picard_is_linear_with_the_factor_of_the_map():
    """One sample, A = 0.7: each step multiplies the error by 0.7."""
    a = torch.tensor([[0.7]], dtype=torch.float64)
    b = torch.ones(1, 1, dtype=torch.float64)
    e = errors_after(
        fixed_point, [10, 20], 1 / 0.3, affine_map, torch.zeros_like(b), a, b, solver=Picard()
    )
    assert (e[1] / e[0]) ** 0.1 == pytest.approx(0.7, rel=1e-6)


@pytest.mark.parametrize("solver", [Anderson(), Broyden()], ids=str)
def test_acceleration_beats_picard(solver):
    """A contraction by 0.95 in ten unknowns."""
    a, b = contraction(10, 0.95, seed=5), normal(2, 10)
    a = 0.5 * (a + a.T) * 0.95 / torch.linalg.matrix_norm(0.5 * (a + a.T), 2)
    counts = [
        fixed_point(affine_map, torch.zeros_like(b), a, b, solver=s, max_steps=2000)[1]
        for s in (Picard(), solver)
    ]
    assert all(record.converged.all() for record in counts)
    assert 3 * counts[1].iterations.max() < counts[0].iterations.max()


def graph_of(**options):
    """(nodes of the graph behind the solution, numbers its own node saved, iterations)."""
    a = torch.tensor([[0.9]], dtype=torch.float64, requires_grad=True)
    b = torch.ones(5, 1, dtype=torch.float64, requires_grad=True)
    z, record = fixed_point(
        lambda z, a, b: torch.sin(a * z) + b,
        torch.zeros(5, 1, dtype=torch.float64),
        a,
        b,
        solver=Picard(damping=0.2),
        max_steps=1000,
        **options,
    )
    seen, ahead = set(), [z.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is not None and node not in seen:
            seen.add(node)
            ahead += [before for before, _ in node.next_functions]
    own = getattr(z.grad_fn, "saved_tensors", ())
    return len(seen), sum(x.numel() for x in own), int(record.iterations.max())


def test_memory_is_independent_of_the_iterations():
    """Exact: one node that holds the solution and the parameters; unrolled: every step."""
    few = graph_of(backward=Exact(), rtol=1e-2)
    many = graph_of(backward=Exact(), rtol=1e-12)
    assert many[2] > 3 * few[2]
    assert few[:2] == many[:2] == (3, 5 + 1 + 5)  # itself, and one node per parameter
    assert graph_of(backward=Unrolled(), rtol=1e-2)[0] > 4 * few[2]
