"""Families: drawn reproducibly, put in exactly, refused in the user's symbols."""

from __future__ import annotations

import logging
import math
import pickle

import numpy as np
import pytest
import sympy as sp

import pinnkit as pk
from pinnkit.errors import DeclarationError, DeclarationWarning, UnsupportedProblemError
from pinnkit.ir.family_tree import family_from_tree, family_to_tree

EXACT = 1e-14

t, x = pk.coords("t x")
u = pk.field("u", t, x)
u0, rate = pk.given("u0 rate")
a, start = pk.given("a start", x)
inlet = pk.given("inlet", t)
DOMAIN = pk.Interval(t, 0, 1) * pk.Interval(x, 0, 2)
WALLS = pk.Dirichlet(u, 0, on=pk.boundary(x))
BUMP = sp.sin(sp.pi * x / 2)


def heat(*conditions, exact=None) -> pk.PDESystem:
    return pk.PDESystem([u.diff(t) - rate * u.diff(x, 2)], DOMAIN, conditions, exact=exact)


def numbers() -> pk.PDEFamily:
    """Two numbers, with an exact solution that holds them."""
    exact = u0 * BUMP * sp.exp(-rate * (sp.pi / 2) ** 2 * t)
    system = heat(pk.Initial(u, u0 * BUMP), WALLS, exact=exact)
    return pk.PDEFamily(system, {u0: pk.Uniform(0.5, 1), rate: pk.LogNormal(0.1, 0.2)})


def functions() -> pk.PDEFamily:
    """A coefficient under a divergence and on a face, a start that fits, an inlet in time."""
    system = pk.PDESystem(
        [u.diff(t) - pk.div(a * pk.grad(u))],
        DOMAIN,
        [
            pk.Initial(u, x**3 * (2 - x) ** 3 * start),
            pk.Dirichlet(u, t * inlet, on=pk.boundary(x, "left")),
            pk.Robin(u + a * pk.dn(u) + t * u0, on=pk.boundary(x, "right")),
        ],
    )
    laws = {
        a: pk.GaussianField(length=1.5, std=0.2, transform=sp.exp),
        start: pk.GaussianField(length=1.0),
        inlet: pk.FromSamples(np.random.default_rng(0).normal(size=(5, 12))),
        u0: pk.Normal(0, 1),
    }
    return pk.PDEFamily(system, laws)


def test_given_symbols_are_no_unknowns():
    """They are listed apart by name, and solvers of one problem say what is missing."""
    family = functions()
    nf = family.normal_form
    assert family.given == nf.given == (a, inlet, start, u0)
    assert nf.parameters == () and nf.fields == (u,)
    assert nf.predicates.linear and not nf.predicates.constant_coefficients
    assert all(d.args[0] == u for d in nf.derivatives())
    assert pickle.loads(pickle.dumps((u0, a, a.diff(x)))) == (u0, a, a.diff(x))
    for solver in (pk.MethodOfLines(), pk.CausalPINN()):
        reason = solver.supports(family.system)
        assert reason and "a(x), inlet(t), start(x), u0 must be given first" in reason
    with pytest.raises(UnsupportedProblemError, match=r"PDEFamily\(system, inputs\)"):
        numbers().system.solve(pk.CausalPINN(), max_steps=1)


def test_draws_depend_on_seed_and_number_only():
    """A longer list begins with the shorter one; ranks draw their own part; seeds differ."""
    for family in (numbers(), functions()):
        five = family.sample(5, seed=3)
        assert family.sample(2, seed=3) == five[:2]
        assert family.sample(2, 3, start=3) == five[3:]
        assert family.sample(1, seed=4) != five[:1]
        assert len({str(s) for s in five}) == 5
        assert pickle.loads(pickle.dumps(five)) == five
        again = pickle.loads(pickle.dumps(family))
        assert again.sample(5, seed=3) == five and again.inputs == family.inputs


def test_the_order_of_the_inputs_does_not_matter():
    family = numbers()
    turned = pk.PDEFamily(family.system, dict(reversed(list(family.inputs.items()))))
    assert turned.sample(3) == family.sample(3)


def test_a_member_is_the_problem_written_by_hand():
    """Equations, conditions and the exact solution, which is checked for every member."""
    sample = {u0: 0.75, rate: 0.125}
    member = numbers().on(sample)
    assert member.equations == (u.diff(t) - 0.125 * u.diff(x, 2),)
    assert member.conditions[0] == pk.Initial(u, 0.75 * BUMP)
    assert member.normal_form.given == ()
    assert member.exact == {u: 0.75 * BUMP * sp.exp(-0.125 * (sp.pi / 2) ** 2 * t)}
    assert numbers().on({"u0": 0.75, "rate": 0.125}).equations == member.equations


