"""One-step methods for stochastic differential equations with fixed steps.

In    an `SDE`, a state, a step and its Brownian increment.
Out   the state after the step.
Next  `neural_de.integrate` is the loop.

| method | calculus | noise | strong order | weak order | both for additive noise | f and g a step |
|---|---|---|---|---|---|---|
| `EulerMaruyama` | Ito | any | 1/2 | 1 | 1, 1 | 1, 1 |
| `Milstein` | both | not general | 1 | 1 | 1, 1 | 1, 3 (2 free of derivatives) |
| `StochasticHeun` | Stratonovich | any | 1 (general 1/2) | 1 | 1, 2 | 2, 2 |

An equation in the other calculus is refused; `sde.to_ito()` and `sde.to_stratonovich()` convert it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from pinnkit.declare.noise import Calculus, Noise
from pinnkit.neural_de.equation import SDE, apply_noise, noise_drift

__all__ = ["AbstractMethod", "EulerMaruyama", "Milstein", "StochasticHeun"]

TINY = 1e-12  # the smallest displacement a difference quotient is formed with


class AbstractMethod(ABC):
    """A one-step method; subclasses are frozen records of their settings."""

    calculi: ClassVar[frozenset[Calculus]]
    evaluations: ClassVar[int]  # of f and of g, in all, per step

    def refuses(self, sde: SDE) -> str | None:
        """Why it must not be used on this equation, and what to do instead; None if it may."""
        if sde.calculus not in self.calculi:
            other = next(iter(self.calculi)).value
            return (
                f"{type(self).__name__} converges to the {other.capitalize()} solution, and this "
                f"equation is meant in the sense of {sde.calculus.value.capitalize()}. "
                f"Pass sde.to_{other}()."
            )
        return None

    @abstractmethod
    def step(
        self,
        sde: SDE,
        t0: Tensor,  # shape: () or (B, 1)
        t1: Tensor,
        h: float | Tensor,  # t1 - t0
        z: Tensor,  # shape: (B, H)
        dw: Tensor,  # shape: (B, M)
    ) -> Tensor:  # shape: (B, H)
        """The state at t1."""


@final
@dataclass(frozen=True)
class EulerMaruyama(AbstractMethod):
    """z + f h + g dW."""

    calculi: ClassVar[frozenset[Calculus]] = frozenset({Calculus.ITO})
    evaluations: ClassVar[int] = 2

    def refuses(self, sde: SDE) -> str | None:
        # With additive noise the two calculi agree.
        return None if sde.noise is Noise.ADDITIVE else super().refuses(sde)

    def step(
        self, sde: SDE, t0: Tensor, t1: Tensor, h: float | Tensor, z: Tensor, dw: Tensor
    ) -> Tensor:
        return z + sde.drift(t0, z) * h + apply_noise(sde.diffusion(t0, z), dw)


@final
@dataclass(frozen=True)
class Milstein(AbstractMethod):
    """z + f h + g dW + 1/2 (D g) g (dW^2 - h), without the -h in Stratonovich's calculus.

    For diagonal and scalar noise, where the double integrals of W are dW^2 / 2 exactly. General noise
    needs Levy areas and is refused.

    Args:
        derivative_free: Replace (D g) g by (g(z + g sqrt(h)) - g(z)) / sqrt(h), which keeps the order
            and needs no derivative of g.
    """

    derivative_free: bool = False
    calculi: ClassVar[frozenset[Calculus]] = frozenset(Calculus)
    evaluations: ClassVar[int] = 4

    def refuses(self, sde: SDE) -> str | None:
        if not sde.noise.commutes:
            return (
                "Milstein needs the Levy areas of general noise, which nobody can draw cheaply. "
                "Use EulerMaruyama(), or declare the noise diagonal, scalar or additive if it is."
            )
        return super().refuses(sde)

    def step(
        self, sde: SDE, t0: Tensor, t1: Tensor, h: float | Tensor, z: Tensor, dw: Tensor
    ) -> Tensor:
        g = sde.diffusion(t0, z)
        after = z + sde.drift(t0, z) * h + apply_noise(g, dw)
        if sde.noise is Noise.ADDITIVE:
            return after
        if self.derivative_free:
            root = h.sqrt().clamp_min(TINY) if isinstance(h, Tensor) else max(h**0.5, TINY)
            vector = g if g.ndim == 2 else g.squeeze(-1)
            moved = sde.diffusion(t0, z + vector * root)
            slope = ((moved if moved.ndim == 2 else moved.squeeze(-1)) - vector) / root
        else:
            slope = noise_drift(sde, t0, z)
        square = dw.square()
        return after + 0.5 * slope * (square - h if sde.calculus is Calculus.ITO else square)


@final
@dataclass(frozen=True)
class StochasticHeun(AbstractMethod):
    """z* = z + f h + g dW, then z + (f + f*) h/2 + (g + g*) dW/2: the trapezoidal rule for both parts."""

    calculi: ClassVar[frozenset[Calculus]] = frozenset({Calculus.STRATONOVICH})
    evaluations: ClassVar[int] = 4

    def refuses(self, sde: SDE) -> str | None:
        return None if sde.noise is Noise.ADDITIVE else super().refuses(sde)

    def step(
        self, sde: SDE, t0: Tensor, t1: Tensor, h: float | Tensor, z: Tensor, dw: Tensor
    ) -> Tensor:
        f, g = sde.drift(t0, z), sde.diffusion(t0, z)
        guess = z + f * h + apply_noise(g, dw)
        mean_g = 0.5 * (g + sde.diffusion(t1, guess))
        return z + 0.5 * (f + sde.drift(t1, guess)) * h + apply_noise(mean_g, dw)
