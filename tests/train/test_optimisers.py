"""Optimisers against their algebra: equal spaces, the secant equation, the least-squares optimum."""

import math

import pytest
import torch

from pinnkit.train.adam import Adam
from pinnkit.train.gauss_newton import GaussNewton
from pinnkit.train.self_scaled_broyden import SelfScaledBroyden, broyden_update

ROUNDOFF = 1e-10


class Linear:
    """r = A theta - b."""

    def __init__(self, n: int, p: int, seed: int = 0) -> None:
        gen = torch.Generator().manual_seed(seed)
        self.a = torch.randn(n, p, generator=gen, dtype=torch.float64)
        self.b = torch.randn(n, generator=gen, dtype=torch.float64)

    def residual(self, theta):
        return self.a @ theta - self.b

    def rows(self, theta):
        return self.residual(theta), self.a

    def gradient(self, theta):
        r = self.residual(theta)
        return float(r @ r), 2 * self.a.T @ r


class Rosenbrock:
    """r = (10 (y - x^2), 1 - x) in pairs: the narrow valley."""

    def __init__(self, pairs: int = 1) -> None:
        self.pairs = pairs

    def residual(self, theta):
        x, y = theta.view(self.pairs, 2).unbind(1)
        return torch.cat([10 * (y - x**2), 1 - x])

    def rows(self, theta):
        return self.residual(theta), torch.func.jacrev(self.residual)(theta)

    def gradient(self, theta):
        r, rows = self.rows(theta)
        return float(r @ r), 2 * rows.T @ r


def start(n, seed=1):
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(12, 30), (40, 15)])
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_both_spaces_give_the_same_step(shape, momentum):
    """Woodbury: (J'J + mu)^-1 J' = J' (JJ' + mu)^-1, with momentum too."""
    model, theta = Linear(*shape), start(shape[1])
    ends = []
    for space in ("parameters", "samples"):
        method = GaussNewton(momentum=momentum, space=space, damping=1e-2)
        memory = method.init(theta)
        memory["previous"] = start(shape[1], seed=2)
        method.step(model, memory)
        ends.append(memory["theta"])
    assert torch.allclose(ends[0], ends[1], rtol=0, atol=ROUNDOFF)


def test_step_without_momentum_is_levenberg_marquardt():
    model, theta = Linear(20, 8), start(8)
    method = GaussNewton(momentum=0.0, damping=0.3)
    memory = method.init(theta)
    method.step(model, memory)
    r, rows = model.rows(theta)
    naive = theta - torch.linalg.solve(rows.T @ rows + 0.3 * torch.eye(8).to(rows), rows.T @ r)
    assert torch.allclose(memory["theta"], naive, rtol=0, atol=ROUNDOFF)


def test_nearly_undamped_step_reaches_the_least_squares_optimum():
    model = Linear(30, 10)
    memory = GaussNewton(momentum=0.0, damping=1e-14).init(start(10))
    GaussNewton(momentum=0.0, damping=1e-14).step(model, memory)
    best = torch.linalg.lstsq(model.a, model.b[:, None]).solution[:, 0]
    assert torch.allclose(memory["theta"], best, rtol=0, atol=1e-9)


def test_gain_of_a_linear_model_is_one_and_damping_falls():
    method = GaussNewton()
    memory = method.init(start(10))
    report = method.step(Linear(30, 10), memory)
    assert report.gain == pytest.approx(1.0, abs=1e-9)
    assert memory["mu"] == method.damping / method.less


def test_rejected_step_leaves_theta_alone():
    class Worse(Linear):
        at: torch.Tensor

        def residual(self, theta):
            return super().residual(theta) * (1.0 if torch.equal(theta, self.at) else 100.0)

    model = Worse(10, 4)
    theta = model.at = start(4)
    method = GaussNewton()
    memory = method.init(theta)
    report = method.step(model, memory)
    assert not report.accepted
    assert torch.equal(memory["theta"], theta)
    assert memory["mu"] > method.damping


def test_non_finite_residual_is_reported_not_carried_on():
    class Broken(Linear):
        def residual(self, theta):
            return super().residual(theta) * math.nan

    for method in (GaussNewton(), SelfScaledBroyden(), Adam()):
        memory = method.init(start(4))
        report = method.step(Broken(10, 4), memory)
        assert not report.accepted and not math.isfinite(report.loss)
        assert torch.isfinite(memory["theta"]).all()


def test_gauss_newton_solves_rosenbrock():
    method, model = GaussNewton(momentum=0.0), Rosenbrock(3)
    memory = method.init(torch.tensor([-1.2, 1.0] * 3, dtype=torch.float64))
    for _ in range(60):
        report = method.step(model, memory)
    assert report.loss < 1e-20


@pytest.mark.parametrize("first", [True, False])
def test_broyden_update_obeys_the_secant_equation(first):
    """H+ y = s, H+ positive definite."""
    gen = torch.Generator().manual_seed(3)
    a = torch.randn(7, 7, generator=gen, dtype=torch.float64)
    hessian = a @ a.T + torch.eye(7).to(a)
    inverse = torch.eye(7).to(a)
    for _ in range(200):
        g = torch.randn(7, generator=gen, dtype=torch.float64)
        s = -0.3 * inverse @ g
        y = hessian @ s
        inverse = broyden_update(inverse, s, y, -0.3 * g, first=first)
        assert torch.allclose(inverse @ y, s, rtol=0, atol=1e-9 * float(s.norm()) + 1e-12)
        assert float(torch.linalg.eigvalsh(inverse).min()) > 0


def test_broyden_update_skips_negative_curvature():
    eye = torch.eye(3, dtype=torch.float64)
    s = torch.ones(3, dtype=torch.float64)
    assert torch.equal(broyden_update(eye, s, -s, s), eye)


def test_self_scaled_broyden_solves_rosenbrock_and_stays_positive_definite():
    method, model = SelfScaledBroyden(), Rosenbrock(2)
    memory = method.init(torch.tensor([-1.2, 1.0] * 2, dtype=torch.float64))
    for _ in range(120):
        report = method.step(model, memory)
        assert float(torch.linalg.eigvalsh(memory["inverse"]).min()) > 0
        if report.loss < 1e-18:
            break
    assert report.loss < 1e-18


def test_adam_matches_torch():
    model, theta = Linear(20, 6), start(6)
    parameter = torch.nn.Parameter(theta.clone())
    peer = torch.optim.Adam([parameter], lr=1e-2, eps=1e-12)
    method = Adam(lr=1e-2, decay=1.0)
    memory = method.init(theta)
    for _ in range(25):
        method.step(model, memory)
        peer.zero_grad()
        r = model.residual(parameter)
        (r @ r).backward()
        peer.step()
    assert torch.allclose(memory["theta"], parameter.detach(), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"momentum": 1.0}, r"momentum=1.0 must lie in \[0, 1\)"),
        ({"damping": 0.0}, "0 < floor <= damping"),
        ({"less": 1.0}, "less=1.0 and more"),
        ({"tries": 0}, "tries=0"),
        ({"space": "dual"}, "space='dual'"),
    ],
)
def test_bad_settings_are_refused_together(arguments, message):
    with pytest.raises(ValueError, match=message):
        GaussNewton(**arguments)
