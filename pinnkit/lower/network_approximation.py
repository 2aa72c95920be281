"""Trained networks as the answer of a solver: one, or one per time window.

In    `FieldModel`s.
Out   `NetworkApproximation`, `WindowedApproximation`: derivatives at points, and their state as JSON
      and tensors (networks by their constructor arguments; no pickle, nothing executable).
Next  `solution` calls them, stores them, verifies them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pinnkit.ir.expression_tree import from_tree, to_tree
from pinnkit.ir.normal_form import NormalForm
from pinnkit.lower.fields import ExpressionJets, FieldModel, HardForm, JetFunction, Wanted
from pinnkit.lower.projection import ProjectedField
from pinnkit.nn import describe, rebuild

__all__ = ["NetworkApproximation", "WindowedApproximation"]

_DTYPES = {"float32": torch.float32, "float64": torch.float64}
_PIECE = 50_000  # points per pass: keeps the memory of large grids bounded


class NetworkApproximation:
    """The fields of one `FieldModel`."""

    kind = "network"

    def __init__(self, model: FieldModel) -> None:
        self.model = model

    def derivatives(
        self,
        points: Tensor,  # shape: (n, d)
        wanted: Wanted,
    ) -> list[Tensor]:  # shapes: (n,)
        """True derivatives at the points, in the points' dtype and on their device."""
        inside = points.to(self.model.centre)
        pieces = [self.model.derivatives(p, wanted) for p in inside.split(_PIECE)]
        joined = (
            pieces[0] if len(pieces) == 1 else [torch.cat(c) for c in zip(*pieces, strict=True)]
        )
        return [c.to(points) for c in joined]

    def to_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """A JSON-able description and the tensors."""
        tensors = {k: v.detach().cpu().clone() for k, v in self.model.state_dict().items()}
        return _describe_model(self.model), tensors

    @classmethod
    def from_state(
        cls, spec: dict[str, Any], tensors: dict[str, Tensor], nf: NormalForm
    ) -> NetworkApproximation:
        """The approximation that `to_state` described; ValueError if the parts do not fit."""
        return cls(_rebuild_model(spec, tensors, nf))


class WindowedApproximation:
    """One model per time window; a seam's instant belongs to the earlier window.

    Args:
        breaks: Window ends in time, increasing; one more than there are models.
        models: One `FieldModel` per window.
        column: The time's column in the points.
    """

    kind = "windows"

    def __init__(self, breaks: Sequence[float], models: Sequence[FieldModel], column: int) -> None:
        if len(breaks) != len(models) + 1 or not models:
            raise ValueError(
                f"{len(models)} windows need {len(models) + 1} breaks, got {len(breaks)}"
            )
        if any(a >= b for a, b in itertools.pairwise(breaks)):
            raise ValueError(f"the breaks {list(breaks)} do not increase")
        self.breaks = [float(b) for b in breaks]
        self.models, self.column = list(models), int(column)

    def window_of(self, times: Tensor) -> Tensor:  # shape: (n,), integers
        """The window each instant is answered by; instants outside go to the nearest window."""
        inner = torch.tensor(self.breaks[1:-1], dtype=torch.float64, device=times.device)
        return torch.bucketize(
            times.detach().double().contiguous(), inner
        )  # right=False: seams go down

    def derivatives(
        self,
        points: Tensor,  # shape: (n, d)
        wanted: Wanted,
    ) -> list[Tensor]:  # shapes: (n,)
        """True derivatives at the points, each by its own window."""
        window = self.window_of(points[:, self.column])
        chosen = [torch.nonzero(window == k).squeeze(1) for k in range(len(self.models))]
        used = [
            (index, model) for index, model in zip(chosen, self.models, strict=True) if len(index)
        ]
        if not used:
            return [points.new_zeros(0) for _ in wanted]
        parts = [NetworkApproximation(m).derivatives(points[i], wanted) for i, m in used]
        back = torch.argsort(torch.cat([i for i, _ in used]))
        return [torch.cat(column)[back] for column in zip(*parts, strict=True)]

    def to_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """A JSON-able description and the tensors."""
        specs, tensors = [], {}
        for k, model in enumerate(self.models):
            spec, own = NetworkApproximation(model).to_state()
            specs.append(spec)
            tensors.update({f"{k}.{name}": v for name, v in own.items()})
        return {"breaks": self.breaks, "column": self.column, "windows": specs}, tensors

    @classmethod
    def from_state(
        cls, spec: dict[str, Any], tensors: dict[str, Tensor], nf: NormalForm
    ) -> WindowedApproximation:
        """The approximation that `to_state` described; ValueError if the parts do not fit."""
        models = []
        for k, one in enumerate(spec["windows"]):
            own = {n.partition(".")[2]: v for n, v in tensors.items() if n.startswith(f"{k}.")}
            models.append(_rebuild_model(one, own, nf))
        return cls(spec["breaks"], models, spec["column"])


