"""One round: bases for given mixtures, collocation points, the posterior, a look between the points.

In    the terms of a problem and the mixtures along its coordinates.
Out   `Round`: coefficients, parameters with errors, what the residual between the points is worth.
Next  `solvers.spectral_mixture_gp` decides whether another round is worth it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import sympy as sp
import torch
from torch import Tensor

from pinnkit.gp.approximation import Layout
from pinnkit.gp.features import axis_basis, compress, constant
from pinnkit.gp.frequencies import axis_amplitudes, find_tones
from pinnkit.gp.kernels import GaussianMixture, StudentMixture
from pinnkit.ir.normal_form import NormalForm
from pinnkit.lower.expressions import compile_expressions
from pinnkit.lower.scales import estimate_field_scales, parameter_values
from pinnkit.solvers.spectral_mixture_fit import Fit, Scales, fit
from pinnkit.solvers.spectral_mixture_rows import PlacedTerm, Term
from pinnkit.solvers.spectral_mixture_tones import make_symbol

__all__ = ["Mixtures", "Round", "solve_round"]

# Relative noise given to what holds exactly: rounding where all is exact; with noisy data larger,
# since data beside rows 1e13 times as heavy would drown in the rounding of those.
EXACT, EXACT_BESIDE_NOISE = 1e-13, 1e-7
CONDITIONS = 0.01  # conditions are held to this part of it: their errors spread inwards undamped
KEPT = {1: 1e-13, 2: 1e-9}  # singular values of the kernel's root per number of coordinates
OVERSAMPLED = {1: 2.0, 2: 1.5}  # collocation points per function
PER_WAVE = 2.5  # collocation points per shortest wave of the basis
BEYOND = 1e3  # prior standard deviation of a parameter, in units of its guess
HYPER_ROUNDS = 12
LEVERAGE = 10.0  # times an equation's slack: what a parameter must move to count as determined
# What a round may cost at most: functions per coordinate, and in all. Beyond it the weakest are
# left out, and the residual between the points shows it.
MOST_FUNCTIONS = {1: 3000, 2: 120}
LARGEST = 4000


@dataclass
class Mixtures:
    """Frequencies and widths (standard deviation in bins of 2 pi / L) along each coordinate."""

    frequencies: list[list[float]]
    widths: list[float]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


@dataclass(frozen=True, eq=False)
class Round:
    """The answer of one round. `criterion`: the residual's worth, relative to the field."""

    bases: list[list[Any]]
    layout: Layout
    coefficients: list[Tensor]
    root: Tensor
    parameters: list[tuple[float, float | None]]
    criterion: float
    missing: list[list[tuple[float, float]]]
    frequencies: list[list[float]]
    size: int
    points: int
    steps: int
    log_evidence: float
    noise: float | None
    noisy: bool
    unidentified: bool
    exact_factor: bool


