"""What `HardConstraintMoE` learned, as a function of the inputs: one least-squares problem per member.

In    a family, the solver's knobs, the weights.
Out   `Discretisation`: residual, grid, norm and basis leaves; `HardConstraintModel`: members solved side
      by side.
Next  `hard_constraint_state` trains the weights; `solution.operator` calls `solve`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import sympy as sp
import torch
from torch import Tensor

from pinnkit.declare.family import PDEFamily
from pinnkit.errors import UnsupportedProblemError
from pinnkit.implicit import LevenbergMarquardt, Record
from pinnkit.lower.defect_norm import DefectNorm, SpaceTimeGrid
from pinnkit.lower.family_basis import (
    BasisApproximation,
    FamilyBasis,
    offset_leaves,
    pick_leaves,
)
from pinnkit.lower.family_form import make_family_form
from pinnkit.lower.family_residuals import FamilyResidual
from pinnkit.lower.fields import closure_of
from pinnkit.lower.scales import estimate_field_scales, term_size
from pinnkit.nn import Constrained, DeepONet, HardConstraint, Windows
from pinnkit.nn.hard_constraint import combined_leaves
from pinnkit.solution.answer import Answer
from pinnkit.solvers.family_knobs import BasisKnobs
from pinnkit.solvers.family_weights import record_of

if TYPE_CHECKING:
    from pinnkit.solvers.hard_constraint_moe import HardConstraintMoE

__all__ = ["Discretisation", "HardConstraintModel", "Members"]

LOOKED_AT = 8  # draws by which corners, sizes and diffusivities are found
LOOK_SEED = 0  # always the same ones: files need not hold what follows from the declaration
SENSORS = 24  # values of a given function the soft baseline sees
TOGETHER = 16  # members solved side by side
SHORT = 8  # steps of all members together, before those that have not converged go on alone
NEAR_ENOUGH = 1e-2  # relative step at which the norm is linearised anew
NEAR = 1e-9  # of the axis: either side of an interface

Norm = Callable[[Tensor], Tensor]


class Members:
    """Samples on the grids of all stages, stage by stage within each sample.

    Args:
        samples: B of them.
        inputs: Of the residual, (B S, n, G).
        offset: Leaves of A, (B S, n, L).
    """

    def __init__(
        self, samples: Sequence[Mapping[Any, Any]], inputs: Tensor, offset: Tensor
    ) -> None:
        self.samples, self.inputs, self.offset = samples, inputs, offset

    def at(self, stage: int) -> Members:
        """The same samples in one stage alone."""
        count = len(self.inputs) // len(self.samples)
        own = slice(stage, None, count)
        return Members(self.samples, self.inputs[own], self.offset[own])


class Discretisation:
    """All that does not change while training.

    Args:
        family: The family.
        solver: The knobs.
        dtype, device: Of everything.
    """

    def __init__(
        self,
        family: PDEFamily,
        solver: HardConstraintMoE | BasisKnobs,
        *,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
    ) -> None:
        solver = BasisKnobs.of(solver)
        self.family, self.solver = family, solver
        nf = self.nf = family.normal_form
        assert nf.time is not None
        looked_at = family.sample(LOOKED_AT, LOOK_SEED)
        x = nf.space[0]
        # Windows of a periodic axis are alike: there the trunk sees the place within them.
        self.local = x in nf.periodic and solver.experts > 1
        self.form = make_family_form(family, looked_at, stages=solver.stages, local=self.local)
        if solver.stages > 1 and self.form.layered:
            raise UnsupportedProblemError(
                f"stages={solver.stages}: the start contradicts a side, and the layer that leaves the corner"
                " spans all of time; use stages=1, with more functions="
            )
        self.residual = FamilyResidual(family, self.form.held)
        self.wanted = self.residual.wanted
        self.spec = closure_of(tuple(a for _, a in self.wanted), len(nf.coords))
        member = family.on(looked_at[0]).normal_form
        found = estimate_field_scales(member)
        self.scales = [found[u].scale for u in member.fields]
        self.windows = Windows(
            *nf.bounds[x], solver.experts, overlap=solver.overlap, periodic=x in nf.periodic
        )
        usual = 2.5 if self.form.layered else 1.5 if solver.stages == 1 else 1.0
        begin = nf.bounds[nf.time][0]
        self.grid = SpaceTimeGrid(
            begin, begin + self.form.span, *nf.bounds[x],
            times=solver.times, nodes=solver.nodes, grading=solver.grading or usual,
            periodic=x in nf.periodic, dtype=dtype, device=device,
        )  # fmt: skip
        self.points = self.grid.points(nf.coords[0] == nf.time)
        column_t, column_x = nf.coords.index(nf.time), nf.coords.index(x)
        self.orders = [(f, a[column_t], a[column_x]) for f, a in self.wanted]
        self._sizes = _term_sizes(member, found)
        self.sensing = _Sensing(family, looked_at, self.points)

    def network(self, generator: torch.Generator) -> DeepONet:
        """A trunk, for the soft baseline with a branch."""
        solver = self.solver
        return DeepONet(
            len(self.form.features) + self.local, solver.functions, len(self.nf.fields),
            sensors=0 if solver.constraint else self.sensing.size,
            coefficients=solver.functions * solver.experts,
            width=solver.width, depth=solver.depth, gain=2.0, spread=1.0,
            generator=generator, dtype=self.points.dtype,
        )  # fmt: skip

    def basis(self, network: DeepONet) -> FamilyBasis:
        """The functions that a trunk makes."""
        return FamilyBasis.of(self.form, self.windows, network.trunk, self.scales, self.local)

    def leaves(self, basis: FamilyBasis) -> tuple[Tensor, Tensor | None]:
        """Leaves of all functions (n, L, K N); and, for several stages, of what they leave to the next."""
        now = basis.leaves(basis.fixed(self.points, self.spec), self.spec, self.wanted)
        if self.solver.stages == 1:
            return now, None
        ends = basis.at_end(self.points)
        jets = basis.jets(basis.fixed(ends, self.spec), self.spec)
        return now, pick_leaves(basis.standing(jets, self.spec), self.spec, self.wanted)

    def members(self, samples: Sequence[Mapping[Any, Any]]) -> Members:
        """Samples (read by the family) on the grid of every stage."""
        stages, size = self.solver.stages, len(self.points)
        every = self.points.repeat(stages, 1)
        stage = torch.arange(stages).repeat_interleave(size)
        every[:, self.nf.coords.index(self.nf.time)] += stage.to(every) * self.form.span
        inputs = self.residual.inputs(samples, every)
        offset = offset_leaves(self.form, samples, every, self.wanted)
        parts = [v.unflatten(1, (stages, size)).flatten(0, 1) for v in (inputs, offset)]
        return Members(samples, *parts)

    def norm(self, members: Members, leaves: Tensor) -> Norm:
        """The norm's map, linearised for each member at the state with these leaves (B, n, L)."""
        replaced = self.residual.replaced(members.inputs)
        if self.solver.norm == "pointwise":
            sizes = self.residual.sizes(members.inputs, *self._sizes)
            return _Weights(self.grid, sizes, replaced)
        slopes = self.residual.slopes(members.inputs, leaves)
        scales = leaves.new_tensor(self.scales)
        return DefectNorm(self.grid, self.orders, slopes, replaced, scales)

    def solved(
        self,
        leaves: Tensor,  # shape: (n, L, K N)
        members: Members,
        *,
        max_steps: int | None = None,
    ) -> Constrained:
        """Coefficients of members on the grid they lie on.

        The norm is linearised at A first, then at the solution in that norm: what a member gets does not
        depend on the others.
        """
        plain = self.solver.norm == "pointwise"
        rtol = None if plain else NEAR_ENOUGH
        first = self.layer(self.norm(members, members.offset), max_steps=max_steps, rtol=rtol)
        found = first(leaves, members.offset, members.inputs)
        if plain:
            return found
        here = members.offset + combined_leaves(leaves, found.coefficients)
        most = max_steps or self.solver.max_steps
        second = self.layer(self.norm(members, here), max_steps=min(most, SHORT))
        found = second(leaves, members.offset, members.inputs, start=found.coefficients)
        late = ~found.record.converged
        if most <= SHORT or not bool(late.any()):
            return found
        # The few that need many steps go on by themselves: a step costs as much for each that waits.
        few = Members(members.samples, members.inputs[late], members.offset[late])
        last = self.layer(self.norm(few, here[late]), max_steps=most - SHORT)
        ended = last(leaves, few.offset, few.inputs, start=found.coefficients[late])
        iterations = ended.record.iterations + SHORT
        ended = ended._replace(record=ended.record._replace(iterations=iterations))
        return _put_back(found, late, ended)

    def marched(
        self,
        leaves: tuple[Tensor, Tensor | None],
        members: Members,
        *,
        max_steps: int | None = None,
    ) -> tuple[Tensor, list[Constrained]]:
        """Stage by stage: A with what was reached before, (B, S, n, L), and what was found."""
        now, ends = leaves
        found: list[Constrained] = []
        begun: list[Tensor] = []
        reached = now.new_zeros(len(members.samples), now.shape[2])
        for stage in range(self.solver.stages):
            part = members.at(stage)
            if ends is not None:
                part.offset = part.offset + combined_leaves(ends, reached)
            found.append(self.solved(now, part, max_steps=max_steps))
            reached = reached + found[-1].coefficients
            begun.append(part.offset)
        return torch.stack(begun, 1), found

    def layer(
        self, norm: Norm, *, max_steps: int | None = None, rtol: float | None = None
    ) -> HardConstraint:
        """The constraint layer in this norm."""
        solver = self.solver
        return HardConstraint(
            self.residual,
            norm,
            solver=LevenbergMarquardt(damping=0.0),
            rtol=rtol or solver.rtol,
            max_steps=max_steps or solver.max_steps,
        )


