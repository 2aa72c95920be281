"""The stability statements behind the stable classes, by simulation, with and without their conditions."""

from __future__ import annotations

import math

import torch

from pinnkit.neural_de import SDE, Noise, integrate

F64 = torch.float64
N = 4000


def test_langevin_has_an_invariant_law():
    """dz = (-2 z + tanh(3 z)) dt + 0.5 dW: two far starts end in one law (largest CDF difference).

    Two samples of 4000 of the same law differ by more than 0.044 with probability 0.1 per cent.
    """
    equation = SDE(
        lambda t, z: -2 * z + torch.tanh(3 * z),
        lambda t, z: torch.full_like(z, 0.5),
        Noise.ADDITIVE,
    )
    ends = []
    for seed, start in enumerate((-3.0, 3.0)):
        z0 = torch.full((N, 1), start, dtype=F64)
        ends.append(integrate(equation, z0, [0.0, 40.0], dt=0.1, brownian=seed).end[:, 0])
    both = torch.cat(ends).sort().values
    share = [torch.searchsorted(e.sort().values, both, right=True) / N for e in ends]
    assert float((share[0] - share[1]).abs().max()) <= 0.044
    # Without the restoring force the starts are never forgotten.
    free = SDE(lambda t, z: torch.tanh(z), equation.diffusion, Noise.ADDITIVE)
    apart = [
        integrate(free, torch.full((100, 1), s, dtype=F64), [0.0, 10.0], dt=0.1).end.mean()
        for s in (-3.0, 3.0)
    ]
    assert float(apart[1] - apart[0]) > 10


def test_linear_noise_is_stable_in_the_mean_square():
    """dz = -z dt + sigma z dW: d E z^2 / dt = (sigma^2 - 2) E z^2, decay for sigma = 1, growth for 2.

    E z(T)^2 of the Euler scheme is ((1 - h)^2 + sigma^2 h)^n exactly; within four standard errors, with
    the variance of z^2 from ((1 - h)^4 + 6 (1 - h)^2 sigma^2 h + 3 sigma^4 h^2)^n.
    """
    h, steps = 0.05, 20
    for sigma in (1.0, 2.0):
        equation = SDE(lambda t, z: -z, lambda t, z, s=sigma: s * z, Noise.DIAGONAL)
        z0 = torch.ones(20 * N, 1, dtype=F64)
        found = integrate(equation, z0, [0.0, steps * h], dt=h, brownian=3).end.square().mean()
        second = ((1 - h) ** 2 + sigma**2 * h) ** steps
        fourth = ((1 - h) ** 4 + 6 * (1 - h) ** 2 * sigma**2 * h + 3 * sigma**4 * h**2) ** steps
        assert abs(float(found) - second) <= 4 * math.sqrt((fourth - second**2) / (20 * N))
        assert (second < 1) is (sigma**2 < 2)


def test_geometric_paths_decay_though_their_mean_grows():
    """dz = z dt / 2 + 2 z dW: log z drifts by 1/2 - 2 < 0, while E z = exp(t / 2).

    log z(10) is normal with mean -15 and variance 40: P(z(10) < 1) = 0.991.
    """
    y = SDE(
        lambda t, y: torch.full_like(y, 0.5 - 2.0),
        lambda t, y: torch.full_like(y, 2.0),
        Noise.ADDITIVE,
    )
    end = integrate(y, torch.zeros(N, 1, dtype=F64), [0.0, 10.0], dt=0.1).end
    share = float((end < 0).double().mean())
    assert abs(share - 0.9911) <= 4 * math.sqrt(0.9911 * 0.0089 / N)
    early = integrate(y, torch.zeros(50 * N, 1, dtype=F64), [0.0, 0.5], dt=0.1).end.exp()
    error = 4 * float(early.std()) / math.sqrt(50 * N)
    assert abs(float(early.mean()) - math.exp(0.25)) <= error
    assert float(early.mean()) > 1


def test_logarithmic_coordinates_keep_the_sign():
    """dt = 1, sigma = 3: exp(y) is positive; Euler in z is not."""
    z = SDE(lambda t, z: 0.1 * z, lambda t, z: 3 * z, Noise.DIAGONAL)
    y = SDE(
        lambda t, y: torch.full_like(y, 0.1 - 4.5),
        lambda t, y: torch.full_like(y, 3.0),
        Noise.ADDITIVE,
    )
    times = torch.arange(6, dtype=F64)
    plain = integrate(z, torch.ones(N, 1, dtype=F64), times, brownian=0)
    logarithmic = integrate(y, torch.zeros(N, 1, dtype=F64), times, brownian=0)
    assert bool((plain.states < 0).any())
    assert bool((logarithmic.states.exp() > 0).all())
