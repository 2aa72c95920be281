"""The ansatz: networks of scaled coordinates as all real fields of a problem.

In    a network builder, the normal form's box, and the fields' scales.
Out   `FieldModel`: physical points -> physical derivatives, by jets.
Next  `lower.residuals` evaluates equations on it; `lower.network_approximation` stores it.

Inside, coordinates run over [-1, 1] and fields are O(1); units come in at the very end, as one
factor per field and derivative.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import sympy as sp
import torch
from torch import Tensor, nn

from pinnkit.ir.normal_form import NormalForm
from pinnkit.lower.expressions import compile_expressions
from pinnkit.lower.jet_algebra import JetSpec, MultiIndex, input_jet, jet_mul
from pinnkit.lower.jets import propagate
from pinnkit.lower.scales import FieldScale, estimate_field_scales
from pinnkit.lower.tape import Tape
from pinnkit.nn import Chain, PeriodicFeatures, Select, SideBySide

__all__ = [
    "ExpressionJets",
    "FieldModel",
    "HardForm",
    "JetFunction",
    "NetworkBuilder",
    "Wanted",
    "make_field_model",
]

Wanted = Sequence[tuple[int, MultiIndex]]  # (index of the field, multi-index over the coordinates)
NetworkBuilder = Callable[[int, int], nn.Module]  # (inputs, outputs) -> module


class JetFunction(Protocol):
    """Known functions of the coordinates, one per field, with all their derivatives."""

    def jets(self, points: Tensor, spec: JetSpec) -> Tensor:
        """Normalised physical coefficients D^alpha f / alpha!: (S, n, m)."""
        ...


class ExpressionJets(nn.Module):
    """sympy expressions as a `JetFunction`: derivatives are taken symbolically, once per spec."""

    def __init__(self, exprs: Sequence[sp.Expr], coords: Sequence[sp.Symbol]) -> None:
        super().__init__()
        self.exprs = tuple(sp.sympify(e) for e in exprs)
        self.coords = tuple(coords)
        self._compiled: dict[JetSpec, Any] = {}

    def jets(self, points: Tensor, spec: JetSpec) -> Tensor:
        if spec not in self._compiled:
            derivatives = [
                sp.diff(e, *(v for v in zip(self.coords, alpha, strict=True) if v[1])) / factorial
                if any(alpha)
                else e
                for alpha, factorial in zip(spec.indices, spec.factorials, strict=True)
                for e in self.exprs
            ]
            self._compiled[spec] = compile_expressions(derivatives, self.coords)
        values = self._compiled[spec](points.unbind(1))
        return torch.stack(values, dim=-1).view(-1, spec.size, len(self.exprs)).transpose(0, 1)


class HardForm(nn.Module):
    """u = A + B N: what is known of the solution, built into the ansatz.

    Args:
        offset: A, one function per field.
        factor: B, one function per field; it vanishes where A shall hold exactly. None: B = 1, A is
            a part of the solution (a corner layer) and no condition becomes exact.
    """

    def __init__(self, offset: JetFunction, factor: JetFunction | None = None) -> None:
        super().__init__()
        self.offset, self.factor = offset, factor

    def jets(self, points: Tensor, net: Tensor, spec: JetSpec) -> Tensor:
        """The jet of u from the jet of N, both in physical coordinates."""
        offset = self.offset.jets(points, spec)
        if self.factor is None:
            return offset + net
        return offset + jet_mul(self.factor.jets(points, spec), net, spec)


class FieldModel(nn.Module):
    """All real fields as one network of scaled coordinates: u = offset + scale * N(xi).

    Args:
        network: Module from (n, d) scaled coordinates to (n, m) fields of size 1.
        lower, upper: The box, one number per coordinate; it maps to [-1, 1].
        scale, offset: One number per field.
        hard: Optional form u = A + B * (offset + scale * N).
        dtype, device: Of the scale factors; those of the network.
    """

    centre: Tensor
    half_width: Tensor
    scale: Tensor
    offset: Tensor

    def __init__(
        self,
        network: nn.Module,
        lower: Sequence[float],
        upper: Sequence[float],
        scale: Sequence[float],
        offset: Sequence[float],
        *,
        hard: HardForm | None = None,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        low = torch.tensor(lower, dtype=torch.float64)
        high = torch.tensor(upper, dtype=torch.float64)
        self.network, self.hard = network, hard
        for name, value in {
            "centre": (low + high) / 2,
            "half_width": (high - low) / 2,
            "scale": torch.tensor(scale, dtype=torch.float64),
            "offset": torch.tensor(offset, dtype=torch.float64),
        }.items():
            self.register_buffer(name, value.to(dtype=dtype, device=device))
        self._factors: dict[Any, Tensor] = {}

    @property
    def outputs(self) -> int:
        """Number of fields, m."""
        return self.scale.shape[0]

    def forward(self, points: Tensor) -> Tensor:  # shapes: (n, d) -> (n, m)
        """The fields themselves."""
        return self.jets(points, JetSpec(((0,) * self.centre.shape[0],)))[0]

    def jets(self, points: Tensor, spec: JetSpec, tape: Tape | None = None) -> Tensor:
        """Normalised physical coefficients D^alpha u / alpha!: (S, n, m)."""
        net = propagate(
            self.network, input_jet(points, spec, self.centre, self.half_width), spec, tape
        )
        net = net * self._unit_factors(spec)
        net = torch.cat([net[:1] + self.offset, net[1:]])
        return net if self.hard is None else self.hard.jets(points, net, spec)

    def derivatives(
        self,
        points: Tensor,  # shape: (n, d)
        wanted: Wanted,
        tape: Tape | None = None,
    ) -> list[Tensor]:  # shapes: (n,)
        """True derivatives (times alpha!), each from one shared pass; differentiable in `points`."""
        spec = closure_of(tuple(alpha for _, alpha in wanted), points.shape[1])
        columns = [jet.unbind(-1) for jet in self.jets(points, spec, tape).unbind(0)]
        out = []
        for field, alpha in wanted:
            s = spec.position[tuple(alpha)]
            value, factorial = columns[s][field], spec.factorials[s]
            out.append(value if factorial == 1 else value * factorial)
        return out

    def _unit_factors(self, spec: JetSpec) -> Tensor:  # shape: (S, 1, m)
        """scale / half^alpha."""
        key = (spec, self.scale.device, self.scale.dtype)
        if key not in self._factors:
            powers = [
                torch.prod(self.half_width ** -self.half_width.new_tensor(a)) for a in spec.indices
            ]
            self._factors[key] = torch.stack(powers)[:, None, None] * self.scale
        return self._factors[key]

    def _apply(self, fn: Any, recurse: bool = True) -> FieldModel:
        self._factors.clear()  # they follow dtype and device of the buffers
        return super()._apply(fn, recurse)  # type: ignore[return-value]


@functools.lru_cache(maxsize=256)
def closure_of(wanted: tuple[MultiIndex, ...], d: int) -> JetSpec:
    """`JetSpec.closure`, remembered: its tables are built once per set of derivatives."""
    return JetSpec.closure([tuple(a) for a in wanted], d)


def make_field_model(
    nf: NormalForm,
    network: NetworkBuilder,
    *,
    scales: Mapping[sp.Expr, FieldScale] | None = None,
    shared: bool = True,
    harmonics: int | Mapping[sp.Symbol, int] = 1,
    hard: HardForm | None = None,
    bounds: Mapping[sp.Symbol, tuple[float, float]] | None = None,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> FieldModel:
    """The ansatz for a problem: exactly periodic on periodic axes, scaled everywhere.

    Args:
        nf: The problem.
        network: Builds a network from (inputs, outputs), such as
            `functools.partial(MLP, width=30, depth=3, generator=gen)` with positional widths.
        scales: Offset and scale per field; estimated from the data where absent.
        shared: One network for all fields of the same coordinates, or one per field.
        harmonics: Number of Fourier harmonics on periodic axes.
        hard: Optional hard form.
        bounds: Another box than the problem's (a time window).
    """
    scales = estimate_field_scales(nf) if scales is None else scales
    box = {**nf.bounds, **(bounds or {})}
    groups: list[tuple[tuple[sp.Symbol, ...], int]] = []  # neighbours over the same coordinates
    for u in nf.fields:
        own = nf.field_coords(u)
        if shared and groups and set(groups[-1][0]) == set(own):
            groups[-1] = (groups[-1][0], groups[-1][1] + 1)
        else:
            groups.append((own, 1))
    parts = [_one_network(nf, own, m, network, harmonics, dtype, device) for own, m in groups]
    return FieldModel(
        parts[0] if len(parts) == 1 else SideBySide(*parts),
        [box[c][0] for c in nf.coords],
        [box[c][1] for c in nf.coords],
        [scales[u].scale for u in nf.fields],
        [scales[u].offset for u in nf.fields],
        hard=hard,
        dtype=dtype,
        device=device,
    )


def _one_network(
    nf: NormalForm,
    own: tuple[sp.Symbol, ...],
    outputs: int,
    network: NetworkBuilder,
    harmonics: int | Mapping[sp.Symbol, int],
    dtype: torch.dtype,
    device: torch.device | str,
) -> nn.Module:
    """Features and a trainable network for fields of the coordinates `own`."""
    kept = [i for i, c in enumerate(nf.coords) if c in own]
    axes = [nf.coords[i] for i in kept]
    part: nn.Module
    periodic = {i: c for i, c in enumerate(axes) if c in nf.periodic}
    if periodic:
        counts = {
            i: harmonics if isinstance(harmonics, int) else harmonics.get(c, 1)
            for i, c in periodic.items()
        }
        # Scaled coordinates run over [-1, 1], so the period is 2.
        features = PeriodicFeatures(
            len(axes), dict.fromkeys(periodic, 2.0), harmonics=counts, dtype=dtype, device=device
        )
        part = Chain(features, network(features.outputs, outputs))
    else:
        part = network(len(axes), outputs)
    return part if len(axes) == len(nf.coords) else Select(kept, part)
