"""From declarations to torch: coefficients against hand-written ones, units, bounds, laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sympy as sp
import torch

import pinnkit as pk
from pinnkit.declare.stochastic import Neural
from pinnkit.lower.stochastic import StochasticModule, Units
from pinnkit.neural_de import SDE, Milstein, Noise, integrate, make_path
from pinnkit.nn import MLP

EXACT = 1e-12
F64 = torch.float64
d = pk.d
t = pk.coords("t")
z = pk.process("z", t, dim=3)
x, y = pk.process("x y", t)
W = pk.wiener("W", t)
X = pk.control("X", t)


def compile_system(system, units=None, seed=0):
    gen = torch.Generator().manual_seed(seed)
    return StochasticModule(
        system.normal_form, lambda i, o: MLP(i, o, 8, 1, activation="silu", generator=gen), units
    )


def path(channels=2, samples=5, seed=0):
    rng = np.random.default_rng(seed)
    times = np.sort(rng.uniform(0, 1, (samples, 6)), axis=1)
    return make_path(times, rng.normal(size=(samples, 6, channels)))


def as_sde(along):
    return SDE(along.drift, along.diffusion, along.noise, along.calculus)


def test_coefficients_are_what_was_written(gen):
    """f = gamma(t, z, X) - k z X_1-free part, g = sin(t) sigma(t) z, by hand."""
    gamma, sigma = pk.neural("gamma", inputs=(t, z, X)), pk.neural("sigma", inputs=(t,), shape=1)
    k = pk.parameter("k", initial=0.5)
    system = pk.SDESystem(
        [sp.Eq(d(z), (gamma - k * z**3) * d(t) + (1 + sp.sin(t)) * sigma * z * d(W))]
    )
    units = Units(0.0, 4.0, (1.0, -2.0), (3.0, 0.5))
    module, route = compile_system(system, units), path()
    along = module.along(route)
    states, now = torch.randn(5, 3, dtype=F64, generator=gen), torch.tensor(0.6, dtype=F64)
    seen = route.evaluate(now)
    time = torch.full((5, 1), 0.6 / 4.0, dtype=F64)
    drift = module.nets["gamma"](torch.cat([time, states, seen], 1)) / 4.0 - 0.5 * states**3
    diffusion = (1 + math.sin(0.6)) * module.nets["sigma"](time) / 2.0 * states
    assert torch.allclose(along.drift(now, states), drift, rtol=0, atol=EXACT)
    assert torch.allclose(along.diffusion(now, states), diffusion, rtol=0, atol=EXACT)
    assert {p for p, _ in module.named_parameters()} >= {"numbers.k", "nets.sigma.layers.0.weight"}


def test_mechanistic_terms_see_the_control_in_its_units(gen):
    """X in an equation is what was measured; in a network it is normalised."""
    system = pk.SDESystem([sp.Eq(d(x), (X - x) * d(t))])
    module, route = compile_system(system, Units(0.0, 1.0, (10.0,), (2.0,))), path(channels=1)
    states, now = torch.randn(5, 1, dtype=F64, generator=gen), torch.tensor(0.6, dtype=F64)
    expected = 10.0 + 2.0 * route.evaluate(now) - states
    assert torch.allclose(module.along(route).drift(now, states), expected, rtol=0, atol=EXACT)


def test_controlled_equations_are_driven_by_increments(gen):
    """dz = f(z) dX: the matrix of the network times dX/dt."""
    f = pk.neural("f", inputs=(z,))
    module, route = (
        compile_system(pk.SDESystem([sp.Eq(d(z), f * d(X))]), Units(0, 1, (0, 0), (1, 1))),
        path(),
    )
    states, now = torch.randn(5, 3, dtype=F64, generator=gen), torch.tensor(0.6, dtype=F64)
    matrix = module.nets["f"](states).reshape(5, 3, 2)
    expected = torch.einsum("bhc,bc->bh", matrix, route.derivative(now))
    assert torch.allclose(module.along(route).drift(now, states), expected, rtol=0, atol=EXACT)


@pytest.mark.parametrize(
    ("equations", "shape", "noise"),
    [
        ([sp.Eq(d(z), 0.1 * d(W))], (5, 3), Noise.ADDITIVE),
        ([sp.Eq(d(z), z * d(pk.wiener("S", t, dim=1)))], (5, 3, 1), Noise.SCALAR),
        (
            [sp.Eq(d(z), pk.neural("b", inputs=(z,)) * d(pk.wiener("B", t, dim=2)))],
            (5, 3, 2),
            Noise.GENERAL,
        ),
        (
            [sp.Eq(d(x), y * d(W)), sp.Eq(d(y), x * d(W) + d(pk.wiener("V", t)))],
            (5, 2, 2),
            Noise.GENERAL,
        ),
        ([sp.Eq(d(x), y * d(t)), sp.Eq(d(y), -x * d(t) + y * d(W))], (5, 2), Noise.DIAGONAL),
    ],
)
def test_layouts(equations, shape, noise, gen):
    """Vectors where each component has its own W, matrices elsewhere; one integration each."""
    system = pk.SDESystem(equations)
    along = compile_system(system).along()
    states = torch.rand(5, system.normal_form.dim, dtype=F64, generator=gen)
    assert along.diffusion(torch.zeros((), dtype=F64), states).shape == shape
    assert along.noise is noise
    assert integrate(as_sde(along), states, [0.0, 1.0], dt=0.1).status.ok


def test_noise_goes_where_it_was_written(gen):
    """dx = y dW, dy = x dW + dV: rows and columns of the matrix."""
    V = pk.wiener("V", t)
    system = pk.SDESystem([sp.Eq(d(x), y * d(W)), sp.Eq(d(y), x * d(W) + 2 * d(V))])
    states = torch.rand(5, 2, dtype=F64, generator=gen)
    g = compile_system(system).along().diffusion(torch.zeros((), dtype=F64), states)
    column = {w: i for i, w in enumerate(system.normal_form.wieners)}
    assert torch.equal(g[:, 0, column[W]], states[:, 1])
    assert torch.equal(g[:, 1, column[W]], states[:, 0])
    assert torch.equal(g[:, 1, column[V]], torch.full((5,), 2.0, dtype=F64))
    assert float(g[:, 0, column[V]].abs().max()) == 0.0


def test_the_unit_of_time_does_not_matter(gen):
    """Time in other units: the same networks give the same paths from the same noise."""
    gamma, sigma = pk.neural("gamma", inputs=(t, z)), pk.neural("sigma", inputs=(t,))
    system = pk.SDESystem([sp.Eq(d(z), gamma * d(t) + sigma * z * d(W))])
    states = torch.rand(5, 3, dtype=F64, generator=gen)
    ends = []
    for span in (1.0, 1e6, 1e-6):
        along = compile_system(system, Units(0.0, span)).along()
        run = integrate(as_sde(along), states, [0.0, span], dt=span / 50, method=Milstein())
        ends.append(run.end)
    assert torch.allclose(ends[1], ends[0], rtol=1e-8)
    assert torch.allclose(ends[2], ends[0], rtol=1e-8)


def test_bounds_are_kept():
    k = pk.parameter("k", initial=0.2, bounds=(0, 1))
    module = compile_system(pk.SDESystem([sp.Eq(d(x), -k * x * d(t))]))
    assert module.value(k).item() == pytest.approx(0.2)
    with torch.no_grad():
        module.numbers["k"].fill_(50.0)
    assert module.value(k).item() <= 1.0


def test_initial_values_are_evaluated():
    """A neural term of the control for z, a number for x."""
    start = pk.neural("start", inputs=(X,))
    system = pk.SDESystem(
        [sp.Eq(d(z), -z * d(t)), sp.Eq(d(x), d(W))], initial={z: start, x: sp.Rational(1, 2)}
    )
    module, route = compile_system(system, Units(0, 1, (0, 0), (1, 1))), path()
    t0 = torch.zeros((), dtype=F64)
    found = module.start(t0, route.evaluate(t0), 5)
    assert torch.allclose(found[:, :3], module.nets["start"](route.evaluate(t0)))
    assert torch.equal(found[:, 3], torch.full((5,), 0.5, dtype=F64))


def test_a_declared_law_is_simulated():
    """Ornstein-Uhlenbeck from its declaration: mean and variance within four standard errors."""
    system = pk.SDESystem([sp.Eq(d(x), -2 * x * d(t) + sp.Rational(1, 2) * d(W))])
    n = 4000
    along = compile_system(system).along()
    end = integrate(as_sde(along), torch.ones(n, 1, dtype=F64), [0.0, 1.0], dt=0.01).end
    mean, variance = math.exp(-2), 0.25 * (1 - math.exp(-4)) / 4
    # Euler's bias with dt = 0.01 is one per cent of each.
    assert abs(float(end.mean()) - mean) <= 4 * math.sqrt(variance / n) + 0.02 * mean
    assert abs(float(end.var()) - variance) <= (4 * math.sqrt(2 / n) + 0.02) * variance


def test_a_control_that_is_missing_is_named():
    module = compile_system(pk.SDESystem([sp.Eq(d(x), X * d(t))]), Units(0, 1, (0,), (1,)))
    with pytest.raises(ValueError, match="the equations contain X; give a path"):
        module.along()
    two = pk.SDESystem([sp.Eq(d(x), (X + pk.control("Y", t)) * d(t))])
    with pytest.raises(pk.UnsupportedProblemError, match="X, Y are all the path"):
        compile_system(two)


def test_networks_that_read_steps_see_mean_and_increment(gen):
    """Along a grid the mean over a step, and X(t_{k+1}) - X(t_k) in its units; at a time alone [X(t), 0]."""
    system = pk.SDESystem([sp.Eq(d(z), pk.neural("gamma", inputs=(z, X)) * d(t))])
    route, units = path(), Units(0.0, 1.0, (0.0, 0.0), (1.0, 1.0), increment=(0.5, 0.25))
    module = compile_system(system, units)
    along, states = module.along(route), torch.randn(5, 3, dtype=F64, generator=gen)
    points = torch.linspace(0.1, 0.9, 4, dtype=F64).expand(5, 4)
    clock = points.T[..., None]
    values, means = route.table(points)[0], route.means(points)
    instants = along.instants(clock, increments=True)
    rises = values.diff(dim=1) / torch.tensor([0.5, 0.25], dtype=F64)
    seen = [torch.cat([means[:, k], rises[:, k]], 1) for k in range(3)]
    seen.append(torch.cat([values[:, 3], 0 * values[:, 3]], 1))
    for instant, expected in zip(instants, seen, strict=True):
        found = along.drift(instant, states)
        wanted = module.nets["gamma"](torch.cat([states, expected], 1))
        assert torch.allclose(found, wanted, rtol=0, atol=EXACT)
    alone = along.drift(clock[3], states)
    assert torch.allclose(alone, along.drift(instants[3], states), rtol=0, atol=EXACT)


def test_the_geometric_network_sees_its_state_between_bounds():
    """(z - 1) / (z + 1) of z = e^y; finite, with its gradient, where e^y is not."""
    system = pk.GeometricSDE(dim=3, bound=None).system
    module = compile_system(system, Units(0.0, 1.0, (0.0, 0.0), (1.0, 1.0)))
    route, now = path(samples=2), torch.tensor(0.6, dtype=F64)
    state = torch.tensor([[-0.5, 0.0, 2.0], [-1e4, 0.1, 1e4]], dtype=F64).requires_grad_()
    drift = module.along(route).drift(now, state)
    (slope,) = torch.autograd.grad(drift.sum(), state)
    assert bool(torch.isfinite(drift).all() and torch.isfinite(slope).all())
    z = state[:1].detach().exp()
    time = torch.full((1, 1), 0.6, dtype=F64)
    seen = torch.cat([time, (z - 1) / (z + 1), route.evaluate(now)[:1]], 1)
    wanted = module.nets["gamma"](seen) - module.nets["sigma"](time) ** 2 / 2
    assert torch.allclose(drift[:1], wanted, rtol=0, atol=EXACT)


@pytest.mark.parametrize(
    "made",
    [
        lambda **k: pk.LangevinSDE(dim=3, restoring=0.7, **k),
        lambda **k: pk.LinearNoiseSDE(dim=3, form="bounded", **k),
        lambda **k: pk.GeometricSDE(dim=3, bound=None, **k),
        lambda **k: pk.UnconstrainedSDE(dim=3, **k),
    ],
)
def test_pace_multiplies_drift_and_variance(made, gen):
    """With the same weights, 9 units of the model's time: 9 times the drift, 3 times the diffusion."""
    route, states = path(), torch.randn(5, 3, dtype=F64, generator=gen)
    drifts, diffusions = [], []
    for pace in (1.0, 9.0):
        module = compile_system(made(pace=pace).system, Units(0.0, 1.0, (0.0, 0.0), (1.0, 1.0)))
        along, now = module.along(route), torch.tensor(0.6, dtype=F64)
        drifts.append(along.drift(now, states))
        diffusions.append(along.diffusion(now, states))
    assert torch.allclose(drifts[1], 9 * drifts[0], rtol=0, atol=EXACT)
    assert torch.allclose(diffusions[1], 3 * diffusions[0], rtol=0, atol=EXACT)