class HardConstraintModel:
    """Members solved side by side; a `solution.operator.FamilyModel`.

    Args:
        parts: The discretisation.
        network: The trained one; a copy is kept.
    """

    def __init__(self, parts: Discretisation, network: DeepONet) -> None:
        self.parts = parts
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.basis = parts.basis(self.network)
        with torch.no_grad():
            self._leaves = parts.leaves(self.basis)

    def solve(self, samples: Sequence[Mapping[Any, Any]]) -> list[Answer]:
        """One `Answer` per sample, with how it was found in its stats."""
        answers: list[Answer] = []
        for at in range(0, len(samples), TOGETHER):
            answers += self._solve_some(samples[at : at + TOGETHER])
        return answers

    def on(self, family: PDEFamily) -> HardConstraintModel:
        """The same functions of time and space for another family, such as one that lasts longer.

        Coefficients are those of the least residual over the other family's whole domain.

        Raises:
            ValueError: if the other family has layers at other sides, or several stages are marched: then
                a stage more is what goes on.
        """
        solver, form = self.parts.solver, self.parts.form
        if solver.stages > 1:
            raise ValueError("stages are marched: solve the longer family with more stages instead")
        dtype, device = self.parts.points.dtype, self.parts.points.device
        parts = Discretisation(family, solver, dtype=dtype, device=device)
        if set(parts.form.diffusivity) != set(form.diffusivity):
            raise ValueError("the families have layers at different sides: their functions differ")
        parts.form = replace(parts.form, factors=form.factors, features=form.features)
        return HardConstraintModel(parts, self.network)

    def to_state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What a file holds beside the declaration and the knobs: the weights."""
        return record_of(self.network, self.parts.points.dtype)

    def _solve_some(self, samples: Sequence[Mapping[Any, Any]]) -> list[Answer]:
        parts = self.parts
        solver = parts.solver
        shape = (solver.stages, solver.experts, solver.functions)
        found: list[Constrained] = []
        with torch.no_grad():
            if solver.constraint:
                _, found = parts.marched(self._leaves, parts.members(samples))
                w = torch.stack([f.coefficients for f in found], 1)
            else:
                w = self.network.coefficients(parts.sensing(samples))
        answers = []
        for i, sample in enumerate(samples):
            approximation = BasisApproximation(
                parts.form.offset(sample), self.basis, w[i].reshape(shape), parts.nf.coords
            )
            stats: dict[str, object] = {"interface_jump": self._jump(approximation)}
            if found:
                stats["iterations"] = max(int(f.record.iterations[i]) for f in found)
                stats["converged"] = all(bool(f.record.converged[i]) for f in found)
                stats["misfit"] = max(float(f.misfit[i]) for f in found)
            answers.append(Answer(approximation, stats=stats))
        return answers

    def _jump(self, approximation: BasisApproximation) -> float:
        """The largest jump between neighbours, over all times and fields, relative to the field's range."""
        parts = self.parts
        windows, grid = parts.windows, parts.grid
        if windows.count == 1:
            return 0.0
        inner = torch.arange(1, windows.count, dtype=torch.float64) * windows.size + windows.lower
        shift = NEAR * (windows.upper - windows.lower)
        sides = torch.cat([inner - shift, inner + shift]).to(grid.times)
        t, x = torch.meshgrid(grid.times, sides, indexing="ij")
        columns = [t, x] if parts.nf.coords[0] == parts.nf.time else [x, t]
        points = torch.stack(columns, -1).reshape(-1, 2)
        fields = [(f, (0, 0)) for f in range(len(parts.nf.fields))]
        with torch.no_grad():
            here = torch.stack(approximation.derivatives(points, fields)).unflatten(1, t.shape)
        left, right = here.chunk(2, dim=2)
        spread = (here.amax((1, 2)) - here.amin((1, 2))).clamp(min=torch.finfo(here.dtype).tiny)
        return float(((right - left).abs().amax((1, 2)) / spread).max())


