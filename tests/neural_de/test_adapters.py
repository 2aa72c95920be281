"""torchsde and torchdiffeq behind our records: right answers, counts, statuses, gradients, absence."""

from __future__ import annotations

import math
import sys

import pytest
import torch

import pinnkit as pk
from pinnkit.neural_de import (
    SDE,
    Calculus,
    IntegrationStatus,
    Noise,
    integrate,
    integrate_ode,
    integrate_torchsde,
)

F64 = torch.float64
EXACT = 1e-12


def growth(noise=Noise.DIAGONAL):
    """dz = z/2 dt + 0.3 z dW."""
    return SDE(lambda t, z: 0.5 * z, lambda t, z: 0.3 * z, noise)


class TestTorchsde:
    @pytest.mark.parametrize(
        ("method", "adaptive"), [("euler", False), ("milstein", False), ("srk", True)]
    )
    def test_law_of_geometric_brownian_motion(self, method, adaptive):
        """Mean and variance of log z(1) within four standard errors (and the bias of dt = 0.05)."""
        n = 2000
        end = integrate_torchsde(
            growth(), torch.ones(n, 1, dtype=F64), [0.0, 1.0], dt=0.05, method=method,
            adaptive=adaptive, seed=1,
        ).end.detach().log()  # fmt: skip
        assert abs(float(end.mean()) - 0.455) <= 4 * 0.3 / math.sqrt(n) + 0.01
        assert abs(float(end.var()) - 0.09) <= 4 * 0.09 * math.sqrt(2 / n) + 0.005

    def test_outputs_are_steps_and_not_interpolated(self):
        """dt = 0.07 divides no gap; with no noise each output is an exact product of Euler steps."""
        still = SDE(lambda t, z: z, lambda t, z: torch.zeros_like(z), Noise.ADDITIVE)
        z0 = torch.ones(2, 1, dtype=F64)
        times = torch.tensor([0.0, 0.1, 0.35, 1.0], dtype=torch.float32)
        theirs = integrate_torchsde(still, z0, times, dt=0.07, method="euler")
        ours = integrate(still, z0, times, dt=0.07)
        assert torch.allclose(theirs.states, ours.states, rtol=0, atol=1e-6)
        assert theirs.steps == ours.steps == 2 + 4 + 10

    @pytest.mark.parametrize("noise", [Noise.ADDITIVE, Noise.SCALAR, Noise.GENERAL])
    def test_every_structure_is_translated(self, noise):
        """Vector diffusions of all structures; the path is the seed's."""
        equation = SDE(lambda t, z: -z, lambda t, z: 0.1 * torch.ones_like(z), noise)
        z0 = torch.ones(3, 2, dtype=F64)
        first, again, other = (
            integrate_torchsde(equation, z0, [0.0, 1.0], dt=0.1, method="euler", seed=s)
            for s in (1, 1, 2)
        )
        assert first.status.ok
        assert torch.equal(first.end, again.end)
        assert not torch.allclose(first.end, other.end)
        if noise is Noise.SCALAR:  # one W for both components
            assert torch.allclose(first.end[:, 0], first.end[:, 1], rtol=0, atol=EXACT)

    def test_adjoint_gradient(self):
        """d E[z(1)] / d rate by the stochastic adjoint, close to back-propagation on small steps."""
        rate = torch.nn.Parameter(torch.tensor(0.5, dtype=F64))
        owner = torch.nn.Module()
        owner.register_parameter("rate", rate)
        equation = SDE(
            lambda t, z: rate * z, lambda t, z: 0.3 * z, Noise.DIAGONAL, Calculus.STRATONOVICH
        )
        z0 = torch.ones(4, 1, dtype=F64)
        gradients = []
        for adjoint in (None, owner):
            end = integrate_torchsde(
                equation, z0, [0.0, 1.0], dt=0.01, method="midpoint", adjoint=adjoint
            ).end
            gradients.append(float(torch.autograd.grad(end.sum(), rate)[0]))
        assert gradients[1] == pytest.approx(gradients[0], rel=0.02)

    def test_explosions_are_statuses(self):
        explosive = SDE(lambda t, z: z**3, lambda t, z: 0.01 * z, Noise.DIAGONAL)
        z0 = torch.tensor([[0.1], [2.0]], dtype=F64)
        fixed = integrate_torchsde(explosive, z0, [0.0, 0.1, 0.5, 1.0], dt=0.01, method="euler")
        assert fixed.status is IntegrationStatus.BLOWN_UP
        assert fixed.complete.tolist() == [True, False]
        assert float(fixed.reached[1]) == pytest.approx(0.1)
        assert bool(torch.isfinite(fixed.states).all())
        adaptive = integrate_torchsde(
            explosive, z0, [0.0, 0.1, 1.0], dt=0.01, method="milstein", adaptive=True, dt_min=1e-3
        )
        assert adaptive.status in (IntegrationStatus.UNDERFLOW, IntegrationStatus.BLOWN_UP)
        assert bool(torch.isfinite(adaptive.states).all())

    def test_own_clocks_are_refused(self):
        with pytest.raises(pk.UnsupportedProblemError, match="one clock for the whole batch"):
            integrate_torchsde(
                growth(), torch.ones(2, 1, dtype=F64), torch.eye(2).cumsum(0), dt=0.1
            )

    def test_absence_is_named(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "torchsde", None)
        with pytest.raises(pk.MissingDependencyError, match="needs torchsde"):
            integrate_torchsde(growth(), torch.ones(2, 1, dtype=F64), [0.0, 1.0], dt=0.1)


