"""Plots, animations, VTK, citations: they are made of the right numbers, without pyplot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sympy as sp

import pinnkit as pk
from pinnkit.errors import UnsupportedProblemError
from tests.solution.fakes import Classical, Halving, heat, normal_form, t, u, x
from tests.solution.test_solution import a, b, k, psi, solution

y = pk.coords("y")
w = pk.field("w", x, y)
v = pk.field("v", t, x, y)
z = pk.field("z", t)


def titles(figure) -> list[str]:
    return [ax.get_title() for ax in figure.axes]


def test_a_judged_evolution_shows_field_slices_error_residual_history(classical: Classical):
    figure = pk.solve(heat(), Halving(), max_steps=60).plot()
    assert [s for s in titles(figure) if s] == [
        "u",
        "slices of u (dotted: reference)",
        "log10 |error of u|",
        "log10 |residual|",
        "history",
    ]


def test_every_shape_of_problem_can_be_drawn(tmp_path: Path):
    shapes = [
        solution({z: sp.exp(-t)}, fields=(z,), equations=(z.diff(t) + z,), coords=(t,)),
        solution({w: x * y}, fields=(w,), equations=(w.diff(x, 2) + w.diff(y, 2),), coords=(x, y)),
        solution({v: t * x * y}, fields=(v,), equations=(v.diff(t),), coords=(t, x, y)),
        solution({u: t * x, k: 1 + x}, fields=(u, k), equations=(u.diff(t) - k,)),
        solution(
            {psi: sp.exp(sp.I * (x - t))},
            normal_form(fields=(a, b), equations=(a.diff(t) - b,), complex_fields={psi: (a, b)}),
        ),
    ]
    for i, sol in enumerate(shapes):
        figure = sol.plot()
        figure.savefig(tmp_path / f"{i}.png", dpi=40)
        assert (tmp_path / f"{i}.png").stat().st_size > 1000
    assert "log10 |error of u|" in titles(solution({u: t * x}).plot(reference=t * x * 1.01))


def test_plotting_leaves_pyplot_alone():
    """A figure made with pyplot would stay in its global list."""
    from matplotlib._pylab_helpers import Gcf

    before = list(Gcf.get_all_fig_managers())
    solution({u: t * x}).plot()
    assert list(Gcf.get_all_fig_managers()) == before


def test_animation_draws_every_frame(tmp_path: Path):
    movie = solution({u: sp.cos(x + t)}).animate(frames=3)
    movie.save(tmp_path / "a.gif", writer="pillow")
    assert (tmp_path / "a.gif").stat().st_size > 1000
    with pytest.raises(ValueError, match="needs a time"):
        solution({w: x * y}, fields=(w,), equations=(), coords=(x, y)).animate()


def test_xarray_carries_units():
    p = pk.coords("x")
    metres = type(p)("x", unit="m")
    height = pk.field("height", metres, unit="km")
    sol = solution(
        {height: 2 * metres},
        fields=(height,),
        equations=(height.diff(metres) - 2,),
        coords=(metres,),
    )
    data = sol.to_xarray(x=5)
    assert data["height"].attrs["units"] == "km" and data["x"].attrs["units"] == "m"
    assert data.attrs["status"] == "UNVERIFIED"
    np.testing.assert_allclose(data["height"].values, 2 * np.linspace(0, 1, 5))


def test_vtk_holds_the_values_in_its_own_order(tmp_path: Path):
    sol = solution({v: t + x + 10 * y}, fields=(v,), equations=(), coords=(t, x, y))
    sol.to_vtk(tmp_path / "s.vtk", t=2, x=3, y=2)
    raw = (tmp_path / "s_0001.vtk").read_bytes()
    assert raw.startswith(b"# vtk DataFile Version 3.0\npinnkit t = 1\nBINARY\n")
    assert b"DIMENSIONS 3 2 1\n" in raw
    start = raw.index(b"LOOKUP_TABLE default\n") + len(b"LOOKUP_TABLE default\n")
    values = np.frombuffer(raw[start : start + 48], dtype=">f8")
    np.testing.assert_allclose(values, [1, 1.5, 2, 11, 11.5, 12])
    with pytest.raises(UnsupportedProblemError, match="1 space coordinates"):
        solution({u: t * x}).to_vtk(tmp_path / "no.vtk")


def test_citation_names_package_and_method(classical: Classical):
    text = pk.citation(pk.solve(heat(), Halving(), max_steps=2))
    assert "@software{pinnkit," in text and "@article{zeno" in text
