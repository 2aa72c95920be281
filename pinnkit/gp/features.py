"""Square roots of kernels: basis functions whose independent N(0, 1) coefficients make the process.

In    a mixture and the interval it lives on.
Out   a basis: features and their derivatives of any order at any points, k(x, y) = f(x) . f(y).
Next  `gp.posterior` conditions the coefficients; `gp.gaussian_process` evaluates them.

Working with K itself loses half the digits: eigenvalues below 1e-16 of the largest are noise. A
Gaussian mixture has a square root in closed form. Its spectrum is smooth and decays like a Gaussian,
so the trapezoidal rule for k(z) = int S(w) cos(w z) dw converges faster than any power, and
sqrt(S(w_i) h) times cos and sin of w_i x are the features. Their singular values are the *roots* of
K's eigenvalues: 1e-13 of the largest is still a number, where K itself ends at 1e-8.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from pinnkit.gp.kernels import GaussianMixture, SpectralMixture, StudentMixture
from pinnkit.gp.kronecker import toeplitz, truncated_eigenbasis

__all__ = [
    "AxisBasis",
    "KernelBasis",
    "StackedBasis",
    "TrigonometricBasis",
    "axis_basis",
    "basis_from_state",
    "compress",
    "constant",
]

FLOOR = 1e-16  # of sqrt(S): modes below it are dropped
PER_WIDTH = 2.5  # modes per standard deviation of a Gaussian in the spectrum
NODES_FLOOR = 1e-13  # eigenvalues of K kept for kernels without a closed root


class AxisBasis(Protocol):
    """Basis functions of one coordinate."""

    @property
    def size(self) -> int:
        """Number of functions."""
        ...

    def __call__(self, x: Tensor, order: int = 0) -> Tensor:
        """Their order-th derivatives: (n,) -> (n, size), differentiable in x."""
        ...

    def rotated(self, rotation: Tensor) -> AxisBasis:
        """The linear combinations f(x) @ rotation."""
        ...

    def to(self, device: torch.device) -> AxisBasis:
        """The same functions on another device."""
        ...

    def to_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """A JSON-able description and the tensors."""
        ...


class TrigonometricBasis:
    """a_i cos(w_i (x - c)) and a_i sin(w_i (x - c)), linearly combined.

    Args:
        frequencies: w_i (k,).
        amplitudes: a_i (k,).
        centre: c, the middle of the interval: keeps arguments small.
        rotation: (2k, r): the combinations.
    """

    kind = "trigonometric"

    def __init__(
        self, frequencies: Tensor, amplitudes: Tensor, centre: float, rotation: Tensor
    ) -> None:
        self.frequencies, self.amplitudes = frequencies, amplitudes
        self.centre, self.rotation = centre, rotation

    @property
    def size(self) -> int:
        """Number of functions."""
        return self.rotation.shape[1]

    def __call__(self, x: Tensor, order: int = 0) -> Tensor:
        """See `AxisBasis`."""
        angle = (x[:, None] - self.centre) * self.frequencies
        cosine, sine = torch.cos(angle), torch.sin(angle)
        # Turning by quarter periods exactly: cos(angle + pi/2) would round.
        turned = [(cosine, sine), (-sine, cosine), (-cosine, -sine), (sine, -cosine)][order % 4]
        factor = self.amplitudes * self.frequencies**order
        return torch.cat([factor * turned[0], factor * turned[1]], dim=1) @ self.rotation

    def rotated(self, rotation: Tensor) -> TrigonometricBasis:
        """See `AxisBasis`."""
        return TrigonometricBasis(
            self.frequencies, self.amplitudes, self.centre, self.rotation @ rotation
        )

    def to(self, device: torch.device) -> TrigonometricBasis:
        """See `AxisBasis`."""
        parts = (self.frequencies.to(device), self.amplitudes.to(device))
        return TrigonometricBasis(*parts, self.centre, self.rotation.to(device))

    def to_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """See `AxisBasis`."""
        tensors = {
            "frequencies": self.frequencies,
            "amplitudes": self.amplitudes,
            "rotation": self.rotation,
        }
        return {"kind": self.kind, "centre": self.centre}, tensors


class KernelBasis:
    """k(x, X_j) of nodes X, linearly combined: for kernels whose root has no closed form.

    Args:
        kernel: The mixture.
        nodes: X (k,).
        rotation: (k, r): V Lam^(-1/2) of K(X, X) makes f(x) . f(y) the projected kernel.
    """

    kind = "kernel"

    def __init__(self, kernel: SpectralMixture, nodes: Tensor, rotation: Tensor) -> None:
        self.kernel, self.nodes, self.rotation = kernel, nodes, rotation

    @property
    def size(self) -> int:
        """Number of functions."""
        return self.rotation.shape[1]

    def __call__(self, x: Tensor, order: int = 0) -> Tensor:
        """See `AxisBasis`."""
        return self.kernel(x, self.nodes, order) @ self.rotation

    def rotated(self, rotation: Tensor) -> KernelBasis:
        """See `AxisBasis`."""
        return KernelBasis(self.kernel, self.nodes, self.rotation @ rotation)

    def to(self, device: torch.device) -> KernelBasis:
        """See `AxisBasis`."""
        k = self.kernel
        moved = type(k)(k.frequencies.to(device), k.widths.to(device), k.weights.to(device))
        nodes, rotation = self.nodes.to(device), self.rotation.to(device)
        return KernelBasis(moved.requires_grad_(False), nodes, rotation)

    def to_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """See `AxisBasis`."""
        tensors = {
            "frequencies": self.kernel.frequencies.detach(),
            "widths": self.kernel.widths.detach(),
            "weights": self.kernel.weights.detach(),
            "nodes": self.nodes,
            "rotation": self.rotation,
        }
        return {"kind": self.kind, "student": isinstance(self.kernel, StudentMixture)}, tensors


class StackedBasis:
    """Bases side by side, linearly combined: the components of a mixture, each with its own functions.

    Args:
        parts: The bases.
        rotation: (sum of their sizes, r): the combinations; none where absent.
    """

    kind = "stacked"

    def __init__(self, parts: Sequence[AxisBasis], rotation: Tensor | None = None) -> None:
        self.parts, self.rotation = tuple(parts), rotation

    @property
    def size(self) -> int:
        """Number of functions."""
        if self.rotation is not None:
            return self.rotation.shape[1]
        return sum(p.size for p in self.parts)

    def __call__(self, x: Tensor, order: int = 0) -> Tensor:
        """See `AxisBasis`."""
        together = torch.cat([p(x, order) for p in self.parts], dim=1)
        return together if self.rotation is None else together @ self.rotation

    def rotated(self, rotation: Tensor) -> StackedBasis:
        """See `AxisBasis`."""
        whole = rotation if self.rotation is None else self.rotation @ rotation
        return StackedBasis(self.parts, whole)

    def to(self, device: torch.device) -> StackedBasis:
        """See `AxisBasis`."""
        rotation = None if self.rotation is None else self.rotation.to(device)
        return StackedBasis([p.to(device) for p in self.parts], rotation)

    def to_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """See `AxisBasis`."""
        tensors = {} if self.rotation is None else {"rotation": self.rotation}
        specs = []
        for i, part in enumerate(self.parts):
            spec, own = part.to_state()
            specs.append(spec)
            tensors |= {f"{i}.{name}": v for name, v in own.items()}
        return {"kind": self.kind, "parts": specs}, tensors


def basis_from_state(spec: dict[str, Any], tensors: dict[str, Tensor]) -> AxisBasis:
    """The basis that `to_state` described."""
    if spec["kind"] == StackedBasis.kind:
        parts = []
        for i, own in enumerate(spec["parts"]):
            prefix = f"{i}."
            named = {n[len(prefix) :]: v for n, v in tensors.items() if n.startswith(prefix)}
            parts.append(basis_from_state(own, named))
        return StackedBasis(parts, tensors.get("rotation"))
    if spec["kind"] == TrigonometricBasis.kind:
        return TrigonometricBasis(
            tensors["frequencies"],
            tensors["amplitudes"],
            float(spec["centre"]),
            tensors["rotation"],
        )
    kind = StudentMixture if spec["student"] else GaussianMixture
    kernel = kind(tensors["frequencies"], tensors["widths"], tensors["weights"])
    return KernelBasis(kernel.requires_grad_(False), tensors["nodes"], tensors["rotation"])


def axis_basis(
    kernel: SpectralMixture,
    lower: float,
    upper: float,
    *,
    periodic: bool = False,
    nodes: int = 400,
    floor: float = FLOOR,
) -> TrigonometricBasis | KernelBasis:
    """A basis whose products are the kernel on [lower, upper].

    Args:
        kernel: The mixture of this coordinate.
        lower, upper: The interval.
        periodic: The kernel wrapped round the interval (Gaussian mixtures only): its modes are
            those of the ring, and every derivative is exactly periodic.
        nodes: Grid size for kernels without a closed root.
        floor: Modes whose amplitude is below this part of the largest are dropped.
    """
    if not isinstance(kernel, GaussianMixture):
        if periodic:
            raise ValueError("only a Gaussian mixture can be wrapped round a periodic axis here")
        x = torch.linspace(lower, upper, nodes, dtype=torch.float64)
        step = (upper - lower) / (nodes - 1)
        with torch.no_grad():
            covariance = toeplitz(kernel.column(nodes, step))
        vectors, values = truncated_eigenbasis(covariance, NODES_FLOOR)
        frozen = type(kernel)(
            kernel.frequencies.detach(), kernel.widths.detach(), kernel.weights.detach()
        )
        return KernelBasis(frozen.requires_grad_(False), x, vectors / values.sqrt())
    length = upper - lower
    frequencies, amplitudes = [], []
    heaviest = float(kernel.weights.detach().max())
    for m, s, w in zip(
        kernel.frequencies.tolist(), kernel.widths.tolist(), kernel.weights.tolist(), strict=True
    ):
        width = math.sqrt(2 * s)  # standard deviation of the Gaussian in the spectrum
        # The rule's kernel repeats after 2 pi / h: twice the length keeps the copies away.
        h = 2 * math.pi / length if periodic else min(math.pi / length, width / PER_WIDTH)
        reach = width * math.sqrt(-4 * math.log(floor))
        start = round(m / h) * h if periodic else m
        k = torch.arange(
            -math.ceil((reach + abs(start - m)) / h), math.ceil(reach / h) + 1, dtype=torch.float64
        )
        omega = start + h * k
        log_density = -((omega - m) ** 2) / (2 * width**2)
        density = torch.exp(log_density - math.log(width * math.sqrt(2 * math.pi) / h))
        kept = torch.exp(log_density / 2) >= floor
        frequencies.append(omega[kept])
        amplitudes.append((w * density[kept]).sqrt())
    omega, a = torch.cat(frequencies).abs(), torch.cat(amplitudes)
    if periodic:
        omega, a = _merged(omega, a)
    kept = a >= floor * math.sqrt(heaviest)
    omega, a = omega[kept], a[kept]
    # A frequency of zero has no sine.
    columns = torch.cat([torch.ones_like(omega), (omega > 0).to(omega)]) > 0
    rotation = torch.eye(2 * len(omega), dtype=torch.float64)[:, columns]
    return TrigonometricBasis(omega, a, (lower + upper) / 2, rotation)


def constant() -> TrigonometricBasis:
    """The function 1 alone: along a coordinate the field does not depend on."""
    one = torch.ones(1, dtype=torch.float64)
    first = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    return TrigonometricBasis(0 * one, one, 0.0, first)


def compress(basis: Any, nodes: Tensor, tolerance: float) -> tuple[Any, Tensor]:
    """The truncated eigenbasis on the nodes, and its singular values relative to the largest.

    Those below `tolerance` go: still a square root of the kernel, up to eigenvalues tolerance^2.
    """
    _, values, right = torch.linalg.svd(basis(nodes), full_matrices=False)
    kept = values > tolerance * values[0]
    return basis.rotated(right[kept].T.contiguous()), values[kept] / values[0]


def _merged(omega: Tensor, amplitudes: Tensor) -> tuple[Tensor, Tensor]:
    """Modes of a ring that occur several times become one: variances add."""
    number = torch.round(omega / omega[omega > 0].min()) if bool((omega > 0).any()) else omega
    unique, where = torch.unique(number, return_inverse=True)
    variance = torch.zeros(len(unique), dtype=torch.float64).index_add_(
        0, where, amplitudes.square()
    )
    first = torch.zeros(len(unique), dtype=torch.float64).index_copy_(0, where, omega)
    return first, variance.sqrt()
