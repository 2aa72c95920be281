"""What a time window is made of: networks and features chosen from the problem and its start."""

from __future__ import annotations

from typing import Any

import pytest
import sympy as sp
import torch

import pinnkit as pk
from pinnkit import problems  # pyright: ignore[reportAttributeAccessIssue]
from pinnkit.nn import Chain, PeriodicFeatures
from pinnkit.solvers.base import Env
from pinnkit.solvers.windows import WAVES


def _state(system: Any, **settings: Any) -> Any:
    env = Env(torch.device("cpu"), torch.float64, torch.Generator().manual_seed(0), 0)
    return pk.CausalPINN(width=6, depth=1, **settings).init(system, env)


def _harmonics(window: Any) -> int:
    """Sines and cosines a network of (t, x) gets, less the time itself, in pairs."""
    network = window.collocation.model.network
    chain = next(m for m in network.modules() if isinstance(m, Chain))
    features = chain.parts[0]
    assert isinstance(features, PeriodicFeatures)
    return (features.outputs - 1) // 2


def _ring(equation: Any, start: Any) -> pk.PDESystem:
    t, x = pk.coords("t x")
    u = pk.field("u", t, x)
    return pk.PDESystem(
        [u.diff(t) + equation(u, x)],
        domain=pk.Interval(t, 0, 1) * pk.Interval(x, -1, 1),
        conditions=[pk.Initial(u, start(x)), pk.Periodic(u, x)],
    )


def _burgers(u: Any, x: Any) -> Any:
    return u * u.diff(x) - u.diff(x, 2) / 10


@pytest.mark.parametrize(
    "equation, start, expected",
    [
        (_burgers, lambda x: sp.sin(sp.pi * x), 1),
        (_burgers, lambda x: 3 + sp.sin(sp.pi * x) + sp.cos(2 * sp.pi * x) / 2, WAVES),
        (_burgers, lambda x: 3 + sp.sin(sp.pi * x) + sp.cos(2 * sp.pi * x) / 200, 1),
        (lambda u, x: -u.diff(x, 2), lambda x: sp.exp(sp.sin(sp.pi * x)), 1),
    ],
    ids=["one wave", "two waves", "a small second wave", "linear"],
)
def test_features_follow_what_a_window_starts_from(equation: Any, start: Any, expected: int):
    assert _harmonics(_state(_ring(equation, start)).window) == expected


def test_a_later_window_looks_at_what_was_handed_over():
    """Steep waves are not the sine they came from; the number asked for stays."""
    system = _ring(_burgers, lambda x: sp.sin(sp.pi * x))
    for settings, expected in (({}, WAVES), ({"harmonics": 2}, 2)):
        state = _state(system, windows=2, **settings)
        generator = torch.Generator().manual_seed(3)
        first = state.window.collocation
        state.best_theta = 3 * torch.randn(first.size, generator=generator, dtype=torch.float64)
        state.close()
        assert _harmonics(state.window) == expected


def test_plain_networks_where_nothing_repeats():
    """Burgers between walls has no Fourier features at all."""
    network = _state(problems.Burgers().system).window.collocation.model.network
    assert not any(isinstance(m, PeriodicFeatures) for m in network.modules())
