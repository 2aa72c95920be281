"""The gallery: exact solutions satisfy everything, definitions are the published ones."""

from __future__ import annotations

import functools
import inspect
import math
import pickle
from typing import Any

import numpy as np
import pytest
import sympy as sp

import pinnkit as pk
from pinnkit import problems  # pyright: ignore[reportAttributeAccessIssue]
from pinnkit.problems import GALLERY  # pyright: ignore[reportMissingImports]

ROUNDOFF = 1e-10  # float64 residuals, relative to the largest term

# By the class alone: a problem that cannot be declared fails its own tests, not the collection.
WITH_EXACT = [cls for cls in GALLERY if "exact" in vars(cls)]


def named(cls: type) -> str:
    return cls.__name__


@functools.cache
def made(cls: type) -> Any:
    """Declared once for all tests: problems are immutable."""
    return cls()


def restricted(expr: sp.Expr, solution: dict) -> sp.Expr:
    """The expression with the exact solution put in and all derivatives and divergences carried out."""
    return expr.subs(solution).doit()


def size_at(expr: sp.Expr, coords: tuple, points: np.ndarray) -> float:
    values = sp.lambdify(coords, expr, "numpy")(*points.T)
    return float(np.max(np.abs(np.broadcast_to(values, len(points)))))


def largest_term(expr: sp.Expr, coords: tuple, points: np.ndarray) -> float:
    return max([size_at(term, coords, points) for term in sp.Add.make_args(expr)] + [1e-300])


def random_points(nf, n: int = 64) -> np.ndarray:
    low, high = np.array([nf.bounds[c] for c in nf.coords]).T
    return low + (high - low) * np.random.default_rng(0).random((n, len(low)))


def real_solution(problem) -> dict:
    """The exact solution of the real fields: complex ones split into their two parts."""
    nf = problem.normal_form
    solution = {}
    for field, expr in problem.exact().items():
        if field in nf.complex_fields:
            for part, value in zip(nf.complex_fields[field], sp.sympify(expr).as_real_imag()):
                solution[part] = value
        else:
            solution[field] = sp.sympify(expr)
    return solution


@pytest.mark.parametrize("cls", WITH_EXACT, ids=named)
def test_exact_solution_satisfies_every_equation(cls):
    """Identity: left minus right is roundoff at random points, relative to the largest term."""
    problem = made(cls)
    nf, solution = problem.normal_form, real_solution(problem)
    points = random_points(nf)
    for equation in nf.equations:
        terms = [
            restricted(term, solution) for term in sp.Add.make_args(sp.expand(equation.residual))
        ]
        scale = max([size_at(term, nf.coords, points) for term in terms] + [1e-300])
        if scale == 1e-300:
            continue  # every term vanishes: the piecewise linear solution off its seam
        assert size_at(sum(terms, sp.Integer(0)), nf.coords, points) <= ROUNDOFF * scale


@pytest.mark.parametrize("cls", WITH_EXACT, ids=named)
def test_exact_solution_satisfies_every_condition(cls):
    """Identity: on its face every condition's residual is roundoff, corners included."""
    problem = made(cls)
    nf, solution = problem.normal_form, real_solution(problem)
    for condition in nf.conditions:
        points = random_points(nf)
        points[:, nf.coords.index(condition.face.coord)] = condition.face.value
        residual = restricted(condition.residual, solution)
        scale = max(1.0, *(size_at(value, nf.coords, points) for value in solution.values()))
        assert size_at(residual, nf.coords, points) <= ROUNDOFF * scale, condition.label


@pytest.mark.parametrize("cls", WITH_EXACT, ids=named)
def test_exact_solution_is_periodic_and_of_the_right_mean(cls):
    """Identity: on periodic axes value and slope agree at both ends; gauges and integrals hold."""
    problem = made(cls)
    nf, solution = problem.normal_form, real_solution(problem)
    for axis in nf.periodic:
        low, high = nf.bounds[axis]
        left, right = random_points(nf), random_points(nf)
        left[:, nf.coords.index(axis)], right[:, nf.coords.index(axis)] = low, high
        for expr in solution.values():
            for order in range(3):
                f = sp.lambdify(nf.coords, sp.diff(expr, axis, order), "numpy")
                a, b = (np.broadcast_to(f(*p.T), len(p)) for p in (left, right))
                assert np.allclose(a, b, rtol=0, atol=ROUNDOFF * (1 + np.abs(a).max()))
    for integral in nf.integrals:
        value = restricted(integral.integrand, solution)
        # A gauge in time holds at every instant; at one of them it is checked.
        elsewhere = set(nf.coords) - set(integral.over)
        value = value.subs({c: 0.3 * nf.bounds[c][0] + 0.7 * nf.bounds[c][1] for c in elsewhere})
        for c in integral.over:
            value = sp.integrate(value, (c, *(sp.nsimplify(b, [sp.pi]) for b in nf.bounds[c])))
        assert abs(float(value - integral.equals)) <= ROUNDOFF