def solve_round(
    nf: NormalForm,
    terms: Sequence[Term],
    mixtures: Mixtures,
    *,
    student: bool,
    threshold: float,
    deadline: float,
) -> Round:
    """Condition the process of these mixtures on all terms."""
    axes_bases, values, nodes = _axes(nf, mixtures, student)
    scales = estimate_field_scales(nf)
    bases: list[list[Any]] = []
    products_of: list[Tensor] = []
    for u in nf.fields:
        own = nf.field_coords(u)
        row: list[Any] = [
            b if c in own else constant().to(mixtures.device)
            for c, b in zip(nf.coords, axes_bases, strict=True)
        ]
        size = math.hypot(scales[u].scale, scales[u].offset)
        unit = torch.eye(row[0].size, dtype=torch.float64, device=mixtures.device)
        row[0] = row[0].rotated(size * unit)
        bases.append(row)
        own_values = [
            v if c in own else v.new_ones(1) for c, v in zip(nf.coords, values, strict=True)
        ]
        products = own_values[0]
        for v in own_values[1:]:
            products = products[..., None] * v
        products_of.append(products.flatten())
    layout = Layout([[b.size for b in row] for row in bases], _strongest(products_of, nf))
    placed = [_place(nf, t, bases, layout, nodes) for t in terms]
    count = layout.size
    guesses = list(parameter_values(nf).values())
    units = torch.tensor(
        [abs(g) if g else 1.0 for g in guesses], dtype=torch.float64, device=mixtures.device
    )
    ends = [_ends(p) for p in nf.parameters]
    scales_of = Scales(
        units,
        units.new_tensor([low for low, _ in ends]) / units,
        units.new_tensor([high for _, high in ends]) / units,
    )
    prior = torch.cat([units.new_ones(count), units.new_full((len(units),), BEYOND)])
    start = torch.cat([units.new_zeros(count), units.new_tensor(guesses) / units])
    noisy = any(t.kind == "observation" for t in terms)
    _weigh(placed, start, units, noisy)
    linear = nf.predicates.linear
    found, prior, sigma = _with_hyperparameters(
        placed, prior, start, scales_of, linear=linear, noisy=noisy, deadline=deadline
    )
    coefficients = layout.grids(found.unknowns)
    numbers = list((found.unknowns[count:] * units).unbind(0))
    criterion, missing = _between(
        nf, terms, bases, layout, nodes, coefficients, numbers, scales, threshold
    )
    root = found.conditioned.covariance_root()
    rows = sum(len(p.points) for p in placed)
    # Without noise the scale of everything is free: its most likely value.
    amplitude = 1.0 if noisy else math.sqrt(found.objective / max(rows, 1))
    root = amplitude * root
    errors = root[count:].norm(dim=1) * units
    estimates = [(float(v), float(e)) for v, e in zip(numbers, errors, strict=True)]
    return Round(
        bases=bases,
        layout=layout,
        coefficients=coefficients,
        root=root[:count],
        parameters=list(estimates),
        criterion=criterion,
        missing=missing,
        frequencies=[list(own) for own in mixtures.frequencies],
        size=count,
        points=rows,
        steps=found.steps,
        log_evidence=found.conditioned.log_evidence,
        noise=sigma,
        noisy=noisy,
        unidentified=any(
            _is_open(p, v, e) or not _has_leverage(placed, j, float(units[j]))
            for j, (p, (v, e)) in enumerate(zip(nf.parameters, estimates, strict=True))
        ),
        exact_factor=found.exact_factor,
    )


def _strongest(products: Sequence[Tensor], nf: NormalForm) -> list[Tensor]:
    """Positions of the products of functions worth keeping, `LARGEST` over all fields at most."""
    together = torch.cat(list(products))
    tolerance = KEPT[len(nf.coords)]
    if int((together > tolerance).sum()) > LARGEST:
        tolerance = float(together.sort(descending=True).values[LARGEST])
    return [torch.nonzero(p > tolerance)[:, 0] for p in products]


def _is_open(parameter: sp.Symbol, value: float, error: float) -> bool:
    """The data leave the parameter where the prior put it: anywhere."""
    low, high = _ends(parameter)
    if math.isfinite(high - low):
        return error > 0.25 * (high - low)
    return error > 3 * max(abs(value), 1e-300)


def _has_leverage(placed: Sequence[PlacedTerm], number: int, unit: float) -> bool:
    """Changing the parameter by its size moves some term by much more than the slack it is given.

    Equations are held to a finite number of digits; what they let through is no information, though
    to the posterior it looks like some.
    """
    for p in placed:
        slope = p.slopes[len(p.tables) + number]
        least = LEVERAGE if p.term.kind != "observation" else 1 / LEVERAGE
        if float(slope.square().mean().sqrt()) * unit > least:
            return True
    return False


