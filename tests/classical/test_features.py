"""Narrow features of sources and data are resolved, or nothing is claimed; endings that are no answer.

Laws: a pulse of any width is found and gets breakpoints; smooth problems get none; a mesh that misses
a feature knows so and is no evidence; data and solutions that are not finite come back in words.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import sympy as sp

import pinnkit as pk
from pinnkit.classical import features, refine, solve_reference
from pinnkit.classical.features import find_breaks, unseen_share
from pinnkit.classical.implicit import OutOfTime
from pinnkit.classical.ladders import ElementLadder
from pinnkit.errors import Evidence, SolveError, Status, UnsupportedProblemError

t, x = pk.coords("t x")
u = pk.field("u", t, x)
y = pk.field("y", t)
PLACE = sp.Rational(7371, 10000)


def pulsed_decay(width: float) -> pk.PDESystem:
    """y' + y = pulse of integral 1 at 0.7371; y(1) = e^-1 + e^-(1 - 0.7371) for narrow pulses."""
    pulse = sp.exp(-(((t - PLACE) / width) ** 2)) / (width * sp.sqrt(sp.pi))
    return pk.PDESystem(
        [y.diff(t) + y - pulse], domain=pk.Interval(t, 0, 1), conditions=[pk.Initial(y, 1)]
    )


def heat(initial: sp.Expr, source: sp.Expr | int = 0) -> pk.PDESystem:
    """u_t = u_xx / 1000 + source, u = 0 at both ends."""
    return pk.PDESystem(
        [u.diff(t) - u.diff(x, 2) / 1000 - source],
        domain=pk.Interval(t, 0, 1) * pk.Interval(x, 0, 1),
        conditions=[pk.Initial(u, initial), pk.Dirichlet(u, 0, on=pk.boundary(x))],
    )


SPIKE = sp.sin(sp.pi * x) + 100 * sp.exp(-(((x - 0.3123) / 1e-4) ** 2))


def spread_spike(points: np.ndarray) -> np.ndarray:
    """The solution from SPIKE at t = 1, with one image per end."""
    spread = 1e-8 + 4e-3
    images = ((0.3123, 1), (-0.3123, -1), (2 - 0.3123, -1))
    spike = sum(sign * np.exp(-((points - p) ** 2) / spread) for p, sign in images)
    smooth = np.exp(-(np.pi**2) * 1e-3) * np.sin(np.pi * points)
    return smooth + 100 * 1e-4 / np.sqrt(spread) * spike


@pytest.mark.parametrize("width", [1e-3, 1e-5, 1e-8])
def test_pulses_in_time_are_integrated(width: float):
    sol = pk.solve(pulsed_decay(width), pk.MethodOfLines())
    assert sol.ok and sol.evidence is Evidence.REFERENCE
    assert float(sol(t=1.0)) == pytest.approx(np.exp(-1) + np.exp(float(PLACE) - 1), abs=1e-6)


def test_spikes_in_initial_data_get_elements():
    points = np.linspace(0, 1, 101)
    sol = pk.solve(heat(SPIKE), pk.MethodOfLines())
    assert sol.ok and sol.error_estimate is not None and sol.error_estimate < 1e-5
    assert np.abs(sol(t=1.0, x=points) - spread_spike(points)).max() < 1e-7  # measured 2e-10


@pytest.mark.parametrize("problem", [pulsed_decay(1e-3), heat(SPIKE)])
def test_meshes_that_miss_a_feature_are_no_evidence(
    problem: pk.PDESystem, monkeypatch: pytest.MonkeyPatch
):
    """Without breakpoints the levels agree on a wrong answer; the guard does not need them."""
    for module in ("explicit", "ladders", "choice"):
        monkeypatch.setattr(
            f"pinnkit.classical.{module}.find_breaks", lambda nf: {c: [] for c in nf.coords}
        )
    sol = pk.solve(problem, pk.MethodOfLines())
    assert not sol.ok and sol.status is Status.UNVERIFIED
    assert sol.evidence is not Evidence.REFERENCE
    assert "feature near" in sol.verification.reason


