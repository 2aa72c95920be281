"""The error equation finds the errors that were put in."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import sympy as sp
import torch
from torch import Tensor

from pinnkit.classical import ladders, refine, solve_defect
from tests.classical import test_reference as cases


@functools.cache
def function_of(expr: sp.Expr, coords: tuple[sp.Symbol, ...], alpha: tuple[int, ...]) -> Any:
    """A derivative of the expression on columns of coordinates; compiled once."""
    for coord, count in zip(coords, alpha, strict=True):
        expr = sp.diff(expr, coord, count) if count else expr
    return sp.lambdify(coords, expr, "numpy")


class Expression:
    """A sympy expression per field as an approximate solution."""

    def __init__(self, nf, exprs: Sequence[sp.Expr]) -> None:
        self.coords, self.exprs = nf.coords, exprs

    def derivatives(
        self, points: Tensor, wanted: Sequence[tuple[int, tuple[int, ...]]]
    ) -> list[Tensor]:
        columns = points.numpy().T
        out = []
        for index, alpha in wanted:
            values = function_of(self.exprs[index], self.coords, tuple(alpha))(*columns)
            out.append(torch.from_numpy(np.broadcast_to(values, len(points)).astype(float)))
        return out


@pytest.mark.parametrize("size", [1e-5, 1e-2])
@pytest.mark.parametrize(
    "case", [cases.heat, cases.wave, cases.radiation, cases.logistic, cases.poisson_2d]
)
def test_the_estimate_bounds_the_error_and_is_close(case, size: float, monkeypatch):
    """True error <= estimate <= 5 true, without ever solving for the reference."""

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("the error equation must not use the reference")

    monkeypatch.setattr(refine, "solve_reference", forbidden)
    system, exact = case()
    nf = system.normal_form
    wrong = [
        exact[u] + size * sp.Mul(*(sp.cos(sp.Rational(37, 10) * c + 1) for c in nf.coords))
        for u in nf.fields
    ]
    defect = solve_defect(nf, Expression(nf, wrong), time_limit=30)
    meshes = np.meshgrid(
        *[np.linspace(nf.bounds[c][0], nf.bounds[c][1], 41) for c in nf.coords], indexing="ij"
    )
    gap = sp.lambdify(nf.coords, wrong[0] - exact[nf.fields[0]], "numpy")(*meshes)
    truth = sp.lambdify(nf.coords, exact[nf.fields[0]], "numpy")(*meshes)
    error = np.linalg.norm(gap) / np.linalg.norm(truth)
    assert error <= defect.error <= 5 * error
    assert defect.correction is not None


def test_a_plainly_wrong_answer_is_not_excused():
    """The zero function for the heat equation is wrong by 100 %."""
    system, _ = cases.heat()
    nf = system.normal_form
    defect = solve_defect(nf, Expression(nf, [sp.Integer(0)]), time_limit=30)
    assert 1.0 <= defect.error <= 2.0


def test_an_answer_that_is_not_finite_has_no_estimate():
    system, _ = cases.heat()
    nf = system.normal_form
    defect = solve_defect(nf, Expression(nf, [sp.nan]), time_limit=30)
    assert defect.error == np.inf
    assert "not finite" in defect.reason


def test_a_matrix_too_large_to_factorise_is_not_begun(monkeypatch, capfd):
    """The size is estimated first, and the reason says it; SuperLU would print into the terminal."""
    system, exact = cases.poisson_2d()
    nf = system.normal_form
    monkeypatch.setattr(ladders, "MOST_FILLING", 1.0)
    defect = solve_defect(nf, Expression(nf, list(exact.values())), time_limit=30)
    assert not np.isfinite(defect.error)
    assert "unknowns" in defect.reason and "GiB" in defect.reason
    assert capfd.readouterr().err == ""
