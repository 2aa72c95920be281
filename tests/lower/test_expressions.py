"""Compiled expressions equal mpmath's numbers, keep dtypes, and stay finite where sympy is."""

import math
from typing import Any

import mpmath
import pytest
import sympy as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pinnkit.declare.symbols import coords, field
from pinnkit.errors import UnsupportedProblemError
from pinnkit.lower import compile_expressions, lower_node
from pinnkit.lower.jets import load_forward_mode

t, x = coords("t x")
u = field("u", t, x)
y = sp.Symbol("y", real=True)


def run(expr, *values, leaves=(x, y), dtype=torch.float64):
    tensors = [torch.as_tensor(v, dtype=dtype) for v in values]
    return compile_expressions([expr], leaves[: len(tensors)])(tensors)[0]


UNARY = [sp.sin, sp.cos, sp.tanh, sp.atan, sp.erf, sp.erfc, sp.exp, sp.Abs, sp.asinh]
leaf = st.one_of(
    st.sampled_from([x, y, sp.pi, sp.E, sp.sqrt(2)]),
    st.integers(-3, 3).map(sp.Integer),
    st.fractions(-2, 2, max_denominator=7).map(lambda f: sp.Rational(f.numerator, f.denominator)),
)


def grow(inner):
    return st.one_of(
        st.tuples(inner, inner).map(lambda p: p[0] + p[1]),
        st.tuples(inner, inner).map(lambda p: p[0] * p[1]),
        st.tuples(inner, inner).map(lambda p: p[0] / (1 + p[1] ** 2)),
        st.tuples(st.sampled_from(UNARY), inner).map(lambda p: p[0](p[1])),
        inner.map(lambda e: sp.sqrt(1 + e**2)),
        inner.map(lambda e: e**3),
        st.tuples(inner, inner).map(lambda p: sp.Max(p[0], p[1])),
        st.tuples(inner, inner).map(
            lambda p: sp.Piecewise((p[0], x > sp.Rational(1, 3)), (p[1], True))
        ),
    )


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.recursive(leaf, grow, max_leaves=8), st.floats(-2, 2), st.floats(-2, 2))
def test_random_expressions_equal_mpmath(expr, a, b):
    """The compiler never changes the mathematics."""
    with mpmath.workdps(40):
        exact = {x: sp.Float(mpmath.mpf(a), 40), y: sp.Float(mpmath.mpf(b), 40)}
        want = complex(sp.N(sp.sympify(expr).subs(exact), 30))
    if abs(want.imag) > 1e-25 or not abs(want.real) < 1e12:
        return
    got = float(run(expr, a, b))
    # Near a jump or a cancellation the inputs' own rounding decides; sizes here stay moderate.
    assert got == pytest.approx(want.real, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constants_keep_the_dtype(dtype):
    """sqrt(2), pi, rationals and Piecewise of integers neither promote nor become integers."""
    exprs = [
        sp.sqrt(2) * x,
        sp.pi + 0 * x,
        sp.Rational(1, 3) - x,
        sp.Piecewise((1, x > 0), (0, True)),
        sp.Max(x, 0),
        sp.gamma(x + 3),
        sp.Heaviside(x),
        sp.Integer(2),
    ]
    out = compile_expressions(exprs, [x])([torch.linspace(-1, 1, 5, dtype=dtype)])
    assert {o.dtype for o in out} == {dtype}
    assert {o.shape for o in out} == {torch.Size([5])}


def test_leaves_broadcast_together():
    """A number, a column and a field's values."""
    f = compile_expressions([u + t, sp.Integer(1)], [t, x, u, u.diff(x)])
    one = torch.ones((), dtype=torch.float64)
    out = f([one, one, torch.ones(4, dtype=torch.float64), one])
    assert [o.shape for o in out] == [torch.Size([4])] * 2


@pytest.mark.parametrize(
    ("expr", "at", "slope"),
    [
        (sp.Piecewise((sp.sqrt(x), x > 0), (0, True)), 0.0, 0.0),
        (sp.Piecewise((sp.log(x), x > 0), (x**2, True)), -1.0, -2.0),
        (sp.Piecewise((sp.sin(x) / x, sp.Ne(x, 0)), (1, True)), 0.0, 0.0),
        (x ** sp.Rational(3, 2), 0.0, 0.0),
        (x**2, 0.0, 0.0),
        (x**0.5 * 0 + x**5, 1.0, 5.0),
        (sp.sinc(x), 0.0, 0.0),
        (sp.Abs(x), 0.0, 0.0),
    ],
)
def test_gradients_are_finite_where_the_mathematics_is(expr, at, slope):
    """No NaN from an unselected branch or a split power; also vectorised and in forward mode."""
    load_forward_mode()
    f = compile_expressions([expr], [x])
    point = torch.tensor(at, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(f([point])[0], point)
    assert float(gradient) == slope
    batch = torch.tensor([at, 0.7], dtype=torch.float64)
    vector = torch.func.vmap(torch.func.grad(lambda v: f([v])[0]))(batch)
    assert float(vector[0]) == slope and bool(torch.isfinite(vector).all())
    pushed = torch.func.jvp(lambda v: f([v])[0], (batch,), (torch.ones_like(batch),))[1]
    assert float(pushed[0]) == slope


def test_a_point_no_condition_selects_is_nan():
    """As in sympy: a hole in a Piecewise is not silently zero."""
    assert math.isnan(float(run(sp.Piecewise((1, x > 0)), -1.0)))


def test_gamma_and_loggamma_on_the_negative_axis():
    """torch's lgamma is log|gamma|, another function."""
    assert float(run(sp.gamma(x), -1.5)) == pytest.approx(float(sp.gamma(-1.5)), rel=1e-13)
    assert math.isnan(float(run(sp.loggamma(x), -1.5)))


def test_relations_become_masks():
    """For faces with where=."""
    either: Any = sp.Or(y < 1, sp.Eq(y, 3))  # pyright: ignore[reportArgumentType]
    out = run(sp.And(x > 0, either), [1.0, -1.0, 1.0], [3.0, 0.0, 2.0])
    assert out.tolist() == [True, False, False]


def test_equal_subtrees_are_computed_once():
    """exp(x) in three places is one instruction."""
    f = compile_expressions([sp.exp(x) + 1, sp.exp(x) * sp.sin(sp.exp(x))], [x])
    assert sum(function is torch.exp for function, _ in f.program.code) == 1


@pytest.mark.parametrize(
    ("expr", "words"),
    [
        (sp.I * x, "complex"),
        (sp.zoo, "not a number"),
        (u.diff(x, 3), "derivative"),
        (field("v", x) + x, r"field v\(x\)"),
        (sp.Symbol("k") * x, "symbols k"),
        (sp.airyai(x), r"airyai\(x\).*lower_node.register"),
    ],
)
def test_what_cannot_be_lowered_is_named(expr, words):
    """In the user's own symbols."""
    with pytest.raises(UnsupportedProblemError, match=words):
        compile_expressions([expr], [t, x, u])


def test_users_can_register_a_function():
    """As the authors do it."""

    class Cube(sp.Function):
        pass

    @lower_node.register(Cube)
    def _(node):
        return lambda v: v**3

    cube: Any = Cube(x)
    assert float(run(cube + 1, 2.0)) == 9.0
