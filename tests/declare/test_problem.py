"""Problems are immutable, remade, pickled, and print themselves."""

from __future__ import annotations

import pickle

import pytest
import sympy as sp

import pinnkit.declare as pk
from pinnkit.errors import DeclarationError

t, x = pk.coords("t x")
u = pk.field("u", t, x)
nu = pk.parameter("nu", initial=0.5)
DOMAIN = pk.Interval(t, 0, 1) * pk.Interval(x, 0, 1)
CONDITIONS = [pk.Initial(u, sp.sin(sp.pi * x)), pk.Dirichlet(u, 0, on=pk.boundary(x))]
EXACT = sp.exp(-(sp.pi**2) * t) * sp.sin(sp.pi * x)


def heat(**changes: object) -> pk.PDESystem:
    return pk.PDESystem([u.diff(t) - u.diff(x, 2)], DOMAIN, CONDITIONS, **changes)  # type: ignore[arg-type]


@pk.problem
class Decay(pk.ProblemClass):
    """y' = -k y, y(0) = 1."""

    k: float = 1.0

    def declare(self) -> pk.PDESystem:
        y = pk.field("y", t)
        return pk.PDESystem([y.diff(t) + self.k * y], pk.Interval(t, 0, 1), [pk.Initial(y, 1)])

    def exact(self) -> object:
        return {pk.field("y", t): sp.exp(-self.k * t)}


def test_problems_are_immutable() -> None:
    with pytest.raises(AttributeError, match=r"remake\(domain=...\)"):
        heat().domain = DOMAIN  # type: ignore[misc]


def test_remake_with_a_parameter_makes_it_known() -> None:
    unknown = heat().remake(equations=[u.diff(t) - nu * u.diff(x, 2)])
    assert unknown.parameters == (nu,)
    known = unknown.remake(parameters={nu: 0.02})
    assert known.parameters == () and known.equations == (u.diff(t) - 0.02 * u.diff(x, 2),)
    with pytest.raises(DeclarationError, match="no unknown number"):
        known.remake(parameters={nu: 0.02})


def test_remake_refuses_unknown_keywords() -> None:
    with pytest.raises(TypeError, match="condition"):
        heat().remake(condition=[])  # type: ignore[call-arg]


def test_residual_of_the_exact_solution_is_zero() -> None:
    assert heat(exact=EXACT).residual(EXACT) == (0, 0, 0, 0)


def test_residual_of_a_candidate_is_what_is_left() -> None:
    assert heat().residual(x) == (0, x - sp.sin(sp.pi * x), 0, 1)


def test_residual_needs_every_field() -> None:
    v = pk.field("v", t, x)
    with pytest.raises(DeclarationError, match="v is no field of the problem"):
        heat().residual({v: x})


def test_problems_pickle() -> None:
    again = pickle.loads(pickle.dumps(heat(exact=EXACT)))
    assert again.equations == heat().equations and again.exact == {u: EXACT}
    assert again.normal_form.conditions == heat().normal_form.conditions


def test_problem_class_is_frozen_picklable_and_remade() -> None:
    decay = Decay(k=2.0)
    with pytest.raises(AttributeError):
        decay.k = 3.0  # type: ignore[misc]
    again = decay.remake(k=3.0)
    assert (again.k, repr(again)) == (3.0, "Decay(k=3.0)")
    state = decay.__getstate__()
    assert state == {"k": 2.0}  # the declared system is rebuilt, never stored
    assert decay.system.exact == {pk.field("y", t): sp.exp(-2.0 * t)}
    assert decay.coords == (t,) and len(decay.fields) == 1 and decay.parameters == ()


def test_problem_class_refuses_a_wrong_exact_solution() -> None:
    @pk.problem
    class Wrong(Decay):
        def exact(self) -> object:
            return {pk.field("y", t): sp.exp(self.k * t)}

    with pytest.raises(DeclarationError, match="does not satisfy equation 1"):
        Wrong()


def test_latex_and_text_read_like_the_declaration() -> None:
    problem = heat()
    assert r"\partial_{t} u - \partial_{xx} u &= 0" in problem.latex()
    assert "u.diff(t) - u.diff(x, 2) = 0" in repr(problem)
    assert "boundary(x)" in repr(problem)


def test_diagnosis_names_the_small_parameter() -> None:
    """Burgers at nu = 0.01/pi: convection is about 300 times diffusion, layers 0.003 wide."""
    burgers = pk.PDESystem(
        [u.diff(t) + u * u.diff(x) - 0.01 / sp.pi * u.diff(x, 2)],
        pk.Interval(t, 0, 1) * pk.Interval(x, -1, 1),
        [pk.Initial(u, -sp.sin(sp.pi * x)), pk.Dirichlet(u, 0, on=pk.boundary(x))],
    )
    found = burgers.diagnose()
    assert 300 < found.groups["u*u.diff(x) against u.diff(x, 2) (equation 1)"] < 330
    assert "layers about 0.003" in str(found) and "parabolic" in found.kind


def test_diagnosis_finds_the_conserved_mean_of_kdv() -> None:
    kdv = pk.PDESystem(
        [u.diff(t) + u * u.diff(x) + 0.0025 * u.diff(x, 3)],
        pk.Interval(t, 0, 1) * pk.Interval(x, -1, 1),
        [pk.Initial(u, sp.cos(sp.pi * x)), pk.Periodic(u, x)],
    )
    assert kdv.diagnose().conserved == ("the integral of u dx (equation 1)",)
    assert not heat().diagnose().conserved
