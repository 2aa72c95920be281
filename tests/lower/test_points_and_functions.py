"""Points, projections and stored approximations."""

import json
import math

import pytest
import sympy as sp
import torch

from pinnkit.declare.boundaries import boundary
from pinnkit.declare.conditions import Dirichlet
from pinnkit.declare.domains import Interval
from pinnkit.declare.problem import PDESystem
from pinnkit.declare.symbols import coords, field
from pinnkit.lower import (
    ExpressionJets,
    HardForm,
    JetSpec,
    NetworkApproximation,
    ProjectedField,
    WindowedApproximation,
    adaptive_choice,
    face_points,
    grid_points,
    interior_points,
    unit_sobol,
)
from tests.lower.test_residuals import burgers, model_of, t, x

EXACT = 1e-12


def test_sobol_points_do_not_depend_on_the_default_dtype():
    """torch rounds the first point of a scrambled sequence to its default dtype."""
    before, drawn = torch.get_default_dtype(), []
    try:
        for dtype in (torch.float32, torch.float64):
            torch.set_default_dtype(dtype)
            drawn.append(unit_sobol(8, 3, torch.Generator().manual_seed(1)))
    finally:
        torch.set_default_dtype(before)
    assert torch.equal(*drawn)


def test_sobol_points_are_even_seeded_and_inside():
    """Each half holds half of the points; the same seed gives the same points; no global draws."""
    before = torch.random.get_rng_state()
    a = unit_sobol(256, 3, torch.Generator().manual_seed(1))
    assert torch.equal(a, unit_sobol(256, 3, torch.Generator().manual_seed(1)))
    assert not torch.equal(a, unit_sobol(256, 3, torch.Generator().manual_seed(2)))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert ((a < 0.5).sum(0) == 128).all() and (a > 0).all() and (a < 1).all()


def test_points_lie_in_the_box_or_on_their_face(gen):
    """Also in another box, a time window."""
    nf = burgers(length=2.0)
    inside = interior_points(nf, 50, gen, bounds={t: (0.25, 0.5)})
    assert inside[:, 0].min() > 0.25 and inside[:, 0].max() < 0.5
    for condition in nf.conditions:
        points = face_points(nf, condition.face, 30, gen)
        assert (points[:, nf.coords.index(condition.face.coord)] == condition.face.value).all()
    grid = grid_points(nf, (3, 5))
    assert grid.shape == (15, 2) and grid[:5, 0].eq(0).all() and grid[4, 1] == 2.0


def test_where_selects_part_of_a_face(gen):
    """Points on x = 1 with y > 0.75 only, and as many as asked."""
    a, b = coords("x y")
    w = field("w", a, b)
    nf = PDESystem(
        [w.diff(a, 2) + w.diff(b, 2)],
        domain=Interval(a, 0, 1) * Interval(b, 0, 1),
        conditions=[
            Dirichlet(w, b, on=boundary(a, "left")),
            Dirichlet(w, b, on=boundary(a, "right", where=b > 0.75)),
            Dirichlet(w, b**2 / 0.75, on=boundary(a, "right", where=b <= 0.75)),
            Dirichlet(w, b, on=boundary(b)),
        ],
    ).normal_form
    (face,) = [c.face for c in nf.conditions if c.face.where == (b > 0.75)]
    points = face_points(nf, face, 64, gen)
    assert len(points) == 64 and (points[:, 1] > 0.75).all() and (points[:, 0] == 1).all()


def test_adaptive_choice_prefers_large_residuals_without_replacement(gen):
    """p ~ |r|^k / mean + c."""
    residual = torch.ones(1000, dtype=torch.float64)
    residual[:100] = 50.0
    chosen, weights = adaptive_choice(residual, 100, gen, power=2.0, constant=0.0)
    assert len(set(chosen.tolist())) == 100
    assert (chosen < 100).sum() > 80
    assert float(weights.mean()) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="not finite"):
        adaptive_choice(residual * math.nan, 10, gen)


