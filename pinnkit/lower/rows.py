"""Rows of the Jacobian dr/dtheta from a tape, layer by layer.

In    residual columns (n, e) and the `Tape` of the forward pass they were computed with.
Out   J (n, e, P); or products J v and J^T c without holding J.
Next  Gauss-Newton methods in `train`.

For a linear layer the row of point i is the sum over jet components s of outer(g_s, z_s), with
g_s the derivative of the residual with respect to component s of the layer's output and z_s
component s of its input: one backward pass per residual column and one batched product per layer,
where `vmap(grad)` would differentiate every point by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pinnkit.lower.tape import OuterRows, Tape

__all__ = ["RowOperator", "jacobian_rows", "residual_rows", "rows_matvec", "rows_rmatvec"]


class RowOperator:
    """The Jacobian of residual columns as an operator; `params` fix the order of its P columns.

    Args:
        residual: Columns (n, e), computed with `tape`. With quadrature the sites hold q * n points
            in q consecutive blocks, and residual i sums over point i of every block.
        tape: The forward pass's tape.
        params: The parameters, in the order of the columns. Those the tape never met get zeros.
    """

    def __init__(self, residual: Tensor, tape: Tape, params: Sequence[Tensor]) -> None:
        self.n, self.e = residual.shape
        self.sites = tape.sites
        self.slices: dict[int, slice] = {}
        start = 0
        for p in params:
            self.slices[id(p)] = slice(start, start + p.numel())
            start += p.numel()
        self.size = start
        self.dtype, self.device = residual.dtype, residual.device
        outputs = [site.output for site in self.sites]
        columns = residual.unbind(1)
        # adjoints[j][k]: derivative of residual column j with respect to the output of site k
        self.adjoints = [
            self._adjoint(column, outputs, retain=j < self.e - 1)
            for j, column in enumerate(columns)
        ]

    @staticmethod
    def _adjoint(
        column: Tensor, outputs: list[Tensor], *, retain: bool
    ) -> tuple[Tensor | None, ...]:
        if not outputs or not column.requires_grad:  # a residual without any unknown
            return (None,) * len(outputs)
        return torch.autograd.grad(column.sum(), outputs, retain_graph=retain, allow_unused=True)

    def dense(self, out: Tensor | None = None) -> Tensor:  # shape: (n, e, P)
        """J itself, in `out` where given: reusing one buffer saves the page faults of a new one."""
        rows = out
        if rows is None:
            rows = torch.empty(self.n, self.e, self.size, dtype=self.dtype, device=self.device)
        for j, adjoints in enumerate(self.adjoints):
            written: set[int] = set()
            for site, g in zip(self.sites, adjoints, strict=True):
                if g is None:
                    continue
                fold = g.shape[1] // self.n
                for p, block in zip(site.parameters, site.rows(g, fold), strict=True):
                    where = self.slices.get(id(p))
                    if where is None:
                        continue
                    target = rows[:, j, where]
                    add = id(p) in written  # a layer used twice: contributions add
                    if isinstance(block, OuterRows):
                        block.write(target, add=add)
                    else:
                        target.add_(block) if add else target.copy_(block)
                    written.add(id(p))
            for key, where in self.slices.items():
                if key not in written:
                    rows[:, j, where] = 0
        return rows

    def matvec(self, v: Tensor) -> Tensor:  # shapes: (P,) -> (n, e)
        """J v."""
        out = torch.zeros(self.n, self.e, dtype=self.dtype, device=self.device)
        for k, site in enumerate(self.sites):
            change = site.tangent([self._part(v, p) for p in site.parameters])
            for j, adjoints in enumerate(self.adjoints):
                g = adjoints[k]
                if g is not None:
                    out[:, j] += (g * change).sum((0, 2)).reshape(-1, self.n).sum(0)
        return out

    def rmatvec(self, c: Tensor) -> Tensor:  # shapes: (n, e) -> (P,)
        """J^T c."""
        out = torch.zeros(self.size, dtype=self.dtype, device=self.device)
        for j, adjoints in enumerate(self.adjoints):
            for site, g in zip(self.sites, adjoints, strict=True):
                if g is None:
                    continue
                weights = c[:, j].repeat(g.shape[1] // self.n)[None, :, None]
                for p, block in zip(site.parameters, site.pullback(g * weights), strict=True):
                    where = self.slices.get(id(p))
                    if where is not None:
                        out[where] += block.reshape(-1)
        return out

    def _part(self, v: Tensor, p: Tensor) -> Tensor:
        where = self.slices.get(id(p))
        return torch.zeros_like(p) if where is None else v[where].view(p.shape)


def jacobian_rows(
    residual: Tensor,  # shape: (n, e)
    tape: Tape,
    params: Sequence[Tensor],
    out: Tensor | None = None,  # shape: (n, e, P)
) -> Tensor:  # shape: (n, e, P)
    """Per-sample gradients of every residual column, as `vmap(grad)` would give them."""
    return RowOperator(residual, tape, params).dense(out)


def residual_rows(
    evaluate: Callable[[Tape], Tensor],
    model: nn.Module,
    params: Sequence[Tensor] | None,
    parameters: Sequence[Tensor],
    out: Tensor | None = None,  # shape: (n, e, P)
) -> tuple[Tensor, Tensor]:  # shapes: (n, e), (n, e, P)
    """Residual columns and their rows.

    Args:
        evaluate: The columns, computed with the tape it is given.
        model: Whose parameters they depend on.
        params: Order of the columns of J; the model's parameters, then the physical ones, those that
            require grad, where None.
        parameters: The physical ones.
        out: A buffer for J.
    """
    if params is None:
        params = [p for p in (*model.parameters(), *parameters) if p.requires_grad]
    tape = Tape()
    with torch.enable_grad():
        residual = evaluate(tape)
        return residual.detach(), jacobian_rows(residual, tape, params, out)


def rows_matvec(
    residual: Tensor, tape: Tape, params: Sequence[Tensor], v: Tensor
) -> Tensor:  # shape: (n, e)
    """J v without J."""
    return RowOperator(residual, tape, params).matvec(v)


def rows_rmatvec(
    residual: Tensor, tape: Tape, params: Sequence[Tensor], c: Tensor
) -> Tensor:  # shape: (P,)
    """J^T c without J."""
    return RowOperator(residual, tape, params).rmatvec(c)
