"""The fixed-step loop: one method, one grid, one Brownian path, a batch of samples.

In    an `SDE`, initial states, output times, a step.
Out   a `Trajectory`, differentiable by the states and by everything f and g depend on.
Next  `solvers.neural_sde` trains with it; it is also a plain function for one's own training loop.

The loop never waits for the device: noise is drawn beforehand, times are float64 until they meet the
states, and a sample that explodes is frozen by `torch.where` and reported afterwards.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pinnkit.declare.noise import Noise
from pinnkit.errors import UnsupportedProblemError
from pinnkit.neural_de.brownian import BrownianPath
from pinnkit.neural_de.equation import SDE, check_diagonal
from pinnkit.neural_de.grid import TimeGrid
from pinnkit.neural_de.methods import AbstractMethod, EulerMaruyama, Milstein
from pinnkit.neural_de.trajectory import Trajectory, Walk

__all__ = ["Direct", "Recompute", "integrate"]

# State of the loop: states (B, H), alive (B,), steps survived (B,).
Front = tuple[Tensor, Tensor, Tensor]
Piece = Callable[[Front, int, int], tuple[list[Tensor], Front]]


class AbstractBackward(ABC):
    """How gradients come back through the steps."""

    @abstractmethod
    def run(self, piece: Piece, walk: Front, steps: int) -> tuple[list[Tensor], Front]:
        """All steps: the outputs in order, and the end of the walk."""


@final
@dataclass(frozen=True)
class Direct(AbstractBackward):
    """Back-propagation through all steps. Memory grows with their number."""

    def run(self, piece: Piece, walk: Front, steps: int) -> tuple[list[Tensor], Front]:
        return piece(walk, 0, steps)


@final
@dataclass(frozen=True)
class Recompute(AbstractBackward):
    """The adjoint by recomputation: states are kept every `every` steps, the rest is computed again.

    The same operations in the same order, hence the same gradient as `Direct`, unlike a continuous
    adjoint, whose backward solve has errors of its own. One more forward pass; memory of
    steps / every states and the activations of `every` steps.

    Args:
        every: Steps between kept states; None for the square root of their number.
    """

    every: int | None = None

    def __post_init__(self) -> None:
        if self.every is not None and not (isinstance(self.every, int) and self.every >= 1):
            raise ValueError(
                f"Recompute(every={self.every!r}): expected a positive integer or None"
            )

    def run(self, piece: Piece, walk: Front, steps: int) -> tuple[list[Tensor], Front]:
        if not torch.is_grad_enabled():
            return piece(walk, 0, steps)
        every = self.every or math.isqrt(steps - 1) + 1
        outputs: list[Tensor] = []
        for start in range(0, steps, every):
            stop = min(start + every, steps)
            some, walk = checkpoint(piece, walk, start, stop, use_reentrant=False)  # type: ignore[misc]
            outputs += some
        return outputs, walk


def integrate(
    sde: SDE,
    z0: Tensor,  # shape: (B, H)
    times: Any,  # shape: (T,) or (T, B)
    *,
    dt: float | None = None,
    method: AbstractMethod | None = None,
    brownian: BrownianPath | torch.Generator | int = 0,
    backward: AbstractBackward | None = None,
    limit: float | None = None,
    instants: Callable[[Tensor], Sequence[Any]] | None = None,
    keep: bool = False,
) -> Trajectory:
    """Integrate from the first time to the last; states at every requested time.

    Args:
        sde: The equation.
        z0: States at the first time.
        times: Output times, ascending; each lies on the grid. (T, B) gives every sample a clock.
        dt: The largest step; None takes one step from output to output.
        method: `EulerMaruyama()` by default.
        brownian: A seed, a generator, or a path (whose grid is then the grid, and dt is not read).
        backward: `Direct()` by default, or `Recompute()`.
        limit: A sample whose largest component exceeds it stands still from then on, as one that is
            not finite does. None: the fourth root of the largest number, so that cubes of states and
            their derivatives are finite.
        instants: Makes of the grid's times, shape (K + 1, B, 1), the K + 1 things that f and g are given
            in their place: what can be computed for all of them at once, such as a control path.
        keep: Keep the states at every step, as `walk`.

    Raises:
        UnsupportedProblemError: where the method is wrong for this noise or this calculus.

    >>> decay = SDE(lambda t, z: -z, lambda t, z: 0.1 * torch.ones_like(z), Noise.ADDITIVE)
    >>> path = integrate(decay, torch.ones(3, 2, dtype=torch.float64), [0.0, 0.5, 1.0], dt=0.01)
    >>> path.states.shape, path.status.name, path.steps
    (torch.Size([3, 3, 2]), 'COMPLETE', 100)
    """
    method = EulerMaruyama() if method is None else method
    backward = Direct() if backward is None else backward
    check_start(z0)
    why = method.refuses(sde)
    if why is not None:
        raise UnsupportedProblemError(why)
    grid = brownian.grid if isinstance(brownian, BrownianPath) else TimeGrid.of(times, dt)
    clock: Any = _clock(grid, z0)
    if instants is not None:
        clock = instants(clock.reshape(len(clock), -1, 1).expand(-1, len(z0), 1))
    with torch.no_grad():
        channels = sde.channels(sde.diffusion(clock[0], z0), z0)
    if isinstance(method, Milstein) and sde.noise is Noise.DIAGONAL:
        check_diagonal(sde, clock[0], z0)
    path = _path(brownian, grid, times, z0, channels)
    most = float(torch.finfo(z0.dtype).max ** 0.25) if limit is None else limit
    wanted = range(grid.steps + 1) if keep else grid.outputs
    piece = _make_piece(sde, method, grid, clock, path.increments, most, frozenset(wanted))
    alive = z0.detach().abs().amax(1) <= most
    outputs, (_, _, survived) = backward.run(piece, (z0, alive, 0 * alive.long()), grid.steps)
    states, walk = torch.stack([z0, *outputs]), None
    if keep:
        walk = Walk(grid.points[:-1], grid.widths, states[:-1], embedded=False)
        states = states[list(grid.outputs)]
    return Trajectory(
        times=grid.points[list(grid.outputs)],
        states=states,
        reached=_reached(grid, survived),
        evaluations=method.evaluations * grid.steps,
        steps=grid.steps,
        walk=walk,
    )


def check_start(z0: Tensor) -> None:
    """Refuse initial states that are no batch of finite vectors."""
    if z0.ndim != 2 or not z0.dtype.is_floating_point:
        raise ValueError(f"z0 is {z0.dtype} of shape {tuple(z0.shape)}, expected floats (B, H)")
    if not bool(torch.isfinite(z0).all()):
        row = int((~torch.isfinite(z0)).any(1).nonzero()[0])
        raise ValueError(f"z0 holds nan or inf in row {row}; give finite initial states")


def _clock(grid: TimeGrid, z0: Tensor) -> Tensor:  # shape: (K + 1,) or (K + 1, B, 1)
    points = grid.points.to(z0.device, z0.dtype)
    if points.ndim == 2:
        if points.shape[1] != len(z0):
            raise ValueError(f"times has {points.shape[1]} clocks for {len(z0)} samples")
        return points[..., None]
    return points


def _path(
    brownian: BrownianPath | torch.Generator | int,
    grid: TimeGrid,
    times: Any,
    z0: Tensor,
    channels: int,
) -> BrownianPath:
    if not isinstance(brownian, BrownianPath):
        return BrownianPath.draw(
            grid, len(z0), channels, seed=brownian, dtype=z0.dtype, device=z0.device
        )
    expected = (grid.steps, len(z0), channels)
    if tuple(brownian.increments.shape) != expected:
        raise ValueError(
            f"the Brownian path has increments of shape {tuple(brownian.increments.shape)}, "
            f"and {expected} are needed (steps, samples, components)"
        )
    wanted = torch.as_tensor(times).detach().to("cpu", torch.float64)
    if wanted.shape != grid.points[list(grid.outputs)].shape or not torch.allclose(
        wanted, grid.points[list(grid.outputs)]
    ):
        raise ValueError("the Brownian path was drawn for other output times than `times`")
    return brownian


def _make_piece(
    sde: SDE,
    method: AbstractMethod,
    grid: TimeGrid,
    clock: Any,
    increments: Tensor,  # shape: (K, B, M)
    limit: float,
    wanted: frozenset[int],
) -> Piece:
    """Steps start ... stop - 1 as a function of the walk, fit to be run twice."""
    own_clocks = grid.points.ndim == 2
    widths: Any = (
        grid.widths[..., None].to(increments) if own_clocks else grid.widths.tolist()
    )  # floats: no tensor to read, nothing to wait for

    def piece(walk: Front, start: int, stop: int) -> tuple[list[Tensor], Front]:
        z, alive, survived = walk
        outputs = []
        for k in range(start, stop):
            after = method.step(sde, clock[k], clock[k + 1], widths[k], z, increments[k])
            # False for nan as well. Frozen samples keep their last state, so f sees finite numbers,
            # and send no gradient back, which would be as large as the state.
            alive = alive & (after.detach().abs().amax(1) <= limit)
            z = torch.where(alive[:, None], after, z.detach())
            survived = survived + alive
            if k + 1 in wanted:
                outputs.append(z)
        return outputs, (z, alive, survived)

    return piece


def _reached(grid: TimeGrid, survived: Tensor) -> Tensor:  # shape: (B,)
    """The time after the last step a sample survived."""
    points = grid.points.to(survived.device)
    return points[survived] if points.ndim == 1 else points.gather(0, survived[None])[0]
