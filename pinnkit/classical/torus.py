"""A periodic box: nodes, wave numbers, transforms that keep what the 2/3 rule keeps, and series.

In    a NormalForm, periodic in space, and a number of nodes per axis.
Out   `Torus`; and `from_modes`, the grid solution of stored Fourier modes.
Next  `etdrk4` and `extrapolation` integrate on it.

Modes are stored up to the cut only: (2 c + 1, c + 1) of them for (n, n) nodes, c < n / 3.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.fft

from pinnkit.classical.basis import stencil_basis
from pinnkit.classical.grid_approximation import FieldGrid, GridApproximation
from pinnkit.ir.normal_form import NormalForm

__all__ = ["Torus", "from_modes"]

Array = np.ndarray
TIME_WIDTH, SPACE_WIDTH = 10, 16  # of the stencils that read the stored values
THINNED = 1e-11  # relative L2 error that leaving out nodes or instants may add
FEWEST_INSTANTS = 16


class Torus:
    """Equally spaced nodes and the wave numbers below the cut.

    `stencil` replaces the symbols of derivatives by those of centred differences with so many nodes.
    """

    def __init__(self, nf: NormalForm, modes: int, stencil: int | None = None) -> None:
        self.nf = nf
        self.modes = modes
        self.stencil = stencil
        d = len(nf.space)
        self.d = d
        self.nodes_shape = (modes,) * d
        self.lengths = [nf.bounds[c][1] - nf.bounds[c][0] for c in nf.space]
        nodes = [
            nf.bounds[c][0] + length * np.arange(modes) / modes
            for c, length in zip(nf.space, self.lengths, strict=True)
        ]
        self.meshes = np.meshgrid(*nodes, indexing="ij")
        self.cut = (modes - 1) // 3
        self.integers = []  # per axis, shaped to broadcast
        for axis in range(d):
            positive = np.arange(self.cut + 1)
            both = np.concatenate([positive, np.arange(-self.cut, 0)])
            shape = [1] * d
            shape[axis] = -1
            self.integers.append((positive if axis == d - 1 else both).reshape(shape))
        self.shape = tuple(n.size for n in self.integers)
        self.edge = np.zeros(self.shape, dtype=bool)  # the outermost of the modes kept
        for n in self.integers:
            self.edge |= np.abs(n) >= 0.8 * modes / 3

    def symbol(self, alpha: Sequence[int]) -> Array:
        """Of a derivative by its counts per coordinate of the problem; time must not be among them."""
        out = np.ones((1,) * self.d, dtype=complex)
        for coord, length, n in zip(self.nf.space, self.lengths, self.integers, strict=True):
            count = alpha[self.nf.coords.index(coord)]
            if self.stencil is None:
                out = out * (2j * np.pi / length * n) ** count
            else:
                first, second = _difference_symbols(2 * np.pi * n / self.modes, self.stencil)
                spacing = length / self.modes
                out = out * (second / spacing**2) ** (count // 2) * (first / spacing) ** (count % 2)
        return out

    def coordinates(self, t: float) -> list[Array]:
        """Columns in the order of the problem's coordinates."""
        by_name = dict(zip(self.nf.space, self.meshes, strict=True))
        return [
            np.full((1,) * self.d, t) if c == self.nf.time else by_name[c] for c in self.nf.coords
        ]

    def forward(self, values: Array) -> Array:
        """Nodal values (i, nodes) -> modes below the cut (i, *shape)."""
        out = np.asarray(scipy.fft.rfft(values, axis=-1))[..., : self.cut + 1]
        for axis in range(1, self.d):
            full = np.asarray(scipy.fft.fft(out, axis=axis))
            out = np.concatenate(
                [_take(full, axis, 0, self.cut + 1), _take(full, axis, -self.cut, None)], axis=axis
            )
        return out

    def backward(self, modes: Array, nodes: Sequence[int] | None = None) -> Array:
        """Modes (i, *shape) -> values at the nodes, or at so many nodes per axis (amplitudes kept)."""
        nodes = nodes or self.nodes_shape
        out = modes
        for axis in range(1, self.d):
            padded = np.zeros((*out.shape[:axis], nodes[axis - 1], *out.shape[axis + 1 :]), complex)
            low, high = _take(out, axis, 0, self.cut + 1), _take(out, axis, self.cut + 1, None)
            _take(padded, axis, 0, self.cut + 1)[...] = low
            if self.cut:
                _take(padded, axis, -self.cut, None)[...] = high
            out = np.asarray(scipy.fft.ifft(padded, axis=axis, overwrite_x=True))
        values = np.asarray(scipy.fft.irfft(out, n=nodes[-1], axis=-1))
        if tuple(nodes) != self.nodes_shape:
            values *= np.prod(np.array(nodes) / self.modes)
        return values

    def weights(self) -> Array:
        """How often a stored mode counts in sums over all of them."""
        return np.where(self.integers[-1] > 0, 2.0, 1.0)


def _take(array: Array, axis: int, start: int, stop: int | None) -> Array:
    where = [slice(None)] * array.ndim
    where[axis] = slice(start, stop) if start or stop else slice(0, 0)
    return array[tuple(where)]