class TestTorchdiffeq:
    def test_accuracy_and_counts(self):
        """z' = -z to the tolerance; every call of f is counted."""
        calls = []

        def f(t, z):
            calls.append(float(t))
            return -z

        found = integrate_ode(f, torch.ones(2, 1, dtype=F64), [0.0, 0.5, 2.0])
        expected = torch.exp(-found.times)[:, None, None].expand(3, 2, 1)
        assert torch.allclose(found.states, expected, rtol=1e-5, atol=0)
        assert found.evaluations == len(calls)
        assert found.steps is not None and 0 < found.steps < found.evaluations
        assert found.status.ok

    @pytest.mark.parametrize("method", ["euler", "midpoint", "rk4"])
    def test_fixed_steps_end_on_outputs(self, method):
        """Orders 1, 2, 4 by step halving; dt = 0.15 divides no gap."""
        errors = []
        for dt in (0.15, 0.075):
            found = integrate_ode(
                lambda t, z: -z + t,
                torch.ones(1, 1, dtype=F64),
                [0.0, 0.3, 1.0],
                method=method,
                dt=dt,
            )
            exact = 2 * torch.exp(-found.times) + found.times - 1
            errors.append((found.states[:, 0, 0] - exact).abs().max())
        slope = float(torch.log2(errors[0] / errors[1]))
        assert slope == pytest.approx({"euler": 1, "midpoint": 2, "rk4": 4}[method], abs=0.3)

    def test_adjoint_gradient(self):
        net = torch.nn.Linear(2, 2).double()
        z0 = torch.ones(3, 2, dtype=F64)
        gradients = []
        for adjoint in (None, net):
            end = integrate_ode(
                lambda t, z: torch.tanh(net(z)),
                z0,
                [0.0, 1.0],
                rtol=1e-9,
                atol=1e-9,
                adjoint=adjoint,
            ).end
            gradients.append(torch.autograd.grad(end.square().sum(), net.weight)[0])
        assert torch.allclose(gradients[0], gradients[1], rtol=1e-5, atol=1e-7)

    def test_a_singularity_is_a_status(self):
        """z' = z^2 from 1 ends at t = 1; the output before it is kept."""
        found = integrate_ode(lambda t, z: z**2, torch.ones(1, 1, dtype=F64), [0.0, 0.5, 1.5, 2.0])
        assert found.status is IntegrationStatus.UNDERFLOW
        assert float(found.reached) == 0.5
        assert torch.allclose(found.states.flatten(), torch.tensor([1.0, 2, 2, 2], dtype=F64))
        fixed = integrate_ode(
            lambda t, z: z**2, torch.ones(1, 1, dtype=F64), [0.0, 0.5, 3.0], method="euler", dt=0.01
        )
        assert fixed.status is IntegrationStatus.BLOWN_UP
        assert bool(torch.isfinite(fixed.states).all())

    def test_running_out_of_steps_is_a_status(self):
        found = integrate_ode(
            lambda t, z: -1000 * (z - torch.cos(t)),
            torch.ones(1, 1, dtype=F64),
            [0.0, 5.0],
            max_steps=20,
        )
        assert found.status is IntegrationStatus.MAX_STEPS

    def test_users_own_assertions_come_through(self):
        def f(t, z):
            raise AssertionError("mine")

        with pytest.raises(AssertionError, match="mine"):
            integrate_ode(f, torch.ones(1, 1, dtype=F64), [0.0, 1.0])

    @pytest.mark.parametrize(
        ("knobs", "message"),
        [({"method": "dopri6"}, "choose one of"), ({"method": "rk4"}, "has fixed steps; give dt")],
    )
    def test_bad_knobs(self, knobs, message):
        with pytest.raises(ValueError, match=message):
            integrate_ode(lambda t, z: z, torch.ones(1, 1, dtype=F64), [0.0, 1.0], **knobs)

    def test_absence_is_named(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "torchdiffeq", None)
        with pytest.raises(pk.MissingDependencyError, match="needs torchdiffeq"):
            integrate_ode(lambda t, z: z, torch.ones(1, 1, dtype=F64), [0.0, 1.0])