def test_naive_equation_sees_the_first_value_alone(gen):
    """Neither term has the path among its inputs; z(0) does."""
    system = pk.UnconstrainedSDE(dim=3, controlled=False).system
    form = system.normal_form
    for term in (*form.drift.values(), *form.diffusion.values()):
        for network in term.atoms(Neural):
            assert not set(form.controls) & set().union(*(e.free_symbols for e in network.inputs))
    (start,) = form.initial.values()
    assert set(form.controls) <= set().union(
        *(e.free_symbols for network in start.atoms(Neural) for e in network.inputs)
    )
    module = compile_system(system, Units(0.0, 1.0, (0.0, 0.0), (1.0, 1.0)))
    states, now = torch.randn(5, 3, dtype=F64, generator=gen), torch.tensor(0.6, dtype=F64)
    along, elsewhere = module.along(path()), module.along(path(seed=1))
    assert torch.equal(along.drift(now, states), elsewhere.drift(now, states))
    one, other = (module.start(now, x, 5) for x in torch.randn(2, 5, 2, dtype=F64, generator=gen))
    assert not torch.allclose(one, other)


def test_a_pace_is_a_positive_number():
    for pace in (0, -1.0, math.inf, True):
        with pytest.raises(pk.DeclarationError, match="a pace is a positive number"):
            pk.NeuralCDE(pace=pace).system.normal_form  # noqa: B018
