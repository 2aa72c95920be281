"""The constraint layer: coefficients of a learned basis by least squares on a residual.

In    basis functions, an offset and the inputs at n points; a residual with its slopes; a norm.
Out   `Constrained`: the coefficients w of u = offset + basis w, differentiable, and how each was found.
Next  `ExpertMixture` runs many side by side; `solvers.hard_constraint_moe` learns the basis through it.

The residual F works point by point on the leaves l (fields and derivatives) and is linear in nothing;
but l = o + B w is linear in w, so that one product gives all of the Jacobian:

    r(w) = P F(o + B w; c),      J(w) = P sum_l dF/dl B_l,      w = argmin |r(w)|^2.

P is a linear map, the same for every column: the identity and quadrature weights, or the inverse of a
linear operator near that of the equation. It decides what is least. The residual of a differential
equation is large where the solution has layers, however near the truth u is, and a minimiser of its
plain norm gives the truth away for a smaller residual; |P F(u)| with P the inverse of a like operator is
about the error itself.

What this layer fulfils: `equalities` hold to rounding. The residual is *not* zero, but least; `misfit`
says how large it is. The gradient is that of J^T r = 0 with all second derivatives (the implicit function
theorem), so it is exact where r is not zero, too.
References: negiar2023pdecl (arXiv:2207.08675), chalapathi2024scaling (arXiv:2402.13412).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from pinnkit.implicit import LevenbergMarquardt, Record, least_squares
from pinnkit.implicit.dense import product_of_each

__all__ = [
    "Constrained",
    "HardConstraint",
    "PointwiseResidual",
    "combined_leaves",
    "norm_constants",
]

NormMap = Callable[[Tensor], Tensor]  # (B, n, e, k) -> (B, m, k), linear, column by column


class PointwiseResidual(Protocol):
    """F and its slopes at points."""

    def __call__(self, inputs: Tensor, leaves: Tensor) -> Tensor:
        """F: (B, n, G) and (B, n, L) -> (B, n, e)."""
        ...

    def slopes(self, inputs: Tensor, leaves: Tensor) -> Tensor:
        """dF/dl: (B, n, e, L)."""
        ...


class Constrained(NamedTuple):
    """What the layer found, sample by sample.

    Args:
        coefficients: w, (B, N).
        misfit: |r(w)|, (B,): what is left of the residual in the norm of P. No gradient.
        record: How the iteration ended, entries (B,); see `pinnkit.implicit.Record`.
    """

    coefficients: Tensor
    misfit: Tensor
    record: Record


class HardConstraint(nn.Module):
    """w = argmin |P F(offset + basis w)|^2 for each sample, in float64 if the tensors are.

    Args:
        residual: F and its slopes.
        norm: P on (B, n, e, k), column by column; None: the identity.
        ridge: Adds ridge^2 |w|^2 to what is minimised, for bases whose functions are nearly dependent;
            it keeps w from the minimum of the residual.
        solver: Damping of the iteration.
        rtol: A sample has converged when the undamped step is no longer than rtol |w|.
        max_steps: Steps at most.

    >>> class Decay:  # u' + a u on leaves (u, u')
    ...     def __call__(self, inputs, leaves):
    ...         return (leaves[..., 1] + inputs[..., 0] * leaves[..., 0])[..., None]
    ...     def slopes(self, inputs, leaves):
    ...         return torch.stack([inputs[..., 0], torch.ones_like(inputs[..., 0])], -1)[:, :, None]
    >>> t = torch.linspace(0, 1, 20, dtype=torch.float64)
    >>> basis = torch.stack([torch.stack([t**k, k * t**(k - 1)], 1) for k in range(1, 9)], -1)
    >>> offset = torch.stack([torch.ones_like(t), torch.zeros_like(t)], 1)[None]  # u(0) = 1
    >>> a = torch.full((1, 20, 1), 2.0, dtype=torch.float64)
    >>> w = HardConstraint(Decay())(basis, offset, a).coefficients
    >>> abs(float(1 + w.sum()) - 0.1353352832) < 1e-6  # exp(-2)
    True
    """

    def __init__(
        self,
        residual: PointwiseResidual,
        norm: NormMap | None = None,
        *,
        ridge: float = 0.0,
        solver: LevenbergMarquardt | None = None,
        rtol: float = 1e-8,
        max_steps: int = 50,
    ) -> None:
        super().__init__()
        if not ridge >= 0:
            raise ValueError(f"HardConstraint: ridge={ridge} must not be negative")
        self.residual, self.norm, self.ridge = residual, norm, ridge
        self.solver = LevenbergMarquardt(damping=0.0) if solver is None else solver
        self.rtol, self.max_steps = rtol, max_steps

    def forward(
        self,
        basis: Tensor,  # shape: (n, L, N), or (B, n, L, N)
        offset: Tensor,  # shape: (B, n, L)
        inputs: Tensor,  # shape: (B, n, G)
        *,
        start: Tensor | None = None,  # shape: (B, N)
        equalities: tuple[Tensor, Tensor] | None = None,  # shapes: (B, q, N), (B, q)
    ) -> Constrained:
        """The coefficients; gradients flow to basis, offset, inputs and equalities.

        Args:
            basis: Leaves of the basis functions, the same for all samples or one for each.
            offset: Leaves of what is known of u.
            inputs: What else F reads.
            start: Where to start; None: 0.
            equalities: (C, d): C w = d is fulfilled to rounding. C has full rank, q < N.

        Raises:
            ValueError: for shapes that do not fit, or more equalities than unknowns.
        """
        _check_shapes(basis, offset, inputs)
        count, number = offset.shape[0], basis.shape[-1]
        begin = offset.new_zeros(count, number) if start is None else start
        if equalities is None:
            w, record = self._solve(begin, basis, offset, inputs)
        else:
            particular, free = _fulfil(*equalities, number)
            reduced = basis @ free[:, None]
            shift = combined_leaves(basis, particular)
            near = torch.linalg.lstsq(free.detach(), (begin - particular.detach())[..., None])
            y, record = self._solve(near.solution[..., 0], reduced, offset + shift, inputs)
            w = particular + (free @ y[..., None])[..., 0]
        with torch.no_grad():
            misfit = self.rows(w, basis, offset, inputs).norm(dim=1)
        return Constrained(w, misfit, record)

    def rows(self, w: Tensor, basis: Tensor, offset: Tensor, inputs: Tensor) -> Tensor:
        """r(w) without the ridge: (B, m)."""
        values = self.residual(inputs, offset + combined_leaves(basis, w))
        return self._apply_norm(values[..., None])[..., 0]

    def jacobian(self, w: Tensor, basis: Tensor, offset: Tensor, inputs: Tensor) -> Tensor:
        """dr/dw without the ridge: (B, m, N)."""
        slopes = self.residual.slopes(inputs, offset + combined_leaves(basis, w))
        # Leaf by leaf: a handful of terms, in the same order however many samples there are.
        parts = zip(slopes.unsqueeze(-2).unbind(-1), basis.unsqueeze(-3).unbind(-2), strict=True)
        columns = slopes.new_zeros(())
        for slope, functions in parts:  # (B, n, e, 1), (n, 1, N)
            columns = torch.addcmul(columns, slope, functions)
        return self._apply_norm(columns)

    def _apply_norm(self, columns: Tensor) -> Tensor:  # shapes: (B, n, e, k) -> (B, m, k)
        return columns.flatten(1, 2) if self.norm is None else self.norm(columns)

    def _solve(
        self, start: Tensor, basis: Tensor, offset: Tensor, inputs: Tensor
    ) -> tuple[Tensor, Record]:
        def r(w: Tensor, *known: Tensor) -> Tensor:
            rows = self.rows(w, *known)
            return torch.cat([rows, self.ridge * w], 1) if self.ridge else rows

        def jacobian(w: Tensor, *known: Tensor) -> Tensor:
            rows = self.jacobian(w, *known)
            if not self.ridge:
                return rows
            eye = torch.eye(w.shape[1], dtype=w.dtype, device=w.device).expand(len(w), -1, -1)
            return torch.cat([rows, self.ridge * eye], 1)

        return least_squares(
            r, start.detach(), basis, offset, inputs,
            solver=self.solver, rtol=self.rtol, max_steps=self.max_steps, jacobian=jacobian,
        )  # fmt: skip


def combined_leaves(basis: Tensor, coefficients: Tensor) -> Tensor:
    """sum_j w_j B_j for each sample: (n, L, N) or (B, n, L, N), and (B, N) -> (B, n, L).

    Sample by sample: in one product for all, the bits of each would depend on how many there are.
    """
    batch, shape = len(coefficients), basis.shape[-3:-1]
    matrix = basis.flatten(-3, -2).expand(batch, -1, -1)
    return product_of_each(matrix, coefficients).unflatten(1, shape)


def norm_constants(
    jacobian: Tensor,  # shape: (m, N)
    values: Tensor,  # shape: (n, N)
) -> tuple[float, float]:
    """The largest c and the smallest C with c |values v| <= |jacobian v| <= C |values v| for all v.

    With the quadrature-weighted values of the basis at the points, c says how far |r| bounds the error
    within its span, and C / c by how much the least residual may miss the best approximation.

    Raises:
        ValueError: if the basis functions are dependent at the points.
    """
    triangle = torch.linalg.qr(values).R
    sizes = torch.linalg.svdvals(triangle)
    if not float(sizes[-1]) > torch.finfo(values.dtype).eps * len(values) * float(sizes[0]):
        raise ValueError("the basis functions are linearly dependent at the points")
    relative = torch.linalg.svdvals(
        torch.linalg.solve_triangular(triangle, jacobian, upper=True, left=False)
    )
    return float(relative[-1]), float(relative[0])


def _fulfil(c: Tensor, d: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """A solution of C w = d, (B, N), and a basis of what C takes to zero, (B, N, N - q).

    The basis is C's complement made orthogonal to C once more by a differentiable projection: the
    complete QR decomposition itself has no derivative.
    """
    if c.ndim != 3 or c.shape[2] != number or d.shape != c.shape[:2]:
        raise ValueError(
            f"equalities have the shapes {tuple(c.shape)} and {tuple(d.shape)}, expected (B, q, {number})"
            " and (B, q)"
        )
    if not c.shape[1] < number:
        raise ValueError(f"{c.shape[1]} equalities leave nothing of {number} coefficients free")
    right = c.transpose(1, 2)
    square = c @ right
    particular = (right @ torch.linalg.solve(square, d[..., None]))[..., 0]
    complement = torch.linalg.qr(right.detach(), mode="complete").Q[..., c.shape[1] :]
    return particular, complement - right @ torch.linalg.solve(square, c @ complement)


def _check_shapes(basis: Tensor, offset: Tensor, inputs: Tensor) -> None:
    fits = (
        offset.ndim == 3
        and inputs.ndim == 3
        and basis.ndim in (3, 4)
        and inputs.shape[:2] == offset.shape[:2]
        and basis.shape[-3:-1] == offset.shape[1:]
        and (basis.ndim == 3 or len(basis) == len(offset))
    )
    if not fits:
        raise ValueError(
            f"basis {tuple(basis.shape)}, offset {tuple(offset.shape)}, inputs {tuple(inputs.shape)}:"
            " expected (n, L, N) or (B, n, L, N), (B, n, L), (B, n, G)"
        )
