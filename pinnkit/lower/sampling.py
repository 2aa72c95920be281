"""Where residuals are evaluated: Sobol points, grids, residual-adaptive choices, points on faces.

In    a normal form's box (or another), a number of points, a `torch.Generator`.
Out   points (n, d), columns in the order of the problem's coordinates.
Next  `lower.residuals` evaluates terms there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sympy as sp
import torch
from torch import Tensor

from pinnkit.errors import DeclarationError
from pinnkit.ir.normal_form import Face, NormalForm
from pinnkit.lower.expressions import compile_expressions

__all__ = [
    "adaptive_choice",
    "face_points",
    "grid_points",
    "interior_points",
    "scrambled_sobol",
    "unit_sobol",
]

Bounds = Mapping[sp.Symbol, tuple[float, float]]


def unit_sobol(
    n: int, d: int, generator: torch.Generator, *, dtype: torch.dtype = torch.float64
) -> Tensor:  # shape: (n, d)
    """`n` scrambled Sobol points in the open unit cube; the scrambling is drawn from `generator`."""
    if d == 0:
        return torch.zeros(n, 0, dtype=dtype, device=generator.device)
    seed = torch.randint(2**31 - 1, (1,), generator=generator, device=generator.device)
    points = scrambled_sobol(n, d, seed=int(seed))
    # Scrambled Sobol points may be exactly 0, where initial layers of coefficients can be singular.
    return points.clamp(2.0**-31, 1 - 2.0**-31).to(dtype=dtype, device=generator.device)


def scrambled_sobol(n: int, d: int, *, seed: int) -> Tensor:  # shape: (n, d)
    """`n` scrambled Sobol points in the unit cube, float64 whatever torch's default dtype is."""
    engine = torch.quasirandom.SobolEngine(d, scramble=True, seed=seed)
    points = engine.draw(n, dtype=torch.float64)
    # torch computes the first point in its default dtype and casts it, which loses digits.
    points[:1] = engine.shift.to(torch.float64) / 2**engine.MAXBIT
    return points


def interior_points(
    nf: NormalForm,
    n: int,
    generator: torch.Generator,
    *,
    bounds: Bounds | None = None,
    dtype: torch.dtype = torch.float64,
) -> Tensor:  # shape: (n, d)
    """Sobol points inside the box (or another box: a time window)."""
    low, high = _corners(nf, bounds, dtype, generator.device)
    return low + (high - low) * unit_sobol(n, len(nf.coords), generator, dtype=dtype)


def face_points(
    nf: NormalForm,
    face: Face,
    n: int,
    generator: torch.Generator,
    *,
    bounds: Bounds | None = None,
    dtype: torch.dtype = torch.float64,
) -> Tensor:  # shape: (<= n, d)
    """Sobol points on a face, where its relation `where` holds; one point if the face is a point.

    Raises:
        DeclarationError: if the relation holds at none of the points tried.
    """
    free = [i for i, c in enumerate(nf.coords) if c != face.coord]
    low, high = _corners(nf, bounds, dtype, generator.device)
    low, high = low.clone(), high.clone()
    axis = nf.coords.index(face.coord)
    low[axis] = high[axis] = face.value
    if not free:
        return low[None]
    kept: list[Tensor] = []
    for _ in range(12):
        points = low.repeat(n, 1)
        points[:, free] += (high - low)[free] * unit_sobol(n, len(free), generator, dtype=dtype)
        kept.append(points[_holds(face.where, nf, points)])
        if sum(len(k) for k in kept) >= n:
            break
    chosen = torch.cat(kept)[:n]
    if not len(chosen):
        raise DeclarationError(
            f"the condition on {face.coord} = {face.value} where {face.where} matches no point of "
            "the boundary. Widen the relation."
        )
    return chosen


def grid_points(
    nf: NormalForm,
    counts: Sequence[int],
    *,
    bounds: Bounds | None = None,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> Tensor:  # shape: (prod(counts), d)
    """A tensor grid with end points (the upper one left out on periodic axes), last coordinate fastest."""
    box = {**nf.bounds, **(bounds or {})}
    axes = []
    for c, k in zip(nf.coords, counts, strict=True):
        low, high = box[c]
        whole = c in nf.periodic and (low, high) == tuple(nf.bounds[c])
        nodes = torch.linspace(low, high, k + 1 if whole else k, dtype=dtype, device=device)
        axes.append(nodes[:k])
    return torch.cartesian_prod(*axes).reshape(-1, len(axes))


def adaptive_choice(
    residual: Tensor,  # shape: (n,)
    k: int,
    generator: torch.Generator,
    *,
    power: float = 1.0,
    constant: float = 1.0,
) -> tuple[Tensor, Tensor]:  # shapes: (k,), (k,)
    """Indices of `k` candidates, drawn without replacement with p ~ |r|^power / mean + constant.

    Also returns each chosen point's weight 1 / (n p), with mean 1, for importance-weighted sums.
    References: wu2023rad.
    """
    if k > residual.shape[0]:
        raise ValueError(f"cannot draw {k} of {residual.shape[0]} candidates without replacement")
    size = residual.detach().abs().double() ** power
    if not bool(torch.isfinite(size).all()):
        raise ValueError("the residual at some candidate points is not finite")
    mean = size.mean()
    p = size / mean + constant if mean > 0 else torch.ones_like(size)
    p = p / p.sum()
    # The k largest of log p + Gumbel noise are a draw without replacement; unlike torch.multinomial
    # this has no limit on the number of candidates.
    uniform = torch.rand(p.shape, generator=generator, dtype=p.dtype, device=p.device)
    gumbel = -torch.log(-torch.log(uniform.clamp_min(1e-300)))
    chosen = torch.topk(torch.log(p) + gumbel, k).indices
    weights = 1 / (p[chosen] * p.shape[0])
    return chosen, (weights / weights.mean()).to(residual.dtype)


def _corners(
    nf: NormalForm, bounds: Bounds | None, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    box = {**nf.bounds, **(bounds or {})}
    low, high = zip(*(box[c] for c in nf.coords), strict=True)
    return (
        torch.tensor(low, dtype=dtype, device=device),
        torch.tensor(high, dtype=dtype, device=device),
    )


def _holds(relation: sp.Basic, nf: NormalForm, points: Tensor) -> Tensor:
    if relation == sp.true:
        return torch.ones(points.shape[0], dtype=torch.bool, device=points.device)
    return compile_expressions([relation], nf.coords)(points.unbind(1))[0]  # type: ignore[list-item]