def test_a_wrong_exact_solution_is_found_in_a_member():
    system = heat(pk.Initial(u, u0 * BUMP), WALLS, exact=u0 * BUMP * sp.exp(-rate * t))
    with pytest.raises(
        DeclarationError, match=r"(?s)with the first draw.*does not satisfy equation 1"
    ):
        pk.PDEFamily(system, {u0: pk.Uniform(0.5, 1), rate: pk.Uniform(0.1, 1)})


def test_values_are_those_of_the_expressions():
    """Numbers are constant rows; functions and their derivatives follow sympy, also on a grid."""
    family = functions()
    samples = family.sample(2, seed=1)
    grid = np.stack(np.meshgrid([0.0, 0.4, 1.0], [0.0, 0.3, 1.7, 2.0], indexing="ij"), -1)
    points = grid.reshape(-1, 2)
    values = family.values(samples, points)
    assert set(values) == set(family.leaves) == {a, a.diff(x), inlet, start, u0}
    for i, s in enumerate(samples):
        assert (values[u0][i] == s[u0]).all()
        for leaf in (a, a.diff(x), inlet, start):
            function = leaf.args[0] if leaf.is_Derivative else leaf
            expr = leaf.subs(function, s[function]).doit()
            expected = [float(expr.subs({t: p[0], x: p[1]})) for p in points]
            assert np.allclose(values[leaf][i], expected, rtol=EXACT, atol=EXACT)
    mine = family.values([{a: 1 + x, inlet: 0, start: sp.cos(x), u0: 2}], points)
    assert np.allclose(mine[a][0], 1 + points[:, 1]) and (mine[a.diff(x)] == 1).all()
    assert (mine[inlet] == 0).all()


def test_coefficients_on_a_face_keep_their_coordinate():
    """a(x) at x = 2 is evaluated there and not lost in a substitution."""
    (side,) = [c for c in functions().normal_form.conditions if c.kind == "robin"]
    assert side.residual == u + a * u.diff(x) + t * u0


def test_members_are_solved():
    """A reference with drawn functions in equation, start and sides agrees with an independent one."""
    family = functions()
    sample = dict(family.sample(1)[0]) | {inlet: sp.sin(t)}
    sol = family.reference(sample, accuracy=1e-4, tol=1e-3, time_limit=60)
    assert sol.ok and sol.evidence is pk.Evidence.REFERENCE
    at = family.values([sample], [[0.0, 0.5]], [start])[start][0, 0] * 0.75**3
    assert sol(t=0.0, x=0.5) == pytest.approx(at, abs=1e-3)


def test_members_are_trained_and_kept_like_any_problem(tmp_path):
    """Drawn functions pass through the compiler of residuals, and through files."""
    family = functions()
    sol = family.on(family.sample(1)[0]).solve(pk.CausalPINN(), max_steps=1, verify=False)
    sol.save(tmp_path / "a.pinn")
    back = pk.load(tmp_path / "a.pinn")
    assert back.problem.equations == sol.problem.equations
    points = {"t": [0.0, 0.7], "x": [0.5, 1.5]}
    np.testing.assert_array_equal(back(**points), sol(**points))
    assert np.isfinite(sol(**points)).all()


def test_an_exact_solution_judges_members():
    family = numbers()
    sol = family.reference(family.sample(1)[0], accuracy=1e-6)
    assert sol.ok and sol.evidence is pk.Evidence.EXACT and sol.error_estimate < 1e-6


def test_corners_are_reported_of_members(caplog):
    """Whether data meet at a corner is known when they are drawn: jumps warn, slopes are logged."""
    one = pk.PDESystem(
        [u.diff(t) - u.diff(x, 2)],
        DOMAIN,
        [pk.Initial(u, u0), pk.Dirichlet(u, 1, on=pk.boundary(x))],
    )
    with pytest.warns(DeclarationWarning, match="contradicts Dirichlet"):
        family = pk.PDEFamily(one, {u0: pk.Uniform(0, 0.5)})
    family.on({u0: 0.1})  # once is enough
    with caplog.at_level(logging.INFO):
        numbers()
    assert not caplog.records


