"""A stochastic differential equation as two functions and the structure of its noise.

In    drift f(t, z) and diffusion g(t, z): tensors to tensors, networks included.
Out   an `SDE`, which says what may be assumed about g, and converts between the two calculi.
Next  `neural_de.integrate`.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from pinnkit.declare.noise import Calculus, Noise
from pinnkit.errors import DeclarationError

__all__ = [
    "SDE",
    "VectorField",
    "apply_noise",
    "check_diagonal",
    "columns",
    "load_forward_mode",
    "noise_drift",
]

VectorField = Callable[[Tensor, Tensor], Tensor]


@final
@dataclass(frozen=True, eq=False)
class SDE:
    """dz = f(t, z) dt + g(t, z) dW for a batch of states z of shape (B, H).

    Times arrive in the states' dtype, of shape () or, where every sample has its own clock, (B, 1);
    both broadcast against z.

    Args:
        drift: f, (t, z) to (B, H).
        diffusion: g, (t, z) to (B, H) or (B, H, M). Two dimensions are multiplied element by element
            with W, which then has H components (one component if `noise` is SCALAR); three are
            matrices.
        noise: What is known about g. Integrators rely on it; `check_diagonal` tests one claim.
        calculus: ITO or STRATONOVICH.
    """

    drift: VectorField
    diffusion: VectorField
    noise: Noise = Noise.GENERAL
    calculus: Calculus = Calculus.ITO

    def __post_init__(self) -> None:
        if not isinstance(self.noise, Noise) or not isinstance(self.calculus, Calculus):
            raise TypeError(
                f"SDE(noise={self.noise!r}, calculus={self.calculus!r}): expected members of Noise "
                "and Calculus"
            )

    def channels(self, g: Tensor, z: Tensor) -> int:
        """M, the number of components of W, read off a value of g; wrong shapes are named here."""
        if g.shape[:2] != z.shape or g.ndim not in (2, 3):
            b, h = z.shape
            raise DeclarationError(
                f"diffusion(t, z) has the shape {tuple(g.shape)} for z of shape {(b, h)}: expected "
                f"{(b, h)} or {(b, h, 'M')}. Expand it to the shape of z."
            )
        if g.ndim == 2:
            return 1 if self.noise is Noise.SCALAR else z.shape[1]
        if self.noise is Noise.SCALAR and g.shape[2] != 1:
            raise DeclarationError(
                f"diffusion(t, z) has {g.shape[2]} columns, and scalar noise has one. "
                "Say noise=Noise.GENERAL."
            )
        if self.noise is Noise.DIAGONAL:
            raise DeclarationError(
                "diffusion(t, z) is a matrix, and diagonal noise is a vector of the shape of z. "
                "Return the diagonal alone, or say noise=Noise.GENERAL."
            )
        return g.shape[2]

    def to_ito(self) -> SDE:
        """The same process in Ito's calculus: f_Ito = f_Strat + 1/2 sum_k (D g_k) g_k."""
        return self if self.calculus is Calculus.ITO else self._convert(0.5, Calculus.ITO)

    def to_stratonovich(self) -> SDE:
        """The same process in Stratonovich's calculus."""
        strat = Calculus.STRATONOVICH
        return self if self.calculus is strat else self._convert(-0.5, strat)

    def _convert(self, share: float, calculus: Calculus) -> SDE:
        if self.noise is Noise.ADDITIVE:  # the two calculi agree
            return dataclasses.replace(self, calculus=calculus)

        def drift(t: Tensor, z: Tensor) -> Tensor:
            return self.drift(t, z) + share * noise_drift(self, t, z)

        return dataclasses.replace(self, drift=drift, calculus=calculus)


def apply_noise(g: Tensor, dw: Tensor) -> Tensor:  # shapes: (B, H) or (B, H, M), (B, M) -> (B, H)
    """g dW."""
    return g * dw if g.ndim == 2 else (g @ dw.unsqueeze(-1)).squeeze(-1)


def columns(g: Tensor, noise: Noise) -> list[Tensor]:  # M tensors of shape (B, H)
    """The columns g_k of the diffusion."""
    if g.ndim == 2 and noise is Noise.SCALAR:
        return [g]
    return list((torch.diag_embed(g) if g.ndim == 2 else g).unbind(-1))


def noise_drift(sde: SDE, t: Tensor, z: Tensor) -> Tensor:  # shape: (B, H)
    """sum_k (D g_k) g_k, the directional derivative of each column along itself.

    Half of it is what Ito's drift has more than Stratonovich's, and what Milstein's method needs.
    Diagonal and scalar noise need one forward-mode derivative, others one per column.
    """

    def g(y: Tensor) -> Tensor:
        return sde.diffusion(t, y)

    if sde.noise in (Noise.DIAGONAL, Noise.SCALAR):
        # Diagonal: D g is diagonal, so the tangent g gives g_i' g_i, what the columns would give.
        value = g(z)
        tangent = value if value.ndim == 2 else value.squeeze(-1)
        slope = _along(g, z, tangent)
        return slope if slope.ndim == 2 else slope.squeeze(-1)
    if sde.noise is Noise.ADDITIVE:
        return torch.zeros_like(z)
    total = torch.zeros_like(z)
    for k, column in enumerate(columns(g(z), sde.noise)):
        slope = _along(g, z, column)
        total = total + columns(slope, sde.noise)[k]
    return total


def _along(g: Callable[[Tensor], Tensor], z: Tensor, direction: Tensor) -> Tensor:
    """The derivative of g at z along a direction, by forward mode."""
    load_forward_mode()
    return torch.func.jvp(g, (z,), (direction,))[1]


@functools.cache
def load_forward_mode() -> None:
    """Let torch load its forward-mode rules: it warns there of its own use of torch.jit, once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        importlib.import_module("torch._decomp.decompositions_for_jvp")


def check_diagonal(
    sde: SDE,
    t: Tensor,
    z: Tensor,  # shape: (B, H)
) -> None:
    """Refuse a diffusion called diagonal whose component i depends on another component of z.

    Components are moved in 2 log2(H) groups such that every pair is told apart by one of them; what
    was not moved may not change. Looks at the given states only, so it can miss a dependence that
    vanishes there.
    """
    with torch.no_grad():
        before = sde.diffusion(t, z)
        step = 0.1 * (1.0 + z.abs())
        index = torch.arange(z.shape[1], device=z.device)
        moved_others = torch.zeros_like(before)
        for bit in range((z.shape[1] - 1).bit_length()):
            for side in (0, 1):
                moved = ((index >> bit) & 1) == side
                change = (sde.diffusion(t, z + step * moved) - before).abs()
                moved_others = torch.maximum(moved_others, change * ~moved)
        scale = before.abs().amax() + torch.finfo(z.dtype).tiny
        if not bool((moved_others <= 1e-3 * torch.finfo(z.dtype).eps ** 0.25 * scale).all()):
            i = int(moved_others.amax(0).argmax())
            raise DeclarationError(
                f"noise=Noise.DIAGONAL, but component {i} of diffusion(t, z) depends on other "
                "components of z. Say noise=Noise.GENERAL (Euler-Maruyama is not affected)."
            )