def _term_sizes(member: Any, scales: Mapping[Any, Any]) -> tuple[Tensor, list[float]]:
    """The largest term of each equation, (e,), and of each condition of a member."""
    equations = [term_size(e.residual, member, scales) for e in member.equations]
    conditions = [
        term_size(c.residual, member, scales, fixed={c.face.coord: c.face.value})
        for c in member.conditions
    ]
    return torch.tensor(equations, dtype=torch.float64), conditions


def _put_back(every: Constrained, where: Tensor, some: Constrained) -> Constrained:
    """What was found for some members in the place of what was found for all."""

    def both(whole: Tensor, part: Tensor) -> Tensor:
        whole = whole.clone()
        whole[where] = part
        return whole

    record = Record(*map(both, every.record, some.record))
    return Constrained(
        both(every.coefficients, some.coefficients), both(every.misfit, some.misfit), record
    )


class _Weights:
    """The plain residual: each row over the size of its terms, times the root of its share of the grid."""

    def __init__(self, grid: SpaceTimeGrid, sizes: Tensor, replaced: Tensor) -> None:
        weight = grid.weights.reshape(-1, 1)
        # A condition weighs as much as the whole interior does.
        share = (grid.steps / grid.steps.sum()).repeat_interleave(len(grid.nodes))[:, None]
        self.root = torch.where(replaced, share, weight).sqrt() / sizes

    def __call__(self, columns: Tensor) -> Tensor:
        return (columns * self.root[..., None]).flatten(1, 2)


class _Sensing:
    """Inputs as numbers of size 1: given numbers, and given functions at a few points."""

    def __init__(self, family: PDEFamily, draws: Sequence[Mapping[Any, Any]], like: Tensor) -> None:
        self.family, self.like = family, like
        nf = family.normal_form
        share = np.linspace(0, 1, SENSORS)
        self.places = np.stack(
            [nf.bounds[c][0] + share * (nf.bounds[c][1] - nf.bounds[c][0]) for c in nf.coords], 1
        )
        raw = self._raw([family.read_sample(s) for s in draws])
        self.middle = raw.mean(0)
        spread = raw.std(0)
        self.spread = np.where(spread > 0, spread, 1.0)
        self.size = raw.shape[1]

    def __call__(self, samples: Sequence[Mapping[Any, Any]]) -> Tensor:  # shape: (B, q)
        return torch.from_numpy((self._raw(samples) - self.middle) / self.spread).to(self.like)

    def _raw(self, samples: Sequence[Mapping[Any, Any]]) -> np.ndarray:
        values = self.family.values(samples, self.places, self.family.given)
        columns = [
            values[g][:, :1] if isinstance(g, sp.Symbol) else values[g] for g in self.family.given
        ]
        return np.concatenate(columns, 1)
