"""Samples stop by themselves, failures are reported, and each refusal says what to write instead."""

from __future__ import annotations

import pytest
import torch
from torch.linalg import LinAlgError  # pyright: ignore[reportAttributeAccessIssue]

from pinnkit.errors import SolveError
from pinnkit.implicit import (
    CG,
    GMRES,
    Anderson,
    Broyden,
    ConvergenceError,
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
from tests.implicit.cases import EXACT, affine_map, contraction, cubic, normal, tanh_map

Z = torch.zeros(3, 2, dtype=torch.float64)
A = torch.ones(3, 2, dtype=torch.float64)


def cosine(z, a):
    return torch.cos(a * z)


@pytest.mark.parametrize(
    "solver", [Picard(), Anderson(), Broyden(), Newton(), Newton(linear=GMRES())], ids=str
)
def test_a_batch_is_its_samples_one_by_one(solver):
    """Factors from easy to hard: same values to rounding, same numbers of iterations."""
    a = torch.tensor([[0.1], [0.5], [0.9], [0.99], [0.3]], dtype=torch.float64)
    b = normal(5, 4, seed=4)

    def f(z, a, b):
        return a * torch.sin(z.flip(1)) + b

    z, record = fixed_point(f, torch.zeros_like(b), a, b, solver=solver, max_steps=5000)
    assert record.converged.all()
    for k in range(5):
        one, alone = fixed_point(
            f,
            torch.zeros(1, 4, dtype=b.dtype),
            a[k : k + 1],
            b[k : k + 1],
            solver=solver,
            max_steps=5000,
        )
        assert (one - z[k : k + 1]).abs().max() < EXACT
        assert alone.iterations.item() == record.iterations[k].item()
    assert len(set(record.iterations.tolist())) > 1


def test_least_squares_and_roots_too_are_their_samples():
    """A hard sample does not change an easy one."""
    a = torch.tensor([0.1, 50.0], dtype=torch.float64)
    for door in (root, least_squares):
        both, record = door(lambda z, a: torch.exp(z) - a, torch.zeros_like(a), a)
        one, alone = door(lambda z, a: torch.exp(z) - a, torch.zeros(1, dtype=a.dtype), a[:1])
        assert (both - torch.log(a)).abs().max() < 1e-12
        assert both[0] == one[0] and record.iterations[0] == alone.iterations[0]


def test_one_diverging_sample_leaves_the_others_alone():
    """z -> a z + 1 with a = 3 has no limit: best iterate, honest flag, no nan anywhere."""
    a = torch.tensor([[0.5], [3.0]], dtype=torch.float64)
    z, record = fixed_point(
        lambda z, a: a * z + 1, torch.zeros_like(a), a, solver=Picard(), max_steps=300
    )
    assert record.converged.tolist() == [True, False]
    assert abs(z[0].item() - 2) < 1e-9
    assert z[1].item() == 0.0 and record.residual[1].item() == 1.0  # the start was the best
    assert torch.isnan(record.error[1])


def test_the_residual_in_the_record_is_the_one_of_the_value():
    """Also for samples that failed."""
    w, b = contraction(3, 0.95), normal(4, 3)
    for steps in (3, 200):
        z, record = fixed_point(tanh_map, torch.zeros_like(b), w, b, max_steps=steps)
        true = torch.linalg.vector_norm(tanh_map(z, w, b) - z, dim=1)
        assert torch.allclose(record.residual, true, rtol=1e-12, atol=1e-15)
    assert record.iterations.max() < 200


def test_not_converging_raises_if_asked():
    """The exception is a SolveError and carries what was reached."""
    with pytest.raises(ConvergenceError, match=r"(?s)3 of 3 samples.*2 iterations.*max_steps") as e:
        fixed_point(cosine, Z, A, max_steps=2, throw=True)
    assert isinstance(e.value, SolveError)
    assert e.value.value.shape == (3, 2) and not e.value.record.converged.any()
    with pytest.raises(ConvergenceError):
        linear_solve(contraction(9, 1.0), normal(1, 9), solver=GMRES(), max_steps=2, throw=True)


def test_a_gradient_where_nothing_was_solved_warns():
    """With Unrolled() it is the derivative of what was computed, and stays silent."""
    a = A.clone().requires_grad_()
    with pytest.warns(UserWarning, match="3 of 3 samples did not converge"):
        fixed_point(cosine, Z, a, max_steps=2)
    z, _ = fixed_point(cosine, Z, a, max_steps=2, backward=Unrolled(), solver=Picard())
    expected = torch.cos(a * torch.cos(a * 0))
    wanted = torch.autograd.grad(expected.sum(), a)[0]
    assert torch.allclose(torch.autograd.grad(z.sum(), a)[0], wanted)


def test_units_change_nothing():
    """z in units 1e6 times smaller or larger, equations scaled likewise: same digits, same counts."""
    a = torch.tensor([2.0, 7.0], dtype=torch.float64)
    for unit in (1e-6, 1e6):
        z, record = root(lambda z, a: cubic(z, a), torch.zeros_like(a), a)
        scaled, same = root(lambda z, a, u=unit: 1e9 * u * cubic(z / u, a), torch.zeros_like(a), a)
        assert torch.allclose(scaled / unit, z, rtol=1e-12)
        assert same.iterations.tolist() == record.iterations.tolist()


def test_a_solution_at_zero_is_reached():
    """Relative to z = 0 no tolerance is ever met: rounding of the start ends the iteration."""
    z, record = fixed_point(
        lambda z: 0.5 * z, torch.ones(1, 1, dtype=torch.float64), solver=Picard()
    )
    assert record.converged.item() and z.abs().item() < 1e-15


def test_singular_jacobians_stall_without_harm():
    """z^2 + 1 has no real root, z^2 - 4 does."""
    a = torch.tensor([-1.0, 4.0], dtype=torch.float64)
    z, record = root(lambda z, a: z**2 - a, torch.tensor([0.7, 1.0], dtype=torch.float64), a)
    assert record.converged.tolist() == [False, True]
    assert torch.isfinite(z).all() and abs(z[1].item() - 2) < EXACT


def test_an_empty_batch_is_a_batch():
    z, record = fixed_point(cosine, Z[:0], A[:0])
    assert z.shape == (0, 2) and record.converged.shape == (0,)


captured = torch.ones(3, 2, dtype=torch.float64, requires_grad=True)
REFUSALS = {
    "captured": (
        ValueError,
        r"f uses a tensor that requires grad but is not among params.*f\(z, a\)",
        lambda: fixed_point(lambda z: torch.cos(captured * z), Z),
    ),
    "captured by A": (
        ValueError,
        "A uses a tensor that requires grad",
        lambda: linear_solve(lambda x: captured * x, A),
    ),
    "captured by func": (
        ValueError,
        "torch.func transform|requires grad",
        lambda: torch.func.grad(lambda a: fixed_point(lambda z: torch.cos(a * z), Z)[0].sum())(A),
    ),
    "captured by vmap": (
        ValueError,
        "torch.func transform",
        lambda: torch.vmap(lambda a: fixed_point(lambda z: torch.cos(a * z), Z)[0])(A[None]),
    ),
    "captured by optimality": (
        ValueError,
        "optimality condition uses a tensor that requires grad",
        lambda: differentiable(lambda z, a: captured * z - a)(lambda a: a)(A),
    ),
    "option": (
        TypeError,
        "unexpected keyword argument 'max_iter'",
        lambda: fixed_point(cosine, Z, A, max_iter=3),  # pyright: ignore
    ),
    "shape": (
        ValueError,
        r"f turned shape \(3, 2\) into \(2,\); it must return the same shape",
        lambda: fixed_point(lambda z: z[0], Z),
    ),
    "rows": (
        ValueError,
        "one row per sample",
        lambda: least_squares(lambda z: z[:2], Z),
    ),
    "dtype": (
        ValueError,
        "returned torch.float64 for torch.float32",
        lambda: fixed_point(cosine, Z.float(), A),
    ),
    "nan": (
        ValueError,
        r"not finite at the start of sample 0 \(3 of 3\)",
        lambda: root(lambda z: torch.log(z), Z - 1),
    ),
    "nan parameter": (
        ValueError,
        "not finite at the start of sample 0",
        lambda: fixed_point(cosine, Z, A * torch.nan),
    ),
    "coupled": (
        ValueError,
        r"a sample of the function depends on other samples.*z0\[None\]",
        lambda: fixed_point(lambda z: 0.1 * (z - z.mean(0)) + 1, Z),
    ),
    "no sample": (ValueError, r"z0\[None\]", lambda: fixed_point(torch.cos, Z[0, 0])),
    "integers": (TypeError, "real and floating", lambda: root(torch.cos, Z.long())),
    "number": (TypeError, "params must be tensors", lambda: root(cubic, Z, 2.0)),  # pyright: ignore
    "backward": (
        ValueError,
        "fixed-point map, and here is none",
        lambda: root(cubic, Z, A, backward=Phantom()),
    ),
    "backward type": (
        TypeError,
        "use Exact",
        lambda: fixed_point(cosine, Z, A, backward="exact"),  # pyright: ignore
    ),
    "unrolled svd": (
        ValueError,
        "Use Exact",
        lambda: least_squares(cubic, Z, A, backward=Unrolled()),
    ),
    "solver": (
        TypeError,
        r"root takes Newton\(\) or Broyden\(\)",
        lambda: root(cubic, Z, A, solver=Anderson()),
    ),
    "linear as nonlinear": (
        TypeError,
        r"fixed_point takes Anderson\(\)",
        lambda: fixed_point(cosine, Z, A, solver=CG()),
    ),
    "nonlinear as linear": (
        TypeError,
        r"use Direct\(\), GMRES\(\) or CG\(\)",
        lambda: linear_solve(A[:2].T @ A[:2], A, solver=Newton()),  # pyright: ignore
    ),
    "matrix": (
        ValueError,
        r"b must be \(B, n\), one row per sample \(b\[None\]",
        lambda: linear_solve(torch.eye(2, dtype=torch.float64), A[0]),
    ),
    "singular": (
        LinAlgError,
        "not unique or does not exist",
        lambda: linear_solve(torch.zeros(2, 2, dtype=torch.float64), A),
    ),
    "rtol": (ValueError, r"rtol=2 must lie in \[0, 1\)", lambda: root(cubic, Z, A, rtol=2)),
    "steps": (ValueError, "max_steps=0", lambda: root(cubic, Z, A, max_steps=0)),
    "memory": (ValueError, "memory=0", lambda: Anderson(memory=0)),
    "damping": (ValueError, "damping=2", lambda: Picard(damping=2)),
    "factor": (ValueError, "more=1", lambda: LevenbergMarquardt(more=1)),
}


@pytest.mark.parametrize("name", list(REFUSALS))
def test_refusals_say_what_to_write(name):
    """Each error at the door, by its words."""
    kind, words, call = REFUSALS[name]
    with pytest.raises(kind, match=f"(?s){words}"):
        call()


def test_a_singular_derivative_is_an_error():
    """z^2 = a at a = 0: the root is double, dz/da does not exist."""
    a = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    z, _ = root(lambda z, a: z**2 - a, torch.zeros_like(a), a)
    with pytest.raises(LinAlgError, match="singular"):
        z.sum().backward()


def test_inexact_adjoints_are_heard_of():
    """Three products are too few for six unknowns."""
    a, b = contraction(6, 0.9), normal(1, 6, grad=True)
    z, _ = fixed_point(
        affine_map, torch.zeros_like(b), a, b, backward=Exact(linear=GMRES(max_steps=3))
    )
    with pytest.warns(UserWarning, match="the gradient is inexact"):
        z.sum().backward()