def _ends(parameter: sp.Symbol) -> tuple[float, float]:
    """The parameter's bounds, infinite where there are none."""
    low, high = getattr(parameter, "bounds", None) or (None, None)
    return -math.inf if low is None else float(low), math.inf if high is None else float(high)


def _axes(
    nf: NormalForm, mixtures: Mixtures, student: bool
) -> tuple[list[Any], list[Tensor], list[Tensor]]:
    """A compressed basis, its singular values and collocation points per coordinate."""
    d = len(nf.coords)
    bases, values, nodes = [], [], []
    for c, own, bins in zip(nf.coords, mixtures.frequencies, mixtures.widths, strict=True):
        low, high = nf.bounds[c]
        unit = 2 * math.pi / (high - low)
        if student:
            kernel: Any = StudentMixture(own, 0.05 * bins * unit)
        else:
            kernel = GaussianMixture(own, 0.5 * (bins * unit) ** 2)
        reach = bins * unit * math.sqrt(-4 * math.log(KEPT[d]))
        waves = (max(own) + reach) / unit
        fine = math.ceil(2 * PER_WAVE * waves) + 33
        periodic = c in nf.periodic
        basis = axis_basis(kernel, low, high, periodic=periodic, nodes=min(fine, 1200))
        grid = torch.linspace(low, high, fine, dtype=torch.float64)
        basis, size = compress(basis, grid, KEPT[d])
        most = MOST_FUNCTIONS[d]
        if basis.size > most:
            basis = basis.rotated(torch.eye(basis.size, dtype=torch.float64)[:, :most])
            size = size[:most]
        basis = basis.to(mixtures.device)
        values.append(size.to(mixtures.device))
        n = math.ceil(max(OVERSAMPLED[d] * basis.size, PER_WAVE * waves)) + 8
        points = torch.linspace(low, high, n + periodic, dtype=torch.float64)
        nodes.append((points[:-1] if periodic else points).to(mixtures.device))
        bases.append(basis)
    return bases, values, nodes


def _place(
    nf: NormalForm,
    term: Term,
    bases: list[list[Any]],
    layout: Layout,
    nodes: Sequence[Tensor],
) -> PlacedTerm:
    if term.kind == "observation":
        assert term.points is not None
        return PlacedTerm(term, bases, layout, points=term.points.to(nodes[0].device))
    axes = list(nodes)
    if term.face is not None:
        k = nf.coords.index(term.face.coord)
        axes[k] = nodes[k].new_tensor([term.face.value])
        if term.face.where != sp.true:
            mesh = torch.meshgrid(*axes, indexing="ij")
            points = torch.stack([m.flatten() for m in mesh], dim=1)
            (inside,) = compile_expressions([term.face.where], nf.coords)(points.unbind(1))  # type: ignore[list-item]
            return PlacedTerm(term, bases, layout, points=points[inside])
    return PlacedTerm(term, bases, layout, axes=axes)


def _weigh(
    placed: Sequence[PlacedTerm],
    start: Tensor,
    units: Tensor,
    noisy: bool,
) -> None:
    """Weights: one over the noise of a term, relative to what the prior expects of it."""
    count, layout = placed[0].layout.size, placed[0].layout
    exact = EXACT_BESIDE_NOISE if noisy else EXACT
    numbers = list((start[count:] * units).unbind(0))
    for p in placed:
        residual = p.linearise(layout.grids(start), numbers)
        if p.term.kind == "observation":
            spread = float(residual.std()) if len(residual) > 1 else 1.0
            p.weight = 1 / (p.term.noise or max(0.1 * spread, 1e-12))
            continue
        size = p.prior_rms() or 1.0
        p.weight = 1 / (size * exact * (CONDITIONS if p.term.kind == "condition" else 1.0))