def test_files_hold_families():
    for family in (numbers(), functions()):
        tree = family_to_tree(family)
        again = family_from_tree(tree)
        assert again.sample(2) == family.sample(2)
        assert again.system.equations == family.system.equations
        assert again.leaves == family.leaves
    field = pk.GaussianField(spectrum=1 / (sp.Symbol("k") ** 2 + 9) ** 2, periodic=(x,), modes=3)
    family = functions().remake(inputs=dict(functions().inputs) | {start: field})
    assert family_from_tree(family_to_tree(family)).sample(1) == family.sample(1)
    with pytest.raises(ValueError, match="unknown distribution"):
        family_from_tree(tree | {"inputs": [[tree["inputs"][0][0], {"kind": "os.system"}]]})


def test_families_are_immutable_and_print():
    family = numbers()
    with pytest.raises(AttributeError, match="remake"):
        family.inputs = {}  # type: ignore[misc]
    text = repr(family)
    assert text.startswith("PDEFamily:") and "u0 from Uniform(low=0.5, high=1.0)" in text
    assert "rate" in family.latex() and family.coords == (t, x)
    assert math.isfinite(family.normal_form.bounds[x][1]) and family.diagnose() is not None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pk.given("t", t), "for a coordinate and for an input"),
        (lambda: pk.given("a", u), "is not a coordinate"),
        (lambda: pk.given("a", x, x), "a coordinate is used twice"),
        (lambda: pk.given("2a"), "is not a name"),
        (lambda: pk.PDEFamily(None, {}), "not a system of equations"),  # type: ignore[arg-type]
        (lambda: pk.PDEFamily(numbers().system, []), "not a dictionary"),  # type: ignore[arg-type]
        (
            lambda: pk.PDEFamily(numbers().on({u0: 1, rate: 1}), {}),
            "nothing in the system is given",
        ),
        (lambda: numbers().remake(inputs={u0: pk.Uniform(0, 1)}), "rate is given, but no"),
        (
            lambda: numbers().remake(inputs={x: pk.Uniform(0, 1)}),
            "x is not an input",
        ),
        (
            lambda: numbers().remake(inputs={pk.given("v"): pk.Uniform(0, 1)}),
            "v does not occur in the system. Its inputs are rate, u0",
        ),
        (lambda: numbers().remake(inputs={u0: 0.5, rate: 1}), "0.5 is not a distribution"),
        (
            lambda: functions().remake(inputs={a: pk.Uniform(0, 1)}),
            "a is a function of x, and Uniform draws numbers",
        ),
        (
            lambda: heat(pk.Initial(u, u0 * BUMP + pk.given("a", pk.coords("y"))), WALLS),
            "a depends on y, but the domain has no y",
        ),
        (
            lambda: heat(pk.Initial(u, u0 * pk.given("u0", x)), WALLS),
            "the input u0 is declared twice",
        ),
        (lambda: heat(pk.Initial(u, a.subs(x, 1) * BUMP), WALLS), "at a place of its own"),
        (lambda: heat(pk.Initial(u, pk.given("u") * BUMP), WALLS), "used twice, for a field and"),
        (
            lambda: pk.PDEFamily(
                heat(pk.Initial(u, pk.parameter("p") * BUMP), WALLS), {rate: pk.Uniform(0, 1)}
            ),
            "p is an unknown number",
        ),
        (
            lambda: pk.PDEFamily(heat(pk.Initial(u, BUMP), WALLS), {rate: pk.Uniform(-2, -1)}),
            r"(?s)with the first draw of the inputs, rate = -.*it is ill-posed",
        ),
    ],
)
def test_refusals(make, message):
    with pytest.raises(DeclarationError, match=message):
        make()


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ({u0: 1.0}, "no value for rate"),
        ({u0: 1.0, rate: 1.0, x: 2}, "x is no input of this family; it has rate, u0"),
        ({u0: "one", rate: 1.0}, "the value of u0 is a number, not 'one'"),
        ({u0: math.nan, rate: 1.0}, "the value of u0 is a number"),
        ({u0: x, rate: 1.0}, "the value of u0 is a number"),
    ],
)
def test_wrong_samples(sample, message):
    with pytest.raises(ValueError, match=message):
        numbers().on(sample)


def test_functions_are_given_in_their_own_coordinates():
    family = functions()
    sample = dict(family.sample(1)[0])
    with pytest.raises(ValueError, match=r"the value of a\(x\) contains t, not only x"):
        family.on(sample | {a: t + x})
    with pytest.raises(ValueError, match="an expression in its coordinates"):
        family.on(sample | {a: "x"})
    with pytest.raises(ValueError, match=r"expected \(n, 2\) for t, x"):
        family.values([sample], np.zeros((3, 1)))
    with pytest.raises(TypeError, match="a sample is a dictionary"):
        family.on([1.0])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not negative"):
        family.sample(-1)
