"""Residuals of a family on a grid in time and space, and their slopes by every leaf.

In    a family's normal form, the conditions that hold by construction.
Out   `FamilyResidual`, a `nn.hard_constraint.PointwiseResidual`; the `inputs` it reads.
Next  the constraint layer, and `lower.defect_norm`, which is built from the slopes.

At a node on a side the residual of a condition takes the place of that of an equation: the equation of the
field that stands in it. Where the condition holds by construction the place is 0. So there is one row per
field at every node, as many as a discretisation would have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sympy as sp
import torch
from torch import Tensor

from pinnkit.declare.family import PDEFamily
from pinnkit.ir.leaves import field_of, freeze, leaves
from pinnkit.ir.normal_form import Condition
from pinnkit.lower.expressions import compile_expressions

__all__ = ["FamilyResidual"]


class FamilyResidual:
    """F on leaves (B, n, L) and inputs (B, n, G): coordinates, given values, marks of the two sides.

    Args:
        family: The family.
        held: Conditions that hold by construction.
    """

    def __init__(self, family: PDEFamily, held: Sequence[Condition]) -> None:
        self.family = family
        nf = self.nf = family.normal_form
        self.given = family.leaves
        sides = _sides(family, held)
        exprs = [e.residual for e in nf.equations]
        self.slots = [(side, slot) for side, slot, _, _ in sides]
        self.numbers = [number for _, _, number, _ in sides]  # among nf.conditions
        wanted = [*exprs, *(r for _, _, _, r in sides)]
        self.leaves = leaves(*wanted)
        self.wanted = [(nf.fields.index(field_of(v)), nf.multi_index(v)) for v in self.leaves]
        known = [*nf.coords, *self.given, *self.leaves]
        self._values = compile_expressions(wanted, known)
        self._slopes = compile_expressions(
            [s for r in wanted for s in _slopes(r, self.leaves)], known
        )
        self.equations = len(exprs)

    def inputs(
        self,
        samples: Sequence[Mapping[Any, Any]],
        points: Tensor,  # shape: (n, d)
    ) -> Tensor:  # shape: (B, n, d + given + 2)
        """What F reads beside the leaves."""
        nf = self.nf
        there = points.detach().cpu().double().numpy()
        values = self.family.values(samples, there)
        columns = [points.expand(len(samples), *points.shape)]
        for leaf in self.given:
            column = torch.tensor(values[leaf].copy(), dtype=points.dtype, device=points.device)
            columns.append(column[..., None])
        x = nf.space[0]
        place = points[:, nf.coords.index(x)]
        for end in nf.bounds[x]:
            mark = ((place == end) & (x not in nf.periodic)).to(points)
            columns.append(mark.expand(len(samples), -1)[..., None])
        return torch.cat(columns, dim=2)

    def __call__(self, inputs: Tensor, leaves: Tensor) -> Tensor:
        """F: (B, n, e)."""
        values = self._values(self._known(inputs, leaves))
        rows = list(values[: self.equations])
        for (side, slot), value in zip(self.slots, values[self.equations :], strict=True):
            rows[slot] = torch.where(self._mark(inputs, side), value, rows[slot])
        return torch.stack(rows, dim=-1)

    def slopes(self, inputs: Tensor, leaves: Tensor) -> Tensor:
        """dF/dl: (B, n, e, L)."""
        flat = torch.stack(self._slopes(self._known(inputs, leaves)), dim=-1)
        every = flat.unflatten(-1, (-1, len(self.leaves)))
        rows = list(every[..., : self.equations, :].unbind(-2))
        for k, (side, slot) in enumerate(self.slots):
            mark = self._mark(inputs, side)[..., None]
            rows[slot] = torch.where(mark, every[..., self.equations + k, :], rows[slot])
        return torch.stack(rows, dim=-2)

    def replaced(self, inputs: Tensor) -> Tensor:  # shape: (n, e), of one sample
        """Where a condition stands in the place of an equation."""
        out = torch.zeros(inputs.shape[1], self.equations, dtype=torch.bool, device=inputs.device)
        for side, slot in self.slots:
            out[:, slot] |= self._mark(inputs, side)[0]
        return out

    def sizes(self, inputs: Tensor, equations: Tensor, conditions: Sequence[float]) -> Tensor:
        """The size of every row, (n, e), from those of the equations (e,) and of all conditions."""
        out = equations.to(inputs).expand(inputs.shape[1], -1).clone()
        for (side, slot), number in zip(self.slots, self.numbers, strict=True):
            out[self._mark(inputs, side)[0], slot] = conditions[number]
        return out

    def _known(self, inputs: Tensor, leaves: Tensor) -> list[Tensor]:
        return [*inputs[..., :-2].unbind(-1), *leaves.unbind(-1)]

    def _mark(self, inputs: Tensor, side: str) -> Tensor:
        return inputs[..., -2 if side == "left" else -1] > 0


def _sides(family: PDEFamily, held: Sequence[Condition]) -> list[tuple[str, int, int, sp.Expr]]:
    """(side, equation whose place it takes, its number, residual) of conditions in space; 0 where held."""
    nf = family.normal_form
    x, found = nf.space[0], []
    for side in ("left", "right"):
        free = list(range(len(nf.fields)))
        for number, c in enumerate(nf.conditions):
            if c.face.coord != x or c.face.side != side:
                continue
            own = [nf.fields.index(f) for f in c.fields if nf.fields.index(f) in free]
            slot = own[0] if own else free[0]
            free.remove(slot)
            is_held = any(c is h for h in held)
            found.append((side, slot, number, sp.S.Zero if is_held else c.residual))
    return found


def _slopes(residual: sp.Expr, every: Sequence[sp.Expr]) -> list[sp.Expr]:
    frozen = freeze([residual], every)
    return [frozen.thaw(sp.diff(frozen.exprs[0], frozen.symbols[leaf])) for leaf in every]
