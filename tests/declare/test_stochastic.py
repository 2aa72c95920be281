"""Stochastic systems: normal forms, the structure of noise, and refusals in the user's symbols."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import sympy as sp

import pinnkit as pk
from pinnkit.declare import Calculus, Noise

t = pk.coords("t")
z = pk.process("z", t, dim=4)
x, y = pk.process("x y", t)
W, V = pk.wiener("W V", t)
S = pk.wiener("S", t, dim=1)
X = pk.control("X", t)
k = pk.parameter("k")
gamma = pk.neural("gamma", inputs=(t, z, X))
sigma = pk.neural("sigma", inputs=(t,))
mixing = pk.neural("mixing", inputs=(z,))
d = pk.d


def form(*equations, **more):
    return pk.SDESystem(list(equations), **more).normal_form


def test_the_contract_equation():
    """The linear-noise stable class: drift and diffusion as written, diagonal noise."""
    found = form(sp.Eq(d(z), gamma * d(t) + sigma * z * d(W)))
    assert found.drift == {z: gamma}
    assert found.diffusion == {(z, W): sigma * z}
    assert (found.noise, found.elementwise, found.dim, found.channels) == (
        Noise.DIAGONAL,
        True,
        4,
        4,
    )
    assert found.shapes == {gamma: (4,), sigma: (4,)}
    assert found.controls == (X,)


@pytest.mark.parametrize(
    "equation",
    [
        sp.Eq(d(z), -z * d(t) + k * z * d(W)),
        sp.Eq(-z * d(t) + k * z * d(W), d(z)),
        d(z) + z * d(t) - k * z * d(W),
        sp.Eq(d(z) / z, -d(t) + k * d(W)),
        sp.Eq(2 * d(z), 2 * (-z * d(t) + k * z * d(W))),
        sp.Eq(d(z), z * (k * d(W) - d(t))),
    ],
)
def test_however_it_is_written(equation):
    """Sides, factors and brackets do not matter."""
    found = form(equation)
    assert sp.simplify(found.drift[z] + z) == 0
    assert sp.simplify(found.diffusion[z, W] - k * z) == 0
    assert found.parameters == (k,)


@pytest.mark.parametrize(
    ("equations", "noise", "elementwise"),
    [
        ([sp.Eq(d(z), -z * d(t) + 0.1 * d(W))], Noise.ADDITIVE, True),
        ([sp.Eq(d(z), -z * d(t) + sigma * d(W))], Noise.ADDITIVE, True),
        ([sp.Eq(d(z), -z * d(t) + 0.1 * d(S))], Noise.ADDITIVE, False),
        ([sp.Eq(d(z), sp.sin(z) * d(W))], Noise.DIAGONAL, True),
        ([sp.Eq(d(x), x * d(W)), sp.Eq(d(y), y * d(V))], Noise.DIAGONAL, True),
        ([sp.Eq(d(x), x * d(t)), sp.Eq(d(y), y * d(V))], Noise.DIAGONAL, True),
        ([sp.Eq(d(z), z * d(S))], Noise.SCALAR, False),
        ([sp.Eq(d(x), y * d(S)), sp.Eq(d(y), x * d(S))], Noise.SCALAR, False),
        ([sp.Eq(d(z), mixing * d(W))], Noise.GENERAL, True),
        ([sp.Eq(d(x), y * d(W)), sp.Eq(d(y), x * d(V))], Noise.GENERAL, True),
        ([sp.Eq(d(x), x * d(W) + x * d(V))], Noise.GENERAL, False),
        ([sp.Eq(d(x), x * d(W)), sp.Eq(d(y), y * d(V) + y * d(W))], Noise.GENERAL, False),
        ([sp.Eq(d(x), pk.neural("g", inputs=(x,)) * d(W))], Noise.DIAGONAL, True),
        ([sp.Eq(d(x), -x * d(t))], Noise.ADDITIVE, True),
    ],
)
def test_structure_of_noise(equations, noise, elementwise):
    """What is not diagonal is not called so: a network mixes the components it sees."""
    found = form(*equations)
    assert (found.noise, found.elementwise) == (noise, elementwise)


def test_matrices():
    """Three independent sources for four components, and a controlled equation."""
    B = pk.wiener("B", t, dim=3)
    found = form(sp.Eq(d(z), -z * d(t) + mixing * d(B)))
    assert found.shapes[mixing] == (4, 3)
    assert (found.noise, found.channels) == (Noise.GENERAL, 3)
    assert form(sp.Eq(d(z), mixing * d(X))).shapes[mixing] == (4, None)
    full = pk.neural("full", inputs=(z,), shape=(4, 4))
    assert form(sp.Eq(d(z), full * d(W))).elementwise is False


def test_calculi_and_repr():
    system = pk.SDESystem(sp.Eq(d(x), x * d(W)), calculus="stratonovich")
    assert system.normal_form.calculus is Calculus.STRATONOVICH
    assert repr(system) == "SDESystem (Stratonovich, diagonal noise):\n    d(x) = x*d(W)"
    assert r"\circ \mathrm{d} W" in system.latex()
    assert system.remake(calculus="ito").calculus is Calculus.ITO


def test_systems_are_immutable_picklable_and_remade():
    system = pk.SDESystem([sp.Eq(d(x), -k * x * d(t) + 0.1 * d(W))], initial={x: 1})
    with pytest.raises(AttributeError, match="immutable"):
        system.data = None  # type: ignore[misc]
    again = pickle.loads(pickle.dumps(system))
    assert again.equations == system.equations
    assert again.normal_form.drift == system.normal_form.drift
    known = system.remake(parameters={k: 2})
    assert known.parameters == () and known.normal_form.drift[x] == -2 * x
    with pytest.raises(pk.DeclarationError, match="is no unknown number"):
        system.remake(parameters={y: 1})


def test_symbols_are_their_declaration():
    """Equal by name and declaration, so that sympy's cache never exchanges two of them."""
    assert pk.process("z", t, dim=4) == z
    assert pk.process("z", t, dim=3) != z
    assert pk.neural("g", inputs=(t,)) != pk.neural("g", inputs=(z,))
    assert pk.neural("g", inputs=(z,)) != pk.neural("g", inputs=(pk.process("z", t, dim=3),))
    assert pk.wiener("W", pk.coords("t", scale=2.0)) != W
    assert pickle.loads(pickle.dumps(gamma)) == gamma
    assert str(gamma * d(t) + z * d(W)) in ("gamma*d(t) + z*d(W)", "z*d(W) + gamma*d(t)")


