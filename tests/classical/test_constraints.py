"""Incompressible flow and other periodic problems with fields that have no rate of their own.

u_t + u . grad u + grad p = lap u / Re, div u = 0 and its kin on tori: against exact solutions, against
an integration of the vorticity written here, and against the problem's own equations.
"""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import sympy as sp

import pinnkit as pk
from pinnkit import problems
from pinnkit.classical import Reference, solve_reference, supports
from pinnkit.classical.choice import choose_ladder
from pinnkit.classical.constraints import PencilError, pencil, reduce_pencil
from pinnkit.classical.etdrk4 import SpectralLadder, _march
from pinnkit.classical.expressions import compile_residual
from pinnkit.classical.linearly_implicit import PeriodicDifferenceLadder
from pinnkit.classical.linearly_implicit import _march as march_differences
from pinnkit.classical.nonlinear import Nonlinear
from pinnkit.classical.norms import relative_differences
from pinnkit.classical.semilinear import Semilinear, split_semilinear
from pinnkit.classical.torus import Torus
from pinnkit.errors import UnsupportedProblemError
from tests.classical.test_reference import true_error

EXACT = 1e-12
MEASURED = 1e-5
UNTIL = 0.05
ROUNDOFF = 1e-9
FLOWS = [
    problems.NavierStokesStreamfunction,
    problems.NavierStokesVorticity,
    problems.NavierStokesPressure,
]
# The default run takes the index-two form and one other; --runslow the rest.
STREAMFUNCTION, VORTICITY, PRESSURE = FLOWS
t, x, y = pk.coords("t x y")
u, v, p, w = pk.field("u v p w", t, x, y)


def torus(until: float = 0.1) -> Any:
    return pk.Interval(t, 0, until) * pk.Box((x, y), (0, 0), (2 * sp.pi, 2 * sp.pi))


def periodic(*fields: sp.Expr) -> list[Any]:
    return [pk.Periodic(f, axis) for f in fields for axis in (x, y)]


def split(nf: Any) -> Semilinear:
    problem = split_semilinear(nf)
    assert problem is not None
    return problem


def flow(start: tuple[sp.Expr, sp.Expr], *, continuity: sp.Expr | None = None, Re: float = 10.0):
    """Velocity and pressure, with any initial velocity and any third equation."""

    def momentum(f: sp.Expr) -> sp.Expr:
        return f.diff(t) + u * f.diff(x) + v * f.diff(y) - pk.laplacian(f) / Re

    third = u.diff(x) + v.diff(y) if continuity is None else continuity
    return pk.PDESystem(
        [momentum(u) + p.diff(x), momentum(v) + p.diff(y), third],
        domain=torus(),
        conditions=[
            pk.Initial(u, start[0]),
            pk.Initial(v, start[1]),
            *periodic(u, v, p),
            pk.Gauge(p, mean=0),
        ],
    )


VORTICES = (-sp.cos(x) * sp.sin(y), sp.sin(x) * sp.cos(y))


def pressure_equation():
    """The same vortices with a Poisson equation for p, whose source is quadratic in the velocity."""
    source = u.diff(x) ** 2 + 2 * u.diff(y) * v.diff(x) + v.diff(y) ** 2
    return flow(VORTICES, continuity=pk.laplacian(p) + source)


def test_the_carried_vortices_are_found_with_their_pressure():
    """Taylor-Green is exact; the pressure has no equation of its own (index two)."""
    nf = problems.TaylorGreen(T=UNTIL).normal_form
    reference = solve_reference(nf, tol=1e-7, time_limit=60)
    assert reference.finished and reference.approximation is not None
    error = true_error(nf, reference.approximation, nf.exact)
    assert error <= reference.error + EXACT
    assert error <= 1e-7


