"""The step on the rows: Cholesky's where that is exact, and right where J^T J has lost the digits."""

import math

import pytest
import torch

from pinnkit.train.gauss_newton import GaussNewton
from pinnkit.train.least_squares import RowSystem

ROUNDOFF = 1e-10


class Linear:
    """r = A theta - b."""

    def __init__(self, a: torch.Tensor, b: torch.Tensor) -> None:
        self.a, self.b = a, b
        self.shapes = [(a.shape[1],)]

    def residual(self, theta):
        return self.a @ theta - self.b

    def rows(self, theta):
        return self.residual(theta), self.a

    def gradient(self, theta):
        r = self.residual(theta)
        return float(r @ r), 2 * self.a.T @ r


def draw(n, p, seed=0):
    gen = torch.Generator().manual_seed(seed)
    a = torch.randn(n, p, generator=gen, dtype=torch.float64)
    return a, torch.randn(n, generator=gen, dtype=torch.float64)


@pytest.mark.parametrize("shape", [(40, 15), (12, 30)])
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_well_conditioned_step_equals_the_one_from_cholesky(shape, momentum):
    """A loss above 1 leaves mu as it is."""
    model = Linear(*draw(*shape))
    theta, previous = draw(shape[1], shape[1], seed=1)[0][0], draw(shape[1], shape[1], seed=2)[1]
    assert float(model.residual(theta).square().sum()) > 1.0
    ends = []
    for space in ("parameters", "rows"):
        method = GaussNewton(space=space, momentum=momentum, damping=1e-2)
        memory = method.init(theta)
        memory["previous"] = previous
        method.step(model, memory)
        ends.append(memory["theta"])
    assert torch.allclose(ends[0], ends[1], rtol=0, atol=ROUNDOFF)


def test_rows_reach_residuals_that_the_normal_equations_lose():
    """Singular values from 1 to 1e-11: those below 1e-8 are rounding in J^T J."""
    a, _ = draw(60, 20)
    u, _, v = torch.linalg.svd(a, full_matrices=False)
    values = torch.logspace(0, -11, 20, dtype=torch.float64)
    model = Linear(u @ torch.diag(values) @ v, u @ values)
    losses = {}
    for space in ("parameters", "rows"):
        method = GaussNewton(space=space, momentum=0.0, less=10.0)
        memory = method.init(torch.zeros(20, dtype=torch.float64))
        for _ in range(40):
            method.step(model, memory)
        losses[space] = float(model.residual(memory["theta"]).norm())
    assert losses["rows"] < 1e-13
    assert losses["parameters"] > 1e3 * losses["rows"]


def test_step_is_the_damped_minimiser_of_its_loss():
    a, b = draw(9, 4)
    r, start, mu = 1e-2 * b, 1e-2 * b[:4], 0.5
    step = RowSystem(r, a).solve(mu, start)
    assert step is not None
    damping = mu * float(r @ r)  # below 1, so the loss scales it
    matrix = a.T @ a + damping * torch.eye(4, dtype=torch.float64)
    naive = torch.linalg.solve(matrix, damping * start - a.T @ r)
    assert torch.allclose(step, naive, rtol=0, atol=1e-12)


def test_rows_that_are_not_finite_give_no_step():
    a, b = draw(6, 3)
    a[0, 0] = math.inf
    assert RowSystem(b, a).solve(1.0, torch.zeros(3, dtype=torch.float64)) is None
    method = GaussNewton(space="rows")
    memory = method.init(torch.zeros(3, dtype=torch.float64))
    report = method.step(Linear(torch.where(torch.isinf(a), 1.0, a), b), memory)
    assert report.accepted


def test_a_sketch_of_the_rows_is_refused():
    with pytest.raises(ValueError, match="sketch works in sample space"):
        GaussNewton(space="rows", sketch=3)