@pytest.mark.parametrize(
    ("equations", "message"),
    [
        ([sp.Eq(d(x), -x)], r"the term x has no differential\. Multiply it by d\(t\)"),
        ([sp.Eq(d(x), d(W) ** 2)], r"not linear in d\(W\).*d\(W\)\*\*2 is d\(t\)"),
        ([sp.Eq(d(x), d(t) * d(W))], "not linear in"),
        ([sp.Eq(d(x), d(t)), sp.Eq(d(x), d(W))], "equation 2, .* x has an equation already, number 1"),
        ([sp.Eq(d(x), y * d(t))], r"y has no equation\. Add one for d\(y\)"),
        ([sp.Eq(d(x) + d(y), 0)], "one equation per process"),
        ([sp.Eq(d(W), d(t))], "it contains no process"),
        ([sp.Eq(d(x), sp.Symbol("a") * d(t))], r'a is unknown\. Write parameter\("a"\)'),
        ([sp.Eq(d(x), W * d(t))], r"W stands outside d\(W\)"),
        ([sp.Eq(d(x), pk.field("u", t) * d(t))], r"u is a field\. Write process\(\"u\", t\)"),
        ([sp.Eq(d(x), pk.coords("r") * d(t))], "r is not the time of these processes"),
        ([sp.Eq(d(z), x * d(t)), sp.Eq(d(x), z * d(t))], "z has 4 components and x has 1"),
        ([sp.Eq(d(z), z * d(pk.wiener("B", t, dim=3)))], r"B has 3 components and z has 4.*shape=\(4, 3\)"),
        ([sp.Eq(d(z), d(X))], "nothing says how the channels of X act on z"),
        ([sp.Eq(d(z), d(W)), sp.Eq(d(x), d(W))], "its own number is not clear"),
        (
            [sp.Eq(d(z), pk.neural("g", inputs=(z,), shape=3) * d(t))],
            r"shape=\(3,\).*drift of z, which needs 4 values",
        ),
        (
            [sp.Eq(d(z), sigma * d(t)), sp.Eq(d(x), sigma * d(t))],
            r"used with the shapes \(4,\) and \(1,\)",
        ),
        ([True], "truth value"),
        ([], "there is no equation"),
    ],
)  # fmt: skip
def test_what_cannot_be_right_is_named(equations, message):
    with pytest.raises(pk.DeclarationError, match=f"(?s){message}"):
        pk.SDESystem(equations)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: d(z**2), "by the Ito formula"),
        (lambda: d(pk.coords("r")), "only time has a differential|Only time has a differential"),
        (lambda: d(gamma), "it has no differential"),
        (lambda: pk.process("z", pk.coords("r")), r'write coords\("r", time="r"\)|Write coords'),
        (lambda: pk.process("z", t, dim=0), "no number of components"),
        (lambda: pk.process("t", t), "the name of time already"),
        (lambda: pk.wiener("2W", t), "is not a name"),
        (lambda: pk.neural("g", inputs=()), "it has no inputs"),
        (lambda: pk.neural("g", inputs=(W,)), "W cannot be an input"),
        (lambda: pk.neural("g", inputs=(z,), shape=(1, 2, 3)), "that is no shape"),
        (lambda: pk.neural("g", inputs=(z,), net=3), "is no network"),  # type: ignore[arg-type]
        (lambda: form(sp.Eq(d(x), d(W)), initial={y: 1}), "y has no equation"),
        (lambda: form(sp.Eq(d(x), d(W)), initial={x: x}), "it depends on a process"),
        (lambda: form(sp.Eq(d(x), d(W)), sp.Eq(d(y), d(V)), initial={x: 1}), "y has no initial value"),
        (lambda: form(sp.Eq(d(x), d(W)), calculus="backward"), 'Write "ito" or "stratonovich"'),
        (lambda: form(sp.Eq(d(x), d(W)), data=np.zeros(3)), "that is no IrregularSeries"),
        (lambda: form(sp.Eq(d(x), d(W)), readout=3), "it is no network"),
    ],
)  # fmt: skip
def test_bad_symbols_are_named(make, message):
    with pytest.raises(pk.DeclarationError, match=message):
        make()


def test_a_pde_refuses_stochastic_terms():
    u = pk.field("u", t)
    with pytest.raises(pk.DeclarationError, match="stochastic"):
        pk.PDESystem([u.diff(t) + d(W)], domain=pk.Interval(t, 0, 1), conditions=[pk.Initial(u, 1)])
