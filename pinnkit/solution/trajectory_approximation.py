"""The trajectory of a learned ordinary equation, as the answer of a solver.

In    an `OrdinaryModule` and where its trajectory starts.
Out   `TrajectoryApproximation`: fields and derivatives at any time, by adaptive integration.
Next  `Solution` wraps it; times beyond the training span need `extrapolate=True`.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import jvp

from pinnkit.ir.normal_form import NormalForm
from pinnkit.ir.ordinary_form import ordinary_form
from pinnkit.lower.ordinary import OrdinaryModule
from pinnkit.neural_de.equation import load_forward_mode
from pinnkit.neural_de.torchdiffeq_adapter import integrate_ode
from pinnkit.neural_de.trajectory import Trajectory
from pinnkit.nn import describe, rebuild

__all__ = ["TrajectoryApproximation"]

RTOL = 1e-8


class TrajectoryApproximation:
    """y(t) with y(start) given and y' = F(t, y).

    Values come from Dormand and Prince's method at a relative tolerance of 1e-8, so they are those of
    the learned equation, not of the steps it was trained with. Where the trajectory explodes they are
    nan from there on.

    Args:
        module: F.
        start: The first time.
        states: y there, (d,); of several runs (R, d), of which `run` is the one that is given.
        run: Counted from 0.
    """

    kind = "trajectory"

    def __init__(self, module: OrdinaryModule, start: float, states: Tensor, run: int = 0) -> None:
        self.module, self.start, self.run = module.eval(), start, run
        self.starts = torch.atleast_2d(states.detach())
        self.state = self.starts[run]

    def along(self, run: int) -> TrajectoryApproximation:
        """The same law from the start of another run; IndexError where there is none."""
        count, run = len(self.starts), operator.index(run)
        if not 0 <= run < count:
            runs = "run 0 alone was" if count == 1 else f"runs 0 to {count - 1} were"
            raise IndexError(f"run {run!r} was not observed; {runs}")
        return TrajectoryApproximation(self.module, self.start, self.starts, run)

    def derivatives(
        self,
        points: Tensor,  # shape: (n, 1)
        wanted: Sequence[tuple[int, tuple[int, ...]]],
    ) -> list[Tensor]:  # shapes: (n,)
        """Fields and their derivatives of any order at the times."""
        form = self.module.form
        # float64 whatever the network's precision: times lie close together.
        times = points[:, 0].to(self.state.device, self.state.dtype)
        y = self.states(times.detach().double())
        fields = list(form.orders)
        columns = [form.states.index(u) for u in fields]
        found: list[Tensor] = []
        for index, (order,) in wanted:
            column = columns[index]
            value = self._taylor(times.detach(), y, order)[:, column].detach()
            if points.requires_grad:  # y(t + s) = y + s y' gives the first derivative by t
                slope = self._taylor(times.detach(), y, order + 1)[:, column].detach()
                value = value + slope * (times - times.detach())
            found.append(value.to(points))
        return found

    def terms(self, points: Tensor, neurals: Sequence[Any]) -> list[Tensor]:  # shapes: (n,)
        """Values of neural terms along the trajectory."""
        times = points[:, 0].detach().to(self.state.device, self.state.dtype)
        y = self.states(times.double())
        return [self.module.term(n, times, y).detach().to(points) for n in neurals]

    def states(self, times: Tensor) -> Tensor:  # shapes: (n,) -> (n, d)
        """y at the times, in any order, before and after the start."""
        out = self.state.new_full((len(times), len(self.state)), torch.nan)
        at = times.detach().double()
        for side in (1.0, -1.0):
            ahead = side * (at - self.start)
            chosen = (ahead > 0).nonzero()[:, 0]
            if not len(chosen):
                continue
            distinct, back = torch.unique(ahead[chosen], return_inverse=True)
            run = self.integrate(distinct, side)
            known = run.times.to(at) <= run.reached[0].to(at)
            states = torch.where(known.to(out.device)[:, None], run.states[:, 0], torch.nan)
            out[chosen] = states[1:][back]
        out[at == self.start] = self.state
        return out

    def integrate(self, ahead: Tensor, side: float = 1.0, rtol: float = RTOL) -> Trajectory:
        """From the start to `ahead` (ascending, positive) later, or earlier for side -1."""

        def rate(s: Tensor, y: Tensor) -> Tensor:
            return side * self.module(self.start + side * s, y)

        times = torch.cat([ahead.new_zeros(1), ahead])
        size = float(self.state.abs().amax().clamp_min(torch.finfo(self.state.dtype).tiny))
        least = 1e-6 if self.state.dtype == torch.float32 else 0.0
        with torch.no_grad():
            return integrate_ode(
                rate,
                self.state[None],
                times.cpu(),
                rtol=max(rtol, least),
                atol=max(rtol, least) * size,
            )

    def _taylor(self, t: Tensor, y: Tensor, order: int) -> Tensor:  # shape: (n, d)
        """The order-th derivative of y along the solution: F, DF (1, F), ..."""
        if order == 0:
            return y
        step = self.module.forward

        def along(previous: Any) -> Any:
            def following(s: Tensor, z: Tensor) -> Tensor:
                ones = torch.ones_like(s)
                return jvp(previous, (s, z), (ones, step(s, z)))[1]

            return following

        load_forward_mode()
        function: Any = step
        for _ in range(order - 1):
            function = along(function)
        return function(t, y)

    def to_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """A JSON-able description and the tensors."""
        spec = {
            "start": self.start,
            "nets": {name: describe(net) for name, net in self.module.nets.items()},
            "dtype": str(self.state.dtype).removeprefix("torch."),
            "run": self.run,
        }
        tensors = {f"module.{k}": v.detach().cpu() for k, v in self.module.state_dict().items()}
        return spec, {**tensors, "state": self.starts.cpu()}

    @classmethod
    def from_state(
        cls, spec: dict[str, Any], tensors: dict[str, Tensor], nf: NormalForm
    ) -> TrajectoryApproximation:
        """The approximation that `to_state` described; ValueError if the parts do not fit."""
        dtype = {"float32": torch.float32, "float64": torch.float64}[spec["dtype"]]
        module = OrdinaryModule(ordinary_form(nf), nn.Linear, dtype=dtype)
        if set(spec["nets"]) != set(module.nets):
            raise ValueError("the networks are not those of the equations")
        for name, net in spec["nets"].items():
            module.nets[name] = rebuild(net, dtype=dtype)
        own = {k.removeprefix("module."): v for k, v in tensors.items() if k != "state"}
        module.load_state_dict(own)
        return cls(
            module, float(spec["start"]), tensors["state"].to(dtype), int(spec.get("run", 0))
        )