def _describe_model(model: FieldModel) -> dict[str, Any]:
    dtype = str(model.centre.dtype).removeprefix("torch.")
    return {
        "network": describe(model.network),
        "coordinates": model.centre.shape[0],
        "fields": model.outputs,
        "dtype": dtype,
        "hard": None
        if model.hard is None
        else {
            "offset": _describe_function(model.hard.offset),
            "factor": None if model.hard.factor is None else _describe_function(model.hard.factor),
        },
    }


def _rebuild_model(spec: dict[str, Any], tensors: dict[str, Tensor], nf: NormalForm) -> FieldModel:
    if spec.get("dtype") not in _DTYPES:
        raise ValueError(f"the file's dtype {spec.get('dtype')!r} is not one of {sorted(_DTYPES)}")
    d, m = len(nf.coords), len(nf.fields)
    if (spec.get("coordinates"), spec.get("fields")) != (d, m):
        raise ValueError(
            f"the file holds {spec.get('fields')} fields of {spec.get('coordinates')} coordinates, "
            f"the problem has {m} of {d}"
        )
    dtype = _DTYPES[spec["dtype"]]
    hard = None
    if spec.get("hard") is not None:
        hard = HardForm(
            _rebuild_function(spec["hard"]["offset"], tensors, "hard.offset.", nf),
            None
            if spec["hard"]["factor"] is None
            else _rebuild_function(spec["hard"]["factor"], tensors, "hard.factor.", nf),
        )
    network = rebuild(spec["network"], dtype=dtype)
    # Scales are buffers of the saved model: placeholders here, the tensors bring the numbers.
    model = FieldModel(network, [-1.0] * d, [1.0] * d, [1.0] * m, [0.0] * m, hard=hard, dtype=dtype)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"the file's tensors do not fit its network: {error}") from error
    return model


def _describe_function(function: JetFunction) -> dict[str, Any]:
    if isinstance(function, ExpressionJets):
        return {"expressions": [to_tree(e) for e in function.exprs]}
    if isinstance(function, ProjectedField):
        config = dict(function.config)
        if not math.isfinite(config["error"]):
            config["error"] = None  # JSON has no NaN
        return {"projection": config}
    raise TypeError(
        f"{type(function).__qualname__} cannot be written to a file; use ExpressionJets or "
        "ProjectedField"
    )


def _rebuild_function(
    spec: dict[str, Any], tensors: dict[str, Tensor], prefix: str, nf: NormalForm
) -> ExpressionJets | ProjectedField:
    if "expressions" in spec:
        return ExpressionJets([from_tree(tree) for tree in spec["expressions"]], nf.coords)
    config = dict(spec["projection"])
    error = config.pop("error")
    shape = tensors[prefix + "coefficients"]
    return ProjectedField(
        **config,
        coefficients=torch.zeros_like(shape),
        error=math.nan if error is None else float(error),
    )
