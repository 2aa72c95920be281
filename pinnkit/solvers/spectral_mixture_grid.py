"""Bases and collocation points for given mixtures, and the terms of a problem placed on them.

In    frequencies and widths along each coordinate.
Out   `Ground`: bases per field and coordinate, which products are kept, nodes; `place` puts terms there.
Next  `solvers.spectral_mixture_round` conditions coefficients on what was placed.

With exact data the components of a coordinate are compressed together: the fewest functions. With noisy
data each component keeps functions of its own, so that its prior variance can be found from the data;
and comes in several widths, so that the data choose between a tone and a band.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import sympy as sp
import torch
from torch import Tensor

from pinnkit.errors import DeclarationError
from pinnkit.gp.features import StackedBasis, axis_basis, compress, constant
from pinnkit.gp.gaussian_process import Layout
from pinnkit.gp.kernels import GaussianMixture, StudentMixture
from pinnkit.ir.normal_form import Face, NormalForm
from pinnkit.lower.expressions import compile_expressions
from pinnkit.lower.scales import FieldScale
from pinnkit.solvers.spectral_mixture_rows import PlacedTerm, Term

__all__ = ["Ground", "Mixtures", "lay_ground", "place"]

# Per number of coordinates: singular values of the kernel's root, collocation points per function.
KEPT = {1: 1e-13, 2: 1e-9, 3: 1e-7}
OVERSAMPLED = {1: 2.0, 2: 1.5, 3: 1.3}
PER_WAVE = 2.5  # collocation points per shortest wave of the basis
# What a round may cost at most: functions per coordinate, and in all. Beyond it the weakest are
# left out, and the residual between the points shows it.
MOST_FUNCTIONS = {1: 3000, 2: 120, 3: 40}
LARGEST = {1: 4000, 2: 4000, 3: 2000}
# Widths of a component beside noisy data, in units of the natural one: the narrow ones are hardly
# more than tones, which cost two coefficients where a band costs ten.
LADDER = {1: (1.0, 0.25, 0.06, 0.015), 2: (1.0,), 3: (1.0,)}
KEPT_BESIDE_NOISE = 1e-9  # singular values per component: equations are held to 1e-7
LEAST_INSIDE = 8  # nodes in the part of a side that `where=` names
FINEST = 256  # times as fine as elsewhere, to find a narrow part
MOST_TRIED = 1_000_000  # nodes on a side in that search


@dataclass
class Mixtures:
    """Frequencies and widths (standard deviation in bins of 2 pi / L) along each coordinate."""

    frequencies: list[list[float]]
    widths: list[float]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


@dataclass(frozen=True, eq=False)
class Ground:
    """What coefficients multiply, and where equations are to hold.

    `groups` says of each kept coefficient which component it belongs to (products of components in
    several coordinates, one set per field); a single group where components share their functions.
    `breadths` says of each component how many narrower ones there are at the same place.
    """

    bases: list[list[Any]]
    layout: Layout
    nodes: list[Tensor]
    groups: Tensor  # shape: (kept coefficients,)
    breadths: Tensor  # shape: (components,)


def lay_ground(
    nf: NormalForm,
    mixtures: Mixtures,
    scales: dict[sp.Expr, FieldScale],
    *,
    student: bool,
    noisy: bool,
) -> Ground:
    """Bases of the mixtures, the products of them that matter, and collocation points."""
    axes = [_axis(nf, k, mixtures, student=student, noisy=noisy) for k in range(len(nf.coords))]
    bases, products, labels, broad = [], [], [], []
    total = 0
    for u in nf.fields:
        own = nf.field_coords(u)
        row: list[Any] = []
        size_of, group_of = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.long)
        breadth_of = torch.zeros(1, dtype=torch.long)
        for c, axis in zip(nf.coords, axes, strict=True):
            if c not in own:
                row.append(constant())
                continue
            row.append(axis.basis)
            size_of = (size_of[:, None] * axis.values).flatten()
            group_of = (group_of[:, None] * axis.components + axis.component).flatten()
            breadth_of = torch.maximum(breadth_of[:, None], axis.breadths).flatten()
        size = math.hypot(scales[u].scale, scales[u].offset)
        row[0] = row[0].rotated(size * torch.eye(row[0].size, dtype=torch.float64))
        bases.append([b.to(mixtures.device) for b in row])
        products.append(size_of)
        labels.append(total + group_of)
        broad.append(breadth_of)
        total += len(breadth_of)
    d = len(nf.coords)
    kept = _strongest(products, KEPT_BESIDE_NOISE if noisy else KEPT[d], LARGEST[d])
    layout = Layout([[b.size for b in row] for row in bases], [k.to(mixtures.device) for k in kept])
    together = torch.cat([own[k] for own, k in zip(labels, kept, strict=True)])
    found, groups = torch.unique(together, return_inverse=True)
    nodes = [axis.nodes.to(mixtures.device) for axis in axes]
    breadths = torch.cat(broad)[found]
    return Ground(bases, layout, nodes, groups.to(mixtures.device), breadths.to(mixtures.device))


def place(nf: NormalForm, term: Term, ground: Ground) -> PlacedTerm:
    """The term on the nodes, on its side of the domain, or at its sensors."""
    bases, layout, nodes = ground.bases, ground.layout, ground.nodes
    if term.kind == "observation":
        assert term.points is not None
        return PlacedTerm(term, bases, layout, points=term.points.to(nodes[0].device))
    axes = list(nodes)
    if term.face is not None:
        k = nf.coords.index(term.face.coord)
        axes[k] = nodes[k].new_tensor([term.face.value])
        if term.face.where != sp.true:
            points = _inside(nf, term.label, term.face, axes)
            return PlacedTerm(term, bases, layout, points=points)
    return PlacedTerm(term, bases, layout, axes=axes)


@dataclass(frozen=True, eq=False)
class _Axis:
    """One coordinate: functions, singular values and component of each, the components' breadths, nodes."""

    basis: Any
    values: Tensor
    component: Tensor
    breadths: Tensor
    nodes: Tensor

    @property
    def components(self) -> int:
        return len(self.breadths)


