"""One round: bases for given mixtures, collocation points, the posterior, a look between the points.

In    the terms of a problem and the mixtures along its coordinates.
Out   `Round`: coefficients, parameters with errors, what the residual between the points is worth.
Next  `solvers.spectral_mixture_gp` decides whether another round is worth it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy as sp
import torch
from torch import Tensor

from pinnkit.gp.frequencies import axis_amplitudes, find_tones, scattered_tones
from pinnkit.gp.gaussian_process import Layout
from pinnkit.ir.normal_form import NormalForm
from pinnkit.lower.scales import estimate_field_scales, parameter_values
from pinnkit.solvers.spectral_mixture_compact import compact
from pinnkit.solvers.spectral_mixture_evidence import fit_with_evidence, hold_exactly
from pinnkit.solvers.spectral_mixture_fit import Scales, fit
from pinnkit.solvers.spectral_mixture_grid import Ground, Mixtures, lay_ground, place
from pinnkit.solvers.spectral_mixture_rows import PlacedTerm, Term
from pinnkit.solvers.spectral_mixture_tones import make_symbol

__all__ = ["Round", "solve_round"]

# Relative noise given to what holds exactly: rounding where all is exact; with noisy data larger,
# since data beside rows 1e13 times as heavy would drown in the rounding of those.
EXACT, EXACT_BESIDE_NOISE = 1e-13, 1e-7
BEYOND = 1e3  # prior standard deviation of a parameter, in units of its guess
LEVERAGE = 10.0  # times an equation's slack: what a parameter must move to count as determined


@dataclass(frozen=True, eq=False)
class Round:
    """The answer of one round.

    `criterion`: the worth of the equations' residual between the nodes, relative to the field.
    `missing`: tones (frequency, amplitude) per coordinate of that residual, or of what noisy data
    have left unexplained. `converged`: of the least-squares search and of the evidence's.
    """

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
    converged: bool
    noisy: bool
    unidentified: bool
    exact_factor: bool

    def is_better(self, other: Round) -> bool:
        """Noisy data judge by their evidence, exact ones by the residual."""
        if self.noisy:
            return self.log_evidence > other.log_evidence
        return self.criterion < other.criterion


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
    scales = estimate_field_scales(nf)
    noisy = any(t.kind == "observation" for t in terms)
    ground = lay_ground(nf, mixtures, scales, student=student, noisy=noisy)
    layout, bases = ground.layout, ground.bases
    placed = [place(nf, t, ground) for t in terms]
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
    exact = EXACT_BESIDE_NOISE if noisy else EXACT
    _weigh(placed, start, units)
    hold_exactly(placed, prior, exact)
    linear = nf.predicates.linear
    work = compact(placed) if noisy or nf.parameters else None
    search = work or placed
    noise = None
    if noisy:
        likely = fit_with_evidence(
            search,
            ground.groups,
            ground.breadths,
            prior,
            start,
            scales_of,
            free=_given_by_others(terms, layout).to(start.device),
            exact=exact,
            linear=linear,
            deadline=deadline,
        )
        found, noise, root = likely, likely.noise, likely.root
        evidence, converged = likely.log_evidence, likely.converged and likely.settled
    else:
        found = fit(search, prior, start, scales_of, linear=linear, deadline=deadline)
        evidence, converged = found.conditioned.log_evidence, found.converged
        # Without noise the scale of everything is free: its most likely value.
        amplitude = math.sqrt(found.objective / max(sum(len(p.points) for p in placed), 1))
        root = amplitude * found.conditioned.covariance_root()
    coefficients = layout.grids(found.unknowns)
    numbers = list((found.unknowns[count:] * units).unbind(0))
    for p in placed:
        p.linearise(coefficients, numbers)
    criterion, missing = _between(nf, terms, ground, coefficients, numbers, scales, threshold)
    if noisy:
        missing = _unexplained(nf, placed, coefficients, numbers)
    rows = sum(len(p.points) for p in placed)
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
        log_evidence=evidence,
        noise=noise,
        converged=converged,
        noisy=noisy,
        unidentified=any(
            _is_open(p, v, e) or not _has_leverage(placed, j, float(units[j]))
            for j, (p, (v, e)) in enumerate(zip(nf.parameters, estimates, strict=True))
        ),
        exact_factor=found.exact_factor,
    )


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


def _weigh(
    placed: Sequence[PlacedTerm],
    start: Tensor,
    units: Tensor,
) -> None:
    """Everything linearised at the start, observations divided by their noise or a guess of it."""
    count, layout = placed[0].layout.size, placed[0].layout
    numbers = list((start[count:] * units).unbind(0))
    for p in placed:
        residual = p.linearise(layout.grids(start), numbers)
        if p.term.kind == "observation":
            spread = float(residual.std()) if len(residual) > 1 else 1.0
            p.weight = 1 / (p.term.noise or max(0.1 * spread, 1e-12))


def _given_by_others(terms: Sequence[Term], layout: Layout) -> Tensor:  # shape: (coefficients,)
    """Coefficients of fields that an equation gives by the others, as f by u'' - f = 0.

    Such a field needs no prior: what the others are drawn from says what it is drawn from. With one of
    its own the field would have two, and bands too narrow for both.
    """
    equations = [t for t in terms if t.kind == "equation"]
    given = torch.zeros(layout.size, dtype=torch.bool)
    for term in equations:
        others = [f for t in equations if t is not term for f, _ in t.wanted]
        for (field, alpha), slope in zip(term.wanted, term.slopes, strict=False):
            alone = sum(f == field for f, _ in term.wanted) == 1 and field not in others
            several = any(f != field for f, _ in term.wanted)
            if alone and several and not any(alpha) and slope.is_number:
                given[layout.starts[field] : layout.starts[field] + layout.sizes[field]] = True
                break
    return given


def _unexplained(
    nf: NormalForm,
    placed: Sequence[PlacedTerm],
    coefficients: Sequence[Tensor],
    numbers: Sequence[Tensor],
) -> list[list[tuple[float, float]]]:
    """Tones that stand out of the noise in what the observations have left over."""
    missing: list[list[tuple[float, float]]] = [[] for _ in nf.coords]
    for p in placed:
        if p.term.kind == "observation":
            left = p.residual(coefficients, numbers).cpu().numpy()
            for k, c in enumerate(nf.coords):
                low, high = nf.bounds[c]
                tones = scattered_tones(p.points[:, k].cpu().numpy(), left, high - low)
                missing[k] += [(w, 1.0) for w in tones]
    return missing


def _between(
    nf: NormalForm,
    terms: Sequence[Term],
    ground: Ground,
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
        for c, x in zip(nf.coords, ground.nodes, strict=True):
            low, high = nf.bounds[c]
            # Incommensurate with the collocation points, so that it falls between them.
            n = math.ceil(1.37 * len(x)) + 1
            axes.append(torch.linspace(low, high, n, dtype=torch.float64, device=x.device))
        there = PlacedTerm(term, ground.bases, ground.layout, axes=axes)
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
