"""Strong and weak orders of the fixed-step methods, by step halving along one Brownian path.

Diagonal and scalar noise: geometric Brownian motion, dz = m z dt + s z dW, whose solution is
z0 exp((m - s^2/2) t + s W) in Ito's calculus and z0 exp(m t + s W) in Stratonovich's.
Additive noise: dz = -m z dt + s dW, whose solution is e^{-m t} z0 + s int e^{-m (t - r)} dW_r; the
integral is a sum over a path eight times finer than the finest step, with the weight of the middle.
"""

from __future__ import annotations

import math

import pytest
import torch

from pinnkit.neural_de import (
    SDE,
    BrownianPath,
    Calculus,
    EulerMaruyama,
    Milstein,
    Noise,
    StochasticHeun,
    TimeGrid,
    integrate,
)

ITO, STRATONOVICH = Calculus.ITO, Calculus.STRATONOVICH
STRONG, WEAK = 0.15, 0.3  # how far a slope may lie from the order, its interval included
LEVELS, GROUPS, EACH = 4, 10, 100  # step halvings; groups of samples for the intervals
T_QUANTILE = 2.262  # two-sided 95 per cent, GROUPS - 1 degrees of freedom


class Case:
    """An equation, its solution as a function of W(1), and the coarsest step."""

    def __init__(self, noise, calculus, m=(0.5, 0.3), s=(1.0, 0.7)):
        self.noise, self.calculus = noise, calculus
        self.m, self.s = torch.tensor(m, dtype=torch.float64), torch.tensor(s, dtype=torch.float64)

    def equation(self):
        if self.noise is Noise.ADDITIVE:
            drift, diffusion = (lambda t, z: -self.m * z), (lambda t, z: self.s.expand_as(z))
            return SDE(drift, diffusion, self.noise, self.calculus)
        return SDE(lambda t, z: self.m * z, lambda t, z: self.s * z, self.noise, self.calculus)

    def solution(self, path, sign):
        """At time 1, from ones, along a path or its mirror image."""
        if self.noise is Noise.ADDITIVE:
            while path.level < LEVELS + 2:
                path = path.refine()
            middles = 0.5 * (path.grid.points[1:] + path.grid.points[:-1])
            weights = torch.exp(-self.m * (1 - middles[:, None]))
            noise = torch.einsum("kh,kbh->bh", weights, path.increments)
            return torch.exp(-self.m) + sign * self.s * noise
        w = sign * path.increments.sum(0)
        shift = 0.5 * self.s.square() if self.calculus is ITO else 0.0
        return torch.exp(self.m - shift + self.s * w)


def slopes(errors):
    """Mean and half-width of the 95 per cent interval of the log-log slope; errors (levels, groups)."""
    h = -math.log(2) * torch.arange(len(errors), dtype=torch.float64)
    h = h - h.mean()
    per_group = (h[:, None] * errors.log()).sum(0) / h.square().sum()
    half = T_QUANTILE * per_group.std() / math.sqrt(per_group.numel())
    return float(per_group.mean()), float(half)


def differences(case, method, first_steps):
    """Numerical minus exact end states and the exact ones; shape (levels, groups, 2 each, 2).

    Every path is used with both signs, which removes the part of the error of a mean that is odd in W.
    """
    grid = TimeGrid.of([0.0, 1.0], 1.0 / first_steps)
    channels = 1 if case.noise is Noise.SCALAR else 2
    path = BrownianPath.draw(grid, GROUPS * EACH, channels, seed=1)
    exact = torch.cat([case.solution(path, sign) for sign in (1, -1)]).expand(-1, 2)
    z0 = torch.ones(2 * GROUPS * EACH, 2, dtype=torch.float64)
    found = []
    for _ in range(LEVELS):
        both = torch.cat([path.increments, -path.increments], dim=1)
        twice = BrownianPath(path.grid, both, path.seed)
        end = integrate(case.equation(), z0, [0.0, 1.0], method=method, brownian=twice).end
        found.append(grouped(end))
        path = path.refine()
    return torch.stack(found), grouped(exact).expand(LEVELS, -1, -1, -1)


def grouped(states):
    """(groups, 2 each, 2): a path and its mirror image in one group."""
    parts = states.reshape(2, GROUPS, EACH, 2)
    return torch.cat([parts[0], parts[1]], dim=1)


METHODS = {
    "euler": (EulerMaruyama(), ITO),
    "milstein": (Milstein(), ITO),
    "milstein-free": (Milstein(derivative_free=True), ITO),
    "milstein-stratonovich": (Milstein(), STRATONOVICH),
    "heun": (StochasticHeun(), STRATONOVICH),
}
STRUCTURES = (Noise.DIAGONAL, Noise.SCALAR, Noise.ADDITIVE)


@pytest.mark.parametrize("noise", STRUCTURES, ids=lambda n: n.name.lower())
@pytest.mark.parametrize("name", METHODS)
def test_strong_order(name, noise):
    """E |Z_h - Z| falls like h^(1/2) for Euler-Maruyama, h for the others and for additive noise."""
    method, calculus = METHODS[name]
    order = 0.5 if name == "euler" and noise is not Noise.ADDITIVE else 1.0
    found, exact = differences(Case(noise, calculus), method, first_steps=16)
    slope, half = slopes((found - exact).abs().mean(dim=(2, 3)))
    assert abs(slope - order) + half <= STRONG, (slope, half)


@pytest.mark.parametrize("noise", STRUCTURES, ids=lambda n: n.name.lower())
@pytest.mark.parametrize("name", METHODS)
def test_weak_order(name, noise):
    """|E Z_h^2 - E Z^2| falls like h, over the same paths, which removes most of the statistical error.

    Heun's method is of second order for additive noise, as for no noise.
    """
    method, calculus = METHODS[name]
    order = 2.0 if name == "heun" and noise is Noise.ADDITIVE else 1.0
    # Errors of second order vanish in the noise sooner: larger steps, less noise.
    case = Case(noise, calculus, m=(1.0, 0.8), s=(0.3, 0.2) if order == 1.0 else (0.05, 0.05))
    found, exact = differences(case, method, first_steps=8 if order == 1.0 else 4)
    errors = (found.square() - exact.square()).mean(dim=(2, 3)).abs()
    slope, half = slopes(errors)
    assert abs(slope - order) + half <= WEAK, (slope, half)