@pytest.mark.parametrize("variant", ["primary", pytest.param("alternate", marks=pytest.mark.slow)])
def test_a_pressure_may_have_a_quadratic_source(variant: str):
    """lap p = -(u_x^2 + 2 u_y v_x + v_y^2): an algebraic equation with N (index one)."""
    system = pressure_equation()
    decay = sp.exp(-2 * t / 10)
    pressure = -(sp.cos(2 * x) + sp.cos(2 * y)) * decay**2 / 4
    exact = {u: VORTICES[0] * decay, v: VORTICES[1] * decay, p: pressure}
    nf = system.normal_form
    reference = solve_reference(nf, tol=1e-6, time_limit=60, variant=variant)
    assert reference.approximation is not None
    assert true_error(nf, reference.approximation, exact) <= 1e-6


def vorticity_by_runge_kutta(problem: Any, n: int, steps: int) -> np.ndarray:
    """w at the end: the classical Runge-Kutta method on n x n nodes; shares nothing with pinnkit."""
    k = np.fft.fftfreq(n, 1 / n)
    kx, ky = k[:, None], k[None, :]
    square = kx**2 + ky**2
    keep = ((np.abs(kx) < n / 3) & (np.abs(ky) < n / 3)).astype(float)
    nodes = 2 * np.pi * np.arange(n) / n
    gx, gy = np.meshgrid(nodes, nodes, indexing="ij")
    (start,) = (c.value for c in problem.normal_form.conditions if c.kind == "initial")
    mode = np.fft.fft2(sp.lambdify((x, y), start)(gx, gy))

    def rate(m: np.ndarray) -> np.ndarray:
        psi = m / np.where(square > 0, square, 1.0)
        a, b, c, d = (np.fft.ifft2(1j * f).real for f in (ky * psi, -kx * psi, kx * m, ky * m))
        return -keep * np.fft.fft2(a * c + b * d) - square * m / problem.Re

    h = problem.T / steps
    for _ in range(steps):
        a = rate(mode)
        b = rate(mode + h / 2 * a)
        c = rate(mode + h / 2 * b)
        d = rate(mode + h * c)
        mode = mode + h / 6 * (a + 2 * b + 2 * c + d)
    return np.fft.ifft2(mode).real


@lru_cache
def reference_of(flow_class: Any, variant: str) -> tuple[Any, Reference]:
    nf = flow_class(T=UNTIL).normal_form
    return nf, solve_reference(nf, tol=1e-6, time_limit=60, variant=variant)


@pytest.mark.parametrize(
    "flow_class", [PRESSURE, VORTICITY, pytest.param(STREAMFUNCTION, marks=pytest.mark.slow)]
)
def test_three_forms_of_one_flow_agree_with_an_integration_of_the_vorticity(flow_class: Any):
    """w, or v_x - u_y, at the end of a short flow."""
    n = 48
    truth = vorticity_by_runge_kutta(problems.NavierStokesVorticity(T=UNTIL), n, 32)
    nodes = 2 * np.pi * np.arange(n) / n
    meshes = {t: np.array([UNTIL]), x: nodes, y: nodes}
    nf, reference = reference_of(flow_class, "primary")
    assert reference.finished and reference.error <= 1e-6
    assert reference.approximation is not None
    grids = reference.approximation.fields
    by_name = {f.func.__name__: g for f, g in zip(nf.fields, grids, strict=True)}
    places = [meshes[c] for c in nf.coords]
    if "w" in by_name:
        found = by_name["w"].on_grid(places)
    else:
        along_x, along_y = ([int(c == axis) for c in nf.coords] for axis in (x, y))
        found = by_name["v"].on_grid(places, along_x) - by_name["u"].on_grid(places, along_y)
    gap = np.linalg.norm(found[0] - truth) / np.linalg.norm(truth)
    assert gap <= MEASURED