def test_layered_conduction_has_a_continuous_flux():
    """k u' agrees from both sides of the seam, while u' jumps by the ratio of the conductivities."""
    problem = problems.LayeredConduction(left=2.0, right=5.0, seam=0.25)
    ((field, expr),) = problem.exact().items()
    (x,) = field.args
    slope = sp.lambdify(x, expr.diff(x), "numpy")
    left, right = float(slope(0.2)), float(slope(0.3))
    assert 2.0 * left == pytest.approx(5.0 * right, rel=1e-14)
    u = sp.lambdify(x, expr, "numpy")
    assert float(u(0.25 - 1e-12)) == pytest.approx(float(u(0.25)), abs=1e-10)


@pytest.mark.parametrize("cls", GALLERY, ids=named)
def test_every_problem_says_what_it_is(cls):
    """Equation in the first line, a word on what is hard, parameters explained, a citation."""
    doc = inspect.getdoc(cls) or ""
    assert len(doc.splitlines()) >= 3
    assert any(sign in doc.splitlines()[0] for sign in ("=", "'"))
    assert cls.citation
    for name in cls.__dataclass_fields__:
        assert f"    {name}: " in doc, f"{cls.__name__}.{name} is not explained"


@pytest.mark.parametrize("cls", GALLERY, ids=named)
def test_every_problem_pickles_and_remakes(cls):
    """A copy from a pickle is equal; remake changes what it is told and nothing else."""
    problem = made(cls)
    assert pickle.loads(pickle.dumps(problem)) == problem
    fields = list(cls.__dataclass_fields__)
    if fields:
        value = getattr(problem, fields[-1])
        changed = problem.remake(**{fields[-1]: value * 2})
        assert getattr(changed, fields[-1]) == value * 2
        assert all(getattr(changed, f) == getattr(problem, f) for f in fields[:-1])


@pytest.mark.parametrize("cls", GALLERY, ids=named)
def test_declaring_warns_of_nothing(cls):
    """The gallery is free of incompatible corners and other DeclarationWarnings (warnings are errors)."""
    nf = cls().normal_form
    assert len(nf.equations) + len(nf.observations) >= len(nf.fields)


def test_gallery_is_complete():
    """Every class of the folder is in one of the galleries once, and exported."""
    classes = [
        *GALLERY,
        *problems.GRAPH_GALLERY,
        *problems.SERIES_GALLERY,
        *problems.LAW_GALLERY,
        *problems.FAMILY_GALLERY,
    ]
    names = [cls.__name__ for cls in classes]
    assert len(set(names)) == len(names)
    exported = {n for n in problems.__all__ if not n.endswith("GALLERY")}
    assert set(names) == exported
    assert all(issubclass(cls, pk.ProblemClass) for cls in classes)


def test_published_definitions():
    """The figures others are compared by: viscosity, diffusivity, dispersion, speeds."""
    assert problems.Burgers().nu == pytest.approx(0.01 / math.pi)
    assert problems.AllenCahn().d == problems.AllenCahnSmooth().d == 1e-4
    assert problems.KdV().delta == 0.022
    assert problems.Convection().beta == 50
    assert problems.Reaction().rho == 5
    wave, (u,) = problems.Wave(c=2, share=0.5), problems.Wave().fields
    t, x = u.args
    fundamental = sp.sin(sp.pi * x) * sp.cos(2 * sp.pi * t)
    overtone = sp.sin(4 * sp.pi * x) * sp.cos(8 * sp.pi * t) / 2
    assert sp.simplify(wave.exact()[u] - fundamental - overtone) == 0
    overtone = sp.sin(3 * sp.pi * x) * sp.cos(6 * sp.pi * t) / 2
    assert sp.simplify(wave.remake(overtone=3).exact()[u] - fundamental - overtone) == 0
    assert problems.GinzburgLandau().eps == problems.GinzburgLandau().k / 2500
    gray_scott = problems.GrayScott2D()
    rates = (gray_scott.Du, gray_scott.Dv, gray_scott.b, gray_scott.d, gray_scott.c, gray_scott.T)
    assert rates == (0.2, 0.1, 40, 100, 1000, 2)
    lorenz = problems.Lorenz()
    assert (lorenz.sigma, lorenz.rho, lorenz.beta, lorenz.T) == (10, 28, 8 / 3, 20)


def starts(problem) -> dict:
    """Field name -> declared initial value."""
    return {
        c.target.func.__name__: c.value
        for c in problem.normal_form.conditions
        if c.kind == "initial"
    }


