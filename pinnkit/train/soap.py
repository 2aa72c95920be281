"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner.

In    a `ResidualModel`, whose `shapes` say which parts of theta are matrices, and the memory.
Out   theta advanced by one step of Adam taken in rotated coordinates.
Next  the strongest first-order method on PINNs: for networks too large for second order.

Every matrix W (a, b) with gradient G keeps L <- b2 L + (1 - b2) G G^T and R <- b2 R + (1 - b2) G^T G,
and orthogonal bases of their eigenvectors, Q_L and Q_R. With G' = Q_L^T G Q_R Adam runs on G':

    M <- b1 M + (1 - b1) G,  V <- b2 V + (1 - b2) G'^2,  W <- W - lr Q_L [M'^ / (sqrt(V^) + eps)] Q_R^T.

M stays in the coordinates of W: rotating it is linear, so a change of basis needs no care. The bases
come from eigh at first; then every `every` steps from one power iteration and a QR factorisation,
columns sorted by their eigenvalues, and V along with them. All of it in the dtype of theta.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from pinnkit.train.adam import moment_faults
from pinnkit.train.residual_model import AbstractOptimiser, Memory, ResidualModel, StepReport

__all__ = ["SOAP"]


@final
@dataclass(frozen=True, kw_only=True)
class SOAP(AbstractOptimiser):
    """Shampoo with Adam in the preconditioner's eigenbasis.

    The first step moves nothing: it only sees the gradient that the first bases are made of. The
    defaults are those used for PINNs (wang2025gradient); there is no weight decay.

    Args:
        lr: Step size at first.
        decay: Factor on `lr` every 1000 steps.
        betas: b1 of the momentum; b2 of the second moments and of L and R.
        eps: As in Adam.
        every: Steps between changes of the bases.
        vectors: Rotate one-dimensional parameters (biases) too; otherwise they get plain Adam.

    References: vyas2025soap, wang2025gradient.
    """

    lr: float = 1e-3
    decay: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-12
    every: int = 2
    vectors: bool = False

    def __post_init__(self) -> None:
        faults = moment_faults(self.lr, self.decay, self.betas, self.eps)
        if self.every < 1:
            faults.append(f"every={self.every} must be at least 1")
        if faults:
            raise ValueError("SOAP: " + "; ".join(faults))

    def init(self, theta: Tensor) -> Memory:
        return {
            "theta": theta.detach().clone(),
            "m": torch.zeros_like(theta),
            "v": torch.zeros_like(theta),
            "factors": theta.new_zeros(0),  # L, R of every matrix one after the other, flat
            "bases": theta.new_zeros(0),  # Q_L, Q_R likewise
            "first": True,
            "count": 0,
        }

    def step(self, model: ResidualModel, memory: Memory) -> StepReport:
        theta = memory["theta"]
        loss, gradient = model.gradient(theta)
        if not math.isfinite(loss) or not bool(torch.isfinite(gradient).all()):
            return StepReport(loss, loss, -math.inf, False)
        layout = _Layout(model.shapes, self.vectors)
        b1, b2 = self.betas
        if memory["first"]:
            factors = [(1 - b2) * outer for outer in layout.outer_products(gradient)]
            bases = [_eigenbasis(f) for f in factors]
            memory.update(factors=_flat(factors, theta), bases=_flat(bases, theta), first=False)
            return StepReport(loss, loss, math.nan, False)
        count = memory["count"] + 1
        bases = layout.squares(memory["bases"])
        m = b1 * memory["m"] + (1 - b1) * gradient
        v = b2 * memory["v"] + (1 - b2) * layout.rotate(gradient, bases).square()
        rate = self.lr * self.decay ** (count / 1000)
        scaled = layout.rotate(m / (1 - b1**count), bases) / (
            (v / (1 - b2**count)).sqrt() + self.eps
        )
        # L and R learn of this gradient after the step, so that it is not judged by itself.
        factors = [
            b2 * f + (1 - b2) * outer
            for f, outer in zip(
                layout.squares(memory["factors"]), layout.outer_products(gradient), strict=True
            )
        ]
        memory.update(
            theta=theta - rate * layout.rotate(scaled, [q.T for q in bases]),
            m=m,
            factors=_flat(factors, theta),
            count=count,
        )
        if count % self.every == 0:
            v, bases = layout.refreshed(v, factors, bases)
            memory["bases"] = _flat(bases, theta)
        memory["v"] = v
        return StepReport(loss, loss, math.nan, True)


class _Layout:
    """Where the matrices lie in theta. A list of squares has two for every matrix: left, right."""

    def __init__(self, shapes: Sequence[tuple[int, ...]], vectors: bool) -> None:
        self.sizes = [math.prod(shape) for shape in shapes]
        self.matrices: dict[int, tuple[int, int]] = {}  # place in `shapes` -> (a, b)
        for k, shape in enumerate(shapes):
            if len(shape) == 2:
                self.matrices[k] = (shape[0], shape[1])
            elif len(shape) == 1 and vectors:
                self.matrices[k] = (shape[0], 1)
        self.sides = [side for pair in self.matrices.values() for side in pair]

    def squares(self, flat: Tensor) -> list[Tensor]:
        """The square matrices that `_flat` wrote down."""
        parts = flat.split([n * n for n in self.sides]) if self.sides else ()
        return [part.view(n, n) for part, n in zip(parts, self.sides, strict=True)]

    def outer_products(self, gradient: Tensor) -> list[Tensor]:
        """G G^T and G^T G of every matrix."""
        parts = gradient.split(self.sizes)
        out = []
        for k, shape in self.matrices.items():
            g = parts[k].view(shape)
            out += [g @ g.T, g.T @ g]
        return out

    def rotate(self, flat: Tensor, bases: Sequence[Tensor]) -> Tensor:
        """Q_L^T G Q_R for every matrix, the rest as it is."""
        parts = list(flat.split(self.sizes))
        for (k, shape), left, right in zip(
            self.matrices.items(), bases[::2], bases[1::2], strict=True
        ):
            parts[k] = (left.T @ parts[k].view(shape) @ right).reshape(-1)
        return torch.cat(parts)

    def refreshed(
        self, v: Tensor, factors: Sequence[Tensor], bases: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """One power iteration on every basis; the second moments follow their columns."""
        parts, orders, new = list(v.split(self.sizes)), [], []
        for factor, basis in zip(factors, bases, strict=True):
            estimates = (basis * (factor @ basis)).sum(0)  # the diagonal of Q^T L Q
            orders.append(torch.argsort(estimates, descending=True, stable=True))
            new.append(torch.linalg.qr(factor @ basis[:, orders[-1]]).Q)
        for (k, shape), left, right in zip(
            self.matrices.items(), orders[::2], orders[1::2], strict=True
        ):
            parts[k] = parts[k].view(shape)[left][:, right].reshape(-1)
        return torch.cat(parts), new


def _eigenbasis(factor: Tensor) -> Tensor:
    """Eigenvectors as columns, the largest eigenvalue first."""
    return torch.linalg.eigh(factor).eigenvectors.flip(1)


def _flat(squares: Sequence[Tensor], like: Tensor) -> Tensor:
    return torch.cat([like.new_zeros(0), *(s.reshape(-1) for s in squares)])
