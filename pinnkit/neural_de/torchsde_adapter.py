"""torchsde behind our records: adaptive steps, stochastic Runge-Kutta, the continuous adjoint.

In    an `SDE`, initial states, output times.
Out   a `Trajectory`, as `neural_de.integrate` returns.
Next  nothing here is needed for fixed steps, where our own loop is faster.

What is done about torchsde's known faults: its Brownian tree is always given dt and a tolerance (made
without, it follows the smallest step, a rounding error, down to 1e-7: seconds instead of
milliseconds, https://github.com/google-research/torchsde/issues/109); times are float64; each gap
between outputs is a call of its own, so that outputs are computed and not interpolated; failing
assertions and warnings about the step become a status.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from pinnkit.declare.noise import Calculus, Noise
from pinnkit.errors import MissingDependencyError, UnsupportedProblemError
from pinnkit.neural_de.equation import SDE
from pinnkit.neural_de.grid import ROUNDING, TimeGrid
from pinnkit.neural_de.integrate import check_start
from pinnkit.neural_de.trajectory import IntegrationStatus, Trajectory

__all__ = ["integrate_torchsde"]

# torchsde's names of the structures; an element-wise additive diffusion is diagonal to it.
NAMES = {
    Noise.ADDITIVE: "additive",
    Noise.DIAGONAL: "diagonal",
    Noise.SCALAR: "scalar",
    Noise.GENERAL: "general",
}


def integrate_torchsde(
    sde: SDE,
    z0: Tensor,  # shape: (B, H)
    times: Any,  # shape: (T,)
    *,
    dt: float,
    method: str = "srk",
    adaptive: bool = False,
    rtol: float = 1e-4,
    atol: float = 1e-5,
    dt_min: float | None = None,
    adjoint: nn.Module | None = None,
    seed: int = 0,
) -> Trajectory:
    """Integrate by torchsde.

    Args:
        sde: The equation.
        z0: States at the first time.
        times: Output times, ascending, common to all samples.
        dt: The step; the first one, if adaptive.
        method: A method of torchsde for the equation's noise and calculus: "euler", "milstein", "srk",
            "heun", "midpoint", "reversible_heun", ...
        adaptive: Let step doubling choose the steps, one step for the whole batch.
        rtol, atol: Tolerances of one step.
        dt_min: The smallest step; None is dt / 1000.
        adjoint: The module whose parameters f and g use: gradients then come from torchsde's
            stochastic adjoint, for the states and these parameters only. None back-propagates.
        seed: Names the Brownian path.
    """
    torchsde = _import_torchsde()
    check_start(z0)
    grid = TimeGrid.of(times)
    if grid.points.ndim != 1:
        raise UnsupportedProblemError(
            "torchsde has one clock for the whole batch. Use integrate(), or times of shape (T,)."
        )
    smallest = dt / 1000 if dt_min is None else dt_min
    wrapped = _Wrapped(sde, adjoint, z0, grid.points[0])
    start, end = float(grid.points[0]), float(grid.points[-1])
    path = torchsde.BrownianInterval(
        start,
        end,
        size=(len(z0), wrapped.channels),
        dtype=z0.dtype,
        device=z0.device,
        entropy=seed,
        dt=dt,
        tol=1e-6 * smallest,
        levy_area_approximation="space-time" if method in ("srk", "log_ode") else "none",
    )
    solve = torchsde.sdeint if adjoint is None else torchsde.sdeint_adjoint
    states, z, problem = [z0], z0, None
    reached = torch.full((len(z0),), start, dtype=torch.float64, device=z0.device)
    steps = 0
    for left, right in zip(grid.points[:-1].tolist(), grid.points[1:].tolist(), strict=True):
        if problem is not IntegrationStatus.BLOWN_UP:
            # The gap's own step: with dt as given, a gap of 100.00001 steps would get a 101st. A hair
            # longer, because torchsde adds steps up, and a sum below `right` would get one more.
            count = max(1, math.ceil((right - left) / dt * (1 - ROUNDING)))
            steps += count
            after, complaint = _gap(
                solve, wrapped, z, (left, right), path, (right - left) / count * (1 + 1e-9), method,
                adaptive=adaptive, rtol=rtol, atol=atol, dt_min=smallest,
            )  # fmt: skip
            problem = complaint or problem
            # Samples that left the numbers stand still, as in our own loop.
            fine = torch.isfinite(after).all(1) & (reached >= left)
            z = torch.where(fine[:, None], after, z.detach())
            reached = torch.where(fine, torch.full_like(reached, right), reached)
        states.append(z)
    return Trajectory(
        times=grid.points,
        states=torch.stack(states),
        reached=reached,
        evaluations=wrapped.calls,
        steps=None if adaptive else steps,
        problem=problem,
    )


def _gap(
    solve: Any,
    wrapped: _Wrapped,
    z: Tensor,
    ends: tuple[float, float],
    path: Any,
    dt: float,
    method: str,
    **settings: Any,
) -> tuple[Tensor, IntegrationStatus | None]:
    ts = torch.tensor(ends, dtype=torch.float64, device=z.device)
    problem = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            after = solve(wrapped, z, ts, bm=path, method=method, dt=dt, **settings)[-1]
        except AssertionError as fault:
            if "error estimate" not in str(fault):  # the user's own
                raise
            return torch.full_like(z, math.nan), IntegrationStatus.BLOWN_UP
    for warning in caught:
        if "minimum allowed step size" in str(warning.message):
            problem = IntegrationStatus.UNDERFLOW
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    return after, problem


class _Wrapped(nn.Module):
    """Our record under torchsde's names; counts the calls."""

    def __init__(self, sde: SDE, owner: nn.Module | None, z0: Tensor, start: Tensor) -> None:
        super().__init__()
        self.sde, self.owner = sde, owner  # the owner's parameters become those of this module
        with torch.no_grad():
            g = sde.diffusion(start.to(z0), z0)
        self.channels = sde.channels(g, z0)
        plain = g.ndim == 2 and sde.noise in (Noise.ADDITIVE, Noise.DIAGONAL)
        self.noise_type = "diagonal" if plain else NAMES[sde.noise]
        self.sde_type = "ito" if sde.calculus is Calculus.ITO else "stratonovich"
        self.calls = 0

    def f(self, t: Tensor, z: Tensor) -> Tensor:
        self.calls += 1
        return self.sde.drift(torch.as_tensor(t).to(z), z)

    def g(self, t: Tensor, z: Tensor) -> Tensor:
        self.calls += 1
        g = self.sde.diffusion(torch.as_tensor(t).to(z), z)
        if g.ndim == 3 or self.noise_type == "diagonal":
            return g
        return g.unsqueeze(-1) if self.noise_type == "scalar" else torch.diag_embed(g)


def _import_torchsde() -> Any:
    try:
        import torchsde  # late: not every integration needs it
    except ImportError as missing:
        raise MissingDependencyError(
            "integrate_torchsde needs torchsde: pip install torchsde. "
            "integrate() does fixed steps without it."
        ) from missing
    return torchsde
