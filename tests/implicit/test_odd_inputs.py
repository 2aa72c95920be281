"""What breaks layers elsewhere: extreme units, hidden couplings, nested forward modes, ensembles, misuse."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from pinnkit.implicit import (
    CG,
    GMRES,
    Anderson,
    Broyden,
    Contraction,
    Direct,
    Exact,
    LevenbergMarquardt,
    Newton,
    Phantom,
    Picard,
    Unrolled,
    differentiable,
    fixed_point,
    least_squares,
    linear_solve,
    root,
)
from tests.implicit.cases import ITERATIVE, cardano, cubic, normal

pytestmark = [
    pytest.mark.filterwarnings("ignore:Sparse:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning"),
]

Z = torch.zeros(3, 2, dtype=torch.float64)
A = torch.ones(3, 2, dtype=torch.float64)
EYE = torch.eye(2, dtype=torch.float64)
UNITS = [1e-300, 1e-150, 1e150, 1e300]


@pytest.mark.parametrize("unit", UNITS)
def test_units_of_a_linear_system_do_not_matter(unit):
    """Squares of such numbers overflow or vanish; the solution does not."""
    a = torch.tensor([[2.0, 1.0], [1.0, 4.0]], dtype=torch.float64)
    exact = torch.linalg.solve(a, A[0])
    for solver in (Direct(), CG(), GMRES()):
        x, record = linear_solve(a, unit * A, solver=solver)
        assert record.converged.all() and (x / unit - exact).abs().max() < ITERATIVE
        x, record = linear_solve(unit * a, A, solver=solver)
        assert record.converged.all() and (x * unit - exact).abs().max() < ITERATIVE


@pytest.mark.parametrize("unit", UNITS)
def test_units_of_equations_and_unknowns_do_not_matter(unit):
    """z^3 + z = 1 in units of z, then of F; a linear map in units of both."""
    one = cardano(A)
    for solver in (Newton(), Broyden(), Newton(linear=GMRES())):
        z, record = root(lambda z, a: cubic(z / unit, a), Z, A, solver=solver)
        assert record.converged.all() and (z / unit - one).abs().max() < ITERATIVE
        z, record = root(lambda z, a: unit * cubic(z, a), Z, A, solver=solver)
        assert record.converged.all() and (z - one).abs().max() < ITERATIVE
    z, record = least_squares(lambda z, a: cubic(z / unit, a), Z, A)
    assert record.converged.all() and (z / unit - one).abs().max() < ITERATIVE
    z, record = least_squares(lambda z, a: unit * cubic(z, a), Z, A)
    assert record.converged.all() and (z - one).abs().max() < ITERATIVE
    for solver in (Picard(), Anderson(), Broyden(), Newton()):
        z, record = fixed_point(lambda z, a: 0.5 * z.flip(1) + a, Z, unit * A, solver=solver)
        assert record.converged.all() and (z / unit - 2).abs().max() < 1e-8


def forward_twice(f, a):
    """d2 f / da2 of an elementwise f, forward mode inside forward mode."""
    one = torch.ones_like(a)
    return torch.func.jvp(lambda a: torch.func.jvp(f, (a,), (one,))[1], (a,), (one,))[1]


@pytest.mark.parametrize("linear", [Direct(), GMRES()], ids=str)
def test_forward_mode_inside_forward_mode(linear):
    """torch switches forward mode off inside such rules: second derivatives would silently be zero."""
    a = torch.tensor([0.5, 3.0], dtype=torch.float64)
    z = cardano(a)
    wanted = -6 * z / (3 * z**2 + 1) ** 3
    layer = lambda a: root(cubic, torch.zeros_like(a), a, backward=Exact(linear=linear))[0]
    assert (forward_twice(layer, a) - wanted).abs().max() < 1e-10
    hessian = torch.func.jacfwd(torch.func.jacfwd(lambda a: layer(a).sum()))(a)
    assert (hessian - torch.diag(wanted)).abs().max() < 1e-10
    third = torch.func.jacfwd(lambda a: forward_twice(layer, a))(a)
    d = 3 * z**2 + 1
    assert (third - torch.diag(108 * z**2 / d**5 - 6 / d**4)).abs().max() < 1e-10


@pytest.mark.parametrize("solver", [Direct(), GMRES(), CG()], ids=str)
def test_linear_systems_in_nested_forward_mode(solver):
    """x = b / (1 + a^2): the second derivative, of a matrix and of a function."""
    a = torch.tensor(0.5, dtype=torch.float64)
    wanted = 6 * (6 * a**2 - 2) / (1 + a**2) ** 3
    by_matrix = lambda a: linear_solve((1 + a**2) * EYE, A, solver=solver)[0].sum()
    by_function = lambda a: linear_solve(lambda x, k: k * x, A, (1 + a**2) * A, solver=solver)[
        0
    ].sum()
    for f in (by_matrix, by_function):
        assert abs(forward_twice(f, a) - wanted) < 1e-9
        assert abs(torch.func.hessian(f)(a) - wanted) < 1e-9


def test_a_decorated_solver_in_nested_forward_mode():
    a = torch.tensor([0.5, 3.0], dtype=torch.float64)
    solver = differentiable(cubic)(lambda a: cardano(a))
    z = cardano(a)
    wanted = -6 * z / (3 * z**2 + 1) ** 3
    assert (forward_twice(lambda a: solver(a)[0], a) - wanted).abs().max() < 1e-10


COUPLED = {
    "running sum": lambda z: 0.1 * z.cumsum(0) + 1,
    "running sum, backwards": lambda z: 0.1 * z.flip(0).cumsum(0).flip(0) + 1,
    "shift": lambda z: 0.1 * z.roll(1, 0) + 1,
    "neighbours": lambda z: 0.1 * (z.roll(1, 0) + z.roll(-1, 0)) + 1,
}


@pytest.mark.parametrize("name", list(COUPLED))
@pytest.mark.parametrize("batch", [2, 3, 5, 16])
def test_couplings_that_spare_the_first_sample_are_found(name, batch):
    """A sum over earlier samples, a shift, a graph: each is refused, whatever the batch."""
    with pytest.raises(ValueError, match="a sample of the function depends on other samples"):
        fixed_point(COUPLED[name], torch.zeros(batch, 2, dtype=torch.float64))


class Cell(torch.nn.Module):
    """tanh(s (W z) + U x) with a buffer s."""

    scale: torch.Tensor

    def __init__(self, seed):
        super().__init__()
        self.w = torch.nn.Parameter(0.2 * normal(4, 4, seed=seed))
        self.u = torch.nn.Parameter(normal(4, 4, seed=seed + 1))
        self.register_buffer("scale", torch.tensor(0.3 + 0.1 * seed, dtype=torch.float64))

    def forward(self, z, x):
        return torch.tanh(self.scale * (z @ self.w.T) + x @ self.u.T)


class Net(torch.nn.Module):
    def __init__(self, seed):
        super().__init__()
        self.cell = Cell(seed)

    def forward(self, x):
        return fixed_point(self.cell, torch.zeros_like(x), x)[0]


def test_an_ensemble_of_modules_under_vmap():
    """Each with parameters and buffers of its own; gradients as of one after the other."""
    nets, x = [Net(seed) for seed in range(3)], normal(5, 4)
    params, buffers = torch.func.stack_module_state(nets)  # pyright: ignore

    def loss(params, buffers):
        y: Any = torch.func.functional_call(nets[0], (params, buffers), (x,))
        return y.square().sum()

    slopes = torch.vmap(torch.func.grad(loss))(params, buffers)
    for k, net in enumerate(nets):
        net(x).square().sum().backward()
        for name, parameter in net.named_parameters():
            assert (slopes[name][k] - parameter.grad).abs().max() < ITERATIVE


def test_a_captured_tensor_is_found_beside_vmapped_parameters():
    """The other tensor of the same vmap was hidden by the one that is passed."""
    both = torch.stack([A, 2 * A])
    with pytest.raises(
        ValueError, match=r"is under a torch.func transform but is not among params"
    ):
        torch.vmap(lambda a, b: root(lambda z, a: z - a * b, Z, a)[0])(both, both)
    with pytest.raises(
        ValueError, match=r"is under a torch.func transform but is not among params"
    ):
        torch.func.jvp(lambda b: root(lambda z, a: z - a * b, Z, A)[0], (A,), (A,))


def test_a_constant_made_inside_a_transform_is_asked_for():
    """torch would fail an internal assertion; passed as a parameter it does no harm."""

    def loss(a, passed):
        c = torch.full((2,), 2.0, dtype=a.dtype)
        if passed:
            return root(lambda z, a, c: z**3 + c * z - a, Z, a, c)[0].sum()
        return root(lambda z, a: z**3 + c * z - a, Z, a)[0].sum()

    with pytest.raises(ValueError, match=r"made inside a torch.func transform and is not among"):
        torch.func.grad(lambda a: loss(a, False))(A)
    slope = torch.func.grad(lambda a: loss(a, True))(A)
    z = root(lambda z, a: z**3 + 2 * z - a, Z, A)[0]
    assert (slope - 1 / (3 * z**2 + 2)).abs().max() < ITERATIVE


@pytest.mark.parametrize(
    "solver", [Newton(), Newton(linear=GMRES()), LevenbergMarquardt()], ids=str
)
def test_an_infinite_slope_is_no_convergence(solver):
    """sqrt at 0: a step of length zero by 1 / inf is none."""
    door = least_squares if isinstance(solver, LevenbergMarquardt) else root
    z0 = torch.tensor([[0.0], [0.5]], dtype=torch.float64)
    z, record = door(lambda z: torch.sqrt(z) - 1, z0, solver=solver)
    assert record.converged.tolist() == [False, True] and abs(z[1].item() - 1) < ITERATIVE


def test_whole_numbers_and_masks_may_be_parameters():
    """An index passes through both derivatives and all adjoints."""
    index = torch.tensor([0, 1, 0])
    a = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    for linear in (Direct(), GMRES()):
        z, _ = root(
            lambda z, i, a: z**3 + z - a[i], Z[:, 0], index, a, backward=Exact(linear=linear)
        )
        (first,) = torch.autograd.grad(z.sum(), a, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), a)
        u = cardano(a.detach())
        assert (first - torch.tensor([2, 1]) / (3 * u**2 + 1)).abs().max() < ITERATIVE
        assert (second + torch.tensor([2, 1]) * 6 * u / (3 * u**2 + 1) ** 3).abs().max() < ITERATIVE


@pytest.mark.parametrize("shape", [(0,), (0, 2), (3, 0), (1,), (1, 1), (2, 1, 3)], ids=str)
def test_every_door_takes_every_shape(shape):
    """Values, records and gradients keep it; nothing to solve is solved."""
    a = torch.full(shape, 2.0, dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(shape, dtype=torch.float64)
    doors = [
        fixed_point(lambda z, a: torch.cos(z) * a / 4, zero, a),
        root(cubic, zero, a),
        least_squares(cubic, zero, a),
        linear_solve(lambda x: 2 * x, a),
        linear_solve(lambda x: 2 * x, a, solver=CG()),
    ]
    for z, record in doors:
        assert z.shape == shape and record.converged.shape == shape[:1]
        assert record.converged.all()
        assert torch.autograd.grad(z.sum(), a)[0].shape == shape


def test_inference_mode_solves_too():
    with torch.inference_mode():
        a = torch.ones(3, 2, dtype=torch.float64)
        for door in (root, least_squares):
            z, record = door(cubic, torch.zeros_like(a), a)
            assert record.converged.all() and (z - cardano(a)).abs().max() < ITERATIVE


REFUSED = {
    "half": (TypeError, "half precision has no linear", lambda: root(cubic, Z.half(), A.half())),
    "complex": (
        TypeError,
        "complex unknowns are pairs",
        lambda: root(cubic, Z.to(torch.complex128), A),
    ),
    "infinite start": (
        ValueError,
        "the start z0 is not finite",
        lambda: root(lambda z, a: torch.tanh(z) - a / 3, Z + math.inf, A),
    ),
    "nan right-hand side": (
        ValueError,
        "b is not finite in 6 of its 6 entries",
        lambda: linear_solve(EYE, A * math.nan),
    ),
    "one infinite sample": (
        ValueError,
        "b is not finite in 1 of its 2 entries",
        lambda: torch.vmap(lambda b: linear_solve(EYE[:1, :1], b)[0])(
            torch.tensor([1.0, math.inf], dtype=torch.float64)[:, None, None]
        ),
    ),
    "infinite matrix": (
        ValueError,
        "A is not finite in 4",
        lambda: linear_solve((EYE + 1) * math.inf, A),
    ),
    "affine": (ValueError, r"A\(0\) is not zero", lambda: linear_solve(lambda x: 2 * x + 1, A)),
    "shape of x0": (
        ValueError,
        r"x0 is torch.float64 \(5,\); it must be like b",
        lambda: linear_solve(EYE, A, solver=CG(), x0=Z[:1, 0].expand(5)),
    ),
    "dtype of x0": (
        ValueError,
        "x0 is torch.float32",
        lambda: linear_solve(EYE, A, solver=CG(), x0=Z.float()),
    ),
    "in place": (
        ValueError,
        "f changed one of its arguments in place",
        lambda: fixed_point(lambda z: z.mul_(0.5).add_(1), Z.clone()),
    ),
    "batch normalisation": (
        ValueError,
        r"batch normalisation needs \.eval\(\)",
        lambda: fixed_point(torch.nn.BatchNorm1d(2).double(), Z),
    ),
    "infinite tolerance": (
        ValueError,
        "atol=inf must be finite",
        lambda: root(cubic, Z, A, atol=math.inf),
    ),
    "tolerance": (
        TypeError,
        "rtol='small' must be a number",
        lambda: root(cubic, Z, A, rtol="small"),  # pyright: ignore
    ),
    "steps": (
        ValueError,
        "max_steps=2.5 must be a whole",
        lambda: root(cubic, Z, A, max_steps=2.5),  # pyright: ignore
    ),
    "yes": (
        ValueError,
        "max_steps=True must be a whole",
        lambda: root(cubic, Z, A, max_steps=True),
    ),
    "contraction": (
        TypeError,
        r"contraction=0.9; use Contraction\(factor=",
        lambda: fixed_point(lambda z: 0.5 * z, Z, contraction=0.9),  # pyright: ignore
    ),
    "negative factor": (ValueError, "must not be negative", lambda: Contraction(factor=-0.1)),
    "norm": (ValueError, "norm=1 must be 2", lambda: Contraction(factor=0.1, norm=1)),
    "method as linear": (TypeError, r"Newton: linear=Anderson", lambda: Newton(linear=Anderson())),  # pyright: ignore
    "method in adjoint": (TypeError, r"Exact: linear=Newton", lambda: Exact(linear=Newton())),  # pyright: ignore
    "linear of decorator": (
        TypeError,
        "differentiable: linear=Picard",
        lambda: differentiable(cubic, linear=Picard()),  # pyright: ignore
    ),
    "optimality": (TypeError, "must be a function F", lambda: differentiable(3)),  # pyright: ignore
    "answer": (
        ValueError,
        r"answered with shape \(3, 1\), of which the optimality condition makes \(3, 2\)",
        lambda: differentiable(cubic)(lambda a: a[:, :1])(A),
    ),
    "unrolled under vmap": (
        ValueError,
        "does not work under torch.vmap",
        lambda: torch.vmap(lambda a: root(cubic, Z, a, backward=Unrolled())[0])(A[None]),
    ),
    "memory": (ValueError, "memory=2.5 must be a whole", lambda: Anderson(memory=2.5)),  # pyright: ignore
    "halvings": (ValueError, "halvings=2.5", lambda: Newton(halvings=2.5)),  # pyright: ignore
    "phantom": (ValueError, "steps=1.5", lambda: Phantom(steps=1.5)),  # pyright: ignore
    "class": (
        TypeError,
        r"least_squares takes LevenbergMarquardt\(\)",
        lambda: least_squares(cubic, Z, A, solver=LevenbergMarquardt),  # pyright: ignore
    ),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_misuse_is_refused_in_words(name):
    """Before anything is computed."""
    kind, words, call = REFUSED[name]
    with pytest.raises(kind, match=words):
        call()
