"""Gallery families: declared, drawn, put in; diffusion-sorption against the published figures."""

from __future__ import annotations

import inspect
import pickle

import numpy as np
import pytest
import sympy as sp

import pinnkit as pk
from pinnkit import problems
from pinnkit.problems import FAMILY_GALLERY  # pyright: ignore[reportMissingImports]

PRINTED = 0.03  # the published figures have two digits


@pytest.mark.parametrize("cls", FAMILY_GALLERY, ids=lambda c: c.__name__)
def test_families_declare_draw_and_pickle(cls):
    """What every gallery class says of itself, and that a drawn member is a problem of its own."""
    problem = cls()
    doc = inspect.getdoc(cls) or ""
    assert "=" in doc.splitlines()[0] and problem.citation
    assert all(f"    {n}: " in doc for n in cls.__dataclass_fields__)
    again = pickle.loads(pickle.dumps(problem))
    assert again == problem
    (sample,) = problem.sample(1, seed=2)
    assert again.sample(1, seed=2) == [sample]
    assert set(sample) == set(problem.given) == set(problem.inputs)
    points = np.full((3, len(problem.coords)), 0.25)
    values = problem.values([sample], points, problem.given)
    assert all(v.shape == (1, 3) and np.isfinite(v).all() for v in values.values())
    member = problem.on(sample)
    assert member.normal_form.given == () and member.fields == problem.fields
    assert pk.MethodOfLines().supports(member) is None


def test_diffusion_sorption_has_the_published_retardation():
    """R = 1 + 2.15691 u^(n_f - 1)."""
    (u,) = problems.DiffusionSorption().fields
    R = problems.DiffusionSorption(eps=0.0).retardation()
    assert float(R.subs(u, 1)) == pytest.approx(3.15691, abs=1e-5)
    assert float(sp.log((R - 1) / (R - 1).subs(u, 1)).subs(u, 0.5) / sp.log(0.5)) == pytest.approx(
        -0.126, abs=1e-12
    )


def test_diffusion_sorption_meets_the_published_figures():
    """u in the last cell at t = 5, 50, 500 for u0 = 0.1043: 3.5e-3, 1.1e-3, 4.8e-4.

    The data's outflow is the value of a ghost cell, half a cell outside; with the slope g at x = 1 our
    u(t, 1) is D g, and theirs in the last cell (D + dx) g.
    """
    family = problems.DiffusionSorption()
    sol = family.reference({"u0": 0.1043}, accuracy=1e-3, verify=False, time_limit=60)
    last = sol(t=[5.0, 50.0, 500.0], x=1.0) * (1 + 1 / 1024 / family.D)
    assert last == pytest.approx([3.5e-3, 1.1e-3, 4.8e-4], rel=PRINTED)
    assert sol(t=5.0, x=1 / 1024) == pytest.approx(0.979, abs=0.005)
    assert sol(t=500.0, x=0.0) == pytest.approx(1.0, abs=1e-10)


def test_torus_vorticity_has_no_mean():
    family = problems.NavierStokesTorus()
    (w0,) = family.given
    (sample,) = family.sample(1)
    grid = np.stack([g.ravel() for g in np.meshgrid([0.0], *[np.arange(32) / 32] * 2)], 1)
    values = family.values([sample], grid)[w0]
    assert abs(values.mean()) < 1e-14 < values.std()
