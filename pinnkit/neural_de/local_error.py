"""Solver heuristics as a regulariser: dynamics that are easy to integrate.

In    the steps a solver took (a `Walk`), the right-hand side.
Out   a penalty whose gradient makes the solver's own error estimate, or its stiffness estimate, smaller.
Next  `NeuralSDE(regularise=LocalError(...))`; also a plain function for one's own training loop.

For a step of length h from z_n with the embedded solutions z_{n+1}, z^_{n+1} (norm |v| = sqrt(mean v^2)):

    error      E = |(z_{n+1} - z^_{n+1}) / (atol + rtol max(|z_n|, |z_{n+1}|))| h / span
    stiffness  S = |f(t, g7) - f(t, g6)| / |g7 - g6| span / 3.3066
    steps      N = (E span / h)^(1/5) span / h = r^(1/5) span / h, r the scaled norm in E, of the whole batch

where g6, g7 are the arguments of Dormand and Prince's last two stages, which have the same time, and
3.3066 is the length of its stability interval; 1 is then the shortest time scale an explicit solver can
take in one step over the whole span. A controller of a pair of orders 5 and 4 takes steps of h r^(-1/5), so the
mean of N over time is the number of steps that tolerances of atol and rtol ask for. It is not published. E grows
with h: the fewer steps a model takes, the harder E pushes it on, until it moves on straight lines; N falls.
Ordinary equations integrated adaptively use Dormand and Prince's pair; fixed steps, with noise or without,
use Lamba's Euler-Heun estimate

    Ed = h/2 (f(t + h, z + h f) - f),   En = 1/2 G dW^2,   G = (g(z + g sqrt h) - g) / sqrt h.

References: pal2021opening (arXiv:2105.03918; the whole walk), pal2023locally (arXiv:2303.02262; one step).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from pinnkit.declare.noise import Noise
from pinnkit.errors import UnsupportedProblemError
from pinnkit.neural_de.equation import SDE, VectorField, apply_noise
from pinnkit.neural_de.trajectory import Trajectory, Walk

__all__ = ["LocalError", "dormand_prince_step", "euler_heun_error"]

KINDS, SAMPLINGS = ("error", "stiffness", "steps"), ("unbiased", "biased", "global")
STABLE = 3.3066  # real-axis stability length of Dormand and Prince 5

# Dormand and Prince's tableau; the weights of the error are Shampine's, which torchdiffeq uses.
NODES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
STAGES = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
DIFFERENCE = (
    35 / 384 - 1951 / 21600,
    0.0,
    500 / 1113 - 22642 / 50085,
    125 / 192 - 451 / 720,
    -2187 / 6784 + 12231 / 42400,
    11 / 84 - 649 / 6300,
    -1 / 60,
)


@final
@dataclass(frozen=True, kw_only=True)
class LocalError:
    """weight times the estimate of one step, or of all of them.

    One step ("local"): a step of those the solver took is repeated from its detached beginning, so the
    cost does not grow with the number of steps and any backward pass will do. The gradient is that
    of the step alone: a surrogate of the whole walk's gradient, not an unbiased estimate of it. All steps
    ("global"): the mean of E, the largest S, the mean of N over time, with the gradient through every step, which
    needs direct back-propagation.

    Args:
        weight: Of the penalty in the loss; where training begins, if `final` is given.
        final: The weight where training ends, reached exponentially; None: `weight` throughout. The
            published runs divide by 2.5 to 10.
        kind: "error"; "stiffness" or "steps" (ordinary equations with adaptive steps only).
        sampling: "unbiased": the step that contains a time drawn uniformly. "biased": any step with equal
            probability, which favours regions of small steps. "global": all steps.
        rtol, atol: What an error is measured by. Not the solver's tolerances: changing those leaves the
            meaning of `weight` as it is.

    Not: an accuracy promise. The penalty trades accuracy of the fit for fewer steps.
    """

    weight: float = 1.0
    final: float | None = None
    kind: str = "error"
    sampling: str = "unbiased"
    rtol: float = 1e-2
    atol: float = 1e-2

    def __post_init__(self) -> None:
        faults = []
        if not 0 <= self.weight < math.inf:
            faults.append(f"weight={self.weight!r} must be a finite number, not negative")
        if self.final is not None and not (0 < self.final < math.inf and self.weight > 0):
            faults.append(
                f"final={self.final!r} is reached exponentially from weight={self.weight!r}: "
                "both must be positive"
            )
        if self.kind not in KINDS:
            faults.append(f"kind={self.kind!r} must be one of {', '.join(KINDS)}")
        if self.sampling not in SAMPLINGS:
            faults.append(f"sampling={self.sampling!r} must be one of {', '.join(SAMPLINGS)}")
        if not (self.rtol >= 0 and self.atol > 0):
            faults.append(f"rtol={self.rtol!r} and atol={self.atol!r} must be positive")
        if faults:
            raise ValueError("LocalError: " + "; ".join(faults))

    def at(self, share: float) -> LocalError:
        """What it is when this share of training is over: weight (final / weight)^share, 0 <= share <= 1."""
        if self.final is None:
            return self
        between = self.weight * (self.final / self.weight) ** min(max(share, 0.0), 1.0)
        return replace(self, weight=between, final=None)

    def __call__(
        self, run: Trajectory, sde: SDE | VectorField, generator: torch.Generator
    ) -> Tensor:
        """The penalty of a run that kept its walk.

        Args:
            run: From `integrate(..., keep=True)` or `integrate_ode(..., keep=True)`.
            sde: The equation, or the right-hand side alone.
            generator: On the CPU: draws the step, and the noise of its estimate.
        """
        walk = run.walk
        if walk is None:
            raise ValueError("the run did not keep its steps; integrate with keep=True")
        f = sde.drift if isinstance(sde, SDE) else sde
        noisy = isinstance(sde, SDE) and not walk.embedded
        if self.kind != "error" and noisy:
            raise UnsupportedProblemError(
                f'kind="{self.kind}" is defined for ordinary equations with adaptive steps. '
                'Use kind="error".'
            )
        if self.sampling == "global":
            values = [self._one(walk, k, f, sde, generator) for k in range(len(walk))]
            together = torch.stack(values)
            if self.kind == "steps":
                return self.weight * (together * walk.lengths.to(together) / walk.span).sum()
            return self.weight * (together.mean() if self.kind == "error" else together.amax())
        if self.sampling == "biased":
            k = int(torch.randint(len(walk), (), generator=generator))
        else:
            share = walk.lengths / walk.lengths.sum()
            k = int(torch.multinomial(share, 1, generator=generator))
        return self.weight * self._one(walk.detach(), k, f, sde, generator)

    def _one(
        self, walk: Walk, k: int, f: VectorField, sde: object, generator: torch.Generator
    ) -> Tensor:
        t, h, z = walk.step(k)
        if walk.embedded:
            after, error, slope = dormand_prince_step(f, t, z, h)
            if self.kind == "stiffness":
                return slope * walk.span / STABLE
        else:
            assert isinstance(sde, SDE)
            after, error = euler_heun_error(sde, t, z, h, _noise(sde, t, z, h, generator))
        size = self.atol + self.rtol * torch.maximum(z.abs(), after.abs()).detach()
        scaled = (error / size).square().mean(-1)
        share = torch.as_tensor(h, dtype=z.dtype, device=z.device).reshape(-1) / walk.span
        if self.kind == "steps":
            return (_power(scaled.mean(), 1 / 10) / share).mean()
        return (_power(scaled, 1 / 2) * share).mean()


def _power(squares: Tensor, exponent: float) -> Tensor:
    """A root of 0 has no derivative, and a constant field has no error: 0 stands still."""
    tiny = torch.finfo(squares.dtype).tiny
    return torch.where(squares > 0, squares.clamp_min(tiny) ** exponent, torch.zeros_like(squares))


def dormand_prince_step(
    f: VectorField, t: Tensor, z: Tensor, h: Tensor | float
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of Dormand and Prince's fifth-order method.

    Args:
        f: The right-hand side.
        t, h: Where the step begins, and its length: shape () or (B, 1).
        z: The states, shape (B, H).

    Returns:
        z(t + h); the difference of the embedded solutions; Shampine's estimate of the Jacobian's size,
        RMS(k7 - k6) / RMS(g7 - g6), 0 where g7 = g6.
    """
    slopes: list[Tensor] = []
    argument = before = z
    for node, row in zip(NODES, STAGES, strict=True):
        before = argument
        argument = z + h * sum((a * k for a, k in zip(row, slopes, strict=True)), 0 * z)
        slopes.append(f(t + node * h, argument))
    error = h * sum((d * k for d, k in zip(DIFFERENCE, slopes, strict=True)), 0 * z)
    across = (slopes[6] - slopes[5]).square().mean()
    along = (argument - before).square().mean()
    tiny = torch.finfo(z.dtype).tiny
    fine = (along > tiny) & (across > tiny)
    ratio = torch.where(fine, across, torch.ones_like(across)) / torch.where(
        fine, along, torch.ones_like(along)
    )
    return argument, error, torch.where(fine, ratio.sqrt(), torch.zeros_like(ratio))