def test_a_pulse_in_space_and_time_is_found_where_both_are_narrow():
    pulse = sp.exp(-(((t - 0.61) / 1e-4) ** 2) - ((x - 0.37) / 1e-4) ** 2)
    breaks = find_breaks(heat(sp.sin(sp.pi * x), 1e6 * pulse).normal_form)
    assert min(abs(b - 0.61) for b in breaks[t]) < 1e-3
    assert min(abs(b - 0.37) for b in breaks[x]) < 1e-3


@pytest.mark.parametrize(
    "initial",
    [
        sp.sin(3 * sp.pi * x),
        sp.exp(-(((x - 0.5) / 0.1) ** 2)),
        sp.Abs(x - 0.3) * x * (1 - x),
        sp.Piecewise((1, x < 0.3), (0, True)) * x * (1 - x),
        x * (1 - x),
    ],
)
def test_wide_data_and_lone_kinks_get_no_breakpoints(initial: sp.Expr):
    assert not any(find_breaks(heat(initial).normal_form).values())


def test_two_jumps_close_together_are_a_feature():
    hat = sp.Piecewise((100, (x > 0.3) & (x < 0.3002)), (0, True))
    breaks = find_breaks(heat(hat).normal_form)[x]
    for edge in (0.3, 0.3002):
        assert min(abs(b - edge) for b in breaks) < 1e-8


def test_the_unseen_share_is_the_integral_the_mesh_loses(monkeypatch: pytest.MonkeyPatch):
    nf = pulsed_decay(1e-5).normal_form
    assert unseen_share(nf, solve_reference(nf).approximation)[0] < 1e-6  # type: ignore[arg-type]
    monkeypatch.setattr(refine, "unseen_share", lambda *_: (0.0, ""))
    monkeypatch.setattr("pinnkit.classical.explicit.find_breaks", lambda nf: {t: []})
    blind = solve_reference(nf).approximation
    assert blind is not None
    share, where = features.unseen_share(nf, blind)
    assert share == pytest.approx(1.0, abs=1e-6) and "near t = 0.7" in where


@pytest.mark.parametrize("value", [1 / x, sp.log(x - sp.Rational(1, 2))])
def test_initial_data_that_are_not_finite_are_named(value: sp.Expr):
    with pytest.raises(UnsupportedProblemError, match=r"u\(.*not finite at x = 0"):
        pk.solve(heat(value), pk.MethodOfLines())


def growth(rate: sp.Expr, end: float) -> pk.PDESystem:
    return pk.PDESystem(
        [y.diff(t) - rate], domain=pk.Interval(t, 0, end), conditions=[pk.Initial(y, 1)]
    )


@pytest.mark.parametrize(
    ("rate", "end", "knobs", "status"),
    [
        (y**2, 2.0, {}, Status.DIVERGED),
        (100 * y, 8.0, {}, Status.DIVERGED),
        (-y, 1.0, {"time_limit": 0}, Status.TIME_LIMIT),
        (-y, 1.0, {"max_steps": 0}, Status.MAX_STEPS),
    ],
)
def test_no_answer_is_a_solve_error_with_its_status(
    rate: sp.Expr, end: float, knobs: dict, status: Status
):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(SolveError, match=r"MethodOfLines\(\) has no answer") as caught:
            pk.solve(growth(rate, end), pk.MethodOfLines(), **knobs)
    assert caught.value.status is status


def test_one_level_alone_is_an_answer_of_unknown_error(monkeypatch: pytest.MonkeyPatch):
    """Time runs out between the first and the second level."""
    real = ElementLadder.climb

    def climb(ladder: ElementLadder, deadline: float):
        if ladder.level:
            raise OutOfTime
        return real(ladder, deadline)

    monkeypatch.setattr(ElementLadder, "climb", climb)
    sol = pk.solve(heat(sp.sin(sp.pi * x)), pk.MethodOfLines(), time_limit=20)
    assert sol.stats.stopped_by is Status.TIME_LIMIT
    assert np.isfinite(sol(t=1.0, x=0.5)) and np.isinf(sol.stats.more["own_error"])


def test_without_verification_the_own_estimate_is_in_the_stats():
    sol = pk.solve(growth(-y, 1.0), pk.MethodOfLines(), verify=False)
    assert sol.status is Status.UNVERIFIED and sol.stats.more["own_error"] < 1e-6
    assert "own_error" in sol.verification.reason