def test_navier_stokes_is_one_flow_in_three_forms():
    """Law: div u = 0 and w = curl u at the start, w the same in both vorticity forms; rms speed 1."""
    velocity = starts(problems.NavierStokesPressure())
    vorticity = starts(problems.NavierStokesVorticity())
    assert vorticity == starts(problems.NavierStokesStreamfunction())
    assert set(velocity) == {"u", "v"} and set(vorticity) == {"w"}
    _, x, y = problems.NavierStokesPressure().normal_form.coords
    u, v, w = velocity["u"], velocity["v"], vorticity["w"]
    nodes = 2 * np.pi * np.arange(32) / 32
    points = np.stack([a.ravel() for a in np.meshgrid(nodes, nodes)], axis=1)
    assert size_at(sp.diff(u, x) + sp.diff(v, y), (x, y), points) <= ROUNDOFF
    assert size_at(sp.diff(v, x) - sp.diff(u, y) - w, (x, y), points) <= ROUNDOFF
    speeds = sp.lambdify((x, y), u**2 + v**2, "numpy")(*points.T)
    assert np.sqrt(np.mean(speeds)) == pytest.approx(1, abs=2e-3)  # two decimals are written down


def test_navier_stokes_has_no_mean_flow_and_a_gauge():
    """What the equations leave open is fixed: two integrals, or a level of psi or p."""
    for cls, gauges, integrals in (
        (problems.NavierStokesStreamfunction, 1, 0),
        (problems.NavierStokesVorticity, 0, 2),
        (problems.NavierStokesPressure, 1, 0),
    ):
        fixed = cls().normal_form.integrals
        assert (sum(i.gauge for i in fixed), sum(not i.gauge for i in fixed)) == (gauges, integrals)


def test_gray_scott_bells_are_the_published_ones_made_periodic():
    """The lattice of bells differs from the single one by 2e-4 at most, and repeats across the seam."""
    problem = problems.GrayScott2D()
    _, x, y = problem.normal_form.coords
    start = starts(problem)
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (4096, 2))
    u = 1 - sp.exp(-10 * ((x + 0.05) ** 2 + (y + 0.02) ** 2))
    v = sp.exp(-10 * ((x - 0.05) ** 2 + (y - 0.02) ** 2))
    assert size_at(start["u"] - u, (x, y), points) <= 2e-4
    assert size_at(start["v"] - v, (x, y), points) <= 2e-4
    assert problem.normal_form.corners == ()


def test_swirling_flow_has_no_divergence_and_turns_round():
    """Law: div = 0, nothing crosses the sides, and the velocity at period - t is minus that at t."""
    problem = problems.SwirlingDeformation(period=5.0)
    t, x, y = problem.normal_form.coords
    (u,), (equation,) = problem.normal_form.fields, problem.normal_form.equations
    written: Any = sp.expand(equation.residual)
    a, b = (written.coeff(u.diff(c)) for c in (x, y))
    points = random_points(problem.normal_form)
    assert size_at(sp.diff(a, x) + sp.diff(b, y), (t, x, y), points) <= ROUNDOFF
    for side in (0, 1):
        assert size_at(a.subs(x, side), (t, x, y), points) <= ROUNDOFF
        assert size_at(b.subs(y, side), (t, x, y), points) <= ROUNDOFF
    assert size_at(a + a.subs(t, 5 - t), (t, x, y), points) <= ROUNDOFF
    assert problem.normal_form.bounds[t] == (0, 5)


def test_rotations_are_once_round():
    """Identity: after 2 pi / omega the exact solutions are the initial ones, at half time they are not."""
    for problem in (problems.RotatingGaussian(), problems.SlottedCylinder()):
        ((field, expr),) = problem.exact().items()
        t, x, y = field.args
        points = random_points(problem.normal_form, 4096)
        f = sp.lambdify((t, x, y), expr, "numpy")
        start, half, end = (f(when, points[:, 1], points[:, 2]) for when in (0.0, 0.5, 1.0))
        assert np.allclose(start, end, rtol=0, atol=1e-8)
        assert np.abs(start - half).max() > 0.5


def test_slotted_cylinder_has_the_published_area():
    """Disc less slot: pi r^2 minus the slot's strip inside the disc, by counting points."""
    problem = problems.SlottedCylinder()
    _, x, y = problem.normal_form.coords
    (value,) = starts(problem).values()
    nodes = (np.arange(1000) + 0.5) / 500 - 1
    grid = np.meshgrid(nodes, nodes)
    counted = sp.lambdify((x, y), value, "numpy")(*grid).sum() * 0.002**2
    # Below y = 0.7 the strip |x| < 0.05 reaches down to the disc's lower arc.
    arc = 0.05 * math.sqrt(0.09 - 0.0025) + 0.09 * math.asin(0.05 / 0.3)
    assert counted == pytest.approx(math.pi * 0.09 - (0.1 * 0.2 + arc), abs=1e-3)


def test_reaction_advection_has_the_published_bell_at_its_top():
    """The curvature at the top is that of a Gaussian of standard deviation pi / 4."""
    ((_, value),) = starts(problems.ReactionAdvection()).items()
    (x,) = value.free_symbols
    assert float(value.subs(x, sp.pi)) == 1
    assert float(value.diff(x, 2).subs(x, sp.pi)) == pytest.approx(-16 / math.pi**2, rel=1e-12)
