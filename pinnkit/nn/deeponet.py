"""DeepONet: functions of the coordinates (trunk), coefficients from the input (branch).

In    features of points (n, F), numbers or sampled values of the input (B, q).
Out   the trunk's functions (n, N, m), and the branch's coefficients (B, N).
Next  a constraint layer finds the coefficients instead of the branch; then the trunk alone is learned.

u_f(x; a) = sum_j c_j(a) tau_jf(x). All fields share the coefficients, as proper orthogonal modes of
vector fields do. The trunk sees no input: its derivatives are taken once for all samples.
References: lu2021deeponet, wang2021physicsinformed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pinnkit.nn.networks import MLP, zero_output

__all__ = ["DeepONet"]


class DeepONet(nn.Module):
    """Trunk and branch, both `MLP`s; without a branch it is a basis.

    Args:
        inputs: Number of the trunk's features.
        functions: N.
        fields: m.
        sensors: q; 0 for no branch.
        coefficients: How many the branch gives, if other than N (one set per expert).
        width, depth, activation: Of both.
        gain, spread: Of the trunk's first layer and biases, see `MLP`.
        generator, dtype: As in `MLP`. The branch starts at 0.

    >>> net = DeepONet(2, 5, sensors=3, generator=torch.Generator().manual_seed(0))
    >>> at, a = torch.zeros(7, 2, dtype=torch.float64), torch.zeros(4, 3, dtype=torch.float64)
    >>> net(at, a).shape  # samples, points, fields
    torch.Size([4, 7, 1])
    """

    def __init__(
        self,
        inputs: int,
        functions: int,
        fields: int = 1,
        *,
        sensors: int = 0,
        coefficients: int | None = None,
        width: int = 32,
        depth: int = 2,
        activation: str = "tanh",
        gain: float = 1.0,
        spread: float = 0.0,
        generator: torch.Generator,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        if functions < 1 or fields < 1:
            raise ValueError(f"DeepONet: {functions} functions of {fields} fields; give 1 at least")
        self.functions, self.fields = functions, fields
        sizes = {"width": width, "depth": depth, "activation": activation}
        self.trunk = MLP(
            inputs, functions * fields, gain=gain, spread=spread,
            generator=generator, dtype=dtype, **sizes,
        )  # fmt: skip
        self.branch: MLP | None = None
        if sensors:
            self.branch = MLP(
                sensors, coefficients or functions, generator=generator, dtype=dtype, **sizes
            )
            zero_output(self.branch)

    def basis(self, features: Tensor) -> Tensor:  # shapes: (n, F) -> (n, N, m)
        """The trunk's functions at points."""
        return self.trunk(features).unflatten(-1, (self.functions, self.fields))

    def coefficients(self, sensed: Tensor) -> Tensor:  # shapes: (B, q) -> (B, N)
        """The branch's answer."""
        if self.branch is None:
            raise ValueError("this DeepONet has no branch; build it with sensors=")
        return self.branch(sensed)

    def forward(self, features: Tensor, sensed: Tensor) -> Tensor:  # shape: (B, n, m)
        return torch.einsum("njm,bj->bnm", self.basis(features), self.coefficients(sensed))
