"""Projections of known functions: Fourier on periodic axes, Chebyshev on the others.

In    a function on a box (the last instant of a time window), and a tolerance.
Out   `ProjectedField`: the same function in a few hundred numbers, with its measured error and all
      its derivatives.
Next  initial data of the next window, instead of networks nested in networks: `project_instant`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sympy as sp
import torch
from torch import Tensor, nn

from pinnkit.ir.normal_form import NormalForm
from pinnkit.lower.activations import is_traced
from pinnkit.lower.jet_algebra import JetSpec, MultiIndex
from pinnkit.lower.sampling import unit_sobol

__all__ = ["ProjectedField", "project_instant"]

logger = logging.getLogger(__name__)

_HANDOVER_TOL = 1e-9  # relative L2 error of an instant's projection: far below any tolerance / 100
_FIRST_MODES = 17  # odd, so that a Fourier axis has as many sines as cosines


class ProjectedField(nn.Module):
    """f(x) = sum of coefficients times products of basis functions, one per axis; constant elsewhere.

    Args:
        columns: Columns of the points that f depends on.
        lower, upper: The box, per such column.
        periodic: Per such column: Fourier (True) or Chebyshev.
        coefficients: (modes of axis 1, ..., modes of axis k, m).
        error: Measured relative L2 error of the projection, the largest over the m functions.
    """

    coefficients: Tensor

    def __init__(
        self,
        columns: Sequence[int],
        lower: Sequence[float],
        upper: Sequence[float],
        periodic: Sequence[bool],
        coefficients: Tensor,
        error: float = math.nan,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "columns": [int(c) for c in columns],
            "lower": [float(v) for v in lower],
            "upper": [float(v) for v in upper],
            "periodic": [bool(p) for p in periodic],
            "error": float(error),
        }
        self.error = float(error)
        self.register_buffer("coefficients", coefficients)
        self._derived: dict[MultiIndex, Tensor] = {}

    @classmethod
    def fit(
        cls,
        function: Callable[[Tensor], Tensor],  # (q, k) -> (q, m)
        columns: Sequence[int],
        lower: Sequence[float],
        upper: Sequence[float],
        periodic: Sequence[bool],
        *,
        tol: float = 1e-10,
        max_modes: int = 513,
        generator: torch.Generator | None = None,
    ) -> ProjectedField:
        """Project, adding modes on the axes that lack them until the measured error is <= tol.

        Args:
            function: Of the columns' coordinates alone, float64.
            tol: Wanted relative L2 error. Look at `.error`: `max_modes` may have ended the search.
            max_modes: Most modes per axis (513 in one dimension; keep the product below 1e6).
            generator: Draws the test points; a fixed one where None.
        """
        gen = torch.Generator().manual_seed(0) if generator is None else generator
        low = torch.tensor(lower, dtype=torch.float64)
        high = torch.tensor(upper, dtype=torch.float64)
        test = low + (high - low) * unit_sobol(1009, len(lower), gen).cpu()
        with torch.no_grad():
            truth = function(test)
            size = truth.square().mean(0).sqrt().clamp_min(1e-300)
            max_modes -= 1 - max_modes % 2  # odd counts only, see _FIRST_MODES
            modes = [min(_FIRST_MODES, max_modes)] * len(lower)
            while True:
                coefficients = _project(function, lower, upper, periodic, modes)
                made = cls(columns, lower, upper, periodic, coefficients)
                points = test.new_zeros(len(test), max(columns) + 1)
                points[:, list(columns)] = test
                difference = (made(points) - truth).square().mean(0).sqrt()
                error = float((difference / size).max())
                short = _axes_short_of_modes(coefficients, tol, modes, max_modes)
                if error <= tol or not short:
                    return cls(columns, lower, upper, periodic, coefficients, error)
                for axis in short:
                    modes[axis] = min(2 * modes[axis] - 1, max_modes)

    def forward(self, points: Tensor) -> Tensor:  # shapes: (n, d) -> (n, m)
        """The function itself."""
        return self._evaluate(self._bases(points), (0,) * len(self.config["columns"]))

    def jets(self, points: Tensor, spec: JetSpec) -> Tensor:  # shape: (S, n, m)
        """Normalised coefficients D^alpha f / alpha!; zero along coordinates f does not depend on."""
        columns = self.config["columns"]
        bases = self._bases(points)
        out = []
        for alpha, factorial in zip(spec.indices, spec.factorials, strict=True):
            if any(k for i, k in enumerate(alpha) if i not in columns):
                out.append(torch.zeros_like(out[0]))
            else:
                out.append(self._evaluate(bases, tuple(alpha[c] for c in columns)) / factorial)
        return torch.stack(out)

    def _bases(self, points: Tensor) -> list[Tensor]:  # shapes: (n, modes)
        config = self.config
        return [
            _basis(points[:, c], low, high, count, fourier)
            for c, low, high, count, fourier in zip(
                config["columns"],
                config["lower"],
                config["upper"],
                self.coefficients.shape[:-1],
                config["periodic"],
                strict=True,
            )
        ]

    def _evaluate(self, bases: list[Tensor], alpha: MultiIndex) -> Tensor:  # shape: (n, m)
        value = self._coefficients_of(alpha).to(bases[0])
        value = (bases[0] @ value.flatten(1)).unflatten(1, value.shape[1:])
        for basis in bases[1:]:
            value = torch.einsum("nk,nk...->n...", basis, value)
        return value

    def _coefficients_of(self, alpha: MultiIndex) -> Tensor:
        """Coefficients of the derivative: exact in the basis, so nothing is lost at the ends."""
        if alpha not in self._derived:
            value = self.coefficients
            for axis, count in enumerate(alpha):
                width = self.config["upper"][axis] - self.config["lower"][axis]
                matrix = _derivative_matrix(
                    value.shape[axis], width, self.config["periodic"][axis]
                ).to(value)
                for _ in range(count):
                    value = _apply_along(matrix, value, axis)
            self._derived[alpha] = value
        return self._derived[alpha]

    def _apply(self, fn: Any, recurse: bool = True) -> ProjectedField:
        self._derived.clear()
        return super()._apply(fn, recurse)  # type: ignore[return-value]


def _nodes(low: float, high: float, count: int, fourier: bool) -> Tensor:
    """Points at which the basis is orthogonal: equispaced, or Chebyshev's of the first kind."""
    k = torch.arange(count, dtype=torch.float64)
    if fourier:
        return low + (high - low) * k / count
    return (low + high) / 2 - (high - low) / 2 * torch.cos(math.pi * (k + 0.5) / count)


