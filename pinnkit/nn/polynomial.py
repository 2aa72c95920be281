"""A polynomial of the inputs: what a law of nature usually is, to begin with.

In    points (n, d), shifted and scaled.
Out   `Polynomial`: (n, outputs), linear in its coefficients.
Next  `solvers.neural_ode_terms` puts one beside a network, which learns what it cannot say.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

__all__ = ["Polynomial"]


class Polynomial(nn.Module):
    """sum_k c_k phi_k(z), phi_k the monomials of z - origin up to a degree, over a size each; 0 at first.

    Where the origin is the user's own zero and a size the root mean square of its monomial along the data,
    coefficients are comparable and few: x*y is one monomial of (x, y), but four of (x - 3, y - 2). What is
    struck out of `kept`, by putting 0 for 1 there, is no part of the sum.

    Args:
        inputs, outputs: Widths at both ends.
        degree: The highest, at least 0; there are (inputs + degree choose degree) monomials, 1 the first.
        dtype, device: Of everything made here.

    >>> law = Polynomial(2, 1, degree=2)
    >>> law.powers
    [(), (0,), (1,), (0, 0), (0, 1), (1, 1)]
    """

    origin: Tensor
    sizes: Tensor
    kept: Tensor
    columns: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        degree: int = 2,
        *,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        if inputs < 1 or outputs < 1 or degree < 0:
            raise ValueError(
                f"inputs={inputs} and outputs={outputs} must be at least 1, degree={degree} at least 0"
            )
        self.config = {"inputs": inputs, "outputs": outputs, "degree": degree}
        self.powers = [
            p
            for d in range(degree + 1)
            for p in itertools.combinations_with_replacement(range(inputs), d)
        ]
        # Factors of each monomial among (1, z_1, z_2, ...), filled up with 1.
        columns = [
            [p[i] + 1 if i < len(p) else 0 for p in self.powers] for i in range(max(degree, 1))
        ]
        # A buffer: lists would be made into tensors in every call.
        self.register_buffer("columns", torch.tensor(columns, device=device), persistent=False)
        like = torch.zeros(0, dtype=dtype, device=device)
        self.coefficients = nn.Parameter(like.new_zeros(outputs, len(self.powers)))
        self.register_buffer("origin", like.new_zeros(inputs))
        self.register_buffer("sizes", like.new_ones(len(self.powers)))
        self.register_buffer("kept", torch.ones_like(self.coefficients.detach()))

    def measure(
        self,
        points: Tensor,  # shape: (n, inputs)
        origin: Tensor,  # shape: (inputs,)
    ) -> None:
        """Set the origin, and the sizes to root mean squares over the points."""
        with torch.no_grad():
            self.origin.copy_(origin)
            self.sizes.fill_(1.0)
            found = self.monomials(points).square().mean(0).sqrt()
            # What vanishes at all points says nothing; 1 keeps it finite.
            tiny = torch.finfo(points.dtype).tiny
            self.sizes.copy_(torch.where(found > tiny, found, torch.ones_like(found)))

    def monomials(self, z: Tensor) -> Tensor:  # shapes: (n, inputs) -> (n, monomials)
        """phi_k over its size."""
        y = z - self.origin
        factors = torch.cat([torch.ones_like(y[..., :1]), y], dim=-1)
        first, *others = self.columns.unbind()
        value = factors.index_select(-1, first)
        for column in others:
            value = value * factors.index_select(-1, column)
        return value / self.sizes

    def forward(self, z: Tensor) -> Tensor:
        return self.monomials(z) @ (self.kept * self.coefficients).T