@pytest.mark.parametrize(
    "flow_class",
    [PRESSURE, *(pytest.param(f, marks=pytest.mark.slow) for f in (VORTICITY, STREAMFUNCTION))],
)
def test_two_methods_agree_on_every_field(flow_class: Any):
    """Exponential integration after elimination, and implicit steps without: u, v, p, psi, w."""
    nf, first = reference_of(flow_class, "primary")
    _, second = reference_of(flow_class, "alternate")
    assert first.approximation is not None and second.approximation is not None
    gaps = relative_differences(second.approximation, first.approximation)
    assert gaps.max() <= first.error + second.error
    assert isinstance(choose_ladder(nf, "primary"), SpectralLadder)
    assert isinstance(choose_ladder(nf, "alternate"), PeriodicDifferenceLadder)


def slope(sizes: list[float], errors: list[float]) -> float:
    return float(np.polyfit(np.log(sizes), np.log(errors), 1)[0])


@pytest.mark.parametrize(
    ("march", "stencil", "steps", "order"),
    [(_march, None, [16, 32, 64], 4), (march_differences, 13, [4, 6, 8], 6)],
    ids=["etdrk4", "extrapolated"],
)
def test_integrators_keep_their_order_under_constraints(march, stencil, steps, order: int):
    """All fields at the end, the pressure among them, against many steps on the same modes."""
    nf = problems.NavierStokesPressure(T=0.5, Re=20.0).normal_form
    problem, box = split(nf), Torus(nf, 24, stencil)

    def end(count: int) -> np.ndarray:
        return march(problem, box, count, time.monotonic() + 60)[1][-1]

    truth = end(8 * steps[-1])
    errors = [float(np.abs(end(count) - truth).max()) for count in steps]
    assert slope([1 / n for n in steps], errors) == pytest.approx(order, abs=0.5)


def test_differences_on_the_torus_converge_at_order_twelve():
    """Symbols of first and second centred differences on 13 nodes."""
    nf = problems.TaylorGreen().normal_form
    counts, errors = [32, 48, 72], []
    alphas = [[int(c == x) * k for c in nf.coords] for k in (1, 2)]
    for count in counts:
        exact, rough = Torus(nf, count), Torus(nf, count, 13)
        gaps = [np.abs(exact.symbol(a) - rough.symbol(a))[4, 0] for a in alphas]
        errors.append(float(max(gaps)))
    assert slope([1 / n for n in counts], errors) == pytest.approx(12, abs=0.6)


def test_transforms_keep_what_is_below_the_cut():
    nf = problems.TaylorGreen().normal_form
    box = Torus(nf, 20)
    gen = np.random.default_rng(0)
    once = box.backward(box.forward(gen.standard_normal((2, 20, 20))))
    assert np.abs(box.backward(box.forward(once)) - once).max() <= EXACT
    finer = box.backward(box.forward(once), [30, 40])
    assert np.abs(finer[:, ::3, ::4] - once[:, ::2, ::2]).max() <= EXACT
    # Parseval, with the half of the modes that is not stored.
    total = (np.abs(box.forward(once)) ** 2 * box.weights()).sum() / 20**2
    assert total == pytest.approx((once**2).sum(), rel=EXACT)


@pytest.mark.parametrize(
    "system",
    [*FLOWS, problems.GrayScott2D, problems.GinzburgLandau, pressure_equation],
    ids=lambda c: c.__name__,
)
def test_the_split_loses_nothing(system: Any):
    """M u_t - L u - N equals the equation as declared, at random values of all derivatives."""
    nf = system().normal_form
    problem = split(nf)
    at_time = nf.coords.index(nf.time)
    gen = np.random.default_rng(1)
    coords = [np.array(gen.uniform(*nf.bounds[c])) for c in nf.coords]
    values: dict[Any, float] = {}
    for number, equation in enumerate(nf.equations):
        residual = compile_residual(equation.residual, nf)
        for leaf in residual.leaves:
            values.setdefault(leaf, float(gen.standard_normal()))
        declared = residual.value(coords, [np.array(values[k]) for k in residual.leaves], ())
        rates = {
            type(k)(k.field, tuple(0 if i == at_time else n for i, n in enumerate(k.alpha))): value
            for k, value in values.items()
            if k.alpha[at_time]
        }
        found = sum(c * rates[leaf] for c, leaf in problem.mass[number])
        found -= sum(c * values[leaf] for c, leaf in problem.linear[number])
        leaves = [np.array(values[problem.leaves[j]]) for j in problem.leaves_in([number])]
        found -= problem.compile_rest([number])(coords, leaves)[0]
        assert abs(float(declared) - found) <= ROUNDOFF * max(map(abs, values.values()))


