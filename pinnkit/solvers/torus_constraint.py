"""What `HardConstraintMoE` learns and solves on periodic boxes: a march through time, and what corrects it.

In    a family on a box that is periodic along every axis, the knobs, the weights of one FNO.
Out   `TorusDiscretisation`: the network's guess of an element, its defect, the constraint of a stage;
      `TorusModel`: members marched side by side.
Next  `torus_state` trains the weights; `solution.operator` calls `solve`.

The network sees the state at an element's start, its slope by the equation, the fields that follow from it and
what else the equation reads, and gives the element's nodal values. On a box of many modes no fixed set of
functions holds the solutions, so the functions of the constraint are made from the guess of the member
itself: its `corrections`, each times every expert's window,

    u = guess + sum_k sum_j w_kj chi_k(x) v_j(t, x),      w = argmin |P F(u)|^2,
    v_1 = P F(guess),  v_(j+1) = P F'(guess) v_j,         P = L^-1 of `lower.periodic_elements`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from pinnkit.declare.family import PDEFamily
from pinnkit.lower.periodic_approximation import PeriodicApproximation
from pinnkit.lower.periodic_elements import PeriodicElements
from pinnkit.nn import FNO, HardConstraint, Windows
from pinnkit.solution.answer import Answer
from pinnkit.solvers.family_knobs import TorusKnobs
from pinnkit.solvers.family_weights import record_of

if TYPE_CHECKING:
    from pinnkit.solvers.hard_constraint_moe import HardConstraintMoE

__all__ = ["March", "TorusDiscretisation", "TorusModel"]

LOOKED_AT, LOOK_SEED = 8, 0  # draws by which sizes are found, always the same ones
MOST_MODES = 10  # of the network, on each axis; a third of the nodes where that is less
SMALL = 0.1  # the last layer's first weights over the usual: the march begins near the slope's
AT_ONCE = 16_000_000  # numbers in the leaves of the functions of all members solved side by side
MOST_TOGETHER = 16


class March(NamedTuple):
    """Members through all of time: nodal values (B, T, *grid), and how each stage was found, (B, stages)."""

    values: Tensor
    misfit: Tensor
    iterations: Tensor
    converged: Tensor


class TorusDiscretisation:
    """All that does not change while training.

    Args:
        family: One without a `periodic_refusal`.
        solver: The knobs.
        dtype, device: Of everything.
    """

    def __init__(
        self,
        family: PDEFamily,
        solver: HardConstraintMoE | TorusKnobs,
        *,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
    ) -> None:
        self.family, self.solver = family, TorusKnobs.of(solver)
        knobs, nf = self.solver, family.normal_form
        assert nf.time is not None
        self.nf = nf
        self.begin, end = nf.bounds[nf.time]
        self.count = knobs.stages * knobs.elements
        place = {"dtype": dtype, "device": device}
        sizes: dict[str, Any] = {"times": knobs.times, "nodes": knobs.nodes, **place}
        length = (end - self.begin) / self.count
        self.element = PeriodicElements(family, length, **sizes)
        looked_at = [family.read_sample(s) for s in family.sample(LOOKED_AT, LOOK_SEED)]
        starts = self.element.starts(looked_at)
        known = self.element.inputs(looked_at, self.begin)
        rates = self.element.rate(known, starts)
        # The unit of the field, also where it starts from rest.
        self.scale = _size(starts) or _size(rates) * (end - self.begin) or 1.0
        self.rise = self.scale / length  # of its slope: once through an element
        self.others = [f for f in range(len(nf.fields)) if f != self.element.evolving]
        fields = self.element.fields(starts)
        self._follow = [_size(fields[:, f]) or 1.0 for f in self.others]
        read = self.element.read(known).unbind(1)
        self._given = [(float(v.mean()), _size(v - v.mean()) or 1.0) for v in read]
        self.element.scale = self.scale
        self.stage = self.element
        if knobs.elements > 1:
            span = length * knobs.elements
            self.stage = PeriodicElements(
                family, span, stages=knobs.elements, scale=self.scale, **sizes
            )
        # Sums of draws: no symmetry of a single one is taken for a law.
        mixed = self.element.rate(known, starts + starts.roll(1, 0)).flatten(1)
        limit = torch.finfo(dtype).eps ** 0.5 * float(mixed.square().mean().sqrt())
        self.conserved = self.element.autonomous and bool(mixed.mean(1).abs().max() <= limit)
        self.boxes = self._windows(dtype, device)
        self.points = self.element.points(self.begin)

    def network(self, generator: torch.Generator) -> FNO:
        """State, slope, fields that follow, what is given -> nodal increments of one element."""
        knobs = self.solver
        channels = 2 + len(self.others) + len(self._given)
        modes = [max(1, min(MOST_MODES, knobs.nodes // 3))] * self.element.dimension
        network = FNO(
            channels, knobs.times, modes, knobs.width, knobs.depth,
            generator=generator, dtype=self.points.dtype,
        )  # fmt: skip
        last: Any = network.last
        with torch.no_grad():
            last.weight.mul_(SMALL)
            last.bias.zero_()
        return network

    def inputs(
        self, elements: PeriodicElements, samples: Sequence[Mapping[Any, Any]]
    ) -> Callable[[int], Tensor]:
        """What the equation reads, by the number of the stage or element; once where time does not matter."""
        if not elements.autonomous:
            return lambda number: elements.inputs(samples, self.begin + number * elements.length)
        same = elements.inputs(samples, self.begin)
        return lambda _: same

    def guess(self, network: FNO, state: Tensor, known: Tensor) -> Tensor:
        """Nodal values of the element that starts there: (B, *grid) -> (B, Q, *grid)."""
        element, d = self.element, self.element.dimension
        rate = element.rate(known, state)
        fields = element.fields(state)
        follow = [fields[:, f] / s for f, s in zip(self.others, self._follow, strict=True)]
        read = zip(element.read(known).unbind(1), self._given, strict=True)
        given = [(values - middle) / spread for values, (middle, spread) in read]
        seen = torch.stack([state / self.scale, rate / self.rise, *follow, *given], 1)
        slope = rate[:, None] + self.rise * network(seen)
        rise = element.instants.reshape(-1, *[1] * d) * slope
        return state[:, None] + self._mean_free(rise)

    def defect(self, network: FNO, state: Tensor, known: Tensor) -> Tensor:
        """Mean square defect of the network's element: (B,)."""
        return self._defect(self.element, self.guess(network, state, known), state, known)

    def marched(self, network: FNO, samples: Sequence[Mapping[Any, Any]]) -> March:
        """All stages one after the other, each from where the last one ended."""
        knobs, state = self.solver, self.element.starts(samples)
        found: list[March] = []
        each = self.inputs(self.element, samples)
        whole = self.inputs(self.stage, samples)
        for number in range(knobs.stages):
            guesses, begin = [], state
            for part in range(knobs.elements):
                guesses.append(self.guess(network, begin, each(number * knobs.elements + part)))
                begin = guesses[-1][:, -1]
            first, known = torch.cat(guesses, 1), whole(number)
            if knobs.constraint:
                found.append(self.corrected(self._tame(first, state, known), state, known))
            else:
                misfit = self._defect(self.stage, first, state, known).sqrt()
                none = torch.zeros_like(misfit, dtype=torch.long)
                found.append(March(first, misfit, none, none.bool()))
            state = found[-1].values[:, -1]
        columns = [torch.stack(c, 1) for c in list(zip(*found, strict=True))[1:]]
        return March(torch.cat([f.values for f in found], 1), *columns)

    def corrected(self, first: Tensor, start: Tensor, known: Tensor) -> March:
        """guess + sum_kj w_kj chi_k v_j in one stage, with the coefficients of the constraint layer."""
        stage, knobs = self.stage, self.solver
        offset = stage.leaves(first, start)
        functions = stage.corrections(known, offset, knobs.corrections)
        functions = (self.boxes[:, None, None] * functions[:, None]).flatten(1, 2)
        functions = self._mean_free(functions)
        layer = HardConstraint(stage, stage.norm, rtol=knobs.rtol, max_steps=knobs.max_steps)
        answer = layer(stage.basis_leaves(functions), offset, known)
        w = answer.coefficients.reshape(*answer.coefficients.shape, *[1] * (first.ndim - 1))
        values, record = first + (w * functions).sum(1), answer.record
        return March(values, answer.misfit, record.iterations, record.converged)

    @property
    def together(self) -> int:
        """Members solved side by side."""
        functions = self.solver.corrections * len(self.boxes)
        leaves = len(self.stage.pointwise.wanted) * self.stage.fine**self.stage.dimension
        size = functions * leaves * self.stage.stages * self.stage.times
        return max(1, min(MOST_TOGETHER, AT_ONCE // size))

    def _tame(self, first: Tensor, start: Tensor, known: Tensor) -> Tensor:
        """The guess, or a still state for members whose guess is worse: marches may explode."""
        still = start[:, None].expand_as(first)
        defects = [self._defect(self.stage, v, start, known) for v in (first, still)]
        # No comparison holds with a guess that is not finite: there the state stands still.
        better = defects[0] <= defects[1].nan_to_num(math.inf)
        return torch.where(better.reshape(-1, *[1] * (first.ndim - 1)), first, still)

    def _defect(
        self, elements: PeriodicElements, values: Tensor, start: Tensor, known: Tensor
    ) -> Tensor:
        leaves = elements.leaves(values, start)
        return elements.norm(elements(known, leaves)[..., None]).square().sum((1, 2))

    def _mean_free(self, functions: Tensor) -> Tensor:
        """What is added to a field whose mean the equation keeps has none."""
        if not self.conserved:
            return functions
        return functions - functions.mean(tuple(range(-self.element.dimension, 0)), keepdim=True)

    def _windows(self, dtype: torch.dtype, device: torch.device | str) -> Tensor:
        """chi_k at the nodes: (K, *grid), K = experts on each axis."""
        knobs, boxes = self.solver, torch.ones(1, dtype=dtype, device=device)
        for x in self.nf.space:
            low, high = self.nf.bounds[x]
            windows = Windows(low, high, knobs.experts, overlap=knobs.overlap, periodic=True)
            share = torch.arange(knobs.nodes, dtype=dtype, device=device) / knobs.nodes
            bells = windows.taylor(low + (high - low) * share, 0)[0].T
            along = bells.unflatten(1, (*[1] * (boxes.ndim - 1), knobs.nodes))
            boxes = (boxes[:, None, ..., None] * along).flatten(0, 1)
        return boxes


class TorusModel:
    """Members marched side by side; a `solution.operator.FamilyModel`.

    Args:
        parts: The discretisation.
        network: The trained one; a copy is kept.
    """

    def __init__(self, parts: TorusDiscretisation, network: FNO) -> None:
        self.parts = parts
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    def solve(self, samples: Sequence[Mapping[Any, Any]]) -> list[Answer]:
        """One `Answer` per sample, with how it was found in its stats."""
        answers: list[Answer] = []
        step = self.parts.together
        for at in range(0, len(samples), step):
            answers += self._solve_some(samples[at : at + step])
        return answers

    def to_state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What a file holds beside the declaration and the knobs: the weights."""
        return record_of(self.network, self.parts.points.dtype)

    def _solve_some(self, samples: Sequence[Mapping[Any, Any]]) -> list[Answer]:
        parts = self.parts
        with torch.no_grad():
            found = parts.marched(self.network, samples)
            starts = parts.element.starts(samples)
            values = torch.cat([starts[:, None], found.values], 1)
        symbols = torch.stack(list(parts.element.symbols))
        answers = []
        for i in range(len(samples)):
            approximation = PeriodicApproximation(parts.nf, values[i], symbols, parts.solver.times)
            stats: dict[str, object] = {"misfit": float(found.misfit[i].max())}
            if parts.solver.constraint:
                stats["iterations"] = int(found.iterations[i].max())
                stats["converged"] = bool(found.converged[i].all())
            answers.append(Answer(approximation, stats=stats))
        return answers


def _size(values: Tensor) -> float:
    """Root mean square."""
    return float(values.square().mean().sqrt())
