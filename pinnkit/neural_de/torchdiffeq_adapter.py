"""torchdiffeq behind our records: ordinary differential equations with step and call statistics.

In    a right-hand side f(t, z), networks included; initial states; output times.
Out   a `Trajectory` with evaluations, accepted and rejected steps; a status instead of assertions.
Next  training of neural ordinary equations.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pinnkit.errors import MissingDependencyError, UnsupportedProblemError
from pinnkit.neural_de.equation import VectorField
from pinnkit.neural_de.grid import TimeGrid
from pinnkit.neural_de.integrate import check_start
from pinnkit.neural_de.trajectory import IntegrationStatus, Trajectory, Walk

__all__ = ["ADAPTIVE", "integrate_ode"]

ADAPTIVE = frozenset({"dopri8", "dopri5", "bosh3", "fehlberg2", "adaptive_heun"})
FIXED = frozenset({"euler", "midpoint", "heun3", "rk4", "explicit_adams", "implicit_adams"})
# What torchdiffeq's assertions say, and what it means.
COMPLAINTS = {
    "underflow in dt": IntegrationStatus.UNDERFLOW,
    "non-finite values": IntegrationStatus.BLOWN_UP,
    "max_num_steps": IntegrationStatus.MAX_STEPS,
}


def integrate_ode(
    f: VectorField,
    z0: Tensor,  # shape: (B, H)
    times: Any,  # shape: (T,)
    *,
    method: str = "dopri5",
    dt: float | None = None,
    rtol: float = 1e-6,
    atol: float = 1e-8,
    max_steps: int = 10_000,
    adjoint: nn.Module | None = None,
    keep: bool = False,
) -> Trajectory:
    """Integrate dz/dt = f(t, z).

    Args:
        f: The right-hand side, (t of shape (), z) to (B, H).
        z0: States at the first time.
        times: Output times, ascending, common to all samples.
        method: Adaptive: "dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun", with one step for
            the whole batch. Fixed steps: "euler", "midpoint", "heun3", "rk4", "explicit_adams",
            "implicit_adams".
        dt: The step of fixed-step methods, which need one; the first step of adaptive ones.
        rtol, atol: Tolerances of one step of adaptive methods.
        max_steps: Steps at most between two outputs of adaptive methods.
        adjoint: The module whose parameters f uses: gradients then come from the continuous adjoint,
            for the states and these parameters only. None back-propagates.
        keep: Keep the accepted steps of adaptive methods, as `walk`; with an adjoint without a graph.
    """
    torchdiffeq = _import_torchdiffeq()
    check_start(z0)
    _check_method(method, dt)
    grid = TimeGrid.of(times, dt if method in FIXED else None)
    if grid.points.ndim != 1:
        raise UnsupportedProblemError(
            "torchdiffeq has one clock for the whole batch. Give times of shape (T,)."
        )
    outputs = grid.points[list(grid.outputs)]
    if keep and method != "dopri5":
        raise ValueError(f'keep=True is for method="dopri5", not {method!r}')
    counted = _Counted(f, adjoint, watch=method in ADAPTIVE, keep=keep)
    if method in ADAPTIVE:
        options: dict[str, Any] = {"max_num_steps": max_steps}
        if dt is not None:
            options["first_step"] = dt
    else:
        # The grid holds every output, so that nothing is interpolated.
        options = {"grid_constructor": lambda func, y0, t: _inside(grid.points.to(t), t)}
    solve = torchdiffeq.odeint if adjoint is None else torchdiffeq.odeint_adjoint
    settings = {"rtol": rtol, "atol": atol, "method": method, "options": options}
    ts = outputs.to(z0.device)
    problem = None
    reached = float(outputs[-1])
    try:
        states = solve(counted, z0, ts, **settings)
    except AssertionError as fault:
        problem = _meaning(fault)
        states, reached = _as_far_as_possible(solve, counted, z0, ts, settings)
    if method in FIXED and problem is None:
        if not bool(torch.isfinite(states).all()) and torch.is_grad_enabled():
            # What exploded would send nan back to the parameters: those samples' last gap is left out.
            states = _without_explosions(solve, counted, z0, ts, settings)
        states, place = _stand_still(states)
        reached = outputs.to(z0.device)[place]
    return Trajectory(
        times=outputs,
        states=states,
        reached=torch.as_tensor(reached, dtype=torch.float64, device=z0.device).expand(len(z0)),
        evaluations=counted.calls,
        steps=counted.accepted if method in ADAPTIVE else grid.steps,
        rejected=counted.rejected,
        problem=problem,
        walk=counted.walk(),
    )


def _inside(points: Tensor, ends: Tensor) -> Tensor:
    """The grid's points within a span, with the span's own ends; the adjoint runs backwards."""
    low, high = torch.minimum(ends[0], ends[-1]), torch.maximum(ends[0], ends[-1])
    inner = points[(points > low) & (points < high)]
    forwards = torch.cat([low[None], inner, high[None]])
    return forwards if ends[0] <= ends[-1] else forwards.flip(0)


def _as_far_as_possible(
    solve: Any, counted: _Counted, z0: Tensor, ts: Tensor, settings: dict[str, Any]
) -> tuple[Tensor, float]:
    """Gap by gap until one fails; the last state reached stands for the rest."""
    states, z, reached = [z0], z0, float(ts[0])
    failed = False
    for k in range(len(ts) - 1):
        if not failed:
            try:
                z = solve(counted, z, ts[k : k + 2], **settings)[-1]
                reached = float(ts[k + 1])
            except AssertionError as fault:
                _meaning(fault)
                failed, z = True, z.detach()
        states.append(z)
    return torch.stack(states), reached


def _without_explosions(
    solve: Any, counted: _Counted, z0: Tensor, ts: Tensor, settings: dict[str, Any]
) -> Tensor:  # shape: (T, B, H)
    """Gap by gap; a sample that would explode in one has the rate 0 there, and is nan from its end on."""
    alive = torch.ones(len(z0), dtype=torch.bool, device=z0.device)
    states, z = [z0], z0
    for k in range(len(ts) - 1):
        with torch.no_grad():
            ahead = solve(counted.masked(alive, z0), z, ts[k : k + 2], **settings)[-1]
        alive = alive & torch.isfinite(ahead).all(1)
        z = solve(counted.masked(alive, z0), z, ts[k : k + 2], **settings)[-1]
        states.append(torch.where(alive[:, None], z, torch.full_like(z, torch.nan)))
    return torch.stack(states)


def _stand_still(states: Tensor) -> tuple[Tensor, Tensor]:  # shapes: (T, B, H), (B,)
    """From a sample's first state that is not finite on, its last finite one; and where that was."""
    fine = torch.isfinite(states).all(-1).long().cumprod(0)  # 1 as long as all before are finite
    place = fine.sum(0) - 1
    index = torch.minimum(torch.arange(len(states), device=states.device)[:, None], place)
    still = states.detach().gather(0, index[..., None].expand_as(states))
    return torch.where(fine.bool()[..., None], states, still), place


