"""Whether the conditions behind a stable class hold for its trained networks.

In    a problem class of `declare.stable_sde`, its trained module, series.
Out   a `Stability` record: what is claimed, in which sense, whether it holds, and how that is known.
Next  `SeriesSolution.stability`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

import torch

from pinnkit.declare.series import IrregularSeries
from pinnkit.declare.stable_sde import GeometricSDE, LangevinSDE, LinearNoiseSDE
from pinnkit.solution.series_model import SeriesBatch, SeriesModel
from pinnkit.solution.series_recurrent import RecurrentModel

__all__ = ["Stability", "stability_of"]

TIMES = 513  # at which sigma(t) is looked at


@final
@dataclass(frozen=True)
class Stability:
    """One statement about a trained equation.

    Args:
        statement: What is claimed.
        holds: True or False where the condition was decided, None where nothing is known.
        known: "proved", "sampled" (looked at in many places, not everywhere), or "nothing".
        figures: The numbers it was decided by.
    """

    statement: str
    holds: bool | None
    known: str
    figures: dict[str, float]


def stability_of(
    problem: Any,
    module: SeriesModel | RecurrentModel,
    data: IrregularSeries,
    device: torch.device,
    dtype: torch.dtype,
) -> tuple[Stability, ...]:
    """The statements that belong to the problem's class."""
    kinds = (LangevinSDE, LinearNoiseSDE, GeometricSDE)
    if not isinstance(problem, kinds):
        names = ", ".join(k.__name__ for k in kinds)
        raise TypeError(f"only {names} have stability statements; this is {type(problem).__name__}")
    assert isinstance(module, SeriesModel)
    if problem.form == "bounded":
        figures = {"drift": 1.0, "diffusion": 1.0}
        claim = "drift and diffusion are bounded; no theorem of the class applies to this form"
        # Per length of the time axis and per its square root.
        return (Stability(claim, True, "proved", figures),)
    if isinstance(problem, GeometricSDE):
        return _geometric(module, data, device, dtype)
    a, sigma = problem.restoring, _largest_sigma(module, device, dtype)
    # Both in units of the model's time, in which `restoring` is given.
    figures = {"max sigma^2": sigma**2} | ({} if a is None else {"a": a})
    if isinstance(problem, LangevinSDE):
        claim = "an invariant law exists for a constant control and constant sigma"
        # tanh(gamma) is at most sqrt(dim) long, so <z, f> <= -a |z|^2 + sqrt(dim) |z|.
        return (
            Stability(
                claim, None if a is None else True, "nothing" if a is None else "proved", figures
            ),
        )
    claim = "E|z|^2 stays bounded for all times: 2 a > max sigma^2"
    if a is None:
        return (Stability(claim, None, "nothing", figures),)
    return (Stability(claim, 2 * a > sigma**2, "sampled", figures),)


def _largest_sigma(module: SeriesModel, device: torch.device, dtype: torch.dtype) -> float:
    net = module.coefficients.nets["sigma"]
    with torch.no_grad():
        times = torch.linspace(0, 1, TIMES, device=device, dtype=dtype)[:, None]
        return float(net(times).abs().max())


def _geometric(
    module: SeriesModel, data: IrregularSeries, device: torch.device, dtype: torch.dtype
) -> tuple[Stability, ...]:
    positive = Stability("every component stays positive, for every step size", True, "proved", {})
    batch = SeriesBatch.of(data, module.normalisation, module.task, module.kind, dtype, device)
    with torch.no_grad():
        along = module.coefficients.along(batch.path)
        run = module.integrate(batch, 0)
        worst = -math.inf
        # The drift of log z is gamma - sigma^2 / 2.
        for t, y in zip(_clocks(run.times, dtype, device), run.states):
            worst = max(worst, float(along.drift(t, y).max()) * module.coefficients.units.span)
    decay = Stability(
        "almost every path decays while gamma < sigma^2 / 2", worst < 0, "sampled",
        {"max (gamma - sigma^2 / 2)": worst},
    )  # fmt: skip
    return positive, decay


def _clocks(times: torch.Tensor, dtype: torch.dtype, device: torch.device) -> list[torch.Tensor]:
    return [row.to(device, dtype)[:, None] for row in times]