def _basis(x: Tensor, low: float, high: float, count: int, fourier: bool) -> Tensor:
    """1, cos, sin, cos 2, sin 2, ... of the phase; or T_0, T_1, ... of x scaled to [-1, 1]."""
    if fourier:
        k = torch.arange(1, count // 2 + 1, dtype=x.dtype, device=x.device)
        phase = (2 * math.pi / (high - low)) * (x - low)[:, None] * k
        waves = torch.stack([torch.cos(phase), torch.sin(phase)], dim=-1).flatten(1)
        return torch.cat([torch.ones_like(x)[:, None], waves], dim=1)
    xi = (x - (low + high) / 2) / ((high - low) / 2)
    if is_traced() or x.requires_grad:
        # arccos has no derivative at the ends; the recurrence has.
        columns = [torch.ones_like(xi), xi]
        for _ in range(count - 2):
            columns.append(2 * xi * columns[-1] - columns[-2])
        return torch.stack(columns[:count], dim=1)
    k = torch.arange(count, dtype=x.dtype, device=x.device)
    return torch.cos(torch.arccos(xi.clamp(-1, 1))[:, None] * k)


def project_instant(
    fields: Any,
    wanted: Sequence[tuple[int, MultiIndex]],
    nf: NormalForm,
    bounds: Mapping[sp.Symbol, tuple[float, float]],
    like: Tensor,
    *,
    zeros: int = 0,
) -> ProjectedField:
    """What a time window hands over to the next: its last instant as a function of space.

    Args:
        fields: Has `derivatives(points, wanted)`: what was solved until the instant.
        wanted: (field, derivative) pairs, one per function.
        bounds: Of the window that begins: the instant is where its time begins.
        like: Device and dtype of the points that `fields` takes.
        zeros: Functions that are zero, before the wanted ones.

    Its error is logged; look at `.error`.
    """
    assert nf.time is not None
    axis = nf.coords.index(nf.time)
    columns = [i for i in range(len(nf.coords)) if i != axis]
    space = [nf.coords[i] for i in columns]
    instant = bounds[nf.time][0]

    def at_instant(places: Tensor) -> Tensor:  # shapes: (q, d - 1) -> (q, zeros + len(wanted))
        points = places.new_full((len(places), len(nf.coords)), instant)
        points[:, columns] = places
        values = torch.stack(list(fields.derivatives(points.to(like), wanted)), dim=1)
        values = values.detach().to(places)
        return torch.cat([values.new_zeros(len(values), zeros), values], dim=1)

    projected = ProjectedField.fit(
        at_instant,
        columns,
        [bounds[c][0] for c in space],
        [bounds[c][1] for c in space],
        [c in nf.periodic for c in space],
        tol=_HANDOVER_TOL,
        max_modes={1: 1025, 2: 129}.get(len(columns), 33),
    )
    logger.info("%s = %g: handed over with relative error %.1e", nf.time, instant, projected.error)
    return projected


def _project(
    function: Callable[[Tensor], Tensor],
    lower: Sequence[float],
    upper: Sequence[float],
    periodic: Sequence[bool],
    modes: Sequence[int],
) -> Tensor:
    """Coefficients by discrete orthogonality on the tensor grid of nodes."""
    axes = [_nodes(*a) for a in zip(lower, upper, modes, periodic, strict=True)]
    grid = torch.cartesian_prod(*axes).reshape(-1, len(axes))
    values = function(grid).to(torch.float64)
    values = values.reshape(*modes, values.shape[-1])
    for axis in range(len(axes)):
        dual = _dual_basis(modes[axis], periodic[axis])
        values = _apply_along(dual, values, axis)
    # Coefficients at rounding level are noise, which k derivatives would multiply by modes^(2k).
    largest = values.flatten(0, -2).abs().amax(0)
    return torch.where(values.abs() > 1e-15 * largest, values, torch.zeros_like(values))


def _dual_basis(count: int, fourier: bool) -> Tensor:  # shape: (modes, nodes)
    """The matrix from values at the nodes to coefficients.

    Angles are reduced in integers first: cos(k arccos x) in floats loses k roundings, and noise of
    1e-15 in the last of 257 coefficients is 1e-6 in a second derivative.
    """
    j = torch.arange(count)
    if fourier:
        k = torch.arange(1, count // 2 + 1)
        phase = (2 * math.pi / count) * torch.remainder(k[:, None] * j, count).double()
        waves = torch.stack([torch.cos(phase), torch.sin(phase)], dim=1).flatten(0, 1)
        dual = torch.cat([torch.ones(1, count, dtype=torch.float64), waves])
    else:
        turns = torch.remainder(j[:, None] * (2 * j + 1), 4 * count).double()
        # The nodes run upwards, from -cos: T_k(-x) = (-1)^k T_k(x).
        signs = (1 - 2 * (j % 2)).double()[:, None]
        dual = signs * torch.cos((math.pi / (2 * count)) * turns)
    dual *= 2.0 / count
    dual[0] /= 2
    return dual


def _apply_along(matrix: Tensor, values: Tensor, axis: int) -> Tensor:
    """The matrix applied along one axis."""
    moved = values.movedim(axis, 0)
    return (matrix @ moved.flatten(1)).unflatten(1, moved.shape[1:]).movedim(0, axis)


def _axes_short_of_modes(
    coefficients: Tensor, tol: float, modes: list[int], max_modes: int
) -> list[int]:
    """Axes whose last eighth of coefficients still carries more than tol / 10 of the norm."""
    total = float(coefficients.norm())
    short = []
    for axis, count in enumerate(modes):
        tail = coefficients.narrow(axis, count - max(2, count // 8), max(2, count // 8))
        if count < max_modes and float(tail.norm()) > 0.1 * tol * total:
            short.append(axis)
    return short


def _derivative_matrix(count: int, width: float, fourier: bool) -> Tensor:
    """Coefficients of f' from those of f."""
    matrix = torch.zeros(count, count, dtype=torch.float64)
    if fourier:
        for k in range(1, count // 2 + 1):
            rate = 2 * math.pi * k / width
            matrix[2 * k, 2 * k - 1] = -rate  # (cos)' = -sin
            matrix[2 * k - 1, 2 * k] = rate
        return matrix
    # T_p' = 2 p (T_(p-1) + T_(p-3) + ...), the T_0 term halved.
    for p in range(1, count):
        matrix[(p - 1) % 2 : p : 2, p] = 2.0 * p
    matrix[0] /= 2
    return matrix * (2 / width)
