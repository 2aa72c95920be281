"""Saved expressions come back equal, and a hostile file gives ValueError and runs nothing."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import pinnkit.declare as pk
from pinnkit.errors import DeclarationWarning
from pinnkit.ir.expression_tree import from_tree, to_tree
from pinnkit.ir.system_tree import system_from_tree, system_to_tree

t, x, y = pk.coords("t x y")
u = pk.field("u", t, x, scale=2.0, unit="m/s")
w = pk.field("w", x, y)
nu = pk.parameter("nu", initial=0.1, bounds=(0, 1))

LEAVES = [t, x, nu, u, u.diff(x, 2), u.diff(t, x), sp.pi, sp.E, sp.Rational(-3, 7), sp.Float(0.1)]
ONE = [sp.sin, sp.exp, sp.tanh, sp.Abs, sp.sqrt, sp.sign, sp.atan, sp.Heaviside, sp.erf]
EXPRESSIONS = st.recursive(
    st.sampled_from(LEAVES) | st.integers(-9, 9).map(sp.Integer),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda p: p[0] + p[1]),
        st.tuples(inner, inner).map(lambda p: p[0] * p[1]),
        st.tuples(inner, st.integers(1, 3)).map(lambda p: p[0] ** p[1]),
        st.tuples(st.sampled_from(ONE), inner).map(lambda p: p[0](p[1])),
        st.tuples(inner, inner).map(lambda p: sp.Piecewise((p[0], x < 0.5), (p[1], True))),
    ),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(EXPRESSIONS)
def test_expressions_survive_json(expr: sp.Expr) -> None:
    if expr.has(sp.nan, sp.zoo, sp.oo):
        return
    assert from_tree(json.loads(json.dumps(to_tree(expr)))) == expr


def test_operators_and_metadata_survive_json() -> None:
    k = sp.Piecewise((1, (x < 0.5) & (y > 0)), (10, True))
    for expr in (pk.div(k * pk.grad(w)), pk.dn(w) + w, sp.Eq(u.diff(t), nu), sp.Matrix([u, nu])):
        assert from_tree(json.loads(json.dumps(to_tree(expr)))) == expr
    assert from_tree(to_tree(u)).unit == "m/s" and from_tree(to_tree(nu)).bounds == (0.0, 1.0)


def test_unknown_nodes_are_not_saved() -> None:
    with pytest.raises(ValueError, match="not on the whitelist"):
        to_tree(sp.Integral(x, (x, 0, 1)))


MARK = "hostile-code-ran"
HOSTILE = [
    f"__import__('pathlib').Path('{MARK}').touch()",
    ["sympify", f"__import__('pathlib').Path('{MARK}').touch()"],
    ["Lambda", ["coord", "x", False, None, None]],
    ["coord", f"x.__class__ or open('{MARK}', 'w')", False, None, None],
    ["field", "__import__('os')", False, None, None, ["coord", "x", False, None, None]],
    ["field", "u", False, None, None, ["int", "1"]],
    ["const", "__builtins__"],
    ["int", "1_000"],
    ["int", "9" * 5000],
    ["float", "nan"],
    ["Pow", ["int", "10"], ["int", "999999999"]],
    ["Pow", ["Pow", ["int", "10"], ["int", "1000"]], ["int", "1000"]],
    ["gamma", ["int", "100000000"]],
    ["diff", ["coord", "x", False, None, None], [["coord", "x", False, None, None], 10**9]],
    ["Add", {"a": 1}],
    ["Add", None],
    ["exp"],
    [],
    {},
    None,
    ["matrix", 10**9, 10**9],
    ["piecewise", [["int", "1"]]],
    ["And", ["int", "1"], ["int", "2"]],
    ["rational", "1", "0"],
]


@pytest.mark.parametrize("tree", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_trees_raise_and_execute_nothing(
    tree: object, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError):
        from_tree(tree)
    assert not list(tmp_path.iterdir())


def test_very_deep_tree_raises() -> None:
    tree: list[object] = ["int", "1"]
    for _ in range(50_000):
        tree = ["sin", tree]
    with pytest.raises(ValueError, match="too deep"):
        from_tree(tree)


def _problems() -> list[pk.PDESystem]:
    psi = pk.field("psi", t, x, complex=True)
    disk = pk.Disk((x, y), (0, 0), 1) - pk.Polygon((x, y), [(0, 0), (0.5, 0), (0, 0.5)])
    tx = pk.Interval(t, 0, 1) * pk.Interval(x, 0, 2 * sp.pi)
    k = pk.parameter("k", initial=1.0)
    return [
        pk.PDESystem(
            [sp.I * psi.diff(t) + psi.diff(x, 2)],
            tx,
            [pk.Initial(psi, sp.exp(sp.I * x)), pk.Periodic(psi, x)],
            exact=sp.exp(sp.I * (x - t)),
        ),
        pk.PDESystem(
            [u.diff(t) - k * u.diff(x, 2)],
            tx,
            [
                pk.Initial(u, sp.sin(x)),
                pk.Dirichlet(u, 0, on=sp.Eq(x, 0)),
                pk.Robin(pk.dn(u) + u, on=pk.boundary(x, "right")),
                pk.Observations(u, {t: [0.5], x: [1.0]}, [0.3], noise=0.01),
                pk.Integral(u, over=x, equals=0),
            ],
        ),
        pk.PDESystem(
            [pk.laplacian(w) + 1], disk, [pk.Dirichlet(w, 0, on=pk.boundary(disk, where=x > 0))]
        ),
        pk.PDESystem(
            [pk.laplacian(w) + sp.sin(2 * sp.pi * x)],
            pk.Box((x, y), 0, 1),
            [pk.Periodic(w, x, y), pk.Gauge(w, mean=2)],
        ),
    ]


@pytest.mark.parametrize("number", range(4))
def test_problems_survive_json(number: int) -> None:
    problem = _problems()[number]
    again = system_from_tree(json.loads(json.dumps(system_to_tree(problem))))
    assert again.equations == problem.equations and again.exact == problem.exact
    assert repr(again) == repr(problem)
    for a, b in zip(again.normal_form.observations, problem.normal_form.observations, strict=True):
        assert np.array_equal(a.points, b.points) and np.array_equal(a.values, b.values)


def test_reading_a_problem_does_not_warn_again() -> None:
    """Whoever declared it was told about the corner (warnings are errors here)."""
    domain = pk.Interval(t, 0, 1) * pk.Interval(x, 0, 1)
    conditions = [pk.Initial(u, 1), pk.Dirichlet(u, 0, on=pk.boundary(x))]
    with pytest.warns(DeclarationWarning, match="a jump of 1"):
        problem = pk.PDESystem([u.diff(t) - u.diff(x, 2)], domain, conditions)
    again = system_from_tree(json.loads(json.dumps(system_to_tree(problem))))
    assert again.normal_form.corners == problem.normal_form.corners


@pytest.mark.parametrize("broken", [None, [], {"version": 2}, {"version": 1, "equations": "x"}])
def test_broken_problem_files_raise(broken: object) -> None:
    with pytest.raises(ValueError):
        system_from_tree(broken)


def test_saved_problem_with_an_unknown_condition_raises() -> None:
    tree = system_to_tree(_problems()[0])
    tree["conditions"][0]["kind"] = "__class__"
    with pytest.raises(ValueError, match="unknown condition"):
        system_from_tree(tree)