def test_elimination_satisfies_every_row_of_the_pencil():
    """Any s, any N: u = U s + V N with u' = U (G s + F N) + V N' solves M u' = L u + N, N' = 0."""
    nf = problems.NavierStokesPressure().normal_form
    problem, box = split(nf), Torus(nf, 12)
    mass, linear = pencil(problem, box)
    active = Nonlinear(problem, box).active
    reduced = reduce_pencil(mass, linear, active)
    gen = np.random.default_rng(2)
    s = gen.standard_normal((*reduced.generator.shape[:2], 1))
    s = reduced.start @ reduced.lift @ s  # amplitudes that are there, not the padding
    n = np.where(active[:, None], gen.standard_normal((*mass.shape[:2], 1)), 0.0)
    fields = reduced.lift @ s + reduced.algebraic @ n
    rate = reduced.lift @ (reduced.generator @ s + reduced.force @ n)
    assert np.abs(mass @ rate - linear @ fields - n).max() <= ROUNDOFF * np.abs(linear).max()


def test_an_initial_velocity_with_divergence_is_refused():
    system = flow((sp.sin(x) * sp.cos(y), sp.cos(x) * sp.sin(y)))
    reason = supports(system.normal_form)
    assert reason is not None
    assert "the initial values of u(t, x, y), v(t, x, y) break the constraints" in reason
    with pytest.raises(UnsupportedProblemError, match="break the constraints"):
        solve_reference(system.normal_form)


def test_a_mean_flow_that_nothing_determines_is_refused():
    """Vorticity and velocity without the integral conditions: a uniform flow may be added."""
    declared = problems.NavierStokesVorticity().declare()
    kept = [c for c in declared.conditions if not isinstance(c, pk.Integral)]
    reason = supports(declared.remake(conditions=kept).normal_form)
    assert reason is not None and "not determined" in reason


def test_a_source_of_mean_flow_contradicts_a_vorticity_of_mean_zero():
    """w = v_x - u_y has mean zero on a torus; a torque of mean 1 has no solution."""
    declared = problems.NavierStokesVorticity(T=0.1).declare()
    _, *others = declared.equations
    transport = w.diff(t) + u * w.diff(x) + v * w.diff(y) - pk.laplacian(w) / 100
    system = declared.remake(equations=[transport - 1 - sp.cos(x), *others])
    reference = solve_reference(system.normal_form, time_limit=20)
    assert reference.approximation is None
    assert "contradict" in reference.reason


def test_an_undetermined_field_has_no_elimination():
    mass = np.array([[[1.0, 0.0], [0.0, 0.0]]], dtype=complex)
    linear = np.array([[[-1.0, 0.0], [0.0, 0.0]]], dtype=complex)
    with pytest.raises(PencilError, match="not determined"):
        reduce_pencil(mass, linear, np.array([True, False]))


def test_an_exact_flow_is_ok():
    exact = problems.TaylorGreen(T=0.05)
    verdict = pk.verify(exact, exact.exact())
    assert verdict.ok and verdict.evidence is pk.Evidence.EXACT


@pytest.mark.slow
@pytest.mark.parametrize("flow_class", FLOWS)
def test_solutions_are_checked_by_the_second_method(flow_class: Any):
    """Without an exact solution: differences and implicit steps are the reference."""
    solution = flow_class(T=UNTIL).solve(pk.MethodOfLines())
    assert solution.ok and solution.evidence is pk.Evidence.REFERENCE
    assert solution.error_estimate <= 1e-5
