"""Optimisers against their algebra: equal spaces, the secant equation, the least-squares optimum."""

import functools
import math
from typing import Any

import pytest
import torch

import pinnkit as pk
from pinnkit.nn import MLP
from pinnkit.solvers.base import Env
from pinnkit.train import LBFGS, SOAP, AbstractOptimiser, NysNewtonCG, gauss_newton
from pinnkit.train.adam import Adam
from pinnkit.train.checkpoint import read_archive, write_archive
from pinnkit.train.gauss_newton import GaussNewton
from pinnkit.train.lbfgs import two_loops
from pinnkit.train.least_squares import RowSystem
from pinnkit.train.line_search import strong_wolfe
from pinnkit.train.newton_cg import hessian_product
from pinnkit.train.nystrom import nystrom, nystrom_inverse
from pinnkit.train.self_scaled_broyden import SelfScaledBroyden, broyden_update

ROUNDOFF = 1e-10
EXACT_SEARCH: dict[str, Any] = {
    "armijo": 1e-12,
    "curvature": 1e-9,
}  # ends where the slope is zero to nine digits

METHODS: dict[str, AbstractOptimiser] = {
    "GaussNewton": GaussNewton(),
    "GaussNewton, sketched": GaussNewton(sketch=3),
    "NysNewtonCG": NysNewtonCG(rank=3, refresh=2),
    "NysNewtonCG, Hessian": NysNewtonCG(rank=3, refresh=2, curvature="hessian"),
    "SelfScaledBroyden": SelfScaledBroyden(),
    "LBFGS": LBFGS(history=4),
    "SOAP": SOAP(lr=1e-2),
    "SOAP, vectors": SOAP(lr=1e-2, vectors=True, every=3),
    "Adam": Adam(lr=1e-2),
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


class Linear:
    """r = A theta - b."""

    def __init__(self, n: int, p: int, seed: int = 0) -> None:
        gen = torch.Generator().manual_seed(seed)
        self.a = torch.randn(n, p, generator=gen, dtype=torch.float64)
        self.b = torch.randn(n, generator=gen, dtype=torch.float64)
        self.shapes: list[tuple[int, ...]] = [(p,)]

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
        self.shapes = [(pairs, 2)]

    def residual(self, theta):
        x, y = theta.view(self.pairs, 2).unbind(1)
        return torch.cat([10 * (y - x**2), 1 - x])

    def rows(self, theta):
        return self.residual(theta), torch.func.jacrev(self.residual)(theta)

    def gradient(self, theta):
        r, rows = self.rows(theta)
        return float(r @ r), 2 * rows.T @ r


class Quadratic(Linear):
    """As many rows as unknowns, singular values from 1 to 3."""

    def __init__(self, n: int) -> None:
        super().__init__(n, n)
        u, _, v = torch.linalg.svd(self.a)
        self.a = u @ torch.diag(torch.linspace(1, 3, n, dtype=torch.float64)) @ v


class Matrices(Linear):
    """A linear model whose theta is a (4, 3), a (5,) and a (1, 6) parameter."""

    def __init__(self) -> None:
        super().__init__(30, 23)
        self.shapes = [(4, 3), (5,), (1, 6)]


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


@pytest.mark.parametrize("shape", [(12, 30), (40, 15)])
@pytest.mark.parametrize("settings", [{}, {"sketch": 12}, {"space": "rows"}], ids=str)
def test_rows_in_single_precision_give_the_step_to_single_precision(shape, settings):
    """Only the matrix is coarse: theta, losses and gain ratios stay double."""

    class Coarse(Linear):
        def rows(self, theta):
            return self.residual(theta), self.a.float()

    ends = []
    for model in (Linear(*shape), Coarse(*shape)):
        method = GaussNewton(damping=1e-2, **settings)
        memory = method.init(start(shape[1]))
        memory["previous"] = start(shape[1], seed=2)
        report = method.step(model, memory)
        assert report.gain == pytest.approx(1.0, abs=1e-4)
        ends.append(memory["theta"])
    assert ends[1].dtype == torch.float64
    assert torch.allclose(ends[0], ends[1], rtol=0, atol=1e-4)


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


@every_method
def test_non_finite_residual_is_reported_not_carried_on(method):
    class Broken(Linear):
        def residual(self, theta):
            return super().residual(theta) * math.nan

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


def _steps_to(loss, method, model, theta, most=2000):
    memory = method.init(theta)
    for k in range(most):
        if method.step(model, memory).new_loss < loss:
            return k + 1
    return most


def test_acceleration_follows_curved_valleys():
    theta = torch.tensor([-1.2, 1.0] * 3, dtype=torch.float64)
    straight = GaussNewton(momentum=0.0, acceleration=False)
    curved = GaussNewton(momentum=0.0)
    model = Rosenbrock(3)
    steps = [_steps_to(1e-20, method, model, theta) for method in (curved, straight)]
    assert steps[0] <= 0.75 * steps[1]


def test_acceleration_changes_nothing_where_nothing_bends():
    model = Linear(9, 5)
    steps = []
    for acceleration in (True, False):
        method = GaussNewton(acceleration=acceleration, momentum=0.0)
        memory = method.init(start(5))
        method.step(model, memory)
        steps.append(memory["theta"])
    assert torch.allclose(*steps, rtol=1e-12, atol=1e-13)


def test_acceleration_is_the_second_order_of_the_damped_path():
    """The step to r(theta) = (1 - s) r, to second order: what is left over falls like |r|^3."""

    class Bent(Linear):
        def residual(self, theta):
            y = self.a @ theta
            return y + 0.3 * y**2 - self.b

        def rows(self, theta):
            return self.residual(theta), torch.func.jacrev(self.residual)(theta)

    left = []
    for size in (1e-2, 1e-3):
        model = Bent(4, 4)
        model.b = size * torch.tensor([1.0, -0.5, 0.3, 0.8], dtype=torch.float64)
        method = GaussNewton(momentum=0.0, damping=1e-14, floor=1e-15)
        memory = method.init(torch.zeros(4, dtype=torch.float64))
        left.append(math.sqrt(method.step(model, memory).new_loss))
    assert 2.8 < math.log10(left[0] / left[1]) < 3.3


@pytest.mark.parametrize("space", ["parameters", "samples", "rows", "sketch"])
def test_every_system_responds_alike(space):
    model = Linear(7, 5)
    r, rows = model.rows(start(5))
    if space == "sketch":
        system = gauss_newton._Sketched(r, rows, 7, 0)
    elif space == "rows":
        system = RowSystem(r, rows)
    else:
        system = gauss_newton._System(r, rows, space)
    step = system.solve(1e-2, torch.zeros(5, dtype=torch.float64))
    assert step is not None and torch.allclose(system.respond(r), step, rtol=1e-9)


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


@every_method
def test_memory_goes_through_a_file_bit_by_bit(method, tmp_path):
    """5 steps, a file, 5 steps == 10 steps; in float64 although the default is another."""
    model, whole = Matrices(), method.init(start(23))
    for _ in range(10):
        method.step(model, whole)
    half = method.init(start(23))
    for _ in range(5):
        method.step(model, half)
    write_archive(tmp_path / "memory", {"format": "memory"}, half)
    _, read = read_archive(tmp_path / "memory", kind="memory")
    # What CausalPINN does with it: floating tensors to the dtype and device of the parameters.
    rest = {k: v.to(start(1)) if isinstance(v, torch.Tensor) else v for k, v in read.items()}
    for _ in range(5):
        method.step(model, rest)
    assert rest.keys() == whole.keys()
    for name, value in whole.items():
        if isinstance(value, torch.Tensor):
            assert value.dtype == torch.float64 and torch.equal(value, rest[name]), name
        else:
            assert value == rest[name], name


@every_method
def test_steps_leave_older_memories_alone(method):
    """A snapshot shares its tensors with the run: no step may write into them."""
    model, memory = Matrices(), method.init(start(23))
    method.step(model, memory)
    snapshot = dict(memory)
    copies = {k: v.clone() for k, v in memory.items() if isinstance(v, torch.Tensor)}
    for _ in range(4):
        method.step(model, memory)
    assert all(torch.equal(snapshot[k], v) for k, v in copies.items())


@every_method
def test_every_optimiser_trains_a_network(method):
    """y' = -y; a few steps through CausalPINN bring the loss down."""
    t = pk.coords("t")
    y = pk.field("y", t)
    problem = pk.PDESystem(
        [y.diff(t) + y], domain=pk.Interval(t, 0, 1), conditions=[pk.Initial(y, 1)]
    )
    network = functools.partial(MLP, width=6, depth=2)  # all of it trained, hidden layers too
    solver = pk.CausalPINN(network=network, points=30, optimiser=method, adaptive=False)
    env = Env(torch.device("cpu"), torch.float64, torch.Generator().manual_seed(0), 0)
    state = solver.init(problem, env)
    losses = [solver.step(problem, state)["loss"] for _ in range(40)]
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize("rows", [12, 40])
def test_sketch_of_full_rank_gives_the_exact_step(rows):
    """Nystroem with as many columns as rows is exact, with more of them too."""
    model, ends = Linear(rows, 30), []
    for sketch in (None, rows, 2 * rows):
        method = GaussNewton(damping=1e-2, space="auto" if sketch else "samples", sketch=sketch)
        memory = method.init(start(30))
        memory["previous"] = start(30, seed=2)
        method.step(model, memory)
        ends.append(memory["theta"])
    assert torch.allclose(ends[0], ends[1], rtol=0, atol=ROUNDOFF)
    assert torch.allclose(ends[0], ends[2], rtol=0, atol=ROUNDOFF)


def test_sketched_steps_never_raise_the_linear_model():
    """A sketched step is the best along its line, so that even mu -> 0 is harmless."""
    method, model = GaussNewton(momentum=0.0, damping=1e-12, floor=1e-12, sketch=4), Linear(30, 40)
    memory, loss = method.init(start(40)), math.inf
    for _ in range(40):
        report = method.step(model, memory)
        assert report.accepted and report.gain == pytest.approx(1.0) and report.loss < loss
        loss = report.loss
    assert loss < 1e-2 * float(model.residual(start(40)).square().sum())


def positive(n, rank, seed=5):
    gen = torch.Generator().manual_seed(seed)
    root = torch.randn(n, rank, generator=gen, dtype=torch.float64)
    return root @ root.T


@pytest.mark.parametrize("rank", [3, 6, 20])
def test_nystrom_is_exact_from_the_rank_on_and_never_larger(rank):
    a = positive(20, 6)
    u, w = nystrom(lambda v: a @ v, 20, rank, seed=0, like=a)
    assert torch.allclose(u.T @ u, torch.eye(rank).to(a), rtol=0, atol=ROUNDOFF)
    assert bool((w >= 0).all()) and bool((w.diff() <= 0).all())
    rest = a - u @ torch.diag(w) @ u.T
    assert float(torch.linalg.eigvalsh(rest)[0]) > -1e-9
    assert (float(rest.norm()) < 1e-9) == (rank >= 6)


def test_nystrom_inverse_is_the_inverse_at_full_rank():
    a, x = positive(15, 15), start(15)
    u, w = nystrom(lambda v: a @ v, 15, 15, seed=0, like=a)
    wanted = torch.linalg.solve(a + 0.1 * torch.eye(15).to(a), x)
    assert torch.allclose(nystrom_inverse(u, w, 0.1, x), wanted, rtol=0, atol=ROUNDOFF)


def test_nystrom_of_an_indefinite_matrix_is_positive():
    a = positive(12, 12) - 8 * torch.eye(12, dtype=torch.float64)
    u, w = nystrom(lambda v: a @ v, 12, 12, seed=0, like=a)
    assert bool(torch.isfinite(u).all()) and bool((w >= 0).all())
    assert float(w[0]) == pytest.approx(float(torch.linalg.eigvalsh(a)[-1]), rel=1e-9)


@pytest.mark.parametrize("curvature", ["gauss-newton", "hessian"])
def test_newton_cg_takes_the_damped_newton_step(curvature):
    """With a tight tolerance the step is Levenberg-Marquardt's; linear, so J^T J is the Hessian."""
    model, theta = Linear(20, 8), start(8)
    method = NysNewtonCG(damping=0.3, tolerance=1e-10, rank=4, curvature=curvature)
    memory = method.init(theta)
    report = method.step(model, memory)
    r, rows = model.rows(theta)
    naive = theta - torch.linalg.solve(rows.T @ rows + 0.3 * torch.eye(8).to(rows), rows.T @ r)
    assert torch.allclose(memory["theta"], naive, rtol=0, atol=1e-8)
    assert report.gain == pytest.approx(1.0, abs=1e-6)


def test_a_sketch_of_full_rank_leaves_nothing_to_conjugate_gradients():
    """The preconditioner is then the inverse: two products, one of them for rounding."""
    model, theta = Linear(20, 8), start(8)
    method = NysNewtonCG(damping=0.3, tolerance=1e-7, rank=8, most_products=2)
    memory = method.init(theta)
    method.step(model, memory)
    r, rows = model.rows(theta)
    naive = theta - torch.linalg.solve(rows.T @ rows + 0.3 * torch.eye(8).to(rows), rows.T @ r)
    assert torch.allclose(memory["theta"], naive, rtol=0, atol=1e-9)


def test_hessian_products_equal_the_hessian():
    model = Rosenbrock(3)
    theta, v = start(6), start(6, seed=4)
    hessian = torch.autograd.functional.hessian(lambda p: model.residual(p).square().sum(), theta)
    assert isinstance(hessian, torch.Tensor)
    product = hessian_product(model, theta)
    assert torch.allclose(product(v), 0.5 * hessian @ v, rtol=1e-8, atol=1e-7)
    assert torch.allclose(product(torch.stack([v, 0 * v], 1))[:, 0], product(v), rtol=0, atol=0)


@pytest.mark.parametrize("curvature", ["gauss-newton", "hessian"])
def test_newton_cg_solves_rosenbrock(curvature):
    """From where the Hessian is indefinite."""
    method, model = NysNewtonCG(rank=4, tolerance=1e-4, curvature=curvature), Rosenbrock(3)
    memory = method.init(torch.tensor([-1.2, 1.0, 0.0, 2.0, 0.5, 3.0], dtype=torch.float64))
    report = method.step(model, memory)
    for _ in range(120):
        assert report.new_loss <= report.loss
        report = method.step(model, memory)
    assert report.loss < 1e-16


@pytest.mark.parametrize(
    "method",
    [SelfScaledBroyden(**EXACT_SEARCH), LBFGS(**EXACT_SEARCH), LBFGS(history=1, **EXACT_SEARCH)],
    ids=["SelfScaledBroyden", "LBFGS", "LBFGS of one pair"],
)
def test_exact_line_searches_end_a_quadratic_in_n_steps(method):
    """All of them are then conjugate gradients."""
    n, losses = 7, []
    model, memory = Quadratic(n), method.init(start(n))
    for _ in range(n):
        losses.append(method.step(model, memory))
    assert losses[-1].new_loss < 1e-14 * losses[0].loss
    assert losses[-2].new_loss > 1e-10 * losses[0].loss


@pytest.mark.parametrize("first", [0.01, 1.0, 40.0])
def test_line_search_obeys_both_wolfe_conditions(first):
    model, theta = Rosenbrock(2), torch.tensor([-1.2, 1.0, 2.0, 0.5], dtype=torch.float64)
    loss, g = model.gradient(theta)
    direction = -g / g.norm()
    slope = float(g @ direction)
    for curvature in (0.9, 0.1, 1e-3):
        found = strong_wolfe(
            model, theta, direction, loss, slope, first, tries=40, armijo=1e-4, curvature=curvature
        )
        assert found is not None
        value, there = model.gradient(theta + found.alpha * direction)
        assert value == found.loss and torch.equal(there, found.gradient)
        assert value <= loss + 1e-4 * found.alpha * slope
        assert abs(float(there @ direction)) <= curvature * abs(slope)


def test_line_search_steps_back_from_where_nothing_is_finite():
    class Wall(Linear):
        def gradient(self, theta):
            loss, g = super().gradient(theta)
            return (math.nan, g * math.nan) if float(theta.norm()) > 10 else (loss, g)

    model, theta = Wall(10, 4), start(4)
    loss, g = model.gradient(theta)
    found = strong_wolfe(
        model, theta, -g, loss, -float(g @ g), 100.0, tries=40, armijo=1e-4, curvature=0.9
    )
    assert found is not None and found.loss < loss


def test_line_search_uphill_finds_nothing():
    model, theta = Quadratic(4), start(4)
    loss, g = model.gradient(theta)
    assert (
        strong_wolfe(
            model, theta, g, loss, -float(g @ g), 1.0, tries=30, armijo=1e-4, curvature=0.9
        )
        is None
    )


def test_two_loops_are_the_matrix_of_bfgs():
    """H+ = (I - rho s y') H (I - rho y s') + rho s s', from s'y / y'y of the newest pair."""
    gen = torch.Generator().manual_seed(3)
    hessian = positive(6, 6) + torch.eye(6).to(torch.float64)
    steps = torch.randn(4, 6, generator=gen, dtype=torch.float64)
    changes = steps @ hessian
    eye = torch.eye(6, dtype=torch.float64)
    matrix = (steps[-1] @ changes[-1]) / changes[-1].square().sum() * eye
    for s, y in zip(steps, changes, strict=True):
        rho = 1 / (y @ s)
        left = eye - rho * torch.outer(s, y)
        matrix = left @ matrix @ left.T + rho * torch.outer(s, s)
    g = start(6)
    assert torch.allclose(two_loops(g, steps, changes), matrix @ g, rtol=1e-10, atol=ROUNDOFF)
    secant = two_loops(changes[-1], steps, changes)
    assert torch.allclose(secant, steps[-1], rtol=1e-10, atol=ROUNDOFF)


def test_lbfgs_keeps_the_newest_pairs_and_solves_rosenbrock():
    method, model = LBFGS(history=5), Rosenbrock(2)
    memory = method.init(torch.tensor([-1.2, 1.0] * 2, dtype=torch.float64))
    for count in range(1, 120):
        report = method.step(model, memory)
        assert len(memory["steps"]) <= min(count, 5)
        if report.loss < 1e-18:
            break
    assert report.loss < 1e-18


def test_first_call_of_soap_only_makes_the_bases():
    model, theta = Matrices(), start(23)
    method = SOAP()
    memory = method.init(theta)
    report = method.step(model, memory)
    assert not report.accepted and math.isfinite(report.loss)
    assert torch.equal(memory["theta"], theta)
    assert not bool(memory["m"].any()) and not bool(memory["v"].any()) and memory["count"] == 0
    g = model.gradient(theta)[1][:12].view(4, 3)
    left, right = memory["bases"][:16].view(4, 4), memory["bases"][16:25].view(3, 3)
    factor = memory["factors"][:16].view(4, 4)
    assert torch.allclose(factor, 0.001 * g @ g.T, rtol=1e-10)
    for basis, square in ((left, g @ g.T), (right, g.T @ g)):
        values = basis.T @ square @ basis
        assert torch.allclose(values, torch.diag(values.diagonal()), rtol=0, atol=1e-9)
        assert bool((values.diagonal().diff() <= 1e-9).all())
        assert torch.allclose(basis.T @ basis, torch.eye(len(basis)).to(g), rtol=0, atol=ROUNDOFF)


def test_soap_without_matrices_is_adam():
    """One call later."""
    model, soap, adam = Linear(20, 6), SOAP(lr=1e-2), Adam(lr=1e-2)
    one, other = soap.init(start(6)), adam.init(start(6))
    soap.step(model, one)
    for _ in range(20):
        soap.step(model, one)
        adam.step(model, other)
    assert torch.allclose(one["theta"], other["theta"], rtol=0, atol=1e-13)


# The first gradient is diagonal in its own eigenbases: the other entries are rounding, which Adam
# would make as large as the rest. A larger eps keeps two ways of rounding together.
COARSE = 1e-6


def naive_soap(model, theta, steps, *, every, b1=0.9, b2=0.999, eps=COARSE, lr=1e-2):
    """One (a, b) parameter as in the authors' code: M is kept rotated and turned when Q changes."""
    w = theta.view(model.shapes[0])
    g = model.gradient(w.reshape(-1))[1].view_as(w)
    factors = [(1 - b2) * (g @ g.T), (1 - b2) * (g.T @ g)]
    left, right = (torch.linalg.eigh(f).eigenvectors.flip(1) for f in factors)
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    for t in range(1, steps + 1):
        g = model.gradient(w.reshape(-1))[1].view_as(w)
        turned = left.T @ g @ right
        m, v = b1 * m + (1 - b1) * turned, b2 * v + (1 - b2) * turned**2
        scaled = (m / (1 - b1**t)) / ((v / (1 - b2**t)).sqrt() + eps)
        w = w - lr * left @ scaled @ right.T
        factors = [b2 * factors[0] + (1 - b2) * g @ g.T, b2 * factors[1] + (1 - b2) * g.T @ g]
        if t % every == 0:
            plain = left @ m @ right.T
            rows = torch.argsort((left.T @ factors[0] @ left).diagonal(), descending=True)
            columns = torch.argsort((right.T @ factors[1] @ right).diagonal(), descending=True)
            v = v[rows][:, columns]
            left = torch.linalg.qr(factors[0] @ left[:, rows]).Q
            right = torch.linalg.qr(factors[1] @ right[:, columns]).Q
            m = left.T @ plain @ right
    return w.reshape(-1)


@pytest.mark.parametrize("shape", [(4, 4), (2, 3), (3, 2), (1, 2)])
def test_soap_is_the_authors_algorithm(shape):
    """Sides that differ by one at most: a larger null space has no basis of its own."""
    n = math.prod(shape)
    model = Linear(20, n)
    model.shapes = [shape]
    method = SOAP(lr=1e-2, decay=1.0, every=3, eps=COARSE)
    memory = method.init(start(n))
    for _ in range(1 + 16):
        method.step(model, memory)
    wanted = naive_soap(model, start(n), 16, every=3)
    assert torch.allclose(memory["theta"], wanted, rtol=0, atol=1e-8)


def test_soap_does_not_see_how_the_coordinates_are_turned():
    """W -> U W V' of the parameter turns the whole run; Adam's would be another."""
    n = 4
    gen = torch.Generator().manual_seed(2)
    u, v = (
        torch.linalg.qr(torch.randn(n, n, generator=gen, dtype=torch.float64)).Q for _ in range(2)
    )
    turn = torch.kron(u, v)  # flattened by rows: (U W V') = (U kron V) W
    plain, turned = Linear(25, n * n), Linear(25, n * n)
    plain.shapes = turned.shapes = [(n, n)]
    turned.a = plain.a @ turn.T
    apart = {}
    for method in (SOAP(lr=1e-2, eps=COARSE), Adam(lr=1e-2)):
        one, other = method.init(start(n * n)), method.init(turn @ start(n * n))
        for _ in range(15):
            method.step(plain, one)
            method.step(turned, other)
        apart[type(method)] = float((turn @ one["theta"] - other["theta"]).norm())
    assert apart[SOAP] < 1e-7 and apart[Adam] > 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("default", [torch.float32, torch.float64])
@every_method
def test_memory_has_the_dtype_of_theta_whatever_the_default(method, dtype, default):
    before = torch.get_default_dtype()
    model = Matrices()
    model.a, model.b = model.a.to(dtype), model.b.to(dtype)
    torch.set_default_dtype(default)
    try:
        memory = method.init(start(23).to(dtype))
        for _ in range(4):
            method.step(model, memory)
    finally:
        torch.set_default_dtype(before)
    assert {v.dtype for v in memory.values() if isinstance(v, torch.Tensor)} == {dtype}


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (GaussNewton, {"momentum": 1.0}, r"momentum=1.0 must lie in \[0, 1\)"),
        (GaussNewton, {"damping": 0.0}, "0 < floor <= damping"),
        (GaussNewton, {"less": 1.0}, "less=1.0 and more"),
        (GaussNewton, {"tries": 0}, "tries=0"),
        (GaussNewton, {"space": "dual"}, "space='dual'"),
        (GaussNewton, {"sketch": 0}, "sketch=0 must be at least 1"),
        (GaussNewton, {"sketch": 5, "space": "parameters"}, "sketch works in sample space"),
        (GaussNewton, {"seed": -1, "tries": 0}, "tries=0.*seed=-1 must not be negative"),
        (NysNewtonCG, {"curvature": "fisher"}, "curvature='fisher' must be"),
        (NysNewtonCG, {"rank": 0, "refresh": 0}, "rank=0.*refresh=0 must be at least 1"),
        (NysNewtonCG, {"most_products": 0}, "most_products=0 must be at least 1"),
        (NysNewtonCG, {"tolerance": 1.0}, r"tolerance=1.0 must lie in \(0, 1\)"),
        (NysNewtonCG, {"shorter": 0.0}, r"shorter=0.0 must lie in \(0, 1\)"),
        (NysNewtonCG, {"armijo": 0.5}, r"armijo=0.5 must lie in \(0, 1/2\)"),
        (NysNewtonCG, {"damping": 1e-20}, "0 < floor <= damping"),
        (NysNewtonCG, {"more": 0.5}, "more=0.5 must be at least 1"),
        (NysNewtonCG, {"seed": -1}, "seed=-1"),
        (SelfScaledBroyden, {"armijo": 0.95}, "0 < armijo < curvature < 1, got 0.95, 0.9"),
        (LBFGS, {"history": 0, "tries": 0}, "history=0.*tries=0 must be at least 1"),
        (LBFGS, {"curvature": 1.0}, "0 < armijo < curvature < 1"),
        (SOAP, {"every": 0}, "every=0 must be at least 1"),
        (SOAP, {"betas": (0.9, 1.0)}, r"betas=\(0.9, 1.0\) must be two numbers"),
        (Adam, {"lr": 0.0, "eps": 0.0}, "lr=0.0 must be positive.*eps=0.0"),
        (Adam, {"decay": 1.5}, "decay=1.5 must lie in"),
    ],
)
def test_bad_settings_are_refused_together(kind, arguments, message):
    with pytest.raises(ValueError, match=f"{kind.__name__}: .*{message}"):
        kind(**arguments)
