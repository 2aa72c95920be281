"""Functions known by numbers: finite expansions in Fourier, Chebyshev or spline functions.

In    coefficients of a tensor product of one-dimensional bases, one axis per coordinate.
Out   `Expansion`, evaluated on numpy arrays (or torch tensors), differentiated exactly; as a sympy
      expression through `expanded`, so that it may stand wherever a formula may.
Next  `declare.gaussian_field` draws coefficients, `declare.samples` fits them to values on a grid.

A drawn function could be written out as a sum of sines. With 64 modes that costs every pass of the
compiler 64 terms, with two dimensions thousands; here it is one node whose derivatives are such nodes.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, final

import numpy as np
import sympy as sp
from sympy.core.function import ArgumentIndexError, UndefinedFunction

__all__ = [
    "AppliedExpansion",
    "Axis",
    "ChebyshevAxis",
    "DecayAxis",
    "Expansion",
    "FourierAxis",
    "SplineAxis",
    "expanded",
]

_AT_ONCE = 2**21  # numbers in a block of basis values: 16 MB


@final
@dataclass(frozen=True)
class FourierAxis:
    """1, cos(theta), sin(theta), cos(2 theta), ... with theta = 2 pi (x - lower) / period.

    Args:
        lower: Where theta = 0.
        period: After which values repeat.
        size: Number of functions, odd.
    """

    lower: float
    period: float
    size: int

    def rows(self, x: Any, lib: Any) -> Any:
        """The functions at x (n,): (size, n); `lib` is numpy, or torch for its tensors."""
        theta = (2 * math.pi / self.period) * (x - self.lower)
        columns = [lib.ones_like(x)]
        cos, sin = lib.cos(theta), lib.sin(theta)
        c, s = cos, sin
        for _ in range(self.size // 2):
            columns += [c, s]
            c, s = (
                c * cos - s * sin,
                s * cos + c * sin,
            )  # of the next multiple: far cheaper than cos
        return lib.stack(columns, 0)

    def derivative(self) -> tuple[FourierAxis, np.ndarray]:
        """The axis of the derivatives, and the matrix (new size, size) from coefficients to theirs."""
        matrix = np.zeros((self.size, self.size))
        for k in range(1, self.size // 2 + 1):
            rate = 2 * math.pi * k / self.period
            matrix[2 * k, 2 * k - 1], matrix[2 * k - 1, 2 * k] = -rate, rate
        return self, matrix


@final
@dataclass(frozen=True)
class ChebyshevAxis:
    """T_0, T_1, ... on [lower, upper]."""

    lower: float
    upper: float
    size: int

    @property
    def nodes(self) -> np.ndarray:
        """The points (size,), ascending, that determine the coefficients."""
        unit = -np.cos(np.pi * (np.arange(self.size) + 0.5) / self.size)
        return self.lower + (self.upper - self.lower) * (unit + 1) / 2

    @property
    def from_nodes(self) -> np.ndarray:
        """The matrix (size, size) from values at the nodes to coefficients."""
        k = np.arange(self.size)
        angle = np.pi * (1 - (k + 0.5) / self.size)
        matrix = 2 / self.size * np.cos(k[:, None] * angle)
        matrix[0] /= 2
        return matrix

    def rows(self, x: Any, lib: Any) -> Any:
        """T_k at x (n,): (size, n), by their recursion: smooth at the ends, where arccos is not."""
        s = (2 * x - (self.lower + self.upper)) / (self.upper - self.lower)
        columns = [lib.ones_like(s), s]
        for _ in range(2, self.size):
            columns.append(2 * s * columns[-1] - columns[-2])
        return lib.stack(columns[: self.size], 0)

    def derivative(self) -> tuple[ChebyshevAxis, np.ndarray]:
        """As for `FourierAxis`."""
        size = max(self.size - 1, 1)
        matrix = np.zeros((size, self.size))
        if self.size > 1:
            matrix[:] = np.polynomial.chebyshev.chebder(np.eye(self.size))
        matrix *= 2 / (self.upper - self.lower)
        return ChebyshevAxis(self.lower, self.upper, size), matrix


@final
@dataclass(frozen=True)
class SplineAxis:
    """The B-splines of a degree on a knot sequence; beyond the ends, the polynomials next to them.

    Args:
        knots: Ascending, the ends repeated degree + 1 times.
        degree: 3 for cubic splines.
    """

    knots: tuple[float, ...]
    degree: int

    @property
    def size(self) -> int:
        """Number of functions."""
        return len(self.knots) - self.degree - 1

    def rows(self, x: Any, lib: Any) -> Any:
        """The B-splines at x (n,): (size, n), by the recursion of Cox and de Boor."""
        t, p = self.knots, self.degree
        first, last = t[p], t[-p - 1]
        ones = lib.ones_like(x)
        columns = []
        for a, b in itertools.pairwise(t):
            # The first and the last cell go on beyond the ends, which rounding may cross.
            above = ones if a <= first else lib.where(x >= a, ones, 0 * ones)
            below = ones if b >= last else lib.where(x < b, ones, 0 * ones)
            columns.append(above * below if a < b else 0 * ones)
        for k in range(1, p + 1):
            columns = [
                _ratio(x - t[j], t[j + k] - t[j]) * columns[j]
                + _ratio(t[j + k + 1] - x, t[j + k + 1] - t[j + 1]) * columns[j + 1]
                for j in range(len(columns) - 1)
            ]
        return lib.stack(columns, 0)

    def derivative(self) -> tuple[SplineAxis, np.ndarray]:
        """As for `FourierAxis`; a spline of degree 0 is constant between its knots."""
        t, p, n = self.knots, self.degree, self.size
        if p == 0:
            return self, np.zeros((n, n))
        matrix = np.zeros((n - 1, n))
        for j in range(n - 1):
            gap = t[j + p + 1] - t[j + 1]
            rate = p / gap if gap > 0 else 0.0
            matrix[j, j], matrix[j, j + 1] = -rate, rate
        return SplineAxis(t[1:-1], p - 1), matrix


@final
@dataclass(frozen=True)
class DecayAxis:
    """exp(-r_k (t - lower)) for each rate r_k: how the modes of a diffusing field die away.

    Args:
        lower: Where all are 1.
        rates: r_k, not negative.
    """

    lower: float
    rates: tuple[float, ...]

    @property
    def size(self) -> int:
        """Number of functions."""
        return len(self.rates)

    def rows(self, x: Any, lib: Any) -> Any:
        """The functions at x (n,): (size, n)."""
        return lib.stack([lib.exp(-r * (x - self.lower)) for r in self.rates], 0)

    def derivative(self) -> tuple[DecayAxis, np.ndarray]:
        """As for `FourierAxis`."""
        return self, np.diag([-r for r in self.rates])


def _ratio(part: Any, whole: float) -> Any:
    return part * (1 / whole if whole > 0 else 0.0)


Axis = FourierAxis | ChebyshevAxis | SplineAxis | DecayAxis


@final
@dataclass(frozen=True, eq=False)
class Expansion:
    """f(x_1, ..., x_d) = sum_{k} c_k phi_{k_1}(x_1) ... phi_{k_d}(x_d).

    Args:
        axes: One basis per coordinate.
        coefficients: c, one dimension per axis; copied and frozen.

    >>> f = Expansion((ChebyshevAxis(0.0, 1.0, 3),), np.array([0.5, 0.5, 0.0]))  # f(x) = x
    >>> f(np.array([0.0, 0.25])).tolist(), f.derivative(0)(np.array([0.3])).tolist()
    ([0.0, 0.25], [1.0])
    """

    axes: tuple[Axis, ...]
    coefficients: np.ndarray = field(repr=False)

    def __post_init__(self) -> None:
        c = np.array(self.coefficients, dtype=float)
        sizes = tuple(a.size for a in self.axes)
        if c.shape != sizes:
            raise ValueError(f"coefficients have the shape {c.shape}, the axes {sizes}")
        c.setflags(write=False)
        object.__setattr__(self, "coefficients", c)

    @cached_property
    def digest(self) -> str:
        """A name made of the numbers: equal expansions have equal ones."""
        content = repr(self.axes).encode() + self.coefficients.tobytes()
        return hashlib.blake2b(content, digest_size=8).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expansion) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __call__(self, *columns: Any) -> np.ndarray:
        """The values at points, one array per coordinate, broadcast together."""
        arrays = np.broadcast_arrays(*(np.asarray(c, dtype=float) for c in columns))
        flat = [a.ravel() for a in arrays]
        n, width = flat[0].size, max(a.size for a in self.axes)
        block = max(1, _AT_ONCE // width)
        parts = [
            self.contract([c[i : i + block] for c in flat], self.coefficients, np)
            for i in range(0, n, block)
        ]
        return np.concatenate([*parts, np.empty(0)]).reshape(arrays[0].shape)

    def contract(self, columns: Sequence[Any], coefficients: Any, lib: Any) -> Any:
        """The sum at points (n,) per coordinate, with numpy or torch and coefficients of that kind."""
        total = coefficients.reshape(self.axes[0].size, -1).T @ self.axes[0].rows(columns[0], lib)
        for axis, x in zip(self.axes[1:], columns[1:], strict=True):
            total = (total.reshape(axis.size, -1, len(x)) * axis.rows(x, lib)[:, None]).sum(0)
        return total.reshape(-1)

    def on_grid(self, *axes: np.ndarray) -> np.ndarray:
        """The values on a tensor grid, one array of places per coordinate: much cheaper than scattered."""
        total = self.coefficients
        for axis, x in zip(self.axes, axes, strict=True):
            # The first dimension is summed and the new one put last: after all axes they are in order.
            total = np.tensordot(total, axis.rows(np.asarray(x, dtype=float), np), (0, 0))
        return total

    def derivative(self, axis: int) -> Expansion:
        """The derivative along one coordinate, exact."""
        new, matrix = self.axes[axis].derivative()
        moved = np.moveaxis(np.tensordot(matrix, self.coefficients, (1, axis)), 0, axis)
        return Expansion((*self.axes[:axis], new, *self.axes[axis + 1 :]), moved)

    @classmethod
    def interpolating(cls, axes: Sequence[np.ndarray], values: np.ndarray) -> Expansion:
        """The cubic spline (not-a-knot) through values on a grid; straight lines below four points."""
        from scipy.interpolate import make_interp_spline  # late: slow to load

        made: list[Axis] = []
        c = np.asarray(values, dtype=float)
        for i, x in enumerate(axes):
            spline = make_interp_spline(x, c, k=3 if len(x) > 3 else 1, axis=i)
            c = np.moveaxis(np.asarray(spline.c), 0, i)  # its coefficients have the axis in front
            made.append(SplineAxis(tuple(map(float, spline.t)), spline.k))
        return cls(tuple(made), c)

    @classmethod
    def periodic(
        cls, lower: Sequence[float], periods: Sequence[float], values: np.ndarray
    ) -> Expansion:
        """The trigonometric polynomial through values on an equally spaced grid without its last point."""
        c, axes = np.asarray(values, dtype=float), []
        for i, (a, period) in enumerate(zip(lower, periods, strict=True)):
            n = c.shape[i]
            half = np.fft.rfft(c, axis=i) / n
            half = np.moveaxis(half, i, 0)
            size = 2 * (n // 2) + 1
            out = np.zeros((size, *half.shape[1:]))
            out[0] = half[0].real
            for k in range(1, size // 2 + 1):
                once = 1 if 2 * k == n else 2  # the highest mode of an even grid has no sine
                out[2 * k - 1], out[2 * k] = once * half[k].real, -once * half[k].imag
                if once == 1:
                    out[2 * k] = 0.0
            c = np.moveaxis(out, 0, i)
            axes.append(FourierAxis(float(a), float(period), size))
        return cls(tuple(axes), c)


class AppliedExpansion(sp.Function):
    """An expansion at its coordinates, as a sympy expression; made by `expanded`."""

    stem: str
    base: Expansion
    orders: tuple[int, ...]
    _imp_: Expansion  # under the name by which lambdify and evalf find the numbers of a function

    @property
    def expansion(self) -> Expansion:
        """What is evaluated: the base, differentiated `orders` times along its axes."""
        return self._imp_

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        """The derivative along one argument."""
        if not 1 <= argindex <= len(self.args):
            raise ArgumentIndexError(self, argindex)
        orders = tuple(n + (i == argindex - 1) for i, n in enumerate(self.orders))
        return expanded(self.stem, self.base, *self.args, orders=orders)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return _rebuild, (self.stem, self.base, self.args, self.orders)


def expanded(
    stem: str, base: Expansion, *args: Any, orders: Sequence[int] | None = None
) -> sp.Expr:
    """The expression f(args) for an expansion f, printed as its stem and a few digits of its numbers.

    Args:
        stem: The name.
        base: The expansion f.
        args: Its arguments, one per axis.
        orders: How often it is differentiated along each axis.

    >>> x = sp.Symbol("x", real=True)
    >>> f = Expansion((FourierAxis(0.0, 2 * math.pi, 3),), np.array([0.0, 0.0, 1.0]))  # sin
    >>> round(float(expanded("f", f, x).diff(x).subs(x, sp.pi)), 12)
    -1.0
    """
    times = tuple(orders or (0,) * len(base.axes))
    f = base
    for axis, n in enumerate(times):
        for _ in range(n):
            f = f.derivative(axis)
    ending = "_d" + "".join(map(str, times)) if any(times) else ""
    # Everything that makes it this function is among the keywords: sympy compares functions by them,
    # and exchanges equal ones from its cache. So u_xy is u_yx, and a copy is the original.
    function = UndefinedFunction(
        f"{stem}_{base.digest[:6]}{ending}",
        bases=(AppliedExpansion,),
        stem=stem,
        base=base,
        orders=times,
        _imp_=f,
        real=True,
    )
    return function(*args)  # type: ignore[return-value]


def _rebuild(stem: str, base: Expansion, args: tuple[Any, ...], orders: tuple[int, ...]) -> sp.Expr:
    return expanded(stem, base, *args, orders=orders)