def _axis(nf: NormalForm, k: int, mixtures: Mixtures, *, student: bool, noisy: bool) -> _Axis:
    c, d = nf.coords[k], len(nf.coords)
    own, bins = mixtures.frequencies[k], mixtures.widths[k]
    low, high = nf.bounds[c]
    unit, periodic = 2 * math.pi / (high - low), c in nf.periodic
    kept = KEPT_BESIDE_NOISE if noisy else KEPT[d]
    reach = bins * unit * math.sqrt(-4 * math.log(kept))
    waves = (max(own) + reach) / unit
    fine = math.ceil(2 * PER_WAVE * waves) + 33
    grid = torch.linspace(low, high, fine, dtype=torch.float64)

    def compressed(frequencies: Sequence[float], share: float) -> tuple[Any, Tensor]:
        if student:
            kernel: Any = StudentMixture(frequencies, 0.05 * share * bins * unit)
        else:
            kernel = GaussianMixture(frequencies, 0.5 * (share * bins * unit) ** 2)
        basis = axis_basis(kernel, low, high, periodic=periodic, nodes=min(fine, 1200))
        return compress(basis, grid, kept)

    if noisy:
        parts = [compressed([m], share) for share in LADDER[d] for m in own]
        basis: Any = StackedBasis([b for b, _ in parts])
        size = torch.cat([v for _, v in parts])
        component = torch.cat([torch.full((len(v),), i) for i, (_, v) in enumerate(parts)])
        narrower = torch.arange(len(LADDER[d])).flip(0)
        breadths = narrower.repeat_interleave(len(own))
    else:
        basis, size = compressed(own, 1.0)
        component = torch.zeros(len(size), dtype=torch.long)
        breadths = torch.zeros(1, dtype=torch.long)
    if basis.size > MOST_FUNCTIONS[d]:
        best = size.argsort(descending=True, stable=True)[: MOST_FUNCTIONS[d]]
        basis = basis.rotated(torch.eye(basis.size, dtype=torch.float64)[:, best])
        size, component = size[best], component[best]
    n = math.ceil(max(OVERSAMPLED[d] * basis.size, PER_WAVE * waves)) + 8
    points = torch.linspace(low, high, n + periodic, dtype=torch.float64)
    return _Axis(basis, size, component, breadths, points[:-1] if periodic else points)


def _strongest(products: Sequence[Tensor], tolerance: float, most: int) -> list[Tensor]:
    """Positions of the products of functions worth keeping, `most` over all fields."""
    together = torch.cat(list(products))
    if int((together > tolerance).sum()) > most:
        tolerance = float(together.sort(descending=True).values[most])
    return [torch.nonzero(p > tolerance)[:, 0] for p in products]


def _inside(nf: NormalForm, label: str, face: Face, axes: Sequence[Tensor]) -> Tensor:
    """Nodes where the side's `where=` holds, placed more densely if it holds on a small part only."""
    is_inside = compile_expressions([face.where], nf.coords)  # type: ignore[list-item]
    own = nf.coords.index(face.coord)
    factor, tried = 1, axes
    while True:
        mesh = torch.meshgrid(*tried, indexing="ij")
        points = torch.stack([m.flatten() for m in mesh], dim=1)
        found = points[is_inside(points.unbind(1))[0]]
        factor *= 4
        tried = [
            a
            if k == own
            else torch.linspace(*nf.bounds[c], factor * len(a), dtype=a.dtype, device=a.device)
            for k, (c, a) in enumerate(zip(nf.coords, axes, strict=True))
        ]
        enough = len(found) >= LEAST_INSIDE or len(axes) == 1
        if enough or factor > FINEST or math.prod(map(len, tried)) > MOST_TRIED:
            break
    if not len(found):
        raise DeclarationError(
            f"{label}: `where={face.where}` holds nowhere on {face.coord} = {face.value:g}, so the "
            "condition says nothing; correct the relation or leave it out"
        )
    return found