def test_projection_is_accurate_with_its_derivatives_and_reports_its_error():
    """Fourier x Chebyshev of exp(sin x) cos y; jets against sympy."""
    a, b = sp.symbols("x y")
    exact = sp.exp(sp.sin(a)) * sp.cos(2 * b)

    def function(p):
        return (torch.exp(torch.sin(p[:, 0])) * torch.cos(2 * p[:, 1]))[:, None]

    made = ProjectedField.fit(
        function, [1, 2], [0.0, -1.0], [2 * math.pi, 1.0], [True, False], tol=1e-12
    )
    assert made.error < 1e-12
    gen = torch.Generator().manual_seed(0)
    points = torch.rand(7, 3, dtype=torch.float64, generator=gen)
    spec = JetSpec.closure([(0, 1, 2), (1, 0, 0)], 3)
    got = made.jets(points, spec)
    for alpha, k, c in zip(spec.indices, spec.factorials, got, strict=True):
        want = ExpressionJets([exact], (sp.Symbol("t"), a, b)).jets(points, spec)
        assert (c - want[spec.position[alpha]]).abs().max() < 1e-9, (alpha, k)
    points.requires_grad_()
    (slope,) = torch.autograd.grad(made(points).sum(), points)
    assert (slope[:, 1] - got[spec.position[0, 1, 0], :, 0]).abs().max() < 1e-10


def test_projection_says_when_it_failed():
    """A jump cannot be projected; the measured error stays large."""
    made = ProjectedField.fit(
        lambda p: torch.sign(p), [0], [-1.0], [1.0], [False], tol=1e-10, max_modes=65
    )
    assert made.error > 1e-2


def roundtrip(approximation, nf):
    spec, tensors = approximation.to_state()
    return type(approximation).from_state(json.loads(json.dumps(spec)), tensors, nf)


def test_stored_network_is_the_same_function(gen):
    """Through JSON and tensors, also with a hard form."""
    nf = burgers()
    hard = HardForm(
        ProjectedField.fit(lambda p: -torch.sin(math.pi * p), [1], [-1.0], [1.0], [False]),
        ExpressionJets([t], nf.coords),
    )
    points = interior_points(nf, 9, gen)
    wanted = [(0, (0, 0)), (0, (1, 0)), (0, (0, 2))]
    for model in (model_of(nf), model_of(nf, hard=hard)):
        first = NetworkApproximation(model)
        second = roundtrip(first, nf)
        for a, b in zip(
            first.derivatives(points, wanted), second.derivatives(points, wanted), strict=True
        ):
            assert torch.equal(a, b)
    spec, tensors = NetworkApproximation(model_of(nf)).to_state()
    with pytest.raises(ValueError, match="do not fit"):
        NetworkApproximation.from_state(spec, {"scale": tensors["scale"]}, nf)
    with pytest.raises(ValueError, match="dtype"):
        NetworkApproximation.from_state({**spec, "dtype": "object"}, tensors, nf)


def test_windows_answer_for_their_own_times_and_seams_go_to_the_earlier(gen):
    """Two models; the seam t = 0.5 belongs to the first."""
    nf = burgers()
    models = [model_of(nf, seed=s, bounds={t: b}) for s, b in ((0, (0, 0.5)), (1, (0.5, 1)))]
    windows = WindowedApproximation([0.0, 0.5, 1.0], models, column=0)
    points = torch.tensor(
        [[0.7, 0.1], [0.5, 0.2], [0.0, 0.3], [0.51, -0.4], [1.0, 0.0]], dtype=torch.float64
    ).requires_grad_()
    (value,) = windows.derivatives(points, [(0, (0, 0))])
    for i, owner in enumerate((1, 0, 0, 1, 1)):
        assert abs(value[i] - models[owner](points)[i, 0]).item() < EXACT
    (slope,) = windows.derivatives(points, [(0, (0, 1))])
    (gradient,) = torch.autograd.grad(value.sum(), points)
    assert (gradient[:, 1] - slope).abs().max() < EXACT
    (again,) = roundtrip(windows, nf).derivatives(points, [(0, (0, 0))])
    assert torch.equal(again, value)
    assert windows.derivatives(points[:0], [(0, (0, 0))])[0].shape == (0,)
    with pytest.raises(ValueError, match="do not increase"):
        WindowedApproximation([0.0, 0.5, 0.5], models, column=0)


def test_symbols_used_here_are_the_problems_own():
    """The helpers of the residual tests share coordinates with these."""
    assert burgers().coords == (t, x)