def _with_hyperparameters(
    placed: Sequence[PlacedTerm],
    prior: Tensor,
    start: Tensor,
    scales: Scales,
    *,
    linear: bool,
    noisy: bool,
    deadline: float,
) -> tuple[Fit, Tensor, float | None]:
    """The fit; with noisy data at the prior's scale (and noise) that make the data most likely.

    MacKay's fixed point: scale^2 = |z|^2 / gamma, noise^2 = |misfit|^2 / (n - gamma), where gamma
    counts the coefficients that the data determine.
    """
    found = fit(placed, prior, start, scales, linear=linear, deadline=deadline)
    observed = [p for p in placed if p.term.kind == "observation"]
    unknown = [p for p in observed if p.term.noise is None]
    sigma = None
    if not noisy:
        return found, prior, sigma
    total = sum(len(p.points) for p in observed)
    layout, scale = placed[0].layout, 1.0
    count = layout.size
    for _ in range(HYPER_ROUNDS):
        z = found.unknowns[:count]
        gamma = max(found.conditioned.effective(prior), 1e-3)
        new = min(max(float(z.norm()) / math.sqrt(gamma), 1e-3), 1e3)
        change = abs(math.log(new / scale))
        if unknown:
            numbers = list((found.unknowns[count:] * scales.units).unbind(0))
            grids = layout.grids(z)
            for p in unknown:
                misfit = float(p.residual(grids, numbers).square().sum()) / p.weight**2
                # What conditions and equations determine is not to be charged to the data.
                free = max(total - min(_data_share(placed, p, found), total - 1), 1)
                sigma = math.sqrt(max(misfit / free, 1e-30))
                change = max(change, abs(math.log(sigma * p.weight)))
                p.weight = 1 / sigma
        scale = new
        prior = prior.clone()
        prior[:count] = scale
        found = fit(placed, prior, found.unknowns, scales, linear=linear, deadline=deadline)
        if change < 0.01:
            break
    return found, prior, sigma


def _data_share(placed: Sequence[PlacedTerm], own: PlacedTerm, found: Fit) -> float:
    """Degrees of freedom the observations take up: the trace of their hat matrix."""
    count = len(found.unknowns) - own.layout.size
    rows = own.dense(count)
    turned = torch.linalg.solve_triangular(found.conditioned.factor.T, rows.T, upper=False)
    return float(turned.square().sum())


def _between(
    nf: NormalForm,
    terms: Sequence[Term],
    bases: list[list[Any]],
    layout: Layout,
    nodes: Sequence[Tensor],
    coefficients: Sequence[Tensor],
    numbers: Sequence[Tensor],
    scales: Any,
    threshold: float,
) -> tuple[float, list[list[tuple[float, float]]]]:
    """What the equations' residual between the collocation points is worth, and its tones."""
    worst, missing = 0.0, [[] for _ in nf.coords]
    size = max(math.hypot(scales[u].scale, scales[u].offset) for u in nf.fields)
    lengths = [nf.bounds[c][1] - nf.bounds[c][0] for c in nf.coords]
    for term in terms:
        if term.kind != "equation":
            continue
        axes = []
        for c, x in zip(nf.coords, nodes, strict=True):
            low, high = nf.bounds[c]
            # Incommensurate with the collocation points, so that it falls between them.
            n = math.ceil(1.37 * len(x)) + 1
            axes.append(torch.linspace(low, high, n, dtype=torch.float64, device=x.device))
        there = PlacedTerm(term, bases, layout, axes=axes)
        residual = there.linearise(coefficients, numbers).reshape(there.grid)
        values = residual.cpu().numpy()
        if not np.isfinite(values).all():
            return math.inf, missing
        symbol = make_symbol(nf, term, [n.cpu() for n in numbers])
        profiles = axis_amplitudes(values, lengths, symbol)
        for k, (omega, amplitudes) in enumerate(profiles):
            top = float(amplitudes.max())
            worst = max(worst, top / size)
            missing[k] += find_tones(
                omega, amplitudes, lengths[k], threshold=max(0.1 * top, threshold * 1e-3 * size)
            )
    return worst, missing