def euler_heun_error(
    sde: SDE, t: Tensor, z: Tensor, h: Tensor | float, dw: Tensor
) -> tuple[Tensor, Tensor]:
    """z + f h + g dW, and what a method of the next order would change: Lamba's estimate.

    For noise given as a matrix the second part is sum_k G_k dW_k^2 / 2 over its columns, which leaves out
    their commutators.
    """
    f, g = sde.drift(t, z), sde.diffusion(t, z)
    moved = z + h * f
    drift_part = 0.5 * h * (sde.drift(t + h, moved) - f)
    after = moved + apply_noise(g, dw)
    if sde.noise is Noise.ADDITIVE:
        return after, drift_part
    root = h.sqrt() if isinstance(h, Tensor) else math.sqrt(h)
    if g.ndim == 2:
        return after, drift_part + 0.5 * _slope(sde.diffusion, t, z, g, root) * dw.square()
    columns = [
        _slope(sde.diffusion, t, z, g[..., k], root)[..., k] * dw[:, k : k + 1].square()
        for k in range(g.shape[2])
    ]
    return after, drift_part + 0.5 * torch.stack(columns).sum(0)


def _slope(
    g: Callable[[Tensor, Tensor], Tensor], t: Tensor, z: Tensor, along: Tensor, root: Tensor | float
) -> Tensor:
    moved, here = g(t, z + along * root), g(t, z)
    if moved.ndim == 3 and isinstance(root, Tensor):
        root = root.unsqueeze(-1)
    return (moved - here) / root


def _noise(sde: SDE, t: Tensor, z: Tensor, h: Tensor | float, gen: torch.Generator) -> Tensor:
    with torch.no_grad():
        channels = sde.channels(sde.diffusion(t, z), z)
    drawn = torch.randn(len(z), channels, generator=gen, dtype=z.dtype).to(z.device)
    return drawn * (h.sqrt() if isinstance(h, Tensor) else math.sqrt(h))
