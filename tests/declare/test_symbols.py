"""Symbols compare by what was declared, survive pickling, and read like sympy's."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import sympy as sp

import pinnkit.declare as pk
from pinnkit.errors import DeclarationError

t, x, y = pk.coords("t x y")
u = pk.field("u", t, x)


def test_one_name_gives_one_symbol_several_a_tuple() -> None:
    assert pk.coords("x") == x and isinstance(pk.coords("x y"), tuple)
    assert isinstance(pk.field("a b", t), tuple) and isinstance(pk.parameter("k m"), tuple)


def test_symbols_and_fields_compare_by_name() -> None:
    """Declaring twice gives equal objects, so that sol[u.diff(x)] works after loading."""
    assert pk.field("u", *pk.coords("t x")).diff(x) == u.diff(x)
    assert pk.coords("t").is_time and not x.is_time
    z = pk.coords("z x", time="z")[0]
    assert z.is_time and not pk.coords("z").is_time


def test_symbols_made_twice_can_be_sorted_together() -> None:
    """sympy orders terms by what symbols are compared by, and None has no order."""
    again = pk.coords("x")
    assert again is not x and x.compare(again) == 0
    k, same = pk.parameter("k"), pk.parameter("k", bounds=(0, 1))
    assert k.compare(pk.parameter("k")) == 0 and k.compare(same) == -same.compare(k) != 0


def test_metadata_is_part_of_identity() -> None:
    """Equal symbols with other scales would be exchanged by sympy's cache."""
    scaled = pk.field("u", t, x, scale=3.0)
    assert scaled != u and scaled.scale == 3.0
    assert (scaled + 1).atoms(pk.AppliedField).pop().scale == 3.0


@pytest.mark.parametrize(
    "expr",
    [
        u.diff(x, 2) + t * u,
        pk.field("psi", t, x, complex=True).diff(t),
        pk.parameter("nu", initial=0.1, bounds=(0, 1)) * u,
        pk.div(pk.grad(pk.field("w", x, y))),
        pk.dn(u),
    ],
)
def test_expressions_pickle(expr: sp.Expr) -> None:
    again = pickle.loads(pickle.dumps(expr))
    assert again == expr and hash(again) == hash(expr)


def test_pi_prints_before_coordinates() -> None:
    """Symbols sort like sympy's own."""
    assert str(sp.sin(sp.pi * x)) == "sin(pi*x)"
    assert pk.show(u.diff(t) - u.diff(x, 2)) == "u.diff(t) - u.diff(x, 2)"


def test_substituting_a_field_into_a_power_gives_a_power() -> None:
    """A callable field would turn (s**2).subs(s, u) into u(2)."""
    s = sp.Symbol("s")
    assert (s**2).subs(s, u) == u**2


def test_grad_div_curl_laplacian_in_two_dimensions() -> None:
    w = pk.field("w", x, y)
    v: Any = pk.vector("v", t, x, y)
    assert pk.div(pk.grad(w)).doit() == pk.laplacian(w)
    assert pk.div(v).doit() == v[0].diff(x) + v[1].diff(y)
    assert pk.curl(pk.grad(w)) == 0
    assert sp.simplify(pk.div(pk.curl(w)).doit()) == 0
    assert pk.grad(v).shape == (2, 2) and pk.grad(v)[0, 1] == v[0].diff(y)


def test_curl_of_gradient_vanishes_in_three_dimensions() -> None:
    z = pk.coords("z")
    w = pk.field("w", x, y, z)
    assert pk.curl(pk.grad(w)) == sp.zeros(3, 1)


def test_time_is_no_direction_of_grad() -> None:
    assert pk.grad(u) == u.diff(x) and pk.laplacian(u) == u.diff(x, 2)


def test_div_keeps_the_flux_until_asked() -> None:
    k = sp.Piecewise((1, x < 0.5), (10, True))
    node = pk.div(k * pk.grad(u))
    assert node.flux == (k * u.diff(x),) and node.doit() == k * u.diff(x, 2)


def test_div_counts_components() -> None:
    with pytest.raises(DeclarationError, match=r"1 component\(s\) for the space coordinates x, y"):
        pk.div([pk.field("w", x, y)])