def _difference_symbols(angle: Array, width: int) -> tuple[Array, Array]:
    """Symbols of the centred first and second differences of unit spacing, of order width - 1.

    Weights w_j of the first derivative: (-1)^(j+1) (p!)^2 / ((p-j)! (p+j)! j); second: 2 w_j / j.
    """
    p = width // 2
    first, second = np.zeros(angle.shape), np.zeros(angle.shape)
    ratio = 1.0
    for j in range(1, p + 1):
        ratio *= (p - j + 1) / (p + j)
        weight = (-1) ** (j + 1) * ratio / j
        first = first + 2 * weight * np.sin(j * angle)
        second = second + 4 * weight / j * (np.cos(j * angle) - 1)
    return 1j * first, second


def from_modes(
    torus: Torus, times: Array, history: Array
) -> tuple[GridApproximation, dict[str, float]]:
    """Modes (instants, fields, *shape) as values on a grid on which local interpolation is exact enough.

    Instants and nodes that interpolation between the others does not miss are left out. Also
    returned: `tail`, the largest amplitude near the cut relative to the largest of all, and
    `unread`, the relative L2 error of interpolation.
    """
    nf = torus.nf
    assert nf.time is not None
    tail = _tail(torus, history)
    # A level with a tail is wrong by more than that: its values need not be read more exactly.
    goal = max(THINNED, 1e-4 * tail)
    times, history, unread = _thin(torus, times, history, goal)
    nodes, between = _node_counts(torus, history, goal)
    bases = {nf.time: stencil_basis(times, TIME_WIDTH)}
    for coord, length, count in zip(nf.space, torus.lengths, nodes, strict=True):
        points = nf.bounds[coord][0] + length * np.arange(count) / count
        bases[coord] = stencil_basis(points, SPACE_WIDTH, length)
    order = [nf.time, *nf.space]
    fields = []
    for i in range(len(nf.fields)):
        values = np.empty([bases[c].size for c in nf.coords])
        by_time = np.transpose(values, [nf.coords.index(c) for c in order])
        for k, level in enumerate(history):
            by_time[k] = torus.backward(level[i : i + 1], nodes)[0]
        fields.append(FieldGrid(tuple(bases[c] for c in nf.coords), values))
    return GridApproximation(fields), {"tail": tail, "unread": unread + between}


def _tail(torus: Torus, history: Array) -> float:
    """Over some of the stored levels."""
    size = np.abs(history[:: max(1, len(history) // 50)]).max(axis=(0, 1))
    return float(size[torus.edge].max(initial=0.0) / max(float(size.max()), 1e-300))


def _thin(torus: Torus, times: Array, history: Array, goal: float) -> tuple[Array, Array, float]:
    """Every second instant, again and again, while the others are interpolated well enough.

    Returns also the error of interpolation between the instants kept.
    """
    missed = 0.0
    while len(times) % 2 and len(times) // 2 + 1 >= FEWEST_INSTANTS:
        worst, mean = _missed(torus, times, history)
        if worst > goal:
            if missed == 0.0 and len(times) % 4 == 1:
                # None left out yet: what would be missed now from what a coarser choice misses.
                coarser = _missed(torus, times[::2], history[::2])[1]
                missed = mean * min(1.0, mean / max(coarser, 1e-300))
            break
        times, history, missed = times[::2], history[::2], mean
    return times, history, missed


def _missed(torus: Torus, times: Array, history: Array) -> tuple[float, float]:
    """(worst instant, mean) of the relative L2 error at every second instant from the others."""
    weights = torus.weights()
    axes = tuple(range(2, 2 + torus.d))

    def squares(modes: Array) -> Array:
        return (np.abs(modes) ** 2 * weights).sum(axis=axes)

    kept, left_out = history[::2], history[1::2]
    matrix = stencil_basis(times[::2], TIME_WIDTH).matrix(times[1::2])
    guess = (matrix @ kept.reshape(len(kept), -1)).reshape(left_out.shape)
    gaps, sizes = squares(guess - left_out), np.maximum(squares(kept), 1e-300)
    worst = np.sqrt((gaps.max(axis=0) / sizes.max(axis=0)).max())
    return float(worst), float(np.sqrt((gaps.mean(axis=0) / sizes.mean(axis=0)).max()))


def _node_counts(torus: Torus, history: Array, goal: float) -> tuple[list[int], float]:
    """Nodes per axis so that stencils read every mode as well as its size demands; what they miss.

    A stencil of width w misses a mode of angle a between neighbours by about sin(a / 2)^w.
    """
    sample = history[:: max(1, len(history) // 16)]
    power = np.abs(sample) ** 2 * torus.weights()
    counts, between = [], 0.0
    most = torus.modes * (4 if torus.d == 1 and torus.modes <= 512 else 2)
    for axis, n in enumerate(torus.integers):
        others = tuple(2 + k for k in range(torus.d) if k != axis)
        size = np.sqrt(power.sum(axis=others)).max(axis=0)  # (fields, modes of this axis)
        total = np.sqrt((size**2).sum(axis=1))
        count = max(SPACE_WIDTH, 2 * torus.cut + 2)
        while True:
            missed = (size * np.abs(np.sin(np.pi * n.ravel() / count)) ** SPACE_WIDTH).sum(axis=1)
            share = float((missed / np.maximum(total, 1e-300)).max())
            if share <= goal or count >= most:
                break
            longer = scipy.fft.next_fast_len(int(1.1 * count) + 1, real=True)
            count = min(most, int(longer or most))
        counts.append(count)
        between += share
    return counts, between