def _meaning(fault: AssertionError) -> IntegrationStatus:
    for words, status in COMPLAINTS.items():
        if words in str(fault):
            return status
    raise fault  # the user's own


class _Counted(nn.Module):
    """f, its calls counted, with torchdiffeq's callbacks where the method has them."""

    def __init__(
        self, f: VectorField, owner: nn.Module | None, *, watch: bool, keep: bool = False
    ) -> None:
        super().__init__()
        self.kept: list[tuple[Tensor, Tensor, Tensor]] | None = [] if keep else None
        self.f, self.owner = f, owner  # the owner's parameters become those of this module
        self.calls = self.accepted = self.rejected = 0
        if watch:
            self.callback_accept_step = self._accept
            self.callback_reject_step = self._reject

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        self.calls += 1
        return self.f(t.to(z), z)

    def masked(self, alive: Tensor, z0: Tensor) -> nn.Module:
        """The same for some samples, rate 0 for the others."""
        return _Masked(self, alive[:, None], z0.detach())

    def walk(self) -> Walk | None:
        """The accepted steps, if they were kept and there were any."""
        if not self.kept:
            return None
        times, widths, states = (torch.stack(part) for part in zip(*self.kept, strict=True))
        return Walk(times, widths, states, embedded=True)

    def _accept(self, t: Tensor, z: Tensor, dt: Tensor) -> None:
        self.accepted += 1
        if self.kept is not None:
            self.kept.append((t.detach(), dt.detach(), z))

    def _reject(self, t: Tensor, z: Tensor, dt: Tensor) -> None:
        self.rejected += 1


class _Masked(nn.Module):
    """A right-hand side that some samples do not feel; it sees their first states, which are finite."""

    def __init__(self, f: _Counted, alive: Tensor, z0: Tensor) -> None:
        super().__init__()
        self.f, self.alive, self.z0 = f, alive, z0

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        rate = self.f(t, torch.where(self.alive, z, self.z0))
        return torch.where(self.alive, rate, torch.zeros_like(rate))


def _check_method(method: str, dt: float | None) -> None:
    if method not in ADAPTIVE | FIXED:
        raise ValueError(
            f"method={method!r} is not known; choose one of {', '.join(sorted(ADAPTIVE | FIXED))}"
        )
    if method in FIXED and dt is None:
        raise ValueError(f"method={method!r} has fixed steps; give dt")


def _import_torchdiffeq() -> Any:
    try:
        import torchdiffeq  # late: not every integration needs it
    except ImportError as missing:
        raise MissingDependencyError(
            "integrate_ode needs torchdiffeq: pip install torchdiffeq"
        ) from missing
    return torchdiffeq
